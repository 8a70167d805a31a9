"""The tuner and its estimators: against grids, scikit-learn's own checks, pipelines, bad input."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LassoCV
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError
from tests.shortened import shortened

i = ns.implicit

QUICK = {"cv": 2, "n_scan": 3, "max_iter": 2}
ESTIMATORS = [
    i.TunedLasso(**QUICK),
    i.TunedElasticNet(**QUICK),
    i.TunedLogisticRegression(**QUICK),
    i.TunedLinearSVC(**QUICK),
]
CHECKS = [pair for model in ESTIMATORS for pair in estimator_checks_generator(model)]


@pytest.mark.parametrize(
    ("model", "check"), CHECKS, ids=lambda v: getattr(getattr(v, "func", None), "__name__", type(v).__name__)
)
def test_the_conventions_of_scikit_learn(model: Any, check: Any) -> None:
    check(model)


def cancer() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def grid_value(problem: Any, X: np.ndarray, y: np.ndarray, folds: Any, penalties: np.ndarray) -> float:
    """Give the least mean held-out loss of a grid."""
    values = []
    for penalty in penalties:
        found = [
            i.hyper_gradient(problem, X[a], y[a], penalty, X[b], y[b], violated="ignore").value
            for a, b in folds.split(X, y)
        ]
        values.append(np.mean(found))
    return float(min(values))


def test_lasso_against_the_grid_of_lassocv() -> None:
    X, y = load_diabetes(return_X_y=True)
    grid = LassoCV(cv=5, alphas=100, tol=1e-8, max_iter=100_000).fit(X, y)
    model = i.TunedLasso(cv=5).fit(X, y)
    assert model.run_.value <= grid.mse_path_.mean(1).min() * (1 + 1e-4)
    assert len(model.run_.history) < 60
    predicted = [
        ((y[b] - i.differentiate_solution(i.Lasso(), X[a], y[a], model.alpha_).solution.predict(X[b])) ** 2).mean()
        for a, b in KFold(5).split(X)
    ]
    assert model.run_.value == pytest.approx(np.mean(predicted))
    assert model.diagnosis_.invertible and model.score(X, y) > 0.5


def test_logistic_against_a_grid() -> None:
    X, y = cancer()
    X = X[:, :12]
    model = i.TunedLogisticRegression(cv=3).fit(X, y)
    low, high = i.SparseLogistic().search_box(X, 2.0 * y - 1)
    least = grid_value(i.SparseLogistic(), X, y, StratifiedKFold(3), np.geomspace(low[0], high[0], 9))
    assert model.run_.value <= least * (1 + 1e-3)
    assert pytest.approx(1 / (len(y) * model.alpha_)) == model.C_
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    np.testing.assert_allclose(np.log(model.predict_proba(X)), model.predict_log_proba(X), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "folds"),
    [
        (i.SparseLogistic(), StratifiedKFold(5)),
        (i.LinearSVM(), StratifiedKFold(5)),
        (i.LinearSVM(loss="hinge"), StratifiedKFold(5)),
    ],
)
def test_against_grids_of_a_hundred(problem: Any, folds: Any) -> None:
    X, y = cancer()
    found = i.tune(problem, X, y, cv=folds, violated="ignore")
    low, high = problem.search_box(X, 2.0 * y - 1)
    assert found.value <= grid_value(problem, X, y, folds, np.geomspace(low[0], high[0], 100)) * (1 + 1e-3)


def test_more_hyper_parameters_do_not_lose() -> None:
    X, y = load_diabetes(return_X_y=True)
    single = i.tune(i.Lasso(), X, y, cv=3)
    several = i.tune(i.Lasso(weighted=True), X, y, cv=3, start=np.full(10, single.penalty[0]), n_scan=0)
    assert several.value < single.value and several.penalty.shape == (10,)
    elastic = i.tune(i.ElasticNet(), X, y, cv=3)
    assert elastic.value <= single.value * (1 + 1e-3)
    model = i.TunedLasso(weighted=True, cv=3, max_iter=5).fit(X, y)
    assert model.alpha_.shape == (10,)


@pytest.mark.parametrize("loss", shortened(["hinge", "squared_hinge"], 1))
def test_svc_is_stationary(loss: Any) -> None:
    X, y = cancer()
    model = i.TunedLinearSVC(loss=loss, cv=3, n_scan=7).fit(X[:, :8], y)
    around = [h for h in model.run_.history if abs(np.log(h.penalty[0] / model.C_)) < 1]
    assert model.run_.value == min(h.value for h in around) and model.score(X[:, :8], y) > 0.9


def test_held_out_set() -> None:
    X, y = load_diabetes(return_X_y=True)
    found = i.tune(i.Lasso(), X[:300], y[:300], held_out=(X[300:], y[300:]))
    split = PredefinedSplit(np.where(np.arange(len(y)) < 300, -1, 0))
    model = i.TunedLasso(cv=split).fit(X, y)
    assert found.value == pytest.approx(model.run_.value, rel=1e-5)
    assert found.penalty[0] == pytest.approx(model.alpha_, rel=1e-2)
    np.testing.assert_allclose(
        found.solution.coef, i.differentiate_solution(i.Lasso(), X[:300], y[:300], found.penalty).solution.coef
    )


def test_with_the_tools_of_scikit_learn() -> None:
    X, y = cancer()
    X, labels = X[:, :5], np.where(y == 1, "benign", "malignant")
    pipe = make_pipeline(StandardScaler(), i.TunedLogisticRegression(**QUICK))
    search = GridSearchCV(pipe, {"tunedlogisticregression__fit_intercept": [True, False]}, cv=2).fit(X, labels)
    assert search.best_score_ > 0.85 and set(search.predict(X)) == {"benign", "malignant"}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert clone(i.TunedLasso(weighted=True, cv=7)).get_params()["weighted"] is True
    three = np.arange(len(y)) % 3
    assert OneVsRestClassifier(i.TunedLogisticRegression(**QUICK)).fit(X, three).predict(X).shape == y.shape


def test_equal_columns() -> None:
    X, y = load_diabetes(return_X_y=True)
    X = np.hstack([X, X[:, 2:3]])
    with pytest.raises(NotInvertible, match="features 2, 10"):
        i.TunedLasso().fit(X, y)
    plain = i.TunedLasso(cv=3).fit(X[:, :10], y)
    model = i.TunedLasso(cv=3, violated="ignore").fit(X, y)
    assert model.run_.value == pytest.approx(plain.run_.value, rel=1e-4) and model.diagnosis_.invertible is False
    assert model.run_.status == "undecided" and {one.status for one in model.run_.history[5:]} == {"undecided"}
    with pytest.warns(
        ImplicitWarning, match=r"undecided at \d+ of \d+ hyper-parameters, the best one among them"
    ) as said:
        i.TunedLasso(cv=3, violated="warn").fit(X, y)
    assert len(said) == 1


def test_a_solver_that_does_not_converge() -> None:
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(NotConverged, match="converged for none"):
        i.tune(i.Lasso(), X, y, solver=lambda X, y, penalty, start: np.full(X.shape[1], np.nan))

    def sometimes(X: Any, y: Any, penalty: Any, start: Any) -> Any:
        wrong = np.full(X.shape[1], np.nan)
        return wrong if penalty[0] < 0.1 else i.differentiate_solution(i.Lasso(), X, y, penalty).solution.coef

    with pytest.warns(ImplicitWarning, match="did not converge for"):
        found = i.tune(i.Lasso(), X, y, solver=sometimes, n_scan=4)
    assert found.penalty[0] >= 0.1


def test_more_features_than_samples() -> None:
    """Coordinate descent is not done there at small penalties, and its support is not the solution's: no condition is violated."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 200))
    y = X[:, :5].sum(1) * 3 + rng.standard_normal(30)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ImplicitWarning)
        found = i.TunedLasso().fit(X, y)
    assert len(said) <= 2  # one of what did not converge, one of what is open
    grid = LassoCV(cv=5, alphas=50, tol=1e-8, max_iter=100_000).fit(X, y)
    assert found.run_.value <= grid.mse_path_.mean(1).min()


def test_bad_input() -> None:
    X, y = load_diabetes(return_X_y=True)
    for options, message in [
        ({"cv": 1}, "n_splits|k-fold"),
        ({"n_scan": 0}, "n_scan"),
        ({"tol": 0.0}, "tol"),
        ({"bounds": (1.0, 0.1)}, "above the largest"),
        ({"bounds": (-1.0, 0.1)}, "positive"),
        ({"start": [1.0, 2.0]}, "1 positive number"),
        ({"held_out": (X[:, :3], y)}, "features"),
        ({"held_out": (X,)}, "the pair"),
        ({"cv": []}, "no split"),
        ({"cv": [(np.arange(9), np.arange(0))]}, "0 held-out samples"),
    ]:
        with pytest.raises(ValueError, match=message):
            i.tune(i.Lasso(), X, y, **options)
    with pytest.raises(UsageError, match="no held-out loss"):
        i.tune(i.Lasso(), X, y, loss="r2")
    for problem in (i.SparseLogistic(), i.LinearSVM()):
        with pytest.raises(UsageError, match="split 1 of cv hold one class"):
            i.tune(
                problem, X, y > 200, cv=[(np.arange(99), np.arange(99, 200)), (np.flatnonzero(y > 200), np.arange(99))]
            )
    with pytest.raises(ValueError, match="Only binary"):
        i.TunedLinearSVC().fit(X, np.arange(len(y)) % 3)
