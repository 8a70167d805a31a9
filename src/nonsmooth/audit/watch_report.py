"""The report of a watched training run: what was met, where, at which steps, and what it did to the gradient."""

from __future__ import annotations

import io
import itertools
import math
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nonsmooth.audit.watch_picture import place_names, run_map, short_line
from nonsmooth.audit.watch_story import LINE, NAME, cut, short, story, where
from nonsmooth.audit.watch_summary import ENDS, Place, RunSummary, places, summary
from nonsmooth.frameworks.observation import Observation
from nonsmooth.report.files import write_report
from nonsmooth.report.json_text import to_json
from nonsmooth.report.run_picture import draw_run
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.report.text import format_share, render, render_html

__all__ = ["RunReport", "run_report"]

LISTED, PARAMETERS, STRETCHES = 20, 8, 8
"""At most so many places, parameters and parts of the run are listed."""


@dataclass(frozen=True)
class RunReport:
    """A watched training run; every figure was counted in it.

    Attributes:
        model: its class; "" where the log does not say.
        setting: how it was watched, as far as is known.
        steps: how many steps it had; from a log, up to the last observed one.
        records: the observed steps.
        rounding: relative changes of the gradient up to this are rounding.
        notes: what to know of where the records come from.
    """

    format_version: int
    model: str
    setting: Mapping[str, Any]
    steps: int
    records: tuple[Observation, ...]
    rounding: float = 0.0
    notes: tuple[str, ...] = ()

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where kinks were looked for, in the order of the program."""
        return places(self.records)

    @cached_property
    def summary(self) -> RunSummary:
        """The run in numbers."""
        return summary(self.records, self.rounding)

    @property
    def total(self) -> str:
        """How many steps there were."""
        return f"{self.steps:,} step{'' if self.steps == 1 else 's'}"

    def document(self, rows: int = LISTED) -> Document:
        """Lay the run out for reading, with at most so many rows of a table."""
        return Document(self.title, ("\n".join(story(self)), *self.tables(rows), *self.notes))

    @property
    def title(self) -> str:
        """What was watched."""
        return f"Training of {cut(self.model, 70)} watched" if self.model else "A training watched"

    @cached_property
    def traps(self) -> tuple[Place, ...]:
        """The places where a derivative was infinite, the first steps first."""
        traps = [p for p in self.places if p.kind == "singular" and p.matters]
        return tuple(sorted(traps, key=lambda p: p.matters[0]))

    @cached_property
    def kinks(self) -> tuple[Place, ...]:
        """The places of kinks, those with the largest shares first."""
        return tuple(sorted((p for p in self.places if p.kind not in ENDS), key=lambda p: -p.largest[0]))

    def change(self, change: float | None) -> str:
        """Print a relative change."""
        return "from 0" if change == math.inf else format_share(change, rounding=self.rounding)

    def tables(self, rows: int = LISTED) -> Iterator[Table]:
        """Give the tables that have something to show."""
        if self.summary.not_finite or self.traps:
            yield self._trouble_table(rows)
        if any(p.matters for p in self.kinks):
            yield self._stretches()
        if self.kinks:
            yield self._places(rows)
        if self.summary.parameters:
            yield self._parameters(rows)

    def _trouble_table(self, rows: int) -> Table:
        """Give a row for each infinite derivative and each parameter whose gradient was not finite."""
        listed: list[tuple[Any, ...]] = [
            ("infinite derivative", where(p), self.records[p.matters[0]].step, len(p.matters)) for p in self.traps
        ]
        for name, step in self.summary.not_finite_parameters.items():
            count = sum(name in r.not_finite for r in self.records)
            listed.append(("gradient not finite", cut(name, 60), step, count))
        listed.sort(key=lambda row: row[2])
        return Table(
            "Not finite (computed)",
            ("what", "where", "first step", "observed steps"),
            tuple(listed[:rows]),
            _left_out(len(listed), rows),
        )

    def _stretches(self) -> Table:
        """Give a row for each part of the run: how many steps with kinks, where most, and the change."""
        count = len(self.records)
        parts = min(count, STRETCHES)
        edges = [k * count // parts for k in range(parts + 1)]
        names = dict(zip(map(id, self.kinks), place_names(self.kinks), strict=True))
        return Table(
            "Along the run (computed at the observed steps)",
            ("steps", "observed", "with kinks", "largest share", "of", "largest change"),
            tuple(self._stretch(a, b, names) for a, b in itertools.pairwise(edges)),
            "with kinks: steps at which some can matter. share: of the elements of an operation that are at a kink and have a "
            "nonzero derivative behind them.",
        )

    def _stretch(self, start: int, stop: int, names: Mapping[int, str]) -> tuple[Any, ...]:
        """Give the row of the observations from one to another."""
        part = self.records[start:stop]
        first, last = part[0].step, part[-1].step
        most: tuple[float, str] = (0.0, "-")
        for place in self.kinks:
            if place.largest[0] <= most[0]:
                continue
            ran = slice(bisect_left(place.at, start), bisect_left(place.at, stop))
            most = max(most, (max(place.shares[ran], default=0.0), names[id(place)]), key=lambda pair: pair[0])
        changes = [math.inf if r.change.relative is None else r.change.relative for r in part if r.change is not None]
        known = [c for c in changes if not math.isnan(c)]
        return (
            f"{first:,}" if first == last else f"{first:,} to {last:,}",
            len(part),
            sum(r.can_matter > 0 for r in part),
            format_share(most[0]),
            short(most[1], NAME),
            self.change(max(known)) if known else None,
        )

    def _places(self, rows: int) -> Table:
        """Give a row for every place at which kinks were looked for, those with the largest shares first."""
        shown = self.kinks[:rows]
        note = _left_out(
            len(self.kinks), rows, f"; {sum(bool(p.matters) for p in self.kinks):,} met kinks that can matter"
        )
        return Table(
            "Kinks that can matter, by place (computed at the observed steps)",
            ("place", "line", "steps", "last", "most", "at", "margin"),
            tuple(
                (
                    short(name, NAME),
                    cut(short_line(p.line), LINE),
                    f"{len(p.matters):,} of {len(p.at):,}",
                    self.records[p.matters[-1]].step if p.matters else None,
                    format_share(p.largest[0]),
                    self.records[p.largest[1]].step if p.matters else None,
                    p.margin,
                )
                for name, p in zip(place_names(shown), shown, strict=True)
            ),
            "steps: with kinks, of the observed ones at which it ran; last: of these. most: the largest share, and at "
            f"which step. margin: the least distance to the kink of an element not at it.{note}",
        )

    def _parameters(self, rows: int) -> Table:
        """Give the parameters that the other choice moved most."""
        moved, kept = self.summary.parameters, min(rows, PARAMETERS) if rows == LISTED else rows
        return Table(
            "Parameters whose gradient the other choice moved (computed)",
            ("parameter", "largest change", "at step", "observed steps"),
            tuple((cut(m.parameter, 60), self.change(m.largest), m.step, m.steps) for m in moved[:kept]),
            f"||g' - g|| / ||g|| of the parameter; from 0: its gradient was 0.{_left_out(len(moved), kept)}",
        )

    def __str__(self) -> str:
        """Print the report, at most 100 columns wide."""
        return render(self.document(), width=100)

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return render_html(self.document())

    def to_json(self) -> str:
        """Write the run, with all observations and its summary, as strict JSON."""
        fields = ("format_version", "model", "setting", "steps", "rounding", "notes", "summary", "records")
        return to_json({name: getattr(self, name) for name in fields})

    def map(self) -> bytes:
        """Draw the map of places by steps as PNG."""
        drawn = io.BytesIO()
        draw_run(drawn, run_map(self))
        return drawn.getvalue()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt, report.html and map.png; give what was written."""
        from nonsmooth.audit.watch_page import run_page

        drawn = self.map()
        return write_report(folder, self, {"map": lambda path: _write(path, drawn)}, page=run_page(self, drawn))


def run_report(
    model: str,
    setting: Mapping[str, Any],
    steps: int,
    records: Sequence[Observation],
    *,
    rounding: float = 0.0,
    notes: Sequence[str] = (),
) -> RunReport:
    """Make the report of a run."""
    return RunReport(FORMAT_VERSION, model, setting, steps, tuple(records), rounding, tuple(notes))


def _write(path: Path, content: bytes) -> None:
    """Write a file."""
    path.write_bytes(content)


def _left_out(count: int, rows: int, more: str = "") -> str:
    """Say how many rows are left out."""
    return f" The first {rows:,} of {count:,} rows{more}." if count > rows else ""
