"""`ns.grad` in JAX: a transform that gives what `ns.backprop` gives, under jit, vmap and grad, in any pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.jax.transform import selected

POINT = jnp.array([0.0, 1.0, 1.0, -1.0])

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "switches": lambda x: (jax.nn.relu(x) + 2 * jnp.abs(x) + jnp.clip(x, -1.0, 1.0)).sum(),
    "ties": lambda x: jnp.max(x) + jnp.sort(x)[2] * 3 + jnp.maximum(x[1], x[2]),
    "norm": lambda x: jnp.linalg.norm(x[:1]) + jnp.linalg.norm(x, ord=1),
    "where": lambda x: jnp.where(x > 0, x, 2 * x).sum(),
    "where of several": lambda x: jnp.where((x > 0) & (x < 1), x, jnp.minimum(x, 1)).sum(),
    "cond": lambda x: lax.cond(x[1] > 0, lambda a: jax.nn.relu(a).sum(), lambda a: a.sum(), x),
    "scan": lambda x: lax.scan(lambda c, a: (jnp.maximum(c, a), jnp.abs(c)), x[0], x)[1].sum(),
    "mapped": lambda x: jax.vmap(jax.nn.relu6)(x).sum(),
    "remat": lambda x: jax.checkpoint(lambda a: jnp.abs(a).sum())(x),
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID").sum(),
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(jnp.diag(x))[-1],
    "mapped cond": lambda x: jax.vmap(lambda t: lax.cond(t > 0, lambda t: 3 * t + t * t, lambda t: 2 * t, t))(x).sum(),
    "where on a number": lambda x: jnp.where((x > 0).astype(int) == 1, x * x + x, 2 * x).sum(),
    "where on a floor": lambda x: jnp.where(jnp.floor(x + 0.5) == 1, x * x, x).sum(),
}


@pytest.mark.parametrize("at_kinks", ["framework", 0.0, 0.3, "torch", "tensorflow", "minimum-norm"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_transform_is_backprop(name: str, at_kinks: Any) -> None:
    f = FUNCTIONS[name]
    expected = ns.backprop(f, POINT, at_kinks=at_kinks)
    found = jax.jit(ns.grad(f, at_kinks=at_kinks))(POINT)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_can_be_mapped(name: str) -> None:
    f, points = FUNCTIONS[name], jnp.stack([POINT, -POINT, jnp.zeros(4)])
    mapped = jax.vmap(ns.grad(f, at_kinks=0.25))(points)
    single = jnp.stack([ns.grad(f, at_kinks=0.25)(x) for x in points])
    np.testing.assert_allclose(mapped, single, rtol=1e-5, atol=1e-6)


def test_it_can_be_differentiated() -> None:
    twice = jax.grad(lambda x: ns.grad(lambda u: (jax.nn.relu(u) ** 2).sum(), at_kinks=1.0)(x).sum())
    np.testing.assert_allclose(twice(jnp.array([-1.0, 2.0])), [0.0, 2.0])


def test_pytrees_data_and_argnums() -> None:
    def f(a: Any, tree: Any) -> Any:
        return (jnp.abs(tree["w"]) * a).sum() + jax.nn.relu(tree["b"][0])

    tree = {"w": jnp.zeros(2), "b": [jnp.array(0.0)]}
    value, gradient = ns.value_and_grad(f, at_kinks=1.0, argnums=1)(jnp.array([1.0, 2.0]), tree)
    assert float(value) == 0.0
    assert gradient["w"].tolist() == [1.0, 2.0] and float(gradient["b"][0]) == 1.0


@pytest.mark.parametrize("wide", [False, True])
def test_types_are_kept(wide: bool) -> None:
    with jax.enable_x64(wide):
        x = jnp.zeros(3, dtype=jnp.float64 if wide else jnp.float32)
        assert ns.grad(lambda u: jnp.abs(u).sum(), at_kinks=0.5)(x).dtype == x.dtype
    short = jnp.zeros(3, dtype=jnp.bfloat16)
    assert ns.grad(lambda u: jax.nn.relu(u).sum(), at_kinks=1.0)(short).dtype == jnp.bfloat16


def test_the_native_rules_are_jaxs_own() -> None:
    f = FUNCTIONS["ties"]
    np.testing.assert_array_equal(ns.grad(f)(POINT), jax.grad(f)(POINT))


def test_a_mapped_loop_goes_on_while_any_of_its_rows_does() -> None:
    halved = jax.vmap(lambda t: jax.lax.while_loop(lambda c: c > 1, lambda c: c / 2, t))

    def f(u):
        return (halved(u) * jnp.array([1.0, 10.0])).sum()

    x = jnp.array([1.5, 3.0])
    value, gradient, certificate = ns.subgradient(f, x)
    assert float(value) == float(f(x)) and certificate.certified
    np.testing.assert_allclose(gradient, [0.5, 2.5])
    weighed = selected(f, lambda step, call, masks: None)
    np.testing.assert_allclose(jax.jvp(weighed, (x,), (jnp.ones(2),)), (float(f(x)), 3.0))
    assert ns.subgradient(f, jnp.array([1.0, 3.0])).certificate.status == "undecided"


def test_random_weights_are_drawn_as_the_function_is_traced() -> None:
    f = ns.grad(jnp.abs, at_kinks="random")
    alone = float(f(jnp.array(0.0)))
    assert -1 < alone < 1
    assert float(jax.jit(f)(jnp.array(0.0))) == pytest.approx(alone)
    assert jax.vmap(f)(jnp.array([0.0, 1.0, 0.0])).tolist() == pytest.approx([alone, 1.0, alone])


def test_what_is_handed_on_and_what_is_named() -> None:
    """`has_aux` and keyword arguments as in jax, eagerly and compiled."""

    def f(x, w=1.0, *, scale, mode="plain"):
        return scale * w * jnp.abs(x).sum(), {"twice": 2 * x, "largest": jnp.argmax(x)}

    x = jnp.array([1.0, -3.0, 2.0])
    for native, ours in (
        (jax.value_and_grad(f, has_aux=True), ns.value_and_grad(f, has_aux=True, at_kinks=0.5)),
        (jax.grad(f, has_aux=True), ns.grad(f, has_aux=True)),
        (jax.jit(jax.grad(f, has_aux=True)), jax.jit(ns.grad(f, has_aux=True, at_kinks=0.5))),
    ):
        expected, found = native(x, 2.0, scale=jnp.array(3.0)), ours(x, 2.0, scale=jnp.array(3.0))
        assert jax.tree.structure(tuple(expected)) == jax.tree.structure(tuple(found))
        jax.tree.map(np.testing.assert_allclose, tuple(expected), tuple(found))
    gradient, aux = ns.grad(f, has_aux=True, at_kinks=0.5)(jnp.zeros(2), scale=2.0, mode="other")
    assert gradient.tolist() == [0.0, 0.0] and aux["twice"].tolist() == [0.0, 0.0]
    with pytest.raises(UsageError, match=r"must return \(value, aux\)"):
        ns.grad(jnp.sum, has_aux=True)(x)


MAPPED = {
    "cond": (lambda x: jax.vmap(lambda t: lax.cond(t > 0, lambda t: t * t, lambda t: -t, t))(x).sum(), [-1.0, 4.0]),
    "switch": (
        lambda x: jax.vmap(lambda t: lax.switch((t > 0).astype(int), [lambda t: -t, lambda t: t * t], t))(x).sum(),
        [-1.0, 4.0],
    ),
    "piecewise": (lambda x: jnp.piecewise(x, [x < 0, x >= 0], [lambda x: -x, lambda x: x * x]).sum(), [-1.0, 4.0]),
    "number": (lambda x: jnp.where((x > 0).astype(int) == 1, x * x, 2 * x).sum(), [2.0, 4.0]),
    "floor": (lambda x: jnp.where(jnp.floor(x + 0.5) == 2, x * x, x / 2).sum(), [0.5, 4.0]),
}


@pytest.mark.parametrize("at_kinks", [0.0, 0.5, 1.0, "torch", "minimum-norm", "random"])
@pytest.mark.parametrize("name", MAPPED)
def test_what_is_piecewise_constant_ties_nowhere(name: str, at_kinks: Any) -> None:
    """Where nothing ties every convention gives the derivative."""
    f, expected = MAPPED[name]
    x = jnp.array([-1.0, 2.0])
    np.testing.assert_allclose(jax.jit(ns.grad(f, at_kinks=at_kinks))(x), expected)
    np.testing.assert_allclose(ns.backprop(f, x, at_kinks=at_kinks), expected)
    assert not ns.kinks(f, x).count


@pytest.mark.parametrize(("at_kinks", "slope"), [(0.0, 2.0), (0.25, 2.25), (1.0, 3.0)])
def test_a_mapped_cond_that_ties_weighs_its_branches_once(at_kinks: float, slope: float) -> None:
    f, x = FUNCTIONS["mapped cond"], jnp.array([0.0, 1.0])
    np.testing.assert_allclose(jax.jit(ns.grad(f, at_kinks=at_kinks))(x), [slope, 5.0])
    np.testing.assert_allclose(ns.backprop(f, x, at_kinks=at_kinks), [slope, 5.0])
    field = ns.field(f, x)
    assert field.status != "undecided" and ns.kinks(f, x).count == 1
