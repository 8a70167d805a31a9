"""The cost of watching a training run: `python benchmarks/watch.py [--rounds N] [-o FILE.json]`.

Each ratio is (a block of steps within `ns.watch`) / (as many steps without), medians of blocks in turn in one run. Nothing is
left out: entering the block, the observations and the second backward passes where kinks were met are in.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.studies.data import training
from nonsmooth.studies.digits import network

sys.path.insert(0, str(Path(__file__).parent))
from models import MODELS
from run import synchronise

AIMS = {1: 1.2, 100: 1.02}
"""The ratios that the project set itself, by N."""


def runs(device: str) -> Iterator[tuple[str, nn.Module, Callable[[], None]]]:
    """Yield training runs: a name, the model, and what does a step."""
    images, labels = training("digits")
    digits = network(images.shape[-1])
    for layer in (digits.conv1, digits.conv2):
        nn.init.zeros_(layer.bias)
    yield "digits", *step_of(digits, nn.functional.cross_entropy, (images[:256], labels[:256]), device)
    for name, setup in MODELS.items():
        for active in (0.0, 0.1):
            torch.manual_seed(0)
            yield f"{name}, {active:.0%} at a kink", *step_of(*setup(active), device)


def step_of(
    model: nn.Module, loss: Callable[..., torch.Tensor], batch: tuple[torch.Tensor, ...], device: str
) -> tuple[nn.Module, Callable[[], None]]:
    """Give a model and its step by Adam; a step of 0 keeps the kinks where they are."""
    model, batch = model.to(device), tuple(t.to(device) for t in batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0)

    def step() -> None:
        optimiser.zero_grad()
        loss(model(*batch[:-1]), batch[-1]).backward()
        optimiser.step()

    return model, step


def measure(model: nn.Module, step: Callable[[], None], every: int, rounds: int) -> dict[str, float]:
    """Time blocks of steps with and without the monitor, in turn."""
    steps = max(every, 20)
    with_it, without = [], []
    for _ in range(5):
        step()
    for _ in range(rounds):
        synchronise()
        start = time.perf_counter()
        with ns.watch(model, every=every) as log:
            for _ in range(steps):
                step()
        synchronise()
        middle = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise()
        with_it.append(middle - start)
        without.append(time.perf_counter() - middle)
    paired = sorted(a / b for a, b in zip(with_it, without, strict=True))
    return {
        "step": statistics.median(without) / steps,
        "ratio": statistics.median(with_it) / statistics.median(without),
        "low": paired[len(paired) // 4],
        "high": paired[-1 - len(paired) // 4],
        "active": log.records[0].active,
        "can_matter": log.records[0].can_matter,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| training | a step | kinks met | can matter | N = 1 | quartiles | N = 100 | quartiles |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name, model, step in runs(options.device):
        found = {every: measure(model, step, every, options.rounds) for every in AIMS}
        one, hundred = found[1], found[100]
        print(
            f"| {name} | {1e3 * one['step']:.1f} ms | {one['active']:,} | {one['can_matter']:,} | {one['ratio']:.2f} | "
            f"{one['low']:.2f} to {one['high']:.2f} | {hundred['ratio']:.3f} | {hundred['low']:.3f} to {hundred['high']:.3f} |",
            flush=True,
        )
        rows.append({"training": name, **{f"N = {n}": row for n, row in found.items()}})
    if options.output:
        setting = {"device": options.device, "threads": options.threads, "torch": torch.__version__}
        text = {"machine": platform.machine(), **setting, "rounds": options.rounds, "rows": rows}
        options.output.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
