"""The elastic net that tunes itself."""

from __future__ import annotations

from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.elastic_net import ElasticNet
from nonsmooth.implicit.sparse.tuned import TunedRegressor

__all__ = ["TunedElasticNet"]


class TunedElasticNet(TunedRegressor):
    """The elastic net with both penalties tuned: they minimise the cross-validated loss, by its hyper-gradient.

        min |y - X b - c|^2 / 2n + alpha l1_ratio |b|_1 + alpha (1 - l1_ratio) |b|^2 / 2

    Args:
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
        alpha_, l1_ratio_: the penalties, as in the formula.
        coef_, intercept_: on all samples.
        run_: the search, with its history.
        diagnosis_: the equicorrelation set of the solution and whether it can be differentiated there.
        n_iter_: how many hyper-parameters were tried.

    Raises:
        NotConverged: no solver converged.
        NotInvertible: the condition does not hold at some hyper-parameter: equal columns, for one.
        ValueError: arguments that cannot be served.

    >>> from sklearn.datasets import load_diabetes
    >>> from nonsmooth.implicit import TunedElasticNet
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = TunedElasticNet().fit(X, y)
    >>> 0 < model.l1_ratio_ < 1, round(model.score(X, y), 2)
    (True, 0.52)

    Source: derived, docs/theory/sparse_models.md, BertrandEtAl2020.
    """

    def _problem(self) -> ElasticNet:
        return ElasticNet(fit_intercept=self.fit_intercept)

    def _named(self, penalty: Vector, samples: int) -> None:
        self.alpha_ = float(penalty.sum())
        self.l1_ratio_ = float(penalty[0] / penalty.sum())
