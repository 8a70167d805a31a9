"""The course of a solution: the smooth pieces that it passes, and the times at which it crosses from one to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nonsmooth.implicit.flows.piece import Pattern, Pieces
from nonsmooth.program import Step

__all__ = ["Contact", "Course", "Crossing", "Jump", "Limits", "Segment", "Watched"]


@dataclass(frozen=True)
class Limits:
    """How exactly a course is followed, and how far: tolerances, most steps and most crossings."""

    rtol: float
    atol: float
    steps: int
    crossings: int

    @property
    def band(self) -> float:
        """How far from zero a margin may be, relative to the size of the solution, and count as zero."""
        return 10 * self.rtol


@dataclass(frozen=True)
class Crossing:
    """A time at which the solution crosses a kink.

    Attributes:
        time: when.
        operation, kink, index: which element of which step of the program; of an order operation, which entry changes its rank.
        line: the line of the user's program.
        direction: 1 where the switching argument grows, -1 where it falls.
        rate: |d/dt of the switching argument|; nan where its sign alone is known, as of an argmax.
        grazing: whether the rate is so small that the time is known less exactly.
        jump: by how much f jumps there, largest entry.
    """

    time: float
    operation: str
    kink: str
    index: tuple[int, ...]
    line: str
    direction: int
    rate: float
    grazing: bool
    jump: float = 0.0


@dataclass(frozen=True)
class Contact:
    """A stretch of time in which the solution stays on a kink.

    Attributes:
        start, end: the stretch.
        operation, kink, index, line: which element of the program.
        matters: whether different selections on the kink, each realised next to it, give different derivatives.
    """

    start: float
    end: float
    operation: str
    kink: str
    index: tuple[int, ...]
    line: str
    matters: bool


@dataclass(frozen=True, eq=False)
class Jump:
    """A jump of f from f_- to f_+ where a margin m becomes 0: the derivative S of the solution goes on as S + factor (m)'.

        factor = (f_+ - f_-) / (dm/dt along f_-),   (m)' the derivative of m(t, y, theta) at the fixed time, y' = S

    Attributes:
        number: which element of the flat vector of margins.
        factor: as above, like y.
        before: f_-.
        step: how far back in time m is looked at, since the distance to a jump has itself a kink there.
    """

    number: int
    factor: Any
    before: Any
    step: float

    @property
    def looks(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The weights and the times before the crossing whose margins extrapolate to it, of second order."""
        return (2.0, self.step), (-1.0, 2 * self.step)


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of time on one smooth piece, and how f jumps at its end, if it does."""

    start: float
    end: float
    pieces: Pieces
    pattern: Pattern
    jump: Jump | None = None


@dataclass
class Watched:
    """A step whose kinks cannot be held, and how near the solution comes to them at the times that are looked at.

    Attributes:
        step: which step of the program.
        distance: the least distance to a kink.
        time: when.
        met: whether it counts as met: the distance is zero, or too small for the steps.
    """

    step: Step
    distance: float = float("inf")
    time: float = 0.0
    met: bool = False


@dataclass(eq=False)
class Course:
    """What a solution passes: its segments, crossings, contacts, its values at the times asked for.

    `watched` has the steps whose kinks cannot be held. `proved` tells whether the held pieces gave the values of f at both ends.
    """

    segments: list[Segment] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    watched: dict[str, Watched] = field(default_factory=dict)
    steps: int = 0
    proved: bool = True
