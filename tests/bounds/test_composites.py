"""Formulas that are known again: they give the bound of the map that they are, and look-alikes do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from tests.adapters import Adapter

X = np.array([[3.0, 0.0], [0.0, 4.0]])
W = np.ones((2, 2))


def lipschitz(xp: Adapter, f: Callable[[Any], Any]) -> tuple[float, float]:
    """Bound a function of a matrix in the unit ball."""
    found = ns.bounds(f, xp.array(W), weights=1.0).weights
    return found.lipschitz, found.smoothness


def softmax(xp: Adapter, z: Any, axis: int) -> Any:
    """Write softmax out."""
    e = xp.exp(z - xp.amax(z, axis)[:, None] if axis == 1 else z - xp.amax(z, axis)[None, :])
    total = xp.sum(e, axis)
    return e / (total[:, None] if axis == 1 else total[None, :])


PRODUCTS: dict[str, tuple[Callable[[Adapter, Any], Any], tuple[float, float]]] = {
    "sum of squares": (lambda xp, w: xp.sum(w * w), (2, 2)),
    "a power": (lambda xp, w: xp.sum(w**2), (2, 2)),
    "half": (lambda xp, w: xp.sum(w * w) / 2, (1, 1)),
    "half of each": (lambda xp, w: xp.sum(w * w / 2), (1, 1)),
    "minus": (lambda xp, w: xp.sum(-(w * w) * 3), (6, 6)),
    "mean": (lambda xp, w: xp.mean(w * w), (0.5, 0.5)),
    "of each row": (lambda xp, w: xp.sum(w * w, 1), (2, 2)),
    "with another": (lambda xp, w: xp.sum(w * (2 * w)), (4, 4)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_sums_of_products(xp: Adapter, name: str) -> None:
    """|sum u v| <= ||u|| ||v||, in the place of sqrt(n) times the norm of the products."""
    f, constants = PRODUCTS[name]
    assert lipschitz(xp, lambda w: f(xp, w)) == pytest.approx(constants, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_written_out(xp: Adapter, axis: int) -> None:
    """exp(z - max) / sum is softmax along its axis: 1/2 and .27217."""
    assert lipschitz(xp, lambda w: softmax(xp, 100 * w, axis))[0] == pytest.approx(50, rel=1e-6)


def not_softmax(xp: Adapter, w: Any) -> Any:
    """Divide by the sum along the other axis: not a softmax."""
    e = xp.exp(w)
    return e / xp.sum(e, 0)[:, None]


def shifted_by_rows(xp: Adapter, w: Any) -> Any:
    """Shift by what differs along the axis: not a softmax of w."""
    e = xp.exp(w - 3 * w)
    return e / xp.sum(e, 1)[:, None]


def test_look_alikes_are_no_softmax(xp: Adapter) -> None:
    """A quotient whose parts do not belong together keeps the bound of its steps."""
    assert lipschitz(xp, lambda w: not_softmax(xp, w))[0] > 1
    assert lipschitz(xp, lambda w: shifted_by_rows(xp, w))[0] >= 0.99


def test_a_value_that_is_written_to_is_no_part_of_a_formula() -> None:
    """What went in may be another value by then."""
    torch = pytest.importorskip("torch")

    def f(w: Any) -> Any:
        u = 2 * w
        z = u * u
        u.zero_()
        return z.sum() + u.sum()

    assert ns.bounds(f, torch.ones(2, 2), weights=1.0).weights.lipschitz >= 8
