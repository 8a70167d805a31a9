"""The constants of activations.

Every activation of one number is a `ScalarFunction`; its critical points are roots of a', a'' and a''' to the last digit,
and tests/bounds/constants/test_activations.py finds them again by a dense scan. On the whole line they give

    sigmoid 1/4, .09623   tanh 1, .76981   softplus 1, 1/4   silu 1.09985, .5   mish 1.08850, .64421   elu(1) 1, 1
    gelu 1.12891, .79789  (tanh form 1.12900, .79789)

and on an interval the suprema there. One file, for it is one table: a few lines for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, inf, isfinite, log1p, pi, sqrt
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit, ndtr

from nonsmooth.bounds.constants.entries import entries, product
from nonsmooth.bounds.constants.record import Called, Constants, bound_operation
from nonsmooth.bounds.constants.scalar import ScalarFunction, entrywise
from nonsmooth.bounds.reach import Floats, Local, times

__all__ = ["ACTIVATIONS"]

Attributes: TypeAlias = Mapping[str, Any]


def constant(value: float) -> Callable[[Floats], Floats]:
    """Give the function that is constant."""
    return lambda t: np.full(np.shape(t), float(value))


# --- smooth ones ------------------------------------------------------------------------------------------------------


def _logistic_slope(t: Floats) -> Floats:
    """sigmoid'(t) = sigmoid(t) sigmoid(-t)."""
    slope: Floats = expit(t) * expit(-t)
    return slope


_LOG_2_SQRT_3 = 1.3169578969248167086
"""log(2 + sqrt 3), where sigmoid' = 1/6 and so sigmoid''' = 0."""


def sigmoid(a: Attributes) -> ScalarFunction:
    """The function a = 1 / (1 + exp(-t)), a' = a (1 - a), a'' = -a' tanh(t / 2)."""
    twists = (-_LOG_2_SQRT_3, _LOG_2_SQRT_3)
    return ScalarFunction(
        expit, _logistic_slope, lambda t: -_logistic_slope(t) * np.tanh(t / 2), bends=(0,), twists=twists
    )


def tanh(a: Attributes) -> ScalarFunction:
    """The slope a' = 1 - a^2 = 4 sigmoid'(2 t), a'' = -2 a a'."""
    twists = (-_LOG_2_SQRT_3 / 2, _LOG_2_SQRT_3 / 2)
    return ScalarFunction(
        np.tanh,
        lambda t: 4 * _logistic_slope(2 * t),
        lambda t: -8 * np.tanh(t) * _logistic_slope(2 * t),
        bends=(0,),
        twists=twists,
    )


def log_sigmoid(a: Attributes) -> ScalarFunction:
    """The function a = -log(1 + exp(-t)), a' = sigmoid(-t), a'' = -sigmoid'(t)."""
    return ScalarFunction(
        lambda t: -np.logaddexp(0, -t), lambda t: expit(-t), lambda t: -_logistic_slope(t), twists=(0,)
    )


def _smooth_softplus(beta: float) -> ScalarFunction:
    """The function a = log(1 + exp(beta t)) / beta, a' = sigmoid(beta t), a'' = beta sigmoid'(beta t)."""
    return ScalarFunction(
        lambda t: np.logaddexp(0, beta * t) / beta,
        lambda t: expit(beta * t),
        lambda t: beta * _logistic_slope(beta * t),
        twists=(0,),
    )


def softplus_jump(a: Attributes) -> ScalarFunction:
    """log(1 + exp(beta t)) / beta up to beta t = threshold, t above: it jumps there."""
    beta, threshold = float(a.get("beta", 1)), float(a.get("threshold", 20))
    smooth = _smooth_softplus(beta)
    return ScalarFunction(
        lambda t: np.where(beta * t > threshold, t, smooth.value(t)),
        lambda t: np.where(beta * t > threshold, 1.0, smooth.first(t)),
        lambda t: np.where(beta * t > threshold, 0.0, smooth.second(t)),
        twists=(0,),
        jumps=(threshold / beta,),
    )


def _times(t: Floats, factor: Floats) -> Floats:
    """Give t factor, 0 where the factor is, also at an infinite t."""
    with np.errstate(invalid="ignore"):
        return np.where(factor == 0, 0.0, t * factor)


def silu(a: Attributes) -> ScalarFunction:
    """The function a = t s, a' = s (1 + t sigmoid(-t)), a'' = s' (2 - t tanh(t / 2)), s = sigmoid(t)."""

    def second(t: Floats) -> Floats:
        return _times(2 - t * np.tanh(t / 2), _logistic_slope(t))

    return ScalarFunction(
        lambda t: _times(t, expit(t)),
        lambda t: _times(1 + _times(t, expit(-t)), expit(t)),
        second,
        turns=(-1.278464542761073795,),
        bends=(-2.399357280515467668, 2.399357280515467668),
        twists=(-3.435840993535110689, 0, 3.435840993535110689),
    )


def _normal(t: Floats) -> Floats:
    """The density of the normal distribution."""
    return np.exp(-np.square(t) / 2) / sqrt(2 * pi)


def gelu(a: Attributes) -> ScalarFunction:
    """The function a = t P(t), a' = P + t p, a'' = (2 - t^2) p: P the normal distribution, p its density; or the form with tanh."""
    if a.get("approximate") == "tanh":
        return _gelu_tanh()
    return ScalarFunction(
        lambda t: _times(t, ndtr(t)),
        lambda t: ndtr(t) + _times(t, _normal(t)),
        lambda t: _times(2 - np.square(t), _normal(t)),
        turns=(-0.7517915246935644575,),
        bends=(-sqrt(2), sqrt(2)),
        twists=(-2, 0, 2),
    )


def _gelu_tanh() -> ScalarFunction:
    """The function a = t s(v), v = 2 sqrt(2 / pi) (t + .044715 t^3).

    Its slope is s + t s' v', its curvature s' (2 v' + t (v'' - tanh(v / 2) v'^2)).
    """
    scale, cubic = 2 * sqrt(2 / pi), 0.044715

    def parts(t: Floats) -> tuple[Floats, ...]:
        t = np.clip(t, -40.0, 40.0)  # beyond, s is 0 or 1, and s' is 0
        return t, scale * t * (1 + cubic * t * t), scale * (1 + 3 * cubic * t * t), scale * 6 * cubic * t

    def first(t: Floats) -> Floats:
        u, v, slope, _ = parts(t)
        found: Floats = expit(v) * (1 + u * slope * expit(-v))
        return found

    def second(t: Floats) -> Floats:
        u, v, slope, bend = parts(t)
        return _logistic_slope(v) * (2 * slope + u * (bend - np.tanh(v / 2) * slope**2))

    return ScalarFunction(
        lambda t: _times(t, expit(parts(t)[1])),
        first,
        second,
        turns=(-0.7524614220710162585,),
        bends=(-1.418504008790828356, 1.418504008790828356),
        twists=(-2.013480724624257928, 0, 2.013480724624257928),
    )


def mish(a: Attributes) -> ScalarFunction:
    """The function a = t w, w = tanh(log(1 + e)), e = exp t; w' = 4 e (1 + e) / (e^2 + 2 e + 2)^2, w'' = w' r; a'' = w' (2 + t r).

    Here r = 1 + sigmoid(t) - 4 e (1 + e) / (e^2 + 2 e + 2). Above 0 all is written in exp(-t).
    """

    def parts(t: Floats) -> tuple[Floats, ...]:
        q = np.exp(-np.abs(t))
        up, down = 1 + 2 * q + 2 * q * q, q * q + 2 * q + 2
        w = np.where(t > 0, (1 + 2 * q) / up, q * (q + 2) / down)
        slope = np.where(t > 0, 4 * q * q * (1 + q) / up**2, 4 * q * (1 + q) / down**2)
        ratio = 1 + expit(t) - 4 * np.where(t > 0, (1 + q) / up, q * (1 + q) / down)
        return w, slope, ratio

    def first(t: Floats) -> Floats:
        w, slope, _ = parts(t)
        return w + _times(t, slope)

    def second(t: Floats) -> Floats:
        _, slope, ratio = parts(t)
        return _times(2 + t * ratio, slope)

    return ScalarFunction(
        lambda t: _times(t, parts(t)[0]),
        first,
        second,
        turns=(-1.192431214515495212,),
        bends=(-2.25637639636079312, 1.490571179485428459),
        twists=(-3.267337846520404576, -0.08793443131491421133, 2.114842563020877109),
    )


# --- with corners and kinks -------------------------------------------------------------------------------------------


def _bent(alpha: float, scale: float, rate: float, continuous: bool) -> ScalarFunction:
    """Scale t for t > 0, else scale alpha (exp(rate t) - 1); a' is continuous where alpha rate = 1."""

    def first(t: Floats) -> Floats:
        return np.where(t > 0, scale, scale * alpha * rate * np.exp(rate * np.minimum(t, 0)))

    def second(t: Floats) -> Floats:
        return np.where(t > 0, 0.0, scale * alpha * rate**2 * np.exp(rate * np.minimum(t, 0)))

    def value(t: Floats) -> Floats:
        return np.where(t > 0, scale * t, scale * alpha * np.expm1(rate * np.minimum(t, 0)))

    if continuous:
        return ScalarFunction(value, first, second, corners=(0,))
    return ScalarFunction(value, first, second, kinks=(0,))


def elu(a: Attributes) -> ScalarFunction:
    """Give scale t for t > 0, else scale alpha (exp(input_scale t) - 1): a kink at 0 unless alpha input_scale = 1."""
    alpha, scale, rate = (float(a.get(k, 1.0)) for k in ("alpha", "scale", "input_scale"))
    return _bent(alpha, scale, rate, alpha * rate == 1)


def celu(a: Attributes) -> ScalarFunction:
    """Give t for t > 0, else alpha (exp(t / alpha) - 1): slopes up to 1, curvature up to 1 / alpha, from below 0."""
    alpha = float(a.get("alpha", 1.0))
    return _bent(alpha, 1.0, 1 / alpha, True)


def _pieces(slopes: tuple[float, ...], kinks: tuple[float, ...], value: Callable[[Floats], Floats]) -> ScalarFunction:
    """Give a continuous function that is linear between kinks."""
    real = [(k, s) for k, s in zip(kinks, slopes[1:], strict=True) if isfinite(k)]

    def first(t: Floats) -> Floats:
        found = np.full(np.shape(t), slopes[sum(k == -inf for k in kinks)])
        for k, s in real:
            found = np.where(t > k, s, found)
        return found

    return ScalarFunction(value, first, constant(0), kinks=tuple(k for k, _ in real), rounding=0)


def relu(a: Attributes) -> ScalarFunction:
    """max(t, 0)."""
    return _pieces((0, 1), (0,), lambda t: np.maximum(t, 0))


def leaky_relu(a: Attributes) -> ScalarFunction:
    """Give t for t > 0, else negative_slope t."""
    slope = float(a.get("negative_slope", 0.01))
    return _pieces(
        (slope, 1), (0,), lambda t: np.where(t > 0, t, slope * np.minimum(t, 0)) if slope else np.maximum(t, 0)
    )


def between(low: float | None, high: float | None) -> ScalarFunction:
    """min(max(t, low), high), of the bounds that are given; bounds the wrong way round give the constant high."""
    low, high = -inf if low is None else float(low), inf if high is None else float(high)
    if low >= high:
        return ScalarFunction(constant(high), constant(0), constant(0), rounding=0)
    return _pieces((0, 1, 0), (low, high), lambda t: np.minimum(np.maximum(t, low), high))


def hardtanh(a: Attributes) -> ScalarFunction:
    """min(max(t, min_val), max_val)."""
    return between(a.get("min_val"), a.get("max_val"))


def clamp(a: Attributes) -> ScalarFunction:
    """min(max(t, min), max), of the bounds that are given."""
    return between(a.get("min"), a.get("max"))


def threshold(a: Attributes) -> ScalarFunction:
    """max(t, threshold)."""
    return between(a["threshold"], None)


def hardsigmoid(a: Attributes) -> ScalarFunction:
    """min(max(t / 6 + 1/2, 0), 1)."""
    return _pieces((0, 1 / 6, 0), (-3, 3), lambda t: np.clip(t / 6 + 0.5, 0, 1))


def hardswish(a: Attributes) -> ScalarFunction:
    """Give t min(max(t + 3, 0), 6) / 6: between -3 and 3 the slope (2 t + 3) / 6 and the curvature 1/3."""
    return ScalarFunction(
        lambda t: _times(t, np.clip(t / 6 + 0.5, 0, 1)),
        lambda t: np.where(t > 3, 1.0, np.where(t > -3, (2 * np.clip(t, -3, 3) + 3) / 6, 0.0)),
        lambda t: np.where((t > -3) & (t <= 3), 1 / 3, 0.0),
        turns=(-1.5,),
        kinks=(-3, 3),
    )


def softshrink(a: Attributes) -> ScalarFunction:
    """Give t - min(max(t, -lambd), lambd)."""
    bound = float(a.get("lambd", 0.5))
    return _pieces((1, 0, 1), (-bound, bound), lambda t: np.sign(t) * np.maximum(np.abs(t) - bound, 0))


# --- with jumps -------------------------------------------------------------------------------------------------------


def hardshrink(a: Attributes) -> ScalarFunction:
    """Give t for |t| > lambd, else 0: it jumps at both bounds, unless they are 0."""
    bound = float(a.get("lambd", 0.5))

    def value(t: Floats) -> Floats:
        return np.where(np.abs(t) > bound, t, 0.0)

    if bound <= 0:
        return ScalarFunction(lambda t: t, constant(1), constant(0), rounding=0)
    return ScalarFunction(
        value, lambda t: np.where(np.abs(t) > bound, 1.0, 0.0), constant(0), jumps=(-bound, bound), rounding=0
    )


def threshold_jump(a: Attributes) -> ScalarFunction:
    """Give t above the threshold, else a value: it jumps there."""
    bound, below = float(a["threshold"]), float(a["value"])
    return ScalarFunction(
        lambda t: np.where(t > bound, t, below),
        lambda t: np.where(t > bound, 1.0, 0.0),
        constant(0),
        jumps=(bound,),
        rounding=0,
    )


ACTIVATIONS: dict[str, Callable[[Attributes], ScalarFunction]] = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "log_sigmoid": log_sigmoid,
    "softplus_jump": softplus_jump,
    "silu": silu,
    "gelu": gelu,
    "mish": mish,
    "elu": elu,
    "selu": elu,
    "celu": celu,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "relu6": hardtanh,
    "hardtanh": hardtanh,
    "clamp": clamp,
    "threshold": threshold,
    "hardsigmoid": hardsigmoid,
    "hardswish": hardswish,
    "softshrink": softshrink,
    "hardshrink": hardshrink,
    "threshold_jump": threshold_jump,
}
"""The activations of one number, by name: what their attributes make of them."""


def _registered(name: str, function: Callable[[Attributes], ScalarFunction]) -> Constants:
    """Give an activation its record: l and L are the suprema of its slope and of its curvature (`entrywise`)."""

    def record(call: Called) -> Local:
        return entrywise(function(call.attributes), call.x, name)

    record.__doc__ = f"{function.__doc__}\n\n    l = sup |a'|, L = sup |a''| over the intervals of the entries."
    return bound_operation(name)(record)


for _name, _function in ACTIVATIONS.items():
    _registered(_name, _function)


@bound_operation("softplus")
def softplus(call: Called) -> Local:
    """log(1 + exp(beta t)) / beta: slopes sigmoid(beta t), curvature at most |beta| / 4.

    Where beta t is above a threshold (20 and more) torch gives t, which is less by up to log(1 + exp(-threshold)) / beta:
    the range has room for it, the constants are those of the function that is meant.
    """
    beta, bound = call.number("beta", 1.0), call.number("threshold", inf)
    local = entrywise(_smooth_softplus(beta), call.x, "softplus")
    gap = log1p(exp(-bound)) / beta
    low, high = np.asarray(local.low) - max(gap, 0.0), np.asarray(local.high) - min(gap, 0.0)
    return Local(
        local.lipschitz,
        local.smoothness,
        local.norm + sqrt(call.x.size) * abs(gap),
        low if gap < 0 else np.maximum(low, 0.0),
        high,
        why=local.why,
        slopes=local.slopes,
    )


# --- of two numbers ---------------------------------------------------------------------------------------------------


@bound_operation("prelu")
def prelu(call: Called) -> Local:
    """Give max(u, 0) + a min(u, 0), a spread over the entries of u.

        |D_u| <= max(1, |a|),   |D_a| <= |min(u, 0)|,   |D_u D_a| <= 1,   D_u D_u = 0 unless 0 is inside of the interval

    Guarantee: each constant is a supremum over the box of the intervals; attained where both operands are.
    """
    u, a = call.operands
    (low, high), (least, most) = u.interval, a.interval
    below, above = np.minimum(low, 0.0), np.maximum(high, 0.0)
    may_fall, may_rise = (low < 0), (high > 0)
    slopes = (
        np.minimum(np.where(may_fall, least, inf), np.where(may_rise | ~may_fall, 1.0, inf)),
        np.maximum(np.where(may_fall, most, -inf), np.where(may_rise | ~may_fall, 1.0, -inf)),
    )
    kink = may_fall & may_rise & ~((least == 1) & (most == 1))
    fallen = product((below, np.minimum(high, 0.0)), (least, most))
    ends = np.where(may_rise, np.maximum(low, 0.0), 0.0), above
    return entries(
        call,
        [np.maximum(np.abs(slopes[0]), np.abs(slopes[1])), np.abs(below)],
        {(0, 0): np.where(kink, inf, 0.0), (0, 1): np.where(may_fall, 1.0, 0.0)},
        (
            np.where(may_fall, np.where(may_rise, np.minimum(fallen[0], 0.0), fallen[0]), ends[0]),
            np.where(may_rise, np.where(may_fall, np.maximum(fallen[1], ends[1]), ends[1]), fallen[1]),
        ),
        norms={1: u.norm},
        norm=float(times(max(1.0, a.peak), u.norm)),
        why="`prelu` has a kink in the set" if np.any(kink) else "",
        slopes=slopes,
    )


@bound_operation("glu")
def glu(call: Called) -> Local:
    """Give a s(b), a and b the halves of u along an axis, s the sigmoid.

    Entries do not meet, so that the constants are those of one pair, |a| <= A and s = s(b) in an interval:

        l = max sqrt(s^2 + A^2 s^2 (1 - s)^2)              (at an end, or at s = (3 A - sqrt(A^2 - 8)) / (4 A))
        L = max (p / 2) (A c + sqrt(A^2 c^2 + 4)),          c = |1 - 2 s|, p = s (1 - s) = (1 - c^2) / 4

    the second the spectral norm of the matrix [[0, s'], [s', a s'']]; it rises in c up to the one c > 0 with
    (3/4) A^2 c^4 + (4 + A^2 / 2) c^2 = A^2 / 4, then falls.
    """
    axis = call.attributes["axes"][0] % len(call.x.shape)
    a, b = (_half(call, v, axis) for v in (0, 1))
    size = np.maximum(np.abs(a[0]), np.abs(a[1]))
    gate = expit(b[0]), expit(b[1])
    low, high = product(a, gate)
    steepest, bend = np.broadcast_arrays(_glu_slope(size, gate), _glu_bend(size, gate))
    lipschitz, curved = (float(np.max(v)) if v.size else 0.0 for v in (steepest, bend))
    why = "`glu` has a factor without bound" if lipschitz == inf else ""
    norm = float(np.max(gate[1])) * call.x.norm if call.x.size else 0.0
    return Local([lipschitz], {(0, 0): curved}, norm, low, high, why=why)


def _half(call: Called, place: int, axis: int) -> tuple[Floats, Floats]:
    """Give the interval of a half of the first operand along an axis."""
    ndim, n = len(call.x.shape), call.shape[axis]

    def cut(v: Floats) -> Floats:
        at = axis - ndim + v.ndim
        if at < 0 or v.shape[at] == 1:
            return v
        return np.take(v, np.arange(place * n, (place + 1) * n), axis=at)

    low, high = call.x.interval
    return cut(low), cut(high)


def _glu_slope(size: Floats, gate: tuple[Floats, Floats]) -> Floats:
    """Give the largest norm of (s, A s (1 - s)) for s between two numbers."""
    with np.errstate(all="ignore"):
        root = (3 * size - np.sqrt(np.maximum(size**2 - 8, 0))) / (4 * size)
        inner = np.where(np.isfinite(root), np.clip(root, *gate), gate[1])
    found = [np.hypot(s, times(size, s * (1 - s))) for s in (gate[0], inner, gate[1])]
    return np.maximum(np.maximum(found[0], found[1]), found[2])


def _glu_bend(size: Floats, gate: tuple[Floats, Floats]) -> Floats:
    """Give the largest spectral norm of [[0, s'], [s', A s'']] for s between two numbers."""
    ends = np.abs(1 - 2 * gate[0]), np.abs(1 - 2 * gate[1])
    least = np.where((gate[0] <= 0.5) & (gate[1] >= 0.5), 0.0, np.minimum(*ends))
    a2 = np.minimum(size, 1e70) ** 2
    linear = 4 + a2 / 2
    square = (a2 / 2) / (linear + np.sqrt(linear**2 + 0.75 * a2**2))
    c = np.clip(np.sqrt(square), least, np.maximum(*ends))
    return (1 - c**2 + 2e-15) / 8 * (times(size, c) + np.hypot(times(size, c), 2.0))
