"""Nested arguments of operators: the references and arrays in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from nonsmooth.dictionary.operation import Array
from nonsmooth.program import Ref

__all__ = ["arrays_of", "fill", "is_array", "leaves_of", "map_arrays", "map_leaves", "map_refs", "refs_of"]

Leaf = TypeVar("Leaf")


def is_array(leaf: Any) -> bool:
    """Tell an array of any framework from everything else.

    >>> import numpy as np
    >>> is_array(np.ones(2)), is_array(1.0)
    (True, False)
    """
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def arrays_of(tree: Any) -> Iterator[Array]:
    """Walk the arrays of nested arguments."""
    return (leaf for leaf in leaves_of(tree, object) if is_array(leaf))


def refs_of(tree: Any) -> Iterator[Ref]:
    """Walk the references of nested arguments."""
    return leaves_of(tree, Ref)


def leaves_of(tree: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """Walk the leaves of a kind in nested tuples, lists and dicts.

    >>> list(leaves_of((1, [2.0, (3, {"a": 4})]), int))
    [1, 3, 4]
    """
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves_of(item, kind)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves_of(item, kind)
    elif isinstance(tree, kind):
        yield tree


def map_arrays(tree: Any, change: Callable[[Array], Any]) -> Any:
    """Replace the arrays of nested arguments."""
    return map_leaves(tree, object, lambda leaf: change(leaf) if is_array(leaf) else leaf)


def map_refs(tree: Any, change: Callable[[Ref], Any]) -> Any:
    """Replace the references of nested arguments."""
    return map_leaves(tree, Ref, change)


def map_leaves(tree: Any, kind: type[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """Replace the leaves of a kind in nested tuples, lists and dicts.

    >>> map_leaves((1, [2.0, (3, {"a": 4})]), int, lambda i: -i)
    (-1, [2.0, (-3, {'a': -4})])
    """
    if isinstance(tree, tuple):
        items = [map_leaves(item, kind, change) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if isinstance(tree, list):
        return [map_leaves(item, kind, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_leaves(item, kind, change) for key, item in tree.items()}
    return change(tree) if isinstance(tree, kind) else tree


def fill(tree: Any, env: Mapping[int, Any]) -> Any:
    """Put values in the place of references.

    >>> fill((Ref(0), [Ref(1), 2]), {0: "a", 1: "b"})
    ('a', ['b', 2])
    """
    if isinstance(tree, Ref):
        return env[tree.value]
    if isinstance(tree, tuple):
        filled = [fill(item, env) for item in tree]
        return type(tree)(*filled) if hasattr(tree, "_fields") else tuple(filled)
    if isinstance(tree, list):
        return [fill(item, env) for item in tree]
    if isinstance(tree, dict):
        return {k: fill(v, env) for k, v in tree.items()}
    return tree
