"""Every program that is active at a tie, each right on its own side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import nonsmooth as ns
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.kinks.kink import find_kinks

ZERO = torch.zeros((), dtype=torch.float64)
TWO = torch.zeros(2, dtype=torch.float64)
THREE = torch.zeros(3, dtype=torch.float64)


def relu_by_if(x: torch.Tensor) -> torch.Tensor:
    return x * 0 if x <= 0 else x


def chain(x: torch.Tensor) -> torch.Tensor:
    if x < 0:
        return -x
    elif x == 0:
        return 3 * x
    return 2 * x


def counted(x: torch.Tensor) -> torch.Tensor:
    y, n = x.sum() + 1, 0
    while y <= 2 and n < 3:
        y, n = y * 2, n + 1
    return y


def nested(x: torch.Tensor) -> torch.Tensor:
    if x[0] > 0:
        return x[0] * 2 + x[1] if x[1] > 0 else x[0] * 2 - x[1]
    return x[1] * 3


def by_elements(x: torch.Tensor) -> torch.Tensor:
    positive = x > 0
    return (x[0] * 2 if positive[0] else x[0]) + (x[1] * 5 if positive[1] else x[1] * 7)


CASES: list[tuple[Callable[..., torch.Tensor], torch.Tensor, set[tuple[float, ...]]]] = [
    (relu_by_if, ZERO, {(0,), (1,)}),
    (chain, ZERO, {(-1,), (3,), (2,)}),
    (counted, torch.tensor([0.5, -0.5], dtype=torch.float64), {(4, 4), (2, 2)}),
    (nested, TWO, {(2, 1), (2, -1), (0, 3)}),
    (by_elements, TWO, {(1, 7), (2, 7), (1, 5), (2, 5)}),
    (lambda x: max(x[0], x[1], x[2]), THREE, {(1, 0, 0), (0, 1, 0), (0, 0, 1)}),
    (lambda x: min(x) * 2, THREE, {(2, 0, 0), (0, 2, 0), (0, 0, 2)}),
    (lambda x: sorted(x)[1] * 1, THREE, {(1, 0, 0), (0, 1, 0), (0, 0, 1)}),
    (lambda x: x.sum() if (x >= 0).any() else 3 * x.sum(), TWO, {(1, 1), (3, 3)}),
    (lambda x: x.sum() if (x > 0).all() else 3 * x.sum(), TWO, {(1, 1), (3, 3)}),
    (lambda x: x.sum() if torch.equal(x, torch.zeros_like(x)) else 2 * x.sum(), TWO, {(1, 1), (2, 2)}),
    (lambda x: x[0] * 2 if x.argmax() == 1 else x[1] * 3, TWO, {(2, 0), (0, 3)}),
    (lambda x: x[int(x.argmin())] * 2, TWO, {(2, 0), (0, 2)}),
    (lambda x: x[0] * 2 if x.max() > x[0] else x[1] * 3, TWO, {(2, 0), (0, 3)}),
    (lambda x: x if x else 2 * x, ZERO, {(1,), (2,)}),
    (lambda x: x if x > 1 else 2 * x, ZERO, {(2,)}),
]


@pytest.mark.parametrize(("f", "x", "gradients"), CASES, ids=range(len(CASES)))
def test_every_branch_at_a_tie(
    f: Callable[..., torch.Tensor], x: torch.Tensor, gradients: set[tuple[float, ...]]
) -> None:
    """Each piece is found once, holds its guards at the point, and elsewhere is the function again."""
    found = set()
    program = ns.capture(f, x)
    for piece in TORCH.pieces(program, x, ()):
        found.add(tuple(TORCH.pull(TORCH.evaluate(piece, x, ())).reshape(-1).tolist()))
        for direction in (1.0, -1.0, 0.5):
            steps = torch.arange(1.0, x.numel() + 1, dtype=x.dtype).reshape(x.shape)
            moved = x + 1e-3 * direction * steps.flip(0) if x.dim() else x + 1e-3 * direction
            leaf = moved.clone().requires_grad_()
            value = f(leaf)
            (expected,) = torch.autograd.grad(value, leaf)
            here = TORCH.evaluate(piece, moved, ())
            assert torch.equal(here.result.detach(), value.detach())
            assert torch.equal(TORCH.pull(here), expected)
    assert found == gradients


def test_a_side_is_right_next_to_the_point() -> None:
    """The gradient of a piece at the tie is the limit of the gradients on its side."""
    f = lambda x: x**2 + 3 * x if x > 0 else x.sin()  # noqa: E731
    slopes = {
        piece.guards[0].outcome: float(TORCH.pull(TORCH.evaluate(piece, ZERO, ())))
        for piece in TORCH.pieces(ns.capture(f, ZERO), ZERO, ())
    }
    for outcome, side in ((True, 1e-7), (False, -1e-7)):
        assert slopes[outcome] == pytest.approx(float(ns.backprop(f, ZERO + side)), abs=1e-5)


def test_what_was_not_tried_is_said() -> None:
    x = torch.zeros(8, dtype=torch.float64)
    program = ns.capture(lambda u: u.sum() if (u >= 0).any() else 3 * u.sum(), x)
    with pytest.warns(UserWarning, match="were not tried"):
        assert len(list(TORCH.pieces(program, x, (), limit=4))) == 2


def test_guards_are_rows_of_the_table_of_kinks() -> None:
    """With the distance to the tie: of compared values, of the two largest entries, of all entries from equality."""
    x = torch.tensor([1.0, 3.5], dtype=torch.float64)
    f = lambda u: u.sum() if u[0] > 0 and u.argmax() == 1 and not torch.equal(u, u * 0) else 2 * u.sum()  # noqa: E731
    rows = [r for r in find_kinks(f, x).rows if r.kind == "guard"]
    assert [r.margin for r in rows] == [1.0, 2.5, 3.5] and all(r.count == 0 for r in rows)
    assert find_kinks(f, torch.tensor([2.0, 2.0])).count == 1
