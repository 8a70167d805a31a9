"""One of two processes that train one model under the monitor: what each scenario gives is stored for the tests.

Run as `two_processes.py FOLDER`, in the environment that torchrun makes; the results come as FOLDER/RANK.pt, a dictionary
from scenarios to findings.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.torch import processes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WRAPPERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unused parameters": {"find_unused_parameters": True},
    "static graph": {"static_graph": True},
    "bucket views": {"gradient_as_bucket_view": True},
}
RUNS = [(d, "plain", False) for d in DTYPES] + [(torch.float32, w, w == "plain") for w in WRAPPERS]
STEPS = 3


def make_model(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
    model.append(torch.nn.Linear(8, 3))
    for module in model[::2]:
        torch.nn.init.zeros_(module.bias)
    return model.to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole batch of a step, some of whose rows are zero; a process takes its half."""
    generator = torch.Generator().manual_seed(step)
    inputs, target = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
    inputs[:2], inputs[8:13] = 0, 0
    return inputs.to(dtype), target


def half(rank: int, *whole: torch.Tensor) -> list[torch.Tensor]:
    return [t[rank * 8 : rank * 8 + 8] for t in whole]


def train(
    model: torch.nn.Module, rank: int | None, log: Any = None, *, steps: int = STEPS, accumulate: bool = False
) -> list[torch.Tensor]:
    """Train on the halves of a rank, or on whole batches; give the parameters at the end."""
    dtype = next(model.parameters()).dtype
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with log if log is not None else contextlib.nullcontext():
        for step in range(steps):
            optimiser.zero_grad()
            data = batch(step, dtype)
            inputs, target = data if rank is None else half(rank, *data)
            if accumulate:
                with model.no_sync():  # type: ignore[operator]
                    torch.nn.functional.cross_entropy(model(inputs[:4]), target[:4]).backward()
                inputs, target = inputs[4:], target[4:]
            torch.nn.functional.cross_entropy(model(inputs), target).backward()
            optimiser.step()
    return [p.detach().clone() for p in model.parameters()]


class Scalars:
    """A writer that remembers its calls."""

    def __init__(self) -> None:
        self.written: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.written.append((name, value, step))


def DDP(model: torch.nn.Module, **options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(model, **options)


def added_up(rank: int, folder: Path) -> Any:
    writer = Scalars()
    model = DDP(make_model())
    log = ns.watch(model, every=1, change_every=1, log=folder / "all.jsonl", tensorboard=writer)
    return {"parameters": train(model, rank, log), "records": log.records, "written": writer.written}


def each_for_itself(rank: int, folder: Path) -> Any:
    model = DDP(make_model())
    log = ns.watch(model, every=1, change_every=1, reduce=False, log=folder / f"{rank}.jsonl")
    return {"parameters": train(model, rank, log), "records": log.records}


def not_wrapped(rank: int, folder: Path) -> Any:
    model, other = make_model(), make_model()
    log, alone = (ns.watch(m, every=1, change_every=1, reduce=r) for m, r in ((model, True), (other, None)))
    train(other, rank, alone)
    return {"parameters": train(model, rank, log), "records": log.records, "alone": alone.records}


def to_the_bit(rank: int, folder: Path) -> Any:
    found: dict[str, bool] = {}
    for dtype, wrapper, accumulate in RUNS:
        without = train(DDP(make_model(dtype), **WRAPPERS[wrapper]), rank, accumulate=accumulate)
        model = DDP(make_model(dtype), **WRAPPERS[wrapper])
        log = ns.watch(model, every=1, change_every=1)
        watched = train(model, rank, log, accumulate=accumulate)
        measured = log.records[0].change is not None and log.records[0].active > 0
        same = all(map(torch.equal, without, watched)) and all(bool(p.isfinite().all()) for p in watched)
        found[f"{dtype}, {wrapper}, accumulated: {accumulate}"] = measured and same
    return found


def one_stays_outside(rank: int, folder: Path) -> Any:
    """One process does not enter: the other says so; then both enter, and all is well."""
    processes.PATIENCE = 1.0
    said = ""
    if rank == 0:
        try:
            with ns.watch(model := make_model(), reduce=True):
                train(model, rank)
        except UsageError as error:
            said = str(error)
    torch.distributed.barrier()
    processes.PATIENCE = 60.0
    model = DDP(make_model())
    log = ns.watch(model, every=1)
    train(model, rank, log)
    return {"said": said, "records": log.records}


def an_exception_in_both(rank: int, folder: Path) -> Any:
    model = DDP(make_model())
    log = ns.watch(model, every=2)
    with contextlib.suppress(ZeroDivisionError), log:
        train(model, rank, steps=1)
        raise ZeroDivisionError
    return {"records": log.records, "after": train(model, rank)}


def uneven(rank: int, folder: Path) -> Any:
    model = DDP(make_model())
    log = ns.watch(model, every=1, change_every=1)
    with Join([model]):
        train(model, rank, log, steps=3 if rank == 0 else 2)
    return {"records": log.records}


def uneven_within(rank: int, folder: Path) -> Any:
    """The process with less data stays in the block, and tells nothing."""
    processes.ABSENCE = 1.0
    model = DDP(make_model())
    with warnings.catch_warnings(record=True) as caught, ns.watch(model, every=1) as log:
        warnings.simplefilter("always")
        with Join([model]):
            train(model, rank, steps=4 if rank == 0 else 2)
    return {"records": log.records, "said": [str(w.message) for w in caught if "watch" in str(w.message)]}


SCENARIOS: tuple[Callable[[int, Path], Any], ...] = (
    added_up,
    each_for_itself,
    not_wrapped,
    to_the_bit,
    one_stays_outside,
    an_exception_in_both,
    uneven,
    uneven_within,
)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.save({scenario.__name__: scenario(rank, folder) for scenario in SCENARIOS}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
