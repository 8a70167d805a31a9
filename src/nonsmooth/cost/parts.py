"""The parts of a program with what they cost: the steps of one operation, line or module, and its scalar operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nonsmooth.cost.bound import dictionary_bound, exact_bound
from nonsmooth.cost.model import CostModel, rounded
from nonsmooth.cost.sweeps import CountedStep
from nonsmooth.cost.tally import Sweep, Tally

__all__ = ["Part", "ScalarUse", "add_steps", "part_of", "parts_by", "scalars_of"]


@dataclass(frozen=True)
class Part:
    """What one part of the program costs: all steps of one operation, of one line of source, or of one module.

    `bound` is w_b of the scalar operations of the part; `holds` tells whether backprop <= bound x evaluation, as it must:
    decided in fractions, where the three numbers are rounded.
    """

    name: str
    steps: int
    evaluation: float
    backprop: float
    bound: float
    holds: bool

    @property
    def ratio(self) -> float | None:
        """The overhead of the part; None where it evaluates nothing."""
        return self.backprop / self.evaluation if self.evaluation else None


@dataclass(frozen=True)
class ScalarUse:
    """A scalar operation of the program: how often it runs, what one costs, and the ratio that it cannot exceed."""

    operation: str
    times: int
    price: float
    bound: float


def add_steps(steps: Iterable[CountedStep]) -> Tally:
    """Add the tallies of some steps up."""
    whole = Tally()
    for step in steps:
        if step.tally is not None:
            whole.scalars.update(step.tally.scalars)
            whole.wholes += step.tally.wholes
    return whole


def part_of(name: str, steps: list[CountedStep], prices: CostModel) -> Part:
    """Give some steps as one part."""
    tally = add_steps(steps)
    sweep, bound = tally.sweep(), exact_bound({scalar for scalar, _ in tally.scalars}, tally.wholes, prices)
    evaluation, backprop = prices.exact(sweep.evaluation), prices.exact(sweep.backprop)
    numbers = prices.total(sweep.evaluation), prices.total(sweep.backprop), rounded(bound)
    return Part(name, len(steps), *numbers, holds=backprop <= bound * evaluation)


def parts_by(key: Callable[[CountedStep], str], steps: list[CountedStep], prices: CostModel) -> tuple[Part, ...]:
    """Give the parts of one name each, the dearest first."""
    groups: dict[str, list[CountedStep]] = {}
    for step in steps:
        groups.setdefault(key(step), []).append(step)
    found = [part_of(name, members, prices) for name, members in groups.items()]
    return tuple(sorted(found, key=lambda p: -p.backprop))


def scalars_of(sweep: Sweep, prices: CostModel) -> tuple[ScalarUse, ...]:
    """List the scalar operations of the program, the most frequent first."""
    return tuple(
        ScalarUse(name, times, prices.price(name), dictionary_bound([name], prices))
        for name, times in sweep.evaluation.most_common()
        if times
    )
