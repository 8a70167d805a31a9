"""Bounds of a network and of its objective on a set of weights, of inputs, or of both: size, Lipschitz, smoothness."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from nonsmooth.bounds.problem import make_blocks, read_problem
from nonsmooth.bounds.propagation import Walked, propagate
from nonsmooth.bounds.reach import Floats, Local, Reach, compose
from nonsmooth.bounds.region import Block, radii_of
from nonsmooth.errors import UsageError
from nonsmooth.program import Program, references
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document

__all__ = ["Bound", "Bounds", "Layer", "bound_program"]

ROUNDED = 1e-9
"""What the sums of the walk may have lost to rounding, relative to them, and more."""


@dataclass(frozen=True)
class Bound:
    """Three constants of a map on a set: norm >= sup ||F||, lipschitz >= sup ||DF||, smoothness >= sup ||D^2 F||."""

    norm: float
    lipschitz: float
    smoothness: float

    def __str__(self) -> str:
        """Print the constants.

        >>> print(Bound(3.0, 2.125, inf))
        m = 3, l = 2.125, L = inf
        """
        return f"m = {self.norm:.4g}, l = {self.lipschitz:.4g}, L = {self.smoothness:.4g}"


@dataclass(frozen=True)
class Layer:
    """One step of the program: the constants of its operation, and of the values up to it.

    `weights`, `inputs` and `both` bound the value as a function of the weights, of the inputs, of both. `operation` are the
    Lipschitz constants of the operation itself with respect to each operand. `why` says what makes a constant infinite.
    """

    operation: str
    module: str
    line: str
    shape: tuple[int, ...]
    constants: tuple[float, ...]
    weights: Bound
    inputs: Bound
    both: Bound
    why: str = ""


@dataclass(frozen=True)
class Part:
    """A block: a parameter or an input, its set, and the constants of the result with respect to it alone."""

    name: str
    kind: str
    shape: tuple[int, ...]
    set: str
    radius: float
    lipschitz: float
    smoothness: float


@dataclass(frozen=True)
class Bounds(Reported):
    """Bounds of a program on a product of sets.

    Attributes:
        weights, inputs, both: of the result as a function of the weights (inputs anywhere in their set), of the inputs
            (weights anywhere in theirs), of both together.
        results: `both` for each result by its name; a network with a loss has the results "network" and "objective".
        blocks: the parameters and inputs with their sets.
        layers: the steps that move, in their order.
        causes: what makes a constant infinite, by line.
        status: "computed": proved in exact arithmetic, evaluated in floating point and rounded up by 1e-9.
    """

    format_version: int
    function: str
    framework: str
    weights: Bound
    inputs: Bound
    both: Bound
    results: Mapping[str, tuple[Bound, Bound, Bound]]
    blocks: tuple[Part, ...]
    layers: tuple[Layer, ...]
    causes: tuple[str, ...] = ()
    status: str = "computed"

    def document(self) -> Document:
        """Lay the bounds out for reading."""
        from nonsmooth.bounds.document import bounds_document

        return bounds_document(self)

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the constants layer by layer, as PNG."""
        from nonsmooth.bounds.picture import draw_bounds

        draw_bounds(Path(path), self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder; give what was written."""
        from nonsmooth.report.files import write_report

        return write_report(folder, self, {"bounds": self.draw})


def bound_program(
    f: Any,
    *arguments: Any,
    weights: Any = None,
    inputs: Any = None,
    loss: Callable[..., Any] | None = None,
    target: Any = None,
    regularisation: Callable[..., Any] | None = None,
    budget: float = inf,
) -> Bounds:
    """Bound a network, or any program, and its derivatives on a whole set of weights and inputs.

        m >= sup ||F(w, x)||,    l >= sup ||DF(w, x)||,    L >= sup ||D^2 F(w, x)||    over  w in W,  x in X

    with respect to the weights, to the inputs, and to both; Euclidean norms on all entries of the batch. W and X are
    products of balls, one for each parameter and input. An operation that is not smooth on the set gives L = inf, and the
    result names its line.

    Guarantee: sound for every program whose path does not depend on values (an `if` on data is refused): proved in exact
    arithmetic, `computed` in floating point. Tight where a record says so, not in general: constants multiply along the
    layers.

    Args:
        f: a model (torch.nn.Module, Equinox, Flax ...), called with the arguments; or a function f(w, *data) with the
            tree w of weights as its first argument.
        arguments: example inputs (for a function: w, then the inputs). Of what runs through a set about zero, the shapes
            alone are used: tensors on the meta device and jax.ShapeDtypeStruct will do.
        weights: a radius mu: every parameter runs through ||v|| <= mu; a `Ball`; or a mapping from names, patterns or
            modules to them (the others stay fixed). None: all fixed where they are.
        inputs: a radius r: every input runs through ||x - x0|| <= r about the example; a `Ball` (of radius inf: anywhere);
            or a mapping from the names x0, x1, ... None: fixed.
        loss, target: the objective f = loss(network, target), bounded beside the network.
        regularisation: r(w), added to the objective; called with the tree of weights (for a model: names -> parameters).
        budget: how many multiplications the spectral norm of a known matrix or kernel, and the intervals of all entries of
            a product, may take; by default some seconds' worth for a norm. Above it cheaper and looser bounds are used: 0 for
            those that one pass over the weights gives.

    Returns:
        The bounds; `print(bounds)`, `bounds.weights.lipschitz`, `bounds.layers`, `bounds.save(folder)`.

    Raises:
        UsageError: an unbounded set of weights, a negative radius, a name that is none.
        UnlistedOperation: an operation without constants, by name and line.
        CaptureError: the program asks for values.

    >>> import torch
    >>> import nonsmooth as ns
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.Tanh())
    >>> found = ns.bounds(net, torch.tensor([[3.0, 0.0, 4.0]]), weights=1.0)
    >>> round(found.weights.lipschitz, 6), round(found.weights.smoothness, 3)
    (5.0, 19.245)

    The input has norm 5 and tanh slope 1 at most: l = 5; its curvature is .76981: L = .76981 x 25.

    Source: RouletHarchaoui2019; derived, docs/theory/bounds.md.
    """
    _check_budget(budget)
    function, w, data, framework = read_problem(f, arguments, loss, target, regularisation)
    program = framework.trace(function, w, data)
    blocks, rest = make_blocks(program, framework, w, data, weights, inputs, loss is not None)
    reaches, walked = propagate(program, blocks, rest, budget=budget)
    kinds = [b.kind for b in blocks]
    radii = radii_of(blocks)
    with np.errstate(over="ignore"):
        results = {name: _stack([reaches[r.value] for r in refs], radii) for name, refs in _results(program, loss)}
        main = results["objective" if loss is not None else "result"]
        named = {name: _three(reach, kinds) for name, reach in results.items()}
        of_weights, of_inputs, of_both = _three(main, kinds)
        layers = tuple(_layer(step, kinds) for step in walked)
    return Bounds(
        format_version=FORMAT_VERSION,
        function=str(getattr(f, "__qualname__", type(f).__name__)),
        framework=framework.name,
        weights=of_weights,
        inputs=of_inputs,
        both=of_both,
        results=named,
        blocks=tuple(_part(b, place, main) for place, b in enumerate(blocks)),
        layers=layers,
        causes=tuple(_causes(walked)),
    )


def _check_budget(budget: Any) -> None:
    """Refuse what is no number of multiplications."""
    if not isinstance(budget, int | float) or not budget >= 0:
        raise UsageError(f"bounds: the budget is a number of multiplications, 0 or more; found {budget!r}.")


def _results(program: Program, loss: Any) -> list[tuple[str, list[Any]]]:
    """Name the results, each a tree of values."""
    if loss is None:
        return [("result", list(references(program.result)))]
    return [(name, list(references(program.result[name]))) for name in ("network", "objective")]


def _stack(reaches: Sequence[Reach], radii: Floats) -> Reach:
    """Give the reach of several values side by side."""
    if len(reaches) == 1:
        return reaches[0]
    norm = float(np.linalg.norm([u.norm for u in reaches]))
    local = Local([1.0] * len(reaches), {}, norm, stacked=True)
    return compose((sum(u.size for u in reaches),), local, reaches, radii)


def _three(reach: Reach, kinds: Sequence[str]) -> tuple[Bound, Bound, Bound]:
    """Give the bounds with respect to the weights, the inputs, and both."""
    found = []
    for wanted in (("weights",), ("inputs",), ("weights", "inputs")):
        places = [k for k, kind in enumerate(kinds) if kind in wanted]
        found.append(
            Bound(_up(reach.norm), _up(_root(reach.lipschitz[places])), _up(_spectral(reach.smoothness, places)))
        )
    return found[0], found[1], found[2]


def _root(constants: Floats) -> float:
    """Give the Lipschitz constant of a map of several blocks: the root of the sum of the squares of theirs."""
    return float(np.linalg.norm(constants)) if constants.size else 0.0


def _spectral(constants: Floats, places: Sequence[int]) -> float:
    """Give the smoothness constant of a map of several blocks: the spectral norm of the matrix of theirs."""
    part = constants[np.ix_(places, places)]
    if not part.size:
        return 0.0
    if np.any(np.isinf(part)):
        return inf
    scale = float(np.max(part))
    return scale * float(np.linalg.norm(part / scale, 2)) if scale else 0.0


def _up(constant: float) -> float:
    """Round a constant up by more than rounding can have taken off."""
    return constant * (1 + ROUNDED)


def _part(block: Block, place: int, main: Reach) -> Part:
    """Describe a block."""
    constants = _up(float(main.lipschitz[place])), _up(float(main.smoothness[place, place]))
    return Part(block.name, block.kind, block.shape, str(block.ball), block.radius, *constants)


def _layer(walked: Walked, kinds: Sequence[str]) -> Layer:
    """Describe a step."""
    step = walked.step
    weights, inputs, both = _three(walked.reach, kinds)
    constants = tuple(float(c) for c in walked.local.lipschitz)
    line = "" if step.source is None else str(step.source)
    name = step.operation.name
    return Layer(name, step.module, line, walked.reach.shape, constants, weights, inputs, both, walked.local.why)


def _causes(walked: Sequence[Walked]) -> list[str]:
    """Say by module and line what makes a constant infinite."""
    found: dict[str, None] = {}
    for w in walked:
        if w.local.why:
            module = f"module {w.step.module}, " if w.step.module else ""
            found[f"{w.local.why} ({module}{w.step.where})"] = None
    return list(found)
