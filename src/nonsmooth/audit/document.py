"""The report of an audit as paragraphs and tables."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from nonsmooth.audit.audit import Audit
from nonsmooth.audit.effects import joint_effect
from nonsmooth.audit.result import Change, LintFinding
from nonsmooth.audit.verdict import verdict_tables
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import format_share, plain

__all__ = ["audit_document", "findings_text", "headline"]

WIDTH = 96
"""Paragraphs are broken here, so that they fit a terminal of 100 columns."""

ROWS = 20
"""How many rows a table of the text shows; the JSON has all."""


CAN_MATTER = (
    "can matter: the derivative of the output is not 0 (an upper bound: the pieces may still agree); harmless: ties "
    "of entries of zero derivative; nearest: the distance of the nearest other element."
)
"""How to read the counts of kinks."""


def audit_document(audit: Audit, where: str = "at one point") -> Document:
    """Lay an audit out for reading: the headline, the findings, then the tables."""
    version = f"{audit.framework} {audit.framework_version}".strip()
    parts: list[str | Table] = [headline(audit)]
    if audit.findings:
        parts.append(findings_text(audit.findings))
    parts += verdict_tables(audit.verdict)
    parts += [table for table in _tables(audit) if table.rows]
    return Document(f"Audit of {audit.function} {where} ({version})", tuple(parts))


def headline(audit: Audit) -> str:
    """Say in a few lines what was found."""
    program, rows = audit.program, audit.kinks
    active = Counter[str]()
    for row in rows:
        active[row.kind] += row.active
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in active.items() if count) or "none"
    known = [row.can_matter for row in rows if row.active and row.can_matter is not None]
    matter = f"; {sum(known):,} can matter" if known else ""
    near = f" within {audit.tol:g}" if audit.tol else ""
    proof = (
        f"{program.compared}, largest relative differences {program.value_error:.1g} and {program.gradient_error:.1g}"
    )
    lines = [
        f"value {audit.value:.6g}, gradient norm {audit.gradient_norm:.6g}"
        + (f", {audit.bad_entries:,} entries nan or inf" if audit.bad_entries else "")
        + " (computed)",
        f"program: {program.steps} steps, {program.nonsmooth} of them not smooth; proof of capture: "
        + (f"{proof} ({program.status})" if program.value_error is not None else "none"),
        f"active elements{near}: {by_kind}{matter} (computed)",
    ]
    first = next((e for e in audit.effects if e.status != "undecided"), None)
    if first is not None:
        lines.append(
            f"largest effect: {first.group}: its weights {' to '.join(first.weights)} move the gradient of "
            f"{first.moves_most} by {first.largest.phrase(audit.rounding)} (computed)"
        )
    together = joint_effect(audit.conventions, audit.effects, audit.rounding)
    if together is not None:
        comparison, name = together
        lines.append(
            f"joint effect: {comparison.convention} moves the gradient of {name} by "
            f"{comparison.parameters[name].phrase(audit.rounding)}; no group of kinks alone does (computed)"
        )
    lines.append(f"verdict: {audit.verdict.message} ({audit.verdict.status})")
    lines.append(f"findings: {len(audit.findings)}")
    return "\n".join(_wrap(line, "  ") for line in lines)


def findings_text(findings: tuple[LintFinding, ...]) -> str:
    """Print the findings, each with its line and its fix."""
    blocks = []
    for finding in findings:
        place = f"{finding.source}" if finding.source else "inside the framework's own modules"
        head = _wrap(f"[{finding.rule}] {plain(place)}", "    ")
        body = _wrap(f"{finding.message} ({finding.status})", "    ", "    ")
        blocks.append("\n".join((head, body, _wrap(f"fix: {finding.fix}", "    ", "    "))))
    return "\n".join(blocks)


def _wrap(text: str, later: str, first: str = "") -> str:
    """Break a line."""
    return textwrap.fill(plain(text), WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _tables(audit: Audit) -> Iterator[Table]:
    """Give every table of the report."""
    yield _kinks(audit)
    for title, places in (("by line of source", audit.lines), ("by module", audit.modules)):
        if 1 < len(places) < len(audit.kinks):
            yield Table(
                f"Kinks {title}",
                ("where", "steps", "active", "of", "can matter", "nearest other"),
                tuple((p.name, p.steps, p.active, p.elements, p.can_matter, p.margin) for p in places[:ROWS]),
                _rest(len(places)),
            )
    yield _conventions(audit)
    yield _parameters(audit)
    yield _effects(audit)
    yield _branches(audit)
    yield Table(
        "Operations",
        ("operation", "kind", "steps", "kinks"),
        tuple((o.operation, o.kind, o.steps, ", ".join(o.kinks) or None) for o in audit.operations[:ROWS]),
        _rest(len(audit.operations)),
    )
    yield Table(
        "Cost (measured)",
        ("what", "milliseconds", "gradients"),
        tuple((c.what, 1e3 * c.seconds, None if c.ratio is None else float(f"{c.ratio:.3g}")) for c in audit.costs),
        "Wall time, one run each; the first row is the median of three.",
    )


def _rest(count: int, note: str = "") -> str:
    """Say how many rows were left out."""
    more = f"The first {ROWS} of {count} rows; the JSON has all." if count > ROWS else ""
    return " ".join(text for text in (more, note) if text)


def _kinks(audit: Audit) -> Table:
    """Give the kinks by step, those with most active elements first."""
    rows = sorted(audit.kinks, key=lambda r: -r.active)[:ROWS]
    rows.sort(key=lambda r: r.step)
    return Table(
        "Kinks by step (computed)",
        ("step", "where", "kind", "active", "share", "of", "can matter", "harmless", "nearest"),
        tuple(
            (r.step, r.label, r.kind, r.active, format_share(r.share), r.elements, r.can_matter, r.harmless, r.margin)
            for r in rows
        ),
        _rest(len(audit.kinks), CAN_MATTER),
    )


def _conventions(audit: Audit) -> Table:
    """Give the distance of every convention from the framework."""
    rows = []
    for c in audit.conventions:
        most = max(c.parameters, key=lambda n: (c.parameters[n].size, c.parameters[n].absolute), default="")
        moved = c.parameters[most].text(audit.rounding) if most else "-"
        name = most if most and c.parameters[most].size > audit.rounding else None
        rows.append((c.convention, f"{c.norm:.4g}", c.total.text(audit.rounding), name, moved))
    bad = any("nan" in c.note for c in audit.conventions)
    notes = "; nan/inf: one of the two gradients holds nan or inf" if bad else ""
    return Table(
        f"The gradient under other conventions, against {audit.framework}'s (computed)",
        ("convention", "norm", "change", "parameter moved most", "its change"),
        tuple(rows),
        f"change: ||g - g_fw|| / ||g_fw||; ~0: below {audit.rounding:.1g}, rounding; abs: ||g - g_fw||{notes}.",
    )


def _parameters(audit: Audit) -> Table:
    """Give the change of every parameter under every convention, for points of several parameters."""
    others = [c for c in audit.conventions[1:] if c.parameters]
    names = list(audit.program.parameters) if len(audit.program.parameters) > 1 else []

    def largest(name: str) -> float:
        return max((c.parameters[name].size for c in others), default=0.0)

    moved = [n for n in names if largest(n) > audit.rounding]
    shown = sorted(sorted(moved, key=largest, reverse=True)[:ROWS], key=names.index)
    still = len(names) - len(moved)
    note = f"{still} parameter(s) do not move by more than rounding." if still else ""
    return Table(
        "Change of each parameter's gradient under other conventions (computed)",
        ("parameter", *(c.convention for c in others)),
        tuple((n, *(c.parameters[n].text(audit.rounding) for c in others)) for n in shown),
        _rest(len(moved), note),
    )


def _effects(audit: Audit) -> Table:
    """Give what each group of kinks does alone."""

    def cell(change: Change, undecided: bool) -> str:
        return "undecided" if undecided else change.text(audit.rounding)

    rows = tuple(
        (
            e.group,
            " to ".join(e.weights),
            *(cell(c, e.status == "undecided") for c in (e.total, e.largest)),
            e.moves_most or None,
        )
        for e in audit.effects[:ROWS]
    )
    return Table(
        "What each group of kinks does alone: its weights from one end to the other (computed)",
        ("group of kinks", "weights", "whole gradient", "most moved", "parameter"),
        rows,
        _rest(len(audit.effects), audit.effects_note),
    )


def _branches(audit: Audit) -> Table:
    """Give the other programs that are active at tied guards."""
    rows = []
    for b in audit.branches:
        joins = None if b.joins is None else "equal" if b.joins else "another"
        change = b.total.text(audit.rounding) if b.total else None
        rows.append(
            (
                ", ".join(s.place for s in b.sources) or None,
                ", ".join(b.outcomes) or None,
                joins,
                b.value_gap,
                change,
                b.status,
            )
        )
    return Table(
        "Other branches that are active, as an `if` on data ties",
        ("line", "outcome", "value", "value gap", "gradient change", "status"),
        tuple(rows),
    )
