"""Projected gradient with a step that certainly never increases the objective, from the bounds on a set of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, isfinite, prod
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonsmooth.bounds.bounds import Bound, bound_program
from nonsmooth.bounds.problem import read_problem
from nonsmooth.bounds.region import HERE, ZERO, Ball, balls_of
from nonsmooth.dictionary import Kind
from nonsmooth.errors import RandomnessError, ResultError, UsageError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.program import Program, Step, references

__all__ = ["CertifiedStep", "Descent", "certified_step", "projected_gradient"]


class CertifiedStep(NamedTuple):
    """A step with which projected gradient never increases the objective.

    Attributes:
        step: 1 / smoothness.
        smoothness: L, of the objective on the set: the smaller of those of `parts`.
        parts: "objective": L of the whole; and, where there is a loss, "composed": L_psi l_f + l_psi^2 L_f + L_r, with
            "l_psi", "L_psi" of the network, "l_f", "L_f" of the loss, "L_r" of the regularisation.
        status: "computed": proved in exact arithmetic, evaluated in floating point and rounded up.
    """

    step: float
    smoothness: float
    parts: Mapping[str, float]
    status: str = "computed"

    def __str__(self) -> str:
        """Print the step, the constant, and its parts."""
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        return f"certified step {self.step:.4g} = 1 / {self.smoothness:.4g} ({self.status}): {parts}"

    def __repr__(self) -> str:
        """Print it as `print` does."""
        return str(self)


def certified_step(
    model: Any,
    *inputs: Any,
    weights: Any,
    loss: Callable[..., Any] | None = None,
    target: Any = None,
    regularisation: Callable[..., Any] | None = None,
) -> CertifiedStep:
    """Give the step of projected gradient on f(psi(w)) + r(w) over a product of balls that is certainly small enough.

        step = 1 / min(L, L_psi l_f + l_psi^2 L_f + L_r),    L bounds the smoothness of the whole objective on W

    Both are bounds of the smoothness on W: the second composes those of the network psi on W, of the loss f on the ball
    that psi(W) lies in, and of r.

    Guarantee: for every w in W the point w+ = projection of w - step grad F(w) has F(w+) <= F(w) - ||w+ - w||^2 /
    (2 step), in exact arithmetic; the constants are `computed`. It is one of the derivative of F, so that programs for
    which the framework gives another one are refused: moving values that are cut off, and own backwards.

    Args:
        model: as `bounds` takes it: a model, or a function f(w, *data) with w first among the inputs. Without a loss, its
            result is the objective: one number.
        inputs: the batch.
        weights: the set W, as `bounds` takes it.
        loss, target, regularisation: as `bounds` takes them.

    Returns:
        The step, with L and its parts.

    Raises:
        UsageError: the objective is not smooth on the set, or a value in it is cut off from the derivative; by line.
        ResultError: the objective is not one number.
        RandomnessError: the objective draws random numbers.

    >>> import torch
    >>> x, y = torch.eye(2), torch.zeros(2)
    >>> found = certified_step(lambda w, x: x @ w, y, x, weights=1.0, loss=lambda z, y: ((z - y) ** 2).sum(), target=y)
    >>> round(found.step, 6), round(found.parts["L_f"], 6), round(found.parts["l_psi"], 6)
    (0.5, 2.0, 1.0)

    Source: RouletHarchaoui2019; derived, docs/theory/smoothing.md.
    """
    if weights is None:
        raise UsageError(
            "certified_step: weights gives the set of the weights: a radius, a Ball, or a mapping to them."
        )
    _check_objective(model, inputs, weights, loss, target, regularisation)
    whole = bound_program(model, *inputs, weights=weights, loss=loss, target=target, regularisation=regularisation)
    if loss is None:
        parts = {"objective": whole.weights.smoothness}
    else:
        psi = whole.results["network"][0]
        parts = {"objective": whole.weights.smoothness, "l_psi": psi.lipschitz, "L_psi": psi.smoothness}
        parts |= _composed(model, inputs, weights, psi, loss, target, regularisation)
    smoothness = min(parts["objective"], parts.get("composed", inf))
    if not isfinite(smoothness):
        causes = "; ".join(whole.causes[:3]) or "a constant is infinite"
        raise UsageError(
            f"certified_step: the objective is not smooth on the set: {causes}. Smooth the network first, nonsmooth.smooth("
            "model, ..., accuracy=...), or choose a smaller set."
        )
    return CertifiedStep(1 / smoothness if smoothness else inf, smoothness, parts)


def _composed(
    model: Any, inputs: tuple[Any, ...], weights: Any, psi: Bound, loss: Any, target: Any, regularisation: Any
) -> dict[str, float]:
    """Bound the loss on the ball in which the network's results lie, and compose."""
    function, w, data, framework = read_problem(model, inputs, None, None, None)
    if not all(map(framework.has_values, (*framework.flatten(w)[0], *framework.data_arrays(data)))):
        return {}
    with _drawing_nothing(framework):
        leaves, structure = framework.flatten(function(w, *data))
    z = framework.unflatten([framework.detached(t) for t in leaves], structure)
    if not psi.norm < inf:
        return {}
    f = bound_program(loss, z, target, weights=Ball(max(psi.norm, 1e-300))).weights
    r = 0.0
    if regularisation is not None:
        r = bound_program(regularisation, w, weights=weights).weights.smoothness
    parts = {"l_f": f.lipschitz, "L_f": f.smoothness, "L_r": r}
    terms = ((psi.smoothness, f.lipschitz), (psi.lipschitz**2, f.smoothness), (r, 1.0))
    return {**parts, "composed": sum(a * b if a and b else 0.0 for a, b in terms)}


# --- what has a step --------------------------------------------------------------------------------------------------


def _check_objective(
    model: Any, inputs: tuple[Any, ...], weights: Any, loss: Any, target: Any, regularisation: Any
) -> None:
    """Refuse an objective that is no number, that draws, or of which the framework's gradient is not the derivative."""
    function, w, data, framework = read_problem(model, inputs, loss, target, regularisation)
    program = framework.trace(function, w, data)
    objective = replace(program, result=program.result if loss is None else program.result["objective"])
    shapes = [objective.values[r.value].shape for r in references(objective.result)]
    if len(shapes) != 1 or prod(shapes[0]) != 1:
        found = f"{len(shapes)} arrays" if len(shapes) != 1 else f"an array of shape {shapes[0]}"
        raise ResultError(
            f"certified_step: the objective is one number; found {found}. Give a loss and its target, or reduce the result."
        )
    for value in objective.options.get("drawn", {}):
        where = next((step.where for step in objective.uses.get(value, ())), "an unknown line")
        raise RandomnessError(
            f"certified_step: the objective draws random numbers ({where}), so that each iteration descends on another "
            "function. Switch it off (model.eval()), or draw outside and pass the numbers as data."
        )
    balls = balls_of(framework.leaf_names(w, "w"), weights, ZERO, "weights")
    moving = {value for value, ball in zip(objective.inputs, balls, strict=True) if ball.radius > 0}
    for step in _severed(objective, moving):
        why = "has a backward of its own, which need not be its derivative"
        if step.operation.kind is not Kind.OPAQUE:
            why = "cuts a value off that moves with the weights"
        raise UsageError(
            f"certified_step: {step} {why}: the gradient of {framework.name} is not that of the objective, and no step "
            "along it is certain to go down. Let the derivative through there, or compute the value outside and pass it as data."
        )


def _severed(program: Program, moving: set[int]) -> Iterator[Step]:
    """List the steps behind which the framework's gradient is not the derivative: cut off, or with an own backward."""
    reached, cancelled = program.framework.reached(program), program.framework.cancelled(program)
    for step in program.steps:
        if step.index in cancelled or not any(r.value in moving for r in references((step.args, dict(step.kwargs)))):
            continue
        written = {v for m in step.mutates for v in (m, *program.shared.get(m, ()))}
        results = [v for v in step.results if v is not None]
        moving |= {*written, *results}
        if step.index not in reached:
            continue
        unrecorded = not step.mode.grad and any(_is_real(program, v) for v in (*results, *written))
        cut = any(_is_real(program, v) and not program.values[v].differentiable for v in results)
        if step.operation.kind is Kind.OPAQUE or unrecorded or cut:
            yield step


def _is_real(program: Program, value: int) -> bool:
    """Tell a value of floating numbers."""
    return "float" in program.values[value].dtype


@contextmanager
def _drawing_nothing(framework: Framework) -> Iterator[None]:
    """Refuse a run of the objective that draws random numbers, and leave the generators as they were."""
    generators = framework.random_generators()
    yield
    drawn = generators.drawn_since()
    if drawn:
        generators.put()
        raise RandomnessError(
            f"certified_step: the objective draws random numbers from {drawn}, so that each iteration descends on another "
            "function. Draw them outside and pass them as data."
        )


# --- the method -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Descent:
    """A run of projected gradient.

    Attributes:
        weights: the last point, in the structure of the weights.
        objective: F(w_0), ..., F(w_K).
        mapping: ||w_k - w_{k+1}|| / step, the norms of the gradient mapping, k = 0, ..., K - 1.
        step: the step of each iteration.
        certified: the certified step.
        rounding: what rounding may add to the objective, relative to it.
    """

    weights: Any = field(repr=False)
    objective: tuple[float, ...]
    mapping: tuple[float, ...]
    step: float
    certified: CertifiedStep
    rounding: float = 0.0

    @property
    def increases(self) -> tuple[int, ...]:
        """The iterations at which the objective grew by more than its own rounding."""
        room = self.rounding * max(map(abs, self.objective))
        return tuple(k for k, (a, b) in enumerate(pairwise(self.objective)) if b > a + room)

    def __str__(self) -> str:
        """Print where the objective began and ended, the gradient mapping, the step, and the increases."""
        first, last, count = self.objective[0], self.objective[-1], len(self.mapping)
        kind = "certified" if self.step == self.certified.step else f"the certified one is {self.certified.step:.4g}"
        ups = f"{len(self.increases)} increases" if self.increases else "no increase"
        return (
            f"projected gradient, {count} iterations of step {self.step:.4g} ({kind}): objective {first:.6g} to {last:.6g}, "
            f"{ups}; gradient mapping {self.mapping[0]:.4g} to {self.mapping[-1]:.4g}"
        )

    __repr__ = __str__


def projected_gradient(
    model: Any,
    *inputs: Any,
    weights: Any,
    loss: Callable[..., Any] | None = None,
    target: Any = None,
    regularisation: Callable[..., Any] | None = None,
    steps: int = 100,
    step: float | None = None,
) -> Descent:
    """Run projected gradient over a product of balls, with the certified step unless another is given.

        w_{k+1} = P_W(w_k - step grad F(w_k)),    w_0 the weights as they are, projected onto W

    Guarantee: with the certified step F(w_k) never increases, and

        min_{k < K} ||w_k - w_{k+1}|| / step <= sqrt(2 L (F(w_0) - inf F) / K),

    in exact arithmetic. The model is not changed; the result holds the last weights.

    Args:
        model, inputs, weights, loss, target, regularisation: as `certified_step` takes them.
        steps: K.
        step: another step than the certified one, for comparison.

    Raises:
        UsageError: no steps, a step that is no positive number, or an objective that has no certified step.
        ResultError, RandomnessError: as of `certified_step`.

    >>> import torch
    >>> run = projected_gradient(lambda w, x: (x @ w).square().sum(), torch.ones(2), torch.eye(2), weights=1.0, steps=3)
    >>> [round(v, 6) for v in run.objective], run.increases
    ([1.0, 0.0, 0.0, 0.0], ())

    Source: RouletHarchaoui2019; derived, docs/theory/smoothing.md.
    """
    if not isinstance(steps, Real) or isinstance(steps, bool) or not 1 <= steps < inf or steps != int(steps):
        raise UsageError(f"projected_gradient: steps is a whole number >= 1; found {steps!r}.")
    if step is not None and (not isinstance(step, Real) or isinstance(step, bool) or not 0 < step < inf):
        raise UsageError(f"projected_gradient: the step is a number > 0; found {step!r}.")
    problem = {"loss": loss, "target": target, "regularisation": regularisation}
    certified = certified_step(model, *inputs, weights=weights, **problem)
    length = certified.step if step is None else float(step)
    if not isfinite(length):
        raise UsageError("projected_gradient: the objective does not change on the set: there is nothing to minimise.")
    function, w, data, framework = read_problem(model, inputs, loss, target, regularisation)
    objective = function if loss is None else lambda w, *d: function(w, *d)["objective"]
    leaves = _projected_start(framework, w, weights)
    with _drawing_nothing(framework):
        _value_and_gradient(framework, objective, w, data, leaves)
    values, mapping = [], []
    for value, moved, after in _iterate(framework, objective, w, data, weights, leaves, length, int(steps)):
        values.append(value)
        mapping.append(moved / length)
        leaves = after
    last = _value_and_gradient(framework, objective, w, data, leaves)[0]
    like = zip(framework.flatten(w)[0], leaves, strict=True)
    result = framework.unflatten([framework.array_like(t, a) for t, a in like], framework.flatten(w)[1])
    return Descent(result, (*values, last), tuple(mapping), length, certified, 64 * framework.eps(w))


Arrays = list[NDArray[np.float64]]


def _iterate(
    framework: Framework,
    objective: Callable[..., Any],
    w: Any,
    data: tuple[Any, ...],
    weights: Any,
    leaves: Arrays,
    length: float,
    steps: int,
) -> Iterator[tuple[float, float, Arrays]]:
    """Walk the iterations: the objective before, how far the point moved, and the point after."""
    project = _projections(framework, w, weights)
    for _ in range(steps):
        value, gradient = _value_and_gradient(framework, objective, w, data, leaves)
        after = [p(a - length * g) for p, a, g in zip(project, leaves, gradient, strict=True)]
        yield value, float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(leaves, after, strict=True)))), after
        leaves = after


def _value_and_gradient(
    framework: Framework, objective: Callable[..., Any], w: Any, data: tuple[Any, ...], leaves: Arrays
) -> tuple[float, Arrays]:
    """Let the framework differentiate the objective."""
    like, structure = framework.flatten(w)
    point = [framework.array_like(t, a) for t, a in zip(like, leaves, strict=True)]

    def function(moving: list[Any]) -> Any:
        return objective(framework.unflatten(moving, structure), *data)

    results, gradient = framework.differentiate(function, point, None, True)
    zeros = (
        np.zeros(a.shape) if g is None else np.asarray(framework.numpy(g), float)
        for g, a in zip(gradient, leaves, strict=True)
    )
    return float(np.ravel(framework.numpy(results[0]))[0]), list(zeros)


def _projected_start(framework: Framework, w: Any, weights: Any) -> Arrays:
    """Give the weights as they are, projected onto the set."""
    leaves = [np.asarray(framework.numpy(framework.detached(t)), float) for t in framework.flatten(w)[0]]
    return [p(a) for p, a in zip(_projections(framework, w, weights), leaves, strict=True)]


def _projections(
    framework: Framework, w: Any, weights: Any
) -> list[Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Give the projection onto the ball of each parameter."""
    found = []
    balls = balls_of(framework.leaf_names(w, "w"), weights, ZERO, "weights")
    for leaf, ball in zip(framework.flatten(w)[0], balls, strict=True):
        here = np.asarray(framework.numpy(framework.detached(leaf)), float)
        if isinstance(ball.center, str):
            center = here if ball.center == HERE else np.zeros(here.shape)
        else:
            center = np.asarray(framework.numpy(ball.center) if framework.holds(ball.center) else ball.center, float)
        found.append(_projection(ball, center))
    return found


def _projection(ball: Ball, center: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Give the projection onto a ball: a shorter vector, clipped entries, or clipped singular values."""

    def project(v: NDArray[np.float64]) -> NDArray[np.float64]:
        away = v - center
        if ball.norm == "max":
            return center + np.clip(away, -ball.radius, ball.radius)
        if ball.norm == "spectral" and v.ndim > 1:
            left, sizes, right = np.linalg.svd(away.reshape(len(away), -1), full_matrices=False)
            inside: NDArray[np.float64] = center + ((left * np.minimum(sizes, ball.radius)) @ right).reshape(v.shape)
            return inside
        length = float(np.linalg.norm(away))
        return v if length <= ball.radius else center + away * (ball.radius / length)

    return project
