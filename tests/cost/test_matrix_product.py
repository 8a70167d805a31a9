"""Products of matrices by directional derivatives: the construction in every framework, the counts number by number."""

from __future__ import annotations

import operator
from collections import Counter
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.cost.matrix_product import (
    TracePoint,
    product_by_directions,
    product_by_reverse_sweep,
    product_network,
    sum_of_derivatives,
    trace_by_directions,
    trace_network,
)
from nonsmooth.cost.product_growth import count_growth
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.cost.tally import Sweep
from nonsmooth.errors import UsageError
from tests.adapters import Adapter, adapter
from tests.references.matrix_product import Machine, network
from tests.references.matrix_product import sum_of_derivatives as reference_sum

EMPTY = Sweep(*(Counter[str]() for _ in range(4)))


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """Give small integers, zeros among them: their products and sums are exact."""
    return rng.integers(-3, 4, shape).astype(float)


def test_products_are_those_of_the_matrices(xp: Adapter) -> None:
    with xp.default("double"):
        compare_products(xp, 3, 2, 4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (4, 4, 4), (6, 1, 3)], ids=str)
def test_products_of_other_shapes(shape: tuple[int, int, int]) -> None:
    compare_products(adapter("torch"), *shape)


def compare_products(xp: Adapter, m: int, k: int, n: int) -> None:
    """Compare the three constructions with products of integers."""
    rng = np.random.default_rng(m + k)
    A, B, C = integers(rng, m, k), integers(rng, k, n), integers(rng, n, m)
    a, b, c = xp.array(A), xp.array(B), xp.array(C)
    assert xp.numpy(product_by_directions(a, b)).tolist() == (A @ B).tolist()
    assert xp.numpy(product_by_reverse_sweep(a, b)).tolist() == (A @ B).tolist()
    assert xp.numpy(trace_by_directions(a, b, c)).tolist() == np.diagonal(C @ A @ B).tolist()


def test_products_of_real_numbers() -> None:
    xp, rng = adapter("torch"), np.random.default_rng(5)
    A, B = rng.standard_normal((5, 3)), rng.standard_normal((3, 2)) * 1e6
    B[0] = 0.0
    a, b = xp.array(A, "single"), xp.array(B, "single")
    for product in (product_by_directions(a, b), product_by_reverse_sweep(a, b)):
        assert str(product.dtype).endswith("float32")
        np.testing.assert_allclose(xp.numpy(product), A @ B, rtol=1e-5, atol=1e-6 * np.abs(A @ B).max())


def test_every_relu_ties_at_the_origin(xp: Adapter) -> None:
    """The derivatives pass through kinks, where the framework's own rules give none."""
    with xp.default("double"):
        A = xp.array([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]])
        origin, v = xp.array([0.0, 0.0, 0.0]), xp.array([1.0, 1.0, -3.0])
        assert ns.kinks(product_network, origin, A).count == 4
        assert xp.numpy(ns.backprop(lambda x, A: product_network(x, A).sum(), origin, A)).tolist() == [0.0, 0.0, 0.0]
        assert xp.numpy(ns.directional(product_network, origin, v, A)).tolist() == [3.0, -4.0]


def test_the_sum_is_the_forward_sweep(xp: Adapter) -> None:
    """What the reverse sweep runs over is the sum of one-sided derivatives of the scalar network, its one rule at kinks applied."""
    rng = np.random.default_rng(1)
    A, B, C = integers(rng, 2, 3), integers(rng, 3, 2), integers(rng, 2, 2) / 256
    with xp.default("double"):
        a, b, c = xp.array(A), xp.array(B), xp.array(C)
        origin, units = TracePoint(xp.array(np.zeros(3)), xp.array(np.zeros(2))), xp.array(np.eye(2))
        one = xp.array(1.0)
        each = [ns.directional(trace_network, origin, TracePoint(b[:, j], units[j]), a, c, one) for j in range(2)]
        assert np.abs(C @ A @ B).max() < 1
        assert [float(d) for d in each] == np.diagonal(C @ A @ B).tolist()
        assert float(sum_of_derivatives(c, a, b)) == np.trace(C @ A @ B)


def test_a_low_level_shuts_gates() -> None:
    """The bound on C A v is needed: below it the derivative is another number."""
    import torch

    A, C, origin = torch.tensor([[1.0]]), torch.tensor([[5.0], [5.0]]), TracePoint(torch.zeros(1), torch.zeros(2))
    v = TracePoint(torch.tensor([1.0]), torch.tensor([1.0, 0.0]))
    derivative = [float(ns.directional(trace_network, origin, v, A, C, torch.tensor(T))) for T in (5.0, 8.0, 2.0)]
    assert derivative == [5.0, 5.0, 8.0]


def test_the_product_of_the_user_stays() -> None:
    import torch

    A = torch.ones(2, 2, requires_grad=True)
    B = torch.ones(2, 2)
    found = product_by_reverse_sweep(A, B)
    assert A.grad is None and A.requires_grad and not found.requires_grad and bool((B == 1).all())


# --- counts ----------------------------------------------------------------------------------------------------------


def in_fractions(rng: np.random.Generator, p: int) -> list[list[Fraction]]:
    return [[Fraction(int(n), 64) for n in row] for row in rng.integers(-3, 4, (p, p))]


def diagonal(C: Any, A: Any, B: Any) -> list[Fraction]:
    return [sum((C[j][i] * sum((a * row[j] for a, row in zip(A[i], B, strict=True)), Fraction(0))
                 for i in range(len(A))), Fraction(0)) for j in range(len(C))]  # fmt: skip


@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_counts_are_those_of_executed_sweeps(p: int) -> None:
    """Evaluation, p tangents and reverse sweeps are run operation by operation, and found to be the numbers of the table."""
    rng, row = np.random.default_rng(p), count_growth([p, p + 1]).rows[0]
    A, B, C = (in_fractions(rng, p) for _ in range(3))
    machine = Machine()
    columns = list(zip(*B, strict=True))
    y = [machine.point(Fraction(0), [column[i] for column in columns]) for i in range(p)]
    s = [machine.point(Fraction(0), [Fraction(int(i == j)) for j in range(p)]) for i in range(p)]
    F = network(machine, y, s, A, C, Fraction(1))
    machine.backprop(F)
    assert F.tangents is not None and list(F.tangents) == diagonal(C, A, B)
    assert machine.evaluation == row.evaluation == 4 * p * p + 11 * p - 2
    assert machine.evaluation + machine.forward == row.derivatives == (p + 1) * row.evaluation
    assert machine.evaluation + machine.reverse == row.gradient <= 5 * row.evaluation

    machine = Machine()
    moving = [[machine.point(c, ()) for c in line] for line in C]
    total = reference_sum(machine, moving, A, B)
    machine.backprop(total)
    assert machine.evaluation + machine.reverse == row.reverse <= 5 * machine.evaluation
    product = [
        [sum((a * line[j] for a, line in zip(A[i], B, strict=True)), Fraction(0)) for j in range(p)] for i in range(p)
    ]
    assert [[moving[j][i].cotangent for j in range(p)] for i in range(p)] == product


def test_counts_are_those_of_captured_programs(xp: Adapter) -> None:
    p = 4
    with xp.default("double"):
        zero, matrix = xp.array(np.zeros(p)), xp.array(np.zeros((p, p)))
        F = ns.capture(trace_network, TracePoint(zero, zero), matrix, matrix, xp.array(1.0))
        S = ns.capture(sum_of_derivatives, matrix, matrix, matrix)
    row = count_growth([p, 8]).rows[0]
    sweeps = [reduce(operator.add, [s for c in count_steps(P) if (s := c.sweep)], EMPTY) for P in (F, S)]
    assert sweeps[0].evaluation.total() == row.evaluation
    assert sweeps[0].backprop.total() == row.gradient
    assert sweeps[0].forward(p).total() == row.derivatives
    folded = p * p if xp.name == "jax" else 0  # the relus of constant gates are evaluated while it traces
    assert sweeps[1].backprop.total() == row.reverse - folded


def test_slopes() -> None:
    found = count_growth([2**k for k in range(8, 15)])
    expected = {
        "evaluation": 2,
        "gradient": 2,
        "derivatives": 3,
        "overhead": 1,
        "reverse": 3,
        "schoolbook": 3,
        "outputs": 2,
    }
    assert {name: round(found.slopes[name], 1) for name in expected} == expected
    assert round(found.slopes["strassen"], 1) == 2.8  # log2 7
    assert all(r.outputs <= r.strassen <= r.schoolbook for r in found.rows)


def test_prices_are_counted() -> None:
    plain, dear = (count_growth([4, 8], model).rows[0] for model in (None, {"relu": 10}))
    assert dear.evaluation - plain.evaluation == 9 * 16
    assert dear.schoolbook == plain.schoolbook


def test_the_result_is_written() -> None:
    found = count_growth([4, 8])
    assert "p derivatives" in str(found) and '"outputs": 16' in found.to_json() and "<table" in found._repr_html_()


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [4], [4, 4], [0, 2], [2.0, 4], [True, 2], 5, None, ["a", 2], [2, None]], ids=str)
def test_sizes_are_checked(sizes: Any) -> None:
    with pytest.raises(UsageError, match="sizes"):
        count_growth(sizes)


def test_matrices_are_checked(xp: Adapter) -> None:
    with xp.default("double"):
        A, B = xp.array([[1.0, 2.0]]), xp.array([[1.0], [2.0]])
        for call in (product_by_directions, product_by_reverse_sweep):
            with pytest.raises(UsageError, match="cannot be multiplied"):
                call(A, A)
            with pytest.raises(UsageError, match="cannot be multiplied"):
                call(A, B[:, 0])
            with pytest.raises(UsageError, match="one framework"):
                call(A, np.ones((2, 1)))
            with pytest.raises(UsageError, match="floating"):
                call(A, xp.array([[1.0], [2.0]], "single"))
            with pytest.raises(UsageError, match="nan"):
                call(A, B * float("inf"))
        with pytest.raises(UsageError, match="square"):
            trace_by_directions(A, B, xp.array([[1.0], [2.0]]))


def test_arrays_are_checked(xp: Adapter) -> None:
    """Of products and networks: which argument, what it is, and which shape it needs."""
    with xp.default("double"):
        A, v, one = xp.array([[1.0, 2.0], [3.0, 4.0]]), xp.array([1.0, 2.0]), xp.array([1.0])
        for call, said in (
            (lambda: product_by_directions(3, A), "one framework"),
            (lambda: product_by_reverse_sweep([[1.0]], [[2.0]]), "one framework|tell the framework"),
            (lambda: trace_by_directions(A, A, None), "one framework"),
            (lambda: product_network(3, A), "product_network: x is to be an array"),
            (lambda: product_network(one, A), r"A has the shape \(2, 2\); it is to have the shape \(m, k\) with k = 1"),
            (lambda: trace_network(3, A, A, 1.0), r"the point is a TracePoint\(y, s\); found a int"),  # type: ignore[arg-type]
            (lambda: trace_network(TracePoint(v, v), A, A, "T"), "level is to be an array"),
            (lambda: trace_network(TracePoint(v, one), A, A, 1.0), r"C has the shape \(2, 2\); .* \(n, m\)"),
            (lambda: sum_of_derivatives(A, "A", A), "A is to be an array"),
        ):
            with pytest.raises(UsageError, match=said):
                call()
        assert float(trace_network(TracePoint(v, 0 * v), A, A, 1.0)) == float(
            trace_network(TracePoint(v, 0 * v), A, A, one[0])
        )
