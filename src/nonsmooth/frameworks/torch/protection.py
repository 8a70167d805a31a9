"""Protection: the user's tensors are never written to; writes go to clones, or are refused."""

from __future__ import annotations

from typing import Any

import torch

from nonsmooth.errors import CaptureError, ChangedInput
from nonsmooth.frameworks.torch.arguments import map_tensors, storage_of, tensors_of
from nonsmooth.frameworks.torch.ledger import Ledger
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.frameworks.torch.sources import user_frame

__all__ = ["Protection", "refusal"]

RUNNING_STATISTICS = frozenset("batch_norm instance_norm native_batch_norm _batch_norm_with_update".split())
"""Operators that change tensors which their schema does not mark."""


def refusal(error: type[CaptureError], found: str, advice: str = "") -> CaptureError:
    """Write an error: what was found, on which line, what to do."""
    text = f"capture: {found} ({user_frame() or 'an unknown line'})."
    return error(f"{text} {advice[:1].upper()}{advice[1:]}." if advice else text)


class Protection(Ledger):
    """A ledger that knows which tensors are the function's own, which are inputs, and which come from outside."""

    def __init__(self, inputs: list[Any], *, record: bool) -> None:
        super().__init__()
        self.record, self.protected = record, False
        self._input_storage = {storage_of(t) for t in inputs if isinstance(t, torch.Tensor)}
        self._substitutes: dict[int, torch.Tensor] = {}

    def substituted(self, args: Any, kwargs: Any) -> Any:
        """Put in the clones of the user's tensors that the function has changed, and cut their own graphs."""

        def substitute(tensor: torch.Tensor) -> torch.Tensor:
            other = self._substitutes.get(id(tensor))
            if other is not None:
                return other
            if self.record and tensor.requires_grad and tensor.is_leaf and self.made(tensor) is None:
                other = tensor.detach()
                self.alive += [tensor, other]
                self._substitutes[id(tensor)] = other
                return other
            return tensor

        return map_tensors((args, kwargs), substitute)

    def changed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """List the tensors that an operator writes to."""
        named, changed = arguments_of(func, args, kwargs), []
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                found = named[argument.name]
                changed += [t for t in (found if isinstance(found, list) else [found]) if isinstance(t, torch.Tensor)]
        if packet_name(func) in RUNNING_STATISTICS and (named.get("training") or named.get("use_input_stats")):
            changed += [t for k in ("running_mean", "running_var") if isinstance(t := named.get(k), torch.Tensor)]
        return changed

    def protect(self, func: Any, changed: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        """Let an operator write to clones instead of the user's tensors; refuse what would change the inputs."""
        replaced: dict[int, torch.Tensor] = {}
        for i, tensor in enumerate(changed):
            storage = storage_of(tensor)
            if storage in self._input_storage:
                number = self.made(tensor)
                name = self.values[number].name if number is not None else "an input"
                raise refusal(
                    ChangedInput,
                    f"`{packet_name(func)}_` changes the input {name} in place",
                    "clone it first: `x = x.clone()`",
                )
            if self.made(tensor) is None or self.made(tensor) in self.constants:
                self.protected = True
                copy = tensor.detach().clone()
                self.alive += [tensor, copy]
                self._substitutes[id(tensor)] = copy
                replaced[id(tensor)] = copy
                if self.record:
                    self.copied(tensor, copy)
                changed[i] = copy
            elif any(storage_of(c) == storage for c in self.constants.values()):
                raise refusal(
                    ChangedInput,
                    f"`{packet_name(func)}_` changes a tensor from outside the function through a view",
                    "clone that tensor inside the function, or pass it as data",
                )
        if not replaced:
            return args, kwargs
        return map_tensors((args, kwargs), lambda t: replaced.get(id(t), t))

    def made(self, tensor: torch.Tensor) -> int | None:
        """Give the number of a tensor that the call or the function has made, also through an alias."""
        number = self.ids.get(id(tensor))
        return self.aliased(tensor) if number is None and self.record else number

    def keep(self, result: Any) -> Any:
        """Remember what the function itself has made, which it may change as it likes."""
        for tensor in tensors_of(result):
            self.ids.setdefault(id(tensor), -1)
            self.alive.append(tensor)
        return result

    def copied(self, tensor: torch.Tensor, copy: torch.Tensor) -> None:
        """Write down that a tensor from outside was copied."""
        raise NotImplementedError
