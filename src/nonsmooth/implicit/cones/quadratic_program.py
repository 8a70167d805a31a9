"""Quadratic programs as functions of their numbers, which differentiate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.errors import UsageError
from nonsmooth.implicit.cones.cone_program import aligned, check_arrays, diagnose_layer, solve_layer
from nonsmooth.implicit.cones.layer import Layer
from nonsmooth.implicit.cones.product import Cones
from nonsmooth.implicit.cones.solvers import NAMED, Solver
from nonsmooth.implicit.diagnosis import Diagnosis
from nonsmooth.implicit.options import Options

__all__ = ["QuadraticProgram", "QuadraticSolution"]


class QuadraticSolution(NamedTuple):
    """The solution x, and the multipliers of G x <= h (nonnegative) and of A x = b."""

    x: Any
    inequalities: Any
    equations: Any


class QuadraticProgram:
    """A convex quadratic program, whose solution is a function of its numbers that differentiates.

        minimise x'P x/2 + q'x  subject to  G x <= h,  A x = b

    The condition, M(V) invertible for every V, is here: the gradients of all active constraints are independent (LICQ), and
    P is positive definite on the directions that keep the constraints with positive multipliers active. It is decided at
    every backward pass (`computed`). A constraint that is active with multiplier 0 is a kink: differentiable from both
    sides, with an element of the conservative Jacobian, in which it counts as inactive.

    Args:
        solver: "interior point", the library's own (dense), or one of those of `ConeProgram`.
        solver_options: what a named solver takes beside.
        options: `violated`, `tolerance` and `check`, as for `ConeProgram`.

    Calling it takes P (n, n), q (n,), and G (m, n), h (m,), A (p, n), b (p,) or None, tensors or arrays of JAX, each with
    leading axes that broadcast, and gives `QuadraticSolution`.

    Raises:
        NotConverged: infeasible, unbounded, or not solved. NotInvertible: at a backward pass, the condition is violated.
        UsageError: shapes, nan, a P that is not symmetric positive semidefinite.

    >>> import torch
    >>> program = QuadraticProgram()
    >>> q = torch.tensor([-3.0, -1.0], requires_grad=True)
    >>> x, multipliers, _ = program(torch.eye(2), q, torch.ones(1, 2), torch.ones(1))  # x_1 + x_2 <= 1
    >>> x[0].backward()
    >>> x.detach().round(decimals=6), multipliers.detach().round(decimals=6), q.grad.round(decimals=6)
    (tensor([ 1.5000, -0.5000]), tensor([1.5000]), tensor([-0.5000,  0.5000]))

    Source: AgrawalEtAl2019b, Robinson1980, derived, docs/theory/projections.md.
    """

    def __init__(
        self, solver: Solver = "interior point", *, solver_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        if not callable(solver) and solver not in (*NAMED, "interior point"):
            raise UsageError(
                f"solver={solver!r} means nothing: choose 'interior point', {', '.join(map(repr, NAMED))}."
            )
        self.solver, self.solver_options, self.options = solver, dict(solver_options or {}), Options(**options)

    def __call__(self, P: Any, q: Any, G: Any = None, h: Any = None, A: Any = None, b: Any = None) -> QuadraticSolution:
        """Solve."""
        layer, arrays = self._program(P, q, G, h, A, b)
        x, y, _ = solve_layer(layer, *arrays)
        return QuadraticSolution(x, y[..., layer.cones.zero :], y[..., : layer.cones.zero])

    def diagnose(self, P: Any, q: Any, G: Any = None, h: Any = None, A: Any = None, b: Any = None) -> Diagnosis:
        """Tell whether the condition holds at the solution of one program, with its kinks; see `nonsmooth.implicit.Diagnosis`.

        Raises:
            NotConverged, UsageError: as for a call.
        """
        layer, arrays = self._program(P, q, G, h, A, b)
        return diagnose_layer(layer, *arrays)

    def _program(self, P: Any, q: Any, G: Any, h: Any, A: Any, b: Any) -> tuple[Layer, Any]:
        """Write it as a cone program: equations first."""
        check_arrays("QuadraticProgram", P=P, q=q, G=G, h=h, A=A, b=b)
        if not hasattr(q, "ndim") or q.ndim < 1:
            raise UsageError("QuadraticProgram takes for q an array of 1 axis, or more for a batch.")
        pairs = []
        for matrix, right, names in ((A, b, ("A", "b")), (G, h, ("G", "h"))):
            if (matrix is None) != (right is None):
                raise UsageError(f"QuadraticProgram takes {names[0]} and {names[1]} together, or neither.")
            nothing = array_namespace(q).zeros_like(q)
            pair = (nothing[..., None, :][..., :0, :], nothing[..., :0]) if matrix is None else (matrix, right)
            _, _, *pair = aligned("QuadraticProgram", P, q, *pair)  # type: ignore[assignment]
            if pair[0].shape[-2] != pair[1].shape[-1] or pair[0].shape[-1] != q.shape[-1]:
                raise UsageError(
                    f"QuadraticProgram of {q.shape[-1]} unknowns was given {names[0]} of shape {tuple(pair[0].shape)} and "
                    f"{names[1]} of shape {tuple(pair[1].shape)}."
                )
            pairs.append(pair)
        (A, b), (G, h) = pairs
        p, m, xp = A.shape[-2], G.shape[-2], array_namespace(q)
        lead = _longest(A.shape[:-2], G.shape[:-2])
        stacked = (
            xp.concat([xp.broadcast_to(t, lead + tuple(t.shape[-2:])) for t in (A, G)], axis=-2),
            xp.concat([xp.broadcast_to(t, lead + tuple(t.shape[-1:])) for t in (b, h)], axis=-1),
        )
        rows = (*(f"row {i} of A" for i in range(p)), *(f"row {i} of G" for i in range(m)))
        cones = Cones(zero=p, nonnegative=m)
        layer = Layer("QuadraticProgram", cones, self.solver, self.options, self.solver_options, rows)
        return layer, aligned("QuadraticProgram", P, q, *stacked)


def _longest(*leads: Any) -> tuple[int, ...]:
    """Give the common leading axes."""
    try:
        return tuple(np.broadcast_shapes(*map(tuple, leads)))
    except ValueError as error:
        raise UsageError(f"QuadraticProgram was given leading axes that do not broadcast: {leads}.") from error
