"""Jumps: operations that are not continuous at their bad points, where no conservative field exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nonsmooth.dictionary.operation import Array, Call, Kind, Singularity, device_of

__all__ = ["JUMPS"]


def _jump(name: str, kink: str, distance: Callable[[Call], Array], summary: str) -> Singularity:
    """Record a jump."""
    return Singularity(name=name, kind=Kind.JUMP, kink=kink, distance=distance, summary=summary)


def _steps(name: str, kink: str, distance: Callable[[Call], Array], summary: str) -> Singularity:
    """Record a jump from constant to constant."""
    return replace(_jump(name, kink, distance, summary), piecewise_constant=True)


def _to_integer(call: Call) -> Array:
    """Give the distance to the nearest integer."""
    u = call.operands[0]
    return call.xp.abs(u - call.xp.round(u))


def _to_half(call: Call) -> Array:
    """Give the distance to the nearest k + 1/2, in units of the last digit kept."""
    u = call.operands[0] * 10.0 ** call.attributes.get("decimals", 0)
    return call.xp.abs(u - call.xp.floor(u) - 0.5) / 10.0 ** call.attributes.get("decimals", 0)


def _to_nonzero_integer(call: Call) -> Array:
    """Give the distance to the nearest integer but 0: trunc and frac are continuous there."""
    u, xp = call.operands[0], call.xp
    nearest = xp.round(u)
    return xp.where(nearest == 0, 1 - xp.abs(u), xp.abs(u - nearest))


def _to_multiple(call: Call) -> Array:
    """Give the distance of a / b to the nearest integer, times |b|."""
    a, b = call.operands
    ratio = a / b
    return call.xp.abs(ratio - call.xp.round(ratio)) * call.xp.abs(b)


def _to_nonzero_multiple(call: Call) -> Array:
    """Give the distance of a / b to the nearest integer but 0, times |b|."""
    a, b = call.operands
    ratio = a / b
    xp, nearest = call.xp, call.xp.round(ratio)
    return xp.where(nearest == 0, 1 - xp.abs(ratio), xp.abs(ratio - nearest)) * xp.abs(b)


def _to_pixel(call: Call) -> Array:
    """Give the distance of each coordinate of a sampling grid to the nearest pixel (or, nearest mode, border of one)."""
    grid, xp = call.operands[0], call.xp
    sizes = xp.asarray(call.attributes["sizes"], dtype=grid.dtype, device=device_of(grid))
    aligned = call.attributes["align_corners"]
    place = (grid + 1) / 2 * (sizes - 1) if aligned else ((grid + 1) * sizes - 1) / 2
    place = place + 0.5 if call.attributes["nearest"] else place
    return xp.abs(place - xp.round(place))


def _to_equal(call: Call) -> Array:
    """Give the smallest distance of two entries of each slice: where none are equal the mode is the smallest entry."""
    xp, axis = call.xp, call.attributes.get("dim", -1)
    u = call.operands[0]
    if not u.ndim or u.shape[axis] < 2:
        return xp.full_like(call.result, float("inf"))
    u = xp.sort(xp.moveaxis(u, axis, -1), axis=-1)
    return xp.reshape(xp.min(u[..., 1:] - u[..., :-1], axis=-1), call.result.shape)


def _to_power_of_two(call: Call) -> Array:
    """Give the distance of |u| to the nearest power of 2, |u| being 2^k times a mantissa m, 1/2 <= m < 1."""
    xp, u, mantissa = call.xp, call.xp.abs(call.operands[0]), call.xp.abs(call.result)
    power = u / xp.where(mantissa == 0, xp.ones_like(mantissa), mantissa)
    return xp.minimum(u - power / 2, power - u)


def _to_other_pivot(call: Call) -> Array:
    """Give the smallest distance of a multiplier of the elimination to 1, where another row becomes the pivot."""
    xp, lower = call.xp, call.xp.tril(call.result, k=-1)
    return xp.min(1 - xp.abs(lower), axis=(-2, -1), keepdims=True)


JUMPS: tuple[Singularity, ...] = (
    _steps("sign", "0", lambda c: c.xp.abs(c.operands[0]), "-1, 0 or 1"),
    _steps("heaviside", "0", lambda c: c.xp.abs(c.operands[0]), "0 for u < 0, 1 for u > 0"),
    _steps("copysign_sign", "0", lambda c: c.xp.abs(c.operands[1]), "|a| with the sign of b, a constant"),
    _steps("norm_zero", "zero entry", lambda c: c.xp.abs(c.operands[0]), "the number of entries that are not 0"),
    _steps("floor", "integer", _to_integer, "the largest integer below"),
    _steps("ceil", "integer", _to_integer, "the smallest integer above"),
    _steps("round", "half integer", _to_half, "the nearest integer"),
    _steps("trunc", "integer", _to_nonzero_integer, "the integer part"),
    _jump("frac", "integer", _to_nonzero_integer, "u - trunc(u)"),
    _jump("mode", "equal entries", _to_equal, "the most frequent entry, the smallest of them"),
    _jump("frexp", "power of 2", _to_power_of_two, "the mantissa of a number"),
    _jump("lu_factor", "tied pivots", _to_other_pivot, "the factors of an elimination with row pivots"),
    _steps("floor_divide", "multiple", _to_multiple, "floor(a / b)"),
    _jump("remainder", "multiple", _to_multiple, "a - b floor(a / b)"),
    _jump("fmod", "multiple", _to_nonzero_multiple, "a - b trunc(a / b)"),
    _steps("trunc_divide", "multiple", _to_nonzero_multiple, "trunc(a / b)"),
    _jump("grid_sample", "pixel", _to_pixel, "interpolation at a moving grid: continuous unless in nearest mode"),
    _jump(
        "softplus_jump",
        "threshold",
        lambda c: c.xp.abs(c.operands[0] - c.attributes["threshold"] / c.attributes["beta"]),
        "softplus that becomes the identity above a low threshold",
    ),
    _jump(
        "hardshrink",
        "threshold",
        lambda c: c.xp.abs(c.xp.abs(c.operands[0]) - c.attributes["lambd"]),
        "u for |u| > lambd",
    ),
    _jump(
        "threshold_jump",
        "threshold",
        lambda c: c.xp.abs(c.operands[0] - c.attributes["threshold"]),
        "u above, a value below",
    ),
)
"""The jumps of the dictionary."""
