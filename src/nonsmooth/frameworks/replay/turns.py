"""Turns: where a direction takes the tied comparisons behind the guards of a program."""

from __future__ import annotations

from typing import Any

from nonsmooth.dictionary.operation import Array, device_of
from nonsmooth.frameworks.framework import ROUNDING, GuardTie, Turn
from nonsmooth.frameworks.replay.arrays import difference, is_floating, size
from nonsmooth.frameworks.replay.forcing import RANKING, choices, force, forceable, ranked_rows
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.program import Program, Step

__all__ = ["ties_of", "turns_of"]


def turns_of(xp: Any, program: Program, step: Step, args: Any, kwargs: Any, tangents: Tangents) -> list[Turn]:
    """List the tied elements of a comparison behind a guard, and the side to which the directions take each.

    A comparison of a and b goes by the sign of the tangent of a - b, an argmax by the largest tangent of the tied
    entries; two equal arrays come apart if one of their entries does.
    """
    tied = choices(xp, step, args, kwargs)
    if not tied:
        return []
    ordinal = sum(forceable(s) for s in program.steps[: step.index])
    scale = max((tangents.scale(step.args[:2], k) for k in range(tangents.count)), default=0.0)
    outcome = _outcome(xp, step, args, kwargs)
    differences = [tangents.difference(step.args, k) for k in range(tangents.count)]
    return [
        _turn(xp, step, (ordinal, element), ways, outcome, differences, scale, tangents.deciding, args, kwargs)
        for element, ways in tied
    ]


def ties_of(xp: Any, step: Step, args: Any, kwargs: Any, nodes: tuple[Any, Any] | None = None) -> list[GuardTie]:
    """List the tied elements of a comparison behind a guard with the nodes of what decides them; see `GuardTie`.

    `nodes` are args and kwargs as the framework differentiates them, if those given are mere values.
    """
    name = step.label.rstrip("_")
    tied = choices(xp, step, args, kwargs)
    if not tied:
        return []
    native = step.target(*args, **kwargs)
    outcome = force(xp, name, native, step.forced) if step.forced else native
    node_args, node_kwargs = nodes or (args, kwargs)
    found = []
    for element, ways in tied:
        if name in RANKING:
            row = ranked_rows(xp, name, node_args, node_kwargs)[element]
            now, own = (int(xp.reshape(r, (-1,))[element]) for r in (outcome, native))
            found.append(_ranked_tie(xp, step, row, ways, now, own))
            continue
        if name in SIDES:
            decides = _entry(xp, difference(xp, *node_args[:2]), native, element)
            now, own = (bool(xp.reshape(r, (-1,))[element]) for r in (outcome, native))
            left, right = SIDES[name]
            equality, sign = left == right and now != left, 0 if left == right else 1 if now == right else -1
        else:
            decides = xp.reshape(difference(xp, *node_args[:2]) if name == "equal" else node_args[0], (-1,))
            now, own = bool(outcome), bool(native)
            equality, sign = now == (name == "equal"), 0
        wins = (now == own,) * (decides.shape[0] if decides.ndim else 1)
        found.append(GuardTie(step, decides, sign, equality, now == own, wins))
    return found


def _ranked_tie(xp: Any, step: Step, row: Array, ways: tuple[int, ...], now: int, own: int) -> GuardTie:
    """Give the tie of an argmax whose outcome is `now`: the tied entry there less the others."""
    rest = [w for w in ways if w != now]
    earlier = tuple(now < w for w in rest)  # of equal entries argmax takes the first
    others = xp.take(row, xp.asarray(rest, dtype=xp.int32, device=device_of(row)), axis=0)
    return GuardTie(step, row[now] - others, 1, False, now == own, earlier)


def _entry(xp: Any, array: Array, like: Array, element: int) -> Array:
    """Give one entry of the flat array, broadcast to the shape of another."""
    return xp.reshape(xp.broadcast_to(array, tuple(like.shape)), (-1,))[element]


def _turn(
    xp: Any,
    step: Step,
    key: tuple[int, int],
    ways: tuple[int, ...],
    outcome: Any,
    differences: list[Array],
    scale: float,
    deciding: int,
    args: Any,
    kwargs: Any,
) -> Turn:
    """Decide one tied element."""
    name, element = step.label.rstrip("_"), key[1]
    if name in RANKING:
        now = int(xp.reshape(outcome, (-1,))[element])
        return _ranked(xp, step, key, ways, now, differences, scale, deciding, args, kwargs)
    if name in SIDES:
        moved = tuple(float(_entry(xp, d, outcome, element)) for d in differences)
        now = bool(xp.reshape(outcome, (-1,))[element])
    else:
        moved, now = tuple(size(xp, d) for d in differences), bool(outcome)
    noise = _noise(xp, differences, scale)
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
    xp: Any,
    step: Step,
    key: tuple[int, int],
    places: tuple[int, ...],
    now: int,
    differences: list[Array],
    scale: float,
    deciding: int,
    args: Any,
    kwargs: Any,
) -> Turn:
    """Decide one tied result of an argmax or argmin: the place whose entry moves up (down) fastest."""
    name, shape = step.label.rstrip("_"), tuple(args[0].shape)
    rows = [ranked_rows(xp, name, (xp.broadcast_to(d, shape), *args[1:]), kwargs)[key[1]] for d in differences]
    entries = [[row[place] for place in places] for row in rows]
    leading = list(range(len(places)))
    for moved in entries[:deciding]:
        best = max(float(moved[i]) for i in leading)
        leading = [i for i in leading if best - float(moved[i]) <= _noise(xp, differences, scale)]
    chosen = leading[0]
    others = tuple(
        (place, tuple(float(e[chosen] - e[i]) for e in entries)) for i, place in enumerate(places) if i != chosen
    )
    if len(leading) > 1:
        return Turn(step, key, None, False, others, scale)
    return Turn(step, key, places[chosen], places[chosen] != now, others, scale)


def _noise(xp: Any, differences: list[Array], scale: float) -> float:
    """Give the rounding of tangents."""
    eps = [float(xp.finfo(d.dtype).eps) for d in differences if is_floating(xp, d)]
    return ROUNDING * max(eps, default=0.0) * scale


def _outcome(xp: Any, step: Step, args: Any, kwargs: Any) -> Any:
    """Give what the comparison says in the program."""
    result = step.target(*args, **kwargs)
    return force(xp, step.label.rstrip("_"), result, step.forced) if step.forced else result
