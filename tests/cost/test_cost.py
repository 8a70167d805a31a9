"""`ns.cost`: the figures, their parts, the bound, the printed and written forms, and wrong use, on each framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.cost.definitions import DEFINITIONS, define
from nonsmooth.cost.scalars import Scalar, counter
from nonsmooth.errors import RegistrationError, ResultError, UsageError
from tests.adapters import Adapter

MATRIX = np.arange(12.0).reshape(4, 3) / 5 - 1
POINT = np.array([0.5, -1.0, 2.0])


def layer(xp: Adapter) -> Any:
    """Give f(x) = sum relu(W x), W a constant of shape 4 x 3."""
    matrix = xp.array(MATRIX)

    def f(x: Any) -> Any:
        hidden = matrix @ x
        return xp.sum(xp.relu(hidden))

    return f


def test_figures_by_hand(xp: Adapter) -> None:
    """12 products, 8 + 3 additions, 4 relus; the sweep adds two for a product by a constant, an addition, a relu."""
    cost = ns.cost(layer(xp), xp.array(POINT), own=False)
    assert (cost.evaluation, cost.backprop) == (12 + 11 + 4, 27 + 2 * (12 + 11 + 4))
    assert cost.bound == 5 and cost.holds and cost.ratio == 3
    assert (cost.entries, cost.framework, cost.uncounted) == (3, xp.name, ())
    by_name = {p.name: (p.evaluation, p.backprop, p.bound) for p in cost.operations}
    assert by_name == {"matmul": (20, 60, 5), "relu": (4, 12, 3), "sum": (3, 9, 5)}
    assert {s.operation: s.times for s in cost.scalars} == {"mul": 12, "add": 11, "relu": 4}


def test_the_other_ways_to_differentiate(xp: Adapter) -> None:
    """A direction is a product for each product by a constant and relu, an addition for each addition."""
    cost = ns.cost(layer(xp), xp.array(POINT), directions=[1, 5], own=False)
    found = {d.what: d.operations for d in cost.derivatives}
    assert found["gradient by a reverse sweep"] == cost.backprop == found["subgradient with certificate"]
    assert found["1 directional derivative"] == 27 + 27
    assert found["5 directional derivatives"] == found["lexicographic derivative, 5 directions"] == 27 + 5 * 27


def test_active_kinks_are_decided(xp: Adapter) -> None:
    """At a kink a subgradient carries a direction, and every direction compares the tangents of what ties."""
    cost = ns.cost(layer(xp), xp.array(0 * POINT), own=False)
    found = {d.what: d.operations for d in cost.derivatives}
    assert cost.kinks == 4
    assert found["subgradient with certificate"] == 2 * 27 + 4 + 2 * 27
    assert found["3 directional derivatives (a gradient)"] == 27 + 3 * 27 + 3 * 4
    assert found["lexicographic derivative, 3 directions (a gradient)"] == 27 + 3 * 27 + 3 * 4


def test_ties_of_an_order_operation_are_many_comparisons(xp: Adapter) -> None:
    """A direction through n tied entries of a maximum takes n - 1 comparisons, as through a chain of maxima."""
    cost = ns.cost(xp.max, xp.array(np.ones(9)), directions=4, own=False)
    found = {d.kind: d.operations for d in cost.derivatives}
    assert cost.evaluation == cost.backprop == 8
    assert found == {"gradient": 8, "subgradient": 16, "directional": 8 + 4 * 8, "lexicographic": 8 + 4 * 8}
    beside = ns.cost(xp.max, xp.array(np.arange(9.0)), directions=4, own=False)
    assert {d.operations for d in beside.derivatives} == {8}


def test_a_bound_that_is_attained_holds_under_any_price(xp: Adapter) -> None:
    """A quotient of prices times a count is not taken for an excess because it is rounded."""
    program = ns.capture(lambda x: xp.relu(x[0]), xp.array(POINT))
    for price in np.arange(0.01, 3, 0.07):
        assert ns.cost(program, xp.array(POINT), model={"relu": np.float32(price)}, own=False).holds


def test_a_count_beyond_the_bound_is_no_rounding(xp: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that runs one operation more, at a price of 1e-15, exceeds the bound, and the text says so."""
    program, model = ns.capture(lambda x: xp.relu(x[0]), xp.array(POINT)), {"relu": 0.3, "sign": 1e-15}
    assert ns.cost(program, xp.array(POINT), model=model, own=False).holds
    pull = Scalar.pull
    monkeypatch.setattr(Scalar, "pull", lambda scalar, moving: pull(scalar, moving) + counter("sign"))
    cost = ns.cost(program, xp.array(POINT), model=model, own=False)
    assert not cost.holds and "THE COUNTS EXCEED THE BOUND" in str(cost)
    assert json.loads(cost.to_json())["holds"] is False


def test_parts_add_up(xp: Adapter) -> None:
    """Operations, lines and modules are partitions of the program."""
    matrix = xp.array(MATRIX)

    def f(x: Any) -> Any:
        a = xp.exp(matrix @ x)
        b = xp.maximum(a, 1 / a)
        return xp.sum(b * b)

    cost = ns.cost(f, xp.array(POINT), own=False)
    for parts in (cost.operations, cost.lines, cost.modules):
        assert sum(p.evaluation for p in parts) == cost.evaluation
        assert sum(p.backprop for p in parts) == cost.backprop
        assert sum(p.steps for p in parts) == cost.steps
        assert [p.backprop for p in parts] == sorted((p.backprop for p in parts), reverse=True)
    assert len(cost.lines) == 3 and all("test_cost.py:" in p.name for p in cost.lines)


def test_prices(xp: Adapter) -> None:
    """A mapping prices some operations, the others cost 1; the bound follows."""

    def f(x: Any) -> Any:
        return xp.sum(xp.exp(x))

    unit, dear = ns.cost(f, xp.array(POINT), own=False), ns.cost(f, xp.array(POINT), model={"exp": 10}, own=False)
    assert (unit.evaluation, dear.evaluation) == (5, 32)
    assert dear.backprop - dear.evaluation == unit.backprop - unit.evaluation
    assert dear.prices == {"exp": 10} and dear.bound == 5
    assert ns.cost(f, xp.array(POINT), model={"add": 4}, own=False).bound == 1 + 2 * 4  # of exp


def test_what_the_result_does_not_need_is_not_differentiated(xp: Adapter) -> None:
    """A value of the data is evaluated and not pulled back; a detached one neither."""

    def f(x: Any, y: Any) -> Any:
        return xp.sum(x * xp.exp(y))

    cost = ns.cost(f, xp.array(POINT), xp.array(POINT), own=False)
    assert cost.evaluation == 3 + 3 + 2
    assert cost.backprop == cost.evaluation + 2 * 3 + 2 * 2


def test_own_operations(xp: Adapter) -> None:
    """An operation without a scalar program is listed, and counted once it has one."""
    if xp.name != "torch":
        pytest.skip("a user's function of torch")
    import torch

    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return grad * 2

    def f(x: torch.Tensor) -> torch.Tensor:
        return Mine.apply(x).sum()  # type: ignore[no-any-return, no-untyped-call]

    x = torch.ones(3)
    cost = ns.cost(f, x, own=False)
    assert len(cost.uncounted) == 1 and "Mine" in cost.uncounted[0] and "test_cost.py" in cost.uncounted[0]
    assert cost.evaluation == 2 and "not counted" in str(cost)
    name = next(s.operation.name for s in ns.capture(f, x).steps if s.operation.kind is ns.Kind.OPAQUE)
    define(name)(lambda call: call.x * 2.0)
    try:
        assert ns.cost(f, x, own=False).evaluation == 5
    finally:
        del DEFINITIONS[name]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (lambda call: call.x.apply("swish"), r"'relu' runs 'swish', which is no scalar operation; they are abs, acos"),
        (lambda call: call.x.cumulated("nix", 0), r"'relu' runs 'nix', which is no scalar operation"),
        (lambda call: call.x.apply("exp", call.x), r"'relu' gives two arrays to 'exp', an operation on one number"),
        (lambda call: call.x.sum(), r"'relu' gives the shape \(\), the program has \(4,\)"),
        (lambda call: 3, r"'relu' gives 3 where it may give arrays"),
        (lambda call: call.operands[4], r"'relu' fails with IndexError"),
        (lambda call: call.y, r"'relu' fails with AttributeError: .*'y'"),
    ],
)
def test_a_wrong_scalar_program(xp: Adapter, monkeypatch: pytest.MonkeyPatch, definition: Any, message: str) -> None:
    """The operation, what is wrong, the line and what to do."""
    monkeypatch.setitem(DEFINITIONS, "relu", definition)
    with pytest.raises(RegistrationError, match=message) as caught:
        ns.cost(layer(xp), xp.array(POINT))
    assert "Mend what was given to `define`. The operation stands at test_cost.py:" in str(caught.value)


def test_define_takes_names_and_a_function(xp: Adapter) -> None:
    """Anything else is said at once."""
    for names in ((), (3,), ("",)):
        with pytest.raises(RegistrationError, match="define takes the names of operations"):
            define(*names)
    with pytest.raises(RegistrationError, match="a scalar program is a function of a call; found 'x'"):
        define("mine_too")("x")  # type: ignore[arg-type]
    assert "mine_too" not in DEFINITIONS


def test_printed_and_written(xp: Adapter, tmp_path: Path) -> None:
    """The text is 100 columns wide at most; the JSON is strict and has every part; the picture is one."""
    cost = ns.cost(layer(xp), xp.array(POINT), directions=2)
    text = str(cost)
    assert max(map(len, text.splitlines())) <= 100
    assert "cost(P) = 27, cost(backprop(P)) = 81: 3.00 times" in text and "w_b = 5" in text
    read = json.loads(cost.to_json())
    assert read["evaluation"] == 27 and read["operations"][0]["name"] == "matmul" and read["format_version"] == 1
    assert read["own"]["framework"] == xp.name and read["measured"] is None
    paths = cost.save(tmp_path)
    assert sorted(p.name for p in paths) == ["cost.png", "report.json", "report.txt"]
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "<pre" in cost._repr_html_()


def test_measured_beside(xp: Adapter) -> None:
    """With `measure` the times stand beside the counts."""
    cost = ns.cost(layer(xp), xp.array(POINT), own=False, measure=True)
    assert cost.measured is not None and cost.measured.rows[0].ratio == 1.0
    assert "Measured" in str(cost)


@pytest.mark.parametrize("given", [0, -1, True, 2.5, [3, 0], "4"])
def test_impossible_directions(xp: Adapter, given: object) -> None:
    """Directions are counted."""
    with pytest.raises(UsageError, match="directions are positive whole numbers"):
        ns.cost(layer(xp), xp.array(POINT), directions=given)  # type: ignore[arg-type]


def test_a_function_with_several_results(xp: Adapter) -> None:
    """A reverse sweep starts from one number."""
    with pytest.raises(ResultError, match="starts from one number"):
        ns.cost(lambda x: x * 2, xp.array(POINT))


def test_nothing_is_counted_in_a_program_that_only_moves(xp: Adapter) -> None:
    """The ratio of 0 to 0 is none, and is printed as such."""
    cost = ns.cost(lambda x: x[0], xp.array(POINT))
    assert (cost.evaluation, cost.backprop, cost.ratio, cost.bound) == (0, 0, None, 1)
    assert cost.holds and "cost(P) = 0" in str(cost)


def test_a_captured_program_is_taken(xp: Adapter) -> None:
    """A program gives what its function gives."""
    f, x = layer(xp), xp.array(POINT)
    assert ns.cost(ns.capture(f, x), x, own=False).backprop == ns.cost(f, x, own=False).backprop
