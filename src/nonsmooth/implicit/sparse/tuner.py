"""Hyper-parameters that minimise a held-out loss, by its gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.model_selection import check_cv

from nonsmooth.errors import ImplicitWarning, NotConverged, UsageError
from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.criterion import Criterion, Evaluation
from nonsmooth.implicit.sparse.data import Vector, read_design, read_penalty
from nonsmooth.implicit.sparse.losses import HeldOutLoss, read_held_out_loss
from nonsmooth.implicit.sparse.problem import Problem, Solution, Solver, SolverName

__all__ = ["Tuning", "tune", "tune_read"]

RIDGES = 3
"""How many values of a second hyper-parameter the scan takes."""

FINER = 6
"""How many hyper-parameters the second scan takes, around the best of the first."""


@dataclass(frozen=True)
class Tuning:
    """What a search for hyper-parameters found.

    Attributes:
        penalty: the best hyper-parameters met.
        value: the mean held-out loss there.
        log_gradient: its gradient in the logarithms of the hyper-parameters; on a kink, or at a bound, it need not be 0.
        kinks: how many coordinates lie on a kink there.
        status: of the gradient there: "computed" or "undecided".
        history: every evaluation in its order.
        solution: on all samples, with these hyper-parameters; None where a held-out set was given.
        names: of the hyper-parameters.
    """

    penalty: Vector
    value: float
    log_gradient: Vector
    kinks: int
    status: str
    history: tuple[Evaluation, ...] = field(repr=False)
    solution: Solution = field(repr=False)
    names: tuple[str, ...]


def tune(
    problem: Problem,
    X: Any,
    y: Any,
    *,
    held_out: tuple[Any, Any] | None = None,
    cv: Any = 5,
    loss: str | HeldOutLoss | None = None,
    start: Any = None,
    bounds: tuple[Any, Any] | None = None,
    n_scan: int = 12,
    max_iter: int = 30,
    tol: float = 1e-4,
    solver: SolverName | Callable[..., Any] = "sklearn",
    tolerance: float = 1e-8,
    iterations: int = 100_000,
    violated: Violated = "raise",
) -> Tuning:
    """Find hyper-parameters that minimise the loss on held-out samples, or its mean over folds.

        min over log penalty of   mean over folds of  loss(y', X' b(penalty) + c(penalty))

    A coarse scan, then from its best places descents by the hyper-gradient: between two penalties with slopes of opposite
    signs the least value of one hyper-parameter, else L-BFGS-B. The function is not convex: the least value *met* is given.
    One warning at the end counts where derivatives were undecided, and one where a solver did not converge.

    Args:
        problem: `Lasso`, `ElasticNet`, `SparseLogistic` or `LinearSVM`.
        X: shape (samples, features).
        y: shape (samples,).
        held_out: (X, y) of held-out samples, instead of folds.
        cv: the number of folds, or a splitter of scikit-learn (classes are stratified), or a list of (train, test) indices.
        loss: "mse", "log_loss", "squared_hinge", or a function (y, predictions) -> (value, gradient).
        start: hyper-parameters at which to begin; by default, and besides, those of the scan.
        bounds: (least, largest) hyper-parameters; by default problem.search_box.
        n_scan: how many hyper-parameters the scan takes; 0 with a start.
        max_iter: at most so many steps of a descent.
        tol: the accuracy of the logarithm of a hyper-parameter, and of the gradient relative to the value.
        solver, tolerance, iterations, violated: as of `hyper_gradient`.

    Raises:
        NotConverged: a solver never converged.
        NotInvertible: the condition does not hold where a gradient is taken.
        UsageError: arguments that cannot be served.

    >>> from sklearn.datasets import load_diabetes
    >>> from nonsmooth.implicit import Lasso
    >>> X, y = load_diabetes(return_X_y=True)
    >>> found = tune(Lasso(), X, y)
    >>> found.penalty.round(4), round(found.value), found.status
    (array([0.0039]), 2992, 'computed')

    Source: BertrandEtAl2020, BolteLePauwelsSilvetiFalls2021.
    """
    X = read_design(X)
    y, classes = problem.read(y, len(X))
    if held_out is None:
        folds = _read_folds(X, y, problem, cv)
    else:
        folds = [(X, y, *_read_held_out(held_out, problem, X, classes))]
    held_out_loss = read_held_out_loss(problem.held_out_loss if loss is None else loss)
    criterion = Criterion(problem, folds, held_out_loss, Solver(solver, tolerance, iterations), violated)
    return tune_read(criterion, X, y, start, bounds, n_scan, max_iter, tol)


def _read_folds(X: Vector, y: Vector, problem: Problem, cv: Any) -> list[tuple[Vector, Vector, Vector, Vector]]:
    """Split the samples; refuse splits on which nothing can be learnt, or nothing measured."""
    splits = check_cv(cv, y, classifier=problem.classification).split(X, y)
    folds = [(X[a], y[a], X[b], y[b]) for a, b in splits]
    if not folds:
        raise UsageError(f"cv={cv!r} gives no split: pass a number of folds, a splitter, or (train, test) indices.")
    for k, (_, trained, _, tested) in enumerate(folds):
        if not len(trained) or not len(tested):
            raise UsageError(
                f"Split {k} of cv has {len(trained)} training and {len(tested)} held-out samples: both need one at least."
            )
        if problem.classification and len(np.unique(trained)) < 2:
            raise UsageError(
                f"The training samples of split {k} of cv hold one class alone: pass fewer folds, a stratified splitter, or "
                "more samples of the rarer class."
            )
    return folds


def _read_held_out(held_out: Any, problem: Problem, X: Vector, classes: Any) -> tuple[Vector, Vector]:
    """Read held-out samples."""
    if not isinstance(held_out, tuple | list) or len(held_out) != 2:
        raise UsageError("held_out is the pair (X, y) of held-out samples.")
    X_new = read_design(held_out[0], "the held-out X")
    if X_new.shape[1] != X.shape[1]:
        raise UsageError(
            f"The held-out X has {X_new.shape[1]} features, and X has {X.shape[1]}; pass the same features."
        )
    return X_new, problem.read(held_out[1], len(X_new), "the held-out y", classes)[0]


def tune_read(
    criterion: Criterion, X: Vector, y: Vector, start: Any, bounds: Any, n_scan: int, max_iter: int, tol: float
) -> Tuning:
    """Search on data that have been read."""
    problem, names = criterion.problem, criterion.problem.names(X.shape[1])
    if max_iter < 0 or n_scan < 0 or not tol > 0 or (start is None and n_scan == 0):
        raise UsageError(
            f"n_scan={n_scan}, max_iter={max_iter}, tol={tol}: pass n_scan > 0 or a start, and a positive tol."
        )
    lower, upper = problem.search_box(X, y) if bounds is None else bounds
    low, high = (np.log(read_penalty(np.broadcast_to(b, len(names)), names)) for b in (lower, upper))
    if (low > high).any():
        raise UsageError("bounds: a least hyper-parameter is above the largest one.")
    scan = [criterion(point) for point in _scan_points(low, high, n_scan)]
    if start is not None:
        first = criterion(np.clip(np.log(read_penalty(start, names)), low, high))
        _quasi_newton(criterion, first, low, high, max_iter, tol)
    if len(names) == 1 and n_scan:
        _between(criterion, scan, max_iter, tol)
    elif n_scan:
        for one in sorted(scan, key=lambda one: one.value)[:2]:
            _quasi_newton(criterion, one, low, high, max_iter, tol)
    return _tuning(criterion, X, y, names)


def _tuning(criterion: Criterion, X: Vector, y: Vector, names: tuple[str, ...]) -> Tuning:
    """Gather the best evaluation, and solve on all samples."""
    best, history = criterion.best(), tuple(criterion.history)
    lost = [one for one in history if one.status == "not converged"]
    if not np.isfinite(best.value):
        raise NotConverged(
            "The solver converged for none of the hyper-parameters: raise `iterations`, or standardise the features."
        )
    if lost:
        warnings.warn(
            f"The solver did not converge for {len(lost)} of {len(history)} hyper-parameters, the first of them "
            f"{lost[0].penalty[:3]}: these were left out.",
            ImplicitWarning,
            stacklevel=4,
        )
    doubtful = sum(one.status == "undecided" for one in history)
    if doubtful and criterion.violated != "ignore":
        warnings.warn(
            f"The derivatives are undecided at {doubtful} of {len(history)} hyper-parameters, the best one "
            f"{'among' if best.status == 'undecided' else 'not among'} them. Of the first: {criterion.doubt}",
            ImplicitWarning,
            stacklevel=4,
        )
    solution = criterion.problem.solve(X, y, best.penalty, None, criterion.solver)
    return Tuning(best.penalty, best.value, best.log_gradient, best.kinks, best.status, history, solution, names)


def _scan_points(low: Vector, high: Vector, count: int) -> list[Vector]:
    """Give hyper-parameters from the largest down: all together, or of two the first for a few of the second."""
    line = np.linspace(1.0, 0.0, count) if count > 1 else np.full(count, 0.5)
    if len(low) != 2:
        return [low + t * (high - low) for t in line]
    others = (np.arange(RIDGES) + 0.5) / RIDGES
    return [low + np.array([t, r]) * (high - low) for r in others for t in line]


def _between(criterion: Criterion, scan: list[Evaluation], max_iter: int, tol: float) -> None:
    """Scan once more around the best place, and search the brackets, the lowest ones first: at most three."""
    ends = _ordered(scan)
    if max_iter and len(ends) > 1:
        best = int(np.argmin([one.value for one in ends]))
        around = np.log([float(one.penalty[0]) for one in ends[max(best - 1, 0) : best + 2]])
        ends = _ordered(
            [*ends, *(criterion(np.array([t])) for t in np.linspace(around[0], around[-1], FINER + 2)[1:-1])]
        )
    brackets = [(a, b) for a, b in pairwise(ends) if a.log_gradient[0] < 0 < b.log_gradient[0]]
    for a, b in sorted(brackets, key=lambda pair: _lowest(*pair))[:3]:
        _bracket(criterion, a, b, max_iter, tol)


def _ordered(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Leave out what did not converge, and order by the hyper-parameter."""
    return sorted((one for one in evaluations if np.isfinite(one.value)), key=lambda one: float(one.penalty[0]))


def _lowest(a: Evaluation, b: Evaluation) -> float:
    """Give where the tangents of a bracket meet: how low its least value may be, for a convex function."""
    x, z = np.log(a.penalty[0]), np.log(b.penalty[0])
    p, q = a.log_gradient[0], b.log_gradient[0]
    t = (b.value - a.value + p * x - q * z) / (p - q)
    return float(min(a.value, b.value, a.value + p * (t - x)))


def _bracket(criterion: Criterion, a: Evaluation, b: Evaluation, max_iter: int, tol: float) -> None:
    """Narrow a bracket by the signs of slopes: the secant of the slopes, kept away from the ends, or the middle."""
    for i in range(max_iter):
        x, z = float(np.log(a.penalty[0])), float(np.log(b.penalty[0]))
        if z - x <= tol:
            break
        p, q = float(a.log_gradient[0]), float(b.log_gradient[0])
        share = p / (p - q) if i % 3 < 2 else 0.5
        new = criterion(np.array([x + (z - x) * min(max(share, 0.05), 0.95)]))
        if not np.isfinite(new.value) or abs(float(new.log_gradient[0])) <= 1e-3 * tol * abs(new.value):
            break
        a, b = (new, b) if new.log_gradient[0] < 0 else (a, new)


def _quasi_newton(
    criterion: Criterion, first: Evaluation, low: Vector, high: Vector, max_iter: int, tol: float
) -> None:
    """Descend by L-BFGS-B; the criterion keeps what is met."""
    if not np.isfinite(first.value) or not max_iter:
        return
    size = max(abs(first.value), 1e-300)

    def scaled(x: Vector) -> tuple[float, Vector]:
        found = criterion(np.clip(x, low, high))
        if not np.isfinite(found.value):
            return 1e10, np.zeros_like(x)
        return found.value / size, found.log_gradient / size

    minimize(
        scaled,
        np.log(first.penalty),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        options={"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tol, "ftol": tol * 1e-3},
    )
