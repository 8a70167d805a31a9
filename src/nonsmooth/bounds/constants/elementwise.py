"""The constants of elementary functions of every entry."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, log, pi, sqrt

import numpy as np
from scipy.special import erf, erfc

from nonsmooth.bounds.constants.activations import constant
from nonsmooth.bounds.constants.entries import (
    Flags,
    copies,
)
from nonsmooth.bounds.constants.record import Called, Constants, bound_operation
from nonsmooth.bounds.constants.scalar import OnIntervals, ScalarFunction, entrywise
from nonsmooth.bounds.constants.waves import Sinc, Tangent, Wave
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
    """The number beside u: u but for its last digit, so that l = 1, times the root of the copies."""
    often = sqrt(copies(call.x.shape, call.shape))
    low, high = call.x.interval
    return Local([often, 0.0], {}, often * call.x.norm * (1 + 1e-15), np.min(low), np.max(high))
