"""A grid in processes of this machine: joblib's, one pool for each, so that one that dies takes one run with it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from joblib import cpu_count
from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, ProcessPoolExecutor, wait

from nonsmooth.studies.grid_run import TRIES, Outcome, Task, execute, failed, lost

__all__ = ["cores", "in_processes"]

WATCH = 1.0
"""After so many seconds at most a worker sees that its study is gone."""


def cores() -> int:
    """Give the number of cores that this process may use, by its affinity and its control group."""
    return int(cpu_count(only_physical_cores=True))


def in_processes(tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Outcome]]:
    """Do tasks in processes, and give each with its outcome as it finishes; a task whose process dies is tried again."""
    waiting, tries = deque(tasks), Counter[Task]()
    idle: list[Any] = []
    running: dict[Any, tuple[Task, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting.popleft()
                future, pool = _start(task, idle)
                running[future] = task, pool
            for future in wait(list(running), return_when=FIRST_COMPLETED).done:
                task, pool = running.pop(future)
                error = future.exception()
                if not isinstance(error, BrokenProcessPool):
                    idle.append(pool)
                    yield task, future.result() if error is None else failed(error)
                    continue
                pool.shutdown(kill_workers=True)
                tries[task] += 1
                if tries[task] < TRIES:
                    waiting.append(task)
                else:
                    yield task, lost(_why(error))
    finally:
        _stop(idle, kill=False)
        _stop([pool for _, pool in running.values()], kill=True)


def _start(task: Task, idle: list[Any]) -> tuple[Any, Any]:
    """Start a task in an idle process that lives, or in a new one."""
    while idle:
        pool = idle.pop()
        try:
            return pool.submit(execute, task), pool
        except BrokenProcessPool:
            pool.shutdown(kill_workers=True)
    few = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    pool = ProcessPoolExecutor(max_workers=1, initializer=_prepare, initargs=(os.getpid(),), env=few)
    return pool.submit(execute, task), pool


def _stop(pools: Sequence[Any], *, kill: bool) -> None:
    """End processes, all at once."""
    if pools:
        with ThreadPoolExecutor(len(pools)) as threads:
            list(threads.map(lambda pool: pool.shutdown(wait=True, kill_workers=kill), pools))


def _prepare(study: int) -> None:
    """In a new process: leave Ctrl-C to the study, and end when the study has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == study:
            time.sleep(WATCH)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def _why(error: BaseException) -> str:
    """Say how a process ended, as far as is known."""
    found = re.search(r"exit codes of the workers are \{(.*)\}", str(error))
    return found.group(1) if found else str(error.__cause__ or error).strip().split("\n")[-1]
