"""The extreme points among finitely many points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from nonsmooth.sets.minimum_norm import MinimumNorm, Support, find_nearest
from nonsmooth.sets.span import NOISE

__all__ = ["REDUNDANT", "extreme_points"]

Vector = NDArray[np.float64]

REDUNDANT = 1e-10
"""A point nearer to the hull of the others, relative to the size of the set, is not extreme."""

LOW = 4
"""Up to this dimension Qhull sorts out most points first."""


def extreme_points(points: Vector) -> NDArray[np.intp]:
    """Give the indices of the extreme points, in rising order; of equal points one.

    A point is tested against the extreme points known so far only: either it is in their hull, or the direction that
    separates it leads to a new extreme point. Status: `computed`, up to the tolerance `REDUNDANT`.

    Args:
        points: shape (m, space).

    >>> extreme_points(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.5, 0.5]]))
    array([0, 1, 3])

    Source: Clarkson1994.
    """
    kept = np.sort(np.unique(points, axis=0, return_index=True)[1])
    x = _coordinates(points[kept])
    size = float(np.linalg.norm(x, axis=1).max(initial=0.0))
    if x.shape[1] == 0:
        return np.asarray(kept[:1])
    if x.shape[1] == 1:
        return np.asarray(kept[np.unique([x[:, 0].argmin(), x[:, 0].argmax()])])
    if x.shape[1] <= LOW:
        chosen = _qhull(x)
        x, kept = x[chosen], kept[chosen]
    first: Vector = np.random.default_rng(0).standard_normal((x.shape[1],))
    known = [_farthest(x, first, size)]
    for i in range(len(x)):
        while i not in known:
            found = _nearest(x[known], x[i], REDUNDANT * size)
            if found.norm.lower <= REDUNDANT * size or found.direction is None:
                break
            known.append(_farthest(x, found.direction, size, known))
    return np.asarray(kept[np.sort(known)])


def _coordinates(points: Vector) -> Vector:
    """Give coordinates in the affine hull, centred, without changing lengths."""
    centred = points - points.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    noise = NOISE * float(np.linalg.norm(points))
    rank = int((s > max(REDUNDANT * float(s.max(initial=0.0)), noise)).sum())
    return np.asarray(u[:, :rank] * s[:rank])


def _qhull(x: Vector) -> NDArray[np.intp]:
    """Give the indices of what Qhull takes for vertices; all of them where it fails."""
    try:
        return np.sort(np.asarray(ConvexHull(x).vertices)).astype(np.intp)
    except QhullError:
        return np.arange(len(x))


def _farthest(x: Vector, d: Vector, size: float, known: list[int] | None = None) -> int:
    """Give the index of an extreme point that is farthest along d: of those that tie, the longest."""
    values = x @ d
    tied = np.flatnonzero(values >= values.max() - 1e-12 * size * np.linalg.norm(d))
    tied = np.setdiff1d(tied, known or [])
    return int(tied[np.linalg.norm(x[tied], axis=1).argmax()])


def _nearest(points: Vector, target: Vector, threshold: float) -> MinimumNorm:
    """Give the element of the hull of points nearest to a target."""

    def support(d: Vector) -> Support:
        i = int((points @ d).argmax())
        return Support(float(points[i] @ d), float(points[i] @ d), points[i])

    return find_nearest(support, target, threshold=threshold)
