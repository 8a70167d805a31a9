"""Solvers of the library in JAX: Anderson's iteration, semismooth Newton, accelerated proximal gradient descent.

Each stops where the residual is at the level of rounding or falls no further; what it has reached is checked by the caller.

Source: WalkerNi2011, QiSun1993, BeckTeboulle2009, ODonoghueCandes2015.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.scipy.sparse.linalg import gmres

from nonsmooth.implicit.equation import Equation, Trees
from nonsmooth.implicit.jax.arrays import Parameters, Shape, check_alike
from nonsmooth.implicit.jax.traced import Equations, equations_of
from nonsmooth.implicit.linear import DENSE
from nonsmooth.implicit.options import Options

__all__ = ["default_solver"]

MEMORY = 6
"""How many iterates Anderson's iteration combines."""

PATIENCE = 20
"""After how many steps that improve nothing a solver stops, where what it has is allowed."""

NEWTON = 50
"""How many steps of Newton's method end a descent that has not come near enough."""

EARLY = 1e-3
"""How far the residual of a descent falls, relative to 1 + |y| and to that of the start, before Newton's method is tried."""

TRIED = 3
"""How many steps of Newton's method are tried then."""


def default_solver(equation: Equation, trees: Trees, theta: tuple[Any, ...], start: Any, options: Options) -> Any:
    """Solve from a start, a tree of arrays of one type, by the method of the kind of equation."""
    leaves, structure = jax.tree.flatten(start)
    shape = Shape(structure, tuple(a.shape for a in leaves), leaves[0].dtype)
    parameters, floats, others = Parameters.taken_apart(theta)

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda flat, *arrays: function(
            shape.unflatten(flat), *parameters.joined(arrays[: len(floats)], arrays[len(floats) :])
        )

    def like(y: Any, found: Any) -> Any:
        check_alike(y, found)
        return shape.flatten(found)

    flat, arrays = shape.flatten(start), [*floats, *others]
    one = jnp.ones((), flat.dtype)
    tolerance = options.tolerance or float(jnp.finfo(flat.dtype).eps) ** 0.5
    aim = options.tolerance or 2 * float(jnp.finfo(flat.dtype).eps)
    limits = {"iterations": options.iterations, "tolerance": tolerance, "aim": aim}
    prox = equation.prox
    value = of(lambda y, *t: [like(y, equation.function(y, *t))])
    slope = of(lambda y, *t: [shape.flatten(trees.gradient(equation.function, y, t))])

    def proximal(flat: Any, step: Any, *arrays: Any) -> list[Any]:
        return [flat] if prox is None else of(lambda y, *t: [like(y, prox(y, step, *t))])(flat, *arrays)

    methods: dict[str, Callable[..., Any]] = {"argmin": _minimise, "root": _newton, "fixed point": _anderson}
    method = methods[equation.kind]
    if equation.kind == "argmin":
        parts = [equations_of(slope, flat, *arrays), equations_of(proximal, flat, one, *arrays)]
        goal = options.tolerance or float(jnp.finfo(flat.dtype).eps) ** 0.75
        limits |= {"unit": 0.0 if equation.symmetric else equation.step, "goal": goal}
    else:
        parts = [equations_of(value, flat, *arrays)]
    closed = [[lax.stop_gradient(a) for a in consts] for _, consts in parts]
    equations = tuple(e for e, _ in parts)
    run = equations[0].once(
        ("solver", method.__name__, equations[1:], tuple(limits.items())),
        lambda: partial(_run, method, equations, limits),
    )
    return shape.unflatten(run(flat, closed, arrays))


def _run(
    method: Callable[..., Any], equations: tuple[Equations, ...], limits: Any, start: Any, closed: Any, arrays: Any
) -> Any:
    """Run a method on functions of vectors."""
    functions = [lambda *a, e=e, c=c: e(*c, *a, *arrays)[0] for e, c in zip(equations, closed, strict=True)]
    return method(*functions, start, **limits)


class _Best(NamedTuple):
    """The best iterate so far: its residual, and how many steps have improved nothing since."""

    y: Any
    residual: Any
    waited: Any

    def after(self, y: Any, residual: Any) -> _Best:
        """Take a new iterate."""
        better = residual < self.residual
        much = residual < 0.9 * self.residual
        return _Best(
            jnp.where(better, y, self.y),
            jnp.where(better, residual, self.residual),
            jnp.where(much, 0, self.waited + 1),
        )

    def goes_on(self, k: Any, iterations: int, tolerance: float, aim: Any) -> Any:
        """Tell whether another step is worth it."""
        size = 1 + jnp.linalg.norm(self.y)
        enough = (self.residual <= aim * size) | ((self.residual <= tolerance * size) & (self.waited >= PATIENCE))
        return (k < iterations) & ~enough


def _first(y: Any) -> _Best:
    """Start with an iterate that any other betters."""
    return _Best(y, jnp.full((), jnp.inf, y.dtype), jnp.zeros((), int))


def _anderson(T: Callable[[Any], Any], start: Any, *, iterations: int, tolerance: float, aim: float) -> Any:
    """Iterate y <- sum a_i T(y_i), the weights of least |sum a_i (T(y_i) - y_i)| that add up to 1."""
    m = min(MEMORY, start.size + 1)
    scale = float(jnp.finfo(start.dtype).eps)

    def step(state: Any) -> Any:
        k, y, points, moves, best = state
        move = T(y) - y
        best = best.after(y, jnp.linalg.norm(move))
        points, moves = points.at[k % m].set(y), moves.at[k % m].set(move)
        known = jnp.arange(m) <= k
        gram = jnp.where(known[:, None] & known[None, :], moves @ moves.T, jnp.eye(m, dtype=y.dtype))
        size = jnp.max(jnp.where(known, jnp.diagonal(gram), 0))
        gram = gram / jnp.where(size > 0, size, 1) + 10 * scale * jnp.eye(m, dtype=y.dtype)
        weights = jnp.linalg.solve(gram, known.astype(y.dtype))
        weights = weights / jnp.sum(weights)
        mixed = weights @ (points + moves)
        plain = jnp.any(~jnp.isfinite(mixed)) | (best.waited > 2 * m) & (best.waited % 2 == 1)
        return k + 1, jnp.where(plain, y + move, mixed), points, moves, best

    empty = jnp.zeros((m, start.size), start.dtype)
    state = (jnp.zeros((), int), start, empty, empty, _first(start))
    return lax.while_loop(lambda s: s[-1].goes_on(s[0], iterations, tolerance, aim), step, state)[-1].y


def _newton(F: Callable[[Any], Any], start: Any, *, iterations: int, tolerance: float, aim: float) -> Any:
    """Iterate y <- y - t B^-1 F(y), B an element of the conservative Jacobian, t halved until |F| falls."""

    def directions(y: Any, value: Any) -> tuple[Any, Any]:
        if start.size > DENSE:
            _, product = jax.linearize(F, y)
            size = jnp.where(jnp.linalg.norm(value) > 0, jnp.linalg.norm(value), 1)
            newton = (
                size
                * gmres(
                    product, value / size, tol=1e-3 * aim**0.25, restart=40, maxiter=10, solve_method="incremental"
                )[0]
            )
            return newton, jax.linear_transpose(product, y)(value)[0]
        _, pull = jax.vjp(F, y)
        matrix = jax.vmap(lambda v: pull(v)[0])(jnp.eye(y.size, dtype=y.dtype))
        slope = matrix.T @ value
        gram = matrix.T @ matrix + jnp.linalg.norm(value) * jnp.eye(y.size, dtype=y.dtype)
        return jnp.linalg.solve(matrix, value), jnp.linalg.solve(gram, slope)

    def searched(y: Any, size: Any, direction: Any) -> tuple[Any, Any, Any]:
        direction = jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0)

        def fails(state: Any) -> Any:
            t, _, found = state
            return ~(found < (1 - 1e-4 * t) * size) & (t > 1e-10)

        def shorter(state: Any) -> Any:
            t = state[0] / 2
            return t, y - t * direction, jnp.linalg.norm(F(y - t * direction))

        one = jnp.ones((), y.dtype)
        _, point, found = lax.while_loop(fails, shorter, (one, y - direction, jnp.linalg.norm(F(y - direction))))
        return point, found, found < size

    def step(state: Any) -> Any:
        k, y, value, best = state
        size = jnp.linalg.norm(value)
        newton, other = directions(y, value)
        point, _, fine = searched(y, size, newton)
        point, _, fine = lax.cond(fine, lambda: (point, size, fine), lambda: searched(y, size, other))
        value = F(point)
        return jnp.where(fine, k + 1, iterations), point, value, best.after(point, jnp.linalg.norm(value))

    value = F(start)
    state = (jnp.zeros((), int), start, value, _first(start).after(start, jnp.linalg.norm(value)))
    return lax.while_loop(lambda s: s[-1].goes_on(s[0], iterations, tolerance, aim), step, state)[-1].y


def _minimise(
    gradient: Callable[[Any], Any],
    prox: Callable[[Any, Any], Any],
    start: Any,
    *,
    iterations: int,
    tolerance: float,
    aim: float,
    unit: float,
    goal: float,
) -> Any:
    """Descend, try a few steps of Newton's method early, descend on where they do not reach the goal, and end with it.

    Early the pieces on which the solution lies are mostly known, and that of a quadratic objective is a step away. The last
    step is one of the descent, after which entries are exactly zero that the prox makes zero.
    """

    def residual(y: Any) -> Any:
        slope = gradient(y)
        return y - prox(y - unit * slope, jnp.asarray(unit, y.dtype)) if unit else slope

    def reached(y: Any) -> Any:
        return jnp.linalg.norm(residual(y)) <= goal * (1 + jnp.linalg.norm(y))

    def stepped(y: Any, s: Any) -> Any:
        after = prox(y - s * gradient(y), s)
        allowed = jnp.maximum(jnp.linalg.norm(residual(y)), goal * (1 + jnp.linalg.norm(y)))
        return jnp.where(jnp.linalg.norm(residual(after)) <= 2 * allowed, after, y)

    def further() -> Any:
        best, s = lax.cond(early, lambda: descend(rough.y, aim=aim), lambda: (rough, length))
        newton = partial(_newton, residual, iterations=min(iterations, NEWTON), tolerance=tolerance, aim=goal)
        return lax.cond(
            best.residual <= goal * (1 + jnp.linalg.norm(best.y)), lambda: best.y, lambda: stepped(newton(best.y), s)
        )

    descend = partial(_descent, gradient, prox, iterations=iterations, tolerance=tolerance, unit=unit)
    begun = jnp.linalg.norm(residual(start))
    enough = jnp.maximum(aim, EARLY * jnp.minimum(begun, 1))
    rough, length = descend(start, aim=enough)
    early = rough.residual <= enough * (1 + jnp.linalg.norm(rough.y))
    near = lax.cond(early, lambda: stepped(_sharpened(gradient, residual, rough.y, goal), length), lambda: rough.y)
    return lax.cond(reached(near), lambda: near, further)


def _sharpened(gradient: Callable[[Any], Any], residual: Callable[[Any], Any], y: Any, goal: float) -> Any:
    """Make a few steps of Newton's method by products alone, while each leaves a tenth of the residual.

    None is kept along which the gradient falls: the objective is not convex there.
    """

    def step(state: Any) -> Any:
        k, y, size, _, _ = state
        value, product = jax.linearize(residual, y)
        scale = jnp.where(size > 0, size, 1)
        move = -scale * gmres(product, value / scale, tol=goal, restart=40, maxiter=1, solve_method="incremental")[0]
        after = y + move
        convex = jnp.vdot(gradient(after) - gradient(y), move) >= 0
        return k + 1, after, jnp.linalg.norm(residual(after)), size, convex

    def on(state: Any) -> Any:
        k, y, size, before, convex = state
        return (k < TRIED) & (size > goal * (1 + jnp.linalg.norm(y))) & (size < 0.1 * before) & convex

    size = jnp.linalg.norm(residual(y))
    begin = (jnp.zeros((), int), y, size, jnp.full_like(size, jnp.inf), jnp.ones((), bool))
    _, found, _, _, convex = lax.while_loop(on, step, begin)
    return jnp.where(convex, found, y)


def _descent(
    gradient: Callable[[Any], Any],
    prox: Callable[[Any, Any], Any],
    start: Any,
    *,
    iterations: int,
    tolerance: float,
    aim: Any,
    unit: float,
) -> tuple[_Best, Any]:
    """Iterate y <- prox(z - s grad f(z)), z extrapolated and started again where the steps turn back.

    The step s is halved until s <grad f(y) - grad f(z), y - z> <= |y - z|^2/2, which for a convex f implies the inequality
    of descent. The same grad f(y) gives the residual y - prox(y - unit grad f(y)), or grad f(y) itself where unit is 0.
    Beside the best iterate the last step is given.
    """

    def residual(y: Any, slope: Any) -> Any:
        return jnp.linalg.norm(y - prox(y - unit * slope, jnp.asarray(unit, y.dtype)) if unit else slope)

    def tried(z: Any, slope: Any, s: Any) -> tuple[Any, Any, Any]:
        y = prox(z - s * slope, s)
        return y, gradient(y), s

    def step(state: Any) -> Any:
        k, y, z, t, s, best = state
        slope = gradient(z)

        def too_long(inner: Any) -> Any:
            point, after, s = inner
            move = point - z
            size = jnp.vdot(move, move)
            return ~(s * jnp.vdot(after - slope, move) <= 0.5 * size * (1 + 1e-3)) & (s > 1e-30) & (size > 0)

        found, after, s = lax.while_loop(too_long, lambda inner: tried(z, slope, inner[-1] / 2), tried(z, slope, s))
        turned = jnp.vdot(z - found, found - y) > 0
        t_next = jnp.where(turned, 1.0, (1 + jnp.sqrt(1 + 4 * t * t)) / 2).astype(y.dtype)
        ahead = jnp.where(turned, found, found + (t - 1) / t_next * (found - y))
        best = best.after(found, residual(found, after))
        return k + 1, found, ahead, t_next, s, best

    slope = gradient(start)
    size = jnp.linalg.norm(slope)
    probe = start - slope / jnp.where(size > 0, size, 1)
    curved = jnp.linalg.norm(gradient(probe) - slope)
    one = jnp.ones((), start.dtype)
    first = jnp.where(curved > 0, 4 / jnp.where(curved > 0, curved, 1), one).astype(start.dtype)
    best = _first(start).after(start, residual(start, slope))
    state = (jnp.zeros((), int), start, start, one, first, best)
    *_, s, best = lax.while_loop(lambda s: s[-1].goes_on(s[0], iterations, tolerance, aim), step, state)
    return best, s
