"""Relu networks as programs of scalars, and formulas clause by clause: what hard instances are compared with.

Source: BolteBoustanyPauwelsPesquet2023, Karp1972.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["is_satisfiable", "is_satisfied", "network_value", "steps_of"]

Matrices = Sequence[Sequence[Sequence[int]]]


def is_satisfied(formula: Sequence[Sequence[int]], assignment: Sequence[bool]) -> bool:
    """Tell whether every clause has a literal that is true."""
    return all(any(assignment[abs(i) - 1] == (i > 0) for i in clause) for clause in formula)


def is_satisfiable(formula: Sequence[Sequence[int]]) -> bool:
    """Try all assignments."""
    n = max(abs(i) for clause in formula for i in clause)
    return any(is_satisfied(formula, a) for a in itertools.product((False, True), repeat=n))


def network_value(formula: Sequence[Sequence[int]], x: Sequence[Any]) -> Any:
    """Give relu(sum_k min(c_k, w) - (m - 1) w), w = relu(u), c_k the sum of the positive parts of the literals of a clause."""
    w, total = max(x[-1], 0), 0
    for clause in formula:
        total += min(sum(max(x[abs(i) - 1] if i > 0 else -x[abs(i) - 1], 0) for i in set(clause)), w)
    return max(total - (len(formula) - 1) * w, 0)


def steps_of(matrices: Matrices) -> list[tuple[Any, ...]]:
    """Write M_L relu(.. relu(M_1 x)) as a program of scalars, see `tests.references.field`."""
    steps: list[tuple[Any, ...]] = [("input", i) for i in range(len(matrices[0][0]))]
    layer = list(range(len(steps)))
    for depth, M in enumerate(matrices):
        rows = []
        for row in M:
            steps.append(("linear", 0, *((int(c), a) for c, a in zip(row, layer, strict=True) if c)))
            if depth < len(matrices) - 1:
                steps.append(("relu", len(steps) - 1))
            rows.append(len(steps) - 1)
        layer = rows
    return steps
