"""The study of cost: what a gradient costs a network, and what other derivatives cost as the number of inputs grows.

After the poster of Bolte, Boustany, Pauwels and Pesquet-Popescu on the complexity of nonsmooth automatic differentiation,
with every ratio counted, bounded and measured beside each other.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nonsmooth.cost.hardness import VARIABLES, WIDTHS, hardness_table
from nonsmooth.cost.product_growth import count_growth
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.studies.cost_programs import FRAMEWORKS, IMAGES, NETWORKS, Network, relu_network
from nonsmooth.studies.cost_result import CostStudy, NetworkCost, WayCost, fit_slopes
from nonsmooth.studies.cost_run import compare_ways, cost_of_network

__all__ = ["FULL", "QUICK", "Sizes", "study_cost"]

STATUS = {
    "evaluation, backprop, operations, counted": "computed: exact counts of scalar operations, each at price 1",
    "bound": "proved",
    "seconds, ratio, quartiles, compile_seconds": "measured",
    "memory": "measured in torch, planned by the compiler in jax",
    "slopes": "computed: least squares",
}
"""What each kind of number is."""


@dataclass(frozen=True)
class Sizes:
    """What the study runs over: each axis from a base, and the numbers p of inputs.

    `base` gives layers, neurons, channels and batch; an axis is varied with the others at the base. `images` are pairs of
    images and networks. The ways that carry p directions exactly, one after the other, are measured up to `exact_up_to`.
    `variables` and `widths` are those of the hard instances.
    """

    layers: tuple[int, ...]
    neurons: tuple[int, ...]
    channels: tuple[int, ...]
    batch: tuple[int, ...]
    directions: tuple[int, ...]
    exact_up_to: int
    variables: tuple[int, ...]
    widths: tuple[int, ...]
    images: tuple[tuple[str, tuple[str, ...]], ...]
    base: tuple[int, int, int, int]
    rounds: int
    slow_rounds: int

    def networks(self) -> Iterator[tuple[str, Network]]:
        """List the networks, none twice."""
        layers, neurons, channels, batch = self.base
        for images, kinds in self.images:
            for kind in kinds:
                width, widths = (channels, self.channels) if "cnn" in kind else (neurons, self.neurons)
                cells = [(n, width, batch) for n in (layers, *self.layers)]
                cells += [(layers, n, batch) for n in widths] + [(layers, width, n) for n in self.batch]
                yield from ((images, Network(kind, *cell)) for cell in dict.fromkeys(cells))


QUICK = Sizes(
    layers=(1, 2, 4),
    neurons=(32, 128, 512),
    channels=(4, 8, 16),
    batch=(16, 64, 256),
    directions=(4, 16, 64, 256, 512, 1024),
    exact_up_to=64,
    variables=(3, 4, 6),
    widths=(2, 4),
    images=(("28x28", NETWORKS), ("digits", ("relu mlp",))),
    base=(2, 128, 8, 64),
    rounds=9,
    slow_rounds=3,
)
"""Under three minutes on two cores."""

FULL = Sizes(
    layers=(1, 2, 4, 8, 16),
    neurons=(32, 64, 128, 256, 512, 1024),
    channels=(4, 8, 16, 32),
    batch=(8, 32, 128, 512),
    directions=(4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    exact_up_to=256,
    variables=VARIABLES,
    widths=WIDTHS,
    images=(("28x28", NETWORKS), ("digits", NETWORKS)),
    base=(2, 256, 8, 128),
    rounds=31,
    slow_rounds=7,
)
"""Some more sizes, all networks on both shapes, and more rounds."""


def study_cost(
    *,
    full: bool = False,
    frameworks: Sequence[str] | None = None,
    images: str | None = None,
    sizes: Sizes | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Report | None = None,
) -> CostStudy:
    """Count and measure what derivatives cost: networks by their size, and relu networks by their number p of inputs.

        overhead = cost(P and its derivative) / cost(P) <= w_b   for a gradient by a reverse sweep,

    counted in scalar operations and measured in seconds, side by side. For p = 4, 8, ... it compares one reverse sweep
    with p directional derivatives, lexicographic derivatives and a subgradient by forward mode, and fits the slopes of
    the logarithms. Everything is measured in this process, one cell after the other. Status: stated in `status`.

    Args:
        full: more sizes and rounds than the quick study.
        frameworks: of "torch" and "jax"; by default those that are installed.
        images: "28x28" (the digits in the shape of MNIST), "digits" or "mnist" for all networks, instead of the usual ones.
        sizes: the grid itself.
        threads: how many torch may use; JAX decides by itself.
        seed: of the weights and batches; the user's generators are not touched.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: a framework that is not installed or not served, or images that are not there.

    Source: BaurStrassen1983, BolteBoustanyPauwelsPesquet2023.
    """
    chosen, grid = _frameworks(frameworks), sizes or (FULL if full else QUICK)
    if images is not None and images not in IMAGES:
        raise UsageError(f"images={images!r}: the study has {', '.join(IMAGES)}.")
    report, start = progress or silent, time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    with _threads(threads):
        networks, ways = _run(chosen, grid, images, seed, report)
    hard = hardness_table(_double(chosen[0]), variables=grid.variables, widths=grid.widths, seed=seed, progress=report)
    return CostStudy(
        format_version=FORMAT_VERSION,
        versions={f: str(getattr(find_framework(relu_network(f, 2).x), "version", "")) for f in chosen},
        setting=_setting(networks, grid, load, seed),
        status=STATUS,
        base=dict(zip(("layers", "neurons", "channels", "batch"), grid.base, strict=True)),
        networks=tuple(networks),
        ways=tuple(ways),
        slopes=fit_slopes(ways),
        theory=(count_growth(), hard),
        seconds=time.perf_counter() - start,
    )


def _run(
    frameworks: Sequence[str], grid: Sizes, images: str | None, seed: int, report: Report
) -> tuple[list[NetworkCost], list[WayCost]]:
    """Count and measure every network and every number of directions, one after the other."""
    cells = list(dict.fromkeys((f, images or i, n) for f in frameworks for i, n in grid.networks()))
    runs = [(f, p) for f in frameworks for p in grid.directions]
    networks: list[NetworkCost] = []
    ways: list[WayCost] = []
    total = len(cells) + len(runs)
    for number, (framework, kind, network) in enumerate(cells):
        report(f"{framework}: {network.kind}, {network.layers} x {network.neurons}", number, total)
        networks.append(cost_of_network(framework, kind, network, grid.rounds, seed))
    for number, (framework, p) in enumerate(runs, len(cells)):
        report(f"{framework}: p = {p}", number, total)
        slow = grid.slow_rounds if p <= grid.exact_up_to else 0
        ways += compare_ways(framework, p, grid.rounds, slow, seed)
    return networks, ways


def _setting(networks: Sequence[NetworkCost], grid: Sizes, load: float, seed: int) -> dict[str, Any]:
    """Say how everything was measured."""
    used = {n.framework: n.measured for n in networks}
    return {
        "threads": " and ".join(f"{m.threads} in {name}" for name, m in used.items()),
        "on": ", ".join(dict.fromkeys(f"{m.device} by {m.clock}" for m in used.values())),
        "rounds": grid.rounds,
        "rounds of the slowest sides": grid.slow_rounds,
        "load of the machine at the start": round(load, 1),
        "seed": seed,
    }


def _double(framework: str) -> Any:
    """Give an array of a framework in the precision in which hard instances are asked about."""
    if framework == "torch":
        import torch

        return torch.zeros((), dtype=torch.float64)
    from jax import numpy as jnp

    return jnp.zeros(())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use some threads, and put its number back."""
    if isinstance(count, bool) or count < 1:
        raise UsageError(f"threads={count!r}: pass how many, 1 or more.")
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    before = torch.get_num_threads() if torch else 1
    try:
        if torch:
            torch.set_num_threads(count)
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _frameworks(chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Read the frameworks: those that were asked for, or those that are installed."""
    installed = tuple(f for f in FRAMEWORKS if importlib.util.find_spec(f) is not None)
    if chosen is None:
        return installed
    for name in chosen:
        if name not in FRAMEWORKS:
            raise UsageError(f"framework={name!r}: the study runs in {', '.join(FRAMEWORKS)}.")
        if name not in installed:
            raise UsageError(f"framework={name!r} is not installed: `pip install 'nonsmooth[{name}]'`.")
    return tuple(dict.fromkeys(chosen))
