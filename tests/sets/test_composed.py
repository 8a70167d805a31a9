"""Sums, unions, products, images and brackets against the same sets written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from nonsmooth.errors import UsageError
from nonsmooth.sets import (
    Ball,
    Bracket,
    ConvexSet,
    Ellipsoid,
    Hull,
    HullOfUnion,
    Image,
    MinkowskiSum,
    Point,
    Product,
    Segments,
)
from nonsmooth.sets.minimum_norm import certify


def same_points(a: np.ndarray, b: np.ndarray) -> bool:
    return len(a) == len(b) and cKDTree(a).query(b)[0].max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_sum_of_hulls_is_the_hull_of_sums(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b, c = rng.standard_normal((6, n)), rng.standard_normal((5, n)), rng.integers(-1, 2, (4, n)).astype(float)
    total = MinkowskiSum([Hull(a), Hull(b), Hull(c)])
    written = (a[:, None, None] + b[:, None] + c).reshape(-1, n)
    assert same_points(total.vertices(), Hull(written).vertices())
    assert total.minimum_norm().norm == pytest.approx(Hull(written).minimum_norm().norm, abs=1e-10)
    if n in (2, 3):
        assert len(total.vertices()) == len(ConvexHull(written).vertices)


def test_sums_open_and_merge() -> None:
    a, b = Segments([0.0, 1.0], [[1.0, 0.0]]), Segments([1.0, 1.0], [[0.0, 2.0], [1.0, 1.0]])
    total = MinkowskiSum([MinkowskiSum([a, Ball([0.0, 0.0], 1.0)]), b, Point([5.0, 5.0])])
    assert len(total.parts) == 2
    straight = total.parts[0]
    assert isinstance(straight, Segments) and straight.generators.shape == (3, 2)
    assert straight.center.tolist() == [6, 7] and total.simplified() is total
    assert isinstance(MinkowskiSum([a, b]).simplified(), Segments)
    assert isinstance(MinkowskiSum([Point([1.0])]).simplified(), Point)


def test_the_distance_of_a_sum_with_a_ball() -> None:
    rng = np.random.default_rng(0)
    core = Segments(rng.standard_normal(4), rng.standard_normal((6, 4)))
    for v in 10 * rng.standard_normal((5, 4)):
        expected = max(0.0, core.distance(v) - 0.5)
        found = (core + Ball(np.zeros(4), 0.5)).nearest(v)
        assert found.norm == pytest.approx(expected, abs=1e-10) and found.status == "computed"


def test_a_sum_with_too_many_pairs_is_refused() -> None:
    a = Hull(np.random.default_rng(0).standard_normal((1200, 30)))
    with pytest.raises(UsageError, match="of a MinkowskiSum, which has at least 1200"):
        (a + a.translate(np.ones(30))).vertices()
    b = Hull(np.random.default_rng(0).standard_normal((8, 3)))
    with pytest.raises(UsageError, match=r"limit=8\) was asked of a MinkowskiSum"):
        (b + -1 * b).vertices(limit=8)


def test_the_union_is_the_hull_of_all_points() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 3)), rng.standard_normal((5, 3)) + 1
    both, written = HullOfUnion([Hull(a), Hull(b)]), Hull(np.vstack([a, b]))
    assert same_points(both.vertices(), written.vertices())
    for d in rng.standard_normal((20, 3)):
        assert both.support(d) == written.support(d)
        assert both.support_point(d).tolist() == written.support_point(d).tolist()
    for v in 2 * rng.standard_normal((20, 3)):
        assert both.distance(v) == pytest.approx(written.distance(v), abs=1e-10)
    assert np.array_equal(both.box(), written.box())


def test_the_union_of_brackets_takes_the_larger_bounds() -> None:
    low, high = Bracket(Point([0.0]), Ball([0.0], 5.0)), Point([1.0])
    h = HullOfUnion([low, high]).support([1.0])
    assert (h.lower, h.upper) == (1, 5)


def test_the_product_against_its_points() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 2)), rng.standard_normal((3, 1))
    both = Product([Hull(a), Hull(b)])
    written = Hull(np.hstack([np.repeat(a, 3, axis=0), np.tile(b, (4, 1))]))
    assert same_points(both.vertices(), written.vertices()) and both.space == 3
    for v in 2 * rng.standard_normal((20, 3)):
        assert both.distance(v) == pytest.approx(written.distance(v), abs=1e-10)
        assert both.support(v) == pytest.approx(written.support(v))
        assert both.contains(v) is written.contains(v)
    with pytest.raises(UsageError, match="of a Product, which has at least"):
        Product([Hull(np.eye(20))] * 4).vertices()


def test_a_product_falls_back_where_a_part_does_not_converge() -> None:
    hard = Product([Ball(np.full(3, 2.0), 1.0, p=3), Point([0.0])])
    assert hard.minimum_norm().status == "computed"
    assert hard.minimum_norm(limit=1).status == "undecided"


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 2)])
def test_images_under_a_matrix(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    matrix, offset, points = (
        rng.standard_normal(shape),
        rng.standard_normal(shape[0]),
        rng.standard_normal((9, shape[1])),
    )
    image, written = Image.of_matrix(Hull(points), matrix, offset), Hull(points @ matrix.T + offset)
    by_functions = Image(Hull(points), lambda v: matrix @ v, lambda d: d @ matrix, shape[0], offset)
    assert same_points(image.vertices(), written.vertices())
    for d in rng.standard_normal((10, shape[0])):
        assert image.support(d) == pytest.approx(written.support(d)) == pytest.approx(by_functions.support(d))
        assert image.distance(3 * d) == pytest.approx(written.distance(3 * d), abs=1e-10)
        assert (3 * image).translate(d).support(d) == pytest.approx(3 * written.support(d) + d @ d)
    ball = Image.of_matrix(Ball(np.zeros(shape[1]), 1.0), matrix)
    assert ball.distance(np.full(shape[0], 9.0)) == pytest.approx(
        Ellipsoid(np.zeros(shape[0]), matrix.T).distance(np.full(shape[0], 9.0)), abs=1e-8
    )


def test_wrong_maps_are_refused() -> None:
    s = Ball([0.0, 0.0], 1.0)
    with pytest.raises(UsageError, match=r"`push` of an Image gave shape \(3,\); it must give the shape \(2,\)"):
        Image(s, lambda v: np.zeros(3), lambda d: d, 3).support(np.ones(3))
    with pytest.raises(UsageError, match=r"`pull` of an Image gave shape \(2,\); it must give the shape \(3,\)"):
        Image(s, lambda v: v, lambda d: d[:2], 3).support(np.ones(3))
    with pytest.raises(UsageError, match=r"offset of shape \(2,\); pass the shape \(3,\)"):
        Image(s, lambda v: v, lambda d: d, 3, [0.0, 0.0])
    for matrix in (np.ones((2, 3)), np.ones(2)):
        with pytest.raises(UsageError, match=r"a set in R\^2; pass the shape \(space, 2\)"):
            Image.of_matrix(s, matrix)


@pytest.mark.parametrize("kind", [MinkowskiSum, HullOfUnion, Product])
def test_wrong_parts_are_refused(kind: type[MinkowskiSum] | type[HullOfUnion] | type[Product]) -> None:
    with pytest.raises(UsageError, match=f"{kind.__name__} was given no set"):
        kind([])
    with pytest.raises(UsageError, match=f"{kind.__name__} takes sets; found a ndarray"):
        kind([np.ones(2)])  # type: ignore[list-item]
    if kind is not Product:
        with pytest.raises(UsageError, match=r"sets of R\^1 and of R\^2"):
            kind([Point([1.0]), Point([1.0, 2.0])])


def shell() -> Bracket:
    return Bracket(Ball([0.0, 3.0], 1.0), Ball([0.0, 3.0], 2.0))


def test_a_bracket_says_what_is_known() -> None:
    s = shell()
    assert repr(s.support([0.0, 1.0])) == "between 4.0 and 5.0"
    assert [s.contains([0.0, y]) for y in (3.0, 3.99, 4.5, 5.01)] == [True, True, None, False]
    assert [s.contains([0.0, y], tol=0.6) for y in (4.5, 4.8, 5.7)] == [True, None, False]
    found = s.minimum_norm()
    assert found.norm.lower == pytest.approx(1) and found.norm.upper == pytest.approx(2) and not found.norm.exact
    assert s.box()[0].tolist() == [-2, 1] and s.dimension == 2
    assert not s.exact and not (s + Point([1.0, 1.0])).exact and not (2 * s).exact


def test_a_descent_direction_comes_from_the_outer_set() -> None:
    inner = Hull([[1.0, 1.0], [1.0, -1.0]])
    crossing = Bracket(inner, Hull([[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0]])).minimum_norm()
    assert crossing.direction is None and crossing.norm.lower == 0 and crossing.norm.upper == pytest.approx(1)
    tilted = Hull([[1.0, 1.0], [1.0, -1.0], [-1.0, -2.5]])
    found = Bracket(inner, tilted).minimum_norm()
    assert found.direction is not None and tilted.support(found.direction) <= -found.norm.lower < 0
    assert found.norm.lower == pytest.approx(tilted.minimum_norm().norm)
    summed = (Bracket(inner, tilted) + Point([0.0, 0.0]) + Ball([0.0, 0.0], 0.05)).minimum_norm()
    assert summed.norm.lower == pytest.approx(found.norm.lower - 0.05)
    only_values = Bracket(inner, lambda d: float(tilted.support(d))).minimum_norm()
    assert 0 <= only_values.norm.lower <= found.norm.lower + 1e-12


def test_an_outer_function_bounds_the_distance_from_below() -> None:
    rng, better = np.random.default_rng(0), 0
    for _ in range(60):
        inner = rng.standard_normal((8, 4)) + rng.standard_normal(4)
        outer = np.vstack([inner, rng.standard_normal((3, 4)) + inner.mean(0)])
        b = Bracket(Hull(inner), lambda d, outer=outer: float((outer @ d).max()))
        found = b.minimum_norm()
        last = certify(b._support, np.zeros(4), found.point).norm.lower
        assert last <= found.norm.lower + 1e-9
        assert found.norm.lower <= Hull(outer).minimum_norm().norm + 1e-12
        assert found.norm.upper == pytest.approx(Hull(inner).minimum_norm().norm, abs=1e-10)
        better += found.norm.lower > last + 1e-3
    assert better > 0


def test_brackets_in_brackets() -> None:
    s = Bracket(Bracket(Point([0.0]), Ball([0.0], 1.0)), Bracket(Ball([0.0], 2.0), Ball([0.0], 3.0)))
    assert repr(s.support([1.0])) == "between 0.0 and 3.0"
    assert [s.contains([y]) for y in (0.0, 2.9, 3.1)] == [True, None, False]


@pytest.mark.parametrize(
    "outer", [Ball([0.0, 0.0], 0.5), lambda d: 0.5 * float(np.linalg.norm(d)), lambda d: float("nan")]
)
def test_an_outer_set_that_is_not_outer_is_found(outer: ConvexSet) -> None:
    with pytest.raises(UsageError, match=r"below the inner one.*Pass one that does"):
        Bracket(Ball([0.0, 0.0], 1.0), outer).support([1.0, 0.0])


def test_brackets_of_different_spaces_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Bracket was given sets of R\^1 and of R\^2"):
        Bracket(Point([1.0]), Point([1.0, 2.0]))


def test_an_outer_value_may_lie_below_by_rounding() -> None:
    s = Bracket(Point([1.0]), lambda d: float(d[0]) * (1 - 1e-12))
    h = s.support([1.0])
    assert h.lower == h.upper == 1
