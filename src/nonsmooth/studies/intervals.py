"""Confidence intervals of what is counted and of what is averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nonsmooth.errors import UsageError

__all__ = ["CONFIDENCE", "Mean", "Proportion", "mean_interval", "proportion_interval"]

CONFIDENCE = 0.95
"""The confidence of an interval, if none is asked for."""


@dataclass(frozen=True)
class Proportion:
    """How many of independent trials succeeded, with the exact binomial interval of their probability."""

    count: int
    trials: int
    low: float
    high: float
    confidence: float
    status: str = "sampled"

    @property
    def share(self) -> float:
        """The share of the trials that succeeded."""
        return self.count / self.trials


@dataclass(frozen=True)
class Mean:
    """The mean of independent values, with Student's interval; none of one value alone (infinite ends)."""

    value: float
    low: float
    high: float
    number: int
    confidence: float
    status: str = "sampled"


def proportion_interval(count: int, trials: int, *, confidence: float = CONFIDENCE) -> Proportion:
    """Give the exact confidence interval of a probability, of which `count` of `trials` independent trials are known.

        [low, high] = { p : P_p(X >= count) >= a/2 and P_p(X <= count) >= a/2 },   X ~ B(trials, p), a = 1 - confidence

    It covers p with at least the confidence asked for, whatever p and the number of trials. Status: `sampled`.

    Args:
        count: of the successes.
        trials: of the trials, at least 1.
        confidence: in (0, 1).

    Raises:
        UsageError: numbers that mean nothing.

    >>> found = proportion_interval(0, 100)
    >>> found.low, round(found.high, 4), round(1 - 0.025 ** (1 / 100), 4)
    (0.0, 0.0362, 0.0362)

    Source: ClopperPearson1934.
    """
    from scipy.stats import binomtest

    _check_confidence(confidence)
    if not 0 <= count <= trials or trials < 1:
        raise UsageError(f"count={count}, trials={trials}: pass at least one trial, and no more successes than trials.")
    found = binomtest(count, trials).proportion_ci(confidence, method="exact")
    return Proportion(count, trials, float(found.low), float(found.high), confidence)


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Mean:
    """Give the mean of independent values with Student's confidence interval.

        mean +- t_{n-1}(1 - a/2) s / sqrt(n),   s the standard deviation with n - 1, a = 1 - confidence

    The confidence holds for normal values; for others about, as n grows. Status: `sampled`.

    Args:
        values: n of them, finite.
        confidence: in (0, 1).

    Raises:
        UsageError: no value, values that are not finite, or no confidence.

    >>> found = mean_interval([0.5, 0.75, 1.0])
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.75, 0.129, 1.371)

    Source: Student1908.
    """
    from scipy.stats import t

    _check_confidence(confidence)
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise UsageError(f"a mean needs at least one value and finite ones; found {list(values)}.")
    n, mean = array.size, float(array.mean())
    half = math.inf if n == 1 else float(t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Mean(mean, mean - half, mean + half, n, confidence)


def _check_confidence(confidence: float) -> None:
    """Refuse what is no confidence."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence={confidence}: pass a number between 0 and 1, such as 0.95.")
