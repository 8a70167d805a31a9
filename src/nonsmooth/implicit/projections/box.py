"""The projection on a box: entries are clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.implicit.projections.jacobian_set import LIMIT, ProjectionJacobian, read_point, subsets
from nonsmooth.implicit.projections.parameters import check_axes, entries
from nonsmooth.sets import Segments

__all__ = ["box", "box_jacobian"]


def box(z: Any, lower: Any = 0.0, upper: Any = 1.0) -> Any:
    """Give the element nearest to z of a box, entry by entry.

        P(z) = min(max(z, lower), upper)

    Differentiable in z and in the bounds, at kinks with an element of the conservative Jacobian. Status: `computed`, exact.

    Args:
        z: a tensor or an array of JAX, of any shape.
        lower: a number or an array that broadcasts with z; -inf for none.
        upper: likewise; inf for none.

    Raises:
        UsageError: bounds, given as numbers, that hold nan or cross, or no floating numbers.

    >>> import torch
    >>> box(torch.tensor([-2.0, 0.25, 3.0]), -1.0)
    tensor([-1.0000,  0.2500,  1.0000])

    Source: Rockafellar1970.
    """
    check_axes(z, 0, "box")
    xp = array_namespace(z)
    low, high = entries(z, lower, "lower", "box"), entries(z, upper, "upper", "box", above=lower)
    return xp.minimum(xp.maximum(z, low), high)


def box_jacobian(z: Any, lower: Any = 0.0, upper: Any = 1.0, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give { diag(w) : w_i = 1 inside, 0 outside, in [0, 1] at a bound, 0 where the bounds are equal }."""
    y, tol = read_point(z, 1, "box", tolerance)
    low, high = (np.broadcast_to(np.asarray(b, dtype=np.float64), y.shape) for b in (lower, upper))
    inside = (y > low + tol) & (y < high - tol)
    tied = np.flatnonzero(~inside & (y >= low - tol) & (y <= high + tol) & (low < high))
    smallest, units = np.diag(inside.astype(np.float64)), np.eye(len(y))[tied]
    squares = units[:, :, None] * units[:, None, :]
    extreme = None
    if 2 ** len(tied) <= LIMIT:
        extreme = smallest + np.einsum("kt,tij->kij", np.asarray(subsets(tied, 2, "box"), dtype=np.float64), squares)
    elements = Segments(smallest.reshape(-1), squares.reshape(len(tied), len(y) ** 2))
    return ProjectionJacobian(elements, extreme, smallest, smallest + squares.sum(axis=0), units, True)
