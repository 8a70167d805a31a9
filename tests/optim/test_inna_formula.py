"""INNA and INNAprop against their papers, written out; against the closed form on quadratics; against the equation behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import nonsmooth as ns
from nonsmooth.errors import UsageError
from tests.references import inna as reference

FORMS = [{"foreach": False}, {"foreach": True}, {"differentiable": True}, {"capturable": True}]


def random_problem(seed: int) -> tuple[list[np.ndarray], reference.Gradient, dict[str, Any], list[float]]:
    """Draw parameters of several shapes, gradients that depend on the point and the step, hyper-parameters and steps."""
    rng = np.random.default_rng(seed)
    shapes = [(), (1,), (7,), (3, 4), (2, 1, 5)]
    start = [rng.normal(size=shape) for shape in shapes]
    phases = rng.normal(size=40)
    alpha, beta = rng.uniform(0, 2), rng.uniform(0.05, 1.5)
    hyper = {"alpha": alpha, "beta": beta, "weight_decay": float(rng.choice([0.0, 0.3]))}
    gammas = list(rng.uniform(0, 0.9 * min(beta, 1), size=40))
    return start, lambda k, theta: np.sin(3 * theta + phases[k]) + np.abs(theta), hyper, gammas


def run(
    optimizer: torch.optim.Optimizer, params: list[torch.Tensor], gradient: reference.Gradient, k: int, gamma: float
) -> None:
    """Make one step of a torch optimiser on a reference's gradient."""
    for group in optimizer.param_groups:
        group["lr"] = gamma
    with torch.no_grad():
        for p in params:
            p.grad = torch.from_numpy(np.asarray(gradient(k, p.detach().numpy())))
            if optimizer.param_groups[0]["maximize"]:
                p.grad.neg_()
    optimizer.step()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_inna_is_the_paper_s(seed: int, maximize: bool, form: dict[str, Any]) -> None:
    start, gradient, hyper, gammas = random_problem(seed)
    params = [torch.tensor(theta) for theta in start]
    optimizer = ns.optim.INNA(params, maximize=maximize, **hyper, **form)
    expected = [list(reference.inna(theta, gradient, gammas, **hyper)) for theta in start]
    for k, gamma in enumerate(gammas):
        run(optimizer, params, gradient, k, gamma)
        for p, trajectory in zip(params, expected, strict=True):
            np.testing.assert_allclose(p.numpy(), trajectory[k][0], rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(
                optimizer.state[p]["psi"].detach().numpy(), trajectory[k][1], rtol=1e-9, atol=1e-11
            )


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_innaprop_is_the_paper_s(seed: int, maximize: bool, form: dict[str, Any]) -> None:
    start, gradient, hyper, gammas = random_problem(seed)
    hyper |= {"sigma": [0.0, 0.9, 0.999][seed], "eps": 1e-8}
    params = [torch.tensor(theta) for theta in start]
    optimizer = ns.optim.INNAprop(params, lr=0.0, maximize=maximize, **hyper, **form)
    expected = [list(reference.innaprop(theta, gradient, gammas, **hyper)) for theta in start]
    for k, gamma in enumerate(gammas):
        run(optimizer, params, gradient, k, gamma)
        for p, trajectory in zip(params, expected, strict=True):
            state = optimizer.state[p]
            for found, true in zip((p, state["psi"], state["exp_avg_sq"]), trajectory[k], strict=True):
                np.testing.assert_allclose(found.detach().numpy(), true, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("make", [ns.optim.INNA, ns.optim.INNAprop])
def test_many_tensors_at_once_are_the_same_to_the_bit(make: Any, dtype: torch.dtype) -> None:
    rounds_numbers = (
        dtype == torch.float16 and make is ns.optim.INNAprop
    )  # torch rounds sigma for many tensors at once, not for one
    half = {"eps": 1e-4} if rounds_numbers else {}
    sides = []
    for foreach in (False, True):
        torch.manual_seed(0)
        params = [torch.randn(n).to(dtype) for n in (3, 1, 200_000, 17, 40_000)]
        optimizer = make(params, lr=0.05, weight_decay=0.1, foreach=foreach, **half)
        for _ in range(4):
            for p in params:
                p.grad = torch.randn(p.shape).to(dtype)
            optimizer.step()
        sides.append([*params, *(optimizer.state[p]["psi"] for p in params)])
    same = (lambda a, b: torch.allclose(a, b, atol=2e-3, rtol=2e-3)) if rounds_numbers else torch.equal
    assert all(same(a, b) for a, b in zip(*sides, strict=True))
    assert all(a.dtype == dtype and bool(a.isfinite().all()) for a in sides[0])


def test_a_complex_parameter_is_two_real_ones() -> None:
    for make in (ns.optim.INNA, ns.optim.INNAprop):
        for form in FORMS:
            z = torch.tensor([1 + 2j, -0.5 - 1j], dtype=torch.complex128)
            pair = torch.view_as_real(z).clone()
            with_z, with_pair = make([z], lr=0.05, **form), make([pair], lr=0.05, **form)
            for _ in range(3):
                z.grad, pair.grad = z * (1 + 0.5j), torch.view_as_real(z * (1 + 0.5j)).clone()
                with_z.step()
                with_pair.step()
            torch.testing.assert_close(torch.view_as_real(z), pair)


CASES = [
    (h, gamma, alpha, beta)
    for h in (0.1, 1.0, 30.0)
    for gamma in (0.01, 0.05)
    for alpha, beta in ((0.5, 0.1), (0.0, 1.0), (3.0, 0.7))
]


@pytest.mark.parametrize(("h", "gamma", "alpha", "beta"), CASES)
def test_on_a_quadratic_the_trajectory_is_a_power_of_a_matrix(
    h: float, gamma: float, alpha: float, beta: float
) -> None:
    theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    optimizer = ns.optim.INNA([theta], lr=gamma, alpha=alpha, beta=beta)
    step = reference.quadratic_map(h, gamma, alpha=alpha, beta=beta)
    z = np.array([1.5, (1 - alpha * beta) * 1.5])
    for k in range(1, 200):
        optimizer.zero_grad()
        (h * theta**2 / 2).sum().backward()
        optimizer.step()
        found = [theta.item(), optimizer.state[theta]["psi"].item()]
        np.testing.assert_allclose(found, np.linalg.matrix_power(step, k) @ z, rtol=1e-9, atol=1e-12)


def spectral_radius(h: float, gamma: float, alpha: float, beta: float) -> float:
    return float(max(abs(np.linalg.eigvals(reference.quadratic_map(h, gamma, alpha=alpha, beta=beta)))))


@pytest.mark.parametrize("seed", range(40))
def test_the_largest_stable_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha, beta = rng.choice([0.0, rng.uniform(0, 5)]), 10 ** rng.uniform(-1.5, 1)
    largest = 10 ** rng.uniform(-2, 3)
    gamma = ns.optim.stable_step(largest, alpha, beta)
    curvatures = largest * np.append(np.geomspace(1e-4, 1, 400), 1 - np.geomspace(1e-9, 0.5, 50))
    assert max(spectral_radius(h, 0.999 * gamma, alpha, beta) for h in curvatures) < 1
    assert max(spectral_radius(h, 1.01 * gamma, alpha, beta) for h in np.append(curvatures, largest * 1e-9)) > 1


def test_the_rate_on_a_quadratic_is_the_spectral_radius() -> None:
    h, gamma, alpha, beta = 2.0, 0.05, 0.5, 0.1
    theta = torch.tensor([1.0], dtype=torch.float64)
    optimizer = ns.optim.INNA([theta], lr=gamma, alpha=alpha, beta=beta)
    sizes = []
    for _ in range(8000):
        theta.grad = h * theta
        optimizer.step()
        sizes.append(theta.abs().item())
    largest = [max(sizes[i : i + 500]) for i in (0, 7500)]  # of a spiral: its slowest decay
    rate = (largest[1] / largest[0]) ** (1 / 7500)
    assert rate == pytest.approx(spectral_radius(h, gamma, alpha, beta), rel=1e-4)


@pytest.mark.parametrize(("alpha", "beta", "h"), [(0.5, 0.1, 2.0), (2.0, 1.0, 0.5), (0.0, 0.3, 4.0)])
def test_small_steps_follow_the_equation(alpha: float, beta: float, h: float) -> None:
    """theta'' + alpha theta' + beta h theta' + h theta = 0, theta'(0) = -beta h theta(0): the error falls as the step."""
    exact = expm(2.0 * np.array([[0, 1], [-h, -alpha - beta * h]])) @ [1.0, -beta * h]
    errors = []
    for n in (200, 400, 800):
        theta = torch.tensor([1.0], dtype=torch.float64)
        optimizer = ns.optim.INNA([theta], lr=2.0 / n, alpha=alpha, beta=beta)
        for _ in range(n):
            theta.grad = h * theta
            optimizer.step()
        errors.append(abs(theta.item() - exact[0]))
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_the_first_step_is_along_the_gradient() -> None:
    theta = torch.tensor([1.0, -3.0], dtype=torch.float64)
    optimizer = ns.optim.INNA([theta], lr=0.5, alpha=0.7, beta=0.2)
    theta.grad = torch.tensor([2.0, 5.0], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(theta, torch.tensor([1.0 - 0.1 * 2, -3.0 - 0.1 * 5], dtype=torch.float64))


def energy(theta: np.ndarray, psi: np.ndarray, loss: Callable[[np.ndarray], float], alpha: float, beta: float) -> float:
    d = (alpha - 1 / beta) * theta + psi / beta
    return (1 + alpha * beta) * loss(theta) + float(d @ d) / 2


def test_the_energy_falls_as_proved() -> None:
    """E' = -alpha |theta'|^2 - beta |v|^2: for small steps the differences agree, here on a nonsmooth loss away from its kinks."""
    alpha, beta, gamma = 0.5, 0.4, 1e-5

    def loss(x: np.ndarray) -> float:
        return float(np.abs(x).sum() + 0.5 * (x**2).sum())

    def v(_: int, x: np.ndarray) -> np.ndarray:
        return np.sign(x) + x

    theta = np.array([2.0, -3.0])
    trajectory = [
        (theta, (1 - alpha * beta) * theta),
        *reference.inna(theta, v, [gamma] * 2000, alpha=alpha, beta=beta),
    ]
    for (before, psi), (after, psi_after) in zip(trajectory[::500], trajectory[1::500], strict=False):
        fall = (energy(after, psi_after, loss, alpha, beta) - energy(before, psi, loss, alpha, beta)) / gamma
        speed, g = (after - before) / gamma, v(0, before)
        assert fall == pytest.approx(-alpha * speed @ speed - beta * g @ g, rel=1e-3)


@pytest.mark.parametrize(
    "bad", [{"curvature": 0.0}, {"curvature": float("inf")}, {"alpha": -1.0}, {"beta": 0.0}, {"beta": float("nan")}]
)
def test_a_stable_step_needs_lawful_numbers(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        ns.optim.stable_step(**({"curvature": 1.0} | bad))
