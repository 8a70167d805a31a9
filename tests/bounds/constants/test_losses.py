"""Constants of losses hold from both sides; those that are said to be attained are."""

from __future__ import annotations

import itertools
from functools import partial
from math import inf, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import nonsmooth as ns  # noqa: E402
from tests.bounds.constants.suprema import anywhere, ball, both_sides, constants, fixed  # noqa: E402

F = torch.nn.functional
rng = np.random.default_rng(0)
REDUCTIONS = (pytest.param("none", marks=pytest.mark.slow), "mean", pytest.param("sum", marks=pytest.mark.slow))
TARGET = rng.random((2, 3))
REGRESSION = {
    "mse_loss": (F.mse_loss, lambda u, t: (u - t).square()),
    "huber_loss": (
        lambda u, t, reduction: F.huber_loss(u, t, reduction=reduction, delta=0.7),
        lambda u, t: torch.where((u - t).abs() < 0.7, (u - t).square() / 2, 0.7 * ((u - t).abs() - 0.35)),
    ),
    "smooth_l1_loss": (
        lambda u, t, reduction: F.smooth_l1_loss(u, t, reduction=reduction, beta=0.5),
        lambda u, t: torch.where((u - t).abs() < 0.5, (u - t).square(), (u - t).abs() - 0.25),
    ),
}


def reduced(terms, reduction: str):
    """The reductions, as they are defined."""
    return {"none": lambda a: a, "mean": torch.mean, "sum": torch.sum}[reduction](terms)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", REGRESSION)
def test_regression(name: str, reduction: str) -> None:
    """Square, Huber's and the smooth absolute loss on a ball, with targets that are data, and with two that move."""
    f, terms = REGRESSION[name]
    reaches = [ball(rng.normal(size=(2, 3)), 2.5), fixed(TARGET)]
    local = constants(lambda u, t: f(u, t, reduction=reduction), *reaches)
    slope = 0.98 if name == "mse_loss" or reduction == "none" else 0.6
    both_sides(lambda u, t: reduced(terms(u, t), reduction), reaches, local, {(0,): slope, (0, 0): 0.98})
    both = [ball(np.zeros((2, 2)), 1.0), ball(np.ones((2, 2)), 0.5)]
    local = constants(lambda u, t: f(u, t, reduction=reduction), *both)
    both_sides(lambda u, t: reduced(terms(u, t), reduction), both, local, {(1,): 0.5, (0, 1): 0.98, (1, 1): 0.98})


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_two_classes(reduction: str) -> None:
    """The logistic losses: 1 and 1/4 a term, with weights, positive weights, and targets in between."""
    reaches = [anywhere(2, 3), fixed(np.sign(TARGET - 0.5))]
    local = constants(lambda u, t: F.soft_margin_loss(u, t, reduction=reduction), *reaches)
    both_sides(lambda u, t: reduced(F.softplus(-u * t), reduction), reaches, local, {(0,): 0.97, (0, 0): 0.97}, 10.0)
    weights, positive = rng.random(3) + 0.5, rng.random(3) * 3
    for targets in (TARGET, np.round(TARGET)):
        reaches = [anywhere(2, 3), fixed(targets), fixed(weights), fixed(positive)]
        local = constants(
            lambda u, t, w, q: F.binary_cross_entropy_with_logits(u, t, w, reduction=reduction, pos_weight=q), *reaches
        )

        def phi(u, t, w, q):
            return reduced(w * ((1 - t) * u + (1 + (q - 1) * t) * F.softplus(-u)), reduction)

        both_sides(phi, reaches, local, {(0,): 0.9, (0, 0): 0.97}, 10.0)


def test_two_classes_about_a_point() -> None:
    """On a ball slopes are those that its logits reach; targets that move."""
    reaches = [ball([[2.0, -1.0]], 0.5), ball([[0.5, 0.2]], 0.1)]
    f = F.binary_cross_entropy_with_logits
    local = constants(lambda u, t: f(u, t, reduction="none"), *reaches)

    def phi(u, t):
        return (1 - t) * u + F.softplus(-u)

    both_sides(phi, reaches, local, {(0,): 0.9, (0, 0): 0.98, (0, 1): 0.98, (1,): 0.5})
    reaches = [anywhere(2, norm=2.0), anywhere(2, norm=1.0)]
    local = constants(lambda u, t: F.soft_margin_loss(u, t, reduction="sum"), *reaches)
    both_sides(lambda u, t: F.softplus(-u * t).sum(), reaches, local, {(0,): 0.8, (1,): 0.5, (0, 1): 0.7, (0, 0): 0.9})


def test_probabilities() -> None:
    """The cross entropy of probabilities that stay away from 0 and 1; otherwise it is not Lipschitz."""
    reaches = [ball([[0.3, 0.6]], 0.2), fixed([[1.0, 0.2]]), fixed([[1.0, 2.0]])]

    def phi(u, t, w):
        return (-w * (t * u.log() + (1 - t) * (1 - u).log())).sum()

    local = constants(
        lambda u, t, w: F.binary_cross_entropy(u, t, w, reduction="sum"), *reaches, name="binary_cross_entropy"
    )
    both_sides(phi, reaches, local, {(0,): 0.8, (0, 0): 0.97}, 0.1)
    far = constants(F.binary_cross_entropy, ball([0.5], 0.6), fixed([1.0]), name="binary_cross_entropy")
    assert far.lipschitz[0] == inf and "0 or 1" in far.why


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["classes", "weighted", pytest.param("probabilities", marks=pytest.mark.slow)])
def test_classes(kind: str, smoothing: float, reduction: str) -> None:
    """Cross entropy: sqrt(2) and 1/2 a sample without smoothing and weights, and attained with them."""
    labels, weights = np.array([0, 2, -100]), np.array([0.5, 2.0, 1.0])
    if kind == "probabilities":
        shares = rng.dirichlet(np.ones(3), 3)
        reaches = [anywhere(3, 3), fixed(shares)]
        f = lambda u, t: F.cross_entropy(u, t, reduction=reduction, label_smoothing=smoothing)  # noqa: E731
    else:
        reaches = [anywhere(3, 3), fixed(labels), *([fixed(weights)] if kind == "weighted" else [])]
        f = lambda u, t, *w: F.cross_entropy(u, t, *w, reduction=reduction, label_smoothing=smoothing)  # noqa: E731
    local = constants(f, *reaches)
    if kind == "classes" and not smoothing:
        known = {"none": (sqrt(2), 0.5), "sum": (2.0, 0.5), "mean": (1.0, 0.25)}[reduction]
        assert (local.lipschitz[0], local.smoothness[0, 0]) == pytest.approx(known)

    def phi(u, t, *w):
        chances = torch.log_softmax(u, 1)
        w = w[0] if w else torch.ones(3, dtype=torch.float64)
        if t.dtype == torch.int64:
            counted = (t != -100).double()
            own = w[t.clamp(min=0)] * counted
            one = torch.nn.functional.one_hot(t.clamp(min=0), 3).double()
            shares = (one * (1 - smoothing) + smoothing / 3) * w * counted[:, None]
            total = own.sum()
        else:
            shares, total = (t * (1 - smoothing) + smoothing / 3) * w, 3
        terms = -(shares * chances).sum(1)
        return terms if reduction == "none" else terms.sum() / (total if reduction == "mean" else 1)

    points = [torch.as_tensor(rng.normal(size=(3, 3))), *(torch.as_tensor(np.asarray(r.center)) for r in reaches[1:])]
    assert torch.allclose(f(*points), phi(*points))
    both_sides(phi, reaches, local, {(0,): 0.92, (0, 0): 0.97}, 10.0)


def test_classes_about_a_point() -> None:
    """On a small ball about confident logits the constants are far below the global ones; two classes nearly attain them."""
    reaches = [ball([[4.0, 0.0], [0.0, 5.0]], 0.3), fixed(np.array([0, 1]))]
    local = constants(F.cross_entropy, *reaches)
    assert local.lipschitz[0] < 0.03 and local.smoothness[0, 0] < 0.03
    both_sides(lambda u, t: F.nll_loss(torch.log_softmax(u, 1), t), reaches, local, {(0,): 0.7, (0, 0): 0.9})
    unknown = [anywhere(4, 3), anywhere(4)]
    assert unknown[1].center is None
    moving = [anywhere(2, 3, norm=2.0), ball(np.full((2, 3), 1 / 3), 0.1)]
    local = constants(lambda u, t: F.cross_entropy(u, t, reduction="sum"), *moving)

    def phi(u, t):
        return -(t * torch.log_softmax(u, 1)).sum()

    both_sides(phi, moving, local, {(0,): 0.2, (1,): 0.4, (0, 1): 0.5, (0, 0): 0.3})


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_likelihood(reduction: str) -> None:
    """The likelihood of classes is linear: its constants are those of its weights."""
    reaches = [anywhere(3, 4, norm=5.0), fixed(np.array([0, 2, 3])), fixed(np.array([0.5, 2.0, 1.0, 3.0]))]
    f = lambda u, t, w: F.nll_loss(u, t, w, reduction=reduction)  # noqa: E731
    local = constants(f, *reaches)

    def phi(u, t, w):
        terms = -w[t] * u[torch.arange(3), t]
        return reduced(terms, reduction) * (3 / w[t].sum() if reduction == "mean" else 1)

    both_sides(phi, reaches, local, {(0,): 0.99})
    assert local.smoothness.get((0, 0), 0.0) == 0.0


def test_alignments() -> None:
    """The loss of alignments: sqrt(T) is attained where one alignment alone is left, T/2 is an upper bound."""
    f = lambda u, t: F.ctc_loss(u, t, (3,), (2,), reduction="sum")  # noqa: E731
    reaches = [anywhere(3, 1, 3, norm=8.0), fixed(np.array([[1, 2]]))]
    local = constants(f, *reaches, name="ctc_loss")
    paths = [(1, 1, 2), (1, 2, 2), (1, 0, 2), (1, 2, 0), (0, 1, 2)]

    def phi(u, t):
        return -torch.logsumexp(torch.stack([sum(u[i, 0, c] for i, c in enumerate(p)) for p in paths]), 0)

    u = torch.log_softmax(torch.as_tensor(rng.normal(size=(3, 1, 3))), -1)
    assert torch.allclose(f(u, torch.tensor([[1, 2]])), phi(u, None))
    both_sides(phi, reaches, local, {(0,): 0.98, (0, 0): 0.4}, 5.0)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy_with_negative_weights(reduction: str) -> None:
    """Weights of classes of either sign: sizes, slopes and curvature stay below their bounds."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(8):
        samples, classes = (int(torch.randint(2, 5, (), generator=generator)) for _ in range(2))
        weight, x0 = (torch.randn(s, generator=generator, dtype=torch.double) for s in ((classes,), (samples, classes)))
        label = torch.randint(0, classes, (samples,), generator=generator)

        def f(x: torch.Tensor, w: torch.Tensor = weight, y: torch.Tensor = label) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(x, y, weight=w, reduction=reduction)

        found = ns.bounds(f, x0, weights=ns.Ball(2.0, "here")).weights
        for _ in range(10):
            step = torch.randn(x0.shape, generator=generator, dtype=torch.double)
            x = x0 + 2 * step / step.norm()
            jacobian = torch.autograd.functional.jacobian(f, x).reshape(-1, x.numel())
            assert float(f(x).norm()) <= found.norm * (1 + 1e-9)
            assert float(torch.linalg.matrix_norm(jacobian, 2)) <= found.lipschitz * (1 + 1e-9)


@pytest.mark.parametrize("reduction", ["sum", pytest.param("mean", marks=pytest.mark.slow)])
@pytest.mark.parametrize("moving", ["weight", "target", "scores alone"])
@pytest.mark.parametrize("least", [-5.0, 0.5])
def test_weights_and_targets_of_any_sign_that_move(least: float, moving: str, reduction: str) -> None:
    """The values that are reached, and those of a function behind them that reads their interval, stay within the bounds."""
    generator = torch.Generator().manual_seed(2)
    x, target, weight = (torch.randn(s, generator=generator, dtype=torch.double) for s in ((3, 4), (3, 4), (4,)))
    target, weight = target.abs() + 0.1, weight.abs() + least
    point = {"x": x} | {"weight": {"w": weight}, "target": {"t": target}, "scores alone": {}}[moving]

    def f(p: dict[str, torch.Tensor], which: int) -> torch.Tensor:
        w, t = p.get("w", weight), p.get("t", target)
        found = torch.nn.functional.cross_entropy(p["x"], t, weight=w, reduction=reduction)
        return torch.stack([found, torch.exp(found / 10), torch.exp(-found / 10)])[which]

    for which, r in itertools.product(range(3), (0.05, 1.0)):
        found = ns.bounds(partial(f, which=which), point, weights=ns.Ball(r, "here")).weights
        for _ in range(50):
            moved = {}
            for name, value in point.items():
                d = torch.randn(value.shape, generator=generator, dtype=torch.double)
                moved[name] = value + r * d / d.norm()
            assert abs(float(f(moved, which))) <= found.norm * (1 + 1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_likelihood_with_negative_weights(reduction: str) -> None:
    """The exponential behind it reads both ends of its interval."""
    generator = torch.Generator().manual_seed(3)
    x, labels = torch.randn((4, 3), generator=generator, dtype=torch.double), torch.tensor([0, 2, 1, 1])
    weight = torch.tensor([5.0, -1.0, 0.2], dtype=torch.double)

    def f(x: torch.Tensor, sign: float) -> torch.Tensor:
        found = torch.nn.functional.nll_loss(x, labels, weight=sign * weight, reduction=reduction)
        return torch.exp(found / 5)

    for sign in (1.0, -1.0):
        found = ns.bounds(partial(f, sign=sign), x, weights=ns.Ball(1.0, "here")).weights
        for _ in range(200):
            d = torch.randn(x.shape, generator=generator, dtype=torch.double)
            assert float(f(x + d / d.norm(), sign).norm()) <= found.norm * (1 + 1e-9)
