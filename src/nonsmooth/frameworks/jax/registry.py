"""JAX's own registry of differentiation rules, against the table."""

from __future__ import annotations

import importlib

from jax.interpreters import ad

from nonsmooth.frameworks.jax.opening import OPENED
from nonsmooth.frameworks.jax.rows import PLAIN, REFUSED, SPECIAL, STRUCTURAL

__all__ = ["differentiable", "missing"]

MODULES = "jax.numpy jax.nn jax.random jax.lax jax.lax.linalg jax.numpy.fft jax.scipy.linalg jax.scipy.special".split()
"""The modules that register rules when they are imported."""


def differentiable() -> list[str]:
    """List the primitives for which JAX has a rule of differentiation, forwards or backwards."""
    for module in MODULES:
        importlib.import_module(module)
    return sorted({p.name for p in (*ad.primitive_jvps, *ad.primitive_transposes)})


def missing() -> list[str]:
    """List the primitives with a rule of differentiation that the table neither reads, opens, walks through nor refuses.

    There is none of JAX's own; other packages, and parts of `jax.experimental`, register theirs when they are imported.

    >>> "tanh" in missing()
    False
    """
    listed = {*PLAIN, *SPECIAL, *OPENED, *STRUCTURAL, *REFUSED}
    return [name for name in differentiable() if name not in listed]
