import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import polygamma

from nonsmooth.bounds.constants.elementwise import ELEMENTARY, logit, power, sinc_critical, sinc_derivative
from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.constants.special_functions import SPECIAL
from nonsmooth.bounds.reach import Reach
from nonsmooth.cost import definitions
from nonsmooth.cost.definitions.definition import DEFINITIONS
from tests.bounds.constants.checker import Box, box, called, faults_on, observe, random_intervals

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


# --- several operands -------------------------------------------------------------------------------------------------

ANY, POSITIVE = (-2.0, 2.0), (0.3, 2.5)

TWO = {
    "add": (lambda a, b: a + 2 * b, {"alpha": 2}, (ANY, ANY)),
    "sub": (lambda a, b: a - 3 * b, {"alpha": 3}, (ANY, ANY)),
    "rsub": (lambda a, b: b - 3 * a, {"alpha": 3}, (ANY, ANY)),
    "mul": (lambda a, b: a * b, {}, (ANY, ANY)),
    "div": (lambda a, b: a / b, {}, (ANY, POSITIVE)),
    "ldexp": (lambda a, b: a * 2**b, {}, (ANY, ANY)),
    "pow": (lambda a, b: a**b, {}, (POSITIVE, ANY)),
    "exp2": (lambda a, b: a**b, {}, (POSITIVE, ANY)),
    "atan2": (torch.atan2, {}, (ANY, POSITIVE)),
    "logaddexp": (torch.logaddexp, {}, (ANY, ANY)),
    "logaddexp2": (torch.logaddexp2, {}, (ANY, ANY)),
    "xlogy": (torch.xlogy, {}, (ANY, POSITIVE)),
    "xlog1py": (lambda a, b: a * torch.log1p(b), {}, (ANY, POSITIVE)),
    "addcmul": (lambda a, b, c: a + 2 * b * c, {"value": 2}, (ANY, ANY, ANY)),
    "addcdiv": (lambda a, b, c: a - 2 * b / c, {"value": -2}, (ANY, ANY, POSITIVE)),
    "lerp": (lambda a, b, w: a + w * (b - a), {}, (ANY, ANY, (-0.5, 1.5))),
}
"""Functions of several numbers, their attributes, and where they are sampled."""

SHAPES = [((2, 3), (2, 3), (2, 3)), ((2, 3), (3,), (2, 3)), ((2, 1), (1, 3), (2, 3)), ((1,), (2, 2), (2, 2))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", TWO)
def test_several_operands_from_both_sides(name: str, shapes) -> None:
    f, attributes, spans = TWO[name]
    if name in ("lerp", "addcmul", "addcdiv") and shapes[0] == (1,):
        shapes = ((2, 3), (1,), (3,))
    rng = np.random.default_rng(len(str(shapes)) + len(name))
    for moves in [(True, True, True), (True, False, True), (False, True, False)]:
        boxes = [box(rng, s, *r, moves=m) for s, r, m in zip(shapes, spans, moves, strict=False)]
        _, local = called(name, boxes, attributes)
        seen = observe(f, boxes, local, rng, n=6)
        assert seen.inside and seen.norm <= 1 + 1e-9 and seen.joint <= 1 + 1e-9
        assert max(seen.second.values()) <= 1 + 1e-9
        if local.stacked:
            continue
        assert max(seen.first) <= 1 + 1e-9
        for i, boxed in enumerate(boxes):
            if boxed.moves and name not in ("pow", "exp2"):
                assert seen.first[i] > 0.4, (i, seen)


@pytest.mark.parametrize("name", ["add", "mul", "div", "ldexp", "xlogy", "addcmul", "lerp"])
def test_constants_are_attained_at_a_corner_of_the_box(name: str) -> None:
    f, attributes, spans = TWO[name]
    rng = np.random.default_rng(8)
    boxes = [box(rng, (1,), *r) for r in spans]
    _, local = called(name, boxes, attributes)
    seen = observe(f, boxes, local, rng, n=60)
    assert all(r > 0.99 for r in seen.first) or name == "lerp"
    assert all(r > 0.99 for pair, r in seen.second.items() if local.smoothness.get(pair, 0) > 0)


def ball(shape, norm: float, moves: bool = True) -> Reach:
    one = np.ones(1) if moves else np.zeros(1)
    return Reach(shape, norm, one, np.zeros((1, 1)))


def test_a_product_on_balls_takes_the_norm_where_it_is_less_than_copies() -> None:
    call = Called("mul", (ball((50, 4), 3.0), ball((4,), 2.0)), {}, ((50, 4),))
    local = CONSTANTS["mul"](call)
    assert local.lipschitz == [2.0, 3.0] and local.smoothness == {(0, 1): 1.0}
    assert local.norm == 6.0


def test_a_sum_with_an_array_that_is_spread() -> None:
    local = CONSTANTS["add"](Called("add", (ball((50, 4), 3.0), ball((4,), 2.0)), {}, ((50, 4),)))
    assert local.lipschitz == [1.0, math.sqrt(50)] and local.norm == pytest.approx(3 + 2 * math.sqrt(50))


def test_a_value_with_itself() -> None:
    x = Reach((3,), inf, np.ones(1), np.zeros((1, 1)), np.array(-1.0), np.array(3.0))
    square = CONSTANTS["mul"](Called("mul", (x, x), {}, ((3,),)))
    assert np.allclose((square.low, square.high), (0, 9)) and np.allclose(square.lipschitz, (6, 0))
    gone = CONSTANTS["sub"](Called("sub", (x, x), {}, ((3,),)))
    assert gone.lipschitz == [0.0, 0.0] and (gone.low, gone.high) == (0, 0) and gone.norm == 0
    twice = CONSTANTS["add"](Called("add", (x, x), {}, ((3,),)))
    assert twice.lipschitz == [2.0, 0.0] and (twice.low, twice.high) == (-2, 6)


@pytest.mark.parametrize(
    ("name", "boxes", "words"),
    [
        ("div", [(-1, 1), (-1, 1)], "`div` may divide by 0"),
        ("div", [(-1, 1), (0, 1)], "`div` may divide by 0"),
        ("atan2", [(-1, 1), (-1, 1)], "jumps"),
        ("xlogy", [(-1, 1), (0, 1)], "logarithm"),
        ("pow", [(-1, 1), (0.5, 1)], "0 or less"),
        ("addcdiv", [(-1, 1), (-1, 1), (-1, 1)], "`addcdiv` may divide by 0"),
    ],
)
def test_what_is_infinite_says_why(name: str, boxes, words: str) -> None:
    _, local = called(name, [Box(np.full(2, float(a)), np.full(2, float(b))) for a, b in boxes])
    assert max(local.lipschitz) == inf and words in local.why


def test_the_cut_of_the_angle_is_what_counts() -> None:
    _, right = called("atan2", [Box(np.full(2, -1.0), np.full(2, 1.0)), Box(np.full(2, 0.5), np.full(2, 1.0))])
    assert right.lipschitz == [2.0, 2.0] and right.stacked
    _, above = called("atan2", [Box(np.full(2, 0.5), np.full(2, 1.0)), Box(np.full(2, -1.0), np.full(2, 1.0))])
    assert above.lipschitz == [2.0, 2.0] and np.all(above.low > 0)


def test_exponents_of_every_kind() -> None:
    x = Box(np.full(3, 1.0), np.full(3, 2.0))
    for attributes, others in (({"exponent": 3}, []), ({"exponent": 3.0}, [Box(np.array(3.0), np.array(3.0), False)])):
        _, local = called("power", [x, *others], attributes)
        assert local.lipschitz[0] == pytest.approx(12) and local.smoothness[0, 0] == pytest.approx(12)
    _, local = called("exp2", [Box(np.array(3.0), np.array(3.0), False), x], {"self": 3.0})
    assert local.lipschitz[1] == pytest.approx(9 * math.log(3))
    _, local = called("exp2", [Box(np.array(1.0), np.array(1.0), False), x], {"self": 1.0})
    assert local.lipschitz[1] == 0 and np.all(local.high == 1)
    _, local = called("exp2", [Box(np.full(3, -inf), np.full(3, 0.0))])
    assert local.lipschitz[0] == pytest.approx(math.log(2)) and np.allclose(local.high, 1)


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
