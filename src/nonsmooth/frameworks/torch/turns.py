"""Turns: where a direction takes the tied comparisons behind the guards of a program."""

from __future__ import annotations

from typing import Any

import torch

from nonsmooth.frameworks.framework import ROUNDING, GuardTie, Turn
from nonsmooth.frameworks.torch.arguments import map_tensors
from nonsmooth.frameworks.torch.forcing import RANKING, choices, force, forceable, ranked_rows
from nonsmooth.frameworks.torch.predicates import SIDES
from nonsmooth.frameworks.torch.tangents import Tangents
from nonsmooth.program import Program, Step

__all__ = ["ties_of", "turns_of"]


def turns_of(program: Program, step: Step, args: Any, kwargs: Any, tangents: Tangents) -> list[Turn]:
    """List the tied elements of a comparison behind a guard, and the side to which the directions take each.

    A comparison of a and b goes by the sign of the tangent of a - b, an argmax by the largest tangent of the tied
    entries; two equal arrays come apart if one of their entries does.
    """
    with torch.no_grad():
        args, kwargs = _detached(args), _detached(kwargs)
        tied = choices(step, args, kwargs)
        if not tied:
            return []
        ordinal = sum(forceable(s) for s in program.steps[: step.index])
        scale = max((tangents.scale(step.args[:2], k) for k in range(tangents.count)), default=0.0)
        outcome = _outcome(step, args, kwargs)
        differences = [tangents.difference(step.args, k) for k in range(tangents.count)]
        return [
            _turn(step, (ordinal, element), ways, outcome, differences, scale, tangents.deciding, args, kwargs)
            for element, ways in tied
        ]


def ties_of(step: Step, args: Any, kwargs: Any) -> list[GuardTie]:
    """List the tied elements of a comparison behind a guard with the nodes of what decides them; see `GuardTie`."""
    name = step.label.rstrip("_")
    plain = _detached(args), _detached(kwargs)
    tied = choices(step, *plain)
    if not tied:
        return []
    native = step.target(*plain[0], **plain[1])
    outcome = force(name, native, step.forced) if step.forced else native
    found = []
    with torch.enable_grad():
        for element, ways in tied:
            if name in RANKING:
                row = ranked_rows(name, args, kwargs)[element]
                now, own = int(outcome.reshape(-1)[element]), int(native.reshape(-1)[element])
                rest = [w for w in ways if w != now]
                earlier = tuple(now < w for w in rest)  # of equal entries torch takes the first
                found.append(GuardTie(step, row[now] - row[rest], 1, False, now == own, earlier))
                continue
            if name in SIDES:
                a, b = (torch.as_tensor(t) for t in args[:2])
                difference = (a - b).broadcast_to(native.shape).reshape(-1)[element]
                now, own = bool(outcome.reshape(-1)[element]), bool(native.reshape(-1)[element])
                left, right = SIDES[name]
                equality, sign = left == right and now != left, 0 if left == right else 1 if now == right else -1
            else:
                difference = (args[0] - args[1] if name == "equal" else args[0]).reshape(-1)
                now, own = bool(outcome), bool(native)
                equality, sign = now == (name == "equal"), 0
            found.append(GuardTie(step, difference, sign, equality, now == own, (now == own,) * difference.numel()))
    return found


def _turn(
    step: Step,
    key: tuple[int, int],
    ways: tuple[int, ...],
    outcome: Any,
    differences: list[torch.Tensor],
    scale: float,
    deciding: int,
    args: Any,
    kwargs: Any,
) -> Turn:
    """Decide one tied element."""
    name, element = step.label.rstrip("_"), key[1]
    if name in RANKING:
        return _ranked(step, key, ways, int(outcome.reshape(-1)[element]), differences, scale, deciding, args, kwargs)
    if name in SIDES:
        moved = tuple(float(d.broadcast_to(outcome.shape).reshape(-1)[element]) for d in differences)
        now = bool(outcome.reshape(-1)[element])
    else:
        moved, now = tuple(float(d.abs().max()) for d in differences), bool(outcome)
    noise = _noise(differences, scale)
    first = next((m for m in moved[:deciding] if abs(m) > noise), 0.0)
    empty = name in ("eq", "ne", "equal", "is_nonzero")
    if first == 0:
        return Turn(step, key, None, False, tuple((way, moved) for way in ways), scale, empty)
    choice = (1 if first > 0 else -1) if name in SIDES else int(name == "is_nonzero")
    then = SIDES[name][first > 0] if name in SIDES else bool(choice)
    others: tuple[tuple[int | None, tuple[float, ...]], ...] = tuple((way, moved) for way in ways if way != choice)
    if empty and name in SIDES:
        others = ((None, moved),)  # only unforced do the two sides of an equality differ from the equality itself
    return Turn(step, key, choice, then != now, others, scale, empty)


def _ranked(
    step: Step,
    key: tuple[int, int],
    places: tuple[int, ...],
    now: int,
    differences: list[torch.Tensor],
    scale: float,
    deciding: int,
    args: Any,
    kwargs: Any,
) -> Turn:
    """Decide one tied result of an argmax or argmin: the place whose entry moves up (down) fastest."""
    like = args[0]
    rows = [ranked_rows(step.label.rstrip("_"), (d.broadcast_to(like.shape), *args[1:]), kwargs) for d in differences]
    entries = [r[key[1]][list(places)] for r in rows]
    leading = list(range(len(places)))
    for moved in entries[:deciding]:
        best = max(float(moved[i]) for i in leading)
        leading = [i for i in leading if best - float(moved[i]) <= _noise(differences, scale)]
    chosen = leading[0]
    others = tuple(
        (place, tuple(float(e[chosen] - e[i]) for e in entries)) for i, place in enumerate(places) if i != chosen
    )
    if len(leading) > 1:
        return Turn(step, key, None, False, others, scale)
    return Turn(step, key, places[chosen], places[chosen] != now, others, scale)


def _noise(differences: list[torch.Tensor], scale: float) -> float:
    """Give the rounding of tangents."""
    dtypes = [d.dtype for d in differences if d.is_floating_point()]
    return ROUNDING * max((torch.finfo(d).eps for d in dtypes), default=0.0) * scale


def _outcome(step: Step, args: Any, kwargs: Any) -> Any:
    """Give what the comparison says in the program."""
    result = step.target(*args, **kwargs)
    return force(step.label.rstrip("_"), result, step.forced) if step.forced else result


def _detached(tree: Any) -> Any:
    """Cut the tensors of nested arguments off from their graph."""
    return map_tensors(tree, lambda t: t.detach())
