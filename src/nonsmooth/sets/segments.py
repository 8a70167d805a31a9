"""Sums of segments: zonotopes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrangement import TooManyCells, cells
from nonsmooth.sets.arrays import read_array, too_many
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.minimum_norm import Support

__all__ = ["Segments"]

Vector = NDArray[np.float64]


class Segments(ConvexSet):
    """A zonotope: a centre plus the Minkowski sum of the segments from 0 to g_1 .. g_k.

        C = { center + sum_i t_i g_i : 0 <= t_i <= 1 },   h(d) = <center, d> + sum_i max(<g_i, d>, 0)

    `center` is one end of every segment, not the centre of symmetry. Status: `computed`, exact. A support value costs
    k * space multiplications.

    Args:
        center: shape (space,).
        generators: shape (k, space); k may be 0, and generators zero, parallel or equal.

    Raises:
        UsageError: shapes that do not fit, nan or infinity.

    >>> square = Segments([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    >>> square.support([1.0, -2.0]), square.box(), len(square.vertices())
    (1.0, (array([0., 0.]), array([1., 1.])), 4)

    Source: Ziegler1995.
    """

    def __init__(self, center: Any, generators: Any) -> None:
        self.center = read_array(center, "the center of Segments")
        self.generators = read_array(generators, "the generators of Segments")
        if self.generators.size == 0:
            self.generators = self.generators.reshape(0, self.center.size)
        if self.center.ndim != 1 or self.generators.ndim != 2 or self.generators.shape[1] != len(self.center):
            raise UsageError(
                f"Segments was given a center of shape {self.center.shape} and generators of shape "
                f"{self.generators.shape}; pass shapes (space,) and (number, space)."
            )

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return len(self.center)

    def _support(self, d: Vector) -> Support:
        slopes = self.generators @ d
        ahead = slopes > 0
        value = float(self.center @ d + slopes[ahead].sum())
        return Support(value, value, self.center + ahead.astype(np.float64) @ self.generators)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C, in closed form.

            lower = center + sum_i min(g_i, 0),   upper = center + sum_i max(g_i, 0)

        >>> Segments([1.0, 0.0], [[1.0, -1.0], [0.0, 2.0]]).box()
        (array([ 1., -1.]), array([2., 2.]))

        Source: Ziegler1995.
        """
        return (
            self.center + np.minimum(self.generators, 0).sum(0),
            self.center + np.maximum(self.generators, 0).sum(0),
        )

    def _vertices(self, limit: int) -> Vector:
        try:
            signs = cells(self.generators, limit)
        except TooManyCells as found:
            raise too_many("Segments", found.args[0], limit) from None
        return self.center + (signs > 0).astype(np.float64) @ self.generators

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        uniform = rng.uniform(-0.25, 1.25, (n, len(self.generators))).clip(0, 1)
        return np.asarray(self.center + uniform @ self.generators)

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return Segments(factor * self.center + offset, factor * self.generators)
