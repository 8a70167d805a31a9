"""Lint: what a user should know about the program at this point, by line, with the fix.

Rules: `jump`, `singular`, `nan`, `guard`, `escaped`, `detach`, `no-grad`, `opaque`, `kink`, `joint`,
`no-rule`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nonsmooth.audit.effects import Bench, joint_effect
from nonsmooth.audit.fixes import fix_jump, fix_kink, fix_singular
from nonsmooth.audit.flow import differentiable_path, feeds_select, operands_depend, operator, vanishing_inputs
from nonsmooth.audit.gradients import leaf_names
from nonsmooth.audit.result import Comparison, Effect, KinkSummary, LintFinding, TiedBranch
from nonsmooth.audit.spelling import Spelling, spelling
from nonsmooth.dictionary import Kind, Nonsmooth, Select
from nonsmooth.dictionary.convention import FRAMEWORKS, load_convention
from nonsmooth.program import Program, Step, references
from nonsmooth.report.text import format_share

__all__ = ["lint"]

DETACHED = ("detach", "stop_gradient")
"""The operators that cut a derivative."""


def lint(
    bench: Bench,
    rows: tuple[KinkSummary, ...],
    comparisons: tuple[Comparison, ...],
    effects: tuple[Effect, ...],
    branches: tuple[TiedBranch, ...],
) -> tuple[LintFinding, ...]:
    """Collect the findings, the gravest first."""
    path, words = differentiable_path(bench.program), spelling(bench.framework.name)
    return (
        *_bad_points(bench.program, rows),
        *_not_finite(bench.framework.name, rows, comparisons),
        *_branches(words, branches),
        *_escaped(bench.program),
        *_detached(bench.program, words, path),
        *_unrecorded(bench.program, path),
        *_from_capture(bench.program),
        *_moving(bench, rows, effects),
        *_jointly(bench, rows, comparisons, effects),
        *_without_rule(bench, rows),
    )


def _bad_points(program: Program, rows: tuple[KinkSummary, ...]) -> Iterator[LintFinding]:
    """Find jumps and singular operations at their bad points."""
    for row in rows:
        if not row.active or row.kind not in (Kind.JUMP.value, Kind.SINGULAR.value):
            continue
        step = program.steps[row.step]
        number = f"{row.active:,} of {row.elements:,} element(s)"
        if row.kind == Kind.JUMP.value:
            what = "its branches do not join" if isinstance(step.operation, Select) else f"it jumps ({row.kink})"
            message = f"`{row.operation}` (step {row.step}): {what} at {number}; no conservative field exists there"
            yield LintFinding("jump", message, row.source, fix_jump(row.operation, program.framework.name))
        else:
            mask = feeds_select(program, step)
            into = (
                f"; its result goes through the `where` of step {mask.index}, which does not stop 0 * inf = nan"
                if mask
                else ""
            )
            message = (
                f"`{row.operation}` (step {row.step}) is at or beyond its bad point ({row.kink}) at {number}{into}"
            )
            yield LintFinding(
                "singular", message, row.source, fix_singular(row.operation, mask is not None, program.framework.name)
            )


def _not_finite(
    framework: str, rows: tuple[KinkSummary, ...], comparisons: tuple[Comparison, ...]
) -> Iterator[LintFinding]:
    """Find conventions under which the gradient holds nan or inf."""
    bad = [c for c in comparisons if c.bad_entries]
    if not bad:
        return
    suspects = [r for r in rows if r.active and r.kind in (Kind.SINGULAR.value, Kind.CONE.value)]
    names = ", ".join(f"{c.convention} ({c.bad_entries:,} entries)" for c in bad)
    fine = ", ".join(c.convention for c in comparisons if not c.bad_entries and c.status == "computed")
    singular = any(r.kind == Kind.SINGULAR.value for r in suspects)
    strong = " (where all but the framework's own let a branch not taken absorb inf)" if singular else ""
    message = f"the gradient holds nan or inf under: {names}" + (f"; finite under: {fine}{strong}" if fine else "")
    if singular:
        fix = "mend the lines named `singular`"
    elif suspects:
        fix = fix_kink(Kind.CONE.value, suspects[0].operation, (), framework)
    else:
        fix = "look for an overflow on the way back"
    yield LintFinding("nan", message, suspects[0].source if suspects else None, fix)


def _branches(words: Spelling, branches: tuple[TiedBranch, ...]) -> Iterator[LintFinding]:
    """Find tied guards whose other branch differs."""
    for branch in branches:
        source = branch.sources[0] if branch.sources else None
        if branch.joins is None or branch.total is None:
            yield LintFinding("guard", branch.note, source, "let both branches run at a tie", "undecided")
        elif not branch.joins:
            message = f"{words.branch} on data ties here, and its other branch has another value: a jump by {branch.value_gap:.3g}"
            yield LintFinding("jump", message, source, "let the two branches agree where the compared values are equal")
        else:
            move = branch.total.phrase()
            message = f"{words.branch} on data ties here; the other branch has the same value, and moves the gradient by {move}"
            joined = f"{words.call('where')} or {words.call('maximum')}"
            fix = f"write both branches with {joined}, whose kinks are seen and can be weighed"
            if branch.total.size > 0:
                yield LintFinding("guard", message, source, fix)


def _escaped(program: Program) -> Iterator[LintFinding]:
    """Find values that left the framework."""
    for guard in program.guards:
        if guard.kind in ("branch", "constant"):
            continue
        step = program.steps[guard.step]
        depends = any(program.values[r.value].depends_on_point for r in references((step.args, dict(step.kwargs))))
        if depends:
            message = (
                f"a value that depends on the point leaves through .{guard.kind}(): no derivative flows through it"
            )
            fix = f"keep it a tensor: drop .{guard.kind}() on this line and compute with torch's own operations"
        else:
            message = f"a value of the data leaves through .{guard.kind}(): the program holds for this value alone"
            fix = "compute it before the call and pass it as data"
        yield LintFinding("escaped", message, guard.source, fix)


def _detached(program: Program, words: Spelling, path: frozenset[int]) -> Iterator[LintFinding]:
    """Find detached values that the result depends on."""
    for step in program.steps:
        harmless = step.index in program.framework.cancelled(program)
        if operator(step) not in DETACHED or step.index not in path or not operands_depend(program, step) or harmless:
            continue
        trick = _straight_through(program, step, words)
        if trick:
            message = f"a straight-through trick, {trick}: the gradient is that of another function than the value"
            fix = f"name it: a {words.opaque} (no certificate holds for its gradient); if unmeant, drop {words.detach}"
        else:
            message = f"a value that depends on the point is {words.detached}, and the result uses it: backprop is not conservative"
            fix = f"drop {words.detach} on this line, or compute the value outside the function and pass it as data"
        yield LintFinding("detach", message, step.source, fix)


def _straight_through(program: Program, step: Step, words: Spelling) -> str:
    """Recognise x + (y - x).detach() and x - x.detach(), however it is written; empty if it is neither."""
    operand, result = next(references(step.args), None), step.results[0]
    if operand is None or result is None:
        return ""
    origin = program.producer.get(operand.value)
    for use in program.uses.get(result, ()):
        others = [r for r in references(use.args) if r.value != result]
        if operator(use) == "sub" and use.args[0] == operand:
            return f"x - {words.cut('x')}, whose value is 0 and derivative 1"
        if operator(use) == "add" and origin is not None and operator(origin) == "sub" and origin.args[1] in others:
            return f"x + {words.cut('y - x')}, with the value of y and the derivative of x"
    return ""


def _unrecorded(program: Program, path: frozenset[int]) -> Iterator[LintFinding]:
    """Find steps under no_grad that the result depends on, once per line."""
    seen: set[tuple[str, int] | None] = set()
    guards = {g.step for g in program.guards}
    for step in program.steps:
        if step.mode.grad or step.index not in path or step.index in guards or operator(step) in DETACHED:
            continue
        line = (step.source.file, step.source.line) if step.source else None
        if line in seen or not operands_depend(program, step):
            continue
        seen.add(line)
        what = f"`{step.operation}` (step {step.index}) runs under no_grad on values that depend on the point"
        message = f"{what}, and the result uses it"
        fix = "move the line out of the no_grad block, or pass the value as data if it is meant to be constant"
        yield LintFinding("no-grad", message, step.source, fix)


def _from_capture(program: Program) -> Iterator[LintFinding]:
    """Repeat what capture found."""
    for finding in program.findings:
        yield LintFinding(finding.rule, finding.message, finding.source, finding.advice)


def _moving(bench: Bench, rows: tuple[KinkSummary, ...], effects: tuple[Effect, ...]) -> Iterator[LintFinding]:
    """Find the groups of kinks that move the gradient by more than rounding."""
    leaves, names = bench.framework.flatten(bench.x)[0], leaf_names(bench.framework, bench.x)
    zero = frozenset(n for n, leaf in zip(names, leaves, strict=True) if not np.any(bench.framework.numpy(leaf)))
    table = {(row.step, row.kink): row for row in rows}
    for effect in effects:
        if effect.status == "undecided" or effect.largest.size <= bench.rounding:
            continue
        row = table[effect.step, effect.kink]
        causes = list(dict.fromkeys(vanishing_inputs(bench.program, bench.program.steps[row.step], zero, names)))
        where = f" in {row.module}" if row.module else ""
        because = f"; {', '.join(causes)} is all zero" if causes else ""
        message = (
            f"{row.active:,} of {row.elements:,} elements ({format_share(row.share)}) of `{row.operation}`{where} are "
            f"at its kink{because}; its weights {' to '.join(effect.weights)} move the gradient of {effect.moves_most} "
            f"by {effect.largest.phrase(bench.rounding)}, the whole gradient by {effect.total.text(bench.rounding)}"
        )
        yield LintFinding(
            "kink", message, effect.source, fix_kink(row.kind, row.operation, causes, bench.framework.name)
        )


def _jointly(
    bench: Bench, rows: tuple[KinkSummary, ...], comparisons: tuple[Comparison, ...], effects: tuple[Effect, ...]
) -> Iterator[LintFinding]:
    """Find what kinks do to the gradient only together."""
    found = joint_effect(comparisons, effects, bench.rounding)
    if found is None:
        return
    comparison, name = found
    weighed = {(effect.step, effect.kink) for effect in effects}
    active = [row for row in rows if (row.step, row.kink) in weighed]
    operations = list(dict.fromkeys(row.operation for row in active))
    change = comparison.parameters[name]
    message = (
        f"under the convention {comparison.convention} the gradient of {name} moves by {change.phrase(bench.rounding)}, and "
        f"no group of kinks that was weighed moves it alone: {', '.join(f'`{o}`' for o in operations)} act together"
    )
    rules = ", ".join(f"'{o}': ..." for o in operations)
    fix = f"choose their rules together, by at_kinks={{{rules}}}, or move one of them off its kink"
    yield LintFinding("joint", message, active[0].source if active else None, fix)


def _has_rule(framework: str, operation: Nonsmooth, kink: str) -> bool:
    """Tell whether the measured table of a framework says what it does at a kink."""
    return load_convention(framework).rule(operation.name, operation.kinks, kink) is not None


def _without_rule(bench: Bench, rows: tuple[KinkSummary, ...]) -> Iterator[LintFinding]:
    """Find active kinks for which the table of another framework has no rule."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        operation = bench.program.steps[row.step].operation
        known = isinstance(operation, Nonsmooth) and not isinstance(operation, Select)
        if not row.active or not known or (row.operation, row.kink) in seen or row.kind == "guard":
            continue
        assert isinstance(operation, Nonsmooth)
        seen.add((row.operation, row.kink))
        for name in FRAMEWORKS:
            if name == bench.framework.name or _has_rule(name, operation, row.kink):
                continue
            message = (
                f"the table of {name} has no rule for `{row.operation}` ({row.kink}): it keeps the framework's own"
            )
            fix = f"measure it in {name}, or choose the rule: at_kinks={{'{row.operation}': ...}}"
            yield LintFinding("no-rule", message, row.source, fix)
