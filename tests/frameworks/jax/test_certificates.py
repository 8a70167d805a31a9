"""Certificates of JAX programs: values cut off by `stop_gradient`, shifts that cancel, and what they are made of."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
from jax import lax, nn
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.dictionary import Kind
from nonsmooth.frameworks.framework import ROUNDING
from nonsmooth.frameworks.jax.compiled import _Compiled
from nonsmooth.kinks.resolution import follow_directions

stop = lax.stop_gradient
MASK = jnp.array([True, False, True, True])
LABELS = jnp.array([2, 0, 3])
POINT = jnp.array(np.random.default_rng(3).normal(size=(3, 4)), dtype=jnp.float32)
WEIGHTS = jnp.array(np.random.default_rng(4).normal(size=(3, 4)), dtype=jnp.float32)


def largest(u, axis=-1):
    """Give what stable formulas subtract."""
    return stop(jnp.max(u, axis=axis, keepdims=True))


def attention(u, scale=1.0, bias=0.0):
    """Write attention as many do."""
    scores = jnp.einsum("id,jd->ij", u, WEIGHTS) * scale + bias
    e = jnp.exp(scores - largest(scores))
    return jnp.sum((e / e.sum(-1, keepdims=True)) @ jnp.sin(u))


def online(u):
    """Take the softmax piece by piece, each with a shift of its own."""
    m1 = stop(u[:, :2].max(1))
    m2 = stop(jnp.maximum(m1, u[:, 2:].max(1)))
    first = jnp.exp(u[:, :2] - m1[:, None]).sum(1) * jnp.exp(m1 - m2)
    return (jnp.log(first + jnp.exp(u[:, 2:] - m2[:, None]).sum(1)) + m2).sum()


def scanned(u):
    """Take log-sum-exp of row after row."""

    def body(total, row):
        m = stop(row.max())
        return total + jnp.log(jnp.exp(row - m).sum()) + m, None

    return lax.scan(body, 0.0, u)[0]


CANCELS = {
    **{f"softmax {axis}": lambda u, axis=axis: (WEIGHTS * nn.softmax(u, axis)).sum() for axis in (0, 1, -1, (0, 1))},
    "softmax where": lambda u: (WEIGHTS * nn.softmax(u, where=MASK[None], axis=1)).sum(),
    **{f"logsumexp {axis}": lambda u, axis=axis: jnp.sin(nn.logsumexp(u, axis)).sum() for axis in (0, 1, (0, 1), None)},
    "logsumexp keepdims": lambda u: (u - nn.logsumexp(u, 1, keepdims=True))[:, 1].sum(),
    "logsumexp b": lambda u: nn.logsumexp(u, 1, b=jnp.array([1.0, 0.5, 0.0, 2.0])).sum(),
    "logsumexp where": lambda u: nn.logsumexp(u, 1, where=MASK[None]).sum(),
    "logsumexp sign": lambda u: jnp.prod(jnp.stack(nn.logsumexp(u, 1, b=WEIGHTS, return_sign=True)), 0).sum(),
    "log_softmax": lambda u: (WEIGHTS * nn.log_softmax(u, 0)).sum(),
    "log_softmax shifted": lambda u: (WEIGHTS * nn.log_softmax(u - largest(u))).sum(),
    "log_softmax where": lambda u: nn.log_softmax(u, where=MASK[None])[:, 0].sum(),
    "logmeanexp": lambda u: nn.logmeanexp(u, 1).sum(),
    "attention": attention,
    "attention scaled": lambda u: attention(u, 0.5),
    "attention masked": lambda u: attention(u, bias=jnp.where(jnp.tri(3, dtype=bool), 0.0, -jnp.inf)),
    "dot_product_attention": lambda u: jnp.sin(
        nn.dot_product_attention(*[u.reshape(1, 3, 2, 2)] * 3, is_causal=True)
    ).sum(),
    "optax": lambda u: optax.softmax_cross_entropy(u, nn.softmax(WEIGHTS)).mean(),
    "optax labels": lambda u: optax.softmax_cross_entropy_with_integer_labels(u, LABELS).mean(),
    "own labels": lambda u: -jnp.mean(jnp.take_along_axis(nn.log_softmax(u - largest(u)), LABELS[:, None], 1)),
    "own one-hot": lambda u: (
        jnp.log(jnp.exp(u - largest(u)).sum(1)) + largest(u)[:, 0] - (u * nn.one_hot(LABELS, 4)).sum(1)
    ).mean(),
    "own gather": lambda u: (lambda z: (jnp.log(jnp.exp(z).sum(1)) - z[jnp.arange(3), LABELS]).mean())(
        u - stop(u.max())
    ),
    "two means": lambda u: jnp.log(jnp.exp(u - largest(u)).sum(1)).mean() + largest(u).mean(),
    "temperature": lambda u: (0.25 * jnp.log(jnp.exp((u - largest(u)) / 0.25).sum(1)) + largest(u)[:, 0]).sum(),
    "norm": lambda u: (lambda m: jnp.sqrt(jnp.square(jnp.exp(u - m)).sum()) * jnp.exp(m))(stop(u.max())),
    "hinge": lambda u: (nn.relu(jnp.exp(u - largest(u)) - jnp.exp(u[:, :1] - largest(u))) * jnp.exp(largest(u))).sum(),
    "choice": lambda u: (lambda z: jnp.where(z > z[:, :1], z, z[:, :1]) - z[:, 1:2])(u - largest(u)).sum(),
    "sorted": lambda u: (lambda z: jnp.sort(z, 1)[:, 3] - z[:, 0])(u - largest(u)).sum(),
    "argmax": lambda u: (jnp.argmax(u - largest(u), 1) * u[:, 0]).sum(),
    "online": online,
    "scan": scanned,
    "vmap": lambda u: jax.vmap(lambda row: nn.logsumexp(row))(u).sum(),
    "checkpoint": lambda u: jax.checkpoint(lambda v: nn.softmax(v)[:, 0].sum())(u),
    "nested": lambda u: nn.logsumexp(nn.softmax(u) * 3 + nn.logsumexp(u, 0)),
    "times zero": lambda u: (0.0 * stop(u) + u).sum(),
    "not tied": lambda u: jnp.where(jnp.exp(u - largest(u)) > 0.5, u, 2 * u).sum(),
}
"""Programs whose result, by algebra, does not depend on the values that they cut off."""

DETACHED = {
    "straight through": lambda u: (u + stop(jnp.round(u) - u)).sum(),
    "difference": lambda u: (u - stop(u)).sum(),
    "factor": lambda u: (u * stop(u)).sum(),
    "wrong sign": lambda u: (jnp.log(jnp.exp(u - largest(u)).sum(1)) - largest(u)[:, 0]).sum(),
    "not added back": lambda u: jnp.log(jnp.exp(u - largest(u)).sum(1)).sum(),
    "added back twice": lambda u: (nn.logsumexp(u, 1) + largest(u)[:, 0]).sum(),
    "along one axis": lambda u: (jnp.exp(u - stop(u.max(0))) / jnp.exp(u - stop(u.max(0))).sum(1, keepdims=True))[
        :, 0
    ].sum(),
    "another axis": lambda u: jnp.log(jnp.exp(u - largest(u, 0)).sum(1)).sum() + largest(u, 0).sum(),
    "another row": lambda u: (jnp.log(jnp.exp(u - largest(u)).sum(1)) + largest(u)[::-1, 0])[0],
    "another maximum": lambda u: jnp.log(jnp.exp(u - stop(u.max())).sum()) + stop(u.min()),
    "half cancelled": lambda u: jnp.log(jnp.exp((u - largest(u)) / 2).sum(1)).sum() + largest(u).sum(),
    "temperature": lambda u: (jnp.log(jnp.exp((u - largest(u)) / 0.25).sum(1)) + largest(u)[:, 0]).sum(),
    "epsilon": lambda u: (lambda e: e / (e.sum(1, keepdims=True) + 1e-6))(jnp.exp(u - largest(u)))[:, 0].sum(),
    "off by one": lambda u: (lambda e: e / (1 + e.sum(1, keepdims=True)))(jnp.exp(u - largest(u)))[:, 0].sum(),
    "relu of a shift": lambda u: nn.relu(u - largest(u) + 1).sum(),
    "power": lambda u: (jnp.exp(u - largest(u)) / jnp.exp(u - largest(u)).sum(1, keepdims=True) ** 2)[:, 0].sum(),
    "gathered where it differs": lambda u: (lambda z: z[LABELS] - z[:, :1])(u - largest(u))[:, 0].sum(),
    "normalised": lambda u: (u / stop(jnp.linalg.norm(u))).sum(),
    "centred": lambda u: ((u - stop(u.mean())) ** 2).sum(),
    "vector times": lambda u: (stop(u.max(1)) @ u).sum() / 3,
    "clipped": lambda u: jnp.clip(u - largest(u), -1.0, 0.0).sum(),
    "one of two": lambda u: nn.logsumexp(u) + (u * stop(u)).sum(),
    "logaddexp of factors": lambda u: (
        jnp.logaddexp(u * jnp.exp(stop(u)), u * jnp.exp(stop(u))) / jnp.exp(stop(u))
    ).sum(),
    "filled": lambda u: (
        jnp.broadcast_to(u[0, 0] - stop(u[0, 0]), (3,)).at[7].get(mode="fill", fill_value=0.0) + stop(u[0, 0])
    ),
}
"""Programs whose result depends on what they cut off."""


def some(programs, every):
    """List the names of programs, of which all but a few are slow: each is captured and compiled."""
    return [n if k % every == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(programs)]


def slope(f, x, v, h=1e-5):
    """Take a central difference in double precision."""
    with jax.enable_x64(True):
        wide, along = np.asarray(x, dtype=np.float64), np.asarray(v, dtype=np.float64)
        high, low = (f(jnp.asarray(wide + s * h * along)) for s in (1, -1))
        return (float(high) - float(low)) / (2 * h)


@pytest.mark.parametrize("name", some(CANCELS, 8))
def test_a_shift_that_cancels_is_immaterial(name: str) -> None:
    f = CANCELS[name]
    _, gradient, certificate = ns.subgradient(f, POINT)
    assert certificate.status == "computed", certificate
    assert float((gradient * WEIGHTS).sum()) == pytest.approx(slope(f, POINT, WEIGHTS), rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("name", some(DETACHED, 7))
def test_a_dependence_that_is_cut_off_is_reported(name: str) -> None:
    certificate = ns.subgradient(DETACHED[name], POINT).certificate
    assert certificate.status == "undecided"
    assert "detached" in {r.rule for r in certificate.reasons}
    assert "stop" in str(certificate.reasons[0].source) or "largest" in str(certificate.reasons[0].source)


def test_a_tie_with_a_value_that_is_cut_off_is_decided_by_how_the_values_move() -> None:
    """u >= max(u) always holds at the largest entry: the branches part there, and F jumps nearby."""
    certificate = ns.subgradient(lambda u: jnp.where(u >= stop(u.max()), 2 * u, u).sum(), POINT).certificate
    assert certificate.status == "undecided"
    _, gradient, certificate = ns.subgradient(lambda t: jnp.where(stop(t) > 0, t, -t), jnp.array(0.0))
    assert certificate.certified and abs(float(gradient)) == 1.0


@pytest.mark.parametrize("name", ["logaddexp of factors", "filled"])
def test_a_rule_that_holds_for_shifts_alone_takes_no_factors(name: str) -> None:
    assert ns.subgradient(DETACHED[name], POINT).certificate.status == "undecided"


def test_ties_of_a_shift_that_cancels_do_not_count() -> None:
    tied = jnp.zeros((3, 4))
    for f in (lambda u: (WEIGHTS * nn.softmax(u)).sum(), lambda u: nn.logsumexp(u, 1).sum()):
        _, gradient, certificate = ns.subgradient(f, tied)
        assert (certificate.status, certificate.kinks) == ("computed", 0)
        np.testing.assert_allclose(gradient, jax.grad(f)(tied), atol=1e-6)
        assert {k.can_matter for k in ns.kinks(f, tied) if k.count} == {0}
        assert ns.verdict(f, tied).status == ns.verdict(lambda u: nn.log_softmax(u)[0, 0], tied).status
        assert ns.subgradient(ns.capture(f, tied), tied).certificate.kinks == 0


# --- scales of tangents -----------------------------------------------------------------------------------------------


def dense(u, n, seed, bias=0.0):
    """Apply a layer with fixed weights."""
    weights = np.random.default_rng(seed).normal(size=(u.shape[-1], n)) / np.sqrt(u.shape[-1])
    return u @ jnp.asarray(weights, dtype=u.dtype) + bias


def layer_norm(u):
    """Normalise along the last axis, as Flax does."""
    mean = u.mean(-1, keepdims=True)
    variance = jnp.maximum(0.0, jnp.square(u).mean(-1, keepdims=True) - jnp.square(mean))
    return (u - mean) * lax.rsqrt(variance + 1e-5)


def deep(u):
    """Apply six layers, with skips."""
    for k in range(6):
        u = u + nn.relu(dense(layer_norm(u), u.shape[-1], k, 0.1))
    return u.mean()


def attended(u):
    """Apply two blocks of attention."""
    for k in range(2):
        q, r, v = (dense(layer_norm(u), 16, 10 * k + j) for j in range(3))
        u = u + dense(nn.softmax(q @ r.T / 4) @ v, u.shape[-1], 10 * k + 4)
        u = u + dense(nn.gelu(dense(layer_norm(u), 32, 10 * k + 5)), u.shape[-1], 10 * k + 6)
    return nn.logsumexp(u, 1).sum()


def convolved(u):
    """Convolve and pool."""
    image = u.reshape(1, 8, -1, 1)
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 1, 4)), dtype=u.dtype)
    found = lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    pooled = lax.reduce_window(jnp.tanh(found), jnp.array(0, u.dtype), lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return nn.log_softmax(pooled.reshape(2, -1)).std()


def cancelling(u):
    """Subtract what is nearly equal."""
    return ((u + 8.0) ** 2 - (u + 7.0) ** 2 - 2 * u).sum() + jnp.var(u + 4) + jnp.cumsum(u - u.mean()).sum()


def centred(u):
    """Normalise without cancelling squares."""
    apart = u - u.mean(-1, keepdims=True)
    return apart / jnp.sqrt(0.1 + jnp.square(apart).mean(-1, keepdims=True))


def generated(seed):
    """Compose entry-wise functions, sums, products and moves at random."""
    rng = np.random.default_rng(seed)
    unary = (
        jnp.sin,
        jnp.tanh,
        jnp.exp,
        jnp.square,
        nn.sigmoid,
        nn.softplus,
        lambda u: u / (1 + u * u),
        jnp.abs,
        centred,
    )
    binary = (
        jnp.add,
        jnp.subtract,
        jnp.multiply,
        lambda a, b: a / (1.5 + jnp.sin(b)),
        lambda a, b: a @ b.T @ a,
        jnp.maximum,
    )
    plan = [
        (rng.integers(2), rng.integers(len(unary)), rng.integers(len(binary)), rng.integers(4, size=2))
        for _ in range(6)
    ]

    def f(u):
        values = [u, dense(u, u.shape[1], seed), u[::-1], u - u.sum(0) / 7]
        for two, one, other, (i, j) in plan:
            a, b = values[-1 - i], values[-1 - j]
            new = binary[other](a, b) if two else unary[one](a)
            values.append(3 * jnp.tanh(new / 3))
        return values[-1].sum() + values[-2].mean()

    return f


def tangents_of(f, x, v):
    """Push a direction through a program; give the tangents with their scales, step by step."""
    program = ns.capture(f, x)
    run = program.framework.evaluate(program, x, (), select=follow_directions(), directions=[lambda: v])
    values = [(s.label, r) for s in program.steps for r in s.results if program.values[r].differentiable]
    return [(label, run.tangents.of(r, 0), run.tangents.scales[r, 0]) for label, r in values]


def rounding_of_tangents(f, x, v):
    """Compare the tangents of single precision with those of double: the errors in units of eps times the scale."""
    single = tangents_of(f, x, v)
    with jax.enable_x64(True):
        double = tangents_of(
            f, jnp.asarray(np.asarray(x, dtype=np.float64)), jnp.asarray(np.asarray(v, dtype=np.float64))
        )
        wide = [None if t is None else np.asarray(t) for _, t, _ in double]
    assert [label for label, *_ in single] == [label for label, *_ in double]
    errors = []
    for (_, t, scale), exact in zip(single, wide, strict=True):
        if t is not None and t.size:
            error = float(np.abs(np.asarray(t, dtype=np.float64) - exact).max())
            assert scale or not error
            errors.append(error / (float(jnp.finfo(jnp.float32).eps) * scale) if scale else 0.0)
    return errors


LAYERS = {"cancelling": cancelling, "deep": deep, "convolution": convolved, "attention": attended}


@pytest.mark.parametrize("name", some([*LAYERS, *(f"generated {k}" for k in range(12))], 8))
def test_scales_bound_the_rounding_of_tangents(name: str) -> None:
    f = LAYERS.get(name) or generated(int(name.split()[1]))
    rng = np.random.default_rng(7)
    x, v = (jnp.asarray(rng.normal(size=(8, 12)), dtype=jnp.float32) for _ in range(2))
    assert max(rounding_of_tangents(f, x, v)) < ROUNDING


@pytest.mark.slow
def test_scales_stay_near_the_tangents() -> None:
    """Attention has tangents that pass the shift of a softmax, and cancel: its scales count them."""
    rng = np.random.default_rng(7)
    x, v = (jnp.asarray(rng.normal(size=(8, 12)), dtype=jnp.float32) for _ in range(2))
    for f, most in ((deep, 300.0), (attended, 100.0)):
        loose = [s / float(jnp.abs(t).max()) for _, t, s in tangents_of(f, x, v)[-40:] if t is not None and t.size > 20]
        assert np.median(loose) < most


# --- compiled subgradients --------------------------------------------------------------------------------------------


def network(name, seed=0):
    """Give a small network on data with many zeros, and its weights, a third of them dead."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(3, 6, 6))
    weights[:, :, :2] = 0
    inputs = np.maximum(rng.integers(-2, 3, size=(4, 6)), 0) / 2

    def f(w, inputs):
        h = inputs
        for part in w:
            h = ACTIVATIONS[name](h @ part)
        return (h * h).mean() + jnp.max(h)

    return f, jnp.asarray(weights, dtype=jnp.float32), jnp.asarray(inputs, dtype=jnp.float32)


ACTIVATIONS = {
    "relu": nn.relu,
    "no kink": jnp.tanh,
    "pooled": lambda u: jnp.repeat(jnp.max(nn.relu(u).reshape(4, 3, 2), -1), 2, axis=1),
    "abs": jnp.abs,
    "clip": lambda u: jnp.clip(u, -0.5, 0.5),
    "maximum": lambda u: jnp.maximum(u, u[:, ::-1]),
    "sort": lambda u: jnp.sort(u, axis=1),
    "norm": lambda u: u / (1 + jnp.linalg.norm(u, axis=1, keepdims=True)),
    "softmax": nn.softmax,
}


def both(f, x, *data):
    """Take the subgradient of a captured program and of the function."""
    fast, slow = ns.subgradient(ns.capture(f, x, *data), x, *data), ns.subgradient(f, x, *data)
    return fast, slow


@pytest.mark.parametrize("name", some(ACTIVATIONS, 6))
def test_compiled_subgradients_are_those_of_a_run(name: str) -> None:
    fast, slow = both(*network(name))
    assert fast.certificate.status == slow.certificate.status
    assert fast.certificate.kinks == slow.certificate.kinks
    assert float(fast.value) == pytest.approx(float(slow.value), rel=1e-5)
    np.testing.assert_allclose(fast.gradient, slow.gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda u: jnp.where(u * u > 0, u, 2 * u).sum(), 0.0),
        (lambda u: jnp.sqrt(nn.relu(u)).sum(), 0.0),
        (lambda u: jnp.sqrt(u * u).sum(), 0.0),
        (lambda u: (u * jnp.sign(u + 0.0)).sum() + jnp.sign(u).sum(), 0.0),
        (lambda u: jnp.floor(u).sum() + nn.relu(u).sum(), 1.0),
        (lambda u: nn.relu(u).sum() + (u - stop(u)).sum(), 0.0),
    ],
)
def test_compiled_subgradients_certify_nothing_that_a_run_does_not(f, x) -> None:
    fast, slow = both(f, jnp.full(2, x, dtype=jnp.float32))
    assert (fast.certificate.status, slow.certificate.status) == ("undecided", "undecided")


def test_a_tangent_lost_in_rounding_is_harmless_alone() -> None:
    """Beside other kinks, whose arguments may be multiples of its own, its side is left to another direction."""
    judge = object.__new__(_Compiled)
    lost, decided = (1, 1, 1e-8, np.inf, 1.0, 1e-6), (1, 0, 0.5, 0.5, 1.0, 1e-6)
    judge._kinds = [Kind.SWITCH]
    assert judge._judged([lost]) == (1, 1e-8)
    judge._kinds = [Kind.SWITCH, Kind.SWITCH]
    assert judge._judged([lost, decided]) is None and judge._judged([decided, decided]) == (2, 0.5)


def test_compiled_subgradients_see_near_ties() -> None:
    with jax.enable_x64(True):
        x = jnp.array([0.1, 0.2, -0.3], dtype=jnp.float64)
        f = lambda u: nn.relu((u[0] + u[1]) + u[2]) - nn.relu(u[0] + (u[1] + u[2]))  # noqa: E731
        fast, slow = both(f, x)
        assert (fast.certificate.status, slow.certificate.status) == ("undecided", "undecided")


def test_the_normal_form_speaks_jax() -> None:
    def tied(x):
        return lax.cond(x[0] > 0, lambda a: a[0] + a[1], lambda a: 2 * a[0] + a[1], x)

    for f, words in ((jnp.max, "jax.numpy.maximum"), (tied, "jax.numpy.where")):
        with pytest.raises(ns.errors.UsageError, match=words) as raised:
            ns.abs_normal(f, jnp.zeros(2))
        assert "torch" not in str(raised.value)
