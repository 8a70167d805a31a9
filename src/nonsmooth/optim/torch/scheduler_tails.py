"""What the schedulers of torch do in the end, by their formulas; the others are run on a copy.

Only the exact classes of torch are read: a subclass may compute something else, and is run. A scheduler is read from
where it stands: what it did before is past.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as lr
from torch.optim import swa_utils

from nonsmooth.errors import UsageError
from nonsmooth.optim.conditions import Evidence, Reading, finite_steps, first_steps
from nonsmooth.optim.schedules import Schedule, exact_tail
from nonsmooth.optim.tail import PERIOD, Ended, Geometric, Recurrent, Regular, Tail, Unknown
from nonsmooth.optim.torch.schedules import ScheduleLR
from nonsmooth.optim.trend import SHORT, Trend

__all__ = ["read_scheduler"]

POSITIVE = Regular(0.0)
"""A positive limit."""


def read_scheduler(scheduler: Any, samples: int) -> Reading:
    """Read a scheduler of torch: its tails by formula, or its next steps, run on a copy.

    Raises:
        UsageError: it is an optimiser, a scheduler that cannot be copied or run, or one that does not know all groups.
    """
    if isinstance(scheduler, torch.optim.Optimizer):
        raise UsageError("schedule= is an optimiser: pass its scheduler, or a callable k -> a_k.")
    if not hasattr(scheduler, "optimizer"):
        raise UsageError(
            f"schedule={type(scheduler).__name__}: it is no scheduler of torch that is bound to an optimiser."
        )
    groups = len(scheduler.optimizer.param_groups)
    _check_groups(scheduler, groups)
    found = [_evidence(scheduler, i, samples) for i in range(groups)]
    if any(e is None for e in found):
        run = _run(scheduler, max(SHORT, samples // 10))
        found = [Trend(finite_steps(np.array(run[0])[:, i]), run[1]) for i in range(groups)]
    return Reading(_name(scheduler), tuple(e for e in found if e is not None))


def _check_groups(scheduler: Any, groups: int) -> None:
    """Refuse a scheduler whose optimiser was given more groups after it was made, where it keeps numbers for each."""
    known = len(getattr(scheduler, "base_lrs", range(groups)))
    if type(scheduler) not in FACTORS and known != groups:
        raise UsageError(
            f"schedule={type(scheduler).__name__}: it was made for {known} groups of parameters, and its optimiser has {groups} by "
            "now; make the scheduler after the last add_param_group."
        )
    for inner in getattr(scheduler, "_schedulers", ()):
        _check_groups(inner, groups)


def _evidence(scheduler: Any, group: int, samples: int) -> Evidence | None:
    """Give what is known of the steps of a group, or None if the scheduler must be run."""
    absolute = _absolute(scheduler)
    if absolute is not None:
        return first_steps(absolute[group], samples, float(scheduler.base_lrs[group]))
    return _tail(scheduler, group, float(scheduler.optimizer.param_groups[group]["lr"]))


def _absolute(scheduler: Any) -> list[Any] | None:
    """Give the functions k -> a_k, one for each group, by which a scheduler multiplies the first rates."""
    if type(scheduler) is ScheduleLR:
        return scheduler.schedules
    return scheduler.lr_lambdas if type(scheduler) is lr.LambdaLR else None


def _tail(scheduler: Any, group: int, now: float) -> Tail | None:
    """Give the tail of a group whose rate is `now`, by the formula of its scheduler."""
    factor = FACTORS.get(type(scheduler))
    if factor is not None:
        tail = factor(scheduler)
        return None if tail is None else tail.times(_value(now))
    whole = WHOLE.get(type(scheduler))
    return None if whole is None else whole(scheduler, group, now)


def _value(rate: float) -> Tail:
    """Give the tail of a constant."""
    return POSITIVE if rate > 0 else Ended("the rate is 0") if rate == 0 else Unknown(f"the rate is {rate:g}")


def _exponential(scheduler: Any) -> Tail | None:
    """gamma^k."""
    return _powers(scheduler.gamma, 1)


def _step(scheduler: Any) -> Tail | None:
    """gamma^floor(k/step_size)."""
    return _powers(scheduler.gamma, scheduler.step_size)


def _powers(gamma: float, every: int) -> Tail | None:
    """Give the tail of the powers of a factor."""
    if gamma == 0:
        return Ended("multiplied by 0")
    return POSITIVE if gamma == 1 else Geometric(float(gamma), every) if gamma > 0 and every > 0 else None


def _multi_step(scheduler: Any) -> Tail | None:
    """A factor at finitely many milestones."""
    ahead = any(m > scheduler.last_epoch for m in scheduler.milestones)
    return POSITIVE if scheduler.gamma > 0 or not ahead else _powers(scheduler.gamma, 1)


def _constant(scheduler: Any) -> Tail | None:
    """A factor that is taken back after finitely many steps."""
    return POSITIVE if scheduler.factor > 0 else None


def _linear(scheduler: Any) -> Tail | None:
    """A ramp to end_factor, where it stays."""
    if scheduler.last_epoch >= scheduler.total_iters or scheduler.end_factor > 0:
        return POSITIVE
    return Ended(f"a_k = 0 after {scheduler.total_iters} steps")


def _polynomial(scheduler: Any) -> Tail | None:
    """(1 - k/total_iters)^power, and 0 for ever."""
    if scheduler.last_epoch >= scheduler.total_iters or scheduler.power == 0:
        return POSITIVE
    return Ended(f"a_k = 0 after {scheduler.total_iters} steps") if scheduler.power > 0 else None


FACTORS: dict[type, Callable[[Any], Tail | None]] = {
    lr.ExponentialLR: _exponential,
    lr.StepLR: _step,
    lr.MultiStepLR: _multi_step,
    lr.ConstantLR: _constant,
    lr.LinearLR: _linear,
    lr.PolynomialLR: _polynomial,
}
"""The schedulers that multiply the rate, and the tail of the product of their factors from now on."""


def _cosine(scheduler: Any, group: int, now: float) -> Tail | None:
    """Between the first rate and eta_min, for ever: torch's cosine climbs again after T_max steps."""
    high, low, half = float(scheduler.base_lrs[group]), float(scheduler.eta_min), scheduler.T_max
    if half != int(half) or half < 1:
        return None
    why = f"after {half} steps at {low:g} it climbs back to {high:g}, and so on"
    return _waves(high, low, _cosines(2 * int(half), int(half)), why)


def _cosines(period: int, half: int) -> list[float]:
    """Give cos(pi k/half) over a period; none where that is too long to be compared with an epoch."""
    return [math.cos(math.pi * k / half) for k in range(period)] if period <= PERIOD else []


def _restarts(scheduler: Any, group: int, now: float) -> Tail:
    """A cosine that restarts at the first rate, for ever."""
    high, low = float(scheduler.base_lrs[group]), float(scheduler.eta_min)
    first, longer = scheduler.T_0, scheduler.T_mult > 1
    if first == 1 and not longer:
        return _value(high)
    waves = [] if longer else _cosines(first, first)
    return _waves(high, low, waves, f"it restarts at {high:g} again and again")


def _waves(high: float, low: float, cosines: list[float], why: str) -> Tail:
    """Give low + (high - low) (1 + cos)/2, repeated."""
    if high == low:
        return _value(high)
    values = tuple(low + (high - low) * (1 + c) / 2 for c in cosines)
    return Recurrent(why, values, positive=min(high, low) >= 0)


def _cyclic(scheduler: Any, group: int, now: float) -> Tail | None:
    """Triangles between two rates."""
    low, high = float(scheduler.base_lrs[group]), float(scheduler.max_lrs[group])
    if getattr(scheduler, "_scale_fn_custom", None) is not None or low < 0 or high < 0 or 1 % scheduler.total_size == 0:
        return None
    if high == low:
        return _value(low)
    if scheduler.mode == "triangular" or (scheduler.mode == "exp_range" and scheduler.gamma == 1):
        return Recurrent(f"it cycles between {low:g} and {high:g}")
    shrinking = scheduler.mode == "triangular2" or 0 <= scheduler.gamma < 1
    return POSITIVE if shrinking and low > 0 else None


def _one_cycle(scheduler: Any, group: int, now: float) -> Tail:
    """A cycle that ends."""
    return Ended(f"torch ends it after {scheduler.total_steps} steps")


def _average(scheduler: Any, group: int, now: float) -> Tail:
    """An approach to swa_lr, where it stays."""
    return _value(float(scheduler.optimizer.param_groups[group]["swa_lr"]))


def _plateau(scheduler: Any, group: int, now: float) -> Tail:
    """A factor at every plateau, down to min_lr; a change of at most eps is left out."""
    floors, groups = scheduler.min_lrs, len(scheduler.optimizer.param_groups)
    if len(floors) != groups and scheduler.default_min_lr is None:
        raise UsageError(
            f"schedule=ReduceLROnPlateau: its min_lr is for {len(floors)} groups of parameters, and its optimiser has {groups}."
        )
    least = float(floors[group] if len(floors) == groups else scheduler.default_min_lr)
    factor, eps = float(scheduler.factor), float(scheduler.eps)
    floor = max(min(least, now), min(factor * eps / (1 - factor), now) if factor > 0 else 0.0)
    if now == 0:
        return Ended("the rate is 0")
    if floor > 0:
        return Recurrent(f"whatever the metric, it never falls below {floor:.3g} (min_lr, eps)")
    return Unknown("it depends on the metric: every plateau multiplies the rate")


def _sequence(scheduler: Any, group: int, now: float) -> Tail | None:
    """What the last scheduler does, from its milestone on."""
    last, start = scheduler._schedulers[-1], scheduler._milestones[-1] if scheduler._milestones else 0
    if not hasattr(last, "base_lrs") or getattr(last, "total_iters", 1) < 1:  # torch divides by total_iters there
        return None
    absolute = _absolute(last)
    if absolute is not None:
        exact = exact_tail(absolute[group])
        return None if exact is None else exact.times(_value(float(last.base_lrs[group])))
    tail = _tail(last, group, now if scheduler.last_epoch >= start else float(last.base_lrs[group]))
    if isinstance(tail, Geometric):
        return replace(tail, offset=-start)
    return replace(tail, values=()) if isinstance(tail, Recurrent) and start % max(1, len(tail.values)) else tail


def _chain(scheduler: Any, group: int, now: float) -> Tail | None:
    """A product, if all of them multiply the rate."""
    product = _value(now)
    for one in scheduler._schedulers:
        factor = FACTORS.get(type(one), lambda _: None)(one)
        if factor is None:
            return None
        product = product.times(factor)
    return None if isinstance(product, Unknown) else product


WHOLE: dict[type, Callable[[Any, int, float], Tail | None]] = {
    lr.CosineAnnealingLR: _cosine,
    lr.CosineAnnealingWarmRestarts: _restarts,
    lr.CyclicLR: _cyclic,
    lr.OneCycleLR: _one_cycle,
    lr.ReduceLROnPlateau: _plateau,
    lr.SequentialLR: _sequence,
    lr.ChainedScheduler: _chain,
    swa_utils.SWALR: _average,
}
"""The schedulers that set the rate, and their tails."""


def _run(scheduler: Any, samples: int) -> tuple[list[list[float]], str]:
    """Run a copy of a scheduler, on an optimiser of its own; give the rates of its groups, and why they end."""
    groups = [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        | {"lr": float(group["lr"]), "params": [torch.nn.Parameter(torch.zeros(()))]}
        for group in scheduler.optimizer.param_groups
    ]
    rates: list[list[float]] = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            stand_in = torch.optim.SGD(groups, lr=1.0)
            copied = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
        except Exception as error:
            raise UsageError(
                f"schedule={type(scheduler).__name__}: it is known by no formula, and no copy of it can be run "
                f"({type(error).__name__}: {error}); pass a callable k -> a_k."
            ) from error
        for k in range(samples):
            rates.append([float(group["lr"]) for group in stand_in.param_groups])
            try:
                copied.step()
            except Exception as error:
                if k == 0:
                    raise UsageError(
                        f"schedule={type(scheduler).__name__}: a copy of it fails at its next step ({type(error).__name__}: "
                        f"{error}); pass a callable k -> a_k."
                    ) from error
                return rates, f"it ends: {type(error).__name__} after {k} steps"
    return rates, ""


def _function(steps: Any) -> str:
    """Print a function k -> a_k: its formula, or its name."""
    if isinstance(steps, Schedule):
        return str(steps)
    inner = getattr(steps, "func", steps)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _name(scheduler: Any) -> str:
    """Print a scheduler with its numbers."""
    known = [name for name in inspect.signature(type(scheduler)).parameters if name not in ("optimizer", "last_epoch")]
    shown = []
    for name in known:
        value = getattr(scheduler, name, None)
        value = sorted(value.elements()) if isinstance(value, Counter) else value
        if isinstance(value, float):
            shown.append(f"{name}={value:g}")
        elif isinstance(value, int | str | list):
            shown.append(f"{name}={value!r}")
    inner = [_name(s) for s in getattr(scheduler, "_schedulers", ())]
    functions = [*getattr(scheduler, "schedules", ()), *getattr(scheduler, "lr_lambdas", ())]
    given = list(dict.fromkeys(_function(f) for f in functions))
    return f"{type(scheduler).__name__}({', '.join([*shown, *inner, *given])})"
