"""The active points of Wolfe's algorithm and the shortest vector of their hull."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, qr_delete, qr_insert, solve_triangular

__all__ = ["Corral"]

Vector = NDArray[np.float64]

REFRESH = 25
"""After so many updates the factors are computed anew."""

GROWTH = 1e-12
"""The shortest vector may grow by so much, relative to itself, through rounding."""

LEAST = 1e-15
"""A weight below it is none."""


class Corral:
    """Affinely independent points v_1 .. v_m with the positive weights of the shortest vector of their hull.

        p = sum_i w_i v_i,   <p, v_i> = |p|^2 for all i,   w > 0,   sum w = 1

    The factors M = Q R of the matrix M with columns (1, v_i / scale) are kept up to date. The least-squares solution
    of M u = (1, 0) is proportional to the weights of the shortest vector of the affine hull, and its residual, projected
    a second time, to p itself: so p is accurate relative to its own length, however short it is. Status: `computed`.
    Memory and work of a change: O(space m).

    Args:
        first: the first point, shape (space,).

    >>> corral = Corral(np.array([1.0, -1.0]))
    >>> corral.add(np.array([1.0, 3.0])), corral.nearest.round(12), corral.weights
    (True, array([1., 0.]), array([0.75, 0.25]))

    Source: Wolfe1976.
    """

    _q: Vector
    _r: Vector

    def __init__(self, first: Vector) -> None:
        self.points = first[None, :].copy()
        self.weights = np.ones(1)
        self.size = float(np.linalg.norm(first))
        self._factor()
        self.nearest = first.copy()

    def add(self, point: Vector) -> bool:
        """Add a point and correct the weights; False where rounding leaves no weights, or makes the point longer.

        Args:
            point: shape (space,), with <p, point> < |p|^2.
        """
        if len(self.points) > self.points.shape[1]:
            return False
        before = float(np.linalg.norm(self.nearest))
        self._insert(point)
        for _ in range(len(self.points) + 1):
            target, nearest = self._affine()
            if not np.isfinite(target).all():
                return False
            if (target > LEAST).all():
                self.weights, self.nearest = target, nearest
                return float(np.linalg.norm(nearest)) <= before * (1 + GROWTH)
            self._step(target)
        return False

    def _insert(self, point: Vector) -> None:
        """Append a point of weight zero."""
        self.points = np.vstack([self.points, point])
        self.weights = np.append(self.weights, 0.0)
        self.size = max(self.size, float(np.linalg.norm(point)))
        self._updates += 1
        if self.size > 4 * self._scale or self._updates > REFRESH:
            return self._factor()
        column = np.concatenate([[1.0], point / self._scale])
        try:
            self._q, self._r = qr_insert(self._q, self._r, column, len(self.points) - 1, which="col")
        except LinAlgError:
            self._factor()

    def _affine(self) -> tuple[Vector, Vector]:
        """Give the weights, of any sign, and the shortest vector of the affine hull."""
        q, first = self._q, np.zeros(len(self._q))
        first[0] = 1.0
        with np.errstate(all="ignore"):
            u = solve_triangular(self._r, q[0], check_finite=False)
            residual = first - q @ q[0]
            residual -= q @ (residual @ q)
            return u / u.sum(), -self._scale * residual[1:] / (1 - residual[0])

    def _step(self, target: Vector) -> None:
        """Go towards the weights of the affine hull until one vanishes, and drop its point."""
        wrong = target <= LEAST
        ratios = self.weights[wrong] / np.maximum(self.weights[wrong] - target[wrong], np.finfo(float).tiny)
        step = min(1.0, float(ratios.min()))
        weights = (1 - step) * self.weights + step * target
        weights[np.flatnonzero(wrong)[ratios.argmin()]] = 0.0
        for i in np.flatnonzero(weights <= LEAST)[::-1]:
            self.points = np.delete(self.points, i, axis=0)
            self._q, self._r = qr_delete(self._q, self._r, i, which="col")
        self._q = self._q[:, : len(self.points)]
        self._r = self._r[: len(self.points)]
        weights = weights[weights > LEAST]
        self.weights = weights / weights.sum()

    def _factor(self) -> None:
        """Compute the factors anew."""
        self._scale = self.size or 1.0
        self._updates = 0
        self._q, self._r = np.linalg.qr(np.vstack([np.ones(len(self.points)), self.points.T / self._scale]))
