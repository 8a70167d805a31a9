"""Protection: what the function writes to from outside is put back, and writes to its inputs are refused.

A function may change tensors that it closes over: batch norm does. It runs as it is, since only then are its views and
aliases its own; the memory that it writes to is copied before the first write and put back at the end, with torch's
counter of versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nonsmooth.errors import CaptureError, ChangedInput
from nonsmooth.frameworks.torch.arguments import map_tensors, storage_of
from nonsmooth.frameworks.torch.ledger import Ledger
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.frameworks.torch.sources import user_frame
from nonsmooth.program import Program

__all__ = ["Protection", "Saved", "fresh_copies", "preserved", "refusal"]

RUNNING_STATISTICS = frozenset("batch_norm instance_norm native_batch_norm _batch_norm_with_update".split())
"""Operators that change tensors which their schema does not mark."""

RESIZING = frozenset("resize resize_as set".split())
"""Operators that give a tensor other memory."""


def refusal(error: type[CaptureError], found: str, advice: str = "") -> CaptureError:
    """Write an error: what was found, on which line, what to do."""
    text = f"capture: {found} ({user_frame() or 'an unknown line'})."
    return error(f"{text} {advice[:1].upper()}{advice[1:]}." if advice else text)


class Saved:
    """Memory as it was, with the versions of the tensors through which it is changed."""

    def __init__(self) -> None:
        self.tensors: dict[int, tuple[torch.Tensor, int]] = {}
        self._memory: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def save(self, tensor: torch.Tensor) -> None:
        """Copy the memory of a tensor, once."""
        if id(tensor) not in self.tensors:
            self.tensors[id(tensor)] = tensor, 0 if tensor.is_inference() else tensor._version
        if storage_of(tensor) not in self._memory:
            with torch.no_grad():
                whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
                self._memory[storage_of(tensor)] = whole, whole.clone()

    def holds(self, tensor: torch.Tensor) -> bool:
        """Tell whether the memory of a tensor is saved."""
        return storage_of(tensor) in self._memory

    def restore(self) -> None:
        """Put everything back."""
        with torch.no_grad():
            for whole, before in self._memory.values():
                whole.copy_(before)
        for tensor, version in reversed(self.tensors.values()):
            if not tensor.is_inference():
                torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))


@contextmanager
def preserved(tensors: list[torch.Tensor]) -> Iterator[None]:
    """Put tensors back at the end as they were."""
    saved = Saved()
    for tensor in tensors:
        saved.save(tensor)
    try:
        yield
    finally:
        saved.restore()


def fresh_copies(program: Program) -> dict[int, torch.Tensor]:
    """Copy the constants that the steps of a program change; those that share memory share it in the copy."""
    memory: dict[int, torch.UntypedStorage] = {}
    copies = {}
    for number in sorted(program.rewritten):
        tensor = program.constants[number]
        storage = memory.setdefault(storage_of(tensor), tensor.untyped_storage().clone())
        empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        copies[number] = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return copies


class Protection(Ledger):
    """A ledger that knows which tensors are the function's own, which are inputs, and which come from outside."""

    def __init__(self, inputs: list[Any]) -> None:
        super().__init__()
        self.saved = Saved()
        self._input_storage = {storage_of(t) for t in inputs if isinstance(t, torch.Tensor)}
        self._cut: dict[int, torch.Tensor] = {}

    @property
    def rewritten(self) -> frozenset[int]:
        """The constants whose memory the function has written to."""
        return frozenset(number for number, t in self.constants.items() if self.saved.holds(t))

    def cut(self, args: Any, kwargs: Any) -> Any:
        """Cut tensors from outside off from their own graphs."""

        def without_graph(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.requires_grad or id(tensor) in self.ids:
                return tensor
            other = self._cut.get(id(tensor))
            if other is None and self.made(tensor) is None and self.covering(tensor) is None:
                other = self._cut[id(tensor)] = tensor.detach()
                self.alive += [tensor, other]
            return tensor if other is None else other

        return map_tensors((args, kwargs), without_graph)

    def protect(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """List the tensors that an operator is about to write to; save those from outside, refuse inputs."""
        changed = _written(func, args, kwargs)
        for tensor in changed:
            self._before_write(tensor, f"`{packet_name(func)}_`", resizes=packet_name(func) in RESIZING)
        return changed

    def _before_write(self, tensor: torch.Tensor, what: str, *, resizes: bool = False) -> None:
        """Save a tensor from outside, refuse an input."""
        if storage_of(tensor) in self._input_storage:
            number = self.made(tensor)
            name = self.values[number].name if number is not None else "an input"
            raise refusal(ChangedInput, f"{what} changes the input {name} in place", "clone it first: `x = x.clone()`")
        number = self.made(tensor)
        if number is None:
            number = self.constant(tensor).value
        if self.is_outside(tensor):
            if resizes:
                raise refusal(ChangedInput, f"{what} resizes a tensor from outside", "make a new one")
            self.saved.save(tensor)

    def is_outside(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor shows memory from outside."""
        shared = self.sharing(tensor)
        return any(number in self.outside and number in self.constants for number in shared)

    def made(self, tensor: torch.Tensor) -> int | None:
        """Give the number of a tensor that the run has met, also through an alias."""
        number = self.ids.get(id(tensor))
        return self.aliased(tensor) if number is None else number


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """List the tensors that an operator writes to."""
    statistics = packet_name(func) in RUNNING_STATISTICS
    if not func._schema.is_mutable and not statistics:
        return []
    named, written = arguments_of(func, args, kwargs), []
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            found = named[argument.name]
            written += [t for t in (found if isinstance(found, list) else [found]) if isinstance(t, torch.Tensor)]
    if statistics and (named.get("training") or named.get("use_input_stats")):
        written += [t for k in ("running_mean", "running_var") if isinstance(t := named.get(k), torch.Tensor)]
    return written
