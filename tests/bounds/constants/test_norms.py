"""Constants of norms, distances, deviations and spectra hold from both sides."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.bounds.constants.suprema import anywhere, ball, both_sides, constants, sampled  # noqa: E402

norm = torch.linalg.vector_norm
CENTER = np.array([[2.0, 1.5, -1.0], [0.8, -2.5, 1.2]])


def power(x, p: float):
    """The p-norm, as it is defined."""
    return x.abs().amax(-1) if p == inf else x.abs().pow(p).sum(-1).pow(1 / p)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, inf, -1.0])
def test_norms(p: float) -> None:
    """On all of the space norms are Lipschitz and have kinks; away from 0 they are smooth, but that of p = inf."""
    f = lambda x: norm(x, p, -1)  # noqa: E731
    everywhere = [anywhere(2, 3, norm=2.0)]
    local = constants(f, *everywhere)
    both_sides(lambda x: power(x, p), everywhere, local, {(0,): 0.98 if p > 0 else 0.5})
    assert local.smoothness[0, 0] == inf and local.why
    near = [ball(CENTER, 0.4)]
    local = constants(f, *near)
    sampled(lambda x: power(x, p), near, local)
    if p in (1.0, inf, -1.0):
        assert (local.smoothness[0, 0] == 0.0) == (p == 1.0)
    else:
        both_sides(lambda x: power(x, p), near, local, {(0, 0): 0.98 if p == 2 else 0.3})


def test_norms_that_are_not_lipschitz() -> None:
    """The count of entries and powers below 1."""
    assert constants(lambda x: norm(x, 0.5), anywhere(3)).lipschitz[0] == inf
    assert "jumps" in constants(lambda x: norm(x, 0), anywhere(3)).why
    assert constants(lambda x: norm(x, 2, -1), anywhere(3, 1)).smoothness[0, 0] == inf


def test_deviation() -> None:
    """1/sqrt(n - c), and its kink where all entries agree."""
    reaches = [ball(CENTER, 0.4)]
    f = lambda x: torch.std(x, -1)  # noqa: E731
    local = constants(f, *reaches)
    both_sides(
        lambda x: ((x - x.mean(-1, keepdim=True)).square().sum(-1) / 2).sqrt(),
        reaches,
        local,
        {(0,): 0.99, (0, 0): 0.98},
    )
    assert "all entries agree" in constants(f, anywhere(2, 3)).why
    assert constants(f, ball([[1.0, 3.0]], 0.5)).smoothness[0, 0] == 0.0


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances(p: float) -> None:
    """Distances of two arrays, of all pairs of rows, and of the rows of one array."""
    reaches = [ball(CENTER, 0.2), ball(CENTER[::-1] + 3.0, 0.3)]
    local = constants(lambda u, v: torch.dist(u, v, p), *reaches)
    parts = {(0, 0): 0.98, (0, 1): 0.98} if p == 2 else {}
    both_sides(lambda u, v: power((u - v).reshape(-1), p), reaches, local, {(0,): 0.8, (1,): 0.8, **parts})

    def pairs(u, v):
        return power(u[:, None] - v[None], p)

    local = constants(lambda u, v: torch.cdist(u, v, p), *reaches)
    parts = {(0, 0): 0.7, (0, 1): 0.7, (1, 1): 0.7} if p == 2 else {}
    both_sides(pairs, reaches, local, {(0,): 0.8, (1,): 0.8, **parts})
    rows = [ball(np.arange(6.0).reshape(3, 2) * 2, 0.4)]
    local = constants(lambda u: torch.nn.functional.pdist(u, p), *rows)

    def own(u):
        return torch.stack([power(u[0] - u[1], p), power(u[0] - u[2], p), power(u[1] - u[2], p)])

    both_sides(own, rows, local, {(0,): 0.85 if p == 3 else 0.98, **({(0, 0): 0.5} if p == 2 else {})})


def test_pairs_in_one_direction_attain_the_constants_of_distances() -> None:
    """sqrt(rows)/r for points that see all the others in one direction."""
    reaches = [ball([[0.0, 0.0]], 0.05), ball([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], 0.05)]
    local = constants(torch.cdist, *reaches)

    def pairs(u, v):
        return power(u[:, None] - v[None], 2.0)

    both_sides(pairs, reaches, local, {(0,): 0.98, (1,): 0.98, (0, 0): 0.95, (0, 1): 0.95, (1, 1): 0.95})


def test_hypotenuse() -> None:
    """sqrt(u^2 + v^2), on a set away from 0 and on one with it."""
    reaches = [ball([0.5, -1.0], 0.5), ball([2.0, 1.5], 0.3)]
    local = constants(torch.hypot, *reaches)
    both_sides(
        lambda u, v: (u * u + v * v).sqrt(),
        reaches,
        local,
        {(0,): 0.95, (1,): 0.9, (0, 0): 0.5, (0, 1): 0.5, (1, 1): 0.5},
    )
    far = constants(torch.hypot, anywhere(2), anywhere(2))
    assert list(far.lipschitz) == [1.0, 1.0] and far.smoothness[0, 0] == inf and "kink" in far.why


def test_spectra() -> None:
    """Singular values and eigenvalues of symmetric matrices are 1-Lipschitz, attained, and have kinks."""
    reaches = [anywhere(3, 3, norm=2.0)]
    local = constants(torch.linalg.svdvals, *reaches)
    both_sides(torch.linalg.svdvals, [ball(np.diag([3.0, 2.0, 1.0]), 0.3)], local.__class__([1.0], norm=4.1), {})
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (rng.normal(size=(3, 3)) for _ in range(2))
        moved = np.linalg.norm(np.linalg.svd(a, compute_uv=False) - np.linalg.svd(b, compute_uv=False))
        assert moved <= np.linalg.norm(a - b) * local.lipschitz[0]
        s, t = a + a.T, b + b.T
        assert np.linalg.norm(np.linalg.eigvalsh(s) - np.linalg.eigvalsh(t)) <= np.linalg.norm(s - t) * (1 + 1e-12)
    assert np.linalg.norm(np.linalg.svd(1.5 * np.eye(3), compute_uv=False) - 1) == pytest.approx(
        np.linalg.norm(0.5 * np.eye(3))
    )
    eigenvalues = constants(torch.linalg.eigvalsh, ball(np.eye(2), 0.5))
    assert eigenvalues.lipschitz[0] == 1 and eigenvalues.smoothness[0, 0] == inf
    assert sqrt(2) + 0.5 == pytest.approx(eigenvalues.norm)


def test_complex_numbers() -> None:
    """|z| is 1-Lipschitz, and 1/r-smooth where |z| >= r."""
    from dataclasses import replace

    from nonsmooth.bounds.constants.record import CONSTANTS, Called

    reach = replace(ball(np.zeros(2), 0.5), center=np.array([3 + 4j, 1.0j]), norm=6.0)
    local = CONSTANTS["complex_abs"](Called("complex_abs", (reach,), {}, ((2,),)))
    assert local.lipschitz == [1.0] and local.smoothness[0, 0] == pytest.approx(2.0) and local.low == pytest.approx(0.5)
    assert CONSTANTS["complex_abs"](Called("complex_abs", (anywhere(2),), {}, ((2,),))).smoothness[0, 0] == inf
