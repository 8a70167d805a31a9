"""Forcing: the outcomes that ties could have had, so that the other branches of an `if` can be captured.

What is forced is an element of a comparison (a - b a little negative or positive), of an argmax or argmin (one of the
tied places), or an `equal`. A forced program holds at its own point; elsewhere it is evaluated as it would come out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nonsmooth.dictionary.operation import Array, device_of, on_host
from nonsmooth.frameworks.replay.arguments import is_array
from nonsmooth.frameworks.replay.arrays import difference, is_bool, is_floating
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.program import Program, Step

__all__ = ["FORCEABLE", "RANKING", "choices", "distance", "force", "forceable", "ranked_rows", "unforced"]

RANKING = frozenset(["argmax", "argmin"])
FORCEABLE = frozenset(SIDES) | RANKING | {"equal", "is_nonzero"}
"""Operators whose outcome at a tie can be forced."""

TIED_ELEMENTS = 16
"""How many tied elements of one comparison, and places of one argmax, are forced one by one."""


def forceable(step: Step) -> bool:
    """Tell a step whose outcome at a tie can be forced."""
    return step.label.rstrip("_") in FORCEABLE


def force(xp: Any, name: str, result: Any, forced: tuple[tuple[int, int], ...]) -> Any:
    """Override elements of a result as (element, choice) say; see `choices`."""
    if not is_array(result):
        return bool(forced[0][1])
    flat = xp.reshape(result, (-1,))
    places = xp.arange(flat.shape[0], device=device_of(result))
    for element, choice in forced:
        outcome = SIDES[name][choice > 0] if name in SIDES else choice
        flat = xp.where(places == element, xp.full_like(flat, outcome), flat)
    return xp.reshape(flat, tuple(result.shape))


def choices(xp: Any, step: Step, args: Any, kwargs: Any) -> list[tuple[int, tuple[int, ...]]]:
    """List the tied elements of a step with what each may be forced to.

    -1 and 1: a - b a little negative or positive; 0 and 1: false or true; the tied places of an argmax.
    """
    name = step.label.rstrip("_")
    if name == "is_nonzero":
        return [(0, (0, 1))] if is_floating(xp, args[0]) and not bool(xp.any(args[0] != 0)) else []
    if name == "equal":
        same = tuple(args[0].shape) == tuple(args[1].shape) and 0 not in args[0].shape
        return [(0, (0, 1))] if same and bool(xp.all(args[0] == args[1])) else []
    if name in SIDES:
        return [(e, (-1, 1)) for e in _where(args[0] == args[1])]
    rows = ranked_rows(xp, name, args, kwargs)
    best = on_host(rows == xp.max(rows, axis=1, keepdims=True))
    return [(e, tuple(_where(best[e]))) for e in _where(best.sum(1) > 1)]


def _where(mask: Any) -> list[int]:
    """Give the places of the first elements where a mask holds."""
    return [int(e) for e in np.flatnonzero(on_host(mask))[:TIED_ELEMENTS]]


def distance(xp: Any, step: Step, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Give the two values whose distance is that to the tie, element by element."""
    name = step.label.rstrip("_")
    if name in SIDES:
        return args[0], args[1]
    if name == "is_nonzero":
        return xp.reshape(args[0], (1,)), xp.reshape(xp.zeros_like(args[0]), (1,))
    if name == "equal":
        same = tuple(args[0].shape) == tuple(args[1].shape) and 0 not in args[0].shape
        apart = xp.max(xp.abs(difference(xp, *args[:2]))) if same else xp.asarray(float("inf"), dtype=xp.float32)
        return apart, xp.zeros_like(apart)
    rows = xp.sort(ranked_rows(xp, name, args, kwargs), axis=1)
    return rows[:, -1], rows[:, -2] if rows.shape[1] > 1 else float("-inf")


def ranked_rows(xp: Any, name: str, args: Any, kwargs: Any) -> Array:
    """Lay out what an argmax or argmin searches as rows, one for each of its results, the largest being sought."""
    operand = args[0]
    (axis,) = kwargs.get("axes") or (args[1] if len(args) > 1 else kwargs.get("dim"),)
    if axis is None:
        rows = xp.reshape(operand, (1, -1))
    else:
        rows = xp.reshape(xp.moveaxis(operand, axis, -1), (-1, operand.shape[axis]))
    if name == "argmax":
        return rows
    return ~rows if is_bool(xp, rows) else -rows


def unforced(program: Program) -> Program:
    """Give a program whose ties come out as they do by themselves."""
    if not program.options.get("forced"):
        return program
    known = program.__dict__.get("_unforced")
    if known is None:
        steps = tuple(replace(s, forced=()) if s.forced else s for s in program.steps)
        known = program.__dict__["_unforced"] = replace(program, steps=steps)
    return known
