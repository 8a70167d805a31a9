"""check_schedule: formulas against the known answers, samples against formulas, and nothing of the user's is touched."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as lr
from torch.optim.swa_utils import SWALR

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.optim.tail import Ended, Geometric, Recurrent, Regular, Unknown, same_rate
from nonsmooth.optim.torch.scheduler_tails import _run
from nonsmooth.optim.trend import Trend

o = ns.optim
check = o.check_schedule
SUM, LOG, ZERO, STEADY, RATE = "infinite sum", "below 1/log k", "vanishing", "steady epochs", "one rate"


def optimiser(groups: int = 1, rate: float = 0.1) -> torch.optim.SGD:
    given_groups = [{"params": [torch.ones(2, requires_grad=True)], "lr": rate} for _ in range(groups)]
    return torch.optim.SGD(given_groups, lr=rate, momentum=0.9)


# schedule: what fails for independent minibatches, and without replacement with 10 steps an epoch
OURS = [
    (o.PowerSchedule(0.1, 0.6), (), ()),
    (o.PowerSchedule(0.1, 1.0), (), ()),
    (o.PowerSchedule(0.1, 0.01), (), ()),
    (o.PowerSchedule(0.1, 1.001), (SUM,), (SUM,)),
    (o.PowerSchedule(0.1, 1.0, log_exponent=1.0), (), ()),
    (o.PowerSchedule(0.1, 1.0, log_exponent=1.001), (SUM,), (SUM,)),
    (o.PowerSchedule(0.1, 0.0), (LOG,), (ZERO,)),
    (o.LogarithmicSchedule(0.1, 1.0), (LOG,), ()),
    (o.LogarithmicSchedule(0.1, 1.001), (), ()),
    (o.LogarithmicSchedule(0.1, 0.0), (LOG,), (ZERO,)),
    (o.ConstantSchedule(0.1), (LOG,), (ZERO,)),
    (o.GeometricSchedule(0.1, 0.999), (SUM,), (SUM, STEADY)),
    (o.GeometricSchedule(0.1, 0.5, every=20), (SUM,), (SUM,)),
    (o.GeometricSchedule(0.1, 0.5, every=15), (SUM,), (SUM, STEADY)),
    (o.EpochSchedule(o.LogarithmicSchedule(0.1, 2), 10), (), ()),
    (o.EpochSchedule(o.GeometricSchedule(0.1, 0.5, every=2), 5), (SUM,), (SUM,)),
    (o.WarmupSchedule(o.PowerSchedule(0.1, 0.7), 100), (), ()),
    (o.WarmupSchedule(o.ConstantSchedule(0.1), 100), (LOG,), (ZERO,)),
]


@pytest.mark.parametrize(("schedule", "independent", "epochs"), OURS, ids=lambda v: str(v))
def test_our_schedules(schedule: Any, independent: tuple[str, ...], epochs: tuple[str, ...]) -> None:
    one, two = check(schedule), check(schedule, "without replacement", steps_per_epoch=10)
    assert (one.failed, two.failed) == (independent, epochs)
    assert one.holds is (not independent) and two.holds is (not epochs) and bool(one) is one.holds
    assert {c.status for c in (*one.conditions, *two.conditions)} == {"proved"} and one.status == "proved"


SCHEDULERS = {
    "constant": (lambda p: lr.ConstantLR(p), (LOG,), (ZERO,)),
    "linear": (lambda p: lr.LinearLR(p, total_iters=7), (LOG,), (ZERO,)),
    "linear to 0": (lambda p: lr.LinearLR(p, 1.0, 0.0, total_iters=50), (SUM,), (SUM,)),
    "step": (lambda p: lr.StepLR(p, 30), (SUM,), (SUM,)),
    "step within epochs": (lambda p: lr.StepLR(p, 25, 0.5), (SUM,), (SUM, STEADY)),
    "step by 1": (lambda p: lr.StepLR(p, 30, 1.0), (LOG,), (ZERO,)),
    "milestones": (lambda p: lr.MultiStepLR(p, [30, 80], 0.1), (LOG,), (ZERO,)),
    "exponential": (lambda p: lr.ExponentialLR(p, 0.99), (SUM,), (SUM, STEADY)),
    "growing": (lambda p: lr.ExponentialLR(p, 1.0001), (LOG,), (ZERO, STEADY)),
    "cosine": (lambda p: lr.CosineAnnealingLR(p, 50), (LOG,), (ZERO, STEADY)),
    "cosine above 0": (lambda p: lr.CosineAnnealingLR(p, 50, 0.01), (LOG,), (ZERO, STEADY)),
    "flat cosine": (lambda p: lr.CosineAnnealingLR(p, 50, 0.1), (LOG,), (ZERO,)),
    "restarts": (lambda p: lr.CosineAnnealingWarmRestarts(p, 20), (LOG,), (ZERO, STEADY)),
    "longer restarts": (lambda p: lr.CosineAnnealingWarmRestarts(p, 20, 2), (LOG,), (ZERO,)),
    "one cycle": (lambda p: lr.OneCycleLR(p, 0.1, 100), (SUM,), (SUM,)),
    "polynomial": (lambda p: lr.PolynomialLR(p, 100, 2.0), (SUM,), (SUM,)),
    "cyclic": (lambda p: lr.CyclicLR(p, 0.01, 0.1, 20), (LOG,), (ZERO,)),
    "shrinking cycles": (lambda p: lr.CyclicLR(p, 0.01, 0.1, 20, mode="triangular2"), (LOG,), (ZERO,)),
    "plateau": (lambda p: lr.ReduceLROnPlateau(p), (LOG,), (ZERO,)),
    "plateau to a floor": (lambda p: lr.ReduceLROnPlateau(p, min_lr=1e-3, eps=0), (LOG,), (ZERO,)),
    "average": (lambda p: SWALR(p, 0.05), (LOG,), (ZERO,)),
    "lambda with a schedule": (lambda p: lr.LambdaLR(p, o.PowerSchedule(1.0, 0.5)), (), ()),
    "ours": (lambda p: o.ScheduleLR(p, o.LogarithmicSchedule(1.0, 1.0)), (LOG,), ()),
    "sequence": (lambda p: lr.SequentialLR(p, [lr.LinearLR(p), lr.CosineAnnealingLR(p, 50)], [5]), (LOG,), (ZERO,)),
    "lawful sequence": (
        lambda p: lr.SequentialLR(p, [lr.LinearLR(p), o.ScheduleLR(p, o.PowerSchedule(1.0, 1.0))], [5]), (), ()
    ),
    "step off its epochs": (lambda p: lr.SequentialLR(p, [lr.LinearLR(p), lr.StepLR(p, 10)], [5]), (SUM,), (SUM, STEADY)),
    "step on its epochs": (lambda p: lr.SequentialLR(p, [lr.LinearLR(p), lr.StepLR(p, 10)], [20]), (SUM,), (SUM,)),
    "chain": (lambda p: lr.ChainedScheduler([lr.LinearLR(p), lr.ExponentialLR(p, 0.9)]), (SUM,), (SUM, STEADY)),
    "chain of limits": (lambda p: lr.ChainedScheduler([lr.LinearLR(p), lr.MultiStepLR(p, [9])]), (LOG,), (ZERO,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_torch(name: str) -> None:
    make, independent, epochs = SCHEDULERS[name]
    scheduler = make(optimiser())
    one, two = check(scheduler), check(scheduler, "without replacement", steps_per_epoch=10)
    assert (one.failed, two.failed) == (independent, epochs)
    assert {c.status for c in (*one.conditions, *two.conditions)} <= {"proved", "undecided"}
    assert one.undecided == () and one.schedule.startswith(type(scheduler).__name__)


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if not n.startswith("plateau")])
@pytest.mark.parametrize("started", [0, 37])
def test_samples_never_contradict_the_formula(name: str, started: int) -> None:
    scheduler = SCHEDULERS[name][0](optimiser())
    for _ in range(started):
        scheduler.optimizer.step()
        scheduler.step()
    exact = {c.name: c.holds for s in ("independent", "without replacement")
             for c in check(scheduler, s, steps_per_epoch=10).conditions}  # fmt: skip
    rates, end = _run(scheduler, 20_000)
    # epochs begin where the scheduler did
    trend = Trend(np.array(rates)[-started % 10 :, 0], end)
    if name in ("growing", "ours"):
        return  # 1.0001^k and 1/log k show what they are later than that
    sampled = {
        SUM: trend.infinite_sum(),
        LOG: trend.below_logarithm(),
        ZERO: trend.vanishing(),
        STEADY: trend.steady(10),
    }
    if rates[-1][0] < 1e-300:
        del sampled[STEADY]  # it has underflowed
    assert {n: a for n, a in sampled.items() if a[0] is not None and exact[n] not in (None, a[0])} == {}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_nothing_of_the_user_s_is_touched(name: str) -> None:
    held = optimiser()
    scheduler = SCHEDULERS[name][0](held)
    unread = lr.MultiplicativeLR(held, lambda k: 0.99)
    state = copy.deepcopy(held.state_dict()), copy.deepcopy(scheduler.state_dict()), dict(held.__dict__)
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check(scheduler)
    check(unread, samples=640)
    assert (held.state_dict(), dict(held.__dict__)) == (state[0], state[2])
    assert str(scheduler.state_dict()) == str(state[1]) and unread.last_epoch == 0
    assert torch.equal(generators[0], torch.get_rng_state()) and generators[1] == random.getstate()
    assert generators[2] == np.random.get_state()[1].tolist()


def test_a_subclass_is_run_and_not_read() -> None:
    class Lawful(lr.ExponentialLR):
        def get_lr(self) -> list[Any]:
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    found = check(Lawful(optimiser(), 0.5), samples=100_000)
    assert found.holds is True and found.status == "sampled"


def test_a_plateau_without_floor_is_undecided() -> None:
    found = check(lr.ReduceLROnPlateau(optimiser(), eps=0))
    assert found.holds is None and not found and found.status == "undecided" and SUM in found.undecided


def test_groups_of_parameters() -> None:
    steps = [o.PowerSchedule(1.0, 0.6), o.PowerSchedule(3.0, 0.6, delay=9)]
    assert check(o.ScheduleLR(optimiser(2), steps)).holds is True
    apart = check(o.ScheduleLR(optimiser(2), [steps[0], o.PowerSchedule(1.0, 0.9)]))
    assert apart.failed == (RATE,)
    stops = check(o.ScheduleLR(optimiser(2), [steps[0], o.GeometricSchedule()]))
    assert stops.failed == (SUM, RATE) and "group 1" in stops.conditions[1].why
    frozen = o.ScheduleLR(optimiser(2, 0.0), steps)
    assert check(frozen).failed == (SUM,)
    sampled = check(lr.LambdaLR(optimiser(2), [lambda k: 1 / (1 + k), lambda k: 2 / (1 + k)]), samples=10_000)
    assert sampled.holds is True and sampled.status == "sampled"
    other = check(lr.LambdaLR(optimiser(2), [lambda k: 1 / (1 + k), lambda k: (1 + k) ** -0.5]), samples=10_000)
    assert other.failed == (RATE,)


# a_k: the answers on the sum, on 1/log k, on the limit
SAMPLED = {
    "1/k": (lambda k: 1 / (1 + k), True, True, True),
    "k^-.6": (lambda k: (1 + k) ** -0.6, True, True, True),
    "k^-.05": (lambda k: (1 + k) ** -0.05, True, True, True),
    "k^-.6, late": (lambda k: (1 + k / 10_000) ** -0.6, True, True, True),
    "1/log^2": (lambda k: np.log(k + 3) ** -2, True, True, True),
    "1/log": (lambda k: 1 / np.log(k + 3), True, False, True),
    "1/log^1.2": (lambda k: np.log(k + 3) ** -1.2, True, None, True),
    "1/log log": (lambda k: 1 / np.log(np.log(k + 16)), True, None, True),
    "constant": (lambda k: 0.1, True, False, False),
    "periodic": (lambda k: 1 + np.cos(k / 100), True, False, False),
    "if": (lambda k: 0.1 if k < 100 else 0.01, True, False, False),
    "k^-1.5": (lambda k: (1 + k) ** -1.5, False, True, True),
    "k^-1.1": (lambda k: (1 + k) ** -1.1, False, True, True),
    "1/(k log k)": (lambda k: 1 / ((k + 2) * np.log(k + 2)), None, True, True),
    "1/(k log^2 k)": (lambda k: 1 / ((k + 2) * np.log(k + 2) ** 2), None, True, True),
    "geometric": (lambda k: 0.999**k, False, True, True),
    "a horizon": (lambda k: np.maximum(0, 1 - k / 1000), False, True, True),
    "a list that ends": ([1 / (1 + k) for k in range(1000)].__getitem__, False, True, True),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_callables(name: str) -> None:
    steps, total, logarithm, limit = SAMPLED[name]
    one = {c.name: c for c in check(steps).conditions}
    two = {c.name: c for c in check(steps, "without replacement", steps_per_epoch=10).conditions}
    assert (one[SUM].holds, one[LOG].holds, two[ZERO].holds) == (total, logarithm, limit)
    assert {c.status for c in (*one.values(), *two.values())} == {"sampled"}


POWERS = (st.floats(0, 2), st.floats(0, 3), st.floats(1e-6, 1e3), st.floats(0.5, 50))


@settings(max_examples=15, deadline=None)
@given(*POWERS)
def test_samples_of_our_schedules_do_not_contradict_them(q: float, p: float, first: float, delay: float) -> None:
    check_samples(q, p, first, delay)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(*POWERS)
def test_samples_of_many_schedules_do_not_contradict_them(q: float, p: float, first: float, delay: float) -> None:
    check_samples(q, p, first, delay)


def check_samples(q: float, p: float, first: float, delay: float) -> None:
    schedule = o.PowerSchedule(first, q, p, delay)
    for sampling in ("independent", "without replacement"):
        exact = check(schedule, sampling, steps_per_epoch=7)
        sampled = check(lambda k: schedule.values(k, np), sampling, steps_per_epoch=7)
        for one, two in zip(exact.conditions, sampled.conditions, strict=True):
            near = abs(q - 1) < 0.06 if one.name == SUM else q < 0.04 and p < 1.6
            assert two.holds in (None, one.holds) or near, (one, two)


def test_functions_are_called_at_once_only_where_that_is_the_same() -> None:
    calls: list[Any] = []

    def steps(k: Any) -> Any:
        calls.append(k)
        return 1 / (1 + k) if isinstance(k, int) else np.ones(len(k))

    assert check(steps, samples=1000).conditions[1].holds is True
    assert [k for k in calls if isinstance(k, int)][-1000:] == list(range(1000))


def test_a_callable_object_is_copied() -> None:
    class Counter:
        calls = 0

        def __call__(self, k: int) -> float:
            self.calls += 1
            return 0.1 / (1 + self.calls)

    counter = Counter()
    check(counter, samples=1000)
    assert counter.calls == 0


def test_numbers() -> None:
    numbers = [1 / (1 + k) for k in range(4000)]
    for given_numbers in (numbers, tuple(numbers), np.array(numbers), torch.tensor(numbers)):
        found = check(given_numbers)
        assert found.failed == () and found.status != "proved" and "4,000 numbers" in found.schedule
    assert check(numbers[:20]).undecided == (SUM, LOG)
    assert check([0.1] * 100 + [-0.1] * 100).failed[0] == "nonnegative"


def test_schedules_of_optax() -> None:
    import optax

    assert check(optax.constant_schedule(0.1)).failed == (LOG,)
    assert check(optax.cosine_decay_schedule(0.1, 1000)).failed == (SUM,)
    assert check(optax.exponential_decay(0.1, 1000, 0.5)).failed == (SUM,)
    assert check(optax.warmup_exponential_decay_schedule(0.0, 0.1, 10, 1000, 0.5, end_value=0.01)).failed == (LOG,)
    lawful = check(o.optax_schedule(o.PowerSchedule(0.1, 0.6)))
    assert lawful.holds is True and lawful.status == "sampled"


def test_what_k_counts() -> None:
    scheduler = lr.ExponentialLR(optimiser(), 0.9)
    assert check(scheduler, "without replacement", counts="epochs").failed == (SUM,)
    assert check(scheduler, "without replacement", steps_per_epoch=5).failed == (SUM, STEADY)
    found = check(o.LogarithmicSchedule(), "without replacement", counts="epochs")
    assert found.holds and found.conditions[-1].name == STEADY


def test_the_answer_is_printed_and_written() -> None:
    found = check(o.PowerSchedule(0.1, 2))
    assert "a_k = 0.1 / (1 + k)^2: fails: infinite sum (proved)" in str(found) and "k^-q" in str(found)
    data = json.loads(found.to_json())
    assert data["format_version"] == 1 and data["holds"] is False
    assert [c["holds"] for c in data["conditions"]] == [True, False, True] and data["conditions"][1][
        "status"
    ] == "proved"
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        {"schedule": 0.1},
        {"schedule": "cosine"},
        {"schedule": []},
        {"schedule": [[0.1, 0.2]]},
        {"schedule": None},
        {"schedule": lambda k: 1 / k},
        {"schedule": lambda k: float("nan")},
        {"schedule": lambda k: [1, 2]},
        {"schedule": [1.0, float("inf")]},
        {"schedule": optimiser()},
        {"schedule": o.PowerSchedule(), "sampling": "with replacement"},
        {"schedule": o.PowerSchedule(), "counts": "batches"},
        {"schedule": o.PowerSchedule(), "sampling": "without replacement"},
        {"schedule": o.PowerSchedule(), "steps_per_epoch": 0},
        {"schedule": o.PowerSchedule(), "samples": 3},
    ],
    ids=lambda a: None if "0x" in str(a) else str(list(a.values()))[:40],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check(**arguments)


TAILS = [
    Regular(0.0), Regular(0.5), Regular(1.0, 1.0), Regular(0.0, 2.0), Geometric(0.5), Geometric(0.5, 10), Ended("over"),
    Recurrent("waves", (1.0, 2.0)), Unknown("why"),
]  # fmt: skip


@pytest.mark.parametrize("one", TAILS, ids=str)
@pytest.mark.parametrize("other", TAILS, ids=str)
def test_products_of_tails_agree_with_both_orders(one: Any, other: Any) -> None:
    forth, back = one.times(other), other.times(one)
    for ask in ("nonnegative", "infinite_sum", "below_logarithm", "vanishing"):
        answers = {getattr(forth, ask)()[0], getattr(back, ask)()[0]}
        assert len(answers - {None}) <= 1
    assert same_rate(one, other)[0] == same_rate(other, one)[0]


def test_products_of_rates() -> None:
    assert Regular(0.5).times(Regular(0.5, 1.0)) == Regular(1.0, 1.0)
    assert Regular(0.0).times(Geometric(0.5, 3)) == Geometric(0.5, 3)
    assert isinstance(Regular(1.0).times(Geometric(0.5)), Geometric | Unknown)
    assert Ended("over").times(Regular(0.0)).infinite_sum()[0] is False
    assert math.isnan(Trend(np.zeros(100))._fit(np.zeros(3), [1.0, 2.0, 3.0], 0.0)[0])


class StepsAlone(o.PowerSchedule):
    """A subclass that changes the steps, and inherits a tail that is not theirs."""

    def values(self, k: Any, xp: Any) -> Any:
        return self.first * 0.5**k


class CallAlone(o.PowerSchedule):
    def __call__(self, k: int) -> float:
        return 0.5**k


class StepsAndTail(StepsAlone):
    @property
    def tail(self) -> Any:
        return Geometric(0.5)


@pytest.mark.parametrize("inner", [StepsAlone(1.0, 0.6), CallAlone(1.0, 0.6)], ids=lambda s: type(s).__name__)
def test_a_subclass_of_ours_that_changes_the_steps_is_sampled(inner: Any) -> None:
    held = optimiser()
    parts = [lr.ConstantLR(held), o.ScheduleLR(held, inner)]
    schedules = [inner, lr.LambdaLR(optimiser(), inner), lr.SequentialLR(held, parts, [3])]
    if isinstance(inner, StepsAlone):
        schedules += [o.EpochSchedule(inner, 2), o.WarmupSchedule(inner, 3)]
    for schedule in schedules:
        answer = check(schedule)
        assert SUM in answer.failed and answer.status == "sampled"
    own = check(StepsAndTail(1.0, 0.6))
    assert own.failed == (SUM,) and own.status == "proved"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: lr.CosineAnnealingLR(p, 10),
        lambda p: lr.LambdaLR(p, lambda k: 1.0),
        lambda p: o.ScheduleLR(p, o.PowerSchedule()),
        lambda p: lr.CyclicLR(p, 0.1, 0.2),
        lambda p: lr.ReduceLROnPlateau(p, min_lr=[0.1]),
        lambda p: lr.SequentialLR(p, [lr.ConstantLR(p), lr.CosineAnnealingLR(p, 10)], [3]),
    ],
)
def test_groups_that_came_after_the_scheduler_are_named(make: Any) -> None:
    held = optimiser()
    scheduler = make(held)
    held.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1})
    with pytest.raises(UsageError, match="1 groups of parameters"):
        check(scheduler)


def test_groups_that_came_after_a_scheduler_which_needs_no_number_of_each() -> None:
    for make in (lambda p: lr.ExponentialLR(p, 0.9), lr.ReduceLROnPlateau):
        held = optimiser()
        scheduler: Any = make(held)
        held.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1})
        assert check(scheduler).status == "proved"


def test_rates_that_are_run_into_nan_are_refused() -> None:
    with pytest.raises(UsageError, match="a_k = nan at k = 1"):
        check(lr.ExponentialLR(optimiser(), math.nan))


def test_rates_that_stick_at_the_end_of_floating_point_are_zero() -> None:
    """0.6 times the smallest number above 0 is rounded to that number, for ever."""
    answer = check(lr.MultiplicativeLR(optimiser(), lambda k: 0.6))
    assert answer.failed == (SUM,)


@pytest.mark.parametrize(
    ("make", "rate"),
    [
        (lambda p: lr.CosineAnnealingWarmRestarts(p, 1, eta_min=0.1), 0.0),
        (lambda p: lr.CyclicLR(p, 0.0, 0.1, 0.5, 0.5, cycle_momentum=False), 0.1),
        (lambda p: lr.CosineAnnealingLR(p, 0.5, eta_min=0.1), 0.0),
    ],
)
def test_waves_that_are_met_at_their_feet_alone(make: Any, rate: float) -> None:
    assert check(make(optimiser(rate=rate))).failed == (SUM,)


def test_waves_of_a_hundred_million_steps_are_not_laid_out() -> None:
    for make in (lr.CosineAnnealingLR, lr.CosineAnnealingWarmRestarts):
        answer = check(make(optimiser(), 10**12), "without replacement", steps_per_epoch=10)
        assert answer.failed == (ZERO,) and answer.undecided == (STEADY,)


def test_torch_divides_by_the_length_of_a_ramp_that_stands_last() -> None:
    held = optimiser()
    scheduler = lr.SequentialLR(held, [lr.ConstantLR(held), lr.LinearLR(held, 0.1, 0.5, total_iters=0)], [4])
    assert check(scheduler).failed == (SUM,)


def test_functions_of_jax_that_take_one_count_at_a_time() -> None:
    """Two that took minutes one by one, and one that is complex for a negative integer which is none of an array."""
    import optax

    assert check(optax.cosine_onecycle_schedule(1000, 0.1)).failed == (LOG,)
    assert check(optax.linear_onecycle_schedule(1000, 0.1)).failed == (LOG,)
    joined = optax.join_schedules([optax.constant_schedule(0.1), lambda k: 0.1 / (1 + k) ** 0.6], [10])
    assert check(joined).holds is True
