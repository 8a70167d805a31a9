"""Flows of piecewise linear equations by matrix exponentials: y' = A y + b + sum_j g_j max(c_j' y + d_j, 0).

On a piece the equation is linear, y' = M y + m, and with the state (y, 1) its solution is an exponential. The crossings
are found on a fine grid, each by bisection. f is continuous, so that the derivative of the flow is the product of the
exponentials of the pieces.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import expm


class PiecewiseLinear(NamedTuple):
    """A n x n, b n, G n x k, C k x n, d k."""

    A: Any
    b: Any
    G: Any
    C: Any
    d: Any

    def field(self, y: Any) -> Any:
        return self.A @ y + self.b + self.G @ np.maximum(self.C @ y + self.d, 0)


def lifted(f: PiecewiseLinear, active: Any) -> Any:
    """Give the matrix of (y, 1)' on the piece where these units are active."""
    n = len(f.b)
    M = np.zeros((n + 1, n + 1))
    on = active.astype(float)
    M[:n, :n], M[:n, n] = f.A + f.G * on @ f.C, f.b + f.G @ (on * f.d)
    return M


def flow(f: PiecewiseLinear, y0: Any, T: float, grid: int = 4000) -> tuple[Any, Any, list[float]]:
    """Give y(T), dy(T)/dy0 and the times of the crossings."""
    n, t, h = len(y0), 0.0, T / grid
    state, derivative, crossings = np.append(y0, 1.0), np.eye(n + 1), []
    active = f.C @ y0 + f.d > 0
    tied = f.C @ y0 + f.d == 0
    active = np.where(tied, f.C @ f.field(y0) > 0, active)
    while t < T - 1e-15:
        M, step = lifted(f, active), min(h, T - t)
        E = expm(step * M)
        after = f.C @ (E @ state)[:n] + f.d
        wrong = np.where(active, after < -1e-13, after > 1e-13)
        if wrong.any():
            low, high = 0.0, step
            for _ in range(60):
                middle = (low + high) / 2
                values = f.C @ (expm(middle * M) @ state)[:n] + f.d
                if np.where(active, values < 0, values > 0)[wrong].any():
                    high = middle
                else:
                    low = middle
            values = f.C @ (expm(high * M) @ state)[:n] + f.d
            first = np.flatnonzero(wrong)[np.argmin(np.abs(values[wrong]))]
            E, step = expm(high * M), high
            active = active.copy()
            active[first] = not active[first]
            crossings.append(t + high)
        state, derivative, t = E @ state, E @ derivative, t + step
    return state[:n], derivative[:n, :n], crossings


def random_equation(seed: int, n: int = 3, k: int = 4) -> tuple[PiecewiseLinear, Any]:
    """Draw an equation and a start."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((n, n)) / np.sqrt(n) - 0.5 * np.eye(n), rng.standard_normal(n)
    G, C, d = rng.standard_normal((n, k)) / np.sqrt(k), rng.standard_normal((k, n)), 0.5 * rng.standard_normal(k)
    return PiecewiseLinear(A, b, G, C, d), rng.standard_normal(n)


def contact(stiffness: float, gravity: float = 1.0) -> PiecewiseLinear:
    """Give a mass that falls on a spring: x'' = -g + k max(-x, 0)."""
    return PiecewiseLinear(
        np.array([[0.0, 1.0], [0.0, 0.0]]),
        np.array([0.0, -gravity]),
        np.array([[0.0], [stiffness]]),
        np.array([[-1.0, 0.0]]),
        np.zeros(1),
    )


def stick_slip(eps: float, belt: float = 0.5, friction: float = 1.0) -> PiecewiseLinear:
    """Give an oscillator on a belt: x'' = -x + mu clamp((v_belt - x') / eps, -1, 1), the clamp as two ramps."""
    return PiecewiseLinear(
        np.array([[0.0, 1.0], [-1.0, 0.0]]),
        np.array([0.0, -friction]),
        np.array([[0.0, 0.0], [friction / eps, -friction / eps]]),
        np.array([[0.0, -1.0], [0.0, -1.0]]),
        np.array([belt + eps, belt - eps]),
    )
