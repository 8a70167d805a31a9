"""Eigenvalues and singular values at repeated and zero values, against gradients nearby and one-sided differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import nonsmooth as ns

DTYPE = torch.float64
WEIGHTS = torch.tensor([1.0, 2.0, 4.0], dtype=DTYPE)

Case = tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]


def eigenvalues(x: torch.Tensor) -> torch.Tensor:
    return (torch.linalg.eigvalsh(x + x.T) * WEIGHTS).sum()


def singular_values(x: torch.Tensor) -> torch.Tensor:
    return (torch.linalg.svdvals(x) * WEIGHTS[: min(x.shape)]).sum()


def batch(x: torch.Tensor) -> torch.Tensor:
    return (torch.linalg.eigvalsh(x + x.mT) * WEIGHTS[:2]).sum()


CASES: dict[str, Case] = {
    "zero matrix": (eigenvalues, torch.zeros(3, 3, dtype=DTYPE)),
    "one repeated": (eigenvalues, torch.diag(torch.tensor([1.0, 1.0, 2.0], dtype=DTYPE))),
    "rotated": (eigenvalues, torch.full((3, 3), 0.1, dtype=DTYPE)),
    "batch, one repeated": (batch, torch.stack([torch.eye(2, dtype=DTYPE), torch.ones(2, 2, dtype=DTYPE)])),
    "singular values 0": (singular_values, torch.zeros(2, 3, dtype=DTYPE)),
    "rank one": (singular_values, torch.ones(3, 2, dtype=DTYPE)),
    "square, rank one": (singular_values, torch.ones(3, 3, dtype=DTYPE)),
    "orthogonal": (singular_values, torch.linalg.qr(torch.arange(9.0, dtype=DTYPE).reshape(3, 3).sin()).Q),
    "nuclear norm": (lambda x: torch.linalg.matrix_norm(x, "nuc"), torch.ones(2, 3, dtype=DTYPE)),
    "spectral norm": (lambda x: torch.linalg.matrix_norm(x, 2), torch.eye(3, dtype=DTYPE)),
    "smallest": (lambda x: torch.linalg.matrix_norm(x, -2), torch.eye(3, dtype=DTYPE) * 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_certified_gradient_is_the_limit_along_its_direction(name: str) -> None:
    f, x = CASES[name]
    for seed in range(3):
        _, gradient, certificate = ns.subgradient(f, x, seed=seed)
        assert certificate.certified and certificate.kinks > 0
        nearby = (x + 1e-7 * certificate.direction).requires_grad_()
        (expected,) = torch.autograd.grad(f(nearby), nearby)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_the_smallest_of_values_that_rounding_parts_is_right_or_undecided() -> None:
    """The singular values of a matrix of rank one are 3, 0, 0 up to rounding, by which `amin` takes one or ties."""
    f, x = (lambda x: torch.linalg.matrix_norm(x, -2)), torch.ones(3, 3, dtype=DTYPE)
    _, gradient, certificate = ns.subgradient(f, x)
    if not certificate.certified:
        assert {reason.rule for reason in certificate.reasons} == {"near tie"}
        return
    nearby = (x + 1e-7 * certificate.direction).requires_grad_()
    torch.testing.assert_close(gradient, *torch.autograd.grad(f(nearby), nearby), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_one_sided_derivatives(name: str) -> None:
    f, x = CASES[name]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        v = torch.randn(x.shape, generator=generator, dtype=DTYPE)
        quotient = float((f(x + 1e-6 * v) - f(x)) / 1e-6)
        assert float(ns.directional(f, x, v)) == pytest.approx(quotient, rel=1e-4, abs=1e-4)


def test_ties_of_the_first_direction_are_broken_by_the_second() -> None:
    """Along the identity a triple eigenvalue stays triple; along the next direction it splits."""
    f, x = eigenvalues, torch.zeros(3, 3, dtype=DTYPE)
    second = torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=DTYPE)) / 2
    found = ns.lexicographic(f, x, [torch.eye(3, dtype=DTYPE) / 2, second])
    np.testing.assert_allclose(found.numpy(), [7.0, 1 * 1 + 2 * 2 + 4 * 3])


def test_a_cluster_that_never_splits_is_flat() -> None:
    """The eigenvalues of t I are t three times along every direction: any basis is right."""
    _, gradient, certificate = ns.subgradient(
        lambda t: (torch.linalg.eigvalsh(t * torch.eye(3, dtype=DTYPE)) * WEIGHTS).sum(), torch.ones((), dtype=DTYPE)
    )
    assert certificate.certified and certificate.flat == certificate.kinks == 3
    assert float(gradient) == pytest.approx(7.0)


def test_the_mean_over_all_bases_is_the_number_rule() -> None:
    gradient = ns.backprop(eigenvalues, torch.zeros(3, 3, dtype=DTYPE), at_kinks=0.5)
    torch.testing.assert_close(gradient, torch.eye(3, dtype=DTYPE) * 2 * 7 / 3)


def test_kinks_are_found_up_to_rounding() -> None:
    repeated = torch.full((3, 3), 0.1, dtype=DTYPE)
    assert ns.kinks(eigenvalues, repeated).count == 2
    assert ns.kinks(eigenvalues, torch.diag(torch.tensor([1.0, 1.0 + 1e-9, 2.0], dtype=DTYPE))).count == 0
    assert ns.kinks(singular_values, torch.zeros(2, 3, dtype=DTYPE)).count == 2
    assert ns.kinks(singular_values, torch.eye(2, 3, dtype=DTYPE) * WEIGHTS).count == 0
