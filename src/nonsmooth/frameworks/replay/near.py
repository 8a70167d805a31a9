"""Near ties: margins of values that are not zero, but lost in the rounding of the terms that they were summed from.

In double precision such a margin is no chance: `relu((a + b) + c) - relu(a + (b + c))` is zero, and at some points one of
its kinks is met and the other missed by 1e-17. A program there stands for functions with different derivatives, so that
nothing is certain. In single precision chance alone brings some of a million units so near, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nonsmooth.dictionary import Call, Kind, Nonsmooth
from nonsmooth.dictionary.operation import Array
from nonsmooth.frameworks.framework import ROUNDING
from nonsmooth.frameworks.replay.arguments import is_array
from nonsmooth.frameworks.replay.arrays import difference, is_bool, is_double, size
from nonsmooth.frameworks.replay.forward import Terms, terms_of
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["TermScale", "near_compared", "near_margins"]

SMALL = 1e-6
"""A margin above this is not looked at: terms would have to be larger than 1e8."""

DEPTH = 8
"""How many steps back the terms of a value are sought."""


class TermScale:
    """The size of the terms that values were summed from: through sums, products and moves, a few steps back."""

    def __init__(
        self,
        xp: Any,
        program: Program,
        env: Mapping[int, Any],
        terms: Terms = terms_of,
        still: Callable[[Array], Array] = lambda array: array,
    ) -> None:
        self._xp, self._program, self._env, self._terms_of, self._still = xp, program, env, terms, still
        self._known: dict[tuple[int, int], float] = {}

    def of(self, value: int, depth: int = DEPTH) -> float:
        """Give the size of the terms of a value."""
        if (value, depth) not in self._known:
            self._known[value, depth] = max(self._size(value), self._terms(value, depth))
        return self._known[value, depth]

    def _size(self, value: int) -> float:
        """Give the largest absolute entry of a value."""
        array = self._env.get(value)
        return size(self._xp, self._still(array)) if is_array(array) and not is_bool(self._xp, array) else 0.0

    def _terms(self, value: int, depth: int) -> float:
        """Give the size of the terms that a step adds up, with what they were added up from."""
        step = self._program.producer.get(value)
        if step is None or depth == 0 or step.operation.kind not in (Kind.AFFINE, Kind.INDEX, Kind.SMOOTH):
            return 0.0
        parts = [r.value for r in references(step.operands)]
        shapes = [self._program.values[p].shape for p in parts[:2]]
        terms = None if len(parts) < 2 else 1 if step.operation.name == "mul" else self._terms_of(step, *shapes)
        if terms is not None:
            a, b = parts[:2]
            cross = max(self.of(a, depth - 1) * self._size(b), self._size(a) * self.of(b, depth - 1))
            return max(float(terms**0.5) * cross, *(self.of(p, depth - 1) for p in parts[2:]), 0.0)
        if step.operation.kind is Kind.SMOOTH:
            return 0.0
        return max((self.of(p, depth - 1) for p in parts), default=0.0)


def near_margins(operation: Nonsmooth, call: Call, step: Step, scale: Callable[[int], float]) -> Array | None:
    """Mark the elements of a step that miss a kink by rounding alone; None if there is none, or in single precision."""
    xp = call.xp
    if not is_double(xp, call.result):
        return None
    for name, margin in operation.margins(call).items():
        if bool(xp.any((margin > 0) & (margin < SMALL))):
            terms = sum(scale(r.value) for r in step.operands if isinstance(r, Ref))
            rounding = ROUNDING * float(xp.finfo(call.result.dtype).eps) * terms
            near = ~operation.active(call)[name] & (margin > 0) & (margin <= rounding)
            if bool(xp.any(near)):
                return near
    return None


def near_compared(xp: Any, step: Step, args: Any, scale: Callable[[int], float]) -> Array | None:
    """Mark the elements of a comparison that miss a tie by rounding alone; as `near_margins`."""
    double = next((a for a in args[:2] if is_double(xp, a)), None)
    if len(args) < 2 or double is None or any(is_array(a) and _is_complex(xp, a) for a in args[:2]):
        return None
    distance = xp.abs(difference(xp, *args[:2]))
    if not bool(xp.any((distance > 0) & (distance < SMALL))):
        return None
    terms = sum(scale(r.value) for r in step.args[:2] if isinstance(r, Ref))
    near = (distance > 0) & (distance <= ROUNDING * float(xp.finfo(double.dtype).eps) * terms)
    return near if bool(xp.any(near)) else None


def _is_complex(xp: Any, array: Array) -> bool:
    """Tell an array of complex numbers."""
    return bool(xp.isdtype(array.dtype, "complex floating"))
