"""Certified subgradients and one-sided derivatives where the answer is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS

DTYPE = torch.float64

Function = Callable[..., torch.Tensor]


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) != 1 else values[0], dtype=DTYPE)


def softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs()))


def softplus_by_maximum(x: torch.Tensor) -> torch.Tensor:
    return torch.maximum(x, torch.zeros_like(x)) + torch.log1p(torch.exp(-torch.abs(x)))


def cross_entropy(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x, min=0) - 0.3 * x + torch.log1p(torch.exp(-x.abs()))


def my_relu(x: torch.Tensor) -> torch.Tensor:
    if x <= 0:
        return 0 * x
    return x


def in_place(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(2, dtype=x.dtype)
    out[0] = torch.relu_(x * 1.0)
    out[0] -= torch.relu(-x)
    return out.sum()


SMOOTH: dict[str, tuple[Function, torch.Tensor, Any]] = {
    "zero": (lambda t: torch.relu(t) - (torch.relu(-t) + t), at(0.0), 0.0),
    "identity": (lambda t: torch.relu(t) - torch.relu(-t), at(0.0), 1.0),
    "identity in place": (in_place, at(0.0), 1.0),
    "softplus": (softplus, at(0.0), 0.5),
    "softplus by maximum": (softplus_by_maximum, at(0.0), 0.5),
    "cross entropy with logits": (cross_entropy, at(0.0), 0.2),
    "sum of sorted": (lambda x: x.sort().values.sum(), at(1.0, 1.0, 2.0), [1.0, 1.0, 1.0]),
    "sum of the two largest, all tied twice": (
        lambda x: x.topk(2).values.sum() + x.topk(1, largest=False).values.sum(),
        at(1.0, 1.0, 1.0),
        [1.0, 1.0, 1.0],
    ),
    "max + min of two": (lambda x: x.max() + x.min(), at(3.0, 3.0), [1.0, 1.0]),
    "largest + smallest singular value": (
        lambda x: torch.linalg.svdvals(torch.diag(x)).sum(),
        at(1.0, 1.0),
        [1.0, 1.0],
    ),
    "trace by eigenvalues": (lambda x: torch.linalg.eigvalsh(torch.diag(x)).sum(), at(2.0, 2.0, 1.0), [1.0, 1.0, 1.0]),
    "asinh of both parts": (
        lambda x: torch.asinh(torch.relu(x)) - torch.asinh(torch.relu(-x)),
        at(0.0),
        1.0,
    ),
}
"""Functions that are smooth at the point, and written with kinks: name -> function, point, gradient."""

EXTREME: dict[str, tuple[Function, torch.Tensor, list[Any]]] = {
    "relu": (torch.relu, at(0.0), [0.0, 1.0]),
    "relu by an if": (my_relu, at(0.0), [0.0, 1.0]),
    "abs": (torch.abs, at(0.0), [-1.0, 1.0]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), at(0.0), [0.1, 1.0]),
    "hardtanh": (F.hardtanh, at(1.0), [0.0, 1.0]),
    "median": (lambda x: x.median(), at(1.0, 1.0, 1.0), [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]),
    "max": (lambda x: x.max(), at(1.0, 1.0), [[1.0, 0], [0, 1.0]]),
    "max of a list": (lambda x: max(list(x)), at(1.0, 1.0, 1.0), [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]),
    "middle of sorted": (lambda x: sorted(list(x))[1], at(1.0, 1.0, 1.0), [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]),
    "entry at the argmax": (lambda x: x[int(x.argmax())], at(1.0, 1.0), [[1.0, 0], [0, 1.0]]),
    "pooling": (lambda x: F.max_pool1d(x.reshape(1, 1, -1), 2).sum(), at(1.0, 1.0), [[1.0, 0], [0, 1.0]]),
    "1-norm": (
        lambda x: torch.linalg.vector_norm(x, 1),
        at(0.0, 0.0),
        [[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)],
    ),
    "inf-norm": (
        lambda x: torch.linalg.vector_norm(x, float("inf")),
        at(0.0, 0.0),
        [[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]],
    ),
    "mask of detached values": (lambda x: torch.where(x.detach() > 0, x, -x), at(0.0), [-1.0, 1.0]),
}
"""Functions with a kink: name -> function, point, all limits of gradients."""


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_smooth_functions_written_with_kinks(name: str, dtype: torch.dtype) -> None:
    f, x, expected = SMOOTH[name]
    for seed in range(4):
        _, gradient, certificate = ns.subgradient(f, x.to(dtype), seed=seed)
        assert certificate.certified and certificate.kinks > 0, str(certificate)
        torch.testing.assert_close(gradient, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("name", EXTREME)
def test_limits_of_gradients_and_all_of_them(name: str) -> None:
    """Each certified gradient is one of the limits, and over some seeds each limit is certified."""
    f, x, limits = EXTREME[name]
    found = [ns.subgradient(f, x, seed=seed) for seed in range(24)]
    assert all(r.certificate.certified for r in found)
    values = {str(r.gradient.tolist()) for r in found}
    assert {str(torch.tensor(limit, dtype=DTYPE).tolist()).replace("-0.0", "0.0") for limit in limits} == {
        v.replace("-0.0", "0.0") for v in values
    }


@pytest.mark.parametrize("name", {**SMOOTH, **EXTREME})
def test_the_gradient_has_the_slope_of_its_direction(name: str) -> None:
    f, x, _ = {**SMOOTH, **EXTREME}[name]
    _, gradient, certificate = ns.subgradient(f, x)
    slope = ns.directional(f, x, certificate.direction)
    torch.testing.assert_close((gradient * certificate.direction).sum(), slope)


def test_euclidean_norms_at_zero() -> None:
    for f in (
        torch.linalg.vector_norm,
        lambda x: torch.hypot(x[0], x[1]),
        lambda x: torch.dist(x, torch.zeros(2, dtype=DTYPE)),
    ):
        _, gradient, certificate = ns.subgradient(f, at(0.0, 0.0))
        torch.testing.assert_close(gradient, certificate.direction / certificate.direction.norm())


def test_without_a_kink_nothing_is_drawn() -> None:
    value, gradient, certificate = ns.subgradient(lambda x: x.square().sum(), at(1.0, 2.0))
    assert (float(value), gradient.tolist()) == (5.0, [2.0, 4.0])
    assert (certificate.direction, certificate.draws, certificate.kinks) == (None, 0, 0)
    assert "differentiable" in str(certificate)


def test_seeds_and_given_directions() -> None:
    x = at(0.0, 0.0, 0.0)
    first, again, opposite = (ns.subgradient(lambda x: x.abs().sum(), x, seed=s) for s in (6, 6, 7))
    assert torch.equal(first.certificate.direction, again.certificate.direction)
    assert torch.equal(first.certificate.direction, -opposite.certificate.direction)
    assert torch.equal(first.gradient, -opposite.gradient)
    entries = first.certificate.direction * 256
    assert torch.equal(entries, entries.round()) and bool((entries.abs() <= 256).all()) and bool((entries != 0).all())
    given = ns.subgradient(lambda x: x.abs().sum(), x, direction=at(1.0, -2.0, 3.0))
    assert given.gradient.tolist() == [1.0, -1.0, 1.0]
    flat = ns.subgradient(lambda x: x.abs().sum(), x, direction=at(1.0, 0.0, 3.0)).certificate
    assert not flat.certified and [r.rule for r in flat.reasons] == ["tie"]


def test_trees_data_and_programs() -> None:
    def f(p: dict[str, torch.Tensor], scale: torch.Tensor) -> torch.Tensor:
        return (scale * torch.relu(p["a"])).sum() - (scale * torch.relu(-p["a"])).sum() + p["b"][0].sum()

    point = {"a": at(0.0, 0.0), "b": [at(1.0, 2.0)]}
    program = ns.capture(f, point, at(3.0, 4.0))
    for function in (f, program):
        gradient = ns.subgradient(function, point, at(3.0, 4.0)).gradient
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
