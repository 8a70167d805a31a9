"""Verdicts on gradients: certified and artifact are certain, everything else is undecided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nonsmooth as ns
from tests.adapters import Adapter, served
from tests.references.clarke import clarke_hull_points, in_hull
from tests.references.field import field_values, random_program, to_framework
from tests.shortened import shortened

R = torch.relu
ZERO = torch.tensor(0.0, dtype=torch.float64)


def identity(t: torch.Tensor) -> torch.Tensor:
    return R(t) - R(-t)


@pytest.mark.parametrize(
    ("xp", "seed"),
    [
        *shortened([("torch", seed) for seed in range(60)], 24),
        *shortened([("jax", seed) for seed in range(12) if "jax" in served()], 3),
    ],
    indirect=["xp"],
)
def test_every_value_of_backprop_is_judged_as_the_exact_set_says(xp: Adapter, seed: int) -> None:
    """All selections of a random program: certified if and only if in the exact Clarke set."""
    program, point = random_program(seed, variables=3, kinks=6)
    f, x = to_framework(program, xp), xp.array([float(p) for p in point])
    exact = clarke_hull_points(program, point)
    words = set()
    for value in field_values(program, point)[:6]:
        found = ns.verdict(f, x, xp.array([float(v) for v in value]))
        assert found.word == ("certified" if in_hull(exact, value) else "artifact"), (seed, value, str(found))
        words.add(found.word)
        if found.word == "artifact":
            d = xp.numpy(found.direction)
            below = max(float(np.dot(d, [float(c) for c in p])) for p in exact)
            assert np.dot(d, [float(v) for v in value]) - below == pytest.approx(found.gap, rel=1e-6, abs=1e-9)
            assert np.linalg.norm(d) == pytest.approx(1.0) and found.gap > 0
    assert words <= {"certified", "artifact"}


def test_backprop_is_judged_by_default() -> None:
    assert ns.verdict(identity, ZERO).word == "artifact"
    assert ns.verdict(lambda t: R(t), ZERO).word == "certified"
    assert ns.verdict(lambda t: torch.sin(t), ZERO).clarke.equality == "differentiable"


def test_a_small_parameter_counts_beside_a_large_one() -> None:
    x = {n: ZERO for n in "ab"}
    f = lambda p: 1e18 * p["a"] + identity(p["b"]) + p["b"]  # noqa: E731
    found = ns.verdict(f, x)
    assert found.word == "artifact" and float(found.direction["a"]) == 0.0 and found.gap == pytest.approx(1.0)
    right = {"a": torch.tensor(1e18, dtype=torch.float64), "b": torch.tensor(2.0, dtype=torch.float64)}
    assert ns.verdict(f, x, right).word == "certified"


@pytest.mark.parametrize("scale", [1e-100, 1e-13, 1.0, 1e13, 1e100])
def test_the_scale_does_not_matter(scale: float) -> None:
    assert ns.verdict(lambda t: scale * identity(t), ZERO).word == "artifact"
    assert ns.verdict(lambda t: scale * identity(t), ZERO, torch.tensor(scale, dtype=torch.float64)).word == "certified"
    nearly = torch.tensor(scale * (1 + 1e-6), dtype=torch.float64)
    assert ns.verdict(lambda t: scale * identity(t), ZERO, nearly).word == "artifact"


def test_float32_gradients_are_judged_by_their_own_rounding() -> None:
    f = lambda t: torch.sin(R(t) - R(-t) + 1.0)  # noqa: E731
    x = torch.tensor(0.0)
    assert ns.verdict(f, x, torch.cos(torch.tensor(1.0))).word == "certified"
    assert ns.verdict(f, x, torch.cos(torch.tensor(1.0)) * 1.001).word == "artifact"


def test_between_the_sets_nothing_is_said() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.norm(x) - torch.linalg.norm(2 * x) / 2 + identity(x[0])

    x = torch.zeros(2, dtype=torch.float64)
    found = ns.verdict(f, x)
    assert found.word == found.status == "undecided" and found.reasons and found.direction is None
    assert ns.verdict(f, x, torch.tensor([1.0, 0.0], dtype=torch.float64)).word == "certified"
    assert ns.verdict(f, x, torch.tensor([9.0, 0.0], dtype=torch.float64)).word == "artifact"


def test_a_program_without_a_field_is_undecided_with_its_line() -> None:
    found = ns.verdict(lambda t: torch.where(t > 0, t + 1, t), ZERO)
    assert found.word == "undecided" and found.clarke is None and "test_verdict.py" in str(found)


class Softplus(torch.autograd.Function):
    """A smooth function with a derivative of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.nn.functional.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


def test_what_brings_its_own_derivative_leaves_the_verdict_open() -> None:
    x = torch.ones(2, dtype=torch.float64)
    for f in (lambda x: Softplus.apply(x).sum(), lambda x: (Softplus.apply(x) + R(x - 1)).sum()):
        for gradient in (None, torch.full_like(x, 9.0)):
            found = ns.verdict(f, x, gradient)
            assert (found.word, found.status) == ("undecided", "undecided") and found.reasons[0].rule == "opaque"
            assert "Softplus" in found.message and "test_verdict.py" in found.message


@pytest.mark.skipif("jax" not in served(), reason="jax is not installed")
def test_in_jax_too() -> None:
    import jax
    from jax import lax
    from jax import numpy as jnp

    @jax.custom_jvp
    def softplus(x):
        return jnp.log1p(jnp.exp(x))

    softplus.defjvp(lambda p, t: (softplus(*p), jax.nn.sigmoid(p[0]) * t[0]))

    def root(x):
        return lax.custom_root(lambda z: z**3 - x, 1.0, lambda f, z: jnp.cbrt(x), lambda g, y: y / g(1.0))

    for f, x in ((lambda x: (softplus(x) + jnp.abs(x - 1)).sum(), jnp.ones(2)), (root, jnp.array(8.0))):
        found = ns.verdict(f, x)
        assert (found.word, found.reasons[0].rule) == ("undecided", "opaque"), str(found)


def test_where_a_derivative_is_cut_off_the_true_gradient_is_no_artifact() -> None:
    x = torch.ones(2, dtype=torch.float64)
    for gradient in (None, 2 * x, x):
        found = ns.verdict(lambda x: (x.detach() * x).sum(), x, gradient)
        assert found.word == "undecided" and found.reasons[0].rule == "detached", str(found)


def test_nan_is_no_subgradient() -> None:
    found = ns.verdict(lambda t: R(t), ZERO, torch.tensor(float("nan"), dtype=torch.float64))
    assert found.word == "artifact" and "nan" in found.message


def test_data_follow_the_gradient() -> None:
    f = lambda w, a: (identity(w) * a).sum()  # noqa: E731
    w, a = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert ns.verdict(f, w, None, a).word == "artifact"
    assert ns.verdict(f, w, a, a).word == "certified"
    assert ns.verdict(f, w, a.numpy(), a).word == "certified"


@pytest.mark.parametrize("gradient", [torch.zeros(3), np.zeros(3), [torch.zeros(2)]])
def test_a_gradient_of_another_shape_is_refused(gradient) -> None:
    with pytest.raises(ns.errors.UsageError):
        ns.verdict(lambda x: R(x).sum(), torch.zeros(2, dtype=torch.float64), gradient)


def test_nothing_of_the_users_is_touched() -> None:
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    state = torch.get_rng_state()
    ns.verdict(lambda x: identity(x).sum(), x)
    assert x.grad is None and torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounding_leaves_of_large_terms_is_no_artifact(dtype: torch.dtype) -> None:
    """The gradient is 0, summed from terms of size 1/3; what is left of them by rounding separates nothing."""
    f = lambda x: torch.nn.functional.cross_entropy(x.expand(3, 3), torch.tensor([0, 1, 2]))  # noqa: E731
    x = torch.zeros(3, dtype=dtype)
    assert ns.verdict(f, x, torch.zeros(3, dtype=dtype)).word == "certified"
    assert ns.verdict(f, x).word == "certified"
    assert ns.verdict(f, x, torch.tensor([1e-3, 0.0, 0.0], dtype=dtype)).word == "artifact"
