"""A linear model at some coefficients: predictions, correlations, duality gap and residual of its penalised problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonsmooth.implicit.sparse.data import Vector, means
from nonsmooth.implicit.sparse.losses import LogisticLoss, SquareLoss

__all__ = ["State"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class State:
    """The objective mean loss + sum_j l1_j |z_j| + l2 |z|^2 / 2 at z, with the intercept that is best there.

    Attributes:
        loss: of a sample.
        X: the design, centred if there is an intercept.
        shift: what was subtracted from it.
        y: targets, or labels -1 and 1.
        z: coefficients.
        l1: shape (features,).
        l2: a number.
        f: the predictions.
        intercept: of the design as it was given.
        theta: minus the derivative of the loss at f.
        correlation: X' theta / n - l2 z.
        fit_intercept: whether there is an intercept.
    """

    loss: SquareLoss | LogisticLoss
    X: Vector
    shift: Vector
    y: Vector
    z: Vector
    l1: Vector
    l2: float
    f: Vector
    intercept: float
    theta: Vector
    correlation: Vector
    fit_intercept: bool

    @classmethod
    def at(
        cls,
        loss: SquareLoss | LogisticLoss,
        X: Vector,
        y: Vector,
        z: Vector,
        l1: Vector,
        l2: float,
        fit_intercept: bool,
    ) -> State:
        """Centre the design, and find the state at z."""
        shift = means(X) if fit_intercept else np.zeros(X.shape[1])
        blank = np.zeros(0)
        begun = cls(
            loss, X - shift if fit_intercept else X, shift, y, z, l1, l2, blank, 0.0, blank, blank, fit_intercept
        )
        return begun.moved(z)

    def moved(self, z: Vector, near: float = 0.0) -> State:
        """Give the state at other coefficients."""
        linear = self.X @ z
        level = self._level(linear, near) if self.fit_intercept else 0.0
        f = linear + level
        theta = self.loss.pull(self.y, f)
        correlation = self.X.T @ theta / len(self.y) - self.l2 * z
        intercept = level - float(self.shift @ z) if self.fit_intercept else 0.0
        return State(
            self.loss,
            self.X,
            self.shift,
            self.y,
            z,
            self.l1,
            self.l2,
            f,
            intercept,
            theta,
            correlation,
            self.fit_intercept,
        )

    def _level(self, linear: Vector, c: float) -> float:
        """Minimise the mean loss in the level of the predictions: Newton's method, kept inside a bracket."""
        if self.loss.quadratic:
            return float((self.y - linear).mean())
        low, high = -float(np.abs(linear).max()) - 50.0, float(np.abs(linear).max()) + 50.0
        for _ in range(200):
            slope = float(self.loss.pull(self.y, linear + c).mean())
            if abs(slope) <= EPS:
                return c
            low, high = (c, high) if slope > 0 else (low, c)
            curvature = float(self.loss.curvature(self.y, linear + c).mean())
            step = slope / curvature if curvature > 0 else np.inf
            new = c + step
            if not low < new < high:
                new = (low + high) / 2
            if abs(new - c) <= 2 * EPS * (1 + abs(c)):
                return new
            c = new
        return c

    @property
    def weights(self) -> Vector:
        """The second derivatives of the loss."""
        return self.loss.curvature(self.y, self.f)

    @property
    def mean(self) -> Vector:
        """The mean of the features, weighted by the second derivatives; 0 without an intercept."""
        if not self.fit_intercept:
            return np.zeros_like(self.z)
        return self.shift if self.loss.quadratic else self.shift + self._lean()

    def _lean(self) -> Vector:
        weights = self.weights
        return np.asarray(weights @ self.X / max(float(weights.sum()), 1e-300))

    def design(self) -> Vector:
        """Give A with H = A'A/n + l2 I: the design, centred and weighted by the roots of the second derivatives."""
        if self.loss.quadratic:
            return self.X
        lean = self._lean() if self.fit_intercept else 0.0
        return np.asarray(np.sqrt(self.weights)[:, None] * (self.X - lean))

    def objective(self) -> float:
        """Give the value of the objective."""
        penalty = self.l1 @ np.abs(self.z) + 0.5 * self.l2 * self.z @ self.z
        return float(self.loss.values(self.y, self.f).mean() + penalty)

    def residual(self) -> float:
        """Give the norm of the least element of the subdifferential."""
        excess = np.sign(self.correlation) * np.maximum(np.abs(self.correlation) - self.l1, 0)
        least = np.where(self.z != 0, self.correlation - self.l1 * np.sign(self.z), excess)
        level = 0.0 if self.loss.quadratic or not self.fit_intercept else self.theta.mean()  # a mean is exact
        return float(np.hypot(np.linalg.norm(least), level))

    def gap(self) -> float:
        """Give the duality gap at the dual point c (theta, l2 z), c <= 1 the largest factor that makes it feasible.

            gap = gap of the losses + (1 - c)^2 l2 |z|^2 / 2 + sum_j (l1_j |z_j| - c z_j correlation_j)

        A bound of its rounding is added, and what the mean of theta, which ought to be 0, can cost.
        """
        sizes = np.abs(self.correlation)
        over = sizes > self.l1
        c = float(min(1.0, (self.l1[over] / sizes[over]).min())) if over.any() else 1.0
        pairs = self.l1 * np.abs(self.z)
        penalty = float((pairs - c * self.z * self.correlation).sum())
        level = (
            float(self.theta.mean()) ** 2 / max(2 * float(self.weights.mean()), 1e-300) if self.fit_intercept else 0.0
        )
        rounding = 4 * EPS * float(pairs.sum()) + level
        return (
            self.loss.gap(self.y, self.f, c) + (1 - c) ** 2 * self.l2 * float(self.z @ self.z) / 2 + penalty + rounding
        )
