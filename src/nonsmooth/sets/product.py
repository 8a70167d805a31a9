"""Products of sets: coordinates side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.arrays import too_many
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.minimum_norm import MinimumNorm, Support, certify
from nonsmooth.sets.parts import read_parts

__all__ = ["Product"]

Vector = NDArray[np.float64]


class Product(ConvexSet):
    """The product of sets, their coordinates side by side.

        C = C_1 x .. x C_m,   h(d_1, .., d_m) = h_1(d_1) + .. + h_m(d_m)

    Status: `computed`, exact where all parts are. The nearest element is found part by part.

    Args:
        parts: sets, at least one.

    Raises:
        UsageError: no set.

    >>> from nonsmooth.sets import Ball, Point
    >>> both = Product([Ball([3.0], 1.0), Point([1.0, 2.0])])
    >>> both.space, both.minimum_norm().point, both.dimension
    (3, array([2., 1., 2.]), 1)

    Source: Rockafellar1970.
    """

    def __init__(self, parts: Sequence[ConvexSet]) -> None:
        self.parts = read_parts(parts, "Product", same_space=False)
        self._cuts = np.cumsum([part.space for part in self.parts])

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return int(self._cuts[-1])

    @property
    def exact(self) -> bool:
        """Whether all parts are exact."""
        return all(part.exact for part in self.parts)

    def _split(self, v: Vector) -> list[Vector]:
        """Cut a vector into those of the parts."""
        return np.split(v, self._cuts[:-1])

    def _support(self, d: Vector) -> Support:
        found = [part._support(one) for part, one in zip(self.parts, self._split(d), strict=True)]
        point = np.concatenate([one.point for one in found])
        return Support(sum(one.lower for one in found), sum(one.upper for one in found), point)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C: the product of the boxes of the parts.

        >>> from nonsmooth.sets import Ball, Point
        >>> Product([Ball([3.0], 1.0), Point([1.0])]).box()
        (array([2., 1.]), array([4., 1.]))

        Source: Rockafellar1970.
        """
        boxes = [part.box() for part in self.parts]
        return np.concatenate([lower for lower, _ in boxes]), np.concatenate([upper for _, upper in boxes])

    def _nearest(self, target: Vector, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        if not self.exact:
            return super()._nearest(target, tolerance, limit, threshold)
        found = [
            part._nearest(one, tolerance, limit, None)
            for part, one in zip(self.parts, self._split(target), strict=True)
        ]
        point = np.concatenate([one.point for one in found])
        result = certify(self._support, target, point, sum(one.iterations for one in found))
        if result.status == "computed":
            return result
        return super()._nearest(target, tolerance, limit, threshold)

    def _vertices(self, limit: int) -> Vector:
        total = np.zeros((1, 0))
        for part in self.parts:
            more = part.vertices(limit)
            if len(total) * len(more) > limit:
                raise too_many("Product", len(total) * len(more), limit)
            total = np.hstack([np.repeat(total, len(more), axis=0), np.tile(more, (len(total), 1))])
        return total

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        return np.hstack([part._sample(n, rng) for part in self.parts])

    def _enclosing(self) -> ConvexSet | None:
        outer = [part._enclosing() for part in self.parts]
        known = [part for part in outer if part is not None]
        return Product(known) if len(known) == len(outer) else None

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        shifts = self._split(offset)
        return Product([part._affine(factor, shift) for part, shift in zip(self.parts, shifts, strict=True)])
