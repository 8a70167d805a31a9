"""Intervals against closed forms, their defining equations, and how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nonsmooth.errors import UsageError
from nonsmooth.studies.intervals import mean_interval, proportion_interval


def tail(count: int, trials: int, p: float) -> float:
    """P(X >= count) for X ~ B(trials, p), term by term."""
    return math.fsum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(count, trials + 1))


@pytest.mark.parametrize("trials", [1, 2, 10, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_none_and_all_have_closed_forms(trials: int, confidence: float) -> None:
    half = (1 - confidence) / 2
    none = proportion_interval(0, trials, confidence=confidence)
    every = proportion_interval(trials, trials, confidence=confidence)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - half ** (1 / trials), rel=1e-9)
    assert every.low == pytest.approx(half ** (1 / trials), rel=1e-9)


def test_one_of_two() -> None:
    found = proportion_interval(1, 2)  # 1 - (1 - p)^2 = 0.025 and 1 - p^2 = 0.025
    assert found.low == pytest.approx(1 - math.sqrt(0.975), rel=1e-9)
    assert found.high == pytest.approx(math.sqrt(0.975), rel=1e-9)
    assert (found.share, found.status) == (0.5, "sampled")


@pytest.mark.parametrize(("count", "trials"), [(1, 7), (3, 20), (54, 1000), (258, 1000), (697, 1000)])
def test_the_ends_solve_their_equations(count: int, trials: int) -> None:
    found = proportion_interval(count, trials)
    assert tail(count, trials, found.low) == pytest.approx(0.025, rel=1e-6)
    assert 1 - tail(count + 1, trials, found.high) == pytest.approx(0.025, rel=1e-6)
    assert found.low < count / trials < found.high


@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.97])
def test_it_covers_at_least_as_often_as_it_says(p: float) -> None:
    n = 40
    weights = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    covered = [found.low <= p <= found.high for found in (proportion_interval(k, n) for k in range(n + 1))]
    assert 0.95 <= sum(w for w, c in zip(weights, covered, strict=True) if c) <= 1 + 1e-12


def test_students_interval() -> None:
    values = [0.90, 0.92, 0.97, 0.91, 0.95]
    found = mean_interval(values)
    assert found.value == pytest.approx(0.93) and found.number == 5
    # t_4(0.975) = 2.776445..., of the tables
    half = 2.7764451052 * np.std(values, ddof=1) / math.sqrt(5)
    assert (found.low, found.high) == (pytest.approx(0.93 - half), pytest.approx(0.93 + half))


def test_one_value_has_no_interval_and_equal_values_a_point() -> None:
    assert (mean_interval([0.5]).low, mean_interval([0.5]).high) == (-math.inf, math.inf)
    assert (mean_interval([0.5, 0.5]).low, mean_interval([0.5, 0.5]).high) == (0.5, 0.5)


@pytest.mark.parametrize(("count", "trials", "confidence"), [(1, 0, 0.9), (-1, 3, 0.9), (4, 3, 0.9), (1, 3, 1.0)])
def test_counts_that_mean_nothing(count: int, trials: int, confidence: float) -> None:
    with pytest.raises(UsageError):
        proportion_interval(count, trials, confidence=confidence)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_that_mean_nothing(values: list[float]) -> None:
    with pytest.raises(UsageError, match="at least one value and finite ones"):
        mean_interval(values)
