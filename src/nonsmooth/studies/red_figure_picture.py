"""The red figure drawn: a panel for each network, its layers by training, red where a relu is likely at its kink."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.report.picture import FAINT, INK, label
from nonsmooth.report.run_picture import colour_bar, reds

__all__ = ["Panel", "draw_red_figure"]

ACROSS, LAYER, GAP, SIDE, HEAD = 1.05, 0.085, 0.24, 0.75, 0.95
"""The width of a panel, the height of a layer, the space between panels and beside a block, and the title, in inches."""

BLOCKS = 3
"""So many blocks stand side by side."""


@dataclass(frozen=True)
class Panel:
    """One network: the share of elements at a kink by layer and part of the run, and the steps with kinks."""

    depth: int
    width: int
    shares: tuple[tuple[float, ...], ...]
    met: int
    steps: int


def draw_red_figure(path: Path, subtitle: str, blocks: Mapping[str, Sequence[Panel]]) -> None:
    """Draw a block for each format and biases: networks grow deeper downwards and wider to the right."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = [p for block in blocks.values() for p in block]
    depths, widths = sorted({p.depth for p in panels}), sorted({p.width for p in panels})
    columns = min(BLOCKS, len(blocks))
    rows = -(-len(blocks) // columns)
    wide = len(widths) * (ACROSS + 0.12) + SIDE
    high = sum(d * LAYER + GAP for d in depths) + 0.75
    width, height = max(0.3 + columns * wide + 0.95, 8.0), HEAD + rows * high
    shares = [s for p in panels for row in p.shares for s in row if s > 0]
    scale = reds(10.0 ** math.ceil(math.log10(max(shares, default=0.01)) - 1e-9), min(shares, default=None))
    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
        title = "How likely a relu is exactly at its kink during training, and can matter there"
        figure.text(0.2 / width, 1 - 0.16 / height, title, size=13, weight="bold", va="top", color=INK)
        figure.text(0.2 / width, 1 - 0.44 / height, _lines(subtitle), size=8.5, va="top", color=FAINT, linespacing=1.4)
        for number, (name, block) in enumerate(blocks.items()):
            left, top = 0.3 + number % columns * wide, HEAD + number // columns * high
            _block(figure, (left, top), name, block, depths, widths)
        bar = ((width - 0.8) / width, 1 - (HEAD + 2.5) / height, 0.14 / width, 1.9 / height)
        colour_bar(figure, bar, scale)
        for axes, panel in zip(figure.axes, panels, strict=False):
            _draw(axes, panel, scale)
        figure.savefig(path, format="png", metadata={"Software": "nonsmooth"})


def _lines(text: str) -> str:
    """Make the lines of a text fit to be drawn."""
    return "\n".join(label(line, 200) for line in text.split("\n"))


def _block(
    figure: Any,
    corner: tuple[float, float],
    name: str,
    block: Sequence[Panel],
    depths: Sequence[int],
    widths: Sequence[int],
) -> None:
    """Make the axes of a block's panels, and write what they are."""
    width, height = figure.get_size_inches()
    left, top = corner
    figure.text((left + SIDE - 0.1) / width, 1 - (top + 0.02) / height, label(name, 60), size=10.5, weight="bold",
                va="top", color=INK)  # fmt: skip
    for panel in block:
        x = left + SIDE - 0.1 + widths.index(panel.width) * (ACROSS + 0.12)
        y = top + 0.5 + sum(d * LAYER + GAP for d in depths[: depths.index(panel.depth)])
        tall = panel.depth * LAYER
        axes = figure.add_axes((x / width, 1 - (y + tall) / height, ACROSS / width, tall / height))
        if panel.depth == depths[0]:
            axes.annotate(f"{panel.width} units", (0, 1), (0, 12), "axes fraction", textcoords="offset points", size=8,
                          color=INK)  # fmt: skip
        if panel.width == widths[0]:
            axes.set_ylabel(f"{panel.depth} layer{'s' if panel.depth > 1 else ''}", size=8, color=INK,
                            rotation=0, ha="right", va="center")  # fmt: skip


def _draw(axes: Any, panel: Panel, scale: Any) -> None:
    """Draw the layers of a network by the parts of its training."""
    import numpy as np

    shares = np.array(panel.shares)
    pixels = scale.to_rgba(np.where(shares > 0, shares, scale.norm.vmin))
    pixels[shares == 0] = 1.0
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#c4cad1")
    said = f"{panel.met:,} of {panel.steps:,} steps" if panel.met else "no kink"
    axes.annotate(said, (1, 1), (0, 2), "axes fraction", textcoords="offset points", size=6.5, ha="right",
                  color=INK if panel.met else FAINT)  # fmt: skip
