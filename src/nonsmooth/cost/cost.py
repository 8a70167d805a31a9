"""What a program costs, and what its derivatives cost: operations counted from shapes, against the proved bound."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from nonsmooth.cost.bound import NAMED, dictionary_bound
from nonsmooth.cost.measured import Measured, measure_cost
from nonsmooth.cost.model import CostModel, as_model
from nonsmooth.cost.own_backward import OwnCost, compare_backward
from nonsmooth.cost.parts import Part, ScalarUse, add_steps, part_of, parts_by, scalars_of
from nonsmooth.cost.sweeps import CountedStep, count_steps
from nonsmooth.cost.ways import Derivative, count_derivatives, count_ties, read_directions
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.errors import ResultError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.kinks.kink import find_kinks
from nonsmooth.program import Program, references
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document

__all__ = ["Cost", "count_cost"]


@dataclass(frozen=True)
class Cost(Reported):
    """The cost of a program and of its derivatives.

    Attributes:
        evaluation: cost(P), in units of the model.
        backprop: cost(backprop(P)): P and its scalar reverse sweep.
        bound: w_b of the scalar operations that P uses: backprop <= bound x evaluation. Status: proved.
        holds: whether backprop <= bound x evaluation for P and for every part of it, as the theorem says; decided exactly.
        entries: the numbers of the point.
        kinks: the active kinks at the point.
        derivatives: the ways to differentiate, with what they count.
        operations, lines, modules: the parts of the program, the dearest first.
        scalars: the dictionary that the program uses.
        dictionaries: w_b of the named dictionaries under the model.
        uncounted: steps whose operation has no scalar program, by name and line; every figure leaves them out.
        own: what the framework's own backward runs, beside the scalar sweep; None where it was not asked for.
        measured: times and memory; None where they were not asked for.
    """

    format_version: int
    function: str
    framework: str
    framework_version: str
    model: str
    prices: Mapping[str, float]
    entries: int
    steps: int
    kinks: int
    evaluation: float
    backprop: float
    bound: float
    holds: bool
    derivatives: tuple[Derivative, ...]
    operations: tuple[Part, ...]
    lines: tuple[Part, ...]
    modules: tuple[Part, ...]
    scalars: tuple[ScalarUse, ...]
    dictionaries: Mapping[str, float]
    uncounted: tuple[str, ...] = ()
    own: OwnCost | None = None
    measured: Measured | None = None

    @property
    def ratio(self) -> float | None:
        """The overhead of backpropagation: cost(backprop(P)) / cost(P); None where P counts nothing."""
        return self.backprop / self.evaluation if self.evaluation else None

    def document(self) -> Document:
        """Lay the cost out for reading."""
        from nonsmooth.cost.document import cost_document

        return cost_document(self)

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the parts of the program and the ways to differentiate, as PNG."""
        from nonsmooth.cost.picture import draw_cost

        draw_cost(Path(path), self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder; give what was written."""
        from nonsmooth.report.files import write_report

        return write_report(folder, self, {"cost": self.draw})


def count_cost(
    f: Callable[..., Any] | Program,
    x: Any,
    *data: Any,
    model: CostModel | Mapping[str, float] | str | None = None,
    directions: int | Sequence[int] | None = None,
    own: bool = True,
    measure: bool = False,
) -> Cost:
    """Count what a program and its derivatives cost, and give the bound that the theorem proves.

        cost(P) = sum of c_g over its scalar operations,    cost(backprop(P)) <= w_b cost(P),
        w_b = max over the g used of [c_g + D_g + 2 max(c_add, c_mul) p_g] / c_g

    The counts follow from shapes: of the program, of its scalar reverse sweep, of forward sweeps with p directions, of
    lexicographic derivatives. Status: counts and bound are exact under the model (the bound is proved), times are measured.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point; data: what is not differentiated.
        model: what a scalar operation costs: "unit" (each 1, the default), "latency", or a mapping such as {"exp": 10}.
        directions: of the forward sweeps; by default 1 and as many as the point has numbers.
        own: whether the framework's own backward is run and counted too.
        measure: whether times and peak memory are measured: some seconds.

    Returns:
        The cost; `print(cost)`, `cost.to_json()`, `cost.save(folder)`.

    Raises:
        ResultError: the function is not scalar. UsageError: an impossible model or number of directions.

    >>> import torch
    >>> import nonsmooth as ns
    >>> W, x = torch.ones(4, 3), torch.ones(3)
    >>> cost = ns.cost(lambda x: torch.relu(W @ x).sum(), x)
    >>> cost.evaluation, cost.backprop, cost.bound, cost.holds
    (27, 81, 5.0, True)

    The 27 are 12 products and 8 additions of W x, 4 relus and 3 additions; of the reverse sweep each product costs two,
    as W does not move, each relu two, each addition two.

    Source: BaurStrassen1983, BolteBoustanyPauwelsPesquet2023; derived, docs/theory/cost.md.
    """
    prices = as_model(model)
    program, framework = as_program(f, x, data)
    entries = sum(framework.numpy(leaf).size for leaf in framework.flatten(x)[0])
    counts = read_directions(directions, entries)
    table = find_kinks(program, x, *data)
    program = table.program
    _check_scalar(program)
    steps = count_steps(program)
    known = [s for s in steps if s.tally is not None]
    sweep = add_steps(known).sweep()
    return Cost(
        **_described(program, framework, prices),
        **_in_parts(known, prices),
        entries=entries,
        kinks=table.count,
        derivatives=tuple(count_derivatives(sweep, prices, counts, entries, count_ties(table, known))),
        scalars=scalars_of(sweep, prices),
        dictionaries={name: dictionary_bound(name, prices) for name in NAMED},
        uncounted=tuple(dict.fromkeys(str(s.step) for s in steps if s.tally is None)),
        own=compare_backward(program, x, data, steps, prices) if own else None,
        measured=measure_cost(f, program, x, data) if measure else None,
    )


def _described(program: Program, framework: Framework, prices: CostModel) -> dict[str, Any]:
    """Say what is counted, and under which prices."""
    return {
        "format_version": FORMAT_VERSION,
        "function": str(getattr(program.function, "__qualname__", type(program.function).__name__)),
        "framework": framework.name,
        "framework_version": str(getattr(framework, "version", "")),
        "model": prices.name,
        "prices": dict(prices.prices),
        "steps": len(program.steps),
    }


def _in_parts(steps: list[CountedStep], prices: CostModel) -> dict[str, Any]:
    """Count the program and its reverse sweep, in all and in parts, and hold them against the bound."""
    whole = part_of("P", steps, prices)
    parts = {
        "operations": parts_by(lambda s: s.step.operation.name, steps, prices),
        "lines": parts_by(lambda s: str(s.step.source or "an unknown line"), steps, prices),
        "modules": parts_by(lambda s: s.step.module or "(outside modules)", steps, prices),
    }
    holds = all(part.holds for part in (whole, *chain.from_iterable(parts.values())))
    return {"evaluation": whole.evaluation, "backprop": whole.backprop, "bound": whole.bound, "holds": holds, **parts}


def _check_scalar(program: Program) -> None:
    """Refuse a program that returns anything but one number."""
    shapes = [program.values[r.value].shape for r in references(program.result)]
    if len(shapes) != 1 or any(n != 1 for n in shapes[0]):
        raise ResultError(
            f"cost: the reverse sweep starts from one number; the function returns {len(shapes)} array(s) of shape "
            f"{shapes}. Reduce it (`.sum()`, `.mean()`)."
        )
