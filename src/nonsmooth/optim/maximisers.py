"""Maximisers: what gives y_k in argmax { F(x_k, y) : y in Y } to the ridge method, if the user has nothing better."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.optim.ridge_step import MinMax

__all__ = ["Exhaustive", "Maximiser", "ProjectedAscent"]


class Maximiser(ABC):
    """A rule that maximises F(x, .) over Y, given the problem."""

    @abstractmethod
    def find(self, problem: MinMax, x: Any, y: Any, data: tuple[Any, ...]) -> Any:
        """Give y, like the one to begin with."""


class ProjectedAscent(Maximiser):
    """Projected gradient ascent with a search for the length of the step.

        y <- P_Y(y + t g),   g what backprop returns for y,   F(x, y_new) >= F(x, y) + c <g, y_new - y>

    It ends where no step gains: at a maximiser if F(x, .) is smooth and concave, else at some point that resists. Status:
    none; the ridge direction checks what it can.

    Args:
        steps: the most steps.
        step_size: t to begin with; it doubles after a success and is halved after a failure.

    Raises:
        UsageError: numbers that mean nothing, or (in a run) y grows beyond all numbers.

    >>> import torch
    >>> import nonsmooth as ns
    >>> F = lambda x, y: x * y.sum() - (y * y).sum()
    >>> x, y = torch.tensor(1.0, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    >>> ns.optim.ridge(F, x, ns.optim.ProjectedAscent(), y=y, steps=1, step_size=0.0).y.round(decimals=6)
    tensor([0.5000, 0.5000], dtype=torch.float64)

    Source: Clarke1983.
    """

    def __init__(self, steps: int = 200, step_size: float = 1.0) -> None:
        if isinstance(steps, bool) or steps < 1 or not 0 < step_size < math.inf:
            raise UsageError(
                f"ProjectedAscent was given steps={steps!r}, step_size={step_size!r}; pass positive numbers."
            )
        self.steps, self.step_size = int(steps), float(step_size)

    def find(self, problem: MinMax, x: Any, y: Any, data: tuple[Any, ...]) -> Any:
        """Climb from the projection of y."""
        constraints, t = problem.constraints(y), self.step_size
        y = problem.tree(y, constraints.project(problem.flat(y)))
        value, slope = problem.value_and_slope(x, y, data)
        for _ in range(self.steps):
            at = problem.flat(y)
            while True:
                new = problem.tree(y, constraints.project(at + t * slope))
                gain = float(slope @ (problem.flat(new) - at))
                if not gain > 0:
                    return y
                if not problem.framework.finite(new):
                    raise UsageError(
                        "ProjectedAscent went up beyond all numbers: F(x, .) seems to have no maximum over Y. Pass constraint=, a "
                        "bounded Y, or subtract from F what holds y back."
                    )
                reached = problem.value(x, new, data)
                if reached >= value + GAIN * gain and reached > value:
                    break
                t /= 2
            y, t = new, 2 * t
            value, slope = problem.value_and_slope(x, y, data)
        return y


GAIN = 0.1
"""A step must gain this part of what its slope promises."""


class Exhaustive(Maximiser):
    """The best of finitely many candidates: exact where Y is finite, or F(x, .) is convex and they are the vertices of Y.

    Args:
        candidates: points like y, at least one.

    Raises:
        UsageError: no candidate.

    >>> import torch
    >>> import nonsmooth as ns
    >>> points = [torch.tensor(-1.0), torch.tensor(2.0)]
    >>> ns.optim.ridge(lambda x, y: x * y, torch.tensor(1.0), ns.optim.Exhaustive(points), constraint=ns.optim.Box(-1, 2),
    ...                steps=1, step_size=0.0).y
    tensor(2.)

    Source: Clarke1983.
    """

    def __init__(self, candidates: Sequence[Any]) -> None:
        self.candidates = list(candidates)
        if not self.candidates:
            raise UsageError("there is no candidate for y; pass at least one.")

    def find(self, problem: MinMax, x: Any, y: Any, data: tuple[Any, ...]) -> Any:
        """Try all; of those that tie, the first."""
        return self.candidates[int(np.argmax([problem.value(x, one, data) for one in self.candidates]))]
