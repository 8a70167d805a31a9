"""Cells: cones of directions, and the walk over the kinks of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nonsmooth.derivatives import cells as module
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.cells import Cells, Cone, walk_cells
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import linearise
from nonsmooth.derivatives.sampling import sampled_limits


def at(*entries: float) -> torch.Tensor:
    """Give a point."""
    return torch.tensor(entries, dtype=torch.float64)


def walk(f: Callable[..., Any], x: Any, affine: bool = True, limit: int = 4096) -> Cells:
    """Walk over the cells of a program at a point."""
    program, framework = as_program(f, x, ())
    system = linearise(framework, program, x, ())
    return walk_cells(system, Groups(system, 4096).relevant.tolist(), affine, limit)


def gradients(found: Cells) -> set[tuple[float, ...]]:
    """Give the gradients without repetition."""
    return {tuple(float(c) for c in np.round(g, 9) + 0.0) for g in found.gradients}


def test_cones() -> None:
    """A cone with a normal and its opposite is empty, for certain; with any other normal it is not."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 20):
        normal, other, cells = rng.standard_normal(n), rng.standard_normal(n), Cells()
        half = Cone((), np.zeros(n)).cut([normal], cells)
        assert half is not None and normal @ half.inside > 0
        assert half.cut([-3 * normal], cells) is None
        if n > 1:
            quarter = half.cut([other], cells)
            assert quarter is not None and min(normal @ quarter.inside, other @ quarter.inside) > 0
            assert quarter.cut([-(normal + 2 * other)], cells) is None
        assert cells.complete


@pytest.mark.parametrize("width", [10.0**-k for k in range(4, 18)])
def test_thin_cones(width: float) -> None:
    """A thin cone is found, or leaves the cells incomplete; only within rounding is it empty."""
    cells = Cells()
    half = Cone((), np.zeros(2)).cut([np.array([1.0, 0.0])], cells)
    assert half is not None
    thin = half.cut([np.array([-1.0, width])], cells)
    if thin is not None:
        assert min(row @ thin.inside for row in thin.rows) > 0 and width > 1e-13
    else:
        assert not cells.complete or width < 1e-13


def test_rounding_makes_thin_cones_doubtful() -> None:
    """The same cone is certain for exact normals and doubtful for those that rounding has touched."""
    for noise, complete in ((1e-16, True), (1e-10, False)):
        cells = Cells()
        half = Cone((), np.zeros(2), noise).cut([np.array([1.0, 0.0])], cells)
        assert half is not None
        assert (half.cut([np.array([-1.0, 1e-7])], cells) is not None) == complete == cells.complete


def test_consistent_selections() -> None:
    """Of four selections of relu(x) - relu(-x) two are realised."""
    found = walk(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), at(0))
    assert gradients(found) == {(1.0,)} and found.count == 2 and found.complete


def test_flat_kinks_do_not_branch() -> None:
    """relu(relu(x)) has two cells, and a kink of derivative zero one."""
    assert walk(lambda x: torch.relu(torch.relu(x)).sum(), at(0)).count == 2
    assert walk(lambda x: (torch.relu(x - x) + x).sum(), at(0)).count == 1


def test_orders() -> None:
    """n entries that tie have n! orders; equal ones have one; only those inside the cone are found."""
    weights = at(1, 2, 4)
    assert walk(lambda x: x.sort().values @ weights, at(0, 0, 0)).count == 6
    assert walk(lambda x: torch.stack([x[0], x[0], x[1]]).sort().values @ weights, at(0, 0)).count == 2
    inside = walk(lambda x: x.sort().values @ weights[:2] + torch.relu(x[0] - x[1]), at(0, 0))
    assert gradients(inside) == {(1.0, 2.0), (3.0, 0.0)}


def test_smallest_of_candidates() -> None:
    """A minimum takes the smallest."""
    assert gradients(walk(lambda x: x.amin() + x.amax(), at(0, 0))) == {(1.0, 1.0)}


def test_kinks_behind_a_mask() -> None:
    """What a `where` compares may hang on kinks on which the result does not depend otherwise."""
    found = walk(lambda x: torch.where(torch.relu(x[0]) - torch.relu(-x[0]) > 0, 2 * x[0], x[0]), at(0))
    assert gradients(found) == {(1.0,), (2.0,)} and found.complete


def test_clamps_whose_bounds_tie() -> None:
    """min(max(x, lo), hi) is hi where lo is above hi."""
    found = walk(lambda x: torch.clamp(x[0], x[1], x[2]), at(0, 0, 0))
    assert gradients(found) == {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)} and found.complete
    apart = walk(lambda x: torch.clamp(x[0], x[1], -x[1]) + torch.relu(x[0]) + torch.relu(x[1]), at(0, 0))
    assert gradients(apart) == {(0.0, 1.0), (0.0, 0.0), (2.0, 0.0), (1.0, -1.0), (1.0, 0.0)}


def test_sampled_limits_of_clamps() -> None:
    """Directions decide such clamps the same way."""
    x = at(0, 0)
    program, framework = as_program(
        lambda x: torch.clamp(x[0], x[1], -x[1]) + torch.relu(x[0]) + torch.relu(x[1]), x, ()
    )
    found = sampled_limits(linearise(framework, program, x, ()), 64, 0)
    assert gradients(found) == {(0.0, 1.0), (0.0, 0.0), (2.0, 0.0), (1.0, -1.0), (1.0, 0.0)}


def test_limits_of_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of cells, and the work, are bounded: what is left out is said."""
    few = walk(lambda x: x.abs().sum(), torch.zeros(8, dtype=torch.float64), limit=10)
    assert few.count == 10 and not few.complete
    monkeypatch.setattr(module, "WORK", 100)
    short = walk(lambda x: x.abs().sum(), torch.zeros(8, dtype=torch.float64))
    assert not short.complete and short.count < 256


def test_where_that_does_not_join() -> None:
    """Branches that do not join nearby are left out, with the line."""
    found = walk(lambda x: torch.where(x[1] > 0, x[0], 2 * x[0]), at(0, 0))
    assert not found.count and not found.complete and "join" in str(found.reasons[0])


def test_curved_predicates_are_left_out() -> None:
    """Where the program is not piecewise affine, a comparison of derivative zero decides nothing."""
    f = lambda x: torch.where(x[0] * x[0] > 0, x[0], 2 * x[0])  # noqa: E731
    found = walk(f, at(0), affine=False)
    assert not found.count and found.reasons and not found.complete
