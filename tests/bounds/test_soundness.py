"""No observed size, difference quotient or quotient of gradients exceeds its bound, on hundreds of random networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from tests.adapters import Adapter, served
from tests.bounds.random_networks import RandomNetwork, random_network
from tests.shortened import shortened

BLOCKS, SEEDS = 10, 20
"""Networks are drawn in blocks of seeds, so that a failure names a few."""

RUNS = [
    run
    for name, count in (("torch", 2), ("jax", 2))
    if name in served()
    for run in shortened([(name, block) for block in range(BLOCKS)], count)
]
"""At every run 40 networks of each kind in torch and 2 in JAX, which compiles each of them anew; all in the slow one."""

ROUNDING = 1 + 1e-7


def draw_in_ball(rng: np.random.Generator, shape: tuple[int, ...], radius: float, center: Any = 0.0) -> np.ndarray:
    """Draw a point of a ball, often on its sphere, sometimes on an axis: where suprema are attained."""
    v = rng.normal(size=shape)
    if rng.random() < 0.3:
        v = np.where(np.arange(v.size).reshape(shape) == rng.integers(v.size), 1.0, 0.0)
    scale = 1.0 if rng.random() < 0.7 else rng.random() ** (1 / v.size)
    return center + radius * scale * v / max(np.linalg.norm(v), 1e-300)


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Give the Euclidean distance of two trees."""
    return float(np.sqrt(sum(np.sum((a[k] - b[k]) ** 2) for k in a)))


class Observed:
    """What is seen of a network at random points of its set."""

    def __init__(self, xp: Adapter, network: RandomNetwork, mu: float, r: float, rng: np.random.Generator) -> None:
        self.xp, self.network, self.mu, self.r, self.rng = xp, network, mu, r, rng

    def draw(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Draw weights and inputs."""
        weights = {n: draw_in_ball(self.rng, v.shape, self.mu) for n, v in self.network.weights.items()}
        return weights, draw_in_ball(self.rng, self.network.batch.shape, self.r, self.network.batch)

    def value(self, w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Evaluate the network."""
        arrays = {n: self.xp.array(v) for n, v in w.items()}
        return np.asarray(self.xp.numpy(self.network.f(arrays, self.xp.array(x))))

    def gradient(self, w: dict[str, np.ndarray], x: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
        """Give the gradient of <c, F> in weights and inputs, as one flat function of both."""
        shapes = {**{n: v.shape for n, v in w.items()}, "": x.shape}
        flat = np.concatenate([*(v.ravel() for v in w.values()), x.ravel()])
        weight = self.xp.array(c)

        def scalar(theta: Any) -> Any:
            parts, start = {}, 0
            for n, shape in shapes.items():
                size = int(np.prod(shape))
                parts[n], start = theta[start : start + size].reshape(shape), start + size
            return self.xp.sum(weight * self.network.f(parts, parts[""]))

        found = np.asarray(self.xp.numpy(self.xp.gradient(scalar, self.xp.array(flat))))
        parts, start = {}, 0
        for n, shape in shapes.items():
            size = int(np.prod(shape))
            parts[n], start = found[start : start + size].reshape(shape), start + size
        return parts


def largest(observed: Observed, pairs: int) -> dict[str, float]:
    """Give the largest size, quotients and quotients of gradients over pairs of points, near ones and far ones."""
    seen = dict.fromkeys(("norm", "weights.l", "inputs.l", "both.l", "weights.L", "inputs.L", "both.L"), 0.0)

    def note(name: str, value: float) -> None:
        seen[name] = max(seen[name], float(value))

    for _ in range(pairs):
        (w1, x1), (w2, x2) = observed.draw(), observed.draw()
        t = 1.0 if observed.rng.random() < 0.3 else 1e-4
        w2, x2 = {n: w1[n] + t * (w2[n] - w1[n]) for n in w1}, x1 + t * (x2 - x1)
        start = observed.value(w1, x1)
        note("norm", np.linalg.norm(start))
        c = observed.rng.normal(size=start.shape)
        c /= np.linalg.norm(c)
        before = observed.gradient(w1, x1, c)
        for kind, (w, x) in {"weights": (w2, x1), "inputs": (w1, x2), "both": (w2, x2)}.items():
            apart = distance({**w1, "": x1}, {**w, "": x})
            if not apart:
                continue
            note(f"{kind}.l", np.linalg.norm(observed.value(w, x) - start) / apart)
            after = observed.gradient(w, x, c)
            seen_of = {"weights": list(w1), "inputs": [""], "both": [*w1, ""]}[kind]
            note(f"{kind}.l", np.sqrt(sum(np.sum(after[n] ** 2) for n in seen_of)))
            note(f"{kind}.L", distance({n: before[n] for n in seen_of}, {n: after[n] for n in seen_of}) / apart)
    return seen


def exceeded(bounds: ns.Bounds, seen: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Give what was seen above its bound."""
    limits = {"norm": bounds.both.norm}
    for kind in ("weights", "inputs", "both"):
        limits |= {f"{kind}.l": getattr(bounds, kind).lipschitz, f"{kind}.L": getattr(bounds, kind).smoothness}
    return {k: (seen[k], limits[k]) for k in seen if seen[k] > limits[k] * ROUNDING + 1e-6 * (k.endswith("L"))}


def bounded(xp: Adapter, seed: int, *, smooth: bool) -> tuple[Observed, ns.Bounds]:
    """Bound a random network on a random set."""
    network = random_network(xp, seed, smooth=smooth)
    rng = np.random.default_rng(seed + 10_000)
    mu, r = float(rng.choice([0.5, 1.0, 2.0])), float(rng.choice([0.1, 1.0]))
    weights = {n: xp.array(v) for n, v in network.weights.items()}
    bounds = ns.bounds(network.f, weights, xp.array(network.batch), weights=mu, inputs=r)
    return Observed(xp, network, mu, r, rng), bounds


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("xp", "block"), RUNS, indirect=["xp"])
def test_nothing_observed_exceeds_its_bound(xp: Adapter, block: int, smooth: bool) -> None:
    """Sizes, quotients and quotients of gradients stay below, in the weights, the inputs and both."""
    seeds = range(block * SEEDS, (block + 1) * SEEDS) if xp.name == "torch" else range(block * SEEDS, block * SEEDS + 1)
    for seed in seeds:
        observed, bounds = bounded(xp, seed, smooth=smooth)
        over = exceeded(bounds, largest(observed, 4))
        assert not over, f"seed {seed} ({', '.join(observed.network.words)}): {over}\n{bounds}"


def test_a_bound_that_is_too_small_is_caught(xp: Adapter) -> None:
    """The check can fail: half of the constants of a linear network are exceeded."""
    network = RandomNetwork(lambda w, x: x @ w["V"], {"V": np.ones((2, 2))}, np.array([[3.0, 4.0]]), ())
    arrays = {"V": xp.array(network.weights["V"])}
    bounds = ns.bounds(network.f, arrays, xp.array(network.batch), weights=1.0)
    seen = largest(Observed(xp, network, 1.0, 0.0, np.random.default_rng(0)), 20)
    small = ns.Bounds(
        **{**vars(bounds), "weights": type(bounds.weights)(bounds.weights.norm, bounds.weights.lipschitz / 2, 0.0)}
    )
    assert "weights.l" in exceeded(small, {k: v for k, v in seen.items() if k.startswith("weights")})
