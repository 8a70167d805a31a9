"""JAX's own backward pass: the jaxpr of `jax.value_and_grad`, walked equation by equation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.dictionary import OPERATIONS, Kind, Operation
from nonsmooth.errors import ResultError, UsageError
from nonsmooth.frameworks.jax.control_flow import STRUCTURE
from nonsmooth.frameworks.jax.equations import is_inexact
from nonsmooth.frameworks.jax.known import known
from nonsmooth.frameworks.jax.rows import Reading, read
from nonsmooth.frameworks.jax.shaped import shaped
from nonsmooth.frameworks.jax.tree import RandomState, flatten, leaf_names, split_data, unflatten
from nonsmooth.frameworks.jax.walk import FUNCTIONS, Bind, Walk
from nonsmooth.frameworks.own_backward import OwnBackward, OwnCall, Phase
from nonsmooth.program import Program, Source, Step
from nonsmooth.program.names import identifier

__all__ = ["own_backward"]

_VIEWS = frozenset("reshape squeeze expand transpose copy detach".split())
"""Operations that XLA does without a copy."""

_FILLING = {"pad": 0, "dynamic_update_slice": 1, "scatter-add": 2}
"""Primitives by which the backward pass of an index puts a cotangent into a dense array of zeros: which operand it is."""

_EFFECTS = frozenset(["debug_callback", "debug_print", "pure_callback", "io_callback"])


def own_backward(program: Program, x: Any, data: tuple[Any, ...]) -> OwnBackward:
    """Give what JAX runs for the value and the gradient of a program's function, from the jaxpr that it makes of them.

    Every equation counts that a result needs, as `jax.jit` keeps them, with loops unrolled and branches taken as they come
    out at the point; before XLA fuses any, or folds those on constants.

    Raises:
        UsageError: JAX has no backward pass of the function (a `while_loop`).
        ResultError: the function is not scalar.
    """
    leaves, structure = flatten(x)
    arrays, _, joined = split_data(data)

    def value(moving: list[Any], items: list[Any]) -> Any:
        results = flatten(program.function(unflatten(moving, structure), *joined(items)))[0]
        if len(results) != 1 or jnp.size(results[0]) != 1:
            raise ResultError(f"a gradient needs a scalar function; this one returns {len(results)} array(s).")
        return jnp.reshape(results[0], ())

    start = RandomState()
    try:
        closed = jax.make_jaxpr(jax.value_and_grad(value))([jnp.asarray(t) for t in leaves], arrays)
    except ValueError as error:
        if "differentiation" not in str(error):
            raise
        raise UsageError(f"own backward: JAX has no backward pass of this function: {error}") from error
    finally:
        start.put()
    walk = _Walk()
    names = leaf_names(x, "x")
    inputs = [
        walk.value(jnp.asarray(t), identifier(n), point=True, leaf=True) for t, n in zip(leaves, names, strict=True)
    ]
    items = [walk.value(jnp.asarray(t), f"data_{k}", data=True, leaf=True) for k, t in enumerate(arrays)]
    walk.run(closed.jaxpr, closed.consts, [*inputs, *items])
    return OwnBackward(tuple(walk.calls(program)))


@dataclass
class _Walk(Walk):
    """A walk over the jaxpr of a gradient: no equation is opened, and every step knows its pass."""

    passes: list[tuple[Phase, bool, bool]] = field(default_factory=list)
    _phase: Phase = "forward"
    _again: bool = False
    _depth: int = 0
    _filling: bool = False

    def calls(self, program: Program) -> Iterator[OwnCall]:
        """Give the steps as calls."""
        whole = Program(
            program.framework,
            program.function,
            tuple(self.values),
            tuple(self.steps),
            dict(self.constants),
            (),
            (),
            None,
            None,
        )
        for step, (phase, again, filling) in zip(self.steps, self.passes, strict=True):
            call = shaped(whole, step)
            writes = 0 if call.operation in _VIEWS else sum(map(prod, call.results))
            fills = writes - call.operands[_FILLING[step.label]].size if filling and phase == "backward" else 0
            yield OwnCall(call, step.source, phase, writes, again, max(fills, 0), step.module)

    def _equation(
        self, eqn: Any, inputs: list[Any], source: Source | None, inside: bool, wanted: tuple[bool, ...]
    ) -> list[Any]:
        """Walk one equation; the names that JAX gives to what it transposes and evaluates again say in which pass."""
        with self._in_pass(str(eqn.source_info.name_stack)):
            name = eqn.primitive.name
            if name in FUNCTIONS and known(self._described(eqn, inputs), wanted) is None:
                return self._function(eqn, inputs, source, inside, wanted)
            if name == "custom_linear_solve":
                return self._solver(eqn, inputs, source, wanted)
            if name in STRUCTURE and name not in FUNCTIONS:
                return STRUCTURE[name](self, eqn, inputs, source, inside, wanted)
            if name in FUNCTIONS or name in _EFFECTS:
                return super()._equation(eqn, inputs, source, inside, wanted)
            equation = self._described(eqn, inputs)
            reading = self._registered(name, inputs) or read(equation, wanted) or _itself(eqn)
            self._filling = name in _FILLING and is_inexact(equation.inputs[0])
            target = Bind(eqn.primitive, tuple(v.aval for v in eqn.invars))
            return self.step(eqn, reading, target, name, inputs, source, eqn.params)

    def _function(self, eqn: Any, inputs: list[Any], source: Any, inside: bool, wanted: tuple[bool, ...]) -> list[Any]:
        """Walk into a function that is no operation of the dictionary, also one that had brought its own derivative."""
        inner = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
        if eqn.primitive.name in ("jit", "pjit"):
            return STRUCTURE[eqn.primitive.name](self, eqn, inputs, source, inside, wanted)
        jaxpr, constants = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return self.run(jaxpr, constants, inputs, source, inside, wanted)

    def _solver(self, eqn: Any, inputs: list[Any], source: Any, wanted: tuple[bool, ...]) -> list[Any]:
        """Walk into the function that solves, whose factors were found before."""
        lengths, solve = eqn.params["const_lengths"], eqn.params["jaxprs"].solve
        start = lengths.matvec + lengths.vecmat
        taken = [*inputs[start : start + lengths.solve], *inputs[sum(lengths) :]]
        return self.run(solve.jaxpr, solve.consts, taken, source, True, wanted)

    @contextmanager
    def _in_pass(self, stack: str) -> Iterator[None]:
        """Note in which pass equations run; what they hold runs in the same one, also a gradient inside of the function."""
        before = self._phase, self._again
        if self._depth == 0:
            self._phase = "backward" if stack.startswith("transpose(") else "forward"
        self._again = self._again or "rematted_computation" in stack
        self._depth += 1
        try:
            yield
        finally:
            self._phase, self._again = before
            self._depth -= 1

    def _write(self, *args: Any, **named: Any) -> Step:
        """Append a step, with its pass."""
        self.passes.append((self._phase, self._again, self._filling))
        self._filling = False
        return super()._write(*args, **named)


def _itself(eqn: Any) -> Reading:
    """Read a primitive that is no record: as integer work if it gives whole numbers, else as an operation of its name."""
    places = tuple(range(len(eqn.invars)))
    if not any(is_inexact(v.aval) for v in eqn.outvars):
        return Reading(OPERATIONS["integer"], places, {})
    return Reading(Operation(name=eqn.primitive.name.replace("-", "_"), kind=Kind.SMOOTH), places, {})
