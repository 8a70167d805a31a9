"""Convex sets, known by their support function: what all of them can be asked.

A set is nonempty, compact and convex, and lives in R^space; its vectors are arrays of that length. It answers one
question of its own, the support value in a direction with an element that attains it, and everything else follows:
distance, membership, shortest vector, bounding box, dimension. A set that is only bracketed answers with intervals.

Over 300 lines: one class, the common face of all sets, whose examples stand beside its methods.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import mixtures, read_array, too_many
from nonsmooth.sets.bounded import Bounded
from nonsmooth.sets.minimum_norm import LIMIT, TOLERANCE, MinimumNorm, Support, find_nearest
from nonsmooth.sets.span import span_dimension

__all__ = ["ConvexSet"]

Vector = NDArray[np.float64]

MEMBERSHIP = 1e-10
"""The default tolerance of membership, relative to the largest length met."""

POOL = 32
"""At most so many directions, and their opposites, give the support points that are mixed in a sample."""


def _same(vector: Any) -> Any:
    """Give back what was given: the structure of a plain array."""
    return vector


class ConvexSet(ABC):
    """A nonempty compact convex set C in R^space, known by its support function.

        h(d) = max { <d, v> : v in C },   C = { v : <d, v> <= h(d) for all d }

    Status: `computed`, in floating point with the stated tolerances; where `exact` is False, numbers are intervals.

    Attributes:
        flatten: turns a vector in the structure of the owner into an array of shape (space,); assign one to accept it
            in every method.
        unflatten: turns such an array back; results are plain arrays until the caller does so.

    Source: Rockafellar1970.
    """

    __array_ufunc__ = None
    status: str = "computed"
    flatten: Callable[[Any], Any] = staticmethod(_same)
    unflatten: Callable[[Any], Any] = staticmethod(_same)

    @property
    @abstractmethod
    def space(self) -> int:
        """The number of coordinates of a vector."""

    @abstractmethod
    def _support(self, d: Vector) -> Support:
        """Give bounds of the support value along d, and an element that attains the lower one."""

    @property
    def exact(self) -> bool:
        """Whether the support function is known, and not only bracketed."""
        return True

    def support(self, d: Any) -> Bounded:
        """Give the support value h(d) = max { <d, v> : v in C }.

        Args:
            d: the direction, shape (space,) or in the structure of the owner.

        Raises:
            UsageError: the direction has another length, or holds nan or infinity.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0, 0.0], [1.0, 2.0]]).support([1.0, 1.0])
        3.0

        Source: Rockafellar1970.
        """
        found = self._support(self._vector(d, "a direction"))
        return Bounded(found.lower, found.upper)

    def support_point(self, d: Any) -> Vector:
        """Give an element v of C with <d, v> = h(d), or = the lower bound of h(d) where C is bracketed.

        Args:
            d: the direction, shape (space,) or in the structure of the owner.

        Raises:
            UsageError: the direction has another length, or holds nan or infinity.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0, 0.0], [1.0, 2.0]]).support_point([1.0, 1.0])
        array([1., 2.])

        Source: Rockafellar1970.
        """
        return self._support(self._vector(d, "a direction")).point

    def nearest(self, v: Any, tolerance: float = TOLERANCE, limit: int = LIMIT) -> MinimumNorm:
        """Give the element nearest to v, with its distance and a separating direction.

            min { |c - v| : c in C }

        Status: `computed`; the lower bound is the value of a support function, the upper one the distance to an element.

        Args:
            v: shape (space,) or in the structure of the owner.
            tolerance: of the distance, relative to the largest length met.
            limit: the most support values taken.

        Raises:
            UsageError: v has another length, or holds nan or infinity.

        >>> from nonsmooth.sets import Hull
        >>> found = Hull([[0.0, 0.0], [2.0, 0.0]]).nearest([1.0, 3.0])
        >>> found.point.round(12) + 0, round(found.norm, 12), found.direction.round(12) + 0
        (array([1., 0.]), 3.0, array([0., 1.]))

        Source: Wolfe1976.
        """
        return self._nearest(self._vector(v, "a vector"), tolerance, limit, None)

    def minimum_norm(self, tolerance: float = TOLERANCE, limit: int = LIMIT) -> MinimumNorm:
        """Give the shortest element, with its length and a direction of descent.

            min { |c| : c in C },   max { <direction, v> : v in C } <= -norm.lower

        Where C holds the subgradients of a function, `direction` is one along which it decreases; None: 0 is in C, or
        nothing tells that it is not.

        Args:
            tolerance: of the length, relative to the largest length met.
            limit: the most support values taken.

        >>> from nonsmooth.sets import Hull
        >>> point, norm, direction, *_ = Hull([[1.0, 1.0], [1.0, -2.0]]).minimum_norm()
        >>> point.round(12) + 0, round(norm, 12)
        (array([1., 0.]), 1.0)

        Source: Wolfe1976.
        """
        return self._nearest(np.zeros(self.space), tolerance, limit, None)

    def distance(self, v: Any = 0) -> Bounded:
        """Give the Euclidean distance from v to C.

        Args:
            v: 0, shape (space,), or in the structure of the owner.

        Raises:
            UsageError: v has another length, or holds nan or infinity.

        >>> from nonsmooth.sets import Hull
        >>> round(Hull([[0.0, 0.0], [2.0, 0.0]]).distance([1.0, 4.0]), 12)
        4.0

        Source: Wolfe1976.
        """
        zero = isinstance(v, int | float) and v == 0
        return self.minimum_norm().norm if zero else self.nearest(v).norm

    def contains(self, v: Any, tol: float | None = None) -> bool | None:
        """Say whether v is in C up to a tolerance: True, False, or None where it cannot be decided.

            True: |v - c| <= tol for a computed element c;   False: h(d) + tol < <d, v> for a computed unit vector d

        Status: `computed`. None means that C is bracketed and v between its parts, that the search came to its limit,
        or that the distance is tol up to rounding.

        Args:
            v: shape (space,) or in the structure of the owner.
            tol: the largest distance that counts as inside; by default 1e-10 of the largest length among v and the
                elements met, or the rounding of a set that was computed in single precision. One below rounding (1e-12
                of it) is raised to that.

        Raises:
            UsageError: v has another length, or holds nan or infinity; tol is negative or nan.

        >>> from nonsmooth.sets import Hull
        >>> triangle = Hull([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> triangle.contains([0.25, 0.25]), triangle.contains([0.6, 0.6]), triangle.contains([0.6, 0.6], tol=0.2)
        (True, False, True)

        Source: Rockafellar1970.
        """
        if tol is not None and not 0 <= tol < math.inf:
            raise UsageError(f"contains was asked with tol={tol!r}; pass a finite number that is not negative.")
        target = self._vector(v, "a vector")
        tol = self._rounding() if tol is None else tol
        found = self._nearest(target, TOLERANCE, LIMIT, tol)
        least = 2 * TOLERANCE * found.scale
        bound = MEMBERSHIP * found.scale if tol is None else max(tol, least)
        if tol is not None and found.norm.lower <= bound < found.norm.upper:
            found = self._nearest(target, TOLERANCE, LIMIT, None)
        if found.norm.upper <= bound:
            return True
        return False if found.norm.lower > bound else None

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C (its outer part, where C is bracketed).

            lower_i = -h(-e_i),   upper_i = h(e_i)

        Returns:
            Two arrays of shape (space,).

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0, 0.0], [1.0, -2.0]]).box()
        (array([ 0., -2.]), array([1., 0.]))

        Source: Rockafellar1970.
        """
        unit, lower, upper = np.zeros(self.space), np.zeros(self.space), np.zeros(self.space)
        for i in range(self.space):
            unit[i] = 1.0
            upper[i] = self._support(unit).upper
            lower[i] = 0.0 - self._support(-unit).upper
            unit[i] = 0.0
        return lower, upper

    def vertices(self, limit: int = 10_000) -> Vector:
        """Give the extreme points of a polytope, in no particular order.

        Status: `computed`; a point within 1e-10 of the size of the set from the hull of the others is not extreme.

        Args:
            limit: the most vertices that are wanted.

        Returns:
            An array of shape (number, space).

        Raises:
            UsageError: C is not known as a polytope, or has more vertices than the limit.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0], [1.0], [3.0]]).vertices()
        array([[0.],
               [3.]])

        Source: Ziegler1995.
        """
        found = self._vertices(limit)
        if len(found) > limit:
            raise too_many(type(self).__name__, len(found), limit)
        return found

    def _vertices(self, limit: int) -> Vector:
        """Give the extreme points; each polytope does so in its own way."""
        raise UsageError(
            f"vertices() was asked of a {type(self).__name__}, which is not known as a polytope: it may have no finite "
            "set of extreme points. Use support_point(d) for extreme points along directions, or sample(n)."
        )

    def sample(self, n: int, seed: int = 0) -> Vector:
        """Draw elements of C, extreme ones and others; of no particular distribution.

        Args:
            n: how many.
            seed: of the draws; no generator of the user's is touched.

        Returns:
            An array of shape (n, space).

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0, 0.0], [1.0, 1.0]]).sample(5).shape
        (5, 2)

        Source: Rockafellar1970.
        """
        return self._sample(n, np.random.default_rng(seed))

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        """Mix support points along random directions and their opposites."""
        draws = rng.standard_normal((min(2 * self.space + 6, POOL), self.space))
        points = np.array([self._support(d).point for d in np.concatenate([draws, -draws])])
        return mixtures(points, n, rng)

    @property
    def dimension(self) -> int:
        """The dimension of the affine hull of C; a lower bound of it where C is bracketed.

        It counts the directions, orthogonal to those found before, along which two support points differ by more than
        1e-10 of the widest difference met (1e-13 of the longest element). Status: `sampled`, with random directions, correct almost
        surely up to that tolerance.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]).dimension
        1

        Source: Rockafellar1970.
        """
        return span_dimension(self._support, self.space)

    @property
    def is_singleton(self) -> bool:
        """Whether C is a single vector up to rounding, for certain: its width along a random direction is zero.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[1.0, 1.0], [1.0, 1.0]]).is_singleton, Hull([[1.0], [2.0]]).is_singleton
        (True, False)

        Source: Rockafellar1970.
        """
        return span_dimension(self._support, self.space, most=1, outer=True) == 0

    def translate(self, v: Any) -> ConvexSet:
        """Move C: { c + v : c in C }.

        >>> from nonsmooth.sets import Hull
        >>> Hull([[0.0], [1.0]]).translate([2.0]).box()
        (array([2.]), array([3.]))

        Source: Rockafellar1970.
        """
        return self._as_mine(self._affine(1.0, self._vector(v, "a vector")))

    def __add__(self, other: object) -> ConvexSet:
        """Give the Minkowski sum { c + c' }."""
        if not isinstance(other, ConvexSet):
            return NotImplemented
        from nonsmooth.sets.minkowski import MinkowskiSum

        return self._as_mine(MinkowskiSum([self, other]).simplified())

    def __mul__(self, factor: float) -> ConvexSet:
        """Give the multiple { factor * c : c in C }."""
        if not isinstance(factor, int | float | np.number):
            return NotImplemented
        if not np.isfinite(factor):
            raise UsageError(f"A {type(self).__name__} was multiplied by {factor!r}; pass a finite number.")
        return self._as_mine(self._affine(float(factor), np.zeros(self.space)))

    __rmul__ = __mul__

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        """Give { factor c + offset }; sets with parameters change these instead."""
        from nonsmooth.sets.image import Image

        times = partial(np.multiply, factor)
        return Image(self, times, times, self.space, offset)

    def _as_mine(self, other: ConvexSet) -> ConvexSet:
        """Give another set the structure of this one."""
        if "flatten" in vars(self) or "unflatten" in vars(self):
            other = copy.copy(other)
            other.flatten, other.unflatten = self.flatten, self.unflatten
        return other

    def _enclosing(self) -> ConvexSet | None:
        """Give an exact set that contains C, if one is known; C itself where it is exact."""
        return self if self.exact else None

    def _rounding(self) -> float | None:
        """Give how far rounding may have moved the set; None where it is that of double precision."""
        return None

    def _nearest(self, target: Vector, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        """Give the nearest element; the lower bound of a bracketed set is better where an enclosing set is known."""
        found = find_nearest(self._support, target, tolerance, limit, threshold)
        outer = None if self.exact else self._enclosing()
        return found if outer is None else found.bounded_by(outer._nearest(target, tolerance, limit, threshold))

    def _vector(self, v: Any, what: str) -> Vector:
        """Read a vector."""
        found = read_array(self.flatten(v), what)
        if found.ndim == 0 and self.space == 1:
            found = found.reshape(1)
        if found.shape != (self.space,):
            raise UsageError(
                f"A {type(self).__name__} of R^{self.space} was given {what} of shape {found.shape}; pass a finite array "
                f"of shape ({self.space},)."
            )
        return found

    def __repr__(self) -> str:
        """Name the set and its space."""
        return f"{type(self).__name__} in R^{self.space}" + ("" if self.exact else ", bracketed")
