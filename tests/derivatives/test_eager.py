"""Chosen slopes around eager training: the same numbers as the captured program gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x.clone(), inplace=True),
    "method": lambda x: x.relu(),
    "module": torch.nn.ReLU(),
    "abs": abs,
    "clamp": lambda x: x.clamp(min=0),
    "hardtanh": lambda x: F.hardtanh(x, 0, 1),
    "l1": lambda x: F.l1_loss(x, torch.zeros(3), reduction="sum"),
    "where": lambda x: torch.where((x > 0) | (x > 5), x, 2 * x),
    "where not": lambda x: torch.where(~(x <= 0), x, 2 * x),
    "where on a number": lambda x: torch.where((x > 0).long() == 1, 3 * x, x),
    "where on a mask": lambda x: torch.where(2 * (x > 0).float() - 1 > 0, 3 * x, x),
    "masked fill": lambda x: (2 * x).masked_fill(x < 0, 0.0),
    "maximum": lambda x: torch.maximum(x, -x),
    "max": lambda x: x.max(),
    "norm": lambda x: x.norm(),
    "pool": lambda x: F.max_pool1d(x[None], 3),
    "relu and pool": lambda x: F.max_pool1d(F.relu(x - 1)[None], 3),
    "hinge": lambda x: F.hinge_embedding_loss(1 + x, -torch.ones(3)),
    "sort": lambda x: x.sort().values * torch.arange(3.0),
    "multi margin": lambda x: F.multi_margin_loss(
        x[None] * torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0]), margin=0.0
    ),
}


@pytest.mark.parametrize("convention", ["framework", 0.0, 0.5, 1.0, "jax", "tensorflow", "minimum-norm"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_as_the_program(name: str, convention: object) -> None:
    """Eager and captured agree at a point full of kinks."""
    f, point = FUNCTIONS[name], torch.zeros(3)
    x = point.clone().requires_grad_()
    with ns.at_kinks(convention):
        f(x).sum().backward()
    expected = ns.backprop(lambda u: f(u).sum(), point, at_kinks=convention)
    assert x.grad is not None
    assert torch.allclose(x.grad, expected, equal_nan=True)


STEPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "number": lambda x: (x > 0).long() == 1,
    "floor": lambda x: x.floor() == 2,
    "scaled floor": lambda x: 2 * x.floor() - 4 == 0,
    "division": lambda x: x // 1 == 2,
    "rounded division": lambda x: torch.div(x, 1.0, rounding_mode="trunc") == 2,
    "sign": lambda x: torch.sign(x) == 1,
}


@pytest.mark.parametrize("name", STEPS)
def test_what_is_piecewise_constant_ties_nowhere(name: str) -> None:
    """A comparison of steps ties at the steps alone."""
    x = torch.tensor([2.5], requires_grad=True)
    with ns.at_kinks(0.5):
        torch.where(STEPS[name](x), x * x, x / 2).sum().backward()
    assert x.grad is not None and x.grad.item() == 5.0


def test_training_changes_only_at_kinks() -> None:
    """Away from kinks the mode changes no bit of a training run; the model and its modes stay themselves."""
    runs = []
    for convention in (None, 0.5):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        data, target = torch.randn(16, 4), torch.randint(2, (16,))
        for _ in range(3):
            optimiser.zero_grad()
            if convention is None:
                loss = F.cross_entropy(model(data), target)
                loss.backward()
            else:
                with ns.at_kinks(convention):
                    loss = F.cross_entropy(model(data), target)
                    loss.backward()
            optimiser.step()
        runs.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_relu_prime_in_a_network() -> None:
    """relu'(0) = a in a network whose units are all at the kink: the gradient of the bias is linear in a."""
    layer = torch.nn.Linear(3, 4)
    torch.nn.init.zeros_(layer.bias)

    def gradient(a: float) -> torch.Tensor:
        layer.zero_grad()
        with ns.at_kinks(a):
            (F.relu(layer(torch.zeros(5, 3))) * torch.arange(1.0, 5.0)).sum().backward()
        assert layer.bias.grad is not None
        return layer.bias.grad.clone()

    assert torch.equal(gradient(0.0), torch.zeros(4))
    assert torch.allclose(gradient(0.3), 0.3 * gradient(1.0))
    assert gradient(1.0).tolist() == [5, 10, 15, 20]


def test_an_operation_it_cannot_serve_warns_once() -> None:
    """The native derivative is kept, and said so a single time."""
    x = torch.randn(3, 3, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ns.at_kinks(0.5):
            for _ in range(2):
                F.fractional_max_pool2d(
                    x[None, None], 2, output_size=1, _random_samples=torch.full((1, 1, 2), 0.5)
                ).sum()
    said = [w for w in caught if "at_kinks" in str(w.message)]
    assert len(said) <= 1


def test_an_exception_leaves_no_mode_behind() -> None:
    """After an error inside, torch works as before."""
    with pytest.raises(ZeroDivisionError), ns.at_kinks(0.5):
        raise ZeroDivisionError
    x = torch.zeros(1, requires_grad=True)
    torch.relu(x).sum().backward()
    assert x.grad is not None and float(x.grad) == 0.0


def test_the_library_inside_the_mode() -> None:
    """What the library evaluates inside `at_kinks` follows its own `at_kinks=`, not the surrounding mode."""
    zero = torch.tensor(0.0)
    with ns.at_kinks(0.5):
        assert float(ns.backprop(torch.relu, zero)) == 0.0
        assert float(ns.backprop(torch.relu, zero, at_kinks=1.0)) == 1.0
        assert ns.kinks(torch.relu, zero).count == 1
