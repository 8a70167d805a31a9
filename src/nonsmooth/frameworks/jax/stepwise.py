"""A program of JAX step by step, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.extend import core
from numpy.typing import NDArray

from nonsmooth.frameworks.jax.walk import Bind, Reordered, Whole
from nonsmooth.frameworks.replay.arguments import map_arrays, map_leaves
from nonsmooth.frameworks.replay.stepwise import Stepwise
from nonsmooth.program import Program, Step

__all__ = ["StepwiseJax", "step_by_step"]


def step_by_step(program: Program, leaves: Sequence[Any], items: Sequence[Any]) -> StepwiseJax:
    """Start a program at leaves and data; those that are shapes alone are unknown."""
    known = dict(zip((*program.inputs, *program.data), (*leaves, *items), strict=True)) | dict(program.constants)
    return StepwiseJax(program, {v: t for v, t in known.items() if not isinstance(t, jax.ShapeDtypeStruct | None)})


class StepwiseJax(Stepwise):
    """The steps of a program of JAX as functions of numpy."""

    def wide(self, array: Any) -> Any:
        """Give a real array in double precision, whatever jax's own setting is."""
        if not jnp.issubdtype(array.dtype, jnp.floating) or array.dtype == np.float64:
            return array
        with jax.enable_x64(True):
            return jnp.asarray(array, dtype=np.float64)

    def numpy(self, array: Any) -> NDArray[Any]:
        """Give an array to numpy."""
        if jnp.issubdtype(array.dtype, jax.dtypes.extended):
            return np.asarray(jax.random.key_data(array))
        return np.asarray(array)

    def entered(self, array: NDArray[Any]) -> Any:
        """Make an array of jax."""
        with jax.enable_x64(True):
            return jnp.asarray(array)

    def call(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run the step: a primitive in double precision, a whole function in that for which it was traced."""
        with jax.enable_x64(True):
            return _called(step.target, args, kwargs)

    def precision(self, step: Step) -> float:
        """Give the unit of rounding of a step's values."""
        below = _below(step.target)
        return float(np.finfo(np.float32 if isinstance(below, Whole) and not _is_wide(below) else float).eps)

    def pulled(self, function: Callable[..., Any], operands: Sequence[Any], cotangent: Any) -> Sequence[Any]:
        """Give the pullback by jax."""
        with jax.enable_x64(True):
            output, pull = jax.vjp(function, *operands)
            found = pull(jnp.asarray(cotangent, dtype=output.dtype))
        return [jnp.zeros(t.shape) if g.dtype == jax.dtypes.float0 else g for g, t in zip(found, operands, strict=True)]


def _below(target: Any) -> Any:
    """Give what a reordered callable calls."""
    return target.target if isinstance(target, Reordered) else target


def _is_wide(whole: Whole) -> bool:
    """Tell whether a whole function was traced in double precision: at least one of its numbers is."""
    every = [v.aval.dtype for v in (*whole.equation.invars, *whole.equation.outvars)]
    return any(not jnp.issubdtype(t, jax.dtypes.extended) and t.itemsize == 8 for t in every)


def _called(target: Any, args: Any, kwargs: Any) -> Any:
    """Call what a step calls with real arrays in double precision."""
    if isinstance(target, Reordered):
        found = _called(target.target, args, kwargs)
        return [found[k] for k in target.order]
    if isinstance(target, Bind):
        arrays = [_array(a, t.dtype) for a, t in zip(args, target.types, strict=True)]
        return target.primitive.bind(*arrays, **_widened(map_leaves(dict(kwargs), object, _wide_type), arrays))
    if isinstance(target, Whole):
        types = [v.aval.dtype for v in target.equation.invars]
        with jax.enable_x64(_is_wide(target)):
            arrays = [_narrow(a, t) for a, t in zip(args, types, strict=True)]
            return map_arrays(target(*arrays), lambda t: t)
    return target(*args, **kwargs)


def _widened(params: dict[str, Any], arrays: Sequence[Any]) -> dict[str, Any]:
    """Trace again, in the type of the arrays, what a scatter does to an entry and what goes there."""
    update = params.get("update_jaxpr")
    if update is None:
        return params
    number = jax.ShapeDtypeStruct((), arrays[0].dtype)
    closed = jax.make_jaxpr(core.jaxpr_as_fun(core.ClosedJaxpr(update, params["update_consts"])))(number, number)
    return {**params, "update_jaxpr": closed.jaxpr, "update_consts": tuple(closed.consts)}


def _array(value: Any, dtype: Any) -> Any:
    """Give an argument of a primitive as an array, of double precision if it is real."""
    if isinstance(value, jax.Array):
        return value
    return jnp.asarray(value, dtype=_wide_type(dtype))


def _narrow(value: Any, dtype: Any) -> Any:
    """Give an argument of a whole function in the type for which the function was traced."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return value
    return jnp.asarray(np.asarray(value), dtype=dtype)


def _wide_type(value: Any) -> Any:
    """Give the type of double precision for one of less; everything else as it is."""
    is_type = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return np.dtype(np.float64) if is_type and jnp.issubdtype(value, jnp.floating) else value
