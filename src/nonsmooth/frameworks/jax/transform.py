"""Gradients under a selection as a transform of jax: the jaxpr interpreted anew, masks in the place of choices.

At every operation with kinks the value is jax's own and the derivative that of the weights of the selection, a linear
map with the masks of the active elements in it; nothing depends on values and control flow stays, so that `jit`, `vmap`
and `grad` go through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.dictionary import FRAMEWORK_NAMES, Call, Nonsmooth, Operation, Select
from nonsmooth.errors import UnlistedOperation
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.jax.calls import call_of, rules_of
from nonsmooth.frameworks.jax.capture import traced
from nonsmooth.frameworks.jax.control_flow import where_rows
from nonsmooth.frameworks.jax.equations import Equation
from nonsmooth.frameworks.jax.known import known
from nonsmooth.frameworks.jax.liveness import constant_of, live_equations
from nonsmooth.frameworks.jax.opening import opened
from nonsmooth.frameworks.jax.reverse import attach
from nonsmooth.frameworks.jax.rows import REFUSED, Reading, read
from nonsmooth.frameworks.jax.sources import source_of
from nonsmooth.frameworks.jax.tree import flatten, split_data, unflatten
from nonsmooth.frameworks.jax.walk import FUNCTIONS, Bind, Whole
from nonsmooth.frameworks.replay.plan import is_still, passes_ties
from nonsmooth.frameworks.replay.predicates import SIDES, Predicate, combine, compare
from nonsmooth.program import Source, Step

__all__ = ["selected"]


@dataclass(frozen=True)
class Slot:
    """An array on the way, whether it depends on the point, and what it is as a predicate.

    It is `still` if it is piecewise constant all the same. `stopped` is what it is cut off from, and `by_index` tells a
    comparison of whole numbers.
    """

    array: Any
    moving: bool = False
    predicate: Predicate | None = None
    still: bool = False
    stopped: Slot | None = None
    by_index: bool = False

    @property
    def moves(self) -> bool:
        """Whether it moves with the point."""
        return self.moving and not self.still


def selected(function: Callable[..., Any], select: Selector) -> Callable[..., Any]:
    """Give the function (x, *data) with the same values, whose derivatives with respect to x are those of a selection."""

    def weighed(x: Any, *data: Any) -> Any:
        closed, structure = traced(function, x, data)
        leaves, items = flatten(x)[0], split_data(data)[0]
        inputs = [Slot(jnp.asarray(a), True) for a in leaves] + [Slot(a) for a in items]
        outputs = Interpreter(select).run(closed.jaxpr, closed.consts, inputs)
        return unflatten([s.array for s in outputs], structure)

    return weighed


@dataclass
class Interpreter:
    """One interpretation of a jaxpr under a selection."""

    select: Selector
    count: int = field(default=0)

    def run(
        self,
        jaxpr: Any,
        constants: Sequence[Any],
        inputs: Sequence[Slot],
        outer: Source | None = None,
        wanted: Sequence[bool] | None = None,
    ) -> list[Slot]:
        """Interpret a jaxpr."""
        env: dict[Any, Slot] = {v: Slot(jnp.asarray(c)) for v, c in zip(jaxpr.constvars, constants, strict=True)}
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def slot(atom: Any) -> Slot:
            return Slot(constant_of(atom)) if isinstance(atom, core.Literal) else env[atom]

        for equation, used in live_equations(jaxpr, wanted):
            source = source_of(equation.source_info, outer)
            outputs = self._equation(equation, [slot(a) for a in equation.invars], source, used)
            env.update(zip(equation.outvars, outputs, strict=True))
        shown = (True,) * len(jaxpr.outvars) if wanted is None else wanted
        return [slot(a) if w else Slot(None) for a, w in zip(jaxpr.outvars, shown, strict=True)]

    def _equation(self, eqn: Any, inputs: list[Slot], source: Source | None, wanted: tuple[bool, ...]) -> list[Slot]:
        """Interpret one equation."""
        name = eqn.primitive.name
        self.count += 1
        moving = any(s.moving for s in inputs)
        if name in REFUSED or not moving:
            return self._natively(eqn, inputs, moving)
        whole = known(_described(eqn, inputs), wanted) if name in FUNCTIONS else None
        if whole is not None:
            return self._weighed(eqn, whole, Whole(eqn), {}, inputs, source)
        if name in STRUCTURE:
            return STRUCTURE[name](self, eqn, inputs, source, wanted)
        if name in FUNCTIONS:
            return self._natively(eqn, inputs, moving)
        equation = _described(eqn, inputs)
        other = opened(equation)
        if other is not None:
            return self._opened(other, eqn, inputs, source)
        record = FRAMEWORK_NAMES.get("jax", {}).get(name)
        reading = read(equation, wanted) if record is None else Reading(record, tuple(range(len(inputs))), {})
        if reading is None:
            raise UnlistedOperation(
                f"grad: the dictionary does not list jax's `{name}` ({source or 'an unknown line'}). If it is smooth, say "
                f"so: ns.register(ns.Operation(name='{name}', kind=ns.Kind.SMOOTH), jax='{name}')."
            )
        target = Bind(eqn.primitive, tuple(v.aval for v in eqn.invars))
        return self._weighed(eqn, reading, target, eqn.params, inputs, source)

    def _natively(self, eqn: Any, inputs: list[Slot], moving: bool) -> list[Slot]:
        """Leave an equation to jax; what is known before anything runs stays known."""
        known_already = not any(isinstance(s.array, jax.core.Tracer) for s in inputs)
        with jax.ensure_compile_time_eval() if known_already else nullcontext():
            found = Whole(eqn)(*(s.array for s in inputs))
        return [_slot(a, moving) for a in (found if isinstance(found, list | tuple) else [found])]

    def _opened(self, other: Callable[..., Any], eqn: Any, inputs: list[Slot], source: Source | None) -> list[Slot]:
        """Interpret a formula in the place of an equation."""
        closed = jax.make_jaxpr(other)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars))
        return self.run(closed.jaxpr, closed.consts, inputs, source)

    def _weighed(
        self,
        eqn: Any,
        reading: Reading,
        target: Callable[..., Any],
        params: Mapping[str, Any],
        inputs: list[Slot],
        source: Source | None,
    ) -> list[Slot]:
        """Apply an operation, its derivative weighed if it has kinks."""
        found = target(*(s.array for s in inputs), **params)
        outputs = list(found) if isinstance(found, list | tuple) else [found]
        operation = reading.operation
        chosen, place = [inputs[i] for i in reading.operands], reading.results[0]
        if isinstance(operation, Nonsmooth) and any(s.moves and _real(s.array) for s in chosen):
            outputs[place] = self._attached(operation, reading, chosen, outputs[place], source)
        reads = chosen[1:] if isinstance(operation, Select) else inputs
        still = [not any(s.moves for s in reads) or is_still(operation, str(a.dtype)) for a in outputs]
        slots = [Slot(a, True, still=s) for a, s in zip(outputs, still, strict=True)]
        name = eqn.primitive.name
        stopped = inputs[0] if name == "stop_gradient" else None
        by_index = name == "eq" and not any(_real(s.array) for s in inputs)
        predicate = self._predicate(eqn, operation, target, params, inputs, slots[0])
        return [replace(slots[0], predicate=predicate, stopped=stopped, by_index=by_index), *slots[1:]]

    def _attached(
        self, operation: Nonsmooth, reading: Reading, chosen: list[Slot], native: Any, source: Source | None
    ) -> Any:
        """Give the native value the derivative that the rules select."""
        attributes = reading.attributes
        if isinstance(operation, Select):
            predicate = chosen[0].predicate or Predicate.untied(jnp, chosen[0].array)
            attributes = {**attributes, **predicate.attributes(), **_repeating(chosen)}
        operands = tuple(s.array for s in chosen)
        call: Call = call_of(tuple(map(lax.stop_gradient, operands)), attributes, lax.stop_gradient(native))
        if "repeats" in attributes:
            call = Select.unguarded(call)
        step = Step(self.count, operation, _unknown, (), {}, (), attributes=attributes, source=source)
        rules = rules_of(self.select, step, call)
        if rules is None:
            return native
        linear = operation.push(call, rules, operands)
        return attach(lax.stop_gradient(native), jnp.broadcast_to(linear, native.shape).astype(native.dtype))

    def _predicate(
        self,
        eqn: Any,
        operation: Operation,
        target: Callable[..., Any],
        params: Mapping[str, Any],
        inputs: list[Slot],
        result: Slot,
    ) -> Predicate | None:
        """Find the predicate of a discrete result."""
        name, args, value = eqn.primitive.name, tuple(lax.stop_gradient(s.array) for s in inputs), result.array
        if name in SIDES and any(s.moves for s in inputs):
            return compare(jnp, name, args[0], args[1], value)
        types = [str(s.array.dtype) for s in {id(s): s for s in inputs if s.moving}.values()]
        if not result.still or not passes_ties(name, operation, types, str(value.dtype)):
            return None
        parts = {id(a): s.predicate for a, s in zip(args, inputs, strict=True) if s.predicate is not None}
        return combine(jnp, target, args, params, value, lambda t: parts.get(id(t))) if parts else None


def _unknown(*args: Any) -> Any:
    """Stand for the callable of a step that is only asked for its record."""
    raise NotImplementedError


def _slot(array: Any, moving: bool = True) -> Slot:
    """Take what comes out of a function: of what moves there real numbers are taken to move."""
    return Slot(array, moving, still=not _real(array))


def _repeating(chosen: list[Slot]) -> dict[str, int]:
    """Mark the choice by an index of a value or of itself cut off: with it `vmap` guards a branch of a `cond`."""
    places = [k for k in (1, 2) if chosen[0].by_index and chosen[k].stopped is chosen[3 - k]]
    return {"repeats": places[0]} if places else {}


def _real(array: Any) -> bool:
    """Tell an array that can carry a derivative."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _described(eqn: Any, inputs: list[Slot]) -> Equation:
    """Describe an equation to the table; what is no tracer and does not move is a literal."""
    literals = tuple(s.array if not s.moving and not isinstance(s.array, jax.core.Tracer) else None for s in inputs)
    return Equation(
        eqn.primitive.name, eqn.params, tuple(v.aval for v in eqn.invars), tuple(s.moving for s in inputs), literals
    )


# --- equations that hold jaxprs ------------------------------------------------------------------------------------------


def _inlined(parameter: str) -> Callable[..., list[Slot]]:
    """Interpret the jaxpr of an equation that calls it."""

    def inline(run: Interpreter, eqn: Any, inputs: list[Slot], source: Source | None, wanted: Any = None) -> list[Slot]:
        inner = eqn.params[parameter]
        jaxpr, constants = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return run.run(jaxpr, constants, inputs, source, wanted)

    return inline


def _on_arrays(run: Interpreter, closed: Any, source: Source | None) -> Callable[..., list[Any]]:
    """Give a jaxpr as a function of arrays that all move."""

    def function(*arrays: Any) -> list[Any]:
        return [s.array for s in run.run(closed.jaxpr, closed.consts, [_slot(a) for a in arrays], source)]

    return function


def _remat(run: Interpreter, eqn: Any, inputs: list[Slot], source: Source | None, wanted: Any = None) -> list[Slot]:
    """Interpret what is computed again on the way back."""
    jaxpr = eqn.params["jaxpr"]
    again = jax.checkpoint(
        _on_arrays(run, core.ClosedJaxpr(jaxpr, ()), source),
        policy=eqn.params.get("policy"),
        prevent_cse=eqn.params.get("prevent_cse", True),
    )
    return [_slot(a) for a in again(*(s.array for s in inputs))]


def _cond(run: Interpreter, eqn: Any, inputs: list[Slot], source: Source | None, wanted: Any = None) -> list[Slot]:
    """Keep both branches; the one that is taken counts."""
    branches = [_on_arrays(run, b, source) for b in eqn.params["branches"]]
    return [_slot(a) for a in lax.switch(inputs[0].array, branches, *(s.array for s in inputs[1:]))]


def _while(run: Interpreter, eqn: Any, inputs: list[Slot], source: Source | None, wanted: Any = None) -> list[Slot]:
    """Keep a loop, of which jax has no reverse mode."""
    p = eqn.params
    m, n = p["cond_nconsts"], p["body_nconsts"]
    arrays = [s.array for s in inputs]
    tests, fixed, carried = arrays[:m], arrays[m : m + n], arrays[m + n :]
    test, body = (_on_arrays(run, p[k], source) for k in ("cond_jaxpr", "body_jaxpr"))
    mapped = bool(p["cond_jaxpr"].out_avals[0].shape)

    def going(carry: tuple[Any, ...]) -> Any:
        found = test(*tests, *carry)[0]
        return jnp.any(found) if mapped else found

    def after(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        found = body(*fixed, *carry)
        if not mapped:
            return tuple(found)
        rows = test(*tests, *carry)[0]
        return tuple(where_rows(rows, new, old) for new, old in zip(found, carry, strict=True))

    return [_slot(a) for a in lax.while_loop(going, after, tuple(carried))]


def _scan(run: Interpreter, eqn: Any, inputs: list[Slot], source: Source | None, wanted: Any = None) -> list[Slot]:
    """Keep a scan."""
    p = eqn.params
    arrays, first = [s.array for s in inputs], p["num_consts"]
    fixed, carried, sliced = arrays[:first], arrays[first : first + p["num_carry"]], arrays[first + p["num_carry"] :]
    body = _on_arrays(run, p["jaxpr"], source)

    def step(carry: tuple[Any, ...], parts: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        outputs = body(*fixed, *carry, *parts)
        return tuple(outputs[: p["num_carry"]]), tuple(outputs[p["num_carry"] :])

    carry, rows = lax.scan(
        step, tuple(carried), tuple(sliced), length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [_slot(a) for a in (*carry, *rows)]


STRUCTURE: dict[str, Callable[..., list[Slot]]] = {
    **dict.fromkeys(("jit", "pjit"), _inlined("jaxpr")),
    **dict.fromkeys(("remat", "checkpoint", "remat2"), _remat),
    **dict.fromkeys(("closed_call", "core_call"), _inlined("call_jaxpr")),
    "custom_vmap_call": _inlined("call"),
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
"""Equations that hold jaxprs: how each is interpreted."""
