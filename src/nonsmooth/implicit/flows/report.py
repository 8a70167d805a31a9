"""What a flow has met on its way: crossings and contacts by line, and the error of its integration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.implicit.flows.course import Contact, Course, Crossing, Watched

__all__ = ["FlowReport", "report_of"]


@dataclass(frozen=True)
class FlowReport:
    """What a flow has met on its way.

    Attributes:
        crossings: the kinks that the solution crosses, in order.
        contacts: the kinks that it stays on; those that matter make the derivative one of several.
        error: |y - z| / (1 + |z|) at the times asked for, largest entry, where y is the framework's solution and z that of
            an integration of order 8 with tighter tolerances: an estimate, no bound.
        status: "computed" where the derivative is unique; "sampled" where that rests on the distances to kinks that cannot
            be located, or on the indices that an argmax gives, at the times looked at; "undecided" where it is one element
            of a set, or such a kink is met.
        reasons: what is undecided, by line.
        segments: the number of smooth pieces.
        steps: the steps of the pass that located the crossings.
        watched: the steps whose kinks cannot be located (Euclidean norms, quotients), and how near the solution comes to them.
        derivative_error: of `diagnose`: the change of the derivative of <c, y>, c drawn, in y0 and theta, relative to 1 + its
            largest entry, by an integration with half the steps and a tenth of the tolerances: an estimate, no bound.
    """

    crossings: tuple[Crossing, ...]
    contacts: tuple[Contact, ...]
    error: float
    status: str
    reasons: tuple[str, ...]
    segments: int
    steps: int
    watched: tuple[Watched, ...] = ()
    derivative_error: float | None = None

    @property
    def decided(self) -> bool:
        """Whether nothing is undecided."""
        return self.status != "undecided"

    def __str__(self) -> str:
        """Print the report."""
        rows = [
            f"{len(self.crossings)} crossing(s), {len(self.contacts)} contact(s), {self.segments} smooth piece(s); "
            f"error {self.error:.1e} (estimated), derivative {self.status}"
            + ("" if self.derivative_error is None else f", its error {self.derivative_error:.1e} (estimated)")
        ]
        for c in self.crossings:
            arrow, slow = "up" if c.direction > 0 else "down", ", grazing" if c.grazing else ""
            slow += f", f jumps by {c.jump:.3g}" if c.jump else ""
            rows.append(
                f"  t = {c.time:.9g}: {c.operation} at {c.kink}, entry {c.index}, {arrow}, rate {c.rate:.3g}{slow}  ({c.line})"
            )
        for k in self.contacts:
            word = "matters" if k.matters else "does not matter (sampled)"
            rows.append(
                f"  [{k.start:.6g}, {k.end:.6g}]: stays on {k.operation} at {k.kink}, entry {k.index}: {word}  ({k.line})"
            )
        rows += [
            f"  {w.step}: kinks not located; the nearest at t = {w.time:.6g}, distance {w.distance:.3g} (sampled)"
            for w in self.watched
        ]
        return "\n".join([*rows, *(f"  undecided: {r}" for r in self.reasons)])


def report_of(motion: Any, course: Course, result: Any, several: bool) -> FlowReport:
    """Make the report of a course and of the framework's solution at the same times."""
    reference = np.stack(course.values) if several else np.asarray(course.values[-1])
    error = float((np.abs(result - reference) / (1 + np.abs(reference))).max(initial=0.0))
    lines = dict.fromkeys(f"`{c.operation}`, {c.line}" for c in course.contacts if c.matters)
    reasons = [
        f"the solution stays on a kink of {line}: the derivative is one of several, and the set of them is undecided"
        for line in lines
    ]
    watched, indexed = tuple(course.watched.values()), any(s.pieces.indexed for s in course.segments)
    reasons += [
        f"the kinks of {w.step} are not located, and near t = {w.time:.6g} the solution comes within {w.distance:.1g} of one"
        for w in watched
        if w.met
    ]
    return FlowReport(
        crossings=tuple(course.crossings),
        contacts=tuple(course.contacts),
        error=error,
        status="undecided" if reasons else "sampled" if watched or indexed else "computed",
        reasons=tuple(reasons),
        segments=len(course.segments),
        steps=course.steps,
        watched=watched,
    )
