"""The values of a run: their numbers, names, and on what they depend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from nonsmooth.frameworks.replay.arguments import refs_of
from nonsmooth.frameworks.torch.arguments import alias_key, storage_of
from nonsmooth.program import Ref, Value
from nonsmooth.program.names import identifier

__all__ = ["Ledger"]


class Ledger:
    """The numbers of the tensors that a run has met.

    Every numbered tensor is kept alive, so that neither its identity nor its memory is given to another one.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.constants: dict[int, torch.Tensor] = {}
        self.tensors: dict[int, torch.Tensor] = {}
        self.alive: list[Any] = []
        self.ids: dict[int, int] = {}
        self.ancestors: dict[int, frozenset[int]] = {}
        self.outside: set[int] = set()
        self._views: dict[tuple[Any, ...], int] = {}
        self._by_storage: dict[int, list[int]] = {}
        self._names: dict[str, int] = {}
        self._taken: set[str] = set()

    def new_value(self, tensor: torch.Tensor, name: str, *, point: bool = False, data: bool = False) -> int:
        """Number a tensor; leaves of the point and the data keep their names, results are counted."""
        number = len(self.values)
        self.values.append(
            Value(
                name=self._unique(identifier(name), leaf=point or data),
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                differentiable=tensor.requires_grad,
                depends_on_point=point,
                depends_on_data=data,
            )
        )
        self.alive.append(tensor)
        self.ids[id(tensor)] = number
        self.tensors[number] = tensor
        self._views[alias_key(tensor)] = number
        self._by_storage.setdefault(storage_of(tensor), []).append(number)
        return number

    def _unique(self, name: str, *, leaf: bool) -> str:
        """Give a name that no other value has: a leaf its own, a result a counted one."""
        unique = name
        while not leaf or unique in self._taken:
            self._names[name] = self._names.get(name, 0) + 1
            unique, leaf = f"{name}_{self._names[name]}", True
        self._taken.add(unique)
        return unique

    def sharing(self, tensor: torch.Tensor) -> list[int]:
        """List the values that share the memory of a tensor."""
        return self._by_storage.get(storage_of(tensor), [])

    def shared(self, changed: Iterable[int]) -> dict[int, frozenset[int]]:
        """Give, for every value in the memory of changed ones, the other values that show that memory."""
        groups = {storage_of(self.tensors[v]): frozenset(self.sharing(self.tensors[v])) for v in changed}
        return {v: group - {v} for group in groups.values() for v in group if len(group) > 1}

    def aliased(self, tensor: torch.Tensor) -> int | None:
        """Find the number of another tensor that shows exactly the same memory (`.data`, numpy and back)."""
        return self._views.get(alias_key(tensor)) if tensor.numel() else None

    def covering(self, tensor: torch.Tensor) -> int | None:
        """Find the number of a dense tensor, as differentiable as this one, whose memory holds all that it shows."""
        if tensor.layout is not torch.strided or not tensor.numel():
            return None
        start = tensor.storage_offset()
        stop = start + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        for number in self.sharing(tensor):
            other = self.tensors[number]
            dense = (
                other.dtype == tensor.dtype and other.is_contiguous() and other.requires_grad == tensor.requires_grad
            )
            first = other.storage_offset()
            if dense and first <= start and stop < first + other.numel():
                return number
        return None

    def depend(self, number: int, tensor: torch.Tensor, on: tuple[bool, bool], ancestors: frozenset[int]) -> None:
        """Let a value depend also on the point, on the data, and on earlier comparisons."""
        value = self.values[number]
        self.values[number] = replace(
            value,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            differentiable=value.differentiable or tensor.requires_grad,
            depends_on_point=value.depends_on_point or on[0],
            depends_on_data=value.depends_on_data or on[1],
        )
        self.ancestors[number] = self.ancestors.get(number, frozenset()) | ancestors

    def number(
        self, outputs: Any, name: str, references: Any, changed: list[torch.Tensor], comparison: int | None = None
    ) -> tuple[int | None, ...]:
        """Number the results of a step and say on what they depend; so do all values in memory that it changed."""
        read = [r.value for r in refs_of(references)]
        on = any(self.values[v].depends_on_point for v in read), any(self.values[v].depends_on_data for v in read)
        ancestors = frozenset().union(*(self.ancestors.get(v, frozenset()) for v in read))
        if comparison is not None and on[0]:
            ancestors = ancestors | {comparison}
        outside = any(v in self.outside for v in read)
        numbers: list[int | None] = []
        for output in outputs:
            if not isinstance(output, torch.Tensor):
                numbers.append(None)
                continue
            known = self.ids.get(id(output))
            known = self.new_value(output, name.strip("_")) if known is None else known
            self.depend(known, output, on, ancestors)
            self.outside.update([known] * outside)
            numbers.append(known)
        for tensor in changed:
            for shared in self._by_storage.get(storage_of(tensor), ()):
                self.depend(shared, self.tensors[shared], on, ancestors)
                self.outside.update([shared] * outside)
        return tuple(numbers)

    def flags(self, tree: Any) -> tuple[bool, bool]:
        """Tell whether references in a tree depend on the point, and on the data."""
        values = [self.values[r.value] for r in refs_of(tree)]
        return any(v.depends_on_point for v in values), any(v.depends_on_data for v in values)

    def constant(self, tensor: torch.Tensor, *, outside: bool = True) -> Ref:
        """Number a tensor from outside, cut off from its own graph, or one that is kept as it is now."""
        number = self.new_value(tensor, "constant")
        with unset_fake_temporarily():  # where shapes alone are traced, a constant keeps its values
            self.constants[number] = tensor.detach()
        self.outside.update([number] * outside)
        return Ref(number)
