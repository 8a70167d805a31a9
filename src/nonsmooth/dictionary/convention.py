"""Conventions: which slope each framework picks at each kink, measured and shipped as data with its versions.

`tools/conventions/measure.py` measures them again; a test compares torch's with the table at every run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from nonsmooth.dictionary.operation import Rule

__all__ = ["FRAMEWORKS", "Convention", "Row", "load_convention"]

FRAMEWORKS = ("torch", "jax", "tensorflow")
"""The frameworks whose conventions are shipped."""

_RELATED = {
    "clamp": ("clip", "clamp"),
    "clamp_min_tensor": ("clip_tensor", "clamp_tensor"),
    "clamp_max_tensor": ("clip_tensor", "clamp_tensor"),
    "clamp_tensor": ("clip_tensor", "clamp_tensor"),
    "threshold": ("threshold", "relu"),
    "max_pool": ("max_pool2d",),
    "adaptive_max_pool": ("adaptive_max_pool2d", "max_pool2d"),
    "kthvalue": ("kthvalue", "sort"),
    "norm": ("norm", "vector_norm"),
    "vector_norm": ("vector_norm", "norm"),
    "dist": ("norm",),
    "cdist": ("cdist", "norm"),
    "pdist": ("pdist", "cdist", "norm"),
    "hardtanh": ("hardtanh", "relu6"),
}
"""Under which rows of the tables a record finds what a framework does, where the names differ."""


@dataclass(frozen=True)
class Row:
    """One measured kink: the call, the point, the gradient that came out, and the rule read off it."""

    operation: str
    kink: str
    kind: str
    call: str
    point: Any
    gradient: Any
    rule: Rule | None


@dataclass(frozen=True)
class Convention:
    """The measured rules of one framework at one version."""

    framework: str
    version: str
    rows: tuple[Row, ...]

    def rule(self, operation: str, kinks: tuple[str, ...], kink: str) -> Rule | None:
        """Give the rule at one kink of an operation, or None where no one rule is known.

        Args:
            operation: the name of the record.
            kinks: the names of its kinks, in the order of its breakpoints.
            kink: the one that is asked for.

        >>> load_convention("jax").rule("abs", ("0",), "0")
        1.0
        >>> load_convention("torch").rule("clamp", ("lower bound", "upper bound"), "upper bound")
        0.0
        """
        rows = self.rows_of(operation)
        if kink == "zero entry":
            rows = [r for r in rows if r.kind == "switch" and "p = 1" in r.kink]
        elif kink == "zero vector":
            rows = [r for r in rows if r.kind == "cone"]
        elif kink == "tie":
            rows = [r for r in rows if "empty interior" not in r.kink]
        else:
            rows = [r for r in rows if r.kind == "switch" and "=" not in r.kink and "smooth" not in r.kink]
            place = kinks.index(kink)
            rows = rows[place : place + 1] if len(kinks) > 1 else rows
        rules = {str(r.rule): r.rule for r in rows}
        if operation == "hypot" and rows and rows[0].rule == "raw":
            return [g[0] if isinstance(g, list) else g for g in rows[0].gradient]
        found = (
            next(iter(rules.values()))
            if len(rules) == 1
            else (rows[0].rule if rows and kink == "zero vector" else None)
        )
        return None if found in ("raw", "native") else found

    def rows_of(self, operation: str) -> list[Row]:
        """Give the rows of an operation, under its name here or in the framework."""
        for name in _RELATED.get(operation, (operation,)):
            rows = [r for r in self.rows if r.operation == name]
            if rows:
                return rows
        return []


@cache
def load_convention(framework: str) -> Convention:
    """Load the table of a framework.

    >>> load_convention("tensorflow").version[:2]
    '2.'
    """
    text = resources.files("nonsmooth.dictionary").joinpath("conventions", f"{framework}.json").read_text("utf-8")
    table = json.loads(text)
    names = Row.__dataclass_fields__
    rows = tuple(Row(**{k: v for k, v in row.items() if k in names}) for row in table["rows"])
    return Convention(table["framework"], table["version"], rows)
