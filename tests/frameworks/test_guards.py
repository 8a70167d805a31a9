"""Guards, escaped values, stale programs, and the pieces of a function with branches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nonsmooth as ns
from nonsmooth.frameworks.torch import TORCH


def branchy(x: torch.Tensor) -> torch.Tensor:
    """Choose by `if`, `max`, `sorted` and a loop whose length depends on the data."""
    y = x * 2 if x[0] > 0 else -x
    while y.norm() < 1:
        y = y * 3
    top = max(y[0], y[1])
    low = sorted([y[0], y[1], y[2]])[0]
    return top * 2 + low + torch.relu(y).sum()


def escaping(x: torch.Tensor) -> torch.Tensor:
    """Let values leave torch."""
    scale = x.sum().detach().item()
    whole = int(x.detach()[0] * 10)
    return (x * scale).sum() + whole * x[1] + (x * torch.tensor(x.tolist())).sum() + float(x.detach()[2]) * x[2]


def masked(x: torch.Tensor) -> torch.Tensor:
    """Use shapes that depend on the data."""
    chosen = x[x > 0]
    return (chosen**2).sum() * chosen.numel() + x.nonzero().shape[0] * x.sum()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=2, max_size=5),
    st.sampled_from([branchy, escaping, masked]),
)
def test_a_program_is_never_stale(points: list[list[int]], f) -> None:  # type: ignore[no-untyped-def]
    """One captured program, evaluated anywhere, gives torch's gradient: a changed guard captures again."""
    points = [p if any(p) else [1, 0, 0] for p in points]
    program = ns.capture(f, torch.tensor(points[0], dtype=torch.float64) + 0.25)
    for point in points:
        x = torch.tensor(point, dtype=torch.float64) + 0.25
        leaf = x.clone().requires_grad_()
        value = f(leaf)
        (expected,) = torch.autograd.grad(value, leaf)
        found = ns.value_and_backprop(program, x)
        assert torch.allclose(found.value, value.detach()) and torch.allclose(found.gradient, expected)


def test_data_are_guarded_too() -> None:
    """An `if` on the data is rechecked when the data change."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum() if y > 0 else 2 * x.sum()

    x = torch.ones(2)
    program = ns.capture(f, x, torch.tensor(1.0))
    assert ns.backprop(program, x, torch.tensor(-1.0)).tolist() == [2, 2]
    assert ns.backprop(program, x, torch.tensor(3.0)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("f", "gradients"),
    [
        (lambda x: x * 0 if x <= 0 else x, {0.0, 1.0}),
        (lambda x: x if x < 0 else (2 * x if x > 0 else 5 * x), {1.0, 2.0, 5.0}),
        (lambda x: max(x, 2 * x), {1.0, 2.0}),
        (lambda x: x if bool((torch.stack([x, x - 1]) >= 0).any()) else 3 * x, {1.0, 3.0}),
        (lambda x: x if x > 1 else 2 * x, {2.0}),
    ],
)
def test_pieces(f, gradients: set[float]) -> None:  # type: ignore[no-untyped-def]
    """At a tie every branch is a program of its own."""
    x = torch.tensor(0.0, dtype=torch.float64)
    program = ns.capture(f, x)
    found = set()
    for piece in TORCH.pieces(program, x, ()):
        evaluation = TORCH.evaluate(piece, x, ())
        found.add(float(TORCH.pull(evaluation)))
        assert float(evaluation.result.detach()) == 0.0
    assert gradients - {5.0} <= found <= gradients


def test_nested_ifs_and_the_sides() -> None:
    """The pieces of nested ifs at their common tie hold the gradients of all sides."""

    def f(x: torch.Tensor) -> torch.Tensor:
        if x[0] > 0:
            return x[0] * 2 + x[1] if x[1] > 0 else x[0] * 2 - x[1]
        return x[1] * 3

    x = torch.zeros(2, dtype=torch.float64)
    found = {tuple(TORCH.pull(TORCH.evaluate(p, x, ())).tolist()) for p in TORCH.pieces(ns.capture(f, x), x, ())}
    assert found == {(2.0, 1.0), (2.0, -1.0), (0.0, 3.0)}


def test_escapes_are_named_by_line() -> None:
    """Each way out is a guard with its line; printing is none."""

    def f(x: torch.Tensor) -> torch.Tensor:
        print(x, f"{x.sum()}", end="")
        a = x.sum().item()
        b = x.detach().numpy()
        c = x.tolist()
        return (x * (a + float(b[0]) + c[1])).sum()

    guards = ns.capture(f, torch.ones(2)).guards
    assert [g.kind for g in guards] == ["item", "numpy", "tolist"]
    assert all(
        g.source is not None and word in g.source.text
        for g, word in zip(guards, ("item", "numpy", "tolist"), strict=True)
    )


def test_what_does_not_depend_on_the_point_is_no_guard() -> None:
    """Python may look at constants freely."""
    program = ns.capture(lambda x: x.sum() if torch.ones(1) > 0 else x, torch.ones(2))
    assert not program.guards
