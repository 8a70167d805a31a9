"""Linear systems of implicit differentiation: solved to a checked residual, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nonsmooth.errors import NotConverged, NotInvertible
from nonsmooth.implicit.linear import DENSE, LinearSystem

EPS = float(np.finfo(float).eps)


def system(matrix: Any, **options: Any) -> LinearSystem:
    """Make the system of a matrix."""
    matrix = np.asarray(matrix, dtype=float)
    settings: dict[str, Any] = {"symmetric": False, "eps": EPS, "tolerance": 1e-8, "name": "the root of F"} | options
    return LinearSystem(len(matrix), lambda v: matrix @ v, lambda v: matrix.T @ v, lambda: matrix, **settings)


def drawn(n: int, seed: int = 0) -> Any:
    """Draw a matrix near the identity."""
    return np.eye(n) + 0.4 * np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n)


@pytest.mark.parametrize("method", ["auto", "dense", "gmres"])
@pytest.mark.parametrize("transposed", [False, True])
def test_solutions_are_those_of_numpy(method: str, transposed: bool) -> None:
    matrix, right = drawn(30), np.random.default_rng(1).standard_normal(30)
    found = system(matrix, method=method).solve(right, transposed=transposed)
    np.testing.assert_allclose(found, np.linalg.solve(matrix.T if transposed else matrix, right), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["dense", "gmres"])
def test_several_right_hand_sides_stand_in_columns(method: str) -> None:
    matrix, right = drawn(12), np.random.default_rng(1).standard_normal((12, 5))
    found = system(matrix, method=method).solve(right, transposed=True)
    np.testing.assert_allclose(found, np.linalg.solve(matrix.T, right), atol=1e-7)


def test_conjugate_gradients_solve_definite_systems() -> None:
    matrix = drawn(40) @ drawn(40).T
    right = np.random.default_rng(1).standard_normal(40)
    found = system(matrix, method="cg", symmetric=True).solve(right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-6)


def test_a_method_is_chosen_by_size_and_symmetry() -> None:
    n = DENSE + 1
    assert system(np.eye(3)).chosen == "dense"
    assert system(np.eye(n)).chosen == "gmres"
    assert system(np.eye(n), symmetric=True).chosen == "cg"
    assert system(np.eye(n), method="dense").chosen == "dense"


def test_an_indefinite_hessian_falls_back_on_gmres_and_cg_by_request_does_not() -> None:
    n = DENSE + 2
    matrix = np.diag(np.where(np.arange(n) % 2 == 0, 1.0, -1.0))  # the first step divides by 1' B 1 = 0
    right = np.ones(n)
    chosen = system(matrix, symmetric=True)
    np.testing.assert_allclose(chosen.solve(right), np.diag(matrix), atol=1e-7)
    assert chosen.chosen == "gmres"
    with pytest.raises(NotConverged, match="cg needs a positive definite derivative"):
        system(matrix, symmetric=True, method="cg").solve(right)


SINGULAR = {
    "zero": np.zeros((1, 1)),
    "zero matrix": np.zeros((4, 4)),
    "rank one": np.ones((3, 3)),
    "within rounding": np.array([[1.0, 1.0], [1.0, 1.0 + EPS]]),
    "a zero row": np.diag([1.0, 0.0, 2.0]),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_are_refused_with_their_smallest_singular_value(name: str) -> None:
    with pytest.raises(
        NotInvertible, match=r"the root of F in its solution is singular: its smallest singular value is"
    ):
        system(SINGULAR[name]).solve(np.ones(len(SINGULAR[name])))


@pytest.mark.parametrize(
    ("matrix", "eps", "wider"), [(drawn(128), 2.0**-7, "float32"), (np.diag([1.0, 1e-6]), 2.0**-23, "float64")]
)
def test_what_a_narrow_type_cannot_tell_is_not_called_singular(matrix: Any, eps: float, wider: str) -> None:
    """Bfloat16 with 128 unknowns: the condition number is 5, and rounding alone may make it infinite."""
    with pytest.raises(
        NotConverged, match=f"whether its matrix is singular cannot be told in this precision.* in {wider}"
    ):
        system(matrix, eps=eps).solve(np.ones(len(matrix)))
    system(matrix).solve(np.ones(len(matrix)))
    with pytest.raises(NotInvertible, match="is singular"):
        system(0 * matrix, eps=eps).solve(np.ones(len(matrix)))


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1.0, 1e8, 1e150])
def test_the_unit_of_an_equation_does_not_matter(scale: float) -> None:
    np.testing.assert_allclose(
        system(scale * drawn(5)).solve(scale * np.ones(5)), np.linalg.solve(drawn(5), np.ones(5))
    )


def test_beside_an_identity_what_rounding_leaves_is_zero() -> None:
    assert system([[1e-16]]).solve(np.array([1e-16])) == pytest.approx(1.0)
    with pytest.raises(NotInvertible):
        system([[1e-16]], scale=1.0).solve(np.array([1e-16]))


def test_ill_conditioned_is_not_singular() -> None:
    matrix = np.diag([1.0, 1e-11])
    np.testing.assert_allclose(system(matrix).solve(np.array([1.0, 1.0])), [1.0, 1e11])


def test_entries_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NotInvertible, match="entries that are not finite"):
        system([[np.inf]]).solve(np.ones(1))


def consistent(n: int) -> tuple[Any, Any]:
    """Give a singular matrix and a right-hand side in its range."""
    matrix = np.eye(n)
    matrix[-1, -1] = 0.0
    right = np.ones(n)
    right[-1] = 0.0
    return matrix, right


def test_a_krylov_method_does_not_see_a_singular_matrix_and_the_probe_does() -> None:
    matrix, right = consistent(60)
    found = system(matrix, method="gmres")
    np.testing.assert_allclose(found.solve(right), right)  # in silence: hence the probe
    with pytest.raises(NotInvertible, match="of a random right-hand side gmres leaves"):
        found.probe()
    system(np.eye(60), method="gmres").probe()


@pytest.mark.parametrize("seed", range(20))
def test_the_probe_sees_every_null_direction(seed: int) -> None:
    n, rng = 80, np.random.default_rng(seed)
    u, v = rng.standard_normal(n), rng.standard_normal(n)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    regular = drawn(n, seed)
    singular = regular - np.outer(regular @ v, v)
    system(regular, method="gmres").probe()
    with pytest.raises(NotInvertible):
        system(singular, method="gmres").probe()


def test_a_system_out_of_range_is_not_solved() -> None:
    matrix, right = consistent(60)
    with pytest.raises(NotConverged, match="was not solved by gmres: the residual is"):
        system(matrix, method="gmres").solve(1 - right)


def test_nothing_and_not_a_number() -> None:
    assert not system(np.zeros((0, 0))).solve(np.zeros(0)).size
    assert not system(np.zeros((2, 2)), method="gmres").solve(np.zeros(2)).any()
    assert np.isnan(system(np.eye(2)).solve(np.array([np.nan, 1.0]))).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_norm_of_the_inverse_is_bounded_from_above_by_its_estimate(seed: int) -> None:
    matrix = drawn(20, seed)
    found = system(matrix)
    found.solve(np.ones(20))
    true = np.linalg.norm(np.linalg.inv(matrix), 2)
    assert 0.5 * true <= found.inverse_norm() <= 20 * true
