"""Where sets must not be claimed: branch cuts, factors that turn, matrices read by half; and rounding in single precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nonsmooth as ns


def point(*entries: Any) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


CUTS = {
    "atan2": (lambda x: torch.atan2(x[0], x[1]), point(0.0, -1.0), point(0.0, 1.0)),
    "atan2 at the origin": (lambda x: torch.atan2(x[0], x[1]), point(0.0, 0.0), point(1.0, 0.0)),
    "angle": (lambda x: torch.complex(x[0], x[1]).angle(), point(-1.0, 0.0), point(1.0, 0.0)),
    "qr": (lambda x: torch.linalg.qr(x).R[0, 0], torch.eye(2).double(), point([1.0, 2.0], [0.5, 3.0])),
    "qr of a column that begins with 0": (
        lambda x: torch.linalg.qr(x).R[0, 0],
        point([0.0], [1.0]),
        point([0.5], [1.0]),
    ),
    "qr of lower rank": (
        lambda x: torch.linalg.qr(x).R[1, 1],
        point([1.0, 1.0], [1.0, 1.0]),
        point([3.0, 1.0], [1.0, 1.0], [2.0, -1.0]),
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_jump_is_no_smooth_point(name: str) -> None:
    f, bad, good = CUTS[name]
    with pytest.raises(ns.errors.NoField, match="test_sets_at_bad_points"):
        ns.field(f, bad)
    assert ns.verdict(f, bad).word == "undecided"
    assert not ns.subgradient(f, bad).certificate.certified
    assert ns.clarke(f, good).equality == "differentiable" and ns.verdict(f, good).word == "certified"


@pytest.mark.parametrize("f", [lambda x: torch.linalg.eigvalsh(x)[1], lambda x: torch.linalg.cholesky(x)[1, 0]])
def test_a_matrix_of_which_half_is_read(f: Any) -> None:
    """torch gives the derivative on the symmetric matrices; where the matrix is none it is that of another function."""
    certificate = ns.subgradient(f, point([2.0, 0.0], [1.0, 3.0])).certificate
    assert not certificate.certified and {r.rule for r in certificate.reasons} == {"triangle"}
    assert ns.verdict(f, point([2.0, 0.0], [1.0, 3.0])).word == "undecided"
    assert ns.subgradient(f, point([2.0, 1.0], [1.0, 3.0])).certificate.certified
    assert ns.subgradient(lambda x: f(x @ x.T), point([2.0, 0.0], [1.0, 3.0])).certificate.certified


def test_an_enlarged_set_is_not_said_to_be_clarkes() -> None:
    found = ns.clarke(lambda x: x.abs().sum(), point(1e-4, 1.0), tol=1e-3)
    assert found.enlarged and not found.exact and "not dF(x) itself" in repr(found)
    assert not ns.clarke(lambda x: x.abs().sum(), point(1e-4, 1.0)).enlarged


def test_rounding_is_no_direction_of_descent() -> None:
    """Gradients of size 1 cancel in single precision: the point is critical up to their rounding."""
    f = lambda x: torch.nn.functional.cross_entropy(x.expand(3, 3), torch.tensor([0, 1, 2]))  # noqa: E731
    D = ns.field(f, torch.zeros(3))
    assert 0 < float(D.minimum_norm().norm) < 1e-6
    assert D.is_critical() and D.descent_direction() is None
    known = ns.clarke(f, torch.zeros(3))
    assert known.is_critical() and known.descent_direction() is None
    assert D.is_critical(tol=0.0) is False
    small = ns.field(lambda x: 1e-6 * (x.abs().sum() + 2 * x[0]), torch.zeros(2))
    assert small.is_critical() is False and small.descent_direction() is not None


def test_a_scalar_may_have_one_entry() -> None:
    f, x = lambda x: x.sum(0, keepdim=True).abs(), point(0.0, 0.0)
    assert ns.field(f, x).value == 0.0 and ns.verdict(f, x).word == "certified"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    D = ns.field(lambda x: x.abs().sum() + torch.relu(x).max(), torch.zeros(2, dtype=dtype))
    assert D.kinks == 5 and float(D.support(torch.ones(2, dtype=dtype))) == pytest.approx(3.0, rel=0.01)


def test_the_gradient_comes_before_the_data() -> None:
    with pytest.raises(ns.errors.UsageError, match="the gradient comes before the data"):
        ns.verdict(lambda x, a: (x.abs() * a.sum()).sum(), torch.zeros(3), torch.ones(2))


def test_a_flat_tensor_is_a_vector_of_the_point() -> None:
    D = ns.field(lambda p: p["a"].abs().sum(), {"a": torch.zeros(2, 2)})
    assert D.contains(torch.ones(4)) and not D.contains(2 * torch.ones(4))


def test_what_is_no_number_and_no_function_is_refused() -> None:
    with pytest.raises(ns.errors.UsageError, match="tol="):
        ns.field(torch.abs, torch.tensor(0.0), tol="a")  # type: ignore[arg-type]
    with pytest.raises(ns.errors.UsageError, match="derivative= is a Tensor"):
        ns.gradcheck(torch.abs, torch.tensor(1.0), derivative=torch.tensor(1.0))
