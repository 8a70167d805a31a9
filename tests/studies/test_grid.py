"""Grids of runs: the same results everywhere, and nothing done twice, whoever dies."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nonsmooth.cli import app
from nonsmooth.errors import GridError, UsageError
from nonsmooth.studies import grid as grid_module
from nonsmooth.studies.grid import grid, run_grid
from nonsmooth.studies.grid_store import Store, code_version, plain_text, read_text
from tests.studies import grid_runs as runs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process runs; one that is dead but not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_grid_is_the_product_of_its_axes() -> None:
    assert grid(a=[1, 2], b=("xy",), c=range(2)) == [{"a": a, "b": "xy", "c": c} for a in (1, 2) for c in (0, 1)]
    assert grid() == [{}] and grid(a=[1], b=[]) == []
    for axis in ("float32", 3, None):
        with pytest.raises(UsageError, match="an axis is a list of values"):
            grid(a=axis)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        {"a": None, "b": True, "c": -3, "d": 0.1 + 0.2, "e": "text", "f": [1, [2.5, {}]], "g": {"h": []}},
        {"a": -0.0, "b": 5e-324, "c": 1.7976931348623157e308, "d": 10**30, "": "\ud800 \0 ü"},
        {"a": math.inf, "b": [-math.inf]},
    ],
)
def test_plain_values_survive(value: Any) -> None:
    text = plain_text(value, "it")
    assert read_text(text) == value and repr(read_text(text)) == repr(value)
    json.loads(text, parse_constant=lambda word: pytest.fail(word))


def test_what_json_lacks_is_kept_or_refused() -> None:
    assert math.isnan(read_text(plain_text({"a": math.nan}, "it"))["a"])
    assert read_text(plain_text({"a": (1, 2), "b": np.float64(0.5)}, "it")) == {"a": [1, 2], "b": 0.5}
    for value, message in [
        ({"a": [0, torch.zeros(2)]}, r"it\['a'\]\[1\] is tensor\(\[0., 0.\]\) \(Tensor\).*\.tolist\(\)"),
        ({"a": np.float32(1)}, r"it\['a'\] is .*float32.*float\(\.\.\.\)"),
        ({"a": {1: 2}}, r"it\['a'\] has the key 1 \(int\)"),
        ({"a": "nan"}, r"it\['a'\] is the text 'nan', which would come back as a number"),
        ({"a": {1}}, r"\{1\} \(set\)"),
        ([1], r"it is \[1\] \(list\): it must be a mapping"),
        (None, "it must be a mapping"),
    ]:
        with pytest.raises(UsageError, match=message):
            plain_text(value, "it")


def test_results_come_in_order_and_equal_configurations_run_once(log: Path) -> None:
    seen: list[tuple[int, int]] = []
    configurations = [{"x": x, "log": str(log)} for x in (3, 1, 3, 2, 1)]
    found = run_grid(runs.square, configurations, workers=1, progress=lambda what, done, of: seen.append((done, of)))
    assert [f["square"] for f in found] == [9, 1, 9, 4, 1]
    assert len(runs.starts(log)) == 3 and seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert run_grid(runs.square, [], workers=1) == []


def test_a_result_depends_on_its_configuration_alone() -> None:
    configurations = grid(width=[20], seed=[0, 1, 2])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = run_grid(runs.network, configurations, workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
    assert run_grid(runs.network, configurations[::-1], workers=2)[::-1] == here
    assert {r["threads"] for r in here} == {1}
    assert len({r["drawn"] for r in here}) == len({r["sum"] for r in here}) == 3


def test_wrong_calls_are_refused_before_any_run(log: Path, tmp_path: Path) -> None:
    def local(x: int) -> dict[str, int]:
        return {"x": x}

    file = tmp_path / "file"
    file.touch()
    good = [{"x": 1, "log": str(log)}]
    for call, message in [
        (lambda: run_grid(lambda x: {}, good), "cannot be imported by a worker"),
        (lambda: run_grid(local, good), "cannot be imported by a worker"),
        (lambda: run_grid(runs.square, [*good, {"x": 1}]), r"configuration 1, .*missing a required argument: 'log'"),
        (lambda: run_grid(runs.square, [{**good[0], "y": 1}]), "unexpected keyword argument 'y'"),
        (lambda: run_grid(runs.square, [{**good[0], "x": torch.ones(())}]), r"configuration 0\['x'\] is tensor"),
        (lambda: run_grid(runs.square, good, workers=0), "workers=0: pass how many processes"),
        (lambda: run_grid(runs.square, good, workers=2, cluster="tcp://x:1"), "pass one of the two"),
        (lambda: run_grid(runs.square, good, store=file), "results cannot be kept in .*file"),
    ]:
        with pytest.raises(UsageError, match=message):
            call()  # type: ignore[no-untyped-call]
    assert runs.starts(log) == [] and file.read_bytes() == b""


def test_a_run_that_raises_does_not_stop_the_others(log: Path, tmp_path: Path) -> None:
    configurations = grid(x=range(7), log=[str(log)])
    with pytest.raises(GridError) as caught:
        run_grid(runs.faulty, configurations, workers=1, store=tmp_path / "store")
    lines = str(caught.value).splitlines()
    assert "3 of 7 runs of tests.studies.grid_runs.faulty failed" in lines[0] and "store" in lines[0]
    assert "ArithmeticError: x is one" in lines[1] or "and odd" in lines[1]
    assert '"x": 1' in lines[1] and "grid_runs.py:" in lines[1]
    assert '"x": 3' in lines[2] and "SystemExit: x is three" in lines[2]
    assert '"x": 5' in lines[3] and "the result['x']['deep'][1] is {5} (set)" in lines[3] and len(lines) == 4
    assert "Traceback" in caught.value.__notes__[0]
    with pytest.raises(GridError, match="3 of 7"):
        run_grid(runs.faulty, configurations, workers=1, store=tmp_path / "store")
    assert [len(runs.starts(log, x)) for x in range(7)] == [1, 2, 1, 2, 1, 2, 1]
    with pytest.raises(GridError, match=r"(?s)12 of 12 runs.*pass store= to keep the others.*and 2 more"):
        run_grid(runs.faulty, [{"x": 1, "log": str(log / f"{k}" / "none")} for k in range(12)], workers=1)


def test_a_worker_that_dies_loses_one_run(log: Path, tmp_path: Path) -> None:
    configurations = [{"x": x, "log": str(log)} for x in (0, 1, 2, 3)]
    configurations[0]["seconds"] = configurations[3]["seconds"] = 0.5  # type: ignore[assignment]
    with pytest.raises(GridError, match=r'1 of 4 runs.*\n.*"x": 2.*its worker died in each of 3 tries \(SIGKILL'):
        run_grid(runs.mortal, configurations, workers=2, store=tmp_path / "store")
    assert [len(runs.starts(log, x)) for x in range(4)] == [1, 2, 3, 1]
    rest = [configurations[k] for k in (0, 1, 3)]
    assert run_grid(runs.mortal, rest, workers=2, store=tmp_path / "store") == [{"x": 0}, {"x": 1}, {"x": 3}]
    assert len(runs.starts(log)) == 7
    assert not any(alive(process) for process in runs.starts(log))


STUDY = """
import sys
import nonsmooth.studies.grid
from tests.studies.grid_runs import slow
from nonsmooth.studies.grid import grid, run_grid
nonsmooth.studies.grid.code_version = lambda: sys.argv[3]  # the checkout may be edited while the tests run
run_grid(slow, grid(x=range(6), log=[sys.argv[1]]), store=sys.argv[2], workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_study_that_is_killed_goes_on_where_it_was(log: Path, tmp_path: Path, how: signal.Signals) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-c", STUDY, str(log), str(store), code_version()]
    study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: store.exists() and len(list(store.glob("*.json"))) == 3, "three runs are stored")
        until(lambda: bool(runs.starts(log, 3) and runs.starts(log, 4)), "the next two are under way")
        os.kill(study.pid, how)
        assert study.wait(30) != 0
        until(lambda: not any(alive(process) for process in runs.starts(log)), "its workers end")
    finally:
        if study.poll() is None:
            os.killpg(study.pid, signal.SIGKILL)
            study.wait()
    log.with_suffix(".go").touch()
    found = run_grid(runs.slow, grid(x=range(6), log=[str(log)]), store=store, workers=1)
    assert found == [{"x": x} for x in range(6)]
    assert [len(runs.starts(log, x)) for x in range(6)] == [1, 1, 1, 2, 2, 1]


def _damage(path: Path, how: str) -> None:
    text = path.read_text()
    other = text.replace('"square": 4', '"square": 5')
    path.write_text({"cut": text[: len(text) // 2], "empty": "", "changed": other, "other": "[1]"}.get(how, text))
    if how == "binary":
        path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("how", ["cut", "empty", "changed", "other", "binary"])
def test_a_damaged_file_is_named_and_its_run_done_again(log: Path, tmp_path: Path, how: str) -> None:
    configurations = grid(x=[1, 2], log=[str(log)])
    first = run_grid(runs.square, configurations, workers=1, store=tmp_path / "store")
    (path,) = [p for p in (tmp_path / "store").iterdir() if '"square": 4' in p.read_text()]
    _damage(path, how)
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged: its run is done again") as caught:
        assert run_grid(runs.square, configurations, workers=1, store=tmp_path / "store") == first
    assert len(caught) == 1
    assert [len(runs.starts(log, x)) for x in (1, 2)] == [1, 2]
    assert run_grid(runs.square, configurations, workers=1, store=tmp_path / "store") == first
    assert len(runs.starts(log)) == 3


def test_a_file_says_in_clear_what_was_run(log: Path, tmp_path: Path) -> None:
    run_grid(runs.square, [{"x": 3, "log": str(log)}], workers=1, store=tmp_path / "a" / "b")
    (path,) = (tmp_path / "a" / "b").iterdir()
    kept = json.loads(path.read_text())
    assert kept["run"] == "tests.studies.grid_runs.square" and kept["configuration"] == {"log": str(log), "x": 3}
    assert kept["result"] == {"square": 9} and kept["seconds"] >= 0 and kept["format_version"] == 1


def test_a_file_is_whole_or_not_there(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "run", "1", "1")
    store.write("{}", '{"x": 1}', 0.0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"json cannot be written: No space left"):
        store.write("{}", '{"x": 2}', 0.0)
    monkeypatch.undo()
    assert store.read("{}") == '{"x": 1}' and [p for p in tmp_path.iterdir() if p != log] == [store.path("{}")]


def test_studies_share_a_folder_and_other_code_runs_again(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, configurations = tmp_path / "store", grid(x=[1, 2], log=[str(log)])
    squares = run_grid(runs.square, configurations, workers=1, store=store)
    assert run_grid(runs.slow, configurations, workers=1, store=store) == [{"x": 1}, {"x": 2}]
    assert len(list(store.iterdir())) == 4 and len(runs.starts(log)) == 4
    assert run_grid(runs.square, configurations, workers=1, store=store) == squares and len(runs.starts(log)) == 4
    monkeypatch.setattr(runs, "VERSION", 2, raising=False)
    run_grid(runs.square, configurations, workers=1, store=store)
    assert len(runs.starts(log)) == 6
    monkeypatch.setattr(grid_module, "code_version", lambda: "another")
    run_grid(runs.square, configurations, workers=1, store=store)
    assert len(runs.starts(log)) == 8


def test_one_and_one_point_nought_are_two_configurations(log: Path, tmp_path: Path) -> None:
    found = run_grid(dict, [{"x": 1}, {"x": 1.0}, {"x": True}], workers=1, store=tmp_path / "store")
    assert [type(f["x"]) for f in found] == [int, float, bool]


def test_no_thread_or_process_is_left() -> None:
    assert not [t.name for t in threading.enumerate() if "IO loop" in t.name or "ExecutorManager" in t.name]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (None, None, None)),
        (["-o", "out"], (Path("out/runs"), None, None)),
        (["-o", "out", "--store", "kept", "--workers", "3"], (Path("kept"), 3, None)),
        (["--cluster", "tcp://host:1"], (None, None, "tcp://host:1")),
    ],
)
def test_the_command_says_where(options: list[str], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def study(*_: Any, store: Any, workers: Any, cluster: Any, **__: Any) -> None:
        asked.append((store, workers, cluster))
        raise GridError("1 of 2 runs failed")

    monkeypatch.setattr("nonsmooth.studies.digits.study_digits", study)
    result = CliRunner().invoke(app, ["study", "digits", *options], prog_name="nonsmooth")
    assert result.exit_code == 2 and "nonsmooth: 1 of 2 runs failed" in result.stderr and asked == [expected]
