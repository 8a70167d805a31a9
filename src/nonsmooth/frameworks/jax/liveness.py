"""Reading a jaxpr: its literals, and which of its equations anything depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend import core

__all__ = ["constant_of", "live_equations"]


def constant_of(literal: Any) -> Any:
    """Give the array that a literal of a jaxpr stands for, a value also inside of a transformation."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(literal.val, dtype=literal.aval.dtype)


def live_equations(jaxpr: Any, wanted: Sequence[bool] | None = None) -> list[tuple[Any, tuple[bool, ...]]]:
    """Give the equations that wanted results come from (all by default), each with which of its outputs are used.

    An equation without results is there for its effect, and stays.

    >>> import jax
    >>> closed = jax.make_jaxpr(lambda u: (u + 1, u * 2))(1.0)
    >>> [eqn.primitive.name for eqn, _ in live_equations(closed.jaxpr, (False, True))]
    ['mul']
    """
    wanted = (True,) * len(jaxpr.outvars) if wanted is None else wanted
    used = {v for v, w in zip(jaxpr.outvars, wanted, strict=True) if w and not isinstance(v, core.Literal)}
    found = []
    for eqn in reversed(jaxpr.eqns):
        outputs = tuple(v in used for v in eqn.outvars)
        if any(outputs) or not outputs:
            used.update(v for v in eqn.invars if not isinstance(v, core.Literal))
            found.append((eqn, outputs))
    return found[::-1]
