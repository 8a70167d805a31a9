"""The constants of arithmetic and of elementary functions of every entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import inf, isfinite, log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import erf, erfc, expit

from nonsmooth.bounds.constants.activations import constant
from nonsmooth.bounds.constants.entries import (
    Flags,
    Interval,
    copies,
    entries,
    largest,
    least_size,
    product,
    same_everywhere,
    total,
)
from nonsmooth.bounds.constants.record import Called, Constants, bound_operation
from nonsmooth.bounds.constants.scalar import OnIntervals, ScalarFunction, entrywise
from nonsmooth.bounds.reach import Floats, Local, times

__all__ = ["ELEMENTARY", "exponential", "power", "register"]


# --- functions of one number ------------------------------------------------------------------------------------------


def exponential(rate: float, shift: float = 0.0) -> ScalarFunction:
    """The function a = exp(rate t) - shift."""
    if rate == 0:
        return ScalarFunction(constant(1 - shift), constant(0), constant(0), rounding=0)
    return ScalarFunction(
        (lambda t: np.expm1(rate * t)) if shift == 1 else lambda t: np.exp(rate * t),
        lambda t: rate * np.exp(rate * t),
        lambda t: rate**2 * np.exp(rate * t),
    )


def _logarithm(value: Callable[[Floats], Floats], base: float = 1.0, shift: float = 0.0) -> ScalarFunction:
    """The function a = log(t + shift) / base on t >= -shift."""
    return ScalarFunction(
        value, lambda t: 1 / (base * (t + shift)), lambda t: -1 / (base * (t + shift) ** 2), domain=(-shift, inf)
    )


def power(exponent: float) -> ScalarFunction:
    """The function a = t^p: on the line for a whole p, with a pole at 0 where it is negative; for other p on t >= 0.

    Below p = 1 the slope is not bounded at 0, below p = 2 the curvature is not.
    """
    p = float(exponent)
    if p == 0:
        return ScalarFunction(constant(1), constant(0), constant(0), rounding=0)

    def derivative(factor: float, q: float) -> Callable[[Floats], Floats]:
        if factor == 0 or q == 0:
            return constant(factor)
        return lambda t: factor * np.power(np.asarray(t, float), q)

    parts = derivative(1, p), derivative(p, p - 1), derivative(p * (p - 1), p - 2)
    if not isfinite(p) or p != int(p):
        return ScalarFunction(*parts, domain=(0, inf))
    return ScalarFunction(
        *parts, turns=(0,), bends=(0,), twists=(0,), jumps=(0,) if p < 0 else (), rounding=0 if p == 1 else 1e-14
    )


def linear(factor: float) -> ScalarFunction:
    """The function a = factor t."""
    return ScalarFunction(lambda t: factor * t, constant(factor), constant(0), rounding=0)


_ABS = ScalarFunction(np.abs, lambda t: np.where(t > 0, 1.0, -1.0), constant(0), kinks=(0,), turns=(0,), rounding=0)
_SIGN = ScalarFunction(np.sign, constant(0), constant(0), jumps=(0,), rounding=0)

_SINH = ScalarFunction(np.sinh, np.cosh, np.sinh, bends=(0,))
_COSH = ScalarFunction(np.cosh, np.sinh, np.cosh, turns=(0,), twists=(0,))


def _clipped(t: Floats) -> Floats:
    """Keep squares of squares finite: at the ends the functions that take it have their limits but for rounding."""
    return np.clip(t, -1e70, 1e70)


def _root(t: Floats) -> Floats:
    """Give sqrt(1 - t^2)."""
    return np.sqrt((1 - t) * (1 + t))


_ASIN = ScalarFunction(np.arcsin, lambda t: 1 / _root(t), lambda t: t / _root(t) ** 3, bends=(0,), domain=(-1, 1))
_ACOS = ScalarFunction(np.arccos, lambda t: -1 / _root(t), lambda t: -t / _root(t) ** 3, bends=(0,), domain=(-1, 1))
_ATAN = ScalarFunction(
    np.arctan,
    lambda t: 1 / (1 + _clipped(t) ** 2),
    lambda t: -2 * _clipped(t) / (1 + _clipped(t) ** 2) ** 2,
    bends=(0,),
    twists=(-1 / sqrt(3), 1 / sqrt(3)),
)
_ASINH = ScalarFunction(
    np.arcsinh,
    lambda t: 1 / np.hypot(1, t),
    lambda t: -_clipped(t) / np.hypot(1, _clipped(t)) ** 3,
    bends=(0,),
    twists=(-sqrt(0.5), sqrt(0.5)),
)
_ACOSH = ScalarFunction(
    np.arccosh,
    lambda t: 1 / np.sqrt((_clipped(t) - 1) * (_clipped(t) + 1)),
    lambda t: -_clipped(t) / np.sqrt((_clipped(t) - 1) * (_clipped(t) + 1)) ** 3,
    domain=(1, inf),
)
_ATANH = ScalarFunction(
    np.arctanh, lambda t: 1 / _root(t) ** 2, lambda t: 2 * t / _root(t) ** 4, bends=(0,), domain=(-1, 1)
)


def _error_slope(t: Floats) -> Floats:
    """erf'(t) = 2 / sqrt(pi) exp(-t^2)."""
    return 2 / sqrt(pi) * np.exp(-np.square(t))


def _error_bend(t: Floats) -> Floats:
    """erf''(t) = -2 t erf'(t)."""
    return -2 * np.clip(t, -40, 40) * _error_slope(t)


_ERF = ScalarFunction(erf, _error_slope, _error_bend, bends=(0,), twists=(-sqrt(0.5), sqrt(0.5)))
_ERFC = ScalarFunction(
    erfc, lambda t: -_error_slope(t), lambda t: -_error_bend(t), bends=(0,), twists=(-sqrt(0.5), sqrt(0.5))
)

_LOG1MEXP = ScalarFunction(
    lambda t: np.where(t > log(2), np.log1p(-np.exp(-t)), np.log(-np.expm1(-t))),
    lambda t: 1 / np.expm1(t),
    lambda t: -1 / (4 * np.sinh(t / 2) ** 2),
    domain=(0, inf),
)


def logit(low: float = 0.0) -> ScalarFunction:
    """The function a = log(v / (1 - v)) of v = min(max(t, low), 1 - low); for low = 0 it is defined on [0, 1]."""
    high = 1 - low

    def inside(t: Floats) -> Flags:
        return (t > low) & (t < high) if low > 0 else np.full(np.shape(t), True)

    def value(t: Floats) -> Floats:
        v = np.clip(t, low, high) if low > 0 else t
        return np.log(v) - np.log1p(-v)

    def first(t: Floats) -> Floats:
        return np.where(inside(t), 1 / (t * (1 - t)), 0.0)

    def second(t: Floats) -> Floats:
        return np.where(inside(t), (2 * t - 1) / (t * (1 - t)) ** 2, 0.0)

    if low > 0:
        return ScalarFunction(value, first, second, bends=(0.5,), kinks=(low, high))
    return ScalarFunction(value, first, second, bends=(0.5,), domain=(0, 1))


_ENTROPY = ScalarFunction(
    lambda t: np.where(t == 0, 0.0, -times(t, np.log(t))),
    lambda t: -np.log(t) - 1,
    lambda t: -1 / t,
    turns=(1 / np.e,),
    domain=(0, inf),
)


# --- waves ------------------------------------------------------------------------------------------------------------


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


ELEMENTARY: dict[str, OnIntervals] = {
    "neg": linear(-1),
    "positive": linear(1),
    "deg2rad": linear(pi / 180),
    "rad2deg": linear(180 / pi),
    "exp": exponential(1.0),
    "expm1": exponential(1.0, 1.0),
    "log": _logarithm(np.log),
    "log2": _logarithm(np.log2, log(2)),
    "log10": _logarithm(np.log10, log(10)),
    "log1p": _logarithm(np.log1p, shift=1.0),
    "log1mexp": _LOG1MEXP,
    "logit": logit(),
    "entr": _ENTROPY,
    "sqrt": power(0.5),
    "rsqrt": power(-0.5),
    "reciprocal": power(-1),
    "square": power(2),
    "abs": _ABS,
    "sign": _SIGN,
    "sin": Wave(0),
    "cos": Wave(1),
    "tan": Tangent(),
    "sinc": Sinc(),
    "sinh": _SINH,
    "cosh": _COSH,
    "asin": _ASIN,
    "acos": _ACOS,
    "atan": _ATAN,
    "asinh": _ASINH,
    "acosh": _ACOSH,
    "atanh": _ATANH,
    "erf": _ERF,
    "erfc": _ERFC,
}
"""The elementary functions of one number, by name."""


def register(name: str, function: OnIntervals) -> Constants:
    """Give a function of one number its record."""

    def record(call: Called) -> Local:
        """Suprema l and L of |a'| and |a''| over the intervals of the entries (`entrywise`)."""
        return entrywise(function, call.x, name)

    return bound_operation(name)(record)


for _name, _function in ELEMENTARY.items():
    register(_name, _function)


@bound_operation("logit_clamped")
def logit_clamped(call: Called) -> Local:
    """log(v / (1 - v)) of v = min(max(u, eps), 1 - eps): slopes 1 / (v (1 - v)), a kink at each bound."""
    return entrywise(logit(call.number("eps", 0.0)), call.x, "logit")


@bound_operation("nextafter")
def nextafter(call: Called) -> Local:
    """The number beside u: u but for its last digit, so that l = 1."""
    return Local([1.0, 0.0], {}, call.x.norm * (1 + 1e-15), *call.x.interval)


# --- sums -------------------------------------------------------------------------------------------------------------


def _sum(call: Called, factors: tuple[float, float]) -> Local:
    """Give the constants of p a + q b: l = |p|, |q|, times the root of the copies where an array is spread."""
    a, b = call.operands
    p, q = factors
    if a is b:
        factor = np.array(p + q), np.array(p + q)
        return Local([abs(p + q), 0.0], {}, float(times(abs(p + q), a.norm)), *product(factor, a.interval))
    norm = sum(
        float(times(abs(f), u.norm)) * sqrt(copies(u.shape, call.shape)) for f, u in zip(factors, (a, b), strict=True)
    )
    interval = total(*(product((np.array(f), np.array(f)), u.interval) for f, u in zip(factors, (a, b), strict=True)))
    return entries(call, [abs(p), abs(q)], {}, interval, norm=norm, slopes=(np.array(p), np.array(p)))


@bound_operation("add")
def add(call: Called) -> Local:
    """Give a + alpha b: l = 1 and |alpha|, times the root of the copies where an array is spread. L = 0."""
    return _sum(call, (1.0, call.number("alpha", 1.0)))


@bound_operation("sub")
def subtract(call: Called) -> Local:
    """Give a - alpha b: l = 1 and |alpha|, times the root of the copies where an array is spread. L = 0."""
    return _sum(call, (1.0, -call.number("alpha", 1.0)))


@bound_operation("rsub")
def subtract_from(call: Called) -> Local:
    """Give b - alpha a: l = |alpha| and 1, times the root of the copies where an array is spread. L = 0."""
    return _sum(call, (-call.number("alpha", 1.0), 1.0))


@bound_operation("lerp")
def interpolate(call: Called) -> Local:
    """Give a + w (b - a): |D_a| = |1 - w|, |D_b| = |w|, |D_w| = |b - a|, |D_a D_w| = |D_b D_w| = 1."""
    a, b = (u.interval for u in call.operands[:2])
    if len(call.operands) > 2:
        w = call.operands[2].interval
    else:
        w = (np.array(call.number("weight", 0.5)),) * 2
    rest = 1 - w[1], 1 - w[0]
    gap = total(b, (-a[1], -a[0]))
    inside = (w[0] >= 0) & (w[1] <= 1)
    known = [total(a, product(w, gap)), total(product(rest, a), product(w, b))]
    known.append((np.where(inside, np.minimum(a[0], b[0]), -inf), np.where(inside, np.maximum(a[1], b[1]), inf)))
    lows, highs = zip(*known, strict=True)
    interval = np.maximum.reduce(np.broadcast_arrays(*lows)), np.minimum.reduce(np.broadcast_arrays(*highs))
    firsts = [largest(rest), largest(w), largest(gap)][: len(call.operands)]
    seconds = {(0, 2): 1.0, (1, 2): 1.0} if len(call.operands) > 2 else {}
    return entries(call, firsts, seconds, interval)


# --- products and quotients -------------------------------------------------------------------------------------------


def _size_bound(call: Called, place: int, others: tuple[int, ...]) -> float:
    """Bound the norm of the derivative in an operand that multiplies another one: the norm of that, copies included."""
    other = call.operands[others[0]]
    meet = np.broadcast_shapes(call.operands[place].shape, other.shape)
    return other.norm * sqrt(copies(meet, call.shape))


@bound_operation("mul")
def multiply(call: Called) -> Local:
    """Give a b:

        |D_a| <= min(max |b|, ||b||),  |D_b| <= min(max |a|, ||a||),  |D_a D_b| = 1

    where copies of an entry that is spread add as squares: |D_a| <= max_k (sum of b_i^2 over the copies of a_k)^(1/2).
    A value times itself is a square.
    """
    a, b = call.operands
    if a is b:
        square = entrywise(power(2), a, "square")
        return Local([*square.lipschitz, 0.0], square.smoothness, min(square.norm, a.norm**2), square.low, square.high)
    norm = min(
        float(times(a.peak, b.norm)) * sqrt(copies(b.shape, call.shape)),
        float(times(b.peak, a.norm)) * sqrt(copies(a.shape, call.shape)),
        float(times(a.norm, b.norm)),
    )
    return entries(
        call,
        [largest(b.interval), largest(a.interval)],
        {(0, 1): 1.0},
        product(a.interval, b.interval),
        norms={0: _size_bound(call, 0, (1,)), 1: _size_bound(call, 1, (0,))},
        norm=norm,
        slopes=b.interval,
    )


def _inverse(b: Interval) -> Interval:
    """Give the interval of 1 / b, the whole line where b may be 0."""
    with np.errstate(divide="ignore"):
        least, most = 1 / b[1], 1 / b[0]
    whole = (b[0] <= 0) & (b[1] >= 0)
    return np.where(whole, -inf, least), np.where(whole, inf, most)


def _quotient(a: Interval, b: Interval) -> tuple[list[Floats], dict[tuple[int, int], Floats], Interval, bool]:
    """Give the bounds of the derivatives of a / b, its interval, and whether b may be 0."""
    size = least_size(b)
    with np.errstate(divide="ignore"):
        first = 1 / size
        square = first**2
        cube = first**3
    top = largest(a)
    seconds = {(0, 1): square, (1, 1): times(2 * top, cube)}
    return [first, times(top, square)], seconds, product(a, _inverse(b)), bool(np.any(size == 0))


@bound_operation("div")
def divide(call: Called) -> Local:
    """Give a / b: |D_a| = 1 / |b|, |D_b| = |a| / b^2, |D_a D_b| = 1 / b^2, |D_b D_b| = 2 |a| / |b|^3.

    On the box of the intervals: the suprema lie at max |a| and min |b|, and are infinite where b may be 0.
    """
    a, b = call.operands
    firsts, seconds, interval, pole = _quotient(a.interval, b.interval)
    least = float(np.max(firsts[0])) if firsts[0].size else 0.0
    return entries(
        call,
        firsts,
        seconds,
        interval,
        norms={1: float(times(_size_bound(call, 1, (0,)), least**2))},
        norm=float(times(a.norm, least)) * sqrt(copies(a.shape, call.shape)),
        why="`div` may divide by 0" if pole else "",
        slopes=_inverse(b.interval),
    )


@bound_operation("addcmul")
def add_product(call: Called) -> Local:
    """Give a + value b c: |D_a| = 1, |D_b| = |value c|, |D_c| = |value b|, |D_b D_c| = |value|."""
    a, b, c = call.operands
    value = call.number("value", 1.0)
    factor = np.array(value), np.array(value)
    return entries(
        call,
        [1.0, abs(value) * largest(c.interval), abs(value) * largest(b.interval)],
        {(1, 2): abs(value)},
        total(a.interval, product(factor, product(b.interval, c.interval))),
        norms={1: abs(value) * _size_bound(call, 1, (2,)), 2: abs(value) * _size_bound(call, 2, (1,))},
        slopes=(1.0, 1.0),
    )


@bound_operation("addcdiv")
def add_quotient(call: Called) -> Local:
    """Give a + value b / c: |D_a| = 1, and |value| times the constants of b / c."""
    a, b, c = call.operands
    value = call.number("value", 1.0)
    factor = np.array(value), np.array(value)
    firsts, seconds, interval, pole = _quotient(b.interval, c.interval)
    return entries(
        call,
        [1.0, *(times(abs(value), w) for w in firsts)],
        {(i + 1, j + 1): times(abs(value), w) for (i, j), w in seconds.items()},
        total(a.interval, product(factor, interval)),
        why="`addcdiv` may divide by 0" if pole else "",
        slopes=(1.0, 1.0),
    )


@bound_operation("ldexp")
def scaled_by_power(call: Called) -> Local:
    """Give a 2^b: |D_a| = 2^b, |D_b| = log 2 |a| 2^b, |D_a D_b| = log 2 2^b, |D_b D_b| = log^2 2 |a| 2^b."""
    a, b = call.operands
    with np.errstate(over="ignore"):
        scale = np.exp2(b.interval[0]), np.exp2(b.interval[1])
    grown = times(largest(a.interval), scale[1])
    return entries(
        call,
        [scale[1], log(2) * grown],
        {(0, 1): log(2) * scale[1], (1, 1): log(2) ** 2 * grown},
        product(a.interval, scale),
        slopes=scale,
    )


# --- powers -----------------------------------------------------------------------------------------------------------


@bound_operation("pow", "power")
def powers(call: Called) -> Local:
    """u^p. A number p: the suprema of |p u^(p - 1)| and |p (p - 1) u^(p - 2)| on the intervals of the entries.

    Other p, on u >= 0: |D_u| = |p u^(p - 1)|, |D_p| = |u^p log u|, |D_u D_p| = |u^(p - 1) (1 + p log u)|, |D_u D_u| =
    |p (p - 1) u^(p - 2)|, |D_p D_p| = u^p log^2 u, each factor bounded on the box by itself (an upper bound).
    """
    given = call.attributes.get("exponent")
    number = float(given) if isinstance(given, int | float) else None
    if number is None and len(call.operands) > 1 and not call.operands[1].moves:
        number = same_everywhere(call.operands[1])
    if number is not None:
        local = entrywise(power(number), call.x, f"pow {number:g}")
        if len(call.operands) == 1 or call.x.shape == call.shape:
            rest = [0.0] * (len(call.operands) - 1)
            why, slopes = local.why, local.slopes
            return Local(
                [*local.lipschitz, *rest], local.smoothness, local.norm, local.low, local.high, False, why, slopes
            )
        spread = sqrt(copies(call.x.shape, call.shape))
        bends = {k: spread * v for k, v in local.smoothness.items()}
        return Local(
            [spread * local.lipschitz[0], 0.0], bends, spread * local.norm, local.low, local.high, why=local.why
        )
    return _moving_power(call, call.x.interval, call.operands[1].interval)


def _moving_power(call: Called, u: Interval, p: Interval) -> Local:
    """Give the constants of u^p from intervals of both."""
    positive = u[0] >= 0

    def powered(shift: float) -> Interval:
        with np.errstate(all="ignore"):
            ends = [np.power(np.maximum(v, 0.0), q - shift) for v in u for q in p]
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        return np.where(positive, low, -inf), np.where(positive, high, inf)

    with np.errstate(all="ignore"):
        logs = np.log(np.maximum(u[0], 0.0)), np.log(np.maximum(u[1], 0.0))
    first, second = powered(1)[1], powered(2)[1]
    value, size = powered(0), largest(logs)
    exponents = largest(p)
    curved = largest(product(p, (p[0] - 1, p[1] - 1)))
    mixed = times(first, largest(total((np.array(1.0), np.array(1.0)), product(p, logs))))
    return entries(
        call,
        [times(exponents, first), times(value[1], size)],
        {(0, 0): times(curved, second), (0, 1): mixed, (1, 1): times(value[1], times(size, size))},
        value,
        why="" if np.all(u[0] > 0) else "`pow` takes a power of a number that may be 0 or less",
    )


@bound_operation("exp2")
def power_of_number(call: Called) -> Local:
    """2^u, or b^u of a number b > 0: |D_u| = |log b| b^u, |D_u D_u| = log^2 b b^u; of an array b it is a power."""
    if len(call.operands) == 1:
        return entrywise(exponential(log(2)), call.x, "exp2")
    base, u = call.operands
    given = call.attributes.get("self")
    number = float(given) if isinstance(given, int | float) else same_everywhere(base)
    if number is None or number <= 0 or u.shape != call.shape:
        return _moving_power(call, base.interval, u.interval)
    local = entrywise(exponential(log(number)), u, f"pow of {number:g}")
    bends = {(1, 1): local.smoothness[0, 0]}
    return Local([0.0, *local.lipschitz], bends, local.norm, local.low, local.high, why=local.why)


# --- functions of two numbers -----------------------------------------------------------------------------------------


@bound_operation("atan2")
def angle_of_pair(call: Called) -> Local:
    """The angle of (b, a): |D_a| = |b| / r^2, |D_b| = |a| / r^2, both together 1 / r, second derivatives at most 1 / r^2.

    Infinite where (0, 0) or the cut (a = 0, b < 0) may be reached. The second ones are upper bounds: with r the least
    distance to 0, |D_a D_a| = 2 |a b| / r^4, |D_a D_b| = |a^2 - b^2| / r^4.
    """
    a, b = call.operands
    (al, ah), (bl, bh) = a.interval, b.interval
    (a0, a1), (b0, b1) = [(least_size(u.interval), largest(u.interval)) for u in (a, b)]
    r = np.hypot(a0, b0)
    torn = (al <= 0) & (ah >= 0) & (bl <= 0)
    with np.errstate(all="ignore"):
        both = np.where(torn, inf, 1 / r)
        corners = [np.arctan2(p, q) for p in (al, ah) for q in (bl, bh)]
        at = np.clip(a0, b0, b1), np.clip(b0, a0, a1)
        alone = [np.where(torn, inf, v / (v**2 + w**2)) for v, w in zip(at, (a0, b0), strict=True)]
    together = a.moves and b.moves
    return entries(
        call,
        [both, both] if together else alone,
        {(0, 0): both**2, (0, 1): both**2, (1, 1): both**2},
        (np.where(torn, -pi, np.minimum.reduce(corners)), np.where(torn, pi, np.maximum.reduce(corners))),
        stacked=together,
        why="`atan2` jumps where its second operand is negative and the first 0" if np.any(torn) else "",
    )


def _log_of_sum(call: Called, base: float) -> Local:
    """Give log(B^a + B^b) / log B, log B = base: the slopes are sigmoid(base (a - b)) and 1 minus it."""
    a, b = call.operands
    with np.errstate(invalid="ignore"):
        low, high = (np.logaddexp(base * p, base * q) / base for p, q in zip(a.interval, b.interval, strict=True))
    gap = total(a.interval, (-b.interval[1], -b.interval[0]))
    share = expit(base * gap[0]), expit(base * gap[1])
    rest = expit(-base * gap[1]), expit(-base * gap[0])
    nearest = base * least_size(gap)
    bend = base * expit(nearest) * expit(-nearest)
    firsts = [share[1], rest[1]]
    both = np.maximum(np.hypot(share[0], rest[1]), np.hypot(share[1], rest[0]))
    stacked = a.moves and b.moves and bool(np.all(2 * np.square(both) < np.square(firsts[0] + firsts[1]) * (1 - 1e-12)))
    return entries(
        call,
        [both, both] if stacked else firsts,
        {(0, 0): bend, (0, 1): bend, (1, 1): bend},
        (low - 1e-15 * np.abs(low), high + 1e-15 * np.abs(high)),
        stacked=stacked,
        slopes=share,
    )


@bound_operation("logaddexp")
def log_of_sum(call: Called) -> Local:
    """log(exp a + exp b): |D_a| = s, |D_b| = 1 - s, second derivatives s (1 - s) <= 1/4, s = sigmoid(a - b).

    The two slopes sum to 1, and as squares to at most 1: the smaller of both bounds holds.
    """
    return _log_of_sum(call, 1.0)


@bound_operation("logaddexp2")
def log2_of_sum(call: Called) -> Local:
    """log2(2^a + 2^b): the slopes of `logaddexp` of log 2 (a, b), the curvature times log 2."""
    return _log_of_sum(call, log(2))


def _times_log(call: Called, shift: float) -> Local:
    """Give a log(b + shift)."""
    a, b = call.operands
    low, high = (np.maximum(v + shift, 0.0) for v in b.interval)
    defined = b.interval[0] + shift >= 0
    with np.errstate(divide="ignore"):
        logs = np.where(defined, np.log(low), -inf), np.where(defined, np.log(high), inf)
        first = np.where(defined, 1 / low, inf)
    top = largest(a.interval)
    return entries(
        call,
        [largest(logs), times(top, first)],
        {(0, 1): first, (1, 1): times(top, first**2)},
        product(a.interval, logs),
        why="" if np.all(first < inf) else f"`{call.operation}` takes the logarithm of a number that may be 0",
        slopes=logs,
    )


@bound_operation("xlogy")
def times_log(call: Called) -> Local:
    """Give a log b: |D_a| = |log b|, |D_b| = |a| / b, |D_a D_b| = 1 / b, |D_b D_b| = |a| / b^2."""
    return _times_log(call, 0.0)


@bound_operation("xlog1py")
def times_log1p(call: Called) -> Local:
    """Give a log(1 + b): |D_a| = |log(1 + b)|, |D_b| = |a| / (1 + b), |D_a D_b| and |D_b D_b| with 1 / (1 + b) more."""
    return _times_log(call, 1.0)
