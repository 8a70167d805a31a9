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

PANEL, GAP = 2.3, 0.55
"""The height of a panel with its title, and of what is between two, in inches."""

NAMED = 48
"""Up to so many steps are named at the axis."""


def draw_bounds(path: Path, bounds: Bounds) -> None:
    """Draw m, l and L of every layer on logarithmic axes, with respect to what runs through a set."""
    draw_comparison(path, {bounds.function: bounds}, [(k,) for k in range(len(bounds.layers))])


def draw_comparison(path: Path, architectures: Mapping[str, Bounds], rows: Sequence[Sequence[int | None]]) -> None:
    """Draw m, l and L of every layer of several architectures, layers that correspond at the same place.

    `rows` gives for each place the number of the layer in each architecture, None where it has none. Where a constant is
    infinite its curve is broken, with a cross at the upper edge.
    """
    panels = _panels(architectures)
    several = len(architectures) > 1
    names = _operations(architectures, rows) if len(rows) <= NAMED else None
    width = min(max(6.4, 0.18 * len(rows) + 1.2), 11.0)
    across = max(1, int(width / 2.6))
    above = 0.95 + (0.22 * -(-len(architectures) // across) if several else 0.0)
    below = 0.35 + (0.2 if names is None else 0.065 * min(max(map(len, names), default=0), 16))
    height = above + PANEL * len(panels) - GAP + below
    figure = new_figure(width, height)
    _write_title(figure, list(architectures), width, height)
    for number, (constant, kind, title) in enumerate(panels):
        bottom = height - above - PANEL * (number + 1) + GAP
        axes = figure.add_axes((0.7 / width, bottom / height, (width - 0.95) / width, (PANEL - GAP) / height))
        axes.set_yscale("log")
        axes.set_title(title, loc="left", size=10.5, color=INK, pad=6)
        tidy(axes)
        axes.tick_params(which="minor", length=0, labelsize=8.5, colors=INK)
        curves = _curves(architectures, rows, kind, constant)
        for place, (name, curve) in enumerate(curves.items()):
            _draw(axes, name, curve, place)
        _say_what_is_not_drawn(axes, [v for curve in curves.values() for v in curve.values()])
        axes.set_xlim(0.5, max(len(rows), 1) + 0.5)
        _name_rows(axes, names, last=number == len(panels) - 1)
    if several:
        figure.legend(handles=_legend(list(architectures)), loc="upper left", frameon=False, fontsize=9, ncols=across,
                      bbox_to_anchor=(0.15 / width, 1 - 0.6 / height), borderaxespad=0.0)  # fmt: skip
    save_figure(figure, path)


def _panels(architectures: Mapping[str, Bounds]) -> list[tuple[str, str, str]]:
    """List the panels: the constant, with respect to what, and what the panel is called; m stands once."""
    kinds = [k for k in ("weights", "inputs") if any(b.kind == k for a in architectures.values() for b in a.blocks)]
    found = [(c, k, f"{title} in the {k}" if c != "norm" else title) for k in kinds for c, title in CONSTANTS]
    return [panel for place, panel in enumerate(found) if panel[0] != "norm" or place == 0]


def _write_title(figure: Any, names: Sequence[str], width: float, height: float) -> None:
    """Write the title, and below it how the picture is read."""
    title = " and ".join(names) if len(names) < 3 else f"{len(names)} architectures"
    figure.text(0.25 / width, 1 - 0.15 / height, label(f"Bounds of {title}", int(width / 0.125)), size=13,
                weight="bold", va="top", color=INK)  # fmt: skip
    note = "up to each step of the program; logarithmic, zero is not drawn; a cross at the edge: infinite there"
    figure.text(0.25 / width, 1 - 0.4 / height, note, size=8.5, va="top", color=INK)


def _curves(
    architectures: Mapping[str, Bounds], rows: Sequence[Sequence[int | None]], kind: str, constant: str
) -> dict[str, dict[int, float]]:
    """Read a constant of every layer of every architecture, by its row."""
    return {
        name: {
            place: _constant(bounds.layers[layer], kind, constant)
            for place, row in enumerate(rows, 1)
            if (layer := row[number]) is not None
        }
        for number, (name, bounds) in enumerate(architectures.items())
    }


def _constant(layer: Layer, kind: str, constant: str) -> float:
    """Read a constant of a layer."""
    bound: Bound = layer.both if constant == "norm" else getattr(layer, kind)
    return float(getattr(bound, constant))


def _draw(axes: Any, name: str, curve: Mapping[int, float], place: int) -> None:
    """Draw one architecture's constants, and a cross at each step where they are infinite, beside those of others."""
    from matplotlib.transforms import ScaledTranslation

    colour = PALETTE[place % len(PALETTE)]
    shown = [v if isfinite(v) and v > 0 else float("nan") for v in curve.values()]
    axes.plot(list(curve), shown, color=colour, marker=_mark(place), markersize=4.5, linewidth=1.6,
              gid=name, zorder=3)  # fmt: skip
    infinite = [step for step, v in curve.items() if v == float("inf")]
    aside = ScaledTranslation(5 * (place % 3) / 72, 0, axes.figure.dpi_scale_trans)
    if infinite:
        axes.plot(infinite, [1.0] * len(infinite), marker="x", markersize=5, linestyle="", color=colour, clip_on=False,
                  transform=axes.get_xaxis_transform() + aside, gid=f"{name}: infinite")  # fmt: skip


def _say_what_is_not_drawn(axes: Any, values: Sequence[float]) -> None:
    """Say in the panel that a constant is infinite or zero everywhere: then its axis has no numbers."""
    if any(isfinite(v) and v > 0 for v in values):
        return
    words = [word for word, at in (("zero", 0.0), ("infinite", float("inf"))) if at in values]
    axes.tick_params(which="both", labelleft=False)
    axes.grid(visible=False, axis="y")
    axes.text(0.5, 0.5, f"{' or '.join(words)} everywhere" if words else "no steps", transform=axes.transAxes,
              ha="center", va="center", size=10, color=FAINT)  # fmt: skip


def _operations(architectures: Mapping[str, Bounds], rows: Sequence[Sequence[int | None]]) -> list[str]:
    """Name every row by the operation of its layers."""
    found = list(architectures.values())
    return [next(b.layers[k].operation for b, k in zip(found, row, strict=True) if k is not None) for row in rows]


def _name_rows(axes: Any, names: Sequence[str] | None, *, last: bool) -> None:
    """Write the operations under the axis, or that it counts the steps."""
    if names is None:
        if last:
            axes.set_xlabel("step", color=INK)
        return
    axes.set_xticks(range(1, len(names) + 1))
    axes.set_xticklabels([label(name, 16) for name in names] if last else [], rotation=60, ha="right",
                         rotation_mode="anchor", size=8, color=FAINT)  # fmt: skip


def _legend(names: Sequence[str]) -> list[Any]:
    """Explain colours and marks."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=PALETTE[k % len(PALETTE)], marker=_mark(k), markersize=5, label=label(name, 26))
        for k, name in enumerate(names)
    ]


def _mark(place: int) -> str:
    """Give the mark of an architecture: where the colours begin anew, the marks are moved by one."""
    return MARKS[(place + place // len(PALETTE)) % len(MARKS)]
