"""A program step by step: its values where they are known, and every single step at other operands, in double precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonsmooth.frameworks.replay.arguments import fill, map_arrays, refs_of
from nonsmooth.program import Program, Ref, Step

__all__ = ["Stepwise"]


class _Later:
    """The results of a step, computed when one of them is asked for; None stands for what is unknown."""

    def __init__(self, compute: Callable[[Mapping[int, Any]], Sequence[Any]], needed: Mapping[int, _Result]) -> None:
        self.compute, self.needed = compute, needed
        self.found: Sequence[Any] | None = None

    def run(self) -> Sequence[Any]:
        """Compute the results, and before them what they need: one after the other, since a chain may be long."""
        open_ = [self]
        while open_:
            last = open_[-1]
            before = [later for later, _ in last.needed.values() if later.found is None]
            open_ += before
            if not before:
                if last.found is None:
                    operands = {value: found.get() for value, found in last.needed.items()}
                    last.found, last.needed = last.compute(operands), {}
                open_.pop()
        assert self.found is not None
        return self.found


class _Result(NamedTuple):
    """One of the results of a step, or a leaf."""

    of: _Later
    place: int = 0

    def get(self) -> Any:
        """Give its array, or None."""
        return self.of.run()[self.place]


class Stepwise(ABC):
    """The values of a program as far as they are known, and its steps as functions of numpy.

    A step whose operands are not all known has no values. Values are computed when they are asked for, so that what
    nobody needs costs nothing. Nothing that the user owns is written to.
    """

    def __init__(self, program: Program, known: Mapping[int, Any]) -> None:
        self.program = program
        self.leaves = dict(known)
        self.env = {v: _Result(_Later(partial(self._leaf, array), {})) for v, array in known.items()}

    def _leaf(self, array: Any, _: Mapping[int, Any]) -> Sequence[Any]:
        """Give a leaf in double precision."""
        return (self.wide(array),)

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
        """Take note of a step: its results are computed when they are asked for."""
        refs = {r.value for r in refs_of((step.args, dict(step.kwargs)))}
        known = refs <= self.env.keys()
        later = _Later(partial(self.run, step), {r: self.env[r] for r in refs}) if known else None
        for place, value in enumerate(step.results):
            if value is not None:
                self.release([value])
                if later is not None:
                    self.env[value] = _Result(later, place)

    def run(self, step: Step, operands: Mapping[int, Any]) -> Sequence[Any]:
        """Run a step: its results in double precision, None for those that are unknown."""
        if any(array is None for array in operands.values()):
            return [None] * len(step.results)
        outputs = self.call(step, *fill((step.args, dict(step.kwargs)), operands))
        found = [outputs] if step.single else list(outputs)
        found += [None] * (len(step.results) - len(found))
        return [map_arrays(array, self.wide) if self.has_values(array) else None for array in found]

    def has_values(self, array: Any) -> bool:
        """Tell an array that has values from a shape alone."""
        return True

    def release(self, values: Iterable[int]) -> None:
        """Let go of values that no later step reads."""
        for value in values:
            self.env.pop(value, None)
            self.leaves.pop(value, None)

    def array(self, value: int) -> Any:
        """Give an array of the framework, in double precision if its numbers are real; None if it is not known."""
        return self.env[value].get() if value in self.env else None

    def center(self, value: int) -> NDArray[Any] | None:
        """Give a value, if it is known: a leaf in its own precision, which is exact and needs no copy."""
        leaf = self.leaves.get(value)
        if str(getattr(leaf, "dtype", "")).rpartition(".")[2] in ("float32", "float64"):
            return self.numpy(leaf)
        array = self.array(value)
        return None if array is None else self.numpy(array)

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
        if len(set(places)) < len(places):
            return None, []
        others = {r: self.array(r) for r in refs if r not in places}
        if any(array is None for array in others.values()):
            return None, []

        def function(*operands: Any) -> Any:
            env = others | dict(zip(places, operands, strict=True))
            outputs = self.call(step, *fill((step.args, dict(step.kwargs)), env))
            return outputs if step.single else outputs[0]

        return function, [self.wide(self.entered(np.asarray(array))) for _, array in given]


def _real(array: NDArray[Any]) -> NDArray[np.float64] | None:
    """Give real numbers in double precision, nothing for complex ones."""
    return None if np.iscomplexobj(array) else np.asarray(array, float)
