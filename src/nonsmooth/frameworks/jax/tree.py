"""The point and the data as pytrees: flattening, names, refusals, and the random state that is put back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import PointError, UsageError

__all__ = [
    "RandomState",
    "Tree",
    "check_data",
    "check_point",
    "concrete",
    "copy_of",
    "filled",
    "flatten",
    "is_array",
    "leaf_names",
    "same_content",
    "split_data",
    "unflatten",
]

Tree = Any


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """Give the leaves of a tree and its structure."""
    return jax.tree_util.tree_flatten(tree)


def unflatten(leaves: list[Any], structure: Any) -> Tree:
    """Put leaves back into their structure."""
    return jax.tree_util.tree_unflatten(structure, leaves)


def leaf_names(tree: Tree, root: str) -> list[str]:
    """Name the leaves by their path in the tree.

    >>> leaf_names({"fc.weight": 1, "b": [2, 3]}, "x")
    ['b.0', 'b.1', 'fc.weight']
    """
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        names.append(".".join(parts) or root)
    return [f"{root}.{n}" if n.isdigit() else n for n in names]


def is_array(leaf: Any) -> bool:
    """Tell an array of jax or numpy from everything else."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def filled(tree: Tree) -> Tree:
    """Put zeros in the place of shapes alone.

    >>> filled({"w": jax.ShapeDtypeStruct((2,), np.float32)})["w"].shape
    (2,)
    """
    return jax.tree_util.tree_map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, tree
    )


def concrete(x: Tree, what: str = "the point x") -> None:
    """Refuse tracers: a kink is a matter of values.

    Raises:
        UsageError: a leaf has no value, since jax traces the caller.
    """
    for name, leaf in zip(leaf_names(x, "x"), flatten(x)[0], strict=True):
        if isinstance(leaf, jax.core.Tracer):
            raise UsageError(
                f"{what} holds a tracer ({name}): kinks are a matter of values, and under jax.jit, jax.vmap or jax.grad there "
                "are none. Call it outside of the transformation; only ns.grad and ns.value_and_grad work inside."
            )


def check_point(x: Tree) -> list[jax.Array]:
    """Give the leaves of the point, or say why it cannot be differentiated at.

    Raises:
        PointError: a leaf is no floating array, holds nan or inf, or there is none.
    """
    leaves, names = flatten(x)[0], leaf_names(x, "x")
    if not leaves:
        raise PointError("the point x holds no array; pass a jax.Array, or a pytree of them.")
    concrete(x)
    for name, leaf in zip(names, leaves, strict=True):
        if not is_array(leaf):
            raise PointError(
                f"the point x is differentiated, so that it must be made of arrays; {name} is a {type(leaf).__name__}. "
                "Pass what is not differentiated as data: f(x, *data)."
            )
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise PointError(f"{name} is complex ({leaf.dtype}); the theory is real: pass real and imaginary parts.")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise PointError(
                f"{name} has type {leaf.dtype}, which has no derivative: pass {name}.astype(float), or pass it as data."
            )
        if not bool(jnp.all(jnp.isfinite(leaf))):
            bad = "nan" if bool(jnp.any(jnp.isnan(leaf))) else "inf"
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(np.asarray(leaf, dtype=np.float64)))[0])
            raise PointError(f"the point is not finite: {name} holds {bad} at index {where}.")
    return [jnp.asarray(leaf) for leaf in leaves]


def check_data(data: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """Give the leaves of the data and their structure; anything may be data."""
    return flatten(tuple(data))


def split_data(data: tuple[Any, ...]) -> tuple[list[jax.Array], list[Any], Callable[[list[Any]], tuple[Any, ...]]]:
    """Give the arrays of the data, its other leaves, and how arrays are put back between them."""
    items, structure = check_data(data)
    arrays = [jnp.asarray(t) for t in items if is_array(t)]

    def joined(moving: list[Any]) -> tuple[Any, ...]:
        source = iter(moving)
        return tuple(unflatten([next(source) if is_array(t) else t for t in items], structure))

    return arrays, [copy_of(t) for t in items if not is_array(t)], joined


def same_content(a: Any, b: Any) -> bool:
    """Tell whether two leaves hold the same values, nan equal to nan."""
    if is_array(a) and is_array(b):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        u, v = np.asarray(a), np.asarray(b)
        return bool(np.all((u == v) | ((u != u) & (v != v))))
    return a is b or (type(a) is type(b) and bool(a == b)) or bool(a != a and b != b)


def copy_of(leaf: Any) -> Any:
    """Copy a leaf that can be changed; an array of jax cannot."""
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


class RandomState:
    """The states of the random generators that a function can draw from behind jax's back: Python's and numpy's."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()

    def put(self) -> None:
        """Put the generators into these states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)

    def drawn_since(self) -> str:
        """Name the generators that have drawn since then; empty if none has."""
        now = RandomState()
        numpy = all(np.array_equal(a, b) for a, b in zip(self._numpy, now._numpy, strict=True))
        names = {"Python's `random`": self._python == now._python, "`numpy.random`": numpy}
        return " and ".join(name for name, still in names.items() if not still)
