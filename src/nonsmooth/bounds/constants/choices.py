"""The constants of choices between numbers, and of what is constant from jump to jump."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike

from nonsmooth.bounds.constants.entries import Flags, Interval, copies, entries, largest, least_size, product, total
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local

__all__: list[str] = []


# --- which of several -------------------------------------------------------------------------------------------------


def _chosen(call: Called, flags: list[Flags], places: list[int], kink: Flags, interval: Interval) -> Local:
    """Give the constants of a result whose entries are each one of those of the operands at some places.

    l_u = 1, times the root of the copies, where u can be chosen, and parts add as squares, ||z'||^2 = sum over u of
    ||u' where u is chosen||^2; L = 0 where the choice is the same on all of the set, else infinite.
    """
    firsts: list[ArrayLike] = [0.0] * len(call.operands)
    for place, flag in zip(places, flags, strict=True):
        firsts[place] = np.where(flag, 1.0, 0.0)
    undecided = np.where(kink, inf, 0.0)
    seconds = {(i, j): undecided for i in places for j in places if i <= j} if np.any(kink) else {}
    squares = [
        (call.operands[p].norm * sqrt(copies(call.operands[p].shape, call.shape))) ** 2 if np.any(flag) else 0.0
        for p, flag in zip(places, flags, strict=True)
    ]
    return entries(
        call,
        firsts,
        seconds,
        interval,
        norm=sqrt(sum(squares)),
        stacked=True,
        why=f"`{call.operation}` has a tie in the set" if np.any(kink) else "",
        slopes=(np.where(kink, 0.0, firsts[0]), firsts[0]),
    )


def _larger(a: Interval, b: Interval) -> tuple[Flags, Flags, Interval]:
    """Tell where a, and where b, can be the larger one, and give the interval of the maximum."""
    return a[1] > b[0], b[1] > a[0], (np.maximum(a[0], b[0]), np.maximum(a[1], b[1]))


def _negative(a: Interval) -> Interval:
    """Give the interval of -a."""
    return -a[1], -a[0]


@bound_operation("maximum", "fmax", "clamp_min_tensor")
def maximum(call: Called) -> Local:
    """max(a, b): each entry is that of a or that of b. l = 1 for each that can be the larger one, parts add as squares.

    Where one is the larger one on all of the set, it is that; else there may be a tie, and L is infinite.
    """
    a, b = call.operands
    first, second, interval = _larger(a.interval, b.interval)
    if a is b:
        return Local([1.0, 0.0], {}, a.norm, *a.interval)
    return _chosen(call, [first | ~second, second], [0, 1], first & second, interval)


@bound_operation("minimum", "fmin", "clamp_max_tensor")
def minimum(call: Called) -> Local:
    """min(a, b): as `maximum`, with the smaller one."""
    a, b = call.operands
    first, second, interval = _larger(_negative(a.interval), _negative(b.interval))
    if a is b:
        return Local([1.0, 0.0], {}, a.norm, *a.interval)
    return _chosen(call, [first | ~second, second], [0, 1], first & second, _negative(interval))


@bound_operation("clamp_tensor")
def clamp_between(call: Called) -> Local:
    """min(max(u, low), high) of arrays: each entry is that of u, of low or of high; parts add as squares."""
    u, low, high = call.operands
    over, under, inner = _larger(u.interval, low.interval)
    below, above, found = _larger(_negative(inner), _negative(high.interval))
    below = below | ~above
    kink = (over & under & below) | (below & above)
    return _chosen(call, [(over | ~under) & below, under & below, above], [0, 1, 2], kink, _negative(found))


@bound_operation("where")
def where(call: Called) -> Local:
    """Give a where a condition holds, else b: a choice, which is fixed where the condition does not move.

    l = 1 for each that can be chosen, parts add as squares, L = 0. A condition that moves and is not the same on all of
    the set makes a jump: its l is infinite, whatever the values (where they meet, `maximum` or `clamp` would say so).
    """
    condition, a, b = call.operands
    low, high = condition.interval
    never, always = (low == 0) & (high == 0), (low > 0) | (high < 0)
    (al, ah), (bl, bh) = a.interval, b.interval
    interval = (
        np.where(always, al, np.where(never, bl, np.minimum(al, bl))),
        np.where(always, ah, np.where(never, bh, np.maximum(ah, bh))),
    )
    local = _chosen(call, [~never, ~always], [1, 2], np.array(False), interval)
    if not condition.moves or np.all(never | always):
        return local
    why = "`where` chooses by values that move: it may jump"
    return _jumping(call, interval, local.norm, why)


# --- constant from jump to jump ---------------------------------------------------------------------------------------


def _jumping(call: Called, interval: tuple[ArrayLike, ArrayLike], norm: float = inf, why: str = "") -> Local:
    """Give the constants of what may jump on the set: none in what moves, neither l nor L."""
    low, high = (np.asarray(v, float) for v in interval)
    why = why or f"`{call.operation}` may jump on the set"
    moving = [i for i, u in enumerate(call.operands) if u.moves]
    lipschitz = [inf if u.moves else 0.0 for u in call.operands]
    smoothness = {(i, j): inf for i in moving for j in moving if i <= j}
    return Local(lipschitz, smoothness, norm, low, high, why=why)


def _steps(call: Called, constant: ArrayLike, interval: tuple[ArrayLike, ArrayLike]) -> Local:
    """Give the constants of what is constant from jump to jump: 0 where no entry has a jump, else infinite."""
    if not np.all(constant):
        return _jumping(call, interval)
    low, high = (np.asarray(v, float) for v in interval)
    nothing = np.zeros(()), np.zeros(())
    alone = call.x.shape == call.shape and len(call.operands) == 1
    return Local([0.0] * len(call.operands), {}, inf, low, high, slopes=nothing if alone else None)


def _rounding(name: str, function: Callable[[Floats], Floats]) -> None:
    """Give a rounding its record."""

    @bound_operation(name)
    def record(call: Called) -> Local:
        """The constant l = 0 where an entry rounds to the same number on all of its interval, else it jumps."""
        low, high = (function(v) for v in call.x.interval)
        return _steps(call, low == high, (low, high))


for _name, _function in {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc}.items():
    _rounding(_name, _function)


@bound_operation("round")
def nearest(call: Called) -> Local:
    """Give the nearest number with some decimals: l = 0 where it is the same on all of an interval, else it jumps."""
    scale = 10.0 ** call.number("decimals", 0)
    low, high = (np.round(v * scale) / scale for v in call.x.interval)
    return _steps(call, low == high, (low, high))


@bound_operation("frac")
def fraction(call: Called) -> Local:
    """Give u - trunc(u): l = 1 and L = 0 where trunc(u) is the same on all of an interval, else it jumps."""
    low, high = call.x.interval
    cell, last = np.trunc(low), np.trunc(high)
    if not np.all(cell == last):
        return _jumping(call, (np.where(low < 0, -1.0, 0.0), np.where(high > 0, 1.0, 0.0)), call.x.norm)
    return entries(call, [1.0], {}, (low - cell, high - cell), norm=call.x.norm, slopes=(1.0, 1.0))


def _cells(call: Called, rounding: Callable[[Floats], Floats]) -> tuple[Floats, Floats, bool]:
    """Give the interval of the rounded quotient of two operands, and whether it is the same on all of the set."""
    a, b = call.operands
    size = least_size(b.interval)
    with np.errstate(all="ignore"):
        inverse = np.where(size > 0, 1 / b.interval[1], -inf), np.where(size > 0, 1 / b.interval[0], inf)
        low, high = (rounding(v) for v in _widened(product(a.interval, inverse)))
    return low, high, bool(np.all((low == high) & np.isfinite(low)))


def _widened(interval: Interval) -> Interval:
    """Make room for rounding, but at numbers that are whole."""
    low, high = interval
    slack = 4e-16
    return (
        np.where(low == np.round(low), low, low - slack * np.abs(low)),
        np.where(high == np.round(high), high, high + slack * np.abs(high)),
    )


@bound_operation("floor_divide")
def floor_divide(call: Called) -> Local:
    """floor(a / b): l = 0 where it is the same on all of the box, else it jumps."""
    low, high, constant = _cells(call, np.floor)
    return _steps(call, constant, (low, high))


@bound_operation("trunc_divide")
def trunc_divide(call: Called) -> Local:
    """trunc(a / b): l = 0 where it is the same on all of the box, else it jumps."""
    low, high, constant = _cells(call, np.trunc)
    return _steps(call, constant, (low, high))


def _rest(call: Called, rounding: Callable[[Floats], Floats]) -> Local:
    """Give the constants of a - b q, q the rounded quotient: affine where q is the same on all of the box."""
    a, b = call.operands
    low, high, constant = _cells(call, rounding)
    top = largest(b.interval)
    if rounding is np.floor:
        room = np.where(b.interval[0] < 0, -top, 0.0), np.where(b.interval[1] > 0, top, 0.0)
    else:
        room = np.where(a.interval[0] < 0, -top, 0.0), np.where(a.interval[1] > 0, top, 0.0)
    if not constant:
        return _jumping(call, np.broadcast_arrays(*room)[:2])  # type: ignore[arg-type]
    taken = total(a.interval, _negative(product(b.interval, (low, high))))
    interval = np.maximum(taken[0], room[0]), np.minimum(taken[1], room[1])
    return entries(call, [1.0, np.abs(low)], {}, interval, slopes=(1.0, 1.0))


@bound_operation("remainder")
def remainder(call: Called) -> Local:
    """Give a - b floor(a / b): l = 1 and |floor(a / b)| where that is the same on all of the box, else it jumps."""
    return _rest(call, np.floor)


@bound_operation("fmod")
def fmod(call: Called) -> Local:
    """Give a - b trunc(a / b): l = 1 and |trunc(a / b)| where that is the same on all of the box, else it jumps."""
    return _rest(call, np.trunc)


@bound_operation("heaviside")
def heaviside(call: Called) -> Local:
    """0 for u < 0, the value for u = 0, 1 for u > 0: l = 0 in u where it does not meet 0, l = 1 in the value where it is 0."""
    u, value = call.operands
    low, high = u.interval
    least, most = value.interval
    at_zero, negative, positive = (low <= 0) & (high >= 0), low < 0, high > 0
    interval = (
        np.minimum(np.where(negative, 0.0, 1.0), np.where(at_zero, least, inf)),
        np.maximum(np.where(positive, 1.0, 0.0), np.where(at_zero, most, -inf)),
    )
    torn = at_zero & (negative | positive)
    if np.any(torn) and u.moves:
        return _jumping(call, interval)
    interval = np.where(at_zero & ~torn, least, interval[0]), np.where(at_zero & ~torn, most, interval[1])
    return entries(call, [0.0, np.where(at_zero, 1.0, 0.0)], {}, interval, stacked=True)


@bound_operation("copysign", "copysign_sign")
def copysign(call: Called) -> Local:
    """|u| with the sign of b: l = 1 in u, with a kink where u may be 0; a sign of b that may change makes a jump."""
    u, b = call.operands
    low, high = b.interval
    size = least_size(u.interval), largest(u.interval)
    plus, minus = low > 0, high < 0
    if b.center is not None and not b.moves:
        signs = np.signbit(np.asarray(b.center, float))
        plus, minus = ~signs, signs
    interval = np.where(plus, size[0], -size[1]), np.where(minus, -size[0], size[1])
    norm = u.norm * sqrt(copies(u.shape, call.shape))
    if b.moves and not np.all(plus | minus):
        return _jumping(call, interval, norm)
    kink = np.where((u.interval[0] < 0) & (u.interval[1] > 0), inf, 0.0)
    why = "`copysign` has a kink in the set" if np.any(kink) else ""
    return entries(call, [1.0, 0.0], {(0, 0): kink}, interval, norm=norm, why=why)


# --- comparisons ------------------------------------------------------------------------------------------------------


@bound_operation("compare")
def compare(call: Called) -> Local:
    """0 or 1: l = 0 where the operands' intervals lie apart, or an order is the same at both ends, else it jumps."""
    first, second = (u.interval for u in (call.x, call.operands[-1]))
    apart = (first[1] < second[0]) | (first[0] > second[1])
    if np.all(apart):
        return _steps(call, True, (0.0, 1.0))
    ends = _order(call, first, second)
    if ends is None:
        return _jumping(call, (0.0, 1.0)) if any(u.moves for u in call.operands) else _steps(call, True, (0.0, 1.0))
    return _steps(call, ends[0] == ends[1], (np.minimum(*ends), np.maximum(*ends)))


def _order(call: Called, first: Interval, second: Interval) -> Interval | None:
    """Give what an order gives at both ends of the box; None for an equality, or where it cannot be run."""
    if len(call.operands) != 2 or not all(np.all(np.isfinite(v)) for v in (*first, *second)):
        return None
    shapes = [u.shape for u in call.operands]
    probes = [call.evaluate(*(np.full(s, float(v)) for s, v in zip(shapes, p, strict=True))) for p in ((0, 1), (1, 0))]
    if probes[0] is None or probes[1] is None or np.array_equal(probes[0], probes[1]):
        return None
    least = call.evaluate(np.broadcast_to(first[0], shapes[0]), np.broadcast_to(second[1], shapes[1]))
    most = call.evaluate(np.broadcast_to(first[1], shapes[0]), np.broadcast_to(second[0], shapes[1]))
    return None if least is None or most is None else (np.asarray(least, float), np.asarray(most, float))


@bound_operation("equal", "logic")
def discrete(call: Called) -> Local:
    """0 or 1, or whole numbers: l = 0 where nothing that they are made of moves, else they may jump."""
    interval = (0.0, 1.0) if call.operation == "equal" else (-inf, inf)
    return _jumping(call, interval) if any(u.moves for u in call.operands) else _steps(call, True, interval)
