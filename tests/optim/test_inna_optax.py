"""INNA and INNAprop as optax transformations: the paper's steps, torch's steps, and optax's contract."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.experimental import checkify

import nonsmooth as ns
from nonsmooth.errors import UsageError
from tests.references import inna as reference

PAIRS = [(ns.optim.inna, ns.optim.INNA), (ns.optim.innaprop, ns.optim.INNAprop)]
both = pytest.mark.parametrize("make", [ns.optim.inna, ns.optim.innaprop])

NUMBERS = {"alpha": 0.4, "beta": 0.3, "weight_decay": 0.2}


def trees(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "a": rng.normal(size=(3, 2)).astype(dtype),
        "b": (rng.normal(size=4).astype(dtype), rng.normal(size=()).astype(dtype)),
    }


def gradient(tree: Any, k: int) -> Any:
    return jax.tree.map(lambda x: jnp.sin(3 * x + k) + jnp.abs(x), tree)


def run(optimizer: optax.GradientTransformation, params: Any, steps: int, jitted: bool = False) -> tuple[Any, Any]:
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    state = optimizer.init(params)
    for k in range(steps):
        updates, state = update(gradient(params, k), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(("make", "make_torch"), PAIRS, ids=["INNA", "INNAprop"])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_steps_as_in_torch(seed: int, make: Any, make_torch: Any, jitted: bool) -> None:
    start = trees(seed)
    params, _ = run(make(0.05, **NUMBERS), start, 30, jitted)
    tensors = [torch.tensor(leaf) for leaf in jax.tree.leaves(start)]
    optimizer = make_torch(tensors, lr=0.05, **NUMBERS)
    for k in range(30):
        for p in tensors:
            p.grad = torch.sin(3 * p + k) + p.abs()
        optimizer.step()
    for leaf, p in zip(jax.tree.leaves(params), tensors, strict=True):
        np.testing.assert_allclose(leaf, p.numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("make", ["inna", "innaprop"])
def test_the_paper_s_steps_in_double_precision(make: str) -> None:
    more = {"sigma": 0.99, "eps": 1e-8} if make == "innaprop" else {}
    gammas = [0.2 / (1 + k) ** 0.5 for k in range(50)]
    with jax.enable_x64(True):
        start = trees(0, np.float64)["a"]
        optimizer = getattr(ns.optim, make)(lambda k: 0.2 / (1.0 + k) ** 0.5, **NUMBERS, **more)
        params, state = run(optimizer, jnp.asarray(start), 50)
        expected = list(
            getattr(reference, make)(start, lambda k, x: np.sin(3 * x + k) + np.abs(x), gammas, **NUMBERS, **more)
        )[-1]
        np.testing.assert_allclose(params, expected[0], rtol=1e-5)
        np.testing.assert_allclose(state.psi, expected[1], rtol=1e-5)
        assert params.dtype == jnp.float64
    assert int(state.count) == 50


@both
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("rate", [0.05, lambda k: 0.05 / (1 + k)], ids=["number", "schedule"])
def test_dtypes_are_kept(make: Any, dtype: Any, rate: Any) -> None:
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), trees(0))
    after, state = run(make(rate), params, 3, jitted=True)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((after, state.psi))}
    assert dtypes == {jnp.dtype(dtype)}
    assert jax.tree.structure(after) == jax.tree.structure(params)


@both
def test_a_schedule_counts_from_zero(make: Any) -> None:
    seen: list[int] = []

    def schedule(k: Any) -> Any:
        seen.append(int(k))
        return 0.05 / (1 + k)

    run(make(schedule), trees(0), 4)
    assert seen == [0, 1, 2, 3]


@both
def test_hyper_parameters_can_be_injected_and_changed(make: Any) -> None:
    params = trees(0)
    optimizer = optax.inject_hyperparams(make)(learning_rate=0.05, **NUMBERS)
    expected, _ = run(make(0.05, **NUMBERS), params, 5)
    for jitted in (False, True):
        found, state = run(optimizer, params, 5, jitted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = optimizer.update(gradient(found, 5), state, found)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates))


@both
def test_in_a_chain_and_for_a_part_of_the_parameters(make: Any) -> None:
    params = trees(0)
    clipped, _ = run(optax.chain(optax.clip(0.1), make(0.05)), params, 3)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(clipped))
    labels = {"a": "train", "b": ("freeze", "freeze")}
    parts = optax.multi_transform({"train": make(0.05), "freeze": optax.set_to_zero()}, labels)
    found, _ = run(parts, params, 3)
    alone, _ = run(make(0.05), params, 3)
    np.testing.assert_allclose(found["a"], alone["a"], rtol=1e-6)
    assert np.array_equal(found["b"][0], params["b"][0])


@both
def test_a_mask_says_what_decays(make: Any) -> None:
    params = trees(0)
    numbers = {"alpha": 0.4, "beta": 0.3}
    plain, _ = run(make(0.05, weight_decay=0.0, **numbers), params, 4)
    all_decay, _ = run(make(0.05, weight_decay=0.5, **numbers), params, 4)
    for mask in ({"a": True, "b": False}, lambda tree: {"a": True, "b": (False, False)}):
        found, _ = run(make(0.05, weight_decay=0.5, mask=mask, **numbers), params, 4)
        np.testing.assert_allclose(found["a"], all_decay["a"], rtol=1e-6)
        np.testing.assert_allclose(found["b"][0], plain["b"][0], rtol=1e-6)
        assert not np.allclose(found["a"], plain["a"])


@both
def test_extra_arguments_are_passed_over(make: Any) -> None:
    params = trees(0)
    optimizer = make(0.05)
    updates, _ = optimizer.update(gradient(params, 0), optimizer.init(params), params, value=1.0)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


@both
def test_derivatives_go_through_a_step(make: Any) -> None:
    def after(scale: Any) -> Any:
        params, _ = run(make(0.05), jnp.asarray([1.0, -2.0]) * scale, 3)
        return params.sum()

    h = 1e-2
    slope = (after(1.0 + h) - after(1.0 - h)) / (2 * h)
    assert float(jax.grad(after)(1.0)) == pytest.approx(float(slope), rel=2e-2)


@both
@pytest.mark.parametrize("name", ["alpha", "beta", "weight_decay"])
def test_a_schedule_is_for_the_step_alone(make: Any, name: str) -> None:
    for value in (None, lambda k: 0.1):
        with pytest.raises(UsageError, match=f"{name} must be a number"):
            make(**{name: value})
    with pytest.raises(UsageError, match="lr must be a number, or a schedule"):
        make(learning_rate=None)


BAD = [{"learning_rate": -0.1}, {"learning_rate": float("nan")}, {"alpha": -1.0}, {"beta": 0.0}, {"weight_decay": -1.0}]


@both
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_numbers_are_refused(make: Any, bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        make(**bad)
    with pytest.raises(UsageError, match="must be"):
        make(**{name: jnp.asarray(value) for name, value in bad.items()})
    with pytest.raises(UsageError, match="one number"):
        make(**{name: jnp.asarray([value, 1.0]) for name, value in bad.items()})


@both
def test_the_parameters_are_needed(make: Any) -> None:
    optimizer = make(0.05)
    params = trees(0)
    with pytest.raises(UsageError, match="params=None"):
        optimizer.update(gradient(params, 0), optimizer.init(params))


def test_innaprop_checks_that_the_step_is_below_beta() -> None:
    with pytest.raises(UsageError, match="below beta"):
        ns.optim.innaprop(0.9)
    x = jnp.ones(2)
    optimizer = ns.optim.innaprop(lambda k: 0.5 * (1 + k), beta=0.9)
    _, state = optimizer.update(x, optimizer.init(x), x)
    with pytest.raises(UsageError, match="below beta"):
        optimizer.update(x, state, x)
    updates, _ = jax.jit(optimizer.update)(x, state, x)
    assert bool(jnp.isnan(updates).all())
    error, _ = checkify.checkify(jax.jit(optimizer.update))(x, state, x)
    with pytest.raises(checkify.JaxRuntimeError, match=r"must stay below beta; found lr 1\.0 and beta"):
        error.throw()
    error, (updates, _) = checkify.checkify(jax.jit(optimizer.update))(x, optimizer.init(x), x)
    error.throw()
    assert bool(jnp.isfinite(updates).all())


def test_complex_parameters() -> None:
    """INNA treats them as pairs of real numbers; INNAprop divides by the mean of |g|^2, as optax's optimisers do."""
    z = jnp.asarray([1 + 2j, -0.5j], dtype=jnp.complex64)
    updates, _ = ns.optim.inna(0.05).update(z, ns.optim.inna(0.05).init(z), z)
    np.testing.assert_allclose(updates, -0.05 * 0.1 * z, rtol=1e-5)
    optimizer = ns.optim.innaprop(0.05, weight_decay=0.0)
    updates, state = optimizer.update(z, optimizer.init(z), z)
    np.testing.assert_allclose(updates, -0.05 * 0.9 * z / np.abs(z), rtol=1e-4)
    assert state.nu.dtype == jnp.float32
