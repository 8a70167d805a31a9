from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from nonsmooth.errors import UsageError
from nonsmooth.sets import Hull, Segments
from nonsmooth.sets.arrangement import TooManyCells, cells
from tests.shortened import shortened


def all_sums(center: np.ndarray, generators: np.ndarray) -> np.ndarray:
    return np.array([center + np.array(t) @ generators for t in itertools.product((0.0, 1.0), repeat=len(generators))])


def random_generators(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 7)), int(rng.integers(1, 9))
    g = rng.integers(-2, 3, (k, n)).astype(float) if seed % 2 else rng.standard_normal((k, n))
    return np.asarray(g[:, :2] @ rng.integers(-2, 3, (2, n)) if seed % 3 == 0 and n > 2 else g)


@pytest.mark.parametrize("seed", shortened(range(40), 16))
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_vertices_against_all_sums(seed: int, scale: float) -> None:
    g = scale * random_generators(seed)
    center = scale * np.random.default_rng(seed).standard_normal(g.shape[1])
    found, expected = Segments(center, g).vertices(), Hull(all_sums(center, g)).vertices()
    assert len(found) == len(expected)
    assert cKDTree(found).query(expected)[0].max() < 1e-9 * scale


@pytest.mark.parametrize("n", [2, 3])
def test_against_qhull(n: int) -> None:
    rng = np.random.default_rng(n)
    g, center = rng.standard_normal((7, n)), rng.standard_normal(n)
    s, hull = Segments(center, g), ConvexHull(all_sums(center, g))
    assert len(s.vertices()) == len(hull.vertices)
    for v in center + g.sum(0) / 2 + 2 * rng.standard_normal((60, n)):
        margin = (hull.equations[:, :-1] @ v + hull.equations[:, -1]).max()
        assert s.contains(v) is bool(margin < 0)


@pytest.mark.parametrize(("k", "n"), [(5, 1), (40, 2), (30, 3), (9, 9), (12, 5), (4, 7)])
def test_the_number_of_cells_in_general_position(k: int, n: int) -> None:
    signs = cells(np.random.default_rng(k).standard_normal((k, n)), 10_000)
    rank = min(k, n)
    assert (
        len(signs) == len(np.unique(signs, axis=0)) == 2 * sum(comb(k - 1, i) for i in range(rank)) * (n > 1) or n == 1
    )
    assert n > 1 or len(signs) == 2
    assert (np.abs(signs) == 1).all()


def test_degenerate_arrangements() -> None:
    axes = np.vstack([np.eye(3), 2 * np.eye(3), -np.eye(3), np.zeros((2, 3))])
    assert len(cells(axes, 100)) == 8
    braid = np.array([[1.0, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1], [0, 1, -1, 0], [0, 1, 0, -1], [0, 0, 1, -1]])
    assert len(cells(braid, 100)) == 24
    assert cells(np.zeros((2, 3)), 10).tolist() == [[0, 0]]
    assert cells(np.zeros((0, 3)), 10).shape == (1, 0)


def test_the_permutohedron() -> None:
    g = np.array([np.eye(5)[i] - np.eye(5)[j] for i in range(5) for j in range(i)])
    s = Segments(np.arange(5.0)[::-1], g)
    assert len(s.vertices()) == 120 and s.dimension == 4
    assert sorted(np.unique(s.vertices().round(9))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("k", "n"), [(40, 12), (10_000, 2), (100, 4)])
def test_an_explosion_is_refused_early(k: int, n: int) -> None:
    s = Segments(np.zeros(n), np.random.default_rng(0).standard_normal((k, n)))
    with pytest.raises(UsageError, match="of a Segments, which has at least"):
        s.vertices(limit=1000)
    with pytest.raises(TooManyCells):
        cells(s.generators, 1000)


def test_a_factor_may_be_negative() -> None:
    s = -1 * Segments([1.0, 0.0], [[1.0, 0.0]])
    assert isinstance(s, Segments) and s.box()[0].tolist() == [-2, 0] and s.box()[1].tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("center", "generators"),
    [([0.0, 0.0], [[1.0]]), ([[0.0]], [[1.0]]), ([0.0, 0.0], [1.0, 2.0]), (0.0, [[1.0]])],
)
def test_wrong_shapes_are_refused(center: object, generators: object) -> None:
    with pytest.raises(UsageError, match=r"Segments was given a center of shape .*; pass shapes \(space,\)"):
        Segments(center, generators)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UsageError, match="the generators of Segments"):
        Segments([0.0], [[np.nan]])
    with pytest.raises(UsageError, match="the center of Segments"):
        Segments([np.nan], [[1.0]])
