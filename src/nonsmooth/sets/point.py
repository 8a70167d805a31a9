"""A single vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.arrays import read_array
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.hull import Hull

__all__ = ["Point"]

Vector = NDArray[np.float64]


class Point(Hull):
    """The set of a single vector.

        C = { v },   h(d) = <d, v>

    Status: `computed`, exact.

    Args:
        point: v, shape (space,).

    Raises:
        UsageError: another shape, nan or infinity.

    >>> Point([1.0, 2.0]).distance(), Point([1.0, 2.0]).dimension
    (2.236..., 0)

    Source: Rockafellar1970.
    """

    def __init__(self, point: Any) -> None:
        super().__init__(read_array(point, "the point of a Point")[None])

    @property
    def point(self) -> Vector:
        """The vector itself."""
        return np.array(self.points[0])

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return Point(factor * self.points[0] + offset)
