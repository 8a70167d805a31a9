"""Random networks as functions f(w, x) of a dict of weights and a batch, written once for every framework.

Chains and graphs: dense layers, smooth and nonsmooth activations, residual sums, concatenations, shared weights, products
of entries, attention, mixing along the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.adapters import Adapter

__all__ = ["RandomNetwork", "random_network"]

SMOOTH = ("tanh", "sigmoid", "softplus", "gelu", "sin", "celu")
KINKED = ("relu", "leaky_relu", "elu", "selu", "relu6", "abs")


@dataclass(frozen=True)
class RandomNetwork:
    """A function f(w, x), weights to start from and a batch, as arrays of numpy; `words` say what it is made of."""

    f: Callable[[Any, Any], Any]
    weights: dict[str, np.ndarray]
    batch: np.ndarray
    words: tuple[str, ...]


def random_network(xp: Adapter, seed: int, *, smooth: bool = True) -> RandomNetwork:
    """Draw a network of 2 to 5 blocks, of width 2 to 5, on a batch of 1 to 3."""
    rng = np.random.default_rng(seed)
    width, rows = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    weights: dict[str, np.ndarray] = {}
    blocks: list[Callable[[Any, Any], Any]] = []
    words: list[str] = []
    activations = SMOOTH if smooth else SMOOTH + KINKED

    def dense() -> Callable[[Any, Any], Any]:
        old = [n for n in weights if n.startswith("V")]
        name = str(rng.choice(old)) if old and rng.random() < 0.2 else f"V{len(weights)}"
        bias = f"b{len(weights)}" if rng.random() < 0.5 else None
        weights.setdefault(name, rng.normal(size=(width, width)) / np.sqrt(width))
        if bias:
            weights[bias] = rng.normal(size=width) / 2
        return lambda w, z: z @ w[name].T + (w[bias] if bias else 0.0)

    def activation() -> Callable[[Any, Any], Any]:
        chosen = str(rng.choice(activations))
        words.append(chosen)
        return lambda w, z: getattr(xp, chosen)(z)

    def residual() -> Callable[[Any, Any], Any]:
        inner, act = dense(), activation()
        return lambda w, z: z + act(w, inner(w, z))

    def gate() -> Callable[[Any, Any], Any]:
        one, two, act = dense(), dense(), activation()
        return lambda w, z: act(w, one(w, z)) * two(w, z)

    def widened() -> Callable[[Any, Any], Any]:
        act, back = activation(), f"U{len(weights)}"
        weights[back] = rng.normal(size=(2 * width, width)) / np.sqrt(2 * width)
        return lambda w, z: xp.concat([z.T, act(w, z).T]).T @ w[back]

    def mixing() -> Callable[[Any, Any], Any]:
        return lambda w, z: z - 0.5 * xp.mean(z, 0)

    def layer() -> Callable[[Any, Any], Any]:
        inner, act = dense(), activation()
        return lambda w, z: act(w, inner(w, z))

    makers = {"layer": layer, "residual": residual, "gate": gate, "concatenation": widened, "mixing": mixing}
    for _ in range(int(rng.integers(2, 6))):
        chosen = str(rng.choice(list(makers), p=[0.4, 0.2, 0.15, 0.15, 0.1]))
        words.append(chosen)
        blocks.append(makers[chosen]())
    if not weights:
        blocks.append(dense())

    def f(w: Any, x: Any) -> Any:
        z = x
        for block in blocks:
            z = block(w, z)
        return z

    return RandomNetwork(f, weights, rng.normal(size=(rows, width)), tuple(words))
