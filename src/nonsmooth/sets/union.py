"""The convex hull of a union of sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.extreme import extreme_points
from nonsmooth.sets.minimum_norm import Support
from nonsmooth.sets.parts import read_parts

__all__ = ["HullOfUnion"]

Vector = NDArray[np.float64]


class HullOfUnion(ConvexSet):
    """The convex hull of the union of sets.

        C = conv (C_1 u .. u C_m),   h(d) = max_i h_i(d)

    Status: `computed`, exact where all parts are.

    Args:
        parts: sets of the same space, at least one.

    Raises:
        UsageError: no set, or sets of different spaces.

    >>> from nonsmooth.sets import Ball, Point
    >>> cone = HullOfUnion([Ball([0.0, 0.0], 1.0), Point([0.0, 3.0])])
    >>> cone.support([0.0, 1.0]), cone.contains([0.0, 2.5]), cone.contains([0.9, 2.5])
    (3.0, True, False)

    Source: Rockafellar1970.
    """

    def __init__(self, parts: Sequence[ConvexSet]) -> None:
        self.parts = read_parts(parts, "HullOfUnion", same_space=True)

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
        best = max(found, key=lambda one: one.lower)
        return Support(best.lower, max(one.upper for one in found), best.point)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C: the one around the boxes of the parts.

        >>> from nonsmooth.sets import Point
        >>> HullOfUnion([Point([0.0, 0.0]), Point([1.0, -2.0])]).box()
        (array([ 0., -2.]), array([1., 0.]))

        Source: Rockafellar1970.
        """
        boxes = [part.box() for part in self.parts]
        return np.min([lower for lower, _ in boxes], axis=0), np.max([upper for _, upper in boxes], axis=0)

    def _vertices(self, limit: int) -> Vector:
        points = np.concatenate([part.vertices(limit) for part in self.parts])
        return np.asarray(points[extreme_points(points)])

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        samples = np.array([part._sample(n, rng) for part in self.parts])
        weights = rng.dirichlet(np.full(len(self.parts), 0.3), n)
        return np.asarray(np.einsum("np,pns->ns", weights, samples))

    def _enclosing(self) -> ConvexSet | None:
        outer = [part._enclosing() for part in self.parts]
        known = [part for part in outer if part is not None]
        return HullOfUnion(known) if len(known) == len(outer) else None

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return HullOfUnion([part._affine(factor, offset) for part in self.parts])
