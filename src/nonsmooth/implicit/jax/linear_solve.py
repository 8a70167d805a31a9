"""Linear systems with the derivative of an equation, solved both ways, their residuals checked: a primitive of jax.

    B x = b   or   B' x = b,      |b - B x| <= tolerance |b|   or `NotConverged`

B is given by its pullback v -> B' v, recorded once (`jax.vjp`), so that products with B, B' and A are those of one
selection at the kinks. The primitive is linear in b: its transpose solves with the transpose, its derivative in B is
B^-1 (db - dB x), under `jit`, `vmap` and both modes, to any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.scipy.linalg import lu_factor, lu_solve
from jax.scipy.sparse.linalg import cg, gmres

from nonsmooth.errors import NotConverged, NotInvertible
from nonsmooth.implicit.jax.verify import Levels, mapped, verified

__all__ = ["Method", "System", "dense_matrix", "solve_linear"]

Method: TypeAlias = Literal["dense", "cg", "gmres"]

RESTART = 40
"""After how many directions GMRES starts again."""


@dataclass(frozen=True)
class System:
    """How one linear system is solved.

    Attributes:
        structure: of the pullback v -> (B' v, ...), whose leaves are the first arguments of the primitive.
        method: dense: by the LU factors, which follow the leaves; else by products alone.
        tolerance: of the residual, relative to the right-hand side.
        iterations: how many steps an iterative solver makes.
        transposed: whether B' is meant.
        levels: how the arguments are mapped.
    """

    structure: Any
    method: Method
    tolerance: float
    iterations: int
    transposed: bool = False
    levels: Levels = ()

    @property
    def leaves(self) -> int:
        """How many arrays the pullback has."""
        return int(self.structure.num_leaves)

    def product(self, *args: Any) -> Any:
        """Give B v, or B' v, from the leaves of the pullback and v."""
        pull, v = jax.tree.unflatten(self.structure, args[:-1]), args[-1]
        return pull(v)[0] if self.transposed else jax.linear_transpose(lambda u: pull(u)[0], v)(v)[0]

    def solution(self, *args: Any) -> tuple[Any, ...]:
        """Give x, |b - B x| and |b|, from the leaves, the factors and b; then, of a failure, `nearness`."""
        given, factors, b = args[: self.leaves], args[self.leaves : -1], args[-1]
        size = jnp.linalg.norm(b)
        if self.method == "dense":
            x = lu_solve((factors[0], factors[1]), b, trans=int(self.transposed))
        else:
            x = self._iterated(partial(self.product, *given), b, size)
        image = self.product(*given, x)
        rest = jnp.linalg.norm(b - image)
        solved = rest <= self.tolerance * size
        unknown = jnp.full((), jnp.nan, b.dtype)
        found = lax.cond(solved, lambda: (unknown, unknown), lambda: self.nearness(given, b, x, image))
        return x, rest, size, *found

    def nearness(self, given: Sequence[Any], b: Any, x: Any, image: Any) -> tuple[Any, Any]:
        """Give how near a null vector is to x or to what is left of b, relative to the size of B; and <x, B x> / |x| |B x|.

        Where B is singular and b out of its range, x tends to a right null vector, or what is left of b to a left one.
        """
        length, left = jnp.linalg.norm, b - image
        turned = replace(self, transposed=not self.transposed)
        shrunk = jnp.fmin(length(turned.product(*given, left)) / length(left), length(image) / length(x))
        scale = length(self.product(*given, b)) / length(b)
        return shrunk / scale, jnp.vdot(x, image) / (length(x) * length(image))

    def _iterated(self, product: Callable[[Any], Any], b: Any, size: Any) -> Any:
        """Solve by products; the right-hand side is scaled to length 1."""
        aim = max(0.01 * self.tolerance, 10 * float(jnp.finfo(b.dtype).eps))
        scale = jnp.where(size > 0, size, 1)
        if self.method == "cg":
            return scale * cg(product, b / scale, tol=aim, maxiter=self.iterations)[0]
        restart = min(RESTART, b.size)
        rounds = -(-self.iterations // restart)
        found = gmres(product, b / scale, tol=aim, restart=restart, maxiter=rounds, solve_method="incremental")[0]
        return scale * found


@dataclass(frozen=True)
class _Solved:
    """The judge of a linear solve."""

    system: System
    one_by_one = False

    def measure(self, *numbers: Any) -> tuple[Any, ...]:
        """Look at the numbers of `System.solution`."""
        return numbers

    def failed(self, rest: Any, size: Any, *found: Any) -> Any:
        """Compare the residual with what is allowed; nan is not."""
        return ~(rest <= self.system.tolerance * size)

    def tell(self, rest: Any, size: Any, null: Any, curvature: Any) -> None:
        """Say what was found: a null vector, a direction of negative curvature, or no solution."""
        s = self.system
        failure = (
            f"the linear system of the derivative was not solved: residual {float(rest):.3g} for a right-hand side of norm "
            f"{float(size):.3g}, where {s.tolerance:.3g} of it is allowed (linear_tolerance), by {s.method}; "
        )
        if float(null) <= s.tolerance and s.method != "dense":
            raise NotInvertible(
                f"{failure}a null vector was found, up to {float(null):.3g} of the norm of the derivative: it is singular, and the "
                "equation does not define y as a function of the parameters there. Nothing is returned in its place."
            )
        advice = {
            "dense": "the matrix is too badly conditioned",
            "cg": "cg needs a symmetric positive definite derivative, and this one is singular, badly conditioned or indefinite: "
            "choose linear='gmres' or 'dense'",
            "gmres": "the derivative is singular or badly conditioned: raise iterations, or choose linear='dense' if there is "
            "memory for the matrix",
        }
        if s.method == "cg" and float(curvature) < 0:
            advice["cg"] = "the derivative is not positive definite, which cg needs: choose linear='gmres' or 'dense'"
        raise NotConverged(f"{failure}{advice[s.method]}. Nothing is returned in its place.")

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError


def solve_linear(pull: Any, factors: Sequence[Any], b: Any, system: System) -> Any:
    """Solve B x = b; the system checks its residual."""
    return _solve.bind(*jax.tree.leaves(pull), *factors, b, system=system)


@jax.jit
def dense_matrix(pull: Any, like: Any) -> Any:
    """Give the matrix B of a pullback v -> (B' v, ...)."""
    return jax.vmap(lambda v: pull(v)[0])(jnp.eye(like.size, dtype=like.dtype))


@jax.jit
def factored(matrix: Any) -> Any:
    """Give the LU factors of a matrix."""
    return lu_factor(lax.stop_gradient(matrix))


_solve = Primitive("implicit_solve")


@partial(jax.jit, static_argnames="system")
def _solution(*args: Any, system: System) -> tuple[Any, ...]:
    """Solve, mapped as it is."""
    return mapped(system.solution, system.levels)(*args)  # type: ignore[no-any-return]


@_solve.def_impl
def _checked(*args: Any, system: System) -> Any:
    """Solve and check."""
    x, *numbers = _solution(*args, system=system)
    return verified([x], numbers, _Solved(replace(system, structure=None, levels=())))[0]


_solve.def_abstract_eval(lambda *avals, system: avals[-1])
mlir.register_lowering(_solve, mlir.lower_fun(_checked, multiple_results=False))


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, system: System) -> Any:
    """Differentiate: dx = B^-1 (db - dB x)."""
    x = _solve.bind(*primals, system=system)
    given, moved = primals[: system.leaves], tangents[: system.leaves]
    rest = tangents[-1]
    moving = [k for k, t in enumerate(moved) if not isinstance(t, ad.Zero)]
    if moving:
        flags = tuple((*level[: system.leaves], True) for level in system.levels)

        def product(*changed: Any) -> Any:
            leaves = list(given)
            for k, a in zip(moving, changed, strict=True):
                leaves[k] = a
            return mapped(system.product, flags)(*leaves, x)

        _, slope = jax.jvp(product, tuple(given[k] for k in moving), tuple(moved[k] for k in moving))
        rest = -slope if isinstance(rest, ad.Zero) else rest - slope
    if isinstance(rest, ad.Zero):
        return x, rest
    return x, _solve.bind(*primals[:-1], rest, system=system)


def _transpose(cotangent: Any, *args: Any, system: System) -> list[Any]:
    """Solve with the transpose."""
    none = [None] * (len(args) - 1)
    if isinstance(cotangent, ad.Zero):
        return [*none, cotangent]
    return [*none, _solve.bind(*args[:-1], cotangent, system=replace(system, transposed=not system.transposed))]


def _batch(args: Sequence[Any], axes: Sequence[Any], *, system: System) -> Any:
    """Note which arguments are mapped; the right-hand side always is."""
    count = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)]
    if axes[-1] is None:
        moved[-1] = jnp.broadcast_to(args[-1], (count, *args[-1].shape))
    flags = (*(axis is not None for axis in axes[:-1]), True)
    return _solve.bind(*moved, system=replace(system, levels=(flags, *system.levels))), 0


ad.primitive_jvps[_solve] = _jvp
ad.primitive_transposes[_solve] = _transpose
batching.primitive_batchers[_solve] = _batch
