"""Step sizes: their formulas, their tails against sums, the scheduler of torch and the schedule of optax."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.optim.schedules import Schedule, schedule_from_plain

o = ns.optim

ALL: list[Schedule] = [
    o.PowerSchedule(0.3, 0.6),
    o.PowerSchedule(0.3, 1, delay=50),
    o.PowerSchedule(2.0, 1.0, log_exponent=1.0, delay=3),
    o.LogarithmicSchedule(0.5, 2, delay=7),
    o.ConstantSchedule(0.2),
    o.GeometricSchedule(1.0, 0.9, every=3),
    o.EpochSchedule(o.PowerSchedule(0.3, 0.5), 4),
    o.WarmupSchedule(o.PowerSchedule(0.3, 0.5), 5, start=0.1),
    o.WarmupSchedule(o.EpochSchedule(o.LogarithmicSchedule(), 3), 4),
]


def optimiser(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": r} for r in rates], lr=1.0)


def rates(scheduler: Any, count: int) -> list[list[float]]:
    found = []
    for _ in range(count):
        found.append([float(g["lr"]) for g in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (o.PowerSchedule(0.3, 0.6), lambda k: 0.3 / (1 + k) ** 0.6),
        (o.PowerSchedule(0.3, 0.6, delay=20), lambda k: 0.3 / (1 + k / 20) ** 0.6),
        (o.PowerSchedule(0.3, 1, 2), lambda k: 0.3 / ((1 + k) * math.log(math.e + k) ** 2)),
        (o.LogarithmicSchedule(0.3, 2), lambda k: 0.3 / math.log(math.e + k) ** 2),
        (o.ConstantSchedule(0.3), lambda k: 0.3),
        (o.GeometricSchedule(0.3, 0.5, every=4), lambda k: 0.3 * 0.5 ** (k // 4)),
        (o.EpochSchedule(o.PowerSchedule(0.3, 0.5), 7), lambda k: 0.3 / (1 + k // 7) ** 0.5),
        (o.WarmupSchedule(o.ConstantSchedule(0.3), 10), lambda k: 0.3 * min(1, (k + 1) / 10)),
        (o.WarmupSchedule(o.ConstantSchedule(0.3), 10, 0.5), lambda k: 0.3 * min(1, 0.5 + 0.05 * (k + 1))),
    ],
    ids=lambda v: None if callable(v) and not hasattr(v, "first") else str(v),
)
def test_formulas(schedule: Schedule, formula: Any) -> None:
    assert [schedule(k) for k in range(60)] == pytest.approx([formula(k) for k in range(60)], rel=1e-13)
    assert schedule(np.int64(3)) == schedule(3) and isinstance(schedule(3), float)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_is_plain_data(schedule: Schedule) -> None:
    assert schedule_from_plain(schedule.plain()) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert isinstance(str(schedule), str) and "a_k" in str(schedule)


@pytest.mark.parametrize(
    "make",
    [
        lambda: o.PowerSchedule(0.0),
        lambda: o.PowerSchedule(0.1, -0.5),
        lambda: o.PowerSchedule(0.1, 0.5, delay=0),
        lambda: o.PowerSchedule(float("nan")),
        lambda: o.PowerSchedule(True),
        lambda: o.LogarithmicSchedule(0.1, float("inf")),
        lambda: o.ConstantSchedule(-1),
        lambda: o.ConstantSchedule("0.1"),
        lambda: o.GeometricSchedule(0.1, 1.0),
        lambda: o.GeometricSchedule(0.1, 0.5, every=0),
        lambda: o.EpochSchedule(lambda k: 0.1, 3),
        lambda: o.EpochSchedule(o.PowerSchedule(), 0),
        lambda: o.EpochSchedule(o.PowerSchedule(), 2.5),
        lambda: o.WarmupSchedule(o.PowerSchedule(), 5, start=1.5),
        lambda: o.PowerSchedule()(-1),
        lambda: o.PowerSchedule()(1.5),
        lambda: schedule_from_plain({"kind": "Schedule"}),
        lambda: schedule_from_plain({"kind": "PowerSchedule", "speed": 3}),
        lambda: o.optax_schedule(lambda k: 0.1),
        lambda: o.ScheduleLR(optimiser(0.1), 0.1),
        lambda: o.ScheduleLR(optimiser(0.1), [o.PowerSchedule(), o.PowerSchedule()]),
    ],
)
def test_what_means_nothing_is_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_scheduler_of_torch(schedule: Schedule) -> None:
    found = rates(o.ScheduleLR(optimiser(0.5, 2.0), schedule), 20)
    assert found == pytest.approx(np.outer([schedule(k) for k in range(20)], [0.5, 2.0]), rel=1e-13)


def test_a_schedule_for_each_group_and_any_callable() -> None:
    scheduler = o.ScheduleLR(optimiser(1.0, 1.0), [o.PowerSchedule(1, 1), lambda k: 0.5**k])
    assert rates(scheduler, 3) == [[1, 1], [0.5, 0.5], [pytest.approx(1 / 3), 0.25]]


def test_tensor_rates() -> None:
    rate = torch.tensor(0.5)
    held = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = o.ScheduleLR(held, o.PowerSchedule(1.0, 1.0))
    assert [r for (r,) in rates(scheduler, 3)] == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert held.param_groups[0]["lr"] is rate


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_resumption_is_exact(schedule: Schedule) -> None:
    whole = rates(o.ScheduleLR(optimiser(0.1), schedule), 25)
    first = o.ScheduleLR(optimiser(0.1), schedule)
    head = rates(first, 11)
    stored = io.BytesIO()
    torch.save({"scheduler": first.state_dict(), "optimiser": first.optimizer.state_dict()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    second = o.ScheduleLR(optimiser(9.0), o.ConstantSchedule(7.0))
    second.optimizer.load_state_dict(state["optimiser"])
    second.load_state_dict(state["scheduler"])
    assert head + rates(second, 14) == whole
    assert second.schedules == [schedule]


def test_a_state_of_something_else_is_refused() -> None:
    scheduler = o.ScheduleLR(optimiser(0.1), o.PowerSchedule())
    other = torch.optim.lr_scheduler.ExponentialLR(optimiser(0.1), 0.9)
    two = o.ScheduleLR(optimiser(0.1, 0.1), o.PowerSchedule())
    for state in (other.state_dict(), two.state_dict()):
        before = dict(scheduler.__dict__)
        with pytest.raises(UsageError, match="groups of parameters"):
            scheduler.load_state_dict(state)
        assert scheduler.__dict__ == before


def test_a_state_is_a_copy() -> None:
    scheduler = o.ScheduleLR(optimiser(0.1), o.PowerSchedule())
    state = scheduler.state_dict()
    state["base_lrs"][0] = 5.0
    assert scheduler.base_lrs == [0.1]


def test_behind_a_warm_up_of_torch() -> None:
    held = optimiser(1.0)
    ramp = torch.optim.lr_scheduler.LinearLR(held, start_factor=0.25, total_iters=3)
    steps = o.ScheduleLR(held, o.PowerSchedule(1.0, 1.0))
    scheduler = torch.optim.lr_scheduler.SequentialLR(held, [ramp, steps], [3])
    assert [r for (r,) in rates(scheduler, 6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5, 1 / 3])
    assert o.check_schedule(scheduler).status == "proved"


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_schedule_of_optax(schedule: Schedule) -> None:
    import jax

    steps = o.optax_schedule(schedule)
    one = [float(steps(k)) for k in range(15)]
    traced = [float(jax.jit(steps)(k)) for k in range(15)]
    expected = [schedule(k) for k in range(15)]
    assert one == pytest.approx(expected, rel=1e-5) and traced == pytest.approx(expected, rel=1e-5)


def test_optax_trains_with_it() -> None:
    import jax.numpy as jnp
    import optax

    optimiser_of_optax = optax.sgd(o.optax_schedule(o.PowerSchedule(0.5, 1.0)))
    x, state = jnp.array(1.0), optimiser_of_optax.init(jnp.array(1.0))
    for _ in range(3):
        step, state = optimiser_of_optax.update(jnp.array(1.0), state)
        x = optax.apply_updates(x, step)
    assert float(x) == pytest.approx(1 - 0.5 * (1 + 1 / 2 + 1 / 3), rel=1e-6)
