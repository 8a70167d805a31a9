"""The convex hull of finitely many points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import mixtures, read_array
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.extreme import extreme_points
from nonsmooth.sets.minimum_norm import Support

__all__ = ["Hull"]

Vector = NDArray[np.float64]


class Hull(ConvexSet):
    """The convex hull of points p_1 .. p_m.

        C = { sum_i t_i p_i : t >= 0, sum t = 1 },   h(d) = max_i <d, p_i>

    Status: `computed`, exact.

    Args:
        points: shape (m, space), m >= 1; points may repeat, and lie in the hull of others.

    Raises:
        UsageError: no point, another shape, nan or infinity.

    >>> square = Hull([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]])
    >>> square.support([1.0, 2.0]), len(square.vertices()), square.dimension
    (3.0, 4, 2)

    Source: Rockafellar1970.
    """

    def __init__(self, points: Any) -> None:
        self.points = read_array(points, "the points of a Hull")
        if self.points.ndim != 2 or not len(self.points):
            raise UsageError(
                f"Hull was given points of shape {self.points.shape}; pass at least one point, as an array of shape "
                "(number, space)."
            )

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return int(self.points.shape[1])

    def _support(self, d: Vector) -> Support:
        values = self.points @ d
        i = int(values.argmax())
        return Support(float(values[i]), float(values[i]), self.points[i].copy())

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains the points.

        >>> Hull([[0.0, 0.0], [1.0, -2.0]]).box()
        (array([ 0., -2.]), array([1., 0.]))

        Source: Rockafellar1970.
        """
        return self.points.min(0), self.points.max(0)

    def _vertices(self, limit: int) -> Vector:
        return self.points[extreme_points(self.points)]

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        return mixtures(self.points, n, rng)

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return Hull(factor * self.points + offset)
