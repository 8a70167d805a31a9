"""Objectives f and regularisations r of f(psi(w)) + r(w), as functions of arrays of any framework, with their exact constants.

Predictions y are an array (m, q) or (m,): m samples. Unless it says otherwise an objective is the mean over the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike

from nonsmooth.errors import UsageError

__all__ = [
    "Objective",
    "binary_logistic",
    "convex_clustering",
    "huber",
    "k_means",
    "log_sum_exp",
    "logistic",
    "low_rank",
    "smoothed_hinge",
    "soft_k_means",
    "square",
    "squared_l2",
]

Constant = Callable[[float], float]


@dataclass(frozen=True)
class Objective:
    """A function f of predictions (or weights) with its constants on the ball of a radius about 0.

        |f(y) - f(z)| <= lipschitz(R) ||y - z||,   ||grad f(y) - grad f(z)|| <= smoothness(R) ||y - z||   for ||y||, ||z|| <= R

    Call it like f. `lipschitz(inf)` is that of the whole space.

    >>> loss = square([[1.0], [2.0]])
    >>> float(loss(np.array([[1.0], [0.0]]))), round(loss.lipschitz(1.0), 6), loss.smoothness(1.0)
    (1.0, 1.618034, 0.5)
    """

    name: str
    f: Callable[[Any], Any]
    lipschitz: Constant
    smoothness: Constant
    source: str

    def __call__(self, y: Any) -> Any:
        """Evaluate f."""
        return self.f(y)


def _like(y: Any, value: np.ndarray) -> Any:
    """Give data as an array of the framework and the format of y."""
    return array_namespace(y).asarray(value, dtype=y.dtype)


def _samples(target: np.ndarray) -> int:
    """Count the samples."""
    return max(target.shape[0] if target.ndim else 1, 1)


def _positive(name: str, what: str, value: float) -> None:
    """Refuse a number that is not positive."""
    if not value > 0:
        raise UsageError(f"{name}: {what} must be positive, got {value}.")


def _signs(name: str, target: ArrayLike) -> np.ndarray:
    """Read targets -1 and 1."""
    t = np.asarray(target, float)
    if not np.all(np.abs(t) == 1):
        raise UsageError(f"{name}: targets must be -1 or 1, found {np.unique(t[np.abs(t) != 1])[:3].tolist()}.")
    return t


# --- supervised -------------------------------------------------------------------------------------------------------


def square(target: ArrayLike) -> Objective:
    """Give |y - t|^2 / (2 m): l = (R + |t|)/m, L = 1/m, both attained.

    >>> square([0.0, 3.0, 4.0]).lipschitz(1.0)
    2.0

    Source: derived, docs/theory/bounds_constants.md.
    """
    t = np.asarray(target, float)
    m, norm = _samples(t), float(np.linalg.norm(t))

    def f(y: Any) -> Any:
        d = y - _like(y, t)
        return array_namespace(y).sum(d * d) / (2 * m)

    return Objective("square", f, lambda r: (r + norm) / m, lambda r: 1 / m, "bounds_constants")


def binary_logistic(target: ArrayLike) -> Objective:
    """Give the mean of log(1 + exp(-t y)), t = -1 or 1, y one number a sample: l = 1/sqrt(m), L = 1/(4 m).

    Both are attained, l in the limit of large y; on a ball it is at most 1/(2 sqrt(m)) + R/(4 m), an upper bound.

    Raises:
        UsageError: a target is neither -1 nor 1.

    >>> loss = binary_logistic([1.0, -1.0, 1.0, 1.0])
    >>> loss.lipschitz(inf), loss.smoothness(inf)
    (0.5, 0.0625)

    Source: derived, docs/theory/bounds_constants.md.
    """
    t = _signs("binary_logistic", target)
    m = max(t.size, 1)

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        z = -y * _like(y, t)
        return xp.sum(xp.log1p(xp.exp(-xp.abs(z))) + (z + xp.abs(z)) / 2) / m

    def lipschitz(radius: float) -> float:
        return _mean_slope(radius, m)

    return Objective("binary_logistic", f, lipschitz, lambda r: 0.25 / m, "bounds_constants")


def _mean_slope(radius: float, m: int) -> float:
    """Bound |(s(z_i))_i| / m for |z| <= R: 1/sqrt(m), and by s(z) <= 1/2 + z/4 for z >= 0: 1/(2 sqrt(m)) + R/(4 m)."""
    return min(1 / sqrt(m), 0.5 / sqrt(m) + (0.0 if radius == 0 else radius) / (4 * m))


def logistic(target: ArrayLike) -> Objective:
    """Give the mean of logsumexp(y) - <t, y> for samples of q numbers, t one class each (numbers): l = sqrt(2/m), L = 1/(2 m).

    Both are attained, l in the limit of large y; on a ball of radius R it is at most 1/sqrt(m) + R/(2 m).

    >>> loss = logistic([0, 2])
    >>> loss.lipschitz(inf), loss.smoothness(inf)
    (1.0, 0.25)

    Source: derived, docs/theory/bounds_constants.md (RouletHarchaoui2019 prints 2 and 2 a sample).
    """
    classes = np.asarray(target)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise UsageError(f"logistic: targets must be one whole number a sample, found {classes.dtype} {classes.shape}.")
    m = max(classes.size, 1)

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        top = xp.max(y, axis=1, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(y - top), axis=1)) + top[:, 0]
        one_hot = _like(y, np.eye(y.shape[1])[classes])
        return xp.sum(log_sum - xp.sum(y * one_hot, axis=1)) / m

    def lipschitz(radius: float) -> float:
        return min(sqrt(2 / m), 1 / sqrt(m) + radius / (2 * m))

    return Objective("logistic", f, lipschitz, lambda r: 0.5 / m, "bounds_constants")


def smoothed_hinge(target: ArrayLike, width: float = 1.0) -> Objective:
    """Give the mean of h(t y), t = -1 or 1: 0 from 1 on, (1 - z)^2 / (2 width) before, straight below 1 - width.

    l = 1/sqrt(m), L = 1/(width m), both attained; on small balls l is at most (1 + R/sqrt(m))/(width sqrt(m)).

    >>> smoothed_hinge([1.0], 0.5).smoothness(1.0)
    2.0

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("smoothed_hinge", "the width", width)
    t = _signs("smoothed_hinge", target)
    m = max(t.size, 1)

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        gap = 1 - y * _like(y, t)
        gap = xp.where(gap > 0, gap, xp.zeros_like(gap))
        return xp.sum(xp.where(gap < width, gap * gap / (2 * width), gap - width / 2)) / m

    def lipschitz(radius: float) -> float:
        return min(1 / sqrt(m), (1 + radius / sqrt(m)) / (width * sqrt(m)))

    return Objective("smoothed_hinge", f, lipschitz, lambda r: 1 / (width * m), "bounds_constants")


def huber(target: ArrayLike, delta: float = 1.0) -> Objective:
    """Give sum of h(y - t) / m, h(d) = d^2/2 up to delta, delta (|d| - delta/2) beyond: l = min(delta sqrt(n), R + |t|)/m, L = 1/m.

    n is the number of entries; both are attained.

    >>> huber([0.0, 0.0], 0.5).lipschitz(inf) == 0.5 * sqrt(2) / 2
    True

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("huber", "delta", delta)
    t = np.asarray(target, float)
    m, norm = _samples(t), float(np.linalg.norm(t))

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        d = xp.abs(y - _like(y, t))
        return xp.sum(xp.where(d < delta, d * d / 2, delta * (d - delta / 2))) / m

    return Objective("huber", f, lambda r: min(delta * sqrt(t.size), r + norm) / m, lambda r: 1 / m, "bounds_constants")


# --- unsupervised -----------------------------------------------------------------------------------------------------


def _squared_distances(y: Any, centers: np.ndarray) -> Any:
    """Give |y_i - c_k|^2, (m, k)."""
    d = y[:, None, :] - _like(y, centers)[None, :, :]
    return array_namespace(y).sum(d * d, axis=2)


def _centers(name: str, centers: ArrayLike) -> np.ndarray:
    """Read centers, rows of a matrix."""
    c = np.asarray(centers, float)
    if c.ndim != 2 or not c.size:
        raise UsageError(f"{name}: centers must be the rows of a matrix (k, q), found an array {c.shape}.")
    return c


def k_means(centers: ArrayLike, samples: int) -> Objective:
    """Give the mean of min_k |y_i - c_k|^2 / 2 for m samples: l = (R + sqrt(m) min |c_k|)/m; L = 1/m for one center, else infinite.

    L is infinite at points as far from two centers; l is attained for one center, otherwise an upper bound.

    >>> k_means([[0.0, 1.0], [2.0, 0.0]], 4).lipschitz(2.0)
    1.0

    Source: derived, docs/theory/bounds_constants.md.
    """
    c = _centers("k_means", centers)
    nearest, m = float(np.min(np.linalg.norm(c, axis=1))), samples
    curved = 1 / m if len(np.unique(c, axis=0)) == 1 else inf

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        return xp.sum(xp.min(_squared_distances(y, c), axis=1)) / (2 * m)

    return Objective("k_means", f, lambda r: (r + sqrt(m) * nearest) / m, lambda r: curved, "bounds_constants")


def soft_k_means(centers: ArrayLike, samples: int, temperature: float = 1.0) -> Objective:
    """Give the mean of -T log sum_k exp(-|y_i - c_k|^2 / (2 T)), k-means up to T log k.

        l = (R + sqrt(m) max |c_k|)/m,    L = max(1, D^2/(4 T) - 1)/m,    D the largest distance of two centers

    since its Hessian is I - Cov_p(c)/T. L is attained for two centers, and, where it is 1/m, in the limit of far points;
    otherwise an upper bound.

    >>> soft_k_means([[-2.0], [2.0]], 1, temperature=1.0).smoothness(1.0)
    3.0

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("soft_k_means", "the temperature", temperature)
    c = _centers("soft_k_means", centers)
    m, farthest = samples, float(np.max(np.linalg.norm(c, axis=1)))
    width = float(np.max(np.linalg.norm(c[:, None] - c[None], axis=2)))

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        z = -_squared_distances(y, c) / (2 * temperature)
        top = xp.max(z, axis=1, keepdims=True)
        return -temperature * xp.sum(xp.log(xp.sum(xp.exp(z - top), axis=1)) + top[:, 0]) / m

    curved = max(1.0, width**2 / (4 * temperature) - 1) / m
    return Objective("soft_k_means", f, lambda r: (r + sqrt(m) * farthest) / m, lambda r: curved, "bounds_constants")


def convex_clustering(samples: int, features: int, weight: float = 1.0, steps: int = 500) -> Objective:
    """Give min_z |y - z|^2 / 2 + weight sum_{i<j} |z_i - z_j|, the Moreau envelope of a sum of distances (a sum, no mean).

        l = min(R, weight m sqrt((m - 1)/2)),  with one feature min(R, weight sqrt(m (m^2 - 1)/3)),    L = 1

    The second part is attained by regular simplices (features >= m - 1), on a line by equidistant points. The value is that
    of the dual problem after `steps` of projected gradient: a lower bound that grows with them.

    >>> loss = convex_clustering(2, 1, weight=1.0)
    >>> round(float(loss(np.array([[0.0], [4.0]]))), 6), round(loss.lipschitz(10.0), 6), loss.smoothness(1.0)
    (3.0, 1.414214, 1.0)

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("convex_clustering", "the weight", weight)
    m = samples
    one, two = np.triu_indices(m, 1)
    difference = np.eye(m)[one] - np.eye(m)[two]
    steep = weight * (sqrt(m * (m * m - 1) / 3) if features == 1 else m * sqrt((m - 1) / 2))

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        a = _like(y, difference)
        u = xp.zeros_like(a @ y)
        for _ in range(steps if m > 1 else 0):
            u = u + (a @ (y - a.T @ u)) / m
            length = xp.sqrt(xp.sum(u * u, axis=1, keepdims=True) + 1e-300)
            u = xp.where(length > weight, u * (weight / length), u)
        rest = y - a.T @ u
        return (xp.sum(y * y) - xp.sum(rest * rest)) / 2

    return Objective(
        "convex_clustering", f, lambda r: min(r, steep), lambda r: 1.0 if m > 1 else 0.0, "bounds_constants"
    )


def low_rank(samples: int, features: int, rank: int) -> Objective:
    """Give the error of principal components, min over Z of rank k of |Y - Z|^2 / (2 m): half the sum of the other squared
    singular values.

        l = R sqrt((r - k)/r) / m, r = min(m, q), attained where all singular values agree;    L is infinite (0 if k >= r)

    >>> low_rank(4, 4, 3).lipschitz(2.0), low_rank(4, 2, 2).smoothness(1.0)
    (0.25, 0.0)

    Source: derived, docs/theory/bounds_constants.md.
    """
    r = min(samples, features)

    def f(y: Any) -> Any:
        xp = array_namespace(y)
        values = xp.linalg.svd(y, full_matrices=False)[1]
        return xp.sum(values[rank:] * values[rank:]) / (2 * samples)

    share = sqrt(max(r - rank, 0) / r) if r else 0.0
    curved = 0.0 if rank >= r else (1 / samples if rank == 0 else inf)
    return Objective(
        "low_rank", f, lambda radius: radius * share / samples if share else 0.0, lambda _: curved, "bounds_constants"
    )


# --- regularisations --------------------------------------------------------------------------------------------------


def squared_l2(weight: float = 1.0) -> Objective:
    """Give weight |w|^2 / 2: l = weight R, L = weight, both attained.

    >>> squared_l2(0.1).lipschitz(3.0), squared_l2(0.1).smoothness(3.0)
    (0.30000000000000004, 0.1)

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("squared_l2", "the weight", weight)
    return Objective(
        "squared_l2",
        lambda w: array_namespace(w).sum(w * w) * (weight / 2),
        lambda r: weight * r,
        lambda r: weight,
        "bounds_constants",
    )


def log_sum_exp(temperature: float = 1.0) -> Objective:
    """Give T log sum_i exp(w_i / T), the maximum up to T log n: l = 1, L = 1/(2 T), both attained in the limit.

    >>> log_sum_exp(0.5).smoothness(1.0)
    1.0

    Source: derived, docs/theory/bounds_constants.md.
    """
    _positive("log_sum_exp", "the temperature", temperature)

    def f(w: Any) -> Any:
        xp = array_namespace(w)
        z = w / temperature
        top = xp.max(z)
        return temperature * (xp.log(xp.sum(xp.exp(z - top))) + top)

    return Objective("log_sum_exp", f, lambda r: 1.0, lambda r: 1 / (2 * temperature), "bounds_constants")
