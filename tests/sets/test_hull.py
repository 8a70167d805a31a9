from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, Delaunay

from nonsmooth.errors import UsageError
from nonsmooth.sets import Hull, Point
from nonsmooth.sets.extreme import extreme_points


def by_programs(points: np.ndarray) -> set[tuple[float, ...]]:
    """Give the extreme points: those for which no convex combination of the others exists, by linear programs."""
    points = np.unique(points, axis=0)
    found = set()
    for i in range(len(points)):
        others = np.delete(points, i, 0)
        a, b = np.vstack([others.T, np.ones(len(others))]), np.append(points[i], 1.0)
        if not len(others) or linprog(np.zeros(len(others)), A_eq=a, b_eq=b, bounds=(0, None)).status == 2:
            found.add(tuple(points[i]))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_vertices_against_linear_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 8)), int(rng.integers(1, 30))
    points = rng.integers(-2, 3, (m, n)).astype(float) if seed % 2 else rng.standard_normal((m, n))
    if seed % 3 == 0 and n > 2:
        points = points[:, :2] @ rng.integers(-2, 3, (2, n))
    vertices = Hull(points).vertices()
    assert {tuple(v) for v in vertices} == by_programs(points) and len(vertices) == len(by_programs(points))


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_against_qhull(n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    points = scale * rng.standard_normal((60, n))
    s, hull = Hull(points), ConvexHull(points)
    assert sorted(map(tuple, s.vertices())) == sorted(map(tuple, points[hull.vertices]))
    inside = Delaunay(points / scale)
    for v in 1.5 * rng.standard_normal((60, n)):
        margin = (hull.equations[:, :-1] @ (scale * v) + hull.equations[:, -1]).max() / scale
        assert s.contains(scale * v) is bool(inside.find_simplex(v) >= 0)
        if abs(margin) > 1e-6:
            assert s.contains(scale * v) is bool(margin < 0)
            assert s.distance(scale * v) >= scale * (margin - 1e-9)


def test_a_flat_hull_in_high_dimension() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((40, 2))
    embedding, _ = np.linalg.qr(rng.standard_normal((300, 2)))
    s = Hull(flat @ embedding.T + 5)
    assert s.dimension == 2 and len(s.vertices()) == len(ConvexHull(flat).vertices)
    assert s.contains(flat.mean(0) @ embedding.T + 5)
    assert s.contains(flat.mean(0) @ embedding.T + 5 + 1e-6) is False


def test_a_grid_has_its_corners_only() -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 3), -1).reshape(-1, 3)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    for points in (grid, grid @ rotation + 100, 1e-8 * grid @ rotation):
        assert len(Hull(points).vertices()) == 8
    five = np.stack(np.meshgrid(*[[0.0, 0.5, 1.0]] * 5), -1).reshape(-1, 5)
    assert len(Hull(five).vertices()) == 32


def test_extreme_points_are_indices_in_order() -> None:
    points = np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [1.0, 3.0]])
    assert extreme_points(points).tolist() == [1, 2, 4]
    assert extreme_points(points[1:2]).tolist() == [0]
    assert extreme_points(np.ones((3, 2))).tolist() == [0]


def test_nearly_equal_points_leave_one() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-13], [0.0, 1.0], [1e-13, 1.0]])
    assert len(Hull(points).vertices()) == 3


def test_a_point() -> None:
    p = Point([1.0, 2.0])
    assert p.point.tolist() == [1, 2] and p.vertices().tolist() == [[1, 2]] and p.sample(2).tolist() == [[1, 2]] * 2
    assert isinstance(-2 * p, Point) and (-2 * p).support([1.0, 0.0]) == -2
    p.point[0] = 5
    assert p.point[0] == 1


@pytest.mark.parametrize("points", [[1.0, 2.0], np.zeros((0, 3)), [[[1.0]]], 3.0])
def test_wrong_points_are_refused(points: object) -> None:
    with pytest.raises(UsageError, match=r"Hull was given points of shape .*; pass at least one"):
        Hull(points)


def test_points_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the points of a Hull of shape .* nan or infinity"):
        Hull([[1.0, np.inf]])
    with pytest.raises(UsageError, match="must be an array of numbers"):
        Hull([[1.0], [1.0, 2.0]])
    with pytest.raises(UsageError, match="points of shape"):
        Point([[1.0], [2.0]])


def test_the_points_of_the_user_are_copied() -> None:
    points = np.ones((2, 2))
    s = Hull(points)
    points += 1
    assert s.support([1.0, 0.0]) == 1
