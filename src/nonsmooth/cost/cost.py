"""What a program costs, and what its derivatives cost: operations counted from shapes, against the proved bound."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.cost.bound import NAMED, bound_of, dictionary_bound
from nonsmooth.cost.measured import Measured, measure_cost
from nonsmooth.cost.model import CostModel, as_model
from nonsmooth.cost.own_backward import OwnCost, compare_backward
from nonsmooth.cost.sweeps import CountedStep, count_steps
from nonsmooth.cost.tally import Sweep, Tally
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.dictionary import Kind
from nonsmooth.errors import ResultError, UsageError
from nonsmooth.kinks.kink import Kinks, find_kinks
from nonsmooth.program import Program, references
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document

__all__ = ["Cost", "Derivative", "Part", "ScalarUse", "count_cost"]

ROUNDED = 1e-12
"""What rounding may add to a product of a bound, which is a quotient of prices, and a count."""


@dataclass(frozen=True)
class Part:
    """What one part of the program costs: all steps of one operation, of one line of source, or of one module.

    `bound` is w_b of the scalar operations of the part; its counted ratio cannot exceed it.
    """

    name: str
    steps: int
    evaluation: float
    backprop: float
    bound: float

    @property
    def ratio(self) -> float | None:
        """The overhead of the part; None where it evaluates nothing."""
        return self.backprop / self.evaluation if self.evaluation else None


@dataclass(frozen=True)
class Derivative:
    """What one way to differentiate costs, evaluation included: `ratio` is relative to evaluating alone.

    `kind` is gradient, subgradient, directional or lexicographic; `directions` how many it carries, 0 for a gradient.
    """

    kind: str
    directions: int
    what: str
    operations: float
    ratio: float | None


@dataclass(frozen=True)
class ScalarUse:
    """A scalar operation of the program: how often it runs, what one costs, and the ratio that it cannot exceed."""

    operation: str
    times: int
    price: float
    bound: float


@dataclass(frozen=True)
class Cost(Reported):
    """The cost of a program and of its derivatives.

    Attributes:
        evaluation: cost(P), in units of the model.
        backprop: cost(backprop(P)): P and its scalar reverse sweep.
        bound: w_b of the scalar operations that P uses: backprop <= bound x evaluation. Status: proved.
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

    @property
    def holds(self) -> bool:
        """Whether the theorem's inequality holds for the counts, as it must: part by part and in all, up to rounding."""
        parts: tuple[Cost | Part, ...] = (self, *self.operations, *self.lines, *self.modules)
        return all(p.backprop <= p.bound * p.evaluation * (1 + ROUNDED) for p in parts)

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
    counts = _directions(directions, entries)
    table = find_kinks(program, x, *data)
    program = table.program
    _check_scalar(program)
    steps = count_steps(program)
    known = [s for s in steps if s.tally is not None]
    sweep = _sum(known)
    evaluation, reverse = prices.total(sweep.evaluation), prices.total(sweep.backprop)
    return Cost(
        format_version=FORMAT_VERSION,
        function=str(getattr(program.function, "__qualname__", type(program.function).__name__)),
        framework=framework.name,
        framework_version=str(getattr(framework, "version", "")),
        model=prices.name,
        prices=dict(prices.prices),
        entries=entries,
        steps=len(program.steps),
        kinks=table.count,
        evaluation=evaluation,
        backprop=reverse,
        bound=_bound(known, prices),
        derivatives=tuple(_derivatives(sweep, prices, counts, entries, _ties(table, known))),
        operations=_parts(known, lambda s: s.step.operation.name, prices),
        lines=_parts(known, lambda s: str(s.step.source or "an unknown line"), prices),
        modules=_parts(known, lambda s: s.step.module or "(outside modules)", prices),
        scalars=_scalars(sweep, prices),
        dictionaries={name: dictionary_bound(name, prices) for name in NAMED},
        uncounted=tuple(dict.fromkeys(str(s.step) for s in steps if s.tally is None)),
        own=compare_backward(program, x, data, steps, prices) if own else None,
        measured=measure_cost(f, program, x, data) if measure else None,
    )


def _directions(given: int | Sequence[int] | None, entries: int) -> tuple[int, ...]:
    """Read the numbers of directions."""
    if given is None:
        return tuple(dict.fromkeys((1, max(entries, 1))))
    counts = tuple(given) if isinstance(given, tuple | list) else (given,)
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"cost: directions are positive whole numbers; found {count!r}.")
    return tuple(dict.fromkeys(counts))


def _check_scalar(program: Program) -> None:
    """Refuse a program that returns anything but one number."""
    shapes = [program.values[r.value].shape for r in references(program.result)]
    if len(shapes) != 1 or any(n != 1 for n in shapes[0]):
        raise ResultError(
            f"cost: the reverse sweep starts from one number; the function returns {len(shapes)} array(s) of shape "
            f"{shapes}. Reduce it (`.sum()`, `.mean()`)."
        )


def _sum(steps: Iterable[CountedStep]) -> Sweep:
    """Count all sweeps over some steps."""
    whole = Tally()
    for step in steps:
        assert step.tally is not None
        whole.scalars.update(step.tally.scalars)
        whole.wholes += step.tally.wholes
    return whole.sweep()


def _bound(steps: Iterable[CountedStep], prices: CostModel) -> float:
    """Give w_b of what some steps use."""
    tallies = [s.tally for s in steps if s.tally is not None]
    names = {name for t in tallies for name, _ in t.scalars}
    return bound_of(names, [w for t in tallies for w in t.wholes], prices)


def _parts(steps: list[CountedStep], key: Callable[[CountedStep], str], prices: CostModel) -> tuple[Part, ...]:
    """Add the steps up by a name."""
    groups: dict[str, list[CountedStep]] = {}
    for step in steps:
        groups.setdefault(key(step), []).append(step)
    found = []
    for name, members in groups.items():
        sweep = _sum(members)
        costs = prices.total(sweep.evaluation), prices.total(sweep.backprop)
        found.append(Part(name, len(members), *costs, _bound(members, prices)))
    return tuple(sorted(found, key=lambda p: -p.backprop))


def _scalars(sweep: Sweep, prices: CostModel) -> tuple[ScalarUse, ...]:
    """List the scalar operations of the program, the most frequent first."""
    return tuple(
        ScalarUse(name, times, prices.price(name), dictionary_bound([name], prices))
        for name, times in sweep.evaluation.most_common()
        if times
    )


def _ties(table: Kinks, steps: list[CountedStep]) -> int:
    """Bound what decides the active kinks along one direction.

    A comparison for each kink of a switch, all those of an order operation, a norm of the tangent for a norm at 0.
    """
    sweeps = {s.step.index: s.sweep.evaluation for s in steps if s.sweep is not None}
    compared = {k: counts["compare"] for k, counts in sweeps.items()}
    whole = {k: counts.total() for k, counts in sweeps.items()}
    active: Counter[int] = Counter()
    for row in table:
        active[row.step] += row.count
    kinds = {row.step: row.kind for row in table}
    compared = {k: whole[k] if kinds[k] in (Kind.CONE, Kind.SPECTRAL) else c for k, c in compared.items() if k in kinds}
    return sum(n if kinds[k] == Kind.SWITCH else max(n, compared.get(k, 0)) for k, n in active.items() if n)


def _derivatives(
    sweep: Sweep, prices: CostModel, directions: tuple[int, ...], entries: int, ties: int
) -> Iterator[Derivative]:
    """Count the ways to differentiate.

    Where comparisons tie, each direction compares tangents once for each of them; a lexicographic derivative does so
    with one direction after the other until one decides: p times at most. A subgradient with its certificate is one
    tangent beside the value, and the reverse sweep that it selects; without an active kink it is backpropagation.
    """
    value = prices.total(sweep.evaluation)

    def priced(kind: str, p: int, what: str, counts: Counter[str]) -> Derivative:
        cost = prices.total(counts)
        return Derivative(kind, p, what, cost, cost / value if value else None)

    yield priced("gradient", 0, "gradient by a reverse sweep", sweep.backprop)
    tangent = sweep.forward(1) + Counter(compare=ties) if ties else sweep.evaluation
    yield priced("subgradient", 1, "subgradient with certificate", tangent + sweep.pull)
    for p in directions:
        what = f"{p:,} directional derivative{'s' if p > 1 else ''}{_why(p, entries)}"
        yield priced("directional", p, what, sweep.forward(p) + Counter(compare=p * ties))
    for p in directions:
        if p > 1:
            compared = sweep.forward(p) + Counter(compare=p * ties)
            what = f"lexicographic derivative, {p:,} directions{_why(p, entries)}"
            yield priced("lexicographic", p, what, compared)


def _why(directions: int, entries: int) -> str:
    """Say when the directions are those of a gradient by forward sweeps."""
    return " (a gradient)" if directions == entries and entries > 1 else ""
