"""Constraints: the closed convex sets Y over which a min-max problem is maximised.

A constraint says of an array where its projection to Y is and what the normal cone of Y is there:

    P_Y(y) = argmin { |z - y| : z in Y },   N_Y(y) = { w : <w, z - y> <= 0 for all z in Y },   y in Y.

One constraint holds for every array of a point; a tree of them, like the point, gives each array its own (None: no
constraint). `batch` counts the leading axes of an array whose entries are constrained separately, a sample each, say.

Over 300 lines: seven short classes of one kind, whose examples stand beside them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linprog, nnls

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.sets import Ball, ConvexCone, GeneratedCone, LargestCoordinates, Orthant, ProductCone, Rays

__all__ = ["Box", "Constraint", "EuclideanBall", "L1Ball", "Polyhedron", "Simplex", "WholeSpace"]


class Constraint(ABC):
    """A closed convex set Y of arrays.

    Status: `computed`; exact up to rounding.

    Source: Rockafellar1970.
    """

    @abstractmethod
    def project(self, y: Floats) -> Floats:
        """Give the element of Y nearest to y, an array of the same shape."""

    @abstractmethod
    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give N_Y(y), a cone of R^(number of entries).

        Args:
            y: an element of Y, up to the tolerance.
            tolerance: an inequality counts as active within this distance.
        """

    def distance(self, y: Floats) -> float:
        """Give the Euclidean distance from y to Y.

        >>> Box(0.0, 1.0).distance(np.array([3.0, 0.5]))
        2.0

        Source: Rockafellar1970.
        """
        return float(np.linalg.norm(y - self.project(y)))


class WholeSpace(Constraint):
    """No constraint: Y is the whole space, N_Y(y) = {0}.

    >>> WholeSpace().normal_cone(np.zeros(2)).project(np.array([1.0, -1.0])) + 0
    array([0., 0.])

    Source: Rockafellar1970.
    """

    def project(self, y: Floats) -> Floats:
        """Give y itself."""
        return y

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give {0}."""
        nowhere = np.zeros(y.size, dtype=bool)
        return Orthant(nowhere, nowhere)


class Box(Constraint):
    """A box: Y = { y : lower <= y <= upper }, entry by entry; the ball of the maximum norm is Box(c - r, c + r).

    Args:
        lower: a number, or an array that broadcasts to that of y; -inf for none.
        upper: likewise; inf for none.

    Raises:
        UsageError: nan, or a lower bound above the upper one.

    >>> box = Box(-1.0, 1.0)
    >>> box.project(np.array([3.0, 0.5])), box.normal_cone(np.array([1.0, 0.5])).project(np.array([2.0, 2.0]))
    (array([1. , 0.5]), array([2., 0.]))

    Source: Rockafellar1970.
    """

    def __init__(self, lower: Any = -math.inf, upper: Any = math.inf) -> None:
        self.lower, self.upper = (
            _numbers(lower, "the lower bound of a Box"),
            _numbers(upper, "the upper bound of a Box"),
        )
        try:
            ordered = bool(np.all(self.lower <= self.upper))
        except ValueError as error:
            raise UsageError(f"Box was given bounds of shapes {self.lower.shape} and {self.upper.shape}.") from error
        if not ordered:
            raise UsageError("Box was given a lower bound above the upper one: the set would be empty.")

    def project(self, y: Floats) -> Floats:
        """Give the nearest element: y clipped."""
        return np.clip(y, *(_like(b, y, "a bound of a Box") for b in (self.lower, self.upper)))

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give the orthant whose coordinates may point out of the box where y is at a bound."""
        lower, upper = (_like(b, y, "a bound of a Box") for b in (self.lower, self.upper))
        return Orthant((y <= lower + tolerance).ravel(), (y >= upper - tolerance).ravel())


class _Batched(Constraint):
    """A constraint that holds for every entry of the leading axes separately."""

    def __init__(self, batch: int) -> None:
        if isinstance(batch, bool) or batch != int(batch) or batch < 0:
            raise UsageError(f"batch={batch!r}: pass how many leading axes are constrained separately, 0 or more.")
        self.batch = int(batch)

    def _rows(self, y: Floats) -> Floats:
        """Lay the array out with a row for each separate set."""
        if y.ndim < self.batch:
            raise UsageError(f"batch={self.batch}, but the array has {y.ndim} axes only: shape {y.shape}.")
        lead = y.shape[: self.batch]
        return y.reshape(math.prod(lead), math.prod(y.shape[self.batch :]))


class EuclideanBall(_Batched):
    """A Euclidean ball: Y = { y : |y - center| <= radius }, for every entry of the first `batch` axes separately.

        N_Y(y) = { t (y - center) : t >= 0 } on the sphere, {0} inside

    Args:
        radius: positive.
        center: a number, or an array that broadcasts to that of y.
        batch: how many leading axes count separate balls.

    Raises:
        UsageError: a radius that is not positive and finite.

    >>> ball = EuclideanBall(5.0, batch=1)
    >>> ball.project(np.array([[6.0, 8.0], [0.0, 1.0]]))
    array([[3., 4.],
           [0., 1.]])

    Source: Rockafellar1970.
    """

    def __init__(self, radius: float, center: Any = 0.0, batch: int = 0) -> None:
        super().__init__(batch)
        self.radius, self.center = (
            _positive(radius, "EuclideanBall"),
            _numbers(center, "the center of an EuclideanBall"),
        )

    def project(self, y: Floats) -> Floats:
        """Give the nearest element: what is outside is shortened."""
        center = _like(self.center, y, "the center of an EuclideanBall")
        rows = self._rows(y - center)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(center + (rows * (self.radius / np.maximum(lengths, self.radius))).reshape(y.shape))

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give the half-lines outwards for rows on the sphere."""
        rows = self._rows(y - _like(self.center, y, "the center of an EuclideanBall"))
        on = np.linalg.norm(rows, axis=1, keepdims=True) >= self.radius - tolerance
        return Rays(np.where(on, rows, 0.0))


class L1Ball(_Batched):
    """A ball of the l1-norm: Y = { y : sum |y - center| <= radius }, for every entry of the first `batch` axes separately.

        N_Y(y) = { w : w_i = c sign(y_i - center_i) where that is not 0, |w_i| <= c elsewhere; c >= 0 } on the boundary

    Args:
        radius: positive.
        center: a number, or an array that broadcasts to that of y.
        batch: how many leading axes count separate balls.

    Raises:
        UsageError: a radius that is not positive and finite.

    >>> L1Ball(1.0).project(np.array([2.0, 1.0, 0.0]))
    array([1., 0., 0.])

    Source: Rockafellar1970.
    """

    def __init__(self, radius: float, center: Any = 0.0, batch: int = 0) -> None:
        super().__init__(batch)
        self.radius, self.center = _positive(radius, "L1Ball"), _numbers(center, "the center of an L1Ball")

    def project(self, y: Floats) -> Floats:
        """Give the nearest element: entries shrink by one threshold."""
        center = _like(self.center, y, "the center of an L1Ball")
        rows = self._rows(y - center)
        ball = Ball(np.zeros(rows.shape[1]), self.radius, 1.0)
        found = [row if np.abs(row).sum() <= self.radius else ball.nearest(row).point for row in rows]
        return np.asarray(center + np.array(found).reshape(y.shape))

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give the vectors whose largest entries include those of y."""
        rows = self._rows(y - _like(self.center, y, "the center of an L1Ball"))
        return ProductCone([self._normals(row, tolerance) for row in rows])

    def _normals(self, row: Floats, tolerance: float) -> ConvexCone:
        """Give the cone of one ball."""
        inside = np.zeros(len(row), dtype=bool)
        if np.abs(row).sum() < self.radius - tolerance * math.sqrt(len(row)):
            return Orthant(inside, inside)
        return LargestCoordinates(np.where(np.abs(row) > tolerance, np.sign(row), 0.0), signed=True)


class Simplex(_Batched):
    """A simplex: Y = { y : y >= 0, sum y = total }, for every entry of the first `batch` axes separately.

        N_Y(y) = { w : w_i = c where y_i > 0, w_i <= c elsewhere; c in R }

    Args:
        total: positive; 1 for probabilities.
        batch: how many leading axes count separate simplices.

    Raises:
        UsageError: a total that is not positive and finite.

    >>> simplex = Simplex()
    >>> simplex.project(np.array([2.0, 1.5, 0.0])).round(12)
    array([0.75, 0.25, 0.  ])
    >>> simplex.normal_cone(np.array([1.0, 0.0])).distance(np.array([1.0, 3.0])).__round__(6)
    1.414214

    Source: Rockafellar1970.
    """

    def __init__(self, total: float = 1.0, batch: int = 0) -> None:
        super().__init__(batch)
        self.total = _positive(total, "Simplex")

    def project(self, y: Floats) -> Floats:
        """Give the nearest element: entries less one threshold, those above 0."""
        rows = self._rows(y)
        falling = -np.sort(-rows, axis=1)
        cuts = (np.cumsum(falling, axis=1) - self.total) / np.arange(1, rows.shape[1] + 1)
        last = np.count_nonzero(falling > cuts, axis=1) - 1
        return np.asarray(np.maximum(rows - np.take_along_axis(cuts, last[:, None], axis=1), 0.0).reshape(y.shape))

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give the vectors that are largest where y is positive."""
        rows = self._rows(y)
        return ProductCone([LargestCoordinates((row > tolerance) | (row == row.max())) for row in rows])


class Polyhedron(Constraint):
    """A polyhedron: Y = { y : A y <= b, E y = e }, y laid out as a vector.

        N_Y(y) = { A_I' t + E' s : t >= 0 },   I the rows that are active at y

    Args:
        A: shape (inequalities, entries of y).
        b: shape (inequalities,).
        E: shape (equations, entries of y), or None.
        e: shape (equations,), or None.

    Raises:
        UsageError: shapes that do not fit, nan or infinity, or an empty set.

    >>> halfplane = Polyhedron([[1.0, 1.0]], [0.0])
    >>> halfplane.project(np.array([1.0, 1.0])).round(12) + 0
    array([0., 0.])

    Source: LawsonHanson1974.
    """

    def __init__(self, A: Any, b: Any, E: Any = None, e: Any = None) -> None:
        self.A, self.b = _numbers(A, "the matrix of a Polyhedron"), _numbers(b, "the bounds of a Polyhedron")
        width = self.A.shape[1] if self.A.ndim == 2 else 0
        self.E = _numbers(np.zeros((0, width)) if E is None else E, "the equations of a Polyhedron")
        self.e = _numbers(np.zeros(0) if e is None else e, "the equations' right-hand side")
        fit = self.A.ndim == self.E.ndim == 2 and self.E.shape[1] == width
        if not fit or self.b.shape != self.A.shape[:1] or self.e.shape != self.E.shape[:1]:
            raise UsageError(
                f"Polyhedron was given shapes A {self.A.shape}, b {self.b.shape}, E {self.E.shape}, e {self.e.shape}; pass "
                "(m, n), (m,), (k, n), (k,)."
            )
        if not all(np.isfinite(a).all() for a in (self.A, self.b, self.E, self.e)):
            raise UsageError("Polyhedron was given infinity; leave out what does not bind.")
        found = linprog(np.zeros(width), self.A, self.b, self.E, self.e, bounds=(None, None))
        if found.status == 2:
            raise UsageError("Polyhedron was given inequalities that no point satisfies.")

    def project(self, y: Floats) -> Floats:
        """Give the nearest element, by least-distance programming: a problem of nonnegative least squares."""
        z = self._vector(y)
        if bool((self.A @ z <= self.b).all()) and bool((self.E @ z == self.e).all()):
            return y
        rows = np.vstack([self.A, self.E, -self.E])
        excess = np.concatenate([self.A @ z - self.b, self.E @ z - self.e, self.e - self.E @ z])
        size = float(np.abs(excess).max())
        t, _ = nnls(np.vstack([-rows.T, excess / size]), np.eye(len(z) + 1)[-1])
        rest = np.append(-rows.T @ t, excess @ t / size) - np.eye(len(z) + 1)[-1]
        return np.asarray((z - size * rest[:-1] / rest[-1]).reshape(y.shape))

    def normal_cone(self, y: Floats, tolerance: float = 0.0) -> ConvexCone:
        """Give the cone of the active rows."""
        z = self._vector(y)
        slack = (self.b - self.A @ z) / np.maximum(np.linalg.norm(self.A, axis=1), 1e-300)
        return GeneratedCone(self.A[slack <= tolerance], self.E, z.size)

    def _vector(self, y: Floats) -> Floats:
        """Lay y out."""
        if y.size != self.A.shape[1]:
            raise UsageError(f"a Polyhedron of R^{self.A.shape[1]} was given an array of shape {y.shape}.")
        return y.ravel()


class Constraints:
    """The constraints of all arrays of a point, side by side, in the coordinates of the flat point.

    Args:
        given: one constraint, a tree of them like the point (None: no constraint), or None.
        leaves: the arrays of the point, and their structure; `flatten` takes a tree apart.
    """

    def __init__(self, given: Any, leaves: list[Floats], structure: Any, flatten: Callable[[Any], Any]) -> None:
        if given is None or isinstance(given, Constraint):
            parts = [given] * len(leaves)
        else:
            parts, own = flatten(given)
            if own != structure or not all(part is None or isinstance(part, Constraint) for part in parts):
                raise UsageError(
                    "constraint= takes a Constraint (ns.optim.Box, ns.optim.Simplex, ...), or a tree of them like y; found a "
                    f"{type(given).__name__} of another structure or with other leaves."
                )
        self.parts = [WholeSpace() if part is None else part for part in parts]
        self.shapes = [leaf.shape for leaf in leaves]
        self._cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def _split(self, y: Floats) -> list[Floats]:
        """Cut a flat point into its arrays."""
        return [part.reshape(shape) for part, shape in zip(np.split(y, self._cuts), self.shapes, strict=True)]

    def project(self, y: Floats) -> Floats:
        """Give the nearest element of Y, flat."""
        found = zip(self.parts, self._split(y), strict=True)
        return np.concatenate([np.ravel(part.project(leaf)) for part, leaf in found])

    def normal_cone(self, y: Floats, tolerance: float) -> ConvexCone:
        """Give N_Y(y)."""
        cones = [part.normal_cone(leaf, tolerance) for part, leaf in zip(self.parts, self._split(y), strict=True)]
        return cones[0] if len(cones) == 1 else ProductCone(cones)


def _numbers(value: Any, what: str) -> Floats:
    """Read numbers, infinite ones too."""
    try:
        found = np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be numbers; found a {type(value).__name__}: {error}.") from error
    if np.isnan(found).any():
        raise UsageError(f"{what} holds nan.")
    return found


def _positive(value: float, name: str) -> float:
    """Read a positive number."""
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise UsageError(f"{name} was given {value!r} for its size; pass a positive finite number.")
    return float(value)


def _like(value: Floats, y: Floats, what: str) -> Floats:
    """Broadcast numbers to the shape of an array."""
    try:
        return np.broadcast_to(value, y.shape)
    except ValueError as error:
        raise UsageError(
            f"{what} has shape {value.shape}, which does not broadcast to that of y, {y.shape}."
        ) from error
