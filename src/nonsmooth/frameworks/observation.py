"""What is seen of one step of training: the kinks met, by place, and what another choice there would have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Change", "Met", "Observation", "Observer"]


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
    """

    step: int
    rows: tuple[Met, ...]
    change: Change | None
    why: str
    gradient_norm: float | None
    not_finite: tuple[str, ...]
    backwards: int
    ranks: int = 1
    unseen: tuple[str, ...] = field(default=())

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


class Observer(Protocol):
    """What a framework offers to watch a training loop."""

    @property
    def steps(self) -> int:
        """The steps that are complete."""

    def start(self) -> None:
        """Begin to watch."""

    def stop(self) -> None:
        """End: everything is as it was before `start`."""

    def finish_step(self) -> None:
        """Say that a step is complete, in loops without an optimiser of the framework."""

    def flat_parameters(self) -> Any:
        """Give the parameters watched, by name."""
