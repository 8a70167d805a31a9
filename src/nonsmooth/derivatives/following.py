"""Following a direction: the program is evaluated so that every kink, and every `if` on data, goes where it leads.

Where an `if` ties, the direction may lead into the other branch: the function is captured again with that outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary import Kind, Select, Singularity
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.framework import Evaluation, Framework, Turn
from nonsmooth.kinks.resolution import Reason, follow_directions
from nonsmooth.program import Program

__all__ = ["Outcomes", "Way", "bad_points", "follow", "outcomes_upto", "severed_reasons"]

Outcomes: TypeAlias = dict[tuple[int, int], int]

_NONE: Mapping[tuple[int, int], int | None] = MappingProxyType({})

TURNS = 64
"""How many tied outcomes are followed, one after the other, before it is given up."""


@dataclass(frozen=True)
class Way:
    """A function at a point, with the directions that decide."""

    framework: Framework
    x: Any
    data: tuple[Any, ...]
    directions: Sequence[Any]
    deciding: int = 1
    wide: bool = False


def follow(
    way: Way, program: Program, outcomes: Outcomes | None = None, kept: Mapping[tuple[int, int], int | None] = _NONE
) -> Evaluation:
    """Evaluate a program along directions, turning into the branches to which they lead.

    `outcomes` are forced from the start; the tied comparisons in `kept` stay as they are told to be there (None: as
    they come out by themselves), whatever the directions say.

    Raises:
        NoDerivative: the turns do not come to an end.
    """
    if outcomes is not None:
        program = way.framework.force(program, way.x, way.data, outcomes)
    for _ in range(TURNS):
        evaluation = way.framework.evaluate(
            program,
            way.x,
            way.data,
            select=follow_directions(way.deciding),
            directions=way.directions,
            deciding=way.deciding,
            wide=way.wide,
        )
        turned = [t for t in evaluation.turns if t.turned and t.key not in kept]
        if not turned:
            return evaluation
        assert evaluation.program is not None
        outcomes = outcomes_upto(evaluation.turns, turned[0], kept)
        program = way.framework.force(evaluation.program, way.x, way.data, outcomes)
    raise NoDerivative(f"more than {TURNS} tied branches were followed one after the other without an end.")


def outcomes_upto(turns: list[Turn], last: Turn, kept: Mapping[tuple[int, int], int | None]) -> Outcomes:
    """Give the outcomes of the tied comparisons up to one of them, as the directions decide them."""
    upto = turns[: turns.index(last) + 1]
    found = {t.key: kept.get(t.key, t.choice) for t in upto}
    return {key: choice for key, choice in found.items() if choice is not None}


def bad_points(framework: Framework, evaluation: Evaluation) -> list[Reason]:
    """List the steps on which the result depends that are at a jump or a singular point."""
    assert evaluation.program is not None
    reached = framework.reached(evaluation.program) if evaluation.bad else set()
    found = []
    for met in evaluation.bad:
        step = met.step
        if step.index not in reached:
            continue
        count = int(np.sum(framework.numpy(met.mask)))
        if met.near:
            text = f"{step} misses a kink at {count} element(s) by no more than rounding"
            found.append(Reason("near tie", text, step.source))
        elif isinstance(step.operation, Select):
            text = f"{step}: its branches differ in value at {count} tie(s): the program jumps"
            found.append(Reason("jump", text, step.source))
        else:
            assert isinstance(step.operation, Singularity)
            rule = "jump" if step.operation.kind is Kind.JUMP else "singular"
            what = "jumps" if rule == "jump" else "is not Lipschitz"
            text = f"{step} {what} at {count} element(s): {', '.join(step.operation.margins(met.call))}"
            found.append(Reason(rule, text, step.source))
    return found


def severed_reasons(way: Way, program: Program) -> list[Reason]:
    """List where the result depends on the point through what carries no derivative."""
    found = way.framework.severed(program, way.x, way.data)
    return [Reason(s.rule, s.message, s.step.source) for s in found]
