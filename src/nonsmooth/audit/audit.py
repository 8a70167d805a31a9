"""The audit: one point, one report.

It gathers the kinks of a program at a point, what the choice at them does to the gradient, and what else a user should
know before trusting it. Results are plain; writers turn them into text, JSON, HTML and pictures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.audit.effects import Bench, compare_conventions, measure_effects, tied_branches
from nonsmooth.audit.gradients import bad_entries, leaf_names, norm
from nonsmooth.audit.lint import lint
from nonsmooth.audit.result import (
    Change,
    Comparison,
    Cost,
    Effect,
    KinkSummary,
    LintFinding,
    OperationUse,
    Place,
    ProgramSummary,
    TiedBranch,
)
from nonsmooth.audit.slices import Slice, measure_slices
from nonsmooth.audit.summary import by_line, by_module, summarise_kinks, summarise_operations, summarise_program
from nonsmooth.audit.verdict import Verdict, judge
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.errors import UsageError
from nonsmooth.kinks.kink import Kinks, find_kinks
from nonsmooth.program import Program
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.table import FORMAT_VERSION

__all__ = ["Audit", "run_audit"]

TIMED_RUNS = 3
"""The framework's gradient is timed this often; the median counts."""


@dataclass(frozen=True)
class Audit:
    """What an audit found at one point: plain results, each with its status.

    Attributes:
        value: the value of the function.
        gradient_norm: the norm of the framework's gradient.
        bad_entries: how many of its entries are nan or inf.
        tol: the distance within which a kink counts as active.
        rounding: relative changes up to this are rounding.
        program: the program and its proof of capture.
        operations: the operations of the dictionary that it uses.
        kinks: the kinks by step; `lines` and `modules` add them up.
        conventions: the gradient under each convention against the framework's.
        effects: what each group of kinks does alone; `effects_note` says if some were left out.
        branches: the other programs that are active, as an `if` on data ties.
        verdict: whether the framework's gradient equals a certified subgradient, and which lines part them if not.
        findings: lint, each with its line and its fix.
        costs: wall times.
        slices: the function along lines through the point, with its one-sided slopes.
    """

    format_version: int
    function: str
    framework: str
    framework_version: str
    value: float
    gradient_norm: float
    bad_entries: int
    tol: float
    rounding: float
    program: ProgramSummary
    operations: tuple[OperationUse, ...]
    kinks: tuple[KinkSummary, ...]
    lines: tuple[Place, ...]
    modules: tuple[Place, ...]
    conventions: tuple[Comparison, ...]
    effects: tuple[Effect, ...]
    effects_note: str
    branches: tuple[TiedBranch, ...]
    verdict: Verdict
    findings: tuple[LintFinding, ...]
    costs: tuple[Cost, ...]
    slices: tuple[Slice, ...] = ()

    @property
    def moved_most(self) -> Mapping[str, tuple[str, Change]]:
        """For each parameter, the group of kinks that moves its gradient most, and by how much."""
        found: dict[str, tuple[str, Change]] = {}
        for effect in self.effects:
            for name, change in effect.parameters.items():
                if name not in found or change.size > found[name][1].size:
                    found[name] = (effect.group, change)
        return found

    def find(self, rule: str) -> tuple[LintFinding, ...]:
        """Give the findings of one rule."""
        return tuple(f for f in self.findings if f.rule == rule)

    def __str__(self) -> str:
        """Print the report, at most 100 columns wide."""
        from nonsmooth.audit.document import audit_document
        from nonsmooth.report.text import render

        return render(audit_document(self), width=100)

    def __repr__(self) -> str:
        """Name the audit in one line."""
        active = sum(row.active for row in self.kinks)
        return f"<Audit of {self.function!r}: {active} active element(s), {len(self.findings)} finding(s)>"

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        from nonsmooth.audit.document import audit_document
        from nonsmooth.report.text import render_html

        return render_html(audit_document(self))

    def to_json(self) -> str:
        """Write the audit as strict JSON; nan and infinities are strings."""
        from nonsmooth.report.json_text import to_json

        return to_json(self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt, report.html and the pictures into a folder; give what was written."""
        from nonsmooth.audit.page import audit_page
        from nonsmooth.audit.pictures import audit_pictures
        from nonsmooth.report.files import write_report

        return write_report(folder, self, audit_pictures(self), page=audit_page([self], ["the point"]))


def run_audit(
    f: Callable[..., Any] | Program,
    x: Any,
    *data: Any,
    tol: float = 0.0,
    sets: bool = True,
    progress: Report | None = None,
) -> Audit:
    """Report where a function is not differentiable at a point, and what that does to its gradient.

    For each convention c and each group of kinks G it gives

        ||g_c - g_fw|| / ||g_fw||   and   ||g_(G = 1) - g_(G = 0)|| / ||g_fw||,

    in total and per parameter, g_fw the framework's gradient and all kinks outside G left to the framework. The verdict
    compares g_fw with certified subgradients, then asks Clarke's subdifferential. Status: `computed`; the proof of
    capture is `sampled`, times are `measured`. Nothing that is passed in is changed.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point: a tensor, or a dict, list or tuple of them.
        data: what is not differentiated.
        tol: the distance within which a kink counts as active, in units of the operation's argument. Weights act on
            exact kinks alone, whatever tol is.
        sets: whether Clarke's subdifferential is asked where g_fw is none of the certified subgradients: of tens of
            thousands of kinks that takes some tens of seconds.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The audit; `print(audit)`, `audit.to_json()`, `audit.save(folder)`.

    Raises:
        PointError, ResultError, CaptureError, UsageError: what was found, on which line, and what to do.

    >>> import torch
    >>> import nonsmooth as ns
    >>> audit = ns.audit(lambda t: torch.relu(t) - torch.relu(-t) + t, torch.tensor(0.0))
    >>> [(c.convention, c.total.relative) for c in audit.conventions[3:6]]
    [('0.0', 0.0), ('1.0', 2.0), ('0.5', 1.0)]
    >>> audit.effects[0].total.relative
    1.0
    >>> audit.verdict.word, audit.verdict.total.relative
    ('artifact', 1.0)

    Source: BoltePauwels2020b, KakadeLee2018.
    """
    report = progress or silent
    report("capture", 0, 1)
    start = time.perf_counter()
    program, framework = as_program(f, x, data)
    times = [] if isinstance(f, Program) else [("capture, with its proof", time.perf_counter() - start)]
    report("kinks", 0, 1)
    start = time.perf_counter()
    table = find_kinks(program, x, *data, tol=tol)
    times.append(("kinks", time.perf_counter() - start))
    if len(leaf_names(framework, x)) != len(table.program.inputs):
        raise UsageError(
            "audit names the parts of the point by path: pass a tensor, or dicts, lists and tuples of them."
        )
    return _judge(Bench(framework, table.program, x, data, report), table, times, sets)


def _judge(bench: Bench, table: Kinks, times: list[tuple[str, float]], sets: bool) -> Audit:
    """Weigh the kinks that were found, and gather the results."""
    program, framework, rows = bench.program, bench.framework, summarise_kinks(table)
    native = bench.time_native(TIMED_RUNS)
    comparisons = compare_conventions(bench)
    effects, note = measure_effects(bench, rows)
    branches = tied_branches(bench, rows)
    start = time.perf_counter()
    verdict = judge(bench, rows, sets)
    times.append((f"verdict, {verdict.directions} direction(s)", time.perf_counter() - start))
    start = time.perf_counter()
    slices = measure_slices(bench, comparisons)
    times.append(("slices", time.perf_counter() - start))
    times += [(f"gradient under {c.convention}", c.seconds) for c in comparisons]
    return Audit(
        format_version=FORMAT_VERSION,
        function=str(getattr(program.function, "__qualname__", type(program.function).__name__)),
        framework=framework.name,
        framework_version=str(getattr(framework, "version", "")),
        value=bench.value,
        gradient_norm=norm(bench.reference),
        bad_entries=bad_entries(bench.reference),
        tol=float(table.tol),
        rounding=bench.rounding,
        program=summarise_program(program, leaf_names(framework, bench.x)),
        operations=summarise_operations(program),
        kinks=rows,
        lines=by_line(rows),
        modules=by_module(rows),
        conventions=comparisons,
        effects=effects,
        effects_note=note,
        branches=branches,
        verdict=verdict,
        findings=lint(bench, rows, comparisons, effects, branches),
        costs=(
            Cost(f"one gradient by {framework.name}'s own rules", native, 1.0),
            *(Cost(what, seconds, seconds / native) for what, seconds in times),
        ),
        slices=slices,
    )
