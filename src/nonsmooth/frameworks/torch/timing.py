"""Timing programs of torch: wall time on the processor, events on a GPU, and the peak of the memory of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from nonsmooth.frameworks.stopwatch import Run
from nonsmooth.frameworks.torch.arguments import tensors_of
from nonsmooth.frameworks.torch.interception import torchs_own_slopes
from nonsmooth.frameworks.torch.tree import flatten, unflatten

__all__ = ["TorchStopwatch"]


class TorchStopwatch:
    """The clock of torch for a function at a point; see `nonsmooth.frameworks.stopwatch`."""

    def __init__(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> None:
        leaves, self._structure = flatten(x)
        items, structure = flatten(tuple(data))
        self._function, self._leaves = function, [_plain(t) for t in leaves]
        self._data = unflatten([t.detach() if isinstance(t, torch.Tensor) else t for t in items], structure)
        self._place: torch.device = self._leaves[0].device
        self._events = self._place.type == "cuda"
        self.clock = "CUDA events" if self._events else "wall time"
        self.device = torch.cuda.get_device_name(self._place) if self._events else str(self._place)
        self.threads = torch.get_num_threads()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Give the state in which all of it is measured."""
        with torch.inference_mode(False), torchs_own_slopes():
            yield

    def evaluation(self) -> Run:
        """Evaluate the function, without gradients."""

        def call() -> Any:
            with torch.no_grad():
                return self._value(self._leaves)

        return Run(call)

    def gradient(self) -> Run:
        """Evaluate and differentiate it by `torch.autograd.grad`."""

        def call() -> Any:
            with torch.enable_grad():
                moving = [t.detach().requires_grad_() for t in self._leaves]
                value = self._value(moving)
                if not value.requires_grad:
                    return value, [torch.zeros_like(t) for t in moving]
                return value.detach(), torch.autograd.grad(value, moving, allow_unused=True)

        return Run(call)

    def forward(self, directions: Sequence[Any]) -> Run:
        """Evaluate it with `torch.func.jvp`, mapped over the directions."""
        columns = [torch.stack(parts) for parts in zip(*(flatten(v)[0] for v in directions), strict=True)]

        def along(*tangents: torch.Tensor) -> Any:
            return torch.func.jvp(lambda *leaves: self._value(list(leaves)), tuple(self._leaves), tangents)

        def call() -> Any:
            with torch.no_grad():
                return torch.func.vmap(along)(*columns)

        return Run(call)

    def compiled(self, function: Callable[..., Any]) -> Run | None:
        """Compile nothing."""
        return None

    def seconds(self, run: Run) -> float:
        """Time one call, by events on a GPU."""
        if not self._events:
            began = perf_counter()
            run.call()
            return perf_counter() - began
        with torch.cuda.device(self._place):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            run.call()
            end.record()
            torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def memory(self, run: Run) -> int | None:
        """Give the peak of memory: that of the allocator on a GPU, that of the storages of tensors elsewhere."""
        if self._events:
            torch.cuda.synchronize(self._place)
            before = torch.cuda.memory_allocated(self._place)
            torch.cuda.reset_peak_memory_stats(self._place)
            run.call()
            torch.cuda.synchronize(self._place)
            return int(torch.cuda.max_memory_allocated(self._place) - before)
        storages = _Storages()
        with storages:
            run.call()
        return storages.peak

    def _value(self, leaves: list[torch.Tensor]) -> torch.Tensor:
        """Give the scalar result at some leaves."""
        result: torch.Tensor = flatten(self._function(unflatten(leaves, self._structure), *self._data))[0][0]
        return result.reshape(())


class _Storages(TorchDispatchMode):
    """Follows the storages that operators make while it is on, until nothing holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._outside: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and look at what it takes and gives."""
        for storage in map(_storage, tensors_of((args, kwargs or {}))):
            if storage is not None and storage._cdata not in self._live:
                self._outside.setdefault(storage._cdata, StorageWeakRef(storage))
        result = func(*args, **(kwargs or {}))
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        for storage in map(_storage, tensors_of(result)):
            if storage is not None and storage._cdata not in self._outside:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _storage(tensor: torch.Tensor) -> Any:
    """Give the memory of a tensor; None where it has none of its own."""
    try:
        return tensor.untyped_storage()
    except NotImplementedError:
        return None


def _plain(leaf: torch.Tensor) -> torch.Tensor:
    """Give a leaf without its graph, on its own memory where that can be differentiated."""
    return leaf.clone() if leaf.is_inference() else leaf.detach()
