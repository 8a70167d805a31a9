"""Linear systems with A'A/scale + ridge I on a selection of columns, by their singular values."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from nonsmooth.implicit.sparse.data import Vector

__all__ = ["NormalEquations", "solve_once"]

EPS = float(np.finfo(np.float64).eps)

SQUARED = 1e-4
"""Above this share of the largest the least eigenvalue of A'A is known to 12 digits, and the cheaper A'A serves."""


CONDITION = 1e-8
"""Above this reciprocal condition number the factors of Cholesky serve, at an eighth of the price."""


def solve_once(A: Vector, scale: float, ridge: float, q: Vector) -> Vector | None:
    """Solve (A'A/scale + ridge I) x = q for one q; None where the matrix is singular, or where rounding leaves that open.

    >>> solve_once(np.array([[1.0, 1.0], [0.0, 1.0]]), 1.0, 0.0, np.array([1.0, 2.0])).round(12)
    array([0., 1.])

    Source: GolubVanLoan2013.
    """
    if len(q):
        H = A.T @ A / scale
        H.flat[:: len(q) + 1] += ridge
        norm = float(np.abs(H).sum(0).max())
        factor, failed = lapack.dpotrf(H)
        if not failed and lapack.dpocon(factor, norm)[0] > CONDITION:
            return np.asarray(lapack.dpotrs(factor, q)[0])
    system = NormalEquations(A, scale, ridge)
    return system.solve(q) if system.singular is False else None


def _decomposed(A: Vector) -> tuple[Vector, Vector]:
    """Give the singular values, falling, and the right singular vectors as rows."""
    if len(A) >= A.shape[1]:
        squares, vectors = np.linalg.eigh(A.T @ A)
        if squares[0] > SQUARED * squares[-1]:
            return np.sqrt(squares[::-1]), vectors.T[::-1]
    _, s, basis = np.linalg.svd(A, full_matrices=False)
    return s, basis


class NormalEquations:
    """H_S = A_S'A_S/scale + ridge I, factored by the singular values of A_S, which are not squared to find its rank.

    Attributes:
        smallest: the least eigenvalue of H_S; infinity for no column.
        singular: True where it is 0 up to rounding, False where it is not, None where rounding leaves that open.

    >>> found = NormalEquations(np.array([[1.0, 1.0], [0.0, 1.0]]), 1.0, 0.0)
    >>> found.solve(np.array([1.0, 2.0])).round(12), found.singular
    (array([0., 1.]), False)
    >>> NormalEquations(np.ones((2, 2)), 1.0, 0.0).singular
    True

    Source: GolubVanLoan2013.
    """

    def __init__(self, A: Vector, scale: float, ridge: float) -> None:
        m, k = A.shape
        self.ridge = ridge
        self.smallest = np.inf
        self.singular: bool | None = False
        if not k:
            return
        self.basis: Vector = np.zeros((0, k))
        s: Vector = np.zeros(0)
        if m and A.any():
            s, self.basis = _decomposed(A)
        self.eigenvalues = s**2 / scale + ridge
        self.smallest = float(self.eigenvalues[-1]) if len(s) == k else ridge
        self.singular = self._is_singular(s, k, max(m, k) * EPS)

    def _is_singular(self, s: Vector, k: int, rounding: float) -> bool | None:
        """Compare the least singular value, or with a ridge the least eigenvalue, with the rounding of the largest."""
        if len(s) < k and self.ridge == 0:
            return True
        if self.ridge == 0:
            share = s[-1] / s[0]
        else:
            share = self.smallest / max(self.eigenvalues[0] if len(s) else self.ridge, self.ridge)
        if share <= rounding:
            return True if self.ridge == 0 else None
        return False if share > 100 * rounding else None

    def solve(self, q: Vector) -> Vector:
        """Solve H_S x = q; one column or several."""
        if not len(q):
            return np.zeros_like(q)
        inside = self.basis @ q
        values = self.eigenvalues if q.ndim == 1 else self.eigenvalues[:, None]
        found: Vector = self.basis.T @ (inside / values)
        if self.ridge and len(self.eigenvalues) < len(q):
            found = found + (q - self.basis.T @ inside) / self.ridge
        return found
