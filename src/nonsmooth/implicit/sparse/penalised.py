"""Linear models with an l1 penalty: mean loss + sum_j l1_j |b_j| + l2 |b|^2 / 2, the intercept unpenalised.

Source: derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.implicit.sparse.coordinate_descent import descend
from nonsmooth.implicit.sparse.data import Vector, means
from nonsmooth.implicit.sparse.linearisation import Linearisation
from nonsmooth.implicit.sparse.losses import LogisticLoss, SquareLoss
from nonsmooth.implicit.sparse.problem import Problem, Solution, Solver, check_gap
from nonsmooth.implicit.sparse.proximal_newton import polish, proximal_newton
from nonsmooth.implicit.sparse.state import State

__all__ = ["Penalised"]

EPS = float(np.finfo(np.float64).eps)

ROUGH = 1e-4
"""A relative duality gap at which the coordinates that move are mostly known, so that Newton's method may finish at once."""


@dataclass(frozen=True)
class Penalised(Problem):
    """A linear model with an l1 penalty; its variables are its coefficients."""

    fit_intercept: bool = True

    @property
    @abstractmethod
    def loss(self) -> SquareLoss | LogisticLoss:
        """The loss of a sample."""

    @abstractmethod
    def penalties(self, penalty: Vector, features: int) -> tuple[Vector, float]:
        """Give l1, one for each feature, and l2."""

    @abstractmethod
    def rates(self, signs: Vector, z: Vector) -> Vector:
        """Give the derivative of the gradient of the penalty in the hyper-parameters, where a coordinate moves."""

    def state(self, X: Vector, y: Vector, z: Vector, penalty: Vector) -> State:
        """Give what the algorithms need at z, with the best intercept for it."""
        l1, l2 = self.penalties(penalty, X.shape[1])
        return State.at(self.loss, X, y, z, l1, l2, self.fit_intercept)

    def solve(self, X: Vector, y: Vector, penalty: Vector, start: Vector | None, solver: Solver) -> Solution:
        """Solve, by coordinate descent, or by proximal Newton steps that are solved by it."""
        origin = self.state(X, y, np.zeros(X.shape[1]), penalty)
        reference = float(self.loss.values(y, origin.f).mean())
        begun = origin if start is None else origin.moved(_coefficients(start, X.shape[1], "The start"))
        found = None
        if start is not None and solver.polish and not callable(solver.name):
            found = polish(begun)
        if found is None or not found.gap() <= solver.tolerance * reference:
            found = self._from(begun, solver, reference, (X, y, penalty))
        if start is not None and not callable(solver.name) and not found.gap() <= solver.tolerance * reference:
            found = self._from(origin, solver, reference, (X, y, penalty))
        gap = found.gap()
        check_gap(gap, reference, solver, type(self).__name__)
        return Solution(found.z, found.intercept, penalty, found.objective(), gap, found.z)

    def _from(self, begun: State, solver: Solver, reference: float, data: tuple[Vector, Vector, Vector]) -> State:
        """Solve from some coefficients."""
        if callable(solver.name):
            found = begun.moved(_coefficients(solver.name(*data, begun.z), len(begun.z), "The solver"))
        elif not self.loss.quadratic:
            found = begun.moved(proximal_newton(begun, solver, reference))
        else:
            if solver.polish and solver.tolerance < ROUGH:
                begun = begun.moved(descend(begun, replace(solver, tolerance=ROUGH)))
                found = polish(begun)
                if found.gap() <= solver.tolerance * reference:
                    return found
            found = begun.moved(descend(begun, solver))
        return polish(found) if solver.polish else found

    def linearise(self, X: Vector, y: Vector, solution: Solution) -> Linearisation:
        """Give the equation of the coefficients; the intercept is eliminated by centring."""
        found = self.state(X, y, solution.z, solution.penalty)
        k, h = X.shape[1], len(solution.penalty)
        A, mean = found.design(), found.mean
        columns = np.sqrt(self.loss.smoothness * np.einsum("ij,ij->j", found.X, found.X) / len(y) + found.l2)
        size = np.abs(found.X).T @ (np.abs(found.y) + np.abs(found.f)) / len(y) + np.abs(found.l2 * found.z)
        return Linearisation(
            A=A,
            scale=float(len(y)),
            ridge=found.l2,
            z=found.z,
            slack=np.abs(found.l1 - np.abs(found.correlation)),
            unit=found.l1,
            room=np.abs(found.z),
            room_unit=float(np.abs(found.z).max(initial=0.0)),
            slack_error=columns * np.sqrt(2 * solution.gap),
            slack_rounding=32 * EPS * size,
            residual=found.residual(),
            nonlinearity=1.0 if self.loss.quadratic else 2.0,
            radius=0.0 if self.loss.quadratic else float(np.sqrt(1 + (found.X**2).sum(1).max())),
            rates=self.rates(np.sign(found.correlation), found.z),
            resting=np.zeros((h, k)),
            pull=lambda coef, intercept: coef - mean * intercept,
            push=lambda dz: (dz, -float(mean @ dz)),
            names="feature",
        )

    def largest(self, X: Vector, y: Vector) -> Vector:
        """Give the least l1 of each feature for which the solution is zero: |X_j'theta| / n at zero."""
        state = State.at(self.loss, X, y, np.zeros(X.shape[1]), np.ones(X.shape[1]), 0.0, self.fit_intercept)
        return np.abs(state.correlation)

    def search_box(self, X: Vector, y: Vector) -> tuple[Vector, Vector]:
        """Give l1 from a thousandth of the least value with solution zero up to that; l2 beside it from 1e-4 to 10 mean squares."""
        names = self.names(X.shape[1])
        largest = float(self.largest(X, y).max()) or 1.0
        upper = np.full(len(names), largest)
        lower = 1e-3 * upper
        if names[-1] == "l2":
            size = self.loss.smoothness * float(((X - means(X)) ** 2).mean()) or 1.0
            lower[-1], upper[-1] = 1e-4 * size, 10 * size
        return lower, upper


def _coefficients(z: Any, features: int, what: str) -> Vector:
    """Read a start, or what the user's own solver gives."""
    found = np.array(z, dtype=np.float64)
    if found.shape != (features,):
        raise UsageError(f"{what} gave an array of shape {found.shape}; it must give {features} coefficients.")
    if not np.isfinite(found).all():
        raise NotConverged(f"{what} gave coefficients that are nan or infinite.")
    return found
