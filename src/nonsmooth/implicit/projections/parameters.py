"""The parameters of projections, read beside the arrays of a framework."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

from array_api_compat import array_namespace

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework

__all__ = ["check_axes", "entries", "size", "unit"]


def entries(z: Any, value: Any, what: str, name: str, above: Any = -math.inf) -> Any:
    """Give a number or an array as an array of the type of z, which broadcasts with it."""
    if isinstance(value, int | float):
        if math.isnan(value):
            raise UsageError(f"{name} was given nan for `{what}`.")
        if isinstance(above, int | float) and value < above:
            raise UsageError(f"{name} was given bounds {above} and {value}, which cross: the set would be empty.")
    xp = array_namespace(z)
    return value if hasattr(value, "dtype") and hasattr(value, "ndim") else xp.asarray(value, dtype=z.dtype)


def size(z: Any, value: Any, what: str, name: str) -> Any:
    """Give a positive number, or an array of them for the leading axes of z (nan where not), as an array that broadcasts."""
    if isinstance(value, int | float):
        if not 0 < value < math.inf:
            raise UsageError(f"{name} was given {value!r} for `{what}`: pass a positive finite number.")
        return array_namespace(z).asarray(float(value), dtype=z.dtype)
    if not hasattr(value, "ndim"):
        raise UsageError(f"{name} was given a {type(value).__name__} for `{what}`: pass a number or an array.")
    if value.ndim > max(z.ndim - 1, 0):
        raise UsageError(
            f"{name} was given `{what}` of shape {tuple(value.shape)} for z of shape {tuple(z.shape)}: pass a number, or one "
            "for each entry of the leading axes."
        )
    positive = array_namespace(value).where(
        value > 0, value, math.nan
    )  # its numbers may not be known yet: no error here
    return positive[..., None] if value.ndim else positive


def unit(z: Any) -> Any:
    """Give a number for each row, not differentiated, that z is divided by so that its squares do not overflow: 1 as a rule."""
    xp, module = array_namespace(z), import_module(f"nonsmooth.implicit.{find_framework(z).name}.spectral_projection")
    largest = xp.max(xp.abs(module.constant(z)), axis=-1, keepdims=True) / 1e15
    return xp.maximum(largest, xp.ones_like(largest))


def check_axes(z: Any, axes: int, name: str) -> None:
    """Refuse what is no floating array, or has too few axes or entries."""
    if not hasattr(z, "ndim") or not hasattr(z, "dtype"):
        raise UsageError(f"{name} projects a tensor or an array of JAX; found a {type(z).__name__}.")
    if not array_namespace(z).isdtype(z.dtype, "real floating"):
        raise UsageError(f"{name} projects real floating numbers; found an array of {z.dtype}.")
    if z.ndim < axes or 0 in tuple(z.shape)[z.ndim - axes :]:
        shape = "(..., n)" if axes == 1 else "(..., n, n)"
        raise UsageError(f"{name} projects arrays of shape {shape}, n >= 1; found the shape {tuple(z.shape)}.")
