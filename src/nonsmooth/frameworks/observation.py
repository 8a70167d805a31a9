"""What is seen of one step of training: the kinks met, by place, and what another choice there would have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

__all__ = ["Change", "Met", "Observation", "Observer", "merge"]


@dataclass(frozen=True)
class Met:
    """The kinks of one name that an operation met at one place of the program, in all calls of a step.

    Attributes:
        module: the path of the innermost module that ran; "" outside the model.
        operation: of the dictionary.
        kind: of the operation: switch, order, cone, spectral; `singular` and `jump` are points where the theory ends.
        kink: its name.
        line: of the user's program, as "file:line".
        elements: all elements at which this kink could be met.
        active: the elements at the kink; ties of entries that cannot move are not counted.
        can_matter: the active elements whose output had a nonzero derivative in the backward pass, under the framework's own
            choices at the other kinks. Tied entries may still have equal derivatives. None where no backward pass came.
        margin: the least distance to the kink of an element that is not at it.
    """

    module: str
    operation: str
    kind: str
    kink: str
    line: str
    elements: int
    active: int
    can_matter: int | None
    margin: float

    @property
    def share(self) -> float:
        """The share of the elements that can change the gradient; of the active ones where that is not known."""
        return (self.active if self.can_matter is None else self.can_matter) / max(self.elements, 1)


@dataclass(frozen=True)
class Change:
    """How far the gradient of a step moves if all its kinks choose otherwise.

    Attributes:
        norm: ||g' - g||, g' by backpropagation under the other choice.
        relative: ||g' - g|| / ||g||; None where g = 0.
        parameters: ||g'_p - g_p|| / ||g_p|| of every parameter that moved (infinite where g_p = 0).
    """

    norm: float
    relative: float | None
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Observation:
    """One step of training as it was observed.

    Attributes:
        step: its number, from 0.
        rows: the kinks met, by place, in the order of the program.
        change: of the gradient under the other choice; None where it was not measured.
        why: the reason why not, or "".
        gradient_norm: of the gradient that the optimiser was given; None if it was given none.
        not_finite: the parameters whose gradient has a nan or an infinity.
        backwards: how many backward passes the step had.
        ranks: over how many processes counts were added up.
        unseen: operators that may have kinks and that the dictionary does not list.
    """

    step: int
    rows: tuple[Met, ...]
    change: Change | None
    why: str
    gradient_norm: float | None
    not_finite: tuple[str, ...]
    backwards: int
    ranks: int = 1
    unseen: tuple[str, ...] = ()

    @property
    def active(self) -> int:
        """The kinks met; points where the theory ends are not among them."""
        return sum(row.active for row in self.rows if row.kind not in ("singular", "jump"))

    @property
    def can_matter(self) -> int:
        """The kinks met that could change the gradient."""
        return sum(row.can_matter or 0 for row in self.rows if row.kind not in ("singular", "jump"))

    @property
    def traps(self) -> tuple[Met, ...]:
        """The places where a derivative was infinite: a nan as soon as it meets a zero."""
        return tuple(row for row in self.rows if row.kind == "singular" and row.active)

    def scalars(self) -> dict[str, float]:
        """Give what a log of numbers over steps keeps, by name."""
        found: dict[str, float] = {
            "kinks/active": self.active,
            "kinks/can_matter": self.can_matter,
            "kinks/nan_traps": sum(row.active for row in self.traps),
        }
        if self.change is not None and self.change.relative is not None:
            found["kinks/change"] = self.change.relative
        if self.gradient_norm is not None:
            found["kinks/gradient_norm"] = self.gradient_norm
        for row in self.rows:
            name = f"kinks_share/{row.module or 'outside'}.{row.operation}.{row.kink}".replace(" ", "_")
            name = name.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written
            found[name] = max(found.get(name, 0.0), row.share)
        return found

    def sentence(self) -> str:
        """Say in one line what was seen."""
        modules = len({row.module for row in self.rows if row.can_matter})
        said = f"step {self.step:,}: {self.active:,} kinks met"
        if self.active:
            said += f", {self.can_matter:,} can matter, in {modules} module(s)"
        if self.change is not None and self.change.norm:
            moved = "from 0" if self.change.relative is None else f"by {100 * self.change.relative:.2g} %"
            said += f"; the other choice moves the gradient {moved}"
        if self.not_finite:
            said += f"; the gradient is not finite in {', '.join(self.not_finite[:3])}"
        elif self.traps:
            said += f"; infinite derivatives in {self.traps[0].operation} at {self.traps[0].line}"
        return said


def merge(observations: Sequence[Observation]) -> Observation:
    """Add up what several processes saw of one step: counts are summed, margins the least, changes the largest."""
    rows: dict[tuple[str, ...], Met] = {}
    for row in (row for one in observations for row in one.rows):
        key = row.module, row.operation, row.kind, row.kink, row.line
        before = rows.get(key)
        rows[key] = row if before is None else _together(before, row)
    changes = [one.change for one in observations]
    known = [c for c in changes if c is not None]
    complete = len(known) == len(changes)
    return replace(
        observations[0],
        rows=tuple(rows.values()),
        change=max(known, key=lambda c: (c.norm, c.relative or 0.0)) if complete else None,
        why=next((one.why for one in observations if one.why), ""),
        not_finite=tuple(dict.fromkeys(name for one in observations for name in one.not_finite)),
        ranks=len(observations),
        unseen=tuple(sorted({name for one in observations for name in one.unseen})),
    )


def _together(a: Met, b: Met) -> Met:
    """Add up the counts of one place."""
    return replace(
        a,
        elements=a.elements + b.elements,
        active=a.active + b.active,
        can_matter=None if a.can_matter is None or b.can_matter is None else a.can_matter + b.can_matter,
        margin=min(a.margin, b.margin),
    )


class Observer(Protocol):
    """What a framework offers to watch a training loop."""

    @property
    def steps(self) -> int:
        """The steps that are complete."""

    @property
    def left_out(self) -> int:
        """The observations that were due and did not fit into the budget."""

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them saw."""

    def start(self) -> None:
        """Begin to watch, with the first step observed."""

    def stop(self, *, failed: bool) -> None:
        """End: everything is as it was before `start`."""

    def finish_step(self) -> None:
        """Say that a step is complete, in loops without an optimiser of the framework."""
