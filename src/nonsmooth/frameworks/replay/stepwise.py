"""A program step by step: its values where they are known, and every single step at other operands, in double precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.frameworks.replay.arguments import fill, map_arrays, refs_of
from nonsmooth.program import Program, Ref, Step

__all__ = ["Stepwise"]


class Stepwise(ABC):
    """The values of a program as far as they are known, and its steps as functions of numpy.

    A step whose operands are not all known has no values. Nothing that the user owns is written to.
    """

    def __init__(self, program: Program, known: Mapping[int, Any]) -> None:
        self.program = program
        self.env: dict[int, Any] = {value: self.wide(array) for value, array in known.items()}

    @abstractmethod
    def wide(self, array: Any) -> Any:
        """Give an array of the framework in double precision, if its numbers are real; else as it is."""

    @abstractmethod
    def numpy(self, array: Any) -> NDArray[Any]:
        """Give an array to numpy."""

    @abstractmethod
    def entered(self, array: NDArray[Any]) -> Any:
        """Make an array of the framework."""

    @abstractmethod
    def call(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run the operation of a step, on copies of what it writes to."""

    @abstractmethod
    def pulled(self, function: Callable[..., Any], operands: Sequence[Any], cotangent: Any) -> Sequence[Any]:
        """Give the pullback of a cotangent through a function of operands."""

    def precision(self, step: Step) -> float:
        """Give the unit of rounding of a step's values."""
        return float(np.finfo(float).eps)

    def advance(self, step: Step) -> None:
        """Evaluate a step, where its operands are known."""
        if not all(r.value in self.env for r in refs_of((step.args, dict(step.kwargs)))):
            self.release(value for value in step.results if value is not None)
            return
        outputs = self.call(step, *fill((step.args, dict(step.kwargs)), self.env))
        found = [outputs] if step.single else list(outputs)
        for value, array in zip(step.results, found, strict=False):
            if value is not None and self.has_values(array):
                self.env[value] = map_arrays(array, self.wide)
            elif value is not None:
                self.env.pop(value, None)

    def has_values(self, array: Any) -> bool:
        """Tell an array that has values from a shape alone."""
        return True

    def release(self, values: Iterable[int]) -> None:
        """Let go of values that no later step reads."""
        for value in values:
            self.env.pop(value, None)

    def center(self, value: int) -> NDArray[Any] | None:
        """Give a value, if it is known."""
        return self.numpy(self.env[value]) if value in self.env else None

    def evaluate(self, step: Step, items: Sequence[Any], arrays: Sequence[Any]) -> NDArray[np.float64] | None:
        """Run a step with arrays of numpy in the places of some operands, and give its first result.

        None where an operand is unknown, one value stands in two places, or the result is complex.
        """
        function, operands = self._function(step, items, arrays)
        return None if function is None else _real(self.numpy(function(*operands)))

    def pull(
        self, step: Step, items: Sequence[Any], arrays: Sequence[Any], cotangent: NDArray[Any]
    ) -> tuple[NDArray[np.float64] | None, ...] | None:
        """Give the pullback of a cotangent of the first result to the operands for which arrays are given; None if complex."""
        function, operands = self._function(step, items, arrays)
        if function is None:
            return None
        found = self.pulled(function, operands, self.entered(cotangent))
        return tuple(_real(self.numpy(t)) for t in found)

    def _function(self, step: Step, items: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Give a step as a function of the operands for which arrays are given, and those."""
        given = [
            (item.value, array)
            for item, array in zip(items, arrays, strict=False)
            if isinstance(item, Ref) and array is not None
        ]
        places = [value for value, _ in given]
        refs = {r.value for r in refs_of((step.args, dict(step.kwargs)))}
        if len(set(places)) < len(places) or not refs <= {*places, *self.env}:
            return None, []

        def function(*operands: Any) -> Any:
            env = {r: self.env[r] for r in refs if r not in places} | dict(zip(places, operands, strict=True))
            outputs = self.call(step, *fill((step.args, dict(step.kwargs)), env))
            return outputs if step.single else outputs[0]

        return function, [self.entered(np.asarray(array)) for _, array in given]


def _real(array: NDArray[Any]) -> NDArray[np.float64] | None:
    """Give real numbers in double precision, nothing for complex ones."""
    return None if np.iscomplexobj(array) else np.asarray(array, float)
