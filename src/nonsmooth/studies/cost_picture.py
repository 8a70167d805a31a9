"""The pictures of the study of cost: overheads of networks by their size, and of the ways to differentiate by p."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonsmooth.report.picture import FAINT, INK, PALETTE
from nonsmooth.studies.cost_result import AXES, overhead

if TYPE_CHECKING:
    from nonsmooth.studies.cost_result import CostStudy, NetworkCost

__all__ = ["draw_overheads", "draw_ways"]

COLOURS = {"relu mlp": PALETTE[0], "tanh mlp": PALETTE[1], "max-pool cnn": PALETTE[2]}
"""The colours of the networks; `MARKERS`, their signs."""

MARKERS = {"relu mlp": "o", "tanh mlp": "s", "max-pool cnn": "^"}

NAMES = {"layers": "hidden layers", "neurons": "neurons (cnn: channels) a layer", "batch": "images a batch"}
"""What the axes are called."""

KINDS = ("counted", "measured")
"""What is drawn side by side."""

LOOKS = {
    "subgradient": (PALETTE[0], "o", "ns.subgradient"),
    "gradient": (PALETTE[5], "D", "framework's gradient"),
    "backprop": (PALETTE[2], "s", "ns.backprop"),
    "tangents": (PALETTE[4], "v", "p tangents, framework"),
    "coordinate derivatives": (PALETTE[3], "P", "ns.coordinate_derivatives"),
    "lexicographic": (PALETTE[1], "^", "ns.lexicographic"),
    "forward subgradient": (INK, "x", "ns.forward_subgradient"),
}
"""Colour, sign and name of the ways to differentiate."""


def draw_overheads(path: Path, study: CostStudy) -> None:
    """Draw the overhead of a gradient against layers, neurons and batch: counted as lines, measured as signs."""
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    rows = list(dict.fromkeys((n.framework, n.images) for n in study.networks))
    width, height, head, each = 12.0, 1.5 + 2.35 * len(rows) + 0.35, 1.5, 2.35
    bound = max(n.bound for n in study.networks)
    high = min(max(1.2 * bound, 1.1 * max(n.gradient.ratio for n in study.networks)), 2 * bound)
    with rc_context({"font.family": "DejaVu Sans"}):
        title = "How many times the cost of a network is the cost of its gradient?"
        words = (
            "Cross-entropy on a batch of images, differentiated with respect to all weights. Lines: scalar operations, counted;\n"
            "marks: the framework's own gradient over the value in time, median and quartiles. No count can be above the dashed "
            "line (proved)."
        )
        figure = _headed(width, height, title, words)
        kinds = [k for k in COLOURS if any(n.network == k for n in study.networks)]
        handles = [Line2D([], [], color=COLOURS[k], linewidth=2) for k in kinds]
        handles += [Line2D([], [], color=COLOURS[k], marker=MARKERS[k], linestyle="") for k in kinds]
        handles += [Line2D([], [], color=FAINT, linestyle="--", linewidth=1.2)]
        names = [*(f"{k}, counted" for k in kinds), *(f"{k}, measured" for k in kinds), "bound, proved"]
        figure.legend(handles, names, loc="lower left", ncols=len(handles), frameon=False, fontsize=8.5,
                      columnspacing=1.1, handletextpad=0.4,
                      bbox_to_anchor=(0.5 / width, 1 - (head - 0.1) / height))  # fmt: skip
        for row, (framework, images) in enumerate(rows):
            for column, axis in enumerate(AXES):
                found = [n for n in study.along(axis) if (n.framework, n.images) == (framework, images)]
                box = (0.95 + 3.75 * column, height - head - each * row - 1.95, 3.25, 1.7)
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                _overheads(axes, axis, found, high, last=row == len(rows) - 1)
                if column == 0:
                    axes.set_ylabel("gradient / value", size=8.5, color=INK)
                    name = {"torch": "PyTorch", "jax": "JAX"}.get(framework, framework)
                    axes.set_title(f"{name}, images {images}", size=10, loc="left", weight="bold", color=INK, pad=6)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _overheads(axes: Any, axis: str, found: Sequence[NetworkCost], high: float, *, last: bool) -> None:
    """Draw one panel; lines get thinner, so that none hides another, and what is too high is written at the top."""
    values = sorted({getattr(n, axis) for n in found})
    kinds = [k for k in COLOURS if any(n.network == k for n in found)]
    for number, kind in enumerate(kinds):
        line = sorted((n for n in found if n.network == kind), key=lambda n: getattr(n, axis))
        x = [getattr(n, axis) for n in line]
        apart = [v * 1.06 ** (number - (len(kinds) - 1) / 2) for v in x]
        axes.plot(
            x, [n.counted for n in line], color=COLOURS[kind], linewidth=1.8 + 1.2 * (len(kinds) - 1 - number), zorder=3
        )
        middle = [min(n.gradient.ratio, 0.96 * high) for n in line]
        for place, n in zip(apart, line, strict=True):
            if n.gradient.ratio > 0.96 * high:
                axes.annotate(
                    f"{n.gradient.ratio:.0f}", (place, 0.96 * high), (5, -3), textcoords="offset points", size=7
                )
        spread = [
            [max(m - n.gradient.quartiles[0], 0) for m, n in zip(middle, line, strict=True)],
            [max(n.gradient.quartiles[1] - m, 0) for m, n in zip(middle, line, strict=True)],
        ]
        axes.errorbar(apart, middle, yerr=spread, color=COLOURS[kind], marker=MARKERS[kind], markersize=5, linestyle="",
                      elinewidth=1, markeredgecolor="white", markeredgewidth=0.6, zorder=4)  # fmt: skip
    for bound in sorted({n.bound for n in found}):
        axes.axhline(bound, color=FAINT, linestyle="--", linewidth=1.2, zorder=2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{v:,}" for v in values])
    axes.minorticks_off()
    axes.set_ylim(0, high)
    if last:
        axes.set_xlabel(NAMES[axis], size=8.5, color=INK)
    _plain(axes)


def draw_ways(path: Path, study: CostStudy) -> None:
    """Draw the overhead of every way to differentiate against p, counted and measured, with the slopes."""
    from matplotlib import rc_context

    frameworks = list(dict.fromkeys(w.framework for w in study.ways))
    width, head, each = 12.0, 1.1, 4.3
    height = head + each * len(frameworks)
    ratios = [r for w in study.ways for kind in KINDS if (r := overhead(w, kind)) is not None]
    limits = min(ratios) / 1.6, max(ratios) * 1.6
    with rc_context({"font.family": "DejaVu Sans"}):
        title = "What a derivative costs as the number p of inputs grows"
        words = (
            "Cost of a derivative over that of the value: relu networks of p inputs, layers p wide, at 0, where every relu is "
            "at its kink.\nAt the end of a line: the power of p with which it grows, over the larger half of its p (its slope)."
        )
        figure = _headed(width, height, title, words)
        for row, framework in enumerate(frameworks):
            for column, what in enumerate(KINDS):
                box = (0.85 + 5.75 * column, height - head - each * row - 3.75, 3.15, 3.3)
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                _ways(axes, study, framework, what, limits)
                name = {"torch": "PyTorch", "jax": "JAX"}.get(framework, framework)
                words = "scalar operations, counted" if what == "counted" else "time, measured"
                axes.set_title(f"{name}: {words}", size=10, loc="left", weight="bold", color=INK)
                axes.set_xlabel("p, the number of inputs", size=8.5, color=INK)
                if column == 0:
                    axes.set_ylabel("derivative / value", size=8.5, color=INK)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _ways(axes: Any, study: CostStudy, framework: str, what: str, limits: tuple[float, float]) -> None:
    """Draw one panel of lines, with their names at the right ends, apart from each other."""
    ends = []
    for way, (colour, marker, name) in LOOKS.items():
        line = sorted((w for w in study.ways if (w.framework, w.way) == (framework, way)), key=lambda w: w.p)
        points = [(w.p, ratio) for w in line if (ratio := overhead(w, what)) is not None]
        if not points:
            continue
        sizes, values = zip(*points, strict=True)
        axes.plot(sizes, values, color=colour, marker=marker, markersize=4.5, linewidth=1.6, zorder=3)
        slopes = [s for s in study.slopes if (s.framework, s.way, s.kind) == (framework, way, what)]
        slope = slopes[-1].slope if slopes else None
        ends.append((values[-1], name + ("" if slope is None else f":  $p^{{{round(slope, 2) + 0.0:.2f}}}$"), colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    all_sizes = sorted({w.p for w in study.ways})
    axes.set_xticks(all_sizes, [str(p) for p in all_sizes])
    axes.minorticks_off()
    _plain(axes)
    _write_ends(axes, ends, limits)


def _write_ends(axes: Any, ends: list[tuple[float, str, str]], limits: tuple[float, float]) -> None:
    """Write names beside the ends of lines, moved apart where they would overlap."""
    import math

    span, step = math.log(limits[1] / limits[0]), 0.062
    places: list[float] = []
    for value, _, _ in sorted(ends):
        wanted = math.log(value / limits[0]) / span
        places.append(max(wanted, places[-1] + step) if places else wanted)
    over = max(places[-1] - 0.99, 0.0)
    for number in range(len(places) - 1, -1, -1):
        cap = places[number + 1] - step if number + 1 < len(places) else places[number] - over
        places[number] = min(places[number], cap)
    for place, (value, name, colour) in zip(places, sorted(ends), strict=True):
        start = math.log(value / limits[0]) / span
        axes.plot([1.01, 1.05], [start, place], transform=axes.transAxes, color=colour, linewidth=0.7, clip_on=False)
        axes.text(1.06, place, name, transform=axes.transAxes, size=8, va="center", color=colour)


def _headed(width: float, height: float, title: str, words: str) -> Any:
    """Make a figure with a title and, below it in small print, what it shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
    figure.text(0.25 / width, 1 - 0.2 / height, title, size=14, weight="bold", va="top", color=INK)
    figure.text(0.25 / width, 1 - 0.5 / height, words, size=9, va="top", color=FAINT, linespacing=1.4)
    return figure


def _plain(axes: Any) -> None:
    """Leave out what says nothing."""
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(color="#e6e9ec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
