"""INNA and INNAprop as their papers print them, in NumPy's float64: one loop, no thought for speed or memory.

INNA is (theta, psi) <- (theta, psi) - gamma (d + beta g, d), d = (alpha - 1/beta) theta + psi/beta, both from the old
values. INNAprop updates psi first and writes theta by the new psi, dividing by beta - gamma. The weights decay first, as
INNAprop's algorithm has it.

Source: Castera2021, BolteBoustanyPauwelsPurica2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["Gradient", "inna", "innaprop", "quadratic_map"]

Gradient = Callable[[int, np.ndarray], np.ndarray]
"""The gradient used at step k = 0, 1, ... at theta."""


def inna(
    theta: np.ndarray, gradient: Gradient, gammas: list[float], *, alpha: float, beta: float, weight_decay: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (theta, psi) after every step."""
    theta = np.array(theta, dtype=np.float64)
    psi = (1 - alpha * beta) * theta
    for k, gamma in enumerate(gammas):
        g = gradient(k, theta)
        theta = theta - gamma * weight_decay * theta
        d = (alpha - 1 / beta) * theta + (1 / beta) * psi
        theta, psi = theta - gamma * (d + beta * g), psi - gamma * d
        yield theta, psi


def innaprop(
    theta: np.ndarray,
    gradient: Gradient,
    gammas: list[float],
    *,
    alpha: float,
    beta: float,
    sigma: float,
    eps: float,
    weight_decay: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (theta, psi, v) after every step."""
    theta = np.array(theta, dtype=np.float64)
    psi = (1 - alpha * beta) * theta
    v = np.zeros_like(theta)
    for k, gamma in enumerate(gammas):
        g = gradient(k, theta)
        theta = (1 - weight_decay * gamma) * theta
        v = sigma * v + (1 - sigma) * g**2
        unbiased = v / (1 - sigma ** (k + 1))
        psi = (1 - gamma / beta) * psi + gamma * (1 / beta - alpha) * theta
        theta = (
            (1 + gamma * (1 - alpha * beta) / (beta - gamma)) * theta
            - gamma / (beta - gamma) * psi
            - gamma * beta * g / (np.sqrt(unbiased) + eps)
        )
        yield theta, psi, v


def quadratic_map(h: float, gamma: float, *, alpha: float, beta: float) -> np.ndarray:
    """Give the matrix of a step of INNA on h theta^2/2, acting on (theta, psi)."""
    a = np.array([[alpha - 1 / beta + beta * h, 1 / beta], [alpha - 1 / beta, 1 / beta]])
    return np.eye(2) - gamma * a
