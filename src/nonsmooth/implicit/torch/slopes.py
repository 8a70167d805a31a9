"""How fast the arguments of kinks move with a solution, measured at every one: in training they may become steep.

|a(y + h d) - a(y)| / h is |grad a| times a normal number if d is normal; the largest of a few is taken, as in
`implicit/nearness.py`. Each costs an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch

from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.nearness import DRAWS
from nonsmooth.implicit.torch.batched import at_least_single
from nonsmooth.program import Program, Step

__all__ = ["slopes", "without_branches"]

Place = TypeVar("Place", bound=Hashable)


def slopes(
    values: Callable[[Any], Mapping[Place, torch.Tensor]], here: Mapping[Place, torch.Tensor], y: Any
) -> dict[Place, torch.Tensor]:
    """Estimate |grad a| for each entry of each a of `here`, which is values(y); at least 1."""
    leaves, structure = flatten(y)
    eps = max(torch.finfo(t.dtype).eps for t in leaves)
    step = eps**0.5 * (1 + max((float(t.abs().max()) for t in leaves if t.numel()), default=0.0))
    generator = torch.Generator().manual_seed(0)
    found = {k: torch.ones_like(at_least_single(a)) for k, a in here.items()}
    for _ in range(DRAWS if here else 0):
        drawn = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in leaves]
        there = values(unflatten([t + step * d for t, d in zip(leaves, drawn, strict=True)], structure))
        for k, a in here.items():
            if k in there and there[k].shape == a.shape:
                slope = (at_least_single(there[k]) - at_least_single(a)).abs() / step
                found[k] = torch.maximum(found[k], slope.nan_to_num(nan=1.0, posinf=1.0))
    return found


def without_branches(program: Program) -> Program:
    """Give a program that takes at every point the branches that it took at its own."""
    outcomes = {k: g.outcome for k, g in plan_of(program).checks.items() if g.kind == "branch"}
    if not outcomes:
        return program

    def decided(step: Step) -> Step:
        return replace(step, target=lambda *_, **__: outcomes[step.index]) if step.index in outcomes else step

    return replace(program, steps=tuple(map(decided, program.steps)))
