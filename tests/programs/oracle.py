"""Oracles that know no theory: gradients next to a point, by the framework, and one-sided difference quotients.

None of them uses the library. Each gives an estimate of its own error, and says so where it has not settled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.adapters import adapter_of

__all__ = ["Estimate", "gradient_at", "gradient_near", "gradients_around", "is_limit", "one_sided"]

Array = Any
Function = Callable[[Array], Array]

STEPS = (1e-7, 1e-6, 1e-5, 1e-4)
QUOTIENT_STEPS = tuple(2.0**-k for k in (18, 15, 12, 9, 6))
SETTLED = 1e-4


class Estimate(NamedTuple):
    """A limit, with an estimate of the error."""

    value: Array
    error: float

    def agrees(self, other: Array) -> bool:
        """Tell whether a value is the limit, up to the error."""
        return bool(abs(self.value - other).max() <= self.error)


def gradient_at(f: Function, x: Array) -> Array:
    """Give the framework's own gradient; central differences where that is no number (hypot of two constant zeros)."""
    xp = adapter_of(x)
    gradient = xp.gradient(f, x)
    if np.isfinite(xp.numpy(gradient)).all():
        return gradient
    with xp.evaluating():
        units = xp.same(1e-9 * np.eye(len(x)), x)
        return xp.stack([(f(x + u) - f(x - u)) / 2e-9 for u in units])


def gradient_near(f: Function, x: Array, v: Array) -> Estimate | None:
    """Give the limit of gradients at x + t v as t > 0 tends to 0, or None where extrapolations do not agree.

    At a point without an active kink the framework's gradient is the gradient. That x + t v is one, is seen by the
    gradients at points around it (`gradients_around`).
    """
    found = [gradient_at(f, x + t * v) for t in STEPS]
    scale = 1 + max(float(abs(g).max()) for g in found[:2])
    limits = [near - (far - near) / 9 for near, far in itertools.pairwise(found)]
    for (near, far), here, there in zip(itertools.pairwise(found), limits, limits[1:], strict=False):
        if float(abs(here - there).max()) <= SETTLED * scale and float(abs(near - far).max()) <= 0.01 * scale:
            return Estimate(here, 2 * float(abs(here - there).max()) + 1e-7 * scale)
    return None


def gradients_around(f: Function, x: Array, v: Array, count: int, seed: int = 0) -> list[Array]:
    """Sample gradients at x + t (v + small random vectors), t small."""
    noise = np.random.default_rng(seed).standard_normal((count, *x.shape))
    xp = adapter_of(x)
    return [gradient_at(f, x + 1e-6 * (v + 1e-3 * xp.same(u, x))) for u in noise]


def is_limit(f: Function, x: Array, v: Array, gradient: Array, count: int = 40) -> bool:
    """Tell whether a vector is a limit of gradients next to the ray from x along v.

    The gradients at x + t v decide where they are those of an open set; where gradients differ around that ray, one of
    them must be the vector.
    """
    near = gradient_near(f, x, v)
    if near is not None and near.agrees(gradient):
        return True
    scale = 1 + float(abs(gradient).max())
    return any(float(abs(g - gradient).max()) <= 2e-4 * scale for g in gradients_around(f, x, v, count))


def one_sided(f: Function, x: Array, v: Array) -> Estimate | None:
    """Give F'(x; v) = lim (F(x + t v) - F(x)) / t, extrapolated, or None where it has not settled."""
    with adapter_of(x).evaluating():
        start = f(x)
        quotient = {}
        for t in QUOTIENT_STEPS:
            a, b, c = ((f(x + s * v) - start) / s for s in (t, t / 2, t / 4))
            quotient[t] = (a - 6 * b + 8 * c) / 3
    scale = 1 + float(abs(start).max()) + max(float(abs(q).max()) for q in quotient.values())
    for near, far in itertools.pairwise(QUOTIENT_STEPS):
        change = float(abs(quotient[near] - quotient[far]).max())
        if change <= SETTLED * scale:
            return Estimate(quotient[near], change + 1e-8 * scale)
    return None
