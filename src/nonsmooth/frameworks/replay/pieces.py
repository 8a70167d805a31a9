"""The pieces of a function: the programs that are active at a point where guards tie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nonsmooth.dictionary.operation import Array
from nonsmooth.frameworks.replay.arguments import map_arrays
from nonsmooth.frameworks.replay.forcing import TIED_ELEMENTS, choices, distance, forceable
from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.program import Program, Step

__all__ = ["compared_values", "met_at", "outcomes", "pieces", "tied_outcomes"]

Forced = dict[tuple[int, int], int]
Tied = list[tuple[tuple[int, int], tuple[int, ...]]]


def pieces(program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
    """Walk the programs that are active at the point: one for each outcome of the guards that tie there.

    Tied elements of what is compared behind each guard are forced to either side, and the function is captured again.
    Programs that repeat the guards of an earlier one are left out. A warning says when more were left than captures
    allowed.
    """
    items = program.framework.data_arrays(data)
    own: Forced = dict(program.options.get("forced", {}))
    queue, captures = [own], 0
    seen: set[Any] = set()
    while queue and len(seen) < limit and captures < 4 * limit:
        forced = queue.pop(0)
        piece = program if forced == own else None
        if piece is None:
            piece = program.framework.force(program, x, data, forced)
            captures += 1
        tied = tied_outcomes(piece, x, items)
        queue = [*_together(tied, forced), *queue, *_one_by_one(tied, forced)]
        signature = tuple(str(g.outcome) for g in piece.guards), len(piece.steps)
        if signature not in seen:
            seen.add(signature)
            yield piece
    _warn_of(len(queue), limit)


def outcomes(program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
    """Walk the programs of all outcomes of the tied elements behind guards, also where several give the same program.

    Every tied element of a program that is yielded is forced, or the equality that it tests is left as it is. A warning
    says when more were left than the limit allowed, or when more elements tie than are forced one by one.
    """
    items = program.framework.data_arrays(data)
    queue: list[tuple[Forced, frozenset[tuple[int, int]]]] = [({}, frozenset())]
    count, truncated = 0, int(program.options.get("randomness") == "freeze")  # a new capture draws again
    while queue and count < limit:
        forced, kept = queue.pop()
        try:
            piece = program.framework.force(program, x, data, forced)
        except Exception:  # the user's own function may fail where it never runs by itself
            truncated += 1
            continue
        tied = tied_outcomes(piece, x, items)
        truncated += any(len(ways) >= TIED_ELEMENTS or key[1] >= TIED_ELEMENTS for key, ways in tied)
        free = [(key, ways) for key, ways in tied if key not in forced and key not in kept]
        if not free:
            count += 1
            yield piece
            continue
        (key, ways), *_ = free
        if _is_equality([s for s in piece.steps if forceable(s)][key[0]]):
            queue += [({**forced, key: ways[0]}, kept), (forced, kept | {key})]
        else:
            queue += [({**forced, key: way}, kept) for way in ways]
    _warn_of(len(queue) + truncated, limit)


def _is_equality(step: Step) -> bool:
    """Tell `==` and `!=`, whose two sides have the same outcome."""
    sides = SIDES.get(step.label.rstrip("_"))
    return sides is not None and sides[0] == sides[1]


def _warn_of(left: int, limit: int) -> None:
    """Warn of outcomes that were not tried."""
    if left:
        warnings.warn(f"pieces: {left} or more outcomes of tied guards were not tried (limit={limit}).", stacklevel=3)


def _together(tied: Tied, forced: Forced) -> list[Forced]:
    """Force all tied elements of one comparison the same way, which settles `.any()` and `.all()` at once."""
    free = [key for key, ways in tied if ways == (-1, 1) and all(k != key[0] for k, _ in forced)]
    same = [key for key in free if key[0] == free[0][0]]
    return [forced | dict.fromkeys(same, way) for way in (-1, 1)] if len(same) > 1 else []


def _one_by_one(tied: Tied, forced: Forced) -> list[Forced]:
    """Force the first element that is still free each way."""
    free = [(key, ways) for key, ways in tied if key not in forced]
    return [{**forced, free[0][0]: way} for way in free[0][1]] if free else []


def tied_outcomes(program: Program, x: Any, items: list[Array]) -> Tied:
    """List the tied elements behind the guards, as (ordinal of the comparison, element), with their possible outcomes."""
    wanted = sorted(plan_of(program).compared)
    if not wanted:
        return []
    ordinals = {s.index: k for k, s in enumerate(s for s in program.steps if forceable(s))}
    calls = met_at(program, program.framework.flatten(x)[0], items, frozenset(wanted))
    found = []
    for index in wanted:
        for element, ways in choices(program.framework.xp, program.steps[index], *calls[index]):
            found.append(((ordinals[index], element), ways))
    return found


def compared_values(
    program: Program, leaves: list[Array], items: list[Array], wanted: frozenset[int]
) -> dict[int, Any]:
    """Give the pairs of values whose distances are those to the ties of some comparisons."""
    calls = met_at(program, leaves, items, wanted)
    return {index: distance(program.framework.xp, program.steps[index], *call) for index, call in calls.items()}


def met_at(
    program: Program, leaves: list[Array], items: list[Array], wanted: frozenset[int]
) -> dict[int, tuple[Any, Any]]:
    """Give the arguments that some steps meet at a point."""
    found: dict[int, tuple[Any, Any]] = {}

    def tap(step: Any) -> Any:
        def target(*args: Any, **kwargs: Any) -> Any:
            found[step.index] = map_arrays((args, kwargs), program.framework.copy_of)
            return step.target(*args, **kwargs)

        return target

    steps = tuple(replace(s, target=tap(s)) if s.index in wanted else s for s in program.steps)
    program.framework.replay(replace(program, steps=steps), leaves, items)
    return found
