"""Pictures of the field of two variables: the strata and gradients as a map, and beside it the sets at points.

Right of the map a panel for every point shows its sets in the plane of the gradients, with the values by convention,
the shortest element, and the tangent space of the stratum, on which all elements of the field have the same projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.report.field_picture import CLARKE, FIELD, MARKS, new_figure, tidy
from nonsmooth.report.picture import FAINT, INK, PALETTE, label

__all__ = ["CROWD", "Outline", "PlaneView", "PointView", "Stroke", "draw_plane"]

BLUE, _, GREEN, PINK, _, _ = PALETTE

Pair: TypeAlias = tuple[float, float]
Outline: TypeAlias = tuple[Pair, ...]
"""The corners of a convex set of the plane, in order; two for a segment, one for a point."""

PANELS = 4
"""So many points have a panel of their own; further ones stand on the map alone."""

CROWD = 600
"""From so many strokes on strata are drawn thin."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Stroke:
    """A short part of a stratum: the operation whose kink is active, its ends, and whether it can matter there."""

    operation: str
    start: Pair
    end: Pair
    matters: bool = True


@dataclass(frozen=True)
class PointView:
    """The sets at a point.

    Attributes:
        field, clarke: the corners of conv D, and of Clarke's set or of what is known of it; None where nothing is.
        equality: why Clarke's set is known, or "inner only".
        shortest, distance: the shortest element of conv D, and its length; descent: along which F decreases.
        tangent: a basis of the directions in which the active kinks stay active.
        spread: how far the elements of conv D differ along them: 0, by the projection formula.
    """

    at: Pair
    value: float
    backprop: Pair
    conventions: Mapping[str, Pair]
    field: Outline | None
    clarke: Outline | None
    clarke_exact: bool = False
    equality: str = ""
    kinks: int = 0
    shortest: Pair = (0.0, 0.0)
    distance: float = 0.0
    descent: Pair | None = None
    tangent: tuple[Pair, ...] = ()
    spread: float = 0.0
    status: str = "computed"
    exact: bool = True
    note: str = ""


@dataclass(frozen=True)
class PlaneView:
    """A function of two variables in a window: its strata, gradients on its pieces, and its sets at points."""

    low: Pair
    high: Pair
    names: tuple[str, str]
    strokes: tuple[Stroke, ...]
    isolated: tuple[Pair, ...]
    arrows: tuple[tuple[Pair, Pair], ...]
    points: tuple[PointView, ...]
    sliced: bool = False


def draw_plane(view: PlaneView, title: str = "") -> Any:
    """Draw the map, and a panel for each of the first points."""
    panels = view.points[:PANELS]
    columns = 1 if len(panels) <= 2 else 2
    rows = -(-len(panels) // columns)
    each = 2.45
    width, height = 0.75 + 4.9 + columns * (each + 0.75) + 0.15, 6.6
    figure = new_figure(width, height)
    figure.text(0.25 / width, 1 - 0.2 / height, label(title or "Strata, gradients, and the sets at points", 100), size=12,
                weight="bold", va="top", color=INK)  # fmt: skip
    words = "Map: gradients and sets to one scale. Right: equal values stand in a row."
    figure.text(0.25 / width, 1 - 0.42 / height, words, size=8.5, va="top", color=FAINT)
    axes = figure.add_axes((0.75 / width, 1.2 / height, 4.9 / width, 4.8 / height))
    _map(axes, view)
    size = min(each, (4.8 - 0.75 * (rows - 1)) / rows)
    for number, point in enumerate(panels):
        row, column = divmod(number, columns)
        left = 0.75 + 4.9 + 0.7 + column * (each + 0.75)
        bottom = 1.2 + 4.8 - (row + 1) * size - row * 0.75
        panel = figure.add_axes((left / width, bottom / height, each / width, size / height))
        _panel(panel, point, LETTERS[number], view.names)
    figure.legend(handles=_legend(view), loc="lower left", bbox_to_anchor=(0.15 / width, 0.08 / height), frameon=False,
                  fontsize=8.2, ncols=5 if columns == 1 else 6, columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    return figure


def _scale(view: PlaneView) -> float:
    """Choose how long a gradient of length 1 is drawn on the map."""
    sizes = [float(np.hypot(*g)) for _, g in view.arrows]
    sizes += [float(np.hypot(*v)) for p in view.points for v in (p.field or ())]
    return 0.13 * (view.high[0] - view.low[0]) / max([*sizes, 1e-12])


def _map(axes: Any, view: PlaneView) -> None:
    """Draw strata as curves, gradients as arrows, and the sets moved to their points. Right: equal values stand in a row."""
    from matplotlib.collections import LineCollection

    wide = 2.0 if len(view.strokes) < CROWD else 0.7
    for matters, style in ((True, "-"), (False, ":")):
        lines = [(s.start, s.end) for s in view.strokes if s.matters is matters]
        gid = "stratum" if matters else "stratum without effect"
        width = wide if matters else 0.6 * wide
        strokes = LineCollection(lines, colors=FAINT, linewidths=width, linestyles=style, gid=gid, zorder=2)
        axes.add_collection(strokes)
    for place in view.isolated:
        axes.plot(*place, "o", color=FAINT, markersize=7, gid="isolated kink", zorder=2)
    scale = _scale(view)
    if view.arrows:
        starts, vectors = (np.array([a[k] for a in view.arrows]) for k in (0, 1))
        axes.quiver(starts[:, 0], starts[:, 1], scale * vectors[:, 0], scale * vectors[:, 1], angles="xy",
                    scale_units="xy", scale=1, width=0.0045, pivot="mid", color="#8c959f", gid="gradient", zorder=3)  # fmt: skip
    for number, point in enumerate(view.points):
        _set(axes, point.field, FIELD, "field", scale, point.at)
        _set(axes, point.clarke, CLARKE, "clarke", scale, point.at)
        axes.plot(*point.at, "o", color=INK, markersize=4.5, gid="point", zorder=8)
        letter = LETTERS[number % len(LETTERS)]
        _letter(axes, letter, point)
        reach = 0.22 * (view.high[0] - view.low[0])
        if point.descent is not None:
            end = (point.at[0] + 0.7 * reach * point.descent[0], point.at[1] + 0.7 * reach * point.descent[1])
            axes.annotate("", end, point.at, gid="descent", zorder=7,
                          arrowprops={"arrowstyle": "-|>", "color": GREEN, "linewidth": 2})  # fmt: skip
        if len(point.tangent) == 1:
            (d,) = point.tangent
            xs, ys = ([point.at[k] - reach * d[k], point.at[k] + reach * d[k]] for k in (0, 1))
            axes.plot(xs, ys, color=PINK, linewidth=2.2, linestyle=(0, (4, 2)), gid="tangent", zorder=4)
    axes.set_xlim(view.low[0], view.high[0])
    axes.set_ylim(view.low[1], view.high[1])
    axes.set_aspect("equal")
    axes.set_xlabel(view.names[0], color=INK)
    axes.set_ylabel(view.names[1], rotation=0, ha="right", color=INK)
    tidy(axes)
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(nbins=6, prune="both")


def _letter(axes: Any, letter: str, point: PointView) -> None:
    """Name a point, to the side where its descent direction does not run."""
    side = -1 if point.descent is not None and point.descent[0] + point.descent[1] > 0 else 1
    axes.annotate(letter, point.at, (7 * side, 7 * side), textcoords="offset points", size=11, weight="bold", color=INK,
                  ha="left" if side > 0 else "right", va="bottom" if side > 0 else "top", zorder=9,
                  bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip


def _set(axes: Any, corners: Outline | None, colour: str, gid: str, scale: float, at: Pair) -> None:
    """Draw a set, scaled and moved: the field by its outline, Clarke's set filled or wide."""
    if corners is None:
        return
    wide = gid == "clarke"
    xs = [at[0] + scale * c[0] for c in corners]
    ys = [at[1] + scale * c[1] for c in corners]
    if len(corners) > 2 and wide:
        axes.fill(xs, ys, facecolor=colour, alpha=0.55, edgecolor="none", gid=gid, zorder=4)
    elif len(corners) == 1:
        axes.plot(xs, ys, "s" if wide else "_", color=colour, markersize=9 if wide else 12, markeredgewidth=2.4, gid=gid,
                  zorder=4 if wide else 5)  # fmt: skip
    else:
        closed = len(corners) > 2
        axes.plot(xs + xs[:closed], ys + ys[:closed], color=colour, linewidth=8 if wide else 2.2, gid=gid,
                  solid_capstyle="butt", zorder=4 if wide else 5)  # fmt: skip


def _panel(axes: Any, point: PointView, letter: str, names: tuple[str, str]) -> None:
    """Draw the sets of a point in the plane of the gradients, with the conventions and the common projection."""
    where = ", ".join(f"{v:.3g}" for v in point.at)
    axes.set_title(f"{letter} = ({where})", loc="left", size=9.5, weight="bold", color=INK, pad=16)
    axes.annotate(label(_words(point), 60), (0, 1), (0, 5), "axes fraction", "offset points", size=8, color=INK)
    shown = [*(point.field or ()), *point.conventions.values(), (0.0, 0.0)]
    array = np.array([v for v in shown if np.all(np.isfinite(v))])
    middle, half = (array.max(0) + array.min(0)) / 2, max(0.62 * float((array.max(0) - array.min(0)).max()), 0.5)
    for k, d in enumerate(point.tangent if len(point.tangent) == 1 else ()):
        _projection(axes, point, np.array(d), 4 * half, first=k == 0)
    _set(axes, point.field, FIELD, "field", 1.0, (0.0, 0.0))
    _set(axes, point.clarke, CLARKE, "clarke", 1.0, (0.0, 0.0))
    axes.plot(0, 0, "+", color=INK, markersize=9, markeredgewidth=1.4, gid="zero", zorder=6)
    _values(axes, point, half)
    if point.field is not None:
        axes.plot(*point.shortest, "o", markersize=11, markerfacecolor="none", markeredgecolor=BLUE, markeredgewidth=2,
                  gid="shortest", zorder=7)  # fmt: skip
    box = axes.get_window_extent()
    ratio = box.width / box.height
    axes.set_xlim(middle[0] - half * 1.2 * max(ratio, 1), middle[0] + half * 1.2 * max(ratio, 1))
    axes.set_ylim(middle[1] - half * 1.2 / min(ratio, 1), middle[1] + half * 1.2 / min(ratio, 1))
    axes.set_aspect("equal", adjustable="box")
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.yaxis.get_major_locator().set_params(nbins=5)
    tidy(axes)
    axes.set_xlabel(f"along {names[0]}", size=8, color=FAINT, labelpad=1)
    axes.set_ylabel(f"along {names[1]}", size=8, color=FAINT, labelpad=1)


def _words(point: PointView) -> str:
    """Say in a few words what is known of the sets."""
    if point.field is None:
        return "no field: a jump or a singular point"
    clarke = {"inner only": "Clarke: a part", "differentiable": "no kink matters"}.get(
        point.equality, "Clarke: all of it"
    )
    critical = "0 in conv D" if point.distance == 0 else f"dist(0, conv D) = {point.distance:.3g}"
    return f"{critical}; {clarke}"


def _projection(axes: Any, point: PointView, d: Any, reach: float, *, first: bool) -> None:
    """Draw the tangent space through 0, and the drops from the corners of the field to their common projection."""
    axes.plot([-reach * d[0], reach * d[0]], [-reach * d[1], reach * d[1]], color=PINK, linewidth=2.2,
              linestyle=(0, (4, 2)), gid="tangent", zorder=2)  # fmt: skip
    for corner in point.field or ():
        foot = (np.array(corner) @ d) * d
        axes.plot([corner[0], foot[0]], [corner[1], foot[1]], color=PINK, linewidth=1, linestyle=":", zorder=2)
        axes.plot(*foot, "X", color=PINK, markeredgecolor=INK, markersize=8, gid="projection", zorder=7)


def _values(axes: Any, point: PointView, half: float) -> None:
    """Draw the values by convention; equal ones stand in a row on a thin line that begins at their place."""
    from matplotlib.transforms import ScaledTranslation

    met: dict[Pair, int] = {}
    same = [tuple(np.round(v, 9) + 0.0) for v in point.conventions.values()]
    for name, value in point.conventions.items():
        place = (round(value[0], 9) + 0.0, round(value[1], 9) + 0.0)
        count, number = same.count(place), met.get(place, 0)
        met[place] = number + 1
        shape, face, edge = MARKS[name]
        if number == 0 and count > 1 and np.all(np.isfinite(value)):
            axes.annotate("", value, (3 + 8 * count, 0), textcoords="offset points", zorder=7, gid="leader",
                          arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
                          annotation_clip=False)  # fmt: skip
        moved = axes.transData + ScaledTranslation(
            (11 + 8 * number if count > 1 else 0) / 72, 0, axes.figure.dpi_scale_trans
        )
        axes.plot(*value, marker=shape, color=face, markeredgecolor=edge, markeredgewidth=0.8, linestyle="",
                  markersize=8 if shape == "*" else 5.2, transform=moved, gid=f"at {name}", zorder=8, clip_on=False)  # fmt: skip


def _legend(view: PlaneView) -> list[Any]:
    """Explain every mark."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    exact = all(p.clarke_exact for p in view.points if p.clarke is not None)
    handles: list[Any] = []
    if any(s.matters for s in view.strokes):
        handles.append(Line2D([], [], color=FAINT, linewidth=2, label="a kink is active: stratum"))
    if any(not s.matters for s in view.strokes):
        handles.append(Line2D([], [], color=FAINT, linewidth=1.2, linestyle=":", label="active without effect"))
    if view.isolated:
        handles.append(Line2D([], [], linestyle="", marker="o", markersize=7, color=FAINT, label="kink at a point"))
    handles += [
        Line2D([], [], color="#8c959f", marker=">", markersize=5, linewidth=1.5, label="gradient"),
        Line2D([], [], color=FIELD, linewidth=2.2, label="field: conv D"),
        Patch(facecolor=CLARKE, alpha=0.7, label="Clarke's set" if exact else "Clarke's set, or a part"),
        Line2D([], [], linestyle="", marker="o", markersize=10, markerfacecolor="none", markeredgecolor=BLUE,
               markeredgewidth=2, label="shortest element"),
    ]  # fmt: skip
    if any(p.descent is not None for p in view.points):
        handles.append(Line2D([], [], color=GREEN, marker=">", markersize=5, linewidth=2, label="descent direction"))
    if any(len(p.tangent) == 1 for p in view.points):
        dashed = Line2D([], [], color=PINK, linewidth=2.2, linestyle=(0, (4, 2)), label="tangent of the stratum")
        cross = Line2D([], [], linestyle="", marker="X", markersize=8, color=PINK, markeredgecolor=INK)
        cross.set_label("the one projection on it")
        handles += [dashed, cross]
    for name, (shape, face, edge) in MARKS.items():
        text = f"weight {name}" if name[0].isdigit() else name
        handles.append(Line2D([], [], linestyle="", marker=shape, markersize=8 if shape == "*" else 5.2, color=face,
                              markeredgecolor=edge, label=text))  # fmt: skip
    return handles
