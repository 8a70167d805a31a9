"""Conventions: which slope each framework picks at each kink, measured and shipped as data with its versions.

`tools/conventions/measure.py` measures them again; tests compare every framework that is installed with its table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from nonsmooth.dictionary.operation import Rule

__all__ = ["FRAMEWORKS", "Convention", "Row", "load_convention", "names_of_rows"]

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
    **{f"adaptive_max_pool{d}d": (f"adaptive_max_pool{d}d", f"max_pool{d}d") for d in (1, 2, 3)},
    "median_dim": ("median_dim", "median"),
    "kthvalue": ("kthvalue", "sort"),
    "norm": ("norm", "vector_norm"),
    "vector_norm": ("vector_norm", "norm"),
    "dist": ("dist", "norm", "vector_norm"),
    "cdist": ("cdist", "norm", "vector_norm"),
    "pdist": ("pdist", "cdist", "norm", "vector_norm"),
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

        A number is the weight of the right-hand slope at a switch, and at the zero vector of a norm the sum of the entries
        of the dual vector, which are equal; "zero" says that the derivative is 0 there, "nan" that it is no number. At
        ties "even", "first" and "last" choose or share, and "all" gives each tied entry the whole.

        Args:
            operation: the name of the record, or of a row where the tables tell more than records do (`max_pool3d`).
            kinks: the names of its kinks, in the order of its breakpoints.
            kink: the one that is asked for.
            exponent: the p of a norm.

        >>> load_convention("jax").rule("abs", ("0",), "0")
        1.0
        >>> load_convention("torch").rule("clamp", ("lower bound", "upper bound"), "upper bound")
        0.0
        >>> load_convention("jax").rule("hypot", ("zero vector",), "zero vector")
        1.0
        """
        found: list[Row] = []
        for name in names_of_rows(operation):
            rows = [r for r in self.rows if r.operation == name]
            found = found or _matching(rows, operation, kinks, kink, exponent)
        rules = {str(r.rule): r.rule for r in found}
        if len(rules) != 1:
            return None
        (rule,) = rules.values()
        if (operation, kink) in _SECOND and isinstance(rule, float):
            return 1 - rule
        return None if rule in ("raw", "native") else rule

    def has(self, operation: str) -> bool:
        """Tell whether the framework has a function of its own for a record; where not, the nearest one is read.

        >>> load_convention("tensorflow").has("max_pool"), load_convention("tensorflow").has("cummax")
        (True, False)
        """
        return any(row.operation == names_of_rows(operation)[0] for row in self.rows)


def names_of_rows(operation: str) -> tuple[str, ...]:
    """Give the rows in which a record finds what a framework does: its own first, then those of near functions.

    >>> names_of_rows("kthvalue"), names_of_rows("relu")
    (('kthvalue', 'sort'), ('relu',))
    """
    return _RELATED.get(operation, (operation,))


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
