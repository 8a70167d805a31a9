import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import polygamma

from nonsmooth.bounds.constants.elementwise import ELEMENTARY, logit, power
from nonsmooth.bounds.constants.record import CONSTANTS
from nonsmooth.bounds.constants.special_functions import SPECIAL
from nonsmooth.bounds.constants.waves import sinc_critical, sinc_derivative
from nonsmooth.cost import definitions
from nonsmooth.cost.definitions.definition import DEFINITIONS
from tests.bounds.constants.checker import Box, called, faults_on, random_intervals

inf = math.inf

FUNCTIONS = {
    "neg": (torch.neg, (-inf, inf)),
    "positive": (torch.positive, (-inf, inf)),
    "deg2rad": (torch.deg2rad, (-inf, inf)),
    "rad2deg": (torch.rad2deg, (-inf, inf)),
    "exp": (torch.exp, (-inf, 20)),
    "expm1": (torch.expm1, (-inf, 20)),
    "log": (torch.log, (0.01, inf)),
    "log2": (torch.log2, (0.01, inf)),
    "log10": (torch.log10, (0.01, inf)),
    "log1p": (torch.log1p, (-0.99, inf)),
    "log1mexp": (lambda t: torch.log(-torch.expm1(-t)), (0.01, inf)),
    "logit": (torch.logit, (0.01, 0.99)),
    "entr": (lambda t: -t * torch.log(t), (0.01, inf)),
    "sqrt": (torch.sqrt, (0.01, inf)),
    "rsqrt": (torch.rsqrt, (0.01, inf)),
    "reciprocal": (torch.reciprocal, (0.01, inf)),
    "square": (torch.square, (-inf, inf)),
    "sin": (torch.sin, (-inf, inf)),
    "cos": (torch.cos, (-inf, inf)),
    "tan": (torch.tan, (-1.5, 1.5)),
    "sinc": (lambda t: torch.sin(math.pi * t) / (math.pi * t), (0.05, inf)),
    "sinh": (torch.sinh, (-20, 20)),
    "cosh": (torch.cosh, (-20, 20)),
    "asin": (torch.asin, (-0.99, 0.99)),
    "acos": (torch.acos, (-0.99, 0.99)),
    "atan": (torch.atan, (-inf, inf)),
    "asinh": (torch.asinh, (-inf, inf)),
    "acosh": (torch.acosh, (1.01, inf)),
    "atanh": (torch.atanh, (-0.99, 0.99)),
    "erf": (torch.erf, (-inf, inf)),
    "erfc": (torch.erfc, (-inf, inf)),
}
"""Elementary functions: torch's, and where it is sampled."""


def test_every_elementary_function_is_sampled() -> None:
    assert set(ELEMENTARY) == {*FUNCTIONS, "abs", "sign"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_from_both_sides_on_intervals(name: str) -> None:
    oracle, domain = FUNCTIONS[name]
    rng = np.random.default_rng(5)
    loose = name == "sinc"
    for low, high in random_intervals(rng, domain, 24):
        found = faults_on(ELEMENTARY[name], oracle, low, high)
        if loose:  # beyond |t| = 16 the bounds are envelopes
            found = [f for f in found if high <= 16 or "not attained" not in f.what]
        assert found == []


SPECIAL_ORACLES = {
    "i0": (torch.special.i0, (-20, 20)),
    "special_i1": (torch.special.i1, (-20, 20)),
    "lgamma": (torch.lgamma, (0.1, 30)),
    "digamma": (torch.digamma, (0.1, 30)),
    "special_log_ndtr": (torch.special.log_ndtr, (-20, inf)),
    "erfinv": (torch.erfinv, (-0.99, 0.99)),
    "ndtri": (torch.special.ndtri, (0.01, 0.99)),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_from_both_sides_on_intervals(name: str) -> None:
    oracle, domain = SPECIAL_ORACLES[name]
    for low, high in random_intervals(np.random.default_rng(7), domain, 16):
        assert faults_on(SPECIAL[name], oracle, low, high) == []


@pytest.mark.parametrize("order", [1, 2, 3])
def test_polygamma(order: int) -> None:
    for low, high in [(0.2, 0.5), (0.3, 4.0), (1.0, 20.0)]:
        ends = np.full(2, low), np.full(2, high)
        _, local = called("polygamma", [Box(*ends)], {"n": order})
        assert local.lipschitz[0] == pytest.approx(abs(float(polygamma(order + 1, low))), rel=1e-9)
        assert local.smoothness[0, 0] == pytest.approx(abs(float(polygamma(order + 2, low))), rel=1e-9)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 7, -1, -2, -3, 0.5, 1.5, 2.5, -0.5, 1 / 3])
def test_powers_from_both_sides_on_intervals(exponent: float) -> None:
    whole = exponent == int(exponent)
    domain = (-inf, inf) if whole and exponent >= 0 else (0.02, inf)
    intervals = random_intervals(np.random.default_rng(6), domain, 20)
    intervals += [(-3.0, -0.1)] if whole else []
    for low, high in intervals:
        assert faults_on(power(exponent), lambda t: t**exponent, low, high) == []


@pytest.mark.parametrize(
    ("name", "interval", "lipschitz", "smoothness"),
    [
        ("abs", (-1, 2), 1, inf),
        ("abs", (0, 2), 1, 0),
        ("abs", (-2, 0), 1, 0),
        ("sign", (-1, 1), inf, inf),
        ("sign", (0.1, inf), 0, 0),
        ("log", (0, 1), inf, inf),
        ("log", (-1, 1), inf, inf),
        ("sqrt", (0, 4), inf, inf),
        ("sqrt", (1, inf), 0.5, 0.25),
        ("reciprocal", (-1, 1), inf, inf),
        ("reciprocal", (-2, -1), 1, 2),
        ("rsqrt", (4, inf), 1 / 16, 0.75 / 32),
        ("exp", (-inf, 0), 1, 1),
        ("exp", (-inf, inf), inf, inf),
        ("tan", (1, 2), inf, inf),
        ("tan", (math.pi - 1, math.pi + 0.5), 1 + math.tan(1) ** 2, 2 * math.tan(1) * (1 + math.tan(1) ** 2)),
        ("sin", (-inf, inf), 1, 1),
        ("sin", (0, 0.1), 1, math.sin(0.1)),
        ("cos", (1e12, 1e12 + 0.1), 1, 1),
        ("asin", (-1, 1), inf, inf),
        ("atan", (-inf, inf), 1, 3 * math.sqrt(3) / 8),
        ("asinh", (-inf, inf), 1, 2 / 3**1.5),
        ("erf", (-inf, inf), 2 / math.sqrt(math.pi), math.sqrt(8 / (math.pi * math.e))),
        ("sinc", (-inf, inf), math.pi * 0.43618, math.pi**2 / 3),
        ("logit", (0.25, 0.75), 16 / 3, 0.5 * 256 / 9),
        ("entr", (0, 1), inf, inf),
    ],
)
def test_closed_forms(name: str, interval, lipschitz: float, smoothness: float) -> None:
    ends = [np.array(float(v)) for v in interval]
    fall, rise = ELEMENTARY[name].slopes(*ends)
    assert max(-fall, rise) == pytest.approx(lipschitz, rel=1e-5)
    assert float(ELEMENTARY[name].curvature(*ends)) == pytest.approx(smoothness, rel=1e-5)


def test_the_critical_points_of_sinc_are_all_there() -> None:
    grid = np.linspace(1e-3, 16, 16001)
    for order in (0, 1, 2):
        values = sinc_derivative(grid, order + 1)
        crossings = np.flatnonzero(values[:-1] * values[1:] < 0)
        found = [brentq(lambda t, k=order + 1: float(sinc_derivative(t, k)), grid[c], grid[c + 1]) for c in crossings]
        assert np.allclose([t for t in sinc_critical(order) if t > 0], found, atol=1e-9)


def test_sinc_and_its_derivatives_agree_with_automatic_ones() -> None:
    t = torch.linspace(-3, 3, 601, dtype=torch.float64)[(torch.arange(601) != 300)].requires_grad_(True)
    value = torch.sin(math.pi * t) / (math.pi * t)
    for order in (0, 1, 2):
        assert np.allclose(sinc_derivative(t.detach().numpy(), order), value.detach(), atol=1e-7)
        value = torch.autograd.grad(value.sum(), t, create_graph=True)[0]


def test_logit_clamped_has_kinks_at_its_bounds() -> None:
    for low, high in random_intervals(np.random.default_rng(2), (-1.0, 2.0), 40):
        found = faults_on(logit(0.1), lambda t: torch.logit(t, 0.1), low, high, (0.1, 0.9))
        assert [f for f in found if "curvature" not in f.what] == []
    assert logit(0.1).curvature(np.array(0.0), np.array(0.5)) == inf
    _, local = called("logit_clamped", [Box(np.full(3, -5.0), np.full(3, 5.0))], {"eps": 0.01})
    assert local.lipschitz[0] == pytest.approx(1 / (0.01 * 0.99))


# --- what the dictionary knows ----------------------------------------------------------------------------------------

LEFT_OUT = {
    "real": "of complex numbers, which have no intervals",
    "imag": "of complex numbers, which have no intervals",
    "conj": "of complex numbers, which have no intervals",
    "polar": "of complex numbers, which have no intervals",
    "angle": "of complex numbers, which have no intervals",
    "frexp": "jumps at every power of 2, and has a second result of whole numbers",
    "igamma": "its derivative in the parameter has no closed form",
    "igammac": "its derivative in the parameter has no closed form",
    "special_zeta": "of two parameters, with poles",
    "betainc": "of three parameters",
    "mvlgamma": "sums of lgamma at shifted places",
    "random_gamma": "draws",
    "special_i0e": "a kink at 0, not written",
    "special_i1e": "not written",
    "special_erfcx": "its derivatives cancel, not written",
    "complex_abs": "among the norms",
}
"""Operations on entries without constants, and why."""


def test_every_operation_on_entries_has_constants_or_a_reason() -> None:
    chapters = tuple(
        f"{definitions.__name__}.{n}" for n in ("activations", "elementwise", "choices", "special_functions")
    )
    on_entries = {name for name, f in DEFINITIONS.items() if f.__module__ in chapters}
    assert len(on_entries) > 100
    missing = {n for n in on_entries if n not in CONSTANTS and n not in LEFT_OUT}
    assert not missing
