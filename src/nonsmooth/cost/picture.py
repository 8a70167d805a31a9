"""The picture of a cost: where the operations are, and what each way to differentiate costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nonsmooth.report.picture import Bar, draw_bars

if TYPE_CHECKING:
    from nonsmooth.cost.cost import Cost
    from nonsmooth.cost.own_backward import OwnCost
    from nonsmooth.cost.parts import Part

__all__ = ["draw_cost"]

ROWS = 12
"""How many lines and operations are drawn: the dearest."""


def draw_cost(path: Path, cost: Cost) -> None:
    """Draw operations of value and reverse sweep by line and by operation, and the ways to differentiate.

    The bars of the parts are stacked: the value, and what the reverse sweep adds; a tick stands at the bound.
    """
    places = [("by line of source", cost.lines), ("by module", cost.modules)]
    panels = [(title, _bars(parts)) for title, parts in places if len(parts) > 1]
    panels.append(("by operation", _bars(cost.operations)))
    if cost.own is not None and len(cost.own.lines) > 1:
        panels.append((f"what {cost.framework} runs itself, by line or module", _own_bars(cost.own)))
    ways = tuple(Bar(d.what, (d.operations,), note=_times(d.ratio)) for d in cost.derivatives)
    value = Bar("the value alone", (cost.evaluation,), note="1")
    draw_bars(
        path,
        f"Cost of {cost.function}",
        f"Scalar operations counted under the model {cost.model!r}; the tick is w_b times the value: the proved bound.\n"
        f"cost(backprop(P)) / cost(P) = {_times(cost.ratio)}, w_b = {cost.bound:.4g}",
        [*((title, bars, False) for title, bars in panels), ("ways to differentiate", (value, *ways), True)],
        ("the value", "what the reverse sweep adds"),
        "operations",
    )


def _bars(parts: tuple[Part, ...]) -> tuple[Bar, ...]:
    """Give the dearest parts as bars."""
    shown = [p for p in parts if p.backprop][:ROWS]
    return tuple(
        Bar(p.name, (p.evaluation, p.backprop - p.evaluation), p.bound * p.evaluation, _times(p.ratio)) for p in shown
    )


def _own_bars(own: OwnCost) -> tuple[Bar, ...]:
    """Give the dearest lines of the framework's own passes as bars; the tick is what the theorem's sweep needs at most."""
    shown = sorted(own.lines, key=lambda line: -(line.forward + line.backward))[:ROWS]
    return tuple(
        Bar(line.name, (line.forward, line.backward), line.evaluation + line.allowed)
        for line in shown
        if line.forward + line.backward
    )


def _times(ratio: float | None) -> str:
    """Print a ratio."""
    return "-" if ratio is None else f"{ratio:,.2f}" if ratio < 100 else f"{ratio:,.0f}"
