"""Smoothing: every nonsmooth step of a program replaced by a smooth one, the whole within a certified accuracy on a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

from nonsmooth.bounds.problem import make_blocks, read_problem
from nonsmooth.bounds.propagation import Walked, propagate
from nonsmooth.bounds.reach import Floats, Local, Reach
from nonsmooth.bounds.region import Ball, Block
from nonsmooth.bounds.smoothed_steps import Smoothing, is_kinked, smoothing_of
from nonsmooth.dictionary import Kind
from nonsmooth.errors import CaptureError, UsageError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.program import Program, Step, Value, references

__all__ = ["Parameter", "Smoothed", "smooth_program"]

ROUNDS = 6
"""How many walks may look for the largest errors that the accuracy allows."""

ROUNDED = 1e-9
"""What the sums of the walk may have lost to rounding, relative to them, and more."""


@dataclass(frozen=True)
class Parameter:
    """The smoothing of one step.

    Attributes:
        operation, line, module: the step.
        parameter: mu_j: half the width of the average, or the temperature of the smoothed maximum.
        error: e_j >= ||phi_mu - phi||, of the step's whole result.
        sensitivity: s_j, the Lipschitz constant of the result as a function of a change of the step's.
    """

    operation: str
    line: str
    module: str
    parameter: float
    error: float
    sensitivity: float


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smooth function beside a nonsmooth one: called with the same arguments, differentiated by the framework.

    Attributes:
        func: the function f(w, *data) that was smoothed.
        accuracy: certified: ||F - F_mu|| <= accuracy on the sets, in exact arithmetic; at most what was asked for.
        parameters: one for each step that was replaced.
        point: the weights at which it was captured.
        program: the program that is run.
    """

    func: Callable[..., Any] = field(repr=False)
    accuracy: float
    parameters: tuple[Parameter, ...]
    point: Any = field(repr=False)
    program: Program = field(repr=False)
    structure: Any = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    status: str = "computed"

    def __call__(self, w: Any, *data: Any) -> Any:
        """Give F_mu(w, *data)."""
        framework, program = self.program.framework, self.program
        leaves, structure = framework.flatten(w)
        items = framework.data_arrays(data)
        if structure != program.structure or len(items) != len(program.data):
            raise UsageError(
                f"smooth: the function is called as smoothed(weights, *inputs), with {_listed(self.names)} and "
                f"{len(program.data)} array(s) of inputs; found {_listed(framework.leaf_names(w, 'w'))} and {len(items)}. "
                "smoothed.point is a tree of weights as it takes."
            )
        names = (*self.names, *(f"input {k}" for k in range(len(items))))
        for name, array, value in zip(names, (*leaves, *items), (*program.inputs, *program.data), strict=True):
            _check_array(name, array, program.values[value])
        return framework.unflatten(framework.flatten(framework.run_program(program, leaves, items))[0], self.structure)

    def __str__(self) -> str:
        """Print the accuracy and the parameters by line."""
        rows = [f"smoothed within {self.accuracy:.4g} ({self.status}), {len(self.parameters)} steps"]
        for p in self.parameters:
            sizes = f"mu {p.parameter:.3g}, error {p.error:.3g}, sensitivity {p.sensitivity:.3g}"
            rows.append(f"  {p.operation}: {sizes}  ({p.line or 'an unknown line'})")
        return "\n".join(rows)


def smooth_program(f: Any, *arguments: Any, accuracy: float, weights: Any = None, inputs: Any = None) -> Smoothed:
    """Replace every nonsmooth piece of a program by a smooth one, so that the results are certainly near each other.

        ||F(w, x) - F_mu(w, x)|| <= sum_j s_j e_j(mu_j) <= accuracy    for all  w in W,  x in X

    in the Euclidean norm of the result. s_j bounds the sensitivity of the result to a change of step j's by up to e_j,
    the others' changes included; e_j is the uniform error of the smoothing of step j. The errors are shared out so that
    the smoothness constant of the whole is the least that the constants allow: e_j in proportion to q_j below. Pieces on
    whose kinks the operands never come are left as they are.

        q_j = p_j sqrt(c_j e_j),   p_j the Lipschitz constant of the step's operands, c_j its curvature times mu

    Guarantee: proved in exact arithmetic; the constants are `computed` and rounded up by 1e-9. F_mu has a continuous
    derivative wherever the smooth pieces of F have one; the framework's own automatic differentiation gives it.

    Args:
        f: a model, called with the arguments; or a function f(w, *data).
        arguments: example inputs (for a function: w, then the inputs), with values.
        accuracy: what ||F - F_mu|| may be.
        weights, inputs: the sets, as `bounds` takes them.

    Returns:
        The smoothed function of (w, *data), for a model w is the mapping from names to parameters; `.parameters`,
        `.accuracy`; `bounds` takes it as it takes a function.

    Raises:
        UsageError: accuracy <= 0; neither weights nor inputs; a jump, or a step without a smoothing, by line; a
            sensitivity that is not bounded.
        CaptureError: the program chooses its path by values.

    >>> import torch
    >>> import nonsmooth as ns
    >>> smoothed = ns.smooth(lambda w, x: torch.relu(x @ w).sum(), torch.ones(2), torch.eye(2), accuracy=0.1, weights=1.0)
    >>> round(smoothed.parameters[0].parameter, 6), smoothed.accuracy <= 0.1
    (0.2, True)

    The sum of 2 entries has the Lipschitz constant sqrt 2, and an error of mu/4 in each entry the norm sqrt(2) mu/4.

    Source: RouletHarchaoui2021; BeckTeboulle2012; derived, docs/theory/smoothing.md.
    """
    if not _is_positive(accuracy):
        raise UsageError(f"smooth: the accuracy is a number > 0; found {accuracy!r}.")
    if weights is None and inputs is None:
        raise UsageError(
            "smooth: give the set on which the accuracy shall hold: weights=, inputs=, or both (a radius, a Ball, or a mapping "
            "to them). With neither everything is held fixed, and there is nothing to smooth."
        )
    function, w, data, framework = read_problem(f, arguments, None, None, None)
    program = _captured(framework, function, w, data)
    blocks, known = make_blocks(program, framework, w, data, weights, inputs, False)
    errors = _Errors(program, blocks, known)
    radii, sensitivities = errors.chosen(float(accuracy))
    parameters, changed = [], {}
    for index, found in errors.found.items():
        mu = radii[index] / (found.smoothing.error * sqrt(found.size)) if found.smoothing.error else 1.0
        step = program.steps[index]
        changed[index] = _replaced(program, step, found, mu)
        line = "" if step.source is None else str(step.source)
        parameters.append(Parameter(step.operation.name, line, step.module, mu, radii[index], sensitivities[index]))
    steps = tuple(changed.get(step.index, step) for step in program.steps)
    total = sum(radii[k] * sensitivities[k] for k in errors.found)
    return Smoothed(
        func=function,
        accuracy=min(float(accuracy), total * (1 + ROUNDED)),
        parameters=tuple(parameters),
        point=w,
        program=replace(program, steps=steps),
        structure=framework.flatten(program.result)[1],
        names=tuple(framework.leaf_names(w, "w")),
    )


def _listed(names: Sequence[str]) -> str:
    """Name the first leaves of a tree of weights."""
    more = ", ..." if len(names) > 4 else ""
    return f"{len(names)} array(s) of weights ({', '.join(names[:4])}{more})"


def _check_array(name: str, array: Any, known: Value) -> None:
    """Refuse an array of another shape or type than the one for which the parameters were chosen."""
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise UsageError(f"smooth: {name} must be an array of shape {known.shape}; found a {type(array).__name__}.")
    if tuple(array.shape) != known.shape:
        raise UsageError(
            f"smooth: {name} had the shape {known.shape}; found {tuple(array.shape)}. The parameters are certified for the "
            "shapes of the call: smooth again for others."
        )
    found = str(array.dtype).removeprefix("torch.")
    if found != known.dtype:
        raise UsageError(
            f"smooth: {name} had the type {known.dtype}; found {found}. Convert it, or smooth again at that precision."
        )


def _is_positive(number: Any) -> bool:
    """Tell a finite number > 0."""
    return isinstance(number, int | float | np.number) and not isinstance(number, bool) and 0 < float(number) < inf


def _captured(framework: Framework, function: Callable[..., Any], w: Any, data: tuple[Any, ...]) -> Program:
    """Capture the program at the arguments; one that chooses its path by values is refused."""
    if not all(map(framework.has_values, (*framework.flatten(w)[0], *framework.data_arrays(data)))):
        raise UsageError("smooth: the function is run, so that weights and inputs need values; found a shape alone.")
    program: Program = framework.capture(function, w, data)
    for guard in program.guards:
        raise CaptureError(
            f"smooth: {guard} chooses among programs: what holds on one need not hold on the set. Write it with max, min, "
            "relu or abs."
        )
    return program


# --- the errors of the steps ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Found:
    """A step to be replaced: its smoothing, the number of its entries, its operands, the Lipschitz constant up to them."""

    smoothing: Smoothing
    items: tuple[Any, ...]
    size: int
    before: float


class _Errors:
    """The steps that are not smooth on the set, and the errors that they may make.

    A smoothed step is the step plus a change of norm e at most. The change is a block of its own, so that one walk gives
    the sensitivities, on sets that hold what all changes together can reach.
    """

    def __init__(self, program: Program, blocks: Sequence[Block], known: Mapping[int, Any]) -> None:
        self.program, self.blocks, self.known = program, list(blocks), known
        self.found: dict[int, _Found] = {}
        while self.grow(self.walk({})):
            pass

    def walk(self, radii: Mapping[int, float]) -> tuple[dict[int, float], list[Walked], dict[int, tuple[Reach, ...]]]:
        """Walk with changes of these radii; give the sensitivities, the steps, and what their operands reach."""
        places = {index: len(self.blocks) + k for k, index in enumerate(self.found)}
        changes = [
            Block(f"change {k}", "changes", -1 - k, (), Ball(max(radii.get(index, 0.0), 1e-300)), None)
            for k, index in enumerate(self.found)
        ]
        operands: dict[int, tuple[Reach, ...]] = {}

        def after(step: Step, taken: tuple[Reach, ...], local: Local, reach: Reach) -> Reach:
            operands[step.index] = taken
            if step.index not in places:
                return reach
            return _changed(reach, places[step.index], radii.get(step.index, 0.0))

        reaches, walked = propagate(self.program, [*self.blocks, *changes], self.known, after)
        results = [reaches[r.value] for r in references(self.program.result)]
        total = np.sqrt(sum((r.lipschitz**2 for r in results), np.zeros(len(self.blocks) + len(changes))))
        return {index: float(total[place]) for index, place in places.items()}, walked, operands

    def grow(self, walk: tuple[Any, list[Walked], dict[int, tuple[Reach, ...]]]) -> bool:
        """Add the steps that turn out not to be smooth on the set; tell whether there was one."""
        _, walked, operands = walk
        new = []
        for w in walked:
            step = w.step
            if step.operation.kind is Kind.JUMP and max(w.local.lipschitz, default=0.0) == inf:
                raise UsageError(
                    f"smooth: {step} jumps: no continuous function is near it everywhere. Leave it out, or detach it."
                )
            bends = [*w.local.smoothness.values(), *w.local.lipschitz]
            if is_kinked(step) and max(bends, default=0.0) == inf and step.index not in self.found:
                new.append(step)
        for step in new:
            self.found[step.index] = self.read(step, operands[step.index])
        self.found = dict(sorted(self.found.items()))
        return bool(new)

    def read(self, step: Step, operands: tuple[Reach, ...]) -> _Found:
        """Find the smoothing of a step."""
        program = self.program
        call = program.framework.shaped(program, step)
        others = {r for r in step.results[1:] if r is not None}
        used = {r.value for s in program.steps for r in references((s.args, dict(s.kwargs)))}
        if others & (used | {r.value for r in references(program.result)}):
            raise UsageError(f"smooth: {step} gives places too, which jump; use its values alone.")
        items = tuple(o.item for o in call.operands)
        smoothing = smoothing_of(step, call, operands, partial(self.value, step, items, call.operands[0].shape))
        before = sum(float(np.linalg.norm(u.lipschitz[: len(self.blocks)])) for u in operands)
        return _Found(smoothing, items, int(np.prod(call.results[0], dtype=int)), before)

    def value(self, step: Step, items: tuple[Any, ...], shape: tuple[int, ...], at: float) -> float:
        """Give the value of an operation of one operand where all entries of that are a number."""
        leaves, data = ([self.known.get(v) for v in vs] for vs in (self.program.inputs, self.program.data))
        steps = self.program.framework.step_by_step(self.program, leaves, data)
        found = steps.evaluate(step, items, [np.full(shape, at)])
        return float(np.ravel(found)[0]) if found is not None and np.size(found) else 0.0

    def chosen(self, accuracy: float) -> tuple[dict[int, float], dict[int, float]]:
        """Find errors e = t q with sum_j s_j(e) e_j <= accuracy, t nearly as large as it may be; give them and s.

        s grows with the errors, so that s(e) and t' = t accuracy / sum_j s_j(e) e_j <= t are certainly right.
        """
        if not self.found:
            return {}, {}
        sensitivities = self.walk({})[0]
        return self.search(accuracy, self.shares(), sensitivities)

    def search(
        self, accuracy: float, shares: Mapping[int, float], start: Mapping[int, float]
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Look for the scale t."""
        aim = accuracy * (1 - 2 * ROUNDED)
        total = self.total(start, shares, 1.0)
        scale = aim / total if total else aim
        best: tuple[float, dict[int, float]] | None = None
        too_large = inf
        for _ in range(ROUNDS):
            radii = {k: scale * q for k, q in shares.items()}
            walk = self.walk(radii)
            if self.grow(walk):
                return self.chosen(accuracy)
            reached = self.total(walk[0], shares, scale)
            if reached <= aim:
                best = scale, walk[0]
                if reached > 0.95 * aim or not reached:
                    break
                scale = min(scale * aim / reached, sqrt(scale * too_large) if isfinite(too_large) else inf)
            else:
                too_large = scale
                certain = scale * aim / reached
                if best is None or certain > best[0]:
                    best = certain, walk[0]
                scale = certain if best[0] == certain else sqrt(best[0] * too_large)
        assert best is not None
        return {k: best[0] * q for k, q in shares.items()}, best[1]

    def total(self, sensitivities: Mapping[int, float], shares: Mapping[int, float], scale: float) -> float:
        """Give sum_j s_j e_j, or name the step whose sensitivity is not bounded."""
        for index, s in sensitivities.items():
            if not isfinite(s):
                raise UsageError(
                    f"smooth: the sensitivity of the result to {self.program.steps[index]} is not bounded on the sets: a "
                    "later step is not Lipschitz there. `bounds` on the same sets says which and why; choose smaller sets."
                )
        return sum(s * shares[k] * scale for k, s in sensitivities.items())

    def shares(self) -> dict[int, float]:
        """Give q_j = p_j sqrt(L_j e_j), which minimises sum_j s_j p_j^2 L_j where sum_j s_j e_j is given."""
        q = {
            k: f.before * sqrt(f.smoothing.curvature * f.smoothing.error * sqrt(max(f.size, 1)))
            for k, f in self.found.items()
        }
        if all(isfinite(v) and v > 0 for v in q.values()):
            return q
        return dict.fromkeys(q, 1.0)


def _changed(reach: Reach, place: int, radius: float) -> Reach:
    """Give the reach of z + d, ||d|| <= radius, d the block of this place."""
    lipschitz: Floats = reach.lipschitz.copy()
    lipschitz[place] += 1.0
    return replace(
        reach,
        norm=reach.norm + radius,
        lipschitz=lipschitz,
        low=reach.low - radius,
        high=reach.high + radius,
        distance=reach.distance + radius,
        operator=reach.operator + radius,
    )


# --- the program ------------------------------------------------------------------------------------------------------


def _replaced(program: Program, step: Step, found: _Found, mu: float) -> Step:
    """Give the step that computes the smoothed result; one that wrote in place writes there."""
    smooth = found.smoothing.apply(program.framework, mu)
    shared = step.mutates and any(program.shared.get(m) for m in step.mutates)

    def target(*operands: Any) -> Any:
        if not shared:
            return smooth(*operands)
        memory = operands[0]
        memory.copy_(smooth(memory.clone(), *operands[1:]))
        return memory

    mutates = step.mutates if shared else ()
    return replace(
        step, target=target, args=found.items, kwargs={}, results=step.results[:1], single=True, mutates=mutates
    )
