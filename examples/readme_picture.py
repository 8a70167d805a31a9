"""Draw the picture of the README: three programs of smooth functions, and what backprop says at their kink.

Run: `python examples/readme_picture.py docs/images/three_programs.png`
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import nonsmooth as ns

PROGRAMS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "relu(t) - relu(-t)   is   t": (lambda t: torch.relu(t) - torch.relu(-t), 1.0),
    "max(t, 0) + log1p(exp(-|t|))   is   softplus(t)": (
        lambda t: torch.clamp(t, min=0) + torch.log1p(torch.exp(-torch.abs(t))),
        0.5,
    ),
    "relu(-t) - relu(t) + t + 1/3   is   1/3": (lambda t: torch.relu(-t) - torch.relu(t) + t + 1 / 3, 0.0),
}
MARKS = {
    "framework": ("torch", "o", "#d55e00"),
    "jax": ("jax", "s", "#0072b2"),
    "tensorflow": ("tensorflow", "^", "#009e73"),
}


def draw(path: str) -> None:
    """Draw the derivative of each program, and the values that the conventions give at 0."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    grid = np.linspace(-2, 2, 81)
    for axis, (title, (f, truth)) in zip(axes, PROGRAMS.items(), strict=True):
        points = [torch.tensor(float(t), dtype=torch.float64) for t in grid if abs(t) > 1e-9]
        slopes = [float(ns.backprop(f, t)) for t in points]
        axis.plot([float(t) for t in points], slopes, color="0.35", lw=2, label="derivative")
        zero = torch.tensor(0.0, dtype=torch.float64)
        values = [float(ns.backprop(f, zero, at_kinks=w)) for w in (0.0, 1.0)]
        axis.plot(
            [0, 0],
            [min(values), max(values)],
            color="#cc79a7",
            lw=6,
            alpha=0.5,
            label="one weight for all kinks, 0 to 1",
        )
        for shift, (convention, (name, mark, colour)) in zip((-0.09, 0.0, 0.09), MARKS.items(), strict=True):
            value = float(ns.backprop(f, zero, at_kinks=convention))
            axis.plot(shift, value, mark, color=colour, ms=9, mec="white", label=f"{name} at 0", zorder=3)
        axis.plot(0, truth, "x", color="black", ms=11, mew=2.5, label="true derivative at 0", zorder=4)
        axis.set_title(title, fontsize=10.5)
        axis.set_xlabel("t")
        axis.set_ylim(-1.3, 2.3)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("derivative")
    axes[2].legend(fontsize=8.5, loc="upper left", ncols=2)
    figure.suptitle("Smooth functions, written with kinks: what backpropagation returns at 0", fontsize=12.5)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else "three_programs.png")
