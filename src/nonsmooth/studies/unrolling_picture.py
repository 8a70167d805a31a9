"""The picture of derivatives of iterates: contractions, the heavy ball, and how fast products grow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonsmooth.report.picture import FAINT, INK, PALETTE

if TYPE_CHECKING:
    from nonsmooth.studies.unrolling import UnrollingStudy

__all__ = ["draw_unrolling"]

LEAST = 1e-14
"""Smaller errors are rounding, and not drawn."""


def draw_unrolling(path: Path, study: UnrollingStudy) -> None:
    """Draw the errors of the contractions, the two runs of the heavy ball, and the growth of products over the momentum."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(13, 4.9), dpi=150, facecolor="white")
        figure.text(
            0.03, 0.965, "Do the derivatives of iterates converge?", size=14, weight="bold", va="top", color=INK
        )
        words = (
            "Solid: the iterates. Dashed: their derivatives. Left: contractions. Middle and right: momentum at a kink."
        )
        figure.text(0.03, 0.895, words, size=9.5, va="top", color=FAINT)
        _contractions(figure.add_axes((0.06, 0.13, 0.26, 0.62)), study)
        _heavy_ball(figure.add_axes((0.39, 0.13, 0.26, 0.62)), study)
        _products(figure.add_axes((0.72, 0.13, 0.26, 0.62)), study)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _contractions(axes: Any, study: UnrollingStudy) -> None:
    """Draw |y_k - y*| and |J_k - J*|."""
    ends = []
    for case, colour in zip(study.cases, PALETTE, strict=False):
        for values, style, name in ((case.iterates, "-", case.name), (case.derivatives, "--", None)):
            drawn = _above(values)
            ends.append(len(drawn))
            axes.plot(drawn, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.set_xlim(0, max(ends))
    _plain(axes, "Contractions: distance from the limit", "step")


def _heavy_ball(axes: Any, study: UnrollingStudy) -> None:
    """Draw |x_k| and |d x_k / d x_0|."""
    ends = []
    for run, colour in zip(study.runs, (PALETTE[1], PALETTE[0]), strict=True):
        label = f"momentum {run.momentum:g}"
        for values, style, name in ((run.iterates, "-", label), (run.derivatives, "--", None)):
            drawn = _above(values)
            ends.append(len(drawn))
            axes.plot(drawn, color=colour, linestyle=style, linewidth=1.3, label=name)
    axes.set_xlim(0, max(ends))
    _plain(axes, "Heavy ball in one dimension", "step")


def _products(axes: Any, study: UnrollingStudy) -> None:
    """Draw the spectral radii over the momentum."""
    momenta = [m.momentum for m in study.momenta]
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.plot(
        momenta,
        [m.alone for m in study.momenta],
        "o-",
        color=PALETTE[0],
        linewidth=1.6,
        markersize=4,
        label="one matrix",
    )
    lower, upper = [m.lower for m in study.momenta], [m.upper for m in study.momenta]
    axes.fill_between(momenta, lower, upper, color=PALETTE[1], alpha=0.3, linewidth=0)
    axes.plot(momenta, lower, "s-", color=PALETTE[1], linewidth=1.6, markersize=4, label="all products")
    _plain(axes, "Growth a step of the matrices at the kink", "momentum")
    axes.set_yscale("linear")


def _above(values: tuple[float, ...]) -> Any:
    """Cut a sequence where it has come to rounding."""
    found = np.array(values)
    over = np.flatnonzero(found > LEAST)
    kept = found[: int(over[-1]) + 1 if len(over) else 1]
    return np.where(kept > LEAST, kept, np.nan)


def _plain(axes: Any, title: str, below: str) -> None:
    """Name the axes, and leave out what says nothing."""
    axes.set_title(title, size=10, color=INK, loc="left", weight="bold")
    axes.set_xlabel(below, size=8.5, color=INK)
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8.5)
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.grid(color="#e6e9ec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
