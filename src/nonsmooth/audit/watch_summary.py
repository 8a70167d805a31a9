"""What a watched training run met, added up: by place of the program, and over the steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from nonsmooth.frameworks.observation import Met, Observation

__all__ = ["ENDS", "ROUNDING", "Moved", "Place", "RunSummary", "places", "summary"]

ENDS = ("singular", "jump")
"""The kinds at whose points the theory ends: they are no kinks."""

ROUNDING = {"float64": 2.0**-48, "float32": 2.0**-19, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Relative changes of a gradient up to this are rounding: 16 units, or one in formats whose sums torch adds up in float32."""


@dataclass(frozen=True)
class Place:
    """One kink of one operation at one place of the program, at the observed steps at which it ran.

    Attributes:
        module, operation, kind, kink, line: as `Met` has them.
        at: where in the records it ran.
        found: what was met there.
    """

    module: str
    operation: str
    kind: str
    kink: str
    line: str
    at: tuple[int, ...]
    found: tuple[Met, ...]

    @property
    def name(self) -> str:
        """The module and the operation."""
        return f"{self.module or 'outside the model'} · {self.operation}"

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The share of its elements at each of them."""
        return tuple(met.share for met in self.found)

    @cached_property
    def matters(self) -> tuple[int, ...]:
        """Where in the records it met kinks that can matter, or that are not known not to."""
        return tuple(k for k, share in zip(self.at, self.shares, strict=True) if share > 0)

    @cached_property
    def largest(self) -> tuple[float, int]:
        """The largest share of its elements, and where in the records that was."""
        share, place = max(((s, -k) for k, s in zip(self.at, self.shares, strict=True)), default=(0.0, 0))
        return share, -place

    @cached_property
    def margin(self) -> float:
        """The least distance to the kink of an element that is not at it."""
        return min((met.margin for met in self.found if not math.isnan(met.margin)), default=math.inf)


@dataclass(frozen=True)
class Moved:
    """A parameter whose gradient the other choice moved: by how much at most, at which step, and at how many."""

    parameter: str
    largest: float
    step: int
    steps: int


@dataclass(frozen=True)
class RunSummary:
    """A training run in numbers, over the observed steps alone.

    Attributes:
        observed: how many steps were observed.
        with_kinks: at how many of them kinks were met that can matter; `first_with_kinks`, `last_with_kinks` of them, and
            `observed_after` the last.
        harmless: at how many kinks were met, none of which can matter.
        without_backward: at how many no backward pass came, so that it is not known which kinks can matter.
        not_finite, first_not_finite: the observed steps at which the gradient had a nan or an infinity.
        not_finite_parameters: the parameters where, each with its first step.
        measured: the steps with kinks that can matter at which the change of the gradient was measured.
        moved: at how many of them it was above rounding; `last_moved` of them.
        largest_change, largest_change_at: of ||g' - g|| / ||g||; infinite where g = 0; None if it was never measured.
        median_change: over the measured steps.
        change_not_finite: the measured steps at which the change was no number.
        not_measured: the steps with kinks at which it was not measured, by reason.
        unseen: operators that may have kinks and that the dictionary does not list.
        ranks: over how many processes counts were added up.
    """

    observed: int = 0
    with_kinks: int = 0
    first_with_kinks: int | None = None
    last_with_kinks: int | None = None
    observed_after: int = 0
    harmless: int = 0
    without_backward: int = 0
    not_finite: int = 0
    first_not_finite: int | None = None
    not_finite_parameters: Mapping[str, int] = field(default_factory=dict)
    measured: int = 0
    moved: int = 0
    last_moved: int | None = None
    largest_change: float | None = None
    largest_change_at: int | None = None
    median_change: float | None = None
    change_not_finite: int = 0
    not_measured: Mapping[str, int] = field(default_factory=dict)
    parameters: tuple[Moved, ...] = ()
    unseen: tuple[str, ...] = ()
    ranks: int = 1


_Key: TypeAlias = tuple[str, str, str, str, str]


def places(records: Sequence[Observation]) -> tuple[Place, ...]:
    """Gather what was met by place, in the order of the program."""
    found: dict[_Key, list[tuple[int, Met]]] = {}
    order: list[_Key] = []
    for k, record in enumerate(records):
        before: _Key | None = None
        for met in record.rows:
            key = met.module, met.operation, met.kind, met.kink, met.line
            if key not in found:
                found[key] = []
                order.insert(0 if before is None else order.index(before) + 1, key)  # after the one that ran before it
            found[key].append((k, met))
            before = key
    return tuple(Place(*key, tuple(k for k, _ in found[key]), tuple(met for _, met in found[key])) for key in order)


def summary(records: Sequence[Observation], rounding: float) -> RunSummary:
    """Add a run up; relative changes up to `rounding` are none."""
    kinks = [r.step for r in records if r.can_matter]
    broken = [r for r in records if r.not_finite or not _finite(r.gradient_norm)]
    changes = [(_size(r), r.step) for r in records if r.can_matter and r.change is not None]
    known = [(size, step) for size, step in changes if not math.isnan(size)]
    largest = max(known, key=lambda pair: (pair[0], -pair[1]), default=(None, None))
    moved = [step for size, step in known if size > rounding]
    first: dict[str, int] = {}
    for r in broken:
        for name in r.not_finite:
            first.setdefault(name, r.step)
    why: dict[str, int] = {}
    for r in records:
        if r.can_matter and r.change is None:
            why[r.why or "not said"] = why.get(r.why or "not said", 0) + 1
    return RunSummary(
        observed=len(records),
        with_kinks=len(kinks),
        first_with_kinks=min(kinks, default=None),
        last_with_kinks=max(kinks, default=None),
        observed_after=sum(r.step > max(kinks) for r in records) if kinks else 0,
        harmless=sum(r.active > 0 and not r.can_matter and r.backwards > 0 for r in records),
        without_backward=sum(not r.backwards for r in records),
        not_finite=len(broken),
        first_not_finite=min((r.step for r in broken), default=None),
        not_finite_parameters=first,
        measured=len(changes),
        moved=len(moved),
        last_moved=max(moved, default=None),
        largest_change=largest[0],
        largest_change_at=largest[1],
        median_change=statistics.median(size for size, _ in known) if known else None,
        change_not_finite=len(changes) - len(known),
        not_measured=why,
        parameters=tuple(sorted(_moved(records, rounding), key=lambda m: (-m.largest, -m.steps, m.parameter))),
        unseen=tuple(sorted({name for r in records for name in r.unseen})),
        ranks=max((r.ranks for r in records), default=1),
    )


def _finite(norm: float | None) -> bool:
    """Tell whether the norm of the gradient is a number, where there is one."""
    return norm is None or math.isfinite(norm)


def _size(record: Observation) -> float:
    """Give the relative change of a gradient: infinite where the gradient was 0 and is not."""
    change = record.change
    assert change is not None
    return math.inf if change.relative is None else change.relative


def _moved(records: Sequence[Observation], rounding: float) -> Iterator[Moved]:
    """Give the parameters that moved by more than rounding."""
    found: dict[str, list[tuple[float, int]]] = {}
    for r in records:
        for name, size in (r.change.parameters if r.change is not None else {}).items():
            if size > rounding:
                found.setdefault(name, []).append((size, -r.step))
    for name, sizes in found.items():
        largest, step = max(sizes)
        yield Moved(name, largest, -step, len(sizes))
