"""The red figure: how likely a relu of a network is at its kink during training, by size, layer, format and biases.

After the figure of Bolte and Pauwels' talk on nonsmooth automatic differentiation (redness: the probability of activation
of relu's nonsmoothness during training), with every number counted.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nonsmooth.errors import UsageError
from nonsmooth.report.files import write_report
from nonsmooth.report.json_text import to_json
from nonsmooth.report.progress import Report
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.report.text import format_share, render, render_html
from nonsmooth.studies.data import load
from nonsmooth.studies.grid import grid, run_grid
from nonsmooth.studies.red_figure_picture import Panel, draw_red_figure
from nonsmooth.studies.red_figure_run import MOMENTUM, RATE, run_network

__all__ = ["RedFigure", "TrainedNetwork", "read_list", "study_red_figure"]

T = TypeVar("T")

DEPTHS, WIDTHS = (2, 4, 8, 16), (4, 16, 64)
"""Hidden layers, and units of each."""

PRECISIONS, BIASES = ("float32", "bfloat16", "float16"), ("torch", "zero")
"""Formats of parameters and activations, and how biases begin."""

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
class RedFigure:
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

    def __str__(self) -> str:
        """Print the study, at most 100 columns wide."""
        return render(self.document(), width=100)

    def _repr_html_(self) -> str:
        """Show the study in a notebook."""
        return render_html(self.document())

    def to_json(self) -> str:
        """Write the study as strict JSON."""
        return to_json(self)

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
            "layer, the first above,\nand training from left to right. Red: the share of the layer's elements at 0 that can matter; white: none."
        )
        return write_report(folder, self, {"red_figure": lambda path: draw_red_figure(path, subtitle, blocks)})


def _change(change: float | None) -> str:
    """Print the largest change."""
    return "from 0" if change is not None and math.isinf(change) else format_share(change)


def study_red_figure(
    data: str = "digits",
    *,
    depths: Sequence[int] = DEPTHS,
    widths: Sequence[int] = WIDTHS,
    precisions: Sequence[str] = PRECISIONS,
    biases: Sequence[str] = BIASES,
    steps: int = 100,
    batch_size: int = 64,
    seeds: int = 1,
    seed: int = 0,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Report | None = None,
) -> RedFigure:
    """Train relu networks of increasing depth and width, and count the kinks that each layer meets at every step.

        probability in a layer = elements at 0 behind which there is a nonzero derivative / elements,

    over the steps, by `ns.watch` with every=1. Status: `computed`, for these runs; how it varies is seen over seeds.

    Args:
        data: "digits" or "mnist".
        depths: numbers of hidden layers.
        widths: numbers of units of each.
        precisions: formats, by the names of torch.
        biases: "torch" (random), "zero" or both.
        steps: of training, at every one of which kinks are counted.
        batch_size: images a step.
        seeds: runs of each network.
        seed: the first of them; the user's generators are not touched.
        store: a folder that keeps the runs, as `run_grid` does.
        workers: processes that do them; None: one per core.
        cluster: the address of a Dask scheduler whose workers do them instead.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: an argument means nothing.
        GridError: some of the runs failed.

    >>> study = study_red_figure(depths=[2], widths=[8], precisions=["float32"], biases=["zero"], steps=5, workers=1)
    >>> [(n.depth, n.width, n.steps, sum(map(sum, n.elements))) for n in study.networks]    # 2 x 8 units, 5 x 64 images
    [(2, 8, 5, 5120)]

    Source: BoltePauwels2020b, Bertoin2021, He2015.
    """
    import torch

    axes = {"depth": depths, "width": widths, "precision": precisions, "biases": biases}
    _check(axes, steps=steps, batch_size=batch_size, seeds=seeds, seed=seed)
    start = time.perf_counter()
    load(data)
    cells = grid(biases=biases, precision=precisions, depth=depths, width=widths)
    usual = {"data": data, "steps": steps, "batch_size": batch_size}
    runs = [{**usual, **cell, "seed": seed + k} for cell in cells for k in range(seeds)]
    found = run_grid(run_network, runs, store=store, workers=workers, cluster=cluster, progress=progress)
    return RedFigure(
        format_version=FORMAT_VERSION,
        framework=f"torch {torch.__version__}",
        data=data,
        steps=steps,
        batch_size=batch_size,
        seeds=seeds,
        networks=tuple(_network(cell, found[k * seeds : (k + 1) * seeds]) for k, cell in enumerate(cells)),
        seconds=time.perf_counter() - start,
    )


def read_list(name: str, text: str, kind: Callable[[str], T]) -> tuple[T, ...]:
    """Read a list with commas.

    >>> read_list("depths", "2, 4", int)
    (2, 4)
    """
    try:
        return tuple(kind(word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{name}={text!r}: write the values with commas between them, such as 2,4,8.") from None


def _check(axes: Mapping[str, Sequence[Any]], **numbers: int) -> None:
    """Refuse what means nothing; what the networks can be is checked by the first run."""
    for name, values in axes.items():
        if isinstance(values, str) or not values or len(set(values)) < len(values):
            raise UsageError(f"{name}: {values!r}: pass a list of different values, at least one.")
    for name, value in numbers.items():
        least = 0 if name == "seed" else 1
        if isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={value!r}: pass an integer, {least} or more.")
    for name, known in (("precision", (*PRECISIONS, "float64")), ("biases", BIASES)):
        for value in axes[name]:
            if value not in known:
                raise UsageError(f"{name}={value!r}: the study knows {', '.join(known)}.")
    for name in ("depth", "width"):
        if min(axes[name]) < 1:
            raise UsageError(f"{name}={min(axes[name])}: a network needs at least one layer of one unit.")


def _network(cell: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> TrainedNetwork:
    """Add up the runs of one network."""

    def total(name: str) -> tuple[tuple[int, ...], ...]:
        rows = zip(*(run[name] for run in found), strict=True)
        return tuple(tuple(map(sum, zip(*row, strict=True))) for row in rows)

    return TrainedNetwork(
        depth=cell["depth"],
        width=cell["width"],
        precision=cell["precision"],
        biases=cell["biases"],
        steps=sum(run["steps"] for run in found),
        met=sum(run["met"] for run in found),
        elements=total("elements"),
        active=total("active"),
        can_matter=total("can_matter"),
        measured=sum(run["measured"] for run in found),
        change=max((run["change"] for run in found if run["change"] is not None), default=None),
        loss=tuple(run["loss"] for run in found),
    )
