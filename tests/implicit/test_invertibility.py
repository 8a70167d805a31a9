"""The condition over all elements: random systems against elements drawn at random, and closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nonsmooth.dictionary.weights import DualBall, Permutations, WeightSet, chain, cross_polytope, segment, simplex
from nonsmooth.implicit import invertibility
from nonsmooth.implicit.invertibility import Lifted, decide_invertibility, vertices
from tests.references.invertibility import drawn_elements, eliminated

KINDS: dict[str, Callable[[], WeightSet]] = {
    "segment": segment,
    "simplex": lambda: simplex(2),
    "chain": lambda: chain(2),
    "cross": lambda: cross_polytope(2),
    "ball": lambda: DualBall(2),
    "permutations": lambda: Permutations(2, (0, 1)),
    "some ranks": lambda: Permutations(3, (1,)),
}


def system(weights: list[WeightSet], n: int, scale: float, rng: np.random.Generator) -> Lifted:
    """Make a random lifted system: kinks act on later ones only."""
    z_ends = np.cumsum([0, *(w.compared for w in weights)]).tolist()
    u_ends = np.cumsum([0, *(w.outputs for w in weights)]).tolist()
    z = [slice(a, b) for a, b in itertools.pairwise(z_ends)]
    u = [slice(a, b) for a, b in itertools.pairwise(u_ends)]
    L = np.zeros((z_ends[-1], u_ends[-1]))
    for i, j in itertools.combinations(range(len(weights)), 2):
        L[z[j], u[i]] = rng.standard_normal((weights[j].compared, weights[i].outputs)) * (rng.random() < 0.5)
    return Lifted(
        np.eye(n) + scale * rng.standard_normal((n, n)),
        scale * rng.standard_normal((n, u_ends[-1])),
        scale * rng.standard_normal((z_ends[-1], n)),
        L,
        weights,
        z,
        u,
    )


def check(problem: Lifted, rng: np.random.Generator, count: int = 60) -> bool | None:
    """Compare what is decided with drawn elements; give the decision."""
    found = decide_invertibility(problem)
    sign = np.linalg.det(problem.J)
    elements = list(drawn_elements(problem, count, rng))
    if found.invertible:
        assert all(np.linalg.det(B) * sign > 0 for B in elements), found
        least = min(np.linalg.svd(B, compute_uv=False)[-1] for B in elements)
        assert least >= found.smallest * (1 - 1e-9), found
        if found.exact:
            attained = min(np.linalg.svd(eliminated(problem, v), compute_uv=False)[-1] for v in vertices(problem))
            assert attained == pytest.approx(found.smallest, rel=1e-9)
    elif found.invertible is False:
        assert found.element is not None
        values = np.linalg.svd(eliminated(problem, found.element), compute_uv=False)
        assert values[-1] <= 1e-7 * max(values[0], 1.0), found
    return found.invertible


@pytest.mark.parametrize("seed", range(6))
def test_random_systems(seed: int) -> None:
    """No answer is contradicted by an element; both answers occur."""
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(30):
        weights = [list(KINDS.values())[k]() for k in rng.integers(0, len(KINDS), rng.integers(1, 5))]
        weights = [segment() if rng.random() < 0.4 else w for w in weights]
        answers.append(check(system(weights, int(rng.integers(1, 5)), rng.choice([0.2, 0.5, 1.0]), rng), rng))
    assert answers.count(True) >= 5 and answers.count(False) >= 5
    assert answers.count(None) <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_one_kink_of_each_kind(kind: str) -> None:
    """A single kink is decided exactly where its result is one number."""
    rng = np.random.default_rng(3)
    answers = [check(system([KINDS[kind]()], 2, 1.0, rng), rng) for _ in range(40)]
    assert True in answers and False in answers
    if KINDS[kind]().outputs == 1:
        assert None not in answers


def scalar(slope: float) -> Lifted:
    """Give y = slope relu(y) + x at 0: B = 1 - slope w."""
    one = np.ones((1, 1))
    return Lifted(one, -slope * one, one, 0 * one, [segment()], [slice(0, 1)], [slice(0, 1)])


def test_vertices_alone_do_not_decide() -> None:
    """y = 2 relu(y) + x: B is 1 and -1 at the vertices, and 0 at w = 1/2, which is found."""
    found = decide_invertibility(scalar(2.0))
    assert found.invertible is False and found.element is not None
    assert found.element[0].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("slope", "least"), [(0.5, 0.5), (-3.0, 1.0), (0.999, 0.001)])
def test_scalar_equations(slope: float, least: float) -> None:
    """y = s relu(y) + x has one solution for s < 1, also where it is no contraction."""
    found = decide_invertibility(scalar(slope))
    assert found.invertible and found.exact
    assert found.smallest == pytest.approx(least)


def test_a_slope_at_the_end_of_the_segment() -> None:
    """y = relu(y) + x has a singular element at w = 1."""
    assert decide_invertibility(scalar(1.0)).invertible is False


def many(count: int, coupling: np.ndarray[Any, Any]) -> Lifted:
    """Give y = C relu(y) + x at 0, for `count` unknowns: too many kinks to enumerate."""
    places = [slice(k, k + 1) for k in range(count)]
    return Lifted(
        np.eye(count), -coupling, np.eye(count), np.zeros((count, count)), [segment()] * count, places, places
    )


def test_large_groups_by_sufficient_conditions() -> None:
    """A contraction, and a map that is none but has a monotone complement: both hold without enumeration."""
    rng = np.random.default_rng(0)
    C = rng.standard_normal((40, 40))
    contraction = decide_invertibility(many(40, 0.9 * C / np.abs(C).sum(axis=1, keepdims=True)))
    assert contraction.invertible and "centre" in contraction.rule and contraction.smallest > 0
    skew = 3 * (C - C.T) + 0.5 * np.eye(40)  # I - C has the symmetric part I / 2, and C the norm of about 40
    monotone = decide_invertibility(many(40, skew))
    assert monotone.invertible and "positive definite" in monotone.rule
    for B in drawn_elements(many(40, skew), 50, rng):
        assert np.linalg.det(B) > 0


def test_large_groups_that_are_violated() -> None:
    """Among 40 coupled kinks the two that are singular together are found."""
    rng = np.random.default_rng(1)
    C = 0.01 * rng.standard_normal((40, 40))
    C[3, 7], C[7, 3] = 2.0, 2.0  # det [[1, -2 w], [-2 v, 1]] = 1 - 4 w v
    problem = many(40, C)
    found = decide_invertibility(problem)
    assert found.invertible is False and found.element is not None
    assert np.linalg.svd(eliminated(problem, found.element), compute_uv=False)[-1] < 1e-7


def test_what_no_rule_decides_is_left_open() -> None:
    """A P-matrix without a positive definite part, too large to enumerate: undecided, not guessed."""
    rng = np.random.default_rng(2)
    C = 4 * np.triu(rng.standard_normal((14, 14)), 1)
    C[13, 0] = 1e-9  # one group, hardly: all principal minors of I - C are near 1
    found = decide_invertibility(many(14, C), limit=16)
    assert found.invertible in (True, None)
    assert decide_invertibility(many(14, C), limit=2**14).invertible


def test_units_do_not_matter() -> None:
    """Rows and columns of very different sizes are not taken for a singular matrix; a singular one is."""
    problem = Lifted(np.diag([1.0, 1e-18]), np.zeros((2, 0)), np.zeros((0, 2)), np.zeros((0, 0)), [], [], [])
    assert decide_invertibility(problem).invertible
    singular = Lifted(np.array([[1.0, 2.0], [2.0, 4.0]]), *(np.zeros(s) for s in ((2, 0), (0, 2), (0, 0))), [], [], [])
    assert decide_invertibility(singular).invertible is False


def test_nan_is_undecided() -> None:
    """Nothing is said of a derivative that is nan."""
    problem = Lifted(np.array([[np.nan]]), *(np.zeros(s) for s in ((1, 0), (0, 1), (0, 0))), [], [], [])
    assert decide_invertibility(problem).invertible is None


def test_the_check_finds_a_wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with drawn elements fails where violated systems are called invertible."""
    monkeypatch.setattr(
        invertibility._Group, "decide", lambda self: invertibility.Invertibility(True, "no check", groups=())
    )
    with pytest.raises(AssertionError):
        for seed in range(40):
            rng = np.random.default_rng(seed)
            check(system([segment(), segment()], 2, 1.0, rng), rng)
