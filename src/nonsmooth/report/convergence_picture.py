"""The picture of convergence: J along the runs above, criticality over a ball below, a column for each problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nonsmooth.report.field_picture import new_figure, tidy
from nonsmooth.report.picture import FAINT, INK, PALETTE, label

__all__ = ["Curve", "draw_convergence"]

MARKS = ("o", "s", "^", "D", "v", "P")
"""The mark of each kind of steps: told apart without colour."""


FLOOR = 1e-5
"""The bottom of the logarithmic axis."""


@dataclass(frozen=True)
class Curve:
    """One kind of runs: its name, its sampling, whether its steps are lawful, J and criticality along it."""

    name: str
    dashed: bool
    lawful: bool
    steps: tuple[int, ...]
    values: tuple[float, ...]
    at: tuple[int, ...]
    measured: tuple[float, ...]


def draw_convergence(
    panels: Mapping[str, Sequence[Curve]], radius: Mapping[str, float], least: Mapping[str, float | None]
) -> Any:
    """Draw a column for each problem: J, above its least value where that is known, and over a ball the distance of 0."""
    wide, high = 4.3, 2.7
    width, height = wide * len(panels) + 2.3, 2 * high + 1.3
    figure = new_figure(width, height)
    figure.text(0.25 / width, 1 - 0.18 / height, "Minibatch steps on tame finite sums", size=13, weight="bold", va="top",
                color=INK)  # fmt: skip
    note = "solid: independent minibatches; dashed: without replacement; medians over the seeds"
    figure.text(0.25 / width, 1 - 0.48 / height, note, size=9, va="top", color=INK)
    names = list(dict.fromkeys(c.name for curves in panels.values() for c in curves))
    for number, (title, curves) in enumerate(panels.items()):
        left = (0.75 + number * wide) / width
        sides = (wide - 0.8) / width, (high - 0.55) / height
        above = figure.add_axes((left, (high + 0.65) / height, *sides))
        below = figure.add_axes((left, 0.5 / height, *sides))
        for curve in curves:
            _draw(above, below, curve, names.index(curve.name), least[title] or 0.0)
        above.set_title(label(title, 50), loc="left", size=10.5, color=INK, pad=8)
        above.set_yscale("log")
        above.set_ylabel("J" if least[title] is None else "J above its least value", color=INK)
        below.set_ylabel("m, distance of 0 over the ball" if number == 0 else "", color=INK)
        below.set_title(f"m over balls of radius {radius[title]:g}", loc="left", size=9, color=INK, pad=5)
        below.set_xlabel("step", color=INK)
        for axes in (above, below):
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(0, curves[0].steps[-1] * 1.1)
            tidy(axes)
        below.set_ylim(bottom=0)
    figure.legend(handles=_legend(names, panels), loc="upper left", bbox_to_anchor=(1 - 1.65 / width, 1 - 0.75 / height),
                  frameon=False, fontsize=9, labelspacing=0.9)  # fmt: skip
    return figure


def _draw(above: Any, below: Any, curve: Curve, place: int, least: float) -> None:
    """Draw one kind of runs into both panels; unlawful steps are thinner."""
    look = {"color": PALETTE[place % len(PALETTE)], "linestyle": (0, (4, 2)) if curve.dashed else "-",
            "linewidth": 1.9 if curve.lawful else 1.2, "zorder": 3}  # fmt: skip
    above.plot(curve.steps, [max(v - least, FLOOR) for v in curve.values], gid=curve.name, **look)
    below.plot(curve.at, curve.measured, gid=curve.name, marker=MARKS[place % len(MARKS)], markersize=5,
               markerfacecolor="white" if curve.dashed else look["color"], clip_on=False, **look)  # fmt: skip


def _legend(names: Sequence[str], panels: Mapping[str, Sequence[Curve]]) -> list[Any]:
    """Explain the colours and marks; say which steps fail a condition."""
    from matplotlib.lines import Line2D

    every = [c for curves in panels.values() for c in curves]
    handles = []
    for place, name in enumerate(names):
        lawful = all(c.lawful for c in every if c.name == name)
        text = name if lawful else f"{name}\n(fails a condition)"
        handles.append(
            Line2D([], [], color=PALETTE[place % len(PALETTE)], marker=MARKS[place % len(MARKS)], markersize=5,
                   linewidth=1.9 if lawful else 1.2, label=text)
        )  # fmt: skip
    handles += [Line2D([], [], color=FAINT, label="independent"),
                Line2D([], [], color=FAINT, linestyle=(0, (4, 2)), label="without\nreplacement")]  # fmt: skip
    return handles
