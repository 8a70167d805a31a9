"""A cost as paragraphs and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain

if TYPE_CHECKING:
    from nonsmooth.cost.cost import Cost
    from nonsmooth.cost.parts import Part

__all__ = ["amount", "cost_document"]

ROWS = 20
"""How many rows a table of the text shows; the JSON has all."""


def amount(number: float) -> str:
    """Print a count shortly and honestly: whole numbers in full up to ten million, then four digits.

    >>> amount(1234567), amount(12345678901), amount(0.5)
    ('1,234,567', '1.235e+10', '0.5')
    """
    if number == int(number) and abs(number) < 1e7:
        return f"{int(number):,}"
    return f"{number:.4g}"


def times(ratio: float | None) -> str:
    """Print a ratio.

    >>> times(2.5), times(None)
    ('2.50', '-')
    """
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 1000 else f"{ratio:,.0f}"


def cost_document(cost: Cost) -> Document:
    """Lay a cost out for reading: the inequality, the ways to differentiate, then the parts of the program."""
    version = f"{cost.framework} {cost.framework_version}".strip()
    parts: list[str | Table] = [_headline(cost), _derivatives(cost)]
    parts += [table for table in _tables(cost) if table.rows]
    if cost.own is not None:
        parts += cost.own.document().parts
    if cost.measured is not None:
        parts += cost.measured.document().parts
    return Document(f"Cost of {plain(cost.function)} ({version})", tuple(parts))


def _headline(cost: Cost) -> str:
    """Say in a few lines what was counted, and what bounds it."""
    dear = ", ".join(f"{name} {price:g}" for name, price in cost.prices.items())
    model = f"model {cost.model!r}: every scalar operation costs 1" + (f", but {dear}" if dear else "")
    lines = [
        f"cost(P) = {amount(cost.evaluation)}, cost(backprop(P)) = {amount(cost.backprop)}: {times(cost.ratio)} times "
        f"(counted)",
        f"w_b = {cost.bound:.4g} for the operations that P uses: no reverse sweep over them costs more (proved)",
        f"program: {cost.steps:,} steps, a point of {cost.entries:,} number(s), {cost.kinks:,} active kink(s)",
        model,
    ]
    if cost.uncounted and not cost.evaluation:
        lines = [f"nothing of the program could be counted: {cost.steps:,} steps", model]
    if not cost.holds:
        lines.append("THE COUNTS EXCEED THE BOUND: this is a defect of nonsmooth; please report it")
    if cost.uncounted:
        more = f" and {len(cost.uncounted) - 3} more" if len(cost.uncounted) > 3 else ""
        lines.append(
            f"not counted, as they have no scalar program: {', '.join(map(plain, cost.uncounted[:3]))}{more}; give them one "
            "with nonsmooth.cost.definitions.define"
        )
    return "\n".join(lines)


def _derivatives(cost: Cost) -> Table:
    """Compare the ways to differentiate."""
    rows = [("the value alone", amount(cost.evaluation), times(1.0 if cost.evaluation else None))]
    rows += [(d.what, amount(d.operations), times(d.ratio)) for d in cost.derivatives]
    return Table(
        "What a derivative costs",
        ("what", "operations", "times the value"),
        tuple(rows),
        "counted, the value included; at kinks each direction compares the tangents of what ties.",
    )


def _tables(cost: Cost) -> Iterator[Table]:
    """Give the tables of the parts."""
    yield _parts("By operation", "operation", cost.operations)
    for title, what, parts in (("By line of source", "line", cost.lines), ("By module", "module", cost.modules)):
        if len(parts) > 1:
            yield _parts(title, what, parts)
    yield Table(
        "Scalar operations",
        ("operation", "times", "price", "w_g"),
        tuple((s.operation, amount(s.times), f"{s.price:g}", f"{s.bound:.4g}") for s in cost.scalars[:ROWS]),
        "w_g = [c_g + D_g + 2 max(c_add, c_mul) p_g] / c_g bounds what one operation adds to a reverse sweep.",
    )
    yield Table(
        "Dictionaries",
        ("dictionary", "w_b"),
        tuple((name, f"{bound:.4g}") for name, bound in cost.dictionaries.items()),
        "for every program over the dictionary (proved, under the model's prices).",
    )


def _parts(title: str, what: str, parts: tuple[Part, ...]) -> Table:
    """Show parts of the program."""
    return Table(
        title,
        (what, "steps", "value", "with backprop", "times", "at most"),
        tuple(
            (plain(p.name), p.steps, amount(p.evaluation), amount(p.backprop), times(p.ratio), f"{p.bound:.4g}")
            for p in parts[:ROWS]
        ),
        f"{len(parts) - ROWS} more in the JSON." if len(parts) > ROWS else "",
    )
