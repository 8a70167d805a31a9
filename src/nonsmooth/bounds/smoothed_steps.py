"""The smoothed operation that stands for each nonsmooth one, with its error and its curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, prod
from typing import Any, TypeAlias

import array_api_compat.numpy as host
import numpy as np

from nonsmooth.bounds.reach import Reach
from nonsmooth.dictionary import Call, Kind, Switch
from nonsmooth.dictionary.operation import device_of
from nonsmooth.dictionary.order import Extremum
from nonsmooth.errors import UsageError
from nonsmooth.program import Step
from nonsmooth.program.shaped import ShapedCall

__all__ = ["Smoothing", "Value", "is_kinked", "smoothing_of"]

Value: TypeAlias = Callable[[float], float]
"""The value of an operation of one operand where all entries of that are a number."""

KINKED = (Kind.SWITCH, Kind.ORDER, Kind.CONE, Kind.SPECTRAL)


@dataclass(frozen=True)
class Smoothing:
    """A family of smooth operations phi_mu, mu > 0, in the place of a nonsmooth one.

        |phi_mu - phi| <= error mu  on each entry,    the curvature of phi_mu is at most curvature / mu

    `apply(framework, mu)` gives phi_mu as a function of the operands.
    """

    error: float
    curvature: float
    apply: Callable[[Any, float], Callable[..., Any]]


def is_kinked(step: Step) -> bool:
    """Tell an operation that is continuous with kinks."""
    return step.operation.kind in KINKED


def smoothing_of(step: Step, call: ShapedCall, operands: tuple[Reach, ...], value: Value) -> Smoothing:
    """Give the smoothing of a step.

        piecewise linear a:    average over [u - mu, u + mu]: error J / 4, curvature J / 2, J the larger of the sum of the
                               jumps of the slope upwards and of the sum of those downwards
        max(a, b):             (a + b) / 2 + the average of |t| / 2 at a - b: error 1 / 4, curvature 1 / 2
        largest of K entries:  log-sum-exp, shifted half way: error log(K) / 2, curvature 1 / 2

    Raises:
        UsageError: the operation has no smoothing.

    Source: BeckTeboulle2012; derived, docs/theory/smoothing.md.
    """
    name, operation = step.operation.name, step.operation
    if name in PAIRS:
        return PAIRS[name]
    if name == "prelu":
        return _prelu(operands[1].peak)
    if name == "hardswish":
        return Smoothing(0.25, 0.5, lambda framework, mu: lambda u: _hardswish(framework, mu, u))
    if isinstance(operation, Extremum):
        return _extremum(step, operation, call)
    pieces = _pieces(step) if isinstance(operation, Switch) and len(step.operands) == 1 else None
    if pieces is None:
        raise UsageError(
            f"smooth: {step} has no smoothing; those that have are the functions of one number that are linear between "
            "kinks (relu, leaky_relu, abs, clamp, hardtanh ...), prelu, hardswish, the largest and the smallest of two or "
            "of an axis, and maximum pooling. Write it with these, or with a smooth operation (softplus, silu, logsumexp)."
        )
    return _averaged(*pieces, value)


# --- functions of one number ------------------------------------------------------------------------------------------


def _pieces(step: Step) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Read breakpoints and slopes of a function that is linear between kinks; None for another one."""
    assert isinstance(step.operation, Switch)
    calls = [Call(host, (np.array(u),), step.attributes, np.array(u)) for u in (0.0, -1.25, 1.75)]
    try:
        arguments = [-float(a) for a in step.operation.arguments(calls[0])]
        slopes, *others = ([p[0] for p in step.operation.pieces(call)] for call in calls)
        if any(other != slopes for other in others):  # a piece that bends
            return None
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    if not all(isinstance(s, int | float) for s in slopes) or len(slopes) != len(arguments) + 1:
        return None
    return tuple(arguments), tuple(map(float, slopes))


def _averaged(breakpoints: tuple[float, ...], slopes: tuple[float, ...], value: Value) -> Smoothing:
    """Average a function that is linear between breakpoints; an infinite one is none."""
    before = sum(b == -np.inf for b in breakpoints)
    after = sum(b == np.inf for b in breakpoints)
    kept = breakpoints[before : len(breakpoints) - after]
    slopes = slopes[before : len(slopes) - after]
    jumps = np.diff(slopes)
    jump = float(max(jumps[jumps > 0].sum(), -jumps[jumps < 0].sum()))

    def apply(framework: Any, mu: float) -> Callable[..., Any]:
        start = value(kept[0])
        return lambda u: framework.smoothed_pieces(u, mu, list(kept), list(slopes), start)

    return Smoothing(jump / 4, jump / 2, apply)


def _relu(framework: Any, mu: float, u: Any) -> Any:
    """Give the average of relu over [u - mu, u + mu]."""
    return framework.smoothed_pieces(u, mu, [0.0], [0.0, 1.0], 0.0)


def _prelu(largest: float) -> Smoothing:
    """Smooth max(u, 0) - a max(-u, 0)."""

    def apply(framework: Any, mu: float) -> Callable[..., Any]:
        return lambda u, a: _relu(framework, mu, u) - a * _relu(framework, mu, -u)

    return Smoothing((1 + largest) / 4, (1 + largest) / 2, apply)


def _hardswish(framework: Any, mu: float, u: Any) -> Any:
    """Give 2 r_3(u) + k_mu(u): r_3 the average of relu over [u - 3, u + 3], k = -(max(u + 3, 0) + max(u - 3, 0)) / 2."""
    smooth = 2 * framework.smoothed_pieces(u, 3.0, [0.0], [0.0, 1.0], 0.0)
    return smooth + framework.smoothed_pieces(u, mu, [-3.0, 3.0], [0.0, -0.5, -1.0], 0.0)


# --- of two numbers ---------------------------------------------------------------------------------------------------


def _larger(framework: Any, mu: float, a: Any, b: Any) -> Any:
    """Smooth max(a, b) = (a + b) / 2 + |a - b| / 2."""
    a, b = _arrays(framework, a, b)
    return (a + b) / 2 + framework.smoothed_pieces(a - b, mu, [0.0], [-0.5, 0.5], 0.0)


def _smaller(framework: Any, mu: float, a: Any, b: Any) -> Any:
    """Smooth min(a, b) = (a + b) / 2 - |a - b| / 2."""
    a, b = _arrays(framework, a, b)
    return (a + b) / 2 - framework.smoothed_pieces(a - b, mu, [0.0], [-0.5, 0.5], 0.0)


def _arrays(framework: Any, *operands: Any) -> list[Any]:
    """Give numbers the type of the arrays beside them."""
    like = next(t for t in operands if framework.holds(t))
    xp = framework.xp
    return [t if framework.holds(t) else xp.asarray(t, dtype=like.dtype, device=device_of(like)) for t in operands]


def _clamped(framework: Any, mu: float, u: Any, low: Any, high: Any) -> Any:
    """Smooth min(max(u, low), high)."""
    return _smaller(framework, mu, _larger(framework, mu, u, low), high)


def _pair(function: Callable[..., Any], times: int = 1) -> Smoothing:
    """Give a smoothing that averages relu so many times."""
    return Smoothing(times / 4, times / 2, lambda framework, mu: lambda *operands: function(framework, mu, *operands))


PAIRS: Mapping[str, Smoothing] = {
    **dict.fromkeys(("maximum", "fmax", "clamp_min_tensor"), _pair(_larger)),
    **dict.fromkeys(("minimum", "fmin", "clamp_max_tensor"), _pair(_smaller)),
    "clamp_tensor": _pair(_clamped, 2),
}


# --- of many numbers --------------------------------------------------------------------------------------------------


def _extremum(step: Step, operation: Extremum, call: ShapedCall) -> Smoothing:
    """Smooth the largest of tuples of entries; where a tuple is shorter its entries come again."""
    shape, result = call.operands[0].shape, call.results[0]
    numbers = np.arange(prod(shape)).reshape(shape)
    reader = Call(host, (numbers,), step.attributes, np.zeros(result))
    places = np.asarray(operation.candidates(reader, numbers, -1))
    count, sign = places.shape[-1], operation.sign
    shown = np.take_along_axis(places, np.argsort(places < 0, axis=-1, kind="stable"), -1)
    again = np.arange(count) % np.maximum((places >= 0).sum(-1, keepdims=True), 1)
    places = np.take_along_axis(shown, again, -1)

    def apply(framework: Any, mu: float) -> Callable[..., Any]:
        xp = framework.xp
        index = xp.asarray(places.ravel())

        def largest(u: Any) -> Any:
            here = index if device_of(u) == device_of(index) else xp.asarray(places.ravel(), device=device_of(u))
            tuples = u.reshape((-1,))[here].reshape(places.shape)
            return (sign * framework.smoothed_max(sign * tuples, mu)).reshape(result)

        return largest

    return Smoothing(log(count) / 2, 0.5, apply)
