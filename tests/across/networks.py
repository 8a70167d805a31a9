"""Random programs and networks of several layers, by seed: whole numbers as weights, so that ties and zeros are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.across.formulas import Formula, read

__all__ = ["KINDS", "network", "program"]

Array = Any

ACTIVATIONS: dict[str, Callable[[Any, Array], Array]] = {
    "relu": lambda fw, u: fw.relu(u),
    "abs": lambda fw, u: fw.abs(u),
    "leaky_relu": lambda fw, u: fw.leaky_relu(u, 0.25),
    "relu6": lambda fw, u: fw.relu6(u),
    "hardtanh": lambda fw, u: fw.hardtanh(u),
    "clip": lambda fw, u: fw.clip(u, -1.0, 2.0),
    "elu": lambda fw, u: fw.elu(u, 2.0),
    "selu": lambda fw, u: fw.selu(u),
    "hardsigmoid": lambda fw, u: fw.hardsigmoid(3.0 * u),
    "hardswish": lambda fw, u: fw.hardswish(u),
    "maximum": lambda fw, u: fw.maximum(u, fw.flip(u)),
    "minimum": lambda fw, u: fw.minimum(u, -0.5 * u),
    "fmax": lambda fw, u: fw.fmax(u, -u),
    "where": lambda fw, u: fw.where(u >= 0, u, 0.5 * u),
    "sort": lambda fw, u: fw.sort(u),
    "descending": lambda fw, u: fw.sort(u, descending=True),
    "max": lambda fw, u: u - fw.max(u),
    "min": lambda fw, u: u + fw.min(u),
    "max_along": lambda fw, u: u + fw.max_along(fw.reshape(u, (2, -1)), 1)[0],
    "top": lambda fw, u: u - fw.sum(fw.top(u, 2)),
    "norm1": lambda fw, u: u + fw.norm(u, 1.0),
    "max_norm": lambda fw, u: u - fw.norm(u, float("inf")),
    "norm": lambda fw, u: u + fw.norm(u - 1.0, 2.0),
    "tanh": lambda fw, u: fw.tanh(u) + u,
    "square": lambda fw, u: fw.square(u) - u,
}
"""The layers of a random program."""

KINDS = tuple(ACTIVATIONS)

WIDTH = 4


def program(seed: int) -> Formula:
    """Give a random chain of four linear maps and operations with kinks, at a point of whole numbers."""
    rng = np.random.default_rng(seed)
    chosen = [KINDS[k] for k in rng.integers(len(KINDS), size=4)]
    chosen[0] = KINDS[seed % len(KINDS)]
    matrices = [rng.integers(-2, 3, (WIDTH, WIDTH)).astype(float).tolist() for _ in chosen]
    points = (rng.integers(-1, 2, WIDTH).astype(float).tolist(), [0.0] * WIDTH)

    def function(fw: Any, x: Array) -> Array:
        for matrix, name in zip(matrices, chosen, strict=True):
            x = ACTIVATIONS[name](fw, fw.matmul(fw.constant(matrix), x))
        return read(fw, x)

    return Formula(f"program {seed}: {' '.join(chosen)}", function, points)


def network(seed: int) -> Formula:
    """Give a small convolutional network and its loss: convolution, activation, pool, dense layer, hinge or softmax."""
    rng = np.random.default_rng(seed)
    activation = ("relu", "leaky_relu", "abs", "clip", "hardtanh", "relu6")[seed % 6]
    kernel = rng.integers(-1, 2, (2, 1, 3, 3)).astype(float).tolist()
    dense = rng.integers(-1, 2, (8, 3)).astype(float).tolist()
    image = (rng.integers(-1, 2, (1, 1, 6, 6)) * (rng.random((1, 1, 6, 6)) < 0.5)).astype(float).tolist()
    blank = np.zeros((1, 1, 6, 6)).tolist()

    def function(fw: Any, x: Array) -> Array:
        u = ACTIVATIONS[activation](fw, fw.conv2d(x, fw.constant(kernel)))
        u = fw.matmul(fw.reshape(fw.max_pool(u, 2), (1, 8)), fw.constant(dense))
        if seed % 2:
            return fw.logsumexp(u) - u[0, 0]
        return fw.sum(fw.relu(1.0 + u[0, 1:] - u[0, 0]))

    return Formula(f"network {seed}: {activation}", function, (image, blank))
