"""Certificates of JAX programs: values cut off by `stop_gradient`, shifts that cancel, and what they are made of."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
from jax import lax, nn
from jax import numpy as jnp

import nonsmooth as ns

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


@pytest.mark.parametrize("name", some(CANCELS, 5))
def test_a_shift_that_cancels_is_immaterial(name: str) -> None:
    f = CANCELS[name]
    _, gradient, certificate = ns.subgradient(f, POINT)
    assert certificate.status == "computed", certificate
    assert float((gradient * WEIGHTS).sum()) == pytest.approx(slope(f, POINT, WEIGHTS), rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("name", some(DETACHED, 4))
def test_a_dependence_that_is_cut_off_is_reported(name: str) -> None:
    certificate = ns.subgradient(DETACHED[name], POINT).certificate
    assert certificate.status == "undecided"
    assert "detached" in {r.rule for r in certificate.reasons}
    assert "stop" in str(certificate.reasons[0].source) or "largest" in str(certificate.reasons[0].source)


def test_a_tie_with_a_value_that_is_cut_off_is_a_jump() -> None:
    certificate = ns.subgradient(lambda u: jnp.where(u >= stop(u.max()), 2 * u, u).sum(), POINT).certificate
    assert {r.rule for r in certificate.reasons} == {"jump"}


def test_ties_of_a_shift_that_cancels_do_not_count() -> None:
    tied = jnp.zeros((3, 4))
    for f in (lambda u: (WEIGHTS * nn.softmax(u)).sum(), lambda u: nn.logsumexp(u, 1).sum()):
        _, gradient, certificate = ns.subgradient(f, tied)
        assert (certificate.status, certificate.kinks) == ("computed", 0)
        np.testing.assert_allclose(gradient, jax.grad(f)(tied), atol=1e-6)
        assert {k.can_matter for k in ns.kinks(f, tied) if k.count} == {0}
        assert ns.verdict(f, tied).status == ns.verdict(lambda u: nn.log_softmax(u)[0, 0], tied).status
        assert ns.subgradient(ns.capture(f, tied), tied).certificate.kinks == 0
