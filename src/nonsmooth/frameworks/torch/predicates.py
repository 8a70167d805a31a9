"""Predicates: boolean values with what they would be just left and right of the ties they come from.

A comparison a > b ties where a = b. Along any direction in which a - b changes sign it is `left` on one side and
`right` on the other; a boolean operation of predicates is applied to values, lefts and rights alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["SIDES", "Predicate", "combine", "compare"]

SIDES = {
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
        return Predicate(value, value, value, torch.zeros_like(value, dtype=torch.bool), far)

    def attributes(self) -> Mapping[str, torch.Tensor]:
        """Give what the record of `where` reads."""
        return {"left": self.left, "right": self.right, "tie": self.tie, "distance": self.distance}


def compare(name: str, a: Any, b: Any, value: torch.Tensor) -> Predicate:
    """Find the predicate of `a name b`; it ties only if one side depends on the point."""
    if not any(isinstance(t, torch.Tensor) and t.requires_grad for t in (a, b)):
        return Predicate.untied(value)
    with torch.no_grad():
        a, b = torch.as_tensor(a, device=value.device), torch.as_tensor(b, device=value.device)
        tie = (a == b).broadcast_to(value.shape)
        distance = torch.where(tie, 0.0, (a - b).abs().to(torch.promote_types(a.dtype, torch.float32)))
        left, right = (torch.where(tie, torch.full_like(value, side), value) for side in SIDES[name])
    return Predicate(value, left, right, tie, distance)


def combine(
    target: Callable[..., Any],
    args: Any,
    kwargs: Mapping[str, Any],
    value: torch.Tensor,
    known: Callable[[torch.Tensor], Predicate | None],
) -> Predicate:
    """Find the predicate of a boolean operation of predicates: the operation, applied to their lefts and rights."""
    parts = [p for t in _tensors((args, kwargs)) if (p := known(t)) is not None]
    if not parts:
        return Predicate.untied(value)

    def side(name: str) -> torch.Tensor:
        with torch.no_grad():
            result = target(*_swap(args, name, known), **_swap(kwargs, name, known))
        first: torch.Tensor = result[0] if isinstance(result, tuple | list) else result
        return first

    left, right = side("left"), side("right")
    if left.dtype is not torch.bool or left.shape != value.shape:
        return Predicate.untied(value)
    return Predicate(value, left, right, (left != value) | (right != value), _nearest(parts, value))


def _swap(tree: Any, name: str, known: Callable[[torch.Tensor], Predicate | None]) -> Any:
    """Put one side of every known predicate in its place."""
    if isinstance(tree, torch.Tensor):
        predicate = known(tree)
        return tree if predicate is None else getattr(predicate, name)
    if isinstance(tree, tuple | list):
        return type(tree)(_swap(item, name, known) for item in tree)
    if isinstance(tree, Mapping):
        return {k: _swap(v, name, known) for k, v in tree.items()}
    return tree


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    """Walk the tensors of nested arguments."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _tensors(item)


def _nearest(parts: list[Predicate], value: torch.Tensor) -> torch.Tensor:
    """Bound the distance to the nearest tie from below, entry by entry where the shapes allow it."""
    total = torch.full(value.shape, float("inf"), device=value.device)
    for part in parts:
        try:
            total = torch.minimum(total, part.distance.broadcast_to(value.shape))
        except RuntimeError:
            total = total.clamp(max=float(part.distance.min())) if part.distance.numel() else total
    return total
