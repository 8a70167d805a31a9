"""The projection on the cone of positive semidefinite matrices: eigenvalues less than 0 become 0."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian, finite, read_point
from nonsmooth.implicit.projections.parameters import check_axes
from nonsmooth.implicit.projections.second_order_cone import ApexJacobians
from nonsmooth.sets import ConvexSet, Image
from nonsmooth.sets.minimum_norm import Support

__all__ = ["OriginJacobians", "divided_differences", "semidefinite_cone", "semidefinite_cone_jacobian", "vectorised"]


def divided_differences(values: Any) -> Any:
    """Give the divided differences of max(0, .) at eigenvalues (..., n), shape (..., n, n); 0 between two zeros.

    (max(0, a) - max(0, b)) / (a - b) = (max(0, a) + max(0, b)) / (|a| + |b|),   1 at a = b > 0, 0 at a = b <= 0
    """
    xp = array_namespace(values)
    above, size = (values + xp.abs(values)) / 2, xp.abs(values)
    sizes = size[..., :, None] + size[..., None, :]
    sums = above[..., :, None] + above[..., None, :]
    nothing = sizes == 0
    return sums / xp.where(nothing, xp.ones_like(sizes), sizes)


def semidefinite_cone(z: Any) -> Any:
    """Give the positive semidefinite matrix nearest to z, along the last two axes.

        P(z) = V max(0, L) V',   (z + z')/2 = V L V',      dP(H) = V (G * V' H V) V',  G the divided differences of max(0, .)

    The derivative is this formula, which holds at repeated eigenvalues too; a zero eigenvalue counts as negative.
    Status: `computed`.

    Args:
        z: a tensor or an array of JAX, shape (..., n, n); its symmetric part is projected.

    Raises:
        UsageError: matrices that are not square, or no floating numbers.

    >>> import torch
    >>> semidefinite_cone(torch.tensor([[0.0, 2.0], [2.0, 0.0]])).round(decimals=4)
    tensor([[1., 1.],
            [1., 1.]])

    Source: SunSun2002, MalickSendov2006.
    """
    check_axes(z, 2, "semidefinite_cone")
    if z.shape[-1] != z.shape[-2]:
        raise UsageError(f"semidefinite_cone projects square matrices; found the shape {tuple(z.shape)}.")
    symmetric = (z + array_namespace(z).matrix_transpose(z)) / 2
    module = import_module(f"nonsmooth.implicit.{find_framework(z).name}.spectral_projection")
    return module.spectral_projection(symmetric)


def vectorised(n: int) -> Floats:
    """Give the isometry S of symmetric matrices (their n n entries) to R^(n(n+1)/2): S vec(X), S' its inverse on them.

    The coordinates are those of the conic solvers: the lower triangle column by column, times 2^(1/2) off the diagonal.
    """
    found = np.zeros((n * (n + 1) // 2, n, n))
    for k, (i, j) in enumerate((row, column) for column in range(n) for row in range(column, n)):
        found[k, i, j] = found[k, j, i] = 1.0 if i == j else 0.5**0.5
    return found.reshape(-1, n * n)


def semidefinite_cone_jacobian(z: Any, *, tolerance: float | None = None) -> ProjectionJacobian:
    """Give Clarke's set, of matrices that act on the n n entries; with r zero eigenvalues, of eigenvectors Q:

        V(H) = V0(H) + Q W(Q'H Q) Q',   W in Clarke's set of the projection at the matrix 0 of size r

    W is in [0, 1] for r = 1, that of the second-order cone of R^3 for r = 2, and bracketed for r >= 3.
    """
    y, tol = read_point(z, 2, "semidefinite_cone", tolerance)
    n = len(y)
    values, vectors = np.linalg.eigh((y + y.T) / 2)
    zero = np.abs(values) <= tol
    differences = divided_differences(np.where(zero, 0.0, values))
    symmetric = vectorised(n)
    turned = symmetric @ np.kron(vectors, vectors)  # column (i, j): the matrix v_i v_j'
    smallest = turned @ (differences.reshape(-1, 1) * turned.T)
    Q, r = vectors[:, zero], int(zero.sum())
    directions = vectorised(r) @ np.kron(Q, Q).T @ symmetric.T if r else np.zeros((0, len(symmetric)))
    low, rows = symmetric.T @ smallest @ symmetric, directions @ symmetric
    high = low + rows.T @ rows
    if r < 2:
        return finite(np.array([low, high][: r + 1]), low, high, rows)
    inner: ConvexSet = OriginJacobians(r)
    k = len(rows)
    elements = Image(
        inner,
        lambda w: (rows.T @ w.reshape(k, k) @ rows).reshape(-1),
        lambda d: (rows @ d.reshape(n * n, n * n) @ rows.T).reshape(-1),
        n**4,
        low.reshape(-1),
    )
    return ProjectionJacobian(elements, None, low, high, rows, False)


class OriginJacobians(ConvexSet):
    """Clarke's set of the projection at the matrix 0 of size r >= 2, of matrices that act on symmetric ones' coordinates.

    It is the hull of the limits of derivatives U (G * U'H U) U', U orthogonal, G limits of divided differences of max(0, .).
    For r = 2 the cone is a second-order one, up to a rotation; for r >= 3 support values are between those of some limits
    and of all W with 0 <= W <= I.

    Status: `computed`; exact for r = 2.

    Source: MalickSendov2006, derived, docs/theory/projections.md.
    """

    def __init__(self, r: int) -> None:
        self.r, self.k = r, r * (r + 1) // 2
        self._isometry = vectorised(r)
        c = 0.5**0.5
        self._turn = np.array([[c, 0.0, c], [c, 0.0, -c], [0.0, 1.0, 0.0]])  # (a, 2^(1/2) b, c) -> (t, x)

    @property
    def space(self) -> int:
        """The number of entries of a matrix."""
        return self.k**2

    @property
    def exact(self) -> bool:
        """Whether the cone is a second-order one."""
        return self.r == 2

    def _support(self, d: Floats) -> Support:
        D = d.reshape(self.k, self.k)
        if self.r == 2:
            found = ApexJacobians(3)._support((self._turn @ D @ self._turn.T).reshape(-1))
            point = self._turn.T @ found.point.reshape(3, 3) @ self._turn
            return Support(found.lower, found.upper, point.reshape(-1))
        values, vectors = np.linalg.eigh((D + D.T) / 2)
        limits = [np.zeros_like(D), np.eye(self.k)]
        for column in (vectors[:, -1], vectors[:, 0]):
            _, U = np.linalg.eigh((self._isometry.T @ column).reshape(self.r, self.r))
            limits += [
                self._limit(U[:, order], m, g)
                for m in range(1, self.r)
                for g in (0.0, 1.0)
                for order in (slice(None), slice(None, None, -1))
            ]
        heights = [float((D * W).sum()) for W in limits]
        best = int(np.argmax(heights))
        upper = float(values[values > 0].sum())
        return Support(min(heights[best], upper), upper, limits[best].reshape(-1))

    def _limit(self, U: Floats, positive: int, g: float) -> Floats:
        """Give the limit with some positive eigenvalues, and g for the divided differences of a positive with a negative one."""
        sign = np.arange(self.r) < positive
        G = np.where(sign[:, None] & sign, 1.0, np.where(sign[:, None] | sign, g, 0.0))
        turned = self._isometry @ np.kron(U, U)
        return np.asarray(turned @ (G.reshape(-1, 1) * turned.T))
