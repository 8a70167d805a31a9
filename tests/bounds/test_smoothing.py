"""Smoothing: the accuracy holds on samples, gradients are those of the smoothed function, refusals name the line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.bounds import smoothing
from nonsmooth.bounds.constants.smoothed import averaged
from nonsmooth.frameworks.jax import JAX
from nonsmooth.frameworks.torch import TORCH

Function = Callable[..., Any]

TORCH_PIECES: dict[str, Function] = {
    "relu": torch.relu,
    "relu in place": lambda u: F.relu_(u * 1.0),
    "relu in place, seen through a view": lambda u: (lambda v: (v.view(-1).relu_(), v)[1])(u * 1.0),
    "leaky_relu": lambda u: F.leaky_relu(u, 0.2),
    "abs": torch.abs,
    "hardtanh": F.hardtanh,
    "relu6": lambda u: F.relu6(4 * u),
    "clamp": lambda u: u.clamp(-0.5, 0.1),
    "clamp from below": lambda u: u.clamp(min=0.1),
    "clamp by arrays": lambda u: torch.clamp(u, u.flip(0), 1 + u.flip(1)),
    "hardsigmoid": lambda u: F.hardsigmoid(3 * u),
    "hardswish": lambda u: F.hardswish(3 * u),
    "softshrink": F.softshrink,
    "prelu": lambda u: F.prelu(u, u.new_tensor([-1.5])),
    "threshold": lambda u: F.threshold(u, 0.1, 0.1),
    "maximum": lambda u: torch.maximum(u, u.flip(0)),
    "minimum": lambda u: torch.minimum(u, u.flip(0)),
    "largest along an axis": lambda u: u - u.amax(1, keepdim=True),
    "smallest, with its place": lambda u: u + u.min(0).values,
    "largest of all": lambda u: u * 0.1 + u.max(),
    "hinge": lambda u: torch.relu(1 - u),
    "maximum pooling, padded": lambda u: F.max_pool1d(u[None], 3, stride=2, padding=1)[0],
    "two after each other": lambda u: torch.relu(torch.abs(u) - 0.3),
}

JAX_PIECES: dict[str, Function] = {
    "relu": jax.nn.relu,
    "maximum with a number": lambda u: jnp.maximum(u, 0.0),
    "leaky_relu": lambda u: jax.nn.leaky_relu(u, 0.2),
    "abs": jnp.abs,
    "clip": lambda u: jnp.clip(u, -0.5, 0.1),
    "hard_tanh": jax.nn.hard_tanh,
    "minimum": lambda u: jnp.minimum(u, u[::-1]),
    "largest along an axis": lambda u: u - jnp.max(u, 1, keepdims=True),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> Any:
    """Draw from a ball, half of the time from its sphere."""
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v) * radius * (1.0 if rng.random() < 0.5 else rng.random())


def problem(name: str, framework: Any, seed: int) -> tuple[Function, dict[str, Any], Any]:
    """Make a function of two layers around a piece, its weights and an input."""
    rng = np.random.default_rng(seed)
    like = torch.zeros((), dtype=torch.double) if framework is TORCH else jnp.zeros(())
    piece = TORCH_PIECES[name] if framework is TORCH else JAX_PIECES[name]
    x = framework.array_like(like, rng.normal(size=(3, 5)))
    w = {k: framework.array_like(like, draw(rng, s, 1.0)) for k, s in {"a": (5, 4), "c": (4,)}.items()}
    return lambda w, x: piece(x @ w["a"] + w["c"]), w, x


CASES = [(TORCH, name) for name in TORCH_PIECES] + [(JAX, name) for name in JAX_PIECES]
NAMES = [f"{framework.name}: {name}" for framework, name in CASES]


@pytest.mark.parametrize(("framework", "name"), CASES, ids=NAMES)
def test_within_the_accuracy_and_smooth(framework: Any, name: str) -> None:
    """||F - F_mu|| <= accuracy and ||grad F_mu(w) - grad F_mu(v)|| <= L ||w - v|| on samples of the set."""
    f, w, x = problem(name, framework, seed=len(name))
    smoothed = ns.smooth(f, w, x, accuracy=0.1, weights=2.0)
    assert smoothed.parameters
    assert 0 < smoothed.accuracy <= 0.1
    assert all(
        p.parameter > 0 and p.sensitivity > 0 and p.line.startswith("test_smoothing.py") for p in smoothed.parameters
    )
    bound = ns.bounds(smoothed, w, x, weights=2.0).weights
    assert bound.smoothness < np.inf
    rng = np.random.default_rng(1)
    eps = 1e-12 if framework is TORCH else 1e-5
    directions = np.ones(np.shape(framework.numpy(smoothed(w, x)))) / np.sqrt(framework.numpy(smoothed(w, x)).size)
    gradients, points = [], []
    for _ in range(12 if framework is TORCH else 5):
        point = {k: framework.array_like(t, draw(rng, tuple(t.shape), 2.0)) for k, t in w.items()}
        near = {k: t * (1 - 1e-2 * rng.random()) for k, t in point.items()}
        for at in (point, near):
            gap = framework.numpy(smoothed(at, x)) - framework.numpy(f(at, x))
            assert np.linalg.norm(gap) <= smoothed.accuracy + eps * bound.norm
            leaves, structure = framework.flatten(at)
            _, g = framework.differentiate(
                lambda t, s=structure: smoothed(framework.unflatten(t, s), x), leaves, [directions], True
            )
            gradients.append(np.concatenate([framework.numpy(t).ravel() for t in g]))
            points.append(np.concatenate([framework.numpy(t).ravel() for t in leaves]))
    for (g, h), (v, u) in zip(pairwise(gradients), pairwise(points), strict=True):
        assert np.linalg.norm(g - h) <= bound.smoothness * np.linalg.norm(v - u) + eps * bound.lipschitz


@pytest.mark.parametrize(
    "name", ["relu", "abs", "hardtanh", "maximum", "largest along an axis", "two after each other"]
)
def test_gradients_are_those_of_the_smoothed_function(name: str) -> None:
    """Autograd agrees with central differences, twice."""
    f, w, x = problem(name, TORCH, seed=3)
    smoothed = ns.smooth(f, w, x, accuracy=1.0, weights=2.0)
    leaves = tuple(t.clone().requires_grad_() for t in w.values())
    function = lambda *t: smoothed(dict(zip(w, t, strict=True)), x)  # noqa: E731
    assert torch.autograd.gradcheck(function, leaves)
    if "largest" in name:
        assert torch.autograd.gradgradcheck(function, leaves)


def test_at_a_kink_there_is_one_gradient() -> None:
    """relu(t) - relu(-t), the identity, has the derivative 1 at 0, and the program no kinks."""
    f = lambda t: torch.relu(t) - torch.relu(-t)  # noqa: E731
    t = torch.zeros(1, dtype=torch.double)
    smoothed = ns.smooth(f, t, accuracy=0.1, weights=1.0)
    assert float(ns.grad(lambda t: smoothed(t).sum())(t)) == pytest.approx(1.0)
    assert not ns.capture(lambda t: smoothed(t).sum(), t).nonsmooth


def test_gradients_converge_where_the_function_is_smooth() -> None:
    """As the accuracy goes to 0 the gradient at a point without active kinks becomes that of F."""
    f, w, x = problem("two after each other", TORCH, seed=5)
    leaves = {k: t.clone().requires_grad_() for k, t in w.items()}
    exact = torch.autograd.grad(f(leaves, x).sum(), list(leaves.values()))
    gaps = []
    for accuracy in (1.0, 1e-1, 1e-3, 1e-6):
        smoothed = ns.smooth(f, w, x, accuracy=accuracy, weights=2.0)
        found = torch.autograd.grad(smoothed(leaves, x).sum(), list(leaves.values()))
        gaps.append(max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)))
    assert gaps[0] > 1e-3
    assert gaps[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_random_networks(seed: int) -> None:
    """Deep networks of random widths and activations, inputs moving too: the accuracy holds; the ratio is no accident."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    widths = [4, *rng.integers(2, 6, size=rng.integers(2, 4)).tolist()]
    kinds = [torch.nn.ReLU(), torch.nn.LeakyReLU(0.3), torch.nn.Hardtanh(), torch.nn.ReLU6(), torch.nn.Softshrink(0.1)]
    layers = [m for a, b in pairwise(widths) for m in (torch.nn.Linear(a, b), kinds[rng.integers(len(kinds))])]
    net = torch.nn.Sequential(*layers).double()
    x = torch.randn(2, 4, dtype=torch.double)
    smoothed = ns.smooth(net, x, accuracy=0.05, weights=1.0, inputs=0.5)
    worst = 0.0
    for _ in range(100):
        w = {k: torch.from_numpy(draw(rng, tuple(p.shape), 1.0)) for k, p in net.named_parameters()}
        z = x + torch.from_numpy(draw(rng, tuple(x.shape), 0.5))
        gap = torch.func.functional_call(net, w, z) - smoothed(w, z)
        worst = max(worst, float(gap.norm()))
    assert worst <= smoothed.accuracy
    assert sum(p.error * p.sensitivity for p in smoothed.parameters) <= 0.05


def test_tight_for_one_piece() -> None:
    """sum relu(w_i): the worst point is w = 0, where all entries have their largest error."""
    n = 9
    smoothed = ns.smooth(lambda w: torch.relu(w).sum(), torch.zeros(n), accuracy=0.3, weights=5.0)
    assert float(smoothed(torch.zeros(n))) == pytest.approx(0.3, rel=1e-5)


def test_shares_make_the_whole_smoother_than_equal_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant with the shares that are chosen is less than with equal shares of the accuracy."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        *[m for _ in range(4) for m in (torch.nn.Linear(4, 4), torch.nn.ReLU())], torch.nn.Linear(4, 1)
    )
    x = torch.randn(5, 4)

    def constant() -> float:
        smoothed = ns.smooth(net, x, accuracy=0.1, weights=2.0)
        assert sum(p.error * p.sensitivity for p in smoothed.parameters) <= 0.1
        return ns.bounds(smoothed, smoothed.point, x, weights=2.0).weights.smoothness

    chosen = constant()

    def equal(self: Any) -> dict[int, float]:
        return {k: 1 / s for k, s in self.walk({})[0].items()}

    monkeypatch.setattr(smoothing._Errors, "shares", equal)
    assert chosen < 0.9 * constant()


def test_a_wider_average_breaks_the_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: with parameters ten times as large the difference exceeds the accuracy."""
    smoothed = ns.smooth(lambda w: torch.relu(w).sum(), torch.zeros(9), accuracy=0.3, weights=5.0)
    mu = smoothed.parameters[0].parameter
    wide = TORCH.smoothed_pieces(torch.zeros(9), 10 * mu, [0.0], [0.0, 1.0], 0.0)
    assert float(wide.sum()) > 0.3


def test_pieces_whose_kinks_are_never_met_stay() -> None:
    """relu of what stays above 0 on the set is no step to smooth."""
    smoothed = ns.smooth(lambda w: torch.relu(w + 3).sum(), torch.zeros(2), accuracy=0.1, weights=1.0)
    assert smoothed.parameters == ()
    assert smoothed.accuracy == 0
    assert float(smoothed(torch.ones(2))) == 8


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda w: torch.sign(w).sum(), "jumps"),
        (lambda w: torch.floor(w).sum(), "jumps"),
        (lambda w: torch.sort(w).values[0], "no smoothing"),
        (lambda w: torch.where(w > 0, w, -w).sum(), "smooth"),
        (lambda w: w.max(0).values * w[w.max(0).indices], "places"),
        (lambda w: torch.sqrt(torch.relu(w)).sum(), "not bounded"),
    ],
)
def test_refused_by_line(f: Function, words: str) -> None:
    """Jumps, steps without a smoothing, places and unbounded sensitivities are refused where they stand."""
    with pytest.raises(ns.errors.NonsmoothError, match=words) as caught:
        ns.smooth(f, torch.ones(3), accuracy=0.1, weights=2.0)
    assert "test_smoothing.py" in str(caught.value)


@pytest.mark.parametrize("accuracy", [0, -1.0, float("inf"), float("nan"), True, "small"])
def test_no_accuracy(accuracy: Any) -> None:
    """An accuracy is a number > 0."""
    with pytest.raises(ns.errors.UsageError, match="accuracy"):
        ns.smooth(lambda w: torch.relu(w).sum(), torch.ones(3), accuracy=accuracy, weights=1.0)


def test_an_if_on_data_is_refused() -> None:
    """What holds on one branch need not hold on the set."""
    with pytest.raises(ns.errors.CaptureError, match="chooses among programs"):
        ns.smooth(lambda w: torch.relu(w).sum() if w.sum() > 0 else w.sum(), torch.ones(3), accuracy=0.1, weights=1.0)


def test_other_shapes_are_refused() -> None:
    """The parameters are certified for the shapes that were given."""
    smoothed = ns.smooth(lambda w, x: torch.relu(x @ w), torch.ones(3), torch.ones(2, 3), accuracy=0.1, weights=1.0)
    with pytest.raises(ns.errors.UsageError, match="smooth again"):
        smoothed(torch.ones(3), torch.ones(4, 3))
    with pytest.raises(ns.errors.UsageError, match=r"smoothed\(weights, \*inputs\)") as caught:
        smoothed((torch.ones(3),), torch.ones(2, 3))
    assert "\n" not in str(caught.value)
    with pytest.raises(ns.errors.UsageError, match="w had the type float32; found float64"):
        smoothed(torch.ones(3).double(), torch.ones(2, 3))


@pytest.mark.parametrize(
    "f", [F.selu, lambda u: F.elu(u, 2.0), jax.nn.selu, lambda u: jax.nn.elu(u, 2.0)], ids=["selu", "elu"] * 2
)
def test_pieces_that_bend_are_refused(f: Any) -> None:
    """selu and elu with a kink are not linear between kinks: read as if they were, they would come out far away."""
    try:
        w: Any = torch.zeros(4)
        f(w)
    except TypeError:
        w = jnp.zeros(4)
    with pytest.raises(ns.errors.UsageError, match=r"elu.* has no smoothing"):
        ns.smooth(lambda w: f(w).sum(), w, accuracy=0.1, weights=2.0)


def test_no_set_is_refused() -> None:
    """Held fixed, nothing is smoothed."""
    with pytest.raises(ns.errors.UsageError, match="weights=, inputs="):
        ns.smooth(lambda w: torch.relu(w).sum(), torch.ones(3), accuracy=0.1)


def test_nothing_of_the_users_changes() -> None:
    """Parameters, gradients, mode and random state stay as they were."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(inplace=True))
    x = torch.randn(2, 3)
    before, state, copy = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state(), x.clone()
    smoothed = ns.smooth(net, x, accuracy=0.1, weights=2.0)
    smoothed(smoothed.point, x).sum()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, copy)
    assert net.training


def test_under_jit_grad_and_vmap() -> None:
    """The smoothed function is an ordinary function of JAX."""
    f = lambda w, x: jnp.max(jax.nn.relu(x @ w))  # noqa: E731
    w, x = jnp.array([[0.3, -0.2], [0.1, 0.4]]), jnp.ones((3, 2))
    smoothed = ns.smooth(f, w, x, accuracy=0.1, weights=1.0)
    gradient = jax.jit(jax.grad(smoothed))(w, x)
    assert np.allclose(gradient, jax.grad(smoothed)(w, x), atol=1e-6)
    many = jax.vmap(smoothed, in_axes=(0, None))(jnp.stack([w, 2 * w]), x)
    assert np.allclose(many, [smoothed(w, x), smoothed(2 * w, x)], atol=1e-6)
    assert jax.hessian(smoothed)(w, x).shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("breakpoints", "slopes"),
    [((0.0,), (0.0, 1.0)), ((-1.0, 1.0), (0.0, 1.0, 0.0)), ((-0.3, 0.1, 0.2), (1.0, -1.0, 0.5, 2.0))],
)
@pytest.mark.parametrize("width", [0.05, 1.0, 3.0])
def test_the_average_is_the_average(breakpoints: Any, slopes: Any, width: float) -> None:
    """The formula is the mean over [t - width, t + width]; both frameworks compute it; its ranges hold its samples."""
    function = averaged(width, breakpoints, slopes, 0.7)
    a = averaged(1e-9, breakpoints, slopes, 0.7).value
    t = np.linspace(-4, 4, 33)
    nodes = (np.arange(4000) + 0.5) / 2000 - 1
    assert np.allclose(function.value(t), a(t[:, None] + width * nodes).mean(1), atol=1e-5)
    assert np.allclose(function.first(t), (function.value(t + 1e-6) - function.value(t - 1e-6)) / 2e-6, atol=1e-5)
    for framework, like, atol in ((TORCH, torch.zeros((), dtype=torch.double), 1e-12), (JAX, jnp.zeros(()), 1e-5)):
        found = framework.smoothed_pieces(framework.array_like(like, t), width, list(breakpoints), list(slopes), 0.7)
        assert np.allclose(framework.numpy(found), function.value(t), atol=atol)
    low, high = t[:-8], t[8:]
    least, most = function.range(low, high)
    inside = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 201)
    assert np.all(least[:, None] <= function.value(inside))
    assert np.all(function.value(inside) <= most[:, None])
    assert np.allclose(least, function.value(inside).min(1), atol=0.05)
