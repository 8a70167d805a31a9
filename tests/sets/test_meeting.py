"""Where a convex set meets a cone: against scipy, and by its own certificate, which is checked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from nonsmooth.errors import UsageError
from nonsmooth.sets import (
    Ball,
    Bracket,
    ConvexCone,
    ConvexSet,
    Ellipsoid,
    Hull,
    Image,
    Meeting,
    MinkowskiSum,
    Orthant,
    Point,
    Segments,
    find_meeting,
)
from nonsmooth.sets.mixture import shortest_mixture
from tests.sets.test_cones import KINDS, Draw
from tests.shortened import shortened


def draw_set(rng: np.random.Generator, space: int, free: int) -> ConvexSet:
    """Draw a polytope; one in two is moved so that it meets every cone."""
    points = rng.standard_normal((int(rng.integers(2, 8)), space))
    found: ConvexSet = Segments(points[0], points[1:]) if rng.random() < 0.5 else Hull(points)
    if rng.random() < 0.5:
        inner = found.sample(1, 0)[0]
        inner[:free] = 0.0
        found = found.translate(-inner)
    return found


def check_certificate(found: Meeting, c: ConvexSet, free: int, cone: ConvexCone) -> None:
    """Recompute what the certificate says."""
    v, w = found.point[:free], found.point[free:]
    assert c.contains(found.point, 1e-9 * found.scale) is not False
    assert found.distance.upper == pytest.approx(cone.distance(w), abs=1e-12) and found.norm.upper == np.linalg.norm(v)
    if found.separation is not None:
        u = found.separation
        assert np.linalg.norm(u) == pytest.approx(1) and np.linalg.norm(cone.project(u)) < 1e-9
        assert -c.support(np.r_[np.zeros(free), -u]).upper >= found.distance.lower - 1e-9 * found.scale


@pytest.mark.parametrize("draw", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_against_a_general_solver(draw: Draw, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    free, m = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    c, cone = draw_set(rng, free + m, free), draw(rng, m)
    found = find_meeting(c, free, cone)
    check_certificate(found, c, free, cone)
    assert found.distance.upper - found.distance.lower <= 1e-8 * found.scale
    assert found.norm.upper - found.norm.lower <= 1e-3 * found.scale
    vertices = c.vertices()
    k = len(vertices)
    simplex = [{"type": "eq", "fun": lambda t: t.sum() - 1, "jac": lambda t: np.ones(k)}]
    nearest = minimize(
        lambda t: cone.distance((t @ vertices)[free:]) ** 2 / 2, np.full(k, 1 / k),
        jac=lambda t: vertices[:, free:] @ cone.polar_part((t @ vertices)[free:]),
        bounds=[(0, 1)] * k, constraints=simplex, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert found.distance.upper == pytest.approx(np.sqrt(2 * max(nearest.fun, 0)), abs=2e-4)
    assert found.distance.upper <= np.sqrt(2 * max(nearest.fun, 0)) + 1e-9


@pytest.mark.parametrize("seed", range(40))
def test_v_is_the_shortest(seed: int) -> None:
    """With the cone {0}, in the t of a zonotope, by a general solver."""
    rng = np.random.default_rng([seed, 8])
    free, m, k = 2, 2, 5
    c, G = rng.standard_normal(free + m), rng.standard_normal((k, free + m))
    start = rng.random(k)
    c[free:] = -(start @ G)[free:]  # w = 0 is reached
    found = find_meeting(Segments(c, G), free, Orthant([False] * m, [False] * m))
    zero = {"type": "eq", "fun": lambda t: (c + t @ G)[free:], "jac": lambda t: G[:, free:].T}
    other = minimize(
        lambda t: ((c + t @ G)[:free] ** 2).sum() / 2, start, jac=lambda t: G[:, :free] @ (c + t @ G)[:free],
        bounds=[(0, 1)] * k, constraints=[zero], method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert found.distance.upper < 1e-9 and found.status == "computed"
    assert found.norm.upper == pytest.approx(np.sqrt(2 * other.fun), abs=1e-5)
    assert found.norm.upper - found.norm.lower < 1e-7


@pytest.mark.parametrize("seed", shortened((0, 1, 2, 3, 5, 6, 7, 8, 9, 4), 6))  # 4 takes longest
def test_sets_that_are_no_polytopes(seed: int) -> None:
    rng = np.random.default_rng([seed, 9])
    ball = Ball(np.r_[3.0, rng.standard_normal(2)], 2.0)
    found = find_meeting(ball, 1, Orthant([False] * 2, [False] * 2))
    away = np.linalg.norm(ball.center[1:])
    exact = max(away - 2.0, 0.0)
    assert found.distance.lower - 1e-9 <= exact <= found.distance.upper + 1e-9 and found.distance.upper - exact < 1e-4
    if away < 2:
        assert found.norm.upper == pytest.approx(3 - np.sqrt(4 - away**2), abs=1e-3)
    both = MinkowskiSum(
        [Ellipsoid(np.zeros(3), rng.standard_normal((2, 3))), Segments(np.ones(3), rng.standard_normal((2, 3)))]
    )
    check_certificate(
        find_meeting(both, 1, Orthant([True, False], [False, True])), both, 1, Orthant([True, False], [False, True])
    )


def test_no_coordinate_is_free_or_none_is_compared() -> None:
    c = Hull([[1.0, 2.0], [2.0, -1.0]])
    assert find_meeting(c, 0, Orthant([False] * 2, [False] * 2)).distance.upper == pytest.approx(c.minimum_norm().norm)
    assert find_meeting(c, 2, Orthant([], [])).norm.upper == pytest.approx(c.minimum_norm().norm)
    found = find_meeting(Point([3.0, 4.0]), 1, Orthant([False], [False]))
    assert (float(found.distance), float(found.norm), found.status) == (4.0, 3.0, "computed")


def test_a_bracket_gives_intervals() -> None:
    inner, outer = Hull([[1.0, 1.0], [1.0, 2.0]]), Hull([[1.0, 0.5], [1.0, 2.0], [0.0, 1.0]])
    zero = Orthant([False], [False])
    found = find_meeting(Bracket(inner, outer), 1, zero)
    assert (round(found.distance.lower, 9), round(found.distance.upper, 9)) == (0.5, 1.0)
    assert found.norm.lower <= 1.0 == found.norm.upper and not found.distance.exact


def test_thousands_of_coordinates_and_few_generators() -> None:
    rng = np.random.default_rng(1)
    n, m, k = 4000, 6000, 6
    G, c = rng.standard_normal((k, n + m)), rng.standard_normal(n + m)
    c[n:] = -(rng.random(k) @ G)[n:]
    found = find_meeting(Segments(c, G), n, Orthant(np.zeros(m, bool), np.zeros(m, bool)))
    assert found.distance.upper < 1e-9 * found.scale and found.status == "computed"


def test_a_cone_inside_of_many_generators_is_met() -> None:
    """The gap stands still while the distance is halved again and again: thirty kinks that join v and w, one each."""
    n, slopes = 30, np.arange(30) / 20
    center = np.r_[np.full(n, -2.0), slopes + 3.0]
    c = Segments(center, 6 * np.hstack([np.eye(n), -np.eye(n)]))
    found = find_meeting(c, n, Orthant(np.zeros(n, bool), np.zeros(n, bool)))
    assert found.distance.upper < 1e-8 * found.scale
    assert np.abs(found.point[:n] - 1 - slopes).max() < 1e-7


def test_only_support_points_are_asked() -> None:
    c = Segments([0.0, -1.0], [[1.0, 1.0], [1.0, 2.0]])
    hidden = Image(c, lambda l: l, lambda d: d, 2)
    one, other = (find_meeting(s, 1, Orthant([False], [False])) for s in (c, hidden))
    assert np.allclose(one.point, other.point) and np.allclose(one.point, [0.5, 0.0])


def test_the_limit_leaves_bounds_that_hold() -> None:
    rng = np.random.default_rng(2)
    c = Segments(rng.standard_normal(12), rng.standard_normal((12, 12)))
    cone = Orthant([False] * 6, [False] * 6)
    full, part = find_meeting(c, 6, cone), find_meeting(c, 6, cone, limit=2)
    assert part.status == "undecided"
    assert part.distance.lower - 1e-9 <= full.distance.upper <= part.distance.upper + 1e-9


def test_shapes_must_add_up() -> None:
    with pytest.raises(UsageError, match="must add up"):
        find_meeting(Hull([[1.0, 2.0]]), 2, Orthant([True], [True]))


@pytest.mark.parametrize("seed", range(10))
def test_the_shortest_mixture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((6, int(rng.integers(1, 9)))) + rng.standard_normal()
    weights = shortest_mixture(points)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    p = weights @ points
    assert (points @ p).min() >= p @ p - 1e-10
    best = min(
        np.linalg.norm(points[i] * (1 - t) + points[j] * t)
        for i, j in itertools.combinations(range(6), 2)
        for t in (0, 0.5, 1)
    )
    assert np.linalg.norm(p) <= best + 1e-12
