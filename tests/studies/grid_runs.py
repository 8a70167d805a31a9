"""Runs that workers import: honest ones, and ones that fail, die or linger. `log` is a folder that counts their starts."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np


def _start(log: str, x: int) -> None:
    """Write down that a run starts, and in which process."""
    Path(log, f"{x}-{os.getpid()}-{uuid4().hex[:6]}").touch()


def starts(log: Path, x: int | None = None) -> list[int]:
    """Give the processes in which runs were started."""
    return [int(p.name.split("-")[1]) for p in log.iterdir() if x is None or p.name.startswith(f"{x}-")]


def square(x: int, log: str) -> dict[str, Any]:
    _start(log, x)
    return {"square": x * x}


def network(width: int, seed: int) -> dict[str, Any]:
    """Train a little, with and without the run's own seed; sums over many elements, whose order depends on threads."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs, target = torch.randn(512, width, generator=generator), torch.randn(512, 1, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.mse_loss(model(inputs), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    matrix = np.random.standard_normal((width, width))
    return {
        "losses": losses,
        "sum": torch.randn(1 << 20).sum().item(),
        "product": float((matrix @ matrix).sum()),
        "drawn": random.random(),
        "threads": torch.get_num_threads(),
    }


def faulty(x: int, log: str) -> dict[str, Any]:
    """Fail at odd x: by an error, by leaving, by a result that JSON has not."""
    _start(log, x)
    if x == 1:
        raise ArithmeticError("x is one\nand odd")
    if x == 3:
        sys.exit("x is three")
    return {"x": {"deep": [0, {5}]} if x == 5 else x}


def mortal(x: int, log: str, seconds: float = 0.0) -> dict[str, Any]:
    """Kill its own process: at x = 1 the first time, at x = 2 every time."""
    _start(log, x)
    time.sleep(seconds)
    if x == 2 or (x == 1 and len(starts(Path(log), 1)) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": x}


def slow(x: int, log: str) -> dict[str, Any]:
    """Be quick at first, and then take a minute until a file lets it go on."""
    _start(log, x)
    end = time.monotonic() + 60
    while x >= 3 and not Path(log).with_suffix(".go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return {"x": x}


def crowd(x: int, log: str) -> dict[str, Any]:
    """Tell how many runs are in this process at once."""
    inside = Path(log, f"inside-{os.getpid()}")
    alone = not inside.exists()
    inside.touch()
    time.sleep(0.2)
    inside.unlink(missing_ok=True)
    return {"alone": alone, "process": os.getpid()}
