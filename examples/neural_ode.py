"""A neural ODE with relu on the two moons: trained by plain steps, its gradient checked with located crossings.

    python examples/neural_ode.py

Every trajectory crosses the kinks of every unit at its own times, which takes long to locate for a large batch. So it is
trained with locate=False, the integrator on f as it is; the derivative that it computes is then compared with that of
located crossings: of single trajectories, also with central differences of the located flow, and of the loss on a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import make_moons

import nonsmooth as ns


class Field(torch.nn.Module):
    """y' = W2 relu(W1 y + b1) + b2, the same at all times."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(size, width), torch.nn.ReLU(), torch.nn.Linear(width, size))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.layers(y)


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give points of the plane with a third coordinate, 0, and their classes."""
    points, classes = make_moons(count, noise=0.1, random_state=seed)
    return torch.tensor(np.pad(points, ((0, 0), (0, 1)))), torch.tensor(classes)


def main(steps: int = 40, seed: int = 0) -> float:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    field, readout = Field(3, 16), torch.nn.Linear(3, 2)
    plain = ns.implicit.flow(field, locate=False, rtol=1e-3, atol=1e-5)
    points, classes = data(100, seed)
    optimiser = torch.optim.Adam([*field.parameters(), *readout.parameters()], lr=0.03)
    for step in range(steps):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(readout(plain(points, 1.0)), classes)
        loss.backward()
        optimiser.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4}: loss {float(loss.detach()):.4f}")
    tested, right = data(500, seed + 1)
    with torch.no_grad():
        accuracy = float((readout(plain(tested, 1.0)).argmax(1) == right).double().mean())
    print(f"accuracy on 500 new points: {accuracy:.3f}")

    located, finer = ns.implicit.flow(field), ns.implicit.flow(field, locate=False)
    for k in range(2):
        point = tested[k].clone().requires_grad_()
        value = readout(located(point, 1.0))[0]
        (exact,) = torch.autograd.grad(value, point)
        seen = [torch.autograd.grad(readout(solve(point, 1.0))[0], point)[0] for solve in (plain, finer)]
        step = 1e-5
        with torch.no_grad():
            moved = [
                (readout(located(point + step * e, 1.0))[0] - readout(located(point - step * e, 1.0))[0]) / (2 * step)
                for e in torch.eye(3)
            ]
        size = float(exact.abs().max())
        apart = [float((g - exact).abs().max()) / size for g in (torch.stack(moved), *seen)]
        crossings = len(located.report.crossings)
        print(
            f"point {k}: {crossings} crossings; from the located gradient differences are {apart[0]:.1e} away, plain steps "
            f"{apart[1]:.1e} at rtol 1e-3 and {apart[2]:.1e} at 1e-7"
        )

    def gradient(solve: ns.implicit.Flow, count: int = 32) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(readout(solve(tested[:count], 1.0)), right[:count])
        return torch.nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(field.parameters())))

    exact = gradient(located)
    apart = [float((gradient(solve) - exact).norm() / exact.norm()) for solve in (plain, finer)]
    print(
        f"loss on 32 points, in the weights: {len(located.report.crossings)} crossings; from the located gradient plain steps "
        f"are {apart[0]:.1e} away at rtol 1e-3 and {apart[1]:.1e} at 1e-7"
    )
    return accuracy


if __name__ == "__main__":
    main()
