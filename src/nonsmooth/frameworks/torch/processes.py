"""The processes that train one model, and what they saw of a step put together."""

from __future__ import annotations

import pickle
import time
import warnings
from contextlib import suppress
from typing import Any

import torch

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Observation, merge

__all__ = ["Processes"]

PATIENCE = 60.0
"""Seconds that a process waits for the others to enter."""

ABSENCE = 1800.0
"""Seconds after which a process that neither tells of its step nor leaves is taken for lost."""


class Processes:
    """The processes of torch.distributed that train one model.

    They tell each other through the store in which they met, and not by collective operations: those of the training come
    in an order that is its own, and with fewer processes where data end early (`torch.distributed.algorithms.Join`).
    """

    entered = 0
    """How many blocks this process has entered: the same number in all of them."""

    def __init__(self, model: torch.nn.Module, reduce: bool | None) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.count = torch.distributed.get_world_size() if running else 1
        self.rank = torch.distributed.get_rank() if running else 0
        if reduce and not running:
            raise UsageError("reduce=True adds counts up over processes, but torch.distributed is not initialised.")
        wrapped = isinstance(model, torch.nn.parallel.DistributedDataParallel)
        self.reduces = self.count > 1 and (wrapped if reduce is None else reduce)
        if not self.reduces:
            self.rank = 0  # each process writes for itself
        self._told, self._gone = 0, set[int]()
        self._block = ""
        self._store: Any = None

    def meet(self) -> None:
        """Wait for the others at the entrance.

        Raises:
            UsageError: not all processes have come in time.
        """
        if not self.reduces:
            return
        Processes.entered += 1
        self._block, self._told, self._gone = f"nonsmooth/watch/{Processes.entered}", 0, set()
        self._store = store = torch.distributed.distributed_c10d._get_default_store()
        deadline = time.monotonic() + PATIENCE
        here = store.add(self._block, 1)
        while here < self.count:
            if time.monotonic() > deadline and not self._is_last(store):
                Processes.entered, self._block = Processes.entered - 1, ""
                raise UsageError(
                    f"only {here} of {self.count} processes watch: counts are added up over all of them. Enter `watch` in "
                    "every process, or pass reduce=False."
                )
            time.sleep(0.01)
            here = store.add(self._block, 0)

    def _is_last(self, store: Any) -> bool:
        """Withdraw from the entrance, so that all may try again later; tell if the last one came at this very moment."""
        if store.add(self._block, -1) < self.count - 1:
            return False
        store.add(self._block, 1)
        return True

    def leave(self) -> None:
        """Say that this process watches no more: the others do not wait for it."""
        if self._block:
            with suppress(RuntimeError):  # the process that holds the store may have ended
                self._store.set(f"{self._block}/{self.rank}/left", b"1")
            self._block = ""

    def merged(self, seen: Observation) -> Observation:
        """Add up what all processes that still watch saw of a step."""
        if not self.reduces:
            return seen
        store, number = self._store, self._told
        store.set(f"{self._block}/{self.rank}/{number}", pickle.dumps(seen))
        found = [seen if rank == self.rank else self._hear(store, rank, number) for rank in range(self.count)]
        if number:  # all have heard it, since they tell of the next
            store.delete_key(f"{self._block}/{self.rank}/{number - 1}")
        self._told += 1
        return merge([one for one in found if one is not None])

    def _hear(self, store: Any, rank: int, number: int) -> Observation | None:
        """Wait for what another process tells; None if it has left."""
        deadline = time.monotonic() + ABSENCE
        told, left = f"{self._block}/{rank}/{number}", f"{self._block}/{rank}/left"
        while rank not in self._gone:
            gone = store.check([left])
            if store.check([told]):
                return pickle.loads(store.get(told))  # type: ignore[no-any-return]
            if gone or time.monotonic() > deadline:
                self._gone.add(rank)
                if not gone:
                    warnings.warn(f"watch: process {rank} tells nothing; it is counted no more.", stacklevel=2)
            time.sleep(0.0005)
        return None
