"""Ellipsoids against sampled changes, against the formulas of ECLipsE-Fast, and with multipliers that are not the best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf

import numpy as np
import pytest

from nonsmooth.bounds import ellipsoid
from nonsmooth.bounds.ellipsoid import Ellipsoid

Layer = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A matrix, and the least and the largest slopes of the activation after it."""


def eclipse_fast(matrices: Sequence[np.ndarray], low: float, high: float) -> float:
    """ECLipsE-Fast as printed: X_i = l_i I - l_i^2 m^2 W X_{i-1}^-1 W', l_i = 1 / (2 m^2 ||W X_{i-1}^-1 W'||)."""
    m, x = (low + high) / 2, np.eye(matrices[0].shape[1])
    for w in matrices[:-1]:
        inner = w @ np.linalg.inv(x) @ w.T
        multiplier = 1 / (2 * m**2 * np.linalg.norm(inner, 2))
        x = multiplier * np.eye(len(w)) - multiplier**2 * m**2 * inner
    last = matrices[-1]
    return float(np.sqrt(np.linalg.norm(last @ np.linalg.inv(x) @ last.T, 2)))


def chain(layers: Sequence[Layer], last: np.ndarray, rounds: int, spread: float = 1.0) -> tuple[Ellipsoid, np.ndarray]:
    """Carry an ellipsoid along a chain; give it with the rows of the result. `spread` multiplies all multipliers."""
    state = Ellipsoid(np.eye(last.shape[1] if not layers else layers[0][0].shape[1])[None])
    rows = np.eye(state.size)[None]
    for matrix, low, high in layers:
        seen = matrix @ rows
        if rounds:
            state.norm(seen, rounds)
        radius = (high - low) / 2
        state.add(radius[None, :, None] * seen, radius[None])
        own = np.broadcast_to(np.eye(len(matrix)), (1, len(matrix), len(matrix)))
        rows = np.concatenate([((high + low) / 2)[None, :, None] * seen, own], axis=2)
    if spread != 1.0:
        state._accept([c.spread * spread for c in state.cones])
    return state, last @ rows


def drawn(seed: int) -> tuple[list[Layer], np.ndarray]:
    """Draw a chain of 1 to 4 layers of width 1 to 7 with intervals of slopes of every kind."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 8, size=int(rng.integers(3, 6)))
    layers = []
    for n, m in pairwise(widths[:-1]):
        ends = rng.normal(size=(2, m)) if rng.random() < 0.5 else np.array([[0.0], [1.0]]) + np.zeros((2, m))
        fixed = rng.random(m) < 0.3
        ends[1] = np.where(fixed, ends[0], ends[1])
        layers.append((rng.normal(size=(m, n)), ends.min(0), ends.max(0)))
    return layers, rng.normal(size=(widths[-1], widths[-2]))


def observed(layers: Sequence[Layer], last: np.ndarray, rng: np.random.Generator, times: int = 60) -> float:
    """Give the largest norm of a Jacobian with slopes from the intervals, mostly their ends, improved entry by entry."""
    most = 0.0
    for _ in range(times):
        product = np.eye(layers[0][0].shape[1])
        for matrix, low, high in layers:
            share = rng.integers(0, 2, len(low)) if rng.random() < 0.8 else rng.random(len(low))
            product = (low + share * (high - low))[:, None] * (matrix @ product)
        most = max(most, float(np.linalg.norm(last @ product, 2)))
    return most


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("rounds", [0, 12])
def test_no_jacobian_with_slopes_from_the_intervals_exceeds_the_bound(seed: int, rounds: int) -> None:
    """Whatever the slopes, and with multipliers from the start or better ones."""
    layers, last = drawn(seed)
    state, rows = chain(layers, last, rounds)
    bound, entries = float(state.norm(rows, rounds)[0]), state.entries(rows)[0]
    rng = np.random.default_rng(seed + 1000)
    assert observed(layers, last, rng) <= bound * (1 + 1e-9)
    for i, row in enumerate(last):
        assert observed(layers, row[None], rng, 20) <= entries[i] * (1 + 1e-9)


@pytest.mark.parametrize("spread", [1e-8, 0.3, 3.0, 1e6])
@pytest.mark.parametrize("seed", range(12))
def test_any_multipliers_are_sound(seed: int, spread: float) -> None:
    """Multipliers that are too small are made larger; others give a worse bound, not a wrong one."""
    layers, last = drawn(seed)
    state, rows = chain(layers, last, 0, spread)
    seen = observed(layers, last, np.random.default_rng(seed))
    assert seen <= float(np.sqrt(state._largest(rows)[0])) * (1 + 1e-9)
    assert seen <= float(state.norm(rows)[0]) * (1 + 1e-9)


def violations(rounds: int) -> int:
    """Count the chains whose bound is exceeded."""
    found = 0
    for seed in range(20):
        layers, last = drawn(seed)
        state, rows = chain(layers, last, rounds)
        seen = observed(layers, last, np.random.default_rng(seed))
        found += bool(seen > np.sqrt(state._largest(rows)[0]) * (1 + 1e-9))
    return found


def test_the_check_finds_multipliers_that_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ellipsoid that forgets what the state pays for a multiplier, or takes too small ones, is found out."""
    right = ellipsoid._grow
    assert violations(0) == 0

    def without_payment(held: np.ndarray, rows: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grown, used = right(held, rows, spread)
        k = held.shape[-1]
        grown[:, :k, :k] = held
        return grown, used

    def too_small(held: np.ndarray, rows: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grown, used = right(held, rows, spread)
        k = held.shape[-1]
        grown[:, k:, k:] /= 10
        return grown, used

    for wrong in (without_payment, too_small):
        monkeypatch.setattr(ellipsoid, "_grow", wrong)
        assert violations(0) > 0


def random_matrices(seed: int, width: int, depth: int) -> list[np.ndarray]:
    """Draw a network as PyTorch starts one."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, size=(width, width)) / np.sqrt(width) for _ in range(depth)]


@pytest.mark.parametrize(("width", "depth"), [(5, 2), (20, 3), (20, 6), (40, 4)])
@pytest.mark.parametrize("slopes", [(0.0, 1.0), (0.0, 0.25)])
def test_bounds_of_chains_are_at_most_those_of_eclipse_fast_and_the_product(
    width: int, depth: int, slopes: tuple[float, float]
) -> None:
    """From the start multipliers: ECLipsE-Fast itself; after the iteration: less."""
    for seed in range(3):
        matrices = random_matrices(seed, width, depth)
        low, high = (np.full(width, s) for s in slopes)
        layers = [(w, low, high) for w in matrices[:-1]]
        fast = eclipse_fast(matrices, *slopes)
        product = slopes[1] ** (depth - 1) * np.prod([np.linalg.norm(w, 2) for w in matrices])
        state, rows = chain(layers, matrices[-1], 0)
        assert np.sqrt(state._largest(rows)[0]) == pytest.approx(fast, rel=1e-6)
        assert float(state.norm(rows, 36)[0]) < fast <= product * (1 + 1e-9)


def test_a_single_number_is_exact() -> None:
    """z = c relu(w x): l = |c w|, and slopes of both signs give the larger one."""
    one = np.ones(1)
    for low, high, exact in [(0.0, 1.0, 6.0), (-2.0, 1.0, 12.0), (0.5, 0.5, 3.0), (-1.0, 1.0, 6.0)]:
        state, rows = chain([(2 * np.eye(1), low * one, high * one)], 3 * np.eye(1), 0)
        assert float(state.norm(rows, 24)[0]) == pytest.approx(exact, rel=1e-4)


def test_a_state_that_was_compressed_gives_the_same_bound() -> None:
    """What comes after sees the state only through the value that is left."""
    layers, last = drawn(3)
    state, rows = chain(layers, last, 0)
    found = state.moved(rows)
    assert float(found.norm(np.eye(len(last))[None])[0]) == pytest.approx(
        float(np.sqrt(state._largest(rows)[0])), rel=1e-8
    )


def test_several_ellipsoids_are_those_of_each() -> None:
    """Leading axes are independent."""
    rng = np.random.default_rng(0)
    matrix, last, radius = rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), rng.random((5, 4))

    def bound(radius: np.ndarray) -> np.ndarray:
        state = Ellipsoid(np.eye(3)[None])
        state.add(radius[:, :, None] * matrix, radius)
        own = np.broadcast_to(np.eye(4), (len(radius), 4, 4))
        rows = np.concatenate([radius[:, :, None] * matrix, own], axis=2)
        return state.norm(last @ rows, 12)

    alone = np.concatenate([bound(r[None]) for r in radius])
    assert np.allclose(bound(radius), alone, rtol=2e-3)


def test_extreme_scales_stay_sound_and_finite() -> None:
    """Weights of 1e-30 and 1e30, and singular ones."""
    for scale in (1e-30, 1e30):
        matrices = [scale * w for w in random_matrices(0, 4, 3)]
        matrices[1][0] = 0.0
        layers = [(w, np.zeros(4), np.ones(4)) for w in matrices[:-1]]
        state, rows = chain(layers, matrices[-1], 12)
        bound = float(state.norm(rows, 12)[0])
        assert observed(layers, matrices[-1], np.random.default_rng(0)) <= bound * (1 + 1e-9) < inf
