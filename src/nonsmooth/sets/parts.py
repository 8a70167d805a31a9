"""What the sets that are made of other sets check about them."""

from __future__ import annotations

from collections.abc import Sequence

from nonsmooth.errors import UsageError
from nonsmooth.sets.convex import ConvexSet

__all__ = ["read_parts"]


def read_parts(parts: Sequence[ConvexSet], name: str, same_space: bool) -> tuple[ConvexSet, ...]:
    """Check that there is a set, that all are sets, and that they live in one space."""
    found = tuple(parts)
    if not found:
        raise UsageError(f"{name} was given no set; pass at least one.")
    for part in found:
        if not isinstance(part, ConvexSet):
            raise UsageError(f"{name} takes sets; found a {type(part).__name__}. Use Point(v) for a single vector.")
    spaces = sorted({part.space for part in found})
    if same_space and len(spaces) > 1:
        raise UsageError(f"{name} was given sets of R^{spaces[0]} and of R^{spaces[-1]}; pass sets of one space.")
    return found
