"""The held-out loss, or the mean of it over folds, as a function of the logarithms of the hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nonsmooth.errors import NotConverged
from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.active_set import Equicorrelation
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.hyper_gradient import check_condition, gradient_at, said_of
from nonsmooth.implicit.sparse.losses import HeldOutLoss
from nonsmooth.implicit.sparse.problem import Problem, Solver

__all__ = ["Criterion", "Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a criterion.

    Attributes:
        penalty: the hyper-parameters.
        value: the mean held-out loss; infinity where a solver did not converge.
        log_gradient: its gradient in the logarithms, an element of the set where there are kinks.
        kinks: how many coordinates lie on a kink, over all folds.
        status: "computed", "undecided", or "not converged".
    """

    penalty: Vector
    value: float
    log_gradient: Vector
    kinks: int
    status: str


@dataclass
class Criterion:
    """The mean held-out loss over folds, with the solutions met last as starts.

    Attributes:
        problem: what is solved on the training samples of each fold.
        folds: (X, y, X held out, y held out), all read.
        loss: of the predictions.
        solver: of the problems.
        violated: what to do where the condition does not hold.
        history: all evaluations.
        doubt: what was undecided first, in words.
    """

    problem: Problem
    folds: list[tuple[Vector, Vector, Vector, Vector]]
    loss: HeldOutLoss
    solver: Solver
    violated: Violated
    history: list[Evaluation] = field(default_factory=list)
    starts: dict[int, Vector] = field(default_factory=dict)
    doubt: str = ""

    def __call__(self, log_penalty: Vector) -> Evaluation:
        """Evaluate value and gradient; an unconverged solver makes the value infinite, and is kept in the history."""
        penalty = np.exp(log_penalty)
        value, gradient, kinks, status = 0.0, np.zeros_like(penalty), 0, "computed"
        for i, (X, y, X_new, y_new) in enumerate(self.folds):
            try:
                solution = self.problem.solve(X, y, penalty, self.starts.get(i), self.solver)
            except NotConverged:
                return self._kept(Evaluation(penalty, np.inf, np.full_like(penalty, np.nan), 0, "not converged"))
            self.starts[i] = solution.z
            found = gradient_at(self.problem, X, y, solution, X_new, y_new, self.loss, "ignore", limit=1)
            status = self._judged(found.diagnosis, status)
            value += found.value / len(self.folds)
            gradient += found.log_gradient / len(self.folds)
            kinks += len(found.kinks)
        return self._kept(Evaluation(penalty, value, gradient, kinks, status))

    def _judged(self, found: Equicorrelation, status: str) -> str:
        """Refuse a violated condition; note the first doubt, of which the search speaks once, at its end."""
        if found.status == "computed" and found.invertible:
            return status
        if found.invertible is False and self.violated == "raise":
            check_condition(found, "raise")
        self.doubt = self.doubt or said_of(found)
        return "undecided"

    def _kept(self, evaluation: Evaluation) -> Evaluation:
        """Keep an evaluation."""
        self.history.append(evaluation)
        return evaluation

    def best(self) -> Evaluation:
        """Give the evaluation with the least value."""
        return min(self.history, key=lambda one: one.value)
