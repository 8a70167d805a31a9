"""Pictures of the field of one variable: F above, its derivatives below, the sets as vertical segments at the kinks.

Colours are Okabe and Ito's, and every mark also differs by its shape or width: the pictures can be read in grey.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.report.picture import FAINT, INK, PALETTE, label

__all__ = ["MARKS", "KinkView", "LineView", "draw_gallery", "draw_line", "new_figure", "save_figure", "tidy"]

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = PALETTE

FIELD, CLARKE, LINE = ORANGE, SKY, INK
"""The colours of the field, of Clarke's set and of a derivative."""

MARKS = {
    "torch": ("o", INK, INK),
    "jax": ("s", GREEN, INK),
    "tensorflow": ("^", YELLOW, INK),
    "minimum-norm": ("*", PINK, INK),
    "0": ("D", "white", INK),
    "1/2": ("D", "#b5bcc4", INK),
    "1": ("D", FAINT, INK),
}
"""The mark of each convention: its shape, its face and its edge."""

APART = 9.0
"""Marks at one kink stand side by side, this many points apart where there is room."""

CLOSE = 3.0
"""Where they would stand closer than this, they stand on the kink."""


@dataclass(frozen=True)
class KinkView:
    """What is known at a kink of a function of one variable.

    Attributes:
        at, value: where it is, and F there.
        backprop: the derivative by the framework's own rules; `conventions` under every convention.
        field: the ends of conv D; None where there is no field, and `note` says why.
        clarke: the ends of Clarke's set, or of what is known of it; None where nothing is.
        word: "subgradient", "artifact", "undecided", "not judged" (within a tolerance) or "no field".
        tol: 0 where the kink is exactly active; else the distance within which it was counted as active: then the sets
            are those of the program with the kink moved there.
    """

    at: float
    value: float
    backprop: float
    conventions: Mapping[str, float]
    field: tuple[float, float] | None
    clarke: tuple[float, float] | None
    word: str
    tol: float = 0.0
    clarke_exact: bool = False
    field_exact: bool = True
    status: str = "computed"
    note: str = ""


@dataclass(frozen=True)
class LineView:
    """A function of one variable on an interval: its graph, its derivative by backprop, and its kinks."""

    point: float
    low: float
    high: float
    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    slopes: tuple[float, ...]
    kinks: tuple[KinkView, ...]
    left_out: int = 0
    sliced: bool = False

    def find(self, at: float) -> KinkView:
        """Give the kink nearest to a place.

        Raises:
            UsageError: no kink was found on the interval.
        """
        if not self.kinks:
            raise UsageError(f"no kink was found between {self.low:g} and {self.high:g}.")
        return min(self.kinks, key=lambda k: abs(k.at - at))


def new_figure(width: float, height: float) -> Any:
    """Make a white figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, facecolor="white")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure.

    Raises:
        UsageError: it cannot be written there.
    """
    from matplotlib import rc_context

    try:
        with rc_context({"font.family": "DejaVu Sans"}):
            figure.savefig(Path(path), dpi=110)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture cannot be written to {os.fspath(path)!r}: {error}.") from error


def draw_line(view: LineView, title: str = "") -> Any:
    """Draw F above, and below it the derivatives: lines by backprop, marks by convention, segments for the sets."""
    figure = new_figure(8.4, 6.0)
    top = figure.add_axes((0.085, 0.60, 0.655, 0.32))
    below = figure.add_axes((0.085, 0.105, 0.655, 0.44), sharex=top)
    _graph(top, view)
    _derivatives(below, view, width=8.4 * 0.655 * 72)
    top.set_title(label(title or f"F, and what backpropagation returns, around {_short(view.point)}", 80), loc="left",
                  size=11, weight="bold", color=INK)  # fmt: skip
    top.tick_params(labelbottom=False)
    top.set_ylabel("F", rotation=0, ha="right", va="center", color=INK)
    below.set_ylabel("derivative", color=INK)
    below.set_xlabel(view.name, color=INK)
    handles = _legend(view)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.75, 0.93), frameon=False, fontsize=8.5,
                  handlelength=1.8, labelspacing=0.75)  # fmt: skip
    words = _words(view, aside=_spacing(view, 8.4 * 0.655 * 72) > CLOSE)
    figure.text(0.757, 0.105, "\n".join(words), size=8, color=INK, va="bottom", linespacing=1.5)
    return figure


def draw_gallery(views: Sequence[tuple[str, str, LineView]], title: str) -> Any:
    """Draw the derivatives of several functions side by side: (name, program, view) each."""
    across, wide, high = 4, 3.0, 2.75
    down = -(-len(views) // across)
    width, height = across * wide + 0.2, down * high + 0.85
    figure = new_figure(width, height)
    figure.text(0.25 / width, 1 - 0.2 / height, label(title, 140), size=13, weight="bold", va="top", color=INK)
    for number, (name, text, view) in enumerate(views):
        row, column = divmod(number, across)
        place = (0.5 + column * wide, height - 0.8 - (row + 1) * high + 0.3)
        axes = figure.add_axes((place[0] / width, place[1] / height, (wide - 0.6) / width, (high - 0.9) / height))
        _derivatives(axes, view, width=(wide - 0.6) * 72)
        kink = view.find(view.point) if view.kinks else None
        apart = kink is not None and kink.word == "artifact"
        axes.annotate(label(name), (0, 1), (0, 19), "axes fraction", "offset points", size=10, weight="bold", color=INK)
        if kink is not None:
            axes.annotate(kink.word, (1, 1), (0, 19), "axes fraction", "offset points", size=9, ha="right",
                          color=ORANGE if apart else INK, weight="bold" if apart else "normal")  # fmt: skip
        axes.annotate(label(text, 44), (0, 1), (0, 6), "axes fraction", "offset points", size=8, color=FAINT)
    figure.legend(handles=_legend(None), loc="upper left", bbox_to_anchor=(0.15 / width, 1 - 0.42 / height),
                  frameon=False, fontsize=8.5, ncols=10, columnspacing=1.1, handletextpad=0.4)  # fmt: skip
    return figure


def _graph(axes: Any, view: LineView) -> None:
    """Draw F, and a dot at each kink."""
    axes.plot(view.times, view.values, color=BLUE, linewidth=2.2, gid="F", zorder=2)
    for kink in view.kinks:
        axes.plot([kink.at], [kink.value], "o", color="white", markeredgecolor=BLUE, markersize=6, gid="kink", zorder=3)
    axes.set_xlim(view.low, view.high)
    axes.margins(y=0.12)
    tidy(axes)


def _derivatives(axes: Any, view: LineView, width: float) -> None:
    """Draw the derivative between the kinks, and at each kink the sets and the values by convention."""
    for run in _runs(view):
        axes.plot([view.times[k] for k in run], [view.slopes[k] for k in run], color=LINE, linewidth=1.8, gid="backprop",
                  zorder=2)  # fmt: skip
    step = _spacing(view, width)
    for kink in view.kinks:
        _sets(axes, kink)
        _values(axes, kink, step)
    axes.set_xlim(view.low, view.high)
    shown = [*view.slopes, *(v for k in view.kinks for v in (*k.conventions.values(), *(k.field or ())))]
    finite = [v for v in shown if abs(v) < float("inf")] or [0.0]
    room = 0.12 * (max(finite) - min(finite)) or 0.5
    axes.set_ylim(min(finite) - room, max(finite) + room)
    tidy(axes)


def _spacing(view: LineView, width: float) -> float:
    """Choose how far marks stand apart, in points: closer where kinks are close."""
    places = sorted(k.at for k in view.kinks)
    gaps = [(b - a) / (view.high - view.low) * width for a, b in itertools.pairwise(places)]
    return min([APART, *(gap / (len(MARKS) + 2) for gap in gaps)])


def _sets(axes: Any, kink: KinkView) -> None:
    """Draw Clarke's set as a wide segment and the field as a thin one with feet; a dotted line where there is none."""
    if kink.field is None:
        axes.axvline(kink.at, color=FAINT, linewidth=1, linestyle=":", gid="no field", zorder=1)
        return
    if kink.clarke is not None:
        low, high = kink.clarke
        if low == high:
            axes.plot([kink.at], [low], "s", color=CLARKE, markersize=12, gid="clarke", zorder=3)
        else:
            axes.plot([kink.at, kink.at], [low, high], color=CLARKE, linewidth=9, solid_capstyle="butt", gid="clarke",
                      zorder=3, linestyle="-" if kink.clarke_exact else (0, (1, 0.4)))  # fmt: skip
    axes.plot([kink.at, kink.at], kink.field, color=FIELD, linewidth=2.4, solid_capstyle="butt", marker="_",
              markersize=11, markeredgewidth=2.4, gid="field", zorder=4)  # fmt: skip


def _values(axes: Any, kink: KinkView, step: float) -> None:
    """Draw the values by convention side by side, each moved by some points so that equal ones are all seen."""
    from matplotlib.transforms import ScaledTranslation

    for number, (name, value) in enumerate(kink.conventions.items()):
        shape, face, edge = MARKS[name]
        half = len(MARKS) // 2
        aside = step * (number - half + (1.4 if number >= half else -0.4)) if step > CLOSE else 0.0
        moved = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
        axes.plot([kink.at], [value], marker=shape, color=face, markeredgecolor=edge, markeredgewidth=0.8,
                  markersize=9 if shape == "*" else 6, linestyle="", gid=f"at {name}", transform=moved,
                  zorder=5)  # fmt: skip


def _runs(view: LineView) -> list[list[int]]:
    """Cut the grid at the kinks, and where the derivative is not finite."""
    runs: list[list[int]] = [[]]
    places = sorted(k.at for k in view.kinks)
    for k, t in enumerate(view.times):
        broken = bool(runs[-1]) and any(view.times[runs[-1][-1]] <= p <= t for p in places)
        finite = abs(view.slopes[k]) < float("inf")
        if broken or not finite:
            runs.append([])
        if finite and t not in places:
            runs[-1].append(k)
    return [run for run in runs if run]


def _legend(view: LineView | None) -> list[Any]:
    """Explain every mark; without a view, those of the gallery."""
    from matplotlib.lines import Line2D

    known = view is None or all(k.clarke_exact for k in view.kinks if k.clarke is not None)
    handles: list[Any] = [Line2D([], [], color=BLUE, linewidth=2.2, label="F")] * (view is not None)
    handles += [
        Line2D([], [], color=LINE, linewidth=1.8, label="by backprop, off the kinks" if view else "backprop"),
        Line2D([], [], color=FIELD, linewidth=2.4, marker="|", markersize=9, markeredgewidth=2.4,
               label="field: conv D" if view else "conv D"),
        Line2D([], [], color=CLARKE, linewidth=9, solid_capstyle="butt",
               label=("Clarke's subdifferential" if known else "a part of Clarke's\nsubdifferential") if view else "Clarke"),
    ]  # fmt: skip
    for name, (shape, face, edge) in MARKS.items():
        text = f"weight {name}" if name[0].isdigit() else name
        handles.append(
            Line2D([], [], linestyle="", marker=shape, markersize=9 if shape == "*" else 6, color=face,
                   markeredgecolor=edge, label=f"{text}, at the kinks" if view and name == "torch" else text)
        )  # fmt: skip
    return handles


def _words(view: LineView, *, aside: bool) -> list[str]:
    """Say what the picture does not show: numbers at the point, tolerances, what was left out."""
    lines: list[str] = []
    for kink in sorted(view.kinks, key=lambda k: abs(k.at - view.point))[:1]:
        lines.append(f"at {_short(kink.at)}:")
        if kink.field is not None:
            lines.append(f"conv D = [{kink.field[0]:.3g}, {kink.field[1]:.3g}]")
        if kink.clarke is not None and kink.clarke_exact:
            lines.append(f"Clarke = [{kink.clarke[0]:.3g}, {kink.clarke[1]:.3g}]")
        lines.append(f"backprop {kink.backprop:.3g}: {kink.word}")
    lines.append(
        "no kink on the interval" if not view.kinks else f"marks stand {'beside' if aside else 'on'} their kink"
    )
    tols = [k.tol for k in view.kinks if k.tol]
    if tols:
        lines += [f"{len(tols)} kink(s) hit by no floating-", f"point number: sets within {max(tols):.0e}"]
    if any(k.field is None for k in view.kinks):
        lines += ["dotted: a jump or a singular", "point, where there is no field"]
    if view.left_out:
        lines.append(f"{view.left_out} kinks further off left out")
    return lines


def _short(value: float) -> str:
    """Print a number shortly."""
    return f"{value + 0.0:.6g}"


def tidy(axes: Any) -> None:
    """Give the axes a light grid and no frame."""
    axes.set_facecolor("white")
    axes.grid(color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
