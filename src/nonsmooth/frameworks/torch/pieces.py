"""The pieces of a function: the programs that are active at a point where guards tie."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from nonsmooth.frameworks.torch.capture import capture_function
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.predicates import SIDES
from nonsmooth.frameworks.torch.tree import check_data, flatten
from nonsmooth.program import Program

__all__ = ["compared_values", "pieces"]

TIED_ELEMENTS = 16
"""How many tied elements of one comparison are forced one by one."""

Forced = dict[tuple[int, int], int]


def pieces(program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
    """Walk the programs that are active at the point: one for each outcome of the guards that tie there.

    Tied elements of the comparisons behind each guard are forced to either side, and the function is captured again.
    Programs that repeat the guards of an earlier one are left out. A warning says when more were left than captures
    allowed.
    """
    items = [t for t in check_data(data)[0] if isinstance(t, torch.Tensor)]
    own: Forced = dict(program.options.get("forced", {}))
    queue, captures = [own], 0
    seen: set[Any] = set()
    while queue and len(seen) < limit and captures < 4 * limit:
        forced = queue.pop(0)
        piece = program if forced == own else None
        if piece is None:
            randomness = program.options["randomness"]
            piece = capture_function(program.framework, program.function, x, data, randomness=randomness, forced=forced)
            captures += 1
        free = [key for key in tied_comparisons(piece, x, items) if key not in forced]
        queue += [{**forced, free[0]: sign} for sign in (-1, 1)] if free else []
        signature = tuple(str(g.outcome) for g in piece.guards), len(piece.steps)
        if signature not in seen:
            seen.add(signature)
            yield piece
    if queue:
        warnings.warn(
            f"pieces: {len(queue)} or more outcomes of tied guards were not tried (limit={limit}).", stacklevel=2
        )


def tied_comparisons(program: Program, x: Any, items: list[torch.Tensor]) -> list[tuple[int, int]]:
    """List the tied elements of the comparisons behind the guards, as (ordinal of the comparison, element)."""
    wanted = sorted({c for g in program.guards if g.kind == "branch" for c in g.comparisons})
    if not wanted:
        return []
    ordinals = {s.index: k for k, s in enumerate(s for s in program.steps if s.label.rstrip("_") in SIDES)}
    values = compared_values(program, flatten(x)[0], items, frozenset(wanted))
    found = []
    for index in wanted:
        a, b = values[index]
        tied = (torch.as_tensor(a) == torch.as_tensor(b)).reshape(-1)
        found += [(ordinals[index], int(e)) for e in itertools.islice(tied.nonzero().reshape(-1), TIED_ELEMENTS)]
    return found


def compared_values(
    program: Program, leaves: list[torch.Tensor], items: list[torch.Tensor], wanted: frozenset[int]
) -> dict[int, Any]:
    """Give what the wanted comparisons compare at a point."""
    found: dict[int, Any] = {}

    def tap(step: Any) -> Any:
        def target(*args: Any, **kwargs: Any) -> Any:
            found[step.index] = tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args[:2])
            return step.target(*args, **kwargs)

        return target

    steps = tuple(replace(s, target=tap(s)) if s.index in wanted else s for s in program.steps)
    with torch.no_grad():
        replay(replace(program, steps=steps), [t.detach() for t in leaves], items)
    return found
