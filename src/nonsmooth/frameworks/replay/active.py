"""Active kinks of one call, looked for at every step of a run: cheaply where there is none."""

from __future__ import annotations

from collections.abc import Mapping

from nonsmooth.dictionary import Call, Cone, Kind, Nonsmooth, Switch
from nonsmooth.dictionary.operation import Array

__all__ = ["active_masks", "is_curved"]


def active_masks(operation: Nonsmooth, call: Call, tol: float = 0.0) -> Mapping[str, Array | None] | None:
    """Give the masks of the active kinks, or None as soon as it is certain that there is none.

    A switch of constant slopes needs no masks: its arguments say where it is kinked (None stands for its mask).
    """
    xp = call.xp
    if isinstance(operation, Switch):
        if not any(bool(xp.any(xp.abs(a) <= tol)) for a in operation.arguments(call)):
            return None
        if operation.slopes_of(call) is not None and not tol:
            return dict.fromkeys(operation.kinks)
    masks = operation.active(call, tol)
    return masks if any(bool(xp.any(m)) for m in masks.values()) else None


def is_curved(operation: Nonsmooth, call: Call) -> bool:
    """Tell whether a call is not piecewise affine in its operands."""
    if isinstance(operation, Switch):
        return operation.slopes_of(call) is None
    if isinstance(operation, Cone):
        return operation.exponent(call) not in (1.0, float("inf"))
    return operation.kind not in (Kind.SWITCH, Kind.ORDER)
