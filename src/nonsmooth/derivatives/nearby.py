"""Slopes nearby: the gradients at points around a kink, and how far a value is from their hull."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nonsmooth.derivatives.paths import draw_vector
from nonsmooth.derivatives.space import Vector

__all__ = ["Around", "nearest_in_hull"]


class Around:
    """Slopes at points around a point; those in the direction of a value that seems to lie outside are looked for."""

    def __init__(
        self, z: Vector, reach: float, of: Callable[[Vector], tuple[float, Vector]], rng: np.random.Generator
    ) -> None:
        self.z, self.reach, self.of, self.rng = z, reach, of, rng
        self.slopes: list[Vector] = []
        self.nearest = z
        for _ in range(8):
            v = draw_vector(rng, len(z))
            self.add(v)
            self.add(-v)

    def add(self, v: Vector) -> Vector | None:
        """Take the slope at z + reach v, if it is finite."""
        value, slope = self.of(self.z + self.reach * v)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return None
        self.slopes.append(slope)
        return slope

    def distance(self, value: Vector, relative: float, floor: float) -> tuple[float, float]:
        """Give the distance from a value to the hull of the slopes, enlarged as long as that helps, and a margin."""
        for _ in range(4):
            margin = floor + relative * max(
                (float(np.abs(s).max(initial=0.0)) for s in [*self.slopes, value]), default=0.0
            )
            if not self.slopes:
                return 0.0, margin
            self.nearest = nearest_in_hull(np.array(self.slopes), value)
            away = value - self.nearest
            if np.abs(away).max() <= margin:
                break
            self.climb(away / np.abs(away).max())
        return float(np.abs(away).max()), margin

    def climb(self, d: Vector) -> None:
        """Look for a point whose slope along a direction is large, one entry of the point after the other."""
        best, at = -np.inf, d
        for start in (d, -d, draw_vector(self.rng, len(d))):
            v = start + 0.05 * draw_vector(self.rng, len(d))
            slope = self.add(v)
            if slope is not None and slope @ d > best:
                best, at = float(slope @ d), v
        for k in self.rng.permutation(len(d))[:24]:
            v = at.copy()
            v[k] = -v[k]
            slope = self.add(v)
            if slope is not None and slope @ d > best:
                best, at = float(slope @ d), v


def nearest_in_hull(points: Vector, value: Vector) -> Vector:
    """Give the point of the convex hull of the rows of a matrix that is nearest to a value."""
    from scipy.optimize import nnls

    shifted = (points - value).T
    scale = max(1e-30, float(np.abs(shifted).max()))
    weights = nnls(np.vstack([shifted / scale, np.full(len(points), 1e4)]), np.array([*np.zeros(len(value)), 1e4]))[0]
    near: Vector = weights @ points / weights.sum()
    return near
