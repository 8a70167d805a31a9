"""Gradients as named arrays, and the distance between two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.audit.result import Change
from nonsmooth.frameworks.framework import Framework

__all__ = ["Gradient", "bad_entries", "compare", "leaf_names", "named_gradient", "named_leaves", "norm"]

Gradient: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""A gradient by the name of the leaf of the point, as arrays of numpy."""


def named_leaves(tree: Any, root: str = "x") -> dict[str, Any]:
    """Name the leaves of a tree of dicts, lists, tuples and dataclasses by their path.

    >>> named_leaves({"fc": {"weight": 1}, "b": [2, 3]})
    {'fc.weight': 1, 'b.0': 2, 'b.1': 3}
    >>> named_leaves(7)
    {'x': 7}
    """
    return {".".join(path) or root: leaf for path, leaf in _walk(tree)}


def _walk(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk the leaves with their paths."""
    if isinstance(tree, Mapping):
        items: Any = tree.items()
    elif isinstance(tree, tuple | list):
        items = zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        items = ((f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree))
    else:
        yield (), tree
        return
    for key, item in items:
        for path, leaf in _walk(item):
            yield (str(key), *path), leaf


class _Place(int):
    """The place of a leaf among the leaves of a tree, told from numbers that the tree itself holds."""


def leaf_names(framework: Framework, tree: Any) -> tuple[str, ...]:
    """Name the leaves of a tree in the framework's order (JAX sorts dicts); what cannot be named is left out.

    >>> import torch
    >>> from nonsmooth.frameworks.torch import TORCH
    >>> leaf_names(TORCH, {"w": torch.zeros(2), "b": [torch.zeros(1)]})
    ('w', 'b.0')
    """
    leaves, structure = framework.flatten(tree)
    places = [_Place(k) for k in range(len(leaves))]
    found = named_leaves(framework.unflatten(places, structure))
    names = {place: name for name, place in found.items() if isinstance(place, _Place)}
    return tuple(names[place] for place in places if place in names)


def named_gradient(framework: Framework, gradient: Any) -> Gradient:
    """Turn a gradient in the structure of the point into named arrays."""
    leaves = framework.flatten(gradient)[0]
    names = leaf_names(framework, gradient)
    return {name: np.atleast_1d(framework.numpy(leaf)) for name, leaf in zip(names, leaves, strict=True)}


def norm(gradient: Gradient) -> float:
    """Give the Euclidean norm of a gradient.

    >>> norm({"a": np.array([3.0]), "b": np.array([4.0])})
    5.0
    """
    squares = sum(float(np.sum(np.square(part, dtype=np.float64))) for part in gradient.values())
    return float(np.sqrt(squares))


def bad_entries(gradient: Gradient) -> int:
    """Count the entries that are nan or infinite."""
    return sum(int((~np.isfinite(part)).sum()) for part in gradient.values())


def compare(one: Gradient, other: Gradient, reference: Gradient) -> tuple[Change, dict[str, Change]]:
    """Give ||one - other|| / ||reference||, in total and for each leaf.

    >>> g, r = {"a": np.array([2.0]), "b": np.array([1.0])}, {"a": np.array([1.0]), "b": np.array([0.0])}
    >>> total, parts = compare(g, r, r)
    >>> total.absolute, parts["a"].relative, parts["b"].note
    (1.4142135623730951, 1.0, "the framework's gradient is 0 here")
    """
    parts = {name: _change({name: one[name]}, {name: other[name]}, {name: reference[name]}) for name in reference}
    return _change(one, other, reference), parts


def _change(one: Gradient, other: Gradient, reference: Gradient) -> Change:
    """Give the change of some leaves together."""
    bad = "the framework's gradient holds nan or inf here" if bad_entries(reference) else ""
    if bad_entries(one) or bad_entries(other):
        return Change(float("nan"), None, bad or "the gradient holds nan or inf here")
    gap = norm({n: np.subtract(one[n], other[n], dtype=np.float64) for n in one})
    size = norm(reference)
    if bad:
        return Change(gap, None, bad)
    if size == 0:
        return Change(gap, 0.0 if gap == 0 else None, "" if gap == 0 else "the framework's gradient is 0 here")
    return Change(gap, gap / size)
