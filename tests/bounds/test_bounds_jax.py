"""Bounds of functions of JAX: shapes alone, compiled functions, double precision."""

from __future__ import annotations

import pytest

import nonsmooth as ns

jax = pytest.importorskip("jax")
jnp = jax.numpy


def test_shapes_alone_are_enough_for_balls_about_zero() -> None:
    """A `ShapeDtypeStruct` stands for an array, as weights, as inputs, as both."""
    shapes = jax.ShapeDtypeStruct((4, 3), jnp.float32), jax.ShapeDtypeStruct((2, 4), jnp.float32)
    arrays = jnp.ones((4, 3)), jnp.ones((2, 4))
    sets = {"weights": 1.0, "inputs": ns.Ball(2.0)}

    def f(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ w)

    wanted = ns.bounds(f, *arrays, **sets).both
    for w, x in ((shapes[0], shapes[1]), (arrays[0], shapes[1]), (shapes[0], arrays[1])):
        assert ns.bounds(f, w, x, **sets).both == wanted
    with pytest.raises(ns.errors.UsageError, match="no values, only a shape"):
        ns.bounds(f, shapes[0], shapes[1], weights=1.0)


@pytest.mark.parametrize("wide", [False, True])
def test_compiled_functions_and_whole_ones_in_either_precision(wide: bool) -> None:
    """`jit` and functions that are known as wholes, traced in single and in double precision."""
    with jax.enable_x64(wide):
        w, x = jnp.ones((3, 2)), jnp.ones((1, 3))
        f = jax.jit(lambda w, x: jax.nn.relu(x @ w))
        found = ns.bounds(f, w, x, weights=ns.Ball(0.1, "here"), inputs=0.1)
    assert found.weights.lipschitz == pytest.approx(3**0.5 + 0.1)
