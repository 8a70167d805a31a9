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

from nonsmooth.dictionary import Call, Kind, Singularity, Switch
from nonsmooth.dictionary.operation import device_of, is_number, on_host, somewhere
from nonsmooth.dictionary.order import Extremum
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["Entry", "Pattern", "Pieces"]

Array: TypeAlias = Any
Entry: TypeAlias = tuple[Any, ...]
"""What one step is held at: an array for each of its kinks."""
Pattern: TypeAlias = "tuple[Entry, ...]"

COMPARISONS = {"gt": True, "greater": True, "ge": True, "greater_equal": True}
COMPARISONS |= {"lt": False, "less": False, "le": False, "less_equal": False}
"""The outcomes of the comparisons where the first operand is larger; those of the others do not depend on the side."""


class _Held:
    """One step that can be held on one side of its kinks."""

    def __init__(self, step: Step, xp: Any, still: Callable[[Array], Array]) -> None:
        self.step, self.xp, self.still = step, xp, still

    def call(self, operands: Sequence[Any], result: Array) -> Call:
        """Give what a record of the dictionary reads, with its graph."""
        like = next((u for u in operands if hasattr(u, "dtype")), result)
        made = tuple(
            u if hasattr(u, "dtype") else self.xp.asarray(u, dtype=like.dtype, device=device_of(like)) for u in operands
        )
        return Call(self.xp, made, self.step.attributes, result)

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give the sides on which the elements are."""
        raise NotImplementedError

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the continued result and the margins."""
        raise NotImplementedError

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry, others: Entry) -> Entry:
        """Give the entry with some elements on the other side; `beyond` is what it is naturally a little later."""
        return tuple(np.where(m, 1 - e, e) for m, e in zip(masks, entry, strict=True))


class _HeldSwitch(_Held):
    """A switch: relu, abs, clamp, maximum ..."""

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give H(a_j)."""
        return tuple((on_host(self.still(a)) > 0).astype(float) for a in self._arguments(operands, output)[1])

    def _arguments(self, operands: Sequence[Any], output: Array) -> tuple[Call, list[Array]]:
        """Give the call and its switching arguments."""
        call = self.call(operands, output)
        return call, list(self.step.operation.arguments(call))  # type: ignore[attr-defined]

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the result where no element is past its kink or on it, and there the continuation."""
        xp = self.xp
        call, arguments = self._arguments(operands, output)
        margins = [self.still(xp.where(s > 0.5, a, -a)) for a, s in zip(arguments, entry, strict=True)]
        if not any(somewhere(xp, m <= 0) for m in margins):
            return output, margins
        return self._continued(entry, call, arguments), margins

    def _continued(self, entry: Entry, call: Call, arguments: Sequence[Array]) -> Array:
        """Add (s_j - H(a_j)) c_j a_j; at a_j = 0, where the framework chooses a derivative, take that of the piece."""
        xp, operation, output = self.xp, self.step.operation, call.result
        assert isinstance(operation, Switch)
        pieces, zero = operation.pieces(call), xp.zeros_like(output)
        total, slopes, tied = output, list(pieces[0]), zero > 1
        for j, (a, s) in enumerate(zip(arguments, entry, strict=True)):
            jump = [_minus(after, before) for after, before in zip(pieces[j + 1], pieces[j], strict=True)]
            other = (s > 0.5) != (a > 0)
            finite = xp.where(other, a, xp.zeros_like(a))
            total = total + xp.where(other, (2 * s - 1) * self._per_unit(call, j, jump) * finite, zero)
            slopes = [_plus(slope, s, d) for slope, d in zip(slopes, jump, strict=True)]
            tied = tied | (a == 0)
        linear = self.still(total)
        for slope, u in zip(slopes, call.operands, strict=True):
            linear = linear + slope * (u - self.still(u))
        return xp.where(tied, linear, total)

    def _per_unit(self, call: Call, j: int, jump: Sequence[Any]) -> Any:
        """Give the jump of the derivative over that of the argument, from the operand that moves it most."""
        operation, best = self.step.operation, 0.0
        assert isinstance(operation, Switch)
        for i, d in enumerate(jump):
            units = tuple(
                self.xp.zeros_like(u) if k != i else self.xp.ones_like(u) for k, u in enumerate(call.operands)
            )
            moved = self.still(operation.moved(call, units)[j])
            if is_number(d) and d == 0:
                continue
            safe = self.xp.where(self.xp.abs(moved) > 0.5, moved, self.xp.ones_like(moved))
            best = best + self.xp.where((self.xp.abs(moved) > 0.5) & (best == 0.0), d / safe, self.xp.zeros_like(moved))
        return best


class _HeldComparison(_Held):
    """A comparison, whose outcome a `where`, a product or an `if` uses."""

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Tell where a > b."""
        return ((on_host(self.still(self._apart(operands))) > 0).astype(float),)

    def _apart(self, operands: Sequence[Any]) -> Array:
        """Give a - b."""
        return operands[0] - operands[1]

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the outcome on the side."""
        (s,), a = entry, self.still(self._apart(operands))
        name = self.step.label.rstrip("_").partition(".")[0]
        if name in COMPARISONS:
            outcome = s > 0.5 if COMPARISONS[name] else s < 0.5
        else:  # an equality: it holds at the kink alone
            outcome = self.xp.full_like(output, name in ("ne", "not_equal"))
        return outcome, [self.xp.where(s > 0.5, a, -a)]


class _HeldExtremum(_Held):
    """A largest or smallest entry: the winner is held."""

    def _candidates(self, operands: Sequence[Any], output: Array) -> Array:
        """Give the candidates along the last axis, larger is better."""
        operation = self.step.operation
        assert isinstance(operation, Extremum)
        call = self.call(operands, output)
        return operation.sign * operation.candidates(call, call.operands[0], -operation.sign * float("inf"))

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give the place of the winner."""
        return (np.argmax(on_host(self.still(self._candidates(operands, output))), axis=-1).astype(float),)

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the held winner, and by how much it wins."""
        xp, operation = self.xp, self.step.operation
        assert isinstance(operation, Extremum)
        found = self._candidates(operands, output)
        places = xp.asarray(np.arange(found.shape[-1]), dtype=found.dtype, device=device_of(found))
        mine = places == entry[0][..., None]
        value = xp.sum(xp.where(mine, found, xp.zeros_like(found)), axis=-1)
        rest = xp.where(mine, xp.full_like(found, -float("inf")), found)
        margin = self.still(value - xp.max(rest, axis=-1))
        return xp.reshape(operation.sign * value, output.shape), [margin]

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry, others: Entry) -> Entry:
        """Let the runner-up win."""
        return (np.where(masks[0], others[0], entry[0]),)

    def runner_up(self, entry: Entry, operands: Sequence[Any], output: Array) -> Entry:
        """Give the place of the best of the others."""
        found = np.array(on_host(self.still(self._candidates(operands, output))), dtype=float)
        np.put_along_axis(found, on_host(entry[0]).astype(int)[..., None], -np.inf, axis=-1)
        return (np.argmax(found, axis=-1).astype(float),)


class _HeldConstant(_Held):
    """A jump from constant to constant: sign, floor, round ..."""

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give the constant."""
        return (on_host(self.still(output)).astype(float),)

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the held constant, and the distance to the jump, negative past it."""
        operation = self.step.operation
        assert isinstance(operation, Singularity)
        distance = self.still(operation.distance(self.call(operands, output)))
        past = self.still(output) != entry[0]
        constant = self.xp.zeros_like(self.still(output)) + entry[0]
        return constant, [self.xp.where(past, -distance, distance)]

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry, others: Entry) -> Entry:
        """Take the constant of a little later."""
        return (np.where(masks[0], beyond[0], entry[0]),)


def _minus(a: Any, b: Any) -> Any:
    """Give a - b."""
    return 0.0 if a is b else a - b


def _plus(slope: Any, s: Any, jump: Any) -> Any:
    """Give slope + s jump, nothing where there is no jump."""
    return slope if is_number(jump) and jump == 0 else slope + s * jump


def _first(step: Step) -> int | None:
    """Give the value that is the first argument of a step."""
    return step.args[0].value if step.args and isinstance(step.args[0], Ref) else None


class Pieces:
    """A program whose steps can be held on one side of their kinks.

    Attributes:
        steps: the steps that are held, in the order of patterns.
        unlocated: kinked steps that cannot be held (sorts, norms, matrix factors): their distances alone are known.
    """

    def __init__(self, program: Program, still: Callable[[Array], Array]) -> None:
        self.original, self._still, xp = program, still, program.framework.xp
        self._held: dict[int, _Held] = {}
        self.unlocated: list[Step] = []
        for step in program.steps:
            if not any(program.values[r.value].depends_on_point for r in references(step.args)):
                continue
            kind = self._kind(program, step)
            if kind is not None:
                self._held[step.index] = kind(step, xp, still)
            elif step in program.nonsmooth and step.operation.name != "where":
                self.unlocated.append(step)
        self.steps = [held.step for held in self._held.values()]
        self._program = replace(program, steps=tuple(self._opened(s) for s in program.steps))
        self._pattern: Pattern | None = None
        self._met: list[Any] = []
        self._distances: list[Any] | None = None

    @staticmethod
    def _kind(program: Program, step: Step) -> type[_Held] | None:
        """Give how a step is held; None where it needs not be, or cannot be."""
        operation = step.operation
        if step.mutates and not (isinstance(operation, Switch) and step.mutates == (_first(step),) and step.single):
            return None
        if isinstance(operation, Switch):
            return _HeldSwitch
        if isinstance(operation, Extremum) and step.single:
            return _HeldExtremum
        if operation.name == "compare" and len(step.args) >= 2:
            return _HeldComparison
        if isinstance(operation, Singularity) and operation.kind is Kind.JUMP and operation.piecewise_constant:
            return _HeldConstant
        return None

    def _opened(self, step: Step) -> Step:
        """Give a step that is held as the pattern of the run says."""
        if step in self.unlocated:
            return self._watched(step)
        if step.index not in self._held:
            return step
        held = self._held[step.index]
        place = list(self._held).index(step.index)
        operands = step.args[:2] if isinstance(held, _HeldComparison) else step.operands

        def in_place(args: Any, kwargs: Any, operands: Any) -> Any:
            changed = args[0]
            kept = tuple(u.clone() if u is changed else u for u in operands)
            return changed.copy_(target((changed.clone(), *args[1:]), kwargs, kept))

        def target(args: Any, kwargs: Any, operands: Any) -> Any:
            output = step.target(*args, **kwargs)
            if self._pattern is None:
                self._met.append(held.natural(operands, output))
                return output
            output, margins = held.held(self._pattern[place], operands, output)
            more = (
                held.runner_up(self._pattern[place], operands, output)
                if self._asked and isinstance(held, _HeldExtremum)
                else ()
            )
            self._met.append((margins, more))
            return output

        chosen = in_place if step.mutates else target
        return replace(step, target=chosen, args=(step.args, dict(step.kwargs), operands), kwargs={})

    def _watched(self, step: Step) -> Step:
        """Give a step that is not held, with its distances to its kinks where they are asked for."""
        held = _Held(step, self.original.framework.xp, self._still)

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

    _asked = False

    def natural(self, leaves: Sequence[Array]) -> tuple[Any, Pattern]:
        """Run the program as it is; give its result and the pattern of the point."""
        self._pattern, self._met = None, []
        result = self._program.framework.run_program(self._program, list(leaves), [])
        return result, tuple(self._met)

    def run(self, leaves: Sequence[Array], pattern: Pattern) -> tuple[Any, list[Array]]:
        """Run the piece of a pattern; give its result and all margins."""
        self._pattern, self._met, self._asked = pattern, [], False
        try:
            result = self._program.framework.run_program(self._program, list(leaves), [])
        finally:
            self._pattern = None
        return result, [m for margins, _ in self._met for m in margins]

    def runners_up(self, leaves: Sequence[Array], pattern: Pattern) -> list[Entry]:
        """Give for every step with a winner the place of the runner-up."""
        self._pattern, self._met, self._asked = pattern, [], True
        try:
            self._program.framework.run_program(self._program, list(leaves), [])
        finally:
            self._pattern, self._asked = None, False
        return [more for _, more in self._met]

    def distances(self, leaves: Sequence[Array], pattern: Pattern) -> list[tuple[Array, ...]]:
        """Give for every step of `unlocated` the distances of its elements to its kinks."""
        self._pattern, self._met, self._distances = pattern, [], []
        try:
            self._program.framework.run_program(self._program, list(leaves), [])
            return self._distances
        finally:
            self._pattern = self._distances = None

    def flip(self, pattern: Pattern, mask: Any, beyond: Pattern, others: Sequence[Entry]) -> Pattern:
        """Give the pattern with the elements of a flat mask on their other sides."""
        found, place = [], 0
        for held, entry, later, other in zip(self._held.values(), pattern, beyond, others, strict=True):
            masks = []
            for e in entry:
                size = int(np.size(e))
                masks.append(mask[place : place + size].reshape(np.shape(e)))
                place += size
            found.append(held.flipped(entry, masks, later, other) if any(m.any() for m in masks) else entry)
        return tuple(found)

    def place_of(self, pattern: Pattern, number: int) -> tuple[Step, int, tuple[int, ...]]:
        """Give the step, the kink and the index of an element of the flat vector of margins."""
        for step, entry in zip(self.steps, pattern, strict=True):
            for j, e in enumerate(entry):
                size = int(np.size(e))
                if number < size:
                    return step, j, tuple(int(i) for i in np.unravel_index(number, np.shape(e)))
                number -= size
        raise IndexError(number)
