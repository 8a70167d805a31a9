"""The picture of the slides: a panel for each program, its graph on the left and what is returned at 0 on the right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonsmooth.report.picture import FAINT, INK, PALETTE

if TYPE_CHECKING:
    from nonsmooth.studies.slides import SlideFunction, SlidesStudy

__all__ = ["draw_slides"]

BLUE, ORANGE, GREEN, PINK, YELLOW, _ = PALETTE

MARKS = {
    "torch": ("o", ORANGE, ORANGE),
    "jax": ("s", GREEN, GREEN),
    "tensorflow": ("^", YELLOW, YELLOW),
    "0": ("D", "white", FAINT),
    "1/2": ("D", "#b5bcc4", FAINT),
    "1": ("D", FAINT, FAINT),
}
"""The mark of each convention: its shape, its face and its edge."""

APART = 0.5
"""Neighbours of the grid whose derivatives are further apart than this are not joined by a line."""

ACROSS, WIDTH, HEIGHT = 3, 3.75, 2.35
"""Panels a row, and the size of one in inches."""

HEAD = 1.55
"""The height of the title and of the legend, in inches."""


def draw_slides(path: Path, study: SlidesStudy) -> None:
    """Draw a panel for each program: the function, its derivative by backprop, and the values at 0 by convention.

    The band is the interval between the certified subgradients from the left and from the right.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    down = -(-len(study.functions) // ACROSS)
    width, height = ACROSS * WIDTH + 0.2, HEAD + down * HEIGHT + 0.1
    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
        _head(figure, width, height, study)
        for number, function in enumerate(study.functions):
            row, column = divmod(number, ACROSS)
            left = 0.55 + column * WIDTH
            bottom = height - HEAD - (row + 1) * HEIGHT + 0.4
            graph = figure.add_axes((left / width, bottom / height, 1.75 / width, 1.45 / height))
            values = figure.add_axes(((left + 1.82) / width, bottom / height, 1.2 / width, 1.45 / height))
            _graph(graph, function)
            _values(values, function)
            _limits(graph, values, function)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _head(figure: Any, width: float, height: float, study: SlidesStudy) -> None:
    """Write the title, what is shown, and the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    title = "The same function, another program: what backpropagation returns at 0"
    words = (
        "Left: the function and its derivative by backprop. Right: the derivative at 0 under every convention, over the band\n"
        "between the certified subgradients from the left and from the right (computed). Outside of it no subgradient lies."
    )
    figure.text(0.25 / width, 1 - 0.22 / height, title, size=14, weight="bold", va="top", color=INK)
    figure.text(0.25 / width, 1 - 0.55 / height, words, size=9.5, va="top", color=FAINT, linespacing=1.4)
    handles: list[Any] = [
        Line2D([], [], color="#9aa3ad", linewidth=4, label="function"),
        Line2D([], [], color=BLUE, linewidth=1.8, label="derivative by backprop"),
        Patch(facecolor=PINK, alpha=0.45, edgecolor=PINK, label="certified"),
    ]
    for name, (shape, face, edge) in MARKS.items():
        text = {"torch": f"{study.framework.split('+')[0]} (backprop)"}.get(name, _label(name, study))
        handles.append(
            Line2D([], [], linestyle="", marker=shape, markersize=7, color=face, markeredgecolor=edge, label=text)
        )
    place = (0.15 / width, 1 - (HEAD - 0.12) / height)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=place, ncols=9, frameon=False, fontsize=9, columnspacing=1.1,
        handletextpad=0.4, handlelength=1.4,
    )  # fmt: skip


def _label(name: str, study: SlidesStudy) -> str:
    """Name a convention in the legend."""
    version = study.versions.get(name)
    return f"{name} {version}" if version else f"weight {name}"


def _graph(axes: Any, function: SlideFunction) -> None:
    """Draw the function, its derivative on both sides of 0, and backprop's value at 0."""
    axes.plot(function.grid, function.values, color="#9aa3ad", linewidth=4, zorder=2, solid_capstyle="butt")
    for run in _runs(function):
        slopes = [function.derivatives[k] for k in run]
        axes.plot([function.grid[k] for k in run], slopes, color=BLUE, linewidth=1.8, zorder=3)
    axes.plot([0], [function.backprop], marker="o", color=ORANGE, markersize=6, zorder=5, clip_on=False)
    axes.set_xlim(function.grid[0], function.grid[-1])
    axes.set_xticks(sorted({function.grid[0], 0.0, function.grid[-1]}))
    axes.annotate(function.name, (0, 1), (0, 19), "axes fraction", "offset points", size=10.5, weight="bold", color=INK)
    axes.annotate(
        f"{function.formula}  is  {function.equals}",
        (0, 1),
        (0, 6),
        "axes fraction",
        "offset points",
        size=8,
        color=INK,
    )
    _plain(axes)


def _values(axes: Any, function: SlideFunction) -> None:
    """Draw the derivative at 0 under every convention, over the band of the certified subgradients."""
    ends = function.clarke
    if ends is not None:
        axes.axhspan(*ends, color=PINK, alpha=0.3, linewidth=0, zorder=1)
        for end in ends:
            axes.axhline(end, color=PINK, linewidth=2.2, zorder=1)
    for place, (name, value) in enumerate(function.conventions.items()):
        shape, face, edge = MARKS[name]
        axes.plot([place], [value], marker=shape, color=face, markeredgecolor=edge, markersize=6.5, zorder=4)
    axes.set_xlim(-0.7, len(function.conventions) - 0.3)
    axes.set_xticks([])
    axes.tick_params(axis="y", labelleft=False)
    _plain(axes)
    axes.annotate("at 0", (0.5, 0), (0, -13), "axes fraction", "offset points", size=8, color=FAINT, ha="center")
    apart = function.finding == "differs"
    axes.annotate(
        _relation(function), (1, 1), (0, 19), "axes fraction", "offset points", size=9, ha="right",
        color=ORANGE if apart else INK, weight="bold" if apart else "normal",
    )  # fmt: skip


def _runs(function: SlideFunction) -> list[list[int]]:
    """Cut the grid at 0, which is left out, and where the derivative jumps."""
    runs: list[list[int]] = [[]]
    for k, t in enumerate(function.grid):
        if t == 0:
            runs.append([])
            continue
        if runs[-1] and abs(function.derivatives[k] - function.derivatives[runs[-1][-1]]) > APART:
            runs.append([])
        runs[-1].append(k)
    return runs


def _relation(function: SlideFunction) -> str:
    """Say how backprop's value stands to the certified subgradients, without colour."""
    value, ends = f"backprop {function.backprop + 0:.3g}", function.clarke
    if ends is None:
        return f"{value}, undecided"
    low, high = (f"{end + 0:.3g}" for end in ends)
    if low == high:
        return f"{value} {'=' if function.finding == 'agrees' else '≠'} {low}"
    sign = "∉" if function.finding == "differs" else "∈"
    return f"{value} {sign} " + (f"{{{low}, {high}}}" if function.finding == "agrees" else f"[{low}, {high}]")


def _limits(graph: Any, values: Any, function: SlideFunction) -> None:
    """Give both axes the range of everything that they show."""
    shown = (*function.values, *function.derivatives, *function.conventions.values(), *(function.clarke or ()))
    low, high = min(shown), max(shown)
    room = 0.09 * (high - low)
    for axes in (graph, values):
        axes.set_ylim(low - room, high + room)
        axes.yaxis.get_major_locator().set_params(nbins=5, integer=True)


def _plain(axes: Any) -> None:
    """Give the axes a light grid and no frame."""
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
