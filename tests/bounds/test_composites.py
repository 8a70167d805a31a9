"""Formulas that are known again: they give the bound of the map that they are, and look-alikes do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.bounds.composites import Composites
from nonsmooth.frameworks.framework import find_framework
from tests.adapters import Adapter

X = np.array([[3.0, 0.0], [0.0, 4.0]])
W = np.ones((2, 2))


def lipschitz(xp: Adapter, f: Callable[[Any], Any]) -> tuple[float, float]:
    """Bound a function of a matrix in the unit ball."""
    found = ns.bounds(f, xp.array(W), weights=1.0).weights
    return found.lipschitz, found.smoothness


def softmax(xp: Adapter, z: Any, axis: int) -> Any:
    """Write softmax out."""
    e = xp.exp(z - xp.amax(z, axis)[:, None] if axis == 1 else z - xp.amax(z, axis)[None, :])
    total = xp.sum(e, axis)
    return e / (total[:, None] if axis == 1 else total[None, :])


PRODUCTS: dict[str, tuple[Callable[[Adapter, Any], Any], tuple[float, float]]] = {
    "sum of squares": (lambda xp, w: xp.sum(w * w), (2, 2)),
    "a power": (lambda xp, w: xp.sum(w**2), (2, 2)),
    "half": (lambda xp, w: xp.sum(w * w) / 2, (1, 1)),
    "half of each": (lambda xp, w: xp.sum(w * w / 2), (1, 1)),
    "minus": (lambda xp, w: xp.sum(-(w * w) * 3), (6, 6)),
    "mean": (lambda xp, w: xp.mean(w * w), (0.5, 0.5)),
    "of each row": (lambda xp, w: xp.sum(w * w, 1), (2, 2)),
    "with another": (lambda xp, w: xp.sum(w * (2 * w)), (4, 4)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_sums_of_products(xp: Adapter, name: str) -> None:
    """|sum u v| <= ||u|| ||v||, in the place of sqrt(n) times the norm of the products."""
    f, constants = PRODUCTS[name]
    assert lipschitz(xp, lambda w: f(xp, w)) == pytest.approx(constants, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_written_out(xp: Adapter, axis: int) -> None:
    """exp(z - max) / sum is softmax along its axis: 1/2 and .27217."""
    assert lipschitz(xp, lambda w: softmax(xp, 100 * w, axis))[0] == pytest.approx(50, rel=1e-6)


def not_softmax(xp: Adapter, w: Any) -> Any:
    """Divide by the sum along the other axis: not a softmax."""
    e = xp.exp(w)
    return e / xp.sum(e, 0)[:, None]


def shifted_by_rows(xp: Adapter, w: Any) -> Any:
    """Shift by what differs along the axis: not a softmax of w."""
    e = xp.exp(w - 3 * w)
    return e / xp.sum(e, 1)[:, None]


def test_look_alikes_are_no_softmax(xp: Adapter) -> None:
    """A quotient whose parts do not belong together keeps the bound of its steps."""
    assert lipschitz(xp, lambda w: not_softmax(xp, w))[0] > 1
    assert lipschitz(xp, lambda w: shifted_by_rows(xp, w))[0] >= 0.99


def test_a_value_that_is_written_to_is_no_part_of_a_formula() -> None:
    """What went in may be another value by then."""
    torch = pytest.importorskip("torch")

    def f(w: Any) -> Any:
        u = 2 * w
        z = u * u
        u.zero_()
        return z.sum() + u.sum()

    assert ns.bounds(f, torch.ones(2, 2), weights=1.0).weights.lipschitz >= 8


# --- formulas that a framework has, or a user writes out --------------------------------------------------------------

POINT = np.random.default_rng(0).normal(size=(2, 4)) * 2


def both(f: Callable[[Any], Any], point: Any, radius: float = 1.0) -> tuple[float, float]:
    """Bound a function in a ball about a point."""
    found = ns.bounds(f, point, weights=ns.Ball(radius, "here")).both
    return found.lipschitz, found.smoothness


WRITTEN = (
    "layer norm|layer norm by var|layer norm by moments|rms norm|batch norm|group norm|logsumexp|log_softmax|relu by where|"
    "relu by where, other side|relu by a mask|relu by abs|leaky relu|abs|clamp|gelu|silu|softsign"
).split("|")


def written_in_torch() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """Give operations of torch, and the same written out."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def centred(x: Any) -> Any:
        return x - x.mean(-1, keepdim=True)

    def group(x: Any) -> Any:
        y = x.reshape(2, 2, 2)
        return ((y - y.mean(-1, keepdim=True)) * (y.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()).reshape(2, 4)

    return {
        "layer norm": (
            lambda x: functional.layer_norm(x, (4,)),
            lambda x: centred(x) / (centred(x).pow(2).mean(-1, keepdim=True) + 1e-5).sqrt(),
        ),
        "layer norm by var": (
            lambda x: functional.layer_norm(x, (4,)),
            lambda x: centred(x) * (x.var(-1, unbiased=False, keepdim=True) + 1e-5) ** -0.5,
        ),
        "layer norm by moments": (
            lambda x: functional.layer_norm(x, (4,)),
            lambda x: centred(x) / (((x * x).mean(-1) - x.mean(-1).square()).clamp(min=0)[:, None] + 1e-5).sqrt(),
        ),
        "rms norm": (
            lambda x: functional.rms_norm(x, (4,), eps=1e-5),
            lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
        ),
        "batch norm": (
            lambda x: functional.batch_norm(x, None, None, training=True),
            lambda x: (x - x.mean(0)) / torch.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5),
        ),
        "group norm": (lambda x: functional.group_norm(x, 2), group),
        "logsumexp": (lambda x: torch.logsumexp(x, 1), lambda x: x.exp().sum(1).log()),
        "log_softmax": (lambda x: torch.log_softmax(x, 1), lambda x: x - torch.logsumexp(x, 1, keepdim=True)),
        "relu by where": (torch.relu, lambda x: torch.where(x > 0, x, 0.0)),
        "relu by where, other side": (torch.relu, lambda x: torch.where(x <= 0, torch.zeros_like(x), x)),
        "relu by a mask": (torch.relu, lambda x: x * (x > 0)),
        "relu by abs": (torch.relu, lambda x: (x + x.abs()) / 2),
        "leaky relu": (functional.leaky_relu, lambda x: torch.where(x > 0, x, 0.01 * x)),
        "abs": (torch.abs, lambda x: torch.where(x < 0, -x, x)),
        "clamp": (lambda x: x.clamp(-1, 1), lambda x: torch.where(x > 1, 1.0, torch.where(x < -1, -1.0, x))),
        "gelu": (
            lambda x: functional.gelu(x, approximate="tanh"),
            lambda x: 0.5 * x * (1 + torch.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
        "silu": (functional.silu, lambda x: x / (1 + torch.exp(-x))),
        "softsign": (functional.softsign, lambda x: x / (1 + x.abs())),
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_in_torch(name: str) -> None:
    """A formula has the bounds of the operation that it is."""
    torch = pytest.importorskip("torch")
    whole, written = written_in_torch()[name]
    point = torch.tensor(POINT)
    assert torch.allclose(whole(point), written(point))
    found, expected = both(written, point), both(whole, point)
    assert found == pytest.approx(expected, rel=1e-6) or all(f <= e for f, e in zip(found, expected, strict=True))


def look_alikes() -> dict[str, Callable[[Any], Any]]:
    """Give formulas that are nearly those above, and jump or bend more than they."""
    torch = pytest.importorskip("torch")
    return {
        "a step": lambda x: torch.where(x > 0, x + 1, x),
        "a step elsewhere": lambda x: torch.where(2 * x > 1, x, -x),
        "a step at another number": lambda x: torch.where(x > 0.5, x, 0.0),
        "a mask": lambda x: (x + 1) * (x > 0),
    }


@pytest.mark.parametrize("name", "a step|a step elsewhere|a step at another number|a mask".split("|"))
def test_what_jumps_has_no_constant(name: str) -> None:
    """Pieces that do not join are not joined."""
    torch = pytest.importorskip("torch")
    assert both(look_alikes()[name], torch.tensor(POINT), 10.0)[0] == np.inf


def test_pieces_that_join_at_an_end_of_the_interval() -> None:
    """A jump at the very end of an interval counts, a kink there does not."""
    torch = pytest.importorskip("torch")
    ball = ns.Ball(0.5, "here")
    start = torch.tensor([0.5], dtype=torch.float64)
    assert ns.bounds(lambda x: torch.where(x > 0, x + 1, x), start, weights=ball).both.lipschitz == np.inf


def test_norms_that_are_none() -> None:
    """The mean along another axis, of something else, a deviation of other entries: no bound of a normalisation."""
    torch = pytest.importorskip("torch")
    square = torch.tensor(np.random.default_rng(1).normal(size=(4, 4)))

    def scale(x: Any, axis: int) -> Any:
        return (x.var(axis, correction=0) + 1e-5).sqrt()

    wrong = {
        "along another axis": lambda x: (x - x.mean(1, keepdim=True)) / scale(x, 0),
        "of something else": lambda x: (x - x.mean(1, keepdim=True)) / scale(3 * x, 1)[:, None],
        "spread along the other axis": lambda x: (x - x.mean(1, keepdim=True)) / scale(x, 1),
        "with another correction": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
        "half of the mean": lambda x: (x - x.mean(1, keepdim=True) / 2) / scale(x, 1)[:, None],
    }
    for name, f in wrong.items():
        program = find_framework(square).trace(f, square, ())
        records = [c.record for found in Composites(program).by_step.values() for c in found]
        assert "normalisation" not in records, name


def test_attention_written_out() -> None:
    """softmax(s Q K') V has at most the bounds of the fused operation, in every order of its axes."""
    torch = pytest.importorskip("torch")
    start = torch.tensor(np.random.default_rng(0).normal(size=(3, 2, 4, 2, 3)) * 0.4)

    def fused(w: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(w[0], w[1], w[2])

    def written(w: Any) -> Any:
        return torch.softmax(w[0] @ w[1].transpose(-2, -1) / np.sqrt(3), -1) @ w[2]

    def with_dropout(w: Any) -> Any:
        return torch.softmax((w[0] / np.sqrt(3)) @ w[1].mT, -1) @ w[2]

    assert torch.allclose(fused(start), written(start))
    for f in (written, with_dropout):
        assert all(a <= b * (1 + 1e-6) for a, b in zip(both(f, start), both(fused, start), strict=True))


def test_layers_of_jax() -> None:
    """Functions of jax.nn, and attention and norms of flax and equinox, have the bounds of torch's."""
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    from jax import numpy as jnp

    linen, equinox = pytest.importorskip("flax.linen"), pytest.importorskip("equinox")
    functional = torch.nn.functional
    with jax.enable_x64(True):
        pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
            "gelu": (lambda x: functional.gelu(x, approximate="tanh"), jax.nn.gelu),
            "gelu, exact": (functional.gelu, lambda x: jax.nn.gelu(x, approximate=False)),
            "glu": (functional.glu, jax.nn.glu),
            "softsign": (functional.softsign, jax.nn.soft_sign),
            "relu": (torch.relu, lambda x: jnp.where(x > 0, x, 0)),
            "logsumexp": (lambda x: torch.logsumexp(x, 1), lambda x: jax.nn.logsumexp(x, 1)),
            "logsumexp, kept": (lambda x: torch.logsumexp(x, 1), lambda x: jax.nn.logsumexp(x, 1, keepdims=True)),
            "log_softmax": (lambda x: torch.log_softmax(x, 1), jax.nn.log_softmax),
            "softmax": (lambda x: torch.softmax(x, 1), jax.nn.softmax),
            "softmax of all": (lambda x: torch.softmax(x.flatten(), 0), lambda x: jax.nn.softmax(x, (0, 1))),
            "standardize": (lambda x: functional.layer_norm(x, (4,)), lambda x: jax.nn.standardize(x, epsilon=1e-5)),
            "equinox": (lambda x: functional.layer_norm(x, (4,)), jax.vmap(equinox.nn.LayerNorm(4, dtype=float))),
        }
        layers = {"layer_norm": linen.LayerNorm(epsilon=1e-5), "group_norm": linen.GroupNorm(2, epsilon=1e-5)}
        for name, layer in layers.items():
            at = layer.init(jax.random.PRNGKey(0), jnp.asarray(POINT))
            shape = (4,) if name == "layer_norm" else 2
            pairs[f"flax, {name}"] = (
                lambda x, n=name, s=shape: getattr(functional, n)(x, s, torch.ones(4).to(x)),
                lambda x, m=layer, p=at: m.apply(p, x),
            )
        for name, (in_torch, in_jax) in pairs.items():
            expected = both(in_torch, torch.tensor(POINT))
            assert both(in_jax, jnp.asarray(POINT)) == pytest.approx(expected, rel=1e-6), name
