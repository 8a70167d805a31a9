"""The picture of the study of batch normalisation: l and L against eps, and against depth."""

from __future__ import annotations

from math import isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonsmooth.report.picture import FAINT, INK, PALETTE

if TYPE_CHECKING:
    from nonsmooth.studies.batchnorm_result import BatchNormStudy

__all__ = ["draw_batchnorm"]

COLOURS = {"printed": PALETTE[1], "right": PALETTE[0]}
"""Of the lists of constants."""

NAMES = {"lipschitz": "Lipschitz constant l", "smoothness": "smoothness constant L"}

PLACE = "layers"
"""Where batch normalisation stands in what is drawn."""


def draw_batchnorm(path: Path, study: BatchNormStudy) -> None:
    """Draw four panels: the two constants against eps, and against depth, by the printed constants and the right ones."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    width, height, left, gap = 11.5, 9.2, 0.85, 1.05
    wide, tall = (width - 2 * left - gap) / 2 + 0.15, 2.85
    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
        title = "Does batch normalisation make a network smoother? By these bounds, only if eps is large"
        figure.text(0.25 / width, 1 - 0.22 / height, title, size=14, weight="bold", va="top", color=INK)
        figure.text(0.25 / width, 1 - 0.53 / height, _words(study), size=9, va="top", color=FAINT, linespacing=1.4)
        handles = [
            Line2D([], [], color=COLOURS["right"], linewidth=2.4),
            Line2D([], [], color=COLOURS["printed"], linewidth=2.4),
        ]
        handles += [
            Line2D([], [], color=FAINT, linewidth=2),
            Line2D([], [], color=FAINT, linewidth=1.4, linestyle="--"),
        ]
        handles += [Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="", markersize=7)]
        names = (
            "right constants",
            "printed constants",
            "with batch normalisation",
            "without",
            "equal: lower to the right of it",
        )
        figure.legend(handles, names, loc="lower left", ncols=5, frameon=False, fontsize=9, columnspacing=1.4,
                      handletextpad=0.5, bbox_to_anchor=(0.15 / width, 1 - 1.42 / height))  # fmt: skip
        for column, quantity in enumerate(NAMES):
            x = left + column * (wide + gap)
            for row, draw in enumerate((_against_eps, _against_depth)):
                y = height - 1.8 - tall - row * (tall + 0.95)
                axes = figure.add_axes((x / width, y / height, wide / width, tall / height))
                draw(axes, study, quantity)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _words(study: BatchNormStudy) -> str:
    """Say what is drawn."""
    setting = study.setting
    return (
        "Bounds of VGG with softplus and average pooling with respect to all weights, each layer's in a ball of radius "
        f"{setting['radius of each ball']:g};\n{setting['images a batch']} images of {setting['pixels a side']} x "
        f"{setting['pixels a side']}, {setting['classes']:,} classes. Batch normalisation before every layer but the first."
    )


def _against_eps(axes: Any, study: BatchNormStudy, quantity: str) -> None:
    """Draw a constant against eps, and a ring where batch normalisation leaves it as it is."""
    for curve in study.curves:
        if curve.place != PLACE:
            continue
        colour = COLOURS[curve.constants]
        points = [(e, log10(v)) for e, v in zip(curve.eps, getattr(curve, quantity), strict=True) if isfinite(v)]
        axes.plot([e for e, _ in points], [v for _, v in points], color=colour, linewidth=2.2, zorder=3)
        bound = getattr(study.find(study.depth, None, None).network(curve.constants), quantity)
        if not isfinite(bound):
            continue
        without = log10(bound)
        axes.axhline(without, color=colour, linewidth=1.3, linestyle="--", zorder=2)
        crossing = next(
            c.eps for c in study.crossings
            if (c.depth, c.quantity, c.constants, c.place) == (study.depth, quantity, curve.constants, PLACE)
        )  # fmt: skip
        if crossing is not None:
            axes.plot([crossing], [without], marker="o", color=colour, markerfacecolor="white", markersize=7.5,
                      markeredgewidth=1.8, zorder=5)  # fmt: skip
            axes.annotate(f"eps = {crossing:.2g}", (crossing, without), (9, 6), textcoords="offset points", size=8.5,
                          color=colour, zorder=6)  # fmt: skip
    for n in study.networks:
        if n.depth == study.depth and n.place == PLACE and n.eps:
            for constants, colour in COLOURS.items():
                value = getattr(n.network(constants), quantity)
                if isfinite(value):
                    axes.plot([n.eps], [log10(value)], marker="o", color=colour, markersize=5, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(study.curves[0].eps[0], study.curves[0].eps[-1])
    axes.set_title(
        f"VGG-{study.depth}: {NAMES[quantity]} against eps", size=10.5, loc="left", color=INK, weight="bold", pad=7
    )
    axes.set_xlabel("eps of batch normalisation", size=8.5, color=INK)
    _dress(axes)


def _against_depth(axes: Any, study: BatchNormStudy, quantity: str) -> None:
    """Draw a constant against depth, a line for each eps and one without batch normalisation."""
    depths = sorted({n.depth for n in study.networks})
    kinds = [(None, None), *dict.fromkeys((n.eps, n.place) for n in study.networks if n.place == PLACE)]
    for constants, colour in COLOURS.items():
        for eps, place in kinds:
            values = [getattr(study.find(d, eps, place).network(constants), quantity) for d in depths]
            if not all(map(isfinite, values)):
                continue
            logs = [log10(v) for v in values]
            style = {"linestyle": "--", "linewidth": 1.4} if eps is None else {"linewidth": 2.0}
            axes.plot(depths, logs, color=colour, marker="o", markersize=4.5, zorder=3, **style)
            name = "without" if eps is None else f"eps {eps:g}"
            axes.annotate(
                name, (depths[-1], logs[-1]), (8, 0), textcoords="offset points", size=8.5, va="center", color=colour
            )
    axes.set_xticks(depths, [f"VGG-{d}" for d in depths])
    span = max(depths[-1] - depths[0], 1)
    axes.set_xlim(depths[0] - 0.06 * span, depths[-1] + 0.2 * span)
    axes.set_title(
        f"{NAMES[quantity].capitalize()[:-1]}{NAMES[quantity][-1]} against depth",
        size=10.5,
        loc="left",
        color=INK,
        weight="bold",
        pad=7,
    )
    axes.set_xlabel("layers with weights", size=8.5, color=INK)
    _dress(axes)


def _dress(axes: Any) -> None:
    """Give a panel its logarithmic scale of bounds, its grid and its frame."""
    axes.yaxis.set_major_formatter(lambda value, _: f"$10^{{{value:.0f}}}$")
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=7)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d0d7de")
