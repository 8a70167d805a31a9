"""The framework's own backward beside the scalar sweep, as paragraphs and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nonsmooth.cost.document import ROWS, amount, times
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain

if TYPE_CHECKING:
    from nonsmooth.cost.own_backward import OwnCost

__all__ = ["own_document"]


def own_document(own: OwnCost) -> Document:
    """Lay the comparison out for reading: the figures, what is to be mended, the lines."""
    title = f"The backward pass of {own.framework}"
    if own.failed:
        return Document(title, (f"{title} could not be run: {plain(own.failed)}",))
    parts: list[str | Table] = [_headline(own)]
    parts += [f"{f.rule} ({plain(str(f.source or 'an unknown line'))}): {f.message}; {f.advice}" for f in own.findings]
    rows = tuple(
        (
            plain(line.name),
            amount(line.forward),
            amount(line.backward),
            amount(line.pull),
            amount(line.excess),
            amount(line.writes),
            amount(line.fills),
        )
        for line in own.lines[:ROWS]
    )
    note = f"{len(own.lines) - ROWS} more in the JSON." if len(own.lines) > ROWS else ""
    columns = ("line", "forward", "backward", "scalar sweep", "excess", "stores", "zeros")
    if rows:
        parts.append(Table(f"What {own.framework} runs, by line", columns, rows, note))
    return Document(title, tuple(parts))


def _headline(own: OwnCost) -> str:
    """Give the figures of the whole."""
    lines = [
        f"{own.framework} runs {amount(own.forward)} operations forward and {amount(own.backward)} backward: "
        f"{times(own.ratio)} times cost(P) (counted)",
        f"the scalar reverse sweep adds {amount(own.pull)} to {amount(own.evaluation)}; the excess of {own.framework} is "
        f"{amount(own.backward - own.pull)}",
        f"numbers stored: {amount(own.writes)}, of which {amount(own.fills)} zeros around cotangents of views",
    ]
    if own.again:
        lines.append(f"evaluated again: {amount(own.again)}")
    if own.uncounted:
        more = f" and {len(own.uncounted) - 5} more" if len(own.uncounted) > 5 else ""
        lines.append(f"not counted: {', '.join(map(plain, own.uncounted[:5]))}{more}")
    return "\n".join(lines)
