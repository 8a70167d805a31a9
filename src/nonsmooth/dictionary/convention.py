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
    "dist": ("norm", "vector_norm"),
    "cdist": ("cdist", "norm", "vector_norm"),
    "pdist": ("pdist", "cdist", "norm", "vector_norm"),
    "complex_abs": ("hypot",),
    "hardtanh": ("hardtanh", "relu6"),
}
"""Under which rows of the tables a record finds what a framework does, where the names differ."""

_BOUNDS = {"clamp_min_tensor": "lower bound", "clamp_max_tensor": "upper bound"}
"""Which of the rows of a clamp a record with one bound reads."""

_SECOND = {("minimum", "tie"), ("fmin", "tie"), ("clamp_max_tensor", "tie"), ("clamp_tensor", "upper bound")}
"""Kinks of two operands whose right-hand piece is the second one; the rules of the tables are shares of the first."""

_CONE_KINKS = {"zero vector", "zero entry"}


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

    def rule(self, operation: str, kinks: tuple[str, ...], kink: str, exponent: float = 2.0) -> Rule | None:
        """Give the rule at one kink of an operation, or None where no one rule is known.

        Args:
            operation: the name of the record.
            kinks: the names of its kinks, in the order of its breakpoints.
            kink: the one that is asked for.
            exponent: the p of a norm.

        >>> load_convention("jax").rule("abs", ("0",), "0")
        1.0
        >>> load_convention("torch").rule("clamp", ("lower bound", "upper bound"), "upper bound")
        0.0
        """
        found: list[Row] = []
        for name in _RELATED.get(operation, (operation,)):
            rows = [r for r in self.rows if r.operation == name]
            found = found or _matching(rows, operation, kinks, kink, exponent)
        rules = {str(r.rule): r.rule for r in found}
        if len(rules) != 1:
            return None
        (rule,) = rules.values()
        if rule == "raw" and operation == "hypot":
            return [g[0] if isinstance(g, list) else g for g in found[0].gradient]
        if (operation, kink) in _SECOND and isinstance(rule, float):
            return 1 - rule
        return None if rule in ("raw", "native") else rule


def _matching(rows: list[Row], operation: str, kinks: tuple[str, ...], kink: str, exponent: float) -> list[Row]:
    """Choose the rows that were measured at a kink."""
    if kink == "zero entry":
        return [r for r in rows if r.kind == "switch" and "p = 1" in r.kink]
    if kink == "zero vector":
        p = f"p = {exponent if exponent in (1, 2, 3, float('inf')) else 3.0:g}"
        return [r for r in rows if r.kind == "cone" and (p in r.kink or "p = " not in r.kink)]
    if kink == "tie" and _CONE_KINKS.intersection(kinks):
        return [r for r in rows if r.kind == "order"]
    wanted = _BOUNDS.get(operation, kink)
    exact = [r for r in rows if r.kink == wanted]
    if exact or operation in _BOUNDS:
        return exact
    if kink == "tie":
        return [r for r in rows if "empty interior" not in r.kink]
    rows = [r for r in rows if r.kind == "switch" and "=" not in r.kink and "smooth" not in r.kink]
    place = kinks.index(kink)
    return rows[place : place + 1] if len(kinks) > 1 else rows


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
