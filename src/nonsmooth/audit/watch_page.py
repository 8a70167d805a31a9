"""The page of a watched training run: plain data for `report.page`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nonsmooth.audit.watch_story import story
from nonsmooth.report.page import Badge, Image, Page, Section
from nonsmooth.report.table import Table
from nonsmooth.report.text import format_share, format_value

if TYPE_CHECKING:
    from nonsmooth.audit.watch_report import RunReport

__all__ = ["run_page"]

ROWS = 200
"""At most so many rows of a table are shown; report.json has all."""


def run_page(report: RunReport, drawn: bytes) -> Page:
    """Lay a watched run out, with its map as it was drawn."""
    found = report.summary
    change = None if found.largest_change is None else report.change(found.largest_change)
    numbers = (
        ("steps", format_value(report.steps)),
        ("observed", format_value(found.observed)),
        ("with kinks that can matter", format_value(found.with_kinks)),
        ("largest share at one place", format_share(report.kinks[0].largest[0] if report.kinks else None)),
        ("largest change of the gradient", format_value(change)),
        ("steps with a gradient not finite", format_value(found.not_finite)),
    )
    setting = ", ".join(f"{name} {format_value(value)}" for name, value in report.setting.items())
    tables = tuple(report.tables(ROWS))
    note = "Rows are places in the order of the program, columns are observed steps."
    sections = (
        Section("What was found", tuple(story(report))),
        Section("Layers by steps", (Image("Map of layers by steps", drawn, note),)),
        *(Section(t.title, (Table("", t.columns, t.rows, t.note),)) for t in tables),
        *([Section("Of the records", report.notes)] if report.notes else []),
    )
    return Page(report.title, setting, tuple(_badges(report)), numbers, sections)


def _badges(report: RunReport) -> Iterator[Badge]:
    """Give the main findings: what is not finite, then whether the choice at kinks matters."""
    found = report.summary
    if found.not_finite:
        where = ", ".join(list(found.not_finite_parameters)[:3]) or "its norm"
        yield Badge("not finite", "bad", f"The gradient, first at step {found.first_not_finite:,}: {where} (computed)")
    if report.traps:
        first = report.traps[0]
        step = report.records[first.matters[0]].step
        yield Badge("infinite derivative", "bad", f"{first.name}, {first.line}, first at step {step:,} (computed)")
    if found.moved:
        assert found.largest_change is not None
        yield Badge(
            "the choice matters",
            "bad",
            f"The other choice moved the gradient at {found.moved:,} of the {found.measured:,} steps with kinks where it was "
            f"measured, by {report.change(found.largest_change)} at most (computed)",
        )
    elif found.with_kinks:
        said = "no change beyond rounding where it was measured" if found.measured else "the change was not measured"
        yield Badge(
            "kinks met", "open", f"At {found.with_kinks:,} of {found.observed:,} observed steps; {said} (computed)"
        )
    elif found.observed and not found.without_backward:
        yield Badge("no kinks", "good", f"None that can matter at the {found.observed:,} observed steps (computed)")
