"""One-sided derivatives against closed forms, and where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import NoDerivative
from tests.adapters import Adapter, served
from tests.cases.derivatives import CLOSED, CONES, REFUSED, here
from tests.cases.spelling import on_each, said_in, spelled
from tests.programs.oracle import one_sided

OPEN_ALONG_TIES = {"index of the largest"}
"""An argmax that ties on along the direction is refused, though all branches may have the same derivative."""

PRECISIONS = pytest.mark.parametrize("precision", ["double", "single"])


def constant(*numbers: float) -> torch.Tensor:
    """Give a vector of double precision."""
    return torch.tensor(numbers, dtype=torch.float64)


def directions(n: int) -> Iterator[np.ndarray]:
    """Give all directions of entries -1, 0, 1, most of which leave kinks tied, and some in general position."""
    for entries in itertools.islice(itertools.product((1.0, 0.0, -1.0), repeat=n), 27):
        yield np.array(entries)
    yield from np.random.default_rng(0).standard_normal((3, n))


@PRECISIONS
@on_each(CLOSED)
def test_closed_forms(xp: Adapter, name: str, precision: str) -> None:
    """F'(x; v) is what the formula says, along every direction, generic or not."""
    case = CLOSED[name]
    tolerance = 1e-12 if precision == "double" else 3e-6
    with xp.default(precision):
        x = xp.array(case.x, precision)
        program = ns.capture(spelled(case.f, xp), x)
        for v in itertools.islice(directions(len(x)), 0, None, 1 if xp.name == "torch" else len(x)):
            try:
                found = ns.directional(program, x, xp.array(v, precision))
            except NoDerivative:
                assert name in OPEN_ALONG_TIES and len(set(v)) < len(v)
                continue
            assert found.dtype == x.dtype and found.shape == ()
            assert float(found) == pytest.approx(float(case.along(v)), rel=tolerance, abs=tolerance), v


@pytest.mark.parametrize(
    ("xp", "name"),
    [(on, name) for name, case in CLOSED.items() for on in [o for o in served() if said_in(case.f, o)][:1]],
    indirect=["xp"],
)
def test_the_formulas_are_right(xp: Adapter, name: str) -> None:
    """One-sided difference quotients, which know no theory, agree with the formulas of the table."""
    case = CLOSED[name]
    x = xp.array(case.x)
    for v in (*itertools.islice(directions(len(x)), 3), *list(directions(len(x)))[-2:]):
        expected = one_sided(spelled(case.f, xp), x, xp.array(v))
        assert expected is not None and expected.agrees(xp.array(float(case.along(v)))), v


@PRECISIONS
@on_each(CONES)
def test_cones(xp: Adapter, name: str, precision: str) -> None:
    """F'(x; v) = G(v) for F(x + t v) = F(x) + t G(v): sorts, poolings, norms, spectra, networks of them."""
    case = CONES[name]
    f, cone = spelled(case.f, xp), spelled(case.cone or case.f, xp)
    random = np.random.default_rng(1)
    drawn = [random.standard_normal(case.x.shape) for _ in range(4 if xp.name == "torch" else 1)]
    tied = [random.integers(-1, 2, case.x.shape).astype(float) for _ in range(3 if xp.name == "torch" else 1)]
    tolerance = 1e-10 if precision == "double" else 2e-5
    with xp.default(precision):
        x = xp.array(case.x, precision)
        program = ns.capture(f, x)
        for v in (*drawn, *tied, np.zeros_like(case.x), np.ones_like(case.x)):
            along = xp.array(v, precision)
            with xp.evaluating():
                expected = float(cone(along))
                # (F(x + t v) - F(x)) / t for t = 1/4: exact for a homogeneous function
                grown = float(f(x + 0.25 * along) - f(x)) / 0.25
            found = float(ns.directional(program, x, along))
            assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), v
            if case.cone is None and precision == "double" and not case.x.any():
                assert grown == pytest.approx(expected, rel=1e-9, abs=1e-9)


@on_each(REFUSED, lambda case: case.no_slope)
def test_no_derivative(xp: Adapter, name: str) -> None:
    """Where there is no one-sided derivative, or it cannot be known, an error names the line."""
    case = REFUSED[name]
    with pytest.raises(NoDerivative) as caught:
        ns.directional(spelled(case.f, xp), xp.array(case.x), xp.array((1, 1)))
    assert f"derivatives.py:{here(case.f, xp.name)}" in str(caught.value)


@on_each(REFUSED)
def test_refused_or_right(xp: Adapter, name: str) -> None:
    """What a certificate refuses may have one-sided derivatives: then they are those of the values."""
    case = REFUSED[name]
    f, x = spelled(case.f, xp), xp.array(case.x)
    for v in map(xp.array, ((1, 1), (-1, 2), (1, 0), (0.3, -0.7))):
        try:
            found = ns.directional(f, x, v)
        except NoDerivative:
            continue
        expected = one_sided(f, x, v)
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
