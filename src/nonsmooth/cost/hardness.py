"""Where Clarke's set can no longer be listed: hard instances that grow, and what `clarke` and `subgradient` say of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from nonsmooth.cost.checks import framework_of, positive_number, whole_number, whole_numbers
from nonsmooth.cost.formulas import ENUMERATED, random_formula, satisfying_assignment
from nonsmooth.cost.hard_instances import ReluNetwork, network_of_formula, random_network, relu_network
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.derivatives.backprop import capture
from nonsmooth.derivatives.clarke import Clarke, clarke
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.program import Program
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table

__all__ = ["Hardness", "HardnessRow", "hardness_table"]

VARIABLES = (3, 4, 6, 10)
"""The numbers of variables of the formulas by default."""

WIDTHS = (2, 3, 4, 6, 8)
"""The inputs p of random networks by default; they have two hidden layers of 2 p and p relus."""

RATIO = 4.25
"""Clauses per variable: near this ratio about half of large random formulas with three literals a clause can be satisfied."""

NEAR = 1e-6
"""How far rounding may take an element from a gradient, whose entries are integers."""


@dataclass(frozen=True)
class HardnessRow:
    """One instance at 0.

    Attributes:
        instance: the kind, "formula" or "random".
        inputs: the coordinates p of the point.
        clauses: of the formula; None for random networks.
        relus: how many; all are at their kink.
        satisfiable: whether an assignment satisfies the formula, by trying all; None where they are too many.
        exact: whether `clarke` says that its set is dF(0).
        cells: the cells and sampled limits that it met.
        two: whether its inner set has two different elements: two Clarke subgradients found.
        second: whether the last unit vector, which is one exactly if the formula can be satisfied, is in dF(0) by `clarke`;
            None where it does not say.
        certificate: the status of `subgradient`.
        ratio: the counted operations of evaluation and reverse sweep over those of the evaluation.
        clarke_seconds, subgradient_seconds: how long they took once (measured).
    """

    instance: str
    inputs: int
    clauses: int | None
    relus: int
    satisfiable: bool | None
    exact: bool
    cells: int
    two: bool
    second: bool | None
    certificate: str
    ratio: float
    clarke_seconds: float
    subgradient_seconds: float

    @property
    def right(self) -> bool | None:
        """Whether what `clarke` says of the formula is so; None where it says nothing, or where nobody knows.

        An exact set, or two elements of an inner one, decide the formula: two elements exactly if it can be satisfied.
        """
        if self.satisfiable is None:
            return None
        said = [self.second, self.two if self.exact or self.two else None]
        given = [answer == self.satisfiable for answer in said if answer is not None]
        return all(given) if given else None


@dataclass(frozen=True)
class Hardness(Reported):
    """Instances that grow, and what was said of each."""

    WIDTH: ClassVar[int] = 130

    format_version: int
    limit: int
    seed: int
    rows: tuple[HardnessRow, ...]

    @property
    def wrong(self) -> tuple[HardnessRow, ...]:
        """The instances of which something wrong was said: none, if the library is right."""
        return tuple(r for r in self.rows if r.right is False)

    def document(self) -> Document:
        """Lay the instances out for reading."""
        formulas = [r for r in self.rows if r.instance == "formula"]
        decided = [r for r in formulas if r.right is not None]
        open_ = [r for r in self.rows if not r.exact]
        story = (
            f"clarke says that its set is dF(0) for {len(self.rows) - len(open_)} of {len(self.rows)} instances, "
            f"and that dF(0) is between two sets for {len(open_)}.\n"
            f"Of {len(formulas)} formulas its answer decides {len(decided)}, "
            f"{sum(bool(r.right) for r in decided)} of them rightly (compared with all assignments).\n"
            f"subgradient certifies one element for {sum(r.certificate == 'computed' for r in self.rows)} of {len(self.rows)}; "
            f"evaluation and reverse sweep count at most {max((r.ratio for r in self.rows), default=1.0):.2f} evaluations."
        )
        columns = ("inputs", "relus", "exact", "cells", "two", "subgradient", "ratio", "clarke s", "subgradient s")
        return Document(
            "Two Clarke subgradients of relu networks at 0, entries in {-1, 0, 1}",
            (
                story,
                Table(
                    "Formulas: a second subgradient decides whether they can be satisfied",
                    ("variables", "clauses", "satisfiable", "second", *columns[1:]),
                    tuple((r.inputs - 1, r.clauses, r.satisfiable, r.second, *_cells(r)) for r in formulas),
                    "second: whether the last unit vector is in dF(0), by clarke (- is undecided);\nit is if and only if the "
                    "formula can be satisfied.",
                ),
                Table(
                    "Random networks with two hidden layers",
                    columns,
                    tuple((r.inputs, *_cells(r)) for r in self.rows if r.instance == "random"),
                    "two: two different elements were found. ratio: counted. Seconds: measured once.",
                ),
                f"limit={self.limit}, seed {self.seed}.",
            ),
        )


def _cells(row: HardnessRow) -> tuple[Any, ...]:
    """Give the columns that both tables have."""
    return (
        row.relus,
        row.exact,
        row.cells,
        row.two,
        row.certificate,
        round(row.ratio, 2),
        round(row.clarke_seconds, 2),
        round(row.subgradient_seconds, 3),
    )


def hardness_table(
    like: Any,
    *,
    variables: Sequence[int] = VARIABLES,
    widths: Sequence[int] = WIDTHS,
    ratio: float = RATIO,
    limit: int = 256,
    seed: int = 0,
    progress: Report | None = None,
) -> Hardness:
    """Ask `clarke` and `subgradient` about hard instances that grow, and compare with all assignments where these can be tried.

    Formulas are random with three literals a clause; see `network_of_formula`. Status: `computed`.

    Args:
        like: an array of the framework and floating type in which the instances are made.
        variables: how many the formulas have, 3 or more each.
        widths: the inputs p of random networks with hidden layers of 2 p and p relus.
        ratio: clauses per variable, as far as there are different ones.
        limit: how many cells `clarke` looks for.
        seed: of the instances and the directions.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The result; `print(result)`, `result.to_json()`.

    Raises:
        UsageError: numbers that mean nothing, or `like` is no array of a framework that is served.

    >>> import torch
    >>> found = hardness_table(torch.zeros((), dtype=torch.float64), variables=[3], widths=[2])
    >>> [(r.instance, r.satisfiable, r.exact, r.two, r.second, r.right, r.certificate) for r in found.rows]
    [('formula', False, True, False, False, True, 'computed'), ('random', None, True, True, None, None, 'computed')]

    Source: BolteBoustanyPauwelsPesquet2023, derived, docs/theory/hard_instances.md.
    """
    framework_of("hardness_table", "like", like)
    variables = whole_numbers("hardness_table", "variables", variables, least=3, count=0)
    widths = whole_numbers("hardness_table", "widths", widths, count=0)
    ratio = positive_number("hardness_table", "ratio", ratio)
    limit = whole_number("hardness_table", "limit", limit)
    seed = whole_number("hardness_table", "seed", seed, least=0)
    report = progress or silent
    jobs = [partial(_formula_row, like, n, ratio, limit, seed) for n in variables]
    jobs += [partial(_random_row, like, p, limit, seed) for p in widths]
    rows = []
    for done, job in enumerate(jobs):
        report("instances", done, len(jobs))
        rows.append(job())
    report("instances", len(jobs), len(jobs))
    return Hardness(FORMAT_VERSION, limit, seed, tuple(rows))


def _formula_row(like: Any, n: int, ratio: float, limit: int, seed: int) -> HardnessRow:
    """Ask about a random formula of n variables."""
    most = 8 * n * (n - 1) * (n - 2) // 6
    formula = random_formula(n, min(most, max(1, round(min(ratio * n, most)))), seed=seed)
    satisfiable = None if n > ENUMERATED else satisfying_assignment(formula) is not None
    network = network_of_formula(formula)
    return _row("formula", network, like, limit, seed, clauses=len(formula), satisfiable=satisfiable)


def _random_row(like: Any, p: int, limit: int, seed: int) -> HardnessRow:
    """Ask about a random network in p coordinates."""
    return _row("random", random_network((p, 2 * p, p), seed=seed), like, limit, seed)


def _row(
    instance: str,
    network: ReluNetwork,
    like: Any,
    limit: int,
    seed: int,
    clauses: int | None = None,
    satisfiable: bool | None = None,
) -> HardnessRow:
    """Capture an instance at 0, and ask."""
    origin, weights = network.origin(like), network.weights(like)
    program = capture(relu_network, origin, *weights)
    found, clarke_seconds = _timed(lambda: clarke(program, origin, *weights, limit=limit, seed=seed))
    one, subgradient_seconds = _timed(lambda: subgradient(program, origin, *weights, seed=seed))
    return HardnessRow(
        instance=instance,
        inputs=network.inputs,
        clauses=clauses,
        relus=network.relus,
        satisfiable=satisfiable,
        exact=found.exact,
        cells=found.cells,
        two=_has_two(found),
        second=None if clauses is None else found.contains(np.eye(network.inputs)[-1], NEAR),
        certificate=one.certificate.status,
        ratio=_ratio(program),
        clarke_seconds=clarke_seconds,
        subgradient_seconds=subgradient_seconds,
    )


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Run something, and tell how long it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _has_two(found: Clarke) -> bool:
    """Tell whether two different Clarke subgradients were found."""
    if found.inner is None:
        return False
    lower, upper = found.inner.box()
    return bool(np.any(upper - lower > NEAR))


def _ratio(program: Program) -> float:
    """Count evaluation and reverse sweep over the evaluation, at prices of 1."""
    evaluation, backprop = Counter[str](), Counter[str]()
    for step in count_steps(program):
        assert step.sweep is not None
        evaluation += step.sweep.evaluation
        backprop += step.sweep.backprop
    return backprop.total() / max(evaluation.total(), 1)
