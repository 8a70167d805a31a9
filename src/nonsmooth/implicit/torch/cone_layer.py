"""Cone programs in torch: an autograd.Function around what the host solves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from nonsmooth.implicit.cones.layer import Layer

__all__ = ["solve"]

Tensors = tuple[torch.Tensor, ...]


class ConeSolve(torch.autograd.Function):
    """x, y, s of a batch of programs."""

    @staticmethod
    def forward(layer: Layer, kept: list[Any], *arrays: torch.Tensor) -> Tensors:
        """Solve on the host."""
        found, solved = layer.solve(*map(_numpy, arrays))
        kept[:] = solved
        return tuple(torch.from_numpy(a).to(arrays[1]) for a in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        """Keep the solutions."""
        ctx.layer, ctx.kept = inputs[:2]
        ctx.like = inputs[3]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        """Check the condition, and solve one linear system for each program."""
        found = ctx.layer.pull(ctx.kept, *map(_numpy, cotangents))
        return (None, None, *(torch.from_numpy(a).to(ctx.like) for a in found))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], layer: Layer, kept: list[Any], *arrays: torch.Tensor) -> Any:
        """Take a mapped axis as one more leading axis."""
        moved = [
            a.expand(info.batch_size, *a.shape) if d is None else a.movedim(d, 0)
            for a, d in zip(arrays, in_dims[2:], strict=True)
        ]
        return ConeSolve.apply(layer, kept, *moved), (0, 0, 0)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """Give the values."""
    return np.asarray(tensor.detach().cpu().numpy())


def solve(layer: Layer, *arrays: torch.Tensor) -> Tensors:
    """Give x, y, s for P, c, A, b of the same leading axes."""
    return ConeSolve.apply(layer, [], *arrays)  # type: ignore[no-any-return]
