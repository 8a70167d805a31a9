"""The switches of the dictionary: activations, clamps, maxima of two arrays, choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nonsmooth.dictionary.operation import Array, Call, Nonsmooth
from nonsmooth.dictionary.select import Select
from nonsmooth.dictionary.switch import Partials, Switch, piecewise_linear

__all__ = ["SWITCHES"]


def _difference(call: Call, i: int = 0, j: int = 1) -> Array:
    """Give a - b, exactly 0 also where both are the same infinity."""
    a, b = call.operands[i], call.operands[j]
    return call.xp.where(a == b, call.xp.zeros_like(a - b), a - b)


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    """Give the breakpoints of a clamp: a missing bound is infinite, and bounds the wrong way round give a constant."""
    lower, upper = -math.inf if low is None else low, math.inf if high is None else high
    return (lower, upper) if lower <= upper else (math.inf, math.inf)


def _clamp_arguments(call: Call) -> Sequence[Array]:
    """Give u - min, but nothing near 0 where the bounds are the wrong way round, and max(u, min) - max."""
    xp, (u, low, high) = call.xp, call.operands
    lower = _difference(call)
    lower = xp.where(low > high, xp.full_like(lower, -math.inf), lower)
    return lower, xp.maximum(u, low) - high


def _clamp_moves(call: Call, tangents: tuple[Array, ...]) -> Sequence[Array]:
    """Give the tangents of u - min and of max(u, min) - max; at a tie of u and min the larger one counts."""
    xp, (u, low, _), (t, t_low, t_high) = call.xp, call.operands, tangents
    t, t_low = xp.broadcast_arrays(t, t_low)
    inner = xp.where(u == low, xp.maximum(t, t_low), xp.where(u > low, t, t_low))
    return t - t_low, inner - t_high


def _between(low: str, high: str) -> dict[str, Any]:
    """Record min(max(u, low), high) of one operand.

    Where low = high the function is constant and the middle piece has empty interior, but frameworks select it.
    """
    return {
        "kinks": ("lower bound", "upper bound"),
        "breakpoints": lambda a: _bounds(a[low], a[high]),
        "slopes": lambda a: (0, 1, 0),
        "flats": lambda a: [a[k] for k in (low, high) if a[k] is not None],
    }


def _elu_slopes(call: Call) -> Sequence[Partials]:
    """Give alpha scale input_scale exp(input_scale u) and scale."""
    (u,), a = call.operands, call.attributes
    inner = a["input_scale"] * call.xp.where(u > 0, call.xp.zeros_like(u), u)
    return ((a["alpha"] * a["scale"] * a["input_scale"] * call.xp.exp(inner),), (float(a["scale"]),))


def _logit_slopes(call: Call) -> Sequence[Partials]:
    """Give 1 / (v (1 - v)) between the bounds."""
    (u,), xp, eps = call.operands, call.xp, call.attributes["eps"]
    inner = xp.where((u < eps) | (u > 1 - eps), xp.full_like(u, 0.5), u)
    return (0.0,), (1 / (inner * (1 - inner)),), (0.0,)


def _copysign_slopes(call: Call) -> Sequence[Partials]:
    """Give -s and s, s the sign of b, which may be that of a zero."""
    (u, b), xp = call.operands, call.xp
    s = xp.copysign(xp.ones_like(u), b)
    return (-s, 0.0), (s, 0.0)


def _binary(name: str, right: tuple[float, float], summary: str) -> Switch:
    """Record an operation of a and b that switches on a - b; `right` is the piece on a > b."""
    left = (right[1], right[0])
    return Switch(
        name=name,
        kinks=("tie",),
        summary=summary,
        arguments=lambda call: (_difference(call),),
        moves=lambda call, t: (t[0] - t[1],),
        pieces=lambda call: (left, right),
    )


SWITCHES: tuple[Nonsmooth, ...] = (
    piecewise_linear(
        "relu",
        kinks=("0",),
        breakpoints=lambda a: (0,),
        slopes=lambda a: (0, 1),
        flats=lambda a: (0,),
        summary="max(u, 0)",
    ),
    piecewise_linear("abs", kinks=("0",), breakpoints=lambda a: (0,), slopes=lambda a: (-1, 1), summary="|u|"),
    piecewise_linear(
        "leaky_relu",
        kinks=("0",),
        breakpoints=lambda a: (0,),
        slopes=lambda a: (a["negative_slope"], 1),
        summary="u for u > 0, negative_slope u for u < 0",
    ),
    piecewise_linear("relu6", **_between("min_val", "max_val"), summary="min(max(u, 0), 6)"),
    piecewise_linear("hardtanh", **_between("min_val", "max_val"), summary="min(max(u, min_val), max_val)"),
    piecewise_linear("clamp", **_between("min", "max"), summary="min(max(u, min), max)"),
    piecewise_linear(
        "hardsigmoid",
        kinks=("lower bound", "upper bound"),
        breakpoints=lambda a: (-3, 3),
        slopes=lambda a: (0, 1 / 6, 0),
        summary="min(max(u/6 + 1/2, 0), 1)",
    ),
    piecewise_linear(
        "softshrink",
        kinks=("lower bound", "upper bound"),
        breakpoints=lambda a: (-a["lambd"], a["lambd"]),
        slopes=lambda a: (1, 0, 1),
        summary="sign(u) max(|u| - lambd, 0)",
    ),
    piecewise_linear(
        "threshold",
        kinks=("threshold",),
        breakpoints=lambda a: (a["threshold"],),
        slopes=lambda a: (0, 1),
        summary="max(u, threshold)",
    ),
    Switch(
        name="hardswish",
        kinks=("lower bound", "upper bound"),
        summary="u min(max(u/6 + 1/2, 0), 1)",
        arguments=lambda call: (call.operands[0] + 3, call.operands[0] - 3),
        moves=lambda call, t: (t[0], t[0]),
        pieces=lambda call: ((0.0,), ((2 * call.operands[0] + 3) / 6,), (1.0,)),
    ),
    Switch(
        name="elu",
        kinks=("0",),
        summary="scale u for u > 0, scale alpha (exp(input_scale u) - 1) for u < 0",
        arguments=lambda call: (call.operands[0],),
        moves=lambda call, t: (t[0],),
        pieces=_elu_slopes,
    ),
    Switch(
        name="selu",
        kinks=("0",),
        summary="scale u for u > 0, scale alpha (exp(u) - 1) for u < 0",
        arguments=lambda call: (call.operands[0],),
        moves=lambda call, t: (t[0],),
        pieces=_elu_slopes,
    ),
    Switch(
        name="logit_clamped",
        kinks=("lower bound", "upper bound"),
        summary="log(v / (1 - v)), v = min(max(u, eps), 1 - eps)",
        arguments=lambda call: (
            call.operands[0] - call.attributes["eps"],
            call.operands[0] - (1 - call.attributes["eps"]),
        ),
        moves=lambda call, t: (t[0], t[0]),
        pieces=_logit_slopes,
    ),
    Switch(
        name="copysign",
        kinks=("0",),
        summary="|u| with the sign of b, b constant",
        arguments=lambda call: (call.operands[0],),
        moves=lambda call, t: (t[0],),
        pieces=_copysign_slopes,
    ),
    Switch(
        name="prelu",
        kinks=("0",),
        summary="u for u > 0, a u for u < 0, a a parameter",
        arguments=lambda call: (call.operands[0],),
        moves=lambda call, t: (t[0],),
        pieces=lambda call: ((call.operands[1], call.operands[0]), (1.0, 0.0)),
    ),
    _binary("maximum", (1.0, 0.0), "max(a, b)"),
    _binary("minimum", (0.0, 1.0), "min(a, b)"),
    _binary("fmax", (1.0, 0.0), "max(a, b), ignoring nan"),
    _binary("fmin", (0.0, 1.0), "min(a, b), ignoring nan"),
    _binary("clamp_min_tensor", (1.0, 0.0), "max(u, min), min an array"),
    _binary("clamp_max_tensor", (0.0, 1.0), "min(u, max), max an array"),
    Switch(
        name="clamp_tensor",
        kinks=("lower bound", "upper bound"),
        summary="min(max(u, min), max), the bounds arrays",
        arguments=_clamp_arguments,
        moves=_clamp_moves,
        pieces=lambda call: ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ),
    Select(name="where", summary="a where the predicate holds, else b"),
)
"""The switches of the dictionary."""
