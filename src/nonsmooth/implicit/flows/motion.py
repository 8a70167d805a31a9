"""A differential equation as numbers of numpy: what a course is followed with, by the operations of a framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np

from nonsmooth.errors import ResultError, StaleProgram
from nonsmooth.implicit.flows.held import Entry
from nonsmooth.implicit.flows.piece import Pattern, Pieces
from nonsmooth.program import Program

__all__ = ["LEAST_STEPS", "Motion"]

LEAST_STEPS = 32
"""The least number of steps of the integrator: its error control sees the solution, and not the sensitivities."""

WIDE, CLOSE = 1e-2, 1e-6
"""At what distances beside a point f is looked at, to see whether it jumps there."""


class Motion(ABC):
    """y' = f(t, y, *theta) at given parameters.

    Attributes:
        function: f.
        moving_times: whether what is asked for is differentiated in the times.
        known: the pieces of the programs met so far; one without an `if` on data has one program.
        name: what f is called.
    """

    def __init__(self, framework: Any, function: Callable[..., Any], y0: Any, theta: Sequence[Any]) -> None:
        self.framework, self.function, self.y0, self.theta = framework, function, y0, list(theta)
        self.known: list[Pieces] = []
        self.double, self.moving_times = True, False
        self.name = str(getattr(function, "__name__", type(function).__name__))

    @property
    def begin(self) -> Any:
        """y(start), of numpy."""
        return np.array(self.framework.numpy(self.still(self.y0)), dtype=float)

    # --- what a framework does in its own way ------------------------------------------------------------------------

    @abstractmethod
    def still(self, array: Any) -> Any:
        """Cut an array off from derivatives."""

    @abstractmethod
    def quiet(self) -> AbstractContextManager[Any]:
        """Give the context in which no derivatives are recorded."""

    @abstractmethod
    def closed_over(self) -> Any:
        """Give what identifies the parameters that f closes over."""

    @abstractmethod
    def attached(self, program: Program) -> Program:
        """Give a captured program with the parameters that f closes over, so that derivatives reach them."""

    @abstractmethod
    def compiled(self, run: Callable[[Sequence[Any], Any], Any]) -> Callable[[Sequence[Any], Any], Any]:
        """Give a function of leaves and patterns, compiled where the framework compiles."""

    @abstractmethod
    def gradients(self, pieces: Pieces, leaves: Sequence[Any], pattern: Any, seed: int) -> Any:
        """Give the derivative of <c, f_s> for a drawn c in everything that may move, as one flat array of numpy."""

    @property
    def shortest(self) -> float:
        """The stretch of time, relative to its end, that is left to one step of Heun's method."""
        return 1e-9 if self.double else 1e-5

    # --- the rest ----------------------------------------------------------------------------------------------------

    def leaves(self, t: float, y: Any) -> list[Any]:
        """Give the inputs of the program."""
        like, theta = self._still
        return [self.framework.array_like(like, t), self.framework.array_like(like, y), *theta]

    @cached_property
    def _still(self) -> tuple[Any, list[Any]]:
        """Cut y0 and the leaves of theta off from derivatives, once."""
        return self.still(self.y0), self.framework.flatten([self.still_tree(p) for p in self.theta])[0]

    def still_tree(self, tree: Any) -> Any:
        """Cut the arrays of a tree off from derivatives."""
        leaves, structure = self.framework.flatten(tree)
        return self.framework.unflatten([self.still(leaf) for leaf in leaves], structure)

    def arrays(self, pattern: Pattern) -> Any:
        """Give a pattern as arrays of the framework."""
        if self._latest is None or self._latest[0] is not pattern:
            like = self._still[0]
            made = tuple(tuple(self.framework.array_like(like, e) for e in entry) for entry in pattern)
            self._latest = pattern, made
        return self._latest[1]

    _latest: tuple[Pattern, Any] | None = None

    def enter(self, t: float, y: Any) -> Pieces:
        """Give the pieces of the program that is valid at a point."""
        leaves = self.leaves(t, y)
        for pieces in self.known:
            if not pieces.original.guards or self._valid(pieces, leaves):
                return pieces

        def field(x: Any) -> Any:
            return self.function(x[0], x[1], *x[2])

        theta = [self.still_tree(p) for p in self.theta]
        program = self.framework.capture(field, (leaves[0], leaves[1], theta), ())
        results = self.framework.flatten(program.result)[0]
        found = program.values[results[0].value].shape if len(results) == 1 and hasattr(results[0], "value") else None
        if found != tuple(self.y0.shape):
            raise ResultError(
                f"flow: f(t, y, *theta) gives y', an array of the shape {tuple(self.y0.shape)} of y; {self.name} gave "
                f"{'an array of shape ' + str(found) if found is not None else f'{len(results)} arrays or a constant'}."
            )
        pieces = Pieces(self.attached(program), self.still)
        for name in ("run", "natural", "distances", "margins"):
            setattr(pieces, f"compiled_{name}", self.compiled(getattr(pieces, name)))
        self.known.append(pieces)
        return pieces

    def agrees(self, pieces: Pieces, t: float, y: Any, pattern: Pattern) -> bool:
        """Tell whether a held piece gives what f gives at a point: a program may have been captured of another f.

        With coarse tolerances the point may be a little past a kink of the piece that is held, so that the piece which the
        point itself lies on counts, too.
        """
        value = self.value(self.leaves(t, y))
        allowed = (1e-6 if self.double else 1e-3) * (1 + np.abs(value).max(initial=0.0))

        def same(pattern: Pattern) -> bool:
            return bool(np.abs(value - self.run(pieces, t, y, pattern)[0]).max(initial=0.0) <= allowed)

        return same(pattern) or same(self.natural(pieces, t, y))

    def key(self) -> Any:
        """Give what a program depends on beside values."""
        leaves, structure = self.framework.flatten([self.y0, *self.theta])
        kinds = tuple((tuple(x.shape), str(x.dtype)) if hasattr(x, "shape") else x for x in leaves)
        return self.framework.name, str(structure), kinds, self.closed_over()

    def _valid(self, pieces: Pieces, leaves: list[Any]) -> bool:
        """Tell whether the guards of a program come out the same at a point."""
        try:
            with self.quiet():
                self.framework.replay(pieces.original, leaves, [])
        except StaleProgram:
            return False
        return True

    def run(self, pieces: Pieces, t: float, y: Any, pattern: Pattern) -> tuple[Any, Any]:
        """Give f_s(t, y) and the margins, as arrays of numpy."""
        with self.quiet():
            f, margins = pieces.compiled_run(self.leaves(t, y), self.arrays(pattern))  # type: ignore[attr-defined]
            flat = [np.ravel(np.asarray(self.framework.numpy(m), dtype=float)) for m in margins]
            value = self.framework.flatten(f)[0][0]
        return np.asarray(self.framework.numpy(value), dtype=float), np.concatenate([*flat, np.zeros(0)])

    def nearby(self, t: float, y: Any, seed: int, size: float, time: bool = True) -> list[Any]:
        """Give inputs of the program beside a point, in a direction drawn for the seed; with or without another time."""
        rng = np.random.default_rng(seed)
        moved: list[Any] = []
        for leaf in self.leaves(t, y):
            value = np.asarray(self.framework.numpy(leaf), dtype=float)
            v = rng.choice([-1.0, 1.0], value.shape) * rng.uniform(0.5, 1.0, value.shape)
            moved.append(self.framework.array_like(leaf, value + size * v) if moved or time else leaf)
        return moved

    def value(self, leaves: Sequence[Any]) -> Any:
        """Give f itself, as an array of numpy."""
        structure = self.framework.flatten(self.theta)[1]
        with self.quiet():
            given = self.function(leaves[0], leaves[1], *self.framework.unflatten(list(leaves[2:]), structure))
        return np.asarray(self.framework.numpy(self.still(given)), dtype=float)

    def jumps_near(self, t: float, y: Any, least: float, band: float, time: bool) -> bool:
        """Tell whether f jumps within a band about a point: a difference over it that does not shrink with the distance."""
        size = 1 + float(np.abs(y).max(initial=0.0))
        for seed in range(3):
            wide, close = (
                np.abs(
                    self.value(self.nearby(t, y, seed, h, time)) - self.value(self.nearby(t, y, seed, -h, time))
                ).max(initial=0.0)
                for h in (WIDE * size, max(CLOSE * size, 4 * band))
            )
            if wide > least and close > wide / 2:
                return True
        return False

    def margins_near(self, pieces: Pieces, t: float, y: Any, pattern: Pattern, seed: int, size: float) -> Any:
        """Give the margins beside a point, flat."""
        with self.quiet():
            found = pieces.compiled_run(self.nearby(t, y, seed, size), self.arrays(pattern))[1]  # type: ignore[attr-defined]
        return np.concatenate(
            [np.ravel(np.asarray(self.framework.numpy(m), dtype=float)) for m in found] + [np.zeros(0)]
        )

    def distances(self, pieces: Pieces, t: float, y: Any, pattern: Pattern) -> tuple[Any, Any]:
        """Give the distances to the kinks that cannot be held, flat, and the place of its step for each."""
        with self.quiet():
            found = pieces.compiled_distances(self.leaves(t, y), self.arrays(pattern))  # type: ignore[attr-defined]
            flat = [
                np.concatenate(
                    [np.ravel(np.asarray(self.framework.numpy(m), dtype=float)) for m in ms] or [np.zeros(0)]
                )
                for ms in found
            ]
        return np.concatenate([*flat, np.zeros(0)]), np.repeat(np.arange(len(flat)), [len(m) for m in flat])

    def natural(self, pieces: Pieces, t: float, y: Any) -> Pattern:
        """Give the pattern of a point."""
        return self._natural(pieces, self.leaves(t, y))

    def _natural(self, pieces: Pieces, leaves: list[Any]) -> Pattern:
        """Give the pattern at some inputs."""
        with self.quiet():
            return tuple(map(self._on_host, pieces.compiled_natural(leaves, ())))  # type: ignore[attr-defined]

    def _on_host(self, entry: Entry) -> Entry:
        """Give the arrays of an entry to numpy."""
        return tuple(np.asarray(self.framework.numpy(e), dtype=float) for e in entry)

    def beside(self, pieces: Pieces, t: float, y: Any, pattern: Pattern, mask: Any, seed: int) -> Pattern:
        """Give the pattern with the elements of a mask where they are a little beside the point, in a drawn direction."""
        moved = self.nearby(t, y, seed // 2, 1e-3 if seed % 2 == 0 else -1e-3)
        return pieces.mixed(pattern, mask, self._natural(pieces, moved))

    def selections_differ(self, pieces: Pieces, t: float, y: Any, pattern: Pattern, mask: Any, count: int) -> Any:
        """Tell which elements of a mask are chosen differently beside the point by selections of different derivatives."""
        chosen = [self.beside(pieces, t, y, pattern, mask, seed) for seed in range(count)]
        leaves = self.leaves(t, y)
        found = [self.gradients(pieces, leaves, self.arrays(p), 0) for p in chosen]
        flat = [np.concatenate([np.ravel(e) for entry in p for e in entry]) for p in chosen]
        differs = np.zeros(len(mask), bool)
        for gradient, entries in zip(found[1:], flat[1:], strict=True):
            if np.abs(gradient - found[0]).max(initial=0.0) > 1e-9 * (1 + np.abs(found[0]).max(initial=0.0)):
                differs |= entries != flat[0]
        return differs & mask
