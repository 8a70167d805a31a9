"""The page of an audit, or of several along a run: plain data for `report.page`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nonsmooth.audit.result import Change, KinkSummary
from nonsmooth.audit.verdict import verdict_tables
from nonsmooth.report.page import Badge, Curve, Heat, Line, Listing, Page, Section
from nonsmooth.report.table import Table
from nonsmooth.report.text import format_share, format_value

if TYPE_CHECKING:
    from nonsmooth.audit.audit import Audit

__all__ = ["audit_page"]

TONES = {"certified": "good", "differs": "bad", "artifact": "bad"}
"""The tone of a verdict; every other one is open."""

SHOWN = 12
"""How many rows of a map are shown before they are folded."""

CONTEXT = 2
"""How many lines of source are shown around one with kinks."""

LISTED = 60
"""How many lines with kinks are listed."""


def audit_page(audits: Sequence[Audit], names: Sequence[str], title: str = "") -> Page:
    """Lay out one audit, or several with their names."""
    first = audits[0]
    at = [f"{name}: " if len(audits) > 1 else "" for name in names]
    badges = [
        Badge(
            f"{where}{a.verdict.word}", TONES.get(a.verdict.word, "open"), f"{a.verdict.message} ({a.verdict.status})"
        )
        for where, a in zip(at, audits, strict=True)
    ]
    last = audits[-1]
    numbers = [
        ("value" + ("" if len(audits) == 1 else f" {names[-1]}"), format_value(last.value)),
        ("norm of the gradient", format_value(last.gradient_norm)),
        ("active elements", format_value(sum(r.active for a in audits for r in a.kinks))),
        ("that can matter", format_value(sum(r.can_matter or 0 for a in audits for r in a.kinks))),
        ("steps, not smooth", f"{first.program.steps}, {first.program.nonsmooth}"),
        ("findings", format_value(sum(len(a.findings) for a in audits))),
    ]
    return Page(
        title=title or f"Audit of {first.function}",
        subtitle=f"{first.framework} {first.framework_version}; proof of capture: {first.program.compared} "
        f"({first.program.status}); everything else computed unless it says otherwise",
        badges=tuple(badges),
        numbers=tuple(numbers),
        sections=tuple(_sections(audits, names, at)),
    )


def _sections(audits: Sequence[Audit], names: Sequence[str], at: Sequence[str]) -> Iterator[Section]:
    """Give the sections that have something to show."""
    yield Section("What to know, and what to do", tuple(_findings(audits, at)))
    parts = tuple(t for a in audits for t in verdict_tables(a.verdict))
    if parts:
        yield Section("How backprop's gradient stands to certified subgradients", parts)
    listings = tuple(_listings(audits))
    if listings:
        yield Section("The lines with kinks", listings)
    if any(a.kinks for a in audits):
        yield Section("Where the kinks are", tuple(_maps(audits, names)))
    choices = tuple(_choices(a, where) for a, where in zip(audits, at, strict=True))
    yield Section("What each choice does to each parameter", choices)
    curves = tuple(_curves(audits, at))
    if curves:
        text = "Grey: F(x + t d) for d of length 1. Solid: its one-sided slopes at t = 0. Dashed: what backprop claims."
        yield Section("Slices through the point", (text, *curves))
    costs = tuple((c.what, 1000 * c.seconds, c.ratio) for c in audits[0].costs)
    yield Section("What it cost", (Table("", ("what", "milliseconds (measured)", "gradients"), costs),))


def _findings(audits: Sequence[Audit], at: Sequence[str]) -> Iterator[str | Table]:
    """Give the findings, with their fixes."""
    rows = [
        (f.rule, where + str(f.source.place if f.source else "-"), f.message, f.fix)
        for a, where in zip(audits, at, strict=True)
        for f in a.findings
    ]
    if not rows:
        yield "Nothing was found that needs care."
    else:
        yield Table("", ("finding", "line", "what", "fix"), tuple(rows))


def _listings(audits: Sequence[Audit]) -> Iterator[Listing]:
    """Give the source around every line with active kinks, file by file, with what was found there."""
    places: dict[tuple[str, int], list[tuple[Audit, KinkSummary]]] = {}
    texts: dict[tuple[str, int], str] = {}
    for audit in audits:
        for row in audit.kinks:
            if row.source is not None and row.active:
                key = row.source.file, row.source.line
                places.setdefault(key, []).append((audit, row))
                texts[key] = row.source.text
    kept = sorted(places, key=lambda key: -sum(row.active for _, row in places[key]))[:LISTED]
    for file in dict.fromkeys(file for file, _ in kept):
        hits = {line: places[file, line] for name, line in kept if name == file}
        yield Listing(file.replace("\\", "/").rsplit("/", 1)[-1], tuple(_lines(file, hits, texts)))


def _lines(
    file: str, hits: dict[int, list[tuple[Audit, KinkSummary]]], texts: dict[tuple[str, int], str]
) -> Iterator[Line]:
    """Give the lines of a file around its hits; the hits alone where it cannot be read, or has changed."""
    try:
        source = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        source = []
    same = all(line <= len(source) and source[line - 1].strip() == texts[file, line] for line in hits)
    around = {n for line in hits for n in range(line - CONTEXT, line + CONTEXT + 1)} if same else set(hits)
    for number in sorted(n for n in around if 1 <= n <= (len(source) if same else n)):
        text = source[number - 1] if same else texts[file, number]
        met = hits.get(number, [])
        share = max((row.share for _, row in met), default=None)
        yield Line(number, text, _note(met), share)


def _note(met: list[tuple[Audit, KinkSummary]]) -> str:
    """Say what was found on a line."""
    notes = []
    for audit, row in met:
        effect = next((e for e in audit.effects if e.step == row.step and e.kink == row.kink), None)
        moves = f"; moves the gradient by up to {effect.total.text(audit.rounding)}" if effect else ""
        notes.append(
            f"{row.operation}: {row.active:,} of {row.elements:,} at {row.kink} ({format_share(row.share)}){moves}"
        )
    return " | ".join(dict.fromkeys(notes))


def _maps(audits: Sequence[Audit], names: Sequence[str]) -> Iterator[Heat]:
    """Give the map of modules (or steps) by operation, or along the run."""
    if len(audits) > 1:
        rows = list(dict.fromkeys(r.label for a in audits for r in a.kinks))
        found = [{r.label: r for r in a.kinks} for a in audits]
        values = tuple(tuple(f[r].share if r in f else None for f in found) for r in rows)
        texts = tuple(tuple(format_share(f[r].share) if r in f else "" for f in found) for r in rows)
        note = "The share of the elements of each step that is at a kink."
        yield Heat("layers x steps", tuple(names), tuple(rows), values, texts, note, max(0, len(rows) - 2 * SHOWN))
        return
    (audit,) = audits
    modules = list(dict.fromkeys(r.module or (r.source.place if r.source else "(function)") for r in audit.kinks))
    operations = list(dict.fromkeys(r.operation for r in audit.kinks))
    cells: dict[tuple[str, str], list[int]] = {}
    for r in audit.kinks:
        key = r.module or (r.source.place if r.source else "(function)"), r.operation
        counts = cells.setdefault(key, [0, 0])
        counts[0], counts[1] = counts[0] + r.active, counts[1] + r.elements
    share = {key: a / n if n else 0.0 for key, (a, n) in cells.items()}
    modules.sort(key=lambda m: -max(share.get((m, o), 0.0) for o in operations))
    yield Heat(
        "modules x operations",
        tuple(operations),
        tuple(modules),
        tuple(tuple(share.get((m, o)) for o in operations) for m in modules),
        tuple(tuple(f"{format_share(share[m, o])}" if (m, o) in share else "" for o in operations) for m in modules),
        "The share of the elements that is at a kink.",
        max(0, len(modules) - 2 * SHOWN),
    )


def _choices(audit: Audit, where: str) -> Heat:
    """Give the map of parameters by conventions and groups of kinks, those that move most first."""
    columns = [(c.convention, c.parameters) for c in audit.conventions[1:]]
    columns += [(f"only {e.group}", e.parameters) for e in audit.effects[:SHOWN]]
    names = list(audit.program.parameters)
    nothing = Change(0.0, 0.0)
    table = {name: [parameters.get(name, nothing) for _, parameters in columns] for name in names}
    names.sort(key=lambda name: -max((_heat(c, audit.rounding) for c in table[name]), default=0.0))
    return Heat(
        f"{where}relative change of each parameter's gradient",
        tuple(name for name, _ in columns),
        tuple(names),
        tuple(tuple(_heat(c, audit.rounding) for c in table[name]) for name in names),
        tuple(tuple(c.text(audit.rounding) for c in table[name]) for name in names),
        "Against the framework's gradient: under a convention, or when only the weights of one group of kinks go from "
        "one end to the other. " + audit.effects_note,
        max(0, len(names) - SHOWN),
    )


def _heat(change: Change, rounding: float) -> float:
    """Give the heat of a change: 0 below rounding, 1 from 100 % on, logarithmic between."""
    size = change.size
    if not size > rounding:
        return 0.0
    return min(1.0, max(0.05, 1 + math.log10(size) / 4)) if math.isfinite(size) else 1.0


def _curves(audits: Sequence[Audit], at: Sequence[str]) -> Iterator[Curve]:
    """Give the slices as curves."""
    for audit, where in zip(audits, at, strict=True):
        for cut in audit.slices:
            sides = " and ".join("none" if s is None else f"{s:.4g}" for s in (cut.left, cut.right))
            note = f"one-sided slopes {sides}; claimed {cut.claimed:.4g}. {cut.note}"
            points = tuple(zip(cut.steps, cut.values, strict=True))
            yield Curve(where + cut.direction, points, cut.left, cut.right, cut.claimed, note)
