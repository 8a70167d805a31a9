"""The ways to differentiate a program, with what each counts: sweeps in reverse, forward sweeps with directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nonsmooth.cost.model import CostModel
from nonsmooth.cost.sweeps import CountedStep
from nonsmooth.cost.tally import Sweep
from nonsmooth.dictionary import Kind
from nonsmooth.errors import UsageError
from nonsmooth.kinks.kink import Kinks

__all__ = ["Derivative", "count_derivatives", "count_ties", "read_directions"]


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


def read_directions(given: int | Sequence[int] | None, entries: int) -> tuple[int, ...]:
    """Read the numbers of directions."""
    if given is None:
        return tuple(dict.fromkeys((1, max(entries, 1))))
    counts = tuple(given) if isinstance(given, tuple | list) else (given,)
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"cost: directions are positive whole numbers; found {count!r}.")
    return tuple(dict.fromkeys(counts))


def count_ties(table: Kinks, steps: list[CountedStep]) -> int:
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


def count_derivatives(
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
