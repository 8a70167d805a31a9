"""Predicates: discrete values with what they would be just left and right of the ties they come from.

A comparison a > b ties where a = b. Along any direction in which a - b changes sign it is `left` on one side and
`right` on the other; a discrete operation of predicates is applied to values, lefts and rights alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nonsmooth.dictionary.operation import Array, device_of, lexicographic_sign
from nonsmooth.frameworks.framework import ROUNDING
from nonsmooth.frameworks.replay.arguments import arrays_of, is_array, map_arrays
from nonsmooth.frameworks.replay.arrays import difference, fits, floating, is_bool

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

    along: Array
    moved: tuple[Array, ...]
    scale: float
    several: Array


@dataclass(frozen=True)
class Predicate:
    """A discrete array, its values left and right of the ties, and the distance of the compared values."""

    value: Array
    left: Array
    right: Array
    tie: Array
    distance: Array
    motion: Motion | None = None

    @property
    def along(self) -> Array:
        """The value along the directions, where tangents are carried; else the value."""
        return self.value if self.motion is None else self.motion.along

    @staticmethod
    def untied(xp: Any, value: Array) -> Predicate:
        """Wrap a value behind which nothing ties."""
        return Predicate(value, value, value, xp.zeros_like(value, dtype=xp.bool), _far(xp, value))

    def attributes(self) -> Mapping[str, Any]:
        """Give what the record of `where` reads."""
        found: dict[str, Any] = {"left": self.left, "right": self.right, "tie": self.tie, "distance": self.distance}
        return {**found, "along": self.along, "motion": self.motion}


def _far(xp: Any, value: Array) -> Array:
    """Give the distance infinity."""
    return xp.full(tuple(value.shape), float("inf"), dtype=xp.float32, device=device_of(value))


def compare(
    xp: Any,
    name: str,
    a: Any,
    b: Any,
    value: Array,
    moves: Callable[[Array], Motion | None] | None = None,
    tol: float = 0.0,
) -> Predicate:
    """Find the predicate of `a name b`, of which one side moves with the point; `moves` says how it moves at ties.

    What differs by no more than `tol` counts as tied.
    """
    shape = tuple(value.shape)
    equal, gap = a == b, xp.abs(difference(xp, a, b))
    tie = xp.broadcast_to(equal, shape)
    if tol:
        tie = tie | xp.broadcast_to(gap <= tol, shape)
    gap = floating(xp, gap)
    distance = xp.where(equal, 0.0, gap)
    left, right = (xp.where(tie, xp.full_like(value, side), value) for side in SIDES[name])
    motion = moves(tie) if moves is not None and bool(xp.any(tie)) else None
    return Predicate(value, left, right, tie, distance, motion)


def motion_of(
    xp: Any, name: str, value: Array, tie: Array, moved: Sequence[Array], scale: float, deciding: int
) -> Motion:
    """Decide the ties of a comparison by the tangents of a - b along the deciding directions, the first one first."""
    shape = tuple(value.shape)
    moved = [xp.where(tie, m, xp.zeros_like(m)) for m in (xp.broadcast_to(m, shape) for m in moved)]
    noise = ROUNDING * scale * max((float(xp.finfo(m.dtype).eps) for m in moved), default=0.0)
    sign = lexicographic_sign(xp, [xp.where(xp.abs(m) > noise, m, xp.zeros_like(m)) for m in moved[:deciding]])
    left, right = (xp.full_like(value, side) for side in SIDES[name])
    along = xp.where(sign > 0, right, xp.where(sign < 0, left, value))
    return Motion(along, tuple(moved), scale, xp.zeros_like(tie))


def combine(
    xp: Any,
    target: Callable[..., Any],
    args: Any,
    kwargs: Mapping[str, Any],
    value: Array,
    known: Callable[[Array], Predicate | None],
) -> Predicate:
    """Find the predicate of a discrete operation of predicates: the operation, applied to their lefts and rights.

    Of several that tie at once each may be on a side of its own: where that makes a difference that sides alike do not
    show (`(a > 0) & (b < 0)` at a = b = 0), the element ties too. Numbers are those of one predicate.
    """
    kwargs = dict(kwargs)
    parts = [p for t in arrays_of((args, kwargs)) if (p := known(t)) is not None]
    if not parts:
        return Predicate.untied(xp, value)

    def side(name: str, but: Predicate | None = None, there: str = "") -> Array:
        def swap(array: Array) -> Array:
            predicate = known(array)
            return array if predicate is None else getattr(predicate, there if predicate is but else name)

        result = target(*map_arrays(args, swap), **map_arrays(kwargs, swap))
        return result[0] if isinstance(result, tuple | list) else result

    left, right = side("left"), side("right")
    if not is_array(left) or left.dtype != value.dtype or tuple(left.shape) != tuple(value.shape):
        return Predicate.untied(xp, value)
    tie = (left != value) | (right != value)
    if is_bool(xp, value):
        apart = xp.zeros_like(tie)
        for part in parts[1:]:
            for name, there in (("left", "right"), ("right", "left")):
                apart = apart | (side(name, part, there) != value)
        apart = apart & ~tie
        tie = tie | apart
        left, right = left & ~apart, right | apart
    motion = _combined(xp, parts, value, side("along"))
    if motion is not None:
        tie = tie | (motion.along != value)
    return Predicate(value, left, right, tie, _nearest(xp, parts, value), motion)


def _combined(xp: Any, parts: list[Predicate], value: Array, along: Array) -> Motion | None:
    """Gather how the parts of a predicate move; where several of them tie, none speaks for the whole."""
    moving = [(p.motion, p.tie) for p in parts if p.motion is not None]
    if not moving:
        return None
    shape = tuple(value.shape)
    several = met = xp.zeros_like(value, dtype=xp.bool)
    moved = [xp.zeros(shape, dtype=m.dtype, device=device_of(value)) for m in moving[0][0].moved]
    for motion, tie in moving:
        if not fits(tie.shape, shape):
            several = several | xp.any(tie)
            continue
        tie = xp.broadcast_to(tie, shape)
        several = several | xp.broadcast_to(motion.several, shape) | (met & tie)
        met = met | tie
        moved = [a + xp.broadcast_to(b, shape) for a, b in zip(moved, motion.moved, strict=True)]
    return Motion(along, tuple(moved), max(m.scale for m, _ in moving), several)


def _nearest(xp: Any, parts: list[Predicate], value: Array) -> Array:
    """Bound the distance to the nearest tie from below, entry by entry where the shapes allow it."""
    total, shape = _far(xp, value), tuple(value.shape)
    for part in parts:
        near = part.distance
        if not fits(near.shape, shape):
            if 0 in near.shape:
                continue
            near = xp.min(near)
        total = xp.minimum(total, xp.broadcast_to(near, shape))
    return total
