"""A grid on a Dask cluster: the study hands each worker one run at a time.

Not joblib's Dask backend, and not Dask's own retries: they queue runs on workers ahead of time, so that one worker that dies
takes and blames several.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from nonsmooth.errors import GridError, UsageError
from nonsmooth.studies.grid_run import TRIES, Outcome, Task, execute, failed, lost
from nonsmooth.studies.grid_store import code_version

__all__ = ["on_cluster"]

CONNECT = 5.0
"""Seconds in which a scheduler must answer."""

GATHER = 30.0
"""Seconds in which a worker must hand over a result."""

POLL = 0.5
"""Seconds between two looks at which workers there are."""

PATIENCE = 60.0
"""Seconds without any worker after which a study gives up."""

PACKAGES = ("nonsmooth", "numpy", "scipy", "scikit-learn", "torch")
"""What workers must have in the versions that are here, beside Python and Dask, for the results to be the same."""


def on_cluster(tasks: Sequence[Task], address: str) -> Iterator[tuple[Task, Outcome]]:
    """Do tasks on a cluster, and give each with its outcome as it finishes; a task whose worker dies is tried again."""
    with _connected(address) as client:
        yield from _Dispatch(client, address, tasks).outcomes()


class _Dispatch:
    """The tasks of a study, and the workers that do them: at most one task a worker."""

    def __init__(self, client: Any, address: str, tasks: Sequence[Task]) -> None:
        self.client, self.address = client, address
        self.waiting, self.tries = deque(tasks), Counter[Task]()
        self.running: dict[Any, tuple[Task, str]] = {}
        self.finished: SimpleQueue[Any] = SimpleQueue()
        self.last_seen = time.monotonic()
        self.known: dict[str, str] = {}
        """The workers seen so far, and what is wrong with each: nothing, or another version."""

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Hand out the tasks until all are done."""
        try:
            while self.waiting or self.running:
                yield from self._missed(self._hand_out())
                with suppress(Empty):
                    yield from self._taken(self.finished.get(timeout=POLL))
        except OSError as error:
            raise self._gone(f"its scheduler does not answer any more ({_line(error)})") from error
        finally:
            if self.running and self.client.status == "running":
                self.client.cancel(list(self.running), force=True)

    def _hand_out(self) -> set[str]:
        """Give each free worker a task; give the workers that there are."""
        there = set(self.client.nthreads())
        if not there <= self.known.keys():
            first, self.known = not self.known, self.known | _faults(self.client)
            if first and any(self.known.values()):
                raise UsageError(f"cluster={self.address!r}: {self._others()}")
        usable = {worker for worker in there if self.known.get(worker) == ""}
        if usable:
            self.last_seen = time.monotonic()
        elif time.monotonic() - self.last_seen > PATIENCE:
            found = f"; {self._others()}" if any(self.known.get(worker) for worker in there) else ""
            raise self._gone(f"it has had no worker for {PATIENCE:.0f} s; start one: dask worker {self.address}{found}")
        for place in sorted(usable - {place for _, place in self.running.values()}):
            if self.waiting:
                task = self.waiting.popleft()
                future = self.client.submit(
                    execute,
                    task,
                    key=f"nonsmooth-{uuid4().hex}",
                    pure=False,
                    retries=0,
                    workers=[place],
                    allow_other_workers=False,
                )
                self.running[future] = task, place
                future.add_done_callback(self.finished.put)
        return there

    def _missed(self, there: set[str]) -> Iterator[tuple[Task, Outcome]]:
        """Try the tasks again whose workers are gone."""
        for future, (task, place) in list(self.running.items()):
            if place not in there and not future.done():
                future.cancel()
                del self.running[future]
                yield from self._again(task)

    def _again(self, task: Task) -> Iterator[tuple[Task, Outcome]]:
        """Count a try that was lost."""
        self.tries[task] += 1
        if self.tries[task] < TRIES:
            self.waiting.append(task)
        else:
            yield task, lost("")

    def _taken(self, future: Any) -> Iterator[tuple[Task, Outcome]]:
        """Take the outcome of a task that is done."""
        from distributed import CancelledError, KilledWorker, TimeoutError

        if future not in self.running:  # it was given up
            return
        task, _ = self.running[future]
        if future.cancelled():
            raise self._gone("its scheduler was restarted or lost")
        try:
            error = future.exception(timeout=GATHER)
            outcome = future.result(timeout=GATHER) if error is None else failed(error)
        except (TimeoutError, CancelledError) as late:  # the worker died with its result
            error = late
        del self.running[future]
        if isinstance(error, KilledWorker | TimeoutError | CancelledError):
            yield from self._again(task)
        else:
            yield task, outcome

    def _others(self) -> str:
        """List the workers that cannot be used."""
        lines = [f"  {worker}: {fault}" for worker, fault in sorted(self.known.items()) if fault]
        return "\n".join(("these workers have other versions than this study:", *lines))

    def _gone(self, why: str) -> GridError:
        """Say that the cluster cannot go on."""
        left = len(self.waiting) + len(self.running)
        return GridError(f"cluster={self.address!r}: {why}. {left:,} runs are open; what is finished is in the store.")


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a scheduler, and leave it."""
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"cluster={address!r} needs Dask: pip install 'nonsmooth[cluster]'.") from error

    async def meet() -> None:
        client = Client(address, timeout=CONNECT, set_as_default=False, asynchronous=True)
        try:
            await asyncio.wait_for(client, CONNECT)
        finally:
            await client.close(timeout=1)

    try:
        with ThreadPoolExecutor(1) as thread:  # a port that is open and never answers stops a Client for good
            thread.submit(asyncio.run, meet()).result()
        client = Client(address, timeout=CONNECT, set_as_default=False, name="nonsmooth")
    except Exception as error:
        raise UsageError(
            f"cluster={address!r}: no Dask scheduler answers there ({_line(error)}). Start one by `dask scheduler`; it "
            "prints its address, such as tcp://10.0.0.1:8786."
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT)


def _faults(client: Any) -> dict[str, str]:
    """Give the workers, and in what their Python, packages or code are not those that are here: nothing where they are."""
    versions, faults = client.get_versions(packages=list(PACKAGES)), {}
    here = versions["client"]["packages"]
    for worker, found in versions["workers"].items():
        there = found["packages"]
        differ = [p for p in ("python", "dask", "distributed", *PACKAGES) if here.get(p) != there.get(p)]
        faults[worker] = ", ".join(f"{p} {there.get(p)}, here {here.get(p)}" for p in differ)
    good = [worker for worker, fault in faults.items() if not fault]
    for worker, code in client.run(_code, workers=good, on_error="return").items() if good else ():
        if isinstance(code, OSError):  # it is gone
            del faults[worker]
        elif code != code_version():
            faults[worker] = f"nonsmooth {code}, here {code_version()}"
    return faults


def _code() -> str:
    """Give the version of the code, where this is called."""
    return code_version()


def _line(error: BaseException) -> str:
    """Give the name and the first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no answer'}"
