"""The text writer: tables for the terminal, and the same as HTML for notebooks.

What comes from the user (names, paths, lines of source) is printed as it stands, never read as markup; characters that
a terminal obeys instead of showing are replaced.
"""

from __future__ import annotations

import html
import io
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from nonsmooth.report.table import Document, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["format_share", "format_value", "plain", "render", "render_html", "renderable"]

_NUMBER = re.compile(r"^[~<]?-?[\d,.]+(e[-+]?\d+)?( ?%)?$|^-$|^(nan|inf|none|= 0)$")
"""A cell that is read as a number, and set to the right."""


def plain(text: str) -> str:
    r"""Replace what a terminal would obey: control, format and surrogate characters; line breaks become spaces.

    >>> plain("a\x1b[31mb\tc\u202ed")
    'a�[31mb c�d'
    """
    shown = (" " if c in "\t\n\r" else "�" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    return "".join(shown)


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
    return f"{value:,}" if isinstance(value, int) else plain(str(value))


def format_share(value: float | None, *, rounding: float = 0.0) -> str:
    """Print a share or a relative change in percent; `~0` is below what rounding makes.

    >>> format_share(0.1396), format_share(0.0), format_share(2e-8, rounding=1e-6), format_share(None)
    ('14.0 %', '0', '~0', '-')
    >>> format_share(0.0004), format_share(12.5), format_share(float("nan"))
    ('0.04 %', '1,250 %', 'nan')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) <= rounding:
        return "~0"
    percent = 100 * value
    if abs(percent) >= 1000:
        return f"{percent:,.0f} %" if abs(percent) < 1e7 else f"{percent:.2g} %"
    return f"{percent:.1f} %" if abs(percent) >= 1 else f"{percent:.1g} %"


def renderable(result: Table | Document) -> RenderableType:
    """Give a table or a document as rich prints it; the user's text is printed as it is."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if isinstance(result, Table):
        parts = [Text(plain(result.title), style="bold"), _grid(result)]
        return Group(*parts, *[Text(plain(result.note), style="dim")] * bool(result.note))
    body: list[RenderableType] = [Text(plain(result.title), style="bold")]
    for part in result.parts:
        lines = Text("\n".join(plain(line) for line in part.split("\n"))) if isinstance(part, str) else renderable(part)
        body.append(Padding(lines, (1, 0, 0, 0)))
    return Group(*body)


def _grid(table: Table) -> RenderableType:
    """Lay the columns and rows of a table out, numbers to the right."""
    from rich.table import Table as Grid
    from rich.text import Text

    view = Grid(header_style="bold")
    for place, name in enumerate(table.columns):
        numeric = all(_NUMBER.match(format_value(row[place])) for row in table.rows)
        view.add_column(Text(plain(name)), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(format_value(value)) for value in row))
    return view


def render(result: Table | Document, width: int = 160) -> str:
    """Print a table or a document as plain text."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, no_color=True, highlight=False, markup=False, legacy_windows=False)
    console.print(renderable(result))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def render_html(result: Table | Document) -> str:
    """Print a table or a document as HTML, everything that comes from the user escaped."""
    if isinstance(result, Document):
        inner = "".join(render_html(p) if isinstance(p, Table) else f"<pre>{_escape(p)}</pre>" for p in result.parts)
        return f"<section><h3>{_escape(result.title)}</h3>{inner}</section>"
    head = "".join(f"<th>{_escape(name)}</th>" for name in result.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(format_value(value))}</td>" for value in row) + "</tr>" for row in result.rows
    )
    note = f"<p>{_escape(result.note)}</p>" if result.note else ""
    caption = f"<caption>{_escape(result.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _escape(text: str) -> str:
    """Escape text for HTML, line breaks kept."""
    return html.escape("\n".join(plain(line) for line in text.split("\n")))
