"""The smoothed operations as operators of torch's own, so that a tape sees each as one step, and programs that use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log
from typing import Any

import torch

from nonsmooth.frameworks.replay.plain import run_plainly
from nonsmooth.frameworks.torch.protection import fresh_copies
from nonsmooth.program import Program, Step

__all__ = ["run_program", "smoothed_max", "smoothed_pieces"]


def run_program(program: Program, leaves: Sequence[torch.Tensor], items: Sequence[torch.Tensor]) -> Any:
    """Run the steps of a program with torch's own gradients; what the steps write to is copied before."""
    arrays = [*leaves, *items]
    if any(step.mutates for step in program.steps):
        arrays = [t.clone() for t in arrays]
    env = dict(zip((*program.inputs, *program.data), arrays, strict=True)) | dict(program.constants)
    return run_plainly(program, env | fresh_copies(program), _as_captured)


@contextmanager
def _as_captured(step: Step) -> Iterator[None]:
    """Run a step without gradients, or casting, where it was captured so."""
    with torch.set_grad_enabled(step.mode.grad and torch.is_grad_enabled()):
        if step.mode.autocast is None:
            yield
        else:
            device, dtype = step.mode.autocast
            with torch.autocast(device, dtype=getattr(torch, dtype)):
                yield


# --- piecewise linear functions ---------------------------------------------------------------------------------------


@torch.library.custom_op("nonsmooth::smoothed_pieces", mutates_args=())
def smoothed_pieces(
    u: torch.Tensor, width: float, breakpoints: Sequence[float], slopes: Sequence[float], value: float
) -> torch.Tensor:
    """Give the average over [u - width, u + width] of the function with these slopes that has a value at the first break.

        a(u) + sum_j (s_j - s_{j-1}) max(width - |u - b_j|, 0)^2 / (4 width)

    >>> smoothed_pieces(torch.tensor([-2.0, 0.0, 2.0]), 1.0, [0.0], [0.0, 1.0], 0.0)
    tensor([0.0000, 0.2500, 2.0000])
    """
    ends = [*breakpoints, float("inf")]
    total = value + slopes[0] * torch.clamp(u - ends[0], max=0)
    for j, b in enumerate(breakpoints):
        total = total + slopes[j + 1] * torch.clamp(u - b, 0, ends[j + 1] - b)
        bump = torch.square(torch.clamp(width - torch.abs(u - b), min=0))
        total = total + (slopes[j + 1] - slopes[j]) / (4 * width) * bump
    return total


@smoothed_pieces.register_fake
def _(u: torch.Tensor, width: float, breakpoints: Any, slopes: Any, value: float) -> torch.Tensor:
    return torch.empty_like(u)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep what the slope is computed from."""
    u, ctx.width, ctx.breakpoints, ctx.slopes, _ = inputs
    ctx.save_for_backward(u)


def _pull(ctx: Any, cotangent: torch.Tensor) -> tuple[Any, ...]:
    """Multiply by the slope, which runs from one piece's to the next's over an interval of 2 width."""
    (u,) = ctx.saved_tensors
    slope = torch.full_like(u, ctx.slopes[0])
    for b, left, right in zip(ctx.breakpoints, ctx.slopes, ctx.slopes[1:], strict=False):
        slope = slope + (right - left) * torch.clamp((u - b) / (2 * ctx.width) + 0.5, 0, 1)
    return cotangent * slope, None, None, None, None


smoothed_pieces.register_autograd(_pull, setup_context=_keep)


@smoothed_pieces.register_vmap
def _(info: Any, in_dims: Any, u: torch.Tensor, *others: Any) -> tuple[torch.Tensor, Any]:
    return smoothed_pieces(u, *others), in_dims[0]


# --- the largest entry ------------------------------------------------------------------------------------------------


@torch.library.custom_op("nonsmooth::smoothed_max", mutates_args=())
def smoothed_max(u: torch.Tensor, temperature: float) -> torch.Tensor:
    """Give temperature (log sum_k exp(u_k / temperature) - log(K) / 2) along the last axis, of K entries.

    >>> smoothed_max(torch.tensor([0.0, 0.0]), 1.0)
    tensor(0.3466)
    """
    return temperature * (torch.logsumexp(u / temperature, -1) - log(u.shape[-1]) / 2)


@smoothed_max.register_fake
def _(u: torch.Tensor, temperature: float) -> torch.Tensor:
    return u.new_empty(u.shape[:-1])


def _keep_entries(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep what the weights are computed from."""
    u, ctx.temperature = inputs
    ctx.save_for_backward(u)


def _pull_entries(ctx: Any, cotangent: torch.Tensor) -> tuple[Any, None]:
    """Share out by the softmax."""
    (u,) = ctx.saved_tensors
    return cotangent[..., None] * torch.softmax(u / ctx.temperature, -1), None


smoothed_max.register_autograd(_pull_entries, setup_context=_keep_entries)


@smoothed_max.register_vmap
def _(info: Any, in_dims: Any, u: torch.Tensor, temperature: float) -> tuple[torch.Tensor, Any]:
    return smoothed_max(u.movedim(in_dims[0], 0), temperature), 0
