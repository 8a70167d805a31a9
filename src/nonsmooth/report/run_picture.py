"""The picture of a training run: places by steps, red where many of the elements are at a kink, and the gradient below.

Red grows darker evenly with the logarithm of the share, so that it is read without colour too; white is none at all.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from nonsmooth.report.picture import FAINT, INK, PALETTE, label

__all__ = ["COLUMNS", "ROWS", "RunMap", "colour_bar", "draw_run", "reds"]

COLUMNS = 200
"""More observed steps than these are gathered into bins."""

ROWS = 40
"""At most so many rows are drawn, those with the largest shares."""

NAME, HEAD, ACROSS = 44, 0.85, 8.6
"""The letters of a name; the height of the title and the width of the map in inches."""

UNKNOWN = "#e3e6ea"
"""The colour of a place that did not run."""

MEANING = "Red: the share of the elements at a kink that can matter, white: none{}."


@dataclass(frozen=True)
class RunMap:
    """What is drawn of a run: rows of places in the order of the program, columns of observed steps.

    Attributes:
        title, subtitle: what it is, and how it was observed.
        rows: the names of the places.
        steps: the observed steps.
        shares: for each row and step the share in [0, 1]; None where the place did not run.
        changes: ||g' - g|| / ||g|| at each step; None where it was not measured, infinite where g = 0.
        rounding: changes up to this are none.
        marks: what happened at some of the steps, by the places of these in `steps`.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    steps: tuple[int, ...]
    shares: tuple[tuple[float | None, ...], ...]
    changes: tuple[float | None, ...]
    rounding: float = 0.0
    marks: tuple[tuple[str, tuple[int, ...]], ...] = ()


def draw_run(target: str | os.PathLike[str] | IO[bytes], run: RunMap) -> None:
    """Draw a run as PNG.

    More than `COLUMNS` steps are gathered: a cell is then the mean share over its steps, and a change the largest. Of more
    than `ROWS` places those with the largest shares are drawn, and how many are left out is said.
    """
    from matplotlib import rc_context

    with rc_context({"font.family": "DejaVu Sans"}):
        run_figure(run).savefig(target, format="png", dpi=120, metadata={"Software": "nonsmooth"})


def run_figure(run: RunMap) -> Any:
    """Lay the figure out: marks, the map with its scale, and the change of the gradient."""
    from matplotlib.figure import Figure

    bins, shown = _bins(len(run.steps)), _shown(run)
    changes = [_largest([run.changes[k] for k in found]) for found in bins]
    marks = [(name, at) for name, at in run.marks if at]
    map_height = max(0.24 * max(len(shown), 1), 0.5)
    mark_height, change_height = 0.22 * len(marks), 1.25 if any(c is not None for c in changes) else 0.0
    left = 0.35 + 0.082 * max([16, *(min(len(run.rows[k]), NAME) for k in shown)])
    subtitle = _subtitle(run, bins, shown)
    head = HEAD + 0.16 * subtitle.count("\n")
    width = left + ACROSS + 1.25
    height = head + mark_height + map_height + 0.55 + (change_height + 0.4 if change_height else 0)
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    figure.text(0.2 / width, 1 - 0.18 / height, label(run.title, 110), size=13, weight="bold", va="top", color=INK)
    said = "\n".join(label(line, 170) for line in subtitle.split("\n"))
    figure.text(0.2 / width, 1 - 0.46 / height, said, size=8.5, va="top", color=FAINT, linespacing=1.4)

    def box(top: float, tall: float, at: float = left, wide: float = ACROSS) -> tuple[float, float, float, float]:
        return at / width, 1 - (top + tall) / height, wide / width, tall / height

    if not shown or not bins:
        why = "No step was observed." if not bins else "No operation with kinks ran in the observed steps."
        figure.text(0.5, 1 - (head + map_height / 2) / height, why, size=11, ha="center", va="center", color=INK)
    axes, top = [], head
    if bins and marks:
        axes.append(figure.add_axes(box(top, mark_height)))
        _draw_marks(axes[-1], marks, bins)
        top += mark_height
    if bins and shown:
        axes.append(figure.add_axes(box(top, map_height)))
        _draw_map(figure, axes[-1], run, bins, shown, box(top, max(map_height, 1.1), left + ACROSS + 0.2, 0.14))
        top += map_height + 0.4
    if bins and change_height:
        axes.append(figure.add_axes(box(top, change_height)))
        _draw_changes(axes[-1], changes, run.rounding)
    for one in axes:
        one.set_xlim(-0.5, len(bins) - 0.5)
        _steps(one, run.steps, bins, last=one is axes[-1])
    return figure


def reds(top: float, bottom: float | None = None) -> Any:
    """Give the scale of reds: logarithmic from `bottom` to `top`, with white kept for nothing at all."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    dark = [colormaps["Reds"](0.14 + 0.86 * k / 255) for k in range(256)]
    colours = LinearSegmentedColormap.from_list("kinks", dark)
    low = top / 100 if bottom is None else min(10.0 ** math.floor(math.log10(bottom)), top / 10)
    return ScalarMappable(LogNorm(low, top, clip=True), colours)


def colour_bar(figure: Any, box: tuple[float, float, float, float], scale: Any) -> None:
    """Draw the scale, in percent."""
    bar = figure.colorbar(scale, cax=figure.add_axes(box))
    low, high = scale.norm.vmin, scale.norm.vmax
    ticks = [10.0**k for k in range(-9, 1) if low * 0.999 <= 10.0**k <= high * 1.001]
    bar.set_ticks(ticks, labels=[f"{100 * t:.6g} %" for t in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=7, colors=INK, length=2)
    bar.outline.set_visible(False)
    bar.set_label("share of elements", size=7.5, color=INK)


def _bins(count: int) -> list[range]:
    """Gather steps into at most `COLUMNS` bins of neighbours, as equal as can be."""
    bins = min(count, COLUMNS)
    edges = [k * count // bins for k in range(bins + 1)] if bins else [0]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def _shown(run: RunMap) -> list[int]:
    """Choose the rows with the largest shares, and keep their order."""
    most = [max((s for s in row if s is not None), default=0.0) for row in run.shares]
    return sorted(sorted(range(len(run.rows)), key=lambda k: -most[k])[:ROWS])


def _subtitle(run: RunMap, bins: Sequence[range], shown: Sequence[int]) -> str:
    """Say how to read the picture, and what it leaves out."""
    unknown = any(s is None for row in shown for s in run.shares[row])
    said = [MEANING.format(", grey: did not run" if unknown else "")] if shown and bins else []
    if any(len(b) > 1 for b in bins):
        sizes = sorted({len(b) for b in bins})
        each = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} or {sizes[-1]:,}"
        said.append(f"A column is {each} observed steps: the mean share, the largest change.")
    if len(shown) < len(run.rows):
        said.append(f"The {len(shown)} of {len(run.rows):,} places with the largest shares; the others are left out.")
    return "\n".join(filter(None, (run.subtitle, " ".join(said))))


def _mean(values: Sequence[float | None]) -> float | None:
    """Average what is known."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else None


def _largest(values: Sequence[float | None]) -> float | None:
    """Give the largest of what is known."""
    return max((v for v in values if v is not None and not math.isnan(v)), default=None)


def _draw_map(figure: Any, axes: Any, run: RunMap, bins: Sequence[range], shown: Sequence[int], box: Any) -> None:
    """Draw the cells, with a thin line between the rows."""
    import numpy as np
    from matplotlib.colors import to_rgba

    cells = [[_mean([run.shares[row][k] for k in found]) for found in bins] for row in shown]
    known = [s for row in cells for s in row if s]
    scale = reds(10.0 ** math.ceil(math.log10(max([*known, 0.01])) - 1e-9), min(known, default=None))
    shares = np.array([[np.nan if s is None else s for s in row] for row in cells])
    pixels = scale.to_rgba(np.where(shares > 0, shares, scale.norm.vmin))
    pixels[shares == 0], pixels[np.isnan(shares)] = 1.0, to_rgba(UNKNOWN)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(shown)), [label(run.rows[k], NAME) for k in shown], size=8)
    for k in range(1, len(shown)):
        axes.axhline(k - 0.5, color="#dde2e7", linewidth=0.8)
    for side in axes.spines.values():
        side.set_color("#c4cad1")
    axes.tick_params(axis="y", length=0, colors=INK)
    colour_bar(figure, box, scale)


def _draw_marks(axes: Any, marks: Sequence[tuple[str, Sequence[int]]], bins: Sequence[range]) -> None:
    """Draw a row of marks for each thing that happened."""
    for row, (_, at) in enumerate(marks):
        found = set(at)
        places = [column for column, steps in enumerate(bins) if found.intersection(steps)]
        axes.plot(places, [row] * len(places), "xv"[row % 2], color=INK, markersize=5, clip_on=False)
    axes.set_ylim(len(marks) - 0.5, -0.5)
    axes.set_yticks(range(len(marks)), [label(name, NAME) for name, _ in marks], size=8)
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_changes(axes: Any, changes: Sequence[float | None], rounding: float) -> None:
    """Draw the change of the gradient on a logarithmic axis; nothing above rounding stands at the bottom as 0."""
    known = [(k, c) for k, c in enumerate(changes) if c is not None]
    some = [(k, c) for k, c in known if c > rounding and math.isfinite(c)]
    low = math.floor(math.log10(min([c for _, c in some], default=0.01))) - 1
    high = max(math.ceil(math.log10(max([c for _, c in some], default=0.1))), low + 2)
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** (low - 0.35), 10.0 ** (high + 0.35))
    for k, c in some:
        axes.vlines(k, 10.0**low, c, color=PALETTE[0], linewidth=0.8, alpha=0.5)
    axes.plot([k for k, _ in some], [c for _, c in some], "o", color=PALETTE[0], markersize=3.5, gid="changes")
    none = [k for k, c in known if c <= rounding]
    axes.plot(none, [10.0**low] * len(none), "o", markerfacecolor="white", markeredgecolor=PALETTE[0], markersize=3.2,
              markeredgewidth=0.7, gid="none")  # fmt: skip
    infinite = [k for k, c in known if math.isinf(c)]
    axes.plot(infinite, [10.0**high] * len(infinite), "^", color=PALETTE[1], markersize=5, gid="from zero")
    ticks = _decades(low + 1, high - bool(infinite))
    bottom = "0" if rounding == 0 else "0 or rounding"
    labels = [bottom, *(_percent(t) for t in ticks), *(["from g = 0"] if infinite else [])]
    axes.set_yticks([10.0**low, *(10.0**t for t in ticks), *([10.0**high] if infinite else [])], labels, size=8)
    axes.minorticks_off()
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.text(0.0, 1.03, "change of the gradient by the other choice, ||g' - g|| / ||g||", size=7.5, va="bottom",
              color=FAINT, transform=axes.transAxes)  # fmt: skip
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color("#c4cad1")


def _decades(low: int, high: int) -> list[int]:
    """Choose powers of ten for an axis, at most five."""
    return list(range(low, high + 1, max(1, -(-(high + 1 - low) // 5))))


def _percent(power: int) -> str:
    """Print a power of ten in percent."""
    return f"{10.0 ** (power + 2):,.6g} %" if -6 <= power + 2 <= 5 else f"1e{power + 2:+d} %"


def _steps(axes: Any, steps: Sequence[int], bins: Sequence[range], *, last: bool) -> None:
    """Name some of the columns by their steps, the first of them always."""
    ticks = list(_ticks(len(bins), max(len(f"{s:,}") for s in steps)))
    axes.set_xticks(ticks, [f"{steps[bins[k][0]]:,}" for k in ticks] if last else [], size=8)
    axes.tick_params(axis="x", length=3 if last else 0, colors=INK)
    if last:
        axes.set_xlabel("step of the training", size=8.5, color=INK)


def _ticks(count: int, letters: int) -> Iterator[int]:
    """Choose columns to name: at most as many as their names have room for."""
    room = max(2, int(ACROSS / (0.075 * letters + 0.35)))
    each = next(m * 10**p for p in range(9) for m in (1, 2, 5) if count / (m * 10**p) <= room)
    yield from range(0, count, each)
