"""The result of the red figure: its networks with their counts, and its report."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nonsmooth.report.files import write_report
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import format_share
from nonsmooth.studies.red_figure_picture import Panel, draw_red_figure
from nonsmooth.studies.red_figure_run import MOMENTUM, RATE

__all__ = ["RedFigure", "TrainedNetwork"]

WORDS = {"torch": "random biases", "zero": "zero biases"}
"""What the biases are called."""


@dataclass(frozen=True)
class TrainedNetwork:
    """The runs of one network, one for each seed: counts over all of them, by layer and part of the run.

    Attributes:
        steps: of all runs together; `met`, those at which some kink was met that can matter.
        elements, active, can_matter: for each layer and each part of the run: all elements of its relu, those at the kink,
            and those of them behind which there is a nonzero derivative.
        measured: steps with kinks at which the change of the gradient by relu'(0) = 1 was measured; `change`, the largest.
        loss: of the last step of each run; None where it was not finite.
    """

    depth: int
    width: int
    precision: str
    biases: str
    steps: int
    met: int
    elements: tuple[tuple[int, ...], ...]
    active: tuple[tuple[int, ...], ...]
    can_matter: tuple[tuple[int, ...], ...]
    measured: int
    change: float | None
    loss: tuple[float | None, ...]

    @property
    def share(self) -> float:
        """The share of all elements at a kink that can matter."""
        return sum(map(sum, self.can_matter)) / sum(map(sum, self.elements))

    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Give that share for each layer and part of the run."""
        rows = zip(self.can_matter, self.elements, strict=True)
        return tuple(tuple(a / n for a, n in zip(*row, strict=True)) for row in rows)


@dataclass(frozen=True)
class RedFigure(Reported):
    """Relu networks of increasing size, trained under observation; every figure was counted."""

    format_version: int
    framework: str
    data: str
    steps: int
    batch_size: int
    seeds: int
    networks: tuple[TrainedNetwork, ...]
    seconds: float

    def of(self, precision: str, biases: str) -> tuple[TrainedNetwork, ...]:
        """Give the networks of a format with some biases."""
        return tuple(n for n in self.networks if (n.precision, n.biases) == (precision, biases))

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """The formats with their biases."""
        return tuple(dict.fromkeys((n.precision, n.biases) for n in self.networks))

    def document(self) -> Document:
        """Lay the study out for reading."""
        setting = (
            f"{self.data}, {self.seeds} seed(s), {self.steps:,} steps of {self.batch_size} images, rate {RATE}, momentum "
            f"{MOMENTUM}; {self.framework}; {self.seconds:.0f} s (measured)."
        )
        return Document(
            "Relu networks of increasing size: how often a kink is met in training",
            ("\n".join(self._story()), self._kinds(), self._sizes(), setting),
        )

    def _story(self) -> Iterator[str]:
        """Say what was seen, for each format and biases."""
        for precision, biases in self.kinds:
            found = self.of(precision, biases)
            steps, met = sum(n.steps for n in found), sum(n.met for n in found)
            most = max(found, key=lambda n: n.share)
            where = (
                f", most often with {most.depth} layers of {most.width}: {format_share(most.share)} of the elements"
                if met
                else ""
            )
            yield f"{precision}, {WORDS[biases]}: kinks that can matter at {met:,} of {steps:,} steps{where}."

    def _kinds(self) -> Table:
        """Give a row for each format and biases."""
        rows = []
        for precision, biases in self.kinds:
            found = self.of(precision, biases)
            total = {
                name: sum(sum(map(sum, getattr(n, name))) for n in found)
                for name in ("elements", "active", "can_matter")
            }
            changes = [n.change for n in found if n.change is not None]
            rows.append(
                (
                    precision, WORDS[biases].split()[0], f"{sum(n.met for n in found):,} of {sum(n.steps for n in found):,}",
                    total["elements"], total["active"], total["can_matter"],
                    format_share(total["can_matter"] / total["elements"]), _change(max(changes, default=None)),
                )
            )  # fmt: skip
        return Table(
            "All networks together (computed)",
            ("format", "biases", "steps met", "elements", "at a kink", "can matter", "share", "change"),
            tuple(rows),
            "steps met: with a kink that can matter. change: of the gradient by relu'(0) = 1, ||g' - g|| / ||g||, the largest "
            f"measured ({sum(n.measured for n in self.networks):,} steps).",
        )

    def _sizes(self) -> Table:
        """Give a row for each format, biases and depth, a column for each width."""
        widths = list(dict.fromkeys(n.width for n in self.networks))
        rows: dict[tuple[str, str, int], dict[int, str]] = {}
        for n in self.networks:
            cell = f"{format_share(n.share)}; {n.met:,} of {n.steps:,}" if n.met else f"0 of {n.steps:,}"
            rows.setdefault((n.precision, WORDS[n.biases], n.depth), {})[n.width] = cell
        return Table(
            "By size: share of the elements at a kink that can matter; steps at which there was one (computed)",
            ("format", "biases", "layers", *(f"{w} units" for w in widths)),
            tuple((*key, *(cells.get(w) for w in widths)) for key, cells in rows.items()),
        )

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder, made if need be; give what was written."""
        blocks = {
            f"{precision}, {WORDS[biases]}": [
                Panel(n.depth, n.width, n.shares(), n.met, n.steps) for n in self.of(precision, biases)
            ]
            for precision, biases in self.kinds
        }
        subtitle = (
            f"Trained on the {self.data}, {self.steps:,} steps, {self.seeds} seed(s). A panel is a network: a row for each "
            "layer, the first above,\nand training from left to right. Red: its share of elements at 0 that matter; white: none."
        )
        return write_report(folder, self, {"red_figure": lambda path: draw_red_figure(path, subtitle, blocks)})


def _change(change: float | None) -> str:
    """Print the largest change."""
    return "from 0" if change is not None and math.isinf(change) else format_share(change)
