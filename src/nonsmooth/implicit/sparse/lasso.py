"""The Lasso, with one penalty for all features or one for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.losses import SquareLoss
from nonsmooth.implicit.sparse.penalised import Penalised

__all__ = ["Lasso"]


@dataclass(frozen=True)
class Lasso(Penalised):
    """The Lasso, with the conventions of scikit-learn's.

        min |y - X b - c|^2 / 2n + l1 |b|_1,    or with `weighted`   ... + sum_j l1_j |b_j|

    Attributes:
        fit_intercept: whether there is a c.
        weighted: whether each feature has its own hyper-parameter.

    >>> Lasso().names(3), Lasso(weighted=True).names(2)
    (('l1',), ('l1[0]', 'l1[1]'))

    Source: Tibshirani1996, derived, docs/theory/sparse_models.md.
    """

    weighted: bool = False

    @property
    def loss(self) -> SquareLoss:
        """The loss of a sample."""
        return SquareLoss()

    def names(self, features: int) -> tuple[str, ...]:
        """Name the hyper-parameters."""
        return tuple(f"l1[{j}]" for j in range(features)) if self.weighted else ("l1",)

    def penalties(self, penalty: Vector, features: int) -> tuple[Vector, float]:
        """Give l1, one for each feature, and l2 = 0."""
        return (penalty if self.weighted else np.full(features, penalty[0])), 0.0

    def rates(self, signs: Vector, z: Vector) -> Vector:
        """Give the signs, in one row or on a diagonal."""
        return np.diag(signs) if self.weighted else signs[None]
