"""Proximal Newton steps for penalised models, and Newton's method on the coordinates that move.

Source: LeeSunSaunders2014.
"""

from __future__ import annotations

import numpy as np

from nonsmooth.implicit.sparse.coordinate_descent import least_squares
from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.normal_equations import solve_once
from nonsmooth.implicit.sparse.problem import Solver
from nonsmooth.implicit.sparse.state import State

__all__ = ["polish", "proximal_newton"]

EPS = float(np.finfo(np.float64).eps)

STEPS = 100
"""At most so many proximal Newton steps: they converge quadratically."""

PATIENCE = 3
"""How many steps in a row may leave the residual larger."""


def proximal_newton(state: State, solver: Solver, reference: float) -> Vector:
    """Minimise by quadratic models, each of them a weighted Lasso that coordinate descent solves, with a line search.

    Source: LeeSunSaunders2014.
    """
    value, wanted = state.objective(), 0.1 * solver.tolerance * reference
    for _ in range(min(STEPS, solver.iterations)):
        gap = state.gap()
        if gap <= wanted:
            break
        A = state.design()
        roots = np.sqrt(np.maximum(state.weights, 1e-300))
        response = A @ state.z + state.theta / roots
        target = least_squares(A, response, state.l1, state.l2, state.z, solver, max(0.01 * gap, 0.1 * wanted))
        step, new = 1.0, state
        while step > 1e-10:
            new = state.moved(state.z + step * (target - state.z), _level(state))
            if new.objective() < value:
                break
            step /= 2
        else:
            break
        state, value = new, new.objective()
    return state.z


def _level(state: State) -> float:
    """Give the level of the predictions."""
    return state.intercept + float(state.shift @ state.z)


def polish(state: State, steps: int = 30) -> State:
    """Finish a solution by semismooth Newton steps, as long as one in three makes the residual smaller.

        H_SS d = correlation_S - l1_S sign_S,   S = { j : z_j != 0, or |correlation_j| > l1_j }

    A coordinate whose sign would change rests. Where H_SS is singular the state stays as it is.
    """
    best, least, current, waited = state, state.residual(), state, 0
    rounding = 4 * EPS * float((np.abs(state.X).T @ np.abs(state.theta)).max(initial=0.0)) / len(state.y)
    for _ in range(steps):
        new = _newton_step(current) if least > rounding else None
        if new is None:
            break
        current, residual = new, new.residual()
        waited = 0 if residual < least else waited + 1
        if waited == 0:
            best, least = new, residual
        if waited == PATIENCE:
            break
    return best


def _newton_step(state: State) -> State | None:
    """Make one step; None where it is not defined, or climbs: a model that is not quadratic holds nearby only."""
    rounding = 1e-13 * state.l1
    S = np.flatnonzero((state.z != 0) | (np.abs(state.correlation) > state.l1 + rounding))
    signs = np.where(state.z != 0, np.sign(state.z), np.sign(state.correlation))[S]
    step = solve_once(state.design()[:, S], float(len(state.y)), state.l2, state.correlation[S] - state.l1[S] * signs)
    if step is None:
        return None
    z = np.zeros_like(state.z)
    moved = state.z[S] + step
    z[S] = np.where(moved * signs > 0, moved, 0.0)
    new = state.moved(z, _level(state))
    climbs = not state.loss.quadratic and not new.objective() <= state.objective() * (1 + 1e-12)
    return None if climbs else new
