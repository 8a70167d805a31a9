"""Constants of normalisations hold from both sides: no derivative exceeds them, and ascent attains them to 1%."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from nonsmooth.bounds.constants.normalisation import UNIT_BEND, bend  # noqa: E402
from nonsmooth.bounds.constants.record import CONSTANTS  # noqa: E402
from tests.bounds.constants.suprema import anywhere, ball, both_sides, called, constants, fixed, supremum  # noqa: E402

F = torch.nn.functional
rng = np.random.default_rng(0)


def _standard(x, axes, eps, centred=True):
    u = x - x.mean(axes, keepdim=True) if centred else x
    return u / torch.sqrt(eps + u.square().mean(axes, keepdim=True))


def batch(x, eps):
    """Batch norm, as it is defined."""
    return _standard(x, tuple(a for a in range(x.ndim) if a != 1), eps)


@pytest.mark.parametrize("eps", [1e-2, pytest.param(3.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(3, 2), (2, 1, 2)])
def test_batch_norm_in_training(shape: tuple[int, ...], eps: float) -> None:
    """l = 1/sqrt(eps), L = .8587/(sqrt(n) eps), attained everywhere, and the norm sqrt(d n)."""
    reach = anywhere(*shape)
    local = constants(lambda x: F.batch_norm(x, None, None, None, None, True, 0.1, eps), reach, name="batch_norm")
    n = int(np.prod(shape)) // shape[1]

    def phi(x):
        return batch(x, eps)

    assert local.lipschitz[0] == pytest.approx(1 / sqrt(eps))
    assert local.smoothness[0, 0] == pytest.approx(UNIT_BEND / (sqrt(n) * eps))
    assert local.norm == pytest.approx(sqrt(np.prod(shape)))
    both_sides(phi, [reach], local, {(0,): 0.99, (0, 0): 0.99}, sqrt(eps))


def test_local_constants() -> None:
    """Where variances stay away from 0 constants are smaller, attained for one group, and finite for eps = 0."""
    reach = ball([[3.0, -1.0, 0.5]], 0.5)
    for eps in (0.0, 1e-3, 10.0):

        def phi(x, eps=eps):
            return _standard(x, (1,), eps)

        local = constants(lambda x, eps=eps: F.layer_norm(x, (3,), None, None, eps), reach, name="layer_norm")
        assert max(local.lipschitz[0], local.smoothness[0, 0]) < inf and local.why == ""
        both_sides(phi, [reach], local, {(0,): 0.99, (0, 0): 0.99}, 1.0)


def test_eps_zero_is_not_lipschitz() -> None:
    """With eps = 0 and variances that may vanish the constants are infinite, and said to be."""
    local = constants(lambda x: F.layer_norm(x, (2,), None, None, 0.0), ball(np.ones((3, 2)), 1.0), name="layer_norm")
    assert local.lipschitz[0] == inf and "eps is 0" in local.why and local.norm <= sqrt(6) + 1e-12


CASES = {
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 0.5),
        lambda x, w, b: batch(x, 0.5) * w + b,
        (3, 2),
        (2,),
    ),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (3,), w, b, 0.5),
        lambda x, w, b: _standard(x, (1,), 0.5) * w + b,
        (2, 3),
        (3,),
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, 2, w, b, 0.5),
        lambda x, w, b: _standard(x.reshape(2, 2, 4), (2,), 0.5).reshape(2, 4, 2) * w[:, None] + b[:, None],
        (2, 4, 2),
        (4,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_weights_and_biases(name: str) -> None:
    """Constants of weights and biases, and of weights with entries, are attained (with entries: within a known factor)."""
    f, phi, shape, affine = CASES[name]
    reaches = [anywhere(*shape, norm=50.0), ball(np.full(affine, 0.8), 0.4), ball(np.zeros(affine), 1.0)]
    points = [torch.as_tensor(rng.normal(size=s)) for s in (shape, affine, affine)]
    assert torch.allclose(f(*points), phi(*points))
    local = constants(f, *reaches, name=name)
    mixed = 0.99 if name == "batch_norm" else 0.8
    single = 0.9 if name == "layer_norm" else 0.98  # of weights that are no constant on a group: sqrt((n - 1)/n)
    both_sides(phi, reaches, local, {(0,): single, (2,): 0.99, (0, 0): 0.9 * single, (0, 1): mixed}, 1.0)
    both_sides(phi, reaches, local, {(1,): 0.95}, 20.0)


def test_rms_norm() -> None:
    """A record for what torch opens into other operations: the constants of h itself."""

    def phi(x, w):
        return _standard(x, (1,), 0.5, False) * w

    call = called(
        lambda x, w, b: F.layer_norm(x, (3,), w, b, 0.5),
        [anywhere(2, 3, norm=50.0), ball(np.ones(3), 0.5), fixed(np.zeros(3))],
        name="layer_norm",
    )
    attributes = {**call.attributes, "given": ("input", "weight")}
    call = replace(call, operation="rms_norm", operands=call.operands[:2], attributes=attributes)
    local = CONSTANTS["rms_norm"](call)
    assert not isinstance(local, list)
    both_sides(phi, call.operands, local, {(0,): 0.99, (0, 0): 0.99, (0, 1): 0.99}, 1.0)
    both_sides(phi, call.operands, local, {(1,): 0.95}, 20.0)


def test_batch_norm_in_evaluation() -> None:
    """With moments that are given it is affine."""
    mean, variance = np.array([0.5, -2.0]), np.array([0.2, 3.0])
    reaches = [
        ball(rng.normal(size=(3, 2)), 2.0),
        ball(np.array([1.0, 3.0]), 0.5),
        ball(np.zeros(2), 1.0),
        fixed(mean),
        fixed(variance),
    ]

    def f(x, w, b, m, v):
        return F.batch_norm(x, m, v, w, b, False, 0.1, 0.1)

    def phi(x, w, b, m, v):
        return (x - m) / torch.sqrt(v + 0.1) * w + b

    local = constants(f, *reaches, name="batch_norm")
    both_sides(phi, reaches, local, {(0,): 0.99, (1,): 0.85, (2,): 0.99, (0, 1): 0.99})
    assert (0, 0) not in local.smoothness


def test_weight_norm() -> None:
    """Directions that stay away from 0: 1, |g|/r, 1/r, 2 |g|/(sqrt(3) r^2)."""
    v, g = np.array([[1.0, 2.0, -1.0], [2.0, 0.0, 1.5]]), np.array([[1.0], [2.0]])
    reaches = [ball(v, 0.5), ball(g, 0.3)]

    def f(v, g):
        return torch._weight_norm(v, g, 0)

    def phi(v, g):
        return g * v / v.square().sum(1, keepdim=True).sqrt()

    local = constants(f, *reaches, name="weight_norm")
    both_sides(phi, reaches, local, {(0,): 0.95, (1,): 0.99, (0, 1): 0.95, (0, 0): 0.9})
    assert constants(f, anywhere(2, 3), ball(g, 0.3), name="weight_norm").lipschitz[0] == inf


def test_moments_as_results() -> None:
    """The inverse deviation that group norm gives beside: 2/(3 sqrt(3) sqrt(n) eps) and 1/(n eps^1.5)."""
    call = called(lambda x: F.group_norm(x, 1, None, None, 0.5), [anywhere(1, 3)], name="group_norm")
    _, mean, inverse = CONSTANTS["group_norm"](call)

    def phi(x):
        return (x.var(1, correction=0) + 0.5).rsqrt()

    for places, constant in (([0], inverse.lipschitz[0]), ([0, 0], inverse.smoothness[0, 0])):
        assert 0.99 * constant <= supremum(phi, call.operands, places) <= constant * (1 + 1e-9)
    assert mean.lipschitz[0] == pytest.approx(1 / sqrt(3))


def test_the_bend_by_its_maximum() -> None:
    """bend is the largest second derivative of h on rings, by a fine grid."""
    for low, high in ((0.0, inf), (0.0, 0.1), (0.3, 0.4), (0.4, 9.0), (2.0, 3.0)):
        s = np.linspace(sqrt(low), sqrt(min(high, 9.0)), 400)[:, None]
        q = np.linspace(0, 1, 2001)[None, :]
        for line, cosine in ((False, q), (True, np.ones((1, 1)))):
            grid = 3 * s * cosine * (1 + s**2 * (1 - cosine**2)) / (1 + s**2) ** 2.5
            assert bend(low, high, 1.0, line) == pytest.approx(grid.max(), rel=1e-4)
