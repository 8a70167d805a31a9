"""The Lasso that tunes itself."""

from __future__ import annotations

from typing import Any

from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.lasso import Lasso
from nonsmooth.implicit.sparse.problem import SolverName
from nonsmooth.implicit.sparse.tuned import TunedRegressor

__all__ = ["TunedLasso"]


class TunedLasso(TunedRegressor):
    """The Lasso with the penalty that minimises the cross-validated loss, found by its hyper-gradient.

        min |y - X b - c|^2 / 2n + alpha |b|_1,    or with `weighted` an alpha for each feature

    Args:
        weighted: whether each feature has its own penalty.
        cv: the number of folds, None (5), a splitter, or a list of (train, test) indices; `PredefinedSplit` for a held-out set.
        held_out_loss: "mse" (the default), or a function (y, predictions) -> (value, gradient).
        fit_intercept: whether there is an intercept.
        n_scan: how many hyper-parameters the first scan takes.
        max_iter: at most so many steps of a descent.
        tol: the accuracy of the logarithms of the hyper-parameters.
        solver: "sklearn" or "skglm".
        tolerance: how large the duality gap may be, relative to the objective at zero.
        iterations: at most so many passes of the solver.
        violated: where the condition for the derivative does not hold: "raise", "warn" or "ignore".

    Attributes:
        alpha_: the penalty, one for each feature if weighted.
        coef_, intercept_: on all samples.
        run_: the search, with its history.
        diagnosis_: the equicorrelation set of the solution and whether it can be differentiated there.
        n_iter_: how many hyper-parameters were tried.

    Raises:
        NotConverged: no solver converged.
        NotInvertible: the condition does not hold at some hyper-parameter: equal columns, for one.
        ValueError: arguments that cannot be served.

    >>> from sklearn.datasets import load_diabetes
    >>> from nonsmooth.implicit import TunedLasso
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = TunedLasso().fit(X, y)
    >>> round(model.alpha_, 4), round(model.score(X, y), 3)
    (0.0039, 0.517)

    Source: derived, docs/theory/sparse_models.md, BertrandEtAl2020.
    """

    def __init__(
        self,
        *,
        weighted: bool = False,
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
        self.weighted = weighted
        super().__init__(
            cv=cv, held_out_loss=held_out_loss, fit_intercept=fit_intercept, n_scan=n_scan, max_iter=max_iter, tol=tol,
            solver=solver, tolerance=tolerance, iterations=iterations, violated=violated,
        )  # fmt: skip

    def _problem(self) -> Lasso:
        return Lasso(fit_intercept=self.fit_intercept, weighted=self.weighted)

    def _named(self, penalty: Vector, samples: int) -> None:
        self.alpha_ = penalty if self.weighted else float(penalty[0])
