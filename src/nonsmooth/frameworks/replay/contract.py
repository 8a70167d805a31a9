"""What is the same in every framework's side of the contract, `frameworks.framework.Framework`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from nonsmooth.errors import ResultError, UsageError
from nonsmooth.frameworks.framework import Evaluation
from nonsmooth.frameworks.replay.arrays import is_real_floating, size
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.frameworks.replay.pieces import outcomes, pieces
from nonsmooth.frameworks.replay.space import Space
from nonsmooth.program import Program

__all__ = ["Contract"]


class Contract(Space):
    """The walks over pieces, and the checks of what a framework is handed."""

    unforced = staticmethod(unforced)

    def pieces(self, program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
        """Walk the programs that are active at the point."""
        return pieces(program, x, data, limit=limit)

    def outcomes(self, program: Program, x: Any, data: tuple[Any, ...], *, limit: int = 64) -> Iterator[Program]:
        """Walk the programs of all outcomes of the tied elements behind guards."""
        return outcomes(program, x, data, limit=limit)

    def scalar(self, evaluation: Evaluation) -> Any:
        """Give the scalar result, or say that it is none."""
        results = self.flatten(evaluation.result)[0]
        if len(results) != 1 or math.prod(results[0].shape) != 1:
            shapes = [tuple(r.shape) for r in results]
            raise ResultError(
                f"a gradient needs a scalar function; this one returns {len(results)} {self.array_word}(s) of shape {shapes}. "
                "Reduce it (`.sum()`, `.mean()`), or differentiate one entry."
            )
        if not is_real_floating(self.xp, results[0]):
            raise ResultError(
                f"a gradient needs a real function; this one returns a number of type {results[0].dtype}. Return a "
                "floating number: for a complex one its real part or its absolute value."
            )
        return results[0]

    def _direction(self, program: Program, v: Any) -> list[Any]:
        """Check that a direction fits the point of a program."""
        leaves, structure = self.flatten(v() if callable(v) else v)
        if structure != program.structure:
            raise UsageError(f"a direction needs the structure of the point, {program.structure}; found {structure}.")
        fitting = []
        for leaf, value in zip(leaves, program.inputs, strict=True):
            known = program.values[value]
            if not self.is_array(leaf) or tuple(leaf.shape) != known.shape:
                found = f"the shape {tuple(leaf.shape)}" if self.is_array(leaf) else f"a {type(leaf).__qualname__}"
                other = "" if self.is_array(leaf) else f": a direction is made of {self.array_word}s like the point"
                raise UsageError(
                    f"the direction of {known.name} must be a {self.name} {self.array_word} of its shape {known.shape}; found "
                    f"{found}{other}."
                )
            if self.xp.isdtype(leaf.dtype, "complex floating") or not self.finite(leaf):
                raise UsageError(f"the direction of {known.name} must be real and finite.")
            fitting.append(self.xp.asarray(self.detached(leaf)))
        return fitting

    def _along(self, program: Program, leaves: list[Any], directions: Sequence[Any], distance: float) -> list[Any]:
        """Give x + t v_1 + t^2 v_2 + ..., t a distance in units of the square root of rounding; see `holds_at`."""
        moved = [self.detached(t) for t in leaves]
        step = distance * self.eps(moved) ** 0.5
        length_of_point = max((size(self.xp, t) for t in moved), default=0.0)
        for power, v in enumerate(directions):
            parts = self._direction(program, v)
            length = max((size(self.xp, p) for p in parts), default=0.0)
            scale = step * 2.0 ** (-8 * power) * (1 + length_of_point) / length if length else 0.0
            moved = [t + scale * p for t, p in zip(moved, parts, strict=True)]
        return moved
