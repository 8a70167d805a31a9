"""A training run audited at several points: the result, and its report."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.audit.audit import Audit
from nonsmooth.audit.document import audit_document, findings_text
from nonsmooth.audit.page import audit_page
from nonsmooth.audit.pictures import training_pictures
from nonsmooth.audit.result import Effect
from nonsmooth.report.files import write_report
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import format_share, render

__all__ = ["Initialisation", "TrainingPoint", "TrainingStudy"]


@dataclass(frozen=True)
class TrainingPoint:
    """A point of a training run: where it is, how well the network does there, and the audit of its loss."""

    name: str
    step: int
    epochs: float
    loss: float
    accuracy: float
    audit: Audit

    @property
    def strongest(self) -> Effect | None:
        """The group of kinks that moves the gradient of some parameter most."""
        return next((e for e in self.audit.effects if e.status != "undecided"), None)


@dataclass(frozen=True)
class Initialisation:
    """Another initialisation of the same network: its seed, its strongest group of kinks, and what that does."""

    seed: int
    group: str
    share: float
    parameter: str
    change: float


@dataclass(frozen=True)
class TrainingStudy(Reported):
    """A training run audited at several points; every figure was measured in the run."""

    format_version: int
    name: str
    setting: Mapping[str, Any]
    points: tuple[TrainingPoint, ...]
    initialisations: tuple[Initialisation, ...]
    seconds: float

    def document(self) -> Document:
        """Lay the study out for reading: what was found, then the tables along the run."""
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        parts: list[str | Table] = [self._story(), *self._tables()]
        worst = self.points[0].audit.findings
        if worst:
            parts.append(f"Findings at {self.points[0].name}:\n{findings_text(worst)}")
        parts.append(f"Setting: {setting}.\nThe whole run took {self.seconds:.1f} s (measured).")
        return Document(f"Audit of a network trained on {self.name}", tuple(parts))

    def _story(self) -> str:
        """Say in a line per point what the audit found there."""
        return "\n".join((*(_sentence(point) for point in self.points), *self._spread()))

    def _spread(self) -> Iterator[str]:
        """Say how the strongest effect varies over initialisations."""
        if not self.initialisations:
            return
        changes, shares = ([getattr(i, a) for i in self.initialisations] for a in ("change", "share"))
        low, middle, high = (format_share(v) for v in (min(changes), statistics.median(changes), max(changes)))
        where = ", ".join(dict.fromkeys(f"{i.group} on {i.parameter}" for i in self.initialisations))
        tied = " to ".join(dict.fromkeys((format_share(min(shares)), format_share(max(shares)))))
        yield (
            f"Over {len(changes)} initialisations the strongest group was {where}:\n  {tied} of its elements at the "
            f"kink, changes from {low} to {high}, median {middle}\n  (sampled, {len(changes)} seeds)."
        )

    def _tables(self) -> Iterator[Table]:
        """Give the tables along the run."""
        names = [point.name for point in self.points]
        yield Table(
            "Along the run (computed)",
            ("point", "loss", "accuracy", "active kinks", "can matter", "findings", "backprop's gradient"),
            tuple(
                (
                    p.name,
                    float(f"{p.loss:.4g}"),
                    f"{100 * p.accuracy:.1f} %",
                    sum(row.active for row in p.audit.kinks),
                    sum(row.can_matter or 0 for row in p.audit.kinks),
                    len(p.audit.findings),
                    _verdict(p),
                )
                for p in self.points
            ),
            "accuracy: on held-out images. backprop's gradient: certified, if it is a subgradient; artifact, if it is none; "
            "differs, with its distance from the subgradients tried (it may still be another); or undecided.",
        )
        labels = list(dict.fromkeys(row.label for p in self.points for row in p.audit.kinks))
        found = [{row.label: row for row in p.audit.kinks} for p in self.points]
        cells = [[_kinks(rows.get(label)) for rows in found] for label in labels]
        yield Table(
            "Elements at a kink, by step of the program (computed)",
            ("step", *names),
            tuple((label, *row) for label, row in zip(labels, cells, strict=True)),
            "share and number; ties whose entries have zero derivatives are harmless, and not counted.",
        )
        groups = list(dict.fromkeys(e.group for p in self.points for e in p.audit.effects))
        yield Table(
            "How much each group of kinks moves the gradient, from one end of its weights to the other (computed)",
            ("group of kinks", *names),
            tuple((group, *(_moved(p, group) for p in self.points)) for group in groups),
            "of the parameter that moves most: ||g(1) - g(0)|| / ||g||, all other kinks left to the framework.",
        )
        yield Table(
            "The whole gradient under other conventions, against the framework's (computed)",
            ("convention", *names),
            tuple(
                (c.convention, *(_convention(p, number) for p in self.points))
                for number, c in enumerate(self.points[0].audit.conventions)
            ),
            "||g - g_fw|| / ||g_fw||, and in brackets that of the parameter that moves most.",
        )

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt (with every audit in full) and the pictures; give what was written."""
        audits, names = [p.audit for p in self.points], [p.name for p in self.points]
        full = [render(audit_document(p.audit, f"at {p.name}"), width=100) for p in self.points]
        text = "\n\n\n".join((str(self), *full))
        page = audit_page(audits, names, "Training: kinks along the run")
        return write_report(folder, self, training_pictures(audits, names), text=text, page=page)


def _sentence(point: TrainingPoint) -> str:
    """Say what was found at one point."""
    effect, rounding = point.strongest, point.audit.rounding
    if effect is None or effect.largest.size <= rounding:
        active = sum(row.active for row in point.audit.kinks)
        return f"At {point.name}: {active:,} element(s) at a kink; no choice there moves the gradient beyond rounding."
    row = next(r for r in point.audit.kinks if (r.step, r.kink) == (effect.step, effect.kink))
    return (
        f"At {point.name}: {format_share(row.share)} of the {row.elements:,} elements of {effect.group} are exactly\n"
        f"  at the kink; its weight {' or '.join(effect.weights)} changes the gradient of {effect.moves_most} by "
        f"{effect.largest.phrase(rounding)},\n  the whole gradient by {effect.total.text(rounding)}."
    )


def _verdict(point: TrainingPoint) -> str:
    """Print the verdict on backprop's gradient in a cell."""
    verdict = point.audit.verdict
    change = (
        f", {verdict.total.text(verdict.rounding)}" if verdict.word in ("differs", "artifact") and verdict.total else ""
    )
    return f"{verdict.word}{change}"


def _kinks(row: Any) -> str:
    """Print a row of kinks in a cell."""
    return "-" if row is None else f"{format_share(row.share)} ({row.active:,})" if row.active else "0"


def _moved(point: TrainingPoint, group: str) -> str:
    """Print the effect of a group in a cell."""
    effect = next((e for e in point.audit.effects if e.group == group), None)
    if effect is None:
        return "no active kink"
    largest = effect.largest
    return f"{largest.text(point.audit.rounding)} ({effect.moves_most})" if largest.size > point.audit.rounding else "0"


def _convention(point: TrainingPoint, number: int) -> str:
    """Print the change under a convention in a cell."""
    comparison, rounding = point.audit.conventions[number], point.audit.rounding
    whole = comparison.total.text(rounding)
    most = max(comparison.parameters.items(), key=lambda item: item[1].size, default=None)
    return whole if most is None or most[1].size <= rounding else f"{whole} ({most[0]} {most[1].text(rounding)})"
