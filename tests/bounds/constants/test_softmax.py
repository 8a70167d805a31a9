"""Constants of softmax and of logarithms of sums hold from both sides."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from nonsmooth.bounds.constants.softmax import THIRD, likely  # noqa: E402
from tests.bounds.constants.suprema import anywhere, ball, both_sides, constants  # noqa: E402

FUNCTIONS = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "logcumsumexp": lambda x: torch.logcumsumexp(x, -1),
}


def cumulated(x):
    """The partial sums, one by one."""
    return torch.stack([torch.logsumexp(x[..., : k + 1], -1) for k in range(x.shape[-1])], -1)


PLAIN = {**FUNCTIONS, "logcumsumexp": cumulated}


def printed(name: str, n: int) -> tuple[float, float]:
    """The constants on all of the space."""
    known = {
        "softmax": (0.5, sqrt(2 / 27)),
        "log_softmax": (sqrt(n), sqrt(n) / 2),
        "logsumexp": (1.0, 0.5),
        "logcumsumexp": (sqrt(n), sqrt(n - 1) / 2),
    }
    return known[name]


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_everywhere(name: str, shape: tuple[int, ...]) -> None:
    """On all of the space the constants are those of the table, attained to 1%."""
    reach = anywhere(*shape)
    local = constants(FUNCTIONS[name], reach)
    assert (local.lipschitz[0], local.smoothness[0, 0]) == pytest.approx(printed(name, shape[-1]))
    both_sides(PLAIN[name], [reach], local, {(0,): 0.99, (0, 0): 0.99}, 8.0)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("radius", [pytest.param(0.05, marks=pytest.mark.slow), 1.0])
def test_about_a_point(name: str, radius: float) -> None:
    """On balls the constants hold, and never exceed those of the whole space; of two classes they are nearly attained."""
    rng = np.random.default_rng(1)
    for center in (rng.normal(size=(2, 4)), np.array([[4.0, 0.0]])):
        reach = ball(center, radius)
        local = constants(FUNCTIONS[name], reach)
        whole = printed(name, center.shape[-1])
        assert local.lipschitz[0] <= whole[0] and local.smoothness[0, 0] <= whole[1] * (1 + 1e-12)
        attained = 0.8 if center.shape == (1, 2) and name == "softmax" else 0.0
        both_sides(PLAIN[name], [reach], local, {(0,): attained, (0, 0): attained})


def test_one_entry_and_many() -> None:
    """Along an axis of one entry softmax is constant; probabilities of many alike entries are small, and so is l."""
    assert constants(FUNCTIONS["softmax"], anywhere(3, 1)).lipschitz[0] == 0
    many = constants(FUNCTIONS["softmax"], ball(np.zeros((1, 1000)), 0.1))
    assert many.lipschitz[0] < 0.0012 and float(np.max(many.high)) < 0.0012
    assert constants(lambda x: torch.logsumexp(x, (0, 1)), ball(np.zeros((2, 3)), 0.0)).low == pytest.approx(log(6))
    assert likely(anywhere(2, 3), (1,)).second == THIRD


def test_the_third_cumulant_by_its_maximum() -> None:
    """p (1 - p) (1 - 2 p) 2^1.5 has the maximum sqrt(2/27)."""
    p = np.linspace(0, 1, 100_001)
    assert np.max(p * (1 - p) * (1 - 2 * p)) * 2**1.5 == pytest.approx(THIRD, rel=1e-8)
