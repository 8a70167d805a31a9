"""Bounds in the input: `python benchmarks/input_bounds.py [--rounds N] [-o FILE.json]`.

*global*: fully connected networks with fixed weights, on the whole space: the product of spectral norms, `ns.bounds`,
ECLipsE-Fast (eclipse-nn, if Python finds it; its file alone is loaded, it needs torch only), and the largest ||J(x)|| that was
seen. *local*: networks trained on the digits, on balls about test images. Times are medians of rounds, both sides in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.bounds.region import Ball
from nonsmooth.studies.data import training

ACTIVATIONS: dict[str, tuple[type[nn.Module], float]] = {
    "relu": (nn.ReLU, 1.0),
    "tanh": (nn.Tanh, 1.0),
    "sigmoid": (nn.Sigmoid, 0.25),
}
"""Activations and their largest slopes; the least is 0."""

NETWORKS = [
    ("relu", (20, 20, 20)),
    ("relu", (20, 64, 64, 64, 10)),
    ("tanh", (20, 64, 64, 64, 10)),
    ("sigmoid", (64, *[64] * 4, 10)),
    ("relu", (64, *[64] * 9, 10)),
    ("relu", (128, 128, 128, 128, 10)),
    ("relu", (128, *[128] * 9, 10)),
    ("relu", (256, 256, 10)),
    ("tanh", (256, *[256] * 4, 10)),
    ("relu", (256, *[256] * 9, 10)),
]
"""Networks at initialisation: activation and widths."""

RADII = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Radii of balls, in median distances of two images."""


def eclipse_fast() -> Callable[..., torch.Tensor] | None:
    """Load ECLipsE-Fast, if it is there: its file alone, as the package asks for a solver that it does not need here."""
    found = importlib.util.find_spec("eclipse_nn")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(next(iter(found.submodule_search_locations))) / "eclipsE_fast.py"
    spec = importlib.util.spec_from_file_location("eclipse_fast", file)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ECLipsE_Fast  # type: ignore[no-any-return]


def dense(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """Build a fully connected network."""
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), ACTIVATIONS[activation][0]()]
    return nn.Sequential(*layers[:-1]).double()


def convolutional() -> nn.Sequential:
    """Build a small CNN for images of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).double()


def jacobian_norms(net: nn.Module, points: torch.Tensor) -> torch.Tensor:
    """Give ||J(x)|| at points."""
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: net(x[None])[0]))(points.detach()).detach()
    return torch.linalg.matrix_norm(jacobians.reshape(len(points), -1, points[0].numel()), 2)


def seen(net: nn.Module, start: torch.Tensor, radius: float, rounds: int = 4, count: int = 64) -> float:
    """Give the largest ||J(x)|| of random points of a ball, and of points near the best ones so far."""
    best, most, step = start[None], float(jacobian_norms(net, start[None])[0]), radius
    for _ in range(rounds):
        away = torch.randn(count, *start.shape, dtype=start.dtype)
        scale = step * torch.rand(count, dtype=start.dtype) / away.flatten(1).norm(dim=1)
        points = best[torch.arange(count) % len(best)] + away * scale.reshape(-1, *[1] * start.ndim)
        move = points - start
        lengths = move.flatten(1).norm(dim=1).clamp(min=1e-300)
        points = start + move * (radius / lengths).clamp(max=1.0).reshape(-1, *[1] * start.ndim)
        norms = jacobian_norms(net, points)
        most, best, step = max(most, float(norms.max())), points[norms.argsort(descending=True)[:4]], step / 2
    return most


def clock(function: Callable[[], Any]) -> tuple[float, Any]:
    """Time a call."""
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def compared(
    name: str, net: nn.Sequential, activation: str, fast: Callable[..., torch.Tensor] | None, rounds: int
) -> dict[str, Any]:
    """Bound a network on the whole space in every way, in turn."""
    matrices = [m.weight.detach() for m in net if isinstance(m, nn.Linear)]
    slope = ACTIVATIONS[activation][1]
    ends = [0.0] * (len(matrices) - 1), [slope] * (len(matrices) - 1)
    x = torch.zeros(matrices[0].shape[1], dtype=torch.double)
    sides = {
        "ours": lambda: ns.bounds(net, x[None], inputs=Ball(inf, "here")).inputs.lipschitz,
        "eclipse_fast": (lambda: float(fast(matrices, *ends))) if fast is not None else None,
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    values: dict[str, float] = {}
    for _ in range(rounds):
        for side, call in sides.items():
            if call is not None:
                took, values[side] = clock(call)
                times[side].append(took)
    product = prod(float(torch.linalg.matrix_norm(w, 2)) for w in matrices) * slope ** (len(matrices) - 1)
    lower = max(seen(net, x, r) for r in (1.0, 10.0))
    row = {"network": name, "product": product, **values, "seen": lower}
    row |= {f"seconds_{side}": statistics.median(t) for side, t in times.items() if t}
    print(json.dumps(row), flush=True)
    return row


def trained(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """Train by Adam."""
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    return net


def local(
    name: str, net: nn.Module, images: torch.Tensor, distance: float, product: float | None
) -> list[dict[str, Any]]:
    """Bound a network on balls about images: medians."""
    took, whole = clock(lambda: ns.bounds(net, images[:1], inputs=Ball(inf, "here")).inputs.lipschitz)
    rows = []
    for radius in RADII:
        found = []
        for image in images:
            seconds, bound = clock(
                lambda image=image, r=radius: ns.bounds(net, image[None], inputs=r * distance).inputs.lipschitz
            )
            found.append((bound, seen(net, image, radius * distance), seconds))
        bounds, lower, seconds = np.array(found).T
        row = {
            "network": name,
            "radius": radius,
            "local": float(np.median(bounds)),
            "seen": float(np.median(lower)),
            "local_over_seen": float(np.median(bounds / lower)),
            "largest_seen_over_local": float(np.max(lower / bounds)),
            "global": whole,
            "global_over_local": float(whole / np.median(bounds)),
            "largest_global_over_local": float(whole / np.min(bounds)),
            "product": product,
            "product_over_local": None if product is None else float(product / np.median(bounds)),
            "seconds": float(np.median(seconds)),
            "seconds_global": took,
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def conv_product(net: nn.Module) -> float:
    """Multiply the spectral norms of the layers of the small CNN, each as a matrix on its image."""
    x, product = torch.zeros(1, 1, 8, 8, dtype=torch.double), 1.0
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            product *= float(jacobian_norms(layer, x)[0])
        x = layer(x)
    return product


def main() -> None:
    """Run, print rows as JSON lines, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    fast, whole, near = eclipse_fast(), [], []
    for activation, widths in NETWORKS:
        torch.manual_seed(0)
        name = f"{activation} {widths[0]}-{widths[1]}x{len(widths) - 2}-{widths[-1]}"
        whole.append(compared(name, dense(widths, activation), activation, fast, options.rounds))
    images, labels = training("digits")
    images = images.double().reshape(len(images), -1)
    distance = float(torch.pdist(images[:600]).median())
    for activation in ("relu", "tanh"):
        for epochs in (15, 100):
            torch.manual_seed(0)
            net = trained(dense((64, 128, 64, 10), activation), images[:1500], labels[:1500], epochs)
            name = f"digits {activation}, {epochs} epochs"
            whole.append(compared(name, net, activation, fast, options.rounds))
            points = images[1500 : 1500 + options.points]
            near += local(name, net, points, distance, whole[-1]["product"])
            if epochs == 100:
                near += local(f"{name}, probabilities", nn.Sequential(*net, nn.Softmax(1)), points, distance, None)
    pictures = images.reshape(-1, 1, 8, 8)
    torch.manual_seed(0)
    cnn = trained(convolutional(), pictures[:1500], labels[:1500], 15)
    points = pictures[1500 : 1500 + options.points]
    near += local("digits CNN, 15 epochs", cnn, points, distance, conv_product(cnn))
    near += local("digits CNN, 15 epochs, probabilities", nn.Sequential(*cnn, nn.Softmax(1)), points, distance, None)
    result = {
        "machine": platform.processor(),
        "torch": torch.__version__,
        "distance": distance,
        "global": whole,
        "local": near,
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
