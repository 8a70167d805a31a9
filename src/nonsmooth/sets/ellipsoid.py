"""Linear images of balls: ellipsoids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from nonsmooth.errors import UsageError
from nonsmooth.sets.arrays import read_array
from nonsmooth.sets.ball import Ball, dual_point, read_exponent
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.image import Image
from nonsmooth.sets.minimum_norm import MinimumNorm, Support, certify

__all__ = ["Ellipsoid"]

Vector = NDArray[np.float64]


class Ellipsoid(ConvexSet):
    """The image of the unit ball of a p-norm under a matrix.

        C = { center + A' y : |y|_p <= 1 },   h(d) = <center, d> + |A d|_q,   1/p + 1/q = 1

    Status: `computed`, exact. For p = 2 the nearest element comes from a scalar equation.

    Args:
        center: shape (space,).
        matrix: A, shape (m, space), of any rank.
        p: in [1, inf].

    Raises:
        UsageError: shapes that do not fit, an exponent below 1, nan or infinity.

    >>> disc = Ellipsoid([0.0, 3.0], [[2.0, 0.0], [0.0, 1.0]])
    >>> disc.support([1.0, 0.0]), disc.minimum_norm().norm, disc.dimension
    (2.0, 2.0, 2)

    Source: Rockafellar1970.
    """

    def __init__(self, center: Any, matrix: Any, p: float = 2.0) -> None:
        self.center = read_array(center, "the center of an Ellipsoid")
        self.matrix = read_array(matrix, "the matrix of an Ellipsoid")
        if self.center.ndim != 1 or self.matrix.ndim != 2 or self.matrix.shape[1] != len(self.center):
            raise UsageError(
                f"Ellipsoid was given a center of shape {self.center.shape} and a matrix of shape {self.matrix.shape}; "
                "pass shapes (space,) and (m, space)."
            )
        self.p = read_exponent(p, "Ellipsoid")

    @property
    def space(self) -> int:
        """The number of coordinates of a vector."""
        return len(self.center)

    def _support(self, d: Vector) -> Support:
        image = self.matrix @ d
        y = dual_point(image, self.p)
        value = float(self.center @ d + y @ image)
        return Support(value, value, self.center + y @ self.matrix)

    def box(self) -> tuple[Vector, Vector]:
        """Give the smallest box that contains C: center -+ the q-norms of the columns of A.

        >>> Ellipsoid([0.0, 3.0], [[2.0, 0.0], [0.0, 1.0]]).box()
        (array([-2.,  2.]), array([2., 4.]))

        Source: Rockafellar1970.
        """
        q = np.inf if self.p == 1 else 1.0 if self.p == np.inf else self.p / (self.p - 1)
        half = np.linalg.norm(self.matrix, q, axis=0) if len(self.matrix) else np.zeros(self.space)
        return self.center - half, self.center + half

    def _nearest(self, target: Vector, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        if self.p == 2 and len(self.matrix):
            step = _shortest(self.matrix, self.center - target)
            found = certify(self._support, target, self.center + step)
            if found.status == "computed":
                return found
        return super()._nearest(target, tolerance, limit, threshold)

    def _vertices(self, limit: int) -> Vector:
        ball = Ball(np.zeros(len(self.matrix)), 1.0, self.p)
        return Image.of_matrix(ball, self.matrix.T, self.center).vertices(limit)

    def _affine(self, factor: float, offset: Vector) -> ConvexSet:
        return Ellipsoid(factor * self.center + offset, factor * self.matrix, self.p)


def _shortest(matrix: Vector, b: Vector) -> Vector:
    """Give A' y with |y| <= 1 that minimises |b + A' y|.

    With the singular values s of A and the coordinates c of b: y_i = -s_i c_i / (s_i^2 + t), where t >= 0 is 0 or the
    root of |y(t)| = 1.
    """
    _, s, axes = np.linalg.svd(matrix, full_matrices=False)
    kept = s > np.finfo(float).eps * len(s) * s.max(initial=0.0)
    s, axes = s[kept], axes[kept]
    c = axes @ b
    if not len(s):
        return np.zeros_like(b)

    def excess(t: float) -> float:
        return 1 / float(np.linalg.norm(s * c / (s**2 + t))) - 1

    if float(np.linalg.norm(c / s)) <= 1:
        return np.asarray(-c @ axes)
    t = brentq(excess, 0.0, float(np.linalg.norm(s * c)), xtol=1e-300, rtol=4 * np.finfo(float).eps)
    return np.asarray(-(s**2 * c / (s**2 + t)) @ axes)
