"""Constants of products of arrays: they hold at samples, and operator norms attain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nonsmooth.bounds.constants.multilinear import SumOfProducts
from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Reach
from tests.bounds.constants.one_step import BACKENDS, OneStep, box, holds, moving

torch = pytest.importorskip("torch")
F = torch.nn.functional

TORCH: list[tuple[str, Callable[..., Any], list[tuple[int, ...]]]] = [
    ("matmul", torch.matmul, [(2, 3), (3, 4)]),
    ("matmul of vectors", torch.matmul, [(3,), (3,)]),
    ("matmul by a vector", torch.matmul, [(2, 3, 4), (4,)]),
    ("matmul of a vector", torch.matmul, [(3,), (2, 3, 4)]),
    ("matmul of stacks", torch.matmul, [(3, 1, 2, 2), (2, 2, 3)]),
    ("mm", torch.mm, [(2, 1), (1, 3)]),
    ("bmm", torch.bmm, [(2, 2, 3), (2, 3, 2)]),
    ("mv", torch.mv, [(2, 3), (3,)]),
    ("dot", torch.dot, [(4,), (4,)]),
    ("vdot", torch.vdot, [(4,), (4,)]),
    ("inner", torch.inner, [(2, 3), (4, 3)]),
    ("inner with a number", torch.inner, [(), (3,)]),
    ("outer", torch.outer, [(2,), (3,)]),
    ("linear", F.linear, [(2, 2, 3), (4, 3), (4,)]),
    ("linear without bias", F.linear, [(3,), (4, 3)]),
    ("linear of one output", F.linear, [(2, 3), (3,)]),
    ("addmm", lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=0.5), [(3,), (2, 2), (2, 3)]),
    ("addmm without beta", lambda c, a, b: torch.addmm(c, a, b, beta=0), [(2, 3), (2, 2), (2, 3)]),
    ("addmv", lambda c, a, b: torch.addmv(c, a, b, beta=-1), [(2,), (2, 3), (3,)]),
    ("addr", torch.addr, [(2, 3), (2,), (3,)]),
    ("addbmm", torch.addbmm, [(2, 3), (2, 2, 4), (2, 4, 3)]),
    ("baddbmm", torch.baddbmm, [(2, 2, 3), (2, 2, 4), (2, 4, 3)]),
    ("kron", torch.kron, [(2, 2), (3,)]),
    ("cross", lambda u, v: torch.linalg.cross(u, v), [(2, 3), (1, 3)]),
    ("old cross", lambda u, v: torch.cross(u, v, dim=0), [(3, 2), (3, 2)]),
    ("einsum", lambda a, b: torch.einsum("ij,jk->ik", a, b), [(2, 3), (3, 2)]),
    ("einsum of a diagonal", lambda a: torch.einsum("ii->i", a), [(3, 3)]),
    ("einsum with dots", lambda a, b: torch.einsum("...ij,...j->...i", a, b), [(2, 1, 2, 3), (2, 3)]),
    ("einsum that sums alone", lambda a, b: torch.einsum("ij,k->k", a, b), [(2, 3), (2,)]),
    ("einsum without an arrow", lambda a, b: torch.einsum("ij,jk", a, b), [(2, 3), (3, 2)]),
    ("einsum that turns", lambda a: torch.einsum("ijk->kij", a), [(2, 3, 2)]),
]
"""Products of which every first derivative is attained at known operands."""

BOUNDED: list[tuple[str, Callable[..., Any], list[tuple[int, ...]]]] = [
    ("bilinear", F.bilinear, [(2, 3), (2, 2), (4, 3, 2), (4,)]),
    ("einsum of three", lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(2, 3), (3, 2), (2, 2)]),
    ("einsum of a trace", lambda a, b: torch.einsum("iij,j->", a, b), [(2, 2, 3), (3,)]),
]
"""Products whose constants are attained by some arrays, of rank 1, and not by all."""

NAMED = {name: (function, shapes) for name, function, shapes in TORCH + BOUNDED}


def jax_cases() -> dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]:
    """Products in JAX, whose operands lie in other ways."""
    jax = pytest.importorskip("jax")

    def general(contracted: Any, beside: Any) -> Callable[..., Any]:
        return lambda a, b: jax.lax.dot_general(a, b, (contracted, beside))

    return {
        "matrices": (lambda a, b: a @ b, [(2, 3), (3, 4)]),
        "first axes": (general(((0,), (0,)), ((), ())), [(3, 2), (3, 4)]),
        "beside": (general(((1,), (2,)), ((2,), (0,))), [(2, 3, 4), (4, 2, 3)]),
        "two axes": (general(((0, 2), (1, 0)), ((), ())), [(2, 4, 3), (3, 2)]),
        "vectors": (lambda a, b: a @ b, [(3,), (3,)]),
    }


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("radius", [0.0, 0.5])
@pytest.mark.parametrize("name", NAMED)
def test_a_product_in_torch(name: str, radius: float, known: bool) -> None:
    function, shapes = NAMED[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(size=s) for s in shapes]
    step = OneStep("torch", function, arrays, radius)
    if not known:
        places = [moving(a, radius, i, len(arrays), known=False) for i, a in enumerate(arrays)]
        seen = OneStep("torch", function, arrays, radius, operands=places).local()
        local = holds(step, rng)
        assert all(u >= v * (1 - 1e-9) for u, v in zip(seen.lipschitz, local.lipschitz, strict=True))
        for u in (seen.low, -np.asarray(seen.high)):
            assert np.all(np.asarray(u) <= -np.abs(step.value(*arrays)).max() * 0.999)
        return
    local = holds(step, rng)
    if radius == 0 and name in dict.fromkeys(n for n, _, _ in TORCH):
        for place in range(len(arrays)):
            if name != "old cross" and "cross" not in name:
                assert local.lipschitz[place] <= step.slope(place, arrays) * (1 + 1e-6)


@pytest.mark.parametrize("radius", [0.0, 0.5])
@pytest.mark.parametrize("name", ["matrices", "first axes", "beside", "two axes", "vectors"])
def test_a_product_in_jax(name: str, radius: float) -> None:
    function, shapes = jax_cases()[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(size=s) for s in shapes]
    step = OneStep("jax", function, arrays, radius, name="matmul")
    local = holds(step, rng)
    if radius == 0:
        for place in range(len(arrays)):
            assert local.lipschitz[place] <= step.slope(place, arrays) * (1 + 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_second_derivative_is_attained_by_matrices_of_rank_one(backend: str) -> None:
    e = np.zeros((3, 3))
    e[0, 0] = 1.0
    step = OneStep(backend, lambda a, b: a @ b, [e, e])
    assert step.local().smoothness == {(0, 1): 1.0}
    assert np.linalg.norm(step.value(e, e)) == 1.0


@pytest.mark.parametrize("radius", [0.0, 0.4])
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (torch.matmul, [(2, 3), (3, 4)]),
        (torch.bmm, [(2, 2, 3), (2, 3, 2)]),
        (torch.matmul, [(3, 1, 2, 2), (2, 2, 3)]),
        (F.linear, [(2, 3), (4, 3), (4,)]),
        (lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=-0.5), [(2, 3), (2, 2), (2, 3)]),
        (lambda a, b: torch.einsum("ij,kj->ki", a, b), [(2, 3), (4, 3)]),
        (torch.outer, [(2,), (3,)]),
        (torch.kron, [(2, 2), (2, 2)]),
    ],
)
def test_intervals_of_entries(function: Callable[..., Any], shapes: list[tuple[int, ...]], radius: float) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=s) for s in shapes]
    places: list[Reach] = [moving(a, radius, i, len(arrays)) for i, a in enumerate(arrays)]
    boxed = 1 if len(arrays) > 2 and function is not F.linear else 0
    places[boxed] = box(arrays[boxed] - rng.random(shapes[boxed]), arrays[boxed] + 0.5, boxed, len(arrays))
    local = holds(OneStep("torch", function, arrays, operands=places), rng, samples=40)
    assert np.asarray(local.low).shape != () and np.all(np.isfinite(np.asarray(local.low)))


def test_an_interval_by_one_known_matrix_is_attained() -> None:
    weight = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, 1.0]])
    pixels = Reach((4, 3), 10.0, np.array([1.0]), np.zeros((1, 1)), np.asarray(0.0), np.asarray(1.0))
    operands = (pixels, Reach.constant(weight, 1))
    call = Called("linear", operands, {"terms": 3}, ((4, 2),))
    local = CONSTANTS["linear"](call)
    assert not isinstance(local, list)
    assert float(local.low) == pytest.approx(-2.0, abs=1e-9) and float(local.high) == pytest.approx(2.25, abs=1e-9)


def test_signs_are_kept_where_both_have_one() -> None:
    u = Reach((2, 3), 100.0, np.ones(1), np.zeros((1, 1)), np.asarray(1.0), np.asarray(2.0))
    local = SumOfProducts((u, u), ("ik", "jk"), "ij", (2, 2)).local()
    assert (float(local.low), float(local.high)) == (pytest.approx(3.0), pytest.approx(12.0))


def test_a_product_with_an_unknown_layout_uses_norms_alone() -> None:
    a, b = (Reach((3, 3), n, np.ones(1), np.zeros((1, 1))) for n in (2.0, 5.0))
    local = CONSTANTS["matmul"](Called("matmul", (a, b), {"terms": 3}, ((9,),)))
    assert not isinstance(local, list)
    assert list(local.lipschitz) == [5.0, 2.0] and local.norm == 10.0
