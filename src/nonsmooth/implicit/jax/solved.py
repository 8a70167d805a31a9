"""Solutions of equations in JAX: found by any solver, checked, and differentiated in both modes to any order.

    H(y, theta) = 0:     dy = -B^-1 A dtheta,     [A B] one selection of J_H at (y, theta)

The solution is attached to its parameters by a primitive (`attached`), so that `grad`, `jvp`, `hessian`, `jit`, `vmap` and `scan`
compose. What the functions close over, tracers of an outer `grad` among it, are parameters too.

Source: BolteLePauwelsSilvetiFalls2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import ResultError, UsageError
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.jax.arrays import (
    Parameters,
    Shape,
    check_alike,
    common_type,
    cut_off,
    solution_tree,
    widened,
)
from nonsmooth.implicit.jax.attached import attached
from nonsmooth.implicit.jax.condition import check_condition
from nonsmooth.implicit.jax.linear_solve import System, solve_linear
from nonsmooth.implicit.jax.problem import Problem, residual
from nonsmooth.implicit.jax.solvers import default_solver
from nonsmooth.implicit.jax.traced import Equations, equations_of, is_float
from nonsmooth.implicit.options import Options

__all__ = ["TREES", "detached", "solve"]


class JaxTrees:
    """Gradients and sums of trees, for `equation.Trees`."""

    def gradient(self, f: Callable[..., Any], y: Any, theta: tuple[Any, ...]) -> Any:
        """Give the gradient of the scalar f(y, *theta) in y."""

        def value(point: Any) -> Any:
            found = f(point, *theta)
            if not hasattr(found, "shape") or found.shape != ():
                what = f"an array of shape {found.shape}" if hasattr(found, "shape") else f"a {type(found).__name__}"
                raise ResultError(f"the objective of argmin must return a scalar array; it returned {what}.")
            return found

        return jax.grad(value)(y)

    def plus(self, y: Any, z: Any, factor: float = 1.0) -> Any:
        """Give y + factor z, leaf by leaf."""
        check_alike(y, z)
        return jax.tree.map(lambda a, b: a + factor * b, y, z)


TREES = JaxTrees()
"""The one instance."""


def detached(tree: Any) -> Any:
    """Cut a tree off from what is differentiated; what is no array stays."""
    return jax.tree.map(lambda a: cut_off(a) if isinstance(a, jax.Array) else a, tree)


def solve(
    equation: Equation, solver: Callable[..., Any] | None, theta: tuple[Any, ...], start: Any, options: Options
) -> Any:
    """Give the solution y of H(y, theta) = 0, which differentiates.

        dy = -B^-1 A dtheta

    Checked are: the values, structure and shapes of y; |H| <= tolerance (1 + |y|); at every derivative the condition of
    the linear system, the residual of every linear solve, and, with `check="kinks"`, the condition of the theorem.

    Where values are known (outside of `jax.jit`, also under `jax.grad`, `jax.vmap`) a failure raises `NotConverged` or
    `NotInvertible`. In a compiled program (`jit`, `scan`) the run ends with `jax.errors.JaxRuntimeError`, whose text holds the same
    message. There the condition over all elements is not decided, which takes values: the kinks at the solution are counted by the
    program itself, and if there are any an `ImplicitWarning` is given from the host; `diagnose`, called outside, decides.

    Where all floating arrays are of half precision (float16, bfloat16) H is evaluated, solved and differentiated in single
    precision, and y is given in their type; the tolerances are those of their type.

    Args:
        equation: H.
        solver: solver(*theta) -> y, or None: a solver of the library. It is given values cut off from differentiation; outside of
            `jit` and `vmap` it may be code of numpy. In them code that needs values runs on the host if `start` says what the
            solution is like.
        theta: trees; their floating arrays are differentiated, all else is passed on as it is.
        start: like the solution; a solver of the library starts there.
        options: see `Options`.

    Raises:
        UsageError: a start is missing, or structures and shapes do not fit.
        NotConverged: y is not finite, or its residual is too large.

    >>> f = Equation("fixed point", lambda y, t: 0.5 * jax.nn.relu(y) + t)
    >>> y = lambda t: solve(f, None, (t,), jnp.zeros(2), Options())
    >>> t = jnp.array([1.0, -1.0])
    >>> y(t).round(3).tolist(), jnp.diag(jax.jit(jax.jacfwd(y))(t)).round(3).tolist()
    ([2.0, -1.0], [2.0, 1.0])

    Source: BolteLePauwelsSilvetiFalls2021.
    """
    parameters, given, others = Parameters.taken_apart(theta)
    kind = common_type(given or start)
    narrow = kind is not None and kind != widened(kind)
    floats = [a.astype(widened(kind)) for a in given] if narrow else given
    y = _found(equation, solver, parameters, [*(given if solver else floats), *others], start, options)
    options = _tolerances(options, kind) if narrow else options
    arrays, count = [*floats, *others], len(floats)
    leaves, structure = jax.tree.flatten(y)
    shape = Shape(structure, tuple(a.shape for a in leaves), leaves[0].dtype)

    def equal_zero(flat: Any, *arrays: Any) -> list[Any]:
        point = shape.unflatten(flat)
        found = equation.residual(TREES, point, parameters.joined(arrays[:count], arrays[count:]))
        check_alike(point, found)
        return [shape.flatten(found)]

    flat = shape.flatten(y)
    equations, closed = equations_of(equal_zero, flat, *arrays)
    inputs = [*closed, *arrays]
    tracers = any(isinstance(a, jax.core.Tracer) for a in closed)
    moves = tuple(is_float(jnp.asarray(a)) for a in inputs)
    problem = Problem(equations, equation, TREES, options, shape, parameters, moves, tracers)
    flat, token = problem.checked(flat, [cut_off(a) for a in inputs])
    y = shape.unflatten(attached(flat, [token, *inputs], _Derivative(problem)))
    return jax.tree.map(lambda a: a.astype(kind), y) if narrow else y


def _tolerances(options: Options, kind: Any) -> Options:
    """Fill in the tolerances of a floating type."""
    usual = float(jnp.finfo(kind).eps) ** 0.5
    return replace(options, tolerance=options.tolerance or usual, linear_tolerance=options.linear_tolerance or usual)


def _found(
    equation: Equation,
    solver: Callable[..., Any] | None,
    parameters: Parameters,
    arrays: list[Any],
    start: Any,
    options: Options,
) -> Any:
    """Let a solver find the solution, as a tree of arrays of one type."""
    count = parameters.floats
    dtype = common_type(arrays[:count])
    still = [cut_off(a) for a in arrays]
    theta = parameters.joined(still[:count], still[count:])
    begin = None if start is None else solution_tree(start, dtype, "the start")
    if solver is None:
        if begin is None:
            raise UsageError(
                f"{equation.kind}: the solver of the library starts somewhere: pass start=, a tree of arrays like the solution, "
                "or bring a solver."
            )
        return default_solver(equation, TREES, theta, begin, options)
    try:
        found = solver(*theta)
    except _NEEDS_VALUES as error:
        if begin is None:
            raise UsageError(
                "the solver needs values of its parameters, which jax does not have under jit, vmap or scan. Write it in JAX, or "
                "pass start=, a tree of arrays like the solution: then it runs on the host (jax.pure_callback)."
            ) from error
        return _on_host(solver, theta, begin)
    y = solution_tree(found, dtype, "the solver's result")
    if begin is not None:
        check_alike(begin, y)
    return y


_NEEDS_VALUES = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
)


def _on_host(solver: Callable[..., Any], theta: tuple[Any, ...], like: Any) -> Any:
    """Run a solver on the host, with arrays of numpy."""
    items, structure = jax.tree.flatten(theta)
    places = [k for k, a in enumerate(items) if isinstance(a, jax.Array)]

    def call(*arrays: Any) -> Any:
        given = list(items)
        for k, a in zip(places, arrays, strict=True):
            given[k] = np.asarray(a)
        found = jax.tree.map(np.asarray, solver(*jax.tree.unflatten(structure, given)))
        check_alike(like, found)
        return jax.tree.map(lambda a, b: np.asarray(a, dtype=b.dtype), found, like)

    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
    return jax.pure_callback(call, shapes, *(items[k] for k in places), vmap_method="sequential")


@dataclass(frozen=True)
class _Derivative:
    """The derivative of a solution; its inputs are a token, a 1 that has been checked, and those of the problem."""

    problem: Problem

    def moves(self, place: int) -> bool:
        """Tell the floating inputs of the problem."""
        return place > 0 and self.problem.moves[place - 1]

    def residual(self, y: Any, token: Any, *inputs: Any) -> Any:
        """Give H."""
        return residual(self.problem.equations, y, inputs)

    def slope(self, moving: tuple[int, ...], y: Any, inputs: list[Any], along: tuple[Any, ...]) -> Any:
        """Give dy = -B^-1 A d(inputs)."""
        problem, (token, *inputs) = self.problem, inputs
        moving = tuple(k - 1 for k in moving)
        record = partial(_recorded, problem.equations, moving)
        pull = problem.equations.once(("pull", moving), lambda: record)(y, inputs)
        (right,) = jax.linear_transpose(lambda v: pull(v)[1:], y)(along)
        system = System(
            jax.tree.structure(pull), problem.method(y.size), problem.linear_tolerance, problem.options.iterations
        )
        factors, token = check_condition(problem, system, pull, y, inputs, token)
        return -token * solve_linear(pull, factors, right, system)


def _recorded(equations: Equations, moving: tuple[int, ...], y: Any, inputs: list[Any]) -> Any:
    """Give the pullback of H in y and in the inputs that move, from one evaluation."""

    def moved(y: Any, *changed: Any) -> Any:
        given = list(inputs)
        for k, a in zip(moving, changed, strict=True):
            given[k] = a
        return residual(equations, y, given)

    return jax.vjp(moved, y, *(inputs[k] for k in moving))[1]
