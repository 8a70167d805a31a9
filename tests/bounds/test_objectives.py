"""Objectives and regularisations: their constants hold on balls, and are attained where they are said to be."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from nonsmooth.bounds import objectives as o  # noqa: E402
from nonsmooth.bounds.reach import Local  # noqa: E402
from nonsmooth.errors import UsageError  # noqa: E402
from tests.bounds.constants.suprema import anywhere, both_sides  # noqa: E402

rng = np.random.default_rng(0)
TARGET = rng.normal(size=(3, 2))
SIGNS = np.array([1.0, -1.0, 1.0])
CENTERS = np.array([[1.5, 0.0], [-1.5, 0.0]])

# objective, shape of predictions, radius, parts of l and L that ascent attains
CASES = {
    "square": (o.square(TARGET), (3, 2), 2.0, 0.97, 0.97),
    "binary logistic": (o.binary_logistic(SIGNS), (3,), 60.0, 0.97, 0.97),
    "binary logistic near 0": (o.binary_logistic(SIGNS), (3,), 0.5, 0.9, 0.9),
    "logistic": (o.logistic([0, 2, 1]), (3, 3), 60.0, 0.97, 0.97),
    "logistic near 0": (o.logistic([0, 2, 1]), (3, 3), 0.3, 0.7, 0.3),
    "smoothed hinge": (o.smoothed_hinge(SIGNS, 0.5), (3,), 5.0, 0.97, 0.97),
    "smoothed hinge near 0": (o.smoothed_hinge(SIGNS, 4.0), (3,), 0.5, 0.97, 0.97),
    "huber": (o.huber(TARGET, 0.5), (3, 2), 8.0, 0.97, 0.97),
    "soft k-means": (o.soft_k_means(CENTERS, 2, 0.6), (2, 2), 4.0, 0.6, 0.97),
    "warm k-means": (o.soft_k_means(CENTERS, 2, 10.0), (2, 2), 4.0, 0.5, 0.7),
    "k-means of one center": (o.k_means(CENTERS[:1], 2), (2, 2), 4.0, 0.97, 0.97),
    "k-means": (o.k_means(CENTERS, 2), (2, 2), 4.0, 0.6, None),
    "convex clustering": (o.convex_clustering(3, 2, 0.4, 40), (3, 2), 20.0, 0.95, None),
    "convex clustering near 0": (o.convex_clustering(3, 1, 5.0, 40), (3, 1), 1.0, 0.8, None),
    "low rank": (o.low_rank(3, 2, 1), (3, 2), 2.0, 0.95, None),
    "squared l2": (o.squared_l2(0.3), (4,), 2.0, 0.97, 0.97),
    "log-sum-exp": (o.log_sum_exp(0.5), (3,), 20.0, 0.97, 0.97),
}


SLOW = {
    "binary logistic near 0",
    "logistic near 0",
    "smoothed hinge near 0",
    "warm k-means",
    "convex clustering near 0",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_constants_of_objectives(name: str) -> None:
    """No derivative exceeds the constants on the ball; ascent attains them as far as the record says."""
    objective, shape, radius, slope, bend = CASES[name]
    reach = anywhere(*shape, norm=radius)
    local = Local([objective.lipschitz(radius)], {(0, 0): objective.smoothness(radius)})
    both_sides(objective, [reach], local, {(0,): slope, **({} if bend is None else {(0, 0): bend})})


def test_the_values_are_those_of_definitions() -> None:
    """The functions against torch's own losses, and other definitions."""
    y = torch.as_tensor(rng.normal(size=(3, 2)))
    t = torch.as_tensor(TARGET)
    F = torch.nn.functional
    assert torch.allclose(o.square(TARGET)(y), F.mse_loss(y, t, reduction="sum") / 6)
    assert torch.allclose(o.huber(TARGET, 0.5)(y), F.huber_loss(y, t, delta=0.5, reduction="sum") / 3)
    assert torch.allclose(o.logistic([0, 1, 1])(y), F.cross_entropy(y, torch.tensor([0, 1, 1])))
    assert torch.allclose(o.binary_logistic(SIGNS)(y[:, 0]), F.soft_margin_loss(y[:, 0], torch.as_tensor(SIGNS)))
    squares = torch.cdist(y, torch.as_tensor(CENTERS)).square()
    assert torch.allclose(o.k_means(CENTERS, 3)(y), squares.amin(1).mean() / 2)
    assert torch.allclose(o.soft_k_means(CENTERS, 3, 0.5)(y), -0.5 * torch.logsumexp(-squares, 1).mean())
    assert torch.allclose(o.low_rank(3, 2, 1)(y), torch.linalg.svdvals(y)[1] ** 2 / 6)
    assert torch.allclose(o.log_sum_exp(2.0)(y), 2 * torch.logsumexp(y / 2, (0, 1)))


def test_convex_clustering_by_its_minimum() -> None:
    """The dual value is that of the primal problem, and is 1-smooth: difference quotients of its gradient."""
    from scipy.optimize import minimize

    loss = o.convex_clustering(3, 2, 0.4)
    y = rng.normal(size=(3, 2))

    def primal(z: np.ndarray) -> float:
        z = z.reshape(3, 2)
        pairs = sum(np.linalg.norm(z[i] - z[j]) for i in range(3) for j in range(i))
        return float(np.square(y - z).sum() / 2 + 0.4 * pairs)

    best = min(
        minimize(
            primal, start.ravel(), method="Nelder-Mead", options={"maxiter": 8000, "xatol": 1e-9, "fatol": 1e-12}
        ).fun
        for start in (y, np.zeros((3, 2)))
    )
    assert float(loss(y)) == pytest.approx(best, rel=1e-4)
    points = [torch.as_tensor(rng.normal(size=(3, 2)), dtype=torch.float64).requires_grad_(True) for _ in range(6)]
    gradients = [torch.autograd.grad(loss(p), p)[0] for p in points]
    points = [p.detach() for p in points]
    for p, g in zip(points, gradients, strict=True):
        for q, h in zip(points, gradients, strict=True):
            assert float((g - h).norm()) <= float((p - q).norm()) * (1 + 1e-3) + 1e-9


def test_kinks_are_infinite_and_bad_input_is_refused() -> None:
    """k-means of two centers and principal components have kinks; targets, widths and centers are checked."""
    assert o.k_means(CENTERS, 2).smoothness(1.0) == inf and o.low_rank(3, 2, 1).smoothness(1.0) == inf
    assert o.convex_clustering(3, 1, 1.0).lipschitz(inf) == pytest.approx(sqrt(8))
    for call, words in (
        (lambda: o.binary_logistic([0.0, 1.0]), "-1 or 1"),
        (lambda: o.smoothed_hinge([1.0], 0.0), "width"),
        (lambda: o.huber([1.0], -1.0), "delta"),
        (lambda: o.logistic([0.5]), "whole number"),
        (lambda: o.soft_k_means([1.0], 3), "rows of a matrix"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
