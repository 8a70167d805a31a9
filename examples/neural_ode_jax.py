"""A neural ODE with relu on the two moons in JAX: trained under jit by diffrax's steps, checked with located crossings.

    python examples/neural_ode_jax.py

Under jit the values are not known, so that nothing can be located: locate=False says that this is meant. Outside of it the
gradient of the loss on a small batch is compared with that of located crossings, and this one with differences.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp
from sklearn.datasets import make_moons

import nonsmooth as ns

Parameters = dict[str, jax.Array]


def field(t: jax.Array, y: jax.Array, p: Parameters) -> jax.Array:
    """y' = W2 relu(W1 y + b1) + b2, the same at all times."""
    return jax.nn.relu(y @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def data(count: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Give points of the plane with a third coordinate, 0, and their classes."""
    points, classes = make_moons(count, noise=0.1, random_state=seed)
    return jnp.asarray(np.pad(points, ((0, 0), (0, 1)))), jnp.asarray(classes)


def drawn(size: int, width: int, seed: int) -> Parameters:
    """Draw the weights of the field and of the linear map that reads the classes."""
    shapes = {"W1": (size, width), "b1": (width,), "W2": (width, size), "b2": (size,), "W3": (size, 2), "b3": (2,)}
    fan = {"1": size, "2": width, "3": size}
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.uniform(-1, 1, shape) / fan[k[1]] ** 0.5) for k, shape in shapes.items()}


def main(steps: int = 40, seed: int = 0) -> float:
    jax.config.update("jax_enable_x64", True)
    plain = ns.implicit.flow(field, locate=False, rtol=1e-3, atol=1e-5)
    finer, located = ns.implicit.flow(field, locate=False), ns.implicit.flow(field)

    def loss(p: Parameters, points: jax.Array, classes: jax.Array, solve: Any = plain) -> jax.Array:
        scores = solve(points, 1.0, p) @ p["W3"] + p["b3"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, classes).mean()

    points, classes = data(100, seed)
    optimiser, p = optax.adam(0.03), drawn(3, 16, seed)
    state = optimiser.init(p)

    @jax.jit
    def step(p: Parameters, state: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(p, points, classes)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(p, change), state, value

    for number in range(steps):
        p, state, value = step(p, state)
        if number % 20 == 0 or number == steps - 1:
            print(f"step {number:4}: loss {float(value):.1e}")
    tested, right = data(500, seed + 1)
    accuracy = float((jnp.argmax(plain(tested, 1.0, p) @ p["W3"] + p["b3"], 1) == right).mean())
    print(f"accuracy on 500 new points: {accuracy:.3f}")

    few, norm = (tested[:16], right[:16]), optax.tree.norm
    exact = jax.grad(loss)(p, *few, located)
    print(f"loss on 16 points: {len(located.report.crossings)} crossings; from the located gradient", end=" ")
    moved = [optax.apply_updates(p, jax.tree.map(lambda g, h=h: h * g / norm(exact), exact)) for h in (1e-5, -1e-5)]
    slope = (loss(moved[0], *few, located) - loss(moved[1], *few, located)) / 2e-5
    print(f"differences along it are {float(abs(slope / norm(exact) - 1)):.1e} away, plain steps", end="")
    for rtol, solve in (("1e-3", plain), ("1e-7", finer)):
        found = jax.grad(loss)(p, *few, solve)
        apart = norm(jax.tree.map(jnp.subtract, found, exact)) / norm(exact)
        print(f" {float(apart):.1e} at rtol {rtol}", end="\n" if solve is finer else " and")
    return accuracy


if __name__ == "__main__":
    main()
