"""The picture of the ridge method: where the two runs lead, accuracy under attack, and how near attacks are to maximisers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonsmooth.report.picture import FAINT, INK, PALETTE

if TYPE_CHECKING:
    from nonsmooth.studies.ridge import RidgeStudy

__all__ = ["draw_ridge"]

LEAST = 1e-6
"""Smaller distances are drawn here."""


def draw_ridge(path: Path, study: RidgeStudy) -> None:
    """Draw f above its least value along both runs, the accuracies, and the residuals of the images, sorted."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(12, 7.6), dpi=150, facecolor="white")
        figure.text(
            0.03, 0.975, "The ridge method: min over x of max over y", size=14, weight="bold", va="top", color=INK
        )
        words = (
            "Above: f(x_k) less its known least value, along v (blue) and along the partial derivative in x (orange)."
        )
        figure.text(0.03, 0.935, words, size=9.5, va="top", color=FAINT)
        for number, case in enumerate(study.cases):
            axes = figure.add_axes((0.05 + 0.158 * number, 0.55, 0.13, 0.3))
            for values, colour in ((case.partial_path, PALETTE[1]), (case.ridge_path, PALETTE[0])):
                axes.plot(np.maximum(np.array(values) - case.known, LEAST), color=colour, linewidth=1.1)
            axes.set_yscale("log")
            axes.set_ylim(LEAST / 2, None)
            axes.set_title(case.name, size=9.5, color=INK, loc="left", weight="bold")
            axes.set_xlabel("step", size=8, color=INK)
            _plain(axes)
        _accuracy(figure.add_axes((0.07, 0.09, 0.38, 0.32)), study)
        _residuals(figure.add_axes((0.56, 0.09, 0.4, 0.32)), study)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _accuracy(axes: Any, study: RidgeStudy) -> None:
    """Draw the accuracies over the radius of the attack."""
    for network, colour in zip(study.networks, (PALETTE[1], PALETTE[0]), strict=True):
        values = [100 * a for a in network.accuracy]
        axes.plot(network.radii, values, marker="o", color=colour, linewidth=1.8, label=f"trained {network.network}")
    axes.set_title("Digits: accuracy under attack, in percent", size=10.5, color=INK, loc="left", weight="bold")
    axes.set_xlabel("radius of the attack, a pixel", size=8.5, color=INK)
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, fontsize=8.5)
    _plain(axes)


def _residuals(axes: Any, study: RidgeStudy) -> None:
    """Draw how far w is from the normal cone, image by image, sorted."""
    for check, colour in zip(study.checks, (PALETTE[3], PALETTE[4], PALETTE[2]), strict=False):
        label = f"{check.attack}, {check.kinks} kinks within {check.near:g}"
        axes.plot(np.sort(np.maximum(check.samples, LEAST)), color=colour, linewidth=2, label=label)
    axes.set_yscale("log")
    axes.set_ylim(LEAST / 2, 1.0)
    axes.set_title(
        "Is the attack a maximiser? |w_i - N| / |w_i|, images sorted", size=10.5, color=INK, loc="left", weight="bold"
    )
    axes.set_xlabel("image", size=8.5, color=INK)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    _plain(axes)


def _plain(axes: Any) -> None:
    """Leave out what says nothing."""
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.grid(color="#e6e9ec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
