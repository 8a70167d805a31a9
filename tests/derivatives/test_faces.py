"""Faces: several comparisons of `if` that tie and decide together, in random programs that jump and in continuous ones.

The oracle knows no theory: F is homogeneous, so that it jumps if it does beside some point of some face of the arrangement
of what is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.derivatives.faces import vanishes
from nonsmooth.errors import NoField
from tests.adapters import Adapter, adapter
from tests.shortened import shortened

TORCH = adapter("torch")

Rows = np.ndarray
Homogeneous = Callable[[np.ndarray], float]


def jumps(f: Homogeneous, rows: Rows, seed: int, n: int = 40) -> bool:
    """Tell whether F jumps beside some point of the hyperplanes of some rows, or of where two of them meet."""
    rng = np.random.default_rng(seed)
    for count in (1, 2):
        for chosen in itertools.combinations(range(len(rows)), count):
            _, sizes, axes = np.linalg.svd(rows[list(chosen)])
            face = axes[int(np.sum(sizes > 1e-12)) :]
            for v in rng.standard_normal((n, len(face))) @ face:
                near = [f(v + 1e-9 * w) for w in rng.standard_normal((12, len(v)))]
                if max(near) - min(near) > 1e-5:
                    return True
    return False


def table(rows: Rows, leaves: Rows, nested: bool) -> tuple[Callable[[Adapter], Callable], Homogeneous]:
    """Make F(x) = leaves[outcomes of rows x > 0] x: a program, whose last comparison hangs on the first or not; in numpy."""

    def program(xp: Adapter) -> Callable:
        a, g = xp.array(rows), xp.array(leaves)

        def f(x):  # type: ignore[no-untyped-def]
            place = 0
            for k, row in enumerate(a):
                if nested and k == 2 and place == 0:
                    continue
                if row @ x > 0:
                    place += 2**k
            return g[place] @ x

        return f

    def known(v: np.ndarray) -> float:
        out = [bool(t > 0) for t in rows @ v]
        if nested and not any(out[:2]):
            out[2] = False
        return float(leaves[sum(2**k for k, o in enumerate(out) if o)] @ v)

    return program, known


def small(rng: np.random.Generator, *shape: int) -> Rows:
    """Draw small whole numbers."""
    return rng.integers(-2, 3, shape).astype(float)


def drawn(seed: int) -> tuple[Callable[[Adapter], Callable], Homogeneous, Rows]:
    """Draw a table that nearly joins: a continuous one with few leaves changed, in two or three dimensions."""
    rng = np.random.default_rng(seed)
    n = 2 + seed % 2
    rows = small(rng, 3, n)
    rows[2] = rows[0] + rows[1] if seed % 3 == 0 else rows[2]
    bits = np.array([[(p >> k) & 1 for k in range(3)] for p in range(8)], dtype=float)
    leaves = small(rng, n) + bits @ (small(rng, 3)[:, None] * rows)  # joins: each comparison bends by itself
    for place in rng.integers(0, 8, seed % 4):
        leaves[place] += small(rng, n) if seed % 5 else 2 * rows[int(rng.integers(3))]
    program, known = table(rows, leaves, nested=seed % 2 == 0)
    return program, known, rows


def check(seed: int) -> tuple[bool, bool]:
    """Compare what is certified with the oracle; tell whether F jumps, and whether it was certified at every seed."""
    program, known, rows = drawn(seed)
    f, x = program(TORCH), TORCH.array(np.zeros(rows.shape[1]))
    jumping = jumps(known, rows, seed)
    captured = ns.capture(f, x)
    found = [ns.subgradient(captured, x, seed=s).certificate.certified for s in range(3)]
    if jumping:
        assert not any(found), (seed, found)
        assert ns.verdict(captured, x).word != "certified", seed
        try:
            assert not ns.clarke(captured, x).exact, seed
        except NoField as error:
            assert "if" in str(error)
    return jumping, all(found)


@pytest.mark.parametrize("block", shortened(range(4), 1))
def test_random_tables(block: int) -> None:
    """Of tables of three coupled comparisons none that jumps is certified, and nearly all others are."""
    found = [check(seed) for seed in range(6 * block, 6 * (block + 1))]
    joined = [certified for jumping, certified in found if not jumping]
    assert 1 <= len(joined) <= 5 and sum(joined) >= len(joined) - 1, found


@pytest.mark.slow
def test_random_tables_at_length() -> None:
    """The same of 200."""
    found = [check(seed) for seed in range(100, 300)]
    joined = [certified for jumping, certified in found if not jumping]
    assert sum(joined) >= 0.9 * len(joined), len(joined)


def middle(values: Sequence) -> object:
    """Give the median of Python."""
    return sorted(values)[len(values) // 2]


ORDERS: dict[str, tuple[Callable, Callable]] = {
    "sorted": (
        lambda ts: sum(2.0**k * t for k, t in enumerate(sorted(ts))),
        lambda v: np.sort(v) @ 2.0 ** np.arange(3),
    ),
    "median": (lambda ts: middle(ts) * 1, np.median),
    "max": (lambda ts: max(ts) * 1, np.max),
    "max - min": (lambda ts: max(ts) - min(ts), np.ptp),
}


DRAWN = [
    ("sorted", 0),
    ("median", 1),
    ("max", 0),
    ("max - min", 1),
    ("sorted", 1),
    ("median", 0),
    ("max", 1),
    ("max - min", 0),
]


@pytest.mark.parametrize(("name", "seed"), shortened(DRAWN, len(ORDERS)))
def test_orders_of_python_are_certified(name: str, seed: int) -> None:
    """Orders of three random linear forms that tie: certified with <g, v> = F'(x; v), and Clarke's set is exact."""
    order, known = ORDERS[name]
    rows = small(np.random.default_rng(seed), 3, 2 + seed % 2)
    a, x = TORCH.array(rows), TORCH.array(np.zeros(rows.shape[1]))
    program = ns.capture(lambda x: order([row @ x for row in a]), x)
    for s in range(2):
        _, gradient, certificate = ns.subgradient(program, x, seed=s)
        assert certificate.certified, str(certificate)
        if certificate.direction is not None:
            v = certificate.direction
            assert float(gradient @ v) == pytest.approx(float(known(rows @ v.numpy())), abs=1e-12)
    found = ns.clarke(program, x)
    assert found.exact, str(found)
    for v in np.random.default_rng(seed).standard_normal((20, rows.shape[1])):
        assert found.support(v).upper >= float(known(rows @ v)) - 1e-9


def test_what_joins_but_for_one_quadrant() -> None:
    """The corner that no flip of one comparison shows: beside it the program is 0, there it jumps."""
    leaves = np.array([[5.0, 7.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    program, _ = table(np.eye(2), leaves, nested=False)
    x = TORCH.array(np.zeros(2))
    for seed in range(8):
        assert not ns.subgradient(program(TORCH), x, seed=seed).certificate.certified


def test_comparisons_of_nothing_that_moves() -> None:
    """Two ties whose differences have the derivative zero: no row is left, and the outcome is that at the point."""

    def f(x):  # type: ignore[no-untyped-def]
        y = x.sum() * 0
        return (x[0] if y > 0 else x[1]) + (x[0] if y >= 0 else -x[0])

    x = TORCH.array(np.zeros(2))
    _, gradient, certificate = ns.subgradient(f, x)
    assert not certificate.certified or gradient.tolist() == [1.0, 1.0]


def test_a_curved_order_is_certified_at_first_order() -> None:
    """The median of exponentials joins, at first order; what jumps in its gradients where three of them meet does not."""
    import torch

    x = torch.zeros(3, dtype=torch.float64)
    for seed in range(2):
        found = ns.subgradient(lambda x: middle(list(x.exp())) * 1, x, seed=seed)
        assert found.certificate.certified, str(found.certificate)
        assert sorted(found.gradient.tolist()) == [0, 0, 1]

    def jump(x: torch.Tensor) -> torch.Tensor:
        y = x.exp() - 1
        place = sum(2**k for k in range(3) if y[k] > 0)
        return y.sum() * (2.0 if place == 0 else 1.0)

    for seed in range(3):
        assert not ns.subgradient(jump, x, seed=seed).certificate.certified


def test_vanishing_on_a_cone() -> None:
    """h = 2 r_1 vanishes where r_1 = 0; not on the half plane r_1 >= 0, nor where only another row is 0."""
    rows = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    assert vanishes(2 * rows[0], np.array([rows[0], -rows[0], rows[1]])) < 1e-12
    assert vanishes(2 * rows[0], rows) > 1
    assert vanishes(rows[1], np.array([rows[0], -rows[0]])) > 0.5
    for h in np.random.default_rng(0).standard_normal((10, 3)):
        brute = np.random.default_rng(1).standard_normal((20_000, 3))
        brute /= np.linalg.norm(brute, axis=1)[:, None]
        inside = brute[np.all(brute @ rows.T >= 0, axis=1)]
        assert np.abs(inside @ h).max() == pytest.approx(vanishes(h, rows), rel=0.02)
