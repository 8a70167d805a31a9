"""torch's own backward, counted: the zoo, another counter's answers, layers without lines, and nothing disturbed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import nonsmooth as ns
from nonsmooth.cost.definitions import DEFINITIONS, define, tally_of
from nonsmooth.cost.own_backward import OwnCost, compare_backward
from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS
from nonsmooth.frameworks.torch.python_nodes import PythonNodes
from tests.zoo import ZOO, randn

SHORT = [
    *("encoder", "attention without weights", "lstm with projection", "convolutions", "batch norm, training"),
    *(
        "group, instance and layer norm",
        "embedding",
        "group sort",
        "points",
        "activations",
        "penalty through layer norm",
    ),
    *("matrix norm nuc", "cholesky", "distances", "index operations", "ctc", "losses", "writing", "more pooling"),
]


def compared(f: Callable[..., Any], x: Any, *data: Any) -> OwnCost:
    """Capture and compare."""
    return compare_backward(ns.capture(f, x, *data), x, data)


def check_zoo(name: str) -> None:
    """Everything is counted, or named with its pass and its line; the figures fit together."""
    f, x, data = ZOO[name]()
    own = compared(f, x, *data)
    assert not own.failed
    assert own.forward > 0
    assert own.backward > 0
    assert (own.ratio is None) == bool(own.uncounted)
    for text in own.uncounted:
        assert any(f"({phase}, " in text for phase in ("program", "forward", "backward")), text
        assert "unknown line" not in text
    assert all(line.again == 0 for line in own.lines)
    assert 0 <= own.fills <= own.writes
    for finding in own.findings:
        assert finding.rule in ("dense-backward", "costly-backward")
        assert finding.source is not None


@pytest.mark.parametrize("name", SHORT)
def test_some_of_the_zoo_is_counted(name: str) -> None:
    """One program of each kind."""
    check_zoo(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ZOO if n not in SHORT])
def test_the_zoo_is_counted(name: str) -> None:
    """All others."""
    check_zoo(name)


class Attention(nn.Module):
    """Self-attention with weights, so that torch takes its plain path."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Attend."""
        return self.layer(u, u, u, need_weights=True)[0]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)), (5, 6)),
    "CNN": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.Flatten(), nn.Linear(24, 3)
        ),
        (2, 3, 8, 8),
    ),
    "attention": (Attention, (2, 5, 8)),
}

PRODUCTS = frozenset("mm addmm bmm baddbmm convolution convolution_backward".split())


@pytest.mark.parametrize("name", ["MLP", "CNN", "attention"])
def test_products_are_those_of_torchs_own_counter(name: str) -> None:
    """torch counts two operations for each product of matrix products and unpadded convolutions, and so many are ours."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, inputs = make().double(), randn(*shape)
    f, x = ns.objective(model, step=lambda m, u: m(u).square().sum())
    program = ns.capture(f, x, inputs)
    counts: Counter[str] = Counter()
    for entry in program.framework.own_backward(program, x, (inputs,)).entries:
        if entry.call.operation in PRODUCTS:
            tally = tally_of(entry.call)
            assert tally is not None
            counts[entry.phase] += tally.sweep().evaluation["mul"]
    with FlopCounterMode(display=False) as forward:
        loss = model(inputs).square().sum()
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(loss, list(model.parameters()))
    assert 2 * counts["forward"] == forward.get_total_flops() > 0
    assert 2 * counts["backward"] == backward.get_total_flops() > 0


def test_a_model_of_layers_has_a_row_for_each_module() -> None:
    """Where no line of the user's calls the layers, they stand by their modules, in text and JSON; the loss at the call."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3)))
    f, x = ns.objective(model, F.cross_entropy)
    data = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    program = ns.capture(f, x, *data)
    own = compare_backward(program, x, data)
    rows = {line.name: line for line in own.lines}
    (loss,) = rows.keys() - {"module 0", "module 1", "module 2.0"}
    assert rows[loss].text == "program = ns.capture(f, x, *data)"
    assert rows["module 0"].text == ""
    product = lambda m, k, n: m * k * n + m * (k - 1) * n  # noqa: E731
    assert rows["module 1"].forward == rows["module 1"].backward == 40
    assert rows["module 0"].forward == product(5, 4, 8) + 40
    assert rows["module 0"].backward == product(8, 5, 4) + 4 * 8
    assert rows["module 2.0"].backward == product(3, 5, 8) + product(5, 3, 8) + 4 * 3
    assert "module 2.0" in str(own)
    assert {line["name"] for line in json.loads(own.to_json())["lines"]} == set(rows)


def test_a_finding_about_layers_names_the_module() -> None:
    """A checkpoint around layers that no line of the user's calls is found under their path."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = nn.Sequential(checkpoint_wrapper(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 1))
    own = compared(model, torch.randn(1, 4))
    found = [finding.message for finding in own.findings if finding.rule == "rematerialisation"]
    assert any("of module `0._checkpoint_wrapped_module.1` again" in message for message in found)


# --- operators and functions of the user's ----------------------------------------------------------------------------


def registered(name: str, backward: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make an operator 2 x with a backward, and register it with a scalar program."""

    @torch.library.custom_op(f"nonsmooth_cost::{name}", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    operator.register_autograd(
        lambda ctx, grad: backward(grad, *ctx.saved_tensors),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    ns.register(ns.Operation(name=name, kind=ns.Kind.SMOOTH), torch=f"nonsmooth_cost::{name}")
    define(name)(lambda call: call.x * 2.0)
    return operator


@pytest.fixture
def _tables() -> Iterator[None]:
    """Put the tables of operations back."""
    tables = OPERATIONS, FRAMEWORK_NAMES.setdefault("torch", {}), DEFINITIONS
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        for name in table.keys() - old.keys():
            del table[name]


@pytest.mark.usefixtures("_tables")
def test_a_registered_operator_is_counted_in_both_passes() -> None:
    """Its forward by its scalar program, its backward by the operators that this runs; it is one step."""
    twice = registered("twice", lambda grad, x: grad * 2 * x.exp())
    x = torch.ones(5)
    cost = ns.cost(lambda x: twice(x).sum(), x)
    assert (cost.uncounted, cost.steps, cost.evaluation) == ((), 2, 9)
    assert cost.own is not None
    assert (cost.own.uncounted, cost.own.forward, cost.own.backward) == ((), 9, 15)
    assert cost.own.ratio == 24 / 9


@pytest.mark.usefixtures("_tables")
def test_a_backward_that_is_another_operator_is_named_until_it_has_a_program() -> None:
    """With the name of its library: one that is called as an operator of torch's is not taken for it."""

    @torch.library.custom_op("nonsmooth_cost::mul", mutates_args=())
    def kernel(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return grad * x.exp()

    operator = registered("with_kernel", kernel)
    own = compared(lambda x: operator(x).sum(), torch.ones(5))
    assert [text.split(" (")[0] for text in own.uncounted] == ["nonsmooth_cost_mul"]
    assert own.ratio is None
    define("nonsmooth_cost_mul")(lambda call: call.x * call.operands[1].apply("exp"))
    own = compared(lambda x: operator(x).sum(), torch.ones(5))
    assert (own.uncounted, own.backward) == ((), 10)


@pytest.mark.usefixtures("_tables")
def test_a_backward_out_of_sight_is_named_until_it_has_a_program() -> None:
    """What numpy computes in a backward pass is no operator of torch's."""
    operator = registered("by_numpy", lambda grad, x: torch.from_numpy(grad.numpy() * 2))
    own = compared(lambda x: operator(x).sum(), torch.ones(5))
    (text,) = own.uncounted
    assert text.startswith("nonsmooth_cost_by_numpy_backward (backward, test_own_backward_torch.py:")
    assert own.ratio is None
    define("nonsmooth_cost_by_numpy_backward")(lambda call: call.x * 2.0)
    own = compared(lambda x: operator(x).sum(), torch.ones(5))
    assert (own.uncounted, own.backward) == ((), 5)


class Squared(torch.autograd.Function):
    """x^2, whose backward is chosen by a number: by numpy, or one that computes nothing."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, way: int) -> torch.Tensor:
        """Square, and keep what each way needs."""
        ctx.save_for_backward(x)
        ctx.way, ctx.twice = way, x * 2
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Pull back."""
        (x,) = ctx.saved_tensors
        found = (torch.from_numpy(2 * x.detach().numpy() * grad.numpy()), grad, ctx.twice, grad[:], None)[ctx.way]
        return found, None


@pytest.mark.parametrize("way", range(5))
def test_a_function_in_python_is_named_where_it_computes_out_of_sight_alone(way: int) -> None:
    """Handing on the cotangent, what was kept, a view or nothing costs nothing, and is no gap."""
    own = compared(lambda x: Squared.apply(x, way).sum(), torch.ones(5))
    named = [text for text in own.uncounted if "SquaredBackward (backward" in text]
    assert len(named) == (way == 0)
    assert len(own.uncounted) == 1 + (way == 0)  # and the step of the program


def test_hooks_are_taken_off_graphs_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph outside of the function is watched, and is as it was afterwards."""
    w, met = torch.ones(5, requires_grad=True), []
    monkeypatch.setattr(PythonNodes, "_before", lambda self, come: met.append(come))
    outside = Squared.apply(w, 0)
    program = ns.capture(lambda x: (Squared.apply(x, 1) * outside).sum(), torch.ones(5))
    program.framework.own_backward(program, torch.ones(5), ())
    assert len(met) == 1
    (grad,) = torch.autograd.grad(outside.sum(), w)
    assert grad.tolist() == [2.0] * 5
    assert len(met) == 1


def test_nothing_of_the_users_changes() -> None:
    """Running statistics, random generators, `.grad`, modes and the versions of tensors stay as they were."""
    norm, outside = nn.BatchNorm1d(3).double(), randn(3, seed=3).requires_grad_()
    x = randn(4, 3).requires_grad_()
    program = ns.capture(lambda x: (norm(x) * outside).square().sum(), x)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    version, state = x._version, torch.get_rng_state()
    with torch.no_grad():
        program.framework.own_backward(program, x, ())
        assert not torch.is_grad_enabled()
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert x.grad is None
    assert outside.grad is None
    assert norm.weight.grad is None
    assert x._version == version
    assert torch.equal(torch.get_rng_state(), state)


def test_writes_in_place_and_gradients_inside_have_their_lines() -> None:
    """A write to a view, and the gradient of a gradient, stand at their own lines."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[0] = x[1].exp()
        (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return g.square().sum()

    own = compared(f, randn(4))
    texts = {line.text for line in own.lines if line.backward}
    assert "(g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)" in texts
    assert "an unknown line" not in {line.name for line in own.lines}
    assert not own.uncounted
