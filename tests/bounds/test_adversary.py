"""Programs built to break bounds: writes in place, values used twice, draws, jumps, complex numbers, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.errors import UnlistedOperation


@pytest.fixture(autouse=True)
def _double() -> Any:
    """Work in double precision."""
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(torch.float)


def test_a_value_is_kept_for_what_reads_it_after_a_formula() -> None:
    """s + 3 w_1 after s = <w, w>, which is known again as one map of w: |2 w + 3 e_1| <= 5."""
    found = ns.bounds(lambda w: (w * w).sum() + 3 * w[0], torch.ones(3), weights=1.0).weights
    assert found.lipschitz >= 5.0
    assert found.lipschitz <= 5.0 * (1 + 1e-6)


class Running(nn.Module):
    """A network whose result is the running mean of a batch normalisation in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, and give the statistics."""
        self.norm(x)
        return 10 * self.norm.running_mean


@pytest.mark.parametrize("inputs", [0.1, None])
def test_running_statistics_are_not_what_they_were(inputs: float | None) -> None:
    """They move with the batch; nothing is known of them after the step, not even where nothing moves."""
    model, x = Running(), torch.arange(8.0).reshape(4, 2)
    found = ns.bounds(model, x, weights=1.0, inputs=inputs).inputs
    moved = float(torch.linalg.vector_norm(Running()(x)))
    assert found.norm >= moved > 0
    assert found.lipschitz == (inf if inputs else 0.0)
    assert torch.equal(model.norm.running_mean, torch.zeros(2))


DRAWS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "dropout": (lambda x: nn.functional.dropout(x, 0.5), 2.0),
    "dropout2d": (lambda x: nn.functional.dropout2d(x[None, :, :, None], 0.5), 2.0),
    "normal": (lambda x: torch.normal(x, 1.0), 1.0),
    "poisson": (lambda x: torch.poisson(x.exp()), 1.0),
    "bernoulli": (lambda x: torch.bernoulli(torch.sigmoid(x)), 1.0),
    "rrelu": (lambda x: nn.functional.rrelu(x, 1.0, 3.0, True), 1.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_that_follow_an_input_move_with_it(name: str) -> None:
    """A draw is a constant; what is drawn by a law that moves, and what a mask multiplies, is none."""
    draw, least = DRAWS[name]
    state = torch.get_rng_state()
    found = ns.bounds(lambda w, x: w.sum() + draw(x), torch.ones(2), torch.ones(2, 3), inputs=1.0).inputs
    assert found.lipschitz >= least
    assert torch.equal(state, torch.get_rng_state())


def test_draws_whose_law_stands_still_are_constants() -> None:
    """A fixed probability is no reason for an infinite bound, nor is a shape."""
    found = ns.bounds(lambda w, p: w * torch.bernoulli(p) + torch.rand_like(w), torch.ones(3), torch.ones(3), weights=1)
    assert found.weights.lipschitz == pytest.approx(1.0)


JUMPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cast": lambda x: (10 * x).long().double() @ torch.ones(2, 2),
    "index": lambda x: (x @ torch.ones(2, 2))[torch.arange(1)[:, None], (x > 0).long()],
    "gather": lambda x: (x @ torch.ones(2, 2)).gather(1, (x > 0).long()),
    "masked_scatter": lambda x: (x @ torch.ones(2, 2)).masked_scatter(x > 0, 3 * x),
    "index_add": lambda x: (2 * x).index_add(1, (x[0] > 0).long(), x),
    "where": lambda x: torch.where(x > 0, x, 5.0),
}


@pytest.mark.parametrize("name", JUMPS)
@pytest.mark.parametrize("kind", ["weights", "inputs"])
def test_what_is_chosen_by_whole_numbers_that_move_has_no_bounds(name: str, kind: str) -> None:
    """Neither l nor L is finite, by whichever way; the finer bounds in the input do not follow whole numbers."""
    f, x = JUMPS[name], torch.tensor([[0.01, 0.5]])
    if kind == "weights":
        found = ns.bounds(f, x, weights=ns.Ball(0.1, "here")).weights
    else:
        found = ns.bounds(lambda w, x: f(x), torch.ones(1), x, inputs=0.1).inputs
    assert (found.lipschitz, found.smoothness) == (inf, inf)


def test_a_choice_that_is_continuous_has_no_bounded_curvature() -> None:
    """-relu(-x), written with a mask: its derivative jumps."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y = 2 * x
        y[x > 0] = 0.0
        return y

    found = ns.bounds(f, torch.zeros(3), weights=1.0).weights
    assert found.lipschitz >= 2.0
    assert found.smoothness == inf


COMPLEX: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], float]] = {
    "number": (lambda a, b: a * (3 + 4j), 5.0),
    "constant": (lambda a, b: a * torch.tensor([3 + 4j, 1j]), 5.0),
    "pair": (lambda a, b: torch.complex(a, b), 1.0),
    "square": (lambda a, b: torch.complex(a, b) ** 2, 2.0),
    "sine": (lambda a, b: torch.sin(torch.complex(a, 3 * b)), 6.0),
    "product": (lambda a, b: torch.complex(a, b)[None] @ torch.tensor([[1j], [1.0]]), sqrt(2)),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize(
    "ball", [1.0, ns.Ball(1.0, "here"), ns.Ball(1.0, norm="max"), ns.Ball(1.0, "here", norm="max")], ids=str
)
def test_complex_numbers_keep_their_imaginary_parts(name: str, ball: Any) -> None:
    """Sizes and constants are those of pairs of numbers, and where a function has none for them it says so."""
    f, least = COMPLEX[name]
    x = torch.tensor([0.3, -0.2])
    found = ns.bounds(lambda w: f(w["a"], w["b"]), {"a": x, "b": 2 * x}, weights=ball).weights
    assert found.lipschitz >= least * (1 - 1e-9)
    rng, whole = np.random.default_rng(0), not isinstance(ball, float)
    for _ in range(50):
        parts = []
        for center in (x, 2 * x):
            v = rng.normal(size=2)
            v /= np.max(np.abs(v)) if whole and ball.norm == "max" else np.linalg.norm(v)
            parts.append(torch.as_tensor(v) + (center if whole and ball.center == "here" else 0.0))
        assert float(torch.linalg.vector_norm(f(*parts))) <= found.norm


class OneWay(torch.autograd.Function):
    """A function with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Give 9 x."""
        return 9 * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Give the cotangent."""
        return g


def test_a_function_with_its_own_backward_is_named() -> None:
    """It is the operation without constants, on weights and on inputs, not values that are asked for."""
    with pytest.raises(UnlistedOperation, match=r"`OneWay` .* has no constants"):
        ns.bounds(lambda w: OneWay.apply(w), torch.ones(3), weights=1.0)
    with pytest.raises(UnlistedOperation, match=r"`OneWay` .* has no constants"):
        ns.bounds(lambda w, x: w + OneWay.apply(x), torch.ones(3), torch.ones(3), inputs=1.0)


def test_whole_numbers_are_not_where_the_center_is() -> None:
    """Sizes of what is rounded to whole numbers, and of truth values, are not those of what they come from."""
    x = torch.full((4,), 0.95)
    near = ns.bounds(lambda w: 10 * w.long().double(), x, weights=ns.Ball(0.2, "here"))
    assert near.weights.norm >= 10.0
    assert near.weights.lipschitz == inf
    tiny = ns.bounds(lambda w: w.bool().double(), torch.zeros(4), weights=1e-3)
    assert tiny.weights.norm >= 2.0


def test_additions_at_places_in_single_precision() -> None:
    """JAX: what is traced in single precision is evaluated in double, with the function that a scatter applies."""
    jnp = pytest.importorskip("jax.numpy")
    found = ns.bounds(lambda w: w.at[1].add(3 * w[0]), jnp.ones((2, 3), dtype=jnp.float32), weights=1.0).weights
    assert found.lipschitz >= float(np.linalg.norm([[1, 0], [3, 1]], 2))
    assert found.smoothness == 0.0


def test_modules_and_weights_that_are_shared_stay_what_they_are() -> None:
    """A module used twice, and a weight of two modules: nothing of the model is changed, and both places are followed."""
    shared = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(3, 3))
    model[3].weight = shared[1].weight
    before = {n: (t, t.detach().clone()) for n, t in (*model.named_parameters(), *model.named_buffers())}
    x = torch.arange(12.0).reshape(4, 3).cos()
    ns.bounds(model, x, weights=1.0)
    f, w = ns.objective(model, step=lambda m, x: m(x))
    ns.capture(f, w, x)
    assert torch.allclose(f(w, x), model(x))
    for n, t in (*model.named_parameters(), *model.named_buffers()):
        assert t is before[n][0]
        assert n.rpartition(".")[2].startswith(("running", "num")) or torch.equal(t, before[n][1])
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    found = ns.bounds(tied, torch.tensor([[1.0, 0.0]]), weights=1.0).weights
    assert found.lipschitz >= 2.0 * (1 - 1e-9)


INDEXED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gather": lambda x, i: x.gather(1, i),
    "index": lambda x, i: x[0][i[0]],
    "index_select": lambda x, i: x.index_select(1, i[0]),
    "take": torch.take,
    "embedding": lambda x, i: nn.functional.embedding(i[0], x.T),
    "scatter": lambda x, i: torch.zeros(1, 2).scatter(1, i, x),
    "index_put": lambda x, i: x.clone().index_put((0 * i[0], i[0]), x[0]),
}


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("kind", ["weights", "inputs"])
def test_indices_that_move_may_take_any_entry(name: str, kind: str) -> None:
    """At the center two small entries are taken; elsewhere in the set two large ones."""
    f, x, i = INDEXED[name], torch.tensor([[0.0, 100.0]]), torch.full((1, 2), -0.05)
    ball = ns.Ball(0.1, "here", norm="max")
    if kind == "weights":
        found = ns.bounds(lambda w: f(w["x"], (w["i"] > 0).long()), {"x": x, "i": i}, weights=ball)
    else:
        found = ns.bounds(lambda w, x, i: f(x, (i > 0).long()), torch.ones(1), x, i, inputs=ball)
    for v in (i, -i, i * torch.tensor([[1.0, -1.0]])):
        assert found.both.norm >= float(torch.linalg.vector_norm(f(x, (v > 0).long())))
    assert found.both.lipschitz == inf
