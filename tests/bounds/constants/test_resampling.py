"""Constants of interpolation: the norms of the maps along the axes are those of torch's, whatever the mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.bounds.constants.one_step import OneStep, box, holds

torch = pytest.importorskip("torch")
F = torch.nn.functional

CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "nearest": ((1, 1, 3, 2), {"scale_factor": 2}),
    "nearest to odd sizes": ((1, 1, 4, 3), {"size": (7, 5)}),
    "nearest-exact": ((1, 1, 4, 3), {"size": (7, 5), "mode": "nearest-exact"}),
    "linear": ((1, 2, 4), {"size": 9, "mode": "linear"}),
    "linear, aligned": ((1, 2, 4), {"size": 9, "mode": "linear", "align_corners": True}),
    "bilinear": ((1, 1, 3, 4), {"scale_factor": 2, "mode": "bilinear"}),
    "bilinear, smaller": ((1, 1, 6, 4), {"size": (4, 3), "mode": "bilinear"}),
    "bilinear, filtered": ((1, 1, 6, 4), {"size": (4, 3), "mode": "bilinear", "antialias": True}),
    "trilinear": ((1, 1, 2, 2, 2), {"size": (3, 4, 2), "mode": "trilinear"}),
    "bicubic": ((1, 1, 4, 3), {"scale_factor": 2, "mode": "bicubic"}),
    "bicubic, filtered": ((1, 1, 6, 4), {"size": (4, 3), "mode": "bicubic", "antialias": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_interpolation_has_its_norm(name: str) -> None:
    shape, options = CASES[name]
    rng = np.random.default_rng(len(name))
    x = rng.normal(size=shape)
    step = OneStep("torch", lambda x: F.interpolate(x, **options), [x], 0.4)
    assert holds(step, rng).lipschitz[0] == pytest.approx(step.slope(0, [x]), rel=1e-6)
    holds(OneStep("torch", step.f, [x], operands=[box(x - rng.random(shape), x + 0.3, 0, 1)]), rng, samples=20)
