"""Steps held on one side of their kinks: switches, comparisons, jumps between constants; for orders see held_order.

A held step is continued smoothly past its kinks, and tells its margins: the switching arguments, signed so that they are positive
on the side that is held.

    held(u) = g(u) + sum_j (s_j - H(a_j)) c_j a_j,   c_j the jump of the slope per unit of the argument a_j,  s_j in {0, 1}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary import Call, Singularity, Switch
from nonsmooth.dictionary.operation import device_of, is_number, somewhere
from nonsmooth.program import Step

__all__ = ["Array", "Entry", "Held", "HeldComparison", "HeldConstant", "HeldSwitch", "HeldWhole", "Place"]

Array: TypeAlias = Any
Entry: TypeAlias = tuple[Any, ...]
"""What one step is held at: an array for each of its kinks."""


@dataclass(frozen=True)
class Place:
    """A kink of one element: operation, name, index, line; whether the argument grows (1) or falls (-1) through it.

    The direction is 0 where it follows from the constants on both sides. The kink is `measured` unless all that is known of
    the argument is its sign.
    """

    operation: str
    kink: str
    index: tuple[int, ...]
    line: str
    direction: int
    measured: bool = True


COMPARISONS = {"gt": True, "greater": True, "ge": True, "greater_equal": True}
COMPARISONS |= {"lt": False, "less": False, "le": False, "less_equal": False}
"""The outcomes of the comparisons where the first operand is larger; those of the others do not depend on the side."""


class Held:
    """One step that can be held on one side of its kinks."""

    jumps = False
    """Whether the result may jump from side to side."""

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

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry) -> Entry:
        """Give the entry with some elements on the other side; `beyond` is what it is naturally a little later."""
        return tuple(np.where(m, 1 - e, e) for m, e in zip(masks, entry, strict=True))

    def mixed(self, entry: Entry, masks: list[Any], there: Entry) -> Entry:
        """Give the entry with some elements as they are at another point."""
        return tuple(np.where(m, o, e) for m, o, e in zip(masks, there, entry, strict=True))

    @property
    def kinks(self) -> tuple[str, ...]:
        """The names of the kinks, one for each array of an entry."""
        operation = self.step.operation
        return getattr(operation, "kinks", None) or (getattr(operation, "kink", "tie"),)

    def place(self, entry: Entry, j: int, index: tuple[int, ...]) -> Place:
        """Describe an element of an entry, for reports."""
        direction = -1 if entry[j][index] > 0.5 else 1
        return Place(self.step.operation.name, self.kinks[j], index, str(self.step.where), direction)


class HeldSwitch(Held):
    """A switch: relu, abs, clamp, maximum ..."""

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give H(a_j)."""
        return tuple(self.still(a) > 0 for a in self._arguments(operands, output)[1])

    def _arguments(self, operands: Sequence[Any], output: Array) -> tuple[Call, list[Array]]:
        """Give the call and its switching arguments."""
        call = self.call(operands, output)
        return call, list(self.step.operation.arguments(call))  # type: ignore[attr-defined]

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the result where no element is past its kink or on it, and there the continuation."""
        xp = self.xp
        call, arguments = self._arguments(operands, output)
        margins = [xp.where(s > 0.5, a, -a) for a, s in zip(arguments, entry, strict=True)]
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


class HeldComparison(Held):
    """A comparison, whose outcome a `where`, a product or an `if` uses."""

    jumps = True

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Tell where a > b."""
        return (self.still(self._apart(operands)) > 0,)

    def _apart(self, operands: Sequence[Any]) -> Array:
        """Give a - b."""
        return operands[0] - operands[1]

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the outcome on the side."""
        (s,), a = entry, self._apart(operands)
        name = self.step.label.rstrip("_").partition(".")[0]
        if name in COMPARISONS:
            outcome = s > 0.5 if COMPARISONS[name] else s < 0.5
        else:  # an equality: it holds at the kink alone
            outcome = self.xp.full_like(output, name in ("ne", "not_equal"))
        return outcome, [self.xp.where(s > 0.5, a, -a)]


class HeldConstant(Held):
    """A jump from constant to constant: sign, floor, round ..."""

    jumps = True

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give the constant."""
        return (self.still(output),)

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the held constant, and the distance to the jump, negative past it."""
        operation = self.step.operation
        assert isinstance(operation, Singularity)
        distance = operation.distance(self.call(operands, output))
        past = self.still(output) != entry[0]
        constant = self.xp.zeros_like(self.still(output)) + entry[0]
        return constant, [self.xp.where(past, -distance, distance)]

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry) -> Entry:
        """Take the constant of a little later."""
        return self.mixed(entry, masks, beyond)

    def place(self, entry: Entry, j: int, index: tuple[int, ...]) -> Place:
        """Leave open whether the argument grows: the constants on both sides tell."""
        return replace(super().place(entry, j, index), direction=0)


class HeldWhole(HeldConstant):
    """Whole numbers made of what moves: an argmax, a search, a cast. Only whether they change is known, and no distance."""

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the held numbers, and 1 where they are those of the point, -1 elsewhere."""
        constant = self.xp.astype(self.xp.zeros_like(entry[0]) + entry[0], output.dtype)
        agree = self.xp.astype(constant == output, entry[0].dtype)
        return constant, [2 * agree - 1]

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry) -> Entry:
        """Take all numbers of a little later: those of an order change together."""
        return beyond

    def place(self, entry: Entry, j: int, index: tuple[int, ...]) -> Place:
        """Name what the framework calls it."""
        return replace(super().place(entry, j, index), operation=self.step.label, measured=False)


def _minus(a: Any, b: Any) -> Any:
    """Give a - b."""
    return 0.0 if a is b else a - b


def _plus(slope: Any, s: Any, jump: Any) -> Any:
    """Give slope + s jump, nothing where there is no jump."""
    return slope if is_number(jump) and jump == 0 else slope + s * jump
