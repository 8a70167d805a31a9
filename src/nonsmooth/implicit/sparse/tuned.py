"""What the estimators that tune themselves share: scikit-learn's conventions around `tune`.

Source: PedregosaEtAl2011.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.active_set import Equicorrelation, diagnose
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.problem import Problem, SolverName
from nonsmooth.implicit.sparse.tuner import Tuning, tune

__all__ = ["Tuned", "TunedClassifier", "TunedRegressor"]


class Tuned(BaseEstimator):
    """A linear model whose hyper-parameters minimise the cross-validated loss, found by its hyper-gradient.

    What all of them take; a model with parameters of its own names these again, as scikit-learn reads the signature.
    """

    coef_: Vector
    intercept_: Any
    run_: Tuning
    diagnosis_: Equicorrelation

    def __init__(
        self,
        *,
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
        self.cv, self.held_out_loss, self.fit_intercept = cv, held_out_loss, fit_intercept
        self.n_scan, self.max_iter, self.tol = n_scan, max_iter, tol
        self.solver, self.tolerance, self.iterations, self.violated = solver, tolerance, iterations, violated

    @abstractmethod
    def _problem(self) -> Problem:
        """Give the problem that is tuned."""

    @abstractmethod
    def _named(self, penalty: Vector, samples: int) -> None:
        """Set the hyper-parameters under scikit-learn's names."""

    def _tune(self, X: Vector, y: Vector) -> None:
        """Tune, and keep the solution on all samples; y is a target, or holds -1 and 1."""
        problem, params = self._problem(), self.get_params()
        options = ("cv", "loss", "n_scan", "max_iter", "tol", "solver", "tolerance", "iterations", "violated")
        chosen = {name: params[name] for name in options if name in params and name != "loss"}
        run = tune(
            problem, X, y, loss=params.get("held_out_loss"), **{"cv": 5, **chosen} if params["cv"] is None else chosen
        )
        self.run_ = run
        self.coef_, self.intercept_ = run.solution.coef, run.solution.intercept
        self.diagnosis_ = diagnose(problem.linearise(X, problem.read(y, len(X))[0], run.solution), run.solution.gap)
        self.n_iter_ = len(run.history)
        self._named(run.penalty, len(X))

    def _linear(self, X: Any) -> Vector:
        """Give X coef + intercept."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ np.ravel(self.coef_) + np.ravel(self.intercept_)[0])


class TunedRegressor(RegressorMixin, Tuned):
    """A linear regression that tunes itself."""

    def fit(self, X: Any, y: Any) -> Any:
        """Tune the hyper-parameters by cross-validation, and fit on all samples.

        Args:
            X: shape (samples, features).
            y: shape (samples,).
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._tune(X, np.asarray(y, dtype=np.float64))
        return self

    def predict(self, X: Any) -> Vector:
        """Give the predictions."""
        return self._linear(X)


class TunedClassifier(ClassifierMixin, Tuned):
    """A linear classifier of two classes that tunes itself."""

    classes_: Any

    def fit(self, X: Any, y: Any) -> Any:
        """Tune the hyper-parameters by cross-validation, and fit on all samples.

        Args:
            X: shape (samples, features).
            y: shape (samples,), the labels of two classes.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        if type_of_target(y) == "multiclass":
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass. For more classes, take "
                "sklearn.multiclass.OneVsRestClassifier of this estimator."
            )
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of two classes; y holds one class: {self.classes_[0]!r}."
            )
        self._tune(X, np.where(codes == 1, 1.0, -1.0))
        self.coef_, self.intercept_ = self.coef_[None], np.array([self.intercept_])
        return self

    def decision_function(self, X: Any) -> Vector:
        """Give X coef + intercept: positive for the second class."""
        return self._linear(X)

    def predict(self, X: Any) -> Any:
        """Give the labels."""
        second = self._linear(X) > 0
        return self.classes_[second.astype(int)]

    def __sklearn_tags__(self) -> Any:
        """Say that there are two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
