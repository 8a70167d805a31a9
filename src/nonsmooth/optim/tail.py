"""Tails: how a sequence of step sizes behaves at infinity, known exactly from its formula.

The conditions of the convergence theorems concern the tail alone: sum a_k = inf, a_k log k -> 0, a_k -> 0, and the
steps of an epoch nearly equal. Each kind of tail knows which of them hold, and says why.

Over 300 lines: five kinds, the same seven questions to each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["Answer", "Ended", "Geometric", "Recurrent", "Regular", "Tail", "Unknown", "same_rate"]

Answer: TypeAlias = tuple[bool | None, str]
"""Whether a condition holds, None where that is not decided, and why."""

PERIOD = 1_000_000
"""A period and an epoch are compared value by value up to so many steps."""


class Tail(ABC):
    """What is known of a_k as k grows."""

    @abstractmethod
    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""

    @abstractmethod
    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""

    @abstractmethod
    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""

    @abstractmethod
    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""

    @abstractmethod
    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether (max - min)/max of the steps of an epoch tends to 0."""

    @abstractmethod
    def stretched(self, steps: int) -> Tail:
        """Give the tail of the sequence in which every term stands `steps` times."""

    @abstractmethod
    def times(self, other: Tail) -> Tail:
        """Give the tail of the product of two sequences."""


@dataclass(frozen=True)
class Regular(Tail):
    """a_k ~ c k^-q (log k)^-p with some c > 0.

    sum a_k = inf iff q < 1, or q = 1 and p <= 1 (the integral test); a_k log k -> 0 iff q > 0, or q = 0 and p > 1; and
    a_(k+j)/a_k -> 1 for every j.
    """

    power: float
    log_power: float = 0.0

    def __str__(self) -> str:
        """Print the rate."""
        factors = [f"k^{-self.power:g}"] * (self.power != 0) + [f"(log k)^{-self.log_power:g}"] * (self.log_power != 0)
        return f"a_k ~ c {' '.join(factors)}" if factors else "a_k -> c > 0"

    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""
        return True, f"{self}, c > 0"

    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""
        if self.power == 1 and self.log_power:
            return self.log_power <= 1, f"{self}: 1/(k (log k)^p) has an infinite sum iff p <= 1"
        if self.power == 0:
            return True, f"{self}: larger than 1/k"
        return self.power <= 1, f"{self}: k^-q has an infinite sum iff q <= 1"

    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""
        holds = self.power > 0 or (self.power == 0 and self.log_power > 1)
        if holds:
            return True, f"{self}, which is o(1/log k)"
        limit = "inf" if (self.power, self.log_power) != (0, 1) else "c"
        return False, f"{self}, hence a_k log k -> {limit}"

    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""
        holds = self.power > 0 or (self.power == 0 and self.log_power > 0)
        return holds, f"{self}" if holds else f"{self}, which does not tend to 0"

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch become equal."""
        return True, f"{self}, hence a_(k+j)/a_k -> 1 for every j < {steps_per_epoch}"

    def stretched(self, steps: int) -> Tail:
        """Give the tail with every term repeated."""
        return self

    def times(self, other: Tail) -> Tail:
        """Give the tail of the product."""
        if isinstance(other, Regular):
            return Regular(self.power + other.power, self.log_power + other.log_power)
        if isinstance(other, Ended) or (self.power, self.log_power) == (0.0, 0.0):
            return other.times(self) if isinstance(other, Recurrent) else other
        return Unknown(f"the product of {self} with {other}")


@dataclass(frozen=True)
class Geometric(Tail):
    """a_k ~ c ratio^floor((k + offset)/every) with some c > 0."""

    ratio: float
    every: int = 1
    offset: int = 0

    def __str__(self) -> str:
        """Print the rate."""
        return f"a_k multiplied by {self.ratio:g} every {'step' if self.every == 1 else f'{self.every} steps'}"

    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""
        return True, f"{self}, from a positive number"

    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""
        return self.ratio >= 1, f"{self}: a geometric series, {'infinite' if self.ratio >= 1 else 'finite'}"

    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""
        return self.ratio < 1, f"{self}"

    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""
        return self.ratio < 1, f"{self}"

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch become equal."""
        aligned = self.every % steps_per_epoch == 0 and self.offset % steps_per_epoch == 0
        if self.ratio == 1 or steps_per_epoch == 1 or aligned:
            return True, f"{self}: never within an epoch"
        return False, f"{self}, also within epochs of {steps_per_epoch} steps, and the ratio does not tend to 1"

    def stretched(self, steps: int) -> Tail:
        """Give the tail with every term repeated."""
        return replace(self, every=self.every * steps, offset=self.offset * steps)

    def times(self, other: Tail) -> Tail:
        """Give the tail of the product."""
        if isinstance(other, Ended):
            return other
        if isinstance(other, Regular) and (other.power, other.log_power) == (0, 0):
            return self
        return Unknown(f"{self}, times {other}")


@dataclass(frozen=True)
class Ended(Tail):
    """a_k = 0 from some k on, or there are no more steps."""

    why: str

    def __str__(self) -> str:
        """Say how it ends."""
        return self.why

    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""
        return True, self.why

    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""
        return False, f"{self.why}: the sum is finite"

    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""
        return True, self.why

    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""
        return True, self.why

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch become equal."""
        return True, self.why

    def stretched(self, steps: int) -> Tail:
        """Give the tail with every term repeated."""
        return self

    def times(self, other: Tail) -> Tail:
        """Give the tail of the product."""
        return self


@dataclass(frozen=True)
class Recurrent(Tail):
    """a_k >= some c > 0 again and again; `values` is a whole period where there is one."""

    why: str
    values: tuple[float, ...] = ()
    positive: bool = True

    def __str__(self) -> str:
        """Say what comes back."""
        return self.why

    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""
        return self.positive, self.why if self.positive else f"{self.why}: negative steps climb"

    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""
        return (True if self.positive else None), f"{self.why}: infinitely many steps above a positive number"

    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""
        return False, f"{self.why}: a_k does not tend to 0"

    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""
        return False, f"{self.why}: a_k does not tend to 0"

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch become equal."""
        period = len(self.values)
        if steps_per_epoch == 1 or (period and min(self.values) == max(self.values)):
            return True, "all steps of an epoch are equal"
        whole = math.lcm(period, steps_per_epoch) if period else math.inf
        if whole > PERIOD:
            return None, f"{self.why}: not looked at, as a_k does not tend to 0"
        steps = [self.values[k % period] for k in range(int(whole))]
        epochs = [steps[k : k + steps_per_epoch] for k in range(0, len(steps), steps_per_epoch)]
        equal = all(min(epoch) == max(epoch) for epoch in epochs)
        return equal, "all steps of an epoch are equal" if equal else f"{self.why}, also within epochs"

    def stretched(self, steps: int) -> Tail:
        """Give the tail with every term repeated."""
        within = len(self.values) * steps <= PERIOD
        return replace(self, values=tuple(v for v in self.values for _ in range(steps)) if within else ())

    def times(self, other: Tail) -> Tail:
        """Give the tail of the product."""
        if isinstance(other, Ended) or (isinstance(other, Regular) and (other.power, other.log_power) == (0, 0)):
            return other if isinstance(other, Ended) else replace(self, values=())
        return Unknown(f"{self}, times {other}")


@dataclass(frozen=True)
class Unknown(Tail):
    """Nothing is known, and why."""

    why: str

    def __str__(self) -> str:
        """Say what is missing."""
        return self.why

    def nonnegative(self) -> Answer:
        """Whether a_k >= 0 from some k on."""
        return None, self.why

    def infinite_sum(self) -> Answer:
        """Whether sum a_k = inf."""
        return None, self.why

    def below_logarithm(self) -> Answer:
        """Whether a_k log k -> 0."""
        return None, self.why

    def vanishing(self) -> Answer:
        """Whether a_k -> 0."""
        return None, self.why

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch become equal."""
        return (True, "an epoch is one step") if steps_per_epoch == 1 else (None, self.why)

    def stretched(self, steps: int) -> Tail:
        """Give the tail with every term repeated."""
        return self

    def times(self, other: Tail) -> Tail:
        """Give the tail of the product."""
        return other if isinstance(other, Ended) else self


def same_rate(one: Tail, other: Tail) -> Answer:
    """Whether the ratio of two sequences tends to a positive number."""
    if isinstance(one, Regular) and isinstance(other, Regular):
        equal = (one.power, one.log_power) == (other.power, other.log_power)
        return equal, f"{one} in both" if equal else f"{one} in one, {other} in the other"
    if isinstance(one, Geometric) and one == other:
        return True, f"{one} in both"
    known = isinstance(one, Regular | Geometric | Ended) and isinstance(other, Regular | Geometric | Ended)
    if known and type(one) is not type(other):
        return False, f"{one} in one, {other} in the other"
    return None, f"{one}; {other}: their ratio is not known"
