"""One self-contained HTML page: nothing is loaded, nothing runs, and every text is only text.

A page is plain data (numbers, texts, tables, heat maps, listings of source, curves); the template lays it out. All texts
are escaped by jinja2 and cleaned of what a browser would not show; drawings are SVG made of numbers alone.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined

from nonsmooth.report.table import Table
from nonsmooth.report.text import format_value, plain

__all__ = ["Badge", "Curve", "Heat", "Image", "Line", "Listing", "Page", "Part", "Section", "render_page"]

LETTERS = 400
"""The longest text that is shown whole."""


@dataclass(frozen=True)
class Badge:
    """The verdict: a word, its tone ("good", "bad" or "open"), and a sentence."""

    word: str
    tone: str
    text: str


@dataclass(frozen=True)
class Heat:
    """A map of numbers in [0, 1] (None: nothing there), each with the text in its cell; `folded` rows are hidden first."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: int = 0


@dataclass(frozen=True)
class Line:
    """A line of source with what was found there, and the share of its elements that it concerns."""

    number: int
    text: str
    note: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Listing:
    """A part of a source file."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Curve:
    """A function of one variable with lines through its middle: the one-sided slopes, and a slope that was claimed."""

    title: str
    points: tuple[tuple[float, float], ...]
    left: float | None
    right: float | None
    claimed: float | None
    note: str = ""


@dataclass(frozen=True)
class Image:
    """A picture as the bytes of a PNG, which the page carries within itself, and what it shows."""

    title: str
    content: bytes
    note: str = ""


Part: TypeAlias = str | Table | Heat | Listing | Curve | Image


@dataclass(frozen=True)
class Section:
    """A title and its parts."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """A title, the verdict, the main numbers, and sections."""

    title: str
    subtitle: str
    badges: tuple[Badge, ...]
    numbers: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def render_page(page: Page) -> str:
    """Write a page as one HTML file that loads nothing.

    >>> page = Page("<b>", "", (Badge("certified", "good", "it is"),), (), (Section("s", ("<script>",)),))
    >>> html = render_page(page)
    >>> "<script>" in html, "&lt;script&gt;" in html, "default-src 'none'" in html
    (False, True, True)
    """
    environment = Environment(
        loader=PackageLoader("nonsmooth.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "clean": clean,
        "cell": lambda value: clean(format_value(value)),
        "draw": drawing,
        "base64": _base64,
    }
    environment.tests |= {kind.__name__: _is(kind) for kind in (str, Table, Heat, Listing, Curve, Image)}
    return environment.get_template("report.html.j2").render(page=page)


def _is(kind: type) -> Callable[[Any], bool]:
    """Give the test for a kind of part."""
    return lambda part: isinstance(part, kind)


def _base64(content: bytes) -> str:
    """Write bytes as letters."""
    return base64.b64encode(content).decode("ascii")


def clean(text: Any) -> str:
    """Make a text of one that may hold anything: nothing that is obeyed instead of shown, and no more than a screenful.

    >>> clean("a\u202eb"), len(clean("c" * 500))
    ('a�b', 400)
    """
    shown = plain(str(text))
    return shown if len(shown) <= LETTERS else shown[: LETTERS - 1] + "…"


WIDTH, HEIGHT, MARGIN = 320.0, 190.0, 14.0
"""The size of a drawing, in its own units."""


def drawing(curve: Curve) -> dict[str, Any]:
    """Give the lines of a curve as SVG paths, and the scale of its axes."""
    xs, ys = [p[0] for p in curve.points], [p[1] for p in curve.points if math.isfinite(p[1])]
    low, high = (min(ys), max(ys)) if ys else (0.0, 1.0)
    reach = max(abs(xs[0]), abs(xs[-1])) if xs else 1.0
    middle = next((y for x, y in curve.points if x == 0 and math.isfinite(y)), (low + high) / 2)
    spread = max(high - low, 1e-12 * max(abs(middle), 1e-300)) or 1.0

    def place(x: float, y: float) -> str:
        right = MARGIN + (x + reach) / (2 * reach) * (WIDTH - 2 * MARGIN)
        down = HEIGHT - MARGIN - (y - low) / spread * (HEIGHT - 2 * MARGIN)
        return f"{right:.2f} {min(max(down, -HEIGHT), 2 * HEIGHT):.2f}"

    def ray(slope: float | None, start: float, stop: float) -> str:
        if slope is None or not math.isfinite(slope):
            return ""
        return f"M {place(start, middle + slope * start)} L {place(stop, middle + slope * stop)}"

    return {
        "curve": _path([place(x, y) for x, y in curve.points if math.isfinite(y)]),
        "left": ray(curve.left, -reach, 0.0),
        "right": ray(curve.right, 0.0, reach),
        "claimed": ray(curve.claimed, -0.8 * reach, 0.8 * reach),
        "middle": place(0.0, middle).split(),
        "width": WIDTH,
        "height": HEIGHT,
        "reach": f"{reach:.3g}",
        "low": f"{low:.6g}",
        "high": f"{high:.6g}",
    }


def _path(places: Sequence[str]) -> str:
    """Join places to a path."""
    return "M " + " L ".join(places) if places else ""
