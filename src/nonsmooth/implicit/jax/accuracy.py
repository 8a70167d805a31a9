"""How far a solution is, and whether a minimiser is one, which |H| alone does not tell.

    |B^-1 H| <= max(1e-2, 10 tolerance) (1 + |y|)

The step of Newton's method is as long as the solution is far, in whatever units H is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.scipy.linalg import lu_solve

from nonsmooth.errors import ImplicitWarning
from nonsmooth.implicit.jax.problem import Problem, residual
from nonsmooth.implicit.jax.traced import Equations
from nonsmooth.implicit.jax.verify import verified
from nonsmooth.implicit.options import FAR

__all__ = ["accurate", "has_negative_eigenvalue"]


def accurate(problem: Problem, y: Any, inputs: Sequence[Any], factors: Any, token: Any) -> Any:
    """Give the token, after a look at Newton's step from y, by the factors of B."""
    newton = problem.equations.once("newton", lambda: partial(_newton, problem.equations))
    return verified([token], newton(y, list(inputs), factors), _Near(problem.described, problem.tolerance))[0]


def _newton(equations: Equations, y: Any, inputs: Sequence[Any], factors: Any) -> tuple[Any, Any, Any]:
    """Give |H|, |B^-1 H| and 1 + |y|."""
    value = residual(equations, y, inputs)
    return jnp.linalg.norm(value), jnp.linalg.norm(lu_solve(factors, value)), 1 + jnp.linalg.norm(y)


@dataclass(frozen=True)
class _Near:
    """The judge of Newton's step."""

    described: str
    tolerance: float
    one_by_one = False

    def measure(self, residual: Any, step: Any, size: Any) -> tuple[Any, ...]:
        """Look at |H|, |B^-1 H| and 1 + |y|."""
        return residual, step, size

    def failed(self, residual: Any, step: Any, size: Any) -> Any:
        """Compare them; a step that is not finite is one of a singular B, which has a judge of its own."""
        return (step > max(FAR, 10 * self.tolerance) * size) & (step < np.inf)

    def tell(self, residual: Any, step: Any, size: Any) -> None:
        """Say what was found."""
        warnings.warn(
            f"the derivative of the {self.described}: the solution is not accurate enough: |H| = {float(residual):.2g} is small, "
            f"but Newton's step from there is {float(step):.2g} long, where 1 + |y| is {float(size):.2g}. Scale the equation, or "
            "let the solver go on, with a smaller tolerance.",
            ImplicitWarning,
            stacklevel=2,
        )

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError


@jax.jit
def has_negative_eigenvalue(matrix: Any, size: Any) -> Any:
    """Tell whether a symmetric matrix of a norm has a negative eigenvalue beyond doubt: shifted a little, no Cholesky factor."""
    shift = jnp.finfo(matrix.dtype).eps ** 0.5 * size
    factor = jnp.linalg.cholesky(matrix + shift * jnp.eye(len(matrix), dtype=matrix.dtype))
    return ~jnp.all(jnp.isfinite(factor)) & (size > 0) & (size < jnp.inf)
