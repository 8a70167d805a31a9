"""Training with elements of a conservative field: convergence to critical points where the theorem's conditions hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.optim.lr_scheduler import LambdaLR

import nonsmooth as ns

BOTH = [(ns.optim.INNA, 0.1), (ns.optim.INNAprop, 0.02)]


@pytest.mark.parametrize(("seed", "at_kinks"), list(enumerate(["framework", 0.0, 0.5, 1.0, "random"])))
def test_least_absolute_deviations_with_a_penalty(seed: int, at_kinks: Any) -> None:
    """A convex loss all of whose terms have kinks, some of which hold the minimiser; its least value by a linear program."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-2, 3, size=(15, 3)).astype(float), rng.integers(-3, 4, size=15).astype(float)
    cost = np.concatenate([np.zeros(3), np.full(15, 1 / 15), np.full(3, 0.1)])
    upper = np.block([[a, -np.eye(15), np.zeros((15, 3))], [-a, -np.eye(15), np.zeros((15, 3))]])
    absolute = np.block([[np.eye(3), np.zeros((3, 15)), -np.eye(3)], [-np.eye(3), np.zeros((3, 15)), -np.eye(3)]])
    program = linprog(cost, np.vstack([upper, absolute]), np.concatenate([b, -b, np.zeros(6)]), bounds=(None, None))

    rows, target = torch.tensor(a), torch.tensor(b)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        return (rows @ x - target).abs().mean() + 0.1 * x.abs().sum()

    optimizer = ns.optim.INNA([x], lr=0.3)
    scheduler = LambdaLR(optimizer, lambda k: (1 + k) ** -0.6)
    with ns.at_kinks(at_kinks, seed=seed):
        for _ in range(1500):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            scheduler.step()
    assert loss().item() == pytest.approx(program.fun, abs=5e-3)


@pytest.mark.parametrize(("make", "gamma"), BOTH, ids=["INNA", "INNAprop"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_relu_network_learns_under_any_choice_at_kinks(make: Any, gamma: float, alpha: float) -> None:
    """Zero biases and inputs that are zero in a third of their entries: the first steps meet kinks."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    torch.nn.init.zeros_(model[0].bias)
    inputs = torch.randn(64, 6) * (torch.arange(64) % 3 > 0).unsqueeze(1)
    target = inputs.abs().sum(1, keepdim=True)
    f, x = ns.objective(model, torch.nn.functional.l1_loss)
    assert len(ns.kinks(f, x, inputs, target)) > 0
    optimizer = make(model.parameters(), lr=gamma)
    scheduler = LambdaLR(optimizer, lambda k: (1 + k) ** -0.25)
    losses = []
    with ns.at_kinks(alpha):
        for _ in range(400):
            optimizer.zero_grad()
            loss = torch.nn.functional.l1_loss(model(inputs), target)
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_constant_step_goes_on_around_a_kink() -> None:
    """Why the steps must tend to 0: |x| with a constant step keeps a distance of its order."""
    ends = []
    for power in (0.0, 0.6):
        x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
        optimizer = ns.optim.INNA([x], lr=0.1, alpha=0.5, beta=1.0)
        scheduler = LambdaLR(optimizer, lambda k, power=power: (1 + k) ** -power)
        seen = []
        for _ in range(3000):
            optimizer.zero_grad()
            x.abs().sum().backward()
            optimizer.step()
            scheduler.step()
            seen.append(abs(x.item()))
        ends.append(max(seen[-100:]))
    assert ends[0] > 0.02
    assert ends[1] < 0.005
