"""The picture of the cycle: the orbit about the line, and x and y over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonsmooth.report.picture import FAINT, INK, PALETTE

if TYPE_CHECKING:
    from nonsmooth.studies.cycle import CycleStudy

__all__ = ["draw_cycle"]


def draw_cycle(path: Path, study: CycleStudy) -> None:
    """Draw the orbit in the plane with the line and the crossings, and the last turns over the steps."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(12, 5.4), dpi=150, facecolor="white")
        figure.text(0.03, 0.965, "A cycle without a word", size=14, weight="bold", va="top", color=INK)
        words = "Gradient steps with plain implicit differentiation. Crosses: the condition is violated where steps cross the line."
        figure.text(0.03, 0.9, words, size=9.5, va="top", color=FAINT)
        _plane(figure.add_axes((0.06, 0.12, 0.4, 0.68)), study)
        _steps(figure.add_axes((0.55, 0.12, 0.42, 0.68)), study)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _plane(axes: Any, study: CycleStudy) -> None:
    """Draw the orbit."""
    orbit = np.array(study.orbit)
    settled = orbit[len(orbit) // 2 :]
    y = np.array([min(-0.4, orbit[:, 1].min()), max(5.4, orbit[:, 1].max())])
    axes.plot((y + 2) / 3, y, color=FAINT, linewidth=1.2, label="-3x + y + 2 = 0")
    axes.plot(settled[:, 0], settled[:, 1], ".", color=PALETTE[0], markersize=4, label="iterates, second half")
    axes.plot(*orbit[0], "o", color=PALETTE[2], markersize=6, label="start")
    axes.plot([3, 0], [5, 0], "D", color=INK, markersize=5, label="solutions s")
    violated = [c.point for c in study.crossings if c.invertible is False]
    if violated:
        axes.plot(
            *np.array(violated).T, "X", color=PALETTE[1], markersize=9, linestyle="none", label="condition violated"
        )
    axes.set_xlabel("x", size=9, color=INK)
    axes.set_ylabel("y", size=9, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _bare(axes, "The orbit")


def _steps(axes: Any, study: CycleStudy) -> None:
    """Draw the last turns over the steps."""
    orbit = np.array(study.orbit)
    shown = min(len(orbit), 160)
    steps = np.arange(len(orbit) - shown, len(orbit))
    axes.plot(steps, orbit[-shown:, 0], color=PALETTE[0], linewidth=1.5, label="x")
    axes.plot(steps, orbit[-shown:, 1], color=PALETTE[3], linewidth=1.5, label="y")
    for c in study.crossings:
        if c.step >= steps[0] and c.invertible is False:
            axes.plot([c.step + 0.5] * 2, c.point, "X", color=PALETTE[1], markersize=7, linestyle="none")
    axes.set_xlabel("step", size=9, color=INK)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    _bare(axes, "The last steps")


def _bare(axes: Any, title: str) -> None:
    """Leave out what says nothing."""
    axes.set_title(title, size=10.5, color=INK, loc="left", weight="bold")
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.grid(color="#e6e9ec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
