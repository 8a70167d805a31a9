import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nonsmooth.bounds.constants.activations import ACTIVATIONS
from nonsmooth.bounds.constants.scalar import ScalarFunction, entrywise
from nonsmooth.bounds.reach import Reach
from tests.bounds.constants.checker import faults_on, random_intervals

inf = math.inf

CUBIC = ScalarFunction(
    lambda t: t * (t**2 - 3),
    lambda t: 3 * t**2 - 3,
    lambda t: 6 * t,
    turns=(-1, 1),
    bends=(0,),
)
BROKEN = ScalarFunction(
    lambda t: np.abs(t - 1),
    lambda t: np.where(t > 1, 1.0, -1.0),
    lambda t: np.zeros(np.shape(t)),
    kinks=(1,),
    rounding=0,
)


def reach(low, high, shape=(), norm=inf) -> Reach:
    return Reach(shape, norm, np.ones(1), np.zeros((1, 1)), np.asarray(low, float), np.asarray(high, float))


def checked(function: ScalarFunction, oracle) -> list:
    rng = np.random.default_rng(0)
    return [f for i in random_intervals(rng, (-5.0, 5.0), 40) for f in faults_on(function, oracle, *i)]


@pytest.mark.parametrize(
    ("interval", "range_", "slopes", "curvature"),
    [
        ((-2, 3), (-2, 18), (-3, 24), 18),
        ((0, 0.5), (-1.375, 0), (-3, -2.25), 3),
        ((-inf, inf), (-inf, inf), (-3, inf), inf),
        ((2, inf), (2, inf), (9, inf), inf),
        ((1, 1), (-2, -2), (0, 0), 6),
    ],
)
def test_a_polynomial(interval, range_, slopes, curvature) -> None:
    ends = [np.array(float(v)) for v in interval]
    assert np.allclose(CUBIC.range(*ends), range_)
    assert np.allclose(CUBIC.slopes(*ends), slopes, atol=1e-12)
    assert np.allclose(CUBIC.curvature(*ends), curvature)


@pytest.mark.parametrize(
    ("interval", "slopes", "curvature"),
    [((0, 1), (-1, -1), 0), ((1, 2), (1, 1), 0), ((0, 2), (-1, 1), inf), ((1, 1), (-1, 1), 0), ((3, inf), (1, 1), 0)],
)
def test_an_interval_that_ends_in_a_kink_knows_one_side(interval, slopes, curvature) -> None:
    ends = [np.array(float(v)) for v in interval]
    assert tuple(map(float, BROKEN.slopes(*ends))) == slopes
    assert BROKEN.curvature(*ends) == curvature


def test_arrays_of_intervals_are_those_of_their_entries() -> None:
    rng = np.random.default_rng(1)
    low = rng.normal(0, 2, (3, 4))
    high = low + rng.exponential(1, (3, 4))
    low[0, 0], high[1, 1] = -inf, inf
    for function in (CUBIC, BROKEN, ACTIVATIONS["gelu"]({})):
        for method in ("range", "slopes", "curvature"):
            found = np.stack(np.broadcast_arrays(*np.atleast_1d(getattr(function, method)(low, high))))
            for index in np.ndindex(3, 4):
                alone = np.atleast_1d(getattr(function, method)(np.array(low[index]), np.array(high[index])))
                seen = found[(..., *index)] if method != "curvature" else found[:, :][index[0]][index[1]]
                assert np.array_equal(np.ravel(seen), np.ravel(alone))


def test_the_checker_finds_no_fault_in_a_right_function() -> None:
    assert checked(CUBIC, lambda t: t**3 - 3 * t) == []


@pytest.mark.parametrize("left_out", ["turns", "bends"])
def test_the_checker_finds_a_point_that_was_left_out(left_out: str) -> None:
    assert checked(replace(CUBIC, **{left_out: ()}), lambda t: t**3 - 3 * t)
    gelu = ACTIVATIONS["gelu"]({})
    assert not checked(gelu, torch.nn.functional.gelu)
    for kind in ("turns", "bends", "twists"):
        points = getattr(gelu, kind)
        for k in range(len(points)):
            assert checked(replace(gelu, **{kind: points[:k] + points[k + 1 :]}), torch.nn.functional.gelu)


def test_the_checker_finds_a_wrong_slope_and_a_loose_bound() -> None:
    assert checked(replace(CUBIC, first=lambda t: 3 * t**2 - 2.9), lambda t: t**3 - 3 * t)
    assert checked(replace(CUBIC, second=lambda t: 6.3 * t), lambda t: t**3 - 3 * t)


def test_constants_of_entries_are_maxima_not_norms() -> None:
    local = entrywise(ACTIVATIONS["sigmoid"]({}), reach(-inf, inf, (100,)))
    assert local.lipschitz[0] == pytest.approx(0.25, abs=1e-12)
    assert local.smoothness[0, 0] == pytest.approx(math.sqrt(3) / 18, abs=1e-12)
    assert local.why == ""


def test_the_norm_of_the_result() -> None:
    local = entrywise(CUBIC, reach(-1, 1, (4,), 2.0))
    assert local.norm == pytest.approx(3 * 2.0)
    local = entrywise(ACTIVATIONS["sigmoid"]({}), reach(-inf, inf, (4,), 2.0))
    assert local.norm == pytest.approx(2 * 0.5 + 0.25 * 2)


def test_what_is_infinite_says_why() -> None:
    assert (
        "`relu` has no bounded second derivative on [-1, 1]"
        in entrywise(ACTIVATIONS["relu"]({}), reach(-1, 1), "relu").why
    )
    assert entrywise(ACTIVATIONS["relu"]({}), reach(0, 1), "relu").why == ""
    assert "no bounded slope" in entrywise(ACTIVATIONS["hardshrink"]({}), reach(0, 1), "hardshrink").why


def test_no_entries() -> None:
    empty = Reach((0,), 0.0, np.ones(1), np.zeros((1, 1)), np.zeros(0), np.zeros(0))
    local = entrywise(CUBIC, empty)
    assert local.lipschitz == [0.0] and local.smoothness == {(0, 0): 0.0} and local.norm == 0.0
