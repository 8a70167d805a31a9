"""The pictures of one audit, or of several audits of the same function along a training run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nonsmooth.audit.audit import Audit
from nonsmooth.audit.result import HISTOGRAM_EDGES, Change, KinkSummary
from nonsmooth.dictionary import Kind
from nonsmooth.report.files import Draw
from nonsmooth.report.text import format_share

__all__ = ["audit_pictures", "training_pictures"]

ROWS = 16
"""How many rows or columns a picture shows: those with most to show."""


def audit_pictures(audit: Audit) -> dict[str, Draw]:
    """Give what draws the pictures of one audit, by name; what has nothing to show is left out."""
    return training_pictures((audit,), ("at the point",))


def training_pictures(audits: Sequence[Audit], names: Sequence[str]) -> dict[str, Draw]:
    """Give what draws the pictures of several audits of one function, by name."""
    pictures: dict[str, Draw] = {}
    if any(audit.kinks for audit in audits):
        pictures["kinks"] = partial(_draw_kinks, audits=audits, names=names)
        pictures["margins"] = partial(_draw_margins, audits=audits, names=names)
    if any(e.parameters for audit in audits for e in audit.effects):
        pictures["effects"] = partial(_draw_effects, audits=audits, names=names)
    return pictures


def _rows(audits: Sequence[Audit]) -> tuple[str, ...]:
    """Name the rows of kinks of all audits, in the order of the program, those with most active elements."""
    active: dict[str, int] = {}
    for audit in audits:
        for row in audit.kinks:
            active[row.label] = active.get(row.label, 0) + row.active
    shown = set(sorted(active, key=lambda name: -active[name])[:ROWS])
    return tuple(name for name in active if name in shown)


def _left_out(audits: Sequence[Audit]) -> str:
    """Say how many rows of kinks a picture leaves out."""
    count = len({row.label for audit in audits for row in audit.kinks})
    return f"\nThe {ROWS} of {count} steps with most active elements; report.json has all." if count > ROWS else ""


def _found(audit: Audit, name: str) -> KinkSummary | None:
    """Find a row of kinks by its label."""
    return next((row for row in audit.kinks if row.label == name), None)


def _draw_kinks(path: Path, audits: Sequence[Audit], names: Sequence[str]) -> None:
    """Map the share of the elements at a kink, and of those that can matter, by layer and training point."""
    from nonsmooth.report.picture import Panel, draw_maps

    rows = _rows(audits)
    table = [[_found(audit, name) for audit in audits] for name in rows]

    def panel(title: str, count: str) -> Panel:
        numbers = [[None if r is None else getattr(r, count) for r in row] for row in table]
        shares = [
            [None if n is None or r is None else n / max(r.elements, 1) for n, r in zip(ns, row, strict=True)]
            for ns, row in zip(numbers, table, strict=True)
        ]
        texts = [
            ["unknown" if n is None else f"{format_share(s)}\n{n:,}" if n else "0" for n, s in zip(ns, ss, strict=True)]
            for ns, ss in zip(numbers, shares, strict=True)
        ]
        return Panel(title, rows, tuple(names), tuple(map(tuple, shares)), tuple(map(tuple, texts)))

    draw_maps(
        path,
        "Where the program is not differentiable",
        "Elements of each step at a kink: share and number (computed). Can matter: the output's derivative is not 0.\n"
        "Harmless ties: entries that tie while their derivative is zero, so that the choice changes nothing."
        + _left_out(audits),
        [panel("at a kink", "active"), panel("of these, can matter", "can_matter"), panel("harmless ties", "harmless")],
        "share of the step's elements",
    )


def _draw_margins(path: Path, audits: Sequence[Audit], names: Sequence[str]) -> None:
    """Draw the histograms of the distance to the nearest kink."""
    from nonsmooth.report.picture import Ridge, draw_ridges

    ridges = []
    for name in _rows(audits):
        found = [_found(audit, name) for audit in audits]
        blank = (0,) * (len(HISTOGRAM_EDGES) - 1)
        counts = tuple(row.histogram if row else blank for row in found)
        notes = tuple(
            f"{format_share(row.tied)} at 0, median {row.quantiles['0.5']:.2g}"
            if row and row.quantiles
            else "nothing away from the kink"
            for row in found
        )
        ridges.append(Ridge(name, counts, tuple(row.elements if row else 0 for row in found), notes))
    draw_ridges(
        path,
        "How far the elements are from their nearest kink",
        "Share of each step's elements per half decade of the distance (computed). Elements at distance 0\n"
        "are not drawn: their share stands on the right, with the median distance of the others." + _left_out(audits),
        HISTOGRAM_EDGES,
        names,
        ridges,
        "distance to the nearest kink, in units of the operation's argument (for ties: the gap)",
    )


def _draw_effects(path: Path, audits: Sequence[Audit], names: Sequence[str]) -> None:
    """Map how much each group of kinks moves the gradient of each parameter."""
    from nonsmooth.report.picture import Panel, draw_maps

    weighed = {kind.value for kind in Kind if kind.has_weights}
    kinks = {row.label for audit in audits for row in audit.kinks if row.kind in weighed}
    rows = tuple(name for name in _rows(audits) if name in kinks)
    columns = _columns(audits)
    panels = []
    for audit, title in zip(audits, names, strict=True):
        effects = {e.group: e for e in audit.effects}
        values: list[tuple[float | None, ...]] = []
        texts: list[tuple[str, ...]] = []
        for name in rows:
            effect = effects.get(name)
            if effect is None:
                values.append((0.0,) * (len(columns) + 1))
                texts.append(("no kink",) * (len(columns) + 1))
                continue
            changes = [effect.total, *(effect.parameters.get(c, Change(float("nan"), None, "nan")) for c in columns)]
            values.append(tuple(_size(c, audit.rounding) for c in changes))
            texts.append(tuple(c.text(audit.rounding) for c in changes))
        panels.append(Panel(title, rows, ("whole", *columns), tuple(values), tuple(texts)))
    draw_maps(
        path,
        "How much each group of kinks moves the gradient",
        "Change of the gradient when only this group's weights go from one end to the other, all else left to\n"
        "the framework: ||g(1) - g(0)|| / ||g|| for the whole and for each parameter (computed). ~0: rounding.",
        panels,
        "relative change",
    )


def _size(change: Change, rounding: float) -> float | None:
    """Give the value of colour of a change."""
    return None if change.relative is None else 0.0 if change.relative <= rounding else change.relative


def _columns(audits: Sequence[Audit]) -> tuple[str, ...]:
    """Choose the parameters to show, in their order: those that move most."""
    most: dict[str, float] = {}
    for audit in audits:
        for effect in audit.effects:
            for name, change in effect.parameters.items():
                most[name] = max(most.get(name, 0.0), change.size)
    shown = set(sorted(most, key=lambda name: -most[name])[:ROWS])
    return tuple(name for name in most if name in shown)
