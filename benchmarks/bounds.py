"""Bounds against what is seen, and their cost: `python benchmarks/bounds.py [--networks N] [--rounds N] [--cpu] [-o FILE.json]`.

Observed / bound: the largest size, difference quotient and quotient of gradients at random pairs of points of the set, relative to
its bound, over random networks (the same as in tests/bounds/test_soundness.py); a value above 1 would be a wrong bound.

Times: (ns.bounds of VGG-16) / (a forward pass of the same batch), medians of runs in turn; with `--cpu` seconds of the
processor on one thread, which other programs of the machine hardly change.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import nonsmooth as ns

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.adapters import adapter
from tests.bounds.test_soundness import bounded, largest

CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""The convolutions of VGG-16; 0 is a max-pool."""


def vgg16() -> nn.Module:
    """Build VGG-16: 13 convolutions and 3 dense layers, 138 million parameters."""
    layers: list[nn.Module] = []
    before = 3
    for channels in CHANNELS:
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()] if channels else [nn.MaxPool2d(2)]
        before = channels or before
    dense = (nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def seen(networks: int) -> dict[str, dict[str, float]]:
    """Give the largest and the median of observed / bound over random networks, smooth ones and others."""
    xp, ratios = adapter("torch"), {}
    for seed in range(networks):
        observed, bounds = bounded(xp, seed, smooth=seed % 2 == 0)
        limits = {"norm": bounds.both.norm}
        for kind in ("weights", "inputs", "both"):
            found = getattr(bounds, kind)
            limits |= {f"{kind}.l": found.lipschitz, f"{kind}.L": found.smoothness}
        for name, value in largest(observed, 4).items():
            if 0 < limits[name] < float("inf"):
                ratios.setdefault(name, []).append(value / limits[name])
    return {name: {"largest": max(v), "median": statistics.median(v), "networks": len(v)} for name, v in ratios.items()}


def times(rounds: int, cpu: bool = False) -> dict[str, float]:
    """Give the medians of the seconds of a forward pass of VGG-16 and of its bounds, and the ratios."""
    now = time.process_time if cpu else time.perf_counter
    torch.manual_seed(0)
    model, image = vgg16(), torch.randn(1, 3, 224, 224)

    def forward() -> None:
        with torch.no_grad():
            model(image)

    runs: dict[str, Callable[[], object]] = {
        "forward": forward,
        "weights": lambda: ns.bounds(model, image, weights=1.0),
        "weights and inputs": lambda: ns.bounds(model, image, weights=1.0, inputs=0.1),
        "inputs, budget 0": lambda: ns.bounds(model, image, inputs=float("inf"), budget=0),
        "ball of inputs, budget 0": lambda: ns.bounds(model, image, inputs=0.1, budget=0),
    }
    clock: dict[str, list[float]] = {name: [] for name in runs}
    for place in range(rounds + 1):
        for name, run in runs.items():
            start = now()
            run()
            if place:
                clock[name].append(now() - start)
    median = {name: statistics.median(v) for name, v in clock.items()}
    start = now()
    ns.bounds(model, image, inputs=float("inf"))
    median["inputs, no budget (once)"] = now() - start
    return median


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="seconds of the processor (set OMP_NUM_THREADS=1)")
    parser.add_argument("-o", type=Path)
    options = parser.parse_args()
    if options.cpu:
        torch.set_num_threads(1)
    found = {"machine": platform.machine(), "torch": torch.__version__, "seconds": times(options.rounds, options.cpu)}
    for name, seconds in found["seconds"].items():
        print(f"{name:<26} {seconds:8.3f} s  {seconds / found['seconds']['forward']:8.2f} forward passes")
    found["observed / bound"] = seen(options.networks)
    for name, row in found["observed / bound"].items():
        print(f"{name:<12} largest {row['largest']:.3f}  median {row['median']:.2g}  ({row['networks']} networks)")
    if options.o:
        options.o.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
