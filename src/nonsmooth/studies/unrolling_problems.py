"""Iterations whose derivatives are followed: contractions, smooth and with kinks, and the heavy ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CURVATURES", "MILD", "MOMENTUM", "Contraction", "contractions", "kinked_heavy_ball"]

CURVATURES = (1.0, 0.25)
"""Of f(x) = x^2 / 2 for x >= 0 and x^2 / 8 below."""

MOMENTUM = 0.75
"""Of the heavy ball, whose step is 1."""

MILD = 0.5
"""A momentum at which the products do not grow."""

DRIFT = 0.9
"""The factor by which the kink comes nearer to the solution at each step."""


@dataclass(frozen=True, eq=False)
class Contraction:
    """A map T(y, t) with its parameters and its start; `kinks` says what happens at the solution.

    `rho` bounds the norm of the derivative in y everywhere; L_J is 0 where T is piecewise linear near the solution.
    """

    name: str
    text: str
    kinks: str
    T: Callable[..., Any]
    theta: Any
    start: Any
    rho: float
    piecewise_linear: bool


def contractions(seed: int, size: int) -> tuple[Contraction, ...]:
    """Give the three contractions; their matrices are drawn."""
    rng = np.random.default_rng(seed)
    return (_smooth(rng, size), _relu(rng, size), _lasso(rng, size))


def _tensor(values: Any) -> Any:
    """Make a tensor of double precision."""
    import torch

    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def _scaled(rng: np.random.Generator, size: int, rho: float) -> Any:
    """Draw a matrix of spectral norm rho."""
    M = rng.standard_normal((size, size))
    return rho * M / np.linalg.norm(M, 2)


def _smooth(rng: np.random.Generator, size: int) -> Contraction:
    """A layer of tanh."""
    import torch

    B, A = _tensor(_scaled(rng, size, 0.8)), _tensor(rng.standard_normal((size, 3)) / 2)
    return Contraction(
        "tanh", "y = tanh(B y + A t)", "none", lambda y, t: torch.tanh(B @ y + A @ t), _tensor(rng.standard_normal(3)),
        _tensor(np.zeros(size)), 0.8, False,
    )  # fmt: skip


def _relu(rng: np.random.Generator, size: int) -> Contraction:
    """A layer of relu whose solution lies on kinks: a third of its units are at 0, and y* = max(0, y* + kinks) is known."""
    import torch

    matrix, A = _scaled(rng, size, 0.8), rng.standard_normal((size, 3)) / 2
    solution = np.where(np.arange(size) % 3 == 0, 0.0, np.abs(rng.standard_normal(size)) + 0.2)
    t = rng.standard_normal(3)
    b = solution - matrix @ solution - A @ t
    Bx, Ax, bx = _tensor(matrix), _tensor(A), _tensor(b)
    return Contraction(
        "relu", "y = relu(B y + A t + b)", f"{len(range(0, size, 3))} units at 0", lambda y, t: torch.relu(Bx @ y + Ax @ t + bx),
        _tensor(t), _tensor(np.zeros(size)), 0.8, True,
    )  # fmt: skip


def _lasso(rng: np.random.Generator, size: int) -> Contraction:
    """Proximal gradient steps of the Lasso, by data and penalty: t = (log of the penalty, two factors of the data)."""
    import torch

    X = rng.standard_normal((4 * size, size))
    truth = np.where(np.arange(size) % 2 == 0, rng.standard_normal(size) * 2, 0.0)
    b = X @ truth + 0.3 * rng.standard_normal(4 * size)
    H = X.T @ X / len(X)
    values = np.linalg.eigvalsh(H)
    step = 1 / values[-1]
    Hx, cx, dx = _tensor(H), _tensor(X.T @ b / len(X)), _tensor(X.T @ rng.standard_normal(4 * size) / len(X))

    def T(y: Any, t: Any) -> Any:
        moved = y - step * (Hx @ y - cx - t[1] * dx)
        return torch.relu(moved - step * t[0].exp()) - torch.relu(-moved - step * t[0].exp())

    return Contraction(
        "Lasso", "y = soft(y - s grad, s l)", "none", T, _tensor([np.log(0.2), 0.1]),
        _tensor(np.zeros(size)), 1 - step * float(values[0]), True,
    )  # fmt: skip


def kinked_heavy_ball(momentum: float, drift: float = DRIFT) -> Callable[..., Any]:
    """Give the map of (x, previous x, e, f): the heavy ball on the gradient g(x + e) - g(e), g(u) = relu(u) - relu(-u) / 4.

    For every e it is the gradient of a strongly convex function that is least at 0, with its kink at x = -e. e turns by a
    quarter at every step, so that two steps are on each side, and tends to 0.
    """
    import torch

    def g(u: Any) -> Any:
        return torch.relu(u) * CURVATURES[0] - torch.relu(-u) * CURVATURES[1]

    def T(state: Any) -> Any:
        x, previous, e, f = state
        return x - (g(x + e) - g(e)) + momentum * (x - previous), x, drift * f, -drift * e

    return T
