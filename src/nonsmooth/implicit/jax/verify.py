"""Checks of values that are never lost: errors of Python where values are known, errors of the compiled program elsewhere.

A check stands in the computation: its result is what was checked. Outside of `jax.jit` (also under `jax.grad` and
`jax.vmap`, which have values) it raises what the judge raises. In a compiled program the numbers that decide go to the
host where, and only where, they fail: there the judge raises, and the run ends with `jax.errors.JaxRuntimeError`, which
holds the judge's message; were the error swallowed, the checked values are NaN. No array goes to the host, and nothing is
computed by jax there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, Protocol

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["Judge", "Levels", "mapped", "verified"]

Levels = tuple[tuple[bool, ...], ...]
"""How arguments are mapped, from the outermost `vmap` inwards: which of them have an axis of it, in front."""


class Judge(Protocol):
    """What a check asks, compared by identity or content: a parameter of a compiled program."""

    @property
    def one_by_one(self) -> bool:
        """Whether it looks, outside of compiled programs, at the values of one element of a map after the other."""
        ...

    def measure(self, *seen: Any) -> tuple[Any, ...]:
        """Give the numbers that decide, by operations of jax."""
        ...

    def failed(self, *numbers: Any) -> Any:
        """Tell by entries where they fail."""
        ...

    def tell(self, *numbers: Any) -> None:
        """Raise, or warn, for the numbers of one failure."""
        ...

    def look(self, *seen: Any) -> None:
        """Raise, or warn, from the values of one element."""
        ...


def verified(checked: Sequence[Any], seen: Sequence[Any], judge: Judge) -> list[Any]:
    """Give arrays back, after a judge has looked at others."""
    levels: Levels = ()
    return list(_verify.bind(*checked, *seen, judge=judge, through=len(checked), levels=levels))


def mapped(function: Callable[..., Any], levels: Levels) -> Callable[..., Any]:
    """Map a function as its arguments are."""
    for flags in reversed(levels):
        function = jax.vmap(function, in_axes=tuple(0 if flag else None for flag in flags))
    return function


_verify = Primitive("implicit_verify")
_verify.multiple_results = True


@_verify.def_impl
def _now(*args: Any, judge: Judge, through: int, levels: Levels) -> list[Any]:
    """Look at values."""
    checked, seen = args[:through], args[through:]
    if judge.one_by_one:
        for element in _elements(seen, levels):
            judge.look(*element)
        return list(checked)
    numbers = [np.asarray(a) for a in mapped(judge.measure, levels)(*seen)]
    _tell(judge, numbers)
    return list(checked)


def _elements(seen: Sequence[Any], levels: Levels) -> list[list[Any]]:
    """Take mapped arrays apart."""
    if not levels:
        return [list(seen)]
    sizes = [
        next(a.shape[_axis(levels, k, depth)] for k, a in enumerate(seen) if levels[depth][k])
        for depth in range(len(levels))
    ]
    return [
        [a[tuple(i for i, flags in zip(index, levels, strict=True) if flags[k])] for k, a in enumerate(seen)]
        for index in product(*map(range, sizes))
    ]


def _axis(levels: Levels, k: int, depth: int) -> int:
    """Give the axis of an argument that belongs to a level."""
    return sum(flags[k] for flags in levels[:depth])


def _tell(judge: Judge, numbers: Sequence[Any]) -> None:
    """Report the first failure."""
    failed = np.asarray(judge.failed(*numbers))
    if failed.any():
        place = tuple(int(i) for i in np.argwhere(failed)[0])
        judge.tell(*(a[place] for a in numbers))


def _compiled(*args: Any, judge: Judge, through: int, levels: Levels) -> list[Any]:
    """Decide in the compiled program, and speak through the host."""
    checked, seen = args[:through], args[through:]
    numbers = mapped(judge.measure, levels)(*seen)

    def speak(*values: Any) -> Any:
        _tell(judge, [np.asarray(v) for v in values])
        return np.ones((), bool)

    fine = lax.cond(
        jnp.any(judge.failed(*numbers)),
        lambda *values: jax.pure_callback(speak, jax.ShapeDtypeStruct((), bool), *values),
        lambda *values: jnp.ones((), bool),
        *numbers,
    )
    return [jnp.where(fine, a, jnp.nan) for a in checked]


_verify.def_abstract_eval(lambda *avals, through, **_: list(avals[:through]))
mlir.register_lowering(_verify, mlir.lower_fun(_compiled, multiple_results=True))


def _batch(args: Sequence[Any], axes: Sequence[Any], *, judge: Judge, through: int, levels: Levels) -> Any:
    """Note which arguments are mapped."""
    moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)]
    flags = tuple(axis is not None for axis in axes)
    inner = (flags[through:], *levels) if any(flags[through:]) else levels
    found = _verify.bind(*moved, judge=judge, through=through, levels=inner)
    return found, [0 if flag else None for flag in flags[:through]]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, through: int, **params: Any) -> Any:
    """Leave tangents as they are."""
    return _verify.bind(*primals, through=through, **params), list(tangents[:through])


batching.primitive_batchers[_verify] = _batch
ad.primitive_jvps[_verify] = partial(_jvp)
