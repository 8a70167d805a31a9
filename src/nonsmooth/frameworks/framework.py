"""What a framework must offer: capture a function, and evaluate a program under a selection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nonsmooth.dictionary.operation import Array, Call, Rule
from nonsmooth.errors import PointError
from nonsmooth.program import Program, Step

__all__ = ["Evaluation", "Framework", "NonsmoothCall", "Select", "find_framework"]

Select = Callable[[Step, Call, Mapping[str, Array]], "Mapping[str, Rule] | None"]
"""A selection as the evaluation asks it: step, call and masks of the active kinks -> rules; None keeps the native ones."""


@dataclass
class NonsmoothCall:
    """What an evaluation met at a step that is not smooth."""

    step: Step
    call: Call
    output: Any
    dead: Any = None


@dataclass
class Evaluation:
    """A program evaluated at a point: its result, and what it met on the way if that was asked for."""

    result: Any
    leaves: list[Any]
    calls: list[NonsmoothCall] = field(default_factory=list)
    program: Program | None = None


class Framework(Protocol):
    """The contract of a framework. Only `frameworks/` knows one."""

    name: str

    def capture(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], **options: Any) -> Program:
        """Turn a function into a program near a point, with the proof of capture."""
        ...

    def evaluate(
        self, program: Program, x: Any, data: tuple[Any, ...], *, select: Select | None = None, observe: bool = False
    ) -> Evaluation:
        """Evaluate a program at a point, recaptured if it is stale there, under a selection."""
        ...

    def scalar(self, evaluation: Evaluation) -> Any:
        """Give the scalar result, or say that it is none."""
        ...

    def signature(self, x: Any, data: tuple[Any, ...]) -> Any:
        """Give what a program depends on beside values, as a key."""
        ...

    def cotangents(self, evaluation: Evaluation, outputs: list[Any]) -> list[Any]:
        """Give the derivative of the result with respect to outputs of steps."""
        ...

    def compared(self, program: Program, x: Any, data: tuple[Any, ...], steps: frozenset[int]) -> dict[int, Any]:
        """Give |a - b| for the comparisons at some steps."""
        ...

    def pieces(self, program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
        """Walk the programs that are active at the point."""
        ...

    def numpy(self, array: Any) -> Any:
        """Give the values of an array to numpy."""
        ...

    def pull(self, evaluation: Evaluation) -> Any:
        """Give the gradient of a scalar result with respect to the point, in the point's structure."""
        ...


def find_framework(x: Any) -> Framework:
    """Find the framework from the type of the point, without importing any that the user has not.

    Raises:
        PointError: no leaf of the point is an array of a framework that is served.
    """
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch import TORCH

        return TORCH
    raise PointError(
        f"the point is a {type(x).__module__}.{type(x).__name__}; nonsmooth differentiates programs of PyTorch: "
        "pass a torch.Tensor, or a dict, list or tuple of them."
    )
