"""The measured conventions side by side: what each framework returns at every kink, and at whole formulas."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nonsmooth.dictionary.convention import FRAMEWORKS
from nonsmooth.errors import UsageError
from nonsmooth.report.table import Document, Table

__all__ = ["Agreement", "agreement", "conventions_document", "measured"]

TOLERANCE = 1e-6
"""Gradients that differ by less agree: some operations exist in single precision only."""


def measured() -> dict[str, Mapping[str, Any]]:
    """Read the tables of all frameworks: versions, rows and formulas, as they were measured.

    >>> sorted(measured())
    ['jax', 'tensorflow', 'torch']
    """
    folder = resources.files("nonsmooth.dictionary").joinpath("conventions")
    return {name: json.loads(folder.joinpath(f"{name}.json").read_text("utf-8")) for name in FRAMEWORKS}


@dataclass(frozen=True)
class Agreement:
    """On how many operations and formulas frameworks agree.

    Attributes:
        operations: how many operations at least two frameworks have.
        differing: those on which they give different gradients at some kink.
        formulas: how many formulas were measured, each at 0.
        formulas_differing: those at which the frameworks give different numbers.
        right: for each framework, at how many formulas it gives the derivative, or an element of the Clarke set.
    """

    operations: int
    differing: tuple[str, ...]
    formulas: int
    formulas_differing: int
    right: Mapping[str, int]

    def __str__(self) -> str:
        """Say it in a sentence."""
        right = ", ".join(f"{name} at {count}" for name, count in self.right.items())
        return (
            f"The frameworks differ on {len(self.differing)} of {self.operations} operations that at least two of them "
            f"have, and at {self.formulas_differing} of {self.formulas} formulas, where the derivative is right in {right}."
        )


def agreement() -> Agreement:
    """Count on how many operations and formulas the measured gradients of the frameworks agree.

    >>> counts = agreement()
    >>> "abs" in counts.differing, "relu" in counts.differing
    (True, False)
    """
    tables = measured()
    rows = _joined([table["rows"] for table in tables.values()], None)
    formulas = _joined([table["formulas"] for table in tables.values()], None)
    verdicts: dict[str, list[bool]] = {}
    for (operation, _), side in rows.items():
        agree = _agree(side)
        verdicts.setdefault(operation, []).extend([] if agree is None else [agree])
    several = {operation: found for operation, found in verdicts.items() if found}
    return Agreement(
        operations=len(several),
        differing=tuple(sorted(operation for operation, found in several.items() if not all(found))),
        formulas=len(formulas),
        formulas_differing=sum(_agree(side) is False for side in formulas.values()),
        right={name: sum(map(_is_right, table["formulas"])) for name, table in tables.items()},
    )


def conventions_document(operation: str | None = None, *, differing: bool = False) -> Document:
    r"""Lay the measured conventions side by side, by operation and kink, then the formulas with the true derivative.

    Args:
        operation: only this one, and how each framework writes it.
        differing: only the kinks and formulas at which the frameworks do not agree.

    Raises:
        UsageError: it was not measured in any framework.

    >>> print(*conventions_document("abs").parts[1].rows, sep="\n")
    ('abs', '0', 'switch', '0 (weight 0.5)', '1 (weight 1)', '0 (weight 0.5)', False)
    """
    tables = measured()
    versions = tuple(f"{name} {table['version']}" for name, table in tables.items())
    rules = _joined([table["rows"] for table in tables.values()], operation)
    formulas = _joined([table["formulas"] for table in tables.values()], operation)
    if not rules and not formulas:
        names = sorted({row["operation"] for table in tables.values() for row in table["rows"]})
        raise UsageError(f"no framework was measured for {operation!r}; measured are: {', '.join(names)}.")
    if differing:
        rules, formulas = ({k: side for k, side in t.items() if _agree(side) is False} for t in (rules, formulas))
    parts = [
        Table(
            "What each framework returns at a kink (measured)",
            ("operation", "kink", "kind", *versions, "agree"),
            tuple((*key, _first(side, "kind"), *map(_cell, side), _agree(side)) for key, side in rules.items()),
            "the gradient there, in brackets the rule read off it; weight: of the right-hand slope; -: not offered.",
        ),
        Table(
            "Formulas at 0 (measured)",
            ("function", "formula", "truth", *versions, "agree"),
            tuple(
                (*key, _numbers(_first(side, "truth")), *map(_cell, side), _agree(side))
                for key, side in formulas.items()
            ),
            "truth: the derivative, or the ends of the Clarke set, of the function that the formula writes.",
        ),
    ]
    if operation is not None:
        both = [(kink, side) for t in (rules, formulas) for (_, kink), side in t.items()]
        calls = tuple((kink, *(None if row is None else row["call"] for row in side)) for kink, side in both)
        parts.append(Table("How each framework writes it", ("kink", *versions), calls))
    libraries = [f"{name} {version}" for table in tables.values() for name, version in table["libraries"].items()]
    said = f"Measured in {', '.join(versions)} ({', '.join(libraries)}), on the CPU, in double precision."
    return Document("Conventions at kinks", (f"{said} {agreement()}", *(table for table in parts if table.rows)))


def _agree(rows: list[Mapping[str, Any] | None]) -> bool | None:
    """Tell whether the frameworks that have a row return the same there; None if fewer than two have it."""
    found = [None if row["gradient"] is None else list(_flat(row["gradient"])) for row in rows if row is not None]
    return all(_close(found[0], other) for other in found[1:]) if len(found) > 1 else None


def _close(first: list[Any] | None, second: list[Any] | None) -> bool:
    """Compare two gradients entry by entry; a word such as nan equals itself."""
    if first is None or second is None:
        return first is second
    return all(a == b or _near(a, b) for a, b in zip(first, second, strict=True))


def _near(a: Any, b: Any) -> bool:
    """Compare two numbers."""
    return (
        not isinstance(a, str) and not isinstance(b, str) and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    )


def _is_right(row: Mapping[str, Any]) -> bool:
    """Tell whether a framework gives the derivative of a formula, or an element of its Clarke set."""
    ends = row["truth"] if isinstance(row["truth"], list) else [row["truth"], row["truth"]]
    return all(
        not isinstance(value, str) and ends[0] - TOLERANCE <= value <= ends[1] + TOLERANCE
        for value in _flat(row["gradient"])
    )


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
