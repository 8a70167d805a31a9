"""Sparse logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.losses import LogisticLoss
from nonsmooth.implicit.sparse.penalised import Penalised

__all__ = ["SparseLogistic"]


@dataclass(frozen=True)
class SparseLogistic(Penalised):
    """Logistic regression of two classes with an l1 penalty; the intercept is not penalised.

        min sum_i log(1 + exp(-y_i (x_i'b + c))) / n + l1 |b|_1   (+ l2 |b|^2 / 2 with `ridge`)

    scikit-learn's C is 1/(n l1).

    Attributes:
        fit_intercept: whether there is a c.
        ridge: whether there is an l2.

    >>> SparseLogistic().names(3), SparseLogistic(ridge=True).names(3)
    (('l1',), ('l1', 'l2'))

    Source: derived, docs/theory/sparse_models.md.
    """

    ridge: bool = False
    classification: ClassVar[bool] = True
    held_out_loss: ClassVar[str] = "log_loss"

    @property
    def loss(self) -> LogisticLoss:
        """The loss of a sample."""
        return LogisticLoss()

    def names(self, features: int) -> tuple[str, ...]:
        """Name the hyper-parameters."""
        return ("l1", "l2") if self.ridge else ("l1",)

    def penalties(self, penalty: Vector, features: int) -> tuple[Vector, float]:
        """Give l1, one for each feature, and l2."""
        return np.full(features, penalty[0]), float(penalty[1]) if self.ridge else 0.0

    def rates(self, signs: Vector, z: Vector) -> Vector:
        """Give the signs, and the coefficients."""
        return np.stack([signs, z]) if self.ridge else signs[None]
