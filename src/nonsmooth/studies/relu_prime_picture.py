"""The pictures of the study of relu'(0): shares of initialisations with their intervals, accuracy against relu'(0)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonsmooth.report.picture import FAINT, INK, PALETTE
from nonsmooth.studies.intervals import Proportion

if TYPE_CHECKING:
    from nonsmooth.studies.relu_prime_result import ReluPrimeStudy, Volume

__all__ = ["draw_accuracies", "draw_choices", "draw_volumes", "pictures"]

MARKS = {"float16": "o", "bfloat16": "s", "float32": "^", "float64": "D"}
"""The mark of each precision; its colour is that of its place here."""

AXES = {"depth": "hidden layers", "width": "units of a hidden layer", "batch size": "images a batch"}
"""The tables by a number, and what that number is."""

HEAD = 1.35
"""The height of the title and of the legend, in inches."""


def pictures(study: ReluPrimeStudy) -> dict[str, Callable[[Path], None]]:
    """Name the pictures that the study has figures for."""
    found: dict[str, Callable[[Path], None]] = {}
    if study.volumes:
        found["volumes"] = lambda path: draw_volumes(path, study)
        found["choices"] = lambda path: draw_choices(path, study)
    if study.accuracies:
        found["accuracies"] = lambda path: draw_accuracies(path, study)
    return found


def draw_volumes(path: Path, study: ReluPrimeStudy) -> None:
    """Draw the share of initialisations whose gradients differ, by depth, width and batch size, with its intervals."""
    p, width, height = study.protocol, 11.4, HEAD + 3.6
    words = (
        f"Share of {p.initialisations:,} random initialisations, with the exact {100 * p.confidence:g} % interval, on the "
        f"{p.data}.\nElsewhere 3 hidden layers of {p.width} units, batches of {p.batch_size} (sampled)."
    )
    with _figure(path, width, height, "relu'(0) = 0 or 1: how often some gradient differs", words) as figure:
        for number, (table, what) in enumerate(AXES.items()):
            box = ((0.75 + number * 3.6) / width, 0.65 / height, 3.05 / width, 2.8 / height)
            axes = figure.add_axes(box)
            rows = [v for v in study.volumes if v.table == table]
            labels = list(dict.fromkeys(v.label for v in rows))
            for place, (precision, mark) in _marks(rows):
                own = [v for v in rows if v.precision == precision]
                where = [labels.index(v.label) + 0.11 * place for v in own]
                _points(axes, where, [v.different for v in own], precision, mark, line=True)
            axes.set_xticks(range(len(labels)), labels)
            axes.set_xlabel(what, size=9, color=INK)
            axes.set_ylim(-3, 103)
            axes.set_xlim(-0.5, len(labels) - 0.5)
            if number == 0:
                axes.set_ylabel("gradients differ, % of initialisations", size=9, color=INK)
            _plain(axes, "y")
        _legend(figure, axes, width, height)


def draw_choices(path: Path, study: ReluPrimeStudy) -> None:
    """Draw the shares by network, choice at max-pools and clamp: those that differ hollow, those that bifurcate filled."""
    rows = [v for v in study.volumes if v.table not in AXES]
    labels = list(dict.fromkeys((v.table, v.label) for v in rows))
    width, height = 11.4, HEAD + 0.75 + 0.55 * len(labels)
    words = (
        "Filled: the gradients differ also without rounding (bifurcation). Hollow: they differ, by rounding or not. "
        "Shares of\n"
        f"{study.protocol.initialisations:,} (mlp) or {study.protocol.cnn_initialisations:,} (cnn) initialisations, "
        f"with the exact {100 * study.protocol.confidence:g} % interval (sampled)."
    )
    with _figure(path, width, height, "Which networks and which choices differ", words) as figure:
        axes = figure.add_axes((3.3 / width, 0.6 / height, 7.8 / width, (0.55 * len(labels)) / height))
        for place, (precision, mark) in _marks(rows):
            own = [v for v in rows if v.precision == precision]
            where = [labels.index((v.table, v.label)) + 0.19 * place for v in own]
            colour = _colour(precision)
            shares = [100 * v.different.share for v in own]
            axes.plot(
                shares,
                where,
                mark,
                markersize=7,
                markerfacecolor="none",
                markeredgecolor=colour,
                zorder=4,
                clip_on=False,
            )
            _points(axes, where, [v.bifurcation for v in own], precision, mark, across=True)
        axes.set_yticks(range(len(labels)), [_row(table, label) for table, label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("% of initialisations", size=9, color=INK)
        for k in range(len(labels) - 1):
            axes.axhline(k + 0.5, color="#e6e9ec", linewidth=0.8, zorder=0)
        _plain(axes, "x")
        _legend(figure, axes, width, height)


def draw_accuracies(path: Path, study: ReluPrimeStudy) -> None:
    """Draw the mean test accuracy against relu'(0), a panel for each network, with Student's intervals."""
    p, labels = study.protocol, list(dict.fromkeys(a.label for a in study.accuracies))
    across = min(len(labels), 4)
    down = -(-len(labels) // across)
    width, height = 0.75 + 2.9 * across, HEAD + 3.3 * down
    words = (
        f"Mean of {p.seeds} seeds, with Student's {100 * p.confidence:g} % interval; {p.epochs} epochs on the {p.data}, "
        "the same seeds everywhere (sampled).\nThe values of relu'(0) are set side by side, not to scale."
    )
    with _figure(path, width, height, "Test accuracy after training with relu'(0)", words) as figure:
        low, high = _range(study)
        for number, label in enumerate(labels):
            row, column = divmod(number, across)
            left, bottom = 0.75 + column * 2.9, height - HEAD - (row + 1) * 3.3 + 0.65
            axes = figure.add_axes((left / width, bottom / height, 2.45 / width, 2.35 / height))
            for place, (batch_norm, colour, mark) in enumerate(((False, PALETTE[0], "o"), (True, PALETTE[1], "s"))):
                own = [a for a in study.accuracies if (a.label, a.batch_norm) == (label, batch_norm)]
                where = [k + 0.16 * (place - 0.5) for k in range(len(own))]
                values = [100 * a.accuracy.value for a in own]
                spread = [min(100 * (a.accuracy.high - a.accuracy.value), 1e3) for a in own]
                axes.errorbar(
                    where, values, yerr=spread, color=colour, marker=mark, markersize=5, linewidth=1.2, elinewidth=1.2,
                    capsize=2.5, label="with batch norm" if batch_norm else "without batch norm",
                )  # fmt: skip
            axes.set_xticks(range(len(p.alphas)), [f"{alpha:g}" for alpha in p.alphas])
            axes.set_ylim(low, high)
            axes.set_title(label, size=10, weight="bold", color=INK, loc="left")
            axes.set_xlabel("relu'(0)", size=9, color=INK)
            if column == 0:
                axes.set_ylabel("test accuracy, %", size=9, color=INK)
            _plain(axes, "y")
        _legend(figure, axes, width, height)


def _range(study: ReluPrimeStudy) -> tuple[float, float]:
    """Give the range of accuracies to show, in percent: all intervals, as far as they are finite and possible."""
    ends = [end for a in study.accuracies for end in (a.accuracy.low, a.accuracy.high, a.accuracy.value)]
    shown = [min(max(100 * end, 0.0), 100.0) for end in ends if math.isfinite(end)]
    room = 0.06 * max(max(shown) - min(shown), 1.0)
    return min(shown) - room, max(shown) + room


def _row(table: str, label: str) -> str:
    """Name a row of the picture of choices."""
    return {"network": f"relu'(0), {label}", "clamp": f"clamp, {label}"}.get(table, f"max-pool, {label}")


def _colour(precision: str) -> str:
    """Give the colour of a precision."""
    return PALETTE[list(MARKS).index(precision)]


def _marks(rows: Sequence[Volume]) -> Iterator[tuple[float, tuple[str, str]]]:
    """Give the precisions with their marks, and places around 0 to draw them side by side."""
    found = [(name, mark) for name, mark in MARKS.items() if any(v.precision == name for v in rows)]
    for k, pair in enumerate(found):
        yield k - (len(found) - 1) / 2, pair


def _points(
    axes: Any,
    where: Sequence[float],
    shares: Sequence[Proportion],
    precision: str,
    mark: str,
    line: bool = False,
    across: bool = False,
) -> None:
    """Draw shares in percent with their intervals."""
    values = [100 * s.share for s in shares]
    spread = [[100 * (s.share - s.low) for s in shares], [100 * (s.high - s.share) for s in shares]]
    place = (values, where) if across else (where, values)
    axes.errorbar(
        *place, **{"xerr" if across else "yerr": spread}, color=_colour(precision), marker=mark, markersize=5,
        linewidth=1.2 if line else 0, elinewidth=1.2, capsize=2.5, label=precision, zorder=3,
    )  # fmt: skip


@contextmanager
def _figure(path: Path, width: float, height: float, title: str, words: str) -> Iterator[Any]:
    """Make a figure with its title and what it shows, and write it after the block."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
        figure.text(0.2 / width, 1 - 0.2 / height, title, size=13, weight="bold", va="top", color=INK)
        figure.text(0.2 / width, 1 - 0.5 / height, words, size=9, va="top", color=FAINT, linespacing=1.4)
        yield figure
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _legend(figure: Any, axes: Any, width: float, height: float) -> None:
    """Write the legend of a panel under the title."""
    handles, names = axes.get_legend_handles_labels()
    place = (0.1 / width, 1 - 0.88 / height)
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=place, ncols=len(names), frameon=False, fontsize=9)


def _plain(axes: Any, along: str) -> None:
    """Give the axes a light grid along one direction and no frame."""
    axes.grid(axis=along, color="#e6e9ec", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, colors=INK)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
