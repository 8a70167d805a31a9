"""One run of a grid: what it is called with, what comes back, and what it may use while it runs."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from nonsmooth.studies.grid_store import plain_text, read_text

__all__ = ["TRIES", "Outcome", "Task", "execute", "failed", "lost"]

TRIES = 3
"""How often a run is started whose worker dies."""


@dataclass(frozen=True)
class Task:
    """A run to be done: its function, and its configuration as canonical JSON."""

    run: Callable[..., Mapping[str, Any]]
    configuration: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its result as JSON, or the last line of its error and the whole of it."""

    result: str | None
    seconds: float = 0.0
    error: str = ""
    trace: str = ""


def lost(why: str) -> Outcome:
    """Give the outcome of a run whose worker died each time."""
    return Outcome(None, error=f"its worker died in each of {TRIES} tries{f' ({why})' if why else ''}")


def failed(error: BaseException) -> Outcome:
    """Give the outcome of a run that raised: the last line, and where that was."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    last = "".join(traceback.format_exception_only(error)).strip().split("\n")[-1]
    return Outcome(None, error=f"{last}{where}", trace="".join(traceback.format_exception(error)))


def execute(task: Task) -> Outcome:
    """Do a run in this process, alone, on one thread and with generators seeded by its configuration."""
    start = time.perf_counter()
    with _alone, _one_thread(), _seeded(task.configuration):
        try:
            result = plain_text(task.run(**read_text(task.configuration)), "the result")
        except (Exception, SystemExit) as error:
            return failed(error)
    return Outcome(result, time.perf_counter() - start)


_alone = threading.RLock()
"""Held during a run: threads, generators and modes belong to the process, so a worker of many threads runs one at a time."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenMP, BLAS and torch use one thread: rounding depends on how many there are."""
    from threadpoolctl import threadpool_limits

    if find_spec("torch") is None:
        with threadpool_limits(limits=1):
            yield
        return
    import torch

    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _seeded(configuration: str) -> Iterator[None]:
    """Seed the global generators for a run that does not, and give them their states back."""
    import numpy as np

    seed = int.from_bytes(hashlib.sha256(configuration.encode()).digest()[:4])
    python, legacy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        if find_spec("torch") is None:
            yield
            return
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
