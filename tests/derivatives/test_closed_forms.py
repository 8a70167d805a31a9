"""What certified subgradients and one-sided derivatives say beside the table of closed forms, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS
from tests.adapters import Adapter

DTYPE = torch.float64

Function = Callable[..., torch.Tensor]


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) != 1 else values[0], dtype=DTYPE)


def test_euclidean_norms_at_zero(xp: Adapter) -> None:
    for f in (xp.norm, lambda x: xp.hypot(x[0], x[1]), lambda x: xp.norm(x - xp.zeros_like(x))):
        _, gradient, certificate = ns.subgradient(f, xp.array((0, 0)))
        v = xp.numpy(certificate.direction)
        np.testing.assert_allclose(xp.numpy(gradient), v / np.linalg.norm(v), rtol=1e-12)


def test_without_a_kink_nothing_is_drawn(xp: Adapter) -> None:
    value, gradient, certificate = ns.subgradient(lambda x: (x * x).sum(), xp.array((1, 2)))
    assert (float(value), gradient.tolist()) == (5.0, [2.0, 4.0])
    assert (certificate.direction, certificate.draws, certificate.kinks) == (None, 0, 0)
    assert "differentiable" in str(certificate)


def test_seeds_and_given_directions(xp: Adapter) -> None:
    f, x = lambda x: xp.abs(x).sum(), xp.array((0, 0, 0))
    first, again, opposite = (ns.subgradient(f, x, seed=s) for s in (6, 6, 7))
    v = xp.numpy(first.certificate.direction)
    assert np.array_equal(v, xp.numpy(again.certificate.direction))
    assert np.array_equal(v, -xp.numpy(opposite.certificate.direction))
    assert np.array_equal(xp.numpy(first.gradient), -xp.numpy(opposite.gradient))
    assert np.array_equal(v * 256, np.round(v * 256)) and np.all(abs(v) <= 1) and np.all(v != 0)
    given = ns.subgradient(f, x, direction=xp.array((1, -2, 3)))
    assert given.gradient.tolist() == [1.0, -1.0, 1.0]
    flat = ns.subgradient(f, x, direction=xp.array((1, 0, 3))).certificate
    assert not flat.certified and [r.rule for r in flat.reasons] == ["tie"]


def test_trees_data_and_programs(xp: Adapter) -> None:
    def f(p: dict[str, Any], scale: Any) -> Any:
        return (scale * xp.relu(p["a"])).sum() - (scale * xp.relu(-p["a"])).sum() + p["b"][0].sum()

    point = {"a": xp.array((0, 0)), "b": [xp.array((1, 2))]}
    program = ns.capture(f, point, xp.array((3, 4)))
    for function in (f, program):
        gradient = ns.subgradient(function, point, xp.array((3, 4))).gradient
        assert gradient["a"].tolist() == [3.0, 4.0] and gradient["b"][0].tolist() == [1.0, 1.0]


def test_nothing_of_the_users_changes() -> None:
    x = torch.zeros(2, dtype=DTYPE, requires_grad=True)
    state = torch.get_rng_state()
    ns.subgradient(lambda x: torch.relu(x).sum(), x)
    ns.directional(lambda x: torch.relu(x).sum(), x, torch.ones(2, dtype=DTYPE))
    assert x.grad is None and x.tolist() == [0.0, 0.0] and torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ns.directional(torch.sum, at(1.0, 2.0), at(1.0)), "shape"),
        (lambda: ns.directional(torch.sum, at(1.0, 2.0), [at(1.0, 2.0)]), "structure"),
        (lambda: ns.directional(torch.sum, at(1.0, 2.0), at(1.0, float("nan"))), "finite"),
        (lambda: ns.subgradient(torch.relu, at(1.0, 2.0)), "scalar"),
        (lambda: ns.subgradient(torch.sum, at(1.0, 2.0), draws=0), "draws"),
        (lambda: ns.subgradient(torch.sum, at(1.0, 2.0), seed=-1), "seed"),
        (lambda: ns.lexicographic(torch.sum, at(1.0, 2.0), torch.eye(3, dtype=DTYPE)), "directions"),
    ],
)
def test_wrong_use_is_said(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ns.errors.UsageError, match=message):
        call()


@pytest.mark.parametrize(
    "f",
    [
        torch.floor,
        lambda x: torch.sqrt(x.abs()) ** 2 - x.abs(),
        lambda x: x * float(x.item() + 1),
        lambda x: torch.where(x * x > 0, x, 2 * x),
        lambda x: x + 1 if x > 0 else x,
    ],
    ids=["jump", "singular", "escaped", "still tied", "branches apart"],
)
def test_no_one_sided_derivative_is_said_with_the_line(f: Function) -> None:
    with pytest.raises(ns.errors.NoDerivative, match=r"test_closed_forms.py|torch.floor"):
        ns.directional(f, at(0.0), at(1.0))


def test_an_operator_without_derivative_is_no_constant() -> None:
    """torch's forward mode is silent about it; a one-sided derivative that left it out would be silently wrong."""
    record = ns.register(ns.Operation(name="bessel", kind=ns.Kind.SMOOTH), torch="aten::special_modified_bessel_i0")
    try:
        with pytest.raises(ns.errors.NoDerivative, match="no derivative in torch"):
            ns.directional(lambda x: torch.special.modified_bessel_i0(x) * x, at(1.0), at(1.0))
    finally:
        del OPERATIONS[record.name], FRAMEWORK_NAMES["torch"]["aten::special_modified_bessel_i0"]
