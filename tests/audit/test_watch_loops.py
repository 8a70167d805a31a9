"""Loops as people write them, under the monitor: the same training, and numbers that agree with one's own."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Observation

Step = Callable[[nn.Module, Callable[..., torch.Tensor]], None]

TARGET = torch.tensor([0, 0, 1, 1, 1, 2])
"""Of six rows, the first three of which are zero and do not cancel."""


class _Slope1(torch.autograd.Function):
    """relu with relu'(0) = 1, written without the library."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return cotangent * (x >= 0).to(cotangent.dtype)


class Three(nn.Module):
    """Three layers with zero biases, and a parameter that is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.w = nn.Parameter(torch.zeros(8))
        for layer in (self.a, self.b, self.c):
            nn.init.zeros_(layer.bias)


def model_of(dtype: torch.dtype = torch.float64) -> Three:
    torch.manual_seed(0)
    return Three().to(dtype)


def rows(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[:3] = 0
    return x


def out(m: Any, relu: Any, part: slice = slice(None)) -> torch.Tensor:
    return m.c(relu(m.b(relu(m.a(rows(m.w.dtype)[part])))))  # type: ignore[no-any-return]


def loss(m: Any, relu: Any, part: slice = slice(None)) -> torch.Tensor:
    return F.cross_entropy(out(m, relu, part), TARGET[part])


def two_losses(m: Any, relu: Any) -> None:
    found = out(m, relu)
    F.cross_entropy(found, TARGET).backward(retain_graph=True)
    found.square().mean().backward()


def emptied(m: Any, relu: Any) -> None:
    out(m, relu).sum().backward()
    m.zero_grad()
    loss(m, relu).backward()


def zeroed(m: Any, relu: Any) -> None:
    out(m, relu).sum().backward()
    m.zero_grad(set_to_none=False)
    loss(m, relu).backward()


def parts(m: Any, relu: Any) -> None:
    """The first pass meets no kink, and its gradient belongs to the whole."""
    loss(m, relu, slice(3, 6)).backward()
    loss(m, relu, slice(0, 3)).backward()


def dead_parts(m: Any, relu: Any) -> None:
    """The first pass gives some parameters a gradient of zeros, which is none that was emptied."""
    loss(m, relu, slice(0, 3)).backward()
    loss(m, relu, slice(3, 6)).backward()


def on_parameters(m: Any, relu: Any) -> None:
    F.cross_entropy(m.c(relu(m.w) + relu(m.b.bias.expand(6, 8)).clone()), TARGET).backward()


def positional(m: Any, relu: Any) -> None:
    torch.autograd.backward(loss(m, relu), torch.tensor(3.0, dtype=m.w.dtype), True)


def several(m: Any, relu: Any) -> None:
    found = out(m, relu)
    torch.autograd.backward([F.cross_entropy(found, TARGET), found], [None, torch.ones_like(found)])


def _gradients(m: nn.Module, step: Step, relu: Any) -> dict[str, torch.Tensor]:
    m.zero_grad()
    step(m, relu)
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in m.named_parameters()}


def observed(m: nn.Module, step: Step, relu: Any = torch.relu) -> Observation:
    m.zero_grad()
    optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
    with ns.watch(m, every=1) as log:
        step(m, relu)
        optimiser.step()
    return log.records[0]


@pytest.mark.parametrize("step", [two_losses, emptied, zeroed, parts, dead_parts, on_parameters, positional, several])
def test_the_change_is_ones_own(step: Step) -> None:
    m = model_of()
    native, other = _gradients(m, step, torch.relu), _gradients(m, step, _Slope1.apply)
    whole = sum(float(g.norm()) ** 2 for g in native.values()) ** 0.5
    moved = sum(float((other[k] - native[k]).norm()) ** 2 for k in native) ** 0.5
    change = observed(m, step).change
    assert moved > 0.01 * whole
    assert change is not None and change.norm == pytest.approx(moved, rel=1e-9)
    assert change.relative == pytest.approx(moved / whole, rel=1e-9)


def penalised(m: Any, relu: Any) -> None:
    x = rows().requires_grad_()
    value = F.cross_entropy(m.c(relu(m.b(relu(m.a(x))))), TARGET)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    (value + gradient.square().sum()).backward()


def gradients_of_gradients(m: Any, relu: Any) -> None:
    gradients = torch.autograd.grad(loss(m, relu), list(m.parameters()), create_graph=True, allow_unused=True)
    sum(g.square().sum() for g in gradients if g is not None).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("step", [penalised, gradients_of_gradients])
def test_gradients_of_gradients_are_not_compared(step: Step) -> None:
    record = observed(model_of(), step)
    assert record.change is None and "derivatives of derivatives" in record.why


@pytest.mark.parametrize("step", [two_losses, positional, penalised, gradients_of_gradients])
def test_an_element_counts_once_however_many_passes_come_by(step: Step) -> None:
    record = observed(model_of(), step)
    assert all(row.can_matter is not None and row.can_matter <= row.active for row in record.rows)
    assert record.active == 48 and record.can_matter == 24  # the zeros of the first relu stop at those of the second


def test_derivatives_taken_by_hand_are_counted_and_not_compared() -> None:
    def step(m: Any, relu: Any) -> None:
        found = torch.autograd.grad(loss(m, relu), list(m.parameters()), allow_unused=True)
        for p, g in zip(m.parameters(), found, strict=True):
            p.grad = g

    record = observed(model_of(), step)
    assert (record.active, record.can_matter) == (48, 24)
    assert record.change is None and record.why == "there was no backward()"


def base_used(m: Any) -> torch.Tensor:
    h = m.a(rows())
    torch.relu_(h[:, :3])
    return m.c(h)  # type: ignore[no-any-return]


def flat_base_used(m: Any) -> torch.Tensor:
    h = m.a(rows())
    torch.relu_(h.view(-1))
    return m.c(h)  # type: ignore[no-any-return]


def view_used(m: Any) -> torch.Tensor:
    return m.c(torch.relu_(m.a(rows()).t()).t())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("forward", "zeros"), [(base_used, 9), (flat_base_used, 24), (view_used, 24)])
def test_in_place_on_a_view(forward: Callable[[Any], torch.Tensor], zeros: int) -> None:
    m = model_of()
    record = observed(m, lambda m, relu: F.cross_entropy(forward(m), TARGET).backward())
    assert (record.active, record.can_matter) == (zeros, zeros)
    assert record.change is None and "view" in record.why


class Noting(torch.autograd.Function):
    """The identity, whose backward pass must run once."""

    calls: ClassVar[list[str]] = []

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.stash = {"x": x.shape}
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        ctx.stash.pop("x")
        Noting.calls.append("backward")
        return cotangent


def with_function(m: Any, calls: list[str]) -> None:
    Noting.calls = calls
    F.cross_entropy(m.c(Noting.apply(torch.relu(m.a(rows())))), TARGET).backward()


def with_node_hooks(m: Any, calls: list[str]) -> None:
    value = loss(m, torch.relu)
    assert value.grad_fn is not None
    value.grad_fn.register_hook(lambda given, taken: calls.append("hook"))
    value.grad_fn.register_prehook(lambda taken: calls.append("prehook"))
    value.backward()


def with_another_model(m: Any, calls: list[str]) -> None:
    head = nn.Linear(3, 3).double()
    head.register_full_backward_hook(lambda *_: calls.append("module"))
    F.cross_entropy(head(out(m, torch.relu)), TARGET).backward()


def with_offloading(m: Any, calls: list[str]) -> None:
    """What is saved is given back once."""
    store: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> int:
        store[len(store)] = tensor.detach().clone()
        return len(store) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda key: calls.append("unpack") or store.pop(key)):
        value = loss(m, torch.relu)
    value.backward()


def with_checkpoint(m: Any, calls: list[str]) -> None:
    """A checkpointed layer is computed once more in the backward pass, and its running statistics with it."""
    norm = nn.BatchNorm1d(8).double()
    hidden = checkpoint(lambda t: torch.relu(norm(torch.relu(m.a(t)))), rows(), use_reentrant=False)
    F.cross_entropy(m.c(hidden), TARGET).backward()
    calls += [str(norm.running_mean), str(norm.num_batches_tracked)]


@pytest.mark.parametrize("step", [with_function, with_node_hooks, with_another_model, with_offloading, with_checkpoint])
def test_code_in_the_backward_pass_runs_as_often_as_without(step: Callable[[Any, list[str]], None]) -> None:
    outcomes = []
    for watched in (False, True):
        m, calls = model_of(), list[str]()
        optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
        torch.manual_seed(3)
        with ns.watch(m, every=1, change_every=1) if watched else contextlib.nullcontext() as log:
            step(m, calls)
            optimiser.step()
        outcomes.append((calls, [p.detach() for p in m.parameters()]))
    assert outcomes[0][0] == outcomes[1][0] != []
    assert all(map(torch.equal, outcomes[0][1], outcomes[1][1]))
    assert log is not None and log.records[0].active > 0
    assert log.records[0].change is None and log.records[0].why


def test_an_error_of_the_second_pass_is_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyError("no")

    monkeypatch.setattr(torch.autograd, "grad", broken)
    record = observed(model_of(), lambda m, relu: loss(m, relu).backward())
    assert record.change is None and "second backward pass failed" in record.why


def test_layers_out_of_sight_are_named() -> None:
    def step(m: Any, relu: Any) -> None:
        hidden = checkpoint(lambda t: relu(m.a(t)), rows().requires_grad_(), use_reentrant=True)
        F.cross_entropy(m.c(hidden), TARGET).backward()

    record = observed(model_of(), step)
    assert record.active == 0 and record.change is None
    assert record.unseen == ("layers under checkpoint(..., use_reentrant=True)",) and "not seen" in record.why


def test_tensors_that_outlive_a_step_keep_nothing_of_it() -> None:
    m, x = model_of(), torch.zeros(6, 8, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD(m.parameters(), lr=0.0)
    with ns.watch(m, every=1) as log:
        for _ in range(3):
            optimiser.zero_grad()
            F.cross_entropy(m.c(torch.relu(m.w) + torch.relu(x)), TARGET).backward()
            optimiser.step()
            assert not m.w._backward_hooks or len(m.w._backward_hooks) == 0
    assert m.w._backward_hooks is None and x._backward_hooks is None
    assert log.records[0].change is not None and log.records[0].can_matter == 8 + 48


def test_sparse_gradients_are_compared_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table may be too large to be laid out."""
    torch.manual_seed(0)
    m = nn.Sequential(nn.EmbeddingBag(20, 6, mode="sum", sparse=True), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(m[0].weight[:10])
    nn.init.zeros_(m[1].bias)
    tokens, target = torch.arange(20).reshape(10, 2), torch.arange(10) % 3

    def step(m: nn.Module, relu: Any) -> None:
        layers = list(m)  # type: ignore[call-overload]
        F.cross_entropy(layers[3](relu(layers[1](layers[0](tokens)))), target).backward()

    native, other = _gradients(m, step, torch.relu), _gradients(m, step, _Slope1.apply)
    moved = sum(float((other[k] - native[k]).to_dense().norm()) ** 2 for k in native) ** 0.5
    monkeypatch.setattr(torch.Tensor, "to_dense", lambda self: pytest.fail("laid out"))
    change = observed(m, step).change
    assert change is not None and change.norm == pytest.approx(moved, rel=1e-5) and "0.weight" in change.parameters


def test_the_default_device_changes_within_a_step() -> None:
    m = model_of(torch.float32)
    optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
    try:
        with ns.watch(m, every=1) as log:
            for default in ("cpu", None, "cpu"):
                torch.set_default_device(default)
                loss(m, torch.relu).backward()
                optimiser.step()
        assert len(log.records) == 3
    finally:
        torch.set_default_device(None)
    with ns.watch(m, every=1) as log:
        for _ in range(2):
            with torch.device("cpu"):
                loss(m, torch.relu).backward()
                optimiser.step()
    assert [r.backwards for r in log.records] == [1, 1] and _get_current_function_mode_stack() == []


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please switch to:DeprecationWarning")
def test_a_trace_within_a_step_holds_nothing_of_the_monitor() -> None:
    m = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    plain = str(torch.jit.trace(m, torch.ones(2, 3)).code)
    with ns.watch(m, every=1):
        assert str(torch.jit.trace(m, torch.ones(2, 3)).code) == plain


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_training_step_goes_on_as_without() -> None:
    outcomes, x = [], rows(torch.float32)
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        m = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        for layer in m[::2]:
            nn.init.zeros_(layer.bias)
        optimiser = torch.optim.SGD(m.parameters(), lr=0.1)

        def step(m: Any = m, optimiser: Any = optimiser) -> None:
            optimiser.zero_grad()
            F.cross_entropy(F.relu(m(x)), TARGET).backward()
            optimiser.step()

        compiled = torch.compile(step, backend="eager")
        with ns.watch(m, every=1) if watched else contextlib.nullcontext():
            for _ in range(3):
                compiled()
        outcomes.append([p.detach() for p in m.parameters()])
    assert all(map(torch.equal, *outcomes))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_parts_are_named() -> None:
    compiled = torch.compile(torch.relu, backend="aot_eager")
    record = observed(
        model_of(torch.float32),
        lambda m, relu: F.cross_entropy(m.c(compiled(m.a(rows(torch.float32)))), TARGET).backward(),
    )
    assert record.unseen == ("what torch.compile has compiled",) and record.change is None


def test_one_block_sees_all_models_and_two_are_refused() -> None:
    m = model_of()
    with ns.watch(m) as log:
        with pytest.raises(UsageError, match="ModuleList"), ns.watch(model_of()):
            pass
        loss(m, torch.relu).backward()
    assert log.records[0].active == 48
    with ns.watch(m):
        pass


def test_threads_watch_side_by_side() -> None:
    counts, models = {}, [model_of(), model_of()]

    def train(number: int) -> None:
        m = models[number]
        optimiser = torch.optim.SGD(m.parameters(), lr=0.0)
        with ns.watch(m, every=1) as log:
            for _ in range(10):
                loss(m, torch.relu).backward()
                optimiser.step()
        counts[number] = [r.active for r in log.records]

    threads = [threading.Thread(target=train, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {0: [48] * 10, 1: [48] * 10}


def test_a_training_in_another_thread_is_seen_from_its_second_step() -> None:
    m = model_of()
    optimiser = torch.optim.SGD(m.parameters(), lr=0.0)

    def train() -> None:
        for _ in range(3):
            loss(m, torch.relu).backward()
            optimiser.step()

    with ns.watch(m, every=1) as log:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert [(r.step, r.active) for r in log.records] == [(1, 48), (2, 48)]


def test_an_optimiser_that_takes_the_place_of_another() -> None:
    m = model_of()
    first, second = torch.optim.SGD(m.parameters(), lr=0.0), torch.optim.Adam(m.parameters(), lr=0.0)
    with ns.watch(m, every=1) as log:
        for optimiser in (first, first, second, second, second, second):
            loss(m, torch.relu).backward()
            optimiser.step()
    assert log.steps == 5 and [r.step for r in log.records] == [0, 1, 3, 4]
    assert [r.backwards for r in log.records] == [1] * 4


def test_two_optimisers_in_turn_count_as_one() -> None:
    m = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    a, b = (torch.optim.SGD(part.parameters(), lr=0.1) for part in m.values())
    with ns.watch(m, every=1) as log:
        for _ in range(2):
            for optimiser in (a, b, b, b):
                (m["a"](torch.ones(2)) + m["b"](torch.ones(2))).sum().backward()
                optimiser.step()
    assert log.steps == 2


def test_layers_that_are_added_have_their_names() -> None:
    m = nn.Sequential(nn.Linear(2, 2))
    optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
    with ns.watch(m, every=1) as log:
        for _ in range(2):
            m(torch.ones(2)).sum().backward()
            optimiser.step()
            m.append(nn.ReLU())
    assert [[row.module for row in record.rows] for record in log.records] == [[], ["1"]]


def test_an_optimiser_that_steps_inside_of_the_backward_pass_is_not_compared() -> None:
    m = model_of()
    optimisers = {p: torch.optim.SGD([p], lr=0.0) for p in m.parameters()}
    for p in m.parameters():
        p.register_post_accumulate_grad_hook(lambda p: optimisers[p].step())
    with ns.watch(m, every=1) as log:
        loss(m, torch.relu).backward()
    assert log.records[0].active == 48 and log.records[0].change is None
    assert {row.can_matter for row in log.records[0].rows} == {None}


def test_a_terminal_that_is_none_and_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    m = model_of()
    with monkeypatch.context() as within:
        within.setattr(sys, "stderr", None)
        with ns.watch(m) as log:
            loss(m, torch.relu).backward()
    assert len(log.records) == 1

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("full")

        def close(self) -> None:
            raise OSError("full")

    with pytest.warns(UserWarning, match="nothing is written any more"), ns.watch(m) as log:
        log._file = Full()
        loss(m, torch.relu).backward()
        log.step()


@pytest.mark.parametrize("options", [{"budget": "0.02"}, {"budget": True}, {"log": 3}])
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ns.watch(model_of(), **options)


def test_logs_that_others_have_edited(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with ns.watch(model_of(), log=path) as log:
        log.step()
    text = path.read_text(encoding="utf-8")
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert ns.read_run(path).records == log.records
    data = json.loads(text)
    path.write_text(json.dumps(data | {"run": data["run"] | {"rounding": "a"}}), encoding="utf-8")
    assert ns.read_run(path).records == log.records
    path.write_text("[" * 100_000 + "\n" + text, encoding="utf-8")
    assert any("1 damaged line" in note for note in ns.read_run(path).notes)
    for wrong in ({"path": 3}, {"path": path, "run": "1"}):
        with pytest.raises(UsageError):
            ns.read_run(**wrong)  # type: ignore[arg-type]
