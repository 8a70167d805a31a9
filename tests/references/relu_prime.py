"""relu with a chosen slope at 0, and the same with the error of the public code; a naive search for differing gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


class ChosenRelu(torch.autograd.Function):
    """max(t, 0), with the cotangent multiplied by 0, alpha, 1 for t < 0, = 0, > 0."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor, alpha: float) -> torch.Tensor:
        ctx.save_for_backward(t)
        ctx.alpha = alpha
        return t.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        (t,) = ctx.saved_tensors
        slope = torch.where(t == 0, torch.full_like(t, ctx.alpha), (t > 0).to(t.dtype))
        return slope * grad_output, None


class ErroneousRelu(ChosenRelu):
    """The same forward pass; at t = 0 the cotangent is replaced by alpha, not multiplied by it."""

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        (t,) = ctx.saved_tensors
        at_zero = torch.full_like(grad_output, ctx.alpha)
        return torch.where(t > 0, grad_output, torch.where(t == 0, at_zero, torch.zeros_like(grad_output))), None


class WithSlope(nn.Module):
    """One of the two as a layer."""

    def __init__(self, function: Any, alpha: float) -> None:
        super().__init__()
        self.function, self.alpha = function, alpha

    def forward(self, t: torch.Tensor) -> Any:
        return self.function.apply(t, self.alpha)


def replaced(model: nn.Sequential, function: Any, alpha: float) -> nn.Sequential:
    """Give the network with the same parameters and its relus replaced."""
    return nn.Sequential(*(WithSlope(function, alpha) if isinstance(m, nn.ReLU) else m for m in model))


def gradients(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """Give backprop's gradient with respect to all parameters."""
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def differing(
    build: Callable[[], nn.Sequential],
    seeds: Sequence[int],
    batches: Sequence[Any],
    alphas: Sequence[float],
    function: Any = ChosenRelu,
) -> list[bool]:
    """Tell for each seed whether two full backward passes differ on some batch."""  # fmt: skip
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = build()
        pairs = [[gradients(replaced(model, function, a), x, y) for a in alphas] for x, y in batches]
        found.append(any(not torch.equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True)))
    return found
