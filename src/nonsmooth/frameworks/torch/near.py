"""Near ties: margins of values that are not zero, but lost in the rounding of the terms that they were summed from.

In double precision such a margin is no chance: `relu((a + b) + c) - relu(a + (b + c))` is zero, and at some points one of
its kinks is met and the other missed by 1e-17. A program there stands for functions with different derivatives, so that
nothing is certain. In single precision chance alone brings some of a million units so near, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from nonsmooth.dictionary import Call, Kind, Nonsmooth
from nonsmooth.frameworks.framework import ROUNDING
from nonsmooth.frameworks.torch.forward import BILINEAR
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["TermScale", "near_compared", "near_margins"]

SMALL = 1e-6
"""A margin above this is not looked at: terms would have to be larger than 1e8."""

DEPTH = 8
"""How many steps back the terms of a value are sought."""


class TermScale:
    """The size of the terms that values were summed from: through sums, products and moves, a few steps back."""

    def __init__(self, program: Program, env: Mapping[int, Any]) -> None:
        self._program, self._env = program, env
        self._known: dict[tuple[int, int], float] = {}

    def of(self, value: int, depth: int = DEPTH) -> float:
        """Give the size of the terms of a value."""
        if (value, depth) not in self._known:
            self._known[value, depth] = max(self._size(value), self._terms(value, depth))
        return self._known[value, depth]

    def _size(self, value: int) -> float:
        """Give the largest absolute entry of a value."""
        tensor = self._env.get(value)
        if not isinstance(tensor, torch.Tensor) or not tensor.numel() or tensor.dtype is torch.bool:
            return 0.0
        return float(tensor.detach().abs().max())

    def _terms(self, value: int, depth: int) -> float:
        """Give the size of the terms that a step adds up, with what they were added up from."""
        step = self._program.producer.get(value)
        if step is None or depth == 0 or step.operation.kind not in (Kind.AFFINE, Kind.INDEX, Kind.SMOOTH):
            return 0.0
        parts = [r.value for r in references(step.operands)]
        name = step.operation.name
        if name in ("mul", *BILINEAR) and len(parts) >= 2:
            terms = 1
            if name != "mul":
                terms = BILINEAR[name](*(self._program.values[p].shape for p in parts[:2]))
            a, b = parts[:2]
            cross = max(self.of(a, depth - 1) * self._size(b), self._size(a) * self.of(b, depth - 1))
            return max(float(terms**0.5) * cross, *(self.of(p, depth - 1) for p in parts[2:]), 0.0)
        if step.operation.kind is Kind.SMOOTH:
            return 0.0
        return max((self.of(p, depth - 1) for p in parts), default=0.0)


def near_margins(operation: Nonsmooth, call: Call, step: Step, scale: Callable[[int], float]) -> torch.Tensor | None:
    """Mark the elements of a step that miss a kink by rounding alone; None if there is none, or in single precision."""
    if call.result.dtype is not torch.float64:
        return None
    for name, margin in operation.margins(call).items():
        if bool(((margin > 0) & (margin < SMALL)).any()):
            size = sum(scale(r.value) for r in step.operands if isinstance(r, Ref))
            near: torch.Tensor = (
                ~operation.active(call)[name]
                & (margin > 0)
                & (margin <= ROUNDING * torch.finfo(torch.float64).eps * size)
            )
            if bool(near.any()):
                return near
    return None


def near_compared(step: Step, args: Any, scale: Callable[[int], float]) -> torch.Tensor | None:
    """Mark the elements of a comparison that miss a tie by rounding alone; as `near_margins`."""
    if len(args) < 2 or not any(isinstance(a, torch.Tensor) and a.dtype is torch.float64 for a in args[:2]):
        return None
    a, b = (torch.as_tensor(t) for t in args[:2])
    if a.is_complex() or b.is_complex():
        return None
    distance = (a.detach() - b.detach()).abs()
    if not bool(((distance > 0) & (distance < SMALL)).any()):
        return None
    size = sum(scale(r.value) for r in step.args[:2] if isinstance(r, Ref))
    near = (distance > 0) & (distance <= ROUNDING * torch.finfo(torch.float64).eps * size)
    return near if bool(near.any()) else None
