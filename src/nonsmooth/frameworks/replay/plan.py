"""What can be said of a program before any evaluation, so that an evaluation only looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nonsmooth.dictionary import Select, Switch
from nonsmooth.dictionary.order import Extremum
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.frameworks.replay.unselected import unselected_uses
from nonsmooth.program import Program, Step, references

__all__ = ["MOVES", "Plan", "moving_values", "plan_of"]


@dataclass
class Plan:
    """What can be said of a program before any evaluation, so that evaluation only looks it up."""

    special: frozenset[int]
    predicates: frozenset[int]
    dead: frozenset[int]
    unselected: Mapping[int, tuple[Any, ...]]
    release: Mapping[int, tuple[int, ...]]
    checks: Mapping[int, Any]
    compared: frozenset[int]
    looked_at: frozenset[int]


def plan_of(program: Program) -> Plan:
    """Analyse a program once."""
    cached = program.__dict__.get("_plan")
    if cached is not None:
        return cached  # type: ignore[no-any-return]
    selects = [s for s in program.nonsmooth if isinstance(s.operation, Select)]
    predicates = _slice_back(program, selects, boolean=True)
    orders = [s for s in program.nonsmooth if isinstance(s.operation, Extremum)]
    dead = _slice_back(program, orders, boolean=False)
    kept = {r.value for s in program.steps if s.index in dead | predicates for r in references(s.operands)}
    kept |= {r.value for r in references(program.result)}
    last: dict[int, int] = {}
    for step in program.steps:
        for ref in references((step.args, dict(step.kwargs))):
            last[ref.value] = step.index
        for value in step.results:
            if value is not None:
                last[value] = step.index
    release: dict[int, list[int]] = {}
    for value, index in last.items():
        if value not in kept:
            release.setdefault(index, []).append(value)
    compared = frozenset(c for g in program.guards for c in g.comparisons)
    plan = Plan(
        special=frozenset(s.index for s in program.nonsmooth),
        predicates=predicates,
        dead=dead,
        unselected=unselected_uses(program),
        release={k: tuple(v) for k, v in release.items()},
        checks={g.step: g for g in program.guards},
        compared=compared,
        looked_at=compared | predicates,
    )
    program.__dict__["_plan"] = plan
    return plan


MOVES = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze expand permute transpose t select slice narrow contiguous clone "
    "split chunk unbind flip roll copy cast broadcast_in_dim expand_dims rev".split()
)
"""Operations through which the mask of dead entries moves as the entries do."""


def _slice_back(program: Program, readers: list[Step], *, boolean: bool) -> frozenset[int]:
    """Collect the steps that the first operands of some steps come from.

    Through boolean steps to the comparisons behind a predicate, or through moves of entries down to a switch.
    """
    found: set[int] = set()
    stack = [(r.value, s.index) for s in readers for r in references(s.operands[:1])]
    while stack:
        value, before = stack.pop()
        step = _writer(program, value, before)
        if step is None or step.index in found:
            continue
        name = step.operation.name
        if boolean:
            if program.values[value].dtype == "bool":
                found.add(step.index)
                reads = (
                    ()
                    if name == "compare" or step.label.rstrip("_") in SIDES
                    else references((step.args, dict(step.kwargs)))
                )
                stack += [(r.value, step.index) for r in reads]
        elif isinstance(step.operation, Switch) or name in MOVES:
            found.add(step.index)
            reads = references(step.args[:1]) if name in MOVES else ()
            stack += [(r.value, step.index) for r in reads]
    return frozenset(found)


def _writer(program: Program, value: int, before: int) -> Step | None:
    """Find the last step before another that sets or changes a value."""
    found = [s for s in program.steps[:before] if value in s.results or value in s.mutates]
    return found[-1] if found else None


def moving_values(program: Program) -> set[int]:
    """Give the values that move with the point: real ones computed from real ones, but for their shape alone."""
    known = program.__dict__.get("_moving")
    if known is not None:
        return known  # type: ignore[no-any-return]
    moving = program.__dict__["_moving"] = set(program.inputs)
    for step in program.steps:
        chosen = step.operands[:1] if isinstance(step.operation, Select) else ()
        reads = [r for r in references((step.args, dict(step.kwargs))) if r not in chosen]
        if step.operation.name != "create" and any(r.value in moving for r in reads):
            shown = {v for m in step.mutates for v in program.shared.get(m, ())}
            for value in {*step.results, *step.mutates, *shown} - {None}:
                if program.values[value].dtype.startswith(("float", "bfloat", "complex")):  # type: ignore[index]
                    moving.add(value)
    return moving
