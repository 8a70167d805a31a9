import math

import numpy as np
import pytest
import torch

from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Reach
from tests.bounds.constants.checker import Box, box, called, observe

inf = math.inf

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
