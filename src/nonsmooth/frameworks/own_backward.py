"""The backward pass that a framework itself runs, as a list of calls of which the shapes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nonsmooth.program.program import Source
from nonsmooth.program.shaped import ShapedCall

__all__ = ["OwnBackward", "OwnCall", "Phase"]

Phase: TypeAlias = Literal["forward", "backward"]


@dataclass(frozen=True)
class OwnCall:
    """An operation that the framework ran for the value and the gradient.

    Attributes:
        call: the operation and its shapes; a kernel that no record of the dictionary is keeps its own name.
        source: the line of the user's program for which it ran: of a backward operation that of its forward one.
        phase: the pass in which it ran.
        writes: how many numbers it stored in new or changed memory; a view stores none, an array of zeros all of them.
        again: whether it evaluates in the backward pass what the forward pass had evaluated (a checkpoint).
        fills: how many of the numbers stored are zeros around a view's cotangent: the dense backward of an index.
        module: the path of the module for which it ran; "" outside of all.
    """

    call: ShapedCall
    source: Source | None
    phase: Phase
    writes: int = 0
    again: bool = False
    fills: int = 0
    module: str = ""


@dataclass(frozen=True)
class OwnBackward:
    """What a framework ran for the value and the gradient of a program, in its order.

    `outside` is the line that called the function, of what ran where no line of the function's own did: a model of layers.
    """

    entries: tuple[OwnCall, ...]
    outside: Source | None = None
