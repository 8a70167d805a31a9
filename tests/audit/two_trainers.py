"""One of two processes in which Lightning or transformers trains under the monitor, as `torchrun` would start it.

Run as `two_trainers.py FRAMEWORK FOLDER`; what the log holds comes as FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import nonsmooth as ns
from tests.audit import test_callbacks as single


def lightning(monitor: Any, folder: Path) -> torch.nn.Module:
    module = single.seeded(single.Classifier)
    single.fit(module, *monitor, devices=2, strategy="ddp", epochs=1, use_distributed_sampler=True)
    return module


def transformers(monitor: Any, folder: Path) -> torch.nn.Module:
    return single.trained(single.bert, folder, *monitor, ddp_backend="gloo").model  # type: ignore[no-any-return]


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    train = {"lightning": lightning, "transformers": transformers}[name]
    without = train((), folder)
    monitor = getattr(ns.callbacks, name)(every=1, log=folder / "log.jsonl")
    watched = train((monitor,), folder)
    rows = [[record.ranks, record.rows[0].elements, record.active] for record in monitor.log.records]
    found = {"same": single.the_same(without, watched), "records": rows}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")
