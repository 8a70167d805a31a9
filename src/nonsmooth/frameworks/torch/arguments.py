"""Nested arguments of operators: the tensors in them, and what memory a tensor shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from nonsmooth.frameworks.replay.arguments import leaves_of, map_leaves

__all__ = ["alias_key", "map_tensors", "storage_of", "tensors_of"]


def storage_of(tensor: torch.Tensor) -> int:
    """Identify the memory of a tensor; one without any shares none."""
    try:
        if isinstance(tensor, FakeTensor):  # a shape alone: its storage stands for the memory
            return int(tensor.untyped_storage()._cdata)
        return int(tensor.untyped_storage().data_ptr()) or -id(tensor)
    except (NotImplementedError, RuntimeError):
        return -id(tensor)


def alias_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Identify what a tensor shows: memory, offset, shape, strides."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return (-id(tensor),)
    if isinstance(tensor, FakeTensor):
        return (storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def tensors_of(tree: Any) -> Iterator[torch.Tensor]:
    """Walk the tensors of nested arguments."""
    return leaves_of(tree, torch.Tensor)


def map_tensors(tree: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Replace the tensors of nested arguments."""
    return map_leaves(tree, torch.Tensor, change)
