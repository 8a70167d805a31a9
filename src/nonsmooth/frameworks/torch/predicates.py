"""Predicates: boolean values with what they would be just left and right of the ties they come from.

A comparison a > b ties where a = b. Along any direction in which a - b changes sign it is `left` on one side and
`right` on the other; a boolean operation of predicates is applied to values, lefts and rights alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nonsmooth.program import Ref, Step

__all__ = ["Predicate", "predicate_of"]

_SIDES = {
    "gt": (False, True),
    "ge": (False, True),
    "lt": (True, False),
    "le": (True, False),
    "eq": (False, False),
    "ne": (True, True),
}
"""What `a op b` is for a - b a little negative, and a little positive."""


@dataclass(frozen=True)
class Predicate:
    """A boolean tensor, its values left and right of the ties, and the distance of the compared values."""

    value: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    tie: torch.Tensor
    distance: torch.Tensor

    @staticmethod
    def untied(value: torch.Tensor) -> Predicate:
        """Wrap a boolean that compares nothing which depends on the point."""
        far = torch.full(value.shape, float("inf"), device=value.device)
        return Predicate(value, value, value, torch.zeros_like(value), far)

    def attributes(self) -> Mapping[str, torch.Tensor]:
        """Give what the record of `where` reads."""
        return {"left": self.left, "right": self.right, "tie": self.tie, "distance": self.distance}


def predicate_of(step: Step, env: Mapping[int, Any], known: Mapping[int, Predicate], value: torch.Tensor) -> Predicate:
    """Find the predicate of the boolean result of a step."""
    sides = _SIDES.get(step.label.rstrip("_"))
    if sides is not None:
        a, b = (env[x.value] if isinstance(x, Ref) else x for x in step.args[:2])
        watched = any(isinstance(t, torch.Tensor) and t.requires_grad for t in (a, b))
        return _comparison(a, b, value, sides) if watched else Predicate.untied(value)

    def part(name: str) -> Any:
        def fill(tree: Any) -> Any:
            if isinstance(tree, Ref):
                predicate = known.get(tree.value)
                return env[tree.value] if predicate is None else getattr(predicate, name)
            if isinstance(tree, tuple | list):
                return type(tree)(fill(t) for t in tree)
            return tree

        with torch.no_grad():
            result = step.target(*fill(step.args), **{k: fill(v) for k, v in step.kwargs.items()})
        return result if step.single else result[0]

    if not any(isinstance(a, Ref) and a.value in known for a in _flat(step.args)) or step.mutates:
        return Predicate.untied(value)
    left, right = part("left"), part("right")
    if left.dtype is not torch.bool:
        return Predicate.untied(value)
    tie = (left != value) | (right != value)
    distances = [known[a.value].distance for a in _flat(step.args) if isinstance(a, Ref) and a.value in known]
    distance = _smallest(distances, value)
    return Predicate(value, left, right, tie, distance)


def _comparison(a: Any, b: Any, value: torch.Tensor, sides: tuple[bool, bool]) -> Predicate:
    """Find the ties of `a op b`."""
    with torch.no_grad():
        a, b = torch.as_tensor(a), torch.as_tensor(b, device=value.device)
        tie = (a == b).broadcast_to(value.shape)
        distance = torch.where(tie, 0.0, (a - b).abs().to(torch.promote_types(a.dtype, torch.float32)))
        left, right = (torch.where(tie, torch.full_like(value, s), value) for s in sides)
    return Predicate(value, left, right, tie, distance)


def _smallest(distances: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    """Bound the distance to the nearest tie from below, entry by entry where the shapes allow it."""
    total = torch.full(value.shape, float("inf"), device=value.device)
    for distance in distances:
        try:
            total = torch.minimum(total, distance.broadcast_to(value.shape))
        except RuntimeError:
            total = torch.minimum(total, distance.min().to(total.dtype)) if distance.numel() else total
    return total


def _flat(tree: Any) -> list[Any]:
    """Flatten nested arguments."""
    if isinstance(tree, tuple | list):
        return [leaf for item in tree for leaf in _flat(item)]
    return [tree]
