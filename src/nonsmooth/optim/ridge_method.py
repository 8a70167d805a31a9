"""The ridge method for min-max problems: maximise in y, then step in x along a gradient of the maximum.

    y_k in argmax { F(x_k, y) : y in Y },   (v_k, w_k) in conv D_F(x_k, y_k) with w_k in N_Y(y_k),   x_(k+1) = x_k - a_k v_k

Source: Pauwels2023, derived, docs/theory/ridge.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, TypeAlias

from nonsmooth.derivatives.field import LIMIT
from nonsmooth.errors import NotMaximal, UsageError
from nonsmooth.optim.maximisers import Exhaustive, Maximiser, ProjectedAscent
from nonsmooth.optim.ridge_run import RidgeRun, RidgeStep
from nonsmooth.optim.ridge_step import MinMax, RidgeDirection, check_numbers
from nonsmooth.program import Program

__all__ = ["ridge"]

StepSize: TypeAlias = "float | Callable[[int], float]"

OTHERWISE = ("error", "stop", "step")


def ridge(
    F: Callable[..., Any] | Program,
    x: Any,
    maximise: Callable[..., Any] | Maximiser | Sequence[Any] | None = None,
    *,
    y: Any = None,
    constraint: Any = None,
    x_constraint: Any = None,
    steps: int = 100,
    step_size: StepSize,
    tolerance: float | Callable[[int], float] | None = None,
    near: float = 0.0,
    boundary: float | None = None,
    data: tuple[Any, ...] = (),
    otherwise: str = "error",
    callback: Callable[[RidgeStep], Any] | None = None,
    limit: int = LIMIT,
) -> RidgeRun:
    """Minimise f(x) = max { F(x, y) : y in Y } by the ridge method.

        y_k in argmax F(x_k, .),   (v_k, w_k) in conv D_F(x_k, y_k),   w_k in N_Y(y_k),   x_(k+1) = P_X(x_k - a_k v_k)

    For definable F, Y and X, Y and X convex, bounded iterates, sum a_k = inf and a_k -> 0, every accumulation point is
    critical for f on X, and f(x_k) converges (proved, for exact maximisers, and for ones whose error and whose distance of
    w_k from the cone tend to 0). A run is finite and `computed`: it shows where it came to, not where it would go. That
    y_k maximises is the caller's word; what contradicts it at first order is found. Nothing of the user's is changed.

    Args:
        F: a scalar function F(x, y, *data), or the captured program of ((x, y), *data).
        x: where to begin: a tensor, or a tree of them; it is not changed.
        maximise: a function (x, y_before, *data) -> y; or a `Maximiser`; or a list of points, tried one by one: without a
            constraint they are Y, a finite set, and y is not differentiated. None: `ProjectedAscent`.
        y: the y of the first call; needed by `ProjectedAscent`.
        constraint: Y: a constraint, or a tree of them like y; None: the whole space.
        x_constraint: X, likewise.
        steps: how many.
        step_size: a_k, a number or a function of k = 0, 1, ..
        tolerance: how far w may be from the normal cone, in units of F by units of y; a number or a function of k; None:
            the cube root of rounding, relative to the gradients.
        near: the distance within which a kink counts as active, for maximisers that are not exact.
        boundary: the distance within which an inequality of Y counts as active; None: rounding.
        data: what else F is called with.
        otherwise: where y is refuted or a direction undecided: "error", "stop" (end the run there), or "step" (along v all
            the same; the run is then undecided).
        callback: called with every `RidgeStep`, before the step is made; the run ends if it returns True.
        limit: as in `field`.

    Raises:
        NotMaximal: y_k is no maximiser, or that could not be told, and otherwise="error".
        UsageError: y_k is outside of Y, a step size that is no number, or no y to begin with.
        NoField: F has no field at (x_k, y_k), with the line. PointError, CaptureError: as `capture`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> F = lambda x, y: x * x / 2 + y - 2 * (y - x).abs()        # f(x) = x^2 / 2 + x, smallest at -1
    >>> run = ns.optim.ridge(F, torch.tensor(1.0), lambda x, y: x, steps=60, step_size=0.5)
    >>> run.x.round(decimals=4), round(run.value, 4), run.status
    (tensor(-1.), -0.5, 'computed')

    Source: Pauwels2023, derived, docs/theory/ridge.md.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise UsageError(f"steps={steps!r}: pass how many steps to make, an integer, 1 or more.")
    if otherwise not in OTHERWISE:
        raise UsageError(f"otherwise={otherwise!r}: it is one of {OTHERWISE}.")
    check_numbers(None if callable(tolerance) else tolerance, near, boundary)
    rule, candidates = _maximiser(maximise, constraint)
    problem = MinMax(F, x, constraint, candidates)
    problem.framework.check_point(x)
    method = _Method(problem, rule, tuple(data), x_constraint, step_size, tolerance, near, boundary, otherwise, limit)
    return method.run(x, y, int(steps), callback)


def _maximiser(maximise: Any, constraint: Any) -> tuple[Any, list[Any] | None]:
    """Read what maximises; the candidates are given where they are all of Y."""
    if isinstance(maximise, list | tuple):
        return Exhaustive(maximise), list(maximise) if constraint is None else None
    if maximise is None:
        return ProjectedAscent(), None
    if not callable(maximise) and not isinstance(maximise, Maximiser):
        raise UsageError(
            f"maximise is a function (x, y_before, *data) -> y, a Maximiser or a list of points; found a {type(maximise).__name__}."
        )
    return maximise, None


@dataclass
class _Method:
    """The method with all that does not change from step to step."""

    problem: MinMax
    rule: Any
    data: tuple[Any, ...]
    x_constraint: Any
    step_size: StepSize
    tolerance: float | Callable[[int], float] | None
    near: float
    boundary: float | None
    otherwise: str
    limit: int

    def run(self, x: Any, y: Any, steps: int, callback: Callable[[RidgeStep], Any] | None) -> RidgeRun:
        """Make the steps."""
        x = self._kept(x)
        history: list[RidgeStep] = []
        stopped, message, best = "steps", f"all {steps} steps were made", None
        for step, found in self._steps(x, y, steps):
            history.append(replace(step, x=None, y=None, v=None, w=None))
            x, y = step.x, step.y
            if best is None or step.value < best[1]:
                best = (x, step.value)
            if found.status != "computed" and self.otherwise != "step":
                if self.otherwise == "error":
                    raise NotMaximal(f"step {step.k}: {found}. {ADVICE}")
                stopped, message = "direction", f"step {step.k}: {found}"
                break
            if callback is not None and callback(step) is True:
                stopped, message = "callback", f"the callback ended it at step {step.k}"
                break
            if step.norm == 0 and found.status == "computed":
                stopped, message = "critical", f"v = 0 at step {step.k}: x is critical for the maximum"
                break
        else:
            x, y, value = self._last(x, y, step, found)
            best = best if best is not None and best[1] <= value else (x, value)
            return RidgeRun(x, y, value, *best, tuple(history), stopped, _status(history), message)
        assert best is not None
        return RidgeRun(x, y, history[-1].value, *best, tuple(history), stopped, _status(history), message)

    def _steps(self, x: Any, y: Any, steps: int) -> Iterator[tuple[RidgeStep, RidgeDirection]]:
        """Walk the steps: maximise, find the direction, and, when asked to go on, move."""
        for k in range(steps):
            y = self._maximise(x, y)
            allowed = self.tolerance(k) if callable(self.tolerance) else self.tolerance
            check_numbers(allowed, self.near, self.boundary)
            found = self.problem.direction(x, y, self.data, allowed, self.near, self.boundary, self.limit)
            size = self._size(k)
            v, known = found.v, found.certificate
            yield (
                RidgeStep(
                    k, known.value, float(found.residual), float(known.norm), size, known.kinks, known.partial_error,
                    found.status, x, y, v, found.w,
                ),
                found,
            )  # fmt: skip
            x = self._moved(x, v, size)

    def _last(self, x: Any, y: Any, step: RidgeStep, found: RidgeDirection) -> tuple[Any, Any, float]:
        """Give the point after the last step, its maximiser and its value."""
        x = self._moved(x, found.v, step.step_size)
        y = self._maximise(x, y)
        return x, y, self.problem.value(x, y, self.data)

    def _kept(self, x: Any) -> Any:
        """Copy a point, so that the user's stays as it is, and project it."""
        copied = self.problem.framework.combine((x,), (1.0,))
        return copied if self.x_constraint is None else self.problem.project(copied, self.x_constraint)

    def _moved(self, x: Any, v: Any, size: float) -> Any:
        """Step against v."""
        moved = self.problem.framework.combine((x, v), (1.0, -size))
        if not self.problem.framework.finite(moved):
            raise UsageError(f"a step of size {size:g} leads to values that are not finite; pass smaller steps.")
        return moved if self.x_constraint is None else self.problem.project(moved, self.x_constraint)

    def _maximise(self, x: Any, y: Any) -> Any:
        """Ask for a maximiser; what it gets and gives is no part of a graph."""
        if isinstance(self.rule, Maximiser):
            if y is None and not isinstance(self.rule, Exhaustive):
                raise UsageError(f"{type(self.rule).__name__} begins at a point: pass y=, a tensor or a tree of them.")
            found = self.rule.find(self.problem, x, y, self.data)
        else:
            found = self.rule(x, y, *self.data)
        if self.problem.candidates is not None:
            return found
        self.problem.framework.check_point(found)
        return self.problem.framework.combine((found,), (1.0,))

    def _size(self, k: int) -> float:
        """Give a_k."""
        size = self.step_size(k) if callable(self.step_size) else self.step_size
        try:
            number = math.nan if isinstance(size, str | bool) else float(size)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise UsageError(f"the step size of step {k} is {size!r}; it must be a finite number, 0 or more.")
        return number


ADVICE = "Maximise further, allow more by tolerance=, count kinks nearby as active by near=, or pass otherwise='stop' or 'step'."


def _status(history: list[RidgeStep]) -> str:
    """Give the status of a run."""
    return "computed" if all(step.status == "computed" for step in history) else "undecided"
