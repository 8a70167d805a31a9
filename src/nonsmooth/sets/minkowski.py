"""Sums of sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.arrays import too_many
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.extreme import extreme_points
from nonsmooth.sets.minimum_norm import Support
from nonsmooth.sets.parts import read_parts
from nonsmooth.sets.point import Point
from nonsmooth.sets.segments import Segments

__all__ = ["MinkowskiSum"]

Vector = NDArray[np.float64]

PAIRS = 1_000_000
"""The most sums of two vertices that are formed at once."""


class MinkowskiSum(ConvexSet):
    """The sum of sets, which is never formed.

        C = { c_1 + .. + c_m : c_i in C_i },   h = h_1 + .. + h_m

    Nested sums are opened; all single vectors and sums of segments become one part. Status: `computed`, exact where all
    parts are.

    Args:
        parts: sets of the same space, at least one.

    Raises:
        UsageError: no set, or sets of different spaces.

    >>> from nonsmooth.sets import Ball
    >>> total = MinkowskiSum([Segments([0.0, 0.0], [[1.0, 0.0]]), Ball([0.0, 0.0], 1.0), Point([3.0, 0.0])])
    >>> total.support([1.0, 0.0]), len(total.parts), round(total.minimum_norm().norm, 9)
    (5.0, 2, 2.0)

    Source: Rockafellar1970.
    """

    def __init__(self, parts: Sequence[ConvexSet]) -> None:
        flat = list(_flat(read_parts(parts, "MinkowskiSum", same_space=True)))
        straight = [part for part in flat if isinstance(part, Segments | Point)]
        self.parts: tuple[ConvexSet, ...] = tuple(part for part in flat if not isinstance(part, Segments | Point))
        if straight:
            self.parts = (_merged(straight), *self.parts)

    def simplified(self) -> ConvexSet:
        """Give the only part, where there is one, else the sum itself.

        >>> MinkowskiSum([Point([1.0]), Point([2.0])]).simplified().box()
        (array([3.]), array([3.]))

        Source: Rockafellar1970.
        """
        return self.parts[0] if len(self.parts) == 1 else self

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return self.parts[0].space

    @property
    def exact(self) -> bool:
        """Whether all parts are exact."""
        return all(part.exact for part in self.parts)

    def _support(self, d: Vector) -> Support:
        found = [part._support(d) for part in self.parts]
        point = np.sum([one.point for one in found], axis=0)
        return Support(sum(one.lower for one in found), sum(one.upper for one in found), point)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C: the sum of the boxes of the parts.

        >>> MinkowskiSum([Segments([0.0], [[1.0]]), Segments([0.0], [[-2.0]])]).box()
        (array([-2.]), array([1.]))

        Source: Rockafellar1970.
        """
        boxes = [part.box() for part in self.parts]
        return np.sum([lower for lower, _ in boxes], axis=0), np.sum([upper for _, upper in boxes], axis=0)

    def _vertices(self, limit: int) -> Vector:
        total = self.parts[0].vertices(limit)
        for part in self.parts[1:]:
            more = part.vertices(limit)
            if len(total) * len(more) > PAIRS:
                raise too_many("MinkowskiSum", max(len(total), len(more)), limit)
            pairs = (total[:, None] + more).reshape(-1, self.space)
            total = pairs[extreme_points(pairs)]
            if len(total) > limit:
                raise too_many("MinkowskiSum", len(total), limit)
        return total

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        return np.asarray(np.sum([part._sample(n, rng) for part in self.parts], axis=0))

    def _enclosing(self) -> ConvexSet | None:
        outer = [part._enclosing() for part in self.parts]
        known = [part for part in outer if part is not None]
        return MinkowskiSum(known) if len(known) == len(outer) else None

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        zero = np.zeros(self.space)
        return MinkowskiSum([*(part._affine(factor, zero) for part in self.parts), Point(offset)]).simplified()


def _flat(parts: Sequence[ConvexSet]) -> Iterator[ConvexSet]:
    """Open nested sums."""
    for part in parts:
        yield from part.parts if isinstance(part, MinkowskiSum) else (part,)


def _merged(parts: Sequence[Segments | Point]) -> Segments | Point:
    """Add vectors and sums of segments."""
    center = np.sum([part.center if isinstance(part, Segments) else part.point for part in parts], axis=0)
    generators = [part.generators for part in parts if isinstance(part, Segments)]
    return Segments(center, np.concatenate(generators)) if generators else Point(center)
