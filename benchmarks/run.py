"""Ratios of medians, both sides in turn in one run: `python benchmarks/run.py [--rounds N] [-o FILE.json]`.

Every ratio is (ours) / (the framework's own forward and backward, or forward) of the same objective on the same data.
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
from torch.func import functional_call

import nonsmooth as ns

sys.path.insert(0, str(Path(__file__).parent))
from models import MODELS

TARGETS = {
    ("mlp", "backprop", 0.0): 1.05,
    ("cnn", "backprop", 0.0): 1.15,
    ("encoder", "backprop", 0.0): 1.05,
    ("mlp", "backprop", 0.1): 1.25,
    ("cnn", "backprop", 0.1): 1.6,
    ("encoder", "backprop", 0.1): 1.25,
    ("mlp", "eager", 0.1): 1.25,
    ("cnn", "eager", 0.1): 1.25,
    ("encoder", "eager", 0.1): 1.25,
}
"""The ratios that the project set itself."""


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Time two functions in turn; give both medians and the median of the paired ratios."""
    for _ in range(3):
        ours(), theirs()
    a, b = [], []
    for _ in range(rounds):
        for times, function in ((a, ours), (b, theirs)):
            synchronise()
            start = time.perf_counter()
            function()
            synchronise()
            times.append(time.perf_counter() - start)
    return statistics.median(a), statistics.median(b), statistics.median(a) / statistics.median(b)


def synchronise() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(name: str, active: float, rounds: int, device: str) -> list[dict[str, object]]:
    """Measure one model at one share of active units."""
    torch.manual_seed(0)
    model, loss, data = MODELS[name](active)
    model, data = model.to(device), tuple(t.to(device) for t in data)
    f, x = ns.objective(model, loss)
    program = ns.capture(f, x, *data)
    leaves = list(x.values())

    def native() -> object:
        value = loss(functional_call(model, x, data[:-1]), data[-1])
        return torch.autograd.grad(value, leaves)

    def ours() -> object:
        return ns.value_and_backprop(program, x, *data, at_kinks=0.5)

    def plain() -> object:
        return ns.value_and_backprop(program, x, *data)

    def step() -> object:
        return torch.autograd.grad(loss(model(*data[:-1]), data[-1]), leaves)

    def eager() -> object:
        with ns.at_kinks(0.5):
            return step()

    rows = []
    for what, a, b in (
        ("backprop", ours, step),
        ("framework", plain, step),
        ("eager", eager, step),
        ("functional_call", native, step),
    ):
        mine, torchs, ratio = in_turn(a, b, rounds)
        rows.append(
            {
                "model": name,
                "what": what,
                "active": active,
                "ours_ms": round(mine * 1e3, 3),
                "torch_ms": round(torchs * 1e3, 3),
                "ratio": round(ratio, 3),
                "target": TARGETS.get((name, what, active)),
            }
        )
    rows.append(capture_row(name, active, f, x, data, model, loss, len(program), rounds))
    return rows


def capture_row(name, active, f, x, data, model, loss, steps, rounds):  # type: ignore[no-untyped-def]
    """Measure capture with its proof: (time - 4 ms per operation) in forwards."""
    mine, forward, _ = in_turn(
        lambda: ns.capture(f, x, *data), lambda: loss(model(*data[:-1]), data[-1]), max(5, rounds // 5)
    )
    return {
        "model": name,
        "what": "capture (forwards beyond 4 ms/op)",
        "active": active,
        "ours_ms": round(mine * 1e3, 3),
        "torch_ms": round(forward * 1e3, 3),
        "ratio": round((mine - 4e-3 * steps) / forward, 2),
        "target": 5.0,
    }


def main() -> None:
    """Run the benchmarks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows = []
    threads = [1, torch.get_num_threads()] if options.device == "cpu" else [torch.get_num_threads()]
    for count in dict.fromkeys(threads):
        torch.set_num_threads(count)
        for name in options.models:
            for active in (0.0, 0.1):
                for row in measure(name, active, options.rounds, options.device):
                    rows.append({"threads": count, **row})
                    target = "" if row["target"] is None else f"  target {row['target']}"
                    line = f"{count} thread(s)  {name:8s} {row['what']:34s} active {active:4.0%}"
                    print(f"{line}  ratio {row['ratio']:7.3f}{target}")
    where = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    if options.output:
        result = {"format_version": 1, "torch": torch.__version__.split("+")[0], "device": where, "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
