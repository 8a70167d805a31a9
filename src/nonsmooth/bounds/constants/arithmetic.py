"""The constants of arithmetic of several operands, and of smooth functions of two numbers.

One file, for all of them are the same step: bounds of partial derivatives on a box, gathered by `entries`.
"""

from __future__ import annotations

from math import inf, log, pi, sqrt

import numpy as np
from scipy.special import expit

from nonsmooth.bounds.constants.elementwise import exponential, power
from nonsmooth.bounds.constants.entries import (
    Interval,
    copies,
    entries,
    largest,
    least_size,
    product,
    same_everywhere,
    total,
)
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.scalar import entrywise
from nonsmooth.bounds.reach import Floats, Local, times

__all__: list[str] = []


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
