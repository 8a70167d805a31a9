"""Random nonsmooth programs in (y, x), written twice: for a framework, and in numpy with the weights of all kinks given.

The numpy transcription carries values and Jacobians forward and asks for a weight at every kink that is exactly active, so
that all elements that programs of this form have at a point can be listed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Pair = tuple[Floats, Floats]

SLOPES: dict[str, tuple[float, float]] = {
    "relu": (0.0, 1.0),
    "abs": (-1.0, 1.0),
    "leaky": (0.5, 1.0),
    "where": (-1.0, 2.0),
}
OPERATIONS = (
    *SLOPES,
    "relu",
    "abs",
    "maximum",
    "minimum",
    "clip",
    "amax",
    "amin",
    "sort",
    "linear",
    "product",
    "difference",
)


@dataclass
class Weights:
    """Weights for the kinks in the order in which they are met; the first choice beyond those given."""

    given: Sequence[Floats] = ()
    sizes: list[int] = field(default_factory=list)

    def next(self, count: int) -> Floats:
        """Give the weights of the next kink with so many choices."""
        place = len(self.sizes)
        self.sizes.append(count)
        return self.given[place] if place < len(self.given) else np.eye(count)[0]


@dataclass(frozen=True)
class Program:
    """H(y, x) = B y + the sum of all steps - x; steps act on earlier values, integers throughout, so that kinks are exact."""

    size: int
    base: Floats
    steps: tuple[tuple[str, int, int, Floats, Floats], ...]
    y: Floats
    x: Floats

    @classmethod
    def random(cls, seed: int) -> Program:
        """Draw one."""
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 4))
        steps = [
            (
                str(rng.choice(OPERATIONS)),
                int(rng.integers(max(0, k - 3), k)),
                int(rng.integers(0, k)),
                rng.integers(-2, 3, (n, n)).astype(float),
                rng.integers(-1, 2, n).astype(float),
            )
            for k in range(2, 2 + int(rng.integers(2, 8)))
        ]
        y, x = rng.integers(-1, 2, (2, n)).astype(float)
        return cls(n, rng.integers(-2, 3, (n, n)) + float(rng.choice([1, 3, 5])) * np.eye(n), tuple(steps), y, x)

    def in_torch(self) -> Callable[[Any, Any], Any]:
        """Give H for torch, shifted so that it vanishes at (y, x)."""
        import torch

        t = lambda a: torch.tensor(a, dtype=torch.float64)  # noqa: E731
        base, shift = t(self.base), t(self.element()[0])
        steps = [(name, a, b, t(M), t(c)) for name, a, b, M, c in self.steps]
        apply: dict[str, Callable[..., Any]] = {
            "relu": lambda u, v, M, c: torch.relu(u),
            "abs": lambda u, v, M, c: u.abs(),
            "leaky": lambda u, v, M, c: torch.nn.functional.leaky_relu(u, 0.5),
            "where": lambda u, v, M, c: torch.where(u > 0, 2 * u, -u),
            "maximum": lambda u, v, M, c: torch.maximum(u, v),
            "minimum": lambda u, v, M, c: torch.minimum(u, v),
            "clip": lambda u, v, M, c: u.clamp(-1, 1),
            "amax": lambda u, v, M, c: u.amax() * c,
            "amin": lambda u, v, M, c: u.min() * c,
            "sort": lambda u, v, M, c: M @ torch.sort(u).values,
            "linear": lambda u, v, M, c: M @ u + c,
            "product": lambda u, v, M, c: u * v,
            "difference": lambda u, v, M, c: u - v,
        }

        def H(y: Any, x: Any) -> Any:
            values = [y, x]
            for name, a, b, M, c in steps:
                values.append(apply[name](values[a], values[b], M, c))
            return base @ y + sum(values[2:]) - x - shift

        return H

    def element(self, weights: Weights | None = None) -> Pair:
        """Give H before the shift, and (B, A) side by side under weights."""
        weights, n = weights or Weights(), self.size
        eye, nothing = np.eye(n), np.zeros((n, n))
        values: list[Pair] = [(self.y, np.hstack([eye, nothing])), (self.x, np.hstack([nothing, eye]))]
        for name, a, b, M, c in self.steps:
            values.append(_step(name, values[a], values[b], M, c, weights))
        total = sum(v[0] for v in values[2:]), sum(v[1] for v in values[2:])
        return self.base @ self.y + total[0] - self.x, self.base @ values[0][1] + total[1] - values[1][1]

    def sizes(self) -> list[int]:
        """Give how many choices each active kink has."""
        weights = Weights()
        self.element(weights)
        return weights.sizes

    def vertices(self) -> Floats:
        """Give (B, A) for all products of choices."""
        units = [np.eye(k) for k in self.sizes()]
        return np.array([self.element(Weights(w))[1] for w in itertools.product(*units)])

    def interior(self, count: int) -> Floats:
        """Give (B, A) for random weights."""
        rng = np.random.default_rng(0)
        draw = lambda: [rng.dirichlet(np.full(k, 0.5)) for k in self.sizes()]  # noqa: E731
        return np.array([self.element(Weights(draw()))[1] for _ in range(count)])


def _bent(u: Pair, slopes: tuple[float, float], weights: Weights) -> Floats:
    """Give the Jacobian of a function with two slopes, left and right of 0."""
    chosen = [slopes[int(a > 0)] if a else float(weights.next(2) @ slopes) for a in u[0]]
    return np.asarray(chosen)[:, None] * u[1]


def _largest(u: Pair, weights: Weights) -> tuple[float, Floats]:
    """Give the largest entry with its derivative."""
    tied = np.flatnonzero(u[0] == u[0].max())
    return float(u[0].max()), (weights.next(len(tied)) if len(tied) > 1 else np.ones(1)) @ u[1][tied]


def _sorted(u: Pair, weights: Weights) -> Pair:
    """Sort; ties are permuted jointly."""
    order = np.argsort(u[0], kind="stable")
    value, slope = u[0][order], u[1][order].copy()
    for level in np.unique(value):
        tied = np.flatnonzero(value == level)
        if len(tied) > 1:
            orders = list(itertools.permutations(tied))
            slope[tied] = sum(w * u[1][order][list(p)] for w, p in zip(weights.next(len(orders)), orders, strict=True))
    return value, slope


def _step(name: str, u: Pair, v: Pair, M: Floats, c: Floats, weights: Weights) -> Pair:
    """Apply one operation."""
    if name in SLOPES:
        left, right = SLOPES[name]
        return np.where(u[0] > 0, right * u[0], left * u[0]), _bent(u, SLOPES[name], weights)
    difference = u[0] - v[0], u[1] - v[1]
    if name == "maximum":
        return np.maximum(u[0], v[0]), v[1] + _bent(difference, (0.0, 1.0), weights)
    if name == "minimum":
        return np.minimum(u[0], v[0]), u[1] - _bent(difference, (0.0, 1.0), weights)
    if name == "clip":
        inside = [float(weights.next(2)[1]) if abs(a) == 1 else float(abs(a) < 1) for a in u[0]]
        return np.clip(u[0], -1, 1), np.asarray(inside)[:, None] * u[1]
    if name in ("amax", "amin"):
        sign = 1.0 if name == "amax" else -1.0
        value, slope = _largest((sign * u[0], sign * u[1]), weights)
        return sign * value * c, np.outer(c, sign * slope)
    if name == "sort":
        value, jacobian = _sorted(u, weights)
        return M @ value, M @ jacobian
    if name == "linear":
        return M @ u[0] + c, M @ u[1]
    if name == "product":
        return u[0] * v[0], u[0][:, None] * v[1] + v[0][:, None] * u[1]
    return difference
