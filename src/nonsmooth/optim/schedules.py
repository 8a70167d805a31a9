"""Step sizes k -> a_k whose conditions are known exactly.

    theta_(k+1) in theta_k - a_k D_(I_k)(theta_k)

converges to critical points, almost surely where it stays bounded, if sum a_k = inf and a_k = o(1/log k), the I_k drawn
independently; and, without any probability, if the I_k run through the data epoch by epoch, the steps of an epoch are
nearly equal, a_k -> 0 and sum a_k = inf. `check_schedule` says which condition fails.

Over 300 lines: six kinds of steps, each with its statement and its example, and few lines of code.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.optim.tail import Geometric, Regular, Tail

__all__ = [
    "ConstantSchedule",
    "EpochSchedule",
    "GeometricSchedule",
    "LogarithmicSchedule",
    "PowerSchedule",
    "Schedule",
    "WarmupSchedule",
    "exact_tail",
    "schedule_from_plain",
]


class Schedule(ABC):
    """A sequence of step sizes, given by a formula: call it with k = 0, 1, .. to get a_k.

    It is a plain callable: `torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)` takes it, and so does whatever asks
    for k -> a_k. `ns.optim.ScheduleLR` is the scheduler of torch, `ns.optim.optax_schedule` the form for optax.
    """

    def __call__(self, k: int) -> float:
        """Give a_k.

        Raises:
            UsageError: k is no integer, or negative.
        """
        return float(self.values(_integer("k", k, 0), np))

    @abstractmethod
    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k, in the array library xp (numpy, jax.numpy)."""

    @property
    @abstractmethod
    def tail(self) -> Tail:
        """How a_k behaves as k grows."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """The formula of a_k."""

    def plain(self) -> dict[str, Any]:
        """Give the schedule as plain data, from which `schedule_from_plain` makes an equal one."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        shown = {name: value.plain() if isinstance(value, Schedule) else value for name, value in held.items()}
        return {"kind": type(self).__name__, **shown}

    def __str__(self) -> str:
        """Print the formula."""
        return f"a_k = {self.formula}"


@dataclass(frozen=True)
class PowerSchedule(Schedule):
    """Steps that decay like a power of k.

        a_k = a_0 / ((1 + k/delay)^exponent log(e + k/delay)^log_exponent)

    sum a_k = inf iff exponent < 1, or exponent = 1 and log_exponent <= 1; a_k = o(1/log k) iff exponent > 0, or
    exponent = 0 and log_exponent > 1. So every 0 < exponent <= 1 is lawful, for both ways of sampling. Status: `proved`,
    for the formula; in floating point 1 + k = k beyond 2^53 steps.

    Args:
        first: a_0, positive.
        exponent: 0 or more.
        log_exponent: 0 or more.
        delay: after how many steps the decay sets in, positive.

    Raises:
        UsageError: a parameter is out of its range.

    >>> from nonsmooth.optim import PowerSchedule
    >>> [round(PowerSchedule(0.1, 0.5)(k), 4) for k in (0, 3, 99)]
    [0.1, 0.05, 0.01]
    >>> print(PowerSchedule(0.1, 0.6, delay=500))
    a_k = 0.1 / (1 + k/500)^0.6

    Source: BoltePauwels2020; derived, docs/theory/step_sizes.md.
    """

    first: float = 1.0
    exponent: float = 0.6
    log_exponent: float = 0.0
    delay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sequence of steps."""
        _number("first", self.first, positive=True)
        _number("exponent", self.exponent)
        _number("log_exponent", self.log_exponent)
        _number("delay", self.delay, positive=True)

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        t = k / self.delay
        powers = (1 + t) ** (-self.exponent)
        return self.first * (powers * xp.log(math.e + t) ** (-self.log_exponent) if self.log_exponent else powers)

    @property
    def tail(self) -> Tail:
        """a_k ~ c k^-exponent (log k)^-log_exponent."""
        return Regular(float(self.exponent), float(self.log_exponent))

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        t = "k" if self.delay == 1 else f"k/{self.delay:g}"
        factors = [f"(1 + {t}){_power(self.exponent)}"] if self.exponent else []
        factors += [f"log(e + {t}){_power(self.log_exponent)}"] if self.log_exponent else []
        under = factors[0] if len(factors) == 1 else f"({' '.join(factors)})"
        return f"{self.first:g} / {under}" if factors else f"{self.first:g}"


@dataclass(frozen=True)
class LogarithmicSchedule(Schedule):
    """Steps that decay like a power of log k, as slowly as the theorem allows.

        a_k = a_0 / log(e + k/delay)^exponent

    sum a_k = inf always; a_k = o(1/log k) iff exponent > 1: at exponent 1 the steps are lawful only without replacement.
    Status: `proved`, for the formula.

    Args:
        first: a_0, positive.
        exponent: 0 or more.
        delay: after how many steps the decay sets in, positive.

    Raises:
        UsageError: a parameter is out of its range.

    >>> from nonsmooth.optim import LogarithmicSchedule
    >>> [round(LogarithmicSchedule(1.0, 2)(k), 4) for k in (0, 100, 10_000)]
    [1.0, 0.0466, 0.0118]

    Source: BoltePauwels2020; derived, docs/theory/step_sizes.md.
    """

    first: float = 1.0
    exponent: float = 2.0
    delay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sequence of steps."""
        _number("first", self.first, positive=True)
        _number("exponent", self.exponent)
        _number("delay", self.delay, positive=True)

    def _same(self) -> PowerSchedule:
        """Give the same steps as a case of the powers."""
        return PowerSchedule(self.first, 0.0, self.exponent, self.delay)

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        return self.first * xp.log(math.e + k / self.delay) ** (-self.exponent)

    @property
    def tail(self) -> Tail:
        """a_k ~ c (log k)^-exponent."""
        return self._same().tail

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        return self._same().formula


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """The same step for ever: no theorem of convergence, the iterates hover.

        a_k = a_0

    Args:
        first: a_0, positive.

    Raises:
        UsageError: it is not.

    >>> from nonsmooth.optim import ConstantSchedule, check_schedule
    >>> check_schedule(ConstantSchedule(0.1)).failed
    ('below 1/log k',)

    Source: BoltePauwels2020.
    """

    first: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no step."""
        _number("first", self.first, positive=True)

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        return self.first + 0 * k

    @property
    def tail(self) -> Tail:
        """A positive limit."""
        return Regular(0.0)

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        return f"{self.first:g}"


@dataclass(frozen=True)
class GeometricSchedule(Schedule):
    """Steps multiplied by a ratio below 1, again and again: their sum is finite, and the iterates may stop anywhere.

        a_k = a_0 ratio^floor(k/every),   sum a_k = a_0 every/(1 - ratio)

    Args:
        first: a_0, positive.
        ratio: between 0 and 1.
        every: after how many steps it is multiplied.

    Raises:
        UsageError: a parameter is out of its range.

    >>> from nonsmooth.optim import GeometricSchedule, check_schedule
    >>> check_schedule(GeometricSchedule(0.1, 0.99)).failed
    ('infinite sum',)

    Source: BoltePauwels2020.
    """

    first: float = 1.0
    ratio: float = 0.99
    every: int = 1

    def __post_init__(self) -> None:
        """Refuse what makes no such sequence."""
        _number("first", self.first, positive=True)
        _number("ratio", self.ratio, positive=True)
        _integer("every", self.every, 1)
        if self.ratio >= 1:
            raise UsageError(f"ratio={self.ratio!r}: pass a number between 0 and 1.")

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        return self.first * self.ratio ** xp.floor(k / self.every)

    @property
    def tail(self) -> Tail:
        """Geometric."""
        return Geometric(float(self.ratio), self.every)

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        return f"{self.first:g} * {self.ratio:g}^{'k' if self.every == 1 else f'floor(k/{self.every})'}"


@dataclass(frozen=True)
class EpochSchedule(Schedule):
    """The steps of another schedule, one for each epoch: the rule for sampling without replacement.

        a_k = b_floor(k/m),   m steps an epoch

    Within an epoch the steps are equal, so that an epoch moves by m a_k times a mean over all the data. It keeps what the
    other schedule has: an infinite sum, a_k -> 0, a_k = o(1/log k).

    Args:
        schedule: b, indexed by the epoch.
        steps_per_epoch: m; `sampler.steps_per_epoch(batch)` of ours, or `len(loader)` of a DataLoader.

    Raises:
        UsageError: no schedule of this library, or no positive number of steps.

    >>> from nonsmooth.optim import EpochSchedule, PowerSchedule
    >>> steps = EpochSchedule(PowerSchedule(0.1, 1.0), steps_per_epoch=3)
    >>> [round(steps(k), 3) for k in range(7)]
    [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.033]

    Source: Pauwels2021; derived, docs/theory/step_sizes.md.
    """

    schedule: Schedule
    steps_per_epoch: int

    def __post_init__(self) -> None:
        """Refuse what has no epochs."""
        _schedule(self.schedule)
        _integer("steps_per_epoch", self.steps_per_epoch, 1)

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        return self.schedule.values(k // self.steps_per_epoch, xp)

    @property
    def tail(self) -> Tail:
        """The other's, every term repeated."""
        return self.schedule.tail.stretched(self.steps_per_epoch)

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        return f"b_floor(k/{self.steps_per_epoch}), b_k = {self.schedule.formula}"


@dataclass(frozen=True)
class WarmupSchedule(Schedule):
    """The steps of another schedule behind a linear ramp.

        a_k = b_k min(1, start + (1 - start) (k + 1)/steps)

    Only finitely many steps change, so that every condition holds or fails as it does for b.

    Args:
        schedule: b.
        steps: of the ramp, at least 1.
        start: of the ramp, in [0, 1].

    Raises:
        UsageError: no schedule of this library, or a parameter out of its range.

    >>> from nonsmooth.optim import PowerSchedule, WarmupSchedule
    >>> steps = WarmupSchedule(PowerSchedule(0.1, 0.5), steps=4)
    >>> [round(steps(k), 4) for k in (0, 1, 3, 8)]
    [0.025, 0.0354, 0.05, 0.0333]

    Source: derived, docs/theory/step_sizes.md.
    """

    schedule: Schedule
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no ramp."""
        _schedule(self.schedule)
        _integer("steps", self.steps, 1)
        _number("start", self.start)
        if self.start > 1:
            raise UsageError(f"start={self.start!r}: pass a number in [0, 1].")

    def values(self, k: Any, xp: Any) -> Any:
        """Give a_k for a number or an array k."""
        ramp = xp.minimum(1.0, self.start + (1 - self.start) * (k + 1) / self.steps)
        return self.schedule.values(k, xp) * ramp

    @property
    def tail(self) -> Tail:
        """The other's."""
        return self.schedule.tail

    @property
    def formula(self) -> str:
        """The formula of a_k."""
        lead = f"{self.start:g} + {1 - self.start:g} " if self.start else ""
        return f"b_k min(1, {lead}(k + 1)/{self.steps}), b_k = {self.schedule.formula}"


def exact_tail(schedule: Any) -> Tail | None:
    """Give the tail of a schedule of this library, or of a class that gives its own beside its steps; else None.

    A subclass that changes the steps alone inherits a tail that is not theirs.

    >>> class Mine(PowerSchedule):
    ...     def values(self, k, xp):
    ...         return 0.5**k
    >>> print(exact_tail(PowerSchedule(1.0, 0.5)), exact_tail(Mine(1.0, 0.5)))
    a_k ~ c k^-0.5 None
    """
    if not isinstance(schedule, Schedule):
        return None

    def owner(name: str) -> type:
        return next(cls for cls in type(schedule).__mro__ if name in vars(cls))

    inner = [value for value in vars(schedule).values() if isinstance(value, Schedule)]
    fits = all(issubclass(owner("tail"), owner(name)) for name in ("values", "__call__"))
    return schedule.tail if fits and all(exact_tail(one) is not None for one in inner) else None


def schedule_from_plain(data: Mapping[str, Any]) -> Schedule:
    """Make the schedule that `Schedule.plain` described.

    Raises:
        UsageError: it describes none.
    """
    kinds: dict[str, type[Schedule]] = {kind.__name__: kind for kind in Schedule.__subclasses__()}
    rest = dict(data)
    kind = kinds.get(rest.pop("kind", ""))
    try:
        if kind is None:
            raise TypeError(f"no kind {data.get('kind')!r}")
        held = {name: schedule_from_plain(v) if isinstance(v, Mapping) else v for name, v in rest.items()}
        return kind(**held)
    except TypeError as error:
        raise UsageError(f"{dict(data)!r} describes no schedule ({error}); the kinds are {sorted(kinds)}.") from error


def _power(exponent: float) -> str:
    """Print an exponent, 1 as nothing."""
    return "" if exponent == 1 else f"^{exponent:g}"


def _schedule(schedule: object) -> None:
    """Refuse what is no schedule of this library."""
    if not isinstance(schedule, Schedule):
        raise UsageError(
            f"schedule={schedule!r}: pass one of the schedules of nonsmooth.optim, for example PowerSchedule(0.1, 0.6); "
            "any callable k -> a_k goes directly to the scheduler, or to check_schedule."
        )


def _number(name: str, value: object, *, positive: bool = False) -> None:
    """Refuse what is no finite number, or negative."""
    real = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or value < 0 or (positive and value == 0):  # type: ignore[operator, arg-type]
        raise UsageError(f"{name}={value!r}: pass a finite number, {'above 0' if positive else '0 or more'}.")


def _integer(name: str, value: object, least: int) -> int:
    """Refuse what is no integer, or too small."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name}={value!r}: pass an integer, {least} or more.")
    return number
