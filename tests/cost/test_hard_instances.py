"""Hard instances: the reduction against all assignments, Clarke sets against all cells, and what is said beyond the limits."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.cost.hard_instances import (
    ReluNetwork,
    check_formula,
    network_of_formula,
    random_formula,
    random_network,
    relu_network,
    satisfying_assignment,
)
from nonsmooth.cost.hardness import HardnessRow, hardness_table
from nonsmooth.errors import UsageError
from tests.adapters import Adapter, adapter
from tests.references.clarke import clarke_hull_points, in_hull
from tests.references.hard_instances import is_satisfiable, is_satisfied, network_value, steps_of

ALL_SIGNS = list(itertools.product((1, -1), repeat=2))

SMALL = {
    "one literal": [(1,)],
    "contradiction": [(1,), (-1,)],
    "tautology": [(1, -1)],
    "one model": [(1, 2), (-1, 2), (1, -2)],
    "no model": [(1 * a, 2 * b) for a, b in ALL_SIGNS],
    "repeated": [(1, 1, 2), (-2, -2), (1, 2)],
    "xor": [(1, 2), (-1, -2)],
    "chain": [(1,), (-1, 2), (-2, 3), (-3,)],
    "open chain": [(1,), (-1, 2), (-2, 3)],
}


def drawn(count: int) -> list[tuple[tuple[int, ...], ...]]:
    """Draw formulas with two or three variables, satisfiable and not."""
    rng = np.random.default_rng(0)
    return [random_formula(n, int(rng.integers(1, 9)), seed=k, literals=n) for k in range(count) for n in (3,)]


@pytest.mark.parametrize("name", SMALL)
def test_a_second_subgradient_decides_a_formula(name: str) -> None:
    """Brute force over assignments against brute force over cells, both exact."""
    formula = SMALL[name]
    network = network_of_formula(formula)
    limits = clarke_hull_points(steps_of([M.tolist() for M in network.matrices]))
    zero, last = (tuple(Fraction(k == i) for k in range(network.inputs)) for i in (-1, network.inputs - 1))
    assert zero in limits
    assert (last in limits) == is_satisfiable(formula) == (len(limits) > 1)
    assert (satisfying_assignment(formula) is not None) == is_satisfiable(formula)


@pytest.mark.parametrize("name", SMALL)
def test_clarke_decides_small_formulas(name: str) -> None:
    import torch

    network = network_of_formula(SMALL[name])
    found = ns.clarke(network, network.origin(torch.zeros((), dtype=torch.float64)))
    lower, upper = found.box()
    assert found.exact
    assert found.contains(np.eye(network.inputs)[-1], 1e-9) is is_satisfiable(SMALL[name])
    assert bool(np.any(upper > lower)) is is_satisfiable(SMALL[name])


@pytest.mark.parametrize("formula", drawn(40), ids=str)
def test_values_are_those_of_the_formula(formula: tuple[tuple[int, ...], ...]) -> None:
    """In integers: the network is its formula, positive only where signs satisfy it, and the witness has the gradient e_u."""
    network, rng = network_of_formula(formula), np.random.default_rng(len(formula))
    assert all(set(np.unique(M)) <= {-1, 0, 1} for M in network.matrices)
    for x in rng.integers(-4, 5, (50, network.inputs)):
        value = network(x)
        assert value == network_value(formula, x.tolist())
        assert value == 0 or is_satisfied(formula, [bool(n > 0) for n in x[:-1]])
    assignment = satisfying_assignment(formula)
    assert (assignment is not None) == is_satisfiable(formula)
    if assignment is not None:
        assert is_satisfied(formula, assignment)
        witness = np.array([*(2 if true else -2 for true in assignment), 1])
        gradient = network.gradient(witness)
        assert network(witness) == 1 and gradient is not None and gradient.tolist() == [0] * len(assignment) + [1]


@pytest.mark.parametrize("seed", [2, 3, *(pytest.param(k, marks=pytest.mark.slow) for k in (0, 1, 4, 5))])
def test_clarke_of_random_networks_is_never_wrongly_exact(seed: int) -> None:
    """With and without room for all cells: an exact set has the vertices of all cells, an inner one only their hull."""
    import torch

    network = random_network((3, 4, 2), density=0.7, seed=seed)
    limits = clarke_hull_points(steps_of([M.tolist() for M in network.matrices]))
    origin = network.origin(torch.zeros((), dtype=torch.float64))
    for limit in (1, 4096):
        found = ns.clarke(network, origin, limit=limit)
        assert found.exact or limit == 1
        assert found.inner is not None
        inside = {tuple(Fraction(float(c)).limit_denominator(1) for c in v) for v in found.inner.vertices()}
        assert all(in_hull(limits, v) for v in inside)
        if found.exact:
            assert all(found.contains(np.array(v, float), 1e-9) for v in limits)


def test_gradients_are_those_of_the_framework(xp: Adapter) -> None:
    network, rng = random_network((4, 6, 5), seed=3), np.random.default_rng(0)
    points = [x for x in rng.integers(-9, 10, (20, 4)) if network.gradient(x) is not None][:3]
    assert points
    with xp.default("double"):
        for x in points:
            there = xp.array(x.astype(float))
            assert float(network(there)) == network(x)
            found = xp.numpy(xp.gradient(lambda y: relu_network(y, *network.weights(y)), there))
            exact = network.gradient(x)
            assert exact is not None and found.tolist() == exact.tolist()
    assert network.gradient(np.zeros(4, int)) is None


def test_integers_do_not_overflow() -> None:
    width, depth = 40, 20
    network = ReluNetwork((*[np.ones((width, width), int)] * depth, np.ones((1, width), int)))
    assert network(np.ones(width, int)) == width ** (depth + 1) > 2**64
    assert network(np.array([Fraction(1, 3)] * width, object)) == Fraction(width ** (depth + 1), 3)


def test_an_instance_belongs_to_its_seed() -> None:
    first, again, other = (random_network((5, 6), seed=s).matrices for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert random_formula(5, 9, seed=1) == random_formula(5, 9, seed=1) != random_formula(5, 9, seed=2)
    assert len(set(random_formula(3, 8, seed=0))) == 8
    state = np.random.get_state()[1].tolist()  # type: ignore[index]
    random_formula(5, 9)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        first[0][0, 0] = 0


def test_density_is_the_share_of_entries() -> None:
    M = random_network((100, 100), density=0.3, seed=0).matrices[0]
    assert 0.25 < np.mean(M != 0) < 0.35 and abs(np.mean(M)) < 0.05
    assert np.all(random_network((9, 9), density=1.0).matrices[0] != 0)


# --- the table -------------------------------------------------------------------------------------------------------


def test_beyond_its_limits_clarke_says_so() -> None:
    """Exact while the limits hold, then a bracket; nothing that is said is wrong, and one subgradient is always certified."""
    like = adapter("torch").array(0.0)
    within = hardness_table(like, variables=[3], widths=[2], limit=160)
    beyond = hardness_table(like, variables=[4, 5], widths=[6], limit=16)
    assert [r.exact for r in within.rows] == [True, True] and [r.exact for r in beyond.rows] == [False] * 3
    assert not within.wrong and not beyond.wrong and within.rows[0].right is True
    assert all(r.certificate == "computed" and 1 < r.ratio <= 5 for r in (*within.rows, *beyond.rows))
    assert "dF(0) for 2 of 2" in str(within) and '"exact": false' in beyond.to_json()


def test_every_framework_is_served(xp: Adapter) -> None:
    seen: list[tuple[str, int, int]] = []
    with xp.default("double"):
        found = hardness_table(
            xp.array(0.0), variables=[], widths=[2], progress=lambda what, done, of: seen.append((what, done, of))
        )
    assert [r.exact for r in found.rows] == [True] and seen == [("instances", 0, 1), ("instances", 1, 1)]


@pytest.mark.parametrize(
    ("satisfiable", "exact", "two", "second", "right"),
    [
        (True, True, True, True, True),
        (True, True, False, False, False),
        (True, False, False, None, None),
        (False, False, False, None, None),
        (False, False, True, None, False),
        (True, False, True, None, True),
        (False, True, False, True, False),
        (None, True, True, True, None),
    ],
)
def test_a_wrong_answer_is_seen(
    satisfiable: bool | None, exact: bool, two: bool, second: bool | None, right: bool | None
) -> None:
    row = HardnessRow("formula", 4, 8, 37, satisfiable, exact, 1, two, second, "computed", 3.0, 0.0, 0.0)
    assert row.right is right


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula", [[], [()], [(1,), ()], [(0,)], [(1.5,)], [("x",)], [(True,)], [1, 2], 3, None], ids=str
)
def test_formulas_are_checked(formula: Any) -> None:
    for call in (check_formula, network_of_formula, satisfying_assignment):
        with pytest.raises(UsageError, match=r"formula needs|literal is|formula is a list of clauses.*found"):
            call(formula)


@pytest.mark.parametrize(
    ("matrices", "said"),
    [
        ((), "one matrix"),
        ((np.ones((2, 2)),), "one row"),
        ((np.ones((2, 2)), np.ones((1, 3))), "cannot follow"),
        ((np.full((1, 2), 2),), "-1, 0 and 1"),
        ((np.full((1, 2), 0.5),), "-1, 0 and 1"),
        ((np.ones((2, 0)), np.ones((1, 2))), "cannot follow"),
        (5, "made of matrices; found 5"),
        (([[1, 0], [1]],), "made of matrices"),
    ],
)
def test_matrices_are_checked(matrices: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ReluNetwork(matrices)


def test_numbers_are_checked() -> None:
    for call in (
        lambda: random_network(()),
        lambda: random_network((2, 0)),
        lambda: random_network((2,), density=0.0),
        lambda: random_network((2,), density=1.5),
        lambda: random_network((2,), seed=-1),
        lambda: random_formula(2, 1),
        lambda: random_formula(3, 9),
        lambda: random_formula(3, 0),
        lambda: random_formula(4, 3, seed=True),
        lambda: satisfying_assignment([(23,)]),
        lambda: hardness_table(np.zeros(1), variables=[2]),
        lambda: hardness_table(np.zeros(1), ratio=0.0),
        lambda: random_network(3),  # type: ignore[arg-type]
        lambda: random_network((2,), density="all"),  # type: ignore[arg-type]
        lambda: random_formula("a", 1),  # type: ignore[arg-type]
        lambda: random_formula(3, 1.5),  # type: ignore[arg-type]
        lambda: random_formula(3, 1, literals=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError):
            call()


def test_points_and_weights_are_checked(xp: Adapter) -> None:
    """What was asked, what was found, and which shape is needed."""
    with xp.default("double"):
        x, M = xp.array([1.0, 2.0]), xp.array([[1.0, -1.0]])
        network = ReluNetwork((np.ones((1, 2)),))
        for call, said in (
            (lambda: relu_network(x), "no matrix"),
            (lambda: relu_network(x, 3), "relu_network: M_1 is to be an array of a framework.*found a int"),
            (lambda: relu_network("x", M), "x is to be an array"),
            (lambda: relu_network(x[:1], M), r"M_1 has the shape \(1, 2\); .* \(1, p\) with p = 1"),
            (lambda: relu_network(x, M, M), r"M_2 has the shape \(1, 2\)"),
            (lambda: network(x[:1]), "M_1 has the shape"),
            (lambda: network("x"), "is to be an array of a framework"),
            (lambda: network(np.ones(3)), r"takes a point of numbers, shape \(2,\); found array"),
            (lambda: network.gradient(3), "takes a point"),  # type: ignore[arg-type]
            (lambda: network.origin(None), "is to be an array of a framework"),
            (lambda: hardness_table(3), "like is to be an array"),
            (lambda: hardness_table(x, variables=3), "variables=3; pass a list of 0 or more"),  # type: ignore[arg-type]
            (lambda: hardness_table(x, widths=["a"]), "widths"),  # type: ignore[list-item]
            (lambda: hardness_table(x, limit="x"), "limit='x'; pass a whole number"),  # type: ignore[arg-type]
            (lambda: hardness_table(x, ratio=float("inf")), "ratio=inf; pass a number that is positive and finite"),
        ):
            with pytest.raises(UsageError, match=said):
                call()
