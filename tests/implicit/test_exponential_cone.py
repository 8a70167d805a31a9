"""The exponential cone: its projection by what characterises it, its Jacobians by limits, programs by closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import NotInvertible
from nonsmooth.implicit import ConeProgram, Cones
from nonsmooth.implicit.cones.exponential_cone import exponential_cone_jacobian
from tests.shortened import shortened

torch = pytest.importorskip("torch")


def project(v: np.ndarray) -> np.ndarray:
    """Give the nearest element: P is positively homogeneous."""
    return np.asarray(exponential_cone_jacobian(v, 0.0).smallest @ v)


R = np.sinh(np.linspace(-7.0, 6.0, 20_000))
RAYS = np.concatenate([np.stack([R, 0 * R + 1, np.exp(R)], 1), [[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
POLAR = np.concatenate([np.stack([np.exp(R), (1 - R) * np.exp(R), 0 * R - 1], 1), [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]])
RAYS, POLAR = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (RAYS, POLAR))
"""Elements that generate the cone, and its polar cone: an element of the one has no positive product with the other's."""


def draw(rng: np.random.Generator) -> np.ndarray:
    """Draw a point of any size and slope."""
    return np.asarray(rng.standard_normal(3) * 10.0 ** rng.uniform(-2, 2, 3))


@pytest.mark.parametrize("seed", shortened(range(20), 2))
def test_the_projection_is_that_of_moreau(seed: int) -> None:
    """P(v) in K, v - P(v) in the polar cone, and they are orthogonal: this is the projection alone."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        v = draw(rng)
        w, size = project(v), float(np.abs(v).max())
        assert (POLAR @ w).max() <= 1e-12 * size and (RAYS @ (v - w)).max() <= 1e-12 * size, v
        assert abs(w @ (v - w)) <= 1e-12 * size**2


@pytest.mark.parametrize("seed", shortened(range(20), 2))
def test_the_derivative_is_the_limit_of_differences(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(100):
        v = draw(rng)
        step = 1e-6 * max(1e-3, float(np.abs(v).min()))
        found = [(project(v + step * e) - project(v - step * e)) / (2 * step) for e in np.eye(3)]
        if exponential_cone_jacobian(v, 10 * step).where:  # a kink between the points
            continue
        assert np.stack(found, axis=1) == pytest.approx(exponential_cone_jacobian(v, 0.0).smallest, abs=1e-4)


E_MINUS = float(np.exp(-2.0))

KINKS: dict[str, tuple[list[float], float, int]] = {
    # a point, how far away elements are sampled (slopes go to infinity as the logarithm of that), and how many directions
    "surface": ([-2.0, 1.0, E_MINUS], 1e-7, 1),
    "steep surface": ([3.0, 1.0, float(np.exp(3.0))], 1e-7, 1),
    "polar surface": ([E_MINUS, 3 * E_MINUS, -1.0], 1e-7, 1),
    "face": ([-1.0, 0.0, 2.0], 1e-7, 1),
    "edge of the face": ([-1.0, -2.0, 0.0], 1e-7, 1),
    "below the face": ([-1.0, 0.0, -2.0], 1e-3, 1),
    "corner of the face": ([-1.0, 0.0, 0.0], 1e-3, 2),
    "beside the ray": ([0.0, -1.0, 2.0], 1e-200, 1),
    "polar edge": ([0.0, -1.0, -2.0], 1e-7, 1),
    "polar corner": ([0.0, -1.0, 0.0], 1e-200, 2),
    "ray": ([0.0, 0.0, 1.0], 1e-200, 2),
    "polar ray": ([0.0, 0.0, -1.0], 1e-200, 2),
    "apex": ([0.0, 0.0, 0.0], 1e-7, 3),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_set_at_a_kink_is_that_of_limits(name: str) -> None:
    """Nearby derivatives lie between the least and the greatest element, and come near both."""
    point, away, count = KINKS[name]
    v, rng = np.array(point), np.random.default_rng(0)
    found = exponential_cone_jacobian(v, 1e-9)
    assert len(found.directions) == count and found.where
    ends = found.smallest, found.smallest + found.directions.T @ found.directions
    slack, near = 0.02, [np.inf, np.inf]
    scales = np.where(v == 0, away, 1e-7 if away >= 1e-7 else 0.0)
    for _ in range(2000):
        moved = v + scales * rng.standard_normal(3) * rng.choice([1.0, 1.0, 1e-2, 1e-8], 3)
        V = exponential_cone_jacobian(moved, 0.0).smallest
        assert np.linalg.eigvalsh(V - ends[0])[0] >= -slack and np.linalg.eigvalsh(ends[1] - V)[0] >= -slack
        near = [min(n, float(np.abs(V - end).max())) for n, end in zip(near, ends, strict=True)]
    assert max(near) <= slack


def logistic(w: Any, X: Any, y: Any) -> Any:
    """Give the loss of ridge logistic regression."""
    return torch.nn.functional.softplus(-y * (X @ w)).sum() + 0.05 * (w**2).sum()


def test_logistic_regression_by_exponential_cones() -> None:
    """The derivative of the coefficients in the data, against the implicit function theorem on the smooth problem."""
    cvxpy, layers = pytest.importorskip("cvxpy"), pytest.importorskip("cvxpylayers.torch")
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(6, 2, generator=generator, dtype=torch.double, requires_grad=True)
    y = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.double)
    w, data = cvxpy.Variable(2), cvxpy.Parameter((6, 2))
    loss = cvxpy.sum(cvxpy.logistic(-cvxpy.multiply(y.numpy(), data @ w))) + 0.05 * cvxpy.sum_squares(w)
    layer = ns.implicit.checked(layers.CvxpyLayer(cvxpy.Problem(cvxpy.Minimize(loss)), [data], [w]))
    (found,) = layer(X)
    smooth = ns.implicit.argmin(lambda w, X: logistic(w, X, y))(X, start=torch.zeros(2, dtype=torch.double))
    torch.testing.assert_close(found, smooth, rtol=1e-8, atol=1e-8)
    gradients = [torch.autograd.grad(solved.pow(3).sum(), X)[0] for solved in (found, smooth)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7)
    assert layer.diagnose(X).invertible and layer.diagnose(X).kinks == 0


def test_the_least_point_above_the_exponential_function() -> None:
    """min c x + z with (x, 1, z) in K: x = log(-c), dx/dc = 1/c, and -1 in the coefficient of z."""
    pytest.importorskip("diffcp")
    program = ConeProgram(Cones(zero=1, exponential=1))
    c = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.double, requires_grad=True)
    A = torch.cat([torch.tensor([[0.0, 1.0, 0.0]]), -torch.eye(3)]).double()
    b = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.double)
    x = program(c, A, b).x
    assert x.detach().numpy() == pytest.approx([np.log(2), 1.0, 2.0], abs=1e-9)
    assert torch.autograd.grad(x[0], c)[0].numpy() == pytest.approx([-0.5, 0.0, -1.0], abs=1e-8)


def test_a_height_that_nothing_determines_is_no_function() -> None:
    """min x^2/2 with (x, 1, z) in K: every z >= 1 is a solution."""
    program = ConeProgram(
        Cones(zero=1, exponential=1),
        lambda P, c, A, b, K: (np.array([0.0, 1.0, 2.0]), np.zeros(4), np.array([0.0, 0.0, 1.0, 2.0])),
    )
    c = torch.zeros(3, dtype=torch.double, requires_grad=True)
    A = torch.cat([torch.tensor([[0.0, 1.0, 0.0]]), -torch.eye(3)]).double()
    b = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.double)
    x = program(c, A, b, torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.double))).x
    with pytest.raises(NotInvertible, match="second-order"):
        x.sum().backward()


def test_power_cones_are_refused() -> None:
    cvxpy, layers = pytest.importorskip("cvxpy"), pytest.importorskip("cvxpylayers.torch")
    x, a = cvxpy.Variable(3), cvxpy.Parameter(3)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - a)), [cvxpy.PowCone3D(x[0], x[1], x[2], 0.3)])
    try:
        layer = layers.CvxpyLayer(problem, [a], [x])
    except Exception:
        pytest.skip("this cvxpylayers refuses them itself")
    with pytest.raises(ns.errors.UsageError, match="found p"):
        ns.implicit.checked(layer)
