"""Nested arguments of operators: the tensors and references in them, and what memory a tensor shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from nonsmooth.program import Ref

__all__ = ["alias_key", "map_refs", "map_tensors", "refs_of", "storage_of", "tensors_of"]

Leaf = TypeVar("Leaf")


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
    return leaves_of(tree, torch.Tensor)


def refs_of(tree: Any) -> Iterator[Ref]:
    """Walk the references of nested arguments."""
    return leaves_of(tree, Ref)


def leaves_of(tree: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """Walk the leaves of a kind in nested tuples, lists and dicts.

    >>> list(leaves_of((1, [2.0, (3, {"a": 4})]), int))
    [1, 3, 4]
    """
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves_of(item, kind)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves_of(item, kind)


def map_tensors(tree: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Replace the tensors of nested arguments."""
    return map_leaves(tree, torch.Tensor, change)


def map_refs(tree: Any, change: Callable[[Ref], Any]) -> Any:
    """Replace the references of nested arguments."""
    return map_leaves(tree, Ref, change)


def map_leaves(tree: Any, kind: type[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """Replace the leaves of a kind in nested tuples, lists and dicts.

    >>> map_leaves((1, [2.0, (3, {"a": 4})]), int, lambda i: -i)
    (-1, [2.0, (-3, {'a': -4})])
    """
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, tuple):
        items = [map_leaves(item, kind, change) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if isinstance(tree, list):
        return [map_leaves(item, kind, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_leaves(item, kind, change) for key, item in tree.items()}
    return tree
