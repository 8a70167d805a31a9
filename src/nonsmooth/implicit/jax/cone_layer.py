"""Cone programs in JAX: a custom_vjp around callbacks to the host; they can be compiled and mapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nonsmooth.implicit.cones.layer import Layer

__all__ = ["solve"]

Arrays = tuple[jax.Array, ...]


def _on_host(host: Callable[..., tuple[np.ndarray, ...]], shapes: tuple[Any, ...], given: Arrays) -> Arrays:
    """Run a function of numpy: at once where the values are known, so that its errors are the user's; else as a callback."""
    if not any(isinstance(a, jax.core.Tracer) for a in given):
        return tuple(map(jnp.asarray, host(*given)))
    found: Arrays = jax.pure_callback(host, shapes, *given, vmap_method="broadcast_all")
    return found


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(layer: Layer, *arrays: jax.Array) -> Arrays:
    """Give x, y, s for P, c, A, b of the same leading axes."""
    lead, dtype = arrays[1].shape[:-1], jnp.result_type(*arrays)
    sizes = (arrays[1].shape[-1], arrays[3].shape[-1], arrays[3].shape[-1])
    shapes = tuple(jax.ShapeDtypeStruct((*lead, size), dtype) for size in sizes)

    def host(*given: Any) -> tuple[np.ndarray, ...]:
        return tuple(a.astype(dtype) for a in layer.solve(*map(np.asarray, given))[0])

    return _on_host(host, shapes, arrays)


def _forward(layer: Layer, *arrays: jax.Array) -> tuple[Arrays, tuple[Arrays, Arrays]]:
    """Keep what the pullback starts from."""
    found = _solve(layer, *arrays)
    return found, (arrays, found)


def _backward(layer: Layer, kept: tuple[Arrays, Arrays], cotangents: Arrays) -> Arrays:
    """Check the condition, and solve one linear system for each program."""
    arrays, found = kept
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays)

    def host(*given: Any) -> tuple[np.ndarray, ...]:
        pulled = layer.pull_again(*map(np.asarray, given))
        return tuple(a.astype(like.dtype) for a, like in zip(pulled, arrays, strict=True))

    return _on_host(host, shapes, (*arrays, *found, *cotangents))


_solve.defvjp(_forward, _backward)


def solve(layer: Layer, *arrays: jax.Array) -> Arrays:
    """Give x, y, s for P, c, A, b of the same leading axes."""
    found: Arrays = _solve(layer, *map(jnp.asarray, arrays))
    return found
