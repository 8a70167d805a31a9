"""The text writer: tables for the terminal, and the same as HTML for notebooks."""

from __future__ import annotations

import html
import io
import math
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from nonsmooth.report.table import Table

__all__ = ["format_value", "render", "render_html", "rich_table"]


def format_value(value: Any) -> str:
    """Print a plain value shortly.

    >>> format_value(0.123456), format_value(None), format_value(float("inf")), format_value(1797), format_value(1e-12)
    ('0.1235', '-', 'none', '1,797', '1e-12')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "none" if math.isinf(value) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the terminal; the user's text is printed as it is."""
    view = RichTable(title=Text(table.title), caption=Text(table.note) if table.note else None, title_justify="left", header_style="bold")
    for place, name in enumerate(table.columns):
        numeric = all(isinstance(row[place], int | float | None) for row in table.rows)
        view.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(format_value(value)) for value in row))
    return view


def render(table: Table, width: int = 160) -> str:
    """Print a table as plain text."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, highlight=False, legacy_windows=False).print(rich_table(table))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def render_html(table: Table) -> str:
    """Print a table as HTML, everything that comes from the user escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(format_value(value))}</td>" for value in row) + "</tr>" for row in table.rows
    )
    return f"<table><caption>{html.escape(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
