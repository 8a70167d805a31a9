"""What can be said of a program before any evaluation, so that an evaluation only looks it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nonsmooth.dictionary import Kind, Operation, Select, Singularity, Switch
from nonsmooth.dictionary.order import Extremum
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.frameworks.replay.unselected import unselected_uses
from nonsmooth.program import Program, Step, references

__all__ = ["MOVES", "Plan", "is_comparison", "is_followed", "is_still", "moving_values", "passes_ties", "plan_of"]


@dataclass
class Plan:
    """What can be said of a program before any evaluation, so that evaluation only looks it up.

    `special` are the steps whose kinks and bad points can be met, `predicates` those whose values are followed to either
    side of the ties behind a `where`, `compared` what can tie behind the guards.
    """

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
    moving = moving_values(program)
    predicates = _predicates(program, selects)
    orders = [s for s in program.nonsmooth if isinstance(s.operation, Extremum)]
    dead = _moved_from(program, orders)
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
    compared = frozenset(c for g in program.guards for c in g.comparisons if _reads(program.steps[c], moving))
    plan = Plan(
        special=frozenset(s.index for s in program.nonsmooth if isinstance(s.operation, Select) or _reads(s, moving)),
        predicates=predicates,
        dead=dead,
        unselected=unselected_uses(program),
        release={k: tuple(v) for k, v in release.items()},
        checks={g.step: g for g in program.guards},
        compared=compared,
        looked_at=compared | {k for k in predicates if _reads(program.steps[k], moving)},
    )
    program.__dict__["_plan"] = plan
    return plan


MOVES = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze expand permute transpose t select slice narrow contiguous clone "
    "split chunk unbind flip roll copy cast broadcast_in_dim expand_dims rev".split()
)
"""Operations through which the mask of dead entries moves as the entries do."""


def _moved_from(program: Program, readers: list[Step]) -> frozenset[int]:
    """Collect the steps that the first operands of some steps come from: through moves of entries down to a switch."""
    found: set[int] = set()
    stack = [(r.value, s.index) for s in readers for r in references(s.operands[:1])]
    while stack:
        value, before = stack.pop()
        step = _writer(program, value, before)
        if step is None or step.index in found:
            continue
        if isinstance(step.operation, Switch) or step.operation.name in MOVES:
            found.add(step.index)
            reads = references(step.args[:1]) if step.operation.name in MOVES else ()
            stack += [(r.value, step.index) for r in reads]
    return frozenset(found)


def _predicates(program: Program, selects: list[Step]) -> frozenset[int]:
    """Collect the discrete steps that predicates come from, back to the comparisons of what moves."""
    found: set[int] = set()
    moving = moving_values(program)
    stack = [(r.value, s.index) for s in selects for r in references(s.operands[:1])]
    while stack:
        value, before = stack.pop()
        step = _writer(program, value, before)
        if step is None or step.index in found:
            continue
        leaf = is_comparison(step) and _reads(step, moving)
        if leaf or is_followed(program, step) or program.values[value].dtype == "bool":
            found.add(step.index)
            reads = () if leaf else references((step.args, dict(step.kwargs)))
            stack += [(r.value, step.index) for r in reads if r.value not in moving]
    return frozenset(found)


def _writer(program: Program, value: int, before: int) -> Step | None:
    """Find the last step before another that sets or changes a value."""
    found = [s for s in program.steps[:before] if value in s.results or value in s.mutates]
    return found[-1] if found else None


# --- what moves, and what is piecewise constant -----------------------------------------------------------------------


def is_still(operation: Operation, dtype: str) -> bool:
    """Tell a result that is piecewise constant whatever it is computed from: no real number, or that of a jump in steps.

    So is what is computed from piecewise constant values alone. None of these ties by itself: what ties are the discrete
    steps behind it, a comparison, a cast, a search or a jump of values that do move.
    """
    if dtype.startswith("complex"):
        return operation.name == "create"
    steps = isinstance(operation, Singularity) and operation.piecewise_constant
    return steps or operation.name == "create" or not dtype.startswith(("float", "bfloat"))


def moving_values(program: Program) -> set[int]:
    """Give the values that move with the point: what no step `is_still` computed from those that move."""
    known = program.__dict__.get("_moving")
    if known is not None:
        return known  # type: ignore[no-any-return]
    moving = program.__dict__["_moving"] = set(program.inputs)
    for step in program.steps:
        chosen = step.operands[:1] if isinstance(step.operation, Select) else ()
        reads = [r for r in references((step.args, dict(step.kwargs))) if r not in chosen]
        if any(r.value in moving for r in reads):
            shown = {v for m in step.mutates for v in program.shared.get(m, ())}
            for value in {*step.results, *step.mutates, *shown} - {None}:
                if not is_still(step.operation, program.values[value].dtype):  # type: ignore[index]
                    moving.add(value)
    return moving


def _reads(step: Step, values: set[int]) -> bool:
    """Tell a step that reads one of some values."""
    return any(r.value in values for r in references((step.args, dict(step.kwargs))))


def is_comparison(step: Step) -> bool:
    """Tell the comparisons, by whatever framework."""
    return step.label.rstrip("_") in SIDES


LOGIC = frozenset(
    "logic compare view reshape expand unsqueeze squeeze select slice transpose permute clone copy cast".split()
)
"""Records that pass the ties of booleans on."""

ENTRYWISE = frozenset(
    "add sub rsub mul div true_divide floor_divide neg abs sign square pow integer_pow clamp clamp_min clamp_max clip max "
    "min maximum minimum logical_not bitwise_not not logical_and logical_or logical_xor bitwise_and bitwise_or "
    "bitwise_xor and or xor convert_element_type broadcast_in_dim expand_dims _to_copy to long int float double bool "
    "stop_gradient detach".split()
)
"""Operators that pass the ties of one discrete value on, entry by entry, the others being constant."""


def passes_ties(label: str, operation: Operation, reads: Sequence[str], result: str) -> bool:
    """Tell a discrete step whose value on either side of the ties behind it is that of what it reads there.

    `reads` are the types of those of its arguments that depend on the point, `result` that of its result. Of booleans any
    number may tie, for either value is met; of numbers one, since of two that tie at once only some pairs are met.
    """
    name, record = label.rstrip("_"), operation.name
    if operation.kind.has_weights or operation.kind in (Kind.SINGULAR, Kind.OPAQUE):
        return False
    if {*reads, result} == {"bool"}:
        return name != "reduce_xor" and (record in LOGIC or name in SIDES)
    return len(reads) == 1 and (record in LOGIC - {"logic"} or name in SIDES or name in ENTRYWISE)


def is_followed(program: Program, step: Step) -> bool:
    """Tell a discrete step of a program that `passes_ties` on."""
    moving, values = moving_values(program), program.values
    reads = {r.value for r in references((step.args, dict(step.kwargs)))}
    first = step.results[0] if step.results else None
    if first is None or first in moving or step.mutates or reads & moving:
        return False
    types = [values[v].dtype for v in sorted(reads) if values[v].depends_on_point]
    return passes_ties(step.label, step.operation, types, values[first].dtype)
