"""Affine images of a set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import read_array
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.extreme import extreme_points
from nonsmooth.sets.minimum_norm import Support

__all__ = ["Image"]

Vector = NDArray[np.float64]
Linear = Callable[[Vector], Vector]


class Image(ConvexSet):
    """The image of a set under a linear map A and a translation, both directions of which are given as functions.

        C = { offset + A l : l in inner },   h(d) = <offset, d> + h_inner(A' d)

    Status: `computed`, exact where the inner set is. That `push` is the transpose of `pull` is not checked.

    Args:
        inner: a set.
        pull: l -> A l, from shape (inner.space,) to shape (space,).
        push: d -> A' d, from shape (space,) to shape (inner.space,).
        space: the number of coordinates of the image.
        offset: shape (space,); 0 by default.

    Raises:
        UsageError: a map that gives another shape, an offset of another shape, nan or infinity.

    >>> from nonsmooth.sets import Segments
    >>> interval = Segments([-1.0], [[2.0]])
    >>> Image(interval, lambda l: np.array([l[0], 2 * l[0]]), lambda d: d[:1] + 2 * d[1:], 2).support([1.0, 1.0])
    3.0

    Source: Rockafellar1970.
    """

    def __init__(self, inner: ConvexSet, pull: Linear, push: Linear, space: int, offset: Any = None) -> None:
        self.inner, self.pull, self.push = inner, pull, push
        self._space = int(space)
        self.offset = np.zeros(self._space) if offset is None else read_array(offset, "the offset of an Image")
        if self.offset.shape != (self._space,):
            raise UsageError(
                f"Image was given an offset of shape {self.offset.shape}; pass the shape ({self._space},)."
            )

    @classmethod
    def of_matrix(cls, inner: ConvexSet, matrix: Any, offset: Any = None) -> Image:
        """Give the image { offset + A l : l in inner } under a matrix.

        Args:
            inner: a set.
            matrix: A, shape (space, inner.space).
            offset: shape (space,); 0 by default.

        Raises:
            UsageError: shapes that do not fit, nan or infinity.

        >>> from nonsmooth.sets import Ball
        >>> Image.of_matrix(Ball([0.0, 0.0], 1.0), [[3.0, 4.0]]).support([1.0])
        5.0

        Source: Rockafellar1970.
        """
        a = read_array(matrix, "the matrix of an Image")
        if a.ndim != 2 or a.shape[1] != inner.space:
            raise UsageError(
                f"Image.of_matrix was given a matrix of shape {a.shape} and a set in R^{inner.space}; pass the shape "
                f"(space, {inner.space})."
            )
        return cls(inner, partial(np.matmul, a), partial(np.matmul, a.T), len(a), offset)

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return self._space

    @property
    def exact(self) -> bool:
        """Whether the inner set is exact."""
        return self.inner.exact

    def _support(self, d: Vector) -> Support:
        shift = float(self.offset @ d)
        found = self.inner._support(_shaped(self.push(d), self.inner.space, "push"))
        return Support(found.lower + shift, found.upper + shift, self._element(found.point))

    def _element(self, inner: Vector) -> Vector:
        """Give the image of an element."""
        return self.offset + _shaped(self.pull(inner), self._space, "pull")

    def _vertices(self, limit: int) -> Vector:
        points = np.array([self._element(v) for v in self.inner.vertices(limit)])
        return points[extreme_points(points)]

    def _sample(self, n: int, rng: np.random.Generator) -> Vector:
        return np.array([self._element(v) for v in self.inner._sample(n, rng)]).reshape(n, self._space)

    def _enclosing(self) -> ConvexSet | None:
        outer = self.inner._enclosing()
        return None if outer is None else Image(outer, self.pull, self.push, self._space, self.offset)

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        pull, push = partial(_scaled, self.pull, factor), partial(_scaled, self.push, factor)
        return Image(self.inner, pull, push, self._space, factor * self.offset + offset)


def _scaled(linear: Linear, factor: float, v: Vector) -> Vector:
    """Apply a multiple of a map."""
    return factor * linear(v)


def _shaped(v: Vector, space: int, name: str) -> Vector:
    """Check what a map gave."""
    found = np.asarray(v, dtype=np.float64)
    if found.shape != (space,):
        raise UsageError(f"`{name}` of an Image gave shape {found.shape}; it must give the shape ({space},).")
    return found
