"""Solutions attached to what they depend on: a primitive of jax, the identity in y with a derivative of its own.

`jax.custom_jvp` would do but inside of loops: there jax 0.10 leaves out its rule where what is differentiated once is
differentiated again in reverse, and what is left is the identity in a y that is cut off, a derivative 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from nonsmooth.implicit.jax.verify import Levels, mapped

__all__ = ["Derivative", "attached"]


class Derivative(Protocol):
    """The derivative of a solution, compared by identity or content: a parameter of a compiled program."""

    def moves(self, place: int) -> bool:
        """Tell whether the solution differentiates in an input."""
        ...

    def residual(self, y: Any, *inputs: Any) -> Any:
        """Give what is zero at the solution, like y."""
        ...

    def slope(self, moving: tuple[int, ...], y: Any, inputs: list[Any], along: tuple[Any, ...]) -> Any:
        """Give dy from y, the inputs, and the changes of those at some places."""
        ...


def attached(y: Any, inputs: Sequence[Any], derivative: Derivative) -> Any:
    """Give y, an array, whose derivative in the inputs, arrays, is as said; what y depends on counts no more."""
    levels: Levels = ()
    return _attached.bind(y, *inputs, derivative=derivative, levels=levels)


_attached = Primitive("implicit_solution")


@_attached.def_impl
def _identity(y: Any, *_: Any, **__: Any) -> Any:
    """Give y."""
    return y


_attached.def_abstract_eval(_identity)
mlir.register_lowering(_attached, mlir.lower_fun(_identity, multiple_results=False))


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, derivative: Derivative, levels: Levels) -> Any:
    """Give y, attached for derivatives of a higher order, and dy, mapped as the arguments are."""
    y = _attached.bind(*primals, derivative=derivative, levels=levels)
    places = range(len(primals) - 1)
    moving = tuple(k for k in places if derivative.moves(k) and not isinstance(tangents[1 + k], ad.Zero))
    if not moving:
        return y, jnp.zeros_like(y)

    def slope(y: Any, *rest: Any) -> Any:
        given = [jnp.asarray(a) for a in rest]  # jax hands numbers of Python on
        return derivative.slope(moving, jnp.asarray(y), given[: len(places)], tuple(given[len(places) :]))

    flags = tuple((*level, *(level[1 + k] for k in moving)) for level in levels)
    return y, mapped(slope, flags)(y, *primals[1:], *(tangents[1 + k] for k in moving))


def _batch(args: Sequence[Any], axes: Sequence[Any], *, derivative: Derivative, levels: Levels) -> Any:
    """Note which arguments are mapped; y always is, since its derivative is."""
    count = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)]
    if axes[0] is None:
        moved[0] = jnp.broadcast_to(args[0], (count, *args[0].shape))
    flags = (True, *(axis is not None for axis in axes[1:]))
    return _attached.bind(*moved, derivative=derivative, levels=(flags, *levels)), 0


ad.primitive_jvps[_attached] = _jvp
batching.primitive_batchers[_attached] = _batch
