"""The space of points: pytrees of arrays as vectors, with directions, unit vectors and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.jax.tree import flatten, is_array, unflatten

__all__ = [
    "array_like",
    "arrays",
    "columns",
    "combine",
    "differentiate",
    "draw",
    "eps",
    "finite",
    "flat",
    "flat_like",
    "numpy",
    "stack",
    "unflatten_entries",
    "unflatten_flat",
    "units",
]


def draw(x: Any, seed: int, digits: int = 1) -> Any:
    """Draw a direction like the point, its entries multiples of 1/256 in [-1, 1] and not 0 (finer with more digits)."""
    leaves, structure = flatten(x)
    source = np.random.SFC64(seed)
    drawn = []
    for leaf in leaves:
        total = np.zeros(leaf.size)
        for digit in range(digits):  # odd multiples of 1/256, so that none is 0; then finer ones
            draws = source.random_raw(leaf.size // 8 + 1).view(np.uint8)[: leaf.size].astype(np.float64)
            unit = 256.0 ** -(digit + 1)
            total += draws * (2 * unit) - 255 * unit
        drawn.append(jnp.asarray(total.reshape(leaf.shape), dtype=leaf.dtype))
    return unflatten(drawn, structure)


def arrays(tree: Any) -> list[Any]:
    """Give the leaves of a tree of arrays to numpy."""
    return [numpy(t) for t in flatten(tree)[0]]


def stack(trees: list[Any]) -> Any:
    """Stack trees of arrays of one structure along a new last axis."""
    structure = flatten(trees[0])[1]
    leaves = zip(*(flatten(t)[0] for t in trees), strict=True)
    return unflatten([jnp.stack(row, axis=-1) for row in leaves], structure)


def combine(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    """Add trees of arrays up, each times a number."""
    rows, structure = zip(*(flatten(t)[0] for t in trees), strict=True), flatten(trees[0])[1]
    return unflatten([sum(w * t for w, t in zip(weights, r, strict=True)) for r in rows], structure)


def finite(tree: Any) -> bool:
    """Tell whether all entries of a tree of arrays are finite."""
    return all(bool(jnp.all(jnp.isfinite(t))) for t in flatten(tree)[0])


def eps(tree: Any) -> float:
    """Give the unit of rounding of the arrays of a tree."""
    leaves = flatten(tree)[0]
    return max((float(jnp.finfo(t.dtype).eps) for t in leaves if jnp.issubdtype(t.dtype, jnp.floating)), default=0.0)


def columns(x: Any, directions: Any) -> list[Any]:
    """Read directions: a list of trees like the point, or for an array one array whose last axis counts them."""
    if is_array(x) and is_array(directions):
        if directions.ndim == 0 or directions.shape[:-1] != x.shape:
            raise UsageError(
                f"directions of a point of shape {tuple(x.shape)} are an array of shape {tuple(x.shape)} + (k,), or a "
                f"list of k arrays of that shape; found shape {tuple(directions.shape)}."
            )
        return [directions[..., k] for k in range(directions.shape[-1])]
    if not isinstance(directions, list | tuple) or not directions:
        raise UsageError(f"directions are a list of trees like the point; found {type(directions).__name__}.")
    return list(directions)


def units(x: Any) -> list[Any]:
    """Give the unit vectors of the point's space, one for each of its entries."""
    n = sum(leaf.size for leaf in flatten(x)[0])
    return [unflatten_flat(x, row) for row in np.eye(n)]


def unflatten_entries(x: Any, entries: Any) -> Any:
    """Put one number for each entry of the point into its structure."""
    leaves, structure = flatten(x)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = jnp.split(jnp.reshape(jnp.asarray(entries), (-1,)), ends[:-1])
    return unflatten(
        [jnp.asarray(jnp.reshape(p, t.shape), dtype=t.dtype) for p, t in zip(parts, leaves, strict=True)], structure
    )


def flat(tree: Any) -> Any:
    """Lay a tree of arrays out as one flat array of numpy, in double precision."""
    parts = [np.asarray(numpy(t), dtype=np.float64).ravel() for t in flatten(tree)[0]]
    return np.concatenate(parts) if parts else np.zeros(0)


def flat_like(x: Any, tree: Any, what: str = "a vector") -> Any:
    """Lay out a tree of the structure of the point, or a flat array of as many entries; refuse anything else."""
    (leaves, structure), (own, wanted) = flatten(tree), flatten(x)
    if is_array(tree) and tree.shape == (sum(t.size for t in own),):
        return flat(tree)
    if structure != wanted or any(not is_array(t) or t.shape != u.shape for t, u in zip(leaves, own, strict=True)):
        shapes = [tuple(t.shape) if is_array(t) else type(t).__name__ for t in leaves]
        raise UsageError(
            f"{what} has the structure and the shapes of the point, {[tuple(t.shape) for t in own]}, or is a flat array of "
            f"{sum(t.size for t in own)} numbers; found {shapes}."
        )
    return flat(tree)


def unflatten_flat(x: Any, vector: Any) -> Any:
    """Put a flat array of numpy into the structure of the point."""
    leaves, structure = flatten(x)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = np.split(np.asarray(vector, dtype=np.float64).reshape(-1), ends[:-1])
    return unflatten(
        [jnp.asarray(p.reshape(t.shape), dtype=t.dtype) for p, t in zip(parts, leaves, strict=True)], structure
    )


def array_like(leaf: Any, values: Any) -> Any:
    """Make an array of the type of a leaf."""
    return jnp.asarray(values, dtype=leaf.dtype)


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


def numpy(array: Any) -> Any:
    """Give the values of an array to numpy."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(array))
    found = np.asarray(array)
    return found.astype(np.float32) if found.dtype.kind == "V" or found.dtype.name in ("bfloat16", "float16") else found
