"""Choices between numbers, and what rounds or reads the sign of them."""

from __future__ import annotations

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


@define("where")
def where(call: Called) -> Numbers:
    """Give a where a condition holds, else b."""
    condition, a, b = call.operands
    return condition.select(a, b)


@define("maximum", "fmax", "clamp_min_tensor")
def maximum(call: Called) -> Numbers:
    """max(a, b)."""
    return call.x.apply("max", call.operands[1])


@define("minimum", "fmin", "clamp_max_tensor")
def minimum(call: Called) -> Numbers:
    """min(a, b)."""
    return call.x.apply("min", call.operands[1])


@define("clamp_tensor")
def clamp_between(call: Called) -> Numbers:
    """min(max(u, low), high) of arrays."""
    u, low, high = call.operands
    return u.apply("max", low).apply("min", high)


def _clamped(x: Numbers, low: float | None, high: float | None) -> Numbers:
    """min(max(u, low), high), of the bounds that are given."""
    x = x if low is None else x.apply("max", float(low))
    return x if high is None else x.apply("min", float(high))


@define("clamp")
def clamp(call: Called) -> Numbers:
    """min(max(u, min), max), of the bounds that are given."""
    return _clamped(call.x, call.attributes["min"], call.attributes["max"])


@define("relu6", "hardtanh")
def hardtanh(call: Called) -> Numbers:
    """min(max(u, min_val), max_val)."""
    return _clamped(call.x, call.attributes["min_val"], call.attributes["max_val"])


@define("threshold")
def threshold(call: Called) -> Numbers:
    """max(u, threshold)."""
    return call.x.apply("max", float(call.attributes["threshold"]))


@define("threshold_jump")
def threshold_jump(call: Called) -> Numbers:
    """Give u above the threshold, else a value."""
    above = call.x.detached().exceeds(float(call.attributes["threshold"]))
    return above.select(call.x, float(call.attributes["value"]))


# --- signs ------------------------------------------------------------------------------------------------------------


@define("sign")
def sign(call: Called) -> Numbers:
    """-1, 0 or 1."""
    return call.x.apply("sign")


@define("heaviside")
def heaviside(call: Called) -> Numbers:
    """0 for u < 0, the value for u = 0, 1 for u > 0."""
    u, value = call.operands
    return u.equals(0.0).select(value, u.exceeds(0.0))


@define("copysign", "copysign_sign")
def copysign(call: Called) -> Numbers:
    """|u|, or -|u| where the bit of the sign of b is set."""
    u, b = call.operands
    size = u.apply("abs")
    return b.known(b.shape, np.signbit, b).select(-size, size)


# --- rounding ---------------------------------------------------------------------------------------------------------


def _rounded(name: str, how: str) -> None:
    """Define a rounding."""

    @define(name)
    def definition(call: Called) -> Numbers:
        return call.x.rounded(how)


for _name in ("floor", "ceil", "trunc"):
    _rounded(_name, _name)


@define("round")
def nearest(call: Called) -> Numbers:
    """The nearest number with some decimals."""
    scale = 10.0 ** call.attributes.get("decimals", 0)
    return call.x.rounded("round") if scale == 1 else (call.x.detached() * scale).rounded("round") / scale


@define("frac")
def fraction(call: Called) -> Numbers:
    """Give u - trunc(u)."""
    return call.x - call.x.rounded("trunc")


def _quotient(call: Called, how: str) -> Numbers:
    """The rounded quotient of a and b, through which nothing is differentiated."""
    return (call.x.detached() / call.operands[1].detached()).rounded(how)


@define("floor_divide")
def floor_divide(call: Called) -> Numbers:
    """floor(a / b)."""
    return _quotient(call, "floor")


@define("trunc_divide")
def trunc_divide(call: Called) -> Numbers:
    """trunc(a / b)."""
    return _quotient(call, "trunc")


@define("remainder")
def remainder(call: Called) -> Numbers:
    """Give a - b floor(a / b)."""
    return call.x - call.operands[1] * _quotient(call, "floor")


@define("fmod")
def fmod(call: Called) -> Numbers:
    """Give a - b trunc(a / b)."""
    return call.x - call.operands[1] * _quotient(call, "trunc")


@define("frexp")
def mantissa(call: Called) -> Numbers:
    """Give u 2^(-e), e the exponent, which integer work reads."""
    power = call.x.known(call.x.shape, lambda a: 2.0 ** -np.frexp(a)[1].astype(float), call.x)
    return call.x * power
