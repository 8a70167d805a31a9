"""Solutions of sparse models and their derivatives, written down naively: dense prox-gradient equations, enumeration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def lasso_by_iteration(X: Vector, y: Vector, l1: Vector, l2: float, steps: int = 200_000) -> Vector:
    """Iterate the proximal gradient step until it moves no more; no intercept."""
    n = len(y)
    t = 1 / (np.linalg.norm(X, 2) ** 2 / n + l2)
    b = np.zeros(X.shape[1])
    for _ in range(steps):
        v = b - t * (X.T @ (X @ b - y) / n + l2 * b)
        new = np.sign(v) * np.maximum(np.abs(v) - t * l1, 0)
        if np.abs(new - b).max() <= 1e-16 * (1 + np.abs(b).max()):
            return new
        b = new
    return b


def implicit_derivative(X: Vector, y: Vector, l1: float, l2: float, b: Vector, kinked: float) -> tuple[Vector, Vector]:
    """Solve (I - D (I - t H)) db = -t D sign dl1 densely, with D = `kinked` where |v| = t l1: give B and db/dl1.

    H is the Hessian of the smooth part, v = b - t grad; D is the derivative of the soft threshold at v.
    """
    n, k = X.shape
    H = X.T @ X / n + l2 * np.eye(k)
    t = 1 / np.linalg.norm(H, 2)
    v = b - t * (X.T @ (X @ b - y) / n + l2 * b)
    distance = np.abs(v) - t * l1
    D = np.diag(np.where(np.abs(distance) < 1e-9, kinked, (distance > 0).astype(float)))
    B = np.eye(k) - D @ (np.eye(k) - t * H)
    return B, np.linalg.solve(B, -t * D @ np.sign(v))


def centred(X: Vector, y: Vector) -> tuple[Vector, Vector]:
    """Eliminate the intercept of a problem of least squares."""
    return X - X.mean(0), y - y.mean()


def one_sided(f: Callable[[float], Vector], x: float, h: float) -> tuple[Vector, Vector]:
    """Give the left and the right difference quotient."""
    return (f(x) - f(x - h)) / h, (f(x + h) - f(x)) / h


def hinge_by_bisection(X: Vector, y: Vector, C: float) -> Vector:
    """Minimise |w|^2/2 + C sum max(0, 1 - y_i w x_i) for one feature by bisection on its monotone subdifferential."""
    low, high = -C * np.abs(X).sum() - 1, C * np.abs(X).sum() + 1
    for _ in range(200):
        w = (low + high) / 2
        slope = w - C * (y * X[:, 0])[y * X[:, 0] * w < 1].sum()
        low, high = (low, w) if slope > 0 else (w, high)
    return np.array([(low + high) / 2])
