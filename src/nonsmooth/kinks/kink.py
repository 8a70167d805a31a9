"""Kinks: where a program is not differentiable at a point, by step and by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.dictionary import Extremum, Kind, Nonsmooth, Operation, Select, Singularity
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Evaluation, Framework, NonsmoothCall, find_framework
from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.kinks.selection import selection
from nonsmooth.program import Guard, Program, Source, Step

__all__ = ["Kink", "KinkRow", "Kinks", "find_kinks"]


@dataclass(frozen=True)
class Kink:
    """One kink: an element of a step at which the operation is not differentiable."""

    operation: str
    kink: str
    index: tuple[int, ...]
    margin: float
    value: float
    can_matter: bool | None
    source: Source | None
    module: str


@dataclass(frozen=True, eq=False)
class KinkRow:
    """The kinks of one name at one step.

    Attributes:
        count: the active elements, those whose margin is at most `tol`.
        elements: all elements of the step at which this kink could be met.
        margin: the smallest distance to the kink of an element that is not active.
        can_matter: how many active elements can change the gradient at all: the result has a
            nonzero derivative with respect to their output, at random weights of all kinks (status `computed`). An upper
            bound: tied entries may still have equal derivatives. None where it is not known.
    """

    step: int
    operation: str
    kind: str
    kink: str
    source: Source | None
    module: str
    count: int
    elements: int
    margin: float
    can_matter: int | None
    mask: Any = field(repr=False, default=None)
    margins: Any = field(repr=False, default=None)
    values: Any = field(repr=False, default=None)
    matters: Any = field(repr=False, default=None)

    def kinks(self, limit: int | None = None) -> Iterator[Kink]:
        """Make the active kinks of the row, one by one."""
        for number, index in enumerate(np.argwhere(self.mask)):
            if limit is not None and number >= limit:
                return
            at = tuple(int(i) for i in index)
            yield Kink(
                self.operation,
                self.kink,
                at,
                float(self.margins[at]),
                float(self.values[at])
                if self.values is not None and self.values.shape == self.mask.shape
                else float("nan"),
                None if self.matters is None else bool(self.matters[at]),
                self.source,
                self.module,
            )


@dataclass(frozen=True, eq=False)
class Kinks:
    """The kinks of a program at a point: a table of rows, elements on demand.

    Rows of the kinds switch, order, cone and spectral are kinks that a selection weighs; `singular` and `jump` rows are
    points where the theory ends; `guard` rows are an `if` on data whose operands tie.
    """

    rows: tuple[KinkRow, ...]
    tol: float
    program: Program = field(repr=False)

    def __getitem__(self, place: int) -> KinkRow:
        """Give a row."""
        return self.rows[place]

    def __iter__(self) -> Iterator[KinkRow]:
        """Walk the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    @property
    def active(self) -> tuple[KinkRow, ...]:
        """The rows with at least one active element."""
        return tuple(r for r in self.rows if r.count)

    @property
    def count(self) -> int:
        """The number of active kinks that a selection weighs, guards included."""
        weighed = {kind.value for kind in Kind if kind.has_weights} | {"guard"}
        return sum(r.count for r in self.rows if r.kind in weighed)

    def __str__(self) -> str:
        """Print the table."""
        from nonsmooth.report.text import render

        return render(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        from nonsmooth.report.text import render_html

        return render_html(self.table())

    def table(self) -> Any:
        """Give the table as a plain result that every writer takes."""
        from nonsmooth.report.table import Table

        return Table(
            title=f"{self.count} active kink(s) in {len(self.active)} of {len(self.rows)} rows",
            columns=("step", "operation", "kind", "kink", "active", "of", "can matter", "margin", "module", "line"),
            rows=tuple(
                (
                    r.step,
                    r.operation,
                    r.kind,
                    r.kink,
                    r.count,
                    r.elements,
                    r.can_matter,
                    r.margin,
                    r.module,
                    str(r.source or ""),
                )
                for r in self.rows
            ),
        )


def find_kinks(f: Callable[..., Any] | Program, x: Any, *data: Any, tol: float = 0.0) -> Kinks:
    """Find where a function is not differentiable at a point, by step of its program.

    A kink is active where |argument of the operation| <= tol (for ties: the gap). Status: `computed`, exact for tol = 0
    up to the rounding that put the value there.

    Args:
        f: the function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.
        tol: the distance within which a kink counts as active, in units of the operation's argument.

    Returns:
        The table; `table[i].kinks()` makes its elements.

    Raises:
        UsageError: tol is negative or not finite.

    >>> import torch
    >>> import nonsmooth as ns
    >>> table = ns.kinks(lambda x: torch.relu(x).sum(), torch.tensor([0.0, 1.0, 0.0]))
    >>> table.count, table[0].operation, [k.index for k in table[0].kinks()]
    (2, 'relu', [(0,), (2,)])

    Source: BoltePauwels2020b.
    """
    if not 0 <= tol < float("inf"):
        raise UsageError(f"tol={tol!r}: the distance to a kink must be a finite number, 0 or more.")
    framework: Framework = f.framework if isinstance(f, Program) else find_framework(x)
    program = f if isinstance(f, Program) else framework.capture(f, x, data)
    seen = framework.evaluate(program, x, data, observe=True)
    assert seen.program is not None
    return kinks_of(framework, seen, x, data, tol)


def kinks_of(framework: Framework, seen: Evaluation, x: Any, data: tuple[Any, ...], tol: float) -> Kinks:
    """Build the table from an observed evaluation."""
    program = seen.program
    assert program is not None
    drafts = [(c, *draft) for c in seen.calls for draft in _drafts(c, tol)]
    weighed = {
        c.step.index for c, _, _, mask, _ in drafts if isinstance(c.step.operation, Nonsmooth) and bool(mask.any())
    }
    cotangents = _cotangents(framework, program, x, data, weighed) if weighed else {}
    rows = [_row(framework, c, kind, kink, mask, margins, cotangents) for c, kind, kink, mask, margins in drafts]
    rows += _guard_rows(framework, program, x, data, tol)
    return Kinks(tuple(sorted(rows, key=lambda r: r.step)), tol, program)


def _drafts(met: NonsmoothCall, tol: float) -> Iterator[tuple[str, str, Any, Any]]:
    """Give kind, kink, active mask and margins for every kink of one step."""
    operation: Operation = met.step.operation
    if isinstance(operation, Singularity):
        for kink, margins in operation.margins(met.call).items():
            yield operation.kind.value, kink, margins <= tol, margins
        return
    assert isinstance(operation, Nonsmooth)
    active, all_margins = operation.active(met.call, tol), operation.margins(met.call)
    for kink, margins in all_margins.items():
        yield operation.kind.value, kink, active[kink], margins
    if isinstance(operation, Select):
        apart = met.call.attributes["tie"] & ~operation.joins(met.call, tol)
        if bool(apart.any()):
            yield Kind.JUMP.value, "branches do not join", apart, all_margins["tie"]


def _cotangents(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...], steps: set[int]
) -> Mapping[int, Any]:
    """Give the derivative of the result with respect to the outputs of steps, at random weights of all kinks.

    The derivative is multi-affine in the weights: if it vanishes at random ones, it vanishes (almost surely) at all.
    """
    evaluation = framework.evaluate(program, x, data, select=selection("random", framework.name), observe=True)
    wanted = [c for c in evaluation.calls if c.step.index in steps]
    return dict(
        zip([c.step.index for c in wanted], framework.cotangents(evaluation, [c.output for c in wanted]), strict=True)
    )


def _row(
    framework: Framework,
    met: NonsmoothCall,
    kind: str,
    kink: str,
    mask: Any,
    margins: Any,
    cotangents: Mapping[int, Any],
) -> KinkRow:
    """Summarise one kink of one step."""
    step, numpy = met.step, framework.numpy
    active, far = np.atleast_1d(numpy(mask)), np.atleast_1d(numpy(margins))
    active, far = np.broadcast_arrays(active, far)
    rest = far[~active]
    finite = rest[np.isfinite(rest)]
    matters = None
    cotangent = cotangents.get(step.index)
    if cotangent is not None and isinstance(step.operation, Nonsmooth):
        reaches = np.atleast_1d(numpy(cotangent)) != 0
        try:
            matters = active & (
                reaches
                if reaches.shape == active.shape
                else reaches.reshape((*reaches.shape, *(1,) * (active.ndim - reaches.ndim)))
            )
        except ValueError:
            matters = None
    values = numpy(met.call.operands[1 if isinstance(step.operation, Select) else 0])
    return KinkRow(
        step=step.index,
        operation=step.operation.name,
        kind=kind,
        kink=kink,
        source=step.source,
        module=step.module,
        count=int(active.sum()),
        elements=int(active.size),
        margin=float(finite.min()) if finite.size else float("inf"),
        can_matter=None if matters is None else int(matters.sum()),
        mask=active,
        margins=far,
        values=np.atleast_1d(values) if isinstance(step.operation, Extremum | Select) is False else None,
        matters=matters,
    )


def _guard_rows(framework: Framework, program: Program, x: Any, data: tuple[Any, ...], tol: float) -> list[KinkRow]:
    """Give a row for every `if` on values that depend on the point: the distance of what it compares."""
    tying = plan_of(program).compared
    branches: list[Guard] = [g for g in program.guards if g.kind == "branch"]
    guards = [(g, tuple(c for c in g.comparisons if c in tying)) for g in branches]
    guards = [(guard, comparisons) for guard, comparisons in guards if comparisons]
    if not guards:
        return []
    rows = []
    compared = framework.compared(program, x, data, frozenset(c for _, comparisons in guards for c in comparisons))
    for guard, comparisons in guards:
        step: Step = program.steps[guard.step]
        margins = np.concatenate([np.atleast_1d(compared[c]).ravel() for c in comparisons])
        mask = margins <= tol
        rest = margins[~mask]
        rows.append(
            KinkRow(
                step=guard.step,
                operation="if",
                kind="guard",
                kink="tie",
                source=guard.source,
                module=step.module,
                count=int(mask.sum()),
                elements=int(mask.size),
                margin=float(rest.min()) if rest.size else float("inf"),
                can_matter=None,
                mask=mask,
                margins=margins,
            )
        )
    return rows
