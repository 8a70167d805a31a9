"""Tame finite sums J = (J_1 + .. + J_n)/n for the study of convergence, and step sizes for them, lawful and not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nonsmooth.optim.schedules import (
    ConstantSchedule,
    EpochSchedule,
    LogarithmicSchedule,
    PowerSchedule,
    Schedule,
)
from nonsmooth.studies.data import load

__all__ = ["METHODS", "PROBLEMS", "SAMPLINGS", "SCHEDULES", "Problem", "problem", "schedule"]

PROBLEMS = ("median", "least absolute deviations", "relu network")
SCHEDULES = ("power", "harmonic", "logarithmic", "constant", "summable")
SAMPLINGS = ("independent", "without replacement")
METHODS = ("subgradient", "INNA")

IMAGES, HIDDEN = 60, 4
"""The network: images of two digits, hidden units."""


@dataclass(frozen=True)
class Problem:
    """A finite sum, and how it is minimised.

    Attributes:
        name, formula: what it is.
        n, batch: how many terms, and how many of them a step takes; batch divides n.
        size: how many variables.
        first: a_0, the first step.
        data: tensors whose rows are the terms.
        loss: (theta, *data) -> the mean of the terms.
        start: rng -> theta_0.
        radii: of the balls over which criticality is measured.
        least: the least value of J, where it is known.
    """

    name: str
    formula: str
    n: int
    batch: int
    size: int
    first: float
    data: tuple[Any, ...]
    loss: Callable[..., Any]
    start: Callable[[np.random.Generator], Any]
    radii: tuple[float, ...]
    least: float | None

    @property
    def steps_per_epoch(self) -> int:
        """How many batches hold every term once."""
        return self.n // self.batch


def schedule(name: str, problem: Problem, sampling: str) -> Schedule:
    """Give the step sizes of that name; without replacement constant within an epoch, with the same decay."""
    a, m = problem.first, problem.steps_per_epoch if sampling == "without replacement" else 1
    made: dict[str, Schedule] = {
        "power": PowerSchedule(a, 0.6, delay=1 / m),
        "harmonic": PowerSchedule(a, 1.0, delay=50 / m),
        "logarithmic": LogarithmicSchedule(a, 2.0, delay=1 / m),
        "constant": ConstantSchedule(a),
        "summable": PowerSchedule(a, 2.0, delay=1 / m),
    }
    return made[name] if m == 1 else EpochSchedule(made[name], m)


@cache
def problem(name: str) -> Problem:
    """Give a problem by its name."""
    return {"median": _median, "least absolute deviations": _deviations, "relu network": _network}[name]()


def _median() -> Problem:
    """The mean of |x - c_i|, least at the median; criticality at a point is at least 1/9 elsewhere."""
    import torch

    centres = torch.tensor([-2.0, -1.3, -0.9, -0.2, 0.1, 0.4, 1.1, 1.6, 2.3], dtype=torch.float64)

    def loss(x: Any, c: Any) -> Any:
        return (x - c).abs().mean()

    def start(rng: np.random.Generator) -> Any:
        return torch.tensor([rng.choice([-1, 1]) * rng.uniform(2, 3)], dtype=torch.float64)

    least = float(loss(torch.tensor([0.1], dtype=torch.float64), centres))
    formula = "mean |x - c_i|, x and c_i numbers"
    return Problem("median", formula, 9, 1, 1, 0.5, (centres,), loss, start, (0.01, 0.1), least)


def _deviations() -> Problem:
    """Least absolute deviations on the diabetes data that scikit-learn ships; the least value by linear programming."""
    import torch
    from scipy.optimize import linprog
    from sklearn import datasets

    rows, answers = datasets.load_diabetes(return_X_y=True)
    rows = np.column_stack([(rows - rows.mean(0)) / rows.std(0), np.ones(len(rows))])
    answers = (answers - answers.mean()) / answers.std()
    n, size = rows.shape
    above = np.block([[rows, -np.eye(n)], [-rows, -np.eye(n)]])
    bounds = [(None, None)] * size + [(0, None)] * n
    best = linprog(np.r_[np.zeros(size), np.full(n, 1 / n)], above, np.r_[answers, -answers], bounds=bounds)

    def loss(w: Any, x: Any, y: Any) -> Any:
        return (x @ w - y).abs().mean()

    def start(rng: np.random.Generator) -> Any:
        return torch.as_tensor(0.5 * rng.standard_normal(size))

    data = torch.as_tensor(rows), torch.as_tensor(answers)
    formula = f"mean |<w, x_i> - y_i|, the diabetes data: {n} patients"
    return Problem(
        "least absolute deviations", formula, n, 26, size, 0.1, data, loss, start, (0.01, 0.1), float(best.fun)
    )


def _network() -> Problem:
    """The mean absolute error of a small relu network that tells 3 from 8."""
    import torch

    images, labels = load("digits")
    chosen = np.flatnonzero((labels == 3) | (labels == 8))[:IMAGES]
    pixels = images[chosen].reshape(IMAGES, 4, 2, 4, 2).mean((2, 4)).reshape(IMAGES, 16)
    signs = np.where(labels[chosen] == 3, 1.0, -1.0)
    ends = np.cumsum([16 * HIDDEN, HIDDEN, HIDDEN, 1])

    def loss(theta: Any, x: Any, y: Any) -> Any:
        w, b, v, c = (
            theta[: ends[0]].view(HIDDEN, 16),
            theta[ends[0] : ends[1]],
            theta[ends[1] : ends[2]],
            theta[ends[2]],
        )
        return (torch.relu(x @ w.T + b) @ v + c - y).abs().mean()

    def start(rng: np.random.Generator) -> Any:
        scales = np.repeat([0.5, 0.0, 0.5, 0.0], [16 * HIDDEN, HIDDEN, HIDDEN, 1])
        return torch.as_tensor(scales * rng.standard_normal(len(scales)))

    data = torch.as_tensor(pixels), torch.as_tensor(signs)
    formula = f"mean |network(x_i) - y_i|, {HIDDEN} relu units, {IMAGES} digits, 3 against 8"
    return Problem("relu network", formula, IMAGES, 12, int(ends[-1]), 0.2, data, loss, start, (0.01, 0.1), None)
