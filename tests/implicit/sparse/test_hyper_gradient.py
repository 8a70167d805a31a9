"""Hyper-parameter gradients: closed forms, difference quotients, sets at kinks, the condition, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError
from tests.references import sparse_models as naive
from tests.shortened import shortened

i = ns.implicit

PROBLEMS: list[tuple[Any, list[float]]] = [
    (i.Lasso(), [0.2]),
    (i.Lasso(fit_intercept=False), [0.05]),
    (i.Lasso(weighted=True), [0.1, 0.3, 0.05, 0.2, 0.02, 0.1]),
    (i.ElasticNet(), [0.2, 0.1]),
    (i.ElasticNet(fit_intercept=False), [0.05, 1.0]),
    (i.SparseLogistic(), [0.05]),
    (i.SparseLogistic(fit_intercept=False), [0.02]),
    (i.SparseLogistic(ridge=True), [0.03, 0.1]),
    (i.LinearSVM(), [0.3]),
    (i.LinearSVM(fit_intercept=False), [2.0]),
    (i.LinearSVM(loss="hinge"), [0.1]),
    (i.LinearSVM(loss="hinge", intercept_scaling=3.0), [1.0]),
]


def data(seed: int, n: int = 40, p: int = 6, labels: bool = False) -> tuple[Any, ...]:
    """Draw training and held-out samples."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, p)) + rng.standard_normal(p)
    y = X @ (rng.standard_normal(p) * (np.arange(p) < 4)) + rng.standard_normal(2 * n) + 1
    y = np.where(y > np.median(y), "yes", "no") if labels else y
    return X[:n], y[:n], X[n:], y[n:]


@pytest.mark.parametrize("seed", shortened(range(3), 1))
@pytest.mark.parametrize(("problem", "penalty"), PROBLEMS, ids=lambda v: str(v))
def test_difference_quotients(problem: Any, penalty: list[float], seed: int) -> None:
    X, y, X_new, y_new = data(seed, labels=problem.classification)
    point = np.array(penalty)
    found = i.hyper_gradient(problem, X, y, point, X_new, y_new)
    assert found.status == "computed" and found.kinks == () and found.diagnosis.invertible
    np.testing.assert_allclose(found.log_gradient, point * found.gradient)
    whole = i.differentiate_solution(problem, X, y, point)
    for k in range(len(point)):
        h = 1e-6 * point[k] * np.eye(len(point))[k]
        ahead, behind = (i.hyper_gradient(problem, X, y, point + s * h, X_new, y_new) for s in (1, -1))
        size = 1e-5 * (1 + abs(found.value) / point[k])
        assert found.gradient[k] == pytest.approx((ahead.value - behind.value) / (2 * h[k]), abs=size)
        slope = (ahead.solution.coef - behind.solution.coef) / (2 * h[k])
        np.testing.assert_allclose(whole.coef[k], slope, atol=1e-5 * (1 + np.abs(slope).max()))
        level = (ahead.solution.intercept - behind.solution.intercept) / (2 * h[k])
        assert whole.intercept[k] == pytest.approx(level, abs=1e-5 * (1 + abs(level) + np.abs(slope).max()))


@pytest.mark.parametrize("n,p", [(40, 6), (15, 40)])
@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("seed", shortened(range(3), 1))
def test_against_the_dense_equation(n: int, p: int, l2: float, seed: int) -> None:
    X, y, *_ = data(seed, n, p)
    X, y = naive.centred(X, y)
    problem, penalty = (i.ElasticNet(fit_intercept=False), [0.3, l2]) if l2 else (i.Lasso(fit_intercept=False), [0.3])
    found = i.differentiate_solution(problem, X, y, penalty)
    b = naive.lasso_by_iteration(X, y, np.full(p, 0.3), l2)
    np.testing.assert_allclose(found.solution.coef, b, atol=1e-8)
    B, slope = naive.implicit_derivative(X, y, 0.3, l2, b, kinked=0.5)
    assert np.linalg.cond(B) < 1e8
    np.testing.assert_allclose(found.coef[0], slope, atol=1e-7)


def test_soft_threshold() -> None:
    """An orthonormal design: b_j = sign(u_j) max(|u_j| - l1, 0) / (1 + l2), u = X'y/n."""
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 5)))[0] * np.sqrt(8)
    u = np.array([3.0, -2.0, 0.5, -0.25, 1.5])
    found = i.differentiate_solution(i.ElasticNet(fit_intercept=False), X, X @ u, [1.0, 0.25])
    moves = np.abs(u) > 1
    np.testing.assert_allclose(found.solution.coef, np.sign(u) * np.maximum(np.abs(u) - 1, 0) / 1.25, atol=1e-12)
    np.testing.assert_allclose(found.coef[0], -np.sign(u) * moves / 1.25, atol=1e-12)
    np.testing.assert_allclose(found.coef[1], -found.solution.coef / 1.25, atol=1e-12)


def test_a_kink_of_the_soft_threshold() -> None:
    X, y = np.sqrt(3) * np.eye(3), np.sqrt(3) * np.array([2.0, -1.0, 0.5])
    found = i.differentiate_solution(i.Lasso(fit_intercept=False), X, y, 1.0)
    assert found.kinks == (1,) and found.status == "computed" and found.diagnosis.invertible
    lower, upper = found.set.box()
    np.testing.assert_allclose(lower, [-1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(upper, [-1, 1, 0, 0], atol=1e-12)
    assert found.set.contains(np.append(found.coef[0], found.intercept[0]))


@pytest.mark.parametrize("n,p,l2", [(40, 6, 0.0), (15, 30, 0.0), (15, 30, 0.1)])
@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_at_the_kinks_of_a_path_the_set_ends_in_the_one_sided_derivatives(n: int, p: int, l2: float, seed: int) -> None:
    X, y, X_new, y_new = data(seed, n, p)
    path = i.solution_path(X, y, l2)
    for knot in path.knots[1:5]:
        problem, penalty = (i.ElasticNet(), [knot, l2]) if l2 else (i.Lasso(), [knot])
        found = i.hyper_gradient(problem, X, y, penalty, X_new, y_new)
        assert len(found.kinks) == 1 and found.status == "computed"
        left, right = path.derivative(knot)
        rates = [
            2 * (found.solution.predict(X_new) - y_new) @ ((X_new - X.mean(0)) @ d) / len(y_new) for d in (left, right)
        ]
        ends = sorted(float(v[0]) for v in found.set.vertices())
        np.testing.assert_allclose(ends, sorted(rates), rtol=1e-5, atol=1e-8)
        assert found.set.contains(found.gradient, tol=1e-9)

        def loss(l1: float, problem: Any = problem, penalty: list[float] = penalty) -> Any:
            return i.hyper_gradient(problem, X, y, [l1, *penalty[1:]], X_new, y_new).value

        np.testing.assert_allclose(naive.one_sided(loss, knot, 1e-6 * knot), rates, rtol=1e-3, atol=1e-4)


def test_above_and_at_the_largest_penalty() -> None:
    X, y, X_new, y_new = data(0)
    largest = float(np.abs((X - X.mean(0)).T @ (y - y.mean())).max()) / len(y)
    above = i.hyper_gradient(i.Lasso(), X, y, 1.5 * largest, X_new, y_new)
    assert not above.solution.coef.any() and above.gradient == 0 and above.status == "computed" and not above.kinks
    at = i.hyper_gradient(i.Lasso(), X, y, largest, X_new, y_new)
    assert len(at.kinks) == 1 and 0.0 in [float(v[0]) for v in at.set.vertices()] and len(at.set.vertices()) == 2


@pytest.mark.parametrize("C", [0.1, 0.3, 0.7, 1.5, 3.0])
def test_one_weight_of_the_hinge(C: float) -> None:
    X, y = np.array([[1.0], [0.5], [-1.5]]), np.array([1, 1, 0])
    found = i.differentiate_solution(i.LinearSVM(loss="hinge", fit_intercept=False), X, y, C)
    solve = lambda C: naive.hinge_by_bisection(X, np.array([1.0, 1, -1]), C)  # noqa: E731
    np.testing.assert_allclose(found.solution.coef, solve(C), atol=1e-8)
    np.testing.assert_allclose(naive.one_sided(solve, C, 1e-6), np.tile(found.coef[0], (2, 1)), atol=1e-6)


def test_a_kink_of_the_hinge() -> None:
    """w = C (1 + 1/4) until the first sample reaches its margin at C = 0.8; then w = 1."""
    X, y = np.array([[1.0], [-0.25]]), np.array([1, 0])
    found = i.differentiate_solution(i.LinearSVM(loss="hinge", fit_intercept=False), X, y, 0.8)
    solve = lambda C: naive.hinge_by_bisection(X, np.array([1.0, -1.0]), C)  # noqa: E731
    left, right = naive.one_sided(solve, 0.8, 1e-6)
    assert found.kinks == (0,) and found.status == "computed" and found.solution.coef[0] == pytest.approx(1.0)
    np.testing.assert_allclose(sorted(found.set.vertices()[:, 0]), [0, 1.25], atol=1e-9)
    np.testing.assert_allclose([right[0], left[0]], [0, 1.25], atol=1e-6)


def test_a_kink_of_the_squared_hinge() -> None:
    """Both samples short: w = 8C / (1 + 20C); the second reaches its margin, 3w = 1, at C = 1/4: then w = 2C / (1 + 2C)."""
    X, y, C = np.array([[1.0], [-3.0]]), np.array([1, 0]), 0.25
    found = i.differentiate_solution(i.LinearSVM(fit_intercept=False), X, y, C)
    assert found.kinks == (1,) and found.solution.coef[0] == pytest.approx(1 / 3) and found.diagnosis.invertible
    ends = sorted([8 / (1 + 20 * C) ** 2, 2 / (1 + 2 * C) ** 2])
    np.testing.assert_allclose(sorted(found.set.vertices()[:, 0]), ends, atol=1e-9)
    solve = lambda C: i.differentiate_solution(i.LinearSVM(fit_intercept=False), X, y, C).solution.coef  # noqa: E731
    np.testing.assert_allclose(sorted(np.ravel(naive.one_sided(solve, C, 1e-6))), ends, atol=1e-4)


@pytest.mark.parametrize("problem", [i.Lasso(), i.SparseLogistic(), i.Lasso(weighted=True)], ids=str)
def test_equal_columns_violate_the_condition(problem: Any) -> None:
    X, y, X_new, y_new = data(1, labels=problem.classification)
    X, X_new = np.hstack([X, X[:, :1]]), np.hstack([X_new, X_new[:, :1]])
    penalty = [0.02] * 7 if isinstance(problem, i.Lasso) and problem.weighted else 0.02
    with pytest.raises(NotInvertible, match="features 0, 6 are linearly dependent"):
        i.hyper_gradient(problem, X, y, penalty, X_new, y_new)
    with pytest.warns(ImplicitWarning, match="linearly dependent"):
        found = i.hyper_gradient(problem, X, y, penalty, X_new, y_new, violated="warn")
    assert found.status == "undecided" and found.diagnosis.invertible is False and found.set is None
    if isinstance(problem, i.Lasso) and not problem.weighted:
        held = i.hyper_gradient(i.ElasticNet(), X, y, [0.02, 0.01], X_new, y_new)
        assert held.diagnosis.invertible and held.status == "computed"
        assert SklearnLasso(alpha=0.02).fit(X, y).coef_.any()


def test_equal_samples_on_the_margin_violate_the_condition() -> None:
    X, y = np.array([[1.0], [1.0], [-1.0]]), np.array([1, 1, 0])
    with pytest.raises(NotInvertible, match="samples"):
        i.differentiate_solution(i.LinearSVM(loss="hinge", fit_intercept=False), X, y, 5.0)
    assert i.differentiate_solution(i.LinearSVM(fit_intercept=False), X, y, 5.0).diagnosis.invertible


def test_the_equicorrelation_set_decides_and_not_the_support() -> None:
    """Three features tie in two dimensions and one of them moves: H is regular on the support and singular on E."""
    X = np.array([[1.0, 0.0, 0.3], [0.0, 1.0, 0.7]])
    y = X @ [1.0, 0.0, 0.0] + 2 * 0.1
    with pytest.raises(NotInvertible, match="features 0, 1, 2"):
        i.differentiate_solution(i.Lasso(fit_intercept=False), X, y, 0.1)
    with pytest.warns(ImplicitWarning, match="dependent"):
        found = i.differentiate_solution(i.Lasso(fit_intercept=False), X, y, 0.1, violated="warn")
    assert found.status == "undecided" and found.diagnosis.equicorrelation == (0, 1, 2)
    two = i.differentiate_solution(i.Lasso(fit_intercept=False), X[:, :2], y, 0.1)
    assert two.diagnosis.invertible and two.kinks == (1,)


@pytest.mark.parametrize("l1", [0.02, 0.1])
def test_predictions_differentiate_on_independent_columns(l1: float) -> None:
    """With an equal column the warned derivative of the held-out loss is that of the problem without it."""
    X, y, X_new, y_new = data(1)
    plain = i.hyper_gradient(i.Lasso(), X, y, l1, X_new, y_new)
    X, X_new = np.hstack([X, X[:, :1]]), np.hstack([X_new, X_new[:, :1]])
    found = i.hyper_gradient(i.Lasso(), X, y, l1, X_new, y_new, violated="ignore")
    assert found.gradient == pytest.approx(plain.gradient)


@pytest.mark.parametrize("name", ["sklearn", "skglm"])
def test_solvers_agree(name: Any) -> None:
    if name == "skglm":
        pytest.importorskip("skglm")
    X, y, *_ = data(2, 30, 50)
    for problem, penalty in [
        (i.Lasso(), [0.1]),
        (i.ElasticNet(), [0.1, 0.2]),
        (i.Lasso(weighted=True), np.linspace(0.1, 0.4, 50)),
    ]:
        plain = i.differentiate_solution(problem, X, y, penalty)
        other = i.differentiate_solution(problem, X, y, penalty, solver=name, polish=False, tolerance=1e-10)
        np.testing.assert_allclose(other.solution.coef, plain.solution.coef, atol=1e-4)
    labels = np.sign(y - np.median(y) + 1e-9)
    plain = i.differentiate_solution(i.SparseLogistic(), X, labels, 0.05)
    np.testing.assert_allclose(
        i.differentiate_solution(i.SparseLogistic(), X, labels, 0.05, solver=name).coef, plain.coef, atol=1e-6
    )


def test_the_solutions_are_those_of_scikit_learn() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = SklearnLasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(X, y)
    found = i.differentiate_solution(i.Lasso(), X, y, 0.1).solution
    np.testing.assert_allclose(found.coef, model.coef_, atol=1e-3)
    assert found.intercept == pytest.approx(model.intercept_)
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    saga = LogisticRegression(l1_ratio=1, C=1 / (len(y) * 0.05), solver="saga", tol=1e-10, max_iter=10_000).fit(X, y)
    found = i.differentiate_solution(i.SparseLogistic(), X, y, 0.05).solution
    np.testing.assert_allclose(found.coef, saga.coef_[0], atol=1e-6)
    for loss in ("hinge", "squared_hinge"):
        svc = LinearSVC(loss=loss, C=0.1, dual=True, tol=1e-10, max_iter=1_000_000, random_state=0).fit(X, y)
        found = i.differentiate_solution(i.LinearSVM(loss=loss), X, y, 0.1).solution  # type: ignore[arg-type]
        np.testing.assert_allclose(found.coef, svc.coef_[0], atol=1e-5)
        assert found.intercept == pytest.approx(svc.intercept_[0], abs=1e-5)


def test_an_unconverged_solution_is_refused_or_leaves_the_set_open() -> None:
    X, y, *_ = data(3, 30, 40)
    zeros = lambda X, y, penalty, start: np.zeros(X.shape[1])  # noqa: E731
    with pytest.raises(NotConverged, match="duality gap"):
        i.differentiate_solution(i.Lasso(), X, y, 0.1, solver=zeros, polish=False)
    with pytest.raises(NotConverged, match="duality gap"):
        i.differentiate_solution(i.Lasso(), X, y, 0.01, iterations=1, polish=False)
    with pytest.raises(NotConverged, match="nan"):
        i.differentiate_solution(i.Lasso(), X, y, 0.1, solver=lambda X, *_: np.full(X.shape[1], np.nan))
    with pytest.warns(ImplicitWarning):
        rough = i.differentiate_solution(i.Lasso(), X, y, 0.1, tolerance=0.05, polish=False, violated="warn")
    assert rough.status == "undecided" and rough.diagnosis.open
    fine = i.differentiate_solution(i.Lasso(), X, y, 0.1)
    assert set(fine.diagnosis.equicorrelation) <= set(rough.diagnosis.equicorrelation) and "accuracy" in str(
        rough.diagnosis
    )


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_what_a_rough_solution_claims_is_true(tolerance: float) -> None:
    """Whatever the gap, the set that is given contains E, and what is said to move is in the support."""
    for seed in range(8):
        X, y, *_ = data(seed, 30, 12)
        exact = i.differentiate_solution(i.Lasso(), X, y, 0.15).diagnosis
        rough = i.differentiate_solution(
            i.Lasso(), X, y, 0.15, tolerance=tolerance, polish=False, violated="ignore"
        ).diagnosis
        assert set(exact.equicorrelation) <= set(rough.equicorrelation)
        assert set(rough.support) <= set(exact.support)


def test_a_rough_solution_violates_no_condition() -> None:
    """More features than samples move in it, and are correlated by more than l1: the solution has no such set."""
    X, y, *_ = data(0, 10, 40)
    least_norm = np.linalg.lstsq(X - X.mean(0), y - y.mean(), rcond=None)[0]
    with pytest.warns(ImplicitWarning, match="can be in the set or not"):
        rough = i.differentiate_solution(
            i.Lasso(), X, y, 1e-4, solver=lambda *_: 0.99 * least_norm, tolerance=1.0, polish=False
        )
    assert rough.diagnosis.invertible is not False and rough.status == "undecided"
    assert i.differentiate_solution(i.Lasso(), X, y, 1e-4).diagnosis.invertible


def test_what_the_accuracy_leaves_open_is_said() -> None:
    """A column that is nearly another one: the condition holds, and what moves is not known."""
    X, y, X_new, y_new = data(1)
    noise = 1e-9 * np.random.default_rng(0).standard_normal((len(X), 1))
    X, X_new = np.hstack([X, X[:, :1] + noise]), np.hstack([X_new, X_new[:, :1]])
    with pytest.warns(ImplicitWarning, match="can be in the set or not"):
        found = i.hyper_gradient(i.Lasso(), X, y, 0.02, X_new, y_new)
    assert found.status == "undecided" and found.diagnosis.open and found.gradient != 0
    assert np.isfinite(i.hyper_gradient(i.Lasso(), X, y, 0.02, X_new, y_new, violated="ignore").gradient).all()


@pytest.mark.parametrize("size", [1e-8, 1e8])
def test_the_units_of_the_features_do_not_matter(size: float) -> None:
    X, y, X_new, y_new = data(2)
    plain = i.hyper_gradient(i.Lasso(), X, y, 0.2, X_new, y_new)
    other = i.hyper_gradient(i.Lasso(), size * X, y, size * 0.2, size * X_new, y_new)
    assert other.status == "computed" and other.kinks == ()
    np.testing.assert_allclose([other.value, other.gradient[0] * size], [plain.value, plain.gradient[0]], rtol=1e-9)


@pytest.mark.parametrize("problem", [i.Lasso(), i.SparseLogistic()])
@pytest.mark.parametrize("level", [1e9, 1e15, -3.3e80])
def test_the_level_of_the_features_does_not_matter(problem: Any, level: float) -> None:
    """Times in seconds since 1970 and the like; of a constant feature nothing remains."""
    X, y, X_new, y_new = data(2)
    X, X_new = np.round(64 * X) / 64, np.round(64 * X_new) / 64  # so that no digits are lost at 1e9
    if problem.classification:
        y, y_new = y > np.median(y), y_new > np.median(y)
    plain = i.hyper_gradient(problem, X, y, 0.05, X_new, y_new)
    raised = level * (np.arange(X.shape[1] + 1) == X.shape[1])  # a constant feature beside the others
    raised[0] = level if abs(level) < 1e12 else 0.0
    other = i.hyper_gradient(problem, np.c_[X, 0 * y] + raised, y, 0.05, np.c_[X_new, 0 * y_new] + raised, y_new)
    assert other.status == "computed" and X.shape[1] not in other.diagnosis.equicorrelation
    np.testing.assert_allclose([other.value, *other.gradient], [plain.value, *plain.gradient], rtol=1e-5)


def test_tensors_are_read_and_those_with_a_graph_refused() -> None:
    torch = pytest.importorskip("torch")
    X, y, X_new, y_new = data(2)
    found = i.hyper_gradient(i.Lasso(), torch.tensor(X), torch.tensor(y), 0.2, X_new, y_new)
    assert found.gradient == i.hyper_gradient(i.Lasso(), X, y, 0.2, X_new, y_new).gradient
    with pytest.raises(UsageError, match="penalty is no array of real numbers"):
        i.hyper_gradient(i.Lasso(), X, y, torch.tensor(0.2, requires_grad=True), X_new, y_new)


X0, Y0 = np.eye(3), np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((i.Lasso(), [[np.nan, 1.0]], [1.0], 0.1), "nan or infinite"),
        ((i.Lasso(), X0, [1.0, np.inf, 2.0], 0.1), "nan or infinite"),
        ((i.Lasso(), np.zeros((0, 3)), [], 0.1), "neither of them 0"),
        ((i.Lasso(), np.ones(3), Y0, 0.1), "shape"),
        ((i.Lasso(), X0, Y0[:2], 0.1), "3 samples"),
        ((i.Lasso(), X0, Y0, -0.1), "l1 is -0.1"),
        ((i.Lasso(), X0, Y0, 0.0), "positive"),
        ((i.Lasso(), X0, Y0, [0.1, 0.2]), "1 positive number"),
        ((i.ElasticNet(), X0, Y0, [0.1, 0.0]), "l2 is 0"),
        ((i.SparseLogistic(), X0, [1, 1, 1], 0.1), "1 class"),
        ((i.SparseLogistic(), X0, [1, 2, 3], 0.1), "3 classes"),
        ((i.LinearSVM(), X0, [1, 1, 1], 0.1), "1 class"),
        ((i.Lasso(), [["a"]], [1.0], 0.1), "real numbers"),
        ((i.Lasso(), [[1j]], [1.0], 0.1), "real numbers"),
        ((None, X0, Y0, 0.1), "no problem"),
    ],
)
def test_bad_input(arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        i.differentiate_solution(*arguments)


def test_bad_options() -> None:
    for options in (
        {"solver": "magic"},
        {"tolerance": 0},
        {"iterations": 0},
        {"near": -1},
        {"violated": "maybe"},
        {"start": [1.0]},
    ):
        with pytest.raises(UsageError):
            i.differentiate_solution(i.Lasso(), X0, Y0, 0.1, **options)
    with pytest.raises(UsageError, match="features"):
        i.hyper_gradient(i.Lasso(), X0, Y0, 0.1, np.ones((2, 2)), [1.0, 2.0])
    with pytest.raises(UsageError, match="held-out loss"):
        i.hyper_gradient(i.Lasso(), X0, Y0, 0.1, X0, Y0, loss="mae")
    with pytest.raises(UsageError, match="labels other"):
        i.hyper_gradient(i.SparseLogistic(), X0, [0, 1, 1], 0.1, X0, [0, 1, 2])
    with pytest.raises(UsageError):
        i.LinearSVM(loss="l3")  # type: ignore[arg-type]


def test_own_loss_and_inputs_stay() -> None:
    X, y, X_new, y_new = data(4)
    before = [a.copy() for a in (X, y, X_new, y_new)]
    own = lambda y, f: (float(((y - f) ** 2).mean()), 2 * (f - y) / len(y))  # noqa: E731
    a = i.hyper_gradient(i.Lasso(), X, y, 0.1, X_new, y_new, loss=own)
    b = i.hyper_gradient(i.Lasso(), X, y, 0.1, X_new, y_new)
    assert a.gradient == b.gradient
    with pytest.raises(UsageError, match="gradient"):
        i.hyper_gradient(i.Lasso(), X, y, 0.1, X_new, y_new, loss=lambda y, f: 1.0)  # type: ignore[arg-type,return-value]
    for array, old in zip((X, y, X_new, y_new), before, strict=True):
        np.testing.assert_array_equal(array, old)
