"""Nested arguments of operators: the tensors and references in them, and what memory a tensor shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.program import Ref

__all__ = ["alias_key", "map_refs", "map_tensors", "refs_of", "storage_of", "tensors_of"]


def storage_of(tensor: torch.Tensor) -> int:
    """Identify the memory of a tensor; one without any shares none."""
    try:
        return int(tensor.untyped_storage().data_ptr()) or -id(tensor)
    except (NotImplementedError, RuntimeError):
        return -id(tensor)


def alias_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Identify what a tensor shows: memory, offset, shape, strides."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return (-id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def tensors_of(tree: Any) -> Iterator[torch.Tensor]:
    """Walk the tensors of nested arguments."""
    for leaf in flatten(tree)[0]:
        if isinstance(leaf, torch.Tensor):
            yield leaf


def map_tensors(tree: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Replace the tensors of nested arguments."""
    leaves, structure = flatten(tree)
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return tree
    return unflatten([change(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure)


def refs_of(tree: Any) -> Iterator[Ref]:
    """Walk the references of nested arguments."""
    return (leaf for leaf in flatten(tree)[0] if isinstance(leaf, Ref))


def map_refs(tree: Any, change: Callable[[Ref], Any]) -> Any:
    """Replace the references of nested arguments."""
    leaves, structure = flatten(tree)
    return unflatten([change(leaf) if isinstance(leaf, Ref) else leaf for leaf in leaves], structure)
