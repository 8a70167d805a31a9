"""Bad input: an error that says what was found and what to do, and nothing of the user's changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.errors import ChangedInput, NonsmoothError, PointError, ResultError, UsageError
from tests.adapters import served

ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([1.0, float("nan")]), r"holds nan at index \(1,\)"),
        ({"w": torch.tensor(float("inf"))}, "w holds inf"),
        (torch.tensor([1, 2]), "integer type torch.int64.*double"),
        (torch.tensor([True]), "integer type torch.bool"),
        (torch.tensor([1j]), "complex"),
        (torch.ones(3).to_sparse(), "sparse"),
        (torch.ones(3, device="meta"), "meta"),
        (np.ones(3), "ndarray"),
        (1.0, "float"),
        ([], "no tensor"),
        ([torch.ones(1), None], "NoneType|no tensor"),
        ("text", "str"),
    ],
)
def test_points(x: Any, message: str) -> None:
    """Points that cannot be differentiated at."""
    for call in (ns.capture, ns.kinks, ns.backprop):
        with pytest.raises(PointError, match=message):
            call(lambda u: u.sum(), x)


def change_x(x: torch.Tensor) -> torch.Tensor:
    """Write to the point."""
    x += 1
    return x.sum()


def change_view(x: torch.Tensor) -> torch.Tensor:
    """Write to a view of the point."""
    x[0].zero_()
    return x.sum()


def change_data(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Write to the data."""
    y.mul_(2)
    return (x * y).sum()


def change_through_data(x: torch.Tensor) -> torch.Tensor:
    """Write to the point behind autograd's back."""
    x.data.mul_(2)
    return x.sum()


@pytest.mark.parametrize(
    ("f", "data"), [(change_x, ()), (change_view, ()), (change_data, (torch.ones(3),)), (change_through_data, ())]
)
def test_changed_inputs(f: Callable[..., Any], data: tuple[Any, ...]) -> None:
    """A function that changes its inputs is refused, by line, before anything is changed."""
    x = ONES.clone()
    kept = [t.clone() for t in data]
    with pytest.raises(ChangedInput, match=r"test_bad_input\.py:\d+.*clone"):
        ns.capture(f, x, *data)
    assert torch.equal(x, ONES) and all(torch.equal(a, b) for a, b in zip(kept, data, strict=True))


def test_a_tensor_from_outside() -> None:
    """A closed-over tensor that the function changes is put back, also where it is changed through a view."""
    outside = torch.zeros(3)

    def count(x: torch.Tensor) -> torch.Tensor:
        outside.add_(1)
        return (x * outside).sum()

    assert ns.backprop(count, ONES).tolist() == [1, 1, 1]
    assert outside.tolist() == [0, 0, 0]

    def through_view(x: torch.Tensor) -> torch.Tensor:
        outside[0].add_(1)
        return (x * outside).sum()

    program = ns.capture(through_view, ONES)
    assert [ns.backprop(program, ONES).tolist() for _ in range(2)] == [[1, 0, 0]] * 2
    assert outside._version == 0
    assert outside.tolist() == [0, 0, 0]


@pytest.mark.parametrize("result", [None, 1.0, "text", [1.0], (torch.ones(1), 2.0)])
def test_results_that_are_no_tensors(result: Any) -> None:
    """The error names what was returned."""
    with pytest.raises(ResultError, match="must return tensors"):
        ns.capture(lambda x: result, ONES)


def test_other_uses() -> None:
    """Not a function, other shapes, other data, a value that is not finite."""
    with pytest.raises(UsageError, match="found a int"):
        ns.capture(3, ONES)  # type: ignore[arg-type]
    program = ns.capture(lambda x, y: (x * y).sum(), ONES, ONES)
    with pytest.raises(UsageError, match="shape"):
        ns.backprop(program, torch.ones(4), ONES)
    with pytest.raises(UsageError, match="float64"):
        ns.backprop(program, ONES.double(), ONES)
    with pytest.raises(UsageError, match="data"):
        ns.backprop(program, ONES)
    with pytest.raises(UsageError, match="structure"):
        ns.backprop(program, {"x": ONES}, ONES)
    with pytest.raises(PointError, match="nan"):
        ns.backprop(program, ONES * float("nan"), ONES)
    with pytest.raises(UsageError, match="not finite at the point"):
        ns.capture(lambda x: torch.log(x - 1).sum(), ONES)
    with pytest.raises(UsageError, match="randomness"):
        ns.capture(lambda x: x.sum(), ONES, randomness="yes")


@pytest.mark.skipif("jax" not in served(), reason="jax is not installed")
def test_two_frameworks() -> None:
    """Point, data, function and direction of two frameworks: the error, or a note on it, says so."""
    import jax
    from jax import numpy as jnp

    points = {"torch": torch.ones(2), "jax": jnp.ones(2)}
    words = {"torch": r"from_numpy", "jax": r"jnp\.asarray"}
    relus = {"torch": torch.relu, "jax": jax.nn.relu}
    for own, other in (("torch", "jax"), ("jax", "torch")):
        x, y = points[own], points[other]
        for call in (ns.backprop, lambda f, *args: ns.grad(f)(*args), ns.kinks):
            with pytest.raises(UsageError, match=rf"point is of {own}, and the data hold a {other}.*{words[own]}"):
                call(lambda x, y: (x * y["a"]).sum(), x, {"a": y})
            with pytest.raises(TypeError) as raised:
                call(lambda x, relu=relus[other]: relu(x).sum(), x)
            assert any(f"the point is made of {own}." in n and f"calls {other}" in n for n in raised.value.__notes__)
        with pytest.raises(UsageError, match=f"must be a {own} .*found a .*like the point"):
            ns.directional(lambda x: (x * x).sum(), x, y)
        with pytest.raises(ZeroDivisionError) as plain:
            ns.backprop(lambda x: x.sum() * (1 / 0), x)
        assert not any("the point is made of" in n for n in plain.value.__notes__)
    with pytest.raises(PointError, match="torch and of jax"):
        ns.backprop(lambda x: x[0].sum(), list(points.values()))
    for x in (np.ones(2), 1.0):
        with pytest.raises(PointError, match=r"must be made of tensors \(in JAX: arrays\).*jnp\.asarray"):
            ns.grad(lambda x: (x * x).sum())(x)


def test_own_errors_pass_through() -> None:
    """The user's exception arrives as it is, with a note."""

    def f(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        ns.capture(f, ONES)
    assert any("captured" in note for note in caught.value.__notes__)


def test_objectives() -> None:
    """No module, no loss, nothing to train, too little data."""
    for arguments, message in (
        ((3,), "torch.nn.Module"),
        ((nn.Linear(1, 1),), "either a loss"),
        ((nn.ReLU(), torch.sum), "no trainable"),
    ):
        with pytest.raises(UsageError, match=message):
            ns.objective(*arguments)
    f, x = ns.objective(nn.Linear(3, 1), nn.functional.mse_loss)
    with pytest.raises(UsageError, match="inputs, target"):
        ns.capture(f, x, ONES)


def test_an_unlisted_operation_says_how_to_register() -> None:
    """The advice in the message works when it is followed."""
    from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS
    from nonsmooth.errors import UnlistedOperation

    @torch.library.custom_op("nonsmooth_tests::thrice", mutates_args=())
    def thrice(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    thrice.register_autograd(lambda ctx, g: g * 3)
    with pytest.raises(UnlistedOperation, match=r"nonsmooth_tests\.thrice.*test_bad_input\.py:\d+.*register"):
        ns.capture(lambda x: thrice(x).sum(), ONES)
    ns.register(ns.Operation(name="thrice", kind=ns.Kind("smooth")), torch="nonsmooth_tests::thrice")
    try:
        assert ns.backprop(lambda x: thrice(x).sum(), ONES).tolist() == [3, 3, 3]
    finally:
        del OPERATIONS["thrice"], FRAMEWORK_NAMES["torch"]["nonsmooth_tests::thrice"]


class Normed(nn.Module):
    """A model with every sort of state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        self.register_buffer("calls", torch.zeros(()))
        self.body[0].bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Count the calls in a buffer."""
        self.calls += 1
        return self.body(x) * self.calls


def snapshot(model: nn.Module, *tensors: torch.Tensor) -> list[Any]:
    """Take down everything that a call could change."""
    state = [(k, v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    world = [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]
    table = torch.nn.modules.module
    globals_ = [len(table._global_forward_hooks), len(table._global_forward_pre_hooks), torch.get_default_dtype()]
    return [state, grads, flags, hooks, world, globals_, [t.clone() for t in tensors]]


def same(a: Any, b: Any) -> bool:
    """Compare snapshots by content."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(u, v) for u, v in zip(a, b, strict=True))
    return bool(a == b)


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "capture": lambda f, x, d: ns.capture(f, x, *d),
    "kinks": lambda f, x, d: ns.kinks(f, x, *d),
    "backprop": lambda f, x, d: ns.backprop(f, x, *d, at_kinks=0.5),
    "random": lambda f, x, d: ns.backprop(f, x, *d, at_kinks="random"),
    "value_and_grad": lambda f, x, d: ns.value_and_grad(f)(x, *d),
    "failing": lambda f, x, d: ns.capture(lambda u, *rest: (f(u, *rest), 1 / 0), x, *d),
    "audit": lambda f, x, d: ns.audit(f, x, *d),
}


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_of_the_users_is_changed(name: str, closure: bool) -> None:
    """Parameters, gradients, buffers, modes, hooks and generators, by content, also after an error."""
    torch.manual_seed(0)
    model = Normed()
    inputs, target = torch.randn(5, 3), torch.randn(5, 1)
    next(model.parameters()).grad = torch.ones(4, 3)
    if closure:
        f, x, data = (lambda u, y: ((model(u) - y) ** 2).mean()), inputs, (target,)
    else:
        f, x = ns.objective(model, nn.functional.mse_loss)
        data = (inputs, target)
    before = snapshot(model, inputs, target)
    try:
        CALLS[name](f, x, data)
    except ZeroDivisionError:
        assert name == "failing"
    assert same(before, snapshot(model, inputs, target))


def test_every_error_is_ours() -> None:
    """The tree of errors hangs together."""
    assert issubclass(ChangedInput, NonsmoothError) and issubclass(PointError, ValueError)
