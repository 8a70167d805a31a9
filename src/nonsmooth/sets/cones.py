"""Closed convex cones, known by their projection: the normal cones of constraints.

A cone K of R^m answers what its nearest element to a vector is, and onto which subspace the projection maps nearby
vectors. By Moreau's theorem the rest of a vector is its projection to the polar cone:

    w = P_K(w) + P_K°(w),   <P_K(w), P_K°(w)> = 0,   K° = { u : <u, k> <= 0 for all k in K }.

Over 300 lines: five short classes of one kind, whose examples stand beside them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import read_array

__all__ = ["ConvexCone", "GeneratedCone", "LargestCoordinates", "Orthant", "ProductCone", "Rays"]

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""A multiple of a generator below it, relative to the largest, is none."""


class ConvexCone(ABC):
    """A closed convex cone K of R^space, known by its projection.

    Status: `computed`.

    Source: Rockafellar1970.
    """

    @property
    @abstractmethod
    def space(self) -> int:
        """The number of coordinates of a vector."""

    @abstractmethod
    def project(self, w: Vector) -> Vector:
        """Give P_K(w), the element of K nearest to w, shape (space,)."""

    @abstractmethod
    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows to the span of the face of K that P_K(w) lies inside: a derivative of P_K at w.

        Args:
            w: shape (space,).
            rows: shape (k, space).
        """

    def polar_part(self, w: Vector) -> Vector:
        """Give w - P_K(w), the element of the polar cone nearest to w.

        >>> Orthant([False], [True]).polar_part(np.array([-2.0]))
        array([-2.])

        Source: Rockafellar1970.
        """
        return np.asarray(w - self.project(w))

    def distance(self, w: Vector) -> float:
        """Give the Euclidean distance from w to K.

        >>> Orthant([False, True], [True, True]).distance(np.array([-2.0, 5.0]))
        2.0

        Source: Rockafellar1970.
        """
        return float(np.linalg.norm(self.polar_part(w)))

    def __repr__(self) -> str:
        """Name the kind and the space."""
        return f"{type(self).__name__} of R^{self.space}"


class Orthant(ConvexCone):
    """A product of {0}, half-lines and lines, one for each coordinate: the normal cone of a box.

        K = { w : w_i >= 0 unless negative_i, w_i <= 0 unless positive_i }

    Args:
        negative: whether a coordinate may be negative, shape (space,).
        positive: whether it may be positive, shape (space,).

    Raises:
        UsageError: shapes that differ.

    >>> Orthant([False, True, False], [True, True, False]).project(np.array([-1.0, -1.0, 3.0])) + 0
    array([ 0., -1.,  0.])

    Source: Rockafellar1970.
    """

    def __init__(self, negative: Any, positive: Any) -> None:
        self.negative, self.positive = np.asarray(negative, dtype=bool), np.asarray(positive, dtype=bool)
        if self.negative.ndim != 1 or self.negative.shape != self.positive.shape:
            raise UsageError(
                f"Orthant was given shapes {self.negative.shape} and {self.positive.shape}; pass two of (space,)."
            )

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return len(self.negative)

    def _kept(self, w: Vector) -> Mask:
        """Mark the coordinates that stay."""
        return np.asarray(np.where(w < 0, self.negative, self.positive))

    def project(self, w: Vector) -> Vector:
        """Give P_K(w): coordinates of a sign that is not allowed become 0."""
        return np.where(self._kept(w), w, 0.0)

    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows to the coordinates that stay."""
        return np.where(self._kept(w), rows, 0.0)


class Rays(ConvexCone):
    """A product of half-lines { t u_i : t >= 0 } in blocks of coordinates: the normal cone of Euclidean balls.

    Args:
        directions: u_i, shape (n, d), space = n d; a row of zeros stands for the cone {0}.

    Raises:
        UsageError: another shape, nan or infinity.

    >>> Rays([[3.0, 4.0]]).project(np.array([5.0, 0.0]))
    array([1.8, 2.4])

    Source: Rockafellar1970.
    """

    def __init__(self, directions: Any) -> None:
        found = read_array(directions, "the directions of Rays")
        if found.ndim != 2:
            raise UsageError(f"Rays was given directions of shape {found.shape}; pass the shape (number, coordinates).")
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        self.units = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return int(self.units.size)

    def project(self, w: Vector) -> Vector:
        """Give P_K(w): block by block the part along the half-line."""
        along = np.maximum(np.sum(w.reshape(self.units.shape) * self.units, axis=1), 0.0)
        return np.asarray((along[:, None] * self.units).ravel())

    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows to the lines of those half-lines that w has a part along."""
        kept = np.sum(w.reshape(self.units.shape) * self.units, axis=1) > 0
        blocks = rows.reshape(len(rows), *self.units.shape)
        along = np.sum(blocks * self.units, axis=2) * kept
        return np.asarray((along[:, :, None] * self.units).reshape(rows.shape))


class GeneratedCone(ConvexCone):
    """The cone generated by rays and lines: the normal cone of a polyhedron.

        K = { sum_i t_i a_i + sum_j s_j e_j : t >= 0 }

    The projection is a least-squares problem with t >= 0.

    Args:
        rays: a_i, shape (number, space); the number may be 0.
        lines: e_j, likewise.
        space: the number of coordinates.

    Raises:
        UsageError: shapes that do not fit, nan or infinity.

    >>> cone = GeneratedCone([[1.0, 0.0], [1.0, 1.0]], [], 2)
    >>> cone.project(np.array([0.0, 2.0])).round(12), cone.project(np.array([-1.0, -1.0])) + 0
    (array([1., 1.]), array([0., 0.]))

    Source: LawsonHanson1974.
    """

    def __init__(self, rays: Any, lines: Any, space: int) -> None:
        self._space = int(space)
        a, e = (read_array(v, f"the {n} of a GeneratedCone") for v, n in ((rays, "rays"), (lines, "lines")))
        a, e = (v.reshape(0, self._space) if v.size == 0 else v for v in (a, e))
        if a.ndim != 2 or e.ndim != 2 or {a.shape[1], e.shape[1]} != {self._space}:
            raise UsageError(
                f"GeneratedCone of R^{self._space} was given rays of shape {a.shape} and lines of shape {e.shape}; pass "
                f"shapes (number, {self._space})."
            )
        self._basis = _basis(e)
        a = a - (a @ self._basis.T) @ self._basis
        lengths = np.linalg.norm(a, axis=1)
        kept = lengths > ROUNDING * max(lengths.max(initial=0.0), 1e-300)
        self.rays = a[kept] / lengths[kept, None]

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return self._space

    def _multiples(self, w: Vector) -> Vector:
        """Give the t of the projection of what the lines leave."""
        if not len(self.rays):
            return np.zeros(0)
        return np.asarray(nnls(self.rays.T, w - (w @ self._basis.T) @ self._basis)[0])

    def project(self, w: Vector) -> Vector:
        """Give P_K(w)."""
        return np.asarray(self._multiples(w) @ self.rays + (w @ self._basis.T) @ self._basis)

    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows to the span of the rays used, and of the lines."""
        t = self._multiples(w)
        used = self.rays[t > ROUNDING * t.max(initial=0.0)]
        basis = np.concatenate([self._basis, _basis(used)])
        return np.asarray((rows @ basis.T) @ basis)


class LargestCoordinates(ConvexCone):
    """The vectors whose largest coordinates include given ones: the normal cone of a simplex or of an l1 ball.

        K = { w : w_i = c for i in S, w_i <= c for the others; c in R }                  without signs
        K = { w : s_i w_i = c for s_i != 0, |w_i| <= c for the others; c >= 0 }          with signs s

    Args:
        members: S, a mask of shape (space,), at least one; or the signs s, in {-1, 0, 1}, with `signed`.
        signed: which of the two.

    Raises:
        UsageError: no member.

    >>> LargestCoordinates([True, True, False]).project(np.array([1.0, 3.0, 5.0]))
    array([3., 3., 3.])
    >>> LargestCoordinates([-1, 0], signed=True).project(np.array([-3.0, 1.0]))
    array([-3.,  1.])

    Source: Rockafellar1970.
    """

    def __init__(self, members: Any, signed: bool = False) -> None:
        found = np.asarray(members, dtype=np.float64)
        if found.ndim != 1 or not np.any(found):
            raise UsageError(f"LargestCoordinates was given members of shape {found.shape}; pass a mask with a member.")
        self.signs, self.signed = np.sign(found), signed

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return len(self.signs)

    def _level(self, w: Vector) -> tuple[float, Vector]:
        """Give c, and the signs of the coordinates that are put to it, 0 for those that are left."""
        inside = self.signs != 0
        others = np.abs(w) if self.signed else w
        falling = np.sort(others[~inside])[::-1]
        sums = float(self.signs[inside] @ w[inside]) + np.concatenate([[0.0], np.cumsum(falling)])
        levels = sums / (inside.sum() + np.arange(len(sums)))
        c = float(levels[np.count_nonzero(falling > levels[:-1])])
        if self.signed and c <= 0:
            return 0.0, np.sign(w)
        above = ~inside & (others > c)
        return c, np.where(above, np.sign(w) if self.signed else 1.0, self.signs)

    def project(self, w: Vector) -> Vector:
        """Give P_K(w): the members and what is above them meet at their mean."""
        c, signs = self._level(w)
        return np.asarray(np.where(signs != 0, c * signs, w if c or not self.signed else 0.0))

    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows: the mean of the coordinates that are put to one level, the others as they are."""
        c, signs = self._level(w)
        if self.signed and c == 0:
            return np.zeros_like(rows)
        level = rows @ signs / np.count_nonzero(signs)
        return np.where(signs != 0, level[:, None] * signs, rows)


class ProductCone(ConvexCone):
    """The product of cones, their coordinates side by side.

    Args:
        parts: cones.

    >>> both = ProductCone([Orthant([True], [False]), Rays([[1.0, 0.0]])])
    >>> both.project(np.array([2.0, 3.0, 4.0])) + 0
    array([0., 3., 0.])

    Source: Rockafellar1970.
    """

    def __init__(self, parts: Sequence[ConvexCone]) -> None:
        self.parts = tuple(parts)
        self._cuts = np.cumsum([part.space for part in self.parts])

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return int(self._cuts[-1]) if len(self.parts) else 0

    def project(self, w: Vector) -> Vector:
        """Give P_K(w), part by part."""
        pieces = np.split(w, self._cuts[:-1])
        return np.concatenate([k.project(one) for k, one in zip(self.parts, pieces, strict=True)])

    def project_face(self, w: Vector, rows: Vector) -> Vector:
        """Project rows part by part."""
        pieces, blocks = np.split(w, self._cuts[:-1]), np.split(rows, self._cuts[:-1], axis=1)
        return np.hstack([k.project_face(one, block) for k, one, block in zip(self.parts, pieces, blocks, strict=True)])


def _basis(rows: Vector) -> Vector:
    """Give an orthonormal basis of the span of rows."""
    if not rows.size:
        return rows.reshape(0, rows.shape[1])
    _, s, axes = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(axes[s > ROUNDING * len(s) * max(float(s.max()), 1e-300)])
