"""What a watched run writes to TensorBoard, read back from the event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import nonsmooth as ns
from nonsmooth.errors import UsageError

HOSTILE = ["<script>alert(1)</script>", "a b\tc\n", "../..", "ß→∂", "\ud800", "%s{}\\", "kinks/active", "x" * 3000]


def train(model: torch.nn.Module, steps: int, **options: Any) -> ns.Watch:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with ns.watch(model, **options) as log:
        for _ in range(steps):
            optimiser.zero_grad()
            model(torch.zeros(4, 2)).sum().backward()
            optimiser.step()
    return log


def net(**named: torch.nn.Module) -> torch.nn.Sequential:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    torch.nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    for name, module in named.items():
        model.add_module(name, module)
    model.add_module("last", torch.nn.Linear(3, 1))
    return model


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_come_back_from_the_event_files(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        log = train(net(act=torch.nn.ReLU()), 5, every=2, change_every=1, tensorboard=writer)
    found = read(tmp_path)
    assert [record.step for record in log.records] == [0, 2, 4]
    for record in log.records:
        for name, value in record.scalars().items():
            assert found[name][record.step // 2] == (record.step, pytest.approx(value))
    assert found["kinks/active"][0] == (0, 12.0) and "kinks/change" in found
    assert found["kinks_share/act.relu.0"] == [(0, 1.0), (2, 1.0), (4, 1.0)]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
def test_hostile_names(name: str, tmp_path: Path) -> None:
    """A name is a name: it is written so that it can be read back, and the training goes on."""
    model = net()
    model._modules = {"0": model[0], name.replace(".", "_"): torch.nn.ReLU(), "last": model.get_submodule("last")}
    with SummaryWriter(str(tmp_path)) as writer:
        log = train(model, 2, every=1, tensorboard=writer, log=tmp_path / "log.jsonl")
    assert [record.active for record in log.records] == [12, 12]
    found = read(tmp_path)
    shares = [tag for tag in found if tag.startswith("kinks_share/")]
    assert len(shares) == 1 and [value for _, value in found[shares[0]]] == [1.0, 1.0]
    assert [value for _, value in found["kinks/active"]] == [12.0, 12.0]
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_what_is_no_writer_is_refused() -> None:
    with pytest.raises(UsageError, match="has no add_scalar"):
        ns.watch(net(), tensorboard="runs/")
