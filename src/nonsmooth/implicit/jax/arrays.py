"""Parameters and solutions as vectors and lists of arrays, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.implicit.jax.traced import is_float

__all__ = ["Parameters", "Shape", "check_alike", "common_type", "cut_off", "solution_tree", "widened"]


@dataclass(frozen=True)
class Parameters:
    """The places of parameters: of floating arrays, of other arrays, and all else itself."""

    items: tuple[Any, ...]
    structure: Any

    @staticmethod
    def taken_apart(theta: tuple[Any, ...]) -> tuple[Parameters, list[Any], list[Any]]:
        """Give the places, the floating arrays and the others."""
        items, structure = jax.tree.flatten(theta)
        arrays = [_array(a) for a in items]
        for a in arrays:
            if a is not None and jnp.issubdtype(a.dtype, jnp.complexfloating):
                raise UsageError(
                    f"a parameter is complex ({a.dtype}); the theory is real: pass real and imaginary parts."
                )
        places = tuple(
            b if a is None else _FLOAT if is_float(a) else _OTHER for a, b in zip(arrays, items, strict=True)
        )
        floats = [a for a in arrays if a is not None and is_float(a)]
        return Parameters(places, structure), floats, [a for a in arrays if a is not None and not is_float(a)]

    @property
    def floats(self) -> int:
        """How many floating arrays there are."""
        return sum(a is _FLOAT for a in self.items)

    def joined(self, floats: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
        """Put arrays back in their places."""
        first, second = iter(floats), iter(others)
        items = [next(first) if a is _FLOAT else next(second) if a is _OTHER else a for a in self.items]
        theta: tuple[Any, ...] = jax.tree.unflatten(self.structure, items)
        return theta


_FLOAT, _OTHER = object(), object()


def cut_off(array: Any) -> Any:
    """Cut an array off from what is differentiated; jax makes numbers of Python of some."""
    return jnp.asarray(lax.stop_gradient(array))


def common_type(tree: Any) -> Any:
    """Give the type to which the floating arrays of a tree promote; None if there are none."""
    arrays = [a for a in map(_array, jax.tree.leaves(tree)) if a is not None and is_float(a)]
    return jnp.result_type(*arrays) if arrays else None


def widened(dtype: Any) -> Any:
    """Give a floating type with room for linear algebra: no less than single precision."""
    return jnp.promote_types(dtype, jnp.float32)


def _array(leaf: Any) -> Any:
    """Give a leaf that is an array as one of jax; None for any other."""
    if isinstance(leaf, jax.Array):
        return leaf
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "fiubc":
        return jnp.asarray(leaf)
    return None


@dataclass(frozen=True)
class Shape:
    """What a solution is like: a tree of arrays of one type, and the vector of all its entries."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: Any

    def flatten(self, tree: Any) -> Any:
        """Give the vector."""
        parts = [jnp.ravel(jnp.asarray(a)).astype(self.dtype) for a in jax.tree.leaves(tree)]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def unflatten(self, flat: Any) -> Any:
        """Give the tree."""
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes])
        parts = jnp.split(flat, ends[:-1]) if len(self.shapes) > 1 else [flat]
        return jax.tree.unflatten(self.structure, [p.reshape(s) for p, s in zip(parts, self.shapes, strict=True)])


def check_alike(y: Any, z: Any) -> None:
    """Refuse a z that has not the structure and shapes of y."""
    one: Any = jax.tree.structure(y)
    two: Any = jax.tree.structure(z)
    if one != two:
        raise UsageError(f"the function must return what is like the solution: a tree {one}; found {two}.")
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(y)[0], jax.tree.leaves(z), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            name = jax.tree_util.keystr(path)
            raise UsageError(
                f"the function must return what is like the solution: y{name} has shape {jnp.shape(a)}; found {jnp.shape(b)}."
            )


def solution_tree(tree: Any, dtype: Any, what: str) -> Any:
    """Give a tree of numbers as one of floating arrays of one type, widened, cut off from what is differentiated."""
    leaves, structure = jax.tree.flatten(tree)
    if not leaves:
        raise UsageError(f"{what} holds no array: a solution is a tree of real arrays.")
    arrays = []
    for leaf in leaves:
        try:
            array = jnp.asarray(leaf)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{what} holds a {type(leaf).__name__}: a solution is a tree of real arrays.") from error
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise UsageError(f"{what} is complex ({array.dtype}); the theory is real: pass real and imaginary parts.")
        arrays.append(array)
    wanted = dtype or jnp.result_type(*arrays)
    wanted = widened(wanted) if jnp.issubdtype(wanted, jnp.floating) else jnp.result_type(float)
    if not sum(a.size for a in arrays):
        raise UsageError(f"{what} has no entry.")
    return jax.tree.unflatten(structure, [lax.stop_gradient(a.astype(wanted)) for a in arrays])
