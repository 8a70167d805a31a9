"""What holds of every set: the support function, and what follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from nonsmooth.errors import UsageError
from nonsmooth.sets import Ball, Bracket, ConvexSet, Hull, MinkowskiSum, Point, Segments
from tests.sets.catalogue import ALL, BRACKETS, EXACT, POLYTOPES, ROUND

SEEDS = range(3)


def size_of(s: ConvexSet) -> float:
    lower, upper = s.box()
    return max(float(np.abs(lower).max()), float(np.abs(upper).max()))


def directions(s: ConvexSet, seed: int, n: int = 20) -> np.ndarray:
    return np.random.default_rng(seed + 100).standard_normal((n, s.space))


@pytest.fixture(params=[(name, seed) for name in EXACT for seed in SEEDS], ids=lambda p: f"{p[0]}-{p[1]}")
def exact(request: pytest.FixtureRequest) -> tuple[ConvexSet, int]:
    name, seed = request.param
    return EXACT[name][0](np.random.default_rng(seed)), seed


@pytest.fixture(params=[(name, seed) for name in ALL for seed in SEEDS], ids=lambda p: f"{p[0]}-{p[1]}")
def any_set(request: pytest.FixtureRequest) -> tuple[ConvexSet, int]:
    name, seed = request.param
    return ALL[name][0](np.random.default_rng(seed)), seed


def test_support_is_attained_and_sublinear(any_set: tuple[ConvexSet, int]) -> None:
    s, seed = any_set
    eps = 1e-12 * size_of(s) * s.space
    d = directions(s, seed)
    for a, b in zip(d[::2], d[1::2], strict=True):
        h, point = s.support(a), s.support_point(a)
        assert point.shape == (s.space,)
        assert abs(a @ point - h.lower) <= eps
        assert h.exact == (h.lower == h.upper) and h.lower <= h.upper
        assert abs(s.support(3 * a).lower - 3 * h.lower) <= 9 * eps
        assert abs(s.support(3 * a).upper - 3 * h.upper) <= 9 * eps
        assert s.support(a + b).lower <= h.upper + s.support(b).upper + eps
        assert s.support(0 * a) == 0


def test_samples_lie_inside(any_set: tuple[ConvexSet, int]) -> None:
    s, seed = any_set
    eps = 1e-12 * size_of(s) * s.space
    v = s.sample(30, seed=seed)
    assert v.shape == (30, s.space) and s.sample(0).shape == (0, s.space)
    assert (v == s.sample(30, seed=seed)).all()
    assert s.dimension == 0 or (v != s.sample(30, seed=seed + 1)).any()
    lower, upper = s.box()
    assert (v >= lower - eps).all() and (v <= upper + eps).all()
    for d in directions(s, seed):
        assert (v @ d).max() <= s.support(d).upper + eps
    assert all(s.contains(one) for one in v[:6])


def test_samples_fill_the_set() -> None:
    for name in ("hull", "segments", "sup-ball", "ball", "sum", "product", "union"):
        s = EXACT[name][0](np.random.default_rng(0))
        v = s.sample(400)
        assert np.linalg.matrix_rank(v - v.mean(0), tol=1e-3) == s.dimension, name
        middle = v.mean(0)
        spread = [(v @ d - middle @ d).max() / (float(s.support(d)) - middle @ d) for d in directions(s, 0)]
        assert min(spread) > 0.5, name


def test_box_is_tight(exact: tuple[ConvexSet, int]) -> None:
    s, _ = exact
    eps = 1e-12 * size_of(s) * s.space
    lower, upper = s.box()
    reference = ConvexSet.box(s)
    assert np.allclose(lower, reference[0], atol=eps, rtol=0) and np.allclose(upper, reference[1], atol=eps, rtol=0)
    for i in range(min(s.space, 4)):
        unit = np.eye(s.space)[i]
        assert abs(s.support_point(unit)[i] - upper[i]) <= eps
        assert abs(s.support_point(-unit)[i] - lower[i]) <= eps


def test_minimum_norm_is_certified(any_set: tuple[ConvexSet, int]) -> None:
    s, seed = any_set
    found = s.minimum_norm()
    p, scale = found.point, found.scale
    assert found.status == "computed" and found.iterations >= 0
    assert abs(np.linalg.norm(p) - found.norm.upper) <= 1e-14 * scale
    assert 0 <= found.norm.lower <= found.norm.upper
    assert (s.sample(100, seed=seed) @ p >= p @ p - found.gap - 1e-12 * scale**2).all()
    assert s.contains(p)
    if found.direction is None:
        assert found.norm.lower == 0
    else:
        assert abs(np.linalg.norm(found.direction) - 1) < 1e-12
        assert s._enclosing() is None or s._enclosing().support(found.direction).upper <= -found.norm.lower < 0
        assert s.support(found.direction).lower < 0
    if s.exact:
        assert found.norm.exact and found.gap <= 1e-10 * scale**2
        assert float(s.distance()) == float(found.norm) == float(s.distance(np.zeros(s.space)))


def test_distance_is_lipschitz_and_agrees_with_nearest(exact: tuple[ConvexSet, int]) -> None:
    s, seed = exact
    v = size_of(s) * 2 * directions(s, seed, 6)
    distances = [float(s.distance(one)) for one in v]
    for i in range(5):
        step = np.linalg.norm(v[i + 1] - v[i])
        assert abs(distances[i + 1] - distances[i]) <= step * (1 + 1e-9)
        found = s.nearest(v[i])
        assert abs(np.linalg.norm(found.point - v[i]) - distances[i]) <= 1e-11 * found.scale
        sampled = np.linalg.norm(s.sample(50) - v[i], axis=1).min()
        assert distances[i] <= sampled * (1 + 1e-12) + 1e-12 * size_of(s)


def test_contains_tells_inside_from_outside(exact: tuple[ConvexSet, int]) -> None:
    s, seed = exact
    size = size_of(s)
    for d in directions(s, seed, 5):
        d /= np.linalg.norm(d)
        edge = s.support_point(d)
        assert s.contains(edge) is True
        assert s.contains(edge + 1e-4 * size * d) is False
        assert s.contains(edge + 1e-4 * size * d, tol=2e-4 * size) is True
        assert s.contains(edge + 1e-4 * size * d, tol=0.5e-4 * size) is False
        assert s.contains(edge + 1e-13 * size * d, tol=0) is not False


@pytest.mark.parametrize("name", EXACT)
def test_exact_sets_are_exact(name: str) -> None:
    s = EXACT[name][0](np.random.default_rng(0))
    assert s.exact and s.status == "computed" and s.support(np.ones(s.space)).exact
    assert repr(s).endswith(f"in R^{s.space}")


@pytest.mark.parametrize("name", ALL)
def test_dimension(name: str) -> None:
    s = ALL[name][0](np.random.default_rng(0))
    assert s.dimension == ALL[name][1]
    assert s.is_singleton == (ALL[name][1] == 0)


def test_dimension_does_not_see_the_offset() -> None:
    assert Hull([[1e8, 1.0], [1e8, 2.0]]).dimension == 1
    assert Segments(np.full(50, 1e3), np.eye(50)[:7]).dimension == 7
    assert Hull([[1.0, 0.0], [1.0, 1e-15]]).is_singleton


def test_an_undecided_width_is_no_singleton() -> None:
    s = Bracket(Point([0.0, 0.0]), Ball([0.0, 0.0], 1.0))
    assert s.dimension == 0 and not s.is_singleton


@pytest.mark.parametrize("name", POLYTOPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_vertices_give_the_support(name: str, seed: int) -> None:
    s = POLYTOPES[name][0](np.random.default_rng(seed))
    v = s.vertices()
    eps = 1e-9 * size_of(s)
    for d in directions(s, seed):
        assert abs((v @ d).max() - float(s.support(d))) <= eps
    for i in range(len(v)):
        others = np.delete(v, i, axis=0)
        assert not len(others) or Hull(others).contains(v[i]) is False


@pytest.mark.parametrize("name", ROUND)
def test_round_sets_have_no_vertices(name: str) -> None:
    with pytest.raises(UsageError, match="not known as a polytope"):
        ROUND[name][0](np.random.default_rng(0)).vertices()


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets_have_no_vertices(name: str) -> None:
    s = BRACKETS[name][0](np.random.default_rng(0))
    assert not s.exact and repr(s).endswith("bracketed")
    with pytest.raises(UsageError, match=r"Bracket|polytope"):
        s.vertices()


@pytest.mark.parametrize(
    "s",
    [
        Hull(np.eye(5)),
        Segments(np.zeros(3), np.eye(3)),
        Ball(np.zeros(3), 1.0, p=np.inf),
        Hull([[0.0], [1.0]]) + Ball([0.0], 1, p=1) + Hull([[0.0], [1.0]]),
    ],
)
def test_too_many_vertices_are_refused(s: ConvexSet) -> None:
    assert len(s.vertices(limit=8)) <= 8
    with pytest.raises(UsageError, match=r"vertices\(limit=1\) was asked of a \w+, which has at least \d+; raise"):
        s.vertices(limit=1)


def test_sum_multiple_and_translate_change_the_support(any_set: tuple[ConvexSet, int]) -> None:
    s, seed = any_set
    rng = np.random.default_rng(seed)
    v = size_of(s) * rng.standard_normal(s.space)
    other = Segments(v, size_of(s) * rng.standard_normal((2, s.space)))
    eps = 1e-12 * size_of(s) * s.space * 30
    for d in directions(s, seed, 8):
        h = s.support(d)
        assert abs((s + other).support(d).lower - h.lower - other.support(d).lower) <= eps
        assert abs((s + other).support(d).upper - h.upper - other.support(d).upper) <= eps
        assert abs((-1.5 * s).support(d).upper - 1.5 * s.support(-d).upper) <= eps
        assert abs((np.float64(-1.5) * s).support(d).lower - 1.5 * s.support(-d).lower) <= eps
        assert abs((s * 2).support(d).upper - 2 * h.upper) <= eps
        assert abs(s.translate(v).support(d).lower - h.lower - v @ d) <= eps
        assert abs(s.translate(v).support(d).upper - h.upper - v @ d) <= eps
    assert (s + other).exact == (2 * s).exact == s.translate(v).exact == s.exact
    assert (0 * s).is_singleton


def test_wrong_vectors_are_refused(any_set: tuple[ConvexSet, int]) -> None:
    s, _ = any_set
    asks = (s.support, s.support_point, s.nearest, s.distance, s.contains, s.translate)
    for ask in asks:
        with pytest.raises(UsageError, match=rf"of R\^{s.space} was given a \w+ of shape \(99,\); pass"):
            ask(np.ones(99))
        with pytest.raises(UsageError, match="holds nan or infinity"):
            ask(np.full(s.space, np.nan))
        with pytest.raises(UsageError, match="must be an array of numbers"):
            ask("word")


def test_other_wrong_use_is_refused() -> None:
    s = Hull([[0.0, 0.0], [1.0, 1.0]])
    for tol in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="pass a finite number that is not negative"):
            s.contains([0.0, 0.0], tol=tol)
    with pytest.raises(UsageError, match="multiplied by inf"):
        s * float("inf")
    with pytest.raises(UsageError, match=r"sample\(-1\) was asked"):
        s.sample(-1)
    with pytest.raises(TypeError):
        s + 1.0  # type: ignore[operator]
    with pytest.raises(TypeError):
        s * "2"  # type: ignore[operator]


def test_a_number_is_a_vector_of_the_line() -> None:
    s = Hull([[1.0], [2.0]])
    assert s.contains(1.5) and not s.contains(3) and abs(s.distance(5) - 3) < 1e-12 and s.support(-1) == -1


def test_the_structure_of_the_owner() -> None:
    s: ConvexSet = Hull([[0.0, 0.0, 1.0], [1.0, 2.0, 1.0]])
    assert s.unflatten(s.support_point([1.0, 1.0, 0.0])).tolist() == [1, 2, 1]
    s.flatten = lambda tree: np.concatenate([np.ravel(tree["w"]), np.ravel(tree["b"])])
    s.unflatten = lambda v: {"w": v[:2], "b": v[2]}
    tree = {"w": [1.0, 1.0], "b": 0.0}
    assert s.support(tree) == 3 and s.contains({"w": [0.5, 1.0], "b": 1.0})
    assert s.unflatten(s.support_point(tree))["b"] == 1
    assert abs(s.distance() - 1) < 1e-12 and abs(s.distance({"w": [0, 0], "b": 3.0}) - 2) < 1e-12
    for other in (2 * s, s + s, s.translate(tree)):
        assert other.unflatten(other.support_point(tree))["w"].shape == (2,)
    assert Hull([[1.0, 2.0]]).flatten([1.0]) == [1.0]


def test_threshold_of_membership_is_refined() -> None:
    s = Ball(np.zeros(3), 1.0, p=3) + Segments(np.zeros(3), np.eye(3))
    edge = s.support_point([1.0, 2.0, 3.0])
    for tol in (1e-3, 1e-6, 1e-9):
        assert s.contains(edge * (1 + tol), tol=20 * tol) is True
        assert s.contains(edge * (1 + 1e3 * tol), tol=tol) is False


def test_results_belong_to_the_caller() -> None:
    for name in ALL:
        s = ALL[name][0](np.random.default_rng(0))
        d = np.ones(s.space)
        before = s.support(d)
        for array in (s.support_point(d), *s.box(), s.nearest(s.support_point(d)).point, s.sample(3)):
            array += 7
        if name in POLYTOPES:
            v = s.vertices()
            v += 7
        assert s.support(d) == before, name


def test_sums_are_flat() -> None:
    a, b = Segments([0.0], [[1.0]]), Hull([[0.0], [1.0]])
    total = (a + b) + (a + Point([1.0])) + b
    assert isinstance(total, MinkowskiSum) and len(total.parts) == 3
    assert isinstance(a + a, Segments) and isinstance(Point([1.0]) + Point([2.0]), Point)
