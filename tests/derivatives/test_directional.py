"""One-sided derivatives against closed forms, and where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import NoDerivative
from tests.cases.derivatives import CLOSED, CONES, REFUSED, Function, constant, here
from tests.programs.oracle import one_sided

OPEN_ALONG_TIES = {"index of the largest"}
"""An argmax that ties on along the direction is refused, though all branches may have the same derivative."""


def directions(n: int) -> Iterator[torch.Tensor]:
    """Give all directions of entries -1, 0, 1, most of which leave kinks tied, and some in general position."""
    for entries in itertools.islice(itertools.product((1.0, 0.0, -1.0), repeat=n), 27):
        yield constant(*entries)
    generator = torch.Generator().manual_seed(0)
    yield from torch.randn(3, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str, dtype: torch.dtype) -> None:
    """F'(x; v) is what the formula says, along every direction, generic or not."""
    case = CLOSED[name]
    x = constant(*case.x).to(dtype)
    program = ns.capture(case.f, x)
    for v in directions(len(x)):
        try:
            found = ns.directional(program, x, v.to(dtype))
        except NoDerivative:
            assert name in OPEN_ALONG_TIES and len(v.unique()) < len(v)
            continue
        assert found.dtype is dtype and found.shape == ()
        tolerance = 1e-12 if dtype is torch.float64 else 3e-6
        assert float(found) == pytest.approx(float(case.along(v)), rel=tolerance, abs=tolerance), v


@pytest.mark.parametrize("name", CLOSED)
def test_the_formulas_are_right(name: str) -> None:
    """One-sided difference quotients, which know no theory, agree with the formulas of the table."""
    case = CLOSED[name]
    x = constant(*case.x)
    for v in (*itertools.islice(directions(len(x)), 3), *list(directions(len(x)))[-2:]):
        expected = one_sided(case.f, x, v)
        assert expected is not None and expected.agrees(torch.as_tensor(case.along(v), dtype=torch.float64)), v


def grown(f: Function, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Give (F(x + t v) - F(x)) / t for t = 1/4: exact for a homogeneous function."""
    return (f(x + 0.25 * v) - f(x)) / 0.25


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", CONES)
def test_cones(name: str, dtype: torch.dtype) -> None:
    """F'(x; v) = G(v) for F(x + t v) = F(x) + t G(v): sorts, poolings, norms, spectra, networks of them."""
    case = CONES[name]
    cone, x = case.cone or case.f, case.x.to(dtype)
    program = ns.capture(case.f, x)
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(x.shape, generator=generator).to(dtype) for _ in range(4)]
    tied = [torch.randint(-1, 2, x.shape, generator=generator).to(dtype) for _ in range(3)]
    for v in (*drawn, *tied, torch.zeros_like(x), torch.ones_like(x)):
        with torch.no_grad():
            expected = cone(v)
        tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype is torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
        torch.testing.assert_close(
            ns.directional(program, x, v), expected.to(dtype), **tolerance, msg=lambda m, v=v: f"{v} {m}"
        )
        if case.cone is None and dtype is torch.float64 and not x.any():
            torch.testing.assert_close(grown(case.f, x, v), expected.to(dtype), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in REFUSED if REFUSED[n].no_slope])
def test_no_derivative(name: str) -> None:
    """Where there is no one-sided derivative, or it cannot be known, an error names the line."""
    case = REFUSED[name]
    with pytest.raises(NoDerivative) as caught:
        ns.directional(case.f, constant(*case.x), constant(1, 1))
    assert f"derivatives.py:{here(case.f)}" in str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_or_right(name: str) -> None:
    """What a certificate refuses may have one-sided derivatives: then they are those of the values."""
    case = REFUSED[name]
    x = constant(*case.x)
    for v in (constant(1, 1), constant(-1, 2), constant(1, 0), constant(0.3, -0.7)):
        try:
            found = ns.directional(case.f, x, v)
        except NoDerivative:
            continue
        expected = one_sided(case.f, x, v)
        assert expected is not None and expected.agrees(found), f"{found} {expected}"


def test_a_tie_that_stays() -> None:
    """Along a direction that leaves a predicate tied, the branches decide whether there is a derivative."""

    def parts(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[1] > 0, x[0], 2 * x[0])

    def joins(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[1] > 0, x[0] + x[1], x[0])

    along = constant(1, 0)
    with pytest.raises(NoDerivative, match=r"test_directional\.py"):
        ns.directional(parts, constant(0, 0), along)
    assert float(ns.directional(joins, constant(0, 0), along)) == 1
    assert float(ns.directional(parts, constant(0, 0), constant(1, 1))) == 1
    assert float(ns.directional(parts, constant(0, 0), constant(1, -1))) == 2


def test_detached_values_count() -> None:
    """F'(x; v) is the derivative of the values, whatever the graph says."""

    def half(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = 2 * x
        return (x * 3 - x.detach() + y).sum()

    assert float(ns.directional(half, constant(1, 2), constant(1, 1))) == 8


def test_results_in_a_tree() -> None:
    """Each tensor of the result has its derivative; those that do not depend on the point have zeros."""

    def f(x: torch.Tensor) -> dict[str, object]:
        return {"kink": torch.relu(x), "pair": (x.max(), x * 2), "still": torch.ones(2, dtype=x.dtype)}

    found = ns.directional(f, constant(0, 0), constant(1, -1))
    assert found["kink"].tolist() == [1, 0]
    assert float(found["pair"][0]) == 1 and found["pair"][1].tolist() == [2, -2]
    assert found["still"].tolist() == [0, 0]


def test_coordinates_are_no_gradient() -> None:
    """The p one-sided derivatives along the unit vectors, each exact, and no subgradient together."""
    x = {"a": constant(0, 0), "b": torch.zeros((), dtype=torch.float64)}
    found = ns.coordinate_derivatives(lambda p: -p["a"].abs().sum() - torch.hypot(p["b"], p["a"][0]), x)
    assert found["a"].tolist() == [-2, -1] and float(found["b"]) == -1
