"""Sets that are known only between two others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.minimum_norm import MinimumNorm, Support, certify

__all__ = ["Bracket"]

Vector = NDArray[np.float64]

SLACK = 1e-9
"""An outer support value may lie so far below the inner one, relative to the length of the point, through rounding."""


class Bracket(ConvexSet):
    """A set that is only known to lie between an inner and an outer one.

        inner subset of C subset of outer,   h_inner <= h <= h_outer

    Elements are those of the inner part, separations those of the outer one; `contains` says None between them.
    Status: `computed`, not exact.

    Args:
        inner: a set.
        outer: a set, or its support function d -> value. A set gives better lower bounds of distances.

    Raises:
        UsageError: sets of different spaces; or, when a support value is asked, an outer one below the inner one.

    >>> from nonsmooth.sets import Ball
    >>> between = Bracket(Ball([0.0, 3.0], 1.0), Ball([0.0, 3.0], 2.0))
    >>> between.support([1.0, 0.0]), between.minimum_norm().norm, between.exact
    (between 1.0 and 2.0, between 0.99... and 2.0, False)
    >>> [between.contains([0.0, y]) for y in (3.5, 4.5, 5.5)]
    [True, None, False]

    Source: Rockafellar1970.
    """

    def __init__(self, inner: ConvexSet, outer: ConvexSet | Callable[[Vector], float]) -> None:
        if isinstance(outer, ConvexSet) and outer.space != inner.space:
            raise UsageError(
                f"Bracket was given sets of R^{inner.space} and of R^{outer.space}; pass sets of one space."
            )
        self.inner, self.outer = inner, outer

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return self.inner.space

    @property
    def exact(self) -> bool:
        """False: the set is not known exactly."""
        return False

    def _support(self, d: Vector) -> Support:
        found = self.inner._support(d)
        upper = float(self.outer._support(d).upper if isinstance(self.outer, ConvexSet) else self.outer(d))
        least = found.lower - SLACK * float(np.linalg.norm(d)) * max(float(np.linalg.norm(found.point)), abs(upper))
        if not upper >= least:
            raise UsageError(
                f"A Bracket has the outer support value {upper} below the inner one, {found.lower}: its outer set does "
                "not contain the inner one. Pass one that does."
            )
        return Support(found.lower, max(upper, found.lower), found.point)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains the outer part.

        >>> from nonsmooth.sets import Ball
        >>> Bracket(Ball([0.0], 1.0), Ball([0.0], 2.0)).box()
        (array([-2.]), array([2.]))

        Source: Rockafellar1970.
        """
        return self.outer.box() if isinstance(self.outer, ConvexSet) else super().box()

    def _nearest(self, target: Vector, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        if not isinstance(self.outer, ConvexSet):
            return super()._nearest(target, tolerance, limit, threshold)
        found = self.inner._nearest(target, tolerance, limit, threshold)
        result = certify(self._support, target, found.point, found.iterations)._replace(status=found.status)
        outer = self._enclosing()
        return result if outer is None else result.bounded_by(outer._nearest(target, tolerance, limit, threshold))

    def _vertices(self, limit: int) -> Vector:
        raise UsageError(
            "vertices() was asked of a Bracket, whose extreme points are not known; use bracket.inner.vertices() for "
            "those of its inner part."
        )

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        return self.inner._sample(n, rng)

    def _enclosing(self) -> ConvexSet | None:
        return self.outer._enclosing() if isinstance(self.outer, ConvexSet) else None

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        if isinstance(self.outer, ConvexSet):
            return Bracket(self.inner._affine(factor, offset), self.outer._affine(factor, offset))
        return super()._affine(factor, offset)
