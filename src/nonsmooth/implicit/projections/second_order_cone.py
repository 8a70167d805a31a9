"""The projection on the second-order cone."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy.optimize import brentq

from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian, finite, read_point
from nonsmooth.implicit.projections.parameters import check_axes, unit
from nonsmooth.sets import ConvexSet
from nonsmooth.sets.minimum_norm import Support

__all__ = ["ApexJacobians", "second_order_cone", "second_order_cone_jacobian"]


def second_order_cone(z: Any) -> Any:
    """Give the element nearest to z = (t, x) of the second-order cone { (t, x) : |x| <= t }, along the last axis.

        P(z) = z where |x| <= t,   0 where |x| <= -t,   else (t + |x|)/2 (1, x/|x|)

    Differentiable everywhere: on the boundary, and at the apex, its derivative is I. Status: `computed`.

    Args:
        z: a tensor or an array of JAX, shape (..., n), the first entry of the last axis being t.

    Raises:
        UsageError: no axis, or no floating numbers.

    >>> import torch
    >>> second_order_cone(torch.tensor([[1.0, 3.0, 4.0], [5.0, 3.0, 4.0], [-6.0, 3.0, 4.0]]))
    tensor([[3.0000, 1.8000, 2.4000],
            [5.0000, 3.0000, 4.0000],
            [0.0000, 0.0000, 0.0000]])

    Source: FukushimaLuoTseng2002.
    """
    check_axes(z, 1, "second_order_cone")
    xp = array_namespace(z)
    fixed = unit(z)
    z = z / fixed
    t, x = z[..., :1], z[..., 1:]
    floor = 16 * float(xp.finfo(z.dtype).smallest_normal)  # |x| is smooth at 0 so, and exact elsewhere
    square = xp.sum(x * x, axis=-1, keepdims=True)
    safe = xp.sqrt(xp.maximum(square, xp.full_like(square, floor)))
    length = safe - floor**0.5
    half = find_framework(z).relu(t + length) / 2
    return fixed * xp.where(t >= length, z, xp.concat([half, x * (half / safe)], axis=-1))


def second_order_cone_jacobian(z: Any, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give Clarke's set: one matrix off the boundary of the cone and of its polar, segments on them, the hull of H at the apex.

    H(w, r) = 1/2 [[1, w'], [w, (1 + r) I - r w w']],   |w| = 1,   r = t/|x|

    t = |x| > 0:  { I - c v v' },  v = (1, -w)/2^(1/2);      t = -|x| < 0:  { c v v' },  v = (1, w)/2^(1/2);   0 <= c <= 1
    apex:  the hull of 0, I and all H(w, r), -1 <= r <= 1
    """
    y, tol = read_point(z, 1, "second_order_cone", tolerance)
    t, x, one = float(y[0]), y[1:], np.eye(len(y))
    length = float(np.linalg.norm(x))
    if max(abs(t), length) <= tol:
        extreme = (
            None
            if len(y) > 2
            else np.array([0 * one, one, *(half(w, 1.0) for w in np.eye(1, len(y) - 1) * [[1], [-1]])])
        )
        if len(y) == 1:
            return finite(np.array([0 * one, one]), 0 * one, one, one)
        return ProjectionJacobian(ApexJacobians(len(y)), extreme, 0 * one, one, one, False)
    if t > length + tol or t < -length - tol:
        only = one if t > 0 else 0 * one
        return finite(only[None], only, only, one[:0])
    w = x / length
    if t >= length - tol:
        v = np.append(1.0, -w) / 2**0.5
        return finite(np.array([one - np.outer(v, v), one]), one - np.outer(v, v), one, v)
    if t <= tol - length:
        v = np.append(1.0, w) / 2**0.5
        return finite(np.array([0 * one, np.outer(v, v)]), 0 * one, np.outer(v, v), v)
    only = half(w, t / length)
    return finite(only[None], only, only, one[:0])


def half(w: Floats, r: float) -> Floats:
    """Give H(w, r)."""
    inner = (1 + r) * np.eye(len(w)) - r * np.outer(w, w)
    return np.asarray(np.block([[np.ones((1, 1)), w[None]], [w[:, None], inner]]) / 2)


class ApexJacobians(ConvexSet):
    """The hull of 0, I and all H(w, r), |w| = 1, |r| <= 1: Clarke's set at the apex of the cone of n >= 2 entries.

    H is affine in r, and quadratic in w: a support value is the maximum of two quadratics on a sphere.

    Status: `computed`, exact.

    Source: KanzowFerencziFukushima2009.
    """

    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def space(self) -> int:
        """The number of entries of a matrix."""
        return self.n**2

    def _support(self, d: Floats) -> Support:
        C = d.reshape(self.n, self.n)
        found = [np.zeros((self.n, self.n)), np.eye(self.n)]
        for r in (-1.0, 1.0):
            w = largest_on_sphere(-r * (C[1:, 1:] + C[1:, 1:].T) / 2, (C[0, 1:] + C[1:, 0]) / 2)
            found.append(half(w, r))
        values = [float((C * V).sum()) for V in found]
        best = int(np.argmax(values))
        return Support(values[best], values[best], found[best].reshape(-1))


def largest_on_sphere(B: Floats, c: Floats) -> Floats:
    """Give a w, |w| = 1, at which w'B w + 2 c'w is largest: (m I - B) w = c, with m no less than the eigenvalues of B."""
    values, vectors = np.linalg.eigh(B)
    inner, top = vectors.T @ c, float(values[-1])
    scale = max(float(np.abs(values).max()), float(np.linalg.norm(c)), 1e-300)
    gap = top - values
    last = gap <= 1e-14 * scale

    def excess(m: float) -> float:
        return float(np.linalg.norm(inner / (m + gap)) - 1)

    low = max(float(np.linalg.norm(inner[last])), 1e-15 * scale)  # |w| >= |inner at the top| / m
    if excess(low) <= 0:  # the hard case: the rest of the length goes to the top eigenspace
        w = np.where(last, 0.0, inner / np.where(last, 1.0, gap))
        missing = max(1 - float(w @ w), 0.0) ** 0.5
        ahead = np.where(last, inner, 0.0)
        size = float(np.linalg.norm(ahead))
        w = w + missing * (ahead / size if size > 0 else np.eye(len(c))[-1])
    else:
        w = inner / (brentq(excess, low, float(np.linalg.norm(inner)) + 1e-12 * scale, xtol=1e-300, rtol=1e-15) + gap)
    w = vectors @ w
    return np.asarray(w / np.linalg.norm(w))
