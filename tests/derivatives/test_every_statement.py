"""One table, all statements: what backprop, the sets, the verdict and the lexicographic derivative say of the closed forms.

The limits of gradients of a case are elements of every set that holds dF(x); where the Clarke set is exact it is their hull.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.program import Program
from tests.adapters import Adapter, adapter
from tests.cases.derivatives import CLOSED, REFUSED, Closed
from tests.cases.spelling import Array, on_each, spelled

FINITE = {name: case for name, case in CLOSED.items() if not callable(case.limits)}

SEEN_FROM_A_CUSP = {"cusp"}
"""The table has the limits that straight directions see: the Clarke set there has one more."""

NO_BACKWARD_PASS = {("jax", "while")}
"""JAX itself does not differentiate a loop of unknown length backwards."""


@functools.cache
def captured(framework: str, name: str) -> tuple[Program, Array]:
    """Give the program of a case and its point: one capture serves every statement."""
    xp, case = adapter(framework), FINITE[name]
    x = xp.array(case.x)
    return ns.capture(spelled(case.f, xp), x), x


def directions(n: int) -> np.ndarray:
    """Draw directions in which to compare supports."""
    return np.random.default_rng(n).standard_normal((12, n))


def support(case: Closed, d: np.ndarray) -> float:
    """Give the largest slope of a limit."""
    return max(float(np.dot(g, d)) for g in case.limits)  # type: ignore[union-attr]


@on_each(FINITE)
def test_sets(xp: Adapter, name: str) -> None:
    """conv D(x) holds every limit; the Clarke set is their hull where it is exact, and inside of it elsewhere."""
    case = FINITE[name]
    f, x = captured(xp.name, name)
    field, clarke = ns.field(f, x), ns.clarke(f, x)
    for limit in case.limits:
        assert field.contains(np.array(limit)) is not False, (limit, str(field))
    for d in directions(len(x)):
        expected, value = support(case, d), clarke.support(d)
        scale = 1e-9 * (1 + abs(expected))
        assert value.lower <= expected + scale or name in SEEN_FROM_A_CUSP, (d, str(clarke))
        if clarke.exact and name not in SEEN_FROM_A_CUSP:
            assert value.upper == pytest.approx(expected, abs=scale), (d, str(clarke))
        assert field.support(d).upper >= expected - scale


@on_each(FINITE)
def test_verdicts(xp: Adapter, name: str) -> None:
    """No limit is ever an artifact, nothing far from all of them is certified, and backprop's value lies in the field."""
    case = FINITE[name]
    f, x = captured(xp.name, name)
    for limit in case.limits:
        assert ns.verdict(f, x, xp.array(limit)).word != "artifact"
    far = np.add(case.limits[0], 3.0 * (1 + np.abs(case.limits).max()))  # type: ignore[index]
    assert ns.verdict(f, x, xp.array(far)).word != "certified"
    found = xp.numpy(ns.backprop(f, x))
    if (xp.name, name) not in NO_BACKWARD_PASS and np.isfinite(found).all():
        np.testing.assert_allclose(found, xp.numpy(xp.gradient(spelled(case.f, xp), x)), rtol=1e-12, atol=1e-12)
        assert ns.field(f, x).contains(found) is not False


@on_each(FINITE)
def test_lexicographic_derivatives(xp: Adapter, name: str) -> None:
    """Along a basis, taken one after the other, the derivative of the linear map that remains is a limit of gradients."""
    case = FINITE[name]
    f, x = captured(xp.name, name)
    basis = np.triu(np.random.default_rng(0).uniform(0.5, 1, (len(x), len(x)))) @ np.diag((-1.0) ** np.arange(len(x)))
    try:
        found = xp.numpy(ns.lexicographic(f, x, xp.array(basis)))
    except ns.errors.NoDerivative:
        assert name == "index of the largest"
        return
    gradient = np.linalg.solve(basis.T, found.reshape(-1))
    assert any(np.abs(gradient - g).max() <= 1e-9 for g in case.limits), gradient


@on_each(REFUSED)
def test_what_leaves_the_theory_is_never_certified(xp: Adapter, name: str) -> None:
    """The verdict on backprop's own value is undecided, and the table of kinks is made all the same."""
    case = REFUSED[name]
    x = xp.array(case.x)
    f = ns.capture(spelled(case.f, xp), x)
    ns.kinks(f, x)
    try:
        found = ns.verdict(f, x)
    except ns.errors.NonsmoothError as error:  # a gradient that is no number has no verdict
        assert str(error)
        return
    assert found.word != "certified" or case.rule in ("equality", "flat"), str(found)
