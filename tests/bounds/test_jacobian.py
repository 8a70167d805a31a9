"""Bounds in the input through whole programs: exact where all is linear, sound elsewhere, tight in small balls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf, prod

import numpy as np
import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.bounds import jacobian
from nonsmooth.bounds.region import Ball
from nonsmooth.errors import UnlistedOperation
from tests.shortened import shortened

Program = Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Seed torch, and put its state back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def weights(*shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Draw weights a, b, ..."""
    return {chr(97 + i): torch.randn(*s, dtype=torch.double) / s[-1] ** 0.5 for i, s in enumerate(shapes)}


def dense_jacobian(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """Give the whole Jacobian at a point."""
    found = torch.autograd.functional.jacobian(f, x)
    return np.asarray(found.reshape(-1, x.numel()))


def spectral(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    """Give the norm of the Jacobian at a point."""
    return float(np.linalg.norm(dense_jacobian(f, x), 2))


def bound(f: Program, w: dict[str, torch.Tensor], x: torch.Tensor, radius: float = inf) -> float:
    """Bound the Lipschitz constant in the input on a ball; skip what has no constants."""
    try:
        return float(ns.bounds(f, w, x, inputs=Ball(radius, "here")).inputs.lipschitz)
    except UnlistedOperation as missing:
        pytest.skip(str(missing))


F = nn.functional
LINEAR: dict[str, tuple[Program, tuple[tuple[int, ...], ...], tuple[int, ...]]] = {
    "two products": (lambda w, x: x @ w["a"].T @ w["b"].T, ((4, 3), (2, 4)), (5, 3)),
    "linear and bias": (lambda w, x: F.linear(F.linear(x, w["a"], w["b"]), w["c"]), ((4, 3), (4,), (2, 4)), (2, 3)),
    "residual": (lambda w, x: x - 2.0 * (x @ w["a"]) + x @ w["b"], ((3, 3), (3, 3)), (2, 3)),
    "cancelling": (lambda w, x: x @ w["a"] - 0.5 * (x @ w["a"]), ((3, 3),), (2, 3)),
    "from the left": (lambda w, x: w["a"] @ (w["b"] @ x), ((4, 3), (3, 3)), (3,)),
    "views": (lambda w, x: (x.reshape(2, 2, 3) @ w["a"]).reshape(2, -1) @ w["b"], ((3, 4), (8, 3)), (2, 6)),
    "transposed": (lambda w, x: (x @ w["a"]).T @ w["b"], ((3, 4), (5, 2)), (5, 3)),
    "one row, moved": (lambda w, x: (x @ w["a"]).flip(1)[:, 1:] @ w["b"], ((3, 4), (3, 2)), (1, 3)),
    "rows, moved": (lambda w, x: (x @ w["a"]).flip(1)[:, 1:] @ w["b"], ((3, 4), (3, 2)), (4, 3)),
    "concatenated": (lambda w, x: torch.cat([x @ w["a"], x], 1) @ w["b"], ((3, 4), (7, 2)), (1, 3)),
    "padded": (lambda w, x: F.pad(x @ w["a"], (1, 2), value=3.0) @ w["b"], ((3, 4), (7, 2)), (1, 3)),
    "mean": (lambda w, x: (x @ w["a"]).mean(1), ((3, 4),), (1, 3)),
    "scaled": (lambda w, x: ((x @ w["a"]) * w["b"] / 3.0) @ w["c"], ((3, 4), (4,), (4, 2)), (2, 3)),
    "convolutions": (
        lambda w, x: F.conv2d(F.conv2d(x, w["a"], padding=1, stride=2), w["b"]),
        ((3, 2, 3, 3), (2, 3, 2, 2)),
        (2, 2, 6, 6),
    ),
    "convolution, pooled": (
        lambda w, x: F.linear(F.avg_pool2d(F.conv2d(x, w["a"]), 2).flatten(1), w["b"]),
        ((3, 1, 3, 3), (2, 12)),
        (2, 1, 6, 6),
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_programs_are_exact(name: str) -> None:
    """The bound of a linear program is the norm of its matrix, however it is written; rows that mix are bounds only."""
    f, shapes, shape = LINEAR[name]
    w, x = weights(*shapes), torch.randn(*shape, dtype=torch.double)
    exact, found = spectral(lambda x: f(w, x), x), bound(f, w, x)
    assert exact <= found
    if name != "transposed":
        assert found == pytest.approx(exact, rel=1e-6)


def random_program(seed: int) -> tuple[Program, dict[str, torch.Tensor], torch.Tensor, str]:
    """Draw a network of images or of rows, with skips, with weights and a batch."""
    rng = np.random.default_rng(seed)
    acts = [torch.relu, torch.tanh, torch.sigmoid, F.softplus, F.leaky_relu, F.gelu, torch.abs, F.elu]
    chosen = [acts[i] for i in rng.integers(0, len(acts), 4)]
    n, rows = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    kind = ("chain", "residual", "concatenation", "image")[seed % 4]
    words = f"{kind} {n} {rows} " + " ".join(a.__name__ for a in chosen)
    if kind == "image":
        w = weights((3, 1, 3, 3), (2, 3, 3, 3), (2, 18))

        def image(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            z = chosen[0](F.conv2d(x, w["a"], padding=1))
            z = chosen[1](F.conv2d(z, w["b"], stride=2, padding=1))
            return F.linear(z.flatten(1), w["c"])

        return image, w, torch.randn(rows, 1, 6, 5, dtype=torch.double), words
    w = weights((n, n), (n, n), (n, n), (2 * n, n), (n,))
    scale = float(rng.choice([0.3, 1.0, 3.0]))

    def dense(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        z = chosen[0](F.linear(x, scale * w["a"], w["e"]))
        for key, act in (("b", chosen[1]), ("c", chosen[2])):
            y = act(z @ w[key])
            if kind == "residual":
                y = z + y
            z = chosen[3](torch.cat([y, z], 1) @ w["d"]) if kind == "concatenation" else y
        return z @ w["a"]

    return dense, w, torch.randn(rows, n, dtype=torch.double), words


def climbed(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, radius: float, steps: int = 6) -> float:
    """Climb ||J(x)|| in a ball by its gradient, from its center and from points of it; give the most that was seen."""
    most = 0.0
    for start in range(3):
        point = x.clone()
        if start:
            away = torch.randn_like(x)
            point = x + radius * torch.rand(()).double() * away / away.norm()
        for _ in range(steps):
            found = dense_jacobian(f, point)
            u, s, v = np.linalg.svd(found)
            most = max(most, float(s[0]) if s.size else 0.0)
            leaf = point.clone().requires_grad_()
            value = (f(leaf).reshape(-1) * torch.tensor(u[:, 0])).sum()
            (first,) = torch.autograd.grad(value, leaf, create_graph=True)
            inner = (first.reshape(-1) * torch.tensor(v[0])).sum()
            if not inner.requires_grad:
                break
            (ascent,) = torch.autograd.grad(inner, leaf, allow_unused=True)
            if ascent is None or not torch.isfinite(ascent).all() or ascent.norm() == 0:
                break
            point = point + 0.3 * radius * ascent / ascent.norm()
            away = point - x
            point = x + away * min(1.0, radius / max(float(away.norm()), 1e-300))
    return most


def ratios(seeds: range, radii: tuple[float, ...] = (0.01, 0.3, 3.0)) -> list[float]:
    """Give observed / bound of random programs, and of difference quotients."""
    found = []
    for seed in seeds:
        f, w, x, _ = random_program(seed)
        for radius in radii:
            most = climbed(lambda x, f=f, w=w: f(w, x), x, radius)
            one, two = (x + radius * v / v.norm() for v in torch.randn(2, *x.shape, dtype=torch.double))
            most = max(most, float((f(w, one) - f(w, two)).norm() / (one - two).norm()))
            found.append(most / max(bound(f, w, x, radius), 1e-300))
    return found


@pytest.mark.parametrize("block", shortened(range(40), 1))
def test_no_jacobian_in_a_ball_exceeds_the_bound(block: int) -> None:
    """Observed by climbing and by quotients, on 240 random programs and balls of three radii each."""
    assert max(ratios(range(6 * block, 6 * block + 6))) <= 1 + 1e-7


def test_small_balls_are_tight() -> None:
    """Where slopes hardly move, what is observed is nearly the bound."""
    found = ratios(range(8), (1e-6,))
    assert min(found) > 0.999
    assert max(found) <= 1 + 1e-7


def test_the_check_finds_slopes_whose_radius_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carried by the middle slopes alone, bounds are exceeded."""
    right = jacobian._OfBlock._entrywise

    def without_radius(self: object, taken: object, slopes: tuple[np.ndarray, np.ndarray]) -> object:
        middle = (np.asarray(slopes[0]) + np.asarray(slopes[1])) / 2
        return right(self, taken, (middle, middle))  # type: ignore[arg-type]

    monkeypatch.setattr(jacobian._OfBlock, "_entrywise", without_radius)
    assert max(ratios(range(4))) > 1 + 1e-3


def test_the_check_finds_tangents_that_leave_out_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of which one summand is forgotten is found out."""
    right = jacobian._pushed

    def half(taken: object, place: int, tangent: jacobian.Tangent) -> jacobian.Tangent | None:
        found = right(taken, place, tangent)  # type: ignore[arg-type]
        return found if place == 0 or found is None else jacobian.Tangent(found.groups, 0 * found.rows)

    monkeypatch.setattr(jacobian, "_pushed", half)
    assert max(ratios(range(4))) > 1 + 1e-3


def mlp(widths: tuple[int, ...], act: type[nn.Module]) -> nn.Sequential:
    """Build a fully connected network."""
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), act()]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_never_above_the_product_of_spectral_norms(act: type[nn.Module]) -> None:
    """On the whole space, and far below it for a chain of five layers."""
    slope = 0.25 if act is nn.Sigmoid else 1.0
    for widths in [(3, 4), (3, 1, 2), (8, 16, 16, 16, 16, 4)]:
        net = mlp(widths, act)
        norms = [np.linalg.norm(m.weight.detach().numpy(), 2) for m in net if isinstance(m, nn.Linear)]
        product = prod(norms) * slope ** (len(norms) - 1)
        found = ns.bounds(net, torch.zeros(1, widths[0]).double(), inputs=Ball(inf, "here")).inputs.lipschitz
        assert found <= product * (1 + 1e-8)
        assert len(norms) < 4 or found < 0.75 * product


def test_relu_without_a_kink_in_the_ball_has_no_curvature() -> None:
    """Locally a network of relus is affine: l is the norm of its Jacobian, L = 0; in a larger ball L = inf."""
    net = mlp((4, 8, 8, 2), nn.ReLU)
    x = torch.randn(1, 4).double()
    near, far = (ns.bounds(net, x, inputs=r).inputs for r in (1e-5, 10.0))
    assert near.smoothness == 0.0
    assert far.smoothness == inf
    assert near.lipschitz == pytest.approx(spectral(net, x), rel=1e-6)
    assert near.lipschitz < far.lipschitz


def test_points_of_a_batch_have_slopes_of_their_own() -> None:
    """The bound of a batch is the largest of its points, in balls of the same radius."""
    net = mlp((4, 16, 16, 3), nn.Tanh)
    x = torch.randn(5, 4).double()
    alone = [ns.bounds(net, p[None], inputs=0.05).inputs.lipschitz for p in x]
    assert ns.bounds(net, x, inputs=0.05).inputs.lipschitz == pytest.approx(max(alone), rel=2e-2)


def test_weights_that_move_leave_the_walks_constants() -> None:
    """A product with a matrix that moves is not linear in the input: sound, and the tangents start anew after it."""
    net = mlp((3, 4, 4, 2), nn.Tanh)
    x = torch.randn(2, 3).double()
    both = ns.bounds(net, x, weights={"0.weight": Ball(0.1, "here")}, inputs=0.1)
    fixed = ns.bounds(net, x, inputs=0.1)
    assert fixed.inputs.lipschitz <= both.inputs.lipschitz < inf


def test_two_inputs_are_bounded_each() -> None:
    """f(x, y) = A relu(B x + C y): each input has tangents of its own."""
    w = weights((4, 3), (4, 2), (2, 4))
    x, y = torch.randn(1, 3).double(), torch.randn(1, 2).double()

    def f(w: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w["a"].T + y @ w["b"].T) @ w["c"].T

    found = ns.bounds(f, w, x, y, inputs=1e-6)
    for part, point in ((0, x), (1, y)):
        others = [x, y]

        def one(v: torch.Tensor, part: int = part, others: list[torch.Tensor] = others) -> torch.Tensor:
            return f(w, *[v if k == part else u for k, u in enumerate(others)])

        block = [b for b in found.blocks if b.kind == "inputs"][part]
        assert block.lipschitz == pytest.approx(spectral(one, point), rel=1e-5)


def test_writes_in_place_are_followed() -> None:
    """Values that memory was written to have no stale tangents."""

    def f(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        y = x @ w["a"]
        z = y.mul_(3.0)
        y = z.relu_()
        return torch.tanh(y @ w["b"]) + y @ w["b"]

    w, x = weights((3, 4), (4, 2)), torch.randn(1, 3).double()
    for radius in (1e-6, 1.0):
        assert climbed(lambda x: f(w, x), x, radius) <= bound(f, w, x, radius) * (1 + 1e-7)


def test_what_is_compared_or_rounded_is_not_linear() -> None:
    """Steps that move no derivative, but do depend on the input, are not taken for fixed factors."""

    def f(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        y = x @ w["a"]
        return torch.where(y > 0, y, 3 * y) @ w["b"]

    w, x = weights((3, 4), (4, 2)), torch.randn(1, 3).double()
    found = bound(f, w, x, 5.0)
    assert climbed(lambda x: f(w, x), x, 5.0) <= found * (1 + 1e-7)
