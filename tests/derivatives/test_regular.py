"""Regularity: which programs are a smooth function of convex kinks that pull the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import linearise
from nonsmooth.derivatives.regular import is_regular
from tests.programs.oracle import gradient_at

ZERO = torch.zeros(3, dtype=torch.float64)
WEIGHTS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


def symmetric(x: torch.Tensor) -> torch.Tensor:
    """Give the eigenvalues of a matrix."""
    return torch.linalg.eigvalsh(torch.stack([x[0], x[1], x[1], x[2]]).reshape(2, 2))


def regular(f: Callable[..., Any], x: torch.Tensor = ZERO) -> bool:
    """Tell whether a program is found regular."""
    program, framework = as_program(f, x, ())
    return is_regular(Groups(linearise(framework, program, x, ()), 4096))


REGULAR: dict[str, Callable[..., Any]] = {
    "convex": lambda x: x.abs().sum() + x.amax() + torch.relu(x[0] - x[1]),
    "concave": lambda x: -x.abs().sum() + x.amin() - torch.relu(x[0] - x[1]),
    "smooth around": lambda x: torch.exp(x.abs().sum()) + torch.sin(x[0]),
    "smooth inside": lambda x: torch.relu(torch.sin(x[0]) + x[1] ** 2) + torch.abs(torch.exp(x[2]) - 1),
    "sorted, growing weights": lambda x: x.sort().values @ WEIGHTS,
    "sorted down, falling weights": lambda x: x.sort(descending=True).values @ WEIGHTS.flip(0),
    "norms": lambda x: torch.linalg.vector_norm(x) + torch.linalg.vector_norm(x, 3) + torch.linalg.vector_norm(x[:2]),
    "largest eigenvalue": lambda x: symmetric(x)[1],
    "smallest eigenvalue": lambda x: symmetric(x)[0],
    "leaky": lambda x: torch.nn.functional.leaky_relu(x, 0.25).sum(),
}

NOT_REGULAR: dict[str, Callable[..., Any]] = {
    "both signs": lambda x: x.abs().sum() - torch.relu(x[0] + x[1]),
    "one inside the other": lambda x: torch.relu(torch.relu(x[0]) - x[1]),
    "sorted, falling weights and growing ones": lambda x: x.sort().values @ WEIGHTS.abs(),
    "middle of three": lambda x: x.median(),
    "leaky the other way": lambda x: torch.nn.functional.leaky_relu(x, 2.0).sum() + x.abs().sum(),
    "hardtanh and relu": lambda x: torch.nn.functional.hardtanh(x + 1).sum() + torch.relu(x).sum(),
    "maximum and minimum": lambda x: x.amax() + x.amin(),
    "where": lambda x: torch.where(x[0] > 0, 2 * x[0], x[0]),
    "difference of norms": lambda x: torch.linalg.vector_norm(x) - torch.linalg.vector_norm(x[:2]),
}


@pytest.mark.parametrize("name", REGULAR)
def test_regular(name: str) -> None:
    """Found so; and support values are the largest gradients nearby."""
    f = REGULAR[name]
    assert regular(f)
    found, rng = ns.clarke(f, ZERO), np.random.default_rng(0)
    near = [gradient_at(f, torch.as_tensor(1e-7 * v)).numpy() for v in rng.standard_normal((400, 3))]
    for d in rng.standard_normal((10, 3)):
        along = gradient_at(f, torch.as_tensor(1e-7 * d)).numpy() @ d
        back = gradient_at(f, torch.as_tensor(-1e-7 * d)).numpy() @ d
        value = found.support(d).upper
        assert max(along, back) <= value + 1e-5 and abs(value - max(along, back)) <= 1e-5, name
        assert max(g @ d for g in near) <= value + 1e-5


@pytest.mark.parametrize("name", NOT_REGULAR)
def test_not_regular(name: str) -> None:
    """Kinks of both signs, kinks that act on one another, choices: not found so."""
    assert not regular(NOT_REGULAR[name])


def test_ties_of_guards_are_not_regular() -> None:
    """An `if` that ties is no kink of this kind."""
    assert not regular(lambda x: x[0].abs() if x[0] > 0 else 2 * x[0].abs())
