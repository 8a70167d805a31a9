"""The space of points: pytrees of arrays as vectors; see `replay.space`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.frameworks.jax.tree import flatten, is_array, unflatten
from nonsmooth.frameworks.replay.space import Space

__all__ = ["SPACE", "JaxSpace"]


class JaxSpace(Space):
    """The points of JAX."""

    xp: Any = jnp
    array_word = "array"
    flatten = staticmethod(flatten)
    unflatten = staticmethod(unflatten)
    is_array = staticmethod(is_array)

    @staticmethod
    def detached(array: Any) -> Any:
        """Give an array without a graph."""
        return array

    @staticmethod
    def numpy(array: Any) -> Any:
        """Give the values of an array to numpy."""
        if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return np.asarray(jax.random.key_data(array))
        found = np.asarray(array)
        low = found.dtype.kind == "V" or found.dtype.name in ("bfloat16", "float16")
        return found.astype(np.float32) if low else found

    @staticmethod
    def array_like(leaf: Any, values: Any) -> Any:
        """Make an array of the type of a leaf."""
        return jnp.asarray(values, dtype=leaf.dtype)

    @staticmethod
    def finite(tree: Any) -> bool:
        """Tell whether all entries of a tree of arrays are finite."""
        return all(bool(jnp.all(jnp.isfinite(t))) for t in flatten(tree)[0])

    @staticmethod
    def differentiate(
        function: Callable[[list[Any]], Any], leaves: list[Any], cotangent: list[Any] | None, wanted: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a function by jax alone: its floating results, and the pullback of a cotangent (ones if None)."""

        def floating(point: list[Any]) -> list[Any]:
            results = [jnp.asarray(t) for t in flatten(function(point))[0] if is_array(t) or isinstance(t, float)]
            return [t for t in results if jnp.issubdtype(t.dtype, jnp.floating)]

        if not wanted:
            return floating(leaves), [jnp.zeros_like(leaf) for leaf in leaves]
        results, pull = jax.vjp(floating, leaves)
        weights = [jnp.ones_like(t) for t in results] if cotangent is None else cotangent
        seeds = [jnp.asarray(w, dtype=t.dtype).reshape(t.shape) for w, t in zip(weights, results, strict=True)]
        return results, pull(seeds)[0]

    @staticmethod
    def lattice(leaf: Any, digits: list[Any]) -> Any:
        """Make an array like a leaf of digits to the base 256."""
        total = np.zeros(leaf.size)
        for place, drawn in enumerate(digits):
            unit = 256.0 ** -(place + 1)
            total += drawn.astype(np.float64) * (2 * unit) - 255 * unit
        return jnp.asarray(total.reshape(leaf.shape), dtype=leaf.dtype)


SPACE = JaxSpace()
"""The one instance."""
