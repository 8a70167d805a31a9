"""Arithmetic and elementary functions of every entry.

A scalar operation on complex numbers counts as one: an operation of the dictionary stands for itself, whatever field it
works over.
"""

from __future__ import annotations

from math import log2, pi

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


def _scalar(name: str) -> None:
    """Define an operation that is one scalar operation for each entry."""

    @define(name)
    def definition(call: Called) -> Numbers:
        return call.x.apply(name)


for _name in (
    "neg exp expm1 log log1p log2 log10 sqrt square reciprocal abs sin cos tan sinh cosh tanh asin acos atan asinh acosh "
    "atanh erf erfc erfinv"
).split():
    _scalar(_name)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _times(x: Numbers | float, factor: float) -> Numbers | float:
    """Give factor x: free for the factor 1."""
    return x if factor == 1 else x * factor


@define("add")
def add(call: Called) -> Numbers:
    """Give a + alpha b."""
    return call.x + _times(call.operand(1), call.attributes.get("alpha", 1))


@define("sub")
def subtract(call: Called) -> Numbers:
    """Give a - alpha b."""
    return call.x - _times(call.operand(1), call.attributes.get("alpha", 1))


@define("rsub")
def subtract_from(call: Called) -> Numbers:
    """Give b - alpha a."""
    return call.operand(1) - _times(call.x, call.attributes.get("alpha", 1))  # type: ignore[return-value]


@define("mul")
def multiply(call: Called) -> Numbers:
    """Give a b."""
    return call.x * call.operand(1)


@define("div")
def divide(call: Called) -> Numbers:
    """Give a / b."""
    return call.x / call.operand(1)


@define("addcmul")
def add_product(call: Called) -> Numbers:
    """Give a + value b c."""
    a, b, c = call.operands
    return a + _times(b * c, call.attributes.get("value", 1))


@define("addcdiv")
def add_quotient(call: Called) -> Numbers:
    """Give a + value b / c."""
    a, b, c = call.operands
    return a + _times(b / c, call.attributes.get("value", 1))


@define("lerp")
def interpolate(call: Called) -> Numbers:
    """Give a + w (b - a)."""
    a, b = call.operands[:2]
    weight = call.operands[2] if len(call.operands) > 2 else call.attributes.get("weight", 0.5)
    written = a
    if a.size == b.size and a.shape != b.shape:  # what is written to in place may have turned its axes since
        a = a.alias(b.shape)
    found = a + (b - a) * weight
    return found if found.shape == written.shape else found.alias(call.shape)


@define("deg2rad")
def radians(call: Called) -> Numbers:
    """(pi / 180) u."""
    return call.x * (pi / 180)


@define("rad2deg")
def degrees(call: Called) -> Numbers:
    """(180 / pi) u."""
    return call.x * (180 / pi)


@define("positive", "nextafter")
def same(call: Called) -> Numbers:
    """u, or the number beside it: integer work on its digits."""
    return call.x


@define("ldexp")
def scaled_by_power(call: Called) -> Numbers:
    """Give a 2^b."""
    return call.x * call.operands[1].apply("exp2")


# --- powers -----------------------------------------------------------------------------------------------------------


@define("pow", "power")
def power(call: Called) -> Numbers:
    """u^p: the whole powers up to 4 as squares and products, 1/2 and -1 as what they are, others as a power."""
    x, exponent = call.x, call.attributes.get("exponent")
    if not isinstance(exponent, int | float):
        return x.apply("pow", call.operands[1] if len(call.operands) > 1 else 3.0)
    match exponent:
        case 0:
            return x.known(x.shape, lambda a: 0 * a + 1, x)
        case 1:
            return x
        case 2:
            return x.apply("square")
        case 3:
            return x.apply("square") * x
        case 4:
            return x.apply("square").apply("square")
        case 0.5:
            return x.apply("sqrt")
        case -1:
            return x.apply("reciprocal")
    return x.apply("pow", float(exponent))


@define("rsqrt")
def reciprocal_root(call: Called) -> Numbers:
    """1 / sqrt(u)."""
    return call.x.apply("sqrt").apply("reciprocal")


@define("exp2")
def exponential(call: Called) -> Numbers:
    """2^u, or b^u for a number b > 0, which is 2^(u log2 b)."""
    if len(call.operands) == 1:
        return call.x.apply("exp2")
    base = call.attributes.get("self")
    if isinstance(base, int | float) and base > 0:
        return (call.operands[1] * log2(base)).apply("exp2")
    return call.x.apply("pow", call.operands[1])


@define("hypot")
def length(call: Called) -> Numbers:
    """sqrt(a^2 + b^2)."""
    a, b = call.operands
    return (a.apply("square") + b.apply("square")).apply("sqrt")


# --- composed functions -----------------------------------------------------------------------------------------------


@define("atan2")
def angle_of_pair(call: Called) -> Numbers:
    """The angle of (b, a)."""
    return call.x.apply("atan2", call.operands[1])


@define("sinc")
def sinc(call: Called) -> Numbers:
    """sin(pi u) / (pi u), and 1 at 0."""
    angle = call.x * pi
    return angle.equals(0.0).select(1.0, angle.apply("sin") / angle)


@define("log1mexp")
def log_one_minus_exp(call: Called) -> Numbers:
    """log(1 - exp(-u))."""
    return (1.0 - (-call.x).apply("exp")).apply("log")


@define("logit")
def logit(call: Called) -> Numbers:
    """log(u / (1 - u))."""
    return (call.x / (1.0 - call.x)).apply("log")


@define("logit_clamped")
def clamped_logit(call: Called) -> Numbers:
    """log(v / (1 - v)) of v = min(max(u, eps), 1 - eps)."""
    eps = call.attributes["eps"]
    v = call.x.apply("max", eps).apply("min", 1.0 - eps)
    return (v / (1.0 - v)).apply("log")


@define("entr")
def entropy(call: Called) -> Numbers:
    """-u log u."""
    return -(call.x * call.x.apply("log"))


@define("xlogy")
def times_log(call: Called) -> Numbers:
    """Give a log b."""
    return call.x * call.operands[1].apply("log")


@define("xlog1py")
def times_log1p(call: Called) -> Numbers:
    """Give a log(1 + b)."""
    return call.x * call.operands[1].apply("log1p")


def _log_of_sum(call: Called, exp: str, log: str) -> Numbers:
    """The logarithm of a sum of two exponentials, shifted by the larger one, through which nothing is differentiated."""
    a, b = call.operands
    top = a.detached().apply("max", b.detached())
    return ((a - top).apply(exp) + (b - top).apply(exp)).apply(log) + top


@define("logaddexp")
def log_of_sum(call: Called) -> Numbers:
    """log(exp a + exp b)."""
    return _log_of_sum(call, "exp", "log")


@define("logaddexp2")
def log2_of_sum(call: Called) -> Numbers:
    """log2(2^a + 2^b)."""
    return _log_of_sum(call, "exp2", "log2")


# --- complex numbers --------------------------------------------------------------------------------------------------


@define("real", "imag", "conj")
def part(call: Called) -> Numbers:
    """A part of complex numbers, which are pairs; the sign of a conjugate is read with it."""
    return call.x


@define("complex")
def pair(call: Called) -> Numbers:
    """A complex number of two real ones."""
    return call.x.joined(call.operands[1:], call.shape)


@define("polar")
def from_polar(call: Called) -> Numbers:
    """Give r (cos t + i sin t)."""
    radius, angle = call.operands
    real, imaginary = radius * angle.apply("cos"), radius * angle.apply("sin")
    return real.joined([imaginary], call.shape)


@define("complex_abs")
def modulus(call: Called) -> Numbers:
    """sqrt(re^2 + im^2)."""
    square = call.x.apply("square", times=2)
    return (square + square).apply("sqrt")


@define("angle")
def angle(call: Called) -> Numbers:
    """The angle of a complex number, which is a pair."""
    return call.x.apply("atan2", call.x)
