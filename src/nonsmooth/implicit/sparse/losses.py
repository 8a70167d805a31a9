"""Losses of linear predictions: those that a problem minimises, and those that are measured on held-out samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit

from nonsmooth.errors import UsageError
from nonsmooth.implicit.sparse.data import Vector

__all__ = ["HELD_OUT", "HeldOutLoss", "LogisticLoss", "SquareLoss", "read_held_out_loss"]

HeldOutLoss: TypeAlias = Callable[[Vector, Vector], tuple[float, Vector]]
"""loss(y, f) -> its value and its gradient in the predictions f."""


@dataclass(frozen=True)
class SquareLoss:
    """(y - f)^2 / 2 for a target y and a prediction f; its derivative has Lipschitz constant 1."""

    smoothness: float = 1.0
    quadratic: bool = True

    def values(self, y: Vector, f: Vector) -> Vector:
        """Give the loss of each sample."""
        return 0.5 * (y - f) ** 2

    def pull(self, y: Vector, f: Vector) -> Vector:
        """Give minus the derivative: the residuals, which are dual variables."""
        return y - f

    def curvature(self, y: Vector, f: Vector) -> Vector:
        """Give the second derivative."""
        return np.ones_like(f)

    def gap(self, y: Vector, f: Vector, c: float) -> float:
        """Give the mean of loss(f) + conjugate(-c pull) + c pull f, which is >= 0, without cancellation."""
        return float((1 - c) ** 2 * ((y - f) ** 2).mean() / 2)


@dataclass(frozen=True)
class LogisticLoss:
    """log(1 + exp(-y f)) for a label y of -1 or 1 and a prediction f; its derivative has Lipschitz constant 1/4."""

    smoothness: float = 0.25
    quadratic: bool = False

    def values(self, y: Vector, f: Vector) -> Vector:
        """Give the loss of each sample."""
        return np.logaddexp(0, -y * f)

    def pull(self, y: Vector, f: Vector) -> Vector:
        """Give minus the derivative."""
        return np.asarray(y * expit(-y * f))

    def curvature(self, y: Vector, f: Vector) -> Vector:
        """Give the second derivative."""
        return np.asarray(expit(f) * expit(-f))

    def gap(self, y: Vector, f: Vector, c: float) -> float:
        """Give the mean divergence of c t from t = 1 / (1 + exp(y f)), which is the gap of Fenchel's inequality."""
        if c <= 0:
            return float(self.values(y, f).mean())
        t, ratio = expit(-y * f), np.exp(np.clip(-y * f, None, 700))
        return float((c * t * np.log(c) + (1 - c * t) * np.log1p((1 - c) * ratio)).mean())


def mse(y: Vector, f: Vector) -> tuple[float, Vector]:
    """Give mean (y - f)^2."""
    return float(((y - f) ** 2).mean()), 2 * (f - y) / len(y)


def log_loss(y: Vector, f: Vector) -> tuple[float, Vector]:
    """Give mean log(1 + exp(-y f)), labels -1 and 1."""
    return float(np.logaddexp(0, -y * f).mean()), -y * expit(-y * f) / len(y)


def squared_hinge(y: Vector, f: Vector) -> tuple[float, Vector]:
    """Give mean max(0, 1 - y f)^2, labels -1 and 1; its derivative is continuous."""
    short = np.maximum(0, 1 - y * f)
    return float((short**2).mean()), -2 * y * short / len(y)


HELD_OUT: dict[str, HeldOutLoss] = {"mse": mse, "log_loss": log_loss, "squared_hinge": squared_hinge}
"""The losses that are known by name."""


def read_held_out_loss(loss: str | HeldOutLoss) -> HeldOutLoss:
    """Find a loss by its name, or take the user's own function and check what it gives."""
    if isinstance(loss, str):
        if loss not in HELD_OUT:
            raise UsageError(
                f"There is no held-out loss {loss!r}; choose one of {', '.join(HELD_OUT)}, or pass a function."
            )
        return HELD_OUT[loss]

    def checked(y: Vector, f: Vector) -> tuple[float, Vector]:
        found: Any = loss(y, f)
        try:
            value, slope = float(found[0]), np.asarray(found[1], dtype=np.float64)
        except (TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"The held-out loss must give (value, gradient in the predictions); found: {error}."
            ) from None
        if slope.shape != f.shape or not (np.isfinite(value) and np.isfinite(slope).all()):
            raise UsageError(
                f"The held-out loss gave {value} and a gradient of shape {slope.shape}; it must be finite, of shape {f.shape}."
            )
        return value, slope

    return checked
