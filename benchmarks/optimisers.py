"""A step of INNA and of INNAprop over one of torch.optim.Adam(foreach=True): 10^6 parameters in 50 tensors.

    python benchmarks/optimisers.py --rounds 150 -o benchmarks/results/optimisers.json

All sides in turn in one run, on tensors and gradients of their own; medians and their ratios.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

import nonsmooth as ns

TENSORS, SIZE = 50, 20_000

OPTIMISERS = {
    "Adam": lambda params, foreach: torch.optim.Adam(params, foreach=foreach),
    "INNA": lambda params, foreach: ns.optim.INNA(params, foreach=foreach),
    "INNA, weight_decay": lambda params, foreach: ns.optim.INNA(params, weight_decay=0.01, foreach=foreach),
    "INNAprop, no weight_decay": lambda params, foreach: ns.optim.INNAprop(params, weight_decay=0.0, foreach=foreach),
    "INNAprop": lambda params, foreach: ns.optim.INNAprop(params, foreach=foreach),
}


def make(name: str, foreach: bool) -> torch.optim.Optimizer:
    """Make an optimiser with its own parameters and gradients, and its state."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(SIZE, generator=generator)) for _ in range(TENSORS)]
    for p in params:
        p.grad = torch.randn(SIZE, generator=generator)
    optimizer = OPTIMISERS[name](params, foreach)
    optimizer.step()
    return optimizer


def measure(threads: int, rounds: int) -> list[dict[str, Any]]:
    """Time a step of every optimiser, in both forms, in turn."""
    torch.set_num_threads(threads)
    sides = {(name, foreach): make(name, foreach) for foreach in (True, False) for name in OPTIMISERS}
    times: dict[tuple[str, bool], list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, optimizer in sides.items():
            start = perf_counter()
            optimizer.step()
            times[side].append(perf_counter() - start)
    middle = {side: median(seen) for side, seen in times.items()}
    return [
        {
            "optimiser": name,
            "foreach": foreach,
            "threads": threads,
            "milliseconds": round(1e3 * middle[name, foreach], 3),
            "ratio": round(middle[name, foreach] / middle["Adam", True], 3),
        }
        for name, foreach in sides
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows = [row for threads in (1, 2) for row in measure(threads, arguments.rounds)]
    print("| optimiser | foreach | threads | ms | ratio |\n|---|---|---|---|---|")
    for row in rows:
        yes = "yes" if row["foreach"] else "no"
        print(f"| {row['optimiser']} | {yes} | {row['threads']} | {row['milliseconds']:.2f} | {row['ratio']:.2f} |")
    if arguments.output:
        arguments.output.write_text(
            json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
