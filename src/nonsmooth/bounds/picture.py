"""Bounds as a picture: the constants layer by layer, of one architecture or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonsmooth.report.field_picture import new_figure, save_figure, tidy
from nonsmooth.report.picture import FAINT, INK, PALETTE, label

if TYPE_CHECKING:
    from nonsmooth.bounds.bounds import Bound, Bounds, Layer

__all__ = ["draw_bounds", "draw_comparison"]

MARKS = ("o", "s", "^", "D", "v", "P")
"""The mark of each architecture: told apart without colour."""

CONSTANTS = (("norm", "size m"), ("lipschitz", "Lipschitz constant l"), ("smoothness", "smoothness constant L"))
"""The constants of a bound, and what a panel of them is called."""


def draw_bounds(path: Path, bounds: Bounds) -> None:
    """Draw m, l and L of every layer on logarithmic axes, with respect to what runs through a set."""
    draw_comparison(path, {bounds.function: bounds})


def draw_comparison(path: Path, architectures: Mapping[str, Bounds]) -> None:
    """Draw m, l and L of every layer of several architectures; the axis counts the steps that are drawn.

    Where a constant is infinite its curve ends, with a mark at the upper edge.
    """
    kinds = [k for k in ("weights", "inputs") if any(b.kind == k for a in architectures.values() for b in a.blocks)]
    panels = [(c, k, f"{title} in the {k}" if c != "norm" else title) for k in kinds for c, title in CONSTANTS]
    panels = [p for place, p in enumerate(panels) if p[0] != "norm" or place == 0]
    longest = max((len(a.layers) for a in architectures.values()), default=0)
    wide, high = min(max(4.2, 0.16 * longest + 2.2), 9.0), 2.5
    width, height = wide + 2.4, high * len(panels) + 1.2
    figure = new_figure(width, height)
    names = " and ".join(architectures) if len(architectures) < 3 else f"{len(architectures)} architectures"
    figure.text(0.25 / width, 1 - 0.18 / height, label(f"Bounds of {names}", 70), size=13, weight="bold", va="top",
                color=INK)  # fmt: skip
    note = "up to each step of the program; logarithmic; a cross at the edge: infinite from here on"
    figure.text(0.25 / width, 1 - 0.47 / height, note, size=9, va="top", color=INK)
    for row, (constant, kind, title) in enumerate(panels):
        bottom = (height - 1.25 - high * (row + 1) + 0.55) / height
        axes = figure.add_axes((0.75 / width, bottom, (wide - 0.5) / width, (high - 0.7) / height))
        axes.set_yscale("log")
        axes.set_title(title, loc="left", size=10.5, color=INK, pad=6)
        tidy(axes)
        for place, (name, bounds) in enumerate(architectures.items()):
            _draw(axes, name, [_constant(layer, kind, constant) for layer in bounds.layers], place)
        axes.set_xlim(0.5, longest + 0.5)
        if len(architectures) == 1:
            _name_layers(axes, next(iter(architectures.values())).layers, last=row == len(panels) - 1)
        elif row == len(panels) - 1:
            axes.set_xlabel("step", color=INK)
    if len(architectures) > 1:
        figure.legend(handles=_legend(list(architectures)), loc="upper left", frameon=False, fontsize=9,
                      bbox_to_anchor=((wide + 0.4) / width, 1 - 0.8 / height), labelspacing=0.9)  # fmt: skip
    save_figure(figure, path)


def _constant(layer: Layer, kind: str, constant: str) -> float:
    """Read a constant of a layer."""
    bound: Bound = layer.both if constant == "norm" else getattr(layer, kind)
    return float(getattr(bound, constant))


def _draw(axes: Any, name: str, values: Sequence[float], place: int) -> None:
    """Draw one architecture's constants."""
    colour = PALETTE[place % len(PALETTE)]
    shown = [v if isfinite(v) and v > 0 else float("nan") for v in values]
    places = range(1, len(values) + 1)
    axes.plot(places, shown, color=colour, marker=MARKS[place % len(MARKS)], markersize=4.5, linewidth=1.6, gid=name,
              zorder=3)  # fmt: skip
    first = next((k for k, v in enumerate(values, 1) if v == float("inf")), None)
    if first is not None:
        axes.plot([first], [0.97], marker="x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)


def _name_layers(axes: Any, layers: Sequence[Layer], *, last: bool) -> None:
    """Write the operations under the axis, if there is room."""
    if len(layers) > 48:
        if last:
            axes.set_xlabel("step", color=INK)
        return
    axes.set_xticks(range(1, len(layers) + 1))
    axes.set_xticklabels([label(layer.operation, 16) for layer in layers] if last else [], rotation=60, ha="right",
                         rotation_mode="anchor", size=8, color=FAINT)  # fmt: skip


def _legend(names: Sequence[str]) -> list[Any]:
    """Explain colours and marks."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [], [], color=PALETTE[k % len(PALETTE)], marker=MARKS[k % len(MARKS)], markersize=5, label=label(name, 26)
        )
        for k, name in enumerate(names)
    ]
