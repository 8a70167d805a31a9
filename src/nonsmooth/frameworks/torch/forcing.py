"""Forcing: the outcomes that ties could have had, so that the other branches of an `if` can be captured.

What is forced is an element of a comparison (a - b a little negative or positive), of an argmax or argmin (one of the
tied places), or an `equal`. A forced program holds at its own point; elsewhere it is evaluated as it would come out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nonsmooth.frameworks.torch.predicates import SIDES
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


def force(name: str, result: Any, forced: tuple[tuple[int, int], ...]) -> Any:
    """Override elements of a result as (element, choice) say; see `choices`."""
    if not isinstance(result, torch.Tensor):
        return bool(forced[0][1])
    flat = result.clone().reshape(-1)
    for element, choice in forced:
        flat[element] = SIDES[name][choice > 0] if name in SIDES else choice
    return flat.reshape(result.shape)


def choices(step: Step, args: Any, kwargs: Any) -> list[tuple[int, tuple[int, ...]]]:
    """List the tied elements of a step with what each may be forced to.

    -1 and 1: a - b a little negative or positive; 0 and 1: false or true; the tied places of an argmax.
    """
    name = step.label.rstrip("_")
    if name == "is_nonzero":
        return [(0, (0, 1))] if args[0].is_floating_point() and not args[0].any() else []
    if name == "equal":
        return [(0, (0, 1))] if torch.equal(*args[:2]) and args[0].numel() else []
    if name in SIDES:
        tied = (torch.as_tensor(args[0]) == torch.as_tensor(args[1])).reshape(-1).nonzero().reshape(-1)
        return [(int(e), (-1, 1)) for e in tied[:TIED_ELEMENTS]]
    rows = ranked_rows(name, args, kwargs)
    best = rows == rows.max(1, keepdim=True).values
    tied = (best.sum(1) > 1).nonzero().reshape(-1)[:TIED_ELEMENTS]
    return [(int(e), tuple(int(i) for i in best[e].nonzero().reshape(-1)[:TIED_ELEMENTS])) for e in tied]


def distance(step: Step, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Give the two values whose distance is that to the tie, element by element."""
    name = step.label.rstrip("_")
    if name in SIDES:
        return args[0], args[1]
    if name == "is_nonzero":
        return args[0].reshape(1), torch.zeros_like(args[0]).reshape(1)
    if name == "equal":
        same = args[0].shape == args[1].shape
        apart = (args[0] - args[1]).abs().max() if same and args[0].numel() else torch.tensor(float("inf"))
        return apart, torch.zeros_like(apart)
    rows = ranked_rows(name, args, kwargs)
    top = rows.topk(min(2, rows.shape[1]), dim=1).values
    return top[:, 0], top[:, 1] if top.shape[1] > 1 else torch.full_like(top[:, 0], float("-inf"))


def ranked_rows(name: str, args: Any, kwargs: Any) -> torch.Tensor:
    """Lay out what an argmax or argmin searches as rows, one for each of its results, the largest being sought."""
    operand: torch.Tensor = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    rows = operand.reshape(1, -1) if dim is None else operand.movedim(dim, -1).reshape(-1, operand.shape[dim])
    return -rows if name == "argmin" else rows


def unforced(program: Program) -> Program:
    """Give a program whose ties come out as they do by themselves."""
    if not program.options.get("forced"):
        return program
    known = program.__dict__.get("_torch_unforced")
    if known is None:
        steps = tuple(replace(s, forced=()) if s.forced else s for s in program.steps)
        known = program.__dict__["_torch_unforced"] = replace(program, steps=steps)
    return known
