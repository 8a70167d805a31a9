"""The conditions on step sizes, and which of them a schedule fails.

For theta_(k+1) in theta_k - a_k D_(I_k)(theta_k) with bounded iterates:

* minibatches I_k drawn independently: sum a_k = inf and a_k log k -> 0 (almost surely);
* minibatches without replacement, m steps an epoch: sum a_k = inf, a_k -> 0 and (max - min)/max -> 0 over the steps of
  an epoch (surely, for every order).

Then every accumulation point is critical, 0 in conv D(theta), and J is constant on them.

Over 300 lines: the question, the answer and its printing, which are read together.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, TypeAlias

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.optim.schedules import exact_tail
from nonsmooth.optim.tail import Answer, Ended, Tail, Unknown, same_rate
from nonsmooth.optim.trend import SHORT, Trend
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table

__all__ = ["Condition", "Reading", "ScheduleCheck", "check_schedule", "finite_steps", "first_steps"]

SAMPLINGS = ("independent", "without replacement")
COUNTS = ("steps", "epochs")

Evidence: TypeAlias = Tail | Trend
"""What is known of a sequence of steps: its tail, exactly, or its first steps."""


@dataclass(frozen=True)
class Condition:
    """A condition of a theorem on the step sizes, whether it holds, and why.

    Attributes:
        name, formula: of the condition.
        holds: None where it is not decided.
        status: "proved", by the formula of the schedule; "sampled", from its first steps; or "undecided".
        why: what was found.
    """

    name: str
    formula: str
    holds: bool | None
    status: str
    why: str


@dataclass(frozen=True)
class Reading:
    """A schedule as it was read: its name, and for each group of parameters what is known of its steps."""

    name: str
    groups: tuple[Evidence, ...]


@dataclass(frozen=True)
class ScheduleCheck(Reported):
    """Which conditions of the convergence theorem a schedule fulfils.

    `bool(check)` is True only if every condition holds; `check.holds` is None where one is not decided and none fails.
    """

    WIDTH: ClassVar[int] = 120

    schedule: str
    sampling: str
    steps_per_epoch: int | None
    holds: bool | None
    conditions: tuple[Condition, ...]

    def __bool__(self) -> bool:
        """Whether every condition holds."""
        return self.holds is True

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the conditions that fail."""
        return tuple(c.name for c in self.conditions if c.holds is False)

    @property
    def undecided(self) -> tuple[str, ...]:
        """The names of the conditions that are not decided."""
        return tuple(c.name for c in self.conditions if c.holds is None)

    @property
    def status(self) -> str:
        """How the answer is known: by its weakest part if all conditions hold, by its strongest if one fails."""
        rests = {c.status for c in self.conditions if c.holds == self.holds}
        order = ("proved", "sampled") if self.holds is False else ("sampled", "proved")
        return "undecided" if self.holds is None else next(status for status in order if status in rests)

    def document(self) -> Document:
        """Lay the answer out for reading."""
        if self.holds is False:
            verdict = f"fails: {', '.join(self.failed)} ({self.status})"
        else:
            verdict = f"all hold ({self.status})" if self.holds else f"undecided: {', '.join(self.undecided)}"
        epochs = f", {self.steps_per_epoch} steps an epoch" if self.steps_per_epoch else ""
        words = {True: "yes", False: "no", None: "undecided"}
        rows = tuple((c.name, c.formula, words[c.holds], c.status, c.why) for c in self.conditions)
        table = Table(f"Sampling: {self.sampling}{epochs}", ("condition", "formula", "holds", "status", "why"), rows)
        return Document(f"{self.schedule}: {verdict}", (table,))


def check_schedule(
    schedule: Any,
    sampling: str = "independent",
    *,
    steps_per_epoch: int | None = None,
    counts: str = "steps",
    samples: int = 1_000_000,
) -> ScheduleCheck:
    """Say which conditions of the convergence theorem the steps of a schedule fulfil.

        independent           sum a_k = inf,   a_k log k -> 0
        without replacement   sum a_k = inf,   a_k -> 0,   (max - min)/max -> 0 within an epoch

    The schedules of `nonsmooth.optim` and those of torch are decided by their formula (`proved`, in real arithmetic), as
    they go on from where they stand; other callables and numbers by their first steps (`sampled`): what is clear is
    answered, and the rest is undecided. The user's scheduler and optimiser are not touched: what must be run is run on a
    copy of the scheduler, with an optimiser of its own; a function is called with k = 0, 1, ..

    Args:
        schedule: a schedule of `nonsmooth.optim`; a scheduler of torch; a callable k -> a_k, such as a schedule of optax;
            or the numbers a_0, a_1, ..
        sampling: "independent" or "without replacement".
        steps_per_epoch: how many minibatches an epoch has; needed without replacement where k counts steps.
        counts: what k counts, "steps" or "epochs"; torch's schedulers are often stepped once an epoch.
        samples: how many steps are sampled at most; a tenth of them where a scheduler must be run.

    Returns:
        The answer: `if check:`, `check.failed`, `print(check)`, `check.to_json()`.

    Raises:
        UsageError: no schedule, a step that is no finite number, or arguments that mean nothing.

    >>> import nonsmooth as ns
    >>> ns.optim.check_schedule(ns.optim.PowerSchedule(0.1, 0.6)).holds
    True
    >>> check = ns.optim.check_schedule(lambda k: 0.1 / (1 + k) ** 1.5)
    >>> check.failed, check.status
    (('infinite sum',), 'sampled')
    >>> ns.optim.check_schedule(ns.optim.LogarithmicSchedule(0.1, 1)).failed
    ('below 1/log k',)
    >>> bool(ns.optim.check_schedule(ns.optim.LogarithmicSchedule(0.1, 1), "without replacement", steps_per_epoch=20))
    True

    Source: BoltePauwels2020, Pauwels2021; derived, docs/theory/step_sizes.md.
    """
    if sampling not in SAMPLINGS or counts not in COUNTS:
        raise UsageError(f"sampling={sampling!r}, counts={counts!r}: pass one of {SAMPLINGS} and one of {COUNTS}.")
    asked: tuple[tuple[str, Any, int], ...] = (("steps_per_epoch", steps_per_epoch, 1), ("samples", samples, SHORT))
    for name, value, least in asked:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{name}={value!r}: pass an integer, {least} or more.")
    if sampling == "without replacement" and counts == "steps" and steps_per_epoch is None:
        raise UsageError(
            "without replacement the steps of an epoch must become equal: pass steps_per_epoch=, for example len(loader), "
            "or counts='epochs' if the schedule changes once an epoch."
        )
    reading = _read(schedule, samples)
    conditions = tuple(_conditions(reading.groups, sampling, None if counts == "epochs" else steps_per_epoch))
    answers = {c.holds for c in conditions}
    holds = False if False in answers else None if None in answers else True
    return ScheduleCheck(reading.name, sampling, steps_per_epoch, holds, conditions)


def _conditions(groups: Sequence[Evidence], sampling: str, steps_per_epoch: int | None) -> Iterator[Condition]:
    """Decide the conditions; without `steps_per_epoch` the schedule changes once an epoch."""
    yield _decide("nonnegative", "a_k >= 0", groups, lambda e: e.nonnegative())
    yield _decide("infinite sum", "sum a_k = inf", groups, lambda e: e.infinite_sum())
    if sampling == "independent":
        yield _decide("below 1/log k", "a_k log k -> 0", groups, lambda e: e.below_logarithm())
    else:
        yield _decide("vanishing", "a_k -> 0", groups, lambda e: e.vanishing())
        name, formula = "steady epochs", "(max - min)/max -> 0 within an epoch"
        if steps_per_epoch is None:
            yield Condition(name, formula, True, "proved", "the step changes between epochs only")
        else:
            yield _decide(name, formula, groups, lambda e: e.steady(steps_per_epoch))
    if len(groups) > 1:
        pairs = [_same_rate(groups[0], other) for other in groups[1:]]
        yield _joined("one rate", "a_k of each group ~ c times that of the first, c > 0", pairs, "groups 0 and {}", 1)


def _decide(name: str, formula: str, groups: Sequence[Evidence], ask: Callable[[Evidence], Answer]) -> Condition:
    """Ask for a condition in every group: it must hold in all of them."""
    return _joined(name, formula, [(ask(e), isinstance(e, Tail)) for e in groups], "group {}")


def _joined(name: str, formula: str, answers: Sequence[tuple[Answer, bool]], label: str, start: int = 0) -> Condition:
    """Join the answers of all groups: the first that fails, else the first that is not decided, else the first sampled."""

    def rank(number: int) -> tuple[int, bool]:
        (holds, _), exact = answers[number]
        return ((0 if holds is False else 1 if holds is None else 2), exact != (holds is False))

    worst = min(range(len(answers)), key=rank)
    (holds, why), exact = answers[worst]
    alike = len({a for a in answers}) == 1
    told = why if alike else f"{label.format(worst + start)}: {why}"
    return Condition(
        name, formula, holds, "sampled" if not exact else "proved" if holds is not None else "undecided", told
    )


def _same_rate(one: Evidence, other: Evidence) -> tuple[Answer, bool]:
    """Compare the rates of two groups; whether by their formulas."""
    if isinstance(one, Trend) and isinstance(other, Trend):
        return one.same_rate(other), False
    if isinstance(one, Tail) and isinstance(other, Tail):
        return same_rate(one, other), True
    return (None, "known by its formula in one, by its first steps in the other"), True


def _read(schedule: Any, samples: int) -> Reading:
    """Find out what the schedule is."""
    tail = exact_tail(schedule)
    if tail is not None:
        return Reading(str(schedule), (tail,))
    if any(cls.__module__.startswith("torch.optim") for cls in type(schedule).__mro__):
        found: Reading = import_module("nonsmooth.optim.torch.scheduler_tails").read_scheduler(schedule, samples)
        return found
    if callable(schedule):
        name = getattr(schedule, "__name__", type(schedule).__name__)
        return Reading(f"{name}(k), {samples:,} steps", (first_steps(schedule, samples),))
    try:
        numbers = np.asarray(schedule, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(())
    if numbers.ndim != 1 or isinstance(schedule, str | bytes) or not len(numbers):
        raise UsageError(
            f"schedule={type(schedule).__name__}: pass a schedule of nonsmooth.optim, a scheduler of torch, a callable "
            "k -> a_k, or a sequence of numbers."
        )
    return Reading(f"{len(numbers):,} numbers, and their trend", (Trend(finite_steps(numbers)),))


def first_steps(schedule: Callable[[int], Any], samples: int, scale: float = 1.0) -> Evidence:
    """Call a function with k = 0, 1, .., at once where it takes arrays; give its steps times `scale`.

    Raises:
        UsageError: it fails at once, or a step is no finite number.
    """
    tail = exact_tail(schedule)
    if tail is not None:
        if scale > 0:
            return tail
        return Ended("the rate that it multiplies is 0") if scale == 0 else Unknown("a negative rate")
    with _undisturbed():
        try:
            asked = copy.deepcopy(schedule)
        except Exception:
            asked = schedule
        asked = _prepared(asked)
        values = _at_once(asked, samples)
        if values is not None:
            return Trend(scale * finite_steps(values))
        found: list[float] = []
        for k in range(samples):
            try:
                found.append(float(asked(k)))
            except Exception as error:
                if k == 0:
                    raise UsageError(f"the schedule fails at k = 0: {type(error).__name__}: {error}") from error
                return Trend(scale * finite_steps(np.array(found)), f"it ends: {type(error).__name__} at k = {k}")
    return Trend(scale * finite_steps(np.array(found)))


def _at_once(schedule: Callable[[Any], Any], samples: int) -> Floats | None:
    """Evaluate a function on an array of all k, if that gives what it gives one by one."""
    try:
        values = np.asarray(schedule(np.arange(samples)), dtype=np.float64)
        if values.shape != (samples,):
            return None
        some = sorted({*range(8), *(2**j - 1 for j in range(3, samples.bit_length())), samples // 3, samples - 1})
        alone = np.array([float(schedule(k)) for k in some if k < samples])
        return values if np.allclose(values[[k for k in some if k < samples]], alone, rtol=1e-4, atol=1e-30) else None
    except Exception:
        return None


def _prepared(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a function of JAX the counts that it expects, and many of them at once: one by one it is slow."""
    with suppress(Exception):
        if type(schedule(0)).__module__.startswith("jax"):
            found: Callable[[Any], Any] = import_module("nonsmooth.optim.jax.schedules").mapped_schedule(schedule)
            return found
    return schedule


def finite_steps(steps: Floats) -> Floats:
    """Refuse steps that are no finite numbers; what has lost its digits at the end of floating point is 0.

    Raises:
        UsageError: a step is infinite or nan.
    """
    wrong = np.flatnonzero(~np.isfinite(steps))
    if len(wrong):
        raise UsageError(f"a_k = {steps[wrong[0]]} at k = {wrong[0]}: steps must be finite numbers.")
    return np.where(np.abs(steps) < np.finfo(np.float64).tiny, 0.0, steps)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the generators of Python and numpy as they are, and a function's warnings to itself."""
    states = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
