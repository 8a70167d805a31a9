"""The smoothed operations as primitives of jax's, so that a jaxpr has each as one equation, and programs that use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from math import log
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from nonsmooth.frameworks.replay.plain import run_plainly
from nonsmooth.program import Program

__all__ = ["run_program", "smoothed_max", "smoothed_pieces"]


def run_program(program: Program, leaves: Sequence[Any], items: Sequence[Any]) -> Any:
    """Run the steps of a program on arrays or tracers."""
    env = dict(zip((*program.inputs, *program.data), (*leaves, *items), strict=True))
    return run_plainly(program, env | dict(program.constants))


# --- piecewise linear functions ---------------------------------------------------------------------------------------


def smoothed_pieces(
    u: Any, width: float, breakpoints: Sequence[float], slopes: Sequence[float], value: float
) -> jax.Array:
    """Give the average over [u - width, u + width] of the function with these slopes that has a value at the first break.

        a(u) + sum_j (s_j - s_{j-1}) max(width - |u - b_j|, 0)^2 / (4 width)

    >>> smoothed_pieces(jnp.array([-2.0, 0.0, 2.0]), 1.0, [0.0], [0.0, 1.0], 0.0).tolist()
    [0.0, 0.25, 2.0]
    """
    options = {"breakpoints": tuple(map(float, breakpoints)), "slopes": tuple(map(float, slopes))}
    return PIECES.bind(u, width=float(width), value=float(value), **options)  # type: ignore[no-any-return]


def _pieces(u: Any, *, width: float, breakpoints: Any, slopes: Any, value: float) -> Any:
    """Compute the average."""
    ends = (*breakpoints, float("inf"))
    total = value + slopes[0] * jnp.minimum(u - ends[0], 0)
    for j, b in enumerate(breakpoints):
        total = total + slopes[j + 1] * jnp.clip(u - b, 0, ends[j + 1] - b)
        bump = jnp.square(jnp.maximum(width - jnp.abs(u - b), 0))
        total = total + (slopes[j + 1] - slopes[j]) / (4 * width) * bump
    return total.astype(u.dtype)


def _push(tangent: Any, u: Any, *, width: float, breakpoints: Any, slopes: Any, value: float) -> Any:
    """Multiply by the slope, which runs from one piece's to the next's over an interval of 2 width."""
    slope = jnp.full_like(u, slopes[0])
    for b, left, right in zip(breakpoints, slopes, slopes[1:], strict=False):
        slope = slope + (right - left) * jnp.clip((u - b) / (2 * width) + 0.5, 0, 1)
    return tangent * slope


# --- the largest entry ------------------------------------------------------------------------------------------------


def smoothed_max(u: Any, temperature: float) -> jax.Array:
    """Give temperature (log sum_k exp(u_k / temperature) - log(K) / 2) along the last axis, of K entries.

    >>> round(float(smoothed_max(jnp.zeros(2), 1.0)), 4)
    0.3466
    """
    return MAX.bind(u, temperature=float(temperature))  # type: ignore[no-any-return]


def _max(u: Any, *, temperature: float) -> Any:
    """Compute the largest entry, smoothed."""
    return temperature * (jax.scipy.special.logsumexp(u / temperature, -1) - log(u.shape[-1]) / 2)


def _push_entries(tangent: Any, u: Any, *, temperature: float) -> Any:
    """Share out by the softmax."""
    return jnp.sum(tangent * jax.nn.softmax(u / temperature, -1), -1)


# --- registration -----------------------------------------------------------------------------------------------------


def _primitive(name: str, function: Callable[..., Any], push: Callable[..., Any]) -> Primitive:
    """Make a primitive of a function of one array, differentiated by a function of jax's."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(function, static_argnames=tuple(signature(function).parameters)[1:]))

    def shape(u: Any, **options: Any) -> Any:
        return u.update(
            shape=jax.eval_shape(lambda v: function(v, **options), jax.ShapeDtypeStruct(u.shape, u.dtype)).shape
        )

    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    ad.defjvp(primitive, push)

    def mapped(args: Any, axes: Any, **options: Any) -> Any:
        return primitive.bind(jnp.moveaxis(args[0], axes[0], 0), **options), 0

    batching.primitive_batchers[primitive] = mapped
    return primitive


PIECES = _primitive("smoothed_pieces", _pieces, _push)
MAX = _primitive("smoothed_max", _max, _push_entries)
