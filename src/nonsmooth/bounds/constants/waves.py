"""Sine, cosine, tangent and sinc on intervals: functions that turn infinitely often."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import inf, pi

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from nonsmooth.bounds.constants.activations import constant
from nonsmooth.bounds.constants.entries import (
    Flags,
    Interval,
    largest,
    least_size,
)
from nonsmooth.bounds.constants.scalar import ScalarFunction
from nonsmooth.bounds.reach import Floats

__all__ = ["Sinc", "Tangent", "Wave", "sinc_critical", "sinc_derivative"]


@dataclass(frozen=True)
class Wave:
    """sin(t + phase), phase a multiple of pi / 2: its extremes lie at the multiples of pi that belong to it."""

    quarters: int

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range: 1 where t + phase = pi / 2 modulo 2 pi is inside, -1 where -pi / 2 is, else that of the ends."""
        with np.errstate(all="ignore"):
            ends = self._value(low), self._value(high)
            wild = ~(high - low < 2 * pi) | ~(np.maximum(np.abs(low), np.abs(high)) < 1e9)
            top, bottom = (wild | self._meets(low, high, q) for q in (1, -1))
            least, most = np.minimum(*ends), np.maximum(*ends)
        return np.where(bottom, -1.0, least - 1e-15), np.where(top, 1.0, most + 1e-15)

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the range of the wave a quarter ahead."""
        return Wave(self.quarters + 1).range(low, high)

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give the largest size of the wave."""
        return largest(self.range(low, high))

    def _value(self, t: Floats) -> Floats:
        """Evaluate it."""
        return (np.sin(t), np.cos(t), -np.sin(t), -np.cos(t))[self.quarters % 4]

    def _meets(self, low: Floats, high: Floats, quarter: int) -> Flags:
        """Tell which intervals hold a number (quarter - quarters) pi / 2 + 2 pi k, with room for rounding."""
        shift = (quarter - self.quarters) * pi / 2
        slack = 1e-15 * (1 + np.abs(low) + np.abs(high))
        return np.floor((high + slack - shift) / (2 * pi)) >= np.ceil((low - slack - shift) / (2 * pi))


class Tangent:
    """tan t, on intervals without a pole: a' = 1 + a^2, a'' = 2 a a', both of a in a range without pole."""

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range: it rises from pole to pole."""
        with np.errstate(all="ignore"):
            slack = 1e-15 * (1 + np.abs(low) + np.abs(high))
            branch = np.floor((low - slack) / pi + 0.5), np.floor((high + slack) / pi + 0.5)
            whole = (branch[0] == branch[1]) & (np.maximum(np.abs(low), np.abs(high)) < 1e9)
            least, most = np.tan(low), np.tan(high)
            room = 1e-14 + 2 * slack
            low, high = least - room * (1 + least**2), most + room * (1 + most**2)
        return np.where(whole, low, -inf), np.where(whole, high, inf)

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the range of 1 + a^2."""
        values = self.range(low, high)
        return 1 + least_size(values) ** 2, 1 + largest(values) ** 2

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give the largest |2 a (1 + a^2)|."""
        size = largest(self.range(low, high))
        return 2 * size * (1 + size**2)


class Sinc:
    """The function a = sin(pi t) / (pi t) = integral of cos(pi t s) over s in [0, 1], so that |a^(n)| <= pi^n / (n + 1).

    Up to |t| = 16 it turns at the points `critical`, found from one extremum to the next of the derivative before; beyond,
    |a| <= 1 / (pi r), |a'| <= (1 + 1 / (pi r)) / r, |a''| <= (pi + 2 / r + 2 / (pi r^2)) / r for |t| >= r.
    """

    reach = 16.0

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range."""
        return self._extremes(0, low, high)

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the range of a'."""
        return self._extremes(1, low, high)

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give sup |a''|."""
        return largest(self._extremes(2, low, high))

    def _extremes(self, order: int, low: Floats, high: Floats) -> Interval:
        """Give the extremes of a derivative on intervals."""
        inner = np.clip(low, -self.reach, self.reach), np.clip(high, -self.reach, self.reach)
        derivative = ScalarFunction(
            lambda t: sinc_derivative(t, order), constant(0), constant(0), turns=sinc_critical(order), rounding=1e-13
        )
        least, most = derivative.range(*inner)
        beyond = (low < -self.reach) | (high > self.reach)
        r = np.maximum(self.reach, least_size((np.asarray(low, float), np.asarray(high, float))))
        room = (1 / (pi * r), (1 + 1 / (pi * r)) / r, (pi + 2 / r + 2 / (pi * r**2)) / r)[order]
        outside = (low > self.reach) | (high < -self.reach)
        wider = np.where(outside, -room, np.minimum(least, -room)), np.where(outside, room, np.maximum(most, room))
        return np.where(beyond, wider[0], least - 1e-15), np.where(beyond, wider[1], most + 1e-15)


def sinc_derivative(t: ArrayLike, order: int) -> Floats:
    """Give the derivative of an order up to 3 of sin(pi t) / (pi t), by its series where |t| < 1/2."""
    t = np.asarray(t, float)
    y: Floats = pi * t
    with np.errstate(all="ignore"):
        s, c = np.sin(y), np.cos(y)
        far = (
            lambda: s / y,
            lambda: c / y - s / y**2,
            lambda: -s / y - 2 * c / y**2 + 2 * s / y**3,
            lambda: -c / y + 3 * s / y**2 + 6 * c / y**3 - 6 * s / y**4,
        )[order]()
    near, term = np.zeros_like(y), np.ones_like(y)
    small = np.where(np.abs(t) < 0.5, y, 0.0)
    powers = [term]
    for _ in range(24):
        powers.append(powers[-1] * small)
    factorial = 1.0
    for k in range(24):  # sum of cos^(k)(0) y^k / (k! (k + 1)), differentiated term by term
        factorial *= max(k, 1)
        if k % 2 == 0 and k >= order:
            falling = float(np.prod(np.arange(k - order + 1, k + 1))) if order else 1.0
            near = near + (-1) ** (k // 2) * falling * powers[k - order] / (factorial * (k + 1))
    return pi**order * np.where(np.abs(t) < 0.5, near, far)


@cache
def sinc_critical(order: int) -> tuple[float, ...]:
    """Find the zeros up to |t| = 16 of the derivative after an order: one between neighbouring zeros of the one before."""
    zeros = [float(k) for k in range(1, 24)]
    for n in range(1, order + 2):
        ends = [0.0, *zeros] if n % 2 == 0 else zeros
        zeros = [brentq(lambda t, n=n: float(sinc_derivative(t, n)), a, b, xtol=1e-15) for a, b in _brackets(ends, n)]
    kept = [z for z in zeros if 0 < z <= Sinc.reach]
    return (*(-z for z in kept), 0.0, *kept)


def _brackets(ends: list[float], order: int) -> list[tuple[float, float]]:
    """Keep the neighbours between which a derivative of sinc changes its sign."""
    return [
        (a, b) for a, b in pairwise(ends) if float(sinc_derivative(a, order)) * float(sinc_derivative(b, order)) < 0
    ]
