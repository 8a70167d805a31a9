"""The measured conventions side by side: what each framework returns at every kink, and at whole formulas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from nonsmooth.dictionary.convention import FRAMEWORKS
from nonsmooth.errors import UsageError
from nonsmooth.report.table import Document, Table

__all__ = ["conventions_document", "measured"]


def measured() -> dict[str, Mapping[str, Any]]:
    """Read the tables of all frameworks: versions, rows and formulas, as they were measured.

    >>> sorted(measured())
    ['jax', 'tensorflow', 'torch']
    """
    folder = resources.files("nonsmooth.dictionary").joinpath("conventions")
    return {name: json.loads(folder.joinpath(f"{name}.json").read_text("utf-8")) for name in FRAMEWORKS}


def conventions_document(operation: str | None = None) -> Document:
    r"""Lay the measured conventions side by side, by operation and kink, then the formulas with the true derivative.

    Args:
        operation: only this one.

    Raises:
        UsageError: it was not measured in any framework.

    >>> print(*conventions_document("abs").parts[0].rows, sep="\n")
    ('abs', '0', 'switch', '0 (weight 0.5)', '1 (weight 1)', '0 (weight 0.5)')
    """
    tables = measured()
    versions = tuple(f"{name} {table['version']}" for name, table in tables.items())
    rules = _joined([table["rows"] for table in tables.values()], operation)
    formulas = _joined([table.get("formulas", ()) for table in tables.values()], operation)
    if not rules and not formulas:
        names = sorted({row["operation"] for table in tables.values() for row in table["rows"]})
        raise UsageError(f"no framework was measured for {operation!r}; measured are: {', '.join(names)}.")
    parts = (
        Table(
            "What each framework returns at a kink (measured)",
            ("operation", "kink", "kind", *versions),
            tuple((*key, _first(rows, "kind"), *map(_cell, rows)) for key, rows in rules.items()),
            "the gradient there, in brackets the rule read off it; weight: of the right-hand slope; -: not offered.",
        ),
        Table(
            "Formulas at 0 (measured)",
            ("function", "formula", "truth", *versions),
            tuple((*key, _numbers(_first(rows, "truth")), *map(_cell, rows)) for key, rows in formulas.items()),
            "truth: the derivative, or the ends of the Clarke set, of the function that the formula writes.",
        ),
    )
    return Document("Conventions at kinks", tuple(table for table in parts if table.rows))


def _joined(tables: list[Any], operation: str | None) -> dict[tuple[str, str], list[Mapping[str, Any] | None]]:
    """Lay the rows of all tables with the same operation and kink side by side."""
    joined: dict[tuple[str, str], list[Mapping[str, Any] | None]] = {}
    for place, rows in enumerate(tables):
        for row in rows:
            if operation in (None, row["operation"]):
                side = joined.setdefault((row["operation"], row["kink"]), [None] * len(tables))
                side[place] = row
    return joined


def _first(rows: list[Mapping[str, Any] | None], field: str) -> Any:
    """Give a field of the first framework that has the row."""
    return next(row[field] for row in rows if row is not None)


def _cell(row: Mapping[str, Any] | None) -> str | None:
    """Print what came out, and the rule."""
    if row is None:
        return None
    rule = row.get("rule")
    word = f"weight {rule:g}" if isinstance(rule, int | float) else rule if rule not in ("raw", "native") else None
    return f"{_numbers(row['gradient'])} ({word})" if isinstance(word, str) else _numbers(row["gradient"])


def _numbers(value: Any) -> str:
    """Print the entries of nested lists shortly: at most four.

    >>> _numbers([[0.5], [0.25, "nan"]]), _numbers([1.0] * 9), _numbers(None)
    ('0.5, 0.25, nan', '1, 1, 1, 1, ...', 'refused')
    """
    if value is None:
        return "refused"
    flat = list(_flat(value))
    shown = [f"{v:.4g}" if isinstance(v, int | float) else str(v) for v in flat[:4]]
    return ", ".join((*shown, *["..."] * (len(flat) > 4)))


def _flat(value: Any) -> Any:
    """Walk nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value
