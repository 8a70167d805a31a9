"""Coordinate descent for penalised least squares: scikit-learn's, or skglm's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path

from nonsmooth.errors import UsageError
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.problem import Solver
from nonsmooth.implicit.sparse.state import State

__all__ = ["descend", "least_squares"]


def descend(state: State, solver: Solver) -> Vector:
    """Solve a problem of least squares from the coefficients of a state."""
    target = state.y - state.y.mean() if state.fit_intercept else state.y
    gap = 0.1 * solver.tolerance * float(target @ target) / (2 * len(target))
    return least_squares(state.X, target, state.l1, state.l2, state.z, solver, gap)


def least_squares(X: Vector, y: Vector, l1: Vector, l2: float, start: Vector, solver: Solver, gap: float) -> Vector:
    """Minimise |y - X z|^2 / 2n + sum_j l1_j |z_j| + l2 |z|^2 / 2 to a duality gap; the caller checks whether it converged.

    Penalties that differ are made equal by scaling the columns; a ridge beside them by further rows.
    """
    if (l1 == l1[0]).all():
        return _solve(X, y, float(l1[0]), l2, start, solver, gap)
    n, k = X.shape
    mean = float(np.exp(np.log(l1).mean()))
    if l2:
        X, y = np.vstack([X, np.sqrt(n * l2) * np.eye(k)]), np.concatenate([y, np.zeros(k)])
    factor = l1 / mean
    return _solve(X / factor, y, mean * n / len(y), 0.0, start * factor, solver, gap * n / len(y)) / factor


def _solve(X: Vector, y: Vector, l1: float, l2: float, start: Vector, solver: Solver, gap: float) -> Vector:
    """Solve with one l1 for all features."""
    size = float(y @ y)
    if size == 0:
        return np.zeros_like(start)
    if solver.name == "skglm":
        return _skglm(X, y, l1, l2, start, solver, gap)
    # scikit-learn stops at a gap of tol |y|^2 in its sum over the samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, coefs, _ = enet_path(
            np.asfortranarray(X),
            y,
            l1_ratio=l1 / (l1 + l2),
            alphas=[l1 + l2],
            coef_init=start,
            tol=float(np.clip(gap * len(y) / size, 1e-16, 1.0)),
            max_iter=solver.iterations,
            check_input=False,  # they have been read
        )
    return np.asarray(coefs[:, 0])


def _skglm(X: Vector, y: Vector, l1: float, l2: float, start: Vector, solver: Solver, gap: float) -> Vector:
    """Solve with the working sets of skglm."""
    try:
        from skglm.datafits import Quadratic
        from skglm.penalties import L1_plus_L2
        from skglm.solvers import AndersonCD
    except ImportError:
        raise UsageError(
            'solver="skglm" needs skglm: install `nonsmooth[sparse]`, or leave solver="sklearn".'
        ) from None
    weight = l1 + l2
    # skglm stops by the violation v of optimality: the gap is at most about v |z|_1, with l1 |z|_1 <= |y|^2 / 2n
    tol = max(gap * l1 * 2 * len(y) / float(y @ y), 1e-14 * l1)
    method: Any = AndersonCD(max_iter=min(solver.iterations, 1000), tol=tol, fit_intercept=False, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method.solve(
            np.asfortranarray(X), y, Quadratic(), L1_plus_L2(weight, l1 / weight), start.copy(), X @ start
        )
    return np.asarray(found[0])
