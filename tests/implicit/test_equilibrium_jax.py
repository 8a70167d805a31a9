"""The deep equilibrium layer in JAX: the numbers of its twin in torch, transforms, and what it refuses."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from jax.test_util import check_grads

from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError
from nonsmooth.implicit import DeepEquilibrium, deep_equilibrium


@pytest.fixture(autouse=True)
def _double() -> Any:
    """Compute in double precision."""
    with jax.enable_x64(True):
        yield


def twins(seed: int, scale: float, **options: Any) -> tuple[DeepEquilibrium, Any, dict[str, Any]]:
    """Make a layer in torch and the same in JAX."""
    torch.manual_seed(seed)
    ours = DeepEquilibrium(3, 8, dtype=torch.float64, **options)
    with torch.no_grad():
        ours.cell.V.mul_(scale)
        if ours.cell.S is not None:
            ours.cell.S.mul_(scale)
    params = {
        "V": jnp.asarray(ours.cell.V.detach().numpy()),
        "U": jnp.asarray(ours.cell.U.weight.detach().numpy()),
        "b": jnp.asarray(ours.cell.U.bias.detach().numpy()),
    }
    if ours.cell.S is not None:
        params["S"] = jnp.asarray(ours.cell.S.detach().numpy())
    return ours, deep_equilibrium(3, 8, **options), params


@pytest.mark.parametrize("parametrisation", ["monotone", "contractive", "free"])
def test_half_precision_is_solved_in_single(parametrisation: str) -> None:
    layer = deep_equilibrium(3, 4, parametrisation=parametrisation)
    params = layer.init(jax.random.key(0), "bfloat16")
    x = jax.random.normal(jax.random.key(1), (5, 3), "bfloat16")
    assert layer(params, x).dtype == "bfloat16"

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(layer(params, x).astype("float32"))

    found = jax.grad(loss)(params, x)
    exact = jax.grad(loss)(*jax.tree.map(lambda a: a.astype("float32"), (params, x)))
    for name, slope in found.items():
        assert slope.dtype == "bfloat16"
        np.testing.assert_allclose(slope.astype("float32"), exact[name], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scale", [10.0, 20.0])
def test_plain_steps_that_diverge_spoil_nothing(scale: float) -> None:
    layer = deep_equilibrium(3, 16)
    params = layer.init(jax.random.key(0))
    params["V"] *= scale
    _, report = layer.solve(params, jax.random.normal(jax.random.key(1), (8, 3)))
    assert report["residual"] < 1e-10


@pytest.mark.parametrize(
    ("activation", "parametrisation", "scale"),
    [("relu", "monotone", 4.0), ("sigmoid", "monotone", 2.0), ("relu", "contractive", 3.0), ("relu", "free", 0.9)],
)
def test_the_numbers_of_torch(activation: str, parametrisation: str, scale: float) -> None:
    """Value, bound, and gradients in parameters and inputs, compiled and not."""
    theirs, layer, params = twins(0, scale, activation=activation, parametrisation=parametrisation)
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((5, 3)), rng.standard_normal((5, 8))
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(g))
    y, report = layer.solve(params, x)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-9, atol=1e-9)
    assert float(report["residual"]) < 1e-11
    assert layer.singular_value_bound(params) == pytest.approx(theirs.singular_value_bound())
    gradient = jax.grad(lambda p, x: jnp.sum(g * layer(p, x)), argnums=(0, 1))
    for find in (gradient, jax.jit(gradient)) if parametrisation == "monotone" else (jax.jit(gradient),):
        found, in_x = find(params, jnp.asarray(x))
        np.testing.assert_allclose(in_x, tx.grad.numpy(), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found["V"], theirs.cell.V.grad.numpy(), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found["U"], theirs.cell.U.weight.grad.numpy(), rtol=1e-8, atol=1e-8)


def test_transforms() -> None:
    """Both modes, vmap, shapes."""
    layer = deep_equilibrium(3, 4, activation="tanh")
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 3))
    check_grads(layer, (params, x), order=1)
    np.testing.assert_allclose(jax.vmap(lambda t: layer(params, t))(x), layer(params, x), atol=1e-9)
    one = jax.jit(jax.vmap(jax.grad(lambda t: jnp.sum(layer(params, t)))))(x)
    np.testing.assert_allclose(one, jax.grad(lambda t: jnp.sum(layer(params, t)))(x), atol=1e-9)
    assert layer(params, x[0]).shape == (4,)
    assert layer(params, x[:0]).shape == (0, 4)
    assert layer(layer.init(jax.random.key(0), jnp.float32), x.astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.slow
def test_second_derivatives() -> None:
    """Both modes over both."""
    layer = deep_equilibrium(3, 4, activation="tanh")
    check_grads(layer, (layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 3))), order=2)


def test_second_derivatives_inside_of_loops() -> None:
    layer = deep_equilibrium(3, 4, activation="tanh")
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 3))
    plain = jax.hessian(lambda x: jnp.sum(layer(params, x)))
    looped = jax.hessian(lambda x: jnp.sum(jax.lax.map(lambda row: layer(params, row), x)))
    np.testing.assert_allclose(looped(x), plain(x), atol=1e-8)


def test_a_violated_condition() -> None:
    """W = 2 at 0: raised where values are known, a warning in a compiled program; below 0 there is no kink."""
    layer = deep_equilibrium(1, 1, parametrisation="free")
    params = {"V": jnp.full((1, 1), 2.0), "U": jnp.ones((1, 1)), "b": jnp.zeros(1)}
    gradient = jax.grad(lambda x: jnp.sum(layer(params, x)))
    np.testing.assert_allclose(gradient(jnp.full((2, 1), -1.0)), 0.0)
    with pytest.raises(NotInvertible, match="row 0"):
        gradient(jnp.zeros((2, 1)))
    with pytest.warns(ImplicitWarning, match="kink"):
        jax.block_until_ready(jax.jit(gradient)(jnp.zeros((2, 1))))
    with pytest.raises(NotConverged):
        layer(params, jnp.ones((2, 1)))


def test_a_kink_within_the_error_of_the_solution() -> None:
    """y2 = relu(2 y2 + y1 - 1 - 1e-7), where y1 = 1 is known to 1e-6."""
    layer = deep_equilibrium(2, 2, parametrisation="free", bias=False, tolerance=1e-6)
    params = {"V": jnp.array([[0.5, 0.0], [1.0, 2.0]]), "U": jnp.eye(2)}
    with pytest.raises(NotInvertible, match="row 0 of the batch"):
        jax.grad(lambda x: jnp.sum(layer(params, x)))(jnp.array([[0.5, -1 - 1e-7]]))


def test_a_cell() -> None:
    """Of one row: gradients, and the condition."""
    layer = deep_equilibrium(lambda w, y, x: jnp.tanh(w @ y + x))
    w, x = 0.3 * jax.random.normal(jax.random.key(0), (3, 3)), jax.random.normal(jax.random.key(1), (4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_grads(layer, (w, x), order=1, modes=["rev"])
    bad = deep_equilibrium(lambda _, y, x: 2 * jax.nn.relu(y) + x)
    with pytest.raises(NotInvertible):
        jax.grad(lambda x: jnp.sum(bad(None, x)))(jnp.zeros((2, 1)))


def test_a_step_of_training_lowers_the_loss() -> None:
    """Gradient steps."""
    layer = deep_equilibrium(3, 4)
    params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (20, 3))
    target = jnp.sin(3 * x[:, :1])

    @jax.jit
    def step(params: Any) -> Any:
        value, slope = jax.value_and_grad(lambda p: jnp.mean((jnp.sum(layer(p, x), 1, keepdims=True) - target) ** 2))(
            params
        )
        return value, jax.tree.map(lambda a, b: a - 0.01 * b, params, slope)

    losses = []
    for _ in range(6):
        value, params = step(params)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_layer_is_pickled() -> None:
    layer = deep_equilibrium(2, 3)
    again = pickle.loads(pickle.dumps(layer))
    assert again == layer
    params, x = layer.init(jax.random.key(0)), jnp.ones((4, 2))
    np.testing.assert_array_equal(again(params, x), layer(params, x))


def test_what_is_refused() -> None:
    """In words."""
    for arguments, options, words in [
        ((3,), {}, "width"),
        ((3, 4), {"activation": "nothing"}, "nothing"),
        ((3, 4), {"activation": lambda t: -jax.nn.relu(t)}, "increasing"),
        ((3, 4), {"activation": "gelu"}, "slopes"),
        ((3, 4), {"margin": 0.0}, "margin"),
    ]:
        with pytest.raises(UsageError, match=words):
            deep_equilibrium(*arguments, **options)
    layer = deep_equilibrium(3, 4)
    with pytest.raises(UsageError, match="3"):
        layer(layer.init(jax.random.key(0)), jnp.zeros((2, 4)))
