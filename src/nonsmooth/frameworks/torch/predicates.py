"""Predicates: boolean values with what they would be just left and right of the ties they come from.

A comparison a > b ties where a = b. Along any direction in which a - b changes sign it is `left` on one side and
`right` on the other; a boolean operation of predicates is applied to values, lefts and rights alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nonsmooth.dictionary.operation import lexicographic_sign
from nonsmooth.frameworks.framework import ROUNDING

__all__ = ["SIDES", "Motion", "Predicate", "combine", "compare", "motion_of"]

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
class Motion:
    """What a comparison does along directions.

    `along` is its value there; `moved` are, for each direction, the tangents of what it compares, 0 where nothing ties;
    rounding is relative to `scale`. `several` marks the elements at which more than one comparison ties.
    """

    along: torch.Tensor
    moved: tuple[torch.Tensor, ...]
    scale: float
    several: torch.Tensor


@dataclass(frozen=True)
class Predicate:
    """A boolean tensor, its values left and right of the ties, and the distance of the compared values."""

    value: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    tie: torch.Tensor
    distance: torch.Tensor
    motion: Motion | None = None

    @property
    def along(self) -> torch.Tensor:
        """The value along the directions, where tangents are carried; else the value."""
        return self.value if self.motion is None else self.motion.along

    @staticmethod
    def untied(value: torch.Tensor) -> Predicate:
        """Wrap a boolean that compares nothing which depends on the point."""
        far = torch.full(value.shape, float("inf"), device=value.device)
        return Predicate(value, value, value, torch.zeros_like(value, dtype=torch.bool), far)

    def attributes(self) -> Mapping[str, Any]:
        """Give what the record of `where` reads."""
        found: dict[str, Any] = {"left": self.left, "right": self.right, "tie": self.tie, "distance": self.distance}
        return {**found, "along": self.along, "motion": self.motion}


def compare(
    name: str,
    a: Any,
    b: Any,
    value: torch.Tensor,
    moves: Callable[[torch.Tensor], Motion | None] | None = None,
    tol: float = 0.0,
) -> Predicate:
    """Find the predicate of `a name b`, of which one side depends on the point; `moves` says how it moves at ties.

    What differs by no more than `tol` counts as tied.
    """
    with torch.no_grad():
        a, b = torch.as_tensor(a, device=value.device), torch.as_tensor(b, device=value.device)
        tie = (a == b).broadcast_to(value.shape)
        if tol:
            tie = tie | ((a - b).abs() <= tol).broadcast_to(value.shape)
        distance = torch.where(a == b, 0.0, (a - b).abs().to(torch.promote_types(a.dtype, torch.float32)))
        left, right = (torch.where(tie, torch.full_like(value, side), value) for side in SIDES[name])
        motion = moves(tie) if moves is not None and bool(tie.any()) else None
    return Predicate(value, left, right, tie, distance, motion)


def motion_of(
    name: str, value: torch.Tensor, tie: torch.Tensor, moved: Sequence[torch.Tensor], scale: float, deciding: int
) -> Motion:
    """Decide the ties of a comparison by the tangents of a - b along the deciding directions, the first one first."""
    moved = [torch.where(tie, m, torch.zeros_like(m)) for m in (m.broadcast_to(value.shape) for m in moved)]
    noise = ROUNDING * scale * max((torch.finfo(m.dtype).eps for m in moved), default=0.0)
    sign = lexicographic_sign(torch, [torch.where(m.abs() > noise, m, 0.0) for m in moved[:deciding]])
    left, right = (torch.full_like(value, side) for side in SIDES[name])
    along = torch.where(sign > 0, right, torch.where(sign < 0, left, value))
    return Motion(along, tuple(moved), scale, torch.zeros_like(tie))


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
    tie = (left != value) | (right != value)
    motion = _combined(parts, value, side("along"))
    if motion is not None:
        tie = tie | (motion.along != value)
    return Predicate(value, left, right, tie, _nearest(parts, value), motion)


def _combined(parts: list[Predicate], value: torch.Tensor, along: torch.Tensor) -> Motion | None:
    """Gather how the parts of a predicate move; where several of them tie, none speaks for the whole."""
    moving = [(p.motion, p.tie) for p in parts if p.motion is not None]
    if not moving:
        return None
    several, count = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.int64)
    moved = [torch.zeros(value.shape, dtype=m.dtype, device=m.device) for m in moving[0][0].moved]
    for motion, tie in moving:
        try:
            count = count + tie.broadcast_to(value.shape)
            several = several | motion.several.broadcast_to(value.shape)
            moved = [a + b.broadcast_to(value.shape) for a, b in zip(moved, motion.moved, strict=True)]
        except RuntimeError:
            several = several | tie.any()
    return Motion(along, tuple(moved), max(m.scale for m, _ in moving), several | (count > 1))


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
