"""Constants of pooling: means have their exact norms, maxima the square root of the windows per pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.bounds.constants.one_step import OneStep, box, holds

torch = pytest.importorskip("torch")
F = torch.nn.functional

MEANS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "disjoint": (lambda x: F.avg_pool2d(x, 2), (1, 2, 6, 4)),
    "overlapping": (lambda x: F.avg_pool2d(x, 3, stride=1), (1, 1, 6, 5)),
    "padding counts": (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), (1, 1, 5, 5)),
    "padding does not": (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False), (1, 1, 5, 5)),
    "a divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (1, 1, 4, 4)),
    "a negative divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=-2), (1, 1, 4, 4)),
    "a negative divisor of volumes": (lambda x: F.avg_pool3d(x, 2, divisor_override=-3), (1, 1, 4, 2, 2)),
    "ends cut off": (lambda x: F.avg_pool1d(x, 3, stride=2, ceil_mode=True), (1, 1, 8)),
    "three axes": (lambda x: F.avg_pool3d(x, 2), (1, 1, 4, 2, 2)),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (1, 1, 7, 4)),
    "adaptive to one": (lambda x: F.adaptive_avg_pool2d(x, 1), (1, 2, 3, 3)),
}

MAXIMA: dict[str, tuple[Callable[..., Any], tuple[int, ...], float]] = {
    "disjoint": (lambda x: F.max_pool2d(x, 2), (1, 2, 4, 6), 1.0),
    "overlapping": (lambda x: F.max_pool2d(x, 3, stride=1), (1, 1, 7, 7), 3.0),
    "strides": (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), (1, 1, 7, 7), 2.0),
    "dilated": (lambda x: F.max_pool1d(x, 2, stride=1, dilation=2), (1, 1, 7), np.sqrt(2)),
    "adaptive": (lambda x: F.adaptive_max_pool1d(x, 3), (1, 1, 5), np.sqrt(2)),
}


@pytest.mark.parametrize("name", MEANS)
def test_means_have_their_norm(name: str) -> None:
    function, shape = MEANS[name]
    rng = np.random.default_rng(len(name))
    step = OneStep("torch", function, [rng.normal(size=shape)], 0.4)
    assert holds(step, rng).lipschitz[0] == pytest.approx(step.slope(0, step.arrays), rel=1e-9)


@pytest.mark.parametrize("name", MEANS)
def test_means_of_intervals(name: str) -> None:
    function, shape = MEANS[name]
    rng = np.random.default_rng(len(name))
    x = rng.random(shape)
    step = OneStep("torch", function, [x], operands=[box(x, x + rng.random(shape), 0, 1)])
    local = holds(step, rng, samples=20)
    assert np.allclose(local.high if "negative" in name else local.low, step.value(x))
    plain = OneStep("torch", function, [x], operands=[box(np.zeros(shape), np.ones(shape), 0, 1)])
    holds(plain, rng, samples=20)


def test_a_quarter_of_a_disjoint_window_of_four_by_four() -> None:
    step = OneStep("torch", lambda x: F.avg_pool2d(x, 4), [np.ones((1, 1, 8, 8))])
    assert step.local().lipschitz[0] == pytest.approx(1 / 4)


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima_attain_their_constant(name: str) -> None:
    function, shape, constant = MAXIMA[name]
    rng = np.random.default_rng(len(name))
    step = OneStep("torch", function, [rng.normal(size=shape)], 0.4)
    local = holds(step, rng)
    assert local.lipschitz[0] == pytest.approx(constant) and local.smoothness[0, 0] == np.inf and local.why
    best = 0.0
    for at in range(int(np.prod(shape))):
        x = np.zeros(shape)
        x.reshape(-1)[at] = 1.0
        best = max(best, step.slope(0, [x]))
    assert best == pytest.approx(constant)


def test_windows_of_one_entry_are_smooth() -> None:
    step = OneStep("torch", lambda x: F.max_pool2d(x, 1, stride=2), [np.ones((1, 1, 4, 4))])
    assert step.local().smoothness[0, 0] == 0.0


def test_padding_never_wins() -> None:
    x = -1 - np.random.default_rng(0).random((1, 1, 5, 5))
    step = OneStep("torch", lambda x: F.max_pool2d(x, 3, padding=1), [x], operands=[box(x - 1, x, 0, 1)])
    local = holds(step, np.random.default_rng(1))
    assert np.all(np.asarray(local.high) < -0.9)
