"""Dead entries: entries of a value whose derivative is zero, so that ties among them cannot matter.

After relu most entries are 0 and do not move; where they meet in a pooling window nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nonsmooth.dictionary import Call, Switch
from nonsmooth.dictionary.operation import Array
from nonsmooth.frameworks.replay.arrays import as_array
from nonsmooth.program import Ref, Step

__all__ = ["Dead", "dead_along", "dead_of_switch", "moved_with"]


@dataclass(frozen=True)
class Dead:
    """The entries of a value whose derivative is zero: those of certain values, or those that a function marks by 1."""

    flats: tuple[Any, ...]
    mask: Callable[[], Array | None] | None

    def attributes(self) -> Mapping[str, Any]:
        """Give what the records of order operations read."""
        return {"flats": self.flats, "dead": self.mask}


def dead_of_switch(operation: Switch, call: Call, quiet: bool) -> Dead:
    """Find the entries of a switch whose slope is zero; by their value alone where no kink of it is active."""
    if quiet and operation.flats is not None:
        return Dead(tuple(operation.flats(call.attributes)), None)
    return Dead((), lambda: operation.dead(call))


def dead_along(operation: Switch, call: Call, rules: Mapping[str, Any]) -> Dead:
    """Find the entries of a switch whose slope is zero on the side that directions have decided."""
    xp = call.xp

    def mask() -> Array:
        return xp.astype(as_array(xp, operation.partials(call, rules)[0], call.result) == 0, call.result.dtype)

    return Dead((), mask)


def moved_with(
    step: Step, value: int, known: Mapping[int, Dead], arguments: Callable[[], tuple[Any, Any]]
) -> Dead | None:
    """Move what is known of the dead entries of an operand to a result that holds the same entries.

    `arguments` gives those of the step beside the operand, when they are needed.
    """
    source = step.args[0]
    before = known.get(source.value) if isinstance(source, Ref) else None
    if before is None or before.mask is None or step.operation.name == "cast":
        return before
    mask, position = before.mask, step.results.index(value)

    def moved() -> Array | None:
        marks = mask()
        if marks is None:
            return None
        args, kwargs = arguments()
        after = step.target(marks, *args, **kwargs)
        return after if step.single else after[position]

    return Dead((), moved)
