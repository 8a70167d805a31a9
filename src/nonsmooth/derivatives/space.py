"""The space of a point: trees of arrays as vectors of double precision, and back."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework, find_framework

__all__ = ["Space", "Vector"]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Space:
    """The space of a point: trees of arrays as vectors of double precision, and back."""

    def __init__(self, x: Any) -> None:
        self.framework: Framework = find_framework(x)
        self._flatten, self._unflatten = self.framework.flatten, self.framework.unflatten
        self._copy, self.preserved = self.framework.copy_of, self.framework.preserved
        self.leaves = [self.framework.detached(leaf) for leaf in self.framework.check_point(x)]
        self.structure, self.shapes = self._flatten(x)[1], [tuple(leaf.shape) for leaf in self.leaves]
        self._cuts = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        self.x, self.eps = self.vector(x), self.framework.eps(x)

    def vector(self, tree: Any) -> Vector:
        """Lay the entries of a tree in a row."""
        arrays = [np.ravel(a) for a in self.framework.arrays(tree)]
        return np.concatenate(arrays).astype(np.float64)

    def tensors(self, vector: Vector) -> list[Any]:
        """Cut a vector into new leaves of the types of the point."""
        parts = np.split(vector, self._cuts) if len(self.leaves) > 1 else [vector]
        found = zip(parts, self.leaves, self.shapes, strict=True)
        return [self.framework.array_like(leaf, part.reshape(shape)) for part, leaf, shape in found]

    def unflatten(self, leaves: list[Any]) -> Any:
        """Put leaves into the structure of the point."""
        return self._unflatten(leaves, self.structure)

    def tree(self, vector: Vector) -> Any:
        """Put a vector into the structure and the types of the point."""
        return self.unflatten(self.tensors(vector))

    def copies(self, data: tuple[Any, ...]) -> Any:
        """Copy data, so that nobody's are changed."""
        if not data:
            return data
        items, structure = self._flatten(data)
        return self._unflatten([self._copy(t) for t in items], structure) if items else data

    def numpy(self, array: Any) -> Vector:
        """Give an array to numpy, in double precision."""
        return np.asarray(self.framework.numpy(array), dtype=np.float64)

    def read(self, tree: Any, what: str) -> Vector:
        """Read what the user gives as a point or a gradient.

        Raises:
            UsageError: it has another structure or other shapes than the point.
        """
        leaves, structure = self._flatten(tree)
        shapes = [tuple(getattr(leaf, "shape", ())) for leaf in leaves]
        if shapes != self.shapes or (len(shapes) > 1 and structure != self.structure):
            raise UsageError(
                f"{what} must be like the point, of shapes {self.shapes}; found {type(tree).__name__} of shapes {shapes}."
            )
        arrays = [self.framework.numpy(leaf) if self.framework.holds(leaf) else leaf for leaf in leaves]
        return np.concatenate([np.ravel(np.asarray(a, dtype=np.float64)) for a in arrays])

    def name(self, vector: Vector) -> str:
        """Print a vector shortly."""
        shown = ", ".join(f"{e:.6g}" for e in vector[:6])
        return f"[{shown}{', ...' if len(vector) > 6 else ''}]"
