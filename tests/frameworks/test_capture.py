"""Capture: the program is the function, by values and native gradients, on models and on awkward Python."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.errors import CaptureError, ProofFailed, RandomnessError

Pair = namedtuple("Pair", "a b")


def torch_gradient(f: Callable[..., Any], x: Any, *data: Any) -> list[torch.Tensor]:
    """Differentiate by torch alone."""
    leaves, structure = torch.utils._pytree.tree_flatten(x)
    leaves = [t.detach().clone().requires_grad_() for t in leaves]
    value = f(torch.utils._pytree.tree_unflatten(leaves, structure), *data)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]


def check(f: Callable[..., Any], x: Any, *data: Any) -> ns.Program:
    """Capture, and compare with torch at the point and at another one."""
    program = ns.capture(f, x, *data)
    generator = torch.Generator().manual_seed(3)
    moved = torch.utils._pytree.tree_map(
        lambda t: t.detach() + 0.1 * torch.randn(t.shape, generator=generator).to(t.dtype), x
    )
    for point in (x, moved):
        ours = torch.utils._pytree.tree_leaves(ns.backprop(program, point, *data))
        for mine, theirs in zip(ours, torch_gradient(f, point, *data), strict=True):
            tolerance = 1e-2 if mine.dtype == torch.bfloat16 else 1e-5
            assert torch.allclose(mine, theirs, rtol=tolerance, atol=1e-6), (mine, theirs)
    return program


class Residual(nn.Module):
    """A block with batch norm, in-place relu and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the block to its input."""
        return self.act(self.norm(self.conv(x)) + x)


class Tied(nn.Module):
    """An embedding tied to its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed and decode."""
        return self.out(torch.relu(self.embed(tokens)))


class Recurrent(nn.Module):
    """An LSTM or GRU with a linear head."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = kind(3, 5, batch_first=True, num_layers=2), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify the last state."""
        return self.head(self.cell(x)[0][:, -1])


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SERIES = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 1, 0])

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, 2)), (SERIES, LABELS)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 2),
        ),
        (IMAGES, LABELS),
    ),
    "residual": (lambda: nn.Sequential(Residual(), Residual(), nn.Flatten(), nn.Linear(192, 2)), (IMAGES, LABELS)),
    "lstm": (lambda: Recurrent(nn.LSTM), (SERIES, LABELS)),
    "gru": (lambda: Recurrent(nn.GRU), (SERIES, LABELS)),
    "rnn relu": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 2), nn.PReLU(), nn.Hardswish()), (SERIES, LABELS)),
    "encoder": (
        lambda: nn.Sequential(
            nn.Linear(3, 8),
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(48, 2),
        ),
        (SERIES, LABELS),
    ),
    "tied": (Tied, (torch.tensor([[1, 2], [3, 3]]), torch.tensor([[0, 1, 1, 0, 0, 2, 1], [1, 0, 1, 0, 0, 2, 1]]))),
    "weight norm": (
        lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(18, 2)), nn.ELU(2.0)),
        (SERIES, LABELS),
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_models(name: str, training: bool) -> None:
    """The objective of a model has torch's gradient, and the model stays what it was."""
    torch.manual_seed(0)
    build, data = MODELS[name]
    model = build().train(training)
    loss = (
        (lambda out, y: F.cross_entropy(out.flatten(0, 1), y[:, :2].flatten())) if name == "tied" else F.cross_entropy
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    f, x = ns.objective(model, loss)
    program = check(f, x, *data)
    gradients = ns.backprop(program, x, *data)
    assert set(gradients) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert model.training is training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def python_loop(x: torch.Tensor) -> torch.Tensor:
    """Sum in a loop."""
    total = torch.zeros((), dtype=x.dtype)
    for i, entry in enumerate(x):
        total = total + torch.relu(entry * (i - 1))
    return total


def in_place_chain(x: torch.Tensor) -> torch.Tensor:
    """Write to views of a clone."""
    y = x.clone()
    y[0] = y[1] * 2
    y[1:].add_(1).mul_(2)
    torch.abs_(y[2:])
    y.view(-1).relu_()
    return (y * torch.arange(4)).sum()


def literal_changed(x: torch.Tensor) -> torch.Tensor:
    """Change a literal in place: every replay must start afresh."""
    total = torch.tensor([1.0, 2.0, 3.0, 4.0])
    total += x
    total[0] *= 3
    return total.prod()


def no_grad_region(x: torch.Tensor) -> torch.Tensor:
    """Use a value that carries no gradient."""
    with torch.no_grad():
        scale = torch.relu(x).sum()
    return (x * scale).sum()


def detached(x: torch.Tensor) -> torch.Tensor:
    """Detach, by method and by `.data`."""
    return (x * x.detach() + x.data * x).sum()


def penalty(x: torch.Tensor) -> torch.Tensor:
    """Differentiate inside: a gradient penalty."""
    (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    return (g**2).sum()


def recursion(x: torch.Tensor, depth: int = 3) -> torch.Tensor:
    """Call itself."""
    return torch.abs(x).sum() if depth == 0 else recursion(torch.sin(x) - 0.1, depth - 1)


def scripted(x: torch.Tensor) -> torch.Tensor:
    """Use operators, comprehensions and numbers."""
    parts = [w * x[i] for i, w in enumerate((1.0, -2, True, np.float64(0.5)))]
    return math.pi * sum(parts) - (x @ x) / 2 + abs(x[0]) ** 2 + max(1, 2) * x.mean()


def constants(x: torch.Tensor) -> torch.Tensor:
    """Make constants of every sort."""
    mask = torch.tensor([True, False, True, True])
    return (torch.where(mask, x, -x) + torch.arange(4) + torch.ones_like(x) + torch.full((4,), 2.0)).prod()


def checkpointed(x: torch.Tensor) -> torch.Tensor:
    """Recompute in the backward pass."""
    return torch.utils.checkpoint.checkpoint(lambda u: torch.relu(u).sum(), x, use_reentrant=False)


AWKWARD = [
    python_loop, in_place_chain, literal_changed, no_grad_region, detached, penalty, recursion, scripted, constants,
]  # fmt: skip


@pytest.mark.parametrize("f", AWKWARD, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_awkward_python(f: Callable[..., Any], dtype: torch.dtype) -> None:
    """Loops, views, literals, regions: torch's gradient at every point, or a refusal, never a wrong number."""
    x = torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=dtype)
    try:
        check(f, x)
    except CaptureError as error:
        assert f in (penalty,), error


def test_structures_and_shapes() -> None:
    """Trees, zero dimensions, empty tensors, views, half precision."""
    tree = {"u": torch.tensor(0.5), "v": [torch.ones(2), (torch.zeros(0), Pair(torch.ones(1), torch.tensor([2.0])))]}
    check(lambda x: x["u"] * x["v"][0].sum() + x["v"][1][0].sum() + (x["v"][1][1].a * x["v"][1][1].b).sum(), tree)
    check(lambda x: torch.relu(x).sum(), torch.randn(6, 4).t()[1:])
    check(lambda x: (torch.relu(x) ** 2).sum(), torch.randn(5).bfloat16())
    assert ns.backprop(lambda x: x["a"] * 2, {"a": torch.tensor(1.0), "b": torch.ones(2)})["b"].tolist() == [0, 0]


def test_autocast() -> None:
    """A region of automatic casting is replayed as such."""

    def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ w).float().sum()

    program = check(f, torch.randn(3, 3), torch.randn(3, 3))
    assert any(s.mode.autocast for s in program.steps)


class Double(torch.autograd.Function):
    """A user's own function, whose backward says 2 where the derivative is 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Return the operand."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        """Lie."""
        return 2 * g


bound_before = Double.apply


def test_a_users_function_keeps_its_backward() -> None:
    """It is one opaque step, found also through a method that was bound earlier, and reported."""
    program = check(lambda x: torch.relu(bound_before(x)).sum(), torch.ones(3))
    assert program.steps[0].operation.kind.value == "opaque"
    assert ns.backprop(program, torch.ones(3)).tolist() == [2, 2, 2]
    assert [f.rule for f in program.findings] == ["opaque"]
    assert "apply" not in torch.autograd.function._SingleLevelFunction.__dict__


def test_what_torch_does_not_see_is_refused() -> None:
    """A value through numpy loses its gradient in torch as well; hidden state is refused."""
    program = ns.capture(lambda x: (x * torch.from_numpy(x.detach().numpy() * 2)).sum(), torch.ones(2))
    assert [g.kind for g in program.guards] == ["numpy"]
    assert ns.backprop(program, torch.tensor([3.0, 5.0])).tolist() == [6, 10]
    calls: list[int] = []

    def stateful(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (x * len(calls)).sum()

    with pytest.raises(ProofFailed, match="deterministic"):
        ns.capture(stateful, torch.ones(2))
    rng = np.random.default_rng(0)
    with pytest.raises(ProofFailed):
        ns.capture(lambda x: (x * float(rng.random())).sum(), torch.ones(2))


def test_the_proof_sees_a_wrong_program() -> None:
    """A program whose constant or step is wrong does not pass."""
    from nonsmooth.frameworks.torch.proof import Native, prove
    from nonsmooth.frameworks.torch.tree import RandomState

    def native(program: ns.Program) -> Native:
        return Native(program.function, RandomState(), [], [])

    x = torch.tensor([1.0, 2.0])
    program = ns.capture(lambda u: (u * torch.tensor([2.0, 3.0])).sum(), x)
    (number, value), *_ = program.constants.items()
    planted = replace(program, constants={**program.constants, number: value + 1})
    with pytest.raises(ProofFailed, match="values"):
        prove(planted, native(planted), x, ())
    program = ns.capture(lambda u: torch.exp(u).sum(), x)
    lost = tuple(
        replace(s, target=lambda t: torch.exp(t.detach()) + 0 * t) if s.operation.name == "exp" else s
        for s in program.steps
    )
    with pytest.raises(ProofFailed, match="gradients"):
        prove(replace(program, steps=lost), native(program), x, ())


RANDOM: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5).sum(),
    "rand": lambda x: (x * torch.rand(6)).sum(),
    "randn_like": lambda x: (x * torch.randn_like(x)).sum(),
    "bernoulli": lambda x: (x * torch.bernoulli(torch.full((6,), 0.5))).sum(),
    "rrelu": lambda x: F.rrelu(x, training=True).sum(),
    "in place": lambda x: (x * torch.empty(6).normal_()).sum(),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, True).sum(),
    "randperm": lambda x: (x[torch.randperm(6)] * torch.arange(6.0)).sum(),
    "gumbel": lambda x: (F.gumbel_softmax(x) ** 2).sum(),
    "sdpa": lambda x: F.scaled_dot_product_attention(
        x[None, :, None], x[None, :, None], x[None, :, None], dropout_p=0.5
    ).sum(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_randomness(name: str) -> None:
    """Refused by line; with "freeze" the draws of the capture stay, and the generator is where it was."""
    f, x = RANDOM[name], torch.linspace(-1, 1, 6)
    with pytest.raises(RandomnessError, match=r"test_capture\.py:\d+.*freeze"):
        ns.capture(f, x)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    program = ns.capture(f, x, randomness="freeze")
    assert torch.equal(state, torch.get_rng_state())
    first, second = ns.value_and_backprop(program, x), ns.value_and_backprop(program, x)
    assert torch.equal(first.value, second.value) and torch.equal(first.gradient, second.gradient)
    torch.manual_seed(5)
    assert torch.allclose(first.gradient, torch_gradient(f, x)[0])
    F.dropout(x, 0.5, training=False)
    assert ns.capture(lambda u: F.dropout(u, 0.5, training=False).sum(), x).steps
