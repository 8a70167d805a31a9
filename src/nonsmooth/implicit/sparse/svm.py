"""Linear support vector machines, differentiated through their dual.

Source: derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.dual_box import Dual, mirrored, polish, recover
from nonsmooth.implicit.sparse.linearisation import Linearisation
from nonsmooth.implicit.sparse.problem import Problem, Solution, Solver, check_gap

__all__ = ["LinearSVM"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LinearSVM(Problem):
    """A linear support vector machine of two classes, with the conventions of scikit-learn's LinearSVC.

        min |w|^2 / 2 + C sum_i max(0, 1 - y_i w'x_i)    or the squares of these, with "squared_hinge"

    x_i ends with the constant `intercept_scaling`, whose weight is penalised like the others. What is differentiated is
    the dual, whose variables are bounded: 0 <= a_i <= C, or 0 <= a_i with 1/2C added to the diagonal.

    Attributes:
        loss: "squared_hinge" or "hinge".
        fit_intercept: whether x_i ends with a constant.
        intercept_scaling: that constant.

    >>> LinearSVM().names(3)
    ('C',)

    Source: CortesVapnik1995, derived, docs/theory/sparse_models.md.
    """

    fit_intercept: bool = True
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    intercept_scaling: float = 1.0
    classification: ClassVar[bool] = True
    held_out_loss: ClassVar[str] = "squared_hinge"

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.loss not in get_args(Literal["squared_hinge", "hinge"]):
            raise UsageError(f"loss={self.loss!r} means nothing: choose squared_hinge or hinge.")
        if not 0 < self.intercept_scaling < np.inf:
            raise UsageError(f"intercept_scaling={self.intercept_scaling!r}: pass a positive number.")

    def names(self, features: int) -> tuple[str, ...]:
        """Name the hyper-parameter."""
        return ("C",)

    def search_box(self, X: Vector, y: Vector) -> tuple[Vector, Vector]:
        """Give C from 1e-4 to 100, relative to the mean square of the features."""
        size = float((X**2).mean()) or 1.0
        return np.array([1e-4 / size]), np.array([1e2 / size])

    def dual(self, X: Vector, y: Vector, a: Vector, C: float) -> Dual:
        """Give the dual problem at some variables."""
        constant = np.full((len(y), int(self.fit_intercept)), self.intercept_scaling)
        return Dual.at(y * np.hstack([X, constant]).T, a, C, squared=self.loss == "squared_hinge")

    def solve(self, X: Vector, y: Vector, penalty: Vector, start: Vector | None, solver: Solver) -> Solution:
        """Solve by liblinear; where a start is given, by Newton steps from there if these are enough."""
        C = float(penalty[0])
        reference = C * len(y)
        found = None
        if start is not None and solver.polish and not callable(solver.name):
            largest = float(np.max(start, initial=0.0))
            found = polish(self.dual(X, y, start * (C / largest if largest else 1.0), C))
        if found is None or not found.gap() <= solver.tolerance * reference:
            found = self._from_scratch(X, y, penalty, start, solver)
        gap = found.gap()
        check_gap(gap, reference, solver, type(self).__name__)
        return self._solution(X, y, penalty, found, gap)

    def _from_scratch(self, X: Vector, y: Vector, penalty: Vector, start: Vector | None, solver: Solver) -> Dual:
        """Solve by the user's own solver, or by liblinear, and by libsvm where that does not converge."""
        C = float(penalty[0])
        if callable(solver.name):
            a = np.array(solver.name(X, y, penalty, np.zeros(len(y)) if start is None else start), dtype=np.float64)
            if a.shape != y.shape:
                raise UsageError(f"The solver gave an array of shape {a.shape}; it must give {len(y)} dual variables.")
            found = self.dual(X, y, a.clip(0, None if self.loss == "squared_hinge" else C), C)
        else:
            zero = self.dual(X, y, np.zeros(len(y)), C)
            found = recover(zero, solver)
            found = polish(found) if solver.polish else found
            if found.gap() <= solver.tolerance * C * len(y) or self.loss == "squared_hinge":
                return found
            found = mirrored(zero, solver)
        return polish(found) if solver.polish else found

    def _solution(self, X: Vector, y: Vector, penalty: Vector, found: Dual, gap: float) -> Solution:
        """Give the weights of dual variables."""
        coef, intercept = self._push(X, y, found.a)
        return Solution(coef, intercept, penalty, found.primal(), gap, found.a)

    def _push(self, X: Vector, y: Vector, a: Vector) -> tuple[Vector, float]:
        """Give coefficients and intercept, linear in the dual variables."""
        intercept = self.intercept_scaling**2 * float(y @ a) if self.fit_intercept else 0.0
        return X.T @ (y * a), intercept

    def linearise(self, X: Vector, y: Vector, solution: Solution) -> Linearisation:
        """Give the equation of the dual variables."""
        C = float(solution.penalty[0])
        at = self.dual(X, y, solution.z, C)
        s2 = self.intercept_scaling**2 if self.fit_intercept else 0.0
        ones = np.ones(len(y))
        return Linearisation(
            A=at.A,
            scale=1.0,
            ridge=at.ridge,
            z=at.a,
            slack=at.margins - 1 if at.squared else np.abs(at.margins - 1),
            unit=ones,
            room=at.a if at.squared else np.minimum(at.a, C - at.a),
            room_unit=float(at.a.max(initial=0.0)) if at.squared else C,
            slack_error=np.sqrt((at.A**2).sum(0) * 2 * solution.gap),
            slack_rounding=32 * EPS * (np.abs(at.A).T @ np.abs(at.w) + 1),
            residual=at.residual(),
            nonlinearity=1.0,
            radius=0.0,
            rates=-at.a[None] / (2 * C**2) if at.squared else np.zeros((1, len(y))),
            resting=np.zeros((1, len(y))) if at.squared else np.where(at.a > C / 2, 1.0, 0.0)[None],
            pull=lambda coef, intercept: y * (X @ coef + s2 * intercept),
            push=lambda dz: self._push(X, y, dz),
            names="sample",
        )
