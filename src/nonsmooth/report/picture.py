"""The picture writer: maps and histograms as PNG, drawn by matplotlib without a display.

Colours are told apart by colour-blind readers (a sequential map from light to dark; the Okabe-Ito palette), and every
cell of a map also carries its number. Names from the user are drawn as they stand, never read as formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nonsmooth.report.text import plain

__all__ = ["Bar", "Panel", "Ridge", "draw_bars", "draw_maps", "draw_ridges", "label"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours."""

INK, FAINT = "#1b1f24", "#6a737d"
"""The colours of text and of what stands behind it."""

WIDEST = 12.5
"""Maps that are wider together, in inches, stand one below the other."""

LETTERS = 30
"""Longer names are cut in the middle."""


@dataclass(frozen=True)
class Panel:
    """One map: rows by columns, a value of colour (None: nothing known) and a text for every cell."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Ridge:
    """One row of histograms: for each series the counts in common bins, and a word on what lies outside them."""

    name: str
    counts: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """One row of bars: lengths that are stacked, a tick (None: no tick), and a note at the end."""

    name: str
    lengths: tuple[float, ...]
    tick: float | None = None
    note: str = ""


def label(text: str, letters: int = LETTERS) -> str:
    r"""Make a name fit to be drawn: what the font lacks becomes `?`, dollars stay dollars, long names are cut.

    >>> print(label("a$b$c"))
    a\$b\$c
    >>> label("encoder.layers.11.feed_forward.activation · relu", 21)
    'encoder.la…ion · relu'
    """
    shown = "".join(c if ord(c) in _glyphs() else "?" for c in plain(text))
    if len(shown) > letters:
        shown = f"{shown[: letters // 2]}…{shown[len(shown) - (letters - letters // 2 - 1) :]}"
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """List the characters of the font."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _figure(width: float, height: float, title: str, subtitle: str) -> Any:
    """Make a figure with a title and, below it in small print, what it shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    figure.text(0.25 / width, 1 - 0.22 / height, label(title, 200), size=13, weight="bold", va="top", color=INK)
    figure.text(0.25 / width, 1 - 0.52 / height, subtitle, size=9, va="top", color=FAINT, linespacing=1.4)
    return figure


def _save(figure: Any, path: Path) -> None:
    """Write the figure."""
    from matplotlib import rc_context

    with rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def draw_maps(path: Path, title: str, subtitle: str, panels: Sequence[Panel], scale: str) -> None:
    """Draw maps side by side over common rows, coloured on a common logarithmic scale; zeros stay white.

    Args:
        path: of the PNG.
        title: what the picture is.
        subtitle: how to read it; it may have several lines.
        panels: with the same rows.
        scale: the name of the colour scale with its unit; values are shares, drawn in percent.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    rows = panels[0].rows
    known = [v for p in panels for row in p.values for v in row if v is not None and math.isfinite(v) and v > 0]
    top = max([*known, 0.01])
    norm, colours = LogNorm(min(1e-4, top / 100), top, clip=True), colormaps["YlGnBu"]
    cells = [len(p.columns) * max(1.0, 0.25 + 0.08 * max(_longest(c) for c in p.columns)) for p in panels]
    widths = [max(cell, 0.1 + 0.085 * len(p.title)) for cell, p in zip(cells, panels, strict=True)]
    heights = 0.48 * len(rows)
    left = 0.5 + 0.085 * max(min(len(r), LETTERS) for r in rows)
    stacked = sum(widths) > WIDEST
    across = max(widths) if stacked else sum(widths) + 0.3 * (len(panels) - 1)
    down = len(panels) * heights + 0.95 * (len(panels) - 1) if stacked else heights
    width, head = max(left + across + 1.3, 7.5), 1.15 + 0.17 * subtitle.count("\n")
    height = head + down + 0.65
    figure = _figure(width, height, title, subtitle)
    x, y = left, height - head - heights
    for number, (panel, wide) in enumerate(zip(panels, widths, strict=True)):
        axes = figure.add_axes((x / width, y / height, wide / width, heights / height))
        _map(axes, panel, norm, colours, first=stacked or number == 0)
        x, y = (x, y - heights - 0.95) if stacked else (x + wide + 0.3, y)
    bar = figure.add_axes(((left + across + 0.25) / width, 0.65 / height, 0.14 / width, down / height))
    _scale(figure, bar, ScalarMappable(norm, colours), scale)
    _save(figure, path)


def _longest(name: str) -> int:
    """Count the letters of the longest line of a column's name."""
    return max(map(len, _broken(name).split("\n")))


def _broken(name: str) -> str:
    """Break a column's name before its bracket."""
    return label(name).replace(" (", "\n(", 1)


def _map(axes: Any, panel: Panel, norm: Any, colours: Any, *, first: bool) -> None:
    """Draw the cells of one map."""
    from matplotlib.patches import Rectangle

    for i, (values, texts) in enumerate(zip(panel.values, panel.texts, strict=True)):
        for j, (value, text) in enumerate(zip(values, texts, strict=True)):
            finite = value is not None and math.isfinite(value)
            face = colours(norm(value)) if finite and value else "#ffffff" if finite else "#eeeeee"
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=face, edgecolor="#d0d7de", linewidth=0.8))
            light = (
                sum(w * c for w, c in zip((0.3, 0.59, 0.11), face[:3], strict=True)) if isinstance(face, tuple) else 1.0
            )
            ink = INK if light > 0.55 and value else FAINT if not value else "white"
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", size=8, color=ink)
    axes.set_xlim(0, len(panel.columns))
    axes.set_ylim(len(panel.rows), 0)
    axes.set_xticks([j + 0.5 for j in range(len(panel.columns))], [_broken(c) for c in panel.columns], size=8)
    axes.set_yticks([i + 0.5 for i in range(len(panel.rows))], [label(r) for r in panel.rows] if first else [], size=9)
    axes.tick_params(length=0, colors=INK)
    axes.set_title(label(panel.title, 60), size=10, color=INK, pad=7, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale(figure: Any, axes: Any, mappable: Any, name: str) -> None:
    """Draw the scale of colours, in percent."""
    bar = figure.colorbar(mappable, cax=axes)
    low, high = mappable.norm.vmin, mappable.norm.vmax
    ticks = [10.0**k for k in range(-6, 7) if low <= 10.0**k <= high]
    bar.set_ticks(ticks, labels=[f"{100 * t:,.6g} %" for t in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)
    bar.set_label(name, size=8, color=INK)


def draw_ridges(
    path: Path,
    title: str,
    subtitle: str,
    edges: Sequence[float],
    series: Sequence[str],
    ridges: Sequence[Ridge],
    unit: str,
) -> None:
    """Draw histograms over a logarithmic axis, a row for each ridge and a colour for each series.

    Args:
        path: of the PNG.
        title: what the picture is.
        subtitle: how to read it.
        edges: of the bins, common to all.
        series: the names of the colours.
        ridges: the rows; each share is of the ridge's total.
        unit: the name of the axis, with its unit.
    """
    tops, each = 1.15 + 0.17 * subtitle.count("\n"), 0.95
    left = 0.75 + 0.085 * max(min(len(r.name), LETTERS) for r in ridges)
    notes = 0.3 + 0.075 * max((len(n) for r in ridges for n in r.notes), default=0)
    width, height = left + 6.2 + notes, tops + each * len(ridges) + 0.75
    figure = _figure(width, height, title, subtitle)
    shares = [_shares(r) for r in ridges]
    used = [k for rows in shares for row in rows for k, v in enumerate(row) if v > 0] or [0, len(edges) - 2]
    span = edges[min(used)], edges[max(used) + 1]
    for number, (ridge, rows) in enumerate(zip(ridges, shares, strict=True)):
        bottom = 0.75 + each * (len(ridges) - 1 - number)
        axes = figure.add_axes((left / width, bottom / height, 6.2 / width, (each - 0.12) / height))
        _ridge(axes, ridge, rows, edges, last=number == len(ridges) - 1)
        axes.set_xlim(*span)
    axes.set_xlabel(unit, size=9, color=INK)
    handles = [figure.axes[0].plot([], [], color=PALETTE[k % len(PALETTE)], linewidth=3)[0] for k in range(len(series))]
    place = (left / width, 1 - (tops - 0.03) / height)
    names = [label(s, 60) for s in series]
    figure.legend(handles, names, loc="lower left", bbox_to_anchor=place, ncols=len(series), frameon=False, fontsize=9)
    _save(figure, path)


def _shares(ridge: Ridge) -> list[list[float]]:
    """Divide the counts by the totals."""
    return [[c / max(total, 1) for c in counts] for counts, total in zip(ridge.counts, ridge.totals, strict=True)]


def _ridge(axes: Any, ridge: Ridge, rows: list[list[float]], edges: Sequence[float], *, last: bool) -> None:
    """Draw the histograms of one row."""
    axes.set_xscale("log")
    axes.set_facecolor("none")
    for number, row in enumerate(rows):
        colour = PALETTE[number % len(PALETTE)]
        axes.stairs(row, edges, color=colour, linewidth=1.5, zorder=3)
        axes.stairs(row, edges, color=colour, fill=True, alpha=0.12, zorder=2)
    high = max((v for row in rows for v in row), default=0.0) or 1.0
    axes.set_ylim(0, 1.15 * high)
    axes.set_yticks([high], [f"{100 * high:.0f} %" if high >= 0.095 else f"{100 * high:.1g} %"], size=7, color=FAINT)
    axes.tick_params(axis="x", which="both", labelbottom=last, length=3 if last else 0, labelsize=8, colors=INK)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", which="major", color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d0d7de")
    axes.annotate(
        label(ridge.name),
        (0, 0.3),
        (-34, 0),
        "axes fraction",
        textcoords="offset points",
        size=9,
        color=INK,
        ha="right",
    )
    step = 0.27
    for number, note in enumerate(ridge.notes):
        colour = PALETTE[number % len(PALETTE)]
        axes.text(1.02, 0.78 - step * number, note, transform=axes.transAxes, size=8, color=colour, va="center")


def draw_bars(
    path: Path,
    title: str,
    subtitle: str,
    panels: Sequence[tuple[str, Sequence[Bar], bool]],
    series: Sequence[str],
    unit: str,
) -> None:
    """Draw panels of horizontal bars one below the other, each with its own axis.

    Args:
        path: of the PNG.
        title: what the picture is.
        subtitle: how to read it.
        panels: title, bars, and whether the axis is logarithmic (then bars are not stacked).
        series: what the stacked lengths are.
        unit: the name of the axes.
    """
    tops, each, gap = 1.3 + 0.17 * subtitle.count("\n"), 0.3, 0.95
    left = 0.5 + 0.082 * max((min(len(b.name), 2 * LETTERS) for _, bars, _ in panels for b in bars), default=10)
    width = left + 7.0
    height = tops + sum(each * len(bars) + gap for _, bars, _ in panels)
    figure = _figure(width, height, title, subtitle)
    bottom = height - tops
    for name, bars, logarithmic in panels:
        tall = each * len(bars)
        bottom -= tall
        axes = figure.add_axes((left / width, bottom / height, 5.9 / width, tall / height))
        _draw_bars(axes, name, bars, logarithmic=logarithmic)
        axes.set_xlabel(unit, size=8, color=FAINT)
        bottom -= gap
    handles = [figure.axes[0].barh([0], [0], color=PALETTE[k], alpha=0.85) for k in range(len(series))]
    place = (left / width, 1 - (tops - 0.28) / height)
    figure.legend(handles, series, loc="lower left", bbox_to_anchor=place, ncols=len(series), frameon=False, fontsize=9)
    _save(figure, path)


def _draw_bars(axes: Any, title: str, bars: Sequence[Bar], *, logarithmic: bool) -> None:
    """Draw the bars of one panel."""
    ends = [max(sum(b.lengths), b.tick or 0.0) for b in bars]
    positive = [v for v in ends if v > 0] or [1.0]
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(min(positive) / 2, max(positive) * 3)
    else:
        axes.set_xlim(0, 1.12 * max(positive))
    for place, bar in enumerate(bars):
        start = 0.0
        for number, length in enumerate(bar.lengths):
            axes.barh([place], [length], left=start or None, height=0.66, color=PALETTE[number], alpha=0.85, zorder=3)
            start += length
        if bar.tick is not None:
            axes.plot([bar.tick] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=1.6, zorder=4)
        beside = bar.tick is not None and start <= bar.tick < start + 0.1 * max(positive)
        end = bar.tick if beside else start  # the note is of the bar; it stands clear of the tick
        axes.annotate(bar.note, (end, place), (4, 0), textcoords="offset points", size=7.5, va="center", color=INK)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_yticks(range(len(bars)), [label(b.name, 2 * LETTERS) for b in bars], size=8)
    axes.set_title(title, size=10, color=INK, pad=6, loc="left")
    if not logarithmic:
        axes.xaxis.set_major_formatter("{x:,.0f}" if max(positive) < 1e7 else "{x:.3g}")
    axes.tick_params(axis="x", labelsize=7, colors=FAINT)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.grid(axis="x", which="major", color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
