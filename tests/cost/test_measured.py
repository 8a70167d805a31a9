"""Measuring: paired rounds, ratios of a fake clock, peaks of memory, and nothing of the user's changed."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import nonsmooth as ns
from nonsmooth.cost.measured import EVALUATION, measure_cost, measure_sides, measuring, try_side
from nonsmooth.errors import NoDerivative, RandomnessError, UsageError
from nonsmooth.frameworks.stopwatch import Run
from nonsmooth.frameworks.torch import timing
from nonsmooth.frameworks.torch.timing import TorchStopwatch


class FakeClock:
    """Each run moves a clock by what it says; the clock drifts by a factor every round."""

    clock, device, threads = "a fake clock", "nowhere", 3

    def __init__(self) -> None:
        self.now, self.seen, self.collecting = 0.0, list[str](), list[bool]()

    def runs(self, **costs: float) -> dict[str, Run]:
        """Make sides that take so long."""

        def slow(name: str, cost: float) -> Callable[[], None]:
            def call() -> None:
                self.now += cost * 1.5 ** (len(self.seen) // len(costs))
                self.seen.append(name)

            return call

        return {name: Run(slow(name, cost)) for name, cost in costs.items()}

    def seconds(self, run: Run) -> float:
        start = self.now
        run.call()
        self.collecting.append(gc.isenabled())
        return self.now - start

    def memory(self, run: Run) -> int | None:
        return run.memory


def test_the_ratio_is_that_of_the_round() -> None:
    """A machine that slows down by half every round changes every time, and no ratio."""
    clock = FakeClock()
    found = measure_sides(clock, clock.runs(evaluation=2.0, slow=7.0, fast=1.0), rounds=6)  # type: ignore[arg-type]
    assert [row.what for row in found.rows] == [EVALUATION, "slow", "fast"]
    assert [row.ratio for row in found.rows] == pytest.approx([1.0, 3.5, 0.5])
    assert found.rows[1].quartiles == pytest.approx((3.5, 3.5))
    assert found.rows[1].seconds > 40 and found.rows[1].memory is None
    assert (found.rounds, found.threads, found.device, found.clock) == (6, 3, "nowhere", "a fake clock")
    assert found.status == "measured"


def test_every_round_runs_every_side_once_in_another_order() -> None:
    clock = FakeClock()
    measure_sides(clock, clock.runs(a=1.0, b=1.0, c=1.0), rounds=8)  # type: ignore[arg-type]
    timed = clock.seen[6:]  # two warming calls of each side come first
    rounds = [timed[k : k + 3] for k in range(0, 24, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds) and len({tuple(one) for one in rounds}) > 2
    assert not any(clock.collecting[6:]) and gc.isenabled()


def test_rounds_are_as_many_as_fit() -> None:
    clock = FakeClock()
    assert measure_sides(clock, clock.runs(a=1e-9)).rounds == 41  # type: ignore[arg-type]
    clock = FakeClock()
    assert measure_sides(clock, clock.runs(a=100.0)).rounds == 7  # type: ignore[arg-type]
    found = measure_sides(clock, clock.runs(a=0.0), rounds=2)  # type: ignore[arg-type]
    assert found.rows[0].ratio == 1.0  # a clock too coarse to see anything
    for wrong in (0, -1, True):
        with pytest.raises(UsageError, match="rounds="):
            measure_sides(clock, clock.runs(a=1.0), rounds=wrong)  # type: ignore[arg-type]


def _mlp() -> tuple[Any, Any, tuple[Any, ...], Any]:
    """Give a model with statistics that its evaluation writes to."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    f, x = ns.objective(model, torch.nn.functional.cross_entropy)
    return f, x, (torch.randn(10, 6), torch.randint(0, 3, (10,))), model


def test_the_sides_of_torch() -> None:
    f, x, data, _ = _mlp()
    found = measure_cost(f, ns.capture(f, x, *data), x, data, rounds=3)
    assert [row.what for row in found.rows] == [
        "evaluation", "gradient by torch", "ns.value_and_backprop", "ns.subgradient", "ns.directional", "1 tangent by torch",
        "4 tangents by torch", "16 tangents by torch",
    ]  # fmt: skip
    assert [row.directions for row in found.rows] == [None] * 5 + [1, 4, 16] and not found.missing
    assert found.rows[0].ratio == 1.0 and found.rows[0].memory_ratio == 1.0
    assert all(row.seconds > 0 and row.quartiles[0] <= row.ratio <= row.quartiles[1] for row in found.rows)
    assert found.threads == torch.get_num_threads() and found.clock == "wall time" and found.device == "cpu"
    assert "all sides in turn" in str(found) and json.loads(found.to_json())["rounds"] == 3


def test_nothing_of_the_users_changes() -> None:
    f, x, data, model = _mlp()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state, point = torch.get_rng_state(), {name: t.detach().clone() for name, t in x.items()}
    items = [t.clone() for t in data]
    versions = [b._version for b in model.buffers()]
    with torch.no_grad():
        measure_cost(f, ns.capture(f, x, *data), x, data, rounds=2)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [b._version for b in model.buffers()] == versions
    assert all(torch.equal(t.detach(), point[name]) and t.grad is None for name, t in x.items())
    assert all(torch.equal(a, b) for a, b in zip(items, data, strict=True))
    assert all(p.grad is None for p in model.parameters()) and torch.equal(torch.get_rng_state(), state)


def test_a_buffer_that_the_function_itself_changes_is_put_back() -> None:
    """Seen to fail without `preserved`: the raw function runs here, not a copy of it."""
    seen = torch.zeros(())

    def f(x: Any) -> Any:
        seen.add_(1.0)
        return torch.relu(x).sum()

    x = torch.ones(3)
    measure_cost(f, ns.capture(f, x), x, (), rounds=2)
    assert float(seen) == 0.0


def test_functions_that_draw_are_refused() -> None:
    x, state = torch.ones(4), torch.get_rng_state()

    def f(x: Any) -> Any:
        return torch.nn.functional.dropout(x, 0.5).sum()

    program = ns.capture(f, x, randomness="freeze")
    with pytest.raises(RandomnessError, match="cost: the function draws random numbers"):
        measure_cost(f, program, x, ())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_side_that_fails_is_said_to_be_missing() -> None:
    x = torch.tensor([0.0, 1.0])

    def f(x: Any) -> Any:
        return torch.floor(x).sum() + torch.relu(x).sum()

    found = measure_cost(f, ns.capture(f, x), x, (), rounds=2)
    assert found.find("ns.directional") is None and found.find("ns.subgradient") is not None
    assert any(text.startswith("ns.directional (directional: the one-sided") for text in found.missing)
    assert "Not run: ns.directional" in str(found)

    def fails() -> Run:
        raise NoDerivative("first line\nsecond")

    missing: list[str] = []
    assert try_side("a side", fails, missing) is None and missing == ["a side (first line)"]


def test_peaks_of_memory_are_those_of_the_storages() -> None:
    """x is 4,000 bytes: forward keeps one result at a time, backward needs the value of exp and its cotangent."""
    x = torch.ones(1000)
    watch = TorchStopwatch(lambda x: torch.exp(x).reshape(10, 100).sum(), x, ())
    value, gradient = watch.memory(watch.evaluation()), watch.memory(watch.gradient())
    assert value == 4004  # the view shares the memory of exp
    assert gradient is not None and 8000 <= gradient <= 12100
    assert watch.memory(Run(lambda: x.view(10, 100).t())) == 0  # memory from outside is not counted


def test_a_gpu_is_timed_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: torch.cuda is replaced by a clock in milliseconds and an allocator that counts."""
    log: list[str] = []

    class FakeEvent:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("record")

        def elapsed_time(self, end: FakeEvent) -> float:
            assert isinstance(end, FakeEvent)
            return 250.0

    class Fake:
        Event = FakeEvent
        peak = 700

        @staticmethod
        def synchronize(device: Any = None) -> None:
            log.append("synchronize")

        @staticmethod
        def memory_allocated(device: Any) -> int:
            return 500

        @staticmethod
        def reset_peak_memory_stats(device: Any) -> None:
            log.append("reset")

        max_memory_allocated = staticmethod(lambda device: Fake.peak)
        device = staticmethod(lambda device: torch.no_grad())

    watch = TorchStopwatch(torch.sum, torch.ones(2), ())
    watch._events = True
    monkeypatch.setattr(timing.torch, "cuda", Fake)
    assert watch.seconds(Run(lambda: log.append("run"))) == 0.25
    assert log == ["synchronize", "record", "run", "record", "synchronize"]
    log.clear()
    assert watch.memory(Run(lambda: log.append("run"))) == 200
    assert log == ["synchronize", "reset", "run", "synchronize"]


def test_the_gradient_of_torch_is_torchs_own() -> None:
    """Inside of `at_kinks` too: what is measured is the framework as it is."""
    x = torch.zeros(3)
    program = ns.capture(lambda x: torch.relu(x).sum(), x)
    with ns.at_kinks(1.0), measuring(program.framework, program.function, program, x, ()) as watch:
        assert watch.gradient().call()[1][0].tolist() == [0.0] * 3
        value, tangents = watch.forward([torch.ones(3), torch.eye(3)[0]]).call()
        assert value.tolist() == [0.0, 0.0] and tangents.tolist() == [0.0, 0.0]


def test_the_sides_of_jax() -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def f(x: Any, w: Any, label: str) -> Any:
        return jnp.sum(jax.nn.relu(w @ x["a"])) if label == "sum" else 0.0

    x, data = {"a": jnp.arange(-2.0, 3.0)}, (jnp.ones((3, 5)), "sum")
    found = measure_cost(f, ns.capture(f, x, *data), x, data, rounds=2)
    assert [row.what for row in found.rows] == [
        "evaluation", "gradient by jax", "ns.value_and_grad, compiled", "ns.value_and_backprop", "ns.subgradient",
        "ns.directional", "1 tangent by jax", "4 tangents by jax",
    ]  # fmt: skip
    compiled = [row.compile_seconds is not None for row in found.rows]
    assert compiled == [True, True, True, False, False, False, True, True] and not found.missing
    assert all((row.memory is not None) == known for row, known in zip(found.rows, compiled, strict=True))
    assert found.threads >= 1 and found.clock == "wall time"
