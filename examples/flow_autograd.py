"""Derivatives of flows with kinks: autograd through the integrator against located crossings, at the same tolerances.

    python -m examples.flow_autograd

The references are matrix exponentials and closed forms. `autograd` is torchdiffeq's odeint with its graph, `adjoint` its
odeint_adjoint; both see f as it is. Errors are relative: max |J - J*| / max |J*|, with J = dy(T)/dy0.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torchdiffeq import odeint, odeint_adjoint

import nonsmooth as ns
from tests.references.piecewise_linear_flow import PiecewiseLinear, contact, flow, stick_slip


class Field(torch.nn.Module):
    """The equation as a module, with the ramps written with relu."""

    def __init__(self, equation: PiecewiseLinear) -> None:
        super().__init__()
        self.A, self.b, self.G, self.C, self.d = (torch.tensor(part) for part in equation)

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.A @ y + self.b + self.G @ torch.relu(self.C @ y + self.d)


class Identity(torch.nn.Module):
    """y' = relu(y) - relu(-y) = y."""

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(y) - torch.relu(-y)


class DryFriction(torch.nn.Module):
    """x'' = -x - mu sign(x'): it jumps where the velocity turns."""

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.stack([y[1], -y[0] - MU * torch.sign(y[1])])


MU = 0.3


def dry_friction(x: float, v: float, T: float) -> np.ndarray:
    """Give d(x, v)(T) / d(x, v)(0), v > 0: a circle about -mu of radius r, and after the angle a one about mu, r - 2 mu."""
    r, a = np.hypot(x + MU, v), np.arctan2(v, x + MU)
    dr, da = np.array([x + MU, v]) / r, np.array([-v, x + MU]) / r**2
    c, s = np.cos(T - a), np.sin(T - a)
    return np.stack([c * dr + (r - 2 * MU) * s * da, -s * dr + (r - 2 * MU) * c * da])


def jacobian(solve, y0: np.ndarray) -> np.ndarray:
    """Give dy(T)/dy0, row by row."""
    start = torch.tensor(y0, requires_grad=True)
    y = solve(start)
    return np.stack([torch.autograd.grad(y[i], start, retain_graph=True)[0].numpy() for i in range(len(y0))])


CASES = {
    "y' = relu(y) - relu(-y), from 0": (Identity(), np.zeros(1), 1.0, np.array([[np.e]])),
    "mass on a spring, k = 400": (contact(400.0), np.array([1.0, 0.0]), 4.0, None),
    "stick-slip, eps = 0.05": (stick_slip(0.05), np.array([0.0, 0.0]), 3.0, None),
    "dry friction, mu = 0.3": (DryFriction(), np.array([1.0, 1.0]), 2.0, dry_friction(1.0, 1.0, 2.0)),
}


def measure(field, y0: np.ndarray, T: float, exact: np.ndarray, rtol: float) -> tuple[int, list[float]]:
    """Give the number of crossings and the errors of the four ways."""
    both = {"rtol": rtol, "atol": rtol * 1e-2}
    times = torch.tensor([0.0, T], dtype=torch.float64)
    located = ns.implicit.flow(field, **both)
    ways = (
        lambda y: odeint(field, y, times, method="dopri5", **both)[1],
        lambda y: odeint(field, y, times, method="rk4", options={"step_size": T / 200})[1],
        lambda y: odeint_adjoint(field, y, times, method="dopri5", adjoint_params=(), **both)[1],
        lambda y: located(y, T),
    )
    errors = [float(np.abs(jacobian(way, y0) - exact).max() / np.abs(exact).max()) for way in ways]
    return len(located.report.crossings), errors


def main() -> None:
    warnings.simplefilter("ignore", ns.errors.ImplicitWarning)
    print(f"{'case':34}{'rtol':>7}{'crossings':>11}{'autograd':>11}{'rk4, 200':>11}{'adjoint':>11}{'located':>11}")
    for name, (equation, y0, T, known) in CASES.items():
        field = equation if isinstance(equation, torch.nn.Module) else Field(equation)
        exact = flow(equation, y0, T)[1] if known is None else known
        for rtol in (1e-3, 1e-6):
            crossings, errors = measure(field, y0, T, exact, rtol)
            print(f"{name:34}{rtol:7.0e}{crossings:11}" + "".join(f"{e:11.1e}" for e in errors), flush=True)


if __name__ == "__main__":
    main()
