"""What a certified subgradient costs: `python benchmarks/subgradient.py [--rounds N] [--parts ...] [-o FILE.json]`.

Every ratio is the median of (ours or theirs) / (torch's own forward and backward of the same objective on the same data),
both sides in turn in one run. Part `models`: the three models of the benchmarks. Part `size`: an MLP of 10^4 to 10^6
parameters. Part `methods`: p forward passes of three kinds against one subgradient, p = 9 to 10^4; a method is stopped where
the next p would take it beyond `--limit` seconds, and what was not measured is not reported.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call, jacfwd

import nonsmooth as ns

sys.path.insert(0, str(Path(__file__).parent))
from models import MODELS, silence
from run import in_turn

Row = dict[str, object]

AIMS = {
    ("mlp", 0.0): 1.15,
    ("cnn", 0.0): 1.15,
    ("encoder", 0.0): 1.15,
    ("mlp", 0.1): 1.9,
    ("cnn", 0.1): 2.5,
    ("encoder", 0.1): 2.2,
}
"""The ratios that the project set itself."""

SIDES = (2, 9, 31, 99)
"""Widths h of the MLPs of part `methods`, with (h + 1)^2 parameters: 9, 100, 1024, 10000."""

WIDTHS = (99, 315, 999)
"""Widths of the MLPs of part `size`: 10^4, 10^5, 10^6 parameters."""


def models(rounds: int) -> list[Row]:
    """Measure the three models, without active kinks and with a tenth of the units at theirs."""
    rows = []
    for name in MODELS:
        for active in (0.0, 0.1):
            torch.manual_seed(0)
            model, loss, data = MODELS[name](active)
            row = one_model(model, loss, data, rounds)
            rows.append({"part": "models", "model": name, "active": active, "aim": AIMS[name, active], **row})
            show(rows[-1])
    return rows


def size(rounds: int) -> list[Row]:
    """Measure square MLPs of growing size."""
    rows = []
    for width in WIDTHS:
        for active in (0.0, 0.1):
            model, loss, data = square(width, active, batch=64)
            rows.append(
                {"part": "size", "p": (width + 1) ** 2, "active": active, **one_model(model, loss, data, rounds)}
            )
            show(rows[-1])
    return rows


def square(
    width: int, active: float, batch: int
) -> tuple[nn.Module, Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]:
    """Build an MLP width-width-1 with (width + 1)^2 parameters, a share of its hidden units at their kink (one at least)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    silence(model, max(active, 1 / width) if active else 0.0)
    return model, nn.functional.mse_loss, (torch.randn(batch, width), torch.randn(batch, 1))


def one_model(model: nn.Module, loss: Callable[..., torch.Tensor], data: tuple[torch.Tensor, ...], rounds: int) -> Row:
    """Compare a subgradient of a captured objective with torch's own forward and backward."""
    f, x = ns.objective(model, loss)
    program, leaves = ns.capture(f, x, *data), list(x.values())
    certificate = ns.subgradient(program, x, *data).certificate

    def step() -> object:
        return torch.autograd.grad(loss(model(*data[:-1]), data[-1]), leaves)

    ours, torchs, ratio = in_turn(lambda: ns.subgradient(program, x, *data), step, rounds)
    return {
        "kinks": certificate.kinks,
        "status": certificate.status,
        "ours_ms": round(ours * 1e3, 3),
        "torch_ms": round(torchs * 1e3, 3),
        "ratio": round(ratio, 3),
    }


def methods(rounds: int, limit: float) -> list[Row]:
    """Measure p forward passes of three kinds, and one subgradient, in units of torch's own forward and backward."""
    rows: list[Row] = []
    last: dict[str, float] = {}
    for width in SIDES:
        p = (width + 1) ** 2
        model, loss, data = square(width, 0.1, batch=16)
        f, x = ns.objective(model, loss)
        program, leaves = ns.capture(f, x, *data), list(x.values())
        flat, unflat = flattened(x)

        def native(vector: torch.Tensor, model=model, loss=loss, data=data, unflat=unflat) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return loss(functional_call(model, unflat(vector), data[:-1]), data[-1])

        def step(model=model, loss=loss, data=data, leaves=leaves) -> object:  # type: ignore[no-untyped-def]
            return torch.autograd.grad(loss(model(*data[:-1]), data[-1]), leaves)

        ways: dict[str, Callable[[], object]] = {
            "subgradient": lambda program=program, x=x, data=data: ns.subgradient(program, x, *data),
            "coordinate_derivatives": lambda program=program, x=x, data=data: ns.coordinate_derivatives(
                program, x, *data
            ),
            "forward_subgradient": lambda program=program, x=x, data=data: ns.forward_subgradient(program, x, *data),
            "torch.func.jacfwd": lambda native=native, flat=flat: jacfwd(native)(flat),
        }
        for name, way in ways.items():
            if last.get(name, 0.0) * 20 > limit:
                continue
            seconds, ratio = timed(way, step, rounds)
            last[name] = seconds
            rows.append(
                {"part": "methods", "method": name, "p": p, "ms": round(seconds * 1e3, 3), "ratio": round(ratio, 2)}
            )
            show(rows[-1])
    return rows + slopes(rows)


def flattened(x: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Callable[[torch.Tensor], dict[str, torch.Tensor]]]:
    """Lay a point out as one vector, and give the way back."""
    sizes = [t.numel() for t in x.values()]

    def back(vector: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = vector.split(sizes)
        return {k: part.reshape(t.shape) for (k, t), part in zip(x.items(), parts, strict=True)}

    return torch.cat([t.detach().reshape(-1) for t in x.values()]), back


def timed(way: Callable[[], object], step: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Time a method, in turn with torch's own step where it is fast enough for that, else once."""
    start = time.perf_counter()
    way()
    once = time.perf_counter() - start
    if once < 0.5:
        ours, _, ratio = in_turn(way, step, rounds)
        return ours, ratio
    base = []
    for _ in range(50):
        start = time.perf_counter()
        step()
        base.append(time.perf_counter() - start)
    return once, once / statistics.median(base)


def slopes(rows: list[Row]) -> list[Row]:
    """Fit the exponent of p by least squares on the logarithms, for p >= 100 (smaller ones measure the overhead)."""
    found: list[Row] = []
    for name in dict.fromkeys(str(r["method"]) for r in rows):
        points = [
            (math.log(float(str(r["p"]))), math.log(float(str(r["ratio"]))))
            for r in rows
            if r["method"] == name and int(str(r["p"])) >= 100
        ]
        if len(points) < 2:
            continue
        (mean_p, mean_r) = (statistics.mean(c) for c in zip(*points, strict=True))
        slope = sum((p - mean_p) * (r - mean_r) for p, r in points) / sum((p - mean_p) ** 2 for p, _ in points)
        found.append({"part": "slopes", "method": name, "points": len(points), "slope": round(slope, 2)})
        show(found[-1])
    return found


def show(row: Row) -> None:
    """Print a row."""
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def main() -> None:
    """Run the parts asked for and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that one measurement may take")
    parser.add_argument("--parts", nargs="*", default=["models", "size", "methods"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    if "models" in options.parts:
        rows += models(options.rounds)
    if "size" in options.parts:
        rows += size(options.rounds)
    if "methods" in options.parts:
        rows += methods(options.rounds, options.limit)
    if options.output:
        result = {
            "format_version": 1,
            "torch": torch.__version__.split("+")[0],
            "device": platform.machine(),
            "threads": options.threads,
            "rows": rows,
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
