"""A watched training run: what is counted, what another choice would have changed, and that nothing else changes."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Met, Observation, merge
from nonsmooth.frameworks.torch import budget
from nonsmooth.frameworks.torch.distances import Distances
from nonsmooth.frameworks.torch.names import bind
from nonsmooth.frameworks.torch.weighing import call_of


class Many(nn.Module):
    """Kinks of every kind that a layer can have, chained and side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        nn.init.zeros_(self.a.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        h = torch.abs(h) + torch.clamp(h, min=0) + torch.maximum(h, -h) + F.leaky_relu(h)
        h = h + torch.where(h > 0, h, 0.5 * h).relu_()
        h = h / (1 + h.norm(dim=1, keepdim=True))
        return self.b(h) + h.amax(1, keepdim=True) + torch.sort(h, dim=1)[0][:, :3]


class Convolutional(nn.Module):
    """Two convolutions with zero biases, relu and pooling, batch norm and dropout."""

    def __init__(self, **pool: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(6), nn.Dropout(0.2)
        self.pool = nn.MaxPool2d(2, **pool)
        self.head = nn.LazyLinear(3)
        for layer in (self.conv1, self.conv2):
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.pool(F.relu(self.conv1(x)))
        return self.head(self.drop(F.relu(self.norm(self.conv2(h)), inplace=True)).flatten(1))


def mlp(inplace: bool = False) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(inplace), nn.Linear(8, 8), nn.Hardtanh(inplace=inplace), nn.Linear(8, 3)
    )
    nn.init.zeros_(model[0].bias)
    return model


def half_zero(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw a batch whose first half is zero."""
    x = torch.randn(shape).to(dtype)
    x[: len(x) // 2] = 0
    return x


def initialised(make: Callable[[], nn.Module], x: torch.Tensor, seed: int = 0) -> nn.Module:
    """Build a model reproducibly, lazy layers included."""
    torch.manual_seed(seed)
    model = make().to(x.dtype)
    model.eval()
    model(x)
    return model.train()


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[..., torch.Tensor]]] = {
    "mlp": (mlp, (10, 4), F.cross_entropy),
    "mlp in place": (lambda: mlp(True), (10, 4), F.cross_entropy),
    "many": (Many, (10, 4), F.cross_entropy),
    "many, l1": (Many, (10, 4), lambda out, y: F.l1_loss(out, F.one_hot(y, 3).to(out.dtype))),
    "cnn": (Convolutional, (6, 1, 8, 8), F.cross_entropy),
    "cnn, padded pool": (lambda: Convolutional(padding=1), (6, 1, 8, 8), F.cross_entropy),
    "cnn, overlapping pool": (lambda: Convolutional(stride=1), (6, 1, 8, 8), F.cross_entropy),
}


def batch_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return half_zero(shape, dtype), torch.randint(3, (shape[0],))


def plain_step(model: nn.Module, optimiser: Any, loss: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    optimiser.zero_grad()
    value = loss(model(x), y)
    value.backward()
    optimiser.step()
    return float(value.detach())


@pytest.mark.parametrize("at_kinks", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("cnn", "cnn, padded pool", "cnn, overlapping pool")])
def test_the_change_is_that_of_backprop_under_the_other_choice(name: str, at_kinks: float) -> None:
    make, shape, loss = CASES[name]
    x, y = batch_of(shape, torch.float64)
    model = initialised(make, x)
    f, at = ns.objective(model, loss)
    native, other = ns.backprop(f, at, x, y), ns.backprop(f, at, x, y, at_kinks=at_kinks)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=1, at_kinks=at_kinks) as log:
        plain_step(model, optimiser, loss, x, y)
    change = log.records[0].change
    assert change is not None and log.records[0].can_matter > 0
    whole = sum(float(g.norm()) ** 2 for g in native.values()) ** 0.5
    moved = sum(float((other[k] - native[k]).norm()) ** 2 for k in native) ** 0.5
    assert change.norm == pytest.approx(moved, rel=1e-9, abs=1e-13)
    assert change.relative == pytest.approx(moved / whole, rel=1e-9, abs=1e-13)
    for key in native:
        away = float((other[key] - native[key]).norm() / native[key].norm())
        assert change.parameters.get(key, 0.0) == pytest.approx(away, rel=1e-9, abs=1e-12)


def test_the_change_through_pooling_and_relu_together() -> None:
    """The selected pullback of the pooling goes into the selected one of the relu below it, in the right order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(model[0].bias)
    x, y = half_zero((6, 1, 8, 8)), torch.randint(3, (6,))
    f, at = ns.objective(model, F.cross_entropy)
    native, other = ns.backprop(f, at, x, y), ns.backprop(f, at, x, y, at_kinks=1.0)
    with ns.watch(model, every=1) as log:
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, x, y)
    away = float((other["0.bias"] - native["0.bias"]).norm() / native["0.bias"].norm())
    assert away > 0.01
    change = log.records[0].change
    assert change is not None and change.parameters["0.bias"] == pytest.approx(away, rel=1e-5)


def loop(
    name: str, watched: int, dtype: torch.dtype = torch.float32, steps: int = 5, rate: float = 1e-3, **options: Any
) -> Any:
    make, shape, loss = CASES[name]
    x, y = batch_of(shape, dtype)
    model = initialised(make, x)
    torch.manual_seed(2)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    log = ns.watch(model, every=watched, **options) if watched else contextlib.nullcontext()
    with log:
        for _ in range(steps):
            losses.append(plain_step(model, optimiser, loss, x, y))
    return losses, [*model.state_dict().values()], optimiser.state_dict(), torch.get_rng_state(), log


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_training_is_bit_for_bit_as_without(name: str, dtype: torch.dtype) -> None:
    without, within = loop(name, 0, dtype), loop(name, 1, dtype, change_every=1)
    assert without[0] == within[0]
    assert all(torch.equal(a, b) for a, b in zip(without[1], within[1], strict=True))
    assert torch.equal(without[3], within[3])
    for a, b in zip(without[2]["state"].values(), within[2]["state"].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    records = within[4].records
    assert [r.step for r in records] == list(range(5))
    assert records[0].can_matter > 0 and not any(r.why for r in records)


def test_nothing_is_left_behind() -> None:
    torch.manual_seed(0)
    model = mlp()
    hooks = [p._backward_hooks for p in model.parameters()]
    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    with ns.watch(model, every=1):
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, *batch_of((10, 4)))
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before
    assert _get_current_function_mode_stack() == []
    assert [p._backward_hooks for p in model.parameters()] == hooks == [None] * 6
    copy.deepcopy(model)


def test_an_exception_in_the_loop_ends_the_block() -> None:
    model = mlp()
    with pytest.raises(ZeroDivisionError), ns.watch(model, every=1) as log:
        model(torch.zeros(2, 4))
        raise ZeroDivisionError
    assert log.records == () and _get_current_function_mode_stack() == []


def test_activations_are_not_kept() -> None:
    """What a step has made is freed as soon as the user lets go of it, without the collector of cycles."""
    model, kept = mlp(), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch_of((10, 4))
    gc.collect()
    gc.disable()
    try:
        with ns.watch(model, every=1, change_every=1) as log:
            out = model[1](model[0](x))
            kept.append(weakref.ref(out))
            loss = F.cross_entropy(model[4](model[3](model[2](out))), y)
            loss.backward()
            del out, loss
            optimiser.step()
            assert kept[0]() is None
        assert log.records[0].change is not None
    finally:
        gc.enable()


def test_steps_are_those_of_the_optimiser() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with ns.watch(model, every=2) as log:
        for _ in range(5):
            optimiser.zero_grad()
            for part in (x[:5], x[5:]):  # gradients are accumulated over two passes
                F.cross_entropy(model(part), y[:5]).backward()
            with torch.no_grad():
                model(x)  # evaluation between
            optimiser.step()
            other.step()
    assert log.steps == 5 and [r.step for r in log.records] == [0, 2, 4]
    assert [r.backwards for r in log.records] == [2, 2, 2]
    assert log.records[0].rows[0].elements == 2 * 5 * 8


def test_accumulated_gradients_are_compared_as_wholes() -> None:
    model, (x, y) = mlp().double(), batch_of((10, 4), torch.float64)
    f, at = ns.objective(model, F.cross_entropy)
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    native = [ns.backprop(f, at, *p) for p in parts]
    other = [ns.backprop(f, at, *p, at_kinks=1.0) for p in parts]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=1) as log:
        for p in parts:
            F.cross_entropy(model(p[0]), p[1]).backward()
        optimiser.step()
    moved = sum(float(sum(o[k] - n[k] for n, o in zip(native, other, strict=True)).norm()) ** 2 for k in at) ** 0.5
    change = log.records[0].change
    assert change is not None and change.norm == pytest.approx(moved, rel=1e-9) and moved > 0


def test_a_loop_without_an_optimiser_says_its_steps() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    with ns.watch(model, every=1) as log:
        for _ in range(3):
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
            log.step()
    assert [r.step for r in log.records] == [0, 1, 2]


def test_a_loop_that_says_nothing_is_one_step() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    with ns.watch(model, every=1) as log:
        F.cross_entropy(model(x), y).backward()
    assert len(log.records) == 1 and log.records[0].backwards == 1 and log.steps == 0


def test_an_optimiser_with_a_closure() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with ns.watch(model, every=1) as log:
        for _ in range(2):
            optimiser.step(closure)
    assert [r.step for r in log.records] == [0, 1] and all(r.backwards >= 1 for r in log.records)


def test_optimisers_that_step_inside_of_the_backward_pass() -> None:
    """torch has the mode in hand while they step; it is taken away later, and training is as without."""

    def train(watched: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model, (x, y) = mlp(), batch_of((10, 4))
        optimisers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(lambda p: (optimisers[p].step(), optimisers[p].zero_grad())[0])
        if not watched:
            for _ in range(4):
                F.cross_entropy(model(x), y).backward()
        else:
            with ns.watch(model, every=1) as log:
                for _ in range(4):
                    F.cross_entropy(model(x), y).backward()
            assert log.steps == 4
        assert _get_current_function_mode_stack() == []
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))


class _Passing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_mode_of_the_users_entered_in_a_step_stays() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=1) as log, _Passing() as mode:
        plain_step(model, optimiser, F.cross_entropy, x, y)
        assert mode in _get_current_function_mode_stack()
        plain_step(model, optimiser, F.cross_entropy, x, y)
    assert len(log.records) == 2 and _get_current_function_mode_stack() == []


@pytest.mark.parametrize("outside", [True, False])
def test_with_at_kinks_the_users_choice_is_kept_and_the_other_compared_with_it(outside: bool) -> None:
    (x, y), outcomes = batch_of((10, 4), torch.float64), []
    for watched in (False, True):
        torch.manual_seed(0)
        model = mlp().double()
        f, at = ns.objective(model, F.cross_entropy)
        chosen, other = (ns.backprop(f, at, x, y, at_kinks=c) for c in (0.7, 1.0))
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        log = ns.watch(model, every=1)
        blocks = ([log] if watched else []) + [ns.at_kinks(0.7)]
        with contextlib.ExitStack() as stack:
            for block in blocks if outside else reversed(blocks):
                stack.enter_context(block)
            plain_step(model, optimiser, F.cross_entropy, x, y)
        outcomes.append([p.detach() for p in model.parameters()])
        assert _get_current_function_mode_stack() == []
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert log.records[0].rows[0].active == log.records[0].rows[0].can_matter == 40
    away = float((other["0.bias"] - chosen["0.bias"]).norm() / chosen["0.bias"].norm())
    change = log.records[0].change
    assert change is not None and change.parameters["0.bias"] == pytest.approx(away, rel=1e-9)


def test_a_default_device_is_no_hindrance() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    with torch.device("cpu"), ns.watch(model, every=1) as log:
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, x, y)
    assert log.records[0].change is not None


def _penalised(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + gradient.square().sum()


def _checkpointed(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = checkpoint(lambda t: F.dropout(model[1](model[0](t))), x, use_reentrant=False)
    return F.cross_entropy(model[4](model[3](model[2](hidden))), y)


def _reentrant(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = checkpoint(lambda t: model[1](model[0](t)), x.clone().requires_grad_(), use_reentrant=True)
    return F.cross_entropy(model[4](model[3](model[2](hidden))), y)


def _vectorised(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), y) + torch.vmap(lambda t: torch.relu(t).sum())(model[0](x)).mean()


def _in_mixed_precision(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(model(x), y)


def _one_kernel(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.smooth_l1_loss(F.rrelu(model(x), training=True), torch.zeros(10, 3)) + F.multi_margin_loss(model(x), y)


def _with_hooks(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = model(x)
    out.register_hook(lambda g: 2 * g)
    return F.cross_entropy(out, y)


@pytest.mark.parametrize(
    "objective",
    [_penalised, _checkpointed, _reentrant, _vectorised, _in_mixed_precision, _one_kernel, _with_hooks],
)
def test_what_people_do_in_training_goes_on_as_without(objective: Callable[..., torch.Tensor]) -> None:
    (x, y), outcomes = batch_of((10, 4)), []
    for watched in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        log = ns.watch(model, every=1, change_every=1)
        with log if watched else contextlib.nullcontext():
            for _ in range(3):
                optimiser.zero_grad()
                objective(model, x, y).backward()
                optimiser.step()
        outcomes.append(([p.detach() for p in model.parameters()], torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0][0], outcomes[1][0], strict=True))
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    assert len(log.records) == 3
    assert log.records[0].active > 0 or objective is _reentrant  # the limit of docs/watch.md
    assert log.records[0].change is not None or log.records[0].why


def test_hooks_of_the_user_run_once() -> None:
    model, (x, y), calls = mlp(), batch_of((10, 4)), []
    model[0].weight.register_hook(lambda g: calls.append("parameter"))
    model[2].register_full_backward_hook(lambda *a: calls.append("module"))
    with ns.watch(model, every=1) as log:
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, x, y)
    assert sorted(calls) == ["module", "parameter"]
    assert log.records[0].change is None and "hooks" in log.records[0].why


def test_scaled_losses() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    optimiser, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    with ns.watch(model, every=1) as log:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(optimiser)
        scaler.update()
    change = log.records[0].change
    assert change is not None and 0 < change.parameters["0.bias"] < 1e3


def test_the_change_is_measured_at_most_once_in_so_many_steps() -> None:
    *_, log = loop("mlp", 1, steps=7, rate=0.0, change_every=3)
    assert [r.change is not None for r in log.records] == [True, False, False, True, False, False, True]
    assert {r.why for r in log.records} == {"", "not due"}
    *_, log = loop("mlp", 1, steps=2, rate=0.0, at_kinks=None)
    assert [r.why for r in log.records] == ["not asked for"] * 2


def test_ends_of_the_theory_are_traps() -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.bias)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=1) as log:
        h = model(torch.zeros(5, 3))
        torch.where(h > 0, h.sqrt(), torch.zeros_like(h)).sum().backward()
        optimiser.step()
    record = log.records[0]
    assert [(t.operation, t.active) for t in record.traps] == [("sqrt", 10)]
    assert record.not_finite == ("weight", "bias")
    assert record.change is None and record.why == "the gradient is not finite"
    assert "not finite" in record.sentence() and record.active == 10  # the ties of `where`


def test_places_carry_module_line_and_counts_of_the_digits() -> None:
    model, (x, y) = mlp(), batch_of((10, 4))
    with ns.watch(model, every=1) as log:
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, x, y)
    relu, *bounds = log.records[0].rows
    assert (relu.module, relu.operation, relu.kink, relu.kind) == ("1", "relu", "0", "switch")
    assert relu.elements == 80 and relu.active == 40 and relu.can_matter == 40 and relu.share == 0.5
    assert "test_watch.py" in relu.line and 0 < relu.margin < 1
    assert [(r.module, r.kink) for r in bounds] == [("3", "-bound"), ("3", "bound")] or len(bounds) == 2


def test_dead_entries_are_no_ties() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3))
    x, y = torch.randn(6, 1, 8, 8), torch.randint(3, (6,))
    model(x)
    with ns.watch(model, every=1) as log:
        plain_step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, x, y)
    assert [r.active for r in log.records[0].rows] == [0, 0]
    with torch.no_grad():
        pooled, relu = F.max_pool2d(F.relu(model[0](x)), 2), F.relu(model[0](x))
    assert int((pooled == 0).sum()) > 0 and relu.min() == 0


@pytest.mark.parametrize("seed", range(40))
def test_gaps_of_poolings_are_the_margins_of_the_record(seed: int) -> None:
    torch.manual_seed(seed)
    d = 1 + seed % 3
    sizes, kernel = torch.randint(5, 9, (d,)).tolist(), torch.randint(1, 4, (d,)).tolist()
    stride, dilation = torch.randint(1, 4, (d,)).tolist(), torch.randint(1, 3, (d,)).tolist()
    x = torch.randint(-2, 4, (3, 2, *sizes)).float()
    operator = getattr(torch.ops.aten, f"max_pool{d}d").default
    args = (x, kernel, stride, [0] * d, dilation)
    result = operator(*args)
    binding = bind(operator, args, {})
    assert binding is not None
    call = call_of((x,), binding.attributes, result)
    margins, active = binding.operation.margins(call)["tie"], binding.operation.active(call)["tie"]
    distances = Distances()
    assert distances.least(binding.operation, call)["tie"] == float(margins.min())
    masks, beyond = distances.masks(binding.operation, call)
    assert torch.equal(masks["tie"], active)
    rest = margins[margins > 0]
    assert beyond["tie"] == (float(rest.min()) if rest.numel() else float("inf"))


def test_large_values_are_read_in_chunks() -> None:
    x = torch.randn(300, 1000)
    x[17, 3] = 1e-7
    binding = bind(torch.ops.aten.relu.default, (x,), {})
    assert binding is not None
    for value in (x, x.t(), x[:, ::2]):
        call = call_of((value,), binding.attributes, value.relu())
        assert Distances().least(binding.operation, call)["0"] == float(value.abs().min())


def test_the_log_is_written_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        loop("mlp", 2, log=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4] * 2
    assert lines[0]["rows"][0]["active"] == 40 and lines[0]["format_version"] == 1


def test_a_line_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    loop("mlp", 2, progress=True)
    shown = capsys.readouterr()
    assert "step 4:" in shown.err and shown.out == ""
    loop("mlp", 2)
    assert capsys.readouterr().err == ""


def test_a_failing_observation_does_not_harm_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    without = loop("mlp", 0)

    def broken(*args: Any) -> None:
        raise ArithmeticError("no")

    monkeypatch.setattr(Distances, "least", broken)
    with pytest.warns(UserWarning, match="ArithmeticError"):
        within = loop("mlp", 1)
    assert without[0] == within[0] and all(torch.equal(a, b) for a, b in zip(without[1], within[1], strict=True))
    assert "ArithmeticError" in within[4].records[0].why


def test_a_writer_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    class Full:
        calls = 0

        def add_scalar(self, *args: Any) -> None:
            self.calls += 1
            raise OSError(28, "No space left on device")

    writer, without = Full(), loop("mlp", 0)
    with pytest.warns(UserWarning, match="to tensorboard: OSError.*No space left"):
        within = loop("mlp", 1, tensorboard=writer, log=tmp_path / "run.jsonl")
    assert without[0] == within[0] and writer.calls == 1 and len(within[4].records) == 5
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 5


def test_what_several_processes_saw_is_added_up() -> None:
    def seen(active: int, margin: float, why: str = "") -> Observation:
        row = Met("1", "relu", "switch", "0", "f.py:1", 10, active, active, margin)
        return Observation(3, (row,), None, why, 1.0, (), 1)

    whole = merge([seen(1, 0.5), seen(2, 0.25, "not due")])
    assert (whole.rows[0].elements, whole.rows[0].active, whole.rows[0].margin) == (20, 3, 0.25)
    assert whole.ranks == 2 and whole.why == "not due" and whole.step == 3


def test_a_budget_leaves_observations_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own: a plain step takes 1, an observed one 3; with a share of 0.5 one in five is observed."""
    clock = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: clock[0])
    model, (x, y) = mlp(), batch_of((10, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, every=1, budget=0.5) as log:
        for _ in range(50):
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            clock[0] += 3.0 if _get_current_function_mode_stack() else 1.0
            optimiser.step()
    assert log.steps == 50 and 8 <= len(log.records) <= 14
    extra, plain = 2.0 * len(log.records), float(log.steps)
    assert extra <= 0.5 * plain + 2.0
    assert len(log.records) + log.left_out == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget=0"),
        ({"every": 0}, "every=0"),
        ({"every": 2.0}, "every=2.0"),
        ({"every": True}, "every=True"),
        ({"change_every": -1}, "change_every=-1"),
        ({"at_kinks": "jaxx"}, "jax"),
        ({"tensorboard": 3}, "add_scalar"),
        ({"reduce": True}, "torch.distributed"),
        ({"log": "/nowhere/at/all.jsonl"}, "cannot be written"),
    ],
)
def test_wrong_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message), ns.watch(mlp(), **options):
        pass
    assert _get_current_function_mode_stack() == []


def test_what_is_no_module_or_cannot_be_seen_is_refused() -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        ns.watch(lambda x: x)
    with pytest.raises(UsageError, match="compiled"):
        ns.watch(nn.Sequential(torch.compile(mlp(), backend="eager")))
    log = ns.watch(mlp())
    with log, pytest.raises(UsageError, match="one block at a time"):
        log.__enter__()
