"""Backpropagation under a selection: against closed forms, and against every selection written out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.errors import ConventionError, ResultError, UsageError
from tests.shortened import shortened

ZERO = torch.tensor(0.0, dtype=torch.float64)


def relu2(t: torch.Tensor) -> torch.Tensor:
    """Equal relu; backprop gives 1 at 0."""
    return torch.relu(-t) + t


SLIDES = {
    "relu": (torch.relu, {"framework": 0.0, 0.0: 0.0, 0.5: 0.5, 1.0: 1.0, "jax": 0.0, "minimum-norm": 0.0}),
    "relu2": (relu2, {"framework": 1.0, 0.0: 1.0, 1.0: 0.0, "minimum-norm": 1.0}),
    "relu3": (lambda t: (torch.relu(t) + relu2(t)) / 2, {"framework": 0.5, 0.0: 0.5, 1.0: 0.5}),
    "zero": (lambda t: relu2(t) - torch.relu(t), {"framework": 1.0, 0.5: 0.0, 1.0: -1.0}),
    "one third": (lambda t: torch.relu(-t) - torch.relu(t) + t + 1 / 3, {"framework": 1.0, 0.5: 0.0, 1.0: -1.0}),
    "identity": (lambda t: torch.relu(t) - torch.relu(-t), {"framework": 0.0, 0.5: 1.0, 1.0: 2.0}),
    "abs": (torch.abs, {"framework": 0.0, 0.0: -1.0, 1.0: 1.0, 0.25: -0.5, "jax": 1.0, "tensorflow": 0.0}),
    "leaky relu": (lambda t: F.leaky_relu(t, 0.01), {"framework": 0.01, "jax": 1.0, "tensorflow": 0.01}),
    "clamp": (lambda t: t.clamp(0, 1), {"framework": 1.0, 0.0: 0.0, 0.5: 0.5, "jax": 0.5, "tensorflow": 1.0}),
    "maximum": (lambda t: torch.maximum(t, 2 * t), {"framework": 1.5, "tensorflow": 1.0, 1.0: 1.0, 0.0: 2.0}),
    "where": (lambda t: torch.where(t > 0, 2 * t, t), {"framework": 1.0, 0.0: 1.0, 1.0: 2.0, 0.5: 1.5}),
    "where <": (lambda t: torch.where(t < 0, t, 2 * t), {"framework": 2.0, 0.0: 1.0, 1.0: 2.0}),
    "where ==": (lambda t: torch.where(t == 0, -t, t), {"framework": -1.0, 0.0: 1.0, 1.0: 1.0}),
    "where and": (lambda t: torch.where((t > 0) & (t < 5), 2 * t, t), {"framework": 1.0, 0.0: 1.0, 1.0: 2.0}),
    "where not": (lambda t: torch.where(~(t <= 0), 2 * t, t), {"framework": 1.0, 0.0: 1.0, 1.0: 2.0}),
    "in place": (lambda t: torch.relu_(t.clone()), {"framework": 0.0, 0.5: 0.5, 1.0: 1.0}),
    "norm": (lambda t: torch.linalg.vector_norm(torch.stack([t, t])), {"framework": 0.0, 0.5: 0.0}),
}


@pytest.mark.parametrize(("name", "convention"), [(n, c) for n, (_, table) in SLIDES.items() for c in table])
def test_closed_forms(name: str, convention: object) -> None:
    """What backprop gives at 0 under every convention."""
    f, table = SLIDES[name]
    assert float(ns.backprop(f, ZERO, at_kinks=convention)) == pytest.approx(table[convention], abs=1e-12)


@pytest.mark.parametrize("name", SLIDES)
def test_the_default_is_torch(name: str) -> None:
    """`framework` returns what torch returns, bit for bit."""
    f, _ = SLIDES[name]
    x = ZERO.clone().requires_grad_()
    (expected,) = torch.autograd.grad(f(x), x)
    assert torch.equal(ns.backprop(f, ZERO), expected)
    assert torch.equal(ns.backprop(f, ZERO, at_kinks="torch"), expected)


def test_every_selection_by_hand() -> None:
    """A two-layer network at 0: each of the 2^4 selections, applied by a callable, equals the product written out."""
    torch.manual_seed(0)
    first, second = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    x = torch.zeros(3, dtype=torch.float64)

    def f(point: torch.Tensor) -> torch.Tensor:
        return (second.sum(1) * torch.relu(first @ point)).sum()

    program = ns.capture(f, x)
    for signs in itertools.product((0.0, 1.0), repeat=4):
        weights = torch.tensor(signs, dtype=torch.float64)
        expected = (second.sum(1) * weights) @ first
        found = ns.backprop(program, x, at_kinks=lambda step, kink, call, w=weights: w)
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("seed", shortened(range(40), 20))
def test_random_programs_have_convex_fields(seed: int) -> None:
    """On random programs of switches the gradient is affine in the weight of one step, as multi-affinity says."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randint(-2, 3, (3, 3), generator=generator).double() for _ in range(3)]
    kinds = [torch.relu, torch.abs, lambda u: u.clamp(-1, 0), lambda u: torch.maximum(u, -u / 2)]
    chosen = [kinds[int(torch.randint(4, (), generator=generator))] for _ in layers]

    def f(x: torch.Tensor) -> torch.Tensor:
        for matrix, kind in zip(layers, chosen, strict=True):
            x = kind(matrix @ x)
        return x.sum()

    x = torch.zeros(3, dtype=torch.float64)
    program = ns.capture(f, x)
    target = program.nonsmooth[0].index

    def only(weight: float):  # type: ignore[no-untyped-def]
        return lambda step, kink, call: weight if step.index == target else 1.0

    low, high, middle = (ns.backprop(program, x, at_kinks=only(w)) for w in (0.0, 1.0, 0.25))
    assert torch.allclose(middle, 0.75 * low + 0.25 * high)


def test_ties_and_norms_by_word() -> None:
    """Order operations take even, first, last; a cone takes an element of the dual ball."""
    x = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64)
    assert ns.backprop(lambda u: u.max(), x, at_kinks={"max": "first"}).tolist() == [1, 0, 0]
    assert ns.backprop(lambda u: u.max(), x, at_kinks={"order": "last"}).tolist() == [0, 0, 1]
    assert ns.backprop(lambda u: u.amax(0), x, at_kinks=0.3).tolist() == [0.5, 0, 0.5]
    assert ns.backprop(lambda u: u.sort().values[1:] @ torch.tensor([1.0, 3.0]).double(), x, at_kinks=1.0).tolist() == [
        2,
        0,
        2,
    ]
    ball = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    found = ns.backprop(
        torch.linalg.vector_norm, torch.zeros(3).double(), at_kinks={"vector_norm": {"zero vector": ball}}
    )
    assert torch.equal(found, ball)


def test_random_is_seeded_and_leaves_the_generators_alone() -> None:
    """The draws of "random" repeat with the seed and touch nobody's state."""
    x = torch.zeros(5)
    before = torch.get_rng_state()
    first, again, other = (ns.backprop(lambda u: torch.relu(u).sum(), x, at_kinks="random", seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert bool(((first > 0) & (first < 1)).all())
    assert torch.equal(before, torch.get_rng_state())


def test_strong_zeros() -> None:
    """The branch that is not taken absorbs infinity; nothing else does."""

    def masked(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 1, torch.sqrt(x) * 3, x).sum()

    x = torch.zeros(2, dtype=torch.float64)
    assert ns.backprop(masked, x).isnan().all()
    assert ns.backprop(masked, x, at_kinks=0.5).tolist() == [1, 1]
    trap = ns.backprop(lambda t: torch.sqrt(torch.abs(t)) ** 2 - torch.abs(t), ZERO, at_kinks=0.5)
    assert trap.isnan()


def test_transforms() -> None:
    """grad and value_and_grad with argnums, data, structures; recaptured when shapes change."""

    def f(a: torch.Tensor, x: dict[str, torch.Tensor]) -> torch.Tensor:
        return (a * torch.relu(x["u"])).sum()

    point = {"u": torch.zeros(2)}
    gradient = ns.grad(f, at_kinks=1.0, argnums=1)
    assert gradient(torch.tensor([2.0, 3.0]), point)["u"].tolist() == [2, 3]
    assert gradient(torch.tensor([2.0, 3.0, 4.0]), {"u": torch.zeros(3)})["u"].tolist() == [2, 3, 4]
    value, slope = ns.value_and_grad(torch.abs, at_kinks=1.0)(ZERO)
    assert (float(value), float(slope)) == (0.0, 1.0)
    program = ns.capture(torch.abs, ZERO)
    assert float(ns.grad(program, at_kinks=0.0)(ZERO)) == -1.0
    with pytest.raises(UsageError, match="argnums"):
        ns.grad(f, argnums=2)(ZERO, point)


def test_what_is_handed_on_and_what_is_named() -> None:
    """`has_aux`, and keyword arguments, which are data: a program serves other values of them."""

    def f(x: torch.Tensor, w: float = 1.0, *, scale: Any, mode: str = "plain") -> Any:
        return scale * w * torch.abs(x).sum(), {"twice": 2 * x, "largest": torch.argmax(x), "mode": x + len(mode)}

    x = torch.tensor([0.0, 2.0])
    both = ns.value_and_grad(f, has_aux=True, at_kinks=0.75)
    for scale in (3.0, torch.tensor(3.0), torch.tensor(5.0)):
        (value, aux), gradient = both(x, 2.0, scale=scale)
        assert float(value) == 4 * float(scale) and gradient.tolist() == [float(scale), 2 * float(scale)]
        assert aux["twice"].tolist() == [0, 4] and not aux["twice"].requires_grad and int(aux["largest"]) == 1
    assert both(x, 2.0, scale=3.0, mode="ab").value[1]["mode"].tolist() == [2, 4]
    gradient, aux = ns.grad(f, has_aux=True, argnums=1)(x, torch.tensor(2.0), scale=3.0)
    assert (float(gradient), aux["mode"].tolist()) == (6.0, [5, 7])
    (value, aux), gradient = ns.value_and_grad(ns.capture(lambda x: f(x, scale=1.0), x), has_aux=True)(x)
    assert float(value) == 2 and gradient.tolist() == [0, 1] and sorted(aux) == ["largest", "mode", "twice"]
    with pytest.raises(UsageError, match=r"must return \(value, aux\)"):
        ns.grad(torch.sum, has_aux=True)(x)
    with pytest.raises(UsageError, match="no keyword arguments; found scale"):
        ns.grad(ns.capture(torch.abs, ZERO))(ZERO, scale=1.0)


@pytest.mark.parametrize(
    ("convention", "message"),
    [
        ("pytorch", "did you mean 'torch'"),
        (float("nan"), "finite"),
        (True, "number"),
        (None, "number"),
        ({"rellu": 1.0}, "did you mean 'relu'"),
        ({"relu": {"1": 0.5}}, "has the kinks"),
        ({"relu": "even"}, "takes a number"),
        ([1.0], "found a list"),
    ],
)
def test_conventions_that_mean_nothing(convention: object, message: str) -> None:
    """Each is refused with what was found and what to do."""
    with pytest.raises(ConventionError, match=message):
        ns.backprop(torch.relu, ZERO, at_kinks=convention)


def test_a_gradient_needs_a_scalar() -> None:
    """The error names the shape and the ways out."""
    with pytest.raises(ResultError, match=r"\(3,\).*sum"):
        ns.backprop(torch.relu, torch.zeros(3))


def test_a_result_that_does_not_depend_on_the_point() -> None:
    """The gradient is zero, as in JAX."""
    assert ns.backprop(lambda x: torch.ones(()) * 3, torch.zeros(2)).tolist() == [0, 0]
