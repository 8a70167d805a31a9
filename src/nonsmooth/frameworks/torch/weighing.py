"""One call of a nonsmooth operation under a selection: torch's value, with the derivative that the rules select.

The result has the native value, and the graph of the linear map `push` of the record, which torch transposes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import array_api_compat.torch as xp
import torch

from nonsmooth.dictionary import Call, Nonsmooth, Switch
from nonsmooth.dictionary.pooling import Pooling, window_slices
from nonsmooth.frameworks.framework import CutCall
from nonsmooth.program import Step

__all__ = ["active_masks", "call_of", "cut_open", "fits", "weighed"]


def _alias(value: torch.Tensor) -> torch.Tensor:
    """Give a tensor on the same memory that is no view to autograd: the program may write into it."""
    alias: torch.Tensor = torch.empty(0, dtype=value.dtype, device=value.device).set_(value)  # type: ignore[call-overload]
    return alias


class _Attach(torch.autograd.Function):
    """Give a value the derivative of a linear map: forward returns the value, backward feeds the map."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        return _alias(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Hand the cotangent to the linear map."""
        return None, gradient


class _Elementwise(torch.autograd.Function):
    """Give a value the partial derivative of an element-wise operation of one operand."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, operand: torch.Tensor, partial: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        ctx.save_for_backward(partial)
        return _alias(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Multiply the cotangent by the partial derivative."""
        (partial,) = ctx.saved_tensors
        return None, gradient * partial, None


class _Pooled(torch.autograd.Function):
    """Give a value the derivative of a weighed pooling, its transpose added up in place, window place by window place."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, operand: torch.Tensor, places: list[tuple[slice, ...]], *shares: torch.Tensor
    ) -> torch.Tensor:
        """Return the value."""
        ctx.save_for_backward(*shares)
        ctx.places, ctx.like = places, operand
        return _alias(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Add q_k (cotangent) to the k-th place of every window."""
        total = torch.zeros_like(ctx.like)
        for place, share in zip(ctx.places, ctx.saved_tensors, strict=True):
            total[(..., *place)].addcmul_(gradient, share)
        return None, total, None, *(None for _ in ctx.saved_tensors)


def heaviside(argument: torch.Tensor, weight: Any) -> torch.Tensor:
    """Give 0 below zero, w at zero, 1 above: comparisons written straight into floats, which torch vectorises."""
    like = torch.empty_like(argument)
    if isinstance(weight, float) and weight in (0.0, 1.0):
        return torch.gt(argument, 0, out=like) if weight == 0.0 else torch.ge(argument, 0, out=like)
    if isinstance(weight, torch.Tensor) and weight.dtype is torch.bool:
        return (argument > 0).logical_or_((argument == 0).logical_and_(weight)).to(argument.dtype)
    at_zero = torch.eq(argument, 0, out=torch.empty_like(argument))
    return torch.gt(argument, 0, out=like).add_(at_zero.mul_(weight))


def call_of(operands: tuple[torch.Tensor, ...], attributes: Mapping[str, Any], result: torch.Tensor) -> Call:
    """Make the call that a record reads, without gradients."""
    return Call(xp, tuple(t.detach() for t in operands), attributes, result.detach(), heaviside)


def active_masks(operation: Nonsmooth, call: Call, tol: float = 0.0) -> Mapping[str, Any] | None:
    """Give the masks of the active kinks, or None as soon as it is certain that there is none.

    A switch of constant slopes needs no masks: its arguments say where it is kinked (None stands for its mask).
    """
    if isinstance(operation, Switch):
        arguments = operation.arguments(call)
        if all(a.numel() == 0 or bool(a.abs().min() > tol) for a in arguments):
            return None
        if operation.slopes_of(call) is not None and not tol:
            return dict.fromkeys(operation.kinks)
    masks = operation.active(call, tol)
    return masks if any(bool(m.any()) for m in masks.values()) else None


def weighed(
    operation: Nonsmooth, call: Call, rules: Mapping[str, Any], operands: tuple[torch.Tensor, ...], native: torch.Tensor
) -> torch.Tensor:
    """Give the native value the derivative that the rules select."""
    if isinstance(operation, Switch) and len(operands) == 1:
        with torch.no_grad():
            (partial,) = operation.partials(call, rules)
        return _Elementwise.apply(native.detach(), operands[0], torch.as_tensor(partial, device=native.device))  # type: ignore[no-any-return]
    if isinstance(operation, Pooling) and not any(call.attributes["padding"]) and fits(call):
        with torch.no_grad():
            shares = operation.shares(call, rules["tie"])
        places = [window_slices(call, o) for o in product(*(range(k) for k in call.attributes["kernel_size"]))]
        return _Pooled.apply(native.detach(), operands[0], places, *shares)  # type: ignore[no-any-return]
    return _Attach.apply(native.detach(), operation.push(call, rules, operands))  # type: ignore[no-any-return]


def cut_open(
    step: Step,
    operation: Nonsmooth,
    call: Call,
    operands: tuple[torch.Tensor, ...],
    native: torch.Tensor,
    tol: float,
) -> tuple[torch.Tensor, CutCall]:
    """Give the native value the derivative of the first selection, plus what the blocks of active kinks add to it."""
    rules, blocks = operation.cut(call, tol)
    flat = operation.push(call, rules, operands, tol).reshape(-1)
    opened = CutCall(step, call, rules, blocks, [], [], [])
    for block in blocks:
        u = torch.zeros(block.places.shape, dtype=native.dtype, device=native.device, requires_grad=True)
        index = torch.as_tensor(block.places, device=native.device).reshape(-1)
        flat = flat.index_add(0, index, u.reshape(-1))
        opened.outputs.append(u)
        opened.jumps.append(block.jumps(operands))
        opened.arguments.append(None if block.arguments is None else block.arguments(operands))
    return _Attach.apply(native.detach(), flat.reshape(native.shape)), opened


def fits(call: Call) -> bool:
    """Tell whether every window lies inside the operand, so that no padding is needed."""
    last = window_slices(call, tuple(k - 1 for k in call.attributes["kernel_size"]))
    return all(
        cut.stop <= n for cut, n in zip(last, call.operands[0].shape[call.attributes["spatial_from"] :], strict=True)
    )
