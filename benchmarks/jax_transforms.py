"""JAX: ratios of medians, both sides compiled and in turn: `python benchmarks/jax_transforms.py [--rounds N] [-o FILE.json]`.

A ratio is (ours) / (`jax.jit(jax.value_and_grad(f))`) on the same objective and data; compile times stand beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import nonsmooth as ns

TARGETS = {("mlp", 0.0): 1.25, ("cnn", 0.0): 1.6, ("encoder", 0.0): 1.25}
"""The ratios that the project set itself, with a tenth of the units at a kink."""

Model = tuple[Callable[..., Any], dict[str, Any], tuple[Any, ...]]


def weights(rng: np.random.Generator, *shape: int) -> Any:
    """Draw weights."""
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), dtype=jnp.float32)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def mlp(active: float) -> Model:
    """Six layers of 512 relu units on 256 images; a share of them is dead, with zero weights and biases."""
    rng = np.random.default_rng(0)
    sizes = [784, 512, 512, 512, 512, 512, 10]
    x = {f"w{k}": weights(rng, m, n) for k, (m, n) in enumerate(itertools.pairwise(sizes))}
    x |= {f"b{k}": jnp.zeros(n) for k, n in enumerate(sizes[1:])}
    for k in range(5):
        x[f"w{k}"] = x[f"w{k}"].at[:, : int(active * 512)].set(0)

    def f(x: Any, images: Any, labels: Any) -> Any:
        h = images
        for k in range(5):
            h = jax.nn.relu(h @ x[f"w{k}"] + x[f"b{k}"])
        return cross_entropy(h @ x["w5"] + x["b5"], labels)

    return f, x, (weights(rng, 256, 784), jnp.asarray(rng.integers(0, 10, 256)))


def cnn(active: float) -> Model:
    """Two convolutions with relu and max-pooling on 64 images of 28 x 28."""
    rng = np.random.default_rng(0)
    x = {"k0": weights(rng, 3, 3, 1, 16), "k1": weights(rng, 3, 3, 16, 32), "w": weights(rng, 7 * 7 * 32, 10)}
    x["k0"], x["k1"] = x["k0"].at[..., : int(active * 16)].set(0), x["k1"].at[..., : int(active * 32)].set(0)

    def f(x: Any, images: Any, labels: Any) -> Any:
        h = images
        for k in range(2):
            h = lax.conv_general_dilated(h, x[f"k{k}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            h = jax.nn.relu(h)
            h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return cross_entropy(h.reshape(h.shape[0], -1) @ x["w"], labels)

    return f, x, (weights(rng, 64, 28, 28, 1), jnp.asarray(rng.integers(0, 10, 64)))


def encoder(active: float) -> Model:
    """Two blocks of attention and relu on 16 sequences of 64 tokens of width 128."""
    rng = np.random.default_rng(0)
    x = {f"{n}{k}": weights(rng, 128, 128) for k in range(2) for n in "qkvo"}
    x |= {f"a{k}": weights(rng, 128, 512) for k in range(2)} | {f"b{k}": weights(rng, 512, 128) for k in range(2)}
    x["w"] = weights(rng, 128, 10)
    for k in range(2):
        x[f"a{k}"] = x[f"a{k}"].at[:, : int(active * 512)].set(0)

    def normal(h: Any) -> Any:
        return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)

    def f(x: Any, tokens: Any, labels: Any) -> Any:
        h = tokens
        for k in range(2):
            q, key, v = (normal(h) @ x[f"{n}{k}"] for n in "qkv")
            h = h + jax.nn.softmax(q @ key.swapaxes(-1, -2) / 128**0.5) @ v @ x[f"o{k}"]
            h = h + jax.nn.relu(normal(h) @ x[f"a{k}"]) @ x[f"b{k}"]
        return cross_entropy(h.mean(1) @ x["w"], labels)

    return f, x, (weights(rng, 16, 64, 128), jnp.asarray(rng.integers(0, 10, 16)))


MODELS: dict[str, Callable[[float], Model]] = {"mlp": mlp, "cnn": cnn, "encoder": encoder}


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[[], Any], float]:
    """Compile a function for some arguments; give a call of it, and the seconds it took."""
    start = time.perf_counter()
    ready = jax.jit(function).lower(*args).compile()
    return (lambda: jax.block_until_ready(ready(*args))), time.perf_counter() - start


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Time two functions in turn; give both medians and their ratio."""
    for _ in range(3):
        ours(), theirs()
    a: list[float] = []
    b: list[float] = []
    for _ in range(rounds):
        for times, function in ((a, ours), (b, theirs)):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return statistics.median(a), statistics.median(b), statistics.median(a) / statistics.median(b)


def measure(name: str, active: float, rounds: int) -> list[dict[str, Any]]:
    """Measure one model."""
    f, x, data = MODELS[name](active)
    theirs, own_compile = compiled(jax.value_and_grad(f), x, *data)
    rows = []
    for at_kinks in ("framework", 0.5, "torch", "tensorflow"):
        ours, compile_time = compiled(ns.value_and_grad(f, at_kinks=at_kinks), x, *data)
        a, b, ratio = in_turn(ours, theirs, rounds)
        rows.append(
            {
                "model": name,
                "what": f"value_and_grad, at_kinks={at_kinks}",
                "active": active,
                "ms": 1e3 * a,
                "jax ms": 1e3 * b,
                "ratio": ratio,
                "compile s": compile_time,
                "jax compile s": own_compile,
            }
        )
    program = ns.capture(f, x, *data)
    theirs_again = theirs
    a, b, ratio = in_turn(lambda: jax.block_until_ready(ns.subgradient(program, x, *data)[:2]), theirs_again, rounds)
    rows.append(
        {"model": name, "what": "subgradient", "active": active, "ms": 1e3 * a, "jax ms": 1e3 * b, "ratio": ratio}
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("-o", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        for active in (0.0, 0.1):
            for row in measure(name, active, options.rounds):
                rows.append(row)
                text = f"{row['model']:8} {row['active']:.1f} {row['what']:40} {row['ms']:8.2f} ms"
                compile_text = (
                    f"  compile {row['compile s']:.2f} s against {row['jax compile s']:.2f} s"
                    if "compile s" in row
                    else ""
                )
                print(f"{text}  ratio {row['ratio']:.2f}{compile_text}", flush=True)
    if options.o is not None:
        facts = {"jax": jax.__version__, "device": str(jax.devices()[0]), "machine": platform.machine()}
        options.o.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
