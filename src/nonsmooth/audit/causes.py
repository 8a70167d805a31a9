"""The lines that part backprop's gradient from a certified subgradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nonsmooth.audit.effects import GROUPS, Bench
from nonsmooth.audit.gradients import Gradient, bad_entries, compare
from nonsmooth.audit.result import Change, KinkSummary
from nonsmooth.audit.summary import place_name
from nonsmooth.derivatives.following import Way, follow
from nonsmooth.dictionary import Call, Rule, Select
from nonsmooth.frameworks.framework import NonsmoothCall
from nonsmooth.program import Program, Step

__all__ = ["Cause", "find_causes"]


@dataclass(frozen=True)
class Cause:
    """A line of source whose kinks part backprop's gradient from the certified one.

    Attributes:
        name: the place of the line, and `text` what stands there.
        groups: the groups of kinks of the line.
        alone: the change when this line alone follows the certified selection, all else the framework's.
        without: the change when this line alone follows the framework, all else the certified selection.
        parameters: `alone` by parameter.
    """

    name: str
    text: str
    groups: tuple[str, ...]
    alone: Change
    without: Change | None
    parameters: Mapping[str, Change]
    status: str = "computed"

    @property
    def size(self) -> float:
        """The larger of the two changes, relative where that is defined: for sorting."""
        return max(self.alone.size, self.without.size if self.without else 0.0)


def find_causes(
    bench: Bench, rows: tuple[KinkSummary, ...], direction: Any, certified: Gradient
) -> tuple[tuple[Cause, ...], str]:
    """Measure what each line does: alone under the certified selection, and alone left out of it.

    With g(S) the gradient when the kinks of the lines S follow the certified selection and all others the framework's
    rules, and A all lines, the changes of a line l are g({l}) - g({}) and g(A) - g(A without l). Where the direction
    leads an `if` into its other branch, that is the program of all g, and a cause of its own.
    """
    if bad_entries(bench.reference):
        return (), ""
    program, rules = _certified_rules(bench, direction)
    base = bench.reference if program is bench.program else bench.gradient("framework", program)[1]
    causes = [] if program is bench.program else [_turned(bench, program, base)]
    lines: dict[tuple[str, int | str], list[int]] = {}
    for index in rules:
        step = program.steps[index]
        key = (step.source.file, step.source.line) if step.source else ("", step.module)
        lines.setdefault(key, []).append(index)
    own = {row.step: row.label for row in rows if row.active} if program is bench.program else {}
    for number, steps in enumerate(list(lines.values())[:GROUPS]):
        bench.report("lines of the certified selection", number, min(len(lines), GROUPS))
        within = frozenset(steps)
        alone = bench.gradient(_following(rules, within), program)[1]
        without = bench.gradient(_following(rules, frozenset(rules) - within), program)[1]
        total, parts = compare(alone, base, bench.reference)
        rest, _ = compare(without, certified, bench.reference)
        groups = dict.fromkeys(own.get(k, program.steps[k].operation.name) for k in steps)
        first = program.steps[steps[0]]
        causes.append(Cause(*place_name(first.source, first.module), tuple(groups), total, rest, parts))
    causes = [cause for cause in causes if cause.size > bench.rounding]
    causes.sort(key=lambda cause: -cause.size)
    left_out = len(lines) - GROUPS
    return tuple(causes), CAUSES + (f" {left_out} of {len(lines)} lines were not measured." if left_out > 0 else "")


CAUSES = "alone: the change when only this line follows the certified selection; left out: when all but this line do."
"""How to read the table of lines."""


def _certified_rules(bench: Bench, direction: Any) -> tuple[Program, Mapping[int, Mapping[str, Rule]]]:
    """Give the program and the rules, by step, that the direction of a certificate selects."""
    evaluation = follow(Way(bench.framework, bench.x, bench.data, (direction,)), bench.program)
    assert evaluation.program is not None
    return evaluation.program, {met.step.index: _fixed(met) for met in evaluation.decided}


def _fixed(met: NonsmoothCall) -> Mapping[str, Rule]:
    """Give the rules of a step as they were decided; those of a `where` as weights, which need no direction any more."""
    call = met.call
    if not isinstance(met.step.operation, Select):
        return met.rules or {}
    along, right = (call.attributes[name] for name in ("along", "right"))
    return {"tie": call.xp.astype(along == right, call.result.dtype)}


def _turned(bench: Bench, program: Program, base: Gradient) -> Cause:
    """Measure what the other outcome of tied `if`s does, all kinks left to the framework."""
    own = [(g.source, str(g.outcome)) for g in bench.program.guards]
    turned = [g for g in program.guards if (g.source, str(g.outcome)) not in own]
    total, parts = compare(base, bench.reference, bench.reference)
    return Cause(*place_name(next((g.source for g in turned if g.source), None), ""), ("if",), total, None, parts)


def _following(rules: Mapping[int, Mapping[str, Rule]], steps: frozenset[int]) -> Any:
    """Select as certified at some steps; leave all others to the framework."""

    def rule(step: Step, kink: str, call: Call) -> Rule | None:
        return rules[step.index].get(kink) if step.index in steps else None

    return rule
