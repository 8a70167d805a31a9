"""Balls of the p-norms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import read_array, too_many
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.minimum_norm import MinimumNorm, Support, certify

__all__ = ["Ball", "dual_point", "read_exponent"]

Vector = NDArray[np.float64]


class Ball(ConvexSet):
    """The ball of a p-norm.

        C = { v : |v - center|_p <= radius },   h(d) = <center, d> + radius |d|_q,   1/p + 1/q = 1

    Status: `computed`, exact. The nearest element has a closed form for p = 1, 2, inf.

    Args:
        center: shape (space,).
        radius: not negative.
        p: in [1, inf].

    Raises:
        UsageError: a negative radius, an exponent below 1, a center that is no vector, nan or infinity.

    >>> ball = Ball([3.0, 4.0], 1.0)
    >>> ball.support([1.0, 0.0]), ball.minimum_norm().point, Ball([0.0, 0.0], 1.0, p=1).support([1.0, 1.0])
    (4.0, array([2.4, 3.2]), 1.0)

    Source: Rockafellar1970.
    """

    def __init__(self, center: Any, radius: float, p: float = 2.0) -> None:
        self.center = read_array(center, "the center of a Ball")
        if self.center.ndim != 1:
            raise UsageError(f"Ball was given a center of shape {self.center.shape}; pass the shape (space,).")
        if not 0 <= radius < math.inf:
            raise UsageError(f"Ball was given the radius {radius!r}; pass a finite number that is not negative.")
        self.radius, self.p = float(radius), read_exponent(p, "Ball")

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return len(self.center)

    def _support(self, d: Vector) -> Support:
        y = self.radius * dual_point(d, self.p)
        value = float(self.center @ d + y @ d)
        return Support(value, value, self.center + y)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C: center -+ radius.

        >>> Ball([1.0, 2.0], 1.0).box()
        (array([0., 1.]), array([2., 3.]))

        Source: Rockafellar1970.
        """
        return self.center - self.radius, self.center + self.radius

    def _nearest(self, target: Vector, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        if self.p not in (1.0, 2.0, math.inf):
            return super()._nearest(target, tolerance, limit, threshold)
        return certify(self._support, target, self.center + _project(target - self.center, self.radius, self.p))

    def _vertices(self, limit: int) -> Vector:
        n = self.space
        if self.radius == 0 or n == 0:
            return self.center[None].copy()
        if self.p == 1 or n == 1:
            return self.center + self.radius * np.concatenate([np.eye(n), -np.eye(n)])
        if self.p < math.inf:
            return super()._vertices(limit)
        if 2.0**n > limit:
            raise too_many("Ball", 2**n, limit)
        return np.asarray(self.center + self.radius * np.array(list(itertools.product((-1.0, 1.0), repeat=n))))

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return Ball(factor * self.center + offset, abs(factor) * self.radius, self.p)


def read_exponent(p: float, name: str) -> float:
    """Read the exponent of a norm."""
    if not 1 <= p <= math.inf:
        raise UsageError(f"{name} was given p={p!r}; the p-norm needs 1 <= p <= inf.")
    return float(p)


def dual_point(d: Vector, p: float) -> Vector:
    """Give y with |y|_p <= 1 and <y, d> = |d|_q, 1/p + 1/q = 1; 0 for d = 0.

    >>> dual_point(np.array([3.0, -4.0]), 2.0), dual_point(np.array([3.0, -4.0]), 1.0)
    (array([ 0.6, -0.8]), array([ 0., -1.]))
    """
    size = np.abs(d)
    largest = size.max(initial=0.0)
    if largest == 0:
        return np.zeros_like(d)
    if p == math.inf:
        return np.sign(d)
    if p == 1:
        y = np.zeros_like(d)
        y[size.argmax()] = np.sign(d[size.argmax()])
        return y
    power = (size / largest) ** (1 / (p - 1))
    return np.asarray(np.sign(d) * power / (power**p).sum() ** (1 / p))


def _project(v: Vector, radius: float, p: float) -> Vector:
    """Give the element of the centred ball that is nearest to v, for p = 1, 2, inf."""
    if p == math.inf:
        return v.clip(-radius, radius)
    size = np.abs(v)
    if p == 2:
        norm = float(np.linalg.norm(v))
        return v * (radius / norm) if norm > radius else v
    if size.sum() <= radius:
        return v
    falling = np.sort(size)[::-1]
    cuts = (np.cumsum(falling) - radius) / np.arange(1, len(v) + 1)
    shrink = cuts[np.flatnonzero(falling > cuts)[-1]] if radius > 0 else falling[0]
    return np.asarray(np.sign(v) * np.maximum(size - shrink, 0))
