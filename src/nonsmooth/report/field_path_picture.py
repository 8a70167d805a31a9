"""The picture of criticality along a path: the distance of 0 at the points, and over balls around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nonsmooth.report.field_picture import new_figure, tidy
from nonsmooth.report.picture import INK, PALETTE, label

__all__ = ["draw_paths"]

STYLES = (("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1, 1, 1, 1, 1))))
"""The mark and the stroke of each ball, the smallest first: told apart without colour."""


def draw_paths(paths: Sequence[tuple[str, Sequence[int], Mapping[str, Sequence[float]]]]) -> Any:
    """Draw a panel for each path: (title, steps, distances by name), the first name being that of the point itself."""
    wide, high = 4.6, 3.1
    width, height = wide * len(paths) + 0.2, high + 1.1
    figure = new_figure(width, height)
    title = "Criticality along a path: at the point, and over balls around it"
    figure.text(0.25 / width, 1 - 0.2 / height, title, size=12, weight="bold", va="top", color=INK)
    for number, (name, steps, curves) in enumerate(paths):
        place = ((0.6 + number * wide) / width, 0.55 / height, (wide - 0.75) / width, (high - 0.35) / height)
        axes = figure.add_axes(place)
        for k, (what, values) in enumerate(curves.items()):
            mark, stroke = ("o", "-") if k == 0 else STYLES[(k - 1) % len(STYLES)]
            colour = INK if k == 0 else PALETTE[(k - 1) % len(PALETTE)]
            axes.plot(steps, values, marker=mark, linestyle=stroke, color=colour, linewidth=1.8, markersize=5.5, label=what,
                      gid=what, clip_on=False, zorder=4 if k else 3)  # fmt: skip
        axes.set_title(label(name, 60), loc="left", size=10, color=INK, pad=8)
        axes.set_xlabel("step", color=INK)
        top = max(max(values) for values in curves.values()) or 1.0
        axes.set_ylim(0, 1.5 * top)
        axes.set_ylabel("distance of 0", color=INK)
        axes.legend(frameon=False, fontsize=8.5, loc="upper right", ncols=2)
        tidy(axes)
    return figure
