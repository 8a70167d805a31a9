"""The solvers of cone programs: diffcp's conic ones, the library's own for quadratic programs, or the user's.

Source: AgrawalEtAl2019a.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.implicit.cones.interior_point import explain, solve_quadratic
from nonsmooth.implicit.cones.product import Cones
from nonsmooth.implicit.cones.program import ConeData, Solved, refine
from nonsmooth.implicit.cones.units import Units

__all__ = ["Solver", "solve_program"]

Solver: TypeAlias = "str | Callable[[Floats, Floats, Floats, Floats, Cones], tuple[Any, Any, Any]]"
"""A name, or solver(P, c, A, b, cones) -> (x, y, s)."""

NAMED = {"clarabel": "Clarabel", "scs": "SCS"}
"""The solvers that diffcp calls."""


def solve_program(data: ConeData, solver: Solver, options: dict[str, Any], tolerance: float, name: str) -> Solved:
    """Solve a program, make the answer exact, and check it.

    Raises:
        NotConverged: infeasible, unbounded or not solved, with the solver's status.
    """
    x, y, s, status = _answer(data, solver, options)
    n, m = len(data.c), len(data.b)
    if x.shape != (n,) or y.shape != (m,) or s.shape != (m,):
        raise UsageError(
            f"the solver of a {name} must return x, y, s of shapes {(n,)}, {(m,)}, {(m,)}; found {x.shape}, {y.shape}, {s.shape}."
        )
    if all(np.isfinite(t).all() for t in (x, y, s)):
        found = refine(data, x, y, s)
        if found.residual > tolerance and not callable(solver):
            found = _in_units(data, solver, options, found)
        if found.residual <= tolerance:
            return found
        status = f"{status}; the residual is {found.residual:.1e} of its terms, more than {tolerance:.1e}"
    if solver == "interior point":
        status = f"interior point: {explain(data.P, data.c, *_split(data))}"
    raise NotConverged(f"the {name} was not solved ({status}): no solution, or none to differentiate.")


def _in_units(data: ConeData, solver: str, options: dict[str, Any], found: Solved) -> Solved:
    """Solve once more, in units in which the numbers of the program are of size 1; give the better answer."""
    units = Units.at(data.arrays, data.cones, np.zeros_like(data.c))
    x, y, s, _ = _answer(data.within(units), solver, options)
    if not all(np.isfinite(t).all() for t in (x, y, s)):
        return found
    return min(found, refine(data, *units.solution(x, y, s)), key=lambda one: one.residual)


def _split(data: ConeData) -> tuple[Floats, Floats, Floats, Floats]:
    """Give G, h, A, b."""
    k = data.cones.zero
    return data.A[k:], data.b[k:], data.A[:k], data.b[:k]


def _answer(data: ConeData, solver: Solver, options: dict[str, Any]) -> tuple[Floats, Floats, Floats, str]:
    """Ask a solver."""
    if callable(solver):
        found = solver(data.P.copy(), data.c.copy(), data.A.copy(), data.b.copy(), data.cones)
        x, y, s = (np.asarray(t, dtype=np.float64) for t in found)
        return x, y, s, "the solver that was passed"
    if solver == "interior point":
        x, dual, multipliers, slack = solve_quadratic(data.P, data.c, *_split(data))
        y, s = np.concatenate([dual, multipliers]), np.concatenate([np.zeros(len(dual)), slack])
        return x, y, s, solver
    return _diffcp(data, NAMED[solver], options)


def _diffcp(data: ConeData, method: str, options: dict[str, Any]) -> tuple[Floats, Floats, Floats, str]:
    """Solve by a conic solver, through diffcp."""
    try:
        from diffcp.cone_program import SolverError, solve_internal
    except ImportError as error:
        raise UsageError(
            f"solver={method.lower()!r} calls diffcp, which is not installed: pip install nonsmooth[cones], or pass "
            "solver=function(P, c, A, b, cones) -> (x, y, s)."
        ) from error
    P = sparse.csc_matrix(np.triu(data.P))
    if method == "Clarabel":
        options = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, **options}
    else:
        options = {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 100_000, **options}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that is not accurate is judged by its residual
            found = solve_internal(
                sparse.csc_matrix(data.A), data.b.copy(), data.c.copy(), data.cones.dimensions,
                solve_method=method, P=P, **options,
            )  # fmt: skip
    except SolverError as error:
        empty = np.full(1, np.nan)
        size = (len(data.c), len(data.b), len(data.b))
        return (*(np.repeat(empty, k) for k in size), f"{method}: {error}")  # type: ignore[return-value]
    x, y, s = (np.asarray(found[key], dtype=np.float64) for key in ("x", "y", "s"))
    status = str(found["info"]["status"])
    if "nfeasible" in status or "nbounded" in status:
        x = np.full_like(x, np.nan)
    return x, y, s, f"{method}: {status}"
