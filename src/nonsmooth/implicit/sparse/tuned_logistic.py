"""Sparse logistic regression that tunes itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.logistic import SparseLogistic
from nonsmooth.implicit.sparse.problem import SolverName
from nonsmooth.implicit.sparse.tuned import TunedClassifier

__all__ = ["TunedLogisticRegression"]


class TunedLogisticRegression(TunedClassifier):
    """Sparse logistic regression of two classes with the penalty that minimises the cross-validated loss.

        min sum_i log(1 + exp(-y_i (x_i'b + c))) / n + alpha |b|_1   (+ l2 |b|^2 / 2 with `ridge`)

    Args:
        ridge: whether there is an l2, which is tuned as well.
        cv: the number of folds, None (5), a splitter, or a list of (train, test) indices; `PredefinedSplit` for a held-out set.
        held_out_loss: "log_loss" (the default), "squared_hinge", or a function (y, predictions) -> (value, gradient), y in {-1, 1}.
        fit_intercept: whether there is an intercept.
        n_scan: how many hyper-parameters the first scan takes.
        max_iter: at most so many steps of a descent.
        tol: the accuracy of the logarithms of the hyper-parameters.
        solver: "sklearn" or "skglm".
        tolerance: how large the duality gap may be, relative to the objective at zero.
        iterations: at most so many passes of the solver.
        violated: where the condition for the derivative does not hold: "raise", "warn" or "ignore".

    Attributes:
        alpha_: the l1 penalty.
        l2_: the l2 penalty; 0 without `ridge`.
        C_: 1/(n alpha_), scikit-learn's.
        classes_: the labels.
        coef_, intercept_: on all samples.
        run_: the search, with its history.
        diagnosis_: the equicorrelation set of the solution and whether it can be differentiated there.
        n_iter_: how many hyper-parameters were tried.

    Raises:
        NotConverged: no solver converged.
        NotInvertible: the condition does not hold at some hyper-parameter: equal columns, for one.
        ValueError: arguments that cannot be served.

    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from nonsmooth.implicit import TunedLogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), TunedLogisticRegression()).fit(X[:, :10], y)
    >>> round(float(model.score(X[:, :10], y)), 2)
    0.95

    Source: derived, docs/theory/sparse_models.md, BertrandEtAl2020.
    """

    def __init__(
        self,
        *,
        ridge: bool = False,
        cv: Any = None,
        held_out_loss: Any = None,
        fit_intercept: bool = True,
        n_scan: int = 12,
        max_iter: int = 30,
        tol: float = 1e-4,
        solver: SolverName = "sklearn",
        tolerance: float = 1e-8,
        iterations: int = 100_000,
        violated: Violated = "raise",
    ) -> None:
        self.ridge = ridge
        super().__init__(
            cv=cv, held_out_loss=held_out_loss, fit_intercept=fit_intercept, n_scan=n_scan, max_iter=max_iter, tol=tol,
            solver=solver, tolerance=tolerance, iterations=iterations, violated=violated,
        )  # fmt: skip

    def _problem(self) -> SparseLogistic:
        return SparseLogistic(fit_intercept=self.fit_intercept, ridge=self.ridge)

    def _named(self, penalty: Vector, samples: int) -> None:
        self.alpha_, self.l2_ = float(penalty[0]), float(penalty[1]) if self.ridge else 0.0
        self.C_ = 1 / (samples * self.alpha_)

    def predict_proba(self, X: Any) -> Vector:
        """Give the probabilities of both classes, shape (samples, 2)."""
        second = expit(self._linear(X))
        return np.stack([1 - second, second], axis=1)

    def predict_log_proba(self, X: Any) -> Vector:
        """Give the logarithms of the probabilities, shape (samples, 2)."""
        f = self._linear(X)
        return -np.stack([np.logaddexp(0, f), np.logaddexp(0, -f)], axis=1)
