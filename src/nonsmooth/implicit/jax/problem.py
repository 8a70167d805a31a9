"""The problem that a solution solves: its equations, what is allowed of their residual, and the check of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import NotConverged
from nonsmooth.implicit.equation import Equation, Trees
from nonsmooth.implicit.jax.arrays import Parameters, Shape
from nonsmooth.implicit.jax.linear_solve import Method
from nonsmooth.implicit.jax.traced import Equations
from nonsmooth.implicit.jax.verify import verified
from nonsmooth.implicit.linear import DENSE
from nonsmooth.implicit.options import Options

__all__ = ["Problem", "residual"]


@dataclass(frozen=True, eq=False)
class Problem:
    """The equations of H as (closed over, y, parameters), and how a solution is checked.

    `moves` says which of the arrays beside y are floating, `open` that the functions close over what jax traces.
    """

    equations: Equations
    equation: Equation
    trees: Trees
    options: Options
    shape: Shape
    parameters: Parameters
    moves: tuple[bool, ...]
    open: bool

    @property
    def tolerance(self) -> float:
        """How large |H| may be, relative to 1 + |y|."""
        return self.options.tolerance or float(jnp.finfo(self.shape.dtype).eps) ** 0.5

    @property
    def linear_tolerance(self) -> float:
        """How large the residual of a linear solve may be, relative to its right-hand side."""
        return self.options.linear_tolerance or float(jnp.finfo(self.shape.dtype).eps) ** 0.5

    def method(self, unknowns: int) -> Method:
        """Choose the solver of the linear systems."""
        if self.options.linear != "auto":
            return self.options.linear
        if unknowns <= DENSE:
            return "dense"
        return "cg" if self.equation.symmetric else "gmres"

    @property
    def described(self) -> str:
        """What it is called in messages."""
        return f"{self.equation.kind} of {self.equation.name}"

    def norms(self, y: Any, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Give |H| and |y|."""
        found: tuple[Any, Any] = self.equations.once("norms", lambda: partial(_norms, self.equations))(y, list(inputs))
        return found

    def checked(self, y: Any, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Give y, and a 1 for derivatives that do not depend on y, after a look at its residual."""
        judge = _Converged(self.described, self.tolerance)
        y, token = verified([y, jnp.ones((), y.dtype)], self.norms(y, inputs), judge)
        return y, token


def residual(equations: Equations, y: Any, inputs: Sequence[Any]) -> Any:
    """Give H, a vector, from what it was closed over and is given."""
    return equations(*inputs[: equations.closed], y, *inputs[equations.closed :])[0]


def _norms(equations: Equations, y: Any, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """Give |H| and |y|."""
    return jnp.linalg.norm(residual(equations, y, inputs)), jnp.linalg.norm(y)


@dataclass(frozen=True)
class _Converged:
    """The judge of a solution."""

    described: str
    tolerance: float
    one_by_one = False

    def measure(self, residual: Any, size: Any) -> tuple[Any, ...]:
        """Look at the norms of H and y."""
        return residual, size

    def failed(self, residual: Any, size: Any) -> Any:
        """Compare them; nan and infinity fail."""
        return ~((residual <= self.tolerance * (1 + size)) & (size < np.inf))

    def tell(self, residual: Any, size: Any) -> None:
        """Say what was found."""
        if not np.isfinite(size):
            raise NotConverged(
                f"{self.described}: the solver returned nan or inf. Start it elsewhere, or mend the solver."
            )
        raise NotConverged(
            f"{self.described}: y does not solve the equation: |H(y)| = {float(residual):.3g}, where "
            f"{self.tolerance * (1 + float(size)):.3g} is allowed, tolerance (1 + |y|) with tolerance = {self.tolerance:.3g}. Let "
            "the solver run longer or start it nearer (start=, iterations=), or allow more by tolerance=: the derivative is "
            "that of an exact solution."
        )

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError
