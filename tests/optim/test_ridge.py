"""The ridge method: known values, directions that are gradients of the maximum, and where the partial derivative is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import nonsmooth as ns
from nonsmooth.errors import NoField, NotMaximal, PointError, UsageError
from nonsmooth.optim import (
    Box,
    EuclideanBall,
    Exhaustive,
    L1Ball,
    Polyhedron,
    PowerSchedule,
    ProjectedAscent,
    Simplex,
    ridge,
    ridge_direction,
)
from tests.shortened import shortened

DOUBLE = torch.float64


def tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def anchored(seed: int) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], torch.Tensor]:
    """F(x, y) = h(x, y) - rho |y - B x|_1 with rho above the slopes of h in y: the maximiser y = B x sits on kinks.

    f(x) = h(x, B x) = |A x - a|^2/2 + <b, B x>, convex, so that its smallest value is known; the rest is a random min-max.
    """
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    A, a, b = (
        tensor(rng.standard_normal((n + 1, n))),
        tensor(rng.standard_normal(n + 1)),
        tensor(rng.standard_normal(m)),
    )
    B, C = tensor(rng.standard_normal((m, n))), tensor(rng.standard_normal((m, n)))
    rho = float(b.abs().max()) + 2.0

    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        turned = torch.sin(C @ x) @ (y - B @ x) / (1 + m)
        return ((A @ x - a) ** 2).sum() / 2 + b @ y + turned - rho * (y - B @ x).abs().sum()

    def f(x: torch.Tensor) -> torch.Tensor:
        return ((A @ x - a) ** 2).sum() / 2 + b @ (B @ x)

    return F, f, lambda x, y: B @ x, tensor(rng.standard_normal(n))


@pytest.mark.parametrize("seed", range(12))
def test_at_kinks_that_join_x_and_y_the_direction_is_the_gradient(seed: int) -> None:
    F, f, maximise, x = anchored(seed)
    y = maximise(x, None)
    exact = torch.func.grad(f)(x)
    found = ridge_direction(F, x, y)
    assert found.status == "computed" and found.certificate.kinks == len(y)
    assert torch.allclose(found.v, exact, atol=1e-8)
    assert float(found.residual) < 1e-8 and float(found.w.norm()) < 1e-8
    wrong = float((torch.func.grad(F)(x, y) - exact).norm())
    assert found.certificate.partial_error == pytest.approx(wrong, abs=1e-7) and wrong > 1e-2


@pytest.mark.parametrize("seed", shortened(range(3), 1))
def test_the_directions_integrate_to_the_maximum_and_the_partial_derivatives_do_not(seed: int) -> None:
    F, f, maximise, start = anchored(seed)
    end = start + tensor(np.random.default_rng([seed, 1]).standard_normal(len(start)))
    truth = float(f(end) - f(start))
    found = ns.potential(lambda x: ridge_direction(F, x, maximise(x, None)).v, end, start, paths=1 if seed == 0 else 0)
    assert found.value == pytest.approx(truth, abs=1e-6) and not found.path_dependent
    partial = ns.potential(lambda x: torch.func.grad(F)(x, maximise(x, None)), end, start, paths=0)
    assert abs(partial.value - truth) > 1e-3


def piecewise(seed: int) -> tuple[Callable[..., Any], Callable[..., Any], list[torch.Tensor], torch.Tensor]:
    """F convex in y over a box, with kinks in x and y: the maximum is at a vertex."""
    rng = np.random.default_rng(seed)
    n, m, k = 2, 2, 4
    P, Q, p = (tensor(rng.integers(-2, 3, s)) for s in ((k, n), (k, m), (k,)))
    R, r = tensor(rng.integers(-2, 3, (3, n))), tensor(rng.integers(-1, 2, 3))

    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(P @ x + Q @ y + p).sum() - (R @ x + r).abs().sum() / 2

    corners = [tensor(c) for c in np.array(np.meshgrid(*[[-1.0, 1.0]] * m)).reshape(m, -1).T]

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([F(x, c) for c in corners]).max()

    return F, f, corners, tensor(rng.standard_normal(n))


@pytest.mark.parametrize("seed", shortened(range(3), 1))
def test_random_maxima_over_vertices(seed: int) -> None:
    F, f, corners, start = piecewise(seed)
    end = start + tensor(np.random.default_rng([seed, 2]).standard_normal(2))

    def v(x: torch.Tensor) -> torch.Tensor:
        y = max(corners, key=lambda c: float(F(x, c)))
        found = ridge_direction(F, x, y, Box(-1.0, 1.0))
        assert found.status == "computed"
        return found.v

    found = ns.potential(v, end, start, paths=1 if seed == 0 else 0)
    assert found.value == pytest.approx(float(f(end) - f(start)), abs=1e-6)
    assert not found.path_dependent


@pytest.mark.parametrize("seed", shortened(range(3), 2))
def test_inside_the_kinks_of_a_maximum(seed: int) -> None:
    """Along a path that stays in a second kink in x and y."""
    rng = np.random.default_rng(seed)
    a, b = tensor(rng.standard_normal(2)), tensor(rng.standard_normal(2))

    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(a @ x + y) - 3 * (y - (1 + b @ x)).abs() + y**2 / 4

    def maximise(
        x: torch.Tensor,
    ) -> torch.Tensor:  # concave up to y^2/4 with slopes above 3/2: the kink, as |y| stays small
        return 1 + b @ x

    across = tensor([-(a + b)[1], (a + b)[0]])
    across = across / across.norm()
    foot = -(a + b) / ((a + b) @ (a + b))
    start, end = foot - across / 4, foot + across / 4

    def f(x: torch.Tensor) -> torch.Tensor:
        return F(x, maximise(x))

    found = ns.potential(lambda x: ridge_direction(F, x, maximise(x)).v, end, start, paths=0)
    assert found.value == pytest.approx(float(f(end) - f(start)), abs=1e-6)


def matrix_game(seed: int) -> dict[str, Any]:
    """min over x, max over y, of y'M x on two simplices."""
    M = np.random.default_rng(seed).integers(-3, 4, (4, 3)).astype(float)
    value = linprog(
        [0, 0, 0, 1], np.c_[M, -np.ones(4)], np.zeros(4), [[1, 1, 1, 0]], [1], [(0, None)] * 3 + [(None,) * 2]
    ).fun
    corners = [tensor(e) for e in np.eye(4)]
    return {
        "F": lambda x, y: y @ tensor(M) @ x, "x": torch.full((3,), 1 / 3, dtype=DOUBLE), "maximise": Exhaustive(corners),
        "constraint": Simplex(), "x_constraint": Simplex(), "value": value,
    }  # fmt: skip


def affine_maximum(seed: int) -> dict[str, Any]:
    """The largest of affine functions, bounded below, as a simplex problem."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((8, 3)), rng.standard_normal(8)
    A = np.vstack([A, -A.sum(0)])
    b = np.append(b, 0.0)
    value = linprog([0, 0, 0, 1], np.c_[A, -np.ones(9)], -b, bounds=(None, None)).fun
    return {
        "F": lambda x, y: y @ (tensor(A) @ x + tensor(b)), "x": tensor(np.ones(3)),
        "maximise": Exhaustive([tensor(e) for e in np.eye(9)]), "constraint": Simplex(), "value": value,
    }  # fmt: skip


def chebyshev(seed: int) -> dict[str, Any]:
    """The best uniform fit by a line: y in the l1 ball."""
    rng = np.random.default_rng(seed)
    t = np.linspace(-1, 1, 9)
    A, b = np.c_[np.ones(9), t], np.exp(t) + 0.3 * rng.standard_normal(9)
    ones = np.ones((9, 1))
    value = linprog([0, 0, 1], np.r_[np.c_[A, -ones], np.c_[-A, -ones]], np.r_[b, -b], bounds=(None, None)).fun
    corners = [tensor(s * e) for e in np.eye(9) for s in (1.0, -1.0)]
    return {
        "F": lambda x, y: y @ (tensor(A) @ x - tensor(b)), "x": tensor(np.zeros(2)), "maximise": Exhaustive(corners),
        "constraint": L1Ball(1.0), "value": value,
    }  # fmt: skip


def robust_regression(seed: int) -> dict[str, Any]:
    """Rows of the data moved by up to eps in the maximum norm: the value is that of |A x - b|_1 + n eps |x|_1."""
    rng = np.random.default_rng(seed)
    A, b, eps = rng.standard_normal((7, 2)), rng.standard_normal(7), 0.1
    one, eye = np.ones(7), np.eye(7)
    G = np.r_[np.c_[A, -eye, np.zeros((7, 2))], np.c_[-A, -eye, np.zeros((7, 2))]]
    G = np.r_[G, np.c_[np.eye(2), np.zeros((2, 7)), -np.eye(2)], np.c_[-np.eye(2), np.zeros((2, 7)), -np.eye(2)]]
    value = linprog(np.r_[0, 0, one, 7 * eps * np.ones(2)], G, np.r_[b, -b, np.zeros(4)], bounds=(None, None)).fun
    tA, tb = tensor(A), tensor(b)

    def maximise(x: torch.Tensor, y: Any) -> torch.Tensor:
        side = torch.where(tA @ x - tb >= 0, 1.0, -1.0).to(DOUBLE)
        return eps * torch.outer(side, torch.where(x >= 0, 1.0, -1.0).to(DOUBLE))

    return {
        "F": lambda x, y: ((tA + y) @ x - tb).abs().sum(), "x": tensor([1.0, 1.0]), "maximise": maximise,
        "constraint": Box(-eps, eps), "value": value,
    }  # fmt: skip


def saddle(seed: int) -> dict[str, Any]:
    """Strongly convex and concave, over a ball that binds: solved by its conditions, maximised by projected ascent."""
    rng = np.random.default_rng(seed)
    c = tensor(2 * rng.standard_normal(3))  # max over |y| <= 1 of <x - c, y> is |x - c|: f = |x|^2/2 + |x - c|
    size = float(c.norm())
    return {
        "F": lambda x, y: (x * x).sum() / 2 + (x - c) @ y, "x": tensor(np.ones(3)), "maximise": ProjectedAscent(),
        "y": tensor(np.zeros(3)), "constraint": EuclideanBall(1.0),
        "value": size**2 / 2 if size <= 1 else size - 0.5,
    }  # fmt: skip


PROBLEMS = [matrix_game, affine_maximum, chebyshev, robust_regression, saddle]


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_values_that_are_known(make: Callable[[int], dict[str, Any]], seed: int) -> None:
    case = make(seed)
    value, maximise = case.pop("value"), case.pop("maximise")
    run = ridge(case.pop("F"), case.pop("x"), maximise, steps=200, step_size=PowerSchedule(0.5, 0.75), **case)
    assert run.best_value == pytest.approx(value, abs=0.03)
    assert run.best_value >= value - 1e-8 and run.status == "computed"


@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_the_method_finds_the_minimum_where_the_partial_derivative_does_not(seed: int) -> None:
    F, f, maximise, x = anchored(seed)
    A = torch.func.hessian(f)(x)
    least = float(f(x - torch.linalg.solve(A, torch.func.grad(f)(x))))
    size = 1 / float(torch.linalg.eigvalsh(A).max())
    run = ridge(F, x, maximise, steps=30, step_size=size)
    plain = x.clone()
    for _ in range(30):
        plain = plain - size * torch.func.grad(F)(plain, maximise(plain, None))
    assert least - 1e-9 <= run.best_value < least + 0.1 * (float(f(x)) - least)
    assert run.best_value < float(f(plain)) - 1e-3


def test_the_partial_derivative_climbs() -> None:
    """f(x) = x^2/2, and the partial derivative says -x."""

    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * y - x * x / 2 - 3 * (y - x).abs()

    x = torch.tensor(0.5, dtype=DOUBLE)
    assert float(torch.func.grad(F)(x, x.clone())) == -0.5
    found = ridge_direction(F, x, x.clone(), Box(-1.0, 1.0))
    assert float(found.v) == pytest.approx(0.5) and found.certificate.partial_error == pytest.approx(1.0)
    run = ridge(F, x, lambda x, y: x, constraint=Box(-1.0, 1.0), steps=30, step_size=0.5)
    assert run.best_value < 1e-9


NOT_MAXIMAL = [
    ("smooth", lambda x, y: x * y - y * y, 1.0, 0.0, None),
    ("kink", lambda x, y: y - 2 * (y - x).abs(), 1.0, 0.0, None),
    ("at the wrong bound", lambda x, y: x * y, 1.0, -1.0, Box(-1.0, 1.0)),
    ("convex kink", lambda x, y: (y - x).abs() + 2 * y, 1.0, 1.0, Box(-2.0, 2.0)),
]


@pytest.mark.parametrize(("F", "x", "y", "constraint"), [c[1:] for c in NOT_MAXIMAL], ids=[c[0] for c in NOT_MAXIMAL])
def test_what_does_not_maximise_is_refuted_with_a_way_up(F: Any, x: float, y: float, constraint: Any) -> None:
    at, point = tensor(x), tensor(y)
    found = ridge_direction(F, at, point, constraint)
    assert found.status == "refuted"
    t = 1e-4
    gained = float(F(at, point + t * found.certificate.ascent) - F(at, point))
    assert gained >= t * found.residual.lower * 0.99
    with pytest.raises(NotMaximal, match=r"step 0: y does not maximise"):
        ridge(F, at, lambda x, y: point, constraint=constraint, steps=3, step_size=0.1)
    stopped = ridge(F, at, lambda x, y: point, constraint=constraint, steps=3, step_size=0.1, otherwise="stop")
    assert (stopped.stopped, stopped.status, len(stopped.history)) == ("direction", "undecided", 1)
    assert torch.equal(stopped.x, at)
    went = ridge(F, at, lambda x, y: point, constraint=constraint, steps=3, step_size=0.1, otherwise="step")
    assert (went.stopped, went.status, len(went.history)) == ("steps", "undecided", 3)


def test_critical_is_not_maximal() -> None:
    """A saddle in y passes the check of first order: that y maximises is the caller's word."""
    assert ridge_direction(lambda x, y: x + y**2, tensor(1.0), tensor(0.0)).status == "computed"


def test_nearly_maximal() -> None:
    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * x / 2 + y - 2 * (y - x).abs()

    x, y = tensor(1.0), tensor(1.0 + 1e-4)
    assert ridge_direction(F, x, y).status == "refuted"
    found = ridge_direction(F, x, y, near=1e-3)
    assert found.status == "computed" and float(found.v) == pytest.approx(2.0) and found.certificate.enlarged
    smooth = lambda x, y: x * y - y * y / 2  # noqa: E731
    assert ridge_direction(smooth, x, y).status == "refuted"
    assert ridge_direction(smooth, x, y, tolerance=1e-3).status == "computed"
    assert float(ridge_direction(smooth, x, y).residual) == pytest.approx(1e-4)


def test_a_bracket_is_undecided_rather_than_refuted() -> None:
    rng = np.random.default_rng(0)
    M = [tensor(rng.integers(-2, 3, (3, 3))) for _ in range(2)]

    def F(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = x + y
        return (
            torch.relu(M[1] @ torch.relu(M[0] @ torch.relu(z))).sum()
            - torch.relu(M[0] @ torch.relu(-z)).sum()
            + 0.5 * y.sum()
        )

    x, y = torch.zeros(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)
    whole, part = ridge_direction(F, x, y), ridge_direction(F, x, y, limit=2)
    assert whole.certificate.exact and not part.certificate.exact
    assert part.residual.lower <= float(whole.residual) + 1e-9 <= part.residual.upper + 2e-9
    assert part.status in ("undecided", whole.status)


def test_a_finite_set() -> None:
    def F(x: torch.Tensor, y: int) -> torch.Tensor:
        return (x - y) * (1.0 if y else -1.0)

    run = ridge(F, tensor(3.0), [0, 2], steps=300, step_size=PowerSchedule(1.0, 0.8))  # max(-x, x - 2): smallest at 1
    assert run.best_value == pytest.approx(-1.0, abs=0.01) and run.y in (0, 2)
    found = ridge_direction(F, tensor(3.0), 2, [0, 2])
    assert float(found.v) == 1.0 and found.w is None and found.status == "computed"


def test_trees_types_and_what_is_the_users() -> None:
    x = {"a": torch.ones(2, requires_grad=True), "b": torch.zeros(1)}
    y = [torch.zeros(2), torch.ones(1)]
    target = torch.tensor([1.0, -1.0])

    def F(x: Any, y: Any, target: torch.Tensor) -> torch.Tensor:
        return (
            ((x["a"] - target) ** 2).sum()
            + x["a"] @ y[0]
            - y[0].abs().sum() / 8
            + (x["b"] * y[1]).sum()
            - y[1].abs().sum()
        )

    state, before = torch.get_rng_state(), x["a"].detach().clone()
    run = ridge(
        F,
        x,
        y=y,
        constraint=[Box(-0.1, 0.1), None],
        steps=5,
        step_size=0.1,
        data=(target,),
        tolerance=2.0,
        otherwise="step",
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x["a"], before) and x["a"].grad is None and torch.equal(y[1], torch.ones(1))
    assert set(run.x) == {"a", "b"} and run.x["a"].dtype == torch.float32 and not run.x["a"].requires_grad
    assert isinstance(run.y, list) and run.y[0].abs().max() <= 0.1


def test_a_maximum_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no maximum over Y"):
        ridge(lambda x, y: x * y, torch.tensor(2.0), y=torch.tensor(0.0), steps=2, step_size=0.1)


def test_thirty_kinks_that_join_x_and_y() -> None:
    """y = x maximises, each entry on a kink of its own: f(x) = sum x (1 + slope)."""
    slopes = torch.arange(30, dtype=torch.float64) / 20
    x = torch.zeros(30, dtype=torch.float64)
    found = ridge_direction(lambda x, y: (y * slopes).sum() + x.sum() - 3 * (y - x).abs().sum(), x, x.clone())
    assert found.status == "computed" and torch.allclose(found.v, 1 + slopes, atol=1e-6)


def test_the_run_is_told() -> None:
    F, _, maximise, x = anchored(3)
    steps = []
    run = ridge(F, x, maximise, steps=20, step_size=lambda k: 0.05, callback=steps.append)
    assert [s.k for s in steps] == list(range(20)) and torch.is_tensor(steps[0].v) and run.history[0].v is None
    assert len(run.table().rows) == 12 and run.table().rows[-1][0] == 19
    data = json.loads(run.to_json())
    assert data["status"] == "computed" and len(data["history"]) == 20 and data["format_version"] == 1
    assert "partial is off by" in str(run) and max(map(len, str(run).splitlines())) <= 100
    assert run.step_sizes == [0.05] * 20 and len(run.values) == len(run.residuals) == 20
    ended = ridge(F, x, maximise, steps=20, step_size=0.05, callback=lambda step: step.k == 4)
    assert (ended.stopped, len(ended.history)) == ("callback", 5)


def test_a_critical_point_ends_it() -> None:
    run = ridge(
        lambda x, y: (x * x).sum() + 0 * y, torch.zeros(2), lambda x, y: torch.tensor(0.0), steps=9, step_size=0.1
    )
    assert (run.stopped, len(run.history)) == ("critical", 1)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"steps": 0}, UsageError, "steps=0"),
    ({"steps": 1.5}, UsageError, "steps=1.5"),
    ({"steps": "a"}, UsageError, "steps='a'"),
    ({"steps": float("nan")}, UsageError, "steps=nan"),
    ({"step_size": float("nan")}, UsageError, "step size of step 0"),
    ({"step_size": None}, UsageError, "step size of step 0"),
    ({"step_size": lambda k: -1.0}, UsageError, "step size of step 0"),
    ({"otherwise": "hope"}, UsageError, "otherwise='hope'"),
    ({"near": -1.0}, UsageError, "near=-1.0"),
    ({"tolerance": lambda k: float("inf")}, UsageError, "tolerance=inf"),
    ({"maximise": 3}, UsageError, "maximise is a function"),
    ({"maximise": None}, UsageError, "pass y="),
    ({"maximise": []}, UsageError, "no candidate"),
    ({"maximise": lambda x, y: "a"}, PointError, "must be made of tensors"),
    ({"maximise": lambda x, y: torch.tensor(float("nan"))}, PointError, "nan"),
    ({"constraint": Box(2.0, 3.0)}, UsageError, "outside of its constraint"),
    ({"constraint": "box"}, UsageError, "constraint= takes a Constraint"),
    ({"constraint": [Box(), Box()]}, UsageError, "another structure"),
    ({"constraint": Box([0.0, 0.0], 1.0)}, UsageError, "does not broadcast"),
    ({"constraint": Polyhedron([[1.0, 0.0]], [1.0])}, UsageError, r"Polyhedron of R\^2"),
    ({"F": 3}, UsageError, "F must be a function"),
    ({"F": lambda x, y: torch.sign(x) * y}, NoField, "no conservative field"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD)
def test_wrong_use(change: dict[str, Any], error: type[Exception], text: str) -> None:
    case: dict[str, Any] = {
        "F": lambda x, y: x * y, "maximise": lambda x, y: torch.tensor(0.0), "steps": 2, "step_size": 0.1,
    }  # fmt: skip
    case |= change
    with pytest.raises(error, match=text):
        ridge(case.pop("F"), torch.tensor(0.0), case.pop("maximise"), **case)
