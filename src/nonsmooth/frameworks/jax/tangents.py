"""Tangents in jax: what the values of a run do along directions, pushed through smooth steps by jax's forward mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.dictionary import Kind
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.jax.reverse import fill
from nonsmooth.frameworks.replay.forward import Pushed, Terms, bilinear_tangents
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.program import Ref, Step

__all__ = ["JaxTangents"]


class JaxTangents(Tangents):
    """The tangents of one run along directions."""

    xp = jnp

    def shortcut(
        self, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Any], scales: Mapping[int, float]
    ) -> tuple[Pushed, float | None] | None:
        """Push tangents through a sum, a product or a contraction."""
        found = super().shortcut(step, read, tangents, scales)
        return found or bilinear_tangents(jnp, step, read, tangents, scales, _terms(step), self.number)

    def number(self, array: Any) -> float:
        """Give a number of an array of one entry."""
        return float(array)

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


def _terms(step: Step) -> Terms:
    """Say how many products a primitive adds up for one result, if it is bilinear."""

    def terms(asked: Step, a: Sequence[int], b: Sequence[int]) -> int | None:
        if step.label == "mul":
            return 1
        if step.label == "dot_general":
            (contracted, _), _ = step.kwargs["dimension_numbers"]
            return math.prod(a[k] for k in contracted)
        if step.label == "conv_general_dilated":
            kernel = step.kwargs["dimension_numbers"].rhs_spec
            return math.prod(b[k] for k in kernel[1:])
        return None

    return terms


def _real(array: Any) -> bool:
    """Tell an array that can have a tangent."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))
