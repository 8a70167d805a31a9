"""The solution path: its kinks by bisection, its coefficients by solving, its one-sided derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import nonsmooth as ns
from nonsmooth.errors import NotConverged, UsageError
from tests.shortened import shortened

i = ns.implicit


def problem(seed: int, n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) @ (np.eye(p) + 0.5 * rng.standard_normal((p, p)))
    return X, X[:, : p // 2] @ rng.standard_normal(p // 2) + rng.standard_normal(n)


def support(X: np.ndarray, y: np.ndarray, l1: float, l2: float) -> tuple[int, ...]:
    kind, penalty = (i.ElasticNet(), [l1, l2]) if l2 else (i.Lasso(), [l1])
    return tuple(np.flatnonzero(i.differentiate_solution(kind, X, y, penalty, violated="ignore").solution.coef))


@pytest.mark.parametrize("seed", shortened(range(3), 1))
@pytest.mark.parametrize(("n", "p", "l2"), [(30, 6, 0.0), (30, 6, 0.3), (12, 20, 0.0), (12, 20, 0.1)])
def test_knots_by_bisection(n: int, p: int, l2: float, seed: int) -> None:
    """At every knot the support changes, found again by bisection; between knots it does not."""
    X, y = problem(seed, n, p)
    path = i.solution_path(X, y, l2, l1_min=1e-3)
    for knot, (enter, leave) in list(zip(path.knots, path.events, strict=True))[:8]:
        low, high = knot * (1 - 1e-4), knot * (1 + 1e-4)
        below, above = set(support(X, y, low, l2)), set(support(X, y, high, l2))
        assert below - above == set(enter) and above - below == set(leave)
        for _ in range(25):
            middle = (low + high) / 2
            low, high = (middle, high) if set(support(X, y, middle, l2)) == below else (low, middle)
        assert (low + high) / 2 == pytest.approx(knot, rel=1e-8)
    for segment in path.segments[:8]:
        assert support(X, y, (segment.lower + segment.upper) / 2, l2) == segment.support


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_coefficients_and_derivatives(l2: float, fit_intercept: bool) -> None:
    X, y = problem(5, 25, 8)
    path = i.solution_path(X, y, l2, fit_intercept=fit_intercept)
    for l1 in np.geomspace(1.2 * path.knots[0], 0.02, 7):
        kind, penalty = (i.ElasticNet(fit_intercept), [l1, l2]) if l2 else (i.Lasso(fit_intercept), [l1])
        found = i.differentiate_solution(kind, X, y, penalty)
        np.testing.assert_allclose(path.coef(l1), found.solution.coef, atol=1e-9)
        assert path.intercept(l1) == pytest.approx(found.solution.intercept, abs=1e-9)
        left, right = path.derivative(l1)
        np.testing.assert_allclose(left, found.coef[0], atol=1e-9)
        np.testing.assert_allclose(left, right)
    left, right = path.derivative(path.knots[0])
    assert np.count_nonzero(left) == 1 and not right.any()


def test_a_feature_leaves() -> None:
    X, y = load_diabetes(return_X_y=True)
    path = i.solution_path(X, y)
    assert len(path.knots) == 12 and path.events[10] == ((), (6,)) and path.events[11] == ((6,), ())
    assert path.segments[-1].lower == 0


def test_ties_are_refused() -> None:
    for seed in range(10):
        X, y = problem(seed, 20, 4)
        for copies in (X, -X, X[:, ::-1], 2 * X[:, :1] @ np.ones((1, 4))):
            with pytest.raises(NotConverged, match=r"dependent|tie"):
                i.solution_path(np.hstack([X, copies]), y)
    X, y = problem(0, 20, 4)
    assert len(i.solution_path(np.hstack([X, 2 * X]), y, l2=0.5).knots)


def test_bad_input() -> None:
    X, y = problem(0, 20, 4)
    path = i.solution_path(X, y, l1_min=0.1)
    for l1 in (0.0, -1.0, 0.05, np.nan):
        with pytest.raises(UsageError, match="path was asked"):
            path.coef(l1)
    for options in ({"l2": -1.0}, {"l2": np.inf}, {"l1_min": -1.0}):
        with pytest.raises(UsageError, match="not negative"):
            i.solution_path(X, y, **options)
    nothing = i.solution_path(X, np.ones(20))
    assert len(nothing.knots) == 0 and not nothing.coef(1.0).any()


@pytest.mark.parametrize("seed", shortened(range(10), 5))
def test_random_paths_are_followed_to_their_end(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(5, 40)), int(rng.integers(2, 60))
    X, y = problem(seed, n, p)
    path = i.solution_path(X, y, fit_intercept=bool(seed % 2))
    assert (np.diff(path.knots) < 0).all() and path.segments[-1].lower == 0
    l1 = float(path.knots[-1]) / 2
    start = path.coef(l1)
    found = i.differentiate_solution(i.Lasso(bool(seed % 2)), X, y, l1, start=start, violated="ignore")
    np.testing.assert_allclose(X @ start, X @ found.solution.coef, atol=1e-6)
