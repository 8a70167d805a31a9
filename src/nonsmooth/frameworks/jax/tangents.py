"""Tangents in jax: what the values of a run do along directions, pushed through smooth steps by jax's forward mode.

JAX writes a layer as ten primitives, and a factor lost at each of them would be all that is left. So the scale of a
tangent is an array here, its *spread*, one bound for each entry, wherever the rule is known: f'(u) s for what is done
entry by entry, the root of the sum of squares for sums, entries moved as they are moved, and for a contraction the
root-mean-squares of its rows and columns. The values themselves are taken as they came out: what their rounding does to
the derivative is not counted.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.dictionary import Kind
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.replay.arguments import fill
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.program import Ref, Step

__all__ = ["JaxTangents"]


class JaxTangents(Tangents):
    """The tangents of one run along directions."""

    xp = jnp
    numbers: Any = np
    """The namespace of the spreads: numpy compiles nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.spreads: dict[tuple[int, int], Any] = {}
        super().__init__(*args, **options)

    def restart(self, directions: Sequence[Callable[[], list[Any]]]) -> None:
        """Ask about other directions, the rules of the kinks staying as they are."""
        self.spreads.clear()
        super().restart(directions)

    def _smooth(
        self, step: Step, k: int, read: Mapping[int, Any], tangents: Mapping[int, Any], scale: Any
    ) -> tuple[list[Any], Any]:
        """Push tangents through a step where it is smooth."""
        first = step.results[0]
        if first is not None and first not in self._moving:
            return [None] * len(step.results), scale
        spreads = {v: self.spreads.get((v, k), self.scales[v, k]) for v in tangents}
        rule = _rule_of(step)
        with np.errstate(all="ignore"):
            outputs, found = rule(self, step, read, tangents, spreads)
        if not jnp.ndim(found):
            return outputs, self.number(found)
        for value, output in zip(step.results, outputs, strict=True):
            if value is not None and output is not None:
                self.spreads[value, k] = found
        return outputs, self.largest_of(found)

    def _decided(self, step: Step, k: int, scale: Any) -> tuple[list[Any], Any]:
        """Push tangents through a step with active kinks, by the rules that decided them."""
        operation, call, rules = self.decided[step.index]
        if operation.kind is not Kind.SWITCH or step.results[0] is None:
            return super()._decided(step, k, scale)
        assert call.tangents is not None
        tangents = call.tangents(k)
        total: Any = self.numbers.zeros(call.result.shape, dtype=self.sizes(call.result).dtype)
        for place, ref in enumerate(step.operands):
            if isinstance(ref, Ref) and _real(tangents[place]):
                ones = [call.xp.full_like(t, float(j == place)) if _real(t) else t for j, t in enumerate(tangents)]
                spread = self.spreads.get((ref.value, k), self.scales.get((ref.value, k), 0.0))
                total = total + self.sizes(operation.push(call, rules, tuple(ones))) * spread
        self.spreads[step.results[0], k] = total
        rest: list[Any] = [None for _ in step.results[1:]]
        return [operation.push(call, rules, tangents), *rest], self.largest_of(total)

    def drawn(self, like: Any, scale: Any) -> Any:
        """Draw numbers in [-scale, scale]; numpy's for its own arrays."""
        uniform = scale * (2 * self.noise.random(tuple(like.shape), dtype=np.float32) - 1)
        return uniform.astype(like.dtype) if isinstance(like, np.ndarray) else jnp.asarray(uniform, dtype=like.dtype)

    def sizes(self, array: Any) -> Any:
        """Give absolute values in single precision at least, as spreads are written."""
        sizes = self.numbers.abs(self.numbers.asarray(array))
        return sizes if sizes.dtype in (jnp.float32, jnp.float64) else sizes.astype(jnp.float32)

    def largest_of(self, spread: Any) -> Any:
        """Give the largest entry of a spread, as a number."""
        return self.number(self.numbers.max(spread, initial=0.0))

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
        if step.label == "stop_gradient":  # the value moves, though jax differentiates it to zero
            return [tangents[r.value] for r in step.args]
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


# --- spreads: bounds of the terms that the entries of a tangent are summed from ---------------------------------------

Spreads: TypeAlias = Mapping[int, Any]
Spread: TypeAlias = "Callable[[JaxTangents, Step, Mapping[int, Any], Spreads, Spreads], tuple[list[Any], Any]]"
"""From a step, what it reads, tangents and spreads: the tangents of its results and their spread."""

ENTRYWISE = frozenset(
    "mul div sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh exp exp2 expm1 log log1p sqrt rsqrt cbrt square "
    "integer_pow pow logistic erf erfc erf_inv lgamma digamma atan2 abs max min clamp select_n relu relu6 leaky_relu elu "
    "selu celu hardtanh hardsigmoid hardswish softplus silu mish log_sigmoid logaddexp logaddexp2 xlogy xlog1py sinc "
    "real imag conj neg add sub add_any".split()
)
"""Primitives and functions that act entry by entry."""

SUMS = frozenset("reduce_sum cumsum reduce_window_sum".split())

ROOT = 1.0
"""How many times the root of the sum of squares a sum of independent terms is taken to be."""


def _rule_of(step: Step) -> Spread:
    """Find how a step passes spreads on."""
    if step.label in ENTRYWISE:
        return _entrywise
    if step.label in SUMS:
        return _summed
    if step.label in ("dot_general", "conv_general_dilated"):
        return _contracted
    if step.operation.kind is Kind.INDEX or (step.operation.kind is Kind.ORDER and len(step.results) == 1):
        return _moved
    return _drawn


def _pushed(along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Any]) -> list[Any]:
    """Push tangents through a step by jax."""
    return along.push_forward(step, read, tangents, ())


def _entrywise(
    along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Spreads, spreads: Spreads
) -> tuple[list[Any], Any]:
    """Add up |d_i f| s_i over the operands."""
    outputs = _pushed(along, step, read, tangents)
    if step.label in ("neg", "add", "sub", "add_any"):
        return outputs, functools.reduce(operator.add, (spreads[r.value] for r in step.args if _is_in(r, spreads)))
    total: Any = 0.0
    for value, spread in spreads.items():
        (slope, *_) = _pushed(along, step, read, {value: jnp.ones_like(read[value])})
        total = total + (0.0 if slope is None else along.sizes(slope) * spread)
    return outputs, total


def _drawn(
    along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Spreads, spreads: Spreads
) -> tuple[list[Any], Any]:
    """Push numbers through that are drawn from [-s, s], entry by entry, and take twice the largest."""
    outputs = _pushed(along, step, read, tangents)
    draws = {v: (along.drawn(read[v], 1.0) * s).astype(read[v].dtype) for v, s in spreads.items()}
    found = [t for t in _pushed(along, step, read, draws) if t is not None]
    return outputs, along.largest((*map(along.size, filter(_is_there, outputs)), *(2 * along.size(t) for t in found)))


def _is_there(tangent: Any) -> bool:
    """Tell a tangent from none."""
    return tangent is not None


def _summed(
    along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Spreads, spreads: Spreads
) -> tuple[list[Any], Any]:
    """Take the root of the sum of squares, and no less than the sum."""
    outputs = _pushed(along, step, read, tangents)
    ((value, spread),) = spreads.items()
    xp, like = along.numbers, along.sizes(jnp.zeros((), dtype=read[value].dtype)).dtype
    sizes = xp.broadcast_to(xp.asarray(spread, dtype=like), read[value].shape)
    largest = xp.maximum(xp.max(sizes, initial=0.0), jnp.finfo(like).tiny)
    total = along.sizes(step.target(jnp.asarray(xp.square(sizes / largest)), **fill(dict(step.kwargs), read)))
    return outputs, xp.maximum(ROOT * largest * xp.sqrt(total), along.sizes(outputs[0]))


def _moved(
    along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Spreads, spreads: Spreads
) -> tuple[list[Any], Any]:
    """Move spreads as the entries are moved."""
    outputs = _pushed(along, step, read, tangents)
    if len(step.results) > 1 or step.operation.kind is Kind.ORDER or not any(jnp.ndim(s) for s in spreads.values()):
        return outputs, along.largest(along.largest_of(s) if jnp.ndim(s) else s for s in spreads.values())
    (found,) = _pushed(along, step, read, {v: jnp.broadcast_to(s, read[v].shape) for v, s in spreads.items()})
    return outputs, 0.0 if found is None else along.sizes(found)


def _contracted(
    along: JaxTangents, step: Step, read: Mapping[int, Any], tangents: Spreads, spreads: Spreads
) -> tuple[list[Any], Any]:
    """Take sqrt(n) rms(a) rms(s), with the root-mean-squares of the row and the column that are contracted."""
    outputs = _pushed(along, step, read, tangents)
    args = [read[r.value] if isinstance(r, Ref) else jnp.asarray(r) for r in step.args]
    rows, count = (_rows_of_dot if step.label == "dot_general" else _rows_of_convolution)(along, step, args)
    total: Any = 0.0
    for place in (0, 1):
        ref = step.args[place]
        if _is_in(ref, spreads):
            spread = spreads[ref.value]
            size = rows(along.numbers.broadcast_to(spread, args[place].shape), place) if jnp.ndim(spread) else spread
            total = total + along.numbers.square(rows(args[1 - place], 1 - place) * size)
    return outputs, along.numbers.maximum(ROOT * (count * total) ** 0.5, along.sizes(outputs[0]))


Rows: TypeAlias = Callable[[Any, int], Any]
"""The root-mean-square of what is contracted of an operand, in the shape of the result, or broadcast to it."""


def _rows_of_dot(along: JaxTangents, step: Step, args: Sequence[Any]) -> tuple[Rows, int]:
    """Take the root-mean-square of the rows of one operand or the columns of the other; give their length."""
    contracted, batched = step.kwargs["dimension_numbers"]
    free = [[k for k in range(args[p].ndim) if k not in (*contracted[p], *batched[p])] for p in (0, 1)]

    def rows(array: Any, place: int) -> Any:
        order = (*batched[place], *free[place], *contracted[place])
        size = _mean_size(along, along.numbers.transpose(array, order), len(contracted[place]))
        first, last = size.shape[: len(batched[place])], size.shape[len(batched[place]) :]
        ones = (1,) * len(free[1 - place])
        return size.reshape((*first, *ones, *last) if place else (*first, *last, *ones))

    return rows, math.prod(args[0].shape[k] for k in contracted[0])


def _rows_of_convolution(along: JaxTangents, step: Step, args: Sequence[Any]) -> tuple[Rows, int]:
    """Take the largest root-mean-square of the channels at a place, or of a kernel; give the size of a kernel."""
    numbers = step.kwargs["dimension_numbers"]
    channels = ((numbers.lhs_spec[1],), numbers.rhs_spec[1:])

    def rows(array: Any, place: int) -> Any:
        left = [k for k in range(array.ndim) if k not in channels[place]]
        size = _mean_size(along, along.numbers.transpose(array, (*left, *channels[place])), len(channels[place]))
        return along.numbers.max(size, initial=0.0)

    return rows, math.prod(args[1].shape[k] for k in channels[1])


def _mean_size(along: JaxTangents, array: Any, axes: int) -> Any:
    """Give the root-mean-square over the last axes; of large or small numbers as of others."""
    xp, sizes = along.numbers, along.sizes(array)
    largest = xp.maximum(xp.max(sizes, initial=0.0), jnp.finfo(sizes.dtype).tiny)
    return largest * xp.sqrt(xp.mean(xp.square(sizes / largest), axis=tuple(range(sizes.ndim - axes, sizes.ndim))))


def _is_in(argument: Any, known: Spreads) -> bool:
    """Tell a reference to one of some values."""
    return isinstance(argument, Ref) and argument.value in known


def _real(array: Any) -> bool:
    """Tell an array that can have a tangent."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))
