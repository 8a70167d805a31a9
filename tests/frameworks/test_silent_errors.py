"""What could go wrong without a sound: every case is torch's own gradient, or an error, never another number."""

from __future__ import annotations

import copy
import functools
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

import nonsmooth as ns
from nonsmooth.errors import CaptureError, ProofFailed, RandomnessError, ResultError, UnlistedOperation, UsageError

X = torch.tensor([0.3, -0.7, 1.1])
ELSEWHERE = torch.tensor([-1.2, 0.4, 2.0])


def torch_gradient(f: Callable[..., Any], x: torch.Tensor, *data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate and differentiate by torch alone."""
    leaf = x.detach().clone().requires_grad_()
    value = f(leaf, *data)
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return value.detach(), torch.zeros_like(x) if gradient is None else gradient


def agrees(f: Callable[..., Any], *points: torch.Tensor, program: ns.Program | None = None) -> ns.Program:
    """Capture at the first point and compare with torch at all."""
    program = program or ns.capture(f, points[0])
    for x in (*points, points[0]):
        value, gradient = torch_gradient(f, x)
        found = ns.value_and_backprop(program, x)
        assert torch.allclose(found.value, value, rtol=1e-5, atol=1e-6), (found.value, value)
        assert torch.allclose(found.gradient, gradient, rtol=1e-5, atol=1e-6), (found.gradient, gradient)
    return program


# --- values that leave and come back ------------------------------------------------------------------------------------


def through_numpy(x: torch.Tensor) -> torch.Tensor:
    return (torch.from_numpy(np.sin(x.detach().numpy())) * x).sum()


def through_ufunc(x: torch.Tensor) -> torch.Tensor:
    return (torch.from_numpy(np.maximum(np.asarray(x.detach()), 0)) * x).sum()


def through_tensor_of_numpy(x: torch.Tensor) -> torch.Tensor:
    return (torch.tensor(x.detach().numpy() * 2) * x).sum()


def through_list(x: torch.Tensor) -> torch.Tensor:
    return sum(v * v for v in x.tolist()) * x.sum()


def through_dlpack(x: torch.Tensor) -> torch.Tensor:
    return (torch.from_dlpack(x.detach()) * x).sum()


def through_numbers(x: torch.Tensor) -> torch.Tensor:
    d = x.detach()
    return x.sum() * float(d[0]) * round(float(d[1]), 1) * (1 + int(d[2])) + x.prod() * x.sum().item()


def through_index(x: torch.Tensor) -> torch.Tensor:
    return x[int(x.argmax())] * 2 + x[x.argmin()]


@pytest.mark.parametrize(
    "f",
    [
        through_numpy,
        through_ufunc,
        through_tensor_of_numpy,
        through_list,
        through_dlpack,
        through_numbers,
        through_index,
    ],
    ids=lambda f: f.__name__,
)
def test_values_that_leave_are_rechecked(f: Callable[..., Any]) -> None:
    program = agrees(f, X, ELSEWHERE, -X)
    assert program.guards and all(g.source is not None and g.source.function == f.__name__ for g in program.guards)


def through_deepcopy(x: torch.Tensor) -> torch.Tensor:
    return (copy.deepcopy(x.detach()) * x).sum()


def through_storage(x: torch.Tensor) -> torch.Tensor:
    return x.sum() * x.detach().untyped_storage()[0]


def through_array_changed_behind(x: torch.Tensor) -> torch.Tensor:
    array = np.zeros(3, dtype=np.float32)
    tensor = torch.from_numpy(array)
    first = (x * tensor).sum()
    array[0] = 5
    return first + (x * tensor).sum()


def counting(x: torch.Tensor, calls: list[int] = []) -> torch.Tensor:  # noqa: B006
    calls.append(1)
    return x.sum() * len(calls)


@pytest.mark.parametrize(
    "f", [through_deepcopy, through_storage, through_array_changed_behind, counting], ids=lambda f: f.__name__
)
def test_what_nobody_sees_fails_the_proof(f: Callable[..., Any]) -> None:
    with pytest.raises(ProofFailed, match=r"does not reproduce the (values|native gradients)"):
        ns.capture(f, X)


def test_data_that_are_no_tensors_are_compared() -> None:
    program = ns.capture(lambda x, k, table: (x * k).sum() * float(table["a"][0]), X, 3.0, {"a": np.ones(2)})
    for k, a in ((3.0, 1.0), (5.0, 1.0), (3.0, 2.0), (5.0, 1.0)):
        assert torch.allclose(ns.backprop(program, X, k, {"a": np.full(2, a)}), torch.full((3,), k * a))


def test_constants_are_read_as_they_are_now() -> None:
    weight, switch = torch.ones(3), torch.ones(())
    f = lambda x: (x * weight).sum() if switch > 0 else x.sum() * weight[0].item()  # noqa: E731
    program = ns.capture(f, X)
    weight.mul_(4)
    assert ns.backprop(program, X).tolist() == [4, 4, 4]
    switch.neg_()
    assert ns.backprop(program, X).tolist() == [4, 4, 4]
    weight.mul_(2)
    assert ns.backprop(program, X).tolist() == [8, 8, 8]


def test_what_the_proof_compares_is_far_enough() -> None:
    """A number beside the tensors of a user's function is a value that Python has seen."""

    class Beside(torch.autograd.Function):
        @staticmethod
        def forward(x: torch.Tensor, k: float = 2.0) -> Any:
            return x * k, x.sum().item(), x.abs()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.k = inputs[1]

        @staticmethod
        def backward(ctx: Any, a: Any, b: Any, c: Any) -> Any:
            return a * ctx.k + c * 3, None

    def f(x: torch.Tensor) -> torch.Tensor:
        a, b, c = Beside.apply(x, 3.0)
        return (a + c).sum() * b

    program = agrees(f, X, ELSEWHERE)
    assert [s.operation.name for s in program.steps][:2] == ["Beside", "Beside"]
    assert [g.kind for g in program.guards] == ["item"]


# --- tensors from outside -----------------------------------------------------------------------------------------------


def test_aliases_from_outside() -> None:
    """A write through one alias is seen through the other, and both are put back."""
    whole = torch.zeros(4)
    part = whole[:2]

    def f(x: torch.Tensor) -> torch.Tensor:
        part.add_(1)
        whole.view(2, 2)[:, 1] += 2
        return (x * whole).sum()

    x = torch.arange(4.0)
    program = ns.capture(f, x)
    for _ in range(2):
        assert ns.backprop(program, x).tolist() == [1, 3, 0, 2]
    assert whole.tolist() == [0, 0, 0, 0] and whole._version == part._version == 0


def test_batch_norm_in_a_closure() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None), nn.ReLU(inplace=True), nn.Linear(4, 1))
    before = [(b.clone(), b._version) for b in model.buffers()]
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    program = ns.capture(lambda u: model(u).sum(), x)
    gradient = ns.backprop(program, x)
    assert all(torch.equal(b, old) and b._version == v for b, (old, v) in zip(model.buffers(), before, strict=True))
    assert torch.allclose(gradient, torch_gradient(lambda u: model(u).sum(), x)[1], atol=1e-6)


@pytest.mark.parametrize("way", ["method", "function"])
def test_backward_inside_is_refused(way: str) -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 7.0)

    def f(x: torch.Tensor) -> torch.Tensor:
        loss = (x * weight).sum()
        loss.backward() if way == "method" else torch.autograd.backward([loss])
        return x.sum()

    with pytest.raises(CaptureError, match=r"calls backward\(\).*create_graph=True"):
        ns.capture(f, X)
    assert weight.grad.tolist() == [7, 7, 7]


def test_a_users_function_leaves_outside_tensors_alone() -> None:
    buffer = torch.zeros(3)

    class Updating(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            b.add_(1)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            return g * 2, None

    with pytest.raises(CaptureError, match=r"`Updating` changes its arguments.*test_silent_errors\.py:\d+"):
        ns.capture(lambda x: Updating.apply(x, buffer).sum(), X)
    assert buffer.tolist() == [0, 0, 0] and buffer._version == 0


def test_generators_are_put_back() -> None:
    mine = torch.Generator().manual_seed(3)
    state = mine.get_state()
    f = lambda x: (x * torch.rand(3, generator=mine)).sum() * random.random() * np.random.rand()  # noqa: E731
    outer = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    program = ns.capture(f, X, randomness="freeze")
    assert torch.equal(ns.backprop(program, X), ns.backprop(program, X))
    assert torch.equal(mine.get_state(), state)
    assert outer[0] == random.getstate() and outer[1] == np.random.get_state()[1].tolist()
    assert torch.equal(outer[2], torch.get_rng_state())


@pytest.mark.parametrize(
    ("f", "who"),
    [
        (lambda x: x.sum() * random.random(), "Python's `random`"),
        (lambda x: x.sum() * np.random.rand(), "`numpy.random`"),
    ],
)
def test_other_libraries_random_numbers(f: Callable[..., Any], who: str) -> None:
    with pytest.raises(RandomnessError, match=who):
        ns.capture(f, X)


@pytest.mark.parametrize(("daemon", "error"), [(True, RandomnessError), (False, ProofFailed)])
def test_draws_beside_other_threads(daemon: bool, error: type[Exception]) -> None:
    """A thread in the background draws nothing; of another one it is not known, and the function is refused by its proof."""
    end = threading.Event()
    other = threading.Thread(target=end.wait, daemon=daemon)
    other.start()
    try:
        with pytest.raises(error):
            ns.capture(lambda x: x.sum() * random.random(), X)
    finally:
        end.set()
        other.join()


def test_recurrent_dropout_is_random_only_where_it_acts() -> None:
    data = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(1)
    loss = lambda out, y: out[0].pow(2).sum()  # noqa: E731
    for module in (nn.LSTM(3, 4, 2, dropout=0.5), nn.GRU(3, 4, 2, dropout=0.5), nn.RNN(3, 4, 2, dropout=0.5)):
        f, x = ns.objective(module, loss)
        with pytest.raises(RandomnessError, match="draws random numbers"):
            ns.capture(f, x, *data)
        f, x = ns.objective(module.eval(), loss)
        assert len(ns.capture(f, x, *data))
    f, x = ns.objective(nn.RNN(3, 4, nonlinearity="relu"), loss)
    assert ns.capture(f, x, *data).proof


def test_a_users_function_that_draws() -> None:
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.mask = torch.rand(3)
            return x * ctx.mask

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * ctx.mask

    for randomness in ("refuse", "freeze"):
        with pytest.raises(RandomnessError, match="`Noisy` draws"):
            ns.capture(lambda x: Noisy.apply(x).sum(), X, randomness=randomness)


# --- gradients that the program could lose --------------------------------------------------------------------------------


class Negated(torch.autograd.Function):
    """The identity with another backward, returning its argument itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return -g


class NegatedView(Negated):
    """The same through a view."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)


class Once(torch.autograd.Function):
    """A backward that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.abs()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * 5


@pytest.mark.parametrize("cls", [Negated, NegatedView, Once])
def test_users_backwards_are_kept(cls: Any) -> None:
    program = agrees(lambda x: (cls.apply(x) * x).sum() + (cls.apply(x * 2) * x).sum(), X, ELSEWHERE)
    assert [s.operation.kind.value for s in program.steps].count("opaque") == 2
    with torch.no_grad():
        agrees_under_no_grad = ns.capture(lambda x: cls.apply(x).sum(), X)
    assert len(agrees_under_no_grad)


def test_a_user_function_that_marks_dirty_is_refused() -> None:
    class Dirty(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * 2

    with pytest.raises(CaptureError, match="changes its arguments"):
        ns.capture(lambda x: Dirty.apply(x.clone()).sum(), X)


def hooked_tensor(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.register_hook(lambda g: g * 3)
    return y.sum()


def test_hooks_that_change_the_gradient_are_refused_and_named() -> None:
    with pytest.raises(ProofFailed, match=r"tensor has a hook.*test_silent_errors\.py:\d+"):
        ns.capture(hooked_tensor, X)
    layer = nn.Linear(3, 2)
    seen: list[int] = []
    handle = layer.register_full_backward_hook(lambda m, a, b: seen.append(1))
    program = ns.capture(lambda x: layer(x).sum(), X)
    assert [f.rule for f in program.findings] == ["hook"]
    handle.remove()
    layer.register_full_backward_hook(lambda m, a, b: (a[0] * 5,))
    with pytest.raises(ProofFailed, match="module has a hook"):
        ns.capture(lambda x: layer(x).sum(), X)


def data_written(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    y.data.mul_(2)
    return (y * x).sum()


def inner_steps(x: torch.Tensor) -> torch.Tensor:
    w = torch.zeros(3, requires_grad=True)
    for _ in range(3):
        (g,) = torch.autograd.grad(((w - x) ** 2).sum(), w, create_graph=True)
        w = w - 0.1 * g
    return (w**2).sum()


def smooth_penalty(x: torch.Tensor) -> torch.Tensor:
    (g,) = torch.autograd.grad((x.tanh() ** 2 + x.sigmoid()).sum(), x, create_graph=True)
    return (g**2).sum()


def not_recorded(x: torch.Tensor) -> torch.Tensor:
    (g,) = torch.autograd.grad((x.tanh() ** 2).sum(), x)
    return (g * x).sum()


def made_inside(x: torch.Tensor) -> torch.Tensor:
    w = nn.Parameter(torch.ones(3))
    return (x * w * torch.Tensor([1, 2, 3]) * torch.from_numpy(np.ones(3, dtype=np.float32)).add_(1)).sum()


def modes(x: torch.Tensor) -> torch.Tensor:
    torch.set_grad_enabled(False)
    y = x * 2
    torch.set_grad_enabled(True)
    with torch.inference_mode():
        z = x * 3
    return (x * y).sum() + (x * z.clone()).sum()


@torch.no_grad()
def decorated(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


def moving(x: torch.Tensor) -> torch.Tensor:
    i = torch.tensor([0, 1, 0])
    a = torch.zeros(2).scatter_add(0, i, x)
    b = torch.zeros(3).index_put((i,), x, accumulate=True)
    c = torch.zeros(3).index_add_(0, i, x)
    d = torch.empty(3)
    torch.mul(x.detach(), 2, out=d)
    return (a * a).sum() + (b**2).sum() + c.pow(3).sum() + (d * x).sum() + x.unfold(0, 2, 1).pow(2).sum()


def masks(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[x > 0.35] *= 2
    y[[0, 1]] += 1
    return (y[y > 0] ** 2).sum() + x[torch.nonzero(x > 0).squeeze(1)].sum() * torch.unique(x.round()).numel()


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft(x).abs().sum() + torch.einsum("i,j->ij", x, x).relu().sum()


ODD = [
    data_written, inner_steps, smooth_penalty, not_recorded, made_inside, modes,
    lambda x: (x * decorated(x)).sum(), moving, masks, spectrum,
    lambda x: sum(v.relu() for v in x) + sum(v * v for v in (x[i].abs() for i in range(3))),
    lambda x: torch.utils.checkpoint.checkpoint(lambda u: torch.tanh(u).relu(), x, use_reentrant=False).sum(),
    lambda x: x.double().relu().sum().float() + x.new_tensor([1.0]).sum() * x.sum() / x.shape[0],
    lambda x: nn.functional.scaled_dot_product_attention(*[x.reshape(1, 1, 3, 1)] * 3, is_causal=True).sum(),
    functools.partial(torch.sum),
]  # fmt: skip


@pytest.mark.parametrize("f", ODD, ids=lambda f: getattr(f, "__name__", "partial"))
def test_odd_ways_to_compute(f: Callable[..., Any]) -> None:
    agrees(f, X, ELSEWHERE)


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_scripted_functions() -> None:
    compiled = torch.compile(lambda x: (x.relu() * 2).sum(), backend="eager")
    agrees(compiled, X, ELSEWHERE)
    agrees(torch.jit.trace(lambda x: x.relu().sum(), X), X, ELSEWHERE)


TRANSFORMS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: torch.func.grad(lambda z: (z.tanh() ** 2).sum())(x).sum(),
    lambda x: torch.func.vmap(lambda z: z * 2)(x).sum(),
    lambda x: torch.func.jvp(torch.tanh, (x,), (x,))[1].sum(),
    lambda x: torch.func.jacrev(torch.tanh)(x).sum(),
]


@pytest.mark.parametrize("f", TRANSFORMS)
@pytest.mark.filterwarnings("ignore")
def test_transforms_inside_are_refused_by_line(f: Callable[..., Any]) -> None:
    with pytest.raises(CaptureError, match=r"torch\.func.*test_silent_errors\.py:\d+.*create_graph"):
        ns.capture(f, X)


@pytest.mark.filterwarnings("ignore")
def test_higher_order_operators_and_sparse_ones() -> None:
    with pytest.raises(CaptureError, match="higher-order operator"):
        ns.capture(lambda x: torch.cond(x.sum() > 0, lambda z: z * 2, lambda z: z, (x,)).sum(), X)
    with pytest.raises(UnlistedOperation, match="_sparse"):
        ns.capture(lambda x: torch.sparse.mm(torch.eye(3).to_sparse(), x[:, None]).sum(), X)


def test_captures_do_not_nest() -> None:
    with pytest.raises(UsageError, match="inside a function that is being captured"):
        ns.capture(lambda x: ns.backprop(lambda z: z.sum(), x).sum(), X)
    assert len(ns.capture(lambda x: x.relu().sum(), X)) == 2


@pytest.mark.parametrize("result", [lambda x: x.sum().to(torch.complex64), lambda x: (x.sum() > 0) * 1])
def test_results_that_are_not_real(result: Callable[..., Any]) -> None:
    with pytest.raises(ResultError, match="real function"):
        ns.backprop(result, X)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_generators_and_coroutines_are_no_results() -> None:
    def generator(x: torch.Tensor) -> Any:
        yield x.sum()

    async def coroutine(x: torch.Tensor) -> Any:
        return x.sum()

    for f, kind in ((generator, "generator"), (coroutine, "coroutine")):
        with pytest.raises(ResultError, match=kind):
            ns.capture(f, X)


# --- the state around the call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_every_grad_mode(mode: Any) -> None:
    f = lambda x: (torch.relu(x) * x).sum()  # noqa: E731
    with mode():
        x = X.clone()
        assert torch.allclose(ns.backprop(f, x), 2 * torch.relu(X))
        assert torch.is_grad_enabled() is (mode is torch.enable_grad)
    assert torch.allclose(ns.backprop(f, x), 2 * torch.relu(X))


@pytest.mark.parametrize(
    "layout", [lambda t: t.t(), lambda t: t[:, ::2], lambda t: t[:1].expand(4, 6), lambda t: t.flip(0)]
)
def test_strides(layout: Callable[..., Any]) -> None:
    """A program serves points of every layout, also where its steps are views."""
    x = layout(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    f = lambda u: (u.contiguous().view(-1) * torch.arange(u.numel())).relu().sum()  # noqa: E731
    program = agrees(f, x, x.contiguous() * 2)
    assert torch.equal(ns.backprop(program, x), ns.backprop(program, x.contiguous()))
    g = lambda u: (u.view(-1) ** 2).sum()  # noqa: E731
    dense = torch.randn(2, 3)
    assert torch.allclose(ns.backprop(ns.capture(g, dense), torch.randn(3, 2).t().copy_(dense)), 2 * dense)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    found = ns.value_and_backprop(lambda x: (x.relu() * 2).sum(), X.to(dtype))
    assert found.value.dtype == found.gradient.dtype == dtype
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        agrees(lambda x: (x * torch.tensor(2.0)).relu().sum(), X)
    finally:
        torch.set_default_dtype(before)


def test_the_same_tensor_twice_and_frozen_parameters() -> None:
    w = torch.randn(3)
    gradient = ns.backprop(lambda d: (d["a"] * d["b"]).sum(), {"a": w, "b": w})
    assert torch.equal(gradient["a"], w) and torch.equal(gradient["b"], w)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    model[0].weight.requires_grad_(False)
    f, x = ns.objective(model, F.mse_loss)
    assert set(x) == {"0.bias", "2.weight", "2.bias"}
    assert set(ns.backprop(f, x, torch.ones(2, 3), torch.zeros(2, 1))) == set(x)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    closed = torch.randn(3, requires_grad=True) * 2
    agrees(lambda u: (u * closed).relu().sum(), X)


def test_threads() -> None:
    """Captures in several threads and training in another do not meet."""
    losses, failed = [], []
    layers = [nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(3)]

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * 2

    def capturing(layer: nn.Module) -> None:
        try:
            for _ in range(8):
                program = ns.capture(lambda x: Doubled.apply(layer(x)).sum(), torch.randn(4, 3))
                names = [s.operation.name for s in program.steps]
                assert names == ["linear", "relu", "Doubled", "sum"], names
                assert [s.module for s in program.steps] == ["0", "1", "", ""]
        except Exception as error:
            failed.append(error)

    def training() -> None:
        try:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(100):
                optimizer.zero_grad()
                loss = (Doubled.apply(model(torch.ones(4, 3))) ** 2).mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=capturing, args=(layer,)) for layer in layers]
    threads.append(threading.Thread(target=training))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert len(losses) == 100 and losses[-1] < losses[0]
    assert "apply" not in torch.autograd.function._SingleLevelFunction.__dict__
    assert not torch.nn.modules.module._global_forward_hooks and not torch.nn.modules.module._global_forward_pre_hooks


# --- random programs ---------------------------------------------------------------------------------------------------------

PIECES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    torch.relu,
    lambda v: v * 2 if v.sum() > 0 else -v,
    lambda v: v * float(v.detach()[0]),
    lambda v: torch.where(v > v.mean(), v, -v),
    lambda v: v + v[v > 0].sum() * 0.5,
    lambda v: torch.stack(sorted(v)),
    lambda v: v.clone().mul_(0.5).abs_(),
    lambda v: v / (1 + v.abs().max()),
    lambda v: v * torch.tensor(v.tolist()[1]),
    lambda v: v - v.detach() * 0.5,
    lambda v: v * v.shape[0] if v.argmax() == 0 else v + 1,
    lambda v: v.index_put((torch.tensor([1]),), v[:1]),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(-8, 8), min_size=3, max_size=3), min_size=2, max_size=4),
)
def test_random_programs_are_never_stale(chosen: list[int], points: list[list[int]]) -> None:
    """Ifs, numbers, masks, in-place steps in any order: torch's gradient at every point."""

    def f(x: torch.Tensor) -> torch.Tensor:
        for k in chosen:
            x = PIECES[k](x)
        return (x * torch.arange(1.0, 4.0, dtype=x.dtype)).sum()

    shift = torch.tensor([0.11, 0.23, 0.37], dtype=torch.float64)
    program = None
    for point in points:
        x = torch.tensor(point, dtype=torch.float64) * 0.5 + shift
        program = program or ns.capture(f, x)
        value, gradient = torch_gradient(f, x)
        found = ns.value_and_backprop(program, x)
        assert torch.allclose(found.value, value) and torch.allclose(found.gradient, gradient), chosen


def test_trees_of_points_come_back_as_trees() -> None:
    point = {"u": [torch.ones(2)], "v": (torch.zeros(()), torch.zeros(0, 2))}
    gradient = ns.backprop(lambda x: x["u"][0].sum() * x["v"][0] + x["v"][1].sum(), point)
    assert tree_map(lambda t: tuple(t.shape), gradient) == tree_map(lambda t: tuple(t.shape), point)
    assert all(torch.isfinite(t).all() for t in tree_leaves(gradient))


def test_gradients_with_respect_to_parameters_inside() -> None:
    """Of closed-over parameters they are refused; of an objective's they are steps like any other."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def penalised(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        loss = (net(x) ** 2).mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        return loss + sum((g**2).sum() for g in gradients)

    with pytest.raises(CaptureError, match="tensors from outside"):
        ns.capture(lambda x: penalised(model, x), torch.ones(2, 3))
    f, x = ns.objective(model, step=penalised)
    data = torch.randn(4, 3)
    found = ns.backprop(f, x, data)
    expected = torch.autograd.grad(penalised(model, data), list(x.values()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.values(), expected, strict=True))


def test_a_cache_that_remembers_the_first_point_fails_the_proof() -> None:
    cache: dict[str, torch.Tensor] = {}

    def f(x: torch.Tensor) -> torch.Tensor:
        if "mean" not in cache:
            cache["mean"] = x.detach().mean()
        return (x - cache["mean"]).pow(2).sum()

    with pytest.raises(ProofFailed):
        ns.capture(f, X)


def test_an_average_kept_outside() -> None:
    """Each evaluation starts from what it holds outside, and leaves it there."""
    average = torch.zeros(3)

    def f(x: torch.Tensor) -> torch.Tensor:
        average.lerp_(x.detach(), 0.1)
        return ((x - average) ** 2).sum()

    program = ns.capture(f, X)
    assert torch.allclose(ns.backprop(program, X), 2 * 0.9 * X)
    average.fill_(1.0)
    assert torch.allclose(ns.backprop(program, X), 2 * (X - (0.9 + 0.1 * X)))
    assert average.tolist() == [1, 1, 1]


def test_an_interrupt_leaves_nothing_behind() -> None:
    buffer = torch.zeros(3)

    def f(x: torch.Tensor) -> torch.Tensor:
        buffer.add_(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ns.capture(f, X)
    assert buffer.tolist() == [0, 0, 0] and buffer._version == 0
    assert "apply" not in torch.autograd.function._SingleLevelFunction.__dict__
    assert len(ns.capture(lambda x: x.relu().sum(), X)) == 2


def test_a_constant_that_python_has_seen_is_no_escaped_value() -> None:
    """It is rechecked, but nothing of the point has left."""
    weight = torch.ones(3)
    report = ns.audit(lambda x: (x.relu() * weight[0].item()).sum(), X)
    assert not [finding for finding in report.findings if finding.rule == "escaped"]
    report = ns.audit(lambda x: (x.relu() * x.sum().item()).sum(), X)
    assert [finding.rule for finding in report.findings if finding.rule == "escaped"] == ["escaped"]
