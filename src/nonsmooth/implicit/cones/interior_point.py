"""A primal-dual interior-point method for dense convex quadratic programs: what serves where no conic solver is installed.

    minimise x'P x/2 + q'x  subject to  A x = b,  G x <= h

Mehrotra's predictor and corrector; the answer is made exact by Newton's method afterwards (`program.refine`).

Source: Mehrotra1992.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, lu_factor, lu_solve
from scipy.optimize import linprog

from nonsmooth.dictionary.weights import Floats

__all__ = ["explain", "solve_quadratic"]

ITERATIONS = 200
"""The most iterations."""

GOAL = 1e-13
"""The iteration ends when residuals and complementarity are so small, relative to their terms."""


def solve_quadratic(
    P: Floats, q: Floats, G: Floats, h: Floats, A: Floats, b: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Give x, the multipliers of the equations and of the inequalities, and the slack; the best that was met.

    Source: Mehrotra1992.
    """
    n, p, m = len(q), len(b), len(h)
    x, y, z, s = np.zeros(n), np.zeros(p), np.ones(m), np.ones(m)
    if m:
        x, y = _start(P, q, G, h, A, b)
        s = np.maximum(h - G @ x, 1.0)
    best = (np.inf, x, y, z, s)
    sizes = [1.0 + float(np.abs(t).max(initial=0.0)) for t in (q, b, h)]
    for _ in range(ITERATIONS):
        dual, equal, slack = P @ x + q + G.T @ z + A.T @ y, A @ x - b, G @ x + s - h
        mu = float(s @ z) / max(m, 1)
        error = max(
            *(float(np.abs(r).max(initial=0.0)) / t for r, t in zip((dual, equal, slack), sizes, strict=True)), mu
        )
        if not np.isfinite(error) or error > 1e12 or (m and mu <= 0):
            break
        if error < best[0]:
            best = (error, x, y, z, s)
        if error <= GOAL:
            break
        try:
            with np.errstate(all="ignore"):
                factor = lu_factor(_matrix(P, G, A, z / s), check_finite=True)
                affine = _direction(factor, G, dual, equal, slack, s * z, s, z)
                length = min(_length(s, affine[3]), _length(z, affine[2]))
                target = (
                    mu * (float((s + length * affine[3]) @ (z + length * affine[2])) / max(m, 1) / mu) ** 3
                    if m
                    else 0.0
                )
                step = _direction(factor, G, dual, equal, slack, s * z + affine[3] * affine[2] - target, s, z)
        except (LinAlgError, ValueError):
            break
        length = min(1.0, 0.995 * min(_length(s, step[3], np.inf), _length(z, step[2], np.inf)))
        x, y, z, s = (old + length * new for old, new in zip((x, y, z, s), step, strict=True))
    return best[1:]


def _start(P: Floats, q: Floats, G: Floats, h: Floats, A: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Give the minimiser of the objective plus |G x - h|^2/2 subject to the equations."""
    matrix = _matrix(P, G, A, np.ones(len(h)))
    found = np.linalg.lstsq(matrix, np.concatenate([G.T @ h - q, b]))[0]
    return found[: len(q)], found[len(q) :]


def _matrix(P: Floats, G: Floats, A: Floats, weights: Floats) -> Floats:
    """Give the matrix of a step, regularised at the level of rounding."""
    n, p = len(P), len(A)
    top = P + (G.T * weights) @ G
    small = 1e-14 * (1.0 + float(np.abs(top).max(initial=0.0)))
    return np.block([[top + small * np.eye(n), A.T], [A, -1e-14 * np.eye(p)]])


def _direction(
    factor: object, G: Floats, dual: Floats, equal: Floats, slack: Floats, complementarity: Floats, s: Floats, z: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Solve for the step in x, y, z, s."""
    n = len(dual)
    right = np.concatenate([-dual - G.T @ ((z * slack - complementarity) / s), -equal])
    found = lu_solve(factor, right)
    dx, dy = found[:n], found[n:]
    ds = -slack - G @ dx
    return dx, dy, (-complementarity - z * ds) / s, ds


def _length(value: Floats, step: Floats, most: float = 1.0) -> float:
    """Give how far a positive vector can go along a step."""
    shrinking = step < 0
    with np.errstate(over="ignore"):
        return min(most, float(np.min(-value[shrinking] / step[shrinking], initial=np.inf)))


def explain(P: Floats, q: Floats, G: Floats, h: Floats, A: Floats, b: Floats) -> str:
    """Say why a quadratic program has no solution: by linear programs that look for a point, or for a ray of descent."""
    n = len(q)
    point = linprog(np.zeros(n), G, h, A, b, bounds=(None, None))
    if point.status == 2:
        return "infeasible: no x satisfies the constraints"
    ray = linprog(q, G, 0 * h, np.vstack([A, P]), np.zeros(len(b) + n), bounds=(-1, 1))
    if ray.status == 0 and ray.fun < -1e-9 * (1.0 + float(np.abs(q).max(initial=0.0))):
        return "unbounded: the objective falls forever along a ray"
    return "feasible and bounded, but the iteration did not end"
