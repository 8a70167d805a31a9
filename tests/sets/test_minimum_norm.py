"""The shortest vector: against nonnegative least squares, in every scale, and where the search is cut short."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from nonsmooth.sets import Ball, Bounded, Ellipsoid, Hull, MinimumNorm, Segments, Support
from nonsmooth.sets.corral import Corral
from nonsmooth.sets.minimum_norm import certify, find_nearest


def naive(points: np.ndarray) -> float:
    """Give the length of the shortest vector of a hull: min |V'y|^2 + (sum y - 1)^2 over y >= 0."""
    scale = float(np.abs(points).max()) or 1.0
    a = np.vstack([points.T / scale, np.ones(len(points))])
    y, _ = nnls(a, np.append(np.zeros(points.shape[1]), 1.0), maxiter=10_000)
    return float(np.linalg.norm(y @ points / y.sum()))


def random_points(rng: np.random.Generator, kind: str) -> np.ndarray:
    n, m = int(rng.integers(1, 25)), int(rng.integers(1, 50))
    points = rng.standard_normal((m, n))
    if kind == "integers":
        points = rng.integers(-2, 3, (m, n)).astype(float)
    elif kind == "thin":
        points = points * 10.0 ** rng.uniform(-8, 0, n)
    elif kind == "flat":
        points = points[:, :1] @ rng.standard_normal((1, n)) + rng.standard_normal(n)
    elif kind == "nearly twice":
        points = np.vstack([points, points + 1e-9 * rng.standard_normal(points.shape)])
    elif kind == "lengths":
        points = points * 10.0 ** rng.uniform(-8, 0, (m, 1))
    offset = rng.standard_normal(n) * rng.choice([0, 0.3, 1, 3, 1000])
    return np.asarray((points + offset) * 10.0 ** rng.integers(-8, 9))


@pytest.mark.parametrize("kind", ["normal", "integers", "thin", "flat", "nearly twice", "lengths"])
def test_hulls_against_least_squares(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    for _ in range(60):
        points = random_points(rng, kind)
        scale = float(np.abs(points).max()) or 1.0
        found, expected = Hull(points).minimum_norm(), naive(points)
        assert found.status == "computed" and found.norm.exact
        assert found.norm.upper <= expected + 1e-9 * scale
        assert found.norm.lower <= expected * (1 + 1e-9) + 1e-13 * scale
        assert (points @ found.point >= found.point @ found.point - found.gap - 1e-13 * scale**2).all()


def test_segments_against_bounded_least_squares() -> None:
    rng = np.random.default_rng(0)
    for trial in range(100):
        n, k = int(rng.integers(1, 12)), int(rng.integers(1, 30))
        g = rng.standard_normal((k, n)) if trial % 2 else rng.integers(-2, 3, (k, n)).astype(float)
        center = rng.standard_normal(n) * rng.choice([0, 1, 5, 30])
        solved = lsq_linear(g.T, -center, bounds=(0, 1), method="bvls", tol=1e-14, max_iter=1000)
        found = Segments(center, g).minimum_norm()
        assert found.status == "computed" and found.norm.exact
        assert abs(found.norm - np.linalg.norm(center + solved.x @ g)) <= 1e-8 * found.scale


@pytest.mark.parametrize(("k", "n"), [(100, 2), (1000, 50), (300, 200)])
@pytest.mark.parametrize("far", [0.3, 1.5])
def test_many_segments(k: int, n: int, far: float) -> None:
    rng = np.random.default_rng(k)
    g = rng.standard_normal((k, n))
    u = rng.standard_normal(n)
    center = -g.sum(0) / 2 + far * np.abs(g @ u).sum() / 2 * u / (u @ u)
    found = Segments(center, g).minimum_norm()
    assert found.status == "computed" and found.iterations < 20 * n and found.norm.exact


def test_a_short_vector_is_accurate_relative_to_its_length() -> None:
    rng = np.random.default_rng(1)
    for length in (1e-3, 1e-6, 1e-9):
        normal, _ = np.linalg.qr(rng.standard_normal((6, 6)))
        points = np.vstack([rng.standard_normal((20, 5)), np.eye(5), -np.eye(5)]) @ normal[1:] + length * normal[0]
        found = Hull(points).minimum_norm()
        assert found.norm.exact and abs(found.norm.upper - length) <= 1e-11
        assert found.direction is not None
        assert np.linalg.norm(found.direction + normal[0]) <= 1e-13 / length


def test_zero_inside_has_no_direction() -> None:
    found = Hull([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]).minimum_norm()
    assert found.norm == 0 and found.norm.lower == 0 and found.direction is None and found.gap < 1e-20
    assert found.norm.exact


def test_the_limit_is_reported_with_bounds_that_hold() -> None:
    points = np.random.default_rng(0).standard_normal((200, 20)) + 1
    full = Hull(points).minimum_norm()
    for limit in (1, 3, 6):
        found = Hull(points).minimum_norm(limit=limit)
        assert found.status == "undecided" and not found.norm.exact and found.iterations <= limit + 1
        assert found.norm.lower <= full.norm <= found.norm.upper
        assert np.linalg.norm(found.point - full.point) <= np.sqrt(found.gap)
    assert Hull(points).minimum_norm(tolerance=0.1).iterations < full.iterations
    assert Hull(points).nearest(np.zeros(20), limit=3).status == "undecided"


def test_the_threshold_ends_the_search() -> None:
    points = np.random.default_rng(0).standard_normal((200, 20)) + 1

    def support(d: np.ndarray) -> Support:
        i = int((points @ d).argmax())
        return Support(float(points[i] @ d), float(points[i] @ d), points[i])

    full = find_nearest(support, np.zeros(20))
    above = find_nearest(support, np.zeros(20), threshold=full.norm / 2)
    below = find_nearest(support, np.zeros(20), threshold=full.norm * 2)
    assert above.iterations < full.iterations and above.norm.lower > full.norm / 2
    assert below.iterations < full.iterations and below.norm.upper <= full.norm * 2


def test_a_round_set_with_zero_on_its_edge_stays_honest() -> None:
    matrix = np.diag(np.logspace(-2, 0, 50))
    center = np.append(np.zeros(49), 1.0)

    def support(d: np.ndarray) -> Support:
        y = matrix @ d / np.linalg.norm(matrix @ d)
        return Support(float(center @ d + y @ matrix @ d), float(center @ d + y @ matrix @ d), center + y @ matrix)

    found = find_nearest(support, np.zeros(50), limit=300)
    assert found.norm.lower == 0 and found.norm.upper < 1e-2 and found.direction is None
    assert found.status == "undecided" and not found.norm.exact
    assert Ellipsoid(center, matrix).minimum_norm().norm == 0


def test_certify_tells_right_from_wrong() -> None:
    s = Ball([3.0, 0.0], 1.0)
    right = certify(s._support, np.zeros(2), np.array([2.0, 0.0]))
    wrong = certify(s._support, np.zeros(2), np.array([3.0, 0.0]))
    at = certify(s._support, np.array([3.0, 0.0]), np.array([3.0, 0.0]), 5)
    assert right.status == "computed" and right.norm.exact and abs(right.norm - 2) < 1e-12
    assert wrong.status == "undecided" and wrong.norm.lower <= 2 <= wrong.norm.upper and wrong.gap >= 3 - 1e-9
    assert at.status == "computed" and at.norm == 0 and at.iterations == 5 and at.direction is None


def test_bounded_by_takes_the_better_bound_only() -> None:
    inner = MinimumNorm(np.ones(1), Bounded(0.4, 1.0), np.ones(1), 1.0, 3, "computed", 1.0)
    worse = inner._replace(norm=Bounded(0.3, 0.3), direction=-np.ones(1))
    better = inner._replace(norm=Bounded(0.9, 2.0), direction=-np.ones(1))
    assert inner.bounded_by(worse) is inner
    assert inner.bounded_by(better).norm.lower == 0.9 and inner.bounded_by(better).direction == -1
    assert inner.bounded_by(inner._replace(norm=Bounded(3.0))).norm.lower == 1.0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_few_vectors_in_a_large_space(scale: float) -> None:
    rng = np.random.default_rng(0)
    center, g = scale * rng.standard_normal(5_000), scale * rng.standard_normal((40, 5_000))
    for s in (Segments(center - g.sum(0) / 2, g), Hull(np.vstack([center, g])), Segments(center, np.zeros((0, 5_000)))):
        for target in (np.zeros(5_000), 3 * center):
            found = s.nearest(target)
            assert found.status == "computed" and found.norm.exact
            assert found.direction is not None
            assert s.support(found.direction) - found.direction @ target <= -found.norm.lower
        assert s.nearest(s.support_point(center)).norm == 0
        assert s.contains(s.sample(1)[0]) and s.contains(s.sample(1)[0] + scale) is False


def test_the_corral_drops_what_it_does_not_need() -> None:
    corral = Corral(np.array([4.0, 1.0]))
    assert corral.add(np.array([2.0, -3.0])) and len(corral.points) == 2
    assert corral.add(np.array([0.5, 0.1])) and corral.points.tolist() == [[0.5, 0.1]]
    assert corral.nearest.round(12).tolist() == [0.5, 0.1]


def test_the_corral_survives_growth_of_the_points_and_many_changes() -> None:
    rng = np.random.default_rng(0)
    corral = Corral(np.append(rng.standard_normal(30) * 1e-6, 1.0))
    for i in range(200):
        p = corral.nearest
        new = np.append(rng.standard_normal(30) * 10.0 ** min(i / 20 - 6, 2), 1.0)
        if p @ new < p @ p - 1e-9 * np.linalg.norm(p) * np.linalg.norm(new):
            assert corral.add(new)
            assert (corral.weights > 0).all() and abs(corral.weights.sum() - 1) < 1e-12
            spread = np.abs(corral.points @ corral.nearest - corral.nearest @ corral.nearest)
            assert spread.max() <= 1e-12 * corral.size
            assert np.linalg.norm(corral.weights @ corral.points - corral.nearest) <= 1e-12 * corral.size
    assert abs(np.linalg.norm(corral.nearest) - naive(corral.points)) < 1e-9


def test_the_corral_refuses_a_point_too_many() -> None:
    corral = Corral(np.array([1.0]))
    assert corral.add(np.array([-1.0])) and len(corral.points) == 2
    assert not corral.add(np.array([-2.0]))
    assert corral.nearest == pytest.approx(0)
