"""Following a direction: the program is evaluated so that every kink, and every `if` on data, goes where it leads.

Where an `if` ties, the direction may lead into the other branch: the function is captured again with that outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary import Kind, Select
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.framework import Evaluation, Framework, Turn
from nonsmooth.kinks.resolution import ROUNDING, Reason, follow_directions
from nonsmooth.program import Program

__all__ = ["Way", "bad_points", "follow", "join_branches", "severed_reasons"]

Outcomes: TypeAlias = dict[tuple[int, int], int]

_NONE: Mapping[tuple[int, int], int | None] = MappingProxyType({})

TURNS = 64
"""How many tied outcomes are followed, one after the other, before it is given up."""

FLIPS = 16
"""How many tied outcomes are flipped to see whether the branches join."""


@dataclass(frozen=True)
class Way:
    """A function at a point, with the directions that decide."""

    framework: Framework
    x: Any
    data: tuple[Any, ...]
    directions: Sequence[Any]
    deciding: int = 1


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
        )
        turned = [t for t in evaluation.turns if t.turned and t.key not in kept]
        if not turned:
            return evaluation
        assert evaluation.program is not None
        outcomes = _outcomes(evaluation.turns, turned[0], kept)
        program = way.framework.force(evaluation.program, way.x, way.data, outcomes)
    raise NoDerivative(f"more than {TURNS} tied branches were followed one after the other without an end.")


def _outcomes(turns: list[Turn], last: Turn, kept: Mapping[tuple[int, int], int | None]) -> Outcomes:
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
        if isinstance(step.operation, Select):
            text = f"{step}: its branches differ in value at {count} tie(s): the program jumps"
            found.append(Reason("jump", text, step.source))
        else:
            rule = "jump" if step.operation.kind is Kind.JUMP else "singular"
            what = "jumps" if rule == "jump" else "is not Lipschitz"
            text = f"{step} {what} at {count} element(s): {', '.join(step.operation.margins(met.call))}"
            found.append(Reason(rule, text, step.source))
    return found


def severed_reasons(way: Way, program: Program) -> list[Reason]:
    """List where the result depends on the point through what carries no derivative."""
    found = way.framework.severed(program, way.x, way.data)
    return [Reason(s.rule, s.message, s.step.source) for s in found]


def join_branches(way: Way, evaluation: Evaluation, witnesses: int) -> list[Reason]:
    """Say why the branches of tied guards do not join, if they do not.

    Each tied outcome is flipped alone. The other branch must have the same value, and a derivative that differs by a
    multiple of that of what is compared (which `witnesses` directions tell), or not at all where the comparison has the
    derivative zero or is an equality.
    """
    turns = evaluation.turns
    flips = [(turn, other, moved) for turn in turns for other, moved in turn.others]
    if len(flips) > FLIPS:
        step = turns[FLIPS - 1].step
        return [
            Reason(
                "branches",
                f"{step}: more than {FLIPS} outcomes of tied branches would have to be compared",
                step.source,
            )
        ]
    reasons = []
    for turn, other, moved in flips:
        kept = {turn.key: other}
        try:
            flipped = follow(way, evaluation.program, _outcomes(turns, turn, kept), kept)
            text = _apart(way, evaluation, flipped, turn, moved, witnesses)
        except Exception as error:  # the user's own function may fail where it never runs by itself
            text = f"the other branch fails: {error}"
        if text:
            reasons.append(Reason("jump", f"an `if` on data ties ({turn.step.where}): {text}", turn.step.source))
    return reasons


def _apart(way: Way, one: Evaluation, other: Evaluation, turn: Turn, moved: tuple[float, ...], witnesses: int) -> str:
    """Say how two branches differ that should join, or nothing."""
    value, value_there = _flat(way, one.result), _flat(way, other.result)
    if value.shape != value_there.shape:
        return "its branches give results of different shapes"
    eps = ROUNDING * float(np.finfo(value.dtype).eps)
    jumps, noises = [], []
    for k in range(witnesses):
        here, there = _flat(way, way.framework.push(one, k)), _flat(way, way.framework.push(other, k))
        size = max(e.tangents.scale(e.program.result, k) for e in (one, other) if e.program is not None)
        jumps.append(here - there)
        noises.append(eps * max(size, float(np.max(np.abs(here), initial=0.0))))
    size = max(float(np.max(np.abs(value), initial=0.0)), *(n / eps for n in noises))
    if float(np.max(np.abs(value - value_there), initial=0.0)) > 64 * eps * size:
        return "its branches differ in value: the program jumps"
    if all(np.all(np.abs(j) <= n) for j, n in zip(jumps, noises, strict=True)):
        return ""
    if turn.empty:
        return "it is an equality, whose piece has no interior"
    noise = eps * turn.scale
    if turn.choice is None or abs(moved[0]) <= noise:
        return "what it compares has the derivative zero, and its branches have different derivatives"
    if witnesses > 1:
        cross = np.abs(jumps[0] * moved[1] - jumps[1] * moved[0])
        error = noises[0] * abs(moved[1]) + noises[1] * abs(moved[0]) + noise * (np.abs(jumps[0]) + np.abs(jumps[1]))
        if bool(np.any(cross > error)):
            return "its branches do not join nearby: their derivatives differ along the tie"
    return ""


def _flat(way: Way, tree: Any) -> np.ndarray[Any, Any]:
    """Lay the numbers of a result in a row."""
    return np.concatenate([np.ravel(a) for a in way.framework.arrays(tree)])
