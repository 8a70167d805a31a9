"""Ours and other packages in turn: errors against a reference, and times. Not a script of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def has(name: str) -> bool:
    """Tell whether a peer can be imported."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def measured(
    sides: dict[str, Callable[[], Any]], errors: Callable[[Any], dict[str, float]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Run all sides in turn: the errors of their second answers, and median times of the clock and of the processor."""
    rows: dict[str, dict[str, Any]] = {}
    running = dict(sides)
    for name, side in sides.items():
        try:
            rows[name] = errors([side() for _ in range(2)][-1])
        except Exception as error:
            rows[name] = {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
            del running[name]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, side in running.items():
            start = time.perf_counter(), time.process_time()
            side()
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    medians = {name: [statistics.median(t) for t in zip(*taken, strict=True)] for name, taken in times.items()}
    for name, (wall, cpu) in medians.items():
        rows[name] |= {"ms": round(1e3 * wall, 3), "cpu_ms": round(1e3 * cpu, 3)}
        if "nonsmooth" in medians:
            ours = medians["nonsmooth"]
            rows[name] |= {"ratio": round(wall / ours[0], 3), "cpu_ratio": round(cpu / ours[1], 3)}
    return rows


def write(output: Path | None, packages: Sequence[str], rows: list[dict[str, Any]], **settings: Any) -> None:
    """Write the rows with the versions of the packages that are here."""
    if output is None:
        return
    names = {"sklearn": "scikit-learn"}
    versions = {n: importlib.metadata.version(names.get(n, n)) for n in packages if has(n)}
    result = {"machine": platform.processor(), "versions": versions, **settings, "rows": rows}
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
