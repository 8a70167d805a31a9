"""Summaries of a program and of its kinks: by step, by line of source, by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nonsmooth.audit.result import HISTOGRAM_EDGES, QUANTILES, KinkSummary, OperationUse, Place, ProgramSummary
from nonsmooth.dictionary import Kind
from nonsmooth.kinks.kink import KinkRow, Kinks
from nonsmooth.program import Program, Source

__all__ = ["by_line", "by_module", "place_name", "summarise_kinks", "summarise_operations", "summarise_program"]


def summarise_program(program: Program, names: Iterable[str]) -> ProgramSummary:
    """Count the steps by kind, and repeat what the proof of capture found."""
    counts = Counter(step.operation.kind for step in program.steps)
    sizes = [int(np.prod(program.values[v].shape, dtype=np.int64)) for v in program.inputs]
    proof = program.proof
    compared = "nothing"
    if proof is not None:
        places = ["the point"] * (not program.options.get("forced"))
        places += [f"{proof.nearby} random nearby point(s)"] * (proof.nearby > 0)
        compared = "values and native gradients at " + " and ".join(places)
    return ProgramSummary(
        steps=len(program.steps),
        nonsmooth=len(program.nonsmooth),
        kinds={kind.value: counts[kind] for kind in Kind if counts[kind]},
        parameters=dict(zip(names, sizes, strict=True)),
        guards=len(program.guards),
        value_error=None if proof is None else proof.value_error,
        gradient_error=None if proof is None else proof.gradient_error,
        tolerance=None if proof is None else proof.tolerance,
        compared=compared,
        status="not proved" if proof is None else proof.status,
    )


def summarise_operations(program: Program) -> tuple[OperationUse, ...]:
    """Count the steps of every operation of the dictionary, kinks first."""
    counts = Counter(step.operation for step in program.steps)
    order = sorted(counts, key=lambda o: (o.kind.is_smooth, list(Kind).index(o.kind), o.name))
    return tuple(OperationUse(o.name, o.kind.value, counts[o], tuple(getattr(o, "kinks", ()))) for o in order)


def summarise_kinks(table: Kinks) -> tuple[KinkSummary, ...]:
    """Summarise every row of the table of kinks."""
    jumps = {row.step: np.asarray(row.mask) for row in table.rows if row.kind == Kind.JUMP.value}
    rows = zip(table.rows, _labels(table.rows), strict=True)
    return tuple(_summary(row, label, table.tol, jumps.get(row.step)) for row, label in rows)


def _labels(rows: tuple[KinkRow, ...]) -> list[str]:
    """Name the rows by module or line, and operation; by kink and step where that is not unique."""
    names = []
    for row in rows:
        place = row.module or (row.source.place if row.source else "")
        names.append(f"{place} · {row.operation}" if place else row.operation)
    kinks = {name: {r.kink for n, r in zip(names, rows, strict=True) if n == name} for name in names}
    names = [f"{n}, {r.kink}" if len(kinks[n]) > 1 else n for n, r in zip(names, rows, strict=True)]
    counts = Counter(names)
    return [f"{n} (step {r.step})" if counts[n] > 1 else n for n, r in zip(names, rows, strict=True)]


def _summary(row: KinkRow, label: str, tol: float, jump: Any) -> KinkSummary:
    """Summarise one row; margins that are not finite are left out, and ties of the step that jump are not harmless."""
    margins, mask = np.asarray(row.margins, dtype=np.float64), np.asarray(row.mask)
    tied = margins <= tol
    idle = tied & ~mask if jump is None or jump.shape != mask.shape else tied & ~mask & ~jump
    away = margins[~tied & ~mask & np.isfinite(margins)]
    quantiles = np.quantile(away, QUANTILES) if away.size else []
    bins = np.clip(np.searchsorted(HISTOGRAM_EDGES, away, side="right") - 1, 0, len(HISTOGRAM_EDGES) - 2)
    return KinkSummary(
        label=label,
        step=row.step,
        operation=row.operation,
        kind=row.kind,
        kink=row.kink,
        module=row.module,
        source=row.source,
        active=row.count,
        elements=row.elements,
        harmless=int(idle.sum()),
        can_matter=row.can_matter if row.count else 0,
        margin=float(away.min()) if away.size else None,
        quantiles={str(q): float(v) for q, v in zip(QUANTILES, quantiles, strict=bool(away.size))},
        histogram=tuple(int(n) for n in np.bincount(bins, minlength=len(HISTOGRAM_EDGES) - 1)),
    )


def by_line(rows: tuple[KinkSummary, ...]) -> tuple[Place, ...]:
    """Add up the rows of each line of source; of each module where the lines are the framework's own."""
    return _grouped(rows, lambda r: (r.source.file, r.source.line) if r.source else ("", r.module), _line_name)


def by_module(rows: tuple[KinkSummary, ...]) -> tuple[Place, ...]:
    """Add up the rows of each module."""
    return _grouped(rows, lambda r: r.module, lambda r: (r.module or "(outside modules)", ""))


def _line_name(row: KinkSummary) -> tuple[str, str]:
    """Give the place and the text of a line."""
    return place_name(row.source, row.module)


def place_name(source: Source | None, module: str) -> tuple[str, str]:
    """Give the place and the text of a line, or the module where no line of the user's is known.

    >>> place_name(None, "layers.0"), place_name(None, "")
    (('module layers.0', ''), ('an unknown line', ''))
    """
    if source is not None:
        return source.place, source.text
    return (f"module {module}" if module else "an unknown line"), ""


def _grouped(
    rows: tuple[KinkSummary, ...], key: Callable[[KinkSummary], Any], name: Callable[[KinkSummary], tuple[str, str]]
) -> tuple[Place, ...]:
    """Add up the rows with the same key, in the order in which they are met."""
    groups: dict[Any, list[KinkSummary]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    places = []
    for group in groups.values():
        known = [r.can_matter for r in group if r.can_matter is not None]
        margins = [r.margin for r in group if r.margin is not None]
        places.append(
            Place(
                *name(group[0]),
                steps=len({r.step for r in group}),
                active=sum(r.active for r in group),
                elements=sum(r.elements for r in group),
                can_matter=sum(known) if known else None,
                margin=min(margins, default=None),
            )
        )
    return tuple(places)
