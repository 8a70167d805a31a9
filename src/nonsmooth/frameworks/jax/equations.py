"""An equation of a jaxpr, as the table of primitives reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

__all__ = ["Equation", "is_inexact"]


@dataclass(frozen=True)
class Equation:
    """One equation of a jaxpr: the primitive's name, its parameters, and what is known of its inputs.

    Attributes:
        primitive: the name, "gt", "sort", "jit" ...
        params: the parameters of the equation.
        inputs: shape and dtype of every input.
        moving: which inputs depend on the point.
        literals: the value of each input that is a literal or a known constant, else None.
    """

    primitive: str
    params: Mapping[str, Any] = field(repr=False)
    inputs: tuple[Any, ...]
    moving: tuple[bool, ...]
    literals: tuple[Any, ...] = field(repr=False)

    def number(self, place: int) -> float | None:
        """Give the value of an input that is a known number, or an array filled with one; else None."""
        values = self.array(place)
        if values is None or values.dtype.kind not in "biuf" or not values.size or (values != values.flat[0]).any():
            return None
        return float(values.flat[0])

    def array(self, place: int) -> np.ndarray[Any, Any] | None:
        """Give the value of an input to numpy, if it is known."""
        value = self.literals[place]
        if value is None or isinstance(value, Tracer) or self.moving[place]:
            return None
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
            value = (
                jnp.asarray(value).astype(jnp.float32) if value.dtype.itemsize < 4 else value
            )  # numpy has no bfloat16
        return np.asarray(value)

    @property
    def places(self) -> tuple[int, ...]:
        """The positions of all inputs."""
        return tuple(range(len(self.inputs)))


def is_inexact(aval: Any) -> bool:
    """Tell real and complex numbers.

    >>> is_inexact(jnp.ones(2)), is_inexact(jnp.arange(2))
    (True, False)
    """
    return bool(jnp.issubdtype(aval.dtype, jnp.inexact))
