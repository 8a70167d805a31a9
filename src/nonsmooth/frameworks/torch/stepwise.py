"""A program of torch step by step, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensor

from nonsmooth.frameworks.replay.arguments import map_arrays
from nonsmooth.frameworks.replay.stepwise import Stepwise
from nonsmooth.program import Program, Step

__all__ = ["StepwiseTorch", "step_by_step", "with_values"]


UNFILLED = frozenset("empty empty_like new_empty empty_strided new_empty_strided".split())
"""Operators that give memory as they find it: a program that is a function writes all of it before it reads."""


def step_by_step(program: Program, leaves: Sequence[Any], items: Sequence[Any]) -> StepwiseTorch:
    """Start a program at leaves and data; those that are shapes alone (None, or on the meta device) are unknown."""
    known = dict(zip((*program.inputs, *program.data), (*leaves, *items), strict=True)) | dict(program.constants)
    return StepwiseTorch(program, {v: real for v, t in known.items() if (real := with_values(t)) is not None})


def with_values(tensor: Any) -> torch.Tensor | None:
    """Give a tensor that has values."""
    if isinstance(tensor, FakeTensor):
        tensor = tensor.constant
    return None if tensor is None or tensor.is_meta else tensor.detach()


class StepwiseTorch(Stepwise):
    """The steps of a program of torch as functions of numpy."""

    def __init__(self, program: Program, known: Mapping[int, Any]) -> None:
        super().__init__(program, known)

    def wide(self, array: torch.Tensor) -> torch.Tensor:
        """Give a real tensor in double precision."""
        return array.double() if array.is_floating_point() and array.dtype != torch.double else array

    def has_values(self, array: Any) -> bool:
        """Tell a tensor that has values from one on the meta device."""
        return not (isinstance(array, torch.Tensor) and array.is_meta)

    def numpy(self, array: torch.Tensor) -> NDArray[Any]:
        """Give a tensor to numpy."""
        return np.asarray(array.detach().resolve_conj().resolve_neg().cpu().numpy())

    def entered(self, array: NDArray[Any]) -> torch.Tensor:
        """Make a tensor."""
        return torch.from_numpy(np.array(array))

    def call(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run torch's operator, on copies of what it writes to."""
        if step.mutates:
            args, kwargs = map_arrays((args, kwargs), torch.clone)
        with torch.inference_mode(False):
            found = step.target(*args, **kwargs)
            return found.zero_() if step.label in UNFILLED else found

    def run(self, step: Step, operands: Mapping[int, Any]) -> Sequence[Any]:
        """Run a step without a graph."""
        with torch.no_grad():
            return super().run(step, operands)

    def evaluate(self, step: Step, items: Sequence[Any], arrays: Sequence[Any]) -> NDArray[np.float64] | None:
        """Run a step at other operands without a graph."""
        with torch.no_grad():
            return super().evaluate(step, items, arrays)

    def pulled(
        self, function: Callable[..., Any], operands: Sequence[torch.Tensor], cotangent: torch.Tensor
    ) -> Sequence[torch.Tensor]:
        """Give the pullback by torch."""
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in operands]
            moving = [t for t in leaves if t.requires_grad]
            output = function(*leaves)
            if not output.requires_grad:
                return [torch.zeros_like(t) for t in leaves]
            found = iter(torch.autograd.grad(output, moving, cotangent.to(output), allow_unused=True))
            pulled = [next(found) if t.requires_grad else None for t in leaves]
        return [torch.zeros_like(t) if g is None else g for g, t in zip(pulled, leaves, strict=True)]
