"""Tangents in jax: what the values of a run do along directions, pushed through smooth steps by jax's forward mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.dictionary import Kind
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.jax.reverse import fill
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.program import Ref, Step

__all__ = ["JaxTangents"]


class JaxTangents(Tangents):
    """The tangents of one run along directions."""

    xp = jnp

    def push_forward(
        self,
        step: Step,
        read: Mapping[int, Any],
        tangents: Mapping[int, Any],
        known: Any,
        lost: bool = False,
    ) -> list[Any]:
        """Push tangents through one step where it is smooth."""
        if step.operation.kind is Kind.OPAQUE:
            raise NoDerivative(f"{step} brings its own derivative: its one-sided derivative is not known.")
        args, kwargs = list(step.args), fill(dict(step.kwargs), read)
        places = [k for k, a in enumerate(args) if isinstance(a, Ref) and a.value in tangents and _real(read[a.value])]
        if not places:
            return [None] * len(step.results)
        filled = [fill(a, read) for a in args]

        def moved(*parts: Any) -> Any:
            for place, part in zip(places, parts, strict=True):
                filled[place] = part
            return step.target(*filled, **kwargs)

        primals = tuple(filled[k] for k in places)
        along = tuple(jnp.asarray(tangents[args[k].value], dtype=p.dtype) for k, p in zip(places, primals, strict=True))
        _, found = jax.jvp(moved, primals, along)
        outputs = [found] if step.single else list(found)
        return [None if t.dtype == jax.dtypes.float0 else t for t in outputs]


def _real(array: Any) -> bool:
    """Tell an array that can have a tangent."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))
