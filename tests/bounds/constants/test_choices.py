import math

import numpy as np
import pytest
import torch

from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Reach
from tests.bounds.constants.checker import Box, box, called, observe

inf = math.inf

CHOICES = {
    "maximum": torch.maximum,
    "fmax": torch.fmax,
    "clamp_min_tensor": lambda u, low: torch.clamp(u, min=low),
    "minimum": torch.minimum,
    "fmin": torch.fmin,
    "clamp_max_tensor": lambda u, high: torch.clamp(u, max=high),
    "clamp_tensor": lambda u, low, high: torch.clamp(u, low, high),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", CHOICES)
def test_choices_from_both_sides(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans = [(-1, 1), [(-2, 0), (-1, 1), (2, 3)][seed % 3], (0, 2)]
    shapes = [(2, 3), [(2, 3), (3,), (1,)][seed % 3], (2, 3)]
    boxes = [box(rng, s, *r, moves=m) for s, r, m in zip(shapes, spans, (True, seed < 4, True), strict=True)]
    boxes = boxes[: 3 if name == "clamp_tensor" else 2]
    _, local = called(name, boxes)
    assert local.stacked
    seen = observe(CHOICES[name], boxes, local, rng)
    assert seen.inside and seen.norm <= 1 + 1e-9 and seen.joint <= 1 + 1e-9 and max(seen.first) <= 1 + 1e-9
    (al, ah), (bl, bh) = ((b.low, b.high) for b in boxes[:2])
    if name != "clamp_tensor":
        tie = bool(np.any((al < bh) & (bl < ah)))
        assert (local.smoothness.get((0, 0), 0.0) == inf) == tie == bool(local.why)


def interval(low, high, shape=(2,), moves=True) -> Reach:
    one = np.ones(1) if moves else np.zeros(1)
    return Reach(shape, inf, one, np.zeros((1, 1)), np.asarray(low, float), np.asarray(high, float))


def constants(name: str, *operands: Reach, attributes=None, evaluate=None):
    shape = np.broadcast_shapes(*(u.shape for u in operands))
    return CONSTANTS[name](Called(name, operands, attributes or {}, (shape,), evaluate or (lambda *a: None)))


def test_the_larger_one_of_disjoint_intervals_is_known() -> None:
    local = constants("maximum", interval(2, 3), interval(-1, 2))
    assert local.lipschitz == [1.0, 0.0] and not local.smoothness and (local.low, local.high) == (2, 3)
    local = constants("minimum", interval(2, 3), interval(-1, 2))
    assert local.lipschitz == [0.0, 1.0] and not local.smoothness and (local.low, local.high) == (-1, 2)


def test_where_of_a_fixed_mask_stacks() -> None:
    mask = Reach.constant(np.array([True, False]), 1)
    local = constants("where", mask, interval(0, 1), interval(2, 3))
    assert local.lipschitz == [0.0, 1.0, 1.0] and local.stacked and not local.smoothness
    assert np.array_equal(local.low, [0, 2]) and np.array_equal(local.high, [1, 3])
    local = constants("where", Reach.constant(np.array([True, True]), 1), interval(0, 1), interval(2, 3))
    assert local.lipschitz == [0.0, 1.0, 0.0]
    unknown = Reach((2,), inf, np.zeros(1), np.zeros((1, 1)), np.array(0.0), np.array(1.0))
    local = constants("where", unknown, interval(0, 1), interval(2, 3))
    assert local.lipschitz == [0.0, 1.0, 1.0] and np.all(local.low == 0) and np.all(local.high == 3)


def test_where_that_moves_may_jump() -> None:
    local = constants("where", interval(0, 1), interval(0, 1), interval(2, 3))
    assert local.lipschitz[0] == inf and "`where` chooses by values that move" in local.why
    decided = constants("where", interval(1, 1), interval(0, 1), interval(2, 3))
    assert decided.lipschitz == [0.0, 1.0, 0.0]


def test_copies_in_a_choice() -> None:
    mask = Reach.constant(np.array([[True, True], [True, False], [True, False]]), 1)
    local = constants("where", mask, interval(0, 1, (2,)), interval(0, 1, ()))
    assert np.allclose(local.lipschitz, [0, math.sqrt(3), math.sqrt(2)])


@pytest.mark.parametrize(
    ("name", "ends", "lipschitz", "range_"),
    [
        ("floor", (0.2, 0.9), 0, (0, 0)),
        ("floor", (0.2, 1.0), inf, (0, 1)),
        ("ceil", (0.2, 1.0), 0, (1, 1)),
        ("trunc", (-0.9, 0.9), 0, (0, 0)),
        ("round", (0.6, 1.4), 0, (1, 1)),
        ("round", (0.4, 0.6), inf, (0, 1)),
        ("frac", (1.2, 1.7), 1, (0.2, 0.7)),
        ("frac", (-0.5, 0.5), 1, (-0.5, 0.5)),
        ("frac", (0.5, 1.5), inf, (0, 1)),
        ("sign", (0.5, 1.5), 0, (1, 1)),
    ],
)
def test_roundings(name: str, ends, lipschitz: float, range_) -> None:
    local = constants(name, interval(*ends))
    assert local.lipschitz == [lipschitz] and np.allclose((local.low, local.high), range_)
    assert bool(local.why) == (lipschitz == inf)


@pytest.mark.parametrize(
    ("name", "a", "b", "lipschitz", "range_"),
    [
        ("remainder", (4.5, 5.5), (2, 2), [1, 2], (0.5, 1.5)),
        ("remainder", (-1.5, -0.5), (2, 2), [1, 1], (0.5, 1.5)),
        ("fmod", (-1.5, -0.5), (2, 2), [1, 0], (-1.5, -0.5)),
        ("remainder", (3.5, 4.5), (2, 2), [inf, inf], (0, 2)),
        ("fmod", (-1, 1), (2, 2), [1, 0], (-1, 1)),
        ("floor_divide", (4.5, 5.5), (2, 2), [0, 0], (2, 2)),
        ("trunc_divide", (-1, 1), (2, 2), [0, 0], (0, 0)),
        ("floor_divide", (-1, 1), (2, 2), [inf, inf], (-1, 0)),
        ("heaviside", (1, 2), (0.5, 0.5), [0, 0], (1, 1)),
        ("heaviside", (-1, 2), (0.5, 0.5), [inf, inf], (0, 1)),
        ("copysign", (1, 2), (1, 2), [1, 0], (1, 2)),
        ("copysign", (1, 2), (-2, -1), [1, 0], (-2, -1)),
        ("copysign", (1, 2), (-1, 1), [inf, inf], (-2, 2)),
        ("copysign", (-1, 2), (1, 1.5), [1, 0], (0, 2)),
    ],
)
def test_what_is_smooth_from_jump_to_jump(name: str, a, b, lipschitz, range_) -> None:
    local = constants(name, interval(*a), interval(*b))
    assert np.allclose(local.lipschitz, lipschitz), local.lipschitz
    assert np.allclose((local.low, local.high), range_)


@pytest.mark.parametrize("seed", range(4))
def test_rests_keep_their_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = [box(rng, (3,), -6, 6), box(rng, (3,), 1, 2) if seed % 2 else box(rng, (3,), -2, -1)]
    for name, f in (("remainder", torch.remainder), ("fmod", torch.fmod), ("floor_divide", torch.floor_divide)):
        _, local = called(name, boxes)
        for _ in range(50):
            value = f(*(torch.tensor(b.draw(rng)) for b in boxes)).numpy()
            assert np.all(value >= local.low - 1e-12) and np.all(value <= local.high + 1e-12)


def test_comparisons() -> None:
    apart = constants("compare", interval(1, 2), interval(-1, 0.5))
    assert apart.lipschitz == [0, 0] and not apart.why
    meeting = constants("compare", interval(1, 2), interval(0, 1.5))
    assert meeting.lipschitz == [inf, inf] and "`compare` may jump" in meeting.why
    touching = interval(0, 2), interval(0, 0, moves=False)
    assert constants("compare", *touching).lipschitz == [inf, 0]

    def at_least(a, b):
        return (a >= b).astype(float)

    def above(a, b):
        return (a > b).astype(float)

    def same(a, b):
        return (a == b).astype(float)

    known = constants("compare", *touching, evaluate=at_least)
    assert known.lipschitz == [0, 0] and np.all(known.low == 1)
    assert constants("compare", *touching, evaluate=above).lipschitz[0] == inf
    assert constants("compare", *touching, evaluate=same).lipschitz[0] == inf
    assert constants("logic", interval(0, 1)).lipschitz == [inf]
    assert constants("logic", interval(0, 1, moves=False)).lipschitz == [0]


def test_no_copies_of_nothing() -> None:
    empty = Box(np.zeros((0, 2)), np.zeros((0, 2)))
    for name in ("add", "mul", "div", "maximum"):
        _, local = called(name, [empty, empty])
        assert max(local.lipschitz) in (0.0, 1.0)
