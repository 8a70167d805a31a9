"""The linear support vector classifier that tunes itself."""

from __future__ import annotations

from typing import Any, Literal

from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.problem import SolverName
from nonsmooth.implicit.sparse.svm import LinearSVM
from nonsmooth.implicit.sparse.tuned import TunedClassifier

__all__ = ["TunedLinearSVC"]


class TunedLinearSVC(TunedClassifier):
    """A linear support vector classifier of two classes whose C minimises the cross-validated loss.

        min |w|^2 / 2 + C sum_i max(0, 1 - y_i w'x_i)^2    or with loss="hinge" without the square

    Args:
        loss: "squared_hinge" or "hinge", of the problem.
        intercept_scaling: the constant that samples end with, as in scikit-learn's LinearSVC.
        cv: the number of folds, None (5), a splitter, or a list of (train, test) indices; `PredefinedSplit` for a held-out set.
        held_out_loss: "squared_hinge" (the default), "log_loss", or a function (y, predictions) -> (value, gradient), y in {-1, 1}.
        fit_intercept: whether there is an intercept.
        n_scan: how many hyper-parameters the first scan takes.
        max_iter: at most so many steps of a descent.
        tol: the accuracy of the logarithms of the hyper-parameters.
        solver: "sklearn" or "skglm".
        tolerance: how large the duality gap may be, relative to the objective at zero.
        iterations: at most so many passes of the solver.
        violated: where the condition for the derivative does not hold: "raise", "warn" or "ignore".

    Attributes:
        C_: the hyper-parameter.
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
    >>> from nonsmooth.implicit import TunedLinearSVC
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), TunedLinearSVC()).fit(X[:, :10], y)
    >>> round(float(model.score(X[:, :10], y)), 2)
    0.95

    Source: derived, docs/theory/sparse_models.md, BertrandEtAl2020.
    """

    def __init__(
        self,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        intercept_scaling: float = 1.0,
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
        self.loss, self.intercept_scaling = loss, intercept_scaling
        super().__init__(
            cv=cv, held_out_loss=held_out_loss, fit_intercept=fit_intercept, n_scan=n_scan, max_iter=max_iter, tol=tol,
            solver=solver, tolerance=tolerance, iterations=iterations, violated=violated,
        )  # fmt: skip

    def _problem(self) -> LinearSVM:
        return LinearSVM(self.fit_intercept, self.loss, self.intercept_scaling)

    def _named(self, penalty: Vector, samples: int) -> None:
        self.C_ = float(penalty[0])
