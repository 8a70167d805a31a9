"""Where a kernel of torch's own two passes belongs: the line and the module, by frames forward and by nodes backward."""

from __future__ import annotations

import bisect
import linecache
import os
import sys
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from nonsmooth.frameworks.torch.sources import _is_library
from nonsmooth.program import Program, Source

__all__ = ["OUTSIDE", "Nodes", "Place", "inner_frame", "line_outside"]

OUTSIDE = Source("", 0)
"""Stands for the line that called the function where no line of the function's own did, as in a model of torch's layers."""

_CHECKPOINT = os.path.join("torch", "utils", "checkpoint.py")


@dataclass(frozen=True)
class Place:
    """A line of the user's program, and the path of the module that runs."""

    source: Source | None
    module: str = ""


@dataclass
class Nodes:
    """The places at which the nodes of the graph were made, in the order of their numbers."""

    numbers: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def until(self, number: int, place: Place) -> None:
        """Note that all nodes below a number, as far as they are new, were made at a place."""
        if not self.numbers or self.numbers[-1] < number:
            self.numbers.append(number)
            self.places.append(place)

    def place(self, node: Any) -> Place:
        """Find the place of a node; one that writes to a view is numbered after the kernel that wrote."""
        found = bisect.bisect_right(self.numbers, node._sequence_nr())
        found -= node.name().endswith("CopySlices") and found > 0
        return self.places[found] if found < len(self.places) else Place(None)


def inner_frame(root: CodeType) -> tuple[Source, bool]:
    """Find the innermost line of the user's above a root that runs, and whether a checkpoint called it."""
    frame: FrameType | None = sys._getframe(1)
    found, checkpoint = OUTSIDE, False
    while frame is not None and frame.f_code is not root:
        file = frame.f_code.co_filename
        checkpoint = checkpoint or file.endswith(_CHECKPOINT)
        if found is OUTSIDE and not _is_library(file):
            text = linecache.getline(file, frame.f_lineno).strip()
            found = Source(file, frame.f_lineno, frame.f_code.co_name, text)
        frame = frame.f_back
    return found, checkpoint


def line_outside(program: Program, met: set[Source | None]) -> Source | None:
    """Find the line that capture was called on, if steps have it: the only one of theirs that was not met here."""
    others = {s.source for s in program.steps if s.source is not None} - met
    return others.pop() if len(others) == 1 else None
