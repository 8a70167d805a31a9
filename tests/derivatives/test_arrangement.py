"""Clarke's set by parts: against the walk over all cells, in closed form, and where it must step aside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.derivatives import arrangement
from nonsmooth.derivatives.arrangement import arranged_parts
from nonsmooth.derivatives.cells import walk_cells
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import linearise
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.sets import Hull, MinkowskiSum, Point
from tests.references.field import random_program, to_torch
from tests.shortened import shortened

ZERO = torch.zeros(4, dtype=torch.float64)


def groups_of(f, x, *data) -> Groups:
    return Groups(linearise(TORCH, ns.capture(f, x, *data), x, data), 4096)


def arranged(groups: Groups, limit: int = 4096):
    found = arranged_parts(groups, limit)
    assert found is not None
    parts, count = found
    return MinkowskiSum([Point(groups.system.J), *(Hull(p) for p in parts)]), count, parts


@pytest.mark.parametrize("seed", shortened(range(60), 20))
def test_the_parts_add_up_to_the_hull_of_all_cells(seed: int) -> None:
    program, point = random_program(seed, variables=4, kinks=8, operations=("relu", "abs", "max", "min", "sort"))
    x = torch.tensor([float(p) for p in point], dtype=torch.float64)
    groups = groups_of(to_torch(program), x)
    if not groups.system.count:
        return
    by_parts, _, _ = arranged(groups)
    cells = walk_cells(groups.system, groups.relevant.tolist(), True, 4096)
    assert cells.complete
    whole = Hull(np.array(cells.gradients))
    rng = np.random.default_rng(seed)
    for d in [*rng.standard_normal((20, len(x))), *np.eye(len(x)), *-np.eye(len(x))]:
        assert float(by_parts.support(d)) == pytest.approx(float(whole.support(d)), rel=1e-9, abs=1e-9)


def test_parts_are_as_fine_as_can_be() -> None:
    """x0 and x1 have kinks of their own; x2, x3 and x2 + x3 depend on each other."""

    def f(x: torch.Tensor) -> torch.Tensor:
        own = torch.relu(x[0]) - torch.relu(-x[0]) + torch.relu(x[1]) - 2 * torch.relu(2 * x[1])
        return own + x[2].abs() - x[3].abs() + torch.relu(x[2] + x[3]) - torch.relu(x[3])

    known, count, parts = arranged(groups_of(f, ZERO))
    assert sorted(len(p) for p in parts) == [2, 2, 6] and count == 2 + 2 + 6
    assert [b.tolist() for b in known.box()] == [[1, -3, -1, -2], [1, 0, 2, 2]]


def test_kinks_that_interact_are_one_part() -> None:
    known, count, parts = arranged(groups_of(lambda x: torch.relu(torch.relu(x[:2]).sum() - x[2].abs()), ZERO))
    assert len(parts) == 1 and count >= 6
    assert [b.tolist() for b in known.box()] == [[0, 0, -1, 0], [1, 1, 1, 0]]


def test_a_blank_batch_compares_one_form_a_channel() -> None:
    """Conv, relu and pooling of blank images: each channel is a part with two cells, whatever the batch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 5, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(20, 3),
    ).double()
    torch.nn.init.zeros_(model[0].bias)
    f, x = ns.objective(model, torch.nn.functional.cross_entropy)
    data = torch.zeros(16, 1, 4, 4, dtype=torch.float64), torch.arange(16) % 3
    known = ns.clarke(f, x, *data)
    assert known.equality == "piecewise affine" and known.cells == 10 and known.kinks >= 1600
    assert known.dimension == 5
    assert ns.verdict(f, x, None, *data).word == "certified"
    # every corner is a gradient: that of the model with biases a little off zero
    for seed in range(4):
        signs = torch.tensor(np.random.default_rng(seed).choice([-1.0, 1.0], 5))
        moved = dict(x)
        (name,) = [n for n, t in x.items() if t.shape == (5,)]
        moved[name] = 1e-9 * signs
        near = known.flatten(ns.backprop(f, moved, *data))
        assert known.contains(near, 1e-7)
        assert float(known.nearest(near).norm) < 1e-7


def test_float32_forms_are_told_apart() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.nn.init.zeros_(model[0].bias)
    f, x = ns.objective(model, torch.nn.functional.cross_entropy)
    known = ns.clarke(f, x, torch.zeros(50, 6), torch.arange(50) % 2)
    assert known.equality == "piecewise affine" and known.cells == 8


@pytest.mark.parametrize("gap", [1e-13, 1e-11])
def test_forms_that_are_nearly_one_leave_it_open(gap: float) -> None:
    groups = groups_of(lambda x: torch.relu(x[0]) - torch.relu(x[0] + gap * x[1]) - x[2].abs() + x[3].abs(), ZERO)
    assert arranged_parts(groups, 4096) is None


def test_more_cells_than_the_limit_leave_it_open() -> None:
    groups = groups_of(lambda x: x.sort().values @ torch.tensor([1.0, -1.0, 2.0, 0.0], dtype=torch.float64), ZERO)
    assert arranged(groups)[1] == 24
    assert arranged_parts(groups, 10) is None


def test_more_forms_than_directions_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(12, dtype=torch.float64)
    groups = groups_of(lambda x: x[:6].abs().sum() - x[6:].abs().sum() + torch.relu(x).sum(), x)
    assert arranged_parts(groups, 4096) is not None
    monkeypatch.setattr(arrangement, "FORMS", (4, 8))
    assert arranged_parts(groups, 4096) is None


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.linalg.norm(x) - x.abs().sum(),
        lambda x: torch.where(x > 0, x, 2 * x).sum() - x.abs().sum(),
        lambda x: torch.cat([x, x]).max() - x.max(),  # a tie of nine and more is not compared pair by pair
    ],
)
def test_other_kinks_are_left_to_other_ways(f) -> None:
    x = torch.zeros(5, dtype=torch.float64)
    assert arranged_parts(groups_of(f, x), 4096) is None
