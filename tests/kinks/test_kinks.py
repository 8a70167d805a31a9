"""The table of kinks: counts, margins, what can matter, guards, jumps, elements."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.errors import UsageError


def rows(f, x, *data, **options):  # type: ignore[no-untyped-def]
    """Summarise a table."""
    return [(r.operation, r.kind, r.kink, r.count) for r in ns.kinks(f, x, *data, **options) if r.count]


def test_counts_and_margins() -> None:
    """A relu met twice at 0; the nearest other unit is .5 away."""
    table = ns.kinks(lambda x: torch.relu(x).sum(), torch.tensor([0.0, 2.0, 0.0, -0.5]))
    (row,) = table
    assert (row.count, row.elements, row.margin, row.can_matter) == (2, 4, 0.5, 2)
    assert [k.index for k in row.kinks()] == [(0,), (2,)]
    assert [k.value for k in row.kinks(limit=1)] == [0.0]
    assert row.source is not None and "torch.relu(x).sum()" in row.source.text


def test_tolerance_enlarges() -> None:
    """With tol, kinks within it are active."""
    x = torch.tensor([0.1, -0.1, 1.0])
    assert ns.kinks(torch.relu, x).count == 0
    assert ns.kinks(torch.relu, x, tol=0.1).count == 2
    for tol in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="tol"):
            ns.kinks(torch.relu, x, tol=tol)


def test_a_kink_that_cannot_matter() -> None:
    """A unit whose outgoing weight is zero, a branch that is dropped, and a cancelling pair."""
    weights = torch.tensor([0.0, 1.0])
    assert ns.kinks(lambda x: (weights * torch.relu(x)).sum(), torch.zeros(2))[0].can_matter == 1
    table = ns.kinks(lambda x: (torch.relu(x), x.sum())[1], torch.zeros(2))
    assert (table[0].count, table[0].can_matter) == (2, 0)


def test_ties_behind_relu_are_not_active() -> None:
    """Zeros cut off by a relu have no derivative: their ties in a pool cannot matter. Zeros at the kink do."""
    image = torch.tensor([[[-1.0, -2.0], [-3.0, -1.0]]])
    pool = lambda x: F.max_pool2d(F.relu(x), 2).sum()  # noqa: E731
    assert ns.kinks(pool, image).count == 0
    assert ns.kinks(lambda x: F.max_pool2d(F.relu(x, inplace=False), 2).sum(), image + 1).count == 3
    assert ns.kinks(lambda x: F.max_pool2d(F.relu_(x * 1), 2).sum(), image).count == 0
    assert ns.kinks(lambda x: F.relu(x).flatten().max(), image).count == 0
    assert ns.kinks(lambda x: F.max_pool2d(x, 2).sum(), torch.ones(1, 2, 2)).count == 1


@pytest.mark.parametrize("seed", range(20))
def test_dead_ties_against_the_definition(seed: int) -> None:
    """A pooling tie is active iff two selections of it give different gradients (random integer images, all kinds)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(-2, 3, (1, 2, 6, 6), generator=generator).double()
    kind = [F.relu, lambda u: u.clamp(-1, 1), lambda u: F.leaky_relu(u, 0.1), lambda u: u * 1][seed % 4]
    readout = torch.randn(50, generator=generator).double()

    def f(x: torch.Tensor) -> torch.Tensor:
        y = F.max_pool2d(kind(x), 3, 2, 1)
        return (y.flatten() * readout[: y.numel()]).sum()

    program = ns.capture(f, image)
    relu = {"relu": 0.7, "clamp": 0.7, "leaky_relu": 0.7}
    first, last = (ns.backprop(program, image, at_kinks={**relu, "max_pool": word}) for word in ("first", "last"))
    pool = next(r for r in ns.kinks(program, image) if r.operation == "max_pool")
    assert bool(pool.count) == (not torch.equal(first, last))


def test_guards() -> None:
    """A tied `if` is a row of its own, with the distance of what it compares."""

    def f(x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1:
            return x.sum()
        return 2 * x.sum()

    assert rows(f, torch.tensor([0.5, 0.5])) == [("if", "guard", "tie", 1)]
    (row,) = ns.kinks(f, torch.tensor([0.5, 0.25]))
    assert (row.count, row.margin) == (0, 0.25)
    assert row.source is not None and row.source.text == "if x.sum() > 1:"


def test_jumps_and_singular_points() -> None:
    """Branches that do not join are a jump, sqrt at 0 is singular; neither counts as a kink that is weighed."""
    zero = torch.zeros(1)
    assert rows(lambda x: torch.where(x > 0, x + 1, x), zero) == [("where", "jump", "branches do not join", 1)]
    assert rows(torch.sign, zero) == [("sign", "jump", "0", 1)]
    assert rows(torch.sqrt, zero) == [("sqrt", "singular", "0", 1)]
    assert ns.kinks(torch.sqrt, zero).count == 0
    assert rows(torch.floor, torch.tensor([0.5])) == []


def test_where_on_data_is_no_kink() -> None:
    """A mask that does not depend on the point never ties."""
    mask = torch.tensor([1.0, 0.0])
    assert rows(lambda x, m: torch.where(m > 0, x, 2 * x).sum(), torch.zeros(2), mask) == []


def test_modules_are_named() -> None:
    """Rows carry the path of the module in an objective."""
    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    model.add_module("head", torch.nn.Linear(2, 1))
    f, x = ns.objective(model, F.mse_loss)
    table = ns.kinks(f, x, torch.zeros(3, 2), torch.zeros(3, 1))
    assert [r.module for r in table if r.operation == "relu"] == ["body.1"]


def test_it_prints_and_shows() -> None:
    """Text and HTML hold the counts, and escape the user's line."""
    table = ns.kinks(lambda x: torch.relu(x[x > -9]).sum() if "<b>" else x, torch.zeros(2))
    assert "relu" in str(table)
    assert "&lt;b&gt;" in table._repr_html_()
