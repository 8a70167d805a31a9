"""The elastic net."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.losses import SquareLoss
from nonsmooth.implicit.sparse.penalised import Penalised

__all__ = ["ElasticNet"]


@dataclass(frozen=True)
class ElasticNet(Penalised):
    """The elastic net, by its two penalties.

        min |y - X b - c|^2 / 2n + l1 |b|_1 + l2 |b|^2 / 2

    In scikit-learn's terms l1 = alpha l1_ratio and l2 = alpha (1 - l1_ratio).

    Attributes:
        fit_intercept: whether there is a c.

    >>> ElasticNet().names(3)
    ('l1', 'l2')

    Source: ZouHastie2005, derived, docs/theory/sparse_models.md.
    """

    @property
    def loss(self) -> SquareLoss:
        """The loss of a sample."""
        return SquareLoss()

    def names(self, features: int) -> tuple[str, ...]:
        """Name the hyper-parameters."""
        return ("l1", "l2")

    def penalties(self, penalty: Vector, features: int) -> tuple[Vector, float]:
        """Give l1, one for each feature, and l2."""
        return np.full(features, penalty[0]), float(penalty[1])

    def rates(self, signs: Vector, z: Vector) -> Vector:
        """Give the signs and the coefficients."""
        return np.stack([signs, z])
