"""What differentiating costs in time and memory: measured in one run, all sides in turn, as ratios to evaluating."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from nonsmooth.derivatives.backprop import value_and_backprop, value_and_grad
from nonsmooth.derivatives.directional import directional
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.errors import NonsmoothError, RandomnessError, UsageError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.frameworks.stopwatch import Run, Stopwatch
from nonsmooth.program import Program
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain

__all__ = ["EVALUATION", "Measured", "Timing", "measure_cost", "measure_sides", "measuring", "native_sides", "try_side"]

EVALUATION = "evaluation"
"""The side to which the others are compared."""

DIRECTIONS = (1, 4, 16)
"""How many directions the framework's own tangents carry."""

LARGEST = 20_000_000
"""Directions with more numbers than these in all are left out: memory, not time, would be measured."""

BUDGET, FEWEST, MOST = 2.0, 7, 41
"""Seconds of one measurement if no number of rounds is given, and the least and most rounds that it makes."""

TICK = 1e-9
"""No call is said to take less: clocks of a GPU may see nothing."""

WARMING = 2
"""How often each side runs before it is timed."""


@dataclass(frozen=True)
class Timing:
    """One side of a measurement. Status: measured.

    Attributes:
        what: the side; `directions`, how many it carries, if it does.
        seconds: the median of its times.
        ratio: the median, over the rounds, of its time divided by that of evaluating in the same round.
        quartiles: the first and third quartile of these ratios.
        memory: the peak of the bytes of arrays that it holds beside what was there, and `memory_ratio` that over the
            peak of evaluating; None where it is not known.
        compile_seconds: what it took to compile, apart; None where nothing is compiled.
    """

    what: str
    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    memory: int | None = None
    memory_ratio: float | None = None
    compile_seconds: float | None = None
    directions: int | None = None


@dataclass(frozen=True)
class Measured(Reported):
    """Times and memory of a function and its derivatives, all sides in turn in every round.

    Attributes:
        rows: the sides, evaluating first.
        rounds: how often each was timed; `threads` and `device`, on what; `clock`, "CUDA events" or "wall time".
        missing: the sides that could not be run, with the reason.
    """

    rows: tuple[Timing, ...]
    rounds: int
    threads: int
    device: str
    clock: str
    missing: tuple[str, ...] = ()
    status: str = "measured"

    def find(self, what: str) -> Timing | None:
        """Give a side by its name; None if it is missing."""
        return next((row for row in self.rows if row.what == what), None)

    def document(self) -> Document:
        """Lay the measurement out for reading."""
        where = f"{self.device}, {self.threads} thread(s), {self.clock}, {self.rounds} rounds, all sides in turn"
        note = (
            "times: median of the ratios within a round, with their quartiles. memory: the peak of new arrays. The library's "
            "own backprop with at_kinks=0.5; tangents: derivatives along directions, all at once, by the framework's forward mode."
        )
        if self.missing:
            note += f" Not run: {'; '.join(map(plain, self.missing))}."
        columns = ("what", "median", "times", "quartiles", "memory", "times", "compiled in")
        return Document("Measured", (Table(f"Measured ({where})", columns, tuple(map(_row, self.rows)), note),))


def _row(row: Timing) -> tuple[str, ...]:
    """Print one side."""
    return (
        row.what,
        f"{1e3 * row.seconds:,.3f} ms",
        f"{row.ratio:.2f}",
        f"{row.quartiles[0]:.2f} - {row.quartiles[1]:.2f}",
        "-" if row.memory is None else f"{row.memory / 2**20:,.2f} MiB",
        "-" if row.memory_ratio is None else f"{row.memory_ratio:.2f}",
        "-" if row.compile_seconds is None else f"{row.compile_seconds:.2f} s",
    )


def measure_cost(
    f: Callable[..., Any] | Program, program: Program, x: Any, data: tuple[Any, ...], rounds: int | None = None
) -> Measured:
    """Measure what evaluating and differentiating a function cost, paired in one run.

        ratio = median over the rounds of  time(side) / time(evaluating),   both of the same round

    Every round runs all sides in a shuffled order: evaluating without gradients, the framework's own gradient,
    `value_and_backprop` with at_kinks=0.5, `subgradient`, one directional derivative, and the framework's own tangents
    along 1, 4 and 16 directions. In JAX what is JAX's own is compiled, and so is `value_and_grad` with at_kinks=0.5.
    Status: measured.

    Args:
        f: the function f(x, *data), or its captured program.
        program: its captured program.
        x: the point.
        data: what is not differentiated.
        rounds: how often each side is timed; by default as often as fits into two seconds, 7 to 41 times.

    Returns:
        The sides with their medians, ratios and peaks of memory.

    Raises:
        RandomnessError: the function draws random numbers. UsageError: rounds mean nothing.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f, x = lambda x: torch.relu(x).sum(), torch.ones(8)
    >>> found = measure_cost(f, ns.capture(f, x), x, (), rounds=3)
    >>> [row.what for row in found.rows][:3], found.rows[0].ratio, found.rounds, found.clock
    (['evaluation', 'gradient by torch', 'ns.value_and_backprop'], 1.0, 3, 'wall time')
    """
    framework: Framework = program.framework
    function = f.function if isinstance(f, Program) else f
    missing: list[str] = []
    with measuring(framework, function, program, x, data) as watch:
        sides = native_sides(watch, framework)
        sides.update(_library_sides(watch, program, function, x, data, missing))
        entries = sum(framework.numpy(leaf).size for leaf in framework.flatten(x)[0])
        counts = [p for p in DIRECTIONS if p == 1 or (p <= entries and p * entries <= LARGEST)]
        carried = {}
        for p in counts:
            what = f"{p} tangent{'s' if p > 1 else ''} by {framework.name}"
            directions = [framework.draw(x, seed) for seed in range(p)]
            run = try_side(what, partial(watch.forward, directions), missing)
            if run is not None:
                sides[what], carried[what] = run, p
        return measure_sides(watch, sides, rounds, missing, carried)


@contextmanager
def measuring(
    framework: Framework, function: Callable[..., Any], program: Program, x: Any, data: tuple[Any, ...]
) -> Iterator[Stopwatch]:
    """Give the stopwatch of a function while whatever the function writes to from outside is put back.

    Raises:
        RandomnessError: the function draws random numbers.
    """
    generators = framework.random_generators()
    outside = [program.constants[v] for v in program.rewritten if v in program.constants]
    try:
        with framework.preserved([t for t in outside if framework.holds(t)]):
            watch = framework.stopwatch(function, x, data)
            with watch.prepared():
                watch.evaluation().call()
                drawn = generators.drawn_since()
                if drawn:
                    raise RandomnessError(
                        f"cost: the function draws random numbers ({drawn}), so that its runs do not do the same work. "
                        "Switch it off (model.eval()), or draw outside."
                    )
                yield watch
    finally:
        if generators.drawn_since():
            generators.put()


def native_sides(watch: Stopwatch, framework: Framework) -> dict[str, Run]:
    """Give evaluating, and the framework's own gradient."""
    return {EVALUATION: watch.evaluation(), f"gradient by {framework.name}": watch.gradient()}


def try_side(what: str, make: Callable[[], Run | None], missing: list[str]) -> Run | None:
    """Make a side and run it once; where that fails, note why."""
    try:
        run = make()
        if run is not None:
            run.call()
        return run
    except NonsmoothError as error:
        missing.append(f"{what} ({_first_line(error)})")
    except Exception as error:  # a framework says in many ways that it has no forward mode for an operation
        missing.append(f"{what} ({type(error).__name__}: {_first_line(error)})")
    return None


def _first_line(error: Exception) -> str:
    """Give the beginning of a message."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else f"{line[:159]}…"


def _library_sides(
    watch: Stopwatch, program: Program, function: Callable[..., Any], x: Any, data: tuple[Any, ...], missing: list[str]
) -> dict[str, Run]:
    """Give the library's own ways to differentiate, those that run."""
    v = program.framework.draw(x, 0)
    calls: dict[str, Callable[[], Run | None]] = {
        "ns.value_and_grad, compiled": lambda: watch.compiled(value_and_grad(function, at_kinks=0.5)),
        "ns.value_and_backprop": lambda: Run(lambda: value_and_backprop(program, x, *data, at_kinks=0.5)),
        "ns.subgradient": lambda: Run(lambda: subgradient(program, x, *data)[:2]),
        "ns.directional": lambda: Run(lambda: directional(program, x, v, *data)),
    }
    found = {what: try_side(what, make, missing) for what, make in calls.items()}
    return {what: run for what, run in found.items() if run is not None}


def measure_sides(
    watch: Stopwatch,
    sides: Mapping[str, Run],
    rounds: int | None = None,
    missing: Sequence[str] = (),
    directions: Mapping[str, int] | None = None,
) -> Measured:
    """Time some sides, in turn and in a shuffled order in every round; the first is the one that others are divided by.

    Raises:
        UsageError: rounds mean nothing.
    """
    if rounds is not None and (isinstance(rounds, bool) or rounds < 1):
        raise UsageError(f"rounds={rounds!r}: pass a whole number, 1 or more.")
    once = {what: min(watch.seconds(run) for _ in range(WARMING)) for what, run in sides.items()}
    if rounds is None:
        rounds = min(max(int(BUDGET / max(sum(once.values()), 1e-9)), FEWEST), MOST)
    times = _in_turn(watch, sides, rounds)
    peaks = {what: watch.memory(run) for what, run in sides.items()}
    first = next(iter(sides))
    rows = []
    for what, run in sides.items():
        ratios = [a / b for a, b in zip(times[what], times[first], strict=True)]
        peak, least = peaks[what], peaks[first]
        rows.append(
            Timing(
                what=what,
                seconds=statistics.median(times[what]),
                ratio=statistics.median(ratios),
                quartiles=_quartiles(ratios),
                memory=peak,
                memory_ratio=peak / least if peak is not None and least else None,
                compile_seconds=run.compile_seconds,
                directions=(directions or {}).get(what),
            )
        )
    return Measured(tuple(rows), rounds, watch.threads, watch.device, watch.clock, tuple(missing))


def _in_turn(watch: Stopwatch, sides: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Time every side once a round; Python's collector of garbage waits."""
    times: dict[str, list[float]] = {what: [] for what in sides}
    order, shuffle = list(sides), random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for what in order:
                times[what].append(max(watch.seconds(sides[what]), TICK))
    finally:
        if collecting:
            gc.enable()
    return times


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Give the first and the third quartile.

    >>> _quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
