"""A function of one number that runs over the entries of an array: its ranges, slopes and curvature on intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nonsmooth.bounds.reach import Floats, Local, Reach, times

__all__ = ["OnIntervals", "ScalarFunction", "entrywise"]

Function = Callable[[Floats], Floats]
Interval = tuple[Floats, Floats]
Flags = NDArray[np.bool_]


class OnIntervals(Protocol):
    """A function of one number of which ranges, slopes and curvature on intervals are known."""

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range of a on intervals."""

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the least and the largest slope on intervals."""

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give sup |a''| on intervals."""


@dataclass(frozen=True)
class ScalarFunction:
    """a, a' and a'' with the points at which each of them can turn.

    Between two neighbouring points of `turns` (zeros of a') a is monotone, of `bends` (zeros of a'') a' is, of `twists`
    (zeros of a''') a'' is; points that are no zeros do no harm, one left out would make bounds wrong. At `corners` a and
    a' are continuous and a'' jumps, at `kinks` a is continuous and a' jumps, at `jumps` a does, or has a pole; an interval
    that ends in a corner or a kink knows one side of it. The functions take arrays, also with entries -inf and inf, where
    they give their limits. Outside of `domain` (closed) a is not defined, or its bounds are infinite. `rounding` is what
    rounding may take off a value, relative to it: 0 for what is exact.
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
    corners: tuple[float, ...] = field(default=(), kw_only=True)

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range of a on intervals."""
        points = (*self.turns, *self.kinks, *self.jumps, *self._beside(self.jumps))
        return self._extremes(self.value, points, low, high, inner=False)

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the least and the largest slope on intervals; a kink inside of one has the slopes of both sides."""
        least, most = self._extremes(self.first, self.bends, low, high)
        torn = self._touches(low, high)
        return np.where(torn, -inf, least), np.where(torn, inf, most)

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give sup |a''| on intervals, infinite where one has a kink inside."""
        least, most = self._extremes(self.second, self.twists, low, high)
        torn = self._touches(low, high) | self._holds(self.kinks, low, high)
        return np.where(torn, inf, np.maximum(np.abs(least), np.abs(most)))

    def seconds(self, low: Floats, high: Floats) -> Interval:
        """Give the least and the largest second derivative on intervals, infinite where one has a kink inside."""
        least, most = self._extremes(self.second, self.twists, low, high)
        torn = self._touches(low, high) | self._holds(self.kinks, low, high)
        return np.where(torn, -inf, least), np.where(torn, inf, most)

    @cached_property
    def _borders(self) -> tuple[float, ...]:
        """Give the points at which formulas change."""
        return (*self.corners, *self.kinks, *self.jumps)

    @staticmethod
    def _beside(points: tuple[float, ...]) -> tuple[float, ...]:
        """Give the numbers beside points."""
        return tuple(float(np.nextafter(k, side)) for k in points for side in (-inf, inf))

    @staticmethod
    def _holds(points: tuple[float, ...], low: Floats, high: Floats) -> Flags:
        """Tell which intervals have one of the points inside."""
        found = np.zeros(np.broadcast_shapes(np.shape(low), np.shape(high)), bool)
        for p in points:
            found |= (low < p) & (p < high)
        return found

    def _touches(self, low: Floats, high: Floats) -> Flags:
        """Tell which intervals, more than a point each, hold or nearly hold a jump."""
        found = np.zeros(np.broadcast_shapes(np.shape(low), np.shape(high)), bool)
        for p in self.jumps:
            slack = 4 * np.spacing(abs(p)) if p else 0.0
            found |= (low - slack <= p) & (p <= high + slack) & (low < high)
        return found

    def _ends(self, low: Floats, high: Floats) -> Interval:
        """Move ends that are borders inside: there the formulas are those of the interval."""
        wide = low < high
        for p in self._borders:
            low = np.where(wide & (low == p), np.nextafter(p, inf), low)
            high = np.where(wide & (high == p), np.nextafter(p, -inf), high)
        return low, high

    def _extremes(
        self, function: Function, points: tuple[float, ...], low: Floats, high: Floats, inner: bool = True
    ) -> Interval:
        """Give the extremes of a function that is monotone between points, on intervals, rounding included."""
        low, high = (np.asarray(v, float) for v in np.broadcast_arrays(low, high))
        with np.errstate(all="ignore"):
            ends = [function(v) for v in (self._ends(low, high) if inner else (low, high))]
            least, most = np.minimum(*ends), np.maximum(*ends)
            for p in points:
                inside = (np.nextafter(low, -inf) <= p) & (p <= np.nextafter(high, inf))
                least, most = self._with(function, p, inside, least, most)
            if inner:
                for p in self._borders:
                    inside = ((low < p) & (p < high)) | ((low == p) & (high == p))
                    for side in self._beside((p,)):
                        least, most = self._with(function, side, inside, least, most)
            outside = (low < self.domain[0]) | (high > self.domain[1]) | np.isnan(least) | np.isnan(most)
            least, most = np.where(outside, -inf, least), np.where(outside, inf, most)
            if self.rounding:
                return least - self.rounding * np.abs(least), most + self.rounding * np.abs(most)
            return least, most

    @staticmethod
    def _with(function: Function, p: float, inside: Flags, least: Floats, most: Floats) -> Interval:
        """Add the value at a point to the extremes of the intervals that hold it."""
        at = float(function(np.array(p, float)))
        return np.where(inside & (at < least), at, least), np.where(inside & (at > most), at, most)


def entrywise(function: OnIntervals, x: Reach, name: str = "") -> Local:
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
    zero = np.zeros(())
    at_zero = max(abs(float(v)) for v in function.range(zero, zero))
    hull = function.slopes(np.minimum(low, 0.0), np.maximum(high, 0.0))
    reach = float(max(np.max(np.abs(hull[0])), np.max(np.abs(hull[1])))) if hull[0].size else 0.0
    grown = float(times(sqrt(x.size), at_zero) + times(reach, x.norm))
    grown = inf if isnan(grown) else grown  # a has no value at 0
    return Local([lipschitz], {(0, 0): bend}, grown, least, most, why=_why(name, lipschitz, bend, x), slopes=slopes)


def _why(name: str, lipschitz: float, bend: float, x: Reach) -> str:
    """Say what makes a constant infinite."""
    if bend < inf and lipschitz < inf:
        return ""
    low, high = float(np.min(x.interval[0])), float(np.max(x.interval[1]))
    fault = "slope" if lipschitz == inf else "second derivative"
    return f"`{name}` has no bounded {fault} on [{low:.4g}, {high:.4g}], which its operand may reach"
