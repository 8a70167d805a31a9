"""Solutions of equations of PyTorch: solved by any code, checked, and attached to torch's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from nonsmooth.errors import NotConverged
from nonsmooth.frameworks.torch.tree import unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.attached import Node, attach
from nonsmooth.implicit.torch.condition import make_check
from nonsmooth.implicit.torch.solvers import default_solver
from nonsmooth.implicit.torch.transformed import Problem, solve_transformed
from nonsmooth.implicit.torch.trees import TREES, accept, detached, in_transform, note, squared_norm

__all__ = ["TREES", "detached", "solve"]


def solve(
    equation: Equation, solver: Callable[..., Any] | None, theta: tuple[Any, ...], start: Any, options: Options
) -> Any:
    """Solve H(y, theta) = 0, check the residual, and attach y to the graph of theta and of all that H closes over.

    Raises:
        NotConverged: the solution is not finite, or |H| > tolerance (1 + |y|).
        UsageError: it is no tree of floating tensors, or H does not give as many equations as there are unknowns.
    """
    if torch.is_inference_mode_enabled():  # no gradient can be taken there, not even that of an objective
        with torch.inference_mode(False), torch.no_grad():
            return solve(equation, solver, _usable(theta), _usable(start), options)
    note(f"the {equation.kind} of {equation.name}")
    leaves, structure = pytree.tree_flatten(theta)
    places = [i for i, leaf in enumerate(leaves) if floats(leaf)]
    inputs = [leaves[i] for i in places]

    def residual(y: Any, given: Sequence[torch.Tensor]) -> Any:
        """Give H(y, theta) with some of the leaves of theta replaced."""
        filled = list(leaves)
        for place, tensor in zip(places, given, strict=True):
            filled[place] = tensor
        return equation.residual(TREES, y, pytree.tree_unflatten(filled, structure))

    if in_transform():
        return _transformed(equation, solver, (leaves, structure, places), residual, start, options)
    y = find(equation, solver, theta, start, options)
    node = Node(residual, y, inputs, equation, options, make_check(equation, theta, options))
    check_residual(equation, node.value, node.system.leaves, options)
    if not torch.is_grad_enabled() and forward_ad._current_level < 0:
        return node.system.y
    return unflatten(attach(node, inputs), node.system.structure)


def _usable(tree: Any) -> Any:
    """Copy tensors that were made in inference mode, which no graph may hold."""
    copy = lambda t: t.clone() if isinstance(t, torch.Tensor) and t.is_inference() else t  # noqa: E731
    return pytree.tree_map(copy, tree)


def _transformed(
    equation: Equation,
    solver: Callable[..., Any] | None,
    parts: tuple[list[Any], Any, list[int]],
    residual: Callable[[Any, Sequence[torch.Tensor]], Any],
    start: Any,
    options: Options,
) -> Any:
    """Solve inside of transforms of torch.func: the solver runs on plain tensors, one element of a batch after the other."""
    leaves, structure, places = parts
    begin, begin_structure = pytree.tree_flatten(start)
    begin = [] if start is None else [torch.as_tensor(t) for t in begin]

    def theta(x: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        filled = list(leaves)
        for place, tensor in zip(places, x, strict=False):
            filled[place] = tensor.detach()
        return tuple(pytree.tree_unflatten(filled, structure))

    def found(x: Sequence[torch.Tensor]) -> Any:
        tail = [t.detach() for t in x[len(places) :]]
        y = find(equation, solver, theta(x), pytree.tree_unflatten(tail, begin_structure) if begin else None, options)
        with torch.no_grad():
            value = residual(y, x[: len(places)])
            TREES.plus(y, value)  # refuses another structure
        check_residual(equation, pytree.tree_leaves(value), pytree.tree_leaves(y), options)
        return y

    problem = Problem(
        equation,
        options,
        lambda y, x: residual(y, x[: len(places)]),
        found,
        lambda x: make_check(equation, theta(x), options),
    )
    return solve_transformed(problem, [*(leaves[i] for i in places), *begin])


def find(
    equation: Equation,
    solver: Callable[..., Any] | None,
    theta: tuple[Any, ...],
    start: Any,
    options: Options,
) -> Any:
    """Run a solver on parameters cut from the graph; give a solution of tensors, not yet checked."""
    plain = detached(theta)
    tensors = pytree.tree_leaves(plain)
    like = next((t for t in [*pytree.tree_leaves(start), *tensors] if floats(t)), None)
    if start is not None:
        start = accept(start, like, None, f"the {equation.kind} of {equation.name}", begins=True)
    with torch.no_grad():
        if solver is not None:
            y = solver(*plain)
        else:
            eps = torch.finfo(like.dtype).eps if like is not None else torch.finfo().eps
            y = default_solver(equation, plain, start, options, options.tolerance or eps**0.5)
    return accept(y, like, start, f"the {equation.kind} of {equation.name}")


def check_residual(equation: Equation, residual: list[torch.Tensor], y: list[torch.Tensor], options: Options) -> None:
    """Refuse what is no solution.

    Raises:
        NotConverged: |H| > tolerance (1 + |y|), or |H| is not a number.
    """
    eps = max(torch.finfo(t.dtype).eps for t in y)
    tolerance = options.tolerance or float(np.sqrt(eps))
    found, allowed = squared_norm(residual) ** 0.5, tolerance * (1 + squared_norm(y) ** 0.5)
    if not found <= allowed:
        raise NotConverged(
            f"what the solver returned is no solution of the {equation.kind} of {equation.name}: its residual |H| is "
            f"{found:.3g}, asked was at most {allowed:.3g} = {tolerance:.2g} (1 + |y|). Let the solver make more steps, start "
            "nearer, or allow a larger tolerance=; the derivative is as accurate as the solution."
        )


def floats(leaf: Any) -> bool:
    """Tell a floating tensor."""
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
