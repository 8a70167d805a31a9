"""The conservative field against all selections one by one, closed forms, and random bases where there are infinitely many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.derivatives import explicit
from nonsmooth.errors import NoField, NonsmoothError, ResultError, UsageError
from tests.adapters import Adapter, adapter, served
from tests.programs.generator import random_program as random_text
from tests.references.clarke import extreme_points
from tests.references.field import field_values, random_program, to_framework, to_torch
from tests.shortened import shortened

DTYPE = torch.float64


def point(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=DTYPE)


def directions(n: int, count: int = 20, seed: int = 0) -> np.ndarray:
    """Draw directions, some of them along few axes."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((count, n))
    drawn[::4] = rng.integers(-1, 2, drawn[::4].shape)
    return drawn


def check_support(found: ns.Field, expected: Callable[[np.ndarray], float], close: float = 1e-9) -> None:
    """Compare support values, and check that the points that attain them do."""
    assert found.exact
    for d in directions(found.space):
        h = expected(d)
        scale = 1 + abs(h)
        assert found.support(d) == pytest.approx(h, abs=close * scale)
        assert found.support_point(d) @ d == pytest.approx(h, abs=close * scale)


def same_points(found: np.ndarray, expected: Any) -> bool:
    """Compare two lists of points up to order."""
    rows = [sorted(map(tuple, np.round(np.asarray(p, dtype=float), 7) + 0.0)) for p in (found, expected)]
    return rows[0] == rows[1]


# against the exact reference


def check_reference(xp: Adapter, seed: int, variables: int = 4, kinks: int = 9) -> int:
    program, at = random_program(seed, variables, kinks, homogeneous=seed % 2 == 0)
    exact = field_values(program, at)
    values = np.array(exact, dtype=float)
    found = ns.field(to_framework(program, xp), xp.array([*map(float, at)]))
    assert found.status == "computed" and found.pieces == 1 and not found.enlarged
    check_support(found, lambda d: float(np.max(values @ d)))
    assert all(found.contains(v) is True for v in values[:3])
    assert found.contains(values.mean(axis=0)) is True
    far = values[0] + 1e-6 * (1 + np.abs(values).max()) + (np.max(values, axis=0) - values[0])
    assert found.contains(far) is False
    if len(exact) <= 40:
        assert same_points(found.vertices(), extreme_points(exact))
    return found.kinks


@pytest.mark.parametrize(
    ("xp", "block"),
    [
        *shortened([("torch", block) for block in range(5)], 1),
        *shortened([("jax", block) for block in range(4)] * ("jax" in served()), 1),
    ],
    indirect=["xp"],
)
def test_all_selections_of_random_programs(xp: Adapter, block: int) -> None:
    count = 25 if xp.name == "torch" else 7
    assert sum(check_reference(xp, seed) for seed in range(count * block, count * (block + 1))) > count


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_all_selections_of_random_programs_at_length(block: int) -> None:
    xp = adapter("torch")
    for seed in range(1000 + 200 * block, 1000 + 200 * (block + 1)):
        check_reference(xp, seed, 6, 12)


@pytest.mark.parametrize("block", shortened(range(3), 1))
def test_random_selections_and_certified_gradients_are_members(block: int) -> None:
    """Programs of all kinds of steps: what backprop returns under drawn weights never leaves the set."""
    members = 0
    for seed in range(15 * block, 15 * (block + 1)):
        program = random_text(seed)
        f, x = program.function(), program.x()
        found = ns.field(f, x)
        values = [ns.backprop(f, x, at_kinks="random", seed=s) for s in range(3)] + [ns.subgradient(f, x).gradient]
        for v in values:
            scale = 1 + float(v.abs().sum())
            for d in directions(found.space, 6, seed):
                assert v.numpy() @ d <= found.support(d).upper + 1e-9 * scale, f"{program}{found}"
            assert found.contains(v, 1e-8 * scale) is not False, f"{program}{found}"
        members += found.kinks > 0
    assert members > 6


# every kind of kink alone, in closed form

INTERVALS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float, tuple[float, float]]] = {
    "relu": (torch.relu, 0.0, (0, 1)),
    "relu on the left": (torch.relu, -1.0, (0, 0)),
    "relu on the right": (torch.relu, 2.0, (1, 1)),
    "abs": (torch.abs, 0.0, (-1, 1)),
    "identity": (lambda t: torch.relu(t) - torch.relu(-t), 0.0, (0, 2)),
    "zero": (lambda t: torch.relu(t) - (torch.relu(-t) + t), 0.0, (-1, 1)),
    "max + min": (lambda t: torch.maximum(t, t * 0) + torch.minimum(t, t * 0), 0.0, (0, 2)),
    "|t| - |t|": (lambda t: t.abs() - t.abs(), 0.0, (-2, 2)),
    # W2 (W1 + 1) with W1, W2 in [-1, 1]
    "||t| + t|": (lambda t: (t.abs() + t).abs(), 0.0, (-2, 2)),
    "relu(relu)": (lambda t: torch.relu(torch.relu(t)), 0.0, (0, 1)),
    "relu(relu) on the left": (lambda t: torch.relu(torch.relu(t)), -1.0, (0, 0)),
    "relu(t) relu(-t)": (lambda t: torch.relu(t) * torch.relu(-t), 0.0, (0, 0)),
    "one third": (lambda t: torch.relu(-t) - torch.relu(t) + t + 1 / 3, 0.0, (-1, 1)),
    "leaky relu": (lambda t: F.leaky_relu(t, 0.25), 0.0, (0.25, 1)),
    "relu6": (F.relu6, 6.0, (0, 1)),
    "softshrink": (lambda t: F.softshrink(t, 0.5), 0.5, (0, 1)),
    "hardswish": (F.hardswish, 3.0, (1, 1.5)),
    "clamp": (lambda t: t.clamp(0.0, 1.0), 1.0, (0, 1)),
    "clamp at coinciding bounds": (lambda t: t.clamp(1.0, 1.0), 1.0, (0, 1)),
    "clamp off coinciding bounds": (lambda t: t.clamp(1.0, 1.0), 2.0, (0, 0)),
    "where": (lambda t: torch.where(t > 0, 3 * t, t), 0.0, (1, 3)),
    "where on an equality": (lambda t: torch.where(t == 0, 5 * t, t), 0.0, (1, 5)),
    "where of two ties": (lambda t: torch.where((t > 0) & (t >= 0), 3 * t, t), 0.0, (1, 3)),
    "softplus": (lambda t: torch.maximum(t, torch.zeros(())) + torch.log1p(torch.exp(-t.abs())), 0.0, (-0.5, 1.5)),
    "norm": (lambda t: torch.linalg.vector_norm(t.reshape(1)), 0.0, (-1, 1)),
    "max norm of one entry": (lambda t: torch.linalg.vector_norm(t.reshape(1), torch.inf), 0.0, (-1, 1)),
    "median of equals": (lambda t: torch.stack([t, 2 * t, 4 * t]).median(), 0.0, (1, 4)),
    "kthvalue": (lambda t: torch.stack([t, 2 * t, 4 * t, t - 1]).kthvalue(2).values, 0.0, (1, 4)),
    "branch": (lambda t: t if t > 0 else 2 * t, 0.0, (1, 2)),
    "max of Python": (lambda t: max(t, 3 * t, t * t), 0.0, (0, 3)),
    "two branches": (lambda t: (t if t > 0 else 2 * t) + (3 * t if t >= 0 else t), 0.0, (2, 5)),
    "branches and kinks": (lambda t: torch.relu(t) if t > 0 else 2 * t.abs(), 0.0, (-2, 2)),
    "a branch on an equality": (lambda t: 5 * t + 1 if t == 0 else t + 1, 0.0, (1, 5)),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_intervals(name: str) -> None:
    f, at, (low, high) = INTERVALS[name]
    found = ns.field(f, torch.tensor(at, dtype=DTYPE))
    lower, upper = found.box()
    assert (lower[0], upper[0]) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert found.exact and found.value == pytest.approx(float(f(torch.tensor(at, dtype=DTYPE))))
    assert found.contains(torch.tensor((low + high) / 2, dtype=DTYPE)) is True
    assert found.contains(np.array([high + 1e-6])) is False and found.contains([low - 1e-6]) is False


POLYTOPES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], list[float], list[tuple[float, ...]]]] = {
    "max": (torch.max, [1, 1, 0], [(1, 0, 0), (0, 1, 0)]),
    "min": (torch.min, [1, 1, 1], [(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    "amax of four": (lambda x: x.amax(), [2, 2, 2, 2], np.eye(4).tolist()),
    "max along an axis": (lambda x: x.reshape(2, 2).max(0).values.sum(), [1, 0, 1, 0], [
        (1, 1, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 1, 1),
    ]),
    "maximum": (lambda x: torch.maximum(x[0], x[1]), [1, 1], [(1, 0), (0, 1)]),
    "minimum": (lambda x: torch.minimum(x[0], x[1]) * 2, [1, 1], [(2, 0), (0, 2)]),
    "clamp between tensors": (lambda x: torch.clamp(x[0], x[1], x[2]), [1, 1, 2], [(1, 0, 0), (0, 1, 0)]),
    "clamp at coinciding tensors": (lambda x: torch.clamp(x[0], x[1], x[2]), [1, 1, 1], np.eye(3).tolist()),
    "clamp below coinciding tensors": (lambda x: torch.clamp(x[0], x[1], x[2]), [0, 1, 1], [(0, 1, 0), (0, 0, 1)]),
    "clamp above coinciding tensors": (lambda x: torch.clamp(x[0], x[1], x[2]), [2, 1, 1], [(0, 0, 1)]),
    "sort of two": (lambda x: x.sort().values @ point(1, 3), [5, 5], [(1, 3), (3, 1)]),
    "sort of three": (lambda x: x.sort().values @ point(1, 2, 4), [5, 5, 5], [
        (1, 2, 4), (1, 4, 2), (2, 1, 4), (2, 4, 1), (4, 1, 2), (4, 2, 1),
    ]),
    "sort downwards": (lambda x: x.sort(descending=True).values @ point(1, 2, 4), [5, 5, 1], [(1, 2, 4), (2, 1, 4)]),
    "two blocks": (lambda x: x.sort().values @ point(0, 1, 0, 2), [1, 0, 1, 0], [
        (0, 1, 2, 0), (0, 0, 2, 1), (2, 1, 0, 0), (2, 0, 0, 1),
    ]),
    "topk": (lambda x: x.topk(2).values.sum(), [1, 1, 1], [(1, 1, 0), (1, 0, 1), (0, 1, 1)]),
    "topk with a clear first": (lambda x: x.topk(2).values @ point(3, 1), [2, 1, 1], [(3, 1, 0), (3, 0, 1)]),
    "smallest": (lambda x: x.topk(1, largest=False).values.sum(), [1, 1, 2], [(1, 0, 0), (0, 1, 0)]),
    "kthvalue": (lambda x: x.kthvalue(3).values, [0, 1, 1, 1], [(0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]),
    "median": (lambda x: x.median(), [0, 1, 1, 2], [(0, 1, 0, 0), (0, 0, 1, 0)]),
    "median along an axis": (lambda x: x.reshape(1, 3).median(1).values.sum(), [1, 1, 1], np.eye(3).tolist()),
    "cummax": (lambda x: x.cummax(0).values @ point(0, 1, 2), [1, 1, 0], [(3, 0, 0), (1, 2, 0), (2, 1, 0), (0, 3, 0)]),
    "windows": (lambda x: F.max_pool1d(x.reshape(1, 1, -1), 2, 1).sum(), [1, 1, 1], [
        (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1),
    ]),
    "windows in the plane": (lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2).sum(), [1, 1, 0, 1], [
        (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1),
    ]),
    "adaptive windows": (lambda x: F.adaptive_max_pool1d(x.reshape(1, 1, -1), 1).sum(), [1, 1, 0], [
        (1, 0, 0), (0, 1, 0),
    ]),
    "1-norm": (lambda x: torch.linalg.vector_norm(x, 1), [0, 0, 3], [
        (1, 1, 1), (1, -1, 1), (-1, 1, 1), (-1, -1, 1),
    ]),
    "inf-norm at zero": (lambda x: torch.linalg.vector_norm(x, torch.inf), [0, 0], [
        (1, 0), (-1, 0), (0, 1), (0, -1),
    ]),
    "inf-norm at a tie": (lambda x: torch.linalg.vector_norm(x, torch.inf), [2, -2, 1], [(1, 0, 0), (0, -1, 0)]),
    "where": (lambda x: torch.where(x > 0, x, -2 * x).sum(), [0, 0], [(1, 1), (1, -2), (-2, 1), (-2, -2)]),
    "branch": (lambda x: x[0] if x[0] > x[1] else x[1], [1, 1], [(1, 0), (0, 1)]),
    "sorted": (lambda x: sorted([x[0], x[1], x[2]])[1], [1, 1, 1], np.eye(3).tolist()),
    "max less max": (lambda x: x.max() - x.max(), [1, 1], [(1, -1), (-1, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", POLYTOPES)
def test_polytopes(name: str) -> None:
    f, at, expected = POLYTOPES[name]
    found = ns.field(f, point(*at))
    vertices = np.array(expected, dtype=float)
    check_support(found, lambda d: float(np.max(vertices @ d)), 1e-12)
    assert all(found.contains(v) is True for v in vertices)
    hull = extreme_points([tuple(map(int, v)) for v in expected])
    if found.pieces == 1:
        assert same_points(found.vertices(), hull)


def dual(p: float) -> float:
    return {1.0: math.inf, math.inf: 1.0}.get(p) or p / (p - 1)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_norms_at_zero(p: float) -> None:
    """The set is the ball of the dual norm: its support is the norm."""
    found = ns.field(lambda x: 2 * torch.linalg.vector_norm(x, p) + x[0], point(0.0, 0.0, 0.0))
    check_support(found, lambda d: 2 * np.linalg.norm(d, p) + d[0])
    v = np.random.default_rng(1).standard_normal(3)
    v = v / np.linalg.norm(v, dual(p))
    centre = np.array([1.0, 0.0, 0.0])
    assert found.contains(centre + 1.999 * v) is True and found.contains(centre + 2.001 * v) is False
    assert found.minimum_norm().norm == pytest.approx(0, abs=1e-7)


def spread(d: np.ndarray) -> float:
    return float(np.std(d, ddof=1))


A = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])
NORMS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], list[float], Callable[[np.ndarray], float]]] = {
    "hypot": (lambda x: torch.hypot(x[0], 3 * x[1]), [0, 0], lambda d: math.hypot(d[0], 3 * d[1])),
    "std": (lambda x: x.std(), [2, 2, 2, 2], spread),
    "std of zeros": (lambda x: x.std(correction=0), [0, 0, 0], lambda d: float(np.std(d))),
    "linear map": (lambda x: torch.norm(torch.as_tensor(A) @ x), [0, 0, 0], lambda d: float(np.linalg.norm(A @ d))),
    "cdist": (
        lambda x: torch.cdist(x[:2].reshape(1, 2), x[2:].reshape(1, 2)).sum(),
        [1, 2, 1, 2],
        lambda d: float(np.linalg.norm(d[:2] - d[2:])),
    ),
    "cdist, p = 1": (
        lambda x: torch.cdist(x[:2].reshape(1, 2), x[2:].reshape(1, 2), p=1.0).sum(),
        [1, 2, 1, 2],
        lambda d: float(np.abs(d[:2] - d[2:]).sum()),
    ),
    "pdist": (
        lambda x: F.pdist(x.reshape(3, 1)).sum(),
        [1, 1, 1],
        lambda d: float(abs(d[0] - d[1]) + abs(d[0] - d[2]) + abs(d[1] - d[2])),
    ),
    "dist": (lambda x: torch.dist(x[:2], x[1:]), [1, 1, 1], lambda d: math.hypot(d[0] - d[1], d[1] - d[2])),
    "complex abs": (lambda x: torch.complex(x[0], 2 * x[1]).abs(), [0, 0], lambda d: math.hypot(d[0], 2 * d[1])),
    "two norms": (
        lambda x: x.reshape(2, 2).norm(dim=1) @ point(1, 3),
        [0, 0, 0, 0],
        lambda d: math.hypot(d[0], d[1]) + 3 * math.hypot(d[2], d[3]),
    ),
    "minus a norm": (lambda x: -torch.norm(x), [0, 0], lambda d: math.hypot(*d)),
    "norm of relu": (  # z = (w1 d1, w2 d2), w in [0, 1]
        lambda x: torch.norm(torch.relu(x)),
        [0, 0],
        lambda d: math.hypot(*d),
    ),
    "relu of a norm": (lambda x: torch.relu(torch.norm(x)), [0, 0], lambda d: math.hypot(*d)),
    "norm of a norm": (lambda x: torch.norm(torch.stack([torch.norm(x[:2]), x[2]])), [0, 0, 1], lambda d: d[2]),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str) -> None:
    f, at, expected = NORMS[name]
    check_support(ns.field(f, point(*at)), expected)


def orthogonal(n: int, rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def check_attained(found: ns.Field, values: np.ndarray, distance: float) -> None:
    """Check elements of a set: never above the support, and coming near it."""
    assert found.exact
    for d in directions(found.space, 8):
        h, best = found.support(d), float(np.max(values @ d))
        assert best <= h + 1e-9
        assert best >= h - distance * (1 + abs(h))


WEIGHTS = [(1.0, 2.0), (1.0, -1.0), (3.0, 0.0), (-1.0, -2.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_eigenvalues_that_are_repeated(weights: tuple[float, float]) -> None:
    """{ sum_k c_k q_k q_k' : q orthonormal } over the bases of the plane, at a multiple of the identity."""
    c = point(*weights)
    found = ns.field(lambda x: torch.linalg.eigvalsh(x.reshape(2, 2)) @ c, point(2, 0, 0, 2))
    turns = np.linspace(0, np.pi, 400)
    q = np.stack([np.stack([np.cos(turns), np.sin(turns)]), np.stack([-np.sin(turns), np.cos(turns)])])
    check_attained(found, np.einsum("k,kin,kjn->nij", weights, q, q).reshape(-1, 4), 1e-4)


def test_eigenvalues_of_three_of_which_two_agree() -> None:
    rng = np.random.default_rng(0)
    q, c = orthogonal(3, rng), np.array([1.0, -2.0, 3.0])
    matrix = q @ np.diag([1.0, 4.0, 4.0]) @ q.T
    matrix = (matrix + matrix.T) / 2
    found = ns.field(
        lambda x: torch.linalg.eigvalsh(x.reshape(3, 3)) @ torch.as_tensor(c), torch.as_tensor(matrix).reshape(-1)
    )
    assert found.kinks == 1
    turns = np.linspace(0, 2 * np.pi, 800)
    a = np.outer(np.cos(turns), q[:, 1]) + np.outer(np.sin(turns), q[:, 2])
    b = -np.outer(np.sin(turns), q[:, 1]) + np.outer(np.cos(turns), q[:, 2])
    values = np.einsum("ni,nj->nij", a, a) * c[1] + np.einsum("ni,nj->nij", b, b) * c[2]
    check_attained(found, (values + c[0] * np.outer(q[:, 0], q[:, 0])).reshape(-1, 9), 1e-4)


def test_the_largest_eigenvalue() -> None:
    """At the identity the set of the largest eigenvalue is { V : V >= 0, trace V = 1 }."""
    found = ns.field(lambda x: torch.linalg.eigvalsh(x.reshape(3, 3))[-1], torch.eye(3, dtype=DTYPE).reshape(-1))
    check_support(found, lambda d: float(np.linalg.eigvalsh((d.reshape(3, 3) + d.reshape(3, 3).T) / 2)[-1]))
    assert found.contains(np.eye(3).reshape(-1) / 3, 1e-6) is True
    assert found.contains(np.eye(3).reshape(-1) / 2) is False


def test_complex_eigenvalues() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        rows = [torch.complex(x[0], 0 * x[0]), torch.complex(x[1], x[2]), torch.complex(x[1], -x[2])]
        return torch.linalg.eigvalsh(torch.stack([*rows, torch.complex(x[3], 0 * x[3])]).reshape(2, 2))[1]

    found = ns.field(f, point(1, 0, 0, 1))
    check_support(found, lambda d: (d[0] + d[3]) / 2 + math.sqrt((d[0] - d[3]) ** 2 / 4 + d[1] ** 2 + d[2] ** 2))


def test_nuclear_and_spectral_norm_at_zero() -> None:
    """The unit balls of one another."""
    x = torch.zeros(6, dtype=DTYPE)
    nuclear = ns.field(lambda x: torch.linalg.matrix_norm(x.reshape(2, 3), "nuc"), x)
    spectral = ns.field(lambda x: torch.linalg.matrix_norm(x.reshape(2, 3), 2), x)
    check_support(nuclear, lambda d: float(np.linalg.svd(d.reshape(2, 3), compute_uv=False).sum()))
    check_support(spectral, lambda d: float(np.linalg.norm(d.reshape(2, 3), 2)))


def test_nuclear_norm_at_rank_one() -> None:
    """<U V', D> + the nuclear norm of what is orthogonal to both."""
    u, v = np.array([0.6, 0.8]), np.array([1.0, 0.0, 0.0])
    found = ns.field(
        lambda x: torch.linalg.matrix_norm(x.reshape(2, 3), "nuc"), torch.as_tensor(5 * np.outer(u, v)).reshape(-1)
    )

    def expected(d: np.ndarray) -> float:
        d = d.reshape(2, 3)
        rest = (np.eye(2) - np.outer(u, u)) @ d @ (np.eye(3) - np.outer(v, v))
        return float(u @ d @ v + np.linalg.svd(rest, compute_uv=False).sum())

    check_support(found, expected)


@pytest.mark.parametrize("weights", [*WEIGHTS, (0.0, 1.0)])
def test_singular_values_at_zero(weights: tuple[float, float]) -> None:
    """sum_k c_k u_k v_k' over all pairs of bases, the signs of v included: von Neumann's trace theorem."""
    c = point(*weights)
    found = ns.field(lambda x: torch.linalg.svdvals(x.reshape(2, 2)) @ c, torch.zeros(4, dtype=DTYPE))
    rng = np.random.default_rng(2)
    u, v = (np.stack([orthogonal(2, rng) for _ in range(4000)]) for _ in range(2))
    v[::2, :, 0] *= -1
    check_attained(found, np.einsum("k,nik,njk->nij", weights, u, v).reshape(-1, 4), 3e-2)
    check_support(
        found,
        lambda d: float(np.sort(np.abs(weights)) @ np.sort(np.linalg.svd(d.reshape(2, 2), compute_uv=False))),
    )


def test_singular_values_that_are_repeated() -> None:
    rng = np.random.default_rng(3)
    c = point(1, -2)
    found = ns.field(lambda x: torch.linalg.svdvals(x.reshape(2, 2)) @ c, point(0, 3, -3, 0))
    assert found.kinks == 1
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # M = 3 turn = sum 3 u_k (turn' u_k)'
    u = np.stack([orthogonal(2, rng) for _ in range(4000)])
    values = np.einsum("k,nik,njk->nij", c.numpy(), u, np.swapaxes(turn.T, 0, 1) @ u * 0 + turn.T @ u)
    check_attained(found, values.reshape(-1, 4), 1e-2)


# guards


def test_all_active_programs_count() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = 2 * x[0] if x[0] > 0 else x[0]
        y = y + (x[1] if x[1] > 0 else -x[1])
        if x[0] > 1:
            y = y + 7 * (x[0] - 1)
        return y + torch.relu(x[1])

    found = ns.field(f, point(0, 0))
    values = np.array([(a, b + c) for a in (1, 2) for b in (-1, 1) for c in (0, 1)], dtype=float)
    check_support(found, lambda d: float(np.max(values @ d)), 1e-12)
    assert (found.pieces, found.kinks, found.status) == (4, 1, "computed")


@pytest.mark.parametrize("block", shortened(range(2), 1))
def test_gradients_next_to_branches_are_members(block: int) -> None:
    """Programs with `if`s of Python: gradients at points nearby come near the set."""
    met = 0
    for seed in range(15 * block, 15 * (block + 1)):
        program = random_text(seed, ("affine", "gather", "switch", "branch", "order"), (3, 8))
        f, x = program.function(), program.x()
        found = ns.field(f, x)
        rng = torch.Generator().manual_seed(seed)
        for _ in range(6):
            leaf = (x + 1e-7 * torch.randn(len(x), generator=rng, dtype=DTYPE)).requires_grad_()
            value = f(leaf)
            (g,) = torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)
            scale = 1 + float(g.abs().sum())
            assert found.contains(g, 1e-5 * scale) is not False, f"{program}{found}"
        met += found.pieces > 1
    assert met >= 3


# what is refused, and what is left alone


@pytest.mark.parametrize(
    ("f", "at"),
    [
        (lambda x: torch.where(x > 0, x + 1, x).sum(), [0.0]),
        (lambda x: torch.sign(x).sum(), [0.0]),
        (lambda x: torch.floor(x).sum() + x.sum(), [1.0]),
        (lambda x: torch.sqrt(x).sum(), [0.0]),
        (lambda x: torch.acos(x).sum(), [1.0]),
        (lambda x: x[0] + 1 if x[0] > 0 else x[0], [0.0]),
        (lambda x: torch.linalg.vector_norm(x, 0.5), [0.0, 1.0]),
    ],
)
def test_programs_without_a_field(f: Callable[[torch.Tensor], torch.Tensor], at: list[float]) -> None:
    with pytest.raises(NoField, match=r"test_field\.py:\d+"):
        ns.field(f, point(*at))


def test_wrong_use() -> None:
    x = {"a": point(0, 0), "b": point(1)}
    found = ns.field(lambda x: x["a"].abs().sum() + x["b"].sum(), x)
    assert found.contains({"a": point(0.5, -1), "b": point(1)}) is True
    assert found.support({"a": point(1, 2), "b": point(0)}) == 3
    assert found.contains(np.array([0.5, -1, 1])) is True
    for wrong in ({"a": point(0, 0)}, {"a": point(0, 0, 0), "b": point(1)}, [1.0], np.zeros(2), point(0, 0)):
        with pytest.raises(NonsmoothError):
            found.support(wrong)
        with pytest.raises(NonsmoothError):
            found.contains(wrong)
    with pytest.raises(NonsmoothError):
        found.support(np.array([np.nan, 0, 0]))
    with pytest.raises(ResultError):
        ns.field(lambda x: torch.relu(x), point(0, 1))
    for wrong in ({"tol": -1.0}, {"tol": math.inf}, {"tol": math.nan}, {"limit": 0}, {"limit": True}):
        with pytest.raises(UsageError):
            ns.field(torch.sum, point(0.0), **wrong)


def test_points_that_are_no_numbers() -> None:
    with pytest.raises(NonsmoothError):
        ns.field(lambda x: torch.relu(x).sum(), point(math.nan, 0.0))


def test_kinks_nearby_count_with_a_tolerance() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x[0]) + torch.stack([x[1], x[2]]).max() + torch.where(x[3] > 0, 2 * x[3], x[3])

    x = point(-1e-4, 1.0, 1.0 + 1e-4, 1e-4)
    exact, enlarged = ns.field(f, x), ns.field(f, x, tol=1e-3)
    assert (exact.kinks, exact.enlarged, exact.is_singleton) == (0, False, True)
    assert enlarged.enlarged and enlarged.kinks == 3 and "enlarged" in repr(enlarged)
    assert enlarged.box()[0].tolist() == [0, 0, 0, 1] and enlarged.box()[1].tolist() == [1, 1, 1, 2]
    assert ns.field(torch.norm, point(1e-4, 0.0), tol=1e-3).support([0.0, 3.0]) == pytest.approx(3.0)


def test_nothing_of_the_users_is_touched() -> None:
    x = point(0.0, 0.0, 1.0).requires_grad_()
    w = point(1.0, 2.0, 3.0).requires_grad_()
    x.grad, w.grad = torch.ones(3, dtype=DTYPE), None
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), x.detach().clone(), x._version
    with torch.no_grad():
        found = ns.field(lambda x, w: (torch.relu(x * w).abs() + x.norm()).sum() + x[:2].norm(), x, w)
        assert found.contains(point(0, 0, 0)) is not None and len(found.sample(3)) == 3
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(x, before[2]) and x._version == before[3] and x.requires_grad
    assert torch.equal(x.grad, torch.ones(3, dtype=DTYPE)) and w.grad is None


def test_modules() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).to(DTYPE)
    torch.nn.init.zeros_(model[0].bias)
    f, x = ns.objective(model, F.l1_loss)
    inputs, target = torch.zeros(2, 2, dtype=DTYPE), torch.zeros(2, 1, dtype=DTYPE)
    found = ns.field(f, x, inputs, target)
    assert found.kinks == 6 and found.groups == (1,) * 6 and found.exact
    gradient = ns.backprop(f, x, inputs, target)
    assert found.contains(gradient) is True
    slope = model[2].weight.detach().numpy()[0] * np.sign(model[2].bias.item())
    low, high = (found.unflatten(b)["0.bias"].numpy() for b in found.box())
    np.testing.assert_allclose(low, np.minimum(slope, 0), atol=1e-12)
    np.testing.assert_allclose(high, np.maximum(slope, 0), atol=1e-12)


# at scale


def chain(depth: int, width: int, dtype: torch.dtype) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    """A network without biases at a point most of whose units are at 0: every layer has ties."""
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(width, width, generator=generator).to(dtype) / width**0.5 for _ in range(depth)]

    def f(x: torch.Tensor) -> torch.Tensor:
        for matrix in matrices:
            x = torch.relu(x @ matrix)
        return x.sum()

    return f, torch.zeros(width, dtype=dtype)


def test_thousands_of_kinks_in_single_precision() -> None:
    """2400 kinks in 60 groups of 40, bracketed: the bracket holds what backprop returns."""
    f, _ = chain(4, 10, torch.float32)
    x = torch.zeros(60, 10)
    found = ns.field(lambda x: f(x), x, limit=64)
    assert found.kinks == 60 * 40 and found.groups == (40,) * 60
    d = np.random.default_rng(0).standard_normal(600)
    bounds = found.support(d)
    assert not found.exact and bounds.lower < bounds.upper
    for seed in range(3):
        g = ns.backprop(f, x, at_kinks="random", seed=seed).numpy().ravel().astype(float)
        assert g @ d <= bounds.upper + 1e-4


def test_many_kinks_alone_are_exact() -> None:
    x = torch.zeros(5000)
    found = ns.field(lambda x: x.abs().sum() + torch.relu(x - 1).sum(), x)
    assert found.exact and found.kinks == 5000 and found.groups == (1,) * 5000
    d = np.random.default_rng(0).standard_normal(5000)
    assert found.support(d) == pytest.approx(np.abs(d).sum(), rel=1e-6)
    assert found.is_critical() is True


@pytest.mark.parametrize("seed", shortened([3, 8, 12, 21, 34, 55], 3))
def test_rows_and_sweeps_give_the_same_set(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program, at = random_program(seed, 4, 8, homogeneous=True)
    f, x = to_torch(program), point(*map(float, at))
    full = ns.field(f, x)
    monkeypatch.setattr(explicit, "ROWS", 0)
    lazy = ns.field(f, x)
    assert type(lazy.inner).__name__ == ("Image" if full.systems[0].count > 0 and full.groups else "Point")
    for d in directions(len(x), 8):
        assert full.support(d) == pytest.approx(float(lazy.support(d)), abs=1e-10)
    near, far = full.minimum_norm(), lazy.minimum_norm()
    assert near.norm == pytest.approx(float(far.norm), abs=1e-7)
    for v in full.sample(3):
        assert lazy.contains(v) is True
    assert lazy.contains(full.box()[1] + 0.01) is False
