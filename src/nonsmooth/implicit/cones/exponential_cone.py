"""The projection on the exponential cone with its Jacobians, in numbers.

    K = cl { (x, y, z) : y > 0, y exp(x/y) <= z }

Its boundary is a face { x <= 0 = y <= z } and a surface ruled by p = (r, 1, e^r), with the outward normals
n = (e^r, (1 - r) e^r, -1). A point that is projected on the surface is t p + m n with t, m > 0; with q orthogonal to both,

    P'(t p + m n) = pp' + l qq',   l = 1 / (1 + m e^r/t (q_x - r q_y)^2)        (p, q of length 1)

Source: Friberg2023, derived, docs/theory/projections.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from nonsmooth.dictionary.weights import Floats

__all__ = ["ExponentialJacobian", "exponential_cone_jacobian"]

SLOPES = np.sinh(np.linspace(-28.0, 28.0, 1121))
"""The slopes r = x/y between which the ray nearest to a point is sought: up to 7e11 in size."""


FLAT = 1e12
"""Rays of larger slopes are those of the face, to rounding."""


@dataclass(frozen=True, eq=False)
class ExponentialJacobian:
    """Clarke's Jacobian of the projection at a point: least element, orthonormal directions to the greatest, what lies there.

    `independent`: whether it is { smallest + sum w_i r_i r_i' : 0 <= w_i <= 1 }.
    """

    smallest: Floats
    directions: Floats
    independent: bool = True
    where: str = ""


def exponential_cone_jacobian(v: Floats, tolerance: float) -> ExponentialJacobian:
    """Give Clarke's Jacobian of the projection at v = (x, y, z); what is within a tolerance of a kink counts as on it.

    Interior: I.  Interior of the polar cone: 0.  Surface: [I - nn', I].  Surface of the polar cone: [0, pp'].
    x, y < 0: diag(1, 0, z > 0).  Where coordinates vanish there, segments; on the rays (0, 0, z) and at the apex brackets
    whose ends are elements.

    >>> exponential_cone_jacobian(np.array([-1.0, -2.0, 3.0]), 0.0).smallest.diagonal()
    array([1., 0., 1.])
    >>> found = exponential_cone_jacobian(np.array([0.0, 1.0, 1.0]), 1e-12)       # on the surface, n = (1, 1, -1)/sqrt 3
    >>> found.where, np.abs(found.directions).round(3)
    ('its boundary: y = 0', array([[0.577, 0.577, 0.577]]))

    Source: derived, docs/theory/projections.md.
    """
    x, y, z = (float(t) for t in v)
    one = np.eye(3)
    if x <= tolerance and y <= tolerance:
        return _at_face(v, tolerance)
    inside, below = _depth(x, y, z), _depth(y - x, x, -z)
    if inside > tolerance:
        return ExponentialJacobian(one, one[:0])
    if below > tolerance:
        return ExponentialJacobian(0 * one, one[:0])
    if inside >= 0:
        return _on_boundary(_frame(x / y)[1])
    if below >= 0:
        return _on_polar_boundary(_frame(1 - y / x)[0])
    r = _nearest(v)
    p, n, q, curved = _frame(r)
    t, m = float(v @ p), float(v @ n)
    if m <= tolerance:
        return _on_boundary(n)
    if t <= tolerance:
        return _on_polar_boundary(p)
    only = np.outer(p, p) + np.outer(q, q) / (1 + m / t * curved)
    return ExponentialJacobian(only, one[:0])


def _on_boundary(n: Floats) -> ExponentialJacobian:
    return ExponentialJacobian(np.eye(3) - np.outer(n, n), n[None], True, "its boundary: y = 0")


def _on_polar_boundary(p: Floats) -> ExponentialJacobian:
    return ExponentialJacobian(np.zeros((3, 3)), p[None], True, "its apex: s = 0, y on the boundary of the dual cone")


def _at_face(v: Floats, tolerance: float) -> ExponentialJacobian:
    """Look at x, y <= 0, up to the tolerance: P = (x, 0, max(z, 0))."""
    near = np.abs(v) <= tolerance
    least, greatest = np.zeros(3), near.astype(float)
    if near.all():
        return ExponentialJacobian(np.diag(least), np.eye(3), False, "the apex: s = y = 0")
    least[2] = v[2] > tolerance
    least[0] = v[0] < -tolerance
    if near[0] and near[1]:  # a ray (0, 0, z): what is along x hangs on what is along y
        return ExponentialJacobian(np.diag(least), np.eye(3)[:2], False, "the ray of its boundary x = y = 0")
    directions = np.eye(3)[greatest > 0]
    return ExponentialJacobian(np.diag(least), directions, True, "the edge of its face" if near.any() else "")


def _depth(x: float, y: float, z: float) -> float:
    """Give how deep a point is in the cone, to first order in its distance from the surface; negative outside."""
    if y <= 0:
        return min(-x, z, y)
    r = x / y
    E, F = _scaled(r)
    return min((z * F - y * E) / math.hypot(E, (1 - r) * E, F), math.hypot(y, max(x, 0.0)))


def _scaled(r: float) -> tuple[float, float]:
    """Give e^r and 1, both divided by e^r where that is large."""
    return (1.0, math.exp(-r)) if r > 0 else (math.exp(r), 1.0)


def _frame(r: float) -> tuple[Floats, Floats, Floats, float]:
    """Give the unit vectors p, n, q of the ray of slope r, and |p|/|n| e^r (q_x - r q_y)^2."""
    r = min(max(r, -FLAT), FLAT)
    E, F = _scaled(r)
    p, n = np.array([r * F, F, E]), np.array([E, (1 - r) * E, -F])
    q = np.cross(p, n)
    sizes = [float(np.linalg.norm(t)) for t in (p, n, q)]
    p, n, q = p / sizes[0], n / sizes[1], q / sizes[2]
    return p, n, q, sizes[0] / sizes[1] * (math.exp(r) if r < 700 else math.inf) * float(q[0] - r * q[1]) ** 2


ACROSS = np.array([_frame(r)[2] for r in SLOPES])
"""The directions q of these slopes."""


def _nearest(v: Floats) -> float:
    """Give the slope of the ray of the surface nearest to a point that is projected on it: v = t p + m n with t, m >= 0."""
    x, y, z = (float(t) for t in v)

    def along(r: float) -> float:
        E, F = _scaled(r)
        return x * (r * E * E - E * E - F * F) + y * (E * E + r * F * F) - z * (r * r - r + 1) * E * F

    def rest(r: float) -> float:
        p, n, _, _ = _frame(r)
        return float(np.abs(v - max(float(v @ p), 0.0) * p - max(float(v @ n), 0.0) * n).max())

    roots = [-FLAT, FLAT]
    for k in np.flatnonzero(np.diff(np.sign(ACROSS @ v))):
        low, high = float(SLOPES[k]), float(SLOPES[k + 1])
        if (along(low) > 0) != (along(high) > 0):
            roots.append(float(brentq(along, low, high, xtol=1e-15, rtol=1e-15, maxiter=300)))
    return min(roots, key=rest)
