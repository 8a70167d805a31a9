"""The space of points of a framework: trees of arrays as vectors, with directions, unit vectors and sums."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.replay.arrays import is_real_floating

__all__ = ["Space"]


class Space(ABC):
    """The points of a framework; its hooks are what an array of it is, and how one is made, read and differentiated."""

    name: str
    xp: Any
    array_word: str
    """What the framework calls an array."""

    @staticmethod
    @abstractmethod
    def flatten(tree: Any) -> tuple[list[Any], Any]:
        """Give the leaves of a tree and its structure."""

    @staticmethod
    @abstractmethod
    def unflatten(leaves: list[Any], structure: Any) -> Any:
        """Put leaves back into their structure."""

    @staticmethod
    @abstractmethod
    def is_array(leaf: Any) -> bool:
        """Tell what can stand for an array of the framework."""

    @staticmethod
    @abstractmethod
    def detached(array: Any) -> Any:
        """Give an array without its graph."""

    @staticmethod
    @abstractmethod
    def numpy(array: Any) -> Any:
        """Give the values of an array to numpy."""

    @staticmethod
    @abstractmethod
    def array_like(leaf: Any, values: Any) -> Any:
        """Make an array of the type of a leaf."""

    @staticmethod
    @abstractmethod
    def finite(tree: Any) -> bool:
        """Tell whether all entries of a tree of arrays are finite."""

    @staticmethod
    @abstractmethod
    def differentiate(
        function: Callable[[list[Any]], Any], leaves: list[Any], cotangent: list[Any] | None, wanted: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a function by the framework alone: its floating results, and the pullback of a cotangent (ones if None)."""

    @staticmethod
    @abstractmethod
    def lattice(leaf: Any, digits: list[Any]) -> Any:
        """Make an array like a leaf of digits to the base 256: odd multiples of 1/256 in [-1, 1], none 0; then finer ones."""

    def draw(self, x: Any, seed: int, digits: int = 1) -> Any:
        """Draw a direction like the point, its entries multiples of 1/256 in [-1, 1] and not 0 (finer with more digits)."""
        leaves, structure = self.flatten(x)
        source, drawn = np.random.SFC64(seed), []
        for leaf in leaves:
            n = math.prod(leaf.shape)
            drawn.append(self.lattice(leaf, [source.random_raw(n // 8 + 1).view(np.uint8)[:n] for _ in range(digits)]))
        return self.unflatten(drawn, structure)

    def arrays(self, tree: Any) -> list[Any]:
        """Give the leaves of a tree of arrays to numpy."""
        return [self.numpy(t) for t in self.flatten(tree)[0]]

    def stack(self, trees: list[Any]) -> Any:
        """Stack trees of arrays of one structure along a new last axis."""
        structure = self.flatten(trees[0])[1]
        leaves = zip(*(self.flatten(t)[0] for t in trees), strict=True)
        return self.unflatten([self.xp.stack(row, axis=-1) for row in leaves], structure)

    def combine(self, trees: Sequence[Any], weights: Sequence[float]) -> Any:
        """Add trees of arrays up, each times a number."""
        rows, structure = zip(*(self.flatten(t)[0] for t in trees), strict=True), self.flatten(trees[0])[1]
        sums = [sum(w * self.detached(t) for w, t in zip(weights, r, strict=True)) for r in rows]
        return self.unflatten(sums, structure)

    def eps(self, tree: Any) -> float:
        """Give the unit of rounding of the arrays of a tree."""
        leaves = [t for t in self.flatten(tree)[0] if is_real_floating(self.xp, t)]
        return max((float(self.xp.finfo(t.dtype).eps) for t in leaves), default=0.0)

    def columns(self, x: Any, directions: Any) -> list[Any]:
        """Read directions: a list of trees like the point, or for an array one array whose last axis counts them."""
        if self.is_array(x) and self.is_array(directions):
            if directions.ndim == 0 or directions.shape[:-1] != x.shape:
                article = "an" if self.array_word[0] in "aeiou" else "a"
                raise UsageError(
                    f"directions of a point of shape {tuple(x.shape)} are {article} {self.array_word} of shape "
                    f"{tuple(x.shape)} + (k,), or a list of k {self.array_word}s of that shape; found shape "
                    f"{tuple(directions.shape)}."
                )
            return [directions[..., k] for k in range(directions.shape[-1])]
        if not isinstance(directions, list | tuple) or not directions:
            raise UsageError(f"directions are a list of trees like the point; found {type(directions).__name__}.")
        return list(directions)

    def units(self, x: Any) -> list[Any]:
        """Give the unit vectors of the point's space, one for each of its entries."""
        return [self.unflatten_flat(x, row) for row in np.eye(self._ends(x)[-1])]

    def unflatten_entries(self, x: Any, entries: Any) -> Any:
        """Put one number for each entry of the point into its structure."""
        row = self.xp.reshape(self.xp.asarray(self.detached(entries)), (-1,))
        return self._laid_out(x, lambda leaf, part: self.xp.astype(part, leaf.dtype, copy=False), row)

    def unflatten_flat(self, x: Any, vector: Any) -> Any:
        """Put a flat array of numpy into the structure of the point."""
        return self._laid_out(x, self.array_like, np.asarray(vector, dtype=np.float64).reshape(-1))

    def _laid_out(self, x: Any, made: Callable[[Any, Any], Any], row: Any) -> Any:
        """Cut a row of numbers into parts, shaped like the leaves of the point and made into arrays like them."""
        leaves, structure = self.flatten(x)
        ends = self._ends(x)
        parts = [row[a:b].reshape(tuple(t.shape)) for a, b, t in zip(ends, ends[1:], leaves, strict=False)]
        return self.unflatten([made(t, p) for t, p in zip(leaves, parts, strict=True)], structure)

    def _ends(self, x: Any) -> list[int]:
        """Give where the leaves of the point begin in a flat array, and their number of entries."""
        return [0, *np.cumsum([math.prod(t.shape) for t in self.flatten(x)[0]], dtype=int).tolist()]

    def flat(self, tree: Any) -> Any:
        """Lay a tree of arrays out as one flat array of numpy, in double precision."""
        parts = [np.asarray(self.numpy(t), dtype=np.float64).ravel() for t in self.flatten(tree)[0]]
        return np.concatenate(parts) if parts else np.zeros(0)

    def flat_like(self, x: Any, tree: Any, what: str = "a vector") -> Any:
        """Lay out a tree of the structure of the point, or a flat array of as many entries; refuse anything else."""
        (leaves, structure), (own, wanted), n = self.flatten(tree), self.flatten(x), self._ends(x)[-1]
        if self.is_array(tree) and tuple(tree.shape) == (n,):
            return self.flat(tree)
        fitting = structure == wanted and all(
            self.is_array(t) and t.shape == u.shape for t, u in zip(leaves, own, strict=True)
        )
        if not fitting:
            shapes = [tuple(t.shape) if self.is_array(t) else type(t).__name__ for t in leaves]
            raise UsageError(
                f"{what} has the structure and the shapes of the point, {[tuple(t.shape) for t in own]}, or is a flat array of "
                f"{n} numbers; found {shapes}."
            )
        return self.flat(tree)
