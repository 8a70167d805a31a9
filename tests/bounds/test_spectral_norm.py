"""Certified spectral norms: they enclose the largest singular value, closely, for matrices of all kinds."""

from __future__ import annotations

import numpy as np
import pytest

from nonsmooth.bounds.spectral_norm import largest_spectral_norm, spectral_norm
from nonsmooth.errors import UsageError

RNG = np.random.default_rng(0)

MATRICES = {
    "random": RNG.normal(size=(30, 20)),
    "wide": RNG.normal(size=(3, 200)),
    "low rank": RNG.normal(size=(40, 2)) @ RNG.normal(size=(2, 30)),
    "repeated singular values": np.linalg.qr(RNG.normal(size=(25, 25)))[0] * 3,
    "nearly repeated": np.diag([1.0, 1 - 1e-12, 1 - 1e-9, 0.5]),
    "near singular": np.vander(np.linspace(0, 1, 12)),
    "a row": RNG.normal(size=(1, 9)),
    "a column": RNG.normal(size=(9, 1)),
    "one entry": np.array([[-2.0]]),
    "ones": np.ones((6, 7)),
    "nilpotent": np.diag(np.ones(5), 1),
    "tiny": 1e-200 * RNG.normal(size=(5, 5)),
    "huge": 1e200 * RNG.normal(size=(5, 5)),
    "badly scaled": np.diag(10.0 ** np.arange(-12, 12)),
    "complex": RNG.normal(size=(8, 6)) + 1j * RNG.normal(size=(8, 6)),
    "more than power methods see": np.block([[np.eye(3) * 2, np.zeros((3, 3))], [np.zeros((3, 3)), np.ones((3, 3))]]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_norm_is_enclosed(name: str) -> None:
    matrix = MATRICES[name]
    scale = float(np.max(np.abs(matrix)))
    exact = float(np.linalg.norm(matrix / scale, 2)) * scale
    found = spectral_norm(matrix)
    assert found.lower <= exact * (1 + 1e-13) and exact <= found.upper * (1 + 1e-14)
    assert found.gap < 1e-6


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (0, 2, 2)])
def test_nothing_has_the_norm_zero(shape: tuple[int, ...]) -> None:
    assert spectral_norm(np.zeros(shape)).upper == 0.0


def test_zeros_have_the_norm_zero() -> None:
    assert spectral_norm(np.zeros((4, 3))).upper == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_of_a_stack(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.normal(size=(40, 5, 7)) * rng.random((40, 1, 1))
    exact = float(np.linalg.norm(stack, 2, axis=(1, 2)).max())
    for found in (spectral_norm(stack), largest_spectral_norm(iter(np.split(stack, 8)))):
        assert found.lower <= exact * (1 + 1e-13) and exact <= found.upper * (1 + 1e-14) and found.gap < 1e-6


def test_equal_matrices_in_a_stack() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    found, exact = spectral_norm(np.stack([matrix] * 9)), float(np.linalg.norm(matrix, 2))
    assert exact <= found.upper <= exact * (1 + 1e-6)


def test_a_matrix_whose_start_is_orthogonal_to_its_largest_vector() -> None:
    """The trial value is too small at first: Cholesky's factorisation refuses it."""
    large = np.zeros((2, 3, 3))
    large[0] = np.ones((3, 3))
    large[1] = 4 * np.outer([1, -1, 0], [1, -1, 0])
    assert spectral_norm(large).upper == pytest.approx(8.0, rel=1e-6)


def test_without_a_budget_the_bounds_of_norms_are_left() -> None:
    matrix = np.random.default_rng(0).normal(size=(12, 12))
    found = spectral_norm(matrix, budget=0.0)
    cheap = min(np.linalg.norm(matrix), np.sqrt(np.linalg.norm(matrix, 1) * np.linalg.norm(matrix, np.inf)))
    assert found.upper == pytest.approx(cheap) and np.linalg.norm(matrix, 2) <= found.upper


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="not finite"):
        spectral_norm(np.array([[1.0, value], [0.0, 1.0]]))


def test_a_vector_is_refused() -> None:
    with pytest.raises(UsageError, match="a matrix is needed"):
        spectral_norm(np.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("size", [500, 1500])
def test_large_matrices(size: int) -> None:
    matrix = np.random.default_rng(size).normal(size=(size, size))
    found, exact = spectral_norm(matrix), float(np.linalg.norm(matrix, 2))
    assert exact <= found.upper * (1 + 1e-14) and found.gap < 1e-6
