"""Programs of JAX as shapes: what is written alike in torch and JAX counts alike, or differs by what is written beside it.

One table, hence a long file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax, nn
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.cost.scalars import counter
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.frameworks.jax.shaped import shaped

torch = pytest.importorskip("torch")
F = torch.nn.functional

RANDOM = np.random.default_rng(0)
X, W, V = RANDOM.normal(size=(4, 6)), RANDOM.normal(size=(6, 6)), RANDOM.normal(size=(6, 3))
P = RANDOM.uniform(1, 2, size=(4, 6))
IMAGE, KERNEL = RANDOM.normal(size=(2, 3, 8, 8)), RANDOM.normal(size=(4, 3, 3, 3))
SQUARE = RANDOM.normal(size=(5, 5)) + 5 * np.eye(5)
LABELS, ROWS = np.array([0, 2, 1, 5]), np.array([0, 2, 2, 1])
t = torch.tensor

Twin = tuple[Callable[[Any], Any], Callable[[Any], Any], Any]


def windows(u: Any, start: float, merge: Any) -> Any:
    """Merge windows of 2 x 2."""
    return lax.reduce_window(u, start, merge, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def convolved(u: Any, k: Any, stride: int = 1, padding: int = 0, **options: Any) -> Any:
    """Convolve as torch does."""
    return lax.conv_general_dilated(jnp.asarray(u), k, (stride,) * 2, ((padding, padding),) * 2, **options)


def turned(k: Any) -> Any:
    """Turn the kernel of a transposed convolution."""
    return jnp.flip(jnp.swapaxes(k, 0, 1), (2, 3))


SAME: dict[str, Twin] = {
    "network": (lambda x: (torch.relu(x @ t(W)) @ t(V)).sum(), lambda x: (nn.relu(x @ W) @ V).sum(), X),
    "layer with bias": (
        lambda p: torch.tanh(F.linear(t(X), p[0], p[1])).sum(),
        lambda p: jnp.tanh(X @ p[0].T + p[1]).sum(),
        (W, W[0]),
    ),
    "einsum": (
        lambda x: torch.einsum("ij,kj->ik", x, x).sum(),
        lambda x: jnp.einsum("ij,kj->ik", x, x).sum(),
        X,
    ),
    "convolution": (lambda k: F.conv2d(t(IMAGE), k).sum(), lambda k: convolved(IMAGE, k).sum(), KERNEL),
    "convolution, padded and strided": (
        lambda k: F.conv2d(t(IMAGE), k, stride=2, padding=1).sum(),
        lambda k: convolved(IMAGE, k, 2, 1).sum(),
        KERNEL,
    ),
    "convolution, transposed": (
        lambda k: F.conv_transpose2d(t(IMAGE), k, stride=2).sum(),
        lambda k: convolved(IMAGE, turned(k), 1, 2, lhs_dilation=(2, 2)).sum(),
        KERNEL.swapaxes(0, 1),
    ),
    "convolution in groups": (
        lambda k: F.conv2d(t(IMAGE), k, groups=3).sum(),
        lambda k: convolved(IMAGE, k, feature_group_count=3).sum(),
        KERNEL[:3, :1],
    ),
    "max pooling": (lambda x: F.max_pool2d(x, 2).sum(), lambda x: windows(x, -jnp.inf, lax.max).sum(), IMAGE),
    "softmax": (lambda x: (torch.softmax(x, -1) * t(P)).sum(), lambda x: (nn.softmax(x, -1) * P).sum(), X),
    "log softmax": (lambda x: (torch.log_softmax(x, 0) * t(P)).sum(), lambda x: (nn.log_softmax(x, 0) * P).sum(), X),
    "attention": (
        lambda q: (torch.softmax(q @ q.T / 2.0, -1) @ q).sum(),
        lambda q: (nn.softmax(q @ q.T / 2.0, -1) @ q).sum(),
        X,
    ),
    "Euclidean norm": (lambda x: torch.linalg.vector_norm(x), lambda x: jnp.linalg.norm(x.reshape(-1)), X),
    "norms of rows": (
        lambda x: torch.linalg.vector_norm(x, dim=1).sum(),
        lambda x: jnp.linalg.norm(x, axis=1).sum(),
        X,
    ),
    "1-norms": (
        lambda x: torch.linalg.vector_norm(x, 1, dim=1).sum(),
        lambda x: jnp.linalg.norm(x, 1, axis=1).sum(),
        X,
    ),
    "maximum norms": (
        lambda x: torch.linalg.vector_norm(x, float("inf"), dim=0).sum(),
        lambda x: jnp.linalg.norm(x, jnp.inf, axis=0).sum(),
        X,
    ),
    "3-norms": (
        lambda x: torch.linalg.vector_norm(x, 3, dim=1).sum(),
        lambda x: jnp.linalg.norm(x, 3, axis=1).sum(),
        X,
    ),
    "sort": (lambda x: (torch.sort(x, 0).values * t(P)).sum(), lambda x: (jnp.sort(x, 0) * P).sum(), X),
    "largest two": (lambda x: torch.topk(x, 2).values.sum(), lambda x: lax.top_k(x, 2)[0].sum(), X),
    "largest": (lambda x: torch.amax(x, 1).sum(), lambda x: jnp.max(x, 1).sum(), X),
    "largest so far": (lambda x: torch.cummax(x, 1).values.sum(), lambda x: lax.cummax(x, 1).sum(), X),
    "cumulated": (
        lambda x: torch.cumsum(torch.cumprod(x, 1), 0).sum(),
        lambda x: jnp.cumsum(jnp.cumprod(x, 1), 0).sum(),
        X,
    ),
    "products": (lambda x: torch.prod(x, 1).sum(), lambda x: jnp.prod(x, 1).sum(), X),
    "variance": (
        lambda x: torch.var(x, 0, correction=0).sum() + torch.std(x, 1, correction=0).sum(),
        lambda x: jnp.var(x, 0).sum() + jnp.std(x, 1).sum(),
        X,
    ),
    "gelu": (lambda x: F.gelu(x, approximate="tanh").sum(), lambda x: nn.gelu(x).sum(), X),
    "activations": (
        lambda x: (F.silu(x) + F.elu(x) + F.softplus(x) + F.leaky_relu(x) + torch.sigmoid(x)).sum(),
        lambda x: (nn.silu(x) + nn.elu(x) + nn.softplus(x) + nn.leaky_relu(x) + nn.sigmoid(x)).sum(),
        X,
    ),
    "powers": (
        lambda x: (x**2 + x**3 + x**2.5 + x**-1 + x**0.5).sum(),
        lambda x: (x**2 + x**3 + x**2.5 + x**-1 + x**0.5).sum(),
        P,
    ),
    "elementary": (
        lambda x: (torch.log(x) + torch.sqrt(x) + torch.rsqrt(x) + torch.sin(x) * torch.atan(x) / x).sum(),
        lambda x: (jnp.log(x) + jnp.sqrt(x) + lax.rsqrt(x) + jnp.sin(x) * jnp.atan(x) / x).sum(),
        P,
    ),
    "switches": (
        lambda x: (torch.clamp(x, -1, 1) + torch.where(x > 0, x, 2 * x) + torch.maximum(x, x * x) + x.abs()).sum(),
        lambda x: (jnp.clip(x, -1, 1) + jnp.where(x > 0, x, 2 * x) + jnp.maximum(x, x * x) + jnp.abs(x)).sum(),
        X,
    ),
    "Fourier": (
        lambda x: torch.fft.irfft(torch.fft.rfft(x)).sum() + torch.fft.fft2(x).real.sum(),
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x)).sum() + jnp.fft.fft2(x).real.sum(),
        X,
    ),
    "rows taken and added": (
        lambda x: torch.zeros(3, 6, dtype=torch.float64).index_add(0, t(ROWS), x)[t([0, 0, 2])].sum(),
        lambda x: jnp.zeros((3, 6)).at[jnp.asarray(ROWS)].add(x)[jnp.array([0, 0, 2])].sum(),
        X,
    ),
    "solve": (
        lambda a: torch.linalg.solve(a, t(SQUARE[:, :2])).sum(),
        lambda a: jnp.linalg.solve(a, SQUARE[:, :2]).sum(),
        SQUARE,
    ),
    "determinants": (
        lambda a: torch.linalg.det(a) + torch.linalg.slogdet(a)[1],
        lambda a: jnp.linalg.det(a) + jnp.linalg.slogdet(a)[1],
        SQUARE,
    ),
    "singular values": (lambda a: torch.linalg.svdvals(a)[0], lambda a: jnp.linalg.svdvals(a)[0], SQUARE),
    "QR": (lambda a: torch.linalg.qr(a)[1].sum(), lambda a: jnp.linalg.qr(a)[1].sum(), SQUARE),
}
"""Formulas that count alike in both, scalar operation by scalar operation, forward and in the reverse sweep."""

DIFFERENT: dict[str, tuple[Twin, str, str]] = {
    "mean": ((lambda x: x.mean(), lambda x: x.mean(), X), "div", "mul"),  # the sum times 1/n, not over n
    "average pooling": (
        (lambda x: F.avg_pool2d(x, 2).sum(), lambda x: (windows(x, 0.0, lax.add) / 4).sum(), IMAGE),
        "96 div",
        "96 mul",  # the sums of windows times 1/4
    ),
    "squared errors": (
        (lambda x: F.mse_loss(x, t(P)), lambda x: jnp.mean((x - P) ** 2), X),
        "div",
        "mul",  # the mean
    ),
    "gelu by erf": (
        (lambda x: F.gelu(x).sum(), lambda x: nn.gelu(x, approximate=False).sum(), X),
        "24 erf 24 add",
        "24 erfc 24 neg",  # erfc(-u) in the place of 1 + erf(u)
    ),
    "log of a sum of exponentials": (
        (lambda x: torch.logsumexp(x, -1).sum(), lambda x: nn.logsumexp(x, -1).sum(), X),
        "",
        "4 abs 4 compare 4 select",  # the shift is 0 where it is not finite
    ),
    "cross entropy": (
        (
            lambda x: F.cross_entropy(x, t(LABELS)),
            lambda x: -jnp.mean(nn.log_softmax(x)[jnp.arange(4), jnp.asarray(LABELS)]),
            X,
        ),
        "4 add div",
        "20 sub mul neg",  # all log probabilities, of which one a row is taken; one sign after the mean; the mean
    ),
}
"""Formulas of which JAX writes a part otherwise: what torch counts more, what JAX counts more."""


@pytest.fixture(autouse=True)
def without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the proof of capture to its own tests: it compiles every formula, forward and backward, at two points."""
    monkeypatch.setattr("nonsmooth.frameworks.jax.capture.prove", lambda *_, **__: None)


def counted(f: Callable[[Any], Any], x: Any) -> tuple[Counter[str], Counter[str]]:
    """Count a program and its reverse sweep; all of it."""
    evaluation, pull = Counter[str](), Counter[str]()
    for step in count_steps(ns.capture(f, x)):
        assert step.sweep is not None, step.step
        evaluation += step.sweep.evaluation
        pull += step.sweep.pull
    return evaluation, pull


def both(twin: Twin) -> tuple[tuple[Counter[str], Counter[str]], tuple[Counter[str], Counter[str]]]:
    """Count a formula in torch and in JAX."""
    in_torch, in_jax, x = twin
    point = jax.tree_util.tree_map(torch.tensor, x)
    with jax.enable_x64(True):
        return counted(in_torch, point), counted(in_jax, jax.tree_util.tree_map(jnp.asarray, x))


@pytest.mark.parametrize("name", SAME)
def test_the_same_formula_counts_alike(name: str) -> None:
    """Forward and reverse, scalar operation by scalar operation."""
    in_torch, in_jax = both(SAME[name])
    assert in_jax == in_torch
    assert sum(in_torch[0].values()) > 0


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_jax_writes_otherwise_is_the_difference(name: str) -> None:
    """The counts differ by exactly what is written beside the formula."""
    twin, less, more = DIFFERENT[name]
    (in_torch, _), (in_jax, _) = both(twin)
    assert in_torch - in_jax == counter(less)
    assert in_jax - in_torch == counter(more)


def test_nothing_moves_where_no_result_is_differentiated() -> None:
    """Comparisons and what `stop_gradient` cuts off take the point and do not move with it."""
    program = ns.capture(lambda x: (jnp.where(x > 0, x, 0.0) * lax.stop_gradient(x)).sum(), jnp.ones(3))
    calls = {c.operation: c for c in (shaped(program, s) for s in program.steps)}
    assert [o.moving for o in calls["compare"].operands] == [False, False]
    assert [o.moving for o in calls["detach"].operands] == [False]
    assert [o.moving for o in calls["mul"].operands] == [True, False]


def test_the_arithmetic_of_indices_is_free() -> None:
    """Negative indices, iota and one-hot codes are whole numbers and truth values; comparisons of real numbers count."""
    index = jnp.array([2, -1])
    evaluation, pull = counted(lambda x, i=index: x[i + 0].sum(), jnp.ones((3, 2)))
    assert (evaluation, pull) == (counter("3 add"), counter("6 add"))

    def coded(x: jax.Array, labels: jax.Array) -> jax.Array:
        return (nn.one_hot(labels, 3) * jnp.where(x > 0, x, 2.0)).sum()

    program = ns.capture(coded, jnp.ones((2, 3)), index)
    calls = [shaped(program, s) for s in program.steps]
    assert [c.discrete for c in calls if c.operation == "compare"].count(False) == 1
    sweeps = [s.sweep for s in count_steps(program)]
    evaluation = sum((s.evaluation for s in sweeps if s is not None), Counter[str]())
    assert +evaluation == counter("6 compare 6 select 6 mul 5 add")


@pytest.mark.parametrize("right", [np.ones(5), SQUARE[:, :2]], ids=["one", "two"])
def test_a_system_of_ones_own_counts_as_any_other(right: Any) -> None:
    """One elimination and the substitutions, whatever else the functions of `custom_linear_solve` close over."""

    def own(a: jax.Array) -> jax.Array:
        solve = lambda _, b: jnp.linalg.solve(a, b)  # noqa: E731
        turned = lambda _, b: jnp.linalg.solve(a.T, b)  # noqa: E731
        return lax.custom_linear_solve(lambda u: a @ u, jnp.asarray(right), solve, turned).sum()

    with jax.enable_x64(True):
        plain = counted(lambda a: jnp.linalg.solve(a, jnp.asarray(right)).sum(), jnp.asarray(SQUARE))
        assert counted(own, jnp.asarray(SQUARE)) == plain
        bare = ns.capture(
            lambda x: (
                lax.custom_linear_solve(lambda u: x * u, jnp.asarray(right), lambda _, b: (b.T / x).T).sum()
                if right.ndim == 1
                else x.sum()
            ),
            jnp.ones(5),
        )
    systems = [s for s in count_steps(bare) if s.step.label == "custom_linear_solve"]
    assert all(s.sweep is None for s in systems) and len(systems) == (right.ndim == 1)


def test_no_array_is_an_attribute() -> None:
    """Attributes are numbers, words and tuples of them, axes counted from the front."""
    program = ns.capture(lambda x: nn.softmax(x, axis=-1).std(axis=-1).sum() + jnp.sort(x, axis=-2)[0, 0], jnp.eye(3))
    for step in program.steps:
        call = shaped(program, step)
        assert not any(hasattr(v, "dtype") for v in call.attributes.values())
        assert all(0 <= a < max(len(call.operands[0].shape), 1) for a in call.attributes.get("axes", ()))
