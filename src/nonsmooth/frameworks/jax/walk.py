"""The walk over a jaxpr: nested functions opened, control flow taken as it comes out at the point, one step an equation.

Equations that neither the point nor the data reach are computed once and for all. A `cond` becomes a guard on its index
and the branch that is taken, a `while` a guard for each of its rounds, a `scan` its body, once for each slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS, Kind, Select
from nonsmooth.errors import CaptureError, UnlistedOperation
from nonsmooth.frameworks.jax.control_flow import STRUCTURE
from nonsmooth.frameworks.jax.equations import Equation, is_inexact
from nonsmooth.frameworks.jax.known import known
from nonsmooth.frameworks.jax.liveness import constant_of, live_equations
from nonsmooth.frameworks.jax.opening import opened
from nonsmooth.frameworks.jax.rows import REFUSED, SOLVED, Reading, read
from nonsmooth.frameworks.jax.sources import module_of, source_of
from nonsmooth.frameworks.replay.forcing import FORCEABLE, force
from nonsmooth.program import Finding, Guard, Ref, Source, Step, Value

__all__ = ["Bind", "Walk", "Whole"]

LIMIT = 100_000
"""How many steps a program may have: loops are unrolled."""

Slot = Any
"""What an equation reads: a `Ref` to a value that depends on point or data, or an array that is constant."""


@dataclass(frozen=True)
class Bind:
    """A primitive as a callable of arrays and of its parameters; plain numbers get the types that it was traced with."""

    primitive: Any
    types: tuple[Any, ...]

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Apply the primitive."""
        return self.primitive.bind(*_typed(args, self.types), **params)


@dataclass(frozen=True)
class Whole:
    """An equation that holds functions, kept with its own derivative."""

    equation: Any = field(repr=False)

    def __call__(self, *args: Any) -> Any:
        """Apply the equation."""
        primitive, types = self.equation.primitive, tuple(v.aval for v in self.equation.invars)
        found = primitive.bind(*_typed(args, types), **primitive.get_bind_params(self.equation.params))
        return found if len(self.equation.outvars) > 1 or not primitive.multiple_results else found[0]


@dataclass(frozen=True)
class Reordered:
    """A callable of several results, given in another order: that of the record comes first."""

    target: Callable[..., Any]
    order: tuple[int, ...]

    @property
    def primitive(self) -> Any:
        """The primitive below."""
        return getattr(self.target, "primitive", None)

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Apply the callable."""
        found = self.target(*args, **params)
        return [found[k] for k in self.order]


def _typed(args: Sequence[Any], types: Sequence[Any]) -> list[Any]:
    """Give plain numbers the types that they were traced with."""
    return [a if isinstance(a, jax.Array) else jnp.asarray(a, dtype=t.dtype) for a, t in zip(args, types, strict=True)]


def index_of(value: Any) -> Any:
    """Give to Python what a branch is chosen by."""
    return value.item()


@dataclass
class Walk:
    """A run of a jaxpr at the point, written down as the steps of a program."""

    forced: Mapping[tuple[int, int], int] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    concrete: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    guards: list[Guard] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)
    _ancestors: dict[int, frozenset[int]] = field(default_factory=dict)
    _kept: dict[int, tuple[Any, Ref]] = field(default_factory=dict)
    _stopped: dict[int, Slot] = field(default_factory=dict)
    _by_index: set[int] = field(default_factory=set)
    _names: dict[str, int] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _comparisons: int = 0

    # --- values -------------------------------------------------------------------------------------------------------

    def value(
        self,
        array: Any,
        name: str,
        *,
        point: bool = False,
        data: bool = False,
        leaf: bool = False,
        connected: bool = True,
    ) -> Ref:
        """Number a value; leaves keep their names, results are counted.

        It has a derivative if it is real and `connected` to the point by what has.
        """
        differentiable = point and connected and bool(jnp.issubdtype(array.dtype, jnp.inexact))
        self.values.append(
            Value(self._unique(name, leaf), tuple(array.shape), str(array.dtype), differentiable, point, data)
        )
        self.concrete.append(array)
        return Ref(len(self.values) - 1)

    def _unique(self, name: str, leaf: bool) -> str:
        """Give a name that no other value has."""
        unique = name
        while not leaf or unique in self._taken:
            self._names[name] = self._names.get(name, 0) + 1
            unique, leaf = f"{name}_{self._names[name]}", True
        self._taken.add(unique)
        return unique

    def constant(self, array: Any) -> Any:
        """Refer to a constant: a plain number by itself, an array by a value of its own."""
        plain = not jnp.issubdtype(array.dtype, jax.dtypes.extended)
        if array.ndim == 0 and plain and array.dtype.name in _PLAIN:
            return np.asarray(array).item()
        return self.kept(array)

    def kept(self, array: Any) -> Ref:
        """Refer to a constant by a value of its own."""
        if id(array) not in self._kept:
            ref = self.value(array, "constant")
            self.constants[ref.value] = array
            self._kept[id(array)] = array, ref
        return self._kept[id(array)][1]

    def look(self, slot: Slot) -> Any:
        """Give the array that a slot stands for."""
        return self.concrete[slot.value] if isinstance(slot, Ref) else slot

    # --- equations ----------------------------------------------------------------------------------------------------

    def run(
        self,
        jaxpr: Any,
        constants: Sequence[Any],
        inputs: Sequence[Slot],
        outer: Source | None = None,
        inside: bool = False,
        wanted: Sequence[bool] | None = None,
    ) -> list[Slot]:
        """Walk a jaxpr; `inside` of a library's function every equation has the line of the call.

        What no `wanted` result needs is left out, and a result that is not wanted is None.
        """
        env: dict[Any, Slot] = dict(zip(jaxpr.constvars, map(jnp.asarray, constants), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def slot(atom: Any) -> Slot:
            return constant_of(atom) if isinstance(atom, core.Literal) else env[atom]

        for equation, used in live_equations(jaxpr, wanted):
            source = outer if inside else source_of(equation.source_info, outer)
            outputs = self._equation(equation, [slot(a) for a in equation.invars], source, inside, used)
            env.update(zip(equation.outvars, outputs, strict=True))
        shown = (True,) * len(jaxpr.outvars) if wanted is None else wanted
        return [slot(a) if w else None for a, w in zip(jaxpr.outvars, shown, strict=True)]

    def _equation(
        self, eqn: Any, inputs: list[Slot], source: Source | None, inside: bool, wanted: tuple[bool, ...]
    ) -> list[Slot]:
        """Walk one equation."""
        name = eqn.primitive.name
        if len(self.steps) > LIMIT:
            raise CaptureError(
                f"capture: more than {LIMIT} steps, at `{name}` ({source or 'an unknown line'}): loops are unrolled, and "
                "this one is too long. Shorten the loop, or differentiate its body."
            )
        if name in REFUSED:
            if not eqn.outvars:  # a print
                return []
            raise CaptureError(f"capture: `{name}` ({source or 'an unknown line'}): {REFUSED[name]}")
        if not any(isinstance(s, Ref) for s in inputs):
            return _several(eqn, Whole(eqn)(*inputs))
        if name in SOLVED:
            raise CaptureError(f"capture: `{name}` ({source or 'an unknown line'}): {SOLVED[name]}")
        whole = known(self._described(eqn, inputs), wanted) if name in FUNCTIONS else None
        if whole is not None:
            return self.whole(eqn, whole, whole.operation.name, inputs, source)
        special = STRUCTURE.get(name)
        if special is not None:
            return special(self, eqn, inputs, source, inside, wanted)
        equation = self._described(eqn, inputs)
        other = opened(equation)
        if other is not None:
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
            closed = jax.make_jaxpr(other)(*shapes)
            return self.run(closed.jaxpr, closed.consts, inputs, source, True, wanted)
        reading = self._registered(name, inputs) or read(equation, wanted)
        if reading is None:
            raise UnlistedOperation(
                f"capture: the dictionary does not list jax's `{name}` ({source or 'an unknown line'}). If it is smooth, "
                f"say so: ns.register(ns.Operation(name='{name}', kind=ns.Kind.SMOOTH), jax='{name}')."
            )
        reading = self._repeating(reading, inputs)
        target = Bind(eqn.primitive, tuple(v.aval for v in eqn.invars))
        with_itself = name in ("eq", "ne") and isinstance(inputs[0], Ref) and inputs[0] == inputs[1]
        outputs = self.step(
            eqn, reading, target, "isnan" if with_itself else name, inputs, source, eqn.params
        )  # u != u
        if name == "stop_gradient":
            self._stopped[outputs[0].value] = inputs[0]
        elif name == "eq" and not any(is_inexact(v.aval) for v in eqn.invars):
            self._by_index.add(outputs[0].value)
        return outputs

    def _repeating(self, reading: Reading, inputs: list[Slot]) -> Reading:
        """Mark the choice by an index of a value or of itself cut off: with it `vmap` guards a branch of a `cond`."""
        if isinstance(reading.operation, Select):
            chosen, *branches = (inputs[i] for i in reading.operands)
            for place, one, other in ((1, *branches), (2, *reversed(branches))):
                cut_off = isinstance(one, Ref) and isinstance(other, Ref) and self._stopped.get(one.value) == other
                if cut_off and isinstance(chosen, Ref) and chosen.value in self._by_index:
                    return replace(reading, attributes={**reading.attributes, "repeats": place})
        return reading

    def _registered(self, name: str, inputs: list[Slot]) -> Reading | None:
        """Read a primitive that the user has registered."""
        record = FRAMEWORK_NAMES.get("jax", {}).get(name)
        return None if record is None else Reading(record, tuple(range(len(inputs))), {})

    def _described(self, eqn: Any, inputs: list[Slot]) -> Equation:
        """Describe an equation to the table."""
        moving = tuple(isinstance(s, Ref) and self.values[s.value].depends_on_point for s in inputs)
        literals = tuple(None if isinstance(s, Ref) else s for s in inputs)
        return Equation(eqn.primitive.name, eqn.params, tuple(v.aval for v in eqn.invars), moving, literals)

    def whole(self, eqn: Any, reading: Reading, label: str, inputs: list[Slot], source: Source | None) -> list[Slot]:
        """Keep an equation that holds functions as one step, with its own derivative."""
        return self.step(eqn, reading, Whole(eqn), label, inputs, source)

    def step(
        self,
        eqn: Any,
        reading: Reading,
        target: Callable[..., Any],
        label: str,
        inputs: list[Slot],
        source: Source | None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Slot]:
        """Run an equation and write it down as a step."""
        params, first = {} if params is None else params, reading.results[0]
        order = (first, *(k for k in range(len(eqn.outvars)) if k != first))
        target = Reordered(target, order) if first else target
        args = tuple(s if isinstance(s, Ref) else self.constant(s) for s in inputs)
        outputs = _several(eqn, target(*map(self.look, inputs), **params))
        forced: tuple[tuple[int, int], ...] = ()
        comparison = label in FORCEABLE
        if comparison:
            forced = tuple((e, choice) for (k, e), choice in self.forced.items() if k == self._comparisons)
            outputs = [force(jnp, label, outputs[0], forced)] if forced else outputs
            self._comparisons += 1
        read_values = [a.value for a in args if isinstance(a, Ref)]
        point = any(self.values[v].depends_on_point for v in read_values)
        data = any(self.values[v].depends_on_data for v in read_values)
        ancestors = frozenset().union(*(self._ancestors.get(v, frozenset()) for v in read_values))
        if comparison and point:
            ancestors |= {len(self.steps)}
        opaque = reading.operation.kind is Kind.OPAQUE
        connected = opaque or (any(self.values[v].differentiable for v in read_values) and label != "stop_gradient")
        results = []
        for output in outputs:
            ref = self.value(output, label.replace("-", "_"), point=point, data=data, connected=connected)
            self._ancestors[ref.value] = ancestors
            results.append(ref)
        self._write(reading, target, args, params, results, source, module_of(eqn.source_info), label, forced)
        return [results[order.index(k)] for k in range(len(results))]

    def _write(
        self,
        reading: Reading,
        target: Any,
        args: Any,
        params: Any,
        results: list[Ref],
        source: Any,
        module: str,
        label: str,
        forced: Any,
    ) -> Step:
        """Append a step."""
        step = Step(
            index=len(self.steps),
            operation=reading.operation,
            target=target,
            args=args,
            kwargs=dict(params),
            results=tuple(r.value for r in results),
            operands=tuple(args[i] for i in reading.operands),
            attributes=reading.attributes,
            source=source,
            module=module,
            label=label,
            single=not getattr(getattr(target, "primitive", None), "multiple_results", len(results) > 1),
            forced=forced,
        )
        self.steps.append(step)
        return step

    def apply(self, function: Callable[..., Any], inputs: list[Slot], source: Source | None) -> list[Slot]:
        """Walk a function of this library's own."""
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in map(self.look, inputs)]
        closed = jax.make_jaxpr(function)(*shapes)
        return self.run(closed.jaxpr, closed.consts, inputs, source, True)

    # --- control flow -------------------------------------------------------------------------------------------------

    def decide(self, slot: Slot, source: Source | None) -> Any:
        """Give to Python what a branch is chosen by, and write down the guard."""
        outcome = index_of(self.look(slot))
        if isinstance(slot, Ref):
            step = self._write(
                Reading(OPERATIONS["item"], (0,), {}), index_of, (slot,), {}, [], source, "", "branch", ()
            )
            comparisons = tuple(sorted(self._ancestors.get(slot.value, frozenset())))
            kind = "branch" if self.values[slot.value].depends_on_point else "data"
            self.guards.append(Guard(step.index, kind, outcome, source, comparisons))
        return outcome


_PLAIN = frozenset("bool float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())

FUNCTIONS = frozenset({"jit", "pjit", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})


def _several(eqn: Any, outputs: Any) -> list[Any]:
    """Give the outputs of an equation as a list."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
