"""The framework's own backward beside the scalar reverse sweep: what it runs, line by line, and where it exceeds it.

The theorem is about the scalar sweep, in which a view of an array is another name of the same numbers and a cotangent is
added where it arrives. A framework differentiates arrays: the backward of an index is an array of zeros, and arrays are
added whole. What it runs is counted by the same scalar operations, and attributed to the line whose forward it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from nonsmooth.cost.bound import bound_of
from nonsmooth.cost.definitions import tally_of
from nonsmooth.cost.model import CostModel, as_model
from nonsmooth.cost.own_findings import findings_of
from nonsmooth.cost.sweeps import CountedStep, count_steps
from nonsmooth.cost.tally import Tally, Whole
from nonsmooth.errors import RegistrationError, UsageError
from nonsmooth.frameworks.own_backward import OwnBackward, OwnCall
from nonsmooth.program import Finding, Program, Source, Step
from nonsmooth.program.shaped import ShapedCall
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document

__all__ = ["OwnCost", "OwnLine", "compare_backward"]


@dataclass(frozen=True)
class OwnLine:
    """What the framework runs for one line of the user's program, and what the scalar sweep over it counts.

    Attributes:
        name: the file and the number of the line; of layers that no line of the function calls, their module's path.
        text: the text of the line.
        forward, backward: what the framework runs in its two passes, priced.
        again: the part of `backward` that evaluates once more what `forward` had.
        writes: the numbers that both passes store in new or changed memory.
        fills: those of them that are zeros around the cotangent of a view.
        evaluation, pull: what the program itself and its scalar reverse sweep count.
        bound: w_b of the scalar operations of the line.
        allowed: the most that the theorem's sweep would need: (w_b - 1) evaluation + c_add for each entry of a result.
    """

    name: str
    text: str
    forward: float
    backward: float
    again: float
    writes: int
    fills: int
    evaluation: float
    pull: float
    bound: float
    allowed: float

    @property
    def excess(self) -> float:
        """What the framework's backward counts beyond the scalar sweep's; negative where it counts less."""
        return self.backward - self.pull


@dataclass(frozen=True)
class OwnCost(Reported):
    """What a framework runs for the value and the gradient, beside the theorem's sweep.

    Attributes:
        framework: its name.
        lines: the lines, the greatest excess first.
        findings: where the framework's backward exceeds what the theorem allows, or evaluates again, with what to do.
        uncounted: steps and kernels without a scalar program, by name, pass and line: the figures leave them out.
        failed: why the framework ran no backward; "" where it did.
    """

    framework: str
    lines: tuple[OwnLine, ...] = ()
    findings: tuple[Finding, ...] = ()
    uncounted: tuple[str, ...] = ()
    failed: str = ""

    @property
    def forward(self) -> float:
        """What the forward pass counts."""
        return _total(line.forward for line in self.lines)

    @property
    def backward(self) -> float:
        """What the backward pass counts."""
        return _total(line.backward for line in self.lines)

    @property
    def again(self) -> float:
        """What the backward pass evaluates once more."""
        return _total(line.again for line in self.lines)

    @property
    def writes(self) -> int:
        """The numbers that both passes store."""
        return sum(line.writes for line in self.lines)

    @property
    def fills(self) -> int:
        """The zeros that are stored around cotangents of views."""
        return sum(line.fills for line in self.lines)

    @property
    def evaluation(self) -> float:
        """What the program counts."""
        return _total(line.evaluation for line in self.lines)

    @property
    def pull(self) -> float:
        """What the scalar reverse sweep counts."""
        return _total(line.pull for line in self.lines)

    @property
    def ratio(self) -> float | None:
        """The overhead of the framework, (forward + backward) / cost(P); None where anything is not counted, or P is 0."""
        if self.uncounted or not self.evaluation:
            return None
        return (self.forward + self.backward) / self.evaluation

    def document(self) -> Document:
        """Lay the comparison out for reading."""
        from nonsmooth.cost.own_document import own_document

        return own_document(self)


@dataclass
class _Sum:
    """A line, or a module that no line of the function's calls, while it is added up."""

    source: Source | None
    module: str = ""
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    names: set[str] = field(default_factory=set)
    wholes: list[Whole] = field(default_factory=list)
    entries: int = 0
    known: bool = True

    @property
    def name(self) -> str:
        """Name the line; where no line of the function's is known, the module."""
        if self.module:
            return f"module {self.module}"
        return self.source.place if self.source else "an unknown line"

    def add(self, name: str, amount: float) -> None:
        """Add to a count."""
        self.counts[name] += amount

    def line(self, model: CostModel) -> OwnLine:
        """Give the line."""
        bound = bound_of(self.names, self.wholes, model)
        allowed = (bound - 1) * self.counts["evaluation"] + model.price("add") * self.entries
        name, text = self.name, "" if self.module or not self.source else self.source.text
        numbers = {**self.counts, "writes": int(self.counts["writes"]), "fills": int(self.counts["fills"])}
        return OwnLine(name=name, text=text, bound=bound, allowed=allowed, **numbers)  # type: ignore[arg-type]


_COUNTS: tuple[str, ...] = ("forward", "backward", "again", "writes", "fills", "evaluation", "pull")


def compare_backward(
    program: Program,
    x: Any,
    data: tuple[Any, ...] = (),
    steps: Sequence[CountedStep] | None = None,
    model: CostModel | None = None,
) -> OwnCost:
    """Count what the framework itself runs for the value and the gradient, beside the scalar sweep, line by line.

        excess = backward of the framework - pull of the sweep
        a finding where  backward > (w_b - 1) evaluation + c_add (entries of the line's results)

    Status: counted from the shapes of what ran once at the point; exact under the model but for what `uncounted` names.

    Args:
        program: the captured function; x, data: where it is differentiated.
        steps: its steps as `count_steps` gives them.
        model: what a scalar operation costs; 1 each if it is left out.

    >>> import torch
    >>> import nonsmooth as ns
    >>> def f(x):
    ...     s = x.new_zeros(())
    ...     for i in range(len(x)):
    ...         s = s + torch.relu(x[i])
    ...     return s
    >>> x = torch.ones(100)
    >>> own = compare_backward(ns.capture(f, x), x)
    >>> own.forward, own.backward, own.ratio             # n relus and n additions; n/2 + 1
    (200, 10000, 51.0)
    >>> own.findings[0].rule
    'dense-backward'

    Source: derived, docs/theory/cost.md.
    """
    prices = model or as_model(None)
    steps = count_steps(program) if steps is None else steps
    framework = str(program.framework.name)
    try:
        own: OwnBackward = program.framework.own_backward(program, x, tuple(data))
    except UsageError as error:
        return OwnCost(framework, failed=str(error))
    table: dict[object, _Sum] = {}

    def at(found: Step | OwnCall) -> _Sum:
        source, module = found.source, found.module if found.source in (None, own.outside) else ""
        key = module or ((source.file, source.line) if source else None)
        return table.setdefault(key, _Sum(source, module))

    for step in steps:
        _add_step(at(step.step), program, step, prices)
    missing = [_named(s.step.operation.name, "program", at(s.step)) for s in steps if s.tally is None]
    missing += [_named(e.call.operation, e.phase, at(e)) for e in own.entries if not _add_call(at(e), e, prices)]
    sums = sorted(table.values(), key=lambda s: s.counts["pull"] - s.counts["backward"])
    lines = [s.line(prices) for s in sums]
    whole = all(step.tally is not None for step in steps)
    findings: list[Finding] = []
    for s, line in zip(sums, lines, strict=True):  # where nothing is counted may stand the backward of what is not
        counted = s.known and (whole or bool(line.evaluation or line.fills))
        findings += findings_of(line, s.source, s.module, framework, counted=counted)
    shown = tuple(line for line in lines if any(getattr(line, name) for name in _COUNTS))
    return OwnCost(framework, shown, tuple(findings), tuple(dict.fromkeys(missing)))


def _add_step(line: _Sum, program: Program, step: CountedStep, model: CostModel) -> None:
    """Add what the program and the scalar sweep count for a step."""
    values = [program.values[v] for v in step.step.results if v is not None]
    line.entries += sum(prod(v.shape) for v in values if v.differentiable and v.depends_on_point)
    if step.tally is None or step.sweep is None:
        line.known = False
        return
    line.add("evaluation", model.total(step.sweep.evaluation))
    line.add("pull", model.total(step.sweep.pull))
    line.names.update(name for name, _ in step.tally.scalars)
    line.wholes += step.tally.wholes


def _add_call(line: _Sum, entry: OwnCall, model: CostModel) -> bool:
    """Add what the framework ran; tell whether it could be counted."""
    line.add("writes", entry.writes)
    line.add("fills", entry.fills)
    tally = _tally(entry.call)
    if tally is None:
        return False
    amount = model.total(tally.sweep().evaluation)
    line.add(entry.phase, amount)
    line.add("again", amount if entry.again else 0)
    return True


def _named(operation: str, where: str, line: _Sum) -> str:
    """Name what could not be counted."""
    return f"{operation} ({where}, {line.name})"


def _tally(call: ShapedCall) -> Tally | None:
    """Count a call; a kernel of a record's name with other arguments than the record's is not counted."""
    try:
        return tally_of(call)
    except (RegistrationError, ValueError, LookupError, TypeError):
        return None


def _total(amounts: Iterator[float]) -> float:
    """Add amounts up."""
    return sum(amounts)
