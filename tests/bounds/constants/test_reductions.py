"""Constants of reductions along axes: exact where the record says tight, above what is sampled elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.bounds.constants.one_step import BACKENDS, OneStep, box, holds

torch = pytest.importorskip("torch")

LINEAR: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "sum": (lambda x: x.sum(), (3, 4)),
    "sum of rows": (lambda x: x.sum(1), (3, 4)),
    "mean": (lambda x: x.mean((0, 2)), (3, 4, 2)),
    "trace": (lambda x: torch.trace(x), (3, 4)),
    "cumsum": (lambda x: x.cumsum(1), (2, 6)),
    "diff": (lambda x: x.diff(), (2, 5)),
}

ORDER: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "max": (lambda x: x.max(), (3, 4)),
    "amax": (lambda x: x.amax(1), (3, 4)),
    "amin": (lambda x: x.amin((0, 1)), (3, 4)),
    "median": (lambda x: x.median(), (5,)),
    "kthvalue": (lambda x: x.kthvalue(2, 1)[0], (3, 4)),
    "sort": (lambda x: x.sort(1)[0], (3, 4)),
    "topk": (lambda x: x.topk(2, 1)[0], (3, 4)),
    "cummax": (lambda x: x.cummax(1)[0], (2, 4)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_sums_have_their_norm(name: str) -> None:
    function, shape = LINEAR[name]
    rng = np.random.default_rng(len(name))
    step = OneStep("torch", function, [rng.normal(size=shape)], 0.4)
    assert holds(step, rng).lipschitz[0] == pytest.approx(step.slope(0, step.arrays), rel=1e-9)
    x = rng.normal(size=shape)
    holds(OneStep("torch", function, [x], operands=[box(x - rng.random(shape), x + 1, 0, 1)]), rng, samples=20)


@pytest.mark.parametrize(("order", "ratio"), [(2, 1.0), (3, 1.0)])
def test_differences_of_higher_order_are_bounded_by_products(order: int, ratio: float) -> None:
    rng = np.random.default_rng(order)
    step = OneStep("torch", lambda x: x.diff(n=order), [rng.normal(size=12)], 0.4)
    local = holds(step, rng)
    assert step.slope(0, step.arrays) <= local.lipschitz[0] <= 1.1 * ratio * step.slope(0, step.arrays)


@pytest.mark.parametrize("name", ORDER)
def test_order_does_not_stretch(name: str) -> None:
    function, shape = ORDER[name]
    rng = np.random.default_rng(len(name))
    step = OneStep("torch", function, [rng.normal(size=shape)], 1.0)
    local = holds(step, rng)
    assert local.lipschitz[0] == pytest.approx(2.0 if name == "cummax" else 1.0)
    assert local.smoothness[0, 0] == np.inf and "tie" in local.why
    for _ in range(50):
        x, y = rng.normal(size=(2, *shape))
        moved = np.linalg.norm(step.value(x) - step.value(y))
        assert moved <= local.lipschitz[0] * np.linalg.norm(x - y) * (1 + 1e-12)
    x = rng.normal(size=shape)
    holds(OneStep("torch", function, [x], operands=[box(x - rng.random(shape), x + 1, 0, 1)]), rng, samples=20)


def test_the_largest_so_far_is_copied() -> None:
    x = np.array([[3.0, 0, 1, 2], [3.0, 0, 1, 2]])
    step = OneStep("torch", lambda x: x.cummax(1)[0], [x])
    assert step.slope(0, [x]) == pytest.approx(step.local().lipschitz[0])


def _hessian(step: OneStep, x: np.ndarray, h: float = 1e-5) -> float:
    """Give the norm of the second derivative of a number by differences of gradients."""
    rows = []
    for e in np.eye(x.size):
        up, down = (step.jacobian(0, [x + s * h * e.reshape(x.shape)])[0] for s in (1, -1))
        rows.append((up - down) / (2 * h))
    return float(np.linalg.norm(np.array(rows), 2))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_products_are_attained_where_entries_are_largest(n: int) -> None:
    low, high = np.full(n, 0.5), np.full(n, 1.5)
    step = OneStep("torch", lambda x: x.prod(), [high], operands=[box(low, high, 0, 1)])
    local = holds(step, np.random.default_rng(n), samples=20)
    assert local.lipschitz[0] == pytest.approx(step.slope(0, [high]), rel=1e-9)
    assert local.smoothness[0, 0] == pytest.approx(_hessian(step, high), rel=1e-4, abs=1e-6)
    assert (float(np.asarray(local.low)), float(np.asarray(local.high))) == pytest.approx((0.5**n, 1.5**n))


@pytest.mark.parametrize("seed", range(5))
def test_products_in_balls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for function in (lambda x: x.prod(), lambda x: x.cumprod(0)):
        holds(OneStep("torch", function, [rng.normal(size=4)], 0.7), rng, samples=20)


@pytest.mark.parametrize("correction", [0, 1])
def test_a_variance(correction: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5))
    step = OneStep("torch", lambda x: x.var(1, correction=correction), [x], 0.3)
    local = holds(step, rng, samples=30)
    assert local.smoothness[0, 0] == pytest.approx(2 / (5 - correction))
    exact = OneStep("torch", lambda x: x.var(1, correction=correction), [x], 0.0)
    assert exact.local().lipschitz[0] == pytest.approx(exact.slope(0, [x]), rel=1e-6)
    single = OneStep("torch", lambda x: x.var(correction=correction), [x[0]])
    assert _hessian(single, x[0]) == pytest.approx(single.local().smoothness[0, 0], rel=1e-4)


def test_a_deviation_bends_by_its_distance_from_equal_entries() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=6)
    step = OneStep("torch", lambda x: x.std(), [x])
    local = holds(step, rng)
    assert local.lipschitz[0] == pytest.approx(step.slope(0, [x]), rel=1e-6)
    assert local.smoothness[0, 0] == pytest.approx(_hessian(step, x), rel=1e-4)
    kinked = OneStep("torch", lambda x: x.std(), [np.ones(4)], 0.1).local()
    assert kinked.smoothness[0, 0] == np.inf and "kink" in kinked.why


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_variance_in_jax(ddof: int) -> None:
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5))
    step = OneStep("jax", lambda x: jax.numpy.var(x, axis=1, ddof=ddof), [x], 0.3, name="var")
    assert holds(step, rng).smoothness[0, 0] == pytest.approx(2 / (5 - ddof))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sum_in_both(backend: str) -> None:
    step = OneStep(backend, lambda x: x.sum(0), [np.ones((3, 4))], 0.2)
    assert holds(step, np.random.default_rng(0)).lipschitz[0] == pytest.approx(np.sqrt(3))
