"""The projection on a simplex: entries less one threshold, those above 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian, finite, read_point, spread, subsets
from nonsmooth.implicit.projections.parameters import check_axes, size

__all__ = ["above_threshold", "simplex", "simplex_jacobian", "threshold"]


def threshold(falling: Any, total: Any) -> Any:
    """Give the t with sum max(0, z - t) = total, from the entries of z in falling order: max_k (z_1 + .. + z_k - total) / k.

    Where several k attain it the smallest is chosen: the entries that equal t count as below it. The largest is read off
    a stable sort, since a maximum would be differentiated by one rule in torch and by another one in JAX.
    """
    xp = array_namespace(falling)
    counts = xp.asarray(list(range(1, falling.shape[-1] + 1)), dtype=falling.dtype)
    cuts = (xp.cumulative_sum(falling, axis=-1) - total) / counts
    return xp.sort(xp.flip(cuts, axis=-1), axis=-1)[..., -1:]


def simplex(z: Any, total: Any = 1.0) -> Any:
    """Give the element nearest to z of a simplex, along the last axis.

        P(z) = max(0, z - t),   t such that sum P(z) = total

    Differentiable in z and in the total; where an entry equals the threshold it counts as 0. Status: `computed`.

    Args:
        z: a tensor or an array of JAX, shape (..., n).
        total: what the entries sum to: a positive number, or an array of the leading shape; where that is not positive the result
            is nan.

    Raises:
        UsageError: a total that is not positive, no axis, or no floating numbers.

    >>> import torch
    >>> simplex(torch.tensor([[2.0, 1.5, 0.0], [0.0, 0.0, 0.0]]))
    tensor([[0.7500, 0.2500, 0.0000],
            [0.3333, 0.3333, 0.3333]])

    Source: Rockafellar1970, derived, docs/theory/projections.md.
    """
    check_axes(z, 1, "simplex")
    xp, total = array_namespace(z), size(z, total, "total", "simplex")
    falling = xp.flip(xp.sort(z, axis=-1), axis=-1)
    top = falling[..., :1]
    return find_framework(z).relu((z - top) - threshold(falling - top, total))


def simplex_jacobian(z: Any, total: float = 1.0, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give the hull of diag(1_S) - 1_S 1_S'/|S| over the sets S between { z > t } and { z >= t }."""
    y, tol = read_point(z, 1, "simplex", tolerance)
    return above_threshold(y, np.ones(len(y)), total, tol, "simplex")


def above_threshold(y: Floats, signs: Floats, total: float, tol: float, name: str) -> ProjectionJacobian:
    """Give the Jacobians of the nonnegative entries of `signs` y beyond the threshold: projectors on { v_S : s'v = 0 }."""
    magnitudes = signs * y - np.max(signs * y)  # a large offset would swallow the total
    falling = -np.sort(-magnitudes)
    t = float(np.max((np.cumsum(falling) - total) / np.arange(1, len(y) + 1)))
    tol = min(tol, 1e-3 * total / len(y))  # the largest is above the threshold by total / n, or more
    sure, tied = magnitudes > t + tol, np.flatnonzero(np.abs(magnitudes - t) <= tol)
    extreme = np.array([_tangent(sure, tied[chosen > 0], signs) for chosen in subsets(tied, 2, name)])
    smallest, largest = _tangent(sure, tied[:0], signs), _tangent(sure, tied, signs)
    return finite(extreme, smallest, largest, spread(smallest, largest))


def _tangent(sure: Any, more: Any, signs: Floats) -> Floats:
    """Give diag(1_S) - s s'/|S|, s the signs on S."""
    s = np.where(sure, signs, 0.0)
    s[more] = signs[more]
    return np.asarray(np.diag(np.abs(s)) - np.outer(s, s) / np.abs(s).sum())
