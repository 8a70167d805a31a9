"""The monitor over two real processes on this machine: counts are sums, training is as without, and nothing hangs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Observation
from tests.audit.two_processes import RUNS, STEPS, make_model, train

WORKER = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_both(command: list[str], environment: Callable[[str], dict[str, str]]) -> None:
    """Run two processes side by side, and end both if one fails."""
    running = [
        subprocess.Popen(command, env={**os.environ, **environment(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        for process in running:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in running:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all scenarios once, in two processes."""
    folder, port = tmp_path_factory.mktemp("processes"), str(free_port())
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2"}
    run_both([sys.executable, str(WORKER), str(folder)], lambda rank: {**address, "RANK": rank})
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def counts(record: Observation) -> list[tuple[Any, ...]]:
    return [(row.module, row.line, row.elements, row.active, row.can_matter) for row in record.rows]


def sums(*records: Observation) -> list[tuple[Any, ...]]:
    return [
        (*rows[0][:2], *(sum(numbers) for numbers in list(zip(*rows, strict=True))[2:]))
        for rows in zip(*map(counts, records), strict=True)
    ]


def watched_here(rank: int | None) -> tuple[Observation, ...]:
    log = ns.watch(model := make_model(), every=1, change_every=1)
    train(model, rank, log)
    return log.records


def test_counts_are_the_sums_over_the_processes(found: list[dict[str, Any]]) -> None:
    together = [one["added_up"]["records"] for one in found]
    alone = [one["each_for_itself"]["records"] for one in found]
    assert together[0] == together[1] and len(together[0]) == STEPS
    for record, *parts in zip(together[0], *alone, strict=True):
        assert (record.ranks, [p.ranks for p in parts]) == (2, [1, 1])
        assert counts(record) == sums(*parts)
        assert [row.margin for row in record.rows] == [min(r.margin for r in rows) for rows in _rows(parts)]
    assert (alone[0][0].active, alone[1][0].active) == (2 * 2 * 8, 2 * 5 * 8)


def _rows(records: list[Observation]) -> Any:
    return zip(*(record.rows for record in records), strict=True)


def test_they_are_those_of_one_process(found: list[dict[str, Any]]) -> None:
    together = found[0]["added_up"]["records"][0]
    halves, whole = [watched_here(rank)[0] for rank in (0, 1)], watched_here(None)[0]
    assert counts(together) == sums(*halves) == counts(whole)
    assert together.active == 2 * 7 * 8 and together.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-5)
    assert together.change is not None
    assert together.change.norm == max(half.change.norm for half in halves if half.change is not None)


def test_a_model_that_is_not_wrapped(found: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(found):
        alone = watched_here(rank)
        assert list(map(counts, one["not_wrapped"]["alone"])) == list(map(counts, alone))
    for record, *parts in zip(
        found[0]["not_wrapped"]["records"], *(one["not_wrapped"]["alone"] for one in found), strict=True
    ):
        assert counts(record) == sums(*parts) and record.ranks == 2


def test_training_is_bit_for_bit_as_without(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert len(one["to_the_bit"]) == len(RUNS)
        assert [name for name, same in one["to_the_bit"].items() if not same] == []
    for scenario in ("added_up", "each_for_itself"):
        assert all(map(torch.equal, *(one[scenario]["parameters"] for one in found)))


def test_the_first_process_writes(found: list[dict[str, Any]], folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["ranks"]) for line in lines] == [(step, 2) for step in range(STEPS)]
    assert found[1]["added_up"]["written"] == []
    written = {name: value for name, value, step in found[0]["added_up"]["written"] if step == 0}
    assert written["kinks/active"] == found[0]["added_up"]["records"][0].active
    for rank in (0, 1):
        lines = [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["ranks"] for line in lines] == [1] * STEPS


def test_one_that_stays_outside_is_missed_and_may_come_later(found: list[dict[str, Any]]) -> None:
    assert "only 1 of 2 processes watch" in found[0]["one_stays_outside"]["said"]
    assert found[1]["one_stays_outside"]["said"] == ""
    for one in found:
        assert [record.ranks for record in one["one_stays_outside"]["records"]] == [2] * STEPS


def test_an_exception_leaves_nothing_behind(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert [record.step for record in one["an_exception_in_both"]["records"]] == [0]
        assert all(map(torch.equal, one["an_exception_in_both"]["after"], found[0]["an_exception_in_both"]["after"]))


def test_a_process_whose_data_end_leaves(found: list[dict[str, Any]]) -> None:
    """With `Join` a process may have fewer steps: it is not waited for."""
    assert [record.ranks for record in found[0]["uneven"]["records"]] == [2, 2, 1]
    assert [record.ranks for record in found[1]["uneven"]["records"]] == [2, 2]


def test_a_process_that_tells_nothing_is_given_up(found: list[dict[str, Any]]) -> None:
    within = [one["uneven_within"] for one in found]
    assert [record.ranks for record in within[0]["records"]] == [2, 2, 1, 1]
    assert within[0]["said"] == ["watch: process 1 tells nothing; it is counted no more."]
    assert within[1]["said"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "elements", "steps"), [("lightning", 2 * 8 * 6, 2), ("transformers", 2 * 4 * 6 * 12, 3)]
)
def test_the_trainers_of_frameworks(framework: str, elements: int, steps: int, tmp_path: Path) -> None:
    """The callbacks add up by themselves where the trainer has several processes, started as torchrun starts them."""
    elastic = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "none"}
    elastic |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}
    root = WORKER.parents[2]
    run_both(
        [sys.executable, str(WORKER.with_name("two_trainers.py")), framework, str(tmp_path)],
        lambda rank: {**elastic, "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": str(root)},
    )
    found = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert found[0] == found[1] and found[0]["same"]
    assert [record[:2] for record in found[0]["records"]] == [[2, elements]] * steps and found[0]["records"][0][2] > 0
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == steps


def test_without_processes_there_is_nothing_to_add_up() -> None:
    with pytest.raises(UsageError, match=r"torch\.distributed is not initialised"):
        ns.watch(make_model(), reduce=True)
