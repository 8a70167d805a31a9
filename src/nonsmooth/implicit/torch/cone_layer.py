"""Cone programs in torch: an autograd.Function around what the host solves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nonsmooth.errors import UsageError
from nonsmooth.implicit.cones.layer import Layer

__all__ = ["solve"]

Tensors = tuple[torch.Tensor, ...]


class ConeSolve(torch.autograd.Function):
    """x, y, s of a batch of programs, for P, c, A, b with the same leading axes."""

    @staticmethod
    def forward(layer: Layer, *arrays: torch.Tensor) -> Tensors:
        """Solve on the host."""
        return _like(layer.solve(*map(_numpy, arrays))[0], arrays[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        """Keep what the pullback starts from."""
        ctx.layer = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        """Check the condition, and solve one linear system for each program."""
        return (None, *ConePull.apply(ctx.layer, *ctx.saved_tensors, *cotangents))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], layer: Layer, *arrays: torch.Tensor) -> Any:
        """Take a mapped axis as one more leading axis."""
        return ConeSolve.apply(layer, *_moved(info, in_dims, arrays)), (0, 0, 0)


class ConePull(torch.autograd.Function):
    """The cotangents of P, c, A, b, from these, x, y, s and their cotangents."""

    @staticmethod
    def forward(layer: Layer, *arrays: torch.Tensor) -> Tensors:
        """Pull back on the host."""
        return _like(layer.pull_again(*map(_numpy, arrays)), arrays[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        """Keep the name."""
        ctx.name = inputs[0].name

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        """Refuse."""
        raise UsageError(
            f"a second derivative of the solution of a {ctx.name} was asked for: the solution has first derivatives only."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], layer: Layer, *arrays: torch.Tensor) -> Any:
        """Take a mapped axis as one more leading axis."""
        return ConePull.apply(layer, *_moved(info, in_dims, arrays)), (0, 0, 0, 0)


def _moved(info: Any, in_dims: tuple[Any, ...], arrays: Tensors) -> list[torch.Tensor]:
    """Move the mapped axes to the front; what has none is repeated."""
    return [
        a.expand(info.batch_size, *a.shape) if d is None else a.movedim(d, 0)
        for a, d in zip(arrays, in_dims[1:], strict=True)
    ]


def _like(found: Any, like: torch.Tensor) -> Tensors:
    """Give arrays, whose type is that to which all arguments are promoted, as tensors on the device of another one."""
    return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(like.device) for a in found)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """Give the values."""
    return np.asarray(tensor.detach().cpu().numpy())


def solve(layer: Layer, *arrays: torch.Tensor) -> Tensors:
    """Give x, y, s for P, c, A, b of the same leading axes."""
    return ConeSolve.apply(layer, *arrays)  # type: ignore[no-any-return]
