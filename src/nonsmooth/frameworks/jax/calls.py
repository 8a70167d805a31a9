"""One call of a nonsmooth operation, as its record reads it, and the rules that a selection gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import numpy as jnp

from nonsmooth.dictionary import Call, Nonsmooth, Rule
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.program import Step

__all__ = ["active_masks", "call_of", "heaviside", "rules_of"]


def heaviside(argument: Any, weight: Any) -> Any:
    """Give 0 below zero, w at zero, 1 above."""
    if isinstance(weight, float) and weight in (0.0, 1.0):
        return (argument > 0 if weight == 0.0 else argument >= 0).astype(argument.dtype)
    if getattr(weight, "dtype", None) == jnp.bool_:
        return ((argument > 0) | ((argument == 0) & weight)).astype(argument.dtype)
    return jnp.where(argument > 0, 1.0, jnp.where(argument == 0, weight, 0.0)).astype(argument.dtype)


def call_of(operands: tuple[Any, ...], attributes: Mapping[str, Any], result: Any) -> Call:
    """Make the call that a record reads."""
    return Call(jnp, operands, attributes, result, heaviside)


def active_masks(operation: Nonsmooth, call: Call, tol: float = 0.0) -> Mapping[str, Any] | None:
    """Give the masks of the active kinks, or None where there is none; for values, not for tracers."""
    masks = operation.active(call, tol)
    return masks if any(bool(jnp.any(m)) for m in masks.values()) else None


def rules_of(select: Selector, step: Step, call: Call) -> Mapping[str, Rule] | None:
    """Ask a selection for the rules of a call, whether or not its kinks are active."""
    assert isinstance(step.operation, Nonsmooth)
    return select(step, call, step.operation.active(call))
