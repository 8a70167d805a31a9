"""The projection on a ball of the l1-norm: magnitudes less one threshold, those above 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian, finite, read_point, spread, subsets
from nonsmooth.implicit.projections.parameters import check_axes, size
from nonsmooth.implicit.projections.simplex import above_threshold, threshold

__all__ = ["l1_ball", "l1_ball_jacobian"]


def l1_ball(z: Any, radius: Any = 1.0) -> Any:
    """Give the element nearest to z of a ball of the l1-norm about 0, along the last axis.

        P(z) = z where |z|_1 <= radius,   else sign(z) max(0, |z| - t),   t such that |P(z)|_1 = radius

    Differentiable in z and in the radius; on the sphere its derivative is that inside, and an entry with |z_i| = t counts
    as 0. Status: `computed`.

    Args:
        z: a tensor or an array of JAX, shape (..., n).
        radius: a positive number, or an array of the leading shape; the result is nan where that is not positive.

    Raises:
        UsageError: a radius that is not positive, no axis, or no floating numbers.

    >>> import torch
    >>> l1_ball(torch.tensor([[2.0, -1.5, 0.0], [0.5, 0.0, 0.25]]))
    tensor([[ 0.7500, -0.2500,  0.0000],
            [ 0.5000,  0.0000,  0.2500]])

    Source: Rockafellar1970, derived, docs/theory/projections.md.
    """
    check_axes(z, 1, "l1_ball")
    xp, radius, relu = array_namespace(z), size(z, radius, "radius", "l1_ball"), find_framework(z).relu
    falling = xp.flip(xp.sort(xp.abs(z), axis=-1), axis=-1)
    top = falling[..., :1]
    t = threshold(
        falling - top, radius
    )  # less the largest magnitude, which may be so large that t would be rounded to it
    return xp.where(threshold(falling, radius) <= 0, z, relu((z - top) - t) - relu((-z - top) - t))


def l1_ball_jacobian(z: Any, radius: float = 1.0, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give the hull of diag(|s|) - s s'/|s|_1 over the signs s beyond the threshold, of I inside, of I and these on the sphere.

    On the sphere the threshold is 0, and entries that are 0 have either sign, or none.
    """
    y, tol = read_point(z, 1, "l1_ball", tolerance)
    signs, size, one = np.where(y < 0, -1.0, 1.0), float(np.abs(y).sum()), np.eye(len(y))
    if size > radius + tol:
        return above_threshold(y, signs, radius, tol, "l1_ball")
    if size < radius - tol:
        return finite(one[None], one, one, one[:0])
    tied = np.flatnonzero(np.abs(y) <= tol)
    elements = [one]
    for chosen in subsets(tied, 3, "l1_ball"):
        s = np.where(np.abs(y) > tol, signs, 0.0)
        s[tied] = chosen - 1
        elements.append(np.diag(np.abs(s)) - np.outer(s, s) / np.abs(s).sum())
    s = np.where(np.abs(y) > tol, signs, 0.0)
    smallest = np.diag(np.abs(s)) - np.outer(s, s) / np.abs(s).sum()
    return finite(np.array(elements), smallest, one, spread(smallest, one))
