"""The red figure: how likely a relu of a network is at its kink during training, by size, layer, format and biases.

After the figure of Bolte and Pauwels' talk on nonsmooth automatic differentiation (redness: the probability of activation
of relu's nonsmoothness during training), with every number counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nonsmooth.errors import UsageError
from nonsmooth.report.progress import Report
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.studies.data import held_out
from nonsmooth.studies.grid import grid, run_grid
from nonsmooth.studies.red_figure_result import RedFigure, TrainedNetwork
from nonsmooth.studies.red_figure_run import run_network

__all__ = ["read_list", "study_red_figure"]

T = TypeVar("T")

DEPTHS, WIDTHS = (2, 4, 8, 16), (4, 16, 64)
"""Hidden layers, and units of each."""

PRECISIONS, BIASES = ("float32", "bfloat16", "float16"), ("torch", "zero")
"""Formats of parameters and activations, and how biases begin."""


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
    count = len(held_out(data)[0])
    if batch_size > count:
        raise UsageError(f"batch_size={batch_size}: there are {count:,} images to train on.")
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
