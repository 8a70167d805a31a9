"""The held-out loss, or the mean of it over folds, as a function of the logarithms of the hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nonsmooth.errors import NotConverged
from nonsmooth.implicit.options import Violated
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.hyper_gradient import gradient_at
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
    """

    problem: Problem
    folds: list[tuple[Vector, Vector, Vector, Vector]]
    loss: HeldOutLoss
    solver: Solver
    violated: Violated
    history: list[Evaluation] = field(default_factory=list)
    starts: dict[int, Vector] = field(default_factory=dict)

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
            found = gradient_at(self.problem, X, y, solution, X_new, y_new, self.loss, self.violated, limit=1)
            value += found.value / len(self.folds)
            gradient += found.log_gradient / len(self.folds)
            kinks += len(found.kinks)
            status = status if found.diagnosis.status == "computed" else "undecided"
        return self._kept(Evaluation(penalty, value, gradient, kinks, status))

    def _kept(self, evaluation: Evaluation) -> Evaluation:
        """Keep an evaluation."""
        self.history.append(evaluation)
        return evaluation

    def best(self) -> Evaluation:
        """Give the evaluation with the least value."""
        return min(self.history, key=lambda one: one.value)
