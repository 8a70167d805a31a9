import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq

from nonsmooth.bounds.constants.activations import ACTIVATIONS
from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Reach
from tests.bounds.constants.checker import Box, box, called, derivatives, faults_on, observe, random_intervals

inf = math.inf
LINE = np.array(-inf), np.array(inf)
SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0}

SMOOTH = {
    "sigmoid": ({}, torch.sigmoid),
    "tanh": ({}, torch.tanh),
    "log_sigmoid": ({}, F.logsigmoid),
    "silu": ({}, lambda t: t * torch.sigmoid(t)),
    "gelu": ({"approximate": "none"}, F.gelu),
    "gelu tanh": ({"approximate": "tanh"}, lambda t: F.gelu(t, approximate="tanh")),
    "mish": ({}, lambda t: t * torch.tanh(F.softplus(t))),
}
"""Smooth activations: attributes, and an oracle that torch differentiates three times."""

BENT = {
    "elu": ({"alpha": 1.0, "scale": 1.0, "input_scale": 1.0}, F.elu, (0,)),
    "elu 2": ({"alpha": 2.0, "scale": 1, "input_scale": 1}, lambda t: F.elu(t, 2.0), (0,)),
    "selu": (SELU, F.selu, (0,)),
    "celu": ({"alpha": 0.5}, lambda t: F.celu(t, 0.5), (0,)),
    "celu 3": ({"alpha": 3.0}, lambda t: F.celu(t, 3.0), (0,)),
    "relu": ({}, torch.relu, (0,)),
    "leaky_relu": ({"negative_slope": 0.2}, lambda t: F.leaky_relu(t, 0.2), (0,)),
    "leaky_relu negative": ({"negative_slope": -1.5}, lambda t: torch.where(t > 0, t, -1.5 * t), (0,)),
    "relu6": ({"min_val": 0.0, "max_val": 6.0}, F.relu6, (0, 6)),
    "hardtanh": ({"min_val": -1.0, "max_val": 2.0}, lambda t: F.hardtanh(t, -1.0, 2.0), (-1, 2)),
    "clamp": ({"min": None, "max": 0.5}, lambda t: t.clamp(max=0.5), (0.5,)),
    "clamp below": ({"min": -0.5, "max": None}, lambda t: t.clamp(min=-0.5), (-0.5,)),
    "threshold": ({"threshold": 0.3, "value": 0.3}, lambda t: F.threshold(t, 0.3, 0.3), (0.3,)),
    "hardsigmoid": ({}, lambda t: (t / 6 + 0.5).clamp(0, 1), (-3, 3)),
    "hardswish": ({}, lambda t: t * (t / 6 + 0.5).clamp(0, 1), (-3, 3)),
    "softshrink": ({"lambd": 0.5}, lambda t: F.softshrink(t, 0.5), (-0.5, 0.5)),
    "hardshrink": ({"lambd": 0.5}, lambda t: F.hardshrink(t, 0.5), (-0.5, 0.5)),
    "threshold_jump": ({"threshold": 0.1, "value": 20.0}, lambda t: F.threshold(t, 0.1, 20.0), (0.1,)),
    "softplus_jump": ({"beta": 2.0, "threshold": 5.0}, lambda t: F.softplus(t, 2.0, 5.0), (2.5,)),
}
"""Activations with corners, kinks or jumps, and where."""

EXACT = {
    "sigmoid": ({}, 0.25, math.sqrt(3) / 18),
    "tanh": ({}, 1.0, 4 * math.sqrt(3) / 9),
    "log_sigmoid": ({}, 1.0, 0.25),
    "silu": ({}, 1.0998393194, 0.5),
    "gelu": ({}, 1.1289041514, math.sqrt(2 / math.pi)),
    "gelu tanh": ({"approximate": "tanh"}, 1.1289931, math.sqrt(2 / math.pi)),
    "elu": ({"alpha": 1.0, "scale": 1.0, "input_scale": 1.0}, 1.0, 1.0),
    "elu 2": ({"alpha": 2.0, "scale": 1.0, "input_scale": 1.0}, 2.0, inf),
    "selu": (SELU, SELU["alpha"] * SELU["scale"], inf),
    "celu": ({"alpha": 0.5}, 1.0, 2.0),
    "mish": ({}, 1.0884980, 0.6442046),
    "relu": ({}, 1.0, inf),
    "leaky_relu": ({"negative_slope": -2.0}, 2.0, inf),
    "hardsigmoid": ({}, 1 / 6, inf),
    "hardswish": ({}, 1.5, inf),
    "hardshrink": ({"lambd": 0.5}, inf, inf),
    "hardshrink 0": ({"lambd": 0.0}, 1.0, 0.0),
    "clamp": ({"min": 2.0, "max": 1.0}, 0.0, 0.0),
    "hardtanh": ({"min_val": -inf, "max_val": inf}, 1.0, 0.0),
}
"""Attributes, l and L on the whole line."""


def named(name: str) -> str:
    return name.split()[0]


@pytest.mark.parametrize("name", EXACT)
def test_the_constants_on_the_line(name: str) -> None:
    attributes, lipschitz, smoothness = EXACT[name]
    function = ACTIVATIONS[named(name)](attributes)
    fall, rise = function.slopes(*LINE)
    assert max(-fall, rise) == pytest.approx(lipschitz, rel=6e-6, abs=1e-12)
    assert function.curvature(*LINE) == pytest.approx(smoothness, rel=6e-6, abs=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_critical_points_are_all_there(name: str) -> None:
    attributes, oracle = SMOOTH[name]
    function = ACTIVATIONS[named(name)](attributes)
    grid = np.linspace(-12, 12, 4801) + 0.00123
    rows = derivatives(oracle, grid, 3)
    for order, kind in ((1, "turns"), (2, "bends"), (3, "twists")):
        listed = np.sort(np.array(getattr(function, kind), float))

        def at(t: float, order=order) -> float:
            return float(derivatives(oracle, np.array(t), 3)[order])

        big = np.abs(rows[order]) > 1e-7 if order < 3 else np.abs(rows[order]) > 1e-5
        crossing = np.flatnonzero((rows[order][:-1] * rows[order][1:] < 0) & big[:-1] & big[1:])
        found = np.sort([brentq(at, grid[k], grid[k + 1], xtol=1e-13) for k in crossing])
        assert len(found) == len(listed), (kind, found, listed)
        assert np.allclose(found, listed, atol=1e-9)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_ones_from_both_sides_on_intervals(name: str) -> None:
    attributes, oracle = SMOOTH[name]
    function = ACTIVATIONS[named(name)](attributes)
    for low, high in random_intervals(np.random.default_rng(3), (-inf, inf), 28):
        assert faults_on(function, oracle, low, high) == []
        assert np.isfinite(function.curvature(np.array(low), np.array(high)))


@pytest.mark.parametrize("name", BENT)
def test_bent_ones_from_both_sides_on_intervals(name: str) -> None:
    attributes, oracle, torn = BENT[name]
    function = ACTIVATIONS[named(name)](attributes)
    corner = named(name) == "celu" or name == "elu"
    jump = named(name) in ("hardshrink", "threshold_jump", "softplus_jump")
    intervals = random_intervals(np.random.default_rng(4), (-inf, inf), 28)
    intervals += [(p, p + 1.5) for p in torn] + [(p - 1.5, p) for p in torn]
    for low, high in intervals:
        found = faults_on(function, oracle, low, high, torn)
        inside = any(low < p < high for p in torn) or (jump and any(low <= p <= high for p in torn))
        assert [f for f in found if not (jump and inside)] == []
        ends = np.array(low), np.array(high)
        assert np.isinf(function.curvature(*ends)) == (inside and not corner)
        assert np.isinf(function.slopes(*ends)[1]) == (inside and jump)


@pytest.mark.parametrize("name", [*SMOOTH, *BENT])
def test_at_infinity_and_far_away(name: str) -> None:
    function = ACTIVATIONS[named(name)](({**SMOOTH, **BENT})[name][0])
    far = np.array([-inf, -1e300, -1e30, -800, 800, 1e30, 1e300, inf])
    with np.errstate(all="ignore"):
        for part in (function.value, function.first, function.second):
            found = part(far)
            assert not np.any(np.isnan(found))
            assert np.allclose(found[:1], part(np.array([-1e300]))) or abs(found[0]) == inf
        assert np.all(np.abs(function.first(far)) <= 2)


def reach(low, high, shape) -> Reach:
    return Reach(shape, inf, np.ones(1), np.zeros((1, 1)), np.asarray(low, float), np.asarray(high, float))


@pytest.mark.parametrize(("beta", "threshold"), [(1.0, 20.0), (0.5, 25.0), (3.0, 20.0), (-1.0, 20.0)])
def test_softplus(beta: float, threshold: float) -> None:
    attributes = {"beta": beta, "threshold": threshold}
    local = CONSTANTS["softplus"](Called("softplus", (reach(-inf, inf, (3,)),), attributes, ((3,),)))
    assert local.lipschitz[0] == pytest.approx(1) and local.smoothness[0, 0] == pytest.approx(abs(beta) / 4)
    edge = threshold / beta
    for low, high in [(edge - 1, edge + 1e-6), (edge, edge + 1), (-2.0, 1.0)]:
        local = CONSTANTS["softplus"](Called("softplus", (reach(low, high, (3,)),), attributes, ((3,),)))
        t = torch.linspace(low, high, 1001, dtype=torch.float64)
        found = F.softplus(t, beta, threshold)
        assert found.min() >= local.low and found.max() <= local.high
        assert local.high - local.low <= float(found.max() - found.min()) + 1e-7


@pytest.mark.parametrize("seed", range(12))
def test_prelu(seed: int) -> None:
    rng = np.random.default_rng(seed)
    span = [(-2, 2), (0.1, 2), (-2, -0.1)][seed % 3]
    boxes = [box(rng, (2, 3), *span), box(rng, [(1, 3), (1, 1), (2, 3)][seed % 3], -2, 2, moves=seed % 2 == 0)]
    call, local = called("prelu", boxes)

    def f(u, a):
        return torch.where(u > 0, u, a * u)

    seen = observe(f, boxes, local, rng, n=40)
    assert seen.inside and seen.norm <= 1
    assert max(seen.first) <= 1 + 1e-9 and max(seen.second.values()) <= 1 + 1e-9
    assert min(seen.first[i] for i in (0, 1) if boxes[i].moves and local.lipschitz[i] > 0) > 0.99
    assert np.isinf(local.smoothness[0, 0]) == bool(np.any((boxes[0].low < 0) & (boxes[0].high > 0)))
    assert (call.operands[1].moves) or local.slopes is not None


@pytest.mark.parametrize("seed", range(10))
def test_glu_from_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = (0.5, 3.0, 20.0)[seed % 3]
    ends = np.sort(rng.normal(0, scale, (2, 2, 4)), axis=0)
    boxed = Box(ends[0], ends[1])
    local = CONSTANTS["glu"](Called("glu", (boxed.reach,), {"axes": (1,), "dim": -1}, ((2, 2),)))
    first = second = 0.0
    for i in range(2):
        for j in range(2):
            a = np.linspace(boxed.low[i, j], boxed.high[i, j], 9)[:, None]
            b = np.linspace(boxed.low[i, j + 2], boxed.high[i, j + 2], 400)[None]
            s = 1 / (1 + np.exp(-b))
            slope = s * (1 - s)
            first = max(first, np.max(np.hypot(s, a * slope)))
            half = np.abs(a * slope * (1 - 2 * s)) / 2
            second = max(second, np.max(half + np.hypot(half, slope)))
    assert first <= local.lipschitz[0] * (1 + 1e-12) and first >= 0.99 * local.lipschitz[0]
    assert second <= local.smoothness[0, 0] * (1 + 1e-12) and second >= 0.99 * local.smoothness[0, 0]
    z = boxed.draw(rng)
    value = F.glu(torch.tensor(z)).numpy()
    assert np.all(value >= local.low - 1e-12) and np.all(value <= local.high + 1e-12)


def test_glu_of_a_small_network() -> None:
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxed = Box(x.numpy() - 0.1, x.numpy() + 0.1)
    local = CONSTANTS["glu"](Called("glu", (boxed.reach,), {"axes": (1,)}, ((3, 3),)))
    jacobian = torch.autograd.functional.jacobian(F.glu, x).reshape(9, 18)
    assert 0.9 * local.lipschitz[0] < float(torch.linalg.matrix_norm(jacobian, 2)) <= local.lipschitz[0]
