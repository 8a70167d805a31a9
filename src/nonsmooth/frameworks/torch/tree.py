"""The point and the data as trees of tensors: flattening, names, refusals, and the state that is put back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from nonsmooth.errors import PointError

__all__ = [
    "RandomState",
    "Tree",
    "check_data",
    "check_point",
    "copy_of",
    "flatten",
    "is_finite",
    "laid_out",
    "random_state",
    "runs_alone",
    "same_content",
    "unflatten",
]

Tree = Any


LEAF = pytree.tree_flatten(None)[1]
"""The structure of what is one leaf: it is told at once, since most points and results are one tensor."""


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """Give the leaves of a tree and its structure."""
    return ([tree], LEAF) if type(tree) is torch.Tensor else pytree.tree_flatten(tree)


def unflatten(leaves: list[Any], structure: Any) -> Tree:
    """Put leaves back into their structure."""
    if structure is LEAF and len(leaves) == 1:
        return leaves[0]
    return pytree.tree_unflatten(leaves, structure)


def leaf_names(tree: Tree, root: str) -> list[str]:
    """Name the leaves by their path in the tree.

    >>> leaf_names({"fc.weight": 1, "b": [2, 3]}, "x")
    ['fc.weight', 'b.0', 'b.1']
    """
    names = []
    for path, _ in pytree.tree_flatten_with_path(tree)[0]:
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        names.append(".".join(parts) or root)
    return [f"{root}.{n}" if n.isdigit() else n for n in names]


def check_point(x: Tree) -> list[torch.Tensor]:
    """Give the leaves of the point, or say why it cannot be differentiated at.

    Raises:
        PointError: a leaf is no floating tensor, holds nan or inf, or there is none.
    """
    leaves, names = flatten(x)[0], leaf_names(x, "x")
    if not leaves:
        raise PointError("the point x holds no tensor; pass a tensor, or a dict, list or tuple of tensors.")
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, torch.Tensor):
            raise PointError(
                f"the point x is differentiated, so that it must be made of tensors; {name} is a {type(leaf).__name__}. "
                "Pass what is not differentiated as data: f(x, *data)."
            )
        if leaf.is_complex():
            raise PointError(f"{name} is complex ({leaf.dtype}); the theory is real: pass real and imaginary parts.")
        if not leaf.is_floating_point():
            raise PointError(
                f"{name} has integer type {leaf.dtype}, which has no derivative: pass {name}.double(), or pass it as data."
            )
        if leaf.layout is not torch.strided:
            raise PointError(f"{name} is sparse ({leaf.layout}): pass {name}.to_dense().")
        if leaf.is_meta:
            raise PointError(f"{name} is on the meta device and has no values: a kink is a matter of values.")
        if not is_finite(leaf):
            bad = "nan" if bool(torch.isnan(leaf).any()) else "inf"
            where = tuple(int(i) for i in (~torch.isfinite(leaf)).nonzero()[0])
            raise PointError(f"the point is not finite: {name} holds {bad} at index {where}.")
    return list(leaves)


def check_data(data: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """Give the leaves of the data and their structure; anything may be data."""
    return flatten(tuple(data))


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether all entries are finite; their sum says so at once, unless it overflows."""
    detached = tensor.detach()
    return bool(torch.isfinite(detached.sum())) or bool(torch.isfinite(detached).all())


def same_content(a: Any, b: Any) -> bool:
    """Tell whether two leaves hold the same values, nan equal to nan."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype == b.dtype and a.layout == b.layout and torch.equal(a, b):
            return True
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        both = isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype
        return bool(both and a.shape == b.shape and np.all((a == b) | ((a != a) & (b != b))))
    return a is b or (type(a) is type(b) and bool(a == b)) or bool(a != a and b != b)


def copy_of(leaf: Any) -> Any:
    """Copy a leaf, with its strides; what is neither tensor nor array is passed on."""
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    if not isinstance(leaf, torch.Tensor):
        return leaf
    copy = leaf.detach().clone()
    return copy if copy.layout is not torch.strided else laid_out(copy, leaf.stride())


def laid_out(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """Give a tensor other strides, unless its entries would overlap."""
    if tensor.stride() == strides or not tensor.numel():
        return tensor
    other = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    try:
        other.copy_(tensor)
    except RuntimeError:
        return tensor
    return other if same_content(other, tensor) else tensor


class RandomState:
    """The states of all random generators: of Python, numpy and torch."""

    def __init__(self) -> None:
        self._python, self._numpy, self._cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
        on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._cuda = torch.cuda.get_rng_state_all() if on_cuda else []

    def put(self) -> None:
        """Put the generators into these states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)

    def drawn_since(self) -> str:
        """Name the generators that have drawn since then; empty if none has."""
        now = RandomState()
        numpy = all(np.array_equal(a, b) for a, b in zip(self._numpy, now._numpy, strict=True))
        names = {
            "Python's `random`": self._python == now._python,
            "`numpy.random`": numpy,
            "`torch`": torch.equal(self._cpu, now._cpu)
            and all(torch.equal(a, b) for a, b in zip(self._cuda, now._cuda, strict=False)),
        }
        return " and ".join(name for name, still in names.items() if not still)


def runs_alone() -> bool:
    """Tell whether no other thread runs a program: those in the background, of progress bars, pools and writers, draw nothing."""
    this = threading.current_thread()
    return all(thread.daemon for thread in threading.enumerate() if thread is not this)


@contextmanager
def random_state() -> Iterator[None]:
    """Put the states of every random generator back at the end."""
    before = RandomState()
    try:
        yield
    finally:
        before.put()
