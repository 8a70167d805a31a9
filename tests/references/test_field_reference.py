"""The exact references of sets, on programs worked by hand, and against each other on random ones."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch

from tests.references.abs_normal import abs_normal, gradient_under, model
from tests.references.clarke import (
    cells,
    clarke_hull_points,
    dot,
    extreme_points,
    in_hull,
    interior,
    nonnegative_solution,
    sampled_gradients,
)
from tests.references.field import (
    OPERATIONS,
    Jump,
    count_kinks,
    field_values,
    random_program,
    support,
    to_torch,
    value_at,
)

X, Y, Z = (("input", i) for i in range(3))
ZERO = ("linear", 0)


def scaled(c, a):
    return ("linear", 0, (c, a))


def total(*terms):
    return ("linear", 0, *terms)


NONNEGATIVE_CORNERS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
SQUARE = list(itertools.product((-1, 1), (-1, 1)))

CASES = {
    # name: program, D(0), Clarke's limits of gradients at 0
    "max(x,0)+min(x,0)": ([X, ZERO, ("max", 0, 1), ("min", 0, 1), total((1, 2), (1, 3))], [0, 1, 2], [1]),
    "|x|-|x|": ([X, ("abs", 0), ("abs", 0), total((1, 1), (-1, 2))], [-2, 0, 2], [0]),
    "|x|-|x|, shared": ([X, ("abs", 0), total((1, 1), (-1, 1))], [0], [0]),
    "||x|+x|": ([X, ("abs", 0), total((1, 1), (1, 0)), ("abs", 2)], [-2, 0, 2], [0, 2]),
    "relu(x)-(relu(-x)+x)": (
        [X, scaled(-1, 0), ("relu", 0), ("relu", 1), total((1, 2), (-1, 3), (-1, 0))],
        [-1, 0, 1],
        [0],
    ),
    "relu(x)-relu(-x)": ([X, scaled(-1, 0), ("relu", 0), ("relu", 1), total((1, 2), (-1, 3))], [0, 1, 2], [1]),
    "relu(relu(x))": ([X, ("relu", 0), ("relu", 1)], [0, 1], [0, 1]),
    "|relu(x)|": ([X, ("relu", 0), ("abs", 1)], [-1, 0, 1], [0, 1]),
    "max(x,x)": ([X, ("max", 0, 0)], [1], [1]),
    "|x-x|": ([X, total((1, 0), (-1, 0)), ("abs", 1)], [0], [0]),
    "min(x,2x), as a where": ([X, scaled(2, 0), ("where", 0, 0, 1)], [1, 2], [1, 2]),
    "where(x>0, x, x)": ([X, ("where", 0, 0, 0)], [1], [1]),
    "where(x-x>0, x, 2x)": ([X, total((1, 0), (-1, 0)), scaled(2, 0), ("where", 1, 0, 2)], [1, 2], [2]),
    "|x|+|y|": ([X, Y, ("abs", 0), ("abs", 1), total((1, 2), (1, 3))], SQUARE, SQUARE),
    "max(x,y,z)": ([X, Y, Z, ("max", 0, 1, 2)], NONNEGATIVE_CORNERS, NONNEGATIVE_CORNERS),
    "max(max(x,y),max(x,z))": (
        [X, Y, Z, ("max", 0, 1), ("max", 0, 2), ("max", 3, 4)],
        NONNEGATIVE_CORNERS,
        NONNEGATIVE_CORNERS,
    ),
    # the middle of three; twice the smallest plus the middle, under one order
    "median(x,y,z)": ([X, Y, Z, ("sort", 0, 1, 2), ("item", 1, 3)], NONNEGATIVE_CORNERS, NONNEGATIVE_CORNERS),
    "2 low + middle": (
        [X, Y, Z, ("sort", 0, 1, 2), ("item", 0, 3), ("item", 1, 3), total((2, 4), (1, 5))],
        list(itertools.permutations((0, 1, 2))),
        list(itertools.permutations((0, 1, 2))),
    ),
    # max(x,y) - max(x,y): four values in D, none but 0 in Clarke's set
    "max-max": ([X, Y, ("max", 0, 1), ("max", 1, 0), total((1, 2), (-1, 3))], [(0, 0), (1, -1), (-1, 1)], [(0, 0)]),
    # relu(x+y) + relu(x-y) - relu(2x): on the four cells of |y| < |x| and |x| < |y|
    "three lines": (
        [
            X,
            Y,
            total((1, 0), (1, 1)),
            total((1, 0), (-1, 1)),
            scaled(2, 0),
            *(("relu", k) for k in (2, 3, 4)),
            total((1, 5), (1, 6), (-1, 7)),
        ],
        [(0, 0), (1, 1), (1, -1), (2, 0), (-2, 0), (-1, 1), (-1, -1)],
        [(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)],
    ),
}


def vectors(values):
    return sorted({tuple(map(Fraction, v)) if isinstance(v, tuple) else (Fraction(v),) for v in values})


@pytest.mark.parametrize("name", CASES)
def test_sets_by_hand(name: str) -> None:
    program, field, clarke = CASES[name]
    assert field_values(program) == vectors(field)
    assert clarke_hull_points(program) == vectors(clarke)
    assert set(sampled_gradients(program, 60, seed=1)) == set(vectors(clarke))


@pytest.mark.parametrize("name", CASES)
def test_abs_normal_by_hand(name: str) -> None:
    program, _, _ = CASES[name]
    if not any(step[0] == "where" for step in program):
        check_model(program, None)


def test_abs_normal_form_of_a_nested_absolute_value() -> None:
    form = abs_normal(CASES["||x|+x|"][0])
    assert form == ((0, 0), ((1,), (1,)), ((0, 0), (1, 0)), 0, (0,), (0, 1))
    assert model(form, [-3]) == (0, (-3, 0))
    assert model(form, [2]) == (4, (2, 4))
    assert gradient_under(form, (-1, 1)) == (0,)
    assert gradient_under(form, (1, 1)) == (2,)


def test_abs_normal_form_away_from_zero() -> None:
    """relu(x y - 2) at (1, 3): the tangent of x y is 3 dx + dy + 3, so that z = 1 + 3 dx + dy and y = (z + |z|) / 2."""
    program = [X, Y, ("mul", 0, 1), ("linear", -2, (1, 2)), ("relu", 3)]
    form = abs_normal(program, (1, 3))
    assert form == ((1,), ((3, 1),), ((0,),), Fraction(1, 2), (Fraction(3, 2), Fraction(1, 2)), (Fraction(1, 2),))
    assert model(form, (0, 0))[0] == value_at(program, (1, 3)) == 1


@pytest.mark.parametrize(("x", "field"), [(-2, [0]), (-1, [0, 1]), (0, [1]), (2, [0, 1]), (3, [0])])
def test_clamp(x: int, field: list[int]) -> None:
    program = [X, ("clamp", -1, 2, 0)]
    assert field_values(program, (x,)) == clarke_hull_points(program, (x,)) == vectors(field)


def test_only_active_kinks_count() -> None:
    program = [X, Y, ("linear", -1, (1, 0)), ("relu", 2), ("abs", 1), total((1, 3), (1, 4))]
    assert field_values(program, (1, 3)) == vectors([(0, 1), (1, 1)])
    assert clarke_hull_points(program, (3, 0)) == vectors([(1, -1), (1, 1)])
    assert support(program, (1, 3), (2, -1)) == 1
    assert value_at(program, (3, -2)) == 4


def test_products_have_a_field_but_no_cells() -> None:
    program = [X, ("relu", 0), ("linear", 3, (1, 1)), ("mul", 0, 2)]
    assert field_values(program, (0,)) == vectors([3])
    with pytest.raises(TypeError, match="mul is not piecewise affine"):
        clarke_hull_points(program)


def test_a_jump_is_refused() -> None:
    program = [X, ("linear", 1, (1, 0)), ("where", 0, 1, 0)]
    with pytest.raises(Jump):
        field_values(program)
    with pytest.raises(Jump):
        clarke_hull_points(program)
    assert field_values(program, (1,)) == vectors([1])


@pytest.mark.parametrize(
    ("rows", "inside"),
    [
        ([(1, 0), (0, 1), (-1, -1)], False),
        ([(1, 0), (0, 1), (-1, 3)], True),
        ([(1, 0), (-1, 0)], False),
        ([(1, -1), (-1, 2), (5, -6)], True),
        ([(0, 0)], False),
        ([(Fraction(1, 3), Fraction(-1, 7)), (Fraction(-1, 3), Fraction(1, 7))], False),
        # a thin cone: v2 > 0 and |v1| < v2 / 10^9
        ([(10**9, 1), (-(10**9), 1)], True),
    ],
)
def test_cones(rows: list[tuple[Fraction, ...]], inside: bool) -> None:
    exact = vectors(rows)
    assert (interior(exact) is not None) is inside


def test_hulls() -> None:
    square = vectors(SQUARE)
    assert in_hull(square, (1, Fraction(1, 3)))
    assert not in_hull(square, (1, Fraction(10**12 + 1, 10**12)))
    assert extreme_points([*square, *vectors([(0, 0), (1, 0)])]) == square
    assert extreme_points(vectors([3])) == vectors([3])


def test_a_system_of_equations() -> None:
    weights, _ = nonnegative_solution([(Fraction(1), Fraction(2)), (Fraction(1), Fraction(-1))], [Fraction(3), 0])
    assert weights == (1, 2)
    none, dual = nonnegative_solution([(Fraction(1), Fraction(2)), (Fraction(1), Fraction(3))], [Fraction(3), 0])
    assert none is None and dual is not None and dual[0] > 0


def check_model(program, point) -> None:
    """The model is exact for piecewise affine programs, and its slopes under all signs are values of D."""
    form = abs_normal(program, point)
    x = point or [0] * len(form.J)
    for seed in range(3):
        d = [Fraction((7 * i + 5 * seed) % 11 - 5, 3) for i in range(len(x))]
        y, z = model(form, d)
        if not any(step[0] == "mul" for step in program):
            assert y == value_at(program, [a + b for a, b in zip(x, d, strict=True)])
        else:
            assert model(form, [0] * len(x))[0] == value_at(program, x)
        assert all(not any(row[k:]) for k, row in enumerate(form.L))
        assert len(z) == count_kinks(program)


@pytest.mark.parametrize("seed", range(150))
def test_random_homogeneous_programs(seed: int) -> None:
    """Gradients nearby are limits, these lie in D, and all of them are consistent with the value of the program."""
    program, point = random_program(seed, variables=4, kinks=9)
    field, found = field_values(program, point), cells(program, point)
    limits = clarke_hull_points(program, point)
    assert set(limits) <= set(field)
    assert set(sampled_gradients(program, 20, seed, point)) <= set(limits)
    for cell in found:
        assert value_at(program, cell.inside) == dot(cell.gradient, cell.inside)
        assert support(program, cell.inside, cell.inside) == dot(cell.gradient, cell.inside)
    assert all(in_hull(limits, v) for v in limits[:3])


@pytest.mark.parametrize("seed", range(60))
def test_few_variables_leave_no_cell_out(seed: int) -> None:
    """In two variables the cells are sectors: enough samples meet every one."""
    program, point = random_program(seed, variables=2, kinks=8)
    assert set(sampled_gradients(program, 400, seed, point)) == set(clarke_hull_points(program, point))


@pytest.mark.parametrize("seed", range(100))
def test_random_abs_normal_forms(seed: int) -> None:
    switches = [operation for operation in OPERATIONS if operation != "where"]
    for homogeneous in (True, False):
        check_model(*random_program(seed, 4, 9, switches, homogeneous))


@pytest.mark.parametrize("seed", range(40))
def test_signs_of_a_form_give_the_field(seed: int) -> None:
    """With relu, abs and two-way max and min alone, D is {J + Y W (I - L W)^-1 Z : W_kk = sign z_k, or +-1 if z_k = 0}."""
    program, point = random_program(seed, 4, 7, ("relu", "abs"), homogeneous=False)
    form = abs_normal(program, point)
    _, z = model(form, [0] * len(point))
    choices = itertools.product(*((-1, 1) if e == 0 else ((e > 0) - (e < 0),) for e in z))
    assert sorted({gradient_under(form, signs) for signs in choices}) == field_values(program, point)


@pytest.mark.parametrize("homogeneous", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_torch_runs_the_same_program(seed: int, homogeneous: bool) -> None:
    """Values agree, and what torch returns lies in the hull of D; its even splits among ties are rounded back."""
    program, point = random_program(seed, homogeneous=homogeneous)
    f = to_torch(program)
    leaf = torch.tensor([float(x) for x in point], dtype=torch.float64, requires_grad=True)
    value = f(leaf)
    assert Fraction(value.item()) == value_at(program, point)
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)
    found = [Fraction(entry).limit_denominator(5000) for entry in gradient.tolist()]
    assert in_hull(field_values(program, point), found)


def test_the_generator_reaches_everything() -> None:
    drawn = [random_program(seed, homogeneous=seed % 2 == 0) for seed in range(200)]
    assert {step[0] for program, _ in drawn for step in program} == {
        *("input", "linear", "mul", "relu", "abs", "max", "min", "sort", "item", "clamp", "where")
    }
    assert max(count_kinks(program) for program, _ in drawn) == 12
    assert max(len(point) for _, point in drawn) == 6
    artifacts = [p for p, x in drawn[:60:2] if set(field_values(p, x)) - set(clarke_hull_points(p, x))]
    assert len(artifacts) > 15
