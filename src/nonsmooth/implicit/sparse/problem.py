"""What every problem offers: its hyper-parameters, its solution, and the equation of that, linearised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.implicit.sparse.data import Vector, read_labels, read_target
from nonsmooth.implicit.sparse.linearisation import Linearisation

__all__ = ["Problem", "Solution", "Solver", "SolverName"]

SolverName: TypeAlias = Literal["sklearn", "skglm"]


@dataclass(frozen=True)
class Solver:
    """How a problem is solved.

    Attributes:
        name: "sklearn", "skglm" (an extra), or a function (X, y, penalty, start) -> z, the variables of the problem:
            coefficients, or of a support vector machine its dual variables.
        tolerance: how large the duality gap may be, relative to the objective at zero.
        iterations: at most so many passes over the coordinates.
        polish: whether the solution is finished by Newton's method on the coordinates that move.
    """

    name: SolverName | Callable[..., Any] = "sklearn"
    tolerance: float = 1e-8
    iterations: int = 100_000
    polish: bool = True

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if not callable(self.name) and self.name not in get_args(SolverName):
            raise UsageError(
                f"solver={self.name!r} means nothing: pass one of {', '.join(get_args(SolverName))}, or a function."
            )
        if not 0 < self.tolerance < np.inf:
            raise UsageError(f"tolerance={self.tolerance!r}: pass a positive number.")
        if isinstance(self.iterations, bool) or self.iterations < 1:
            raise UsageError(f"iterations={self.iterations!r}: a solver makes at least one pass.")


@dataclass(frozen=True)
class Solution:
    """A solution and how accurate it is.

    Attributes:
        coef: shape (features,).
        intercept: a number.
        penalty: the hyper-parameters.
        objective: the value of the objective.
        gap: the duality gap: objective - minimum <= gap.
        z: the variables of the equation that is differentiated: the coefficients, or dual variables.
    """

    coef: Vector
    intercept: float
    penalty: Vector
    objective: float
    gap: float
    z: Vector = field(repr=False)

    def predict(self, X: Vector) -> Vector:
        """Give X coef + intercept."""
        return np.asarray(X @ self.coef + self.intercept)


class Problem(ABC):
    """A family of convex problems with hyper-parameters."""

    classification: ClassVar[bool] = False
    held_out_loss: ClassVar[str] = "mse"
    fit_intercept: bool

    @abstractmethod
    def names(self, features: int) -> tuple[str, ...]:
        """Name the hyper-parameters."""

    @abstractmethod
    def solve(self, X: Vector, y: Vector, penalty: Vector, start: Vector | None, solver: Solver) -> Solution:
        """Solve on data that have been read (labels -1 and 1)."""

    @abstractmethod
    def linearise(self, X: Vector, y: Vector, solution: Solution) -> Linearisation:
        """Give the equation at a solution."""

    @abstractmethod
    def search_box(self, X: Vector, y: Vector) -> tuple[Vector, Vector]:
        """Give the least and the largest hyper-parameters of a search."""

    def read(self, y: Any, samples: int, what: str = "y", classes: Any = None) -> tuple[Vector, Any]:
        """Read targets, or labels as -1 and 1 with their classes."""
        return read_labels(y, samples, what, classes) if self.classification else (read_target(y, samples, what), None)


def check_gap(gap: float, reference: float, solver: Solver, what: str) -> None:
    """Refuse a solution whose duality gap is too large, or not a number."""
    if not gap <= solver.tolerance * reference:
        raise NotConverged(
            f"{what} was to be solved to a duality gap of {solver.tolerance:g} times its objective at zero; found "
            f"{gap / reference if reference else gap:.1e} times it after at most {solver.iterations} passes. Raise `iterations` "
            "or `tolerance`, standardise the features, or pass a better solver."
        )
