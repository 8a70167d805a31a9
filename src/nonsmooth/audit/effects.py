"""What the choice at kinks does to the gradient: whole conventions, single groups of kinks, and tied guards."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nonsmooth.audit.gradients import Gradient, bad_entries, compare, named_gradient, norm
from nonsmooth.audit.result import Change, Comparison, Effect, KinkSummary, TiedBranch
from nonsmooth.derivatives.backprop import value_and_backprop
from nonsmooth.dictionary import Call, Kind, Rule
from nonsmooth.dictionary.convention import FRAMEWORKS
from nonsmooth.errors import NonsmoothError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.kinks.selection import AtKinks
from nonsmooth.program import Program, Step
from nonsmooth.report.progress import Report

__all__ = [
    "BRANCHES",
    "GROUPS",
    "Bench",
    "compare_conventions",
    "conventions",
    "joint_effect",
    "measure_effects",
    "tied_branches",
]

GROUPS = 32
"""How many groups of kinks are weighed alone; an audit with more says so."""

BRANCHES = 8
"""How many active programs are compared where guards tie."""

JOINT = 64
"""What kinks do only together must exceed so many times what counts as rounding: whole conventions sum otherwise."""

_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The rounding unit of each type; 16 of them count as equal."""


@dataclass
class Bench:
    """A program at a point with its data, and the framework's gradient there."""

    framework: Framework
    program: Program
    x: Any
    data: tuple[Any, ...]
    report: Report

    def __post_init__(self) -> None:
        """Differentiate once by the framework's own rules."""
        self.value, self.reference = self.gradient("framework")
        types = {self.program.values[v].dtype for v in self.program.inputs}
        self.rounding = 16 * max(_EPSILON.get(name, 2.0**-7) for name in types)

    def gradient(self, at_kinks: AtKinks, program: Program | None = None) -> tuple[float, Gradient]:
        """Give the value and the gradient under a selection."""
        value, gradient = value_and_backprop(program or self.program, self.x, *self.data, at_kinks=at_kinks)
        return float(value), named_gradient(self.framework, gradient)

    def time_native(self, runs: int) -> float:
        """Give the median wall time of the framework's own gradient of the program, in seconds."""
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            value_and_backprop(self.program, self.x, *self.data)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def conventions(framework: str) -> tuple[AtKinks, ...]:
    """List the conventions that an audit compares, the framework's own first."""
    others = tuple(name for name in FRAMEWORKS if name != framework)
    return ("framework", *others, 0.0, 1.0, 0.5, "minimum-norm")


def compare_conventions(bench: Bench) -> tuple[Comparison, ...]:
    """Give ||g_c - g_framework|| / ||g_framework|| for every convention c, in total and per parameter."""
    found = []
    for number, convention in enumerate(conventions(bench.framework.name)):
        bench.report(f"gradient under {convention}", number, len(conventions(bench.framework.name)))
        name = f"{bench.framework.name} (framework)" if convention == "framework" else str(convention)
        start = time.perf_counter()
        try:
            _, gradient = bench.gradient(convention)
        except NonsmoothError as error:
            nothing = Change(float("nan"), None, "the gradient holds nan or inf here")
            found.append(Comparison(name, float("nan"), 0, nothing, {}, 0.0, "undecided", f"not evaluated: {error}"))
            continue
        seconds = time.perf_counter() - start
        total, parts = compare(gradient, bench.reference, bench.reference)
        found.append(Comparison(name, norm(gradient), bad_entries(gradient), total, parts, seconds, note=total.note))
    return tuple(found)


def measure_effects(bench: Bench, rows: tuple[KinkSummary, ...]) -> tuple[tuple[Effect, ...], str]:
    """Weigh each group of kinks alone, and say in words if some were left out.

    The groups are the rows with active kinks that a selection weighs; those with most kinks that can matter go first.
    """
    weighed = {kind.value for kind in Kind if kind.has_weights}
    groups = [row for row in rows if row.active and row.kind in weighed]
    groups.sort(key=lambda row: (-(row.active if row.can_matter is None else row.can_matter), -row.active))
    left_out = len(groups) - GROUPS
    effects = []
    for number, row in enumerate(groups[:GROUPS]):
        bench.report(f"kinks of {row.label}", number, min(len(groups), GROUPS))
        effects.append(_effect(bench, row))
    effects.sort(key=lambda e: (-e.largest.size, -e.total.size))
    note = f"{left_out} of {len(groups)} groups of kinks were not weighed: those with the fewest kinks that can matter."
    return tuple(effects), note if left_out > 0 else ""


def _effect(bench: Bench, row: KinkSummary) -> Effect:
    """Move the weights of one group from one end to the other."""
    words, ends = _ends(row)
    place = (row.label, row.step, row.operation, row.kink, row.module, row.source)
    if ends is None:
        return Effect(*place, words, Change(0.0, None), {}, "", "undecided", "only one rule is known for this kink")
    try:
        low, high = (bench.gradient(_only(row.step, row.kink, end))[1] for end in ends)
    except NonsmoothError as error:
        return Effect(*place, words, Change(0.0, None), {}, "", "undecided", f"not evaluated: {error}")
    total, parts = compare(high, low, bench.reference)
    most = max(parts, key=lambda name: (parts[name].size, parts[name].absolute), default="")
    return Effect(*place, words, total, parts, most, note=total.note)


def joint_effect(
    comparisons: tuple[Comparison, ...], effects: tuple[Effect, ...], rounding: float
) -> tuple[Comparison, str] | None:
    """Find the convention that moves most a parameter which no group of kinks moves alone, and that parameter."""
    alone = {name for e in effects for name, change in e.parameters.items() if change.size > rounding}
    found = [
        (change.size, comparison, name)
        for comparison in comparisons
        if comparison.status == "computed" and not comparison.bad_entries
        for name, change in comparison.parameters.items()
        if name not in alone and change.size > JOINT * rounding
    ]
    _, comparison, name = max(found, key=lambda item: item[0], default=(0.0, None, ""))
    return None if comparison is None else (comparison, name)


End = Callable[[Call, Step], Rule]


def _ends(row: KinkSummary) -> tuple[tuple[str, str], tuple[End, End] | None]:
    """Give the two ends between which the weights of a group move, in words and as rules."""
    if row.kind == Kind.ORDER.value:
        return ("first tied", "last tied"), (lambda call, step: "first", lambda call, step: "last")
    if row.kind == Kind.CONE.value and row.kink == "zero vector":
        return ("0", "a unit vector"), (lambda call, step: "zero", _unit)
    if row.kind == Kind.SPECTRAL.value or (row.kind == Kind.CONE.value and row.kink == "tie"):
        return ("even", "even"), None
    return ("0", "1"), (lambda call, step: 0.0, lambda call, step: 1.0)


def _unit(call: Call, step: Step) -> Rule:
    """Give the first unit vector in the dual ball of every norm of a cone."""
    image = step.operation.image(call, call.operands)  # type: ignore[attr-defined]
    ones = call.xp.cumulative_sum(call.xp.ones_like(image), axis=-1)
    return call.xp.astype(ones == 1, image.dtype)


def _only(index: int, kink: str, end: End) -> Callable[[Step, str, Call], Rule | None]:
    """Select at one kink of one step; leave all others to the framework."""

    def rule(step: Step, name: str, call: Call) -> Rule | None:
        return end(call, step) if step.index == index and name == kink else None

    return rule


def tied_branches(bench: Bench, rows: tuple[KinkSummary, ...]) -> tuple[TiedBranch, ...]:
    """Compare the other programs that are active at the point, as guards tie there."""
    if not any(row.kind == "guard" and row.active for row in rows):
        return ()
    found: list[TiedBranch] = []
    pieces = bench.framework.pieces(bench.program, bench.x, bench.data, limit=BRANCHES)
    while True:
        try:
            piece, left_out = _next(pieces)
            if piece is None:
                note = f"more than {BRANCHES} branches are active where `if`s tie; the others were not compared"
                return (*found, *[TiedBranch((), (), None, None, None, {}, "undecided", note)] * left_out)
            if piece is not bench.program:
                found.append(_branch(bench, piece))
        except Exception as error:  # the other branch is the user's code, and may fail in any way
            note = f"another branch cannot be evaluated: {type(error).__name__}: {error}"
            return (*found, TiedBranch((), (), None, None, None, {}, "undecided", note))


def _next(pieces: Iterator[Program]) -> tuple[Program | None, bool]:
    """Give the next active program, and whether some were left out, which comes as a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        piece = next(pieces, None)
    left_out = [w for w in caught if str(w.message).startswith("pieces: ")]
    for other in caught:
        if other not in left_out:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return piece, bool(left_out)


def _branch(bench: Bench, piece: Program) -> TiedBranch:
    """Compare one other program with the one that ran."""
    own = [(g.source, str(g.outcome)) for g in bench.program.guards]
    turned = [
        guard
        for place, guard in enumerate(piece.guards)
        if guard.kind == "branch" and (guard.source, str(guard.outcome)) not in own[place : place + 1]
    ]
    value, gradient = bench.gradient("framework", piece)
    gap = abs(value - bench.value)
    total, parts = compare(gradient, bench.reference, bench.reference)
    joins = gap <= bench.rounding * max(abs(value), abs(bench.value))
    sources = tuple(g.source for g in turned if g.source is not None)
    return TiedBranch(sources, tuple(str(g.outcome) for g in turned), gap, joins, total, parts, note=total.note)
