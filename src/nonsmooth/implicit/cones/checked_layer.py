"""Layers of cvxpylayers, whose derivatives are checked: no least squares in silence.

Source: AgrawalEtAl2019b.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy import sparse

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotInvertible, UsageError
from nonsmooth.implicit.cones.layer import Layer
from nonsmooth.implicit.cones.product import Cones
from nonsmooth.implicit.cones.program import Solved
from nonsmooth.implicit.cones.solvers import Solver
from nonsmooth.implicit.diagnosis import Diagnosis
from nonsmooth.implicit.options import Options

__all__ = ["checked"]


def checked(
    layer: Any, solver: Solver = "clarabel", *, solver_options: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Give a `CvxpyLayer` of cvxpylayers, for torch or JAX, whose backward pass is exact and checked.

        M(V) invertible for every V of Clarke's Jacobian of the projection on the dual cone, at the solution

    diffcp solves the linear system of a derivative by LSQR, which answers with least squares where it is singular, and says
    nothing. The layer that is given has the same parameters and variables; it solves the same cone program, decides the
    condition at every backward pass (`computed`), and has a method `diagnose(*parameters)`.

    Args:
        layer: a `CvxpyLayer` with the default solver; it stays as it is.
        solver, solver_options, options: as for `ConeProgram`.

    Raises:
        UsageError: something else, a layer with another solver, or power cones. When it is called: as
            `ConeProgram`.

    >>> import cvxpy, torch
    >>> from cvxpylayers.torch import CvxpyLayer
    >>> x, a = cvxpy.Variable(), cvxpy.Parameter()
    >>> layer = CvxpyLayer(cvxpy.Problem(cvxpy.Minimize((x - a) ** 2), [x >= 0]), parameters=[a], variables=[x])
    >>> found = checked(layer).diagnose(torch.tensor(0.0, dtype=torch.double))  # max(0, a) at its kink
    >>> found.invertible, found.kinks
    (True, 1)

    Source: AgrawalEtAl2019b, derived, docs/theory/projections.md.
    """
    context: Any = getattr(layer, "ctx", None)
    inner: Any = getattr(context, "solver_ctx", None)
    if not all(hasattr(inner, name) for name in ("A_structure", "A_shape", "b_idx", "dims")):
        raise UsageError(
            f"checked takes a CvxpyLayer of cvxpylayers with its default solver (diffcp); found a {type(layer).__name__}"
            + (f" with solver {context.solver!r}." if context is not None else ".")
        )
    program = _Canonical(inner, _layer(inner.dims, solver, solver_options, options))
    given = copy.copy(layer)
    given.ctx = (
        replace(context, solver=_interface(program)) if _of_torch(layer) else replace(context, solver_ctx=program)
    )
    given.diagnose = lambda *parameters: program.diagnose(given, parameters)
    return given


def _of_torch(layer: Any) -> bool:
    """Tell a layer of torch from one of JAX."""
    return ".torch." in f".{type(layer).__module__}."


def _layer(dims: Any, solver: Solver, solver_options: dict[str, Any] | None, options: dict[str, Any]) -> Layer:
    """Read the cones."""
    from cvxpy.reductions.solvers.conic_solvers.scs_conif import dims_to_solver_dict

    named = dims_to_solver_dict(dims)
    others = [
        f"{name}: {value}" for name, value in named.items() if name not in ("z", "f", "l", "q", "s", "ep") and value
    ]
    if others:
        raise UsageError(
            f"checked decides for zero, nonnegative, second-order, semidefinite and exponential cones; found {', '.join(others)}."
        )
    second_order, semidefinite = (tuple(int(k) for k in named.get(name, ())) for name in ("q", "s"))
    zero, nonnegative, exponential = (int(named.get(name, 0)) for name in ("z", "l", "ep"))
    cones = Cones(zero or int(named.get("f", 0)), nonnegative, second_order, semidefinite, exponential)
    return Layer("CvxpyLayer", cones, solver, Options(**options), dict(solver_options or {}))


def _free(solved: Solved) -> Floats:
    """Give orthonormal directions of x that change neither objective nor an active constraint, shape (count, n).

    cvxpy writes |f(x)| <= 2, inactive, as |f(x)| <= t, t <= 2: nothing determines t, and no variable of the user's moves.
    """
    rows = np.vstack([solved.data.P, solved.jacobian.largest @ solved.data.A])
    _, values, right = np.linalg.svd(rows, full_matrices=True)
    rank = int((values > 1e-9 * max(float(values[0]), 1.0)).sum())
    return np.asarray(right[rank:])


def _without_free(solved: Solved) -> Solved:
    """Fix the free directions at the solution that was found, by an objective |N (x - x0)|^2/2: derivatives stay the same."""
    N, data = _free(solved), solved.data
    if not len(N):
        return solved
    fixed = replace(data, P=data.P + N.T @ N, c=data.c - N.T @ (N @ solved.x))
    return replace(solved, data=fixed, fixed=N)


@dataclass(eq=False)
class _Canonical:
    """The canonical form of a layer, between its vectors of numbers and c, A, b; also what a layer of JAX asks for data."""

    inner: Any
    layer: Layer
    last: list[Solved] | None = None

    def arrays(self, q: Floats, A: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Give P = 0, c, A, b of one program."""
        whole = sparse.csc_matrix((A, *self.inner.A_structure), shape=self.inner.A_shape).toarray()
        n = whole.shape[1] - 1
        return np.zeros((n, n)), np.asarray(q[:n], dtype=np.float64), -whole[:, :n], whole[:, n]

    def solve(self, q: Floats, A: Floats) -> list[Solved]:
        """Solve programs, one a row."""
        self.last = [_without_free(self.layer.solve_one(self.arrays(*one))) for one in zip(q, A, strict=True)]
        return self.last

    def pull(self, solved: list[Solved], primal: Floats, dual: Floats) -> tuple[Floats, Floats]:
        """Give the cotangents of q and A, one a row, for those of x and y."""
        for one, cotangent in zip(solved, primal, strict=True):
            if len(one.fixed) and np.linalg.norm(one.fixed @ cotangent) > 1e-6 * np.linalg.norm(cotangent):
                raise NotInvertible(
                    "the derivative of a CvxpyLayer: a variable that is asked for is not unique at the solution: there is a "
                    "direction along which neither objective nor active constraints change. Make the problem strictly convex."
                )
        _, c, A, b = self.layer.pull(solved, primal, dual, np.zeros_like(dual))
        rows, starts = self.inner.A_structure
        columns = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        whole = np.concatenate([-A, b[..., None]], axis=-1)
        return np.concatenate([c, np.zeros_like(c[:, :1])], axis=1), whole[:, rows, columns]

    def diagnose(self, layer: Any, parameters: tuple[Any, ...]) -> Diagnosis:
        """Solve, and report on the condition."""
        layer(*(p.detach() if hasattr(p, "detach") else p for p in parameters))
        if self.last is None or len(self.last) != 1:
            raise UsageError("diagnose takes the parameters of one program, not of a batch.")
        return self.layer.diagnose(self.last[0])

    def jax_to_data(self, P: Any, q: Any, A: Any) -> _JaxData:
        """Read what a layer of JAX evaluated."""
        del P  # a quadratic objective is a second-order cone here
        return _JaxData(self, q, A)


@dataclass(eq=False)
class _JaxData:
    """The programs of one call of a layer of JAX: columns of q and A, or one of each."""

    program: _Canonical
    q: Any
    A: Any

    def jax_solve(self, solver_args: Any = None) -> tuple[Any, Any, list[Solved]]:
        """Give x, y, and what the pullback needs."""
        del solver_args
        q, A = (np.atleast_2d(np.asarray(t, dtype=np.float64).T) for t in (self.q, self.A))
        solved, xp = self.program.solve(q, A), array_namespace(self.q)
        primal, dual = (np.stack([s.values[k] for s in solved]) for k in (0, 1))
        return xp.asarray(primal, dtype=self.q.dtype), xp.asarray(dual, dtype=self.q.dtype), solved

    def jax_solve_only(self, solver_args: Any = None) -> tuple[Any, Any]:
        """Give x and y."""
        return self.jax_solve(solver_args)[:2]

    def jax_derivative(self, primal: Any, dual: Any, solved: list[Solved]) -> tuple[None, Any, Any]:
        """Give the cotangents."""
        xp = array_namespace(self.q)
        q, A = self.program.pull(solved, np.asarray(primal, dtype=np.float64), np.asarray(dual, dtype=np.float64))
        found = (xp.asarray(t.T, dtype=self.q.dtype) for t in (q, A))
        q, A = (t[:, 0] if self.q.ndim == 1 else t for t in found)
        return None, q, A


def _interface(program: _Canonical) -> Any:
    """Give what a layer of torch takes for a solver of its user's."""
    from cvxpylayers.interfaces.base import SolverInterface

    class CheckedSolver(SolverInterface):
        """The library's solution and derivative, for cvxpylayers."""

        def solve_numpy(self, P: Any, q: Any, A: Any, dims: Any, solver_args: Any, needs_grad: bool) -> Any:
            """Give x, y, and what the pullback needs."""
            (solved,) = program.solve(*(np.asarray(t, dtype=np.float64)[None] for t in (q, A)))
            x, y, _ = solved.values
            return x.astype(q.dtype), y.astype(q.dtype), solved

        def derivative_numpy(self, primal: Any, dual: Any, solved: Any) -> Any:
            """Give the cotangents of P, q and A."""
            q, A = program.pull([solved], *(np.asarray(t, dtype=np.float64)[None] for t in (primal, dual)))
            return None, q[0].astype(primal.dtype), A[0].astype(primal.dtype)

    return CheckedSolver()
