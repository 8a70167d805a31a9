"""Models of Equinox, Flax and plain pytrees: captured with proof, the gradient is jax.grad's, kinks name their modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 3, size=(4, 8, 8, 1)).astype("float32") / 2
IMAGES[:, :3] = 0
LABELS = np.array([0, 1, 2, 1])
TOKENS = np.array([[1, 2, 3, 0], [4, 1, 0, 0]])


def entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def squares(output: jax.Array, target: jax.Array) -> jax.Array:
    return ((output - target) ** 2).mean()


class LinenConvolutional(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.max_pool(linen.relu(linen.Conv(3, (3, 3), name="conv")(x)), (2, 2), strides=(2, 2))
        x = linen.BatchNorm(use_running_average=True)(x).reshape(len(x), -1)
        x = linen.Dropout(0.5, deterministic=True)(linen.relu(linen.Dense(8, name="hidden")(x)))
        return linen.Dense(3)(x)


class LinenBert(linen.Module):
    """The parts of BERT: embeddings, attention with a mask, layer norms, a feed-forward block, a pooler."""

    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = linen.Embed(6, 8)(tokens) + self.param("position", linen.initializers.normal(), (4, 8))
        mask = linen.make_attention_mask(tokens > 0, tokens > 0)
        for _ in range(2):
            x = linen.LayerNorm()(x + linen.MultiHeadDotProductAttention(num_heads=2)(x, mask=mask))
            x = linen.LayerNorm()(x + linen.Dense(8)(linen.relu(linen.Dense(16, name=None)(x))))
        return linen.Dense(3)(jnp.tanh(linen.Dense(8)(x[:, 0])))


class LinenRecurrent(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dense(3)(linen.relu(linen.RNN(linen.LSTMCell(5))(x[..., 0])[:, -1]))


class EquinoxPerceptron(eqx.Module):
    layers: list[eqx.nn.Linear]
    scale: jax.Array
    name: str = eqx.field(static=True)

    def __init__(self) -> None:
        first, second = jax.random.split(jax.random.key(0))
        self.layers = [eqx.nn.Linear(64, 8, key=first), eqx.nn.Linear(8, 3, key=second)]
        self.scale, self.name = jnp.ones(()), "perceptron"

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(jax.vmap(self.layers[0])(x.reshape(len(x), -1)))
        return self.scale * jax.vmap(self.layers[1])(hidden)


class EquinoxConvolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    head: eqx.nn.Linear

    def __init__(self) -> None:
        first, second = jax.random.split(jax.random.key(0))
        self.conv = eqx.nn.Conv2d(1, 2, 3, key=first)
        self.pool, self.head = eqx.nn.MaxPool2d(2, 2), eqx.nn.Linear(18, 3, key=second)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda image: self.head(self.pool(jax.nn.relu(self.conv(image))).reshape(-1)))(
            jnp.moveaxis(x, 3, 1)
        )


class NnxConvolutional(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.head = nnx.Linear(48, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), strides=(2, 2))
        return self.head(self.drop(x.reshape(len(x), -1)))


class Pair(NamedTuple):
    """A pytree that can be called."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.maximum(x.reshape(len(x), -1) @ self.weight + self.bias, 0)


def bound(module: linen.Module, inputs: Any) -> linen.Module:
    return module.bind(module.init(jax.random.key(0), inputs))


class Model(NamedTuple):
    make: Callable[[], Any]
    inputs: Any = IMAGES
    loss: Callable[..., Any] = entropy
    parameters: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


MODELS = {
    "linen convolutional": Model(
        lambda: bound(LinenConvolutional(), IMAGES),
        parameters=("conv.bias", "hidden.kernel"),
        modules=("LinenConvolutional",),
    ),
    "linen bert": Model(lambda: bound(LinenBert(), TOKENS), TOKENS, parameters=("position", "Embed_0.embedding")),
    "linen recurrent": Model(lambda: bound(LinenRecurrent(), IMAGES)),
    "equinox perceptron": Model(EquinoxPerceptron, parameters=("layers.0.weight", "scale")),
    "equinox convolutional": Model(EquinoxConvolutional, parameters=("conv.bias", "head.weight")),
    "nnx convolutional": Model(lambda: NnxConvolutional(nnx.Rngs(0)), parameters=("conv.kernel", "norm.scale")),
    "a pytree": Model(lambda: Pair(jnp.ones((64, 3)) / 8, jnp.zeros(3)), parameters=("weight", "bias")),
}


SHORT = ("equinox perceptron", "equinox convolutional", "nnx convolutional", "a pytree")
"""The others are many operations to compile."""


@pytest.fixture(params=[n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in MODELS], scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Model, Any, Any, tuple[Any, ...], ns.Program]:
    model = MODELS[request.param]
    f, x = ns.objective(model.make(), model.loss)
    data = jnp.asarray(model.inputs), jnp.asarray(LABELS[: len(model.inputs)])
    return model, f, x, data, ns.capture(f, x, *data)


def test_a_model_is_captured_with_proof(case: Any) -> None:
    model, _, x, _, program = case
    assert program.proof.status == "sampled" and program.proof.nearby >= 1
    assert program.proof.gradient_error < program.proof.tolerance
    assert set(model.parameters) <= set(x)


def test_its_gradient_is_that_of_jax(case: Any) -> None:
    _, f, x, data, program = case
    native, found = jax.grad(f)(x, *data), ns.backprop(program, x, *data)
    assert sorted(native) == sorted(found)
    for name, part in native.items():
        np.testing.assert_allclose(found[name], part, rtol=2e-4, atol=1e-6)
    assert any(np.any(part) for part in native.values())


def test_its_kinks_name_modules(case: Any) -> None:
    model, _, x, data, program = case
    table = ns.kinks(program, x, *data)
    assert any(row.operation in ("relu", "maximum", "max_pool") for row in table)
    for name in model.modules:
        assert any(name in row.module for row in table), [row.module for row in table]


def test_a_relu_under_vmap_is_a_kink() -> None:
    table = ns.kinks(lambda x: jax.vmap(lambda row: jax.nn.relu(row).sum())(x).sum(), jnp.zeros((2, 3)))
    assert [(row.operation, row.count) for row in table] == [("relu", 6)]


def test_the_model_is_not_changed() -> None:
    model = NnxConvolutional(nnx.Rngs(0))
    before = jax.tree_util.tree_map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    f, x = ns.objective(model, entropy)
    ns.backprop(f, {n: 2 * part for n, part in x.items()}, jnp.asarray(IMAGES), jnp.asarray(LABELS))
    after = jax.tree_util.tree_map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(np.array_equal, before, after))


def test_a_step_gets_the_model() -> None:
    pair = Pair(jnp.ones((2, 3)), jnp.zeros(3))
    f, x = ns.objective(pair, step=lambda model, inputs: model(inputs).sum() + jnp.abs(model.bias).sum())
    assert float(f(x, jnp.ones((1, 2)))) == 6.0
    assert [row.operation for row in ns.kinks(f, x, jnp.ones((1, 2))) if row.count] == ["abs"]


class LinenTrained(linen.Module):
    """As in training: batch statistics are written, dropout draws."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x))
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=False)(linen.relu(x)))


def test_a_bound_module_keeps_what_may_change_and_its_keys() -> None:
    inputs, target = jnp.linspace(-1, 1, 12).reshape(6, 2), jnp.ones((6, 1))
    module, keys = LinenTrained(), {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, inputs)
    bound = module.bind(variables, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"])
    f, x = ns.objective(bound, squares)
    before = jax.tree.map(np.asarray, bound.variables)
    expected = squares(
        module.apply(variables, inputs, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"])[0], target
    )
    assert float(f(x, inputs, target)) == float(f(x, inputs, target)) == pytest.approx(float(expected))
    assert ns.subgradient(f, x, inputs, target).certificate.status == "computed"
    found, native = ns.backprop(f, x, inputs, target), jax.grad(f)(x, inputs, target)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, native)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, bound.variables))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (LinenConvolutional(), {"loss": squares}, "bind"),
        (Pair(jnp.ones((2, 2)), jnp.zeros(2)), {}, "either a loss"),
        (Pair(jnp.ones((2, 2)), jnp.zeros(2)), {"loss": 3}, "callable"),
        (Pair(jnp.ones((2, 2), dtype=int), jnp.zeros(2, dtype=int)), {"loss": squares}, "no trainable parameter"),
        (jnp.ones(3), {"loss": squares}, "objective takes"),
        ("a model", {"loss": squares}, "objective takes"),
    ],
)
def test_what_is_no_model_is_said_so(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ns.objective(model, **options)


def test_data_without_a_target_is_said_so() -> None:
    f, x = ns.objective(Pair(jnp.ones((2, 3)), jnp.zeros(3)), squares)
    with pytest.raises(UsageError, match=r"\(\*inputs, target\)"):
        f(x, jnp.ones((1, 2)))
