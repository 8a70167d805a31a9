"""The kink linearisation against backprop under the same weights, and its sweeps against one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import Linearisation, linearise
from nonsmooth.kinks.selection import _randomly
from tests.programs.generator import random_program
from tests.shortened import shortened

DTYPE = torch.float64
Rules = dict[int, dict[str, Any]]


def cut(f: Callable[..., Any], x: Any, *data: Any, tol: float = 0.0) -> Linearisation:
    """Linearise a function."""
    program, framework = as_program(f, x, data)
    return linearise(framework, program, x, data, tol)


def draw_rules(system: Linearisation, rng: np.random.Generator, ends: bool) -> Rules:
    """Draw a rule for every kink of every step that was cut: inside the segments, or at their ends."""
    draw, table = _randomly(rng), {}
    for opened in system.sweeps.evaluation.cuts:
        operation = opened.step.operation
        rules = {k: draw(opened.step, k, opened.call) for k in operation.kinks if k in opened.rules}
        if ends and operation.kind.value == "switch":
            rules = {k: (rule > 0.5).to(rule.dtype) for k, rule in rules.items()}
        table[opened.step.index] = rules
    return table


def tangents_like(operands: tuple[torch.Tensor, ...], rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Draw a tangent for every operand."""
    found = []
    for t in operands:
        drawn = torch.as_tensor(rng.standard_normal((2, *t.shape)))
        found.append((drawn[0] + 1j * drawn[1] if t.is_complex() else drawn[0]).to(t.dtype))
    return tuple(found)


def weights_under(system: Linearisation, table: Rules, rng: np.random.Generator) -> list[np.ndarray]:
    """Find the weights W that the rules stand for: push under the rules less push under those of the cut is W z.

    W is checked to be in the set of its kink, as far as the z that tangents can have tell.
    """
    found = []
    for opened in system.sweeps.evaluation.cuts:
        operation, rules, call = opened.step.operation, table[opened.step.index], opened.call
        many = 2 + max((b.weights.compared for b in opened.blocks), default=0)
        drawn = [tangents_like(call.operands, rng) for _ in range(many)]
        gained = [(operation.push(call, rules, t) - operation.push(call, opened.rules, t)).reshape(-1) for t in drawn]
        u = np.array([g.numpy() for g in gained], dtype=float)
        for block in opened.blocks:
            if block.kink == "zero entry":  # several kinks add to one result
                mask = operation.active(call)["zero entry"].numpy().ravel()
                found += [np.array([[w]]) for w in rules["zero entry"].numpy().ravel()[mask]]
                continue
            z = np.array([block.jumps(t).numpy() for t in drawn], dtype=float)
            for i in range(len(block)):
                solved, *_ = np.linalg.lstsq(z[:, i], u[:, block.places[i]], rcond=1e-6)
                close = 1e-9 if call.result.dtype == DTYPE else 1e-4
                np.testing.assert_allclose(z[:, i] @ solved, u[:, block.places[i]], atol=close, err_msg=f"{block.kink}")
                found.append(solved.T)
                y = rng.standard_normal((many, block.weights.outputs))
                gain = np.sum(y * u[:, block.places[i]], axis=1)
                assert np.all(gain <= block.weights.support(y, z[:, i]) + 30 * close), f"{block.kink}: not in the set"
    return found


def check(f: Callable[..., Any], x: Any, *data: Any, seed: int = 0, ends: bool = False, close: float = 1e-9) -> int:
    """Compare gradients under drawn weights with backprop, and the sweeps with one another; give the number of kinks."""
    rng = np.random.default_rng(seed)
    program, framework = as_program(f, x, data)
    system = linearise(framework, program, x, data)
    table = draw_rules(system, rng, ends)
    weights = weights_under(system, table, rng)
    selected = ns.backprop(program, x, *data, at_kinks=lambda step, kink, call: table.get(step.index, {}).get(kink))
    expected = framework.flat(selected)
    Z, L = system.rows()
    scale = 1 + np.abs(expected).max(initial=0) + np.abs(Z).max(initial=0)
    np.testing.assert_allclose(system.gradient(weights), expected, atol=close * scale)
    np.testing.assert_allclose(system.L.toarray(), L, atol=close * scale)
    for d in rng.standard_normal((2, system.J.size)):
        np.testing.assert_allclose(Z @ d, system.push(d), atol=close * scale)
    seeds = rng.standard_normal(len(Z))
    np.testing.assert_allclose(system.pull(seeds), seeds @ Z, atol=close * scale)
    rows, columns = np.nonzero(L)
    assert np.all(system.kink_of_z[rows] > system.kink_of_u[columns])
    return system.count


@pytest.mark.parametrize("block", shortened(range(6), 2))
def test_random_programs(block: int) -> None:
    kinks = [
        check(p.function(), p.x(), seed=seed, ends=seed % 2 == 1)
        for seed in range(25 * block, 25 * (block + 1))
        for p in [random_program(seed)]
    ]
    assert sum(kinks) > 30


KINDS = ["switch", "order", "norm", "spectral", "choose", "cancelling", "flat"]


@pytest.mark.parametrize(("block", "kind"), shortened([(b, kind) for b in range(2) for kind in KINDS], len(KINDS)))
def test_random_programs_of_one_kind(block: int, kind: str) -> None:
    kinks = []
    for seed in range(6 * block, 6 * (block + 1)):
        p = random_program(seed, ("gather", kind), (4, 9))
        kinks.append(check(p.function(), p.x(), seed=seed, ends=seed % 3 == 0))
    assert sum(kinks) >= 4, kinks


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_random_programs_at_length(block: int) -> None:
    for seed in range(10_000 + 500 * block, 10_000 + 500 * (block + 1)):
        p = random_program(seed)
        check(p.function(), p.x(), seed=seed, ends=seed % 2 == 1)


CASES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], list[float], int]] = {
    "relu of a difference": (lambda x: torch.relu(x[0] - x[1]) * x[0], [2.0, 2.0], 1),
    "chain": (lambda x: ((x.abs() + x).abs() + x.sum()).abs().sum(), [0.0, 0.0], 6),
    "clamp of a number": (lambda x: x.clamp(0.0, 1.0).sum(), [0.0, 1.0, 0.5], 2),
    "bounds coincide": (lambda x: F.hardtanh(x, 1.0, 1.0).sum(), [1.0, 2.0], 1),
    "bounds are tensors that coincide": (lambda x: torch.clamp(x[0], x[1], x[2]) + x.sum(), [1.0, 1.0, 1.0], 1),
    "bounds coincide above": (lambda x: torch.clamp(x[0], x[1], x[2]) + x.sum(), [0.0, 1.0, 1.0], 1),
    "bounds coincide below": (lambda x: torch.clamp(x[0], x[1], x[2]) + x.sum(), [2.0, 1.0, 1.0], 0),
    "max of four": (lambda x: x.max() * x[0] + x.amin(), [1.0, 1.0, 1.0, 1.0], 2),
    "two reductions": (lambda x: (x.reshape(2, 2).amax(0) * x[:2]).amax(), [1.0, 1.0, 1.0, 1.0], 3),
    "sort": (lambda x: (x.sort().values * torch.tensor([1.0, 2.0, -1.0, 3.0], dtype=DTYPE)).sum(), [1, 0, 1, 0], 2),
    "sort downwards": (lambda x: (x.sort(descending=True).values * x).sum(), [1.0, 0.0, 1.0, 1.0], 1),
    "topk": (lambda x: (x.topk(3).values * x[:3]).sum(), [2.0, 1.0, 1.0, 1.0, 0.0], 1),
    "topk in any order": (lambda x: x.topk(2, sorted=False).values.sum(), [1.0, 1.0, 1.0, 0.0], 1),
    "kthvalue": (lambda x: x.kthvalue(2).values * x.sum(), [1.0, 1.0, 1.0], 1),
    "median": (lambda x: x.median(), [1.0, 1.0, 2.0, 0.0], 1),
    "cummax": (lambda x: (x.cummax(0).values * x).sum(), [1.0, 1.0, 0.0, 1.0], 3),
    "max_pool": (lambda x: F.max_pool1d(x.reshape(1, 1, -1), 2, 1, 1).sum(), [0.0, 0.0, 1.0, 1.0], 2),
    "1-norm": (lambda x: torch.linalg.vector_norm(x, 1) * x[2], [0.0, 0.0, 2.0], 2),
    "1.5-norm": (lambda x: torch.linalg.vector_norm(x[:2], 1.5) * x[2], [0.0, 0.0, 2.0], 1),
    "inf-norm at zero": (lambda x: torch.linalg.vector_norm(x[:2], torch.inf) * x[2], [0.0, 0.0, 2.0], 1),
    "inf-norm of one entry": (lambda x: torch.linalg.vector_norm(x[:1], torch.inf) * x[1], [0.0, 2.0], 1),
    "inf-norm at a tie": (lambda x: torch.linalg.vector_norm(x, torch.inf) * x[1], [-3.0, 2.0, 3.0], 1),
    "rows of norms": (lambda x: x.reshape(2, 2).norm(dim=1).norm(), [0.0, 0.0, 0.0, 0.0], 3),
    "std": (lambda x: x.std() + torch.relu(x).std(), [2.0, 2.0, 2.0], 2),
    "hypot": (lambda x: torch.hypot(x[0], x[1].abs()), [0.0, 0.0], 2),
    "cdist": (lambda x: torch.cdist(x.reshape(2, 2), x.reshape(2, 2)[:1]).sum(), [1.0, 2.0, 1.0, 2.0], 2),
    "complex abs": (lambda x: torch.complex(x[:2], x[2:]).abs().sum(), [0.0, 1.0, 0.0, 0.0], 1),
    "where": (lambda x: torch.where(x > 0, x * x[0], x.sin() * x[1]).sum(), [0.0, 0.0, 3.0], 2),
    "where on an equality": (lambda x: torch.where(x == 0, 2 * x, x).sum(), [0.0, 1.0], 1),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(x.reshape(2, 2)) @ x[:2], [1.0, 0.0, 0.0, 1.0], 1),
    "singular values": (lambda x: torch.linalg.svdvals(x.reshape(2, 3)) @ x[:2], [0.0] * 6, 1),
    "one zero singular value": (lambda x: torch.linalg.svdvals(x.reshape(2, 2)).sum() + x[0], [1.0, 0.0, 0.0, 0.0], 1),
}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_closed_cases(name: str, ends: bool) -> None:
    f, point, kinks = CASES[name]
    assert check(f, torch.tensor(point, dtype=DTYPE), seed=3, ends=ends) == kinks


def test_matrices_of_a_nested_absolute_value() -> None:
    """abs(abs(x) + x) starts left of its kinks: d|x| = -dx + u, z_1 = 2 dx, z_2 = 2 (-dx + u + dx) = 2 u."""
    system = cut(lambda x: (x.abs() + x).abs(), torch.tensor(0.0, dtype=DTYPE))
    Z, L = system.rows()
    assert (system.J.tolist(), system.Y.tolist()) == ([0.0], [-1.0, 1.0])
    assert Z.tolist() == [[2.0], [0.0]] and L.tolist() == [[0.0, 0.0], [2.0, 0.0]]
    assert system.gradient([np.array([[1.0]]), np.array([[1.0]])]).tolist() == [2.0]
    assert system.gradient([np.array([[0.0]]), np.array([[1.0]])]).tolist() == [0.0]


def test_a_smooth_program_has_no_kinks() -> None:
    system = cut(lambda x: (x * x).sum(), torch.tensor([1.0, 2.0], dtype=DTYPE))
    assert system.count == 0 and system.J.tolist() == [2.0, 4.0] and system.Y.size == 0
    assert system.L.shape == (0, 0) and system.gradient([]).tolist() == [2.0, 4.0]
    assert system.push(np.ones(2)).shape == (0,)


def test_programs_that_write_in_place() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[0] = torch.relu(x[1])
        y.mul_(2).add_(x.abs()).clamp_(0.0, 6.0)
        y[1:] += x[0].abs()
        return (y * x.exp()).sum() + y.max()

    assert check(f, torch.tensor([0.0, 0.0, 1.0], dtype=DTYPE), seed=1) > 5


def test_single_precision() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(x @ torch.arange(12.0).reshape(3, 4) - 1)
        return torch.linalg.vector_norm(h.sort().values.abs() + x.sum() - 3) + h.max()

    assert check(f, torch.tensor([1.0, 1.0, 0.0]), close=1e-5) == 0
    assert check(f, torch.tensor([0.0, 0.0, 0.0]), close=1e-5) >= 4
    p = random_program(11)
    assert check(p.function(torch.float32), p.x(torch.float32), close=1e-4) > 0


def test_points_that_are_trees() -> None:
    x = {"a": torch.zeros(2, dtype=DTYPE), "b": [torch.zeros((), dtype=DTYPE), torch.ones(1, dtype=DTYPE)]}

    def f(x: Any) -> torch.Tensor:
        return torch.relu(x["a"] + x["b"][0].abs()).sum() * x["b"][1].sum() + torch.maximum(x["a"], x["b"][0]).sum()

    assert check(f, x, seed=2) == 5


def test_samples_of_a_network_do_not_interact() -> None:
    """The kinks of a sample are a group or several; a batch norm in training couples what follows it."""
    x = torch.zeros(4, 1, 6, 6, dtype=DTYPE)
    x[:3, 0, 2, 3] = torch.tensor([1.0, 2.0, 3.0], dtype=DTYPE)
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(8, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 3),
    ).to(DTYPE)  # fmt: skip
    target = torch.tensor([0, 1, 2, 0])
    f, point = ns.objective(model, F.cross_entropy)
    assert check(f, point, x, target, seed=1) > 20
    system = cut(f, point, x, target)
    groups = Groups(system, 4096)
    sample = np.concatenate([np.asarray(b.places)[:, 0] * 4 // int(np.prod(c.call.result.shape)) for b, c in
                             zip(system.blocks, system.calls, strict=True)])  # fmt: skip
    rows, columns = system.kink_of_z[system.L.tocoo().row], system.kink_of_u[system.L.tocoo().col]
    assert len(rows) and np.all(sample[rows] == sample[columns])
    assert int(groups.sizes.sum()) + groups.idle == system.count > 20 and system.sweeps_used < 60


def test_batch_norm_couples_samples() -> None:
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1)).to(DTYPE).train()
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]], dtype=DTYPE)
    there = model(x).detach()

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(model(x) - there).sum()

    assert check(f, x) == 5
    system = cut(f, x)
    _, L = system.rows()
    assert np.all(np.abs(L[2:, :2]) > 1e-6)  # a kink of one sample acts on all three
    assert Groups(system, 4096).sizes.tolist() == [5]
