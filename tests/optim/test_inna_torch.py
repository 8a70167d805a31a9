"""INNA and INNAprop keep the contract of torch.optim: groups, state, hooks, schedules, compilation, derivatives, refusals."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim import lr_scheduler

import nonsmooth as ns
from nonsmooth.errors import UsageError

BOTH = [ns.optim.INNA, ns.optim.INNAprop]
both = pytest.mark.parametrize("make", BOTH)


def model_of(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).to(dtype)


def backward(model: torch.nn.Module, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(k)
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(16, 3, generator=generator).to(dtype)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).abs().mean()
    loss.backward()
    return loss


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for k in steps:
        optimizer.zero_grad()
        backward(model, k)
        optimizer.step()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# groups


@both
def test_every_group_has_its_own_numbers(make: Any) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(4), torch.randn(4)
    numbers = {"lr": 0.02, "alpha": 1.5, "beta": 0.3, "weight_decay": 0.2}
    together = make([{"params": [first]}, {"params": [second], **numbers}], lr=0.05)
    apart = [first.clone(), second.clone()]
    alone = [make([apart[0]], lr=0.05), make([apart[1]], **numbers)]
    for _ in range(5):
        for p, q in zip((first, second), apart, strict=True):
            p.grad = torch.randn(4)
            q.grad = p.grad.clone()
        together.step()
        for optimizer in alone:
            optimizer.step()
    assert torch.equal(first, apart[0])
    assert torch.equal(second, apart[1])


@both
def test_a_group_can_be_added_later(make: Any) -> None:
    p, q = torch.zeros(2), torch.ones(2)
    optimizer = make([p], lr=0.05)
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": q, "alpha": 0.7})
    q.grad = torch.ones(2)
    optimizer.step()
    assert [group["alpha"] for group in optimizer.param_groups] == [optimizer.defaults["alpha"], 0.7]
    assert float(q[0]) < 1


@both
def test_named_parameters(make: Any) -> None:
    model = model_of()
    optimizer = make(model.named_parameters(), lr=0.05)
    train(model, optimizer, range(2))
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]
    assert optimizer.state_dict()["param_groups"][0]["param_names"][0] == "0.weight"
    other = model_of()
    train(other, make(other.parameters(), lr=0.05), range(2))
    assert same(model, other)


@both
def test_a_parameter_without_a_gradient_is_left_alone(make: Any) -> None:
    p, q = torch.ones(2), torch.ones(2)
    optimizer = make([p, q], lr=0.05)
    p.grad = torch.ones(2)
    optimizer.step()
    assert q.tolist() == [1, 1]
    assert q not in optimizer.state
    q.grad = torch.ones(2)
    optimizer.step()
    assert set(optimizer.state) == {p, q}
    make([torch.ones(1)]).step()


@both
def test_the_closure_is_run_with_gradients_and_its_loss_comes_back(make: Any) -> None:
    model = model_of()
    optimizer = make(model.parameters(), lr=0.05)

    def closure() -> float:
        optimizer.zero_grad()
        return backward(model, 0).item()

    with torch.no_grad():
        losses = [optimizer.step(closure) for _ in range(5)]
    assert losses[-1] < losses[0]
    other = model_of()
    of_other = make(other.parameters(), lr=0.05)
    for _ in range(5):
        train(other, of_other, range(1))
    assert same(model, other)


@both
def test_state_is_small(make: Any) -> None:
    p = torch.zeros(3, 4, dtype=torch.bfloat16)
    optimizer = make([p], lr=0.05)
    p.grad = torch.ones_like(p)
    optimizer.step()
    big = {name: value.shape for name, value in optimizer.state[p].items() if value.numel() > 1}
    assert big == dict.fromkeys(["psi"] if make is ns.optim.INNA else ["psi", "exp_avg_sq"], p.shape)
    assert optimizer.state[p]["psi"].dtype == p.dtype


@both
def test_strides_are_kept(make: Any) -> None:
    p = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    optimizer = make([p], lr=0.05)
    p.grad = torch.randn_like(p)
    optimizer.step()
    assert optimizer.state[p]["psi"].stride() == p.stride()


# resumption


def through_save(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda state: state,
    "deepcopy": copy.deepcopy,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "torch.save": through_save,
}


@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_training_goes_on_to_the_bit(make: Any, way: str, dtype: torch.dtype) -> None:
    straight, model = model_of(dtype=dtype), model_of(dtype=dtype)
    through = make(straight.parameters(), lr=0.05, alpha=0.3, weight_decay=0.1)
    train(straight, through, range(10))
    optimizer = make(model.parameters(), lr=0.05, alpha=0.3, weight_decay=0.1)
    train(model, optimizer, range(4))
    saved = WAYS[way]({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    resumed = model_of(seed=1, dtype=dtype)
    resumed.load_state_dict(saved["model"])
    again = make(resumed.parameters(), lr=0.01)  # other defaults: what was saved counts
    again.load_state_dict(saved["optimizer"])
    train(resumed, again, range(4, 10))
    assert same(resumed, straight)
    assert all(
        torch.equal(again.state[p][key], through.state[q][key])
        for p, q in zip(resumed.parameters(), straight.parameters(), strict=True)
        for key in through.state[q]
    )


@both
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_the_optimiser_itself_can_be_copied(make: Any, way: str) -> None:
    model = model_of()
    optimizer = make(model.parameters(), lr=0.05)
    train(model, optimizer, range(3))
    other, of_other = WAYS[way]((model, optimizer))
    train(model, optimizer, range(3, 6))
    train(other, of_other, range(3, 6))
    assert same(model, other)
    assert repr(of_other) == repr(optimizer)


@both
def test_an_older_state_without_the_flags_is_completed(make: Any) -> None:
    model = model_of()
    optimizer = make(model.parameters(), lr=0.05)
    train(model, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    for flag in ("foreach", "maximize", "capturable", "differentiable"):
        del saved["param_groups"][0][flag]
    if make is ns.optim.INNAprop:
        for state in saved["state"].values():
            state["step"] = 2
    other = copy.deepcopy(model)
    again = make(other.parameters(), lr=0.05)
    again.load_state_dict(saved)
    train(model, optimizer, range(2, 4))
    train(other, again, range(2, 4))
    assert same(model, other)


@pytest.mark.parametrize("make", [ns.optim.INNA, ns.optim.INNAprop])
@pytest.mark.parametrize("name", ["lr", "alpha", "beta", "weight_decay"])
def test_no_number_at_all_is_refused(make: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be a number; found None"):
        make([torch.zeros(1, requires_grad=True)], **{name: None})


@pytest.mark.parametrize(
    ("saved", "loads", "text"),
    [
        (torch.optim.Adam, ns.optim.INNA, "another optimiser"),
        (torch.optim.SGD, ns.optim.INNAprop, "another optimiser"),
        (ns.optim.INNA, ns.optim.INNAprop, "has no sigma, eps"),
    ],
)
def test_the_state_of_another_optimiser_is_refused(saved: Any, loads: Any, text: str) -> None:
    model = model_of()
    other = saved(model.parameters(), lr=0.05)
    train(model, other, range(1))
    optimizer = loads(model.parameters(), lr=0.05)
    train(model, optimizer, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UsageError, match=text):
        optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(after["state"][i]["psi"], state["psi"]) for i, state in before["state"].items())


@both
def test_the_state_of_another_model_is_refused(make: Any) -> None:
    p, q = torch.ones(3), torch.ones(4)
    p.grad = torch.ones(3)
    optimizer = make([p], lr=0.05)
    optimizer.step()
    with pytest.raises(UsageError, match=r"psi of shape \(3,\) for a parameter of shape \(4,\)"):
        make([q], lr=0.05).load_state_dict(optimizer.state_dict())
    damaged = optimizer.state_dict()
    del damaged["state"][0]["psi"]
    damaged["state"][0]["other"] = torch.ones(3)
    with pytest.raises(UsageError, match="has no psi"):
        make([p], lr=0.05).load_state_dict(damaged)


# hooks, schedules, scaling


@both
def test_hooks_run(make: Any) -> None:
    seen: list[str] = []
    p = torch.ones(2)
    p.grad = torch.ones(2)
    optimizer = make([p], lr=0.05)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    optimizer.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "saved", "loaded"]


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda k: (1 + k) ** -0.5),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.05, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=20, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.9)]),
}


@both
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tensor", [False, True])
def test_every_schedule_of_torch_sets_the_step(make: Any, schedule: str, tensor: bool) -> None:
    """The same steps as those set by hand, from the scheduler's own list."""
    model, other = model_of(), model_of()
    optimizer = make(model.parameters(), lr=torch.tensor(0.05) if tensor else 0.05)
    scheduler = SCHEDULES[schedule](optimizer)
    by_hand = make(other.parameters(), lr=0.05)
    for k in range(6):
        by_hand.param_groups[0]["lr"] = float(optimizer.param_groups[0]["lr"])
        train(model, optimizer, range(k, k + 1))
        train(other, by_hand, range(k, k + 1))
        scheduler.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_reduce_on_plateau_sets_the_step() -> None:
    optimizer = ns.optim.INNA([torch.ones(1)], lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    scheduler.step(1.0)
    scheduler.step(2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@both
def test_gradients_scaled_for_half_precision(make: Any) -> None:
    model, other = model_of(), model_of()
    optimizer, plain = make(model.parameters(), lr=0.05), make(other.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for k in range(4):
        optimizer.zero_grad()
        inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(k))
        scaler.scale((model(inputs) - inputs.sum(1, keepdim=True)).abs().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        train(other, plain, range(k, k + 1))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    before = copy.deepcopy(model)
    next(model.parameters()).grad.fill_(float("inf"))
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert same(model, before)


# tensors as hyper-parameters


@both
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("names", [("lr",), ("lr", "alpha", "beta")])
def test_hyper_parameters_may_be_tensors(make: Any, foreach: bool | None, names: tuple[str, ...]) -> None:
    numbers = {"lr": 0.05, "alpha": 0.4, "beta": 0.3, "weight_decay": 0.1}
    model, other = model_of(), model_of()
    tensors = {name: torch.tensor([numbers[name]], dtype=torch.float64) for name in names}
    optimizer = make(model.parameters(), **(numbers | tensors), foreach=foreach)
    train(model, optimizer, range(5))
    train(other, make(other.parameters(), **numbers), range(5))
    assert all(p.dtype == torch.float32 == optimizer.state[p]["psi"].dtype for p in model.parameters())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(tensors[name], torch.tensor([numbers[name]], dtype=torch.float64)) for name in names)


# compilation


@both
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("tensor", [False, True])
def test_a_compiled_step_is_the_step(make: Any, foreach: bool, tensor: bool) -> None:
    torch._dynamo.reset()
    model, other = model_of(), model_of()
    lr = torch.tensor(0.05) if tensor else 0.05
    optimizer = make(model.parameters(), lr=lr, weight_decay=0.1, foreach=foreach)
    plain = make(other.parameters(), lr=lr, weight_decay=0.1, foreach=foreach)
    counter = CompileCounterWithBackend("aot_eager")
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9) if tensor else None
    step = torch.compile(lambda: optimizer.step(), backend=counter)
    for k in range(5):
        optimizer.zero_grad()
        backward(model, k)
        step()
        train(other, plain, range(k, k + 1))
        if scheduler is not None:
            scheduler.step()
            plain.param_groups[0]["lr"].copy_(optimizer.param_groups[0]["lr"])
    assert counter.frame_count == 1  # one graph, compiled once, also while a tensor lr changes
    assert counter.op_count >= 8
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_a_compiled_step_checks_the_step_too() -> None:
    torch._dynamo.reset()
    p = torch.ones(3)
    p.grad = torch.ones(3)
    numbers = ns.optim.INNAprop([p], lr=0.05)
    step = torch.compile(numbers.step, backend="aot_eager")
    step()
    numbers.param_groups[0]["lr"] = 1.0
    before = p.clone()
    with pytest.raises(UsageError, match="below beta"):
        step()
    assert torch.equal(p, before)
    torch._dynamo.reset()
    tensor = ns.optim.INNAprop([p], lr=torch.tensor(0.05))
    step = torch.compile(tensor.step, backend="aot_eager")
    step()
    tensor.param_groups[0]["lr"].fill_(1.0)
    with pytest.raises(RuntimeError, match="below beta"):
        step()


# derivatives through a step


@both
def test_derivatives_go_through_steps(make: Any) -> None:
    """Of the point after three steps, with respect to the start, the gradients' scale, and every tensor among the numbers."""

    def after(
        start: torch.Tensor, scale: torch.Tensor, lr: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor
    ) -> torch.Tensor:
        theta = start.clone()
        optimizer = make([theta], lr=lr, alpha=alpha, beta=beta, weight_decay=0.1, differentiable=True)
        for _ in range(3):
            theta.grad = scale * torch.sin(theta.clone()) + 0.5
            optimizer.step()
        return theta

    at = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.3, -1.2], 1.5, 0.05, 0.4, 0.3)]
    assert torch.autograd.gradcheck(after, at, eps=1e-6, atol=1e-5)


@both
def test_a_step_leaves_no_graph_behind(make: Any) -> None:
    model = model_of()
    optimizer = make(model.parameters(), lr=0.05)
    train(model, optimizer, range(1))
    assert not any(state["psi"].requires_grad for state in optimizer.state.values())
    assert torch.is_grad_enabled()


# refusals: nothing has changed afterwards


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lr": -0.1}, "lr must be"),
    ({"lr": float("nan")}, "lr must be"),
    ({"lr": "0.1"}, "lr must be"),
    ({"alpha": -1.0}, "alpha must be"),
    ({"alpha": float("inf")}, "alpha must be"),
    ({"beta": 0.0}, "beta must be"),
    ({"weight_decay": -1.0}, "weight_decay must be"),
    ({"lr": torch.tensor([0.1, 0.2])}, "one number"),
    ({"lr": torch.tensor(-0.1)}, "lr must be"),
    ({"foreach": True, "differentiable": True}, "differentiable=True"),
]


@both
@pytest.mark.parametrize(("bad", "text"), BAD, ids=[f"{text}-{i}" for i, (_, text) in enumerate(BAD)])
def test_bad_numbers_are_refused(make: Any, bad: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make([torch.ones(1)], **bad)
    optimizer = make([torch.ones(1)])
    with pytest.raises(UsageError, match=text) as caught:
        optimizer.add_param_group({"params": [torch.ones(2)], **bad})
    assert "one number" in text or "group 1" in str(caught.value)
    assert len(optimizer.param_groups) == 1
    p, q = torch.ones(1), torch.ones(1)
    p.grad = q.grad = torch.ones(1)
    optimizer = make([{"params": [p]}, {"params": [q]}])
    optimizer.param_groups[1].update(bad)
    with pytest.raises(UsageError, match=text):
        optimizer.step()
    assert p.item() == q.item() == 1


@pytest.mark.parametrize(
    "bad", [{"sigma": 1.0}, {"sigma": -0.1}, {"eps": -1e-8}, {"lr": 0.9}, {"lr": 2.0}, {"beta": 1e-3}]
)
def test_bad_numbers_of_innaprop_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must"):
        ns.optim.INNAprop([torch.ones(1)], **bad)


@pytest.mark.parametrize("tensor", [False, True])
def test_innaprop_checks_the_step_that_a_schedule_makes(tensor: bool) -> None:
    p, q = torch.ones(1), torch.ones(1)
    optimizer = ns.optim.INNAprop(
        [{"params": [p]}, {"params": [q], "beta": 0.5}], lr=torch.tensor(0.1) if tensor else 0.1, beta=2.0
    )
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda k: 1.0 + k)
    values = []
    with pytest.raises(UsageError, match=r"below beta; found lr 0\.5\d* and beta 0\.5 in parameter group 1"):
        for _ in range(9):
            p.grad = q.grad = torch.ones(1)
            values.append((p.item(), q.item()))
            optimizer.step()
            scheduler.step()
    assert len(values) == 5
    assert (p.item(), q.item()) == values[-1]


@both
def test_sparse_gradients_are_refused(make: Any) -> None:
    table, other = torch.nn.Embedding(5, 2, sparse=True), torch.ones(2)
    table(torch.tensor([1, 3])).sum().backward()
    other.grad = torch.ones(2)
    before = table.weight.detach().clone()
    optimizer = make([{"params": [other]}, {"params": table.parameters()}])
    with pytest.raises(UsageError, match="dense gradients") as caught:
        optimizer.step()
    assert "sparse=False" in str(caught.value)
    assert torch.equal(table.weight, before)
    assert other.tolist() == [1, 1]


@both
def test_what_torch_refuses_is_refused(make: Any) -> None:
    with pytest.raises(TypeError):
        make(torch.ones(1))
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])
    with pytest.raises(ValueError, match="non-leaf"):
        make([torch.ones(1, requires_grad=True) * 2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make([{"params": [p := torch.ones(1)]}, {"params": [p]}])


def test_a_count_that_a_graph_would_not_see_is_refused() -> None:
    p = torch.ones(1, device="meta")
    optimizer = ns.optim.INNAprop([p])
    p.grad = torch.ones(1, device="meta")
    optimizer.state[p] = {"psi": torch.ones_like(p), "exp_avg_sq": torch.zeros_like(p), "step": torch.tensor(1.0)}
    optimizer.param_groups[0]["capturable"] = True
    with pytest.raises(UsageError, match="count of steps must be on meta"):
        optimizer.step()
