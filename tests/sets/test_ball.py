from __future__ import annotations

import numpy as np
import pytest

from nonsmooth.errors import UsageError
from nonsmooth.sets import Ball, Ellipsoid
from nonsmooth.sets.ball import dual_point
from nonsmooth.sets.convex import ConvexSet

EXPONENTS = [1.0, 1.2, 1.5, 2.0, 3.0, 10.0, np.inf]


def dual(p: float) -> float:
    return np.inf if p == 1 else 1.0 if p == np.inf else p / (p - 1)


@pytest.mark.parametrize("p", EXPONENTS)
def test_support_is_the_dual_norm(p: float) -> None:
    rng = np.random.default_rng(0)
    center, matrix = rng.standard_normal(4), rng.standard_normal((3, 4))
    for d in (*rng.standard_normal((20, 4)), np.array([0.0, 1.0, 0.0, -1.0]), 1e-200 * np.ones(4), 1e200 * np.ones(4)):
        ball, ellipsoid = Ball(center, 2.0, p), Ellipsoid(center, matrix, p)
        h = 2 * np.linalg.norm(d / abs(d).max(), dual(p)) * abs(d).max()
        assert ball.support(d) == pytest.approx(center @ d + h, rel=1e-12)
        if abs(d).max() == pytest.approx(1, abs=5):
            assert ellipsoid.support(d) == pytest.approx(center @ d + np.linalg.norm(matrix @ d, dual(p)))
        assert np.linalg.norm(dual_point(d, p), p) == pytest.approx(1)
    assert dual_point(np.zeros(3), p).tolist() == [0, 0, 0]


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_nearest_agrees_with_the_general_algorithm(p: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    s = Ball(scale * rng.standard_normal(5), scale, p)
    for v in scale * 3 * rng.standard_normal((10, 5)):
        found = s.nearest(v)
        general = ConvexSet._nearest(s, v, 1e-12, 10_000, None)
        assert found.status == "computed" and found.norm.exact
        assert abs(found.norm - general.norm) <= 1e-9 * scale
        assert np.linalg.norm(s.center - found.point, p) <= scale * (1 + 1e-12)
    assert s.nearest(s.center).norm == 0 and (s.nearest(s.center).point == s.center).all()


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_balls_of_radius_zero(p: float) -> None:
    s = Ball([3.0, 4.0], 0.0, p)
    assert s.minimum_norm().norm == 5 and s.vertices().tolist() == [[3, 4]] and s.is_singleton


def test_closed_forms_need_one_support_value() -> None:
    for p in (1.0, 2.0, np.inf):
        assert Ball(np.full(50, 3.0), 1.0, p).minimum_norm().iterations == 1
    assert Ellipsoid(np.full(50, 3.0), np.diag(np.linspace(0.1, 1, 50))).minimum_norm().iterations == 1


def test_vertices() -> None:
    assert sorted(map(tuple, Ball([0.0, 0.0], 2.0, 1).vertices())) == [(-2, 0), (0, -2), (0, 2), (2, 0)]
    assert len(Ball(np.zeros(4), 2.0, np.inf).vertices()) == 16
    assert sorted(Ball([1.0], 2.0, 1.5).vertices().ravel()) == [-1, 3]
    cut = Ellipsoid(np.zeros(2), [[1.0, 0.0], [0.0, 1.0], [0.1, 0.1]], p=1)
    assert len(cut.vertices()) == 4
    assert sorted(Ellipsoid([1.0], [[3.0]], 2).vertices().ravel()) == [-2, 4]
    with pytest.raises(UsageError, match="has at least 1024"):
        Ball(np.zeros(10), 1.0, np.inf).vertices(limit=1000)


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.9999, 1.0, 1.0001, 3.0])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_ellipsoids_far_and_near(offset: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    matrix = scale * np.diag(np.logspace(-3, 0, 30)) @ rotation
    u = rng.standard_normal(30)
    s0 = Ellipsoid(np.zeros(30), matrix)
    edge = s0.support_point(u)
    found = Ellipsoid(-edge - scale * (offset - 1) * u / np.linalg.norm(u), matrix).minimum_norm()
    if offset >= 1:
        assert found.norm == pytest.approx(scale * (offset - 1), abs=1e-9 * scale)
    assert found.status == "computed" and found.norm.exact


def test_flat_and_empty_matrices() -> None:
    disc = Ellipsoid([0.0, 0.0, 2.0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert disc.dimension == 1 and disc.minimum_norm().norm == pytest.approx(2)
    assert disc.distance([10.0, 0.0, 2.0]) == pytest.approx(10 - np.sqrt(5))
    for matrix in (np.zeros((0, 2)), np.zeros((3, 2))):
        s = Ellipsoid([3.0, 4.0], matrix)
        assert s.minimum_norm().norm == 5 and s.is_singleton and s.box()[0].tolist() == [3, 4]


def test_multiples_keep_the_kind() -> None:
    assert isinstance(-2 * Ball([1.0], 1.0), Ball) and (-2 * Ball([1.0], 1.0)).box()[0] == -4
    moved = (-2 * Ellipsoid([1.0], [[3.0]], p=3)).translate([1.0])
    assert isinstance(moved, Ellipsoid) and moved.box()[0] == pytest.approx(-7) and moved.p == 3


@pytest.mark.parametrize("radius", [-1.0, np.nan, np.inf])
def test_wrong_radii_are_refused(radius: float) -> None:
    with pytest.raises(UsageError, match=r"Ball was given the radius .*; pass a finite number"):
        Ball([0.0], radius)


@pytest.mark.parametrize("p", [0.5, -1, np.nan])
def test_wrong_exponents_are_refused(p: float) -> None:
    with pytest.raises(UsageError, match=r"Ball was given p=.*; the p-norm needs"):
        Ball([0.0], 1.0, p)
    with pytest.raises(UsageError, match=r"Ellipsoid was given p=.*; the p-norm needs"):
        Ellipsoid([0.0], [[1.0]], p)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"center of shape \(1, 1\)"):
        Ball([[0.0]], 1.0)
    for matrix in ([[1.0, 2.0]], [1.0], [[[1.0]]]):
        with pytest.raises(UsageError, match="Ellipsoid was given a center of shape"):
            Ellipsoid([0.0], matrix)
