"""Strong zeros on torch's way back: the cotangent of a singular operation is zero where nothing selects its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import array_api_compat.torch as xp
import torch

from nonsmooth.frameworks.replay.unselected import Route, unselected_entries
from nonsmooth.program import Step

__all__ = ["guard_against_infinity"]


class _StrongZero(torch.autograd.Function):
    """The identity, whose backward puts zeros at the unselected entries."""

    @staticmethod
    def forward(ctx: Any, operand: torch.Tensor, route: Route, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return the operand."""
        ctx.route, ctx.masks = route, masks
        return operand.view_as(operand)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Let the strong zeros absorb."""
        mask = unselected_entries(xp, ctx.route, tuple(gradient.shape), ctx.masks)
        if mask is not None:
            gradient = torch.where(mask, torch.zeros_like(gradient), gradient)
        return gradient, None, None


def guard_against_infinity(
    step: Step,
    operands: tuple[torch.Tensor, ...],
    args: Any,
    kwargs: Any,
    route: Route,
    masks: Mapping[int, torch.Tensor],
) -> torch.Tensor:
    """Run a singular step with strong zeros on the way back to its operands."""
    guarded: dict[int, Any] = {id(t): _StrongZero.apply(t, route, masks) for t in operands if t.requires_grad}
    args = tuple(guarded.get(id(a), a) for a in args)
    return step.target(*args, **kwargs)  # type: ignore[no-any-return]
