"""Constraints: projections against general solvers, and normal cones against their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from nonsmooth.errors import UsageError
from nonsmooth.optim import Box, Constraint, EuclideanBall, L1Ball, Polyhedron, Simplex, WholeSpace

N = 4

RNG = np.random.default_rng(5)
A, B = RNG.standard_normal((6, N)), 0.5 + RNG.random(6)

POLYHEDRON = {"type": "ineq", "fun": lambda y: B - A @ y}

CASES: list[tuple[str, Constraint, list[dict[str, Any]]]] = [
    ("box", Box([-1.0, 0.0, -np.inf, 0.2], [0.5, 0.0, 0.3, np.inf]), []),
    (
        "ball",
        EuclideanBall(1.5, np.eye(N)[0]),
        [{"type": "ineq", "fun": lambda y: 2.25 - ((y - np.eye(N)[0]) ** 2).sum()}],
    ),
    (
        "simplex",
        Simplex(2.0),
        [{"type": "eq", "fun": lambda y: y.sum() - 2}, {"type": "ineq", "fun": lambda y: y}],
    ),
    ("polyhedron", Polyhedron(A, B), [POLYHEDRON]),
    (
        "with an equation",
        Polyhedron(A, B, [[1.0] * N], [0.1]),
        [POLYHEDRON, {"type": "eq", "fun": lambda y: y.sum() - 0.1}],
    ),
]


@pytest.mark.parametrize(("constraint", "conditions"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("seed", range(5))
def test_the_projection(constraint: Constraint, conditions: list[dict[str, Any]], seed: int) -> None:
    y = 3 * np.random.default_rng(seed).standard_normal(N)
    found = constraint.project(y)
    bounds = None
    if isinstance(constraint, Box):
        bounds = list(zip(constraint.lower, constraint.upper, strict=True))
    best = minimize(
        lambda z: ((z - y) ** 2).sum() / 2, found + 0.1, jac=lambda z: z - y, bounds=bounds, constraints=conditions,
        method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert np.allclose(found, best.x, atol=1e-5)
    assert constraint.distance(found) < 1e-9
    assert constraint.distance(y) == pytest.approx(np.linalg.norm(best.x - y), abs=1e-5)


def inside(constraint: Constraint, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return constraint.project(3 * rng.standard_normal(N))


ALL = [c[1] for c in CASES] + [L1Ball(1.0), L1Ball(0.7, [0.0, 1.0, 0.0, 0.0]), WholeSpace(), Simplex()]


@pytest.mark.parametrize("constraint", ALL, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("seed", range(8))
def test_the_normal_cone_is_its_definition(constraint: Constraint, seed: int) -> None:
    """w is normal at y iff <w, z - y> <= 0 for all z in Y, iff y is the projection of y + w."""
    rng = np.random.default_rng(seed)
    far = 3 * rng.standard_normal(N)
    y = constraint.project(far)
    cone = constraint.normal_cone(y, 1e-9)
    assert cone.distance(far - y) < 1e-8  # what the projection takes away is normal
    w = cone.project(3 * rng.standard_normal(N))
    assert np.allclose(constraint.project(y + w), y, atol=1e-7)
    assert all(w @ (inside(constraint, rng) - y) <= 1e-7 for _ in range(30))
    other = 3 * rng.standard_normal(N)  # and what is not normal moves it
    if cone.distance(other) > 0.1:
        assert np.linalg.norm(constraint.project(y + other) - y) > 1e-6


def test_inside_only_zero_is_normal() -> None:
    w = np.ones(2)
    for constraint in (Box(-1, 1), EuclideanBall(1.0), L1Ball(1.0), WholeSpace(), Polyhedron(np.eye(2), np.ones(2))):
        assert constraint.normal_cone(np.array([0.1, 0.2])).distance(w) == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("kind", [EuclideanBall, L1Ball, Simplex])
def test_a_batch_is_many_sets(kind: Any) -> None:
    rng = np.random.default_rng(3)
    y = 3 * rng.standard_normal((5, 2, 3))
    whole = kind(1.0, batch=1).project(y)
    assert np.allclose(whole, [kind(1.0).project(row) for row in y])
    cone, w = kind(1.0, batch=1).normal_cone(whole, 1e-9), rng.standard_normal((5, 2, 3))
    parts = [kind(1.0).normal_cone(row, 1e-9).project(one.ravel()) for row, one in zip(whole, w, strict=True)]
    assert np.allclose(cone.project(w.ravel()), np.concatenate(parts))


def test_bounds_may_be_tensors_and_broadcast() -> None:
    box = Box(torch.zeros(3), torch.tensor(1.0))
    assert np.array_equal(box.project(np.array([[2.0, -1.0, 0.5]])), [[1.0, 0.0, 0.5]])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Box(1.0, 0.0), "above the upper one"),
        (lambda: Box(float("nan")), "holds nan"),
        (lambda: Box("a"), "must be numbers"),
        (lambda: Box([0.0, 0.0], [1.0, 1.0, 1.0]), "bounds of shapes"),
        (lambda: EuclideanBall(0.0), "positive finite"),
        (lambda: L1Ball(float("inf")), "positive finite"),
        (lambda: Simplex(-1.0), "positive finite"),
        (lambda: Simplex(batch=-1), "batch=-1"),
        (lambda: EuclideanBall(1.0, batch=3).project(np.zeros(2)), "axes only"),
        (lambda: Polyhedron([1.0], [1.0]), "Polyhedron was given shapes"),
        (lambda: Polyhedron([[1.0], [-1.0]], [-1.0, -1.0]), "no point satisfies"),
        (lambda: Polyhedron([[1.0]], [np.inf]), "infinity"),
    ],
)
def test_wrong_use(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()
