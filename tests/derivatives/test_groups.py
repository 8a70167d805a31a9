"""Groups of kinks that interact: antichains, families and brackets against brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.derivatives import antichain
from nonsmooth.derivatives.antichain import antichain_of
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import Linearisation, linearise
from tests.programs.generator import random_program as random_text
from tests.references.field import field_values, random_program, to_torch
from tests.shortened import shortened

DTYPE = torch.float64


def point(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=DTYPE)


def cut(f: Callable[..., torch.Tensor], x: torch.Tensor) -> Linearisation:
    program, framework = as_program(f, x, ())
    return linearise(framework, program, x, ())


# antichains


def random_order(rng: np.random.Generator) -> tuple[int, np.ndarray, list[float]]:
    n = int(rng.integers(1, 9))
    pairs = [(i, j) for i in range(n) for j in range(i) if rng.random() < rng.choice((0.1, 0.3, 0.6))]
    weights = [float(rng.choice((math.log(2), math.log(3), math.log(24), 5.0, math.inf), p=(0.5, 0.2, 0.1, 0.1, 0.1)))
               for _ in range(n)]  # fmt: skip
    return n, np.array(pairs, dtype=int).reshape(-1, 2), weights


def closure(n: int, edges: np.ndarray) -> np.ndarray:
    before = np.zeros((n, n), dtype=bool)
    before[edges[:, 0], edges[:, 1]] = True
    for k in range(n):
        before |= before[:, [k]] & before[[k]]
    return before


def worth(chosen: set[int], weights: list[float]) -> tuple[int, float]:
    """Infinite weights count first."""
    own = [weights[k] for k in chosen]
    return sum(map(math.isinf, own)), sum(w for w in own if math.isfinite(w))


@pytest.mark.parametrize("block", range(4))
def test_antichains_against_all_subsets(block: int) -> None:
    rng = np.random.default_rng(block)
    for _ in range(60):
        n, edges, weights = random_order(rng)
        before = closure(n, edges)
        found = antichain_of(n, edges, weights)
        assert not any(before[i, j] for i in found for j in found)
        free = (
            set(s) for r in range(n + 1) for s in itertools.combinations(range(n), r) if not before[np.ix_(s, s)].any()
        )
        best = max(worth(s, weights) for s in free)
        assert worth(found, weights)[0] == best[0]
        assert worth(found, weights)[1] == pytest.approx(best[1], abs=0.02)


def test_antichains_of_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two levels, every late element after every early one; greedily where there are more than the limit."""
    edges = np.array([(i, j) for i in range(10, 30) for j in range(10)])
    assert antichain_of(30, edges, [1.0] * 30) == set(range(10, 30))
    assert antichain_of(30, edges, [3.0] * 10 + [1.0] * 20) == set(range(10))
    monkeypatch.setattr(antichain, "LARGE", 10)
    assert antichain_of(30, edges, [1.0] * 30) == set(range(10, 30))
    rng = np.random.default_rng(0)
    for _ in range(20):
        n, edges, weights = random_order(rng)
        n, edges, weights = n + 8, np.concatenate([edges, edges + 8]) if n > 8 else edges, weights + [1.0] * 8
        found = antichain_of(n, edges, weights)
        assert found and not any(closure(n, edges)[i, j] for i in found for j in found)


# families


def gradients_under_all(system: Linearisation) -> np.ndarray:
    """Put in every combination of extreme weights: J + Y (I - W L)^-1 W Z as written."""
    Z, L = system.rows()
    kinks = [system.kink(k) for k in range(system.count)]
    found = []
    for chosen in itertools.product(*(k.weights.extreme() for k in kinks)):
        W = np.zeros((L.shape[1], L.shape[0]))
        for kink, w in zip(kinks, chosen, strict=True):
            W[kink.u, kink.z] = w
        found.append(system.J + system.Y @ np.linalg.solve(np.eye(len(W)) - W @ L, W @ Z))
    return np.array(found)


def few(system: Linearisation, most: float = 2000) -> bool:
    return 0 < math.prod(system.kink(k).weights.count for k in range(system.count)) <= most


def test_support_of_groups_against_all_weights() -> None:
    """Random programs of switches and orders: the support of the cotangents, and what attains it."""
    met, joint = 0, 0
    for seed in range(45):
        program = random_text(seed, ("gather", "linear", "switch", "order", "cancelling", "choose"), (3, 9))
        system = cut(program.function(), program.x())
        if not few(system):
            continue
        values, groups = gradients_under_all(system), Groups(system, 4096)
        assert groups.exact and int(groups.sizes.sum()) + groups.idle == system.count
        met, joint = met + 1, joint + bool(groups.families)
        for d in np.random.default_rng(seed).standard_normal((5, system.J.size)):
            found = groups.support(system.push(d))
            scale = 1 + np.abs(values).sum(axis=1).max()
            expected = float(np.max(values @ d) - system.J @ d)
            assert found.lower == found.upper == pytest.approx(expected, abs=1e-9 * scale)
            assert system.pull(found.cotangents) @ d == pytest.approx(expected, abs=1e-9 * scale)
    assert met > 25 and joint > 3


def test_families_gather_groups_of_one_structure() -> None:
    """Rows of abs(abs(u) + 2 v): one family of six groups, each with coefficients of its own."""
    scales = torch.arange(1.0, 7.0, dtype=DTYPE)

    def f(x: torch.Tensor) -> torch.Tensor:
        u, v = x.reshape(2, 6)
        return (scales * (scales * u.abs() - 2 * v).abs()).sum() - u.sum()

    system = cut(f, torch.zeros(12, dtype=DTYPE))
    groups = Groups(system, 4096)
    assert groups.sizes.tolist() == [2] * 6 and len(groups.families) == 1 and not groups.alone
    (family,) = groups.families
    assert family.z.shape == (6, 2) and len(family.cover) == len(family.free) == 1
    for d in np.random.default_rng(1).standard_normal((10, 12)):
        found = groups.support(system.push(d)).lower + system.J @ d
        u, v, s = d[:6], d[6:], scales.numpy()  # max over W1, W2 in [-1, 1] of s W2 (s W1 u - 2 v)
        assert found == pytest.approx(float(np.sum(s * (s * np.abs(u) + 2 * np.abs(v))) - u.sum()))


def test_enumerations_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small chunk changes nothing."""
    from nonsmooth.derivatives import groups as module

    torch.manual_seed(0)
    inner, outer = torch.randn(5, 3, 3, dtype=DTYPE), torch.randn(5, 3, dtype=DTYPE)

    def f(x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(torch.einsum("gij,gj->gi", inner, x.reshape(5, 3)))
        return (torch.relu(h @ inner[0]) * outer).sum()

    system = cut(f, torch.zeros(15, dtype=DTYPE))
    groups = Groups(system, 4096)
    d = np.random.default_rng(0).standard_normal((5, 15))
    before = [groups.support(system.push(v)) for v in d]
    monkeypatch.setattr(module, "CHUNK", 1)
    for v, old in zip(d, before, strict=True):
        new = groups.support(system.push(v))
        assert new.lower == old.lower and np.array_equal(new.cotangents, old.cotangents)


def test_kinks_without_effect_are_idle() -> None:
    system = cut(lambda x: torch.relu(x[0]) + 0 * x[1].abs() + (x[2].abs() * 0).abs(), point(0, 0, 0))
    groups = Groups(system, 4096)
    assert system.count == 4 and groups.idle >= 1
    assert groups.sizes.tolist() in ([1], [1, 1])
    assert groups.relevant.tolist()[0] == 0 or 0 in groups.relevant


# norms and bases among switches


def sphere(n: int, count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((count, n))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


B = torch.tensor([[1.0, -2.0], [0.5, 1.0], [0.0, 3.0]], dtype=DTYPE)


def test_a_norm_between_switches_is_exact() -> None:
    """| |relu(B x)|_2 - x_0 |: 2^3 weights in front and 2 behind are enumerated, the ball between them is not."""
    found = ns.field(lambda x: (torch.norm(torch.relu(B @ x)) - x[0]).abs() + x[1], point(0, 0))
    assert found.exact and found.groups == (5,)
    b = B.numpy()
    for d in np.random.default_rng(0).standard_normal((12, 2)):
        switches = (np.array(w) for w in itertools.product((0, 1), repeat=3))
        expected = max(float(np.linalg.norm(w * (b @ d))) for w in switches) + abs(d[0]) + d[1]
        assert found.support(d) == pytest.approx(expected, abs=1e-9)
        assert found.support_point(d) @ d == pytest.approx(expected, abs=1e-9)


def test_eigenvalues_between_switches_are_exact() -> None:
    """|largest eigenvalue of diag(relu(x))|: over W, S of [-1, 1] and the simplex, S W' (w_i d_i)."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(torch.diag(torch.relu(x)))[-1].abs()

    found = ns.field(f, point(0, 0, 0))
    assert found.exact
    for d in np.random.default_rng(0).standard_normal((12, 3)):
        expected = max(0.0, *(s * w * e for s in (-1, 1) for w in (0, 1) for e in d))
        assert found.support(d) == pytest.approx(expected, abs=1e-9)


def test_two_norms_in_a_chain_are_bracketed() -> None:
    """|| (|x|, |x| - x_0) ||: u = <b, (|d| s, |d| s - d_0)>, b and s in balls, sampled from below."""

    def f(x: torch.Tensor) -> torch.Tensor:
        n = torch.norm(x)
        return torch.norm(torch.stack([n, n - x[0]]))

    found = ns.field(f, point(0, 0))
    assert not found.exact and found.groups == (2,)
    for d in np.random.default_rng(0).standard_normal((12, 2)):
        s = np.linspace(-1, 1, 2001) * np.linalg.norm(d)
        expected = float(np.hypot(s, s - d[0]).max())
        bounds = found.support(d)
        assert bounds.lower - 1e-9 <= expected <= bounds.upper + 1e-9
        assert bounds.lower >= 0.999 * expected  # the search finds it
        assert found.support_point(d) @ d == pytest.approx(bounds.lower, abs=1e-9)
    assert found.contains(np.zeros(2)) is True and found.contains(np.array([10.0, 0.0])) is False


def test_two_blocks_of_bases_in_a_chain_are_bracketed() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        inner = torch.linalg.eigvalsh(x.reshape(2, 2))
        return torch.linalg.eigvalsh(torch.diag(inner) + x.reshape(2, 2))[-1]

    found = ns.field(f, torch.eye(2, dtype=DTYPE).reshape(-1))
    assert not found.exact and found.kinks == 2
    turns = np.linspace(0, np.pi, 120)
    q = np.stack([np.stack([np.cos(turns), np.sin(turns)], -1), np.stack([-np.sin(turns), np.cos(turns)], -1)], -1)
    for d in np.random.default_rng(0).standard_normal((6, 4)):
        bounds, D = found.support(d), (d.reshape(2, 2) + d.reshape(2, 2).T) / 2
        rates = np.einsum("nik,ij,njk->nk", q, D, q)
        inner = np.stack([np.diag(r) + D for r in rates])
        expected = float(np.linalg.eigvalsh(inner)[:, -1].max())
        assert bounds.lower <= expected + 1e-3 and expected <= bounds.upper + 1e-9
        assert bounds.lower >= expected - 0.05 * (1 + abs(expected))


# brackets


def check_bracket(exact: ns.Field, rough: ns.Field, seed: int) -> bool:
    """Compare a bracketed set with the exact one; tell whether something was bracketed."""
    assert exact.exact and exact.kinks == rough.kinks
    for d in np.random.default_rng(seed).standard_normal((4, exact.space)):
        h, bounds = float(exact.support(d)), rough.support(d)
        close = 1e-9 * (1 + abs(h))
        assert bounds.lower - close <= h <= bounds.upper + close
        v = rough.support_point(d)
        assert v @ d == pytest.approx(bounds.lower, abs=close)
        assert exact.contains(v, 1e-8 * (1 + np.abs(v).sum())) is True
        assert rough.contains(v, 1e-8 * (1 + np.abs(v).sum())) is True
    lower, upper = rough.box()
    assert np.all(lower <= exact.box()[0] + 1e-9) and np.all(upper >= exact.box()[1] - 1e-9)
    assert rough.contains(upper + 1.0) is False
    assert rough.minimum_norm().norm.lower <= exact.minimum_norm().norm.upper + 1e-7
    assert rough.distance(upper + 1.0).lower <= exact.distance(upper + 1.0).upper + 1e-7
    return not rough.exact


@pytest.mark.parametrize("block", shortened(range(4), 1))
def test_brackets_of_random_programs(block: int) -> None:
    bracketed = 0
    for seed in range(6 * block, 6 * (block + 1)):
        program, at = random_program(seed, 3, 8, homogeneous=seed % 2 == 0)
        f, x = to_torch(program), point(*map(float, at))
        bracketed += check_bracket(ns.field(f, x), ns.field(f, x, limit=1), seed)
    assert bracketed > 1


@pytest.mark.parametrize(("seeds", "least"), shortened([(range(40, 52), 2), (range(40, 65), 4)], 1))
def test_brackets_of_random_programs_of_all_kinds(seeds: range, least: int) -> None:
    """The exact value need not be known: what backprop returns under drawn weights is below the upper bound."""
    bracketed = 0
    for seed in seeds:
        program = random_text(seed, ("gather", "switch", "order", "norm", "spectral", "cancelling"), (3, 8))
        f, x = program.function(), program.x()
        if not cut(f, x).L.nnz:
            continue
        rough = ns.field(f, x, limit=1)
        bracketed += not rough.exact
        for s in range(3):
            g = ns.backprop(f, x, at_kinks="random", seed=s).numpy()
            scale = 1 + np.abs(g).sum()
            for d in np.random.default_rng(s).standard_normal((3, len(g))):
                assert g @ d <= rough.support(d).upper + 1e-9 * scale, f"{program}{rough}"
            assert rough.contains(g, 1e-8 * scale) is not False
    assert bracketed >= least


def test_what_is_between_the_parts_of_a_bracket_is_not_decided() -> None:
    """Membership is true inside, false outside, and None between what is found and what encloses it."""

    def f(x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(x @ torch.tensor([[1.0, -1.0, 2.0], [0.5, 1.0, -1.0]], dtype=DTYPE))
        return torch.relu(h @ torch.tensor([1.0, -2.0, 1.0], dtype=DTYPE) - h.sum()) + (h[0] - h[1]).abs()

    exact, rough = ns.field(f, point(0, 0)), ns.field(f, point(0, 0), limit=1)
    assert exact.exact and not rough.exact
    met = set()
    for d in np.random.default_rng(0).standard_normal((8, 2)):
        for t in (0.5, 0.99, 1.05, 1.2, 4.0):
            v = t * exact.support_point(d)
            answer = rough.contains(v)
            assert answer is None or answer == exact.contains(v)
            met.add(answer)
    assert met == {True, None, False}
    with pytest.raises(ns.errors.UsageError):
        rough.vertices()
    assert rough.is_critical() in (True, None)


def test_a_bracket_of_a_deep_network() -> None:
    """Three layers of eight units at 0: what is found below is a value of backprop, and grows with the search."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(*(m for _ in range(3) for m in (torch.nn.Linear(8, 8), torch.nn.ReLU()))).to(DTYPE)
    for layer in model[::2]:
        torch.nn.init.zeros_(layer.bias)
    found = ns.field(lambda x: model(x).sum(), torch.zeros(8, dtype=DTYPE), limit=1000)
    assert found.groups == (24,) and not found.exact
    for d in np.random.default_rng(0).standard_normal((4, 8)):
        bounds = found.support(d)
        drawn = [ns.backprop(lambda x: model(x).sum(), torch.zeros(8, dtype=DTYPE),
                             at_kinks=lambda step, kink, call, g=g: (torch.rand(8, generator=g) > 0.5).to(DTYPE))
                 for g in [torch.Generator().manual_seed(s) for s in range(20)]]  # fmt: skip
        best = max(float(v.numpy() @ d) for v in drawn)
        assert best <= bounds.upper + 1e-9 and bounds.lower >= best - 1e-9


def test_samples_are_groups_of_one_family() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False), torch.nn.ReLU()
    ).to(DTYPE)
    f, x = ns.objective(model, F.mse_loss)
    inputs = torch.zeros(30, 3, dtype=DTYPE)
    target = torch.ones(30, 2, dtype=DTYPE)
    program, framework = as_program(f, x, (inputs, target))
    system = linearise(framework, program, x, (inputs, target))
    groups = Groups(system, 4096)
    assert groups.sizes.tolist() == [6] * 30 and groups.idle == 0 and len(groups.families) == 1


def test_exact_values_of_random_groups_against_the_reference() -> None:
    """Limits that force covers of one kink, then of several: each time exact or a bracket of the exact value."""
    for seed in range(16):
        program, at = random_program(seed, 3, 7)
        values = np.array(field_values(program, at), dtype=float)
        for limit in (2, 16):
            found = ns.field(to_torch(program), point(*map(float, at)), limit=limit)
            for d in np.random.default_rng(seed).standard_normal((3, found.space)):
                bounds, h = found.support(d), float(np.max(values @ d))
                close = 1e-9 * (1 + abs(h))
                assert bounds.lower - close <= h <= bounds.upper + close
                if found.exact:
                    assert bounds.upper - bounds.lower <= close


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("inner", [-1, 1])
def test_each_upper_bound_is_one(sign: int, inner: int) -> None:
    """Intervals and middles, apart, for sign relu(x_0 + inner relu(x_1)); here intervals are exact."""
    system = cut(lambda x: sign * torch.relu(x[0] + inner * torch.relu(x[1])), point(0, 0))
    large = Groups(system, 1).large
    assert large is not None
    for d in np.random.default_rng(0).standard_normal((20, 2)):
        exact = max(sign * w * (d[0] + inner * v * d[1]) for w in (0, 1) for v in (0, 1))
        zeta = system.push(d)[large.z]
        assert large._search(zeta)[0].sum() <= exact + 1e-12
        assert large._by_intervals(zeta).sum() == pytest.approx(exact, abs=1e-12)
        assert large._by_middles(zeta).sum() >= exact - 1e-12
