"""The projection on a Euclidean ball: what is outside is shortened."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian, finite, read_point
from nonsmooth.implicit.projections.parameters import check_axes, size, unit

__all__ = ["ball", "ball_jacobian"]


def ball(z: Any, radius: Any = 1.0) -> Any:
    """Give the element nearest to z of a Euclidean ball about 0, along the last axis.

        P(z) = z / max(1, |z| / radius)

    Differentiable in z and in the radius, at 0 as well; on the sphere with an element of the segment between the
    derivatives on both sides. Status: `computed`.

    Args:
        z: a tensor or an array of JAX, shape (..., n).
        radius: a positive number, or an array of the leading shape; the result is nan where that is not positive.

    Raises:
        UsageError: a radius that is not positive, no axis, or no floating numbers.

    >>> import torch
    >>> ball(torch.tensor([[6.0, 8.0], [0.0, 1.0]]), 5.0)
    tensor([[3., 4.],
            [0., 1.]])

    Source: Rockafellar1970.
    """
    check_axes(z, 1, "ball")
    xp, radius = array_namespace(z), size(z, radius, "radius", "ball")
    scaled = z / radius
    fixed = unit(scaled)
    scaled = scaled / fixed
    square = xp.sum(scaled * scaled, axis=-1, keepdims=True)
    return (z / fixed) / xp.sqrt(xp.maximum(square, (1 / fixed) ** 2))


def ball_jacobian(z: Any, radius: float = 1.0, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give I inside, (radius/|z|) (I - w w') outside, w = z/|z|, and the segment between I and I - w w' on the sphere."""
    y, tol = read_point(z, 1, "ball", tolerance)
    length, one = float(np.linalg.norm(y)), np.eye(len(y))
    if length < radius - tol:
        return finite(one[None], one, one, one[:0])
    w = y / length
    tangent = one - np.outer(w, w)
    if length > radius + tol:
        tangent *= radius / length
        return finite(tangent[None], tangent, tangent, one[:0])
    return finite(np.array([tangent, one]), tangent, one, w)
