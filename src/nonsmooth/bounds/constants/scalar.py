"""A function of one number that runs over the entries of an array: its ranges, slopes and curvature on intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from nonsmooth.bounds.reach import Floats, Local, Reach

__all__ = ["ScalarFunction", "entrywise"]

Function = Callable[[Floats], Floats]


@dataclass(frozen=True)
class ScalarFunction:
    """a, a' and a'' with the points at which each of them can turn.

    Between two neighbouring points of `turns` (zeros of a') a is monotone, of `bends` (zeros of a'') a' is, of `twists`
    (zeros of a''') a'' is; points that are no zeros do no harm, one left out would make bounds wrong. At `kinks` a is
    continuous and a' jumps, at `jumps` a does. The functions take arrays, also with entries -inf and inf, where they give
    their limits. Outside of `domain` (closed) a is not defined, or its bounds are infinite. `rounding` is what rounding may
    take off a value, relative to it: 0 for what is exact.
    """

    value: Function
    first: Function
    second: Function
    turns: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()
    twists: tuple[float, ...] = ()
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    domain: tuple[float, float] = (-inf, inf)
    rounding: float = 1e-14

    def range(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Give the range of a on intervals."""
        return self._extremes(self.value, (*self.turns, *self._sides()), low, high)

    def slopes(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Give the least and the largest slope on intervals; a kink in them has the slopes of both sides."""
        least, most = self._extremes(self.first, (*self.bends, *self._sides()), low, high)
        torn = self._meets(self.jumps, low, high)
        return np.where(torn, -inf, least), np.where(torn, inf, most)

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give sup |a''| on intervals, infinite where one meets a kink."""
        least, most = self._extremes(self.second, (*self.twists, *self._sides()), low, high)
        torn = self._meets((*self.kinks, *self.jumps), low, high)
        return np.where(torn, inf, np.maximum(np.abs(least), np.abs(most)))

    def _sides(self) -> tuple[float, ...]:
        """Give the points beside each kink: slopes there are those of its sides."""
        points = (*self.kinks, *self.jumps)
        return tuple(float(p) for k in points for p in (np.nextafter(k, -inf), k, np.nextafter(k, inf)))

    @staticmethod
    def _meets(points: tuple[float, ...], low: Floats, high: Floats) -> Floats:
        """Tell which intervals, more than a point each, hold one of the points."""
        found = np.zeros(np.broadcast_shapes(low.shape, high.shape), bool)
        for p in points:
            found |= (low <= p) & (p <= high) & (low < high)
        return found

    def _extremes(
        self, function: Function, points: tuple[float, ...], low: Floats, high: Floats
    ) -> tuple[Floats, Floats]:
        """Give the extremes of a function that is monotone between points, on intervals, rounding included."""
        low, high = np.broadcast_arrays(low, high)
        with np.errstate(all="ignore"):
            ends = function(np.asarray(low, float)), function(np.asarray(high, float))
            least, most = np.minimum(*ends), np.maximum(*ends)
            for p in points:
                inside = (np.nextafter(low, -inf) <= p) & (p <= np.nextafter(high, inf))
                at = float(function(np.array(p, float)))
                least, most = np.where(inside & (at < least), at, least), np.where(inside & (at > most), at, most)
            outside = (low < self.domain[0]) | (high > self.domain[1]) | np.isnan(least) | np.isnan(most)
            least, most = np.where(outside, -inf, least), np.where(outside, inf, most)
            if self.rounding:
                return least - self.rounding * np.abs(least), most + self.rounding * np.abs(most)
            return least, most


def entrywise(function: ScalarFunction, x: Reach, name: str = "") -> Local:
    """Give the constants of z -> (a(z_i))_i on what z reaches.

        l = max_i sup |a'|,    L = max_i sup |a''|,    ||a(z)|| <= sqrt(n) |a(0)| + sup |a'| ||z||

    with suprema over the interval of each entry (in the last one: and 0).

    >>> from nonsmooth.bounds.reach import Reach
    >>> square = ScalarFunction(np.square, lambda t: 2 * t, lambda t: 2 + 0 * t, turns=(0,))
    >>> local = entrywise(square, Reach((2,), 3.0, np.ones(1), np.zeros((1, 1))))
    >>> [round(v, 9) for v in (local.lipschitz[0], local.smoothness[0, 0], float(local.low), float(local.high))]
    [6.0, 2.0, 0.0, 9.0]

    Source: derived, docs/theory/bounds.md (the printed constant, the norm of the l_i, is not tight).
    """
    low, high = x.interval
    least, most = function.range(low, high)
    slopes = function.slopes(low, high)
    steepest = np.maximum(np.abs(slopes[0]), np.abs(slopes[1]))
    lipschitz = float(np.max(steepest)) if steepest.size else 0.0
    curvature = function.curvature(low, high)
    bend = float(np.max(curvature)) if curvature.size else 0.0
    at_zero = float(np.abs(function.value(np.array(0.0)))) if function.domain[0] <= 0 <= function.domain[1] else inf
    hull = function.slopes(np.minimum(low, 0.0), np.maximum(high, 0.0))
    reach = float(max(np.max(np.abs(hull[0])), np.max(np.abs(hull[1])))) if x.size else 0.0
    with np.errstate(invalid="ignore"):
        grown = sqrt(x.size) * at_zero + (0.0 if reach == 0 or x.norm == 0 else reach * x.norm)
    why = f"`{name}` has a kink in the set" if bend == inf and lipschitz < inf else ""
    return Local([lipschitz], {(0, 0): bend}, grown, least, most, why=why, slopes=slopes)
