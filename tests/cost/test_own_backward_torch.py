"""torch's own backward, counted: the zoo, another counter's answers, layers without lines, and nothing disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import nonsmooth as ns
from nonsmooth.cost.definitions import tally_of
from nonsmooth.cost.own_backward import OwnCost, compare_backward
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


def test_a_model_of_layers_has_the_line_of_its_steps() -> None:
    """Where no line of the user's calls the layers, the backward stands where the program's steps stand."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    f, x = ns.objective(model, F.cross_entropy)
    data = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    program = ns.capture(f, x, *data)
    own = compare_backward(program, x, data)
    (line,) = own.lines
    assert line.text == "program = ns.capture(f, x, *data)"
    assert line.evaluation > 0
    assert line.backward > 0


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
