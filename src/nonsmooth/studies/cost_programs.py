"""The programs of the study of cost: networks with cross-entropy, and relu networks of a vector, in torch and in JAX.

Both frameworks get the same weights and images, drawn and loaded by numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.studies.data import load

__all__ = ["FRAMEWORKS", "IMAGES", "NETWORKS", "Network", "Problem", "classifier", "relu_network"]

FRAMEWORKS = ("torch", "jax")
"""The frameworks in which the programs are written."""

NETWORKS = ("relu mlp", "tanh mlp", "max-pool cnn")
"""The networks: dense layers with an activation, or convolutions with relu and max pooling."""

IMAGES = ("28x28", "digits", "mnist")
"""The images: scikit-learn's digits enlarged to the shape of MNIST, the digits as they are (8 x 8), and MNIST itself."""

CLASSES, LEAST_SIDE = 10, 4
"""How many classes there are; pooling stops when it would leave fewer pixels a side than these, halved."""


@dataclass(frozen=True)
class Network:
    """A network: its kind, hidden layers, neurons of each (channels of a CNN), and images a batch."""

    kind: str
    layers: int
    neurons: int
    batch: int


@dataclass(frozen=True)
class Problem:
    """A scalar function f(x, *data) of a framework, its point and its data."""

    f: Callable[..., Any]
    x: Any
    data: tuple[Any, ...]


def classifier(framework: str, network: Network, images: str, seed: int = 0) -> Problem:
    """Give the mean cross-entropy of a network on a batch of images, as a function of its weights.

    Raises:
        UsageError: no network or framework of that name, or fewer images than the batch.
    """
    if network.kind not in NETWORKS:
        raise UsageError(f"network={network.kind!r}: the study has {', '.join(NETWORKS)}.")
    rng = np.random.default_rng(seed)
    pictures, labels = _batch(images, network.batch, rng)
    weights = _convolutions(network, pictures.shape[1], rng) if "cnn" in network.kind else {}
    inputs = _flat(network, pictures.shape[1]) if weights else pictures[0].size
    dense = [CLASSES] if weights else [network.neurons] * network.layers + [CLASSES]
    for number, units in enumerate(dense):
        weights[f"w{number}"] = _normal(rng, (inputs, units), inputs)
        weights[f"b{number}"] = np.zeros(units, dtype=np.float32)
        inputs = units
    make = {"torch": _in_torch, "jax": _in_jax}[_known(framework)]
    return make(network, weights, pictures, labels)


def relu_network(framework: str, p: int, layers: int = 3, seed: int = 0) -> Problem:
    """Give F(x) = M_L relu(M_(L-1) relu(... M_1 x)) on R^p, all layers p wide, at 0, where every relu is at its kink."""
    rng = np.random.default_rng(seed)
    matrices = [_normal(rng, (p, p), p) for _ in range(layers - 1)] + [_normal(rng, (1, p), p)]
    if _known(framework) == "torch":
        import torch

        tensors = [torch.as_tensor(m) for m in matrices]

        def in_torch(x: Any) -> Any:
            for matrix in tensors[:-1]:
                x = torch.relu(matrix @ x)
            return (tensors[-1] @ x)[0]

        return Problem(in_torch, torch.zeros(p), ())
    import jax
    from jax import numpy as jnp

    arrays = [jnp.asarray(m) for m in matrices]

    def in_jax(x: Any) -> Any:
        for matrix in arrays[:-1]:
            x = jax.nn.relu(matrix @ x)
        return (arrays[-1] @ x)[0]

    return Problem(in_jax, jnp.zeros(p, dtype=jnp.float32), ())


def _known(framework: str) -> str:
    """Refuse a framework in which nothing is written."""
    if framework not in FRAMEWORKS:
        raise UsageError(f"framework={framework!r}: the study runs in {', '.join(FRAMEWORKS)}.")
    return framework


def _normal(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Any:
    """Draw weights by He's rule."""
    return (rng.standard_normal(shape) * (2 / inputs) ** 0.5).astype(np.float32)


def _batch(images: str, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw a batch of images and labels."""
    if images not in IMAGES:
        raise UsageError(f"images={images!r}: the study has {', '.join(IMAGES)}.")
    pictures, labels = load("digits" if images == "28x28" else images)
    if size > len(pictures):
        raise UsageError(f"batch={size}: there are {len(pictures):,} images.")
    chosen = rng.choice(len(pictures), size, replace=False)
    pictures = pictures[chosen].astype(np.float32)
    if images == "28x28":  # three pixels for one, and a margin of two
        pictures = np.pad(pictures.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    return pictures, labels[chosen].astype(np.int64)


def _pools(network: Network, side: int) -> list[bool]:
    """Tell after which layers a CNN pools."""
    found = []
    for _ in range(network.layers):
        found.append(side >= LEAST_SIDE)
        side = side // 2 if found[-1] else side
    return found


def _flat(network: Network, side: int) -> int:
    """Count what the convolutions of a CNN leave."""
    left: int = side // 2 ** sum(_pools(network, side))
    return network.neurons * left * left


def _convolutions(network: Network, side: int, rng: np.random.Generator) -> dict[str, Any]:
    """Draw kernels of 3 x 3, as (height, width, in, out)."""
    channels = [1] + [network.neurons] * network.layers
    return {f"k{n}": _normal(rng, (3, 3, a, b), 9 * a) for n, (a, b) in enumerate(pairwise(channels))}


def _in_torch(network: Network, weights: dict[str, Any], pictures: Any, labels: Any) -> Problem:
    """Write a network in torch."""
    import torch
    from torch.nn.functional import conv2d, cross_entropy, max_pool2d

    activation = torch.tanh if "tanh" in network.kind else torch.relu
    pools, dense = _pools(network, pictures.shape[1]), sum(name[0] == "w" for name in weights)

    def f(x: Any, h: Any, target: Any) -> Any:
        if "k0" in x:
            for number, pooled in enumerate(pools):
                h = torch.relu(conv2d(h, x[f"k{number}"], padding=1))
                h = max_pool2d(h, 2) if pooled else h
        h = h.flatten(1)
        for number in range(dense):
            h = h @ x[f"w{number}"] + x[f"b{number}"]
            h = activation(h) if number < dense - 1 else h
        return cross_entropy(h, target)

    turned = {n: w.transpose(3, 2, 0, 1).copy() if n[0] == "k" else w for n, w in weights.items()}
    if "k0" in turned:  # torch lays channels out before rows and columns
        inputs = weights["w0"].shape[0] // network.neurons
        turned["w0"] = weights["w0"].reshape(inputs, network.neurons, -1).swapaxes(0, 1).reshape(weights["w0"].shape)
    point = {name: torch.as_tensor(w) for name, w in turned.items()}
    return Problem(f, point, (torch.as_tensor(pictures)[:, None], torch.as_tensor(labels)))


def _in_jax(network: Network, weights: dict[str, Any], pictures: Any, labels: Any) -> Problem:
    """Write a network in JAX."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    activation = jnp.tanh if "tanh" in network.kind else jax.nn.relu
    pools, dense = _pools(network, pictures.shape[1]), sum(name[0] == "w" for name in weights)

    def f(x: Any, h: Any, target: Any) -> Any:
        if "k0" in x:
            for number, pooled in enumerate(pools):
                axes = ("NHWC", "HWIO", "NHWC")
                h = jax.nn.relu(lax.conv_general_dilated(h, x[f"k{number}"], (1, 1), "SAME", dimension_numbers=axes))
                h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") if pooled else h
        h = h.reshape(h.shape[0], -1)
        for number in range(dense):
            h = h @ x[f"w{number}"] + x[f"b{number}"]
            h = activation(h) if number < dense - 1 else h
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), target[:, None], axis=1))

    point = {name: jnp.asarray(w) for name, w in weights.items()}
    return Problem(f, point, (jnp.asarray(pictures)[..., None], jnp.asarray(labels.astype(np.int32))))
