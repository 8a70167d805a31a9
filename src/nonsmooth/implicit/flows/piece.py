"""The pieces of a program: each step with a kink held on one side, continued smoothly past the kink.

A pattern says for every element of every such step on which side it is. With the pattern held the program is smooth, and
equals the function where every *margin* (the switching argument, signed so that it is positive on that side) is positive:

    held(u) = g(u) + sum_j (s_j - H(a_j)) c_j a_j,   c_j the jump of the slope per unit of the argument a_j,  s_j in {0, 1}

A solver that looks a little past a kink sees the piece that it comes from, and so do the derivatives of what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary import Kind, Singularity, Switch
from nonsmooth.implicit.flows.held import (
    Array,
    Entry,
    Held,
    HeldComparison,
    HeldConstant,
    HeldSwitch,
    HeldWhole,
    Place,
)
from nonsmooth.implicit.flows.held_order import held_linearly
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["Entry", "Pattern", "Pieces"]

Pattern: TypeAlias = "tuple[Entry, ...]"


def _first(step: Step) -> int | None:
    """Give the value that is the first argument of a step."""
    return step.args[0].value if step.args and isinstance(step.args[0], Ref) else None


class Pieces:
    """A program whose steps can be held on one side of their kinks.

    Attributes:
        indexed: the steps that make whole numbers of what moves: they are held, but how near a change is is not known.
        unlocated: kinked steps that cannot be held (Euclidean norms, matrix factors): their distances alone are known.
    """

    def __init__(self, program: Program, still: Callable[[Array], Array]) -> None:
        self.original, self._still, xp = program, still, program.framework.xp
        self._held: dict[int, Held] = {}
        self.unlocated: list[Step] = []
        for step in program.steps:
            if not any(program.values[r.value].depends_on_point for r in references(step.args)):
                continue
            kind = self._kind(program, step)
            if kind is not None:
                self._held[step.index] = kind(step, xp, still)
            elif step in program.nonsmooth and step.operation.name != "where":
                self.unlocated.append(step)
        self.indexed = [held.step for held in self._held.values() if isinstance(held, HeldWhole)]
        self._program = replace(program, steps=tuple(self._opened(s) for s in program.steps))
        self._pattern: Pattern | None = None
        self._met: list[Any] = []
        self._distances: list[Any] | None = None

    @staticmethod
    def _kind(program: Program, step: Step) -> type[Held] | None:
        """Give how a step is held; None where it needs not be, or cannot be."""
        operation = step.operation
        if step.mutates and not (isinstance(operation, Switch) and step.mutates == (_first(step),) and step.single):
            return None
        if isinstance(operation, Switch):
            return HeldSwitch
        if operation.kind in (Kind.ORDER, Kind.CONE):
            more = {v for v in step.results[1:] if v is not None}
            return None if any(v in program.uses for v in more) else held_linearly(step, program.framework.xp)
        if operation.kind is Kind.INDEX:
            moves = any("float" in program.values[r.value].dtype for r in references(step.args))
            whole = step.results and step.results[0] is not None and "int" in program.values[step.results[0]].dtype
            compares = operation.name == "compare" and len(step.args) >= 2 and step.args[0] != step.args[1]
            return HeldComparison if moves and compares else HeldWhole if moves and whole else None
        if isinstance(operation, Singularity) and operation.kind is Kind.JUMP and operation.piecewise_constant:
            return HeldConstant
        return None

    def _opened(self, step: Step) -> Step:
        """Give a step that is held as the pattern of the run says."""
        if step in self.unlocated:
            return self._watched(step)
        if step.index not in self._held:
            return step
        held = self._held[step.index]
        place = list(self._held).index(step.index)
        operands = step.args[:2] if isinstance(held, HeldComparison) else step.operands

        def in_place(args: Any, kwargs: Any, operands: Any) -> Any:
            changed = args[0]
            kept = tuple(u.clone() if u is changed else u for u in operands)
            return changed.copy_(target((changed.clone(), *args[1:]), kwargs, kept))

        def target(args: Any, kwargs: Any, operands: Any) -> Any:
            output = step.target(*args, **kwargs)
            if self._pattern is None:
                self._met.append(held.natural(operands, output if step.single else output[0]))
                return output
            first, *rest = (output,) if step.single else output
            first, margins = held.held(self._pattern[place], operands, first)
            output = first if step.single else (first, *rest)
            self._met.extend(margins)
            return output

        chosen = in_place if step.mutates else target
        return replace(step, target=chosen, args=(step.args, dict(step.kwargs), operands), kwargs={})

    def _watched(self, step: Step) -> Step:
        """Give a step that is not held, with its distances to its kinks where they are asked for."""
        held = Held(step, self.original.framework.xp, self._still)

        def target(args: Any, kwargs: Any, operands: Any) -> Any:
            if self._distances is None:
                return step.target(*args, **kwargs)
            kept = [u.clone() if step.mutates and hasattr(u, "dtype") else u for u in operands]
            output = step.target(*args, **kwargs)
            operation: Any = step.operation
            call = held.call([self._still(u) for u in kept], self._still(output if step.single else output[0]))
            self._distances.append(tuple(operation.margins(call).values()))
            return output

        return replace(step, target=target, args=(step.args, dict(step.kwargs), step.operands), kwargs={})

    def natural(self, leaves: Sequence[Array], _: Pattern = ()) -> Pattern:
        """Run the program as it is; give the pattern of the point."""
        self._pattern, self._met = None, []
        self._program.framework.run_program(self._program, list(leaves), [])
        return tuple(self._met)

    def run(self, leaves: Sequence[Array], pattern: Pattern) -> tuple[Any, list[Array]]:
        """Run the piece of a pattern; give its result and all margins, these cut off from derivatives."""
        result, margins = self._run(leaves, pattern)
        return result, [self._still(m) for m in margins]

    def margins(self, leaves: Sequence[Array], pattern: Pattern) -> list[Array]:
        """Give the margins of a pattern, with their derivatives."""
        return self._run(leaves, pattern)[1]

    def _run(self, leaves: Sequence[Array], pattern: Pattern) -> tuple[Any, list[Array]]:
        """Run the piece of a pattern."""
        self._pattern, self._met = pattern, []
        try:
            return self._program.framework.run_program(self._program, list(leaves), []), self._met
        finally:
            self._pattern = None

    def jumping(self, pattern: Pattern) -> Any:
        """Mark the elements of the flat vector of margins at which f may jump."""
        sizes = [sum(int(np.size(e)) for e in entry) for entry in pattern]
        return np.repeat(np.array([held.jumps for held in self._held.values()], bool), np.array(sizes, int))

    def distances(self, leaves: Sequence[Array], pattern: Pattern) -> list[tuple[Array, ...]]:
        """Give for every step of `unlocated` the distances of its elements to its kinks."""
        self._pattern, self._met, self._distances = pattern, [], []
        try:
            self._program.framework.run_program(self._program, list(leaves), [])
            return self._distances
        finally:
            self._pattern = self._distances = None

    def flip(self, pattern: Pattern, mask: Any, beyond: Pattern) -> Pattern:
        """Give the pattern with the elements of a flat mask on their other sides; `beyond` is that of a little later."""
        return self._changed(pattern, mask, beyond, "flipped")

    def mixed(self, pattern: Pattern, mask: Any, there: Pattern) -> Pattern:
        """Give the pattern with the elements of a flat mask on the sides of another point."""
        return self._changed(pattern, mask, there, "mixed")

    def _changed(self, pattern: Pattern, mask: Any, other: Pattern, how: str) -> Pattern:
        """Change the entries in which a mask marks something, each with the other pattern's."""
        found, place = [], 0
        for held, entry, there in zip(self._held.values(), pattern, other, strict=True):
            masks = []
            for e in entry:
                size = int(np.size(e))
                masks.append(mask[place : place + size].reshape(np.shape(e)))
                place += size
            found.append(getattr(held, how)(entry, masks, there) if any(m.any() for m in masks) else entry)
        return tuple(found)

    def place_of(self, pattern: Pattern, number: int) -> Place:
        """Describe an element of the flat vector of margins."""
        for held, entry in zip(self._held.values(), pattern, strict=True):
            for j, e in enumerate(entry):
                size = int(np.size(e))
                if number < size:
                    return held.place(entry, j, tuple(int(i) for i in np.unravel_index(number, np.shape(e))))
                number -= size
        raise IndexError(number)
