"""Grids on a real Dask cluster, started here on loopback: a scheduler, a worker with a nanny, one without."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nonsmooth.errors import GridError, UsageError
from nonsmooth.studies import grid_cluster
from nonsmooth.studies.grid import grid, run_grid
from nonsmooth.studies.grid_store import code_version
from tests.studies import grid_runs as runs
from tests.studies.test_grid import ROOT, log, until

__all__ = ["log"]


class Processes:
    """Processes of Dask, each with its descendants in a group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, list[subprocess.Popen[bytes]]()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with open(self.folder / f"{len(self.all)}.txt", "wb") as output:
            self.all.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
                )
            )
        return self.all[-1]

    def scheduler(self) -> str:
        """Start a scheduler at a free port."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
        self.start("scheduler", "--port", address.rpartition(":")[2], "--no-show")
        until(lambda: listens(address), "the scheduler listens")
        return address

    def stop(self) -> None:
        for process in reversed(self.all):
            for group in {process.pid, *children(process.pid)}:
                with suppress(ProcessLookupError):
                    os.kill(group, signal.SIGKILL)
            process.wait()


def children(process: int) -> list[int]:
    """Give the processes of a session."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


def listens(address: str) -> bool:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dask")
    processes = Processes(folder)
    try:
        address = processes.scheduler()
        preload = folder / "same_code.py"  # the checkout may be edited while the tests run
        preload.write_text(
            f"from nonsmooth.studies import grid_cluster as g\ng.code_version = lambda: {code_version()!r}"
        )
        processes.start("worker", address, "--nthreads", "2", "--nanny", "--preload", str(preload))
        processes.start("worker", address, "--nthreads", "1", "--no-nanny", "--preload", str(preload))
        from distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        processes.stop()


def test_the_cluster_gives_what_this_process_gives(cluster: str, tmp_path: Path) -> None:
    configurations, seen = grid(width=[20], seed=[0, 1, 2]), list[tuple[int, int]]()

    def watch(what: str, done: int, of: int) -> None:
        seen.append((done, len(list((tmp_path / "store").glob("*.json")))))

    there = run_grid(runs.network, configurations, cluster=cluster, store=tmp_path / "store", progress=watch)
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3)]
    here = run_grid(runs.network, configurations, workers=1)
    for one, other in zip(there, here, strict=True):  # a worker's own threads draw from Python's generator too
        assert {**one, "drawn": 0} == {**other, "drawn": 0}
    assert there == run_grid(runs.network, configurations, cluster="tcp://not.asked:1", store=tmp_path / "store")
    assert not [t.name for t in threading.enumerate() if "IO loop" in t.name]


def test_a_worker_of_many_threads_does_one_run_at_a_time(cluster: str, log: Path) -> None:
    found = run_grid(runs.crowd, grid(x=range(8), log=[str(log)]), cluster=cluster)
    assert all(f["alone"] for f in found) and len({f["process"] for f in found}) == 2


def test_a_run_that_raises_does_not_stop_the_others(cluster: str, log: Path, tmp_path: Path) -> None:
    configurations = grid(x=range(4), log=[str(log)])
    with pytest.raises(GridError, match=r"(?s)2 of 4 runs.*odd.*grid_runs.py:.*SystemExit: x is three"):
        run_grid(runs.faulty, configurations, cluster=cluster, store=tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_workers_of_another_version_are_refused(cluster: str, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_cluster, "code_version", lambda: "another")
    with pytest.raises(UsageError, match=r"other versions.*\n  tcp.*: nonsmooth 0.*, here another"):
        run_grid(runs.square, grid(x=[1], log=[str(log)]), cluster=cluster)
    monkeypatch.undo()
    from distributed import versions

    known = versions._version_cached
    monkeypatch.setattr(versions, "_version_cached", lambda p: "0.0" if p == "torch" else known(p))
    with pytest.raises(UsageError, match=r"other versions.*\n  tcp.*: torch \d.*, here 0\.0"):
        run_grid(runs.square, grid(x=[1], log=[str(log)]), cluster=cluster)
    assert runs.starts(log) == []


def test_a_worker_that_dies_loses_one_run(cluster: str, log: Path, tmp_path: Path) -> None:
    """Last in this file: the worker without a nanny may not come back."""
    configurations: list[dict[str, Any]] = [{"x": x, "log": str(log)} for x in (2, 0, 1, 3)]
    configurations[1]["seconds"] = configurations[3]["seconds"] = 0.5
    with pytest.raises(GridError, match=r'1 of 4 runs.*\n.*"x": 2.*its worker died in each of 3 tries'):
        run_grid(runs.mortal, configurations, cluster=cluster, store=tmp_path / "store")
    assert [len(runs.starts(log, x)) for x in range(4)] == [1, 2, 3, 1]
    found = run_grid(runs.mortal, configurations[1:], cluster=cluster, store=tmp_path / "store")
    assert found == [{"x": 0}, {"x": 1}, {"x": 3}] and len(runs.starts(log)) == 7


def test_no_scheduler_is_said_soon(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_cluster, "CONNECT", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        for address in (f"tcp://127.0.0.1:{silent.getsockname()[1]}", "tcp://127.0.0.1:1", "nowhere", ""):
            with pytest.raises(UsageError, match=r"no Dask scheduler answers there.*dask scheduler"):
                run_grid(runs.square, grid(x=[1], log=[str(log)]), cluster=address)
        assert time.monotonic() - start < 60
    assert runs.starts(log) == []


def test_a_cluster_without_workers_or_scheduler(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes, configurations = Processes(tmp_path), grid(x=[1], log=[str(log)])
    try:
        address = processes.scheduler()
        monkeypatch.setattr(grid_cluster, "PATIENCE", 1.0)
        with pytest.raises(GridError, match=r"no worker for 1 s; start one: dask worker tcp.*1 runs are open"):
            run_grid(runs.square, configurations, cluster=address)
        monkeypatch.setattr(grid_cluster, "PATIENCE", 100.0)
        threading.Timer(1.0, processes.all[0].kill).start()
        with pytest.raises(GridError, match=r"its scheduler .*1 runs are open"):
            run_grid(runs.square, configurations, cluster=address)
    finally:
        processes.stop()
