"""The gradient of a held-out loss in the hyper-parameters of a solution, with the condition that it exists on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.errors import ImplicitWarning, NotInvertible, UsageError
from nonsmooth.implicit.options import Options, Violated
from nonsmooth.implicit.sparse.active_set import NEAR, Equicorrelation, diagnose
from nonsmooth.implicit.sparse.data import Indices, Vector, read_design, read_penalty
from nonsmooth.implicit.sparse.losses import HeldOutLoss, read_held_out_loss
from nonsmooth.implicit.sparse.problem import Problem, Solution, Solver, SolverName
from nonsmooth.implicit.sparse.sensitivity import LIMIT, Sensitivity
from nonsmooth.sets import ConvexSet, Hull, Point

__all__ = ["HyperGradient", "SolutionDerivative", "differentiate_solution", "hyper_gradient"]


@dataclass(frozen=True)
class HyperGradient:
    """The gradient of a held-out loss in the hyper-parameters.

    Attributes:
        value: the held-out loss.
        gradient: shape (h,), an element of `set`: the derivative if there is no kink, and on a kink that of the selection in
            which only the support moves.
        log_gradient: the same in the logarithms of the hyper-parameters.
        set: the hull of the gradients of all selections, in R^h; None where they are too many to list.
        kinks: the indices that lie on a kink.
        status: "computed", or "undecided" where the condition, or what lies on a kink, is open.
        diagnosis: the equicorrelation set and the condition.
        solution: where it was taken.
        names: of the hyper-parameters.
    """

    value: float
    gradient: Vector
    log_gradient: Vector
    set: ConvexSet | None
    kinks: tuple[int, ...]
    status: str
    diagnosis: Equicorrelation
    solution: Solution = field(repr=False)
    names: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class SolutionDerivative:
    """The derivative of a solution in the hyper-parameters.

    Attributes:
        coef: shape (h, features), under the selection in which only the support moves.
        intercept: shape (h,).
        set: the hull over all selections, of arrays (coef, intercept) of shape (h, features + 1), flattened; None where
            they are too many to list.
        kinks: the indices that lie on a kink.
        status: "computed", or "undecided".
        diagnosis: the equicorrelation set and the condition.
        solution: where it was taken.
    """

    coef: Vector
    intercept: Vector
    set: ConvexSet | None
    kinks: tuple[int, ...]
    status: str
    diagnosis: Equicorrelation
    solution: Solution = field(repr=False)


def differentiate_solution(
    problem: Problem,
    X: Any,
    y: Any,
    penalty: Any,
    *,
    start: Any = None,
    solver: SolverName | Callable[..., Any] = "sklearn",
    tolerance: float = 1e-8,
    iterations: int = 100_000,
    polish: bool = True,
    violated: Violated = "raise",
    near: float = NEAR,
    limit: int = LIMIT,
) -> SolutionDerivative:
    """Solve a problem, and differentiate its solution in its hyper-parameters.

        Lasso:  db_S/dl1 = -(X_S'X_S/n)^-1 sign(b_S),   b zero elsewhere     (X centred if there is an intercept)

    Status: `computed`, where H is positive definite on the equicorrelation set to rounding; see `hyper_gradient`.

    Args:
        problem: `Lasso`, `ElasticNet`, `SparseLogistic` or `LinearSVM`.
        X: shape (samples, features).
        y: shape (samples,): numbers, or the labels of two classes.
        penalty: the hyper-parameters, positive, in the order of problem.names(features).
        start: the z of a solution nearby.
        solver: "sklearn", "skglm", or a function (X, y, penalty, start) -> z.
        tolerance: how large the duality gap may be, relative to the objective at zero.
        iterations: at most so many passes of the solver.
        polish: whether Newton's method finishes the solution.
        violated: where the condition does not hold: "raise", "warn" or "ignore". The last two give the derivative on
            independent columns of the support: of predictions by one of the solutions, if nothing lies on a kink.
        near: what share of l1 (of the margin) a coordinate may be from a kink, and is taken to lie on it.
        limit: how many selections are listed.

    Raises:
        NotConverged: the duality gap is too large.
        NotInvertible: the condition does not hold.
        UsageError: arguments that cannot be served.

    >>> from nonsmooth.implicit import Lasso
    >>> X = np.sqrt(2) * np.eye(2)                                   # b_j = soft threshold of y_j / sqrt(2)
    >>> found = differentiate_solution(Lasso(fit_intercept=False), X, [3.0, 0.5], 1.0)
    >>> found.solution.coef.round(9), found.coef.round(9) + 0
    (array([1.12132034, 0.        ]), array([[-1.,  0.]]))

    Source: derived, docs/theory/sparse_models.md, BolteLePauwelsSilvetiFalls2021.
    """
    X, y, penalty, _ = read_problem(problem, X, y, penalty)
    options = Solver(solver, tolerance, iterations, polish)
    solution = problem.solve(X, y, penalty, _start(start), options)
    sensitivity = _sensitivity(problem, X, y, solution, near)
    check_condition(sensitivity.found, violated)

    def flat(S: Indices) -> Vector:
        coef, level = sensitivity.derivative(S)
        return np.hstack([coef, level[:, None]]).ravel()

    element, values = _elements(sensitivity, flat, limit)
    rows = element.reshape(len(penalty), -1)
    found = sensitivity.found
    return SolutionDerivative(
        rows[:, :-1], rows[:, -1], _set_of(values), found.kinks, _status(found, values), found, solution
    )


def hyper_gradient(
    problem: Problem,
    X: Any,
    y: Any,
    penalty: Any,
    X_held_out: Any,
    y_held_out: Any,
    *,
    loss: str | HeldOutLoss | None = None,
    start: Any = None,
    solver: SolverName | Callable[..., Any] = "sklearn",
    tolerance: float = 1e-8,
    iterations: int = 100_000,
    polish: bool = True,
    violated: Violated = "raise",
    near: float = NEAR,
    limit: int = LIMIT,
) -> HyperGradient:
    """Solve a problem, and differentiate a loss of its predictions on held-out samples in its hyper-parameters.

        dL/dpenalty = q_U dz_U - (rates_S + H_SU dz_U)' H_SS^-1 q_S,   q the gradient of L in z: one linear solve

    Status: `computed`, where H is positive definite on the equicorrelation set to rounding. Then the derivative exists if
    nothing lies on a kink; on kinks `set` is the hull of the gradients of all selections, `gradient` one of them.

    Args:
        X_held_out: shape (samples', features).
        y_held_out: shape (samples',).
        loss: "mse", "log_loss", "squared_hinge", or a function (y, predictions) -> (value, gradient in the predictions);
            labels are -1 and 1. By default that of the problem.
        problem, X, y, penalty, start, solver, tolerance, iterations, polish, violated, near, limit: as of
            `differentiate_solution`.

    Raises:
        NotConverged: the duality gap is too large.
        NotInvertible: the condition does not hold.
        UsageError: arguments that cannot be served.

    >>> from nonsmooth.implicit import Lasso
    >>> X, y = np.sqrt(2) * np.eye(2), np.array([3.0, 0.5])
    >>> found = hyper_gradient(Lasso(fit_intercept=False), X, y, 1.0, [[1.0, 1.0]], [1.0])
    >>> round(found.value, 6), found.gradient.round(6), found.kinks            # (b_1 - 1)^2, and -2 (b_1 - 1)
    (0.014719, array([-0.242641]), ())

    Source: derived, docs/theory/sparse_models.md, BolteLePauwelsSilvetiFalls2021.
    """
    X, y, penalty, classes = read_problem(problem, X, y, penalty)
    X_new = read_design(X_held_out, "X_held_out")
    if X_new.shape[1] != X.shape[1]:
        raise UsageError(f"X_held_out has {X_new.shape[1]} features, and X has {X.shape[1]}; pass the same features.")
    y_new, _ = problem.read(y_held_out, len(X_new), "y_held_out", classes)
    held_out = read_held_out_loss(problem.held_out_loss if loss is None else loss)
    options = Solver(solver, tolerance, iterations, polish)
    solution = problem.solve(X, y, penalty, _start(start), options)
    return gradient_at(problem, X, y, solution, X_new, y_new, held_out, violated, near, limit)


def gradient_at(
    problem: Problem,
    X: Vector,
    y: Vector,
    solution: Solution,
    X_new: Vector,
    y_new: Vector,
    loss: HeldOutLoss,
    violated: Violated,
    near: float = NEAR,
    limit: int = LIMIT,
) -> HyperGradient:
    """Differentiate a held-out loss at a solution; all arguments have been read."""
    value, slope = loss(y_new, solution.predict(X_new))
    sensitivity = _sensitivity(problem, X, y, solution, near)
    check_condition(sensitivity.found, violated)
    level = float(slope.sum()) if problem.fit_intercept else 0.0
    q = sensitivity.at.pull(X_new.T @ slope, level)
    gradient, values = _elements(sensitivity, lambda S: sensitivity.gradient(S, q), limit)
    found = sensitivity.found
    return HyperGradient(
        value=value,
        gradient=gradient,
        log_gradient=gradient * solution.penalty,
        set=_set_of(values),
        kinks=found.kinks,
        status=_status(found, values),
        diagnosis=found,
        solution=solution,
        names=problem.names(X.shape[1]),
    )


def read_problem(problem: Problem, X: Any, y: Any, penalty: Any) -> tuple[Vector, Vector, Vector, Any]:
    """Read what defines a solution."""
    if not isinstance(problem, Problem):
        raise UsageError(f"{problem!r} is no problem: pass Lasso(), ElasticNet(), SparseLogistic() or LinearSVM().")
    X = read_design(X)
    y, classes = problem.read(y, len(X))
    return X, y, read_penalty(penalty, problem.names(X.shape[1])), classes


def check_condition(found: Equicorrelation, violated: Violated) -> None:
    """Raise or warn where the condition does not hold, or is undecided; warn where it is unknown what moves."""
    Options(violated=violated)
    if violated == "ignore" or (found.invertible is True and not found.open):
        return
    said = said_of(found)
    if found.invertible is False and violated == "raise":
        raise NotInvertible(
            said
            + " Leave out what is dependent, add a ridge (ElasticNet), or pass violated='warn' for the derivative on "
            "independent ones of the support."
        )
    warnings.warn(said, ImplicitWarning, stacklevel=4)


def said_of(found: Equicorrelation) -> str:
    """Say in a sentence what of the condition does not hold, or is open."""
    holds = "is" if found.invertible is True else "must be"
    return (
        f"The solution is to be differentiated, and H {holds} positive definite on its {len(found.equicorrelation)} equally "
        f"correlated {found.names}(s); " + "; ".join(reason.rstrip(".") for reason in found.reasons) + "."
    )


def _sensitivity(problem: Problem, X: Vector, y: Vector, solution: Solution, near: float) -> Sensitivity:
    """Linearise at a solution, and find what moves."""
    if not 0 <= near < 1:
        raise UsageError(f"near={near!r}: pass a number in [0, 1), a share of l1 or of the margin.")
    at = problem.linearise(X, y, solution)
    return Sensitivity(at, diagnose(at, solution.gap, near))


def _elements(
    sensitivity: Sensitivity, derivative: Callable[[Indices], Vector], limit: int
) -> tuple[Vector, Vector | None]:
    """Give the derivative of the support, and those of all selections, if they can be listed and all exist."""
    if sensitivity.found.invertible is not True:
        return derivative(sensitivity.independent()), None
    values = sensitivity.over_selections(derivative, limit)
    if values is None or sensitivity.found.open:
        return derivative(sensitivity.moved()), values
    return values[0], values


def _set_of(values: Vector | None) -> ConvexSet | None:
    """Give the hull of the rows."""
    return None if values is None else Point(values[0]) if len(values) == 1 else Hull(values)


def _status(found: Equicorrelation, values: Vector | None) -> str:
    """Say `undecided` where the condition, the kinks, or the set are."""
    return "computed" if found.status == "computed" and found.invertible and values is not None else "undecided"


def _start(start: Any) -> Vector | None:
    """Read a start."""
    return None if start is None else np.asarray(start, dtype=np.float64)
