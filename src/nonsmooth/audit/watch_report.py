"""The report of a watched training run: places by steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.frameworks.observation import Met, Observation
from nonsmooth.report.files import write_report
from nonsmooth.report.json_text import to_json
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.report.text import format_share, render, render_html

__all__ = ["RunReport", "run_report"]


@dataclass(frozen=True)
class RunReport:
    """A watched training run; every figure was counted in it."""

    format_version: int
    model: str
    setting: Mapping[str, Any]
    steps: int
    records: tuple[Observation, ...]

    def document(self) -> Document:
        """Lay the run out for reading."""
        return Document(f"Training of {self.model} watched", (self._story(), self._places()))

    def _story(self) -> str:
        """Say in a few lines what was found."""
        seen = len(self.records)
        met = sum(r.can_matter > 0 for r in self.records)
        return f"{self.steps:,} steps, {seen:,} of them observed; in {met:,} of these kinks were met that can matter (computed)."

    def _places(self) -> Table:
        """Give a row for every place at which kinks were looked for."""
        rows: dict[tuple[str, str, str, str], list[Met]] = {}
        for record in self.records:
            for met in record.rows:
                rows.setdefault((met.module, met.operation, met.kink, met.line), []).append(met)
        return Table(
            "Kinks met, by place (computed)",
            ("module", "operation", "steps with kinks", "largest share", "least margin", "line"),
            tuple(
                (
                    module,
                    f"{operation} · {kink}",
                    f"{sum(m.active > 0 for m in found)} of {len(found)}",
                    format_share(max(m.share for m in found)),
                    min(m.margin for m in found),
                    line,
                )
                for (module, operation, kink, line), found in rows.items()
            ),
        )

    def __str__(self) -> str:
        """Print the report, at most 100 columns wide."""
        return render(self.document(), width=100)

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return render_html(self.document())

    def to_json(self) -> str:
        """Write the run, with all observations, as strict JSON."""
        return to_json(self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt, report.html and the pictures; give what was written."""
        return write_report(folder, self, {})


def run_report(model: str, setting: Mapping[str, Any], steps: int, records: tuple[Observation, ...]) -> RunReport:
    """Make the report of a run."""
    return RunReport(FORMAT_VERSION, model, setting, steps, records)
