"""Capture: a function becomes a program, with the proof that the program is the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.errors import CaptureError, NonsmoothError, RandomnessError, ResultError, UsageError
from nonsmooth.frameworks.jax.proof import Native, prove
from nonsmooth.frameworks.jax.sources import source_at
from nonsmooth.frameworks.jax.tree import (
    RandomState,
    check_data,
    check_point,
    filled,
    flatten,
    is_array,
    leaf_names,
    split_data,
    unflatten,
)
from nonsmooth.frameworks.jax.walk import Walk
from nonsmooth.frameworks.one_framework import one_framework
from nonsmooth.program import Program, Ref
from nonsmooth.program.names import identifier

__all__ = ["capture_function", "trace_function", "traced"]

RANDOMNESS = ("refuse", "freeze")

_CONCRETE = (
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
)


def capture_function(
    framework: Any,
    function: Callable[..., Any],
    x: Any,
    data: tuple[Any, ...],
    *,
    randomness: str = "refuse",
    forced: Mapping[tuple[int, int], int] | None = None,
    known: Traced | None = None,
) -> Program:
    """Turn a function into a program near a point, with its proof.

    `known` is what tracing gave for another piece of the same function at the same point.
    """
    if not callable(function):
        raise UsageError(f"capture takes a function f(x, *data); found a {type(function).__name__}.")
    if randomness not in RANDOMNESS:
        raise UsageError(f"randomness={randomness!r}: use one of {RANDOMNESS}.")
    leaves = check_point(x)
    if known is None or not known.native.is_at(x, data):
        known = _traced_once(function, unflatten(leaves, flatten(x)[1]), data, randomness)
    program = _walked(framework, function, known, leaves, randomness, forced)
    return replace(program, proof=prove(program, known.native, forced=bool(forced)))


def trace_function(framework: Any, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> Program:
    """Turn a function into a program from the shapes of point and data, with no proof.

    Leaves that are shapes alone stand for zeros.

    Raises:
        CaptureError: the function asks for values: a `cond`, a `while` or a `switch` that depends on point or data.
    """
    point, items = filled((x, tuple(data)))
    known = _traced_once(function, point, items, "refuse")
    program = _walked(framework, function, known, flatten(point)[0], "refuse", None, finite=False)
    for guard in program.guards:
        raise CaptureError(
            f"the function is traced for a whole set of points, and {guard} chooses among its programs: what holds on one "
            "need not hold on the set. Write it with jnp.where, or unroll the loop."
        )
    return program


@dataclass(frozen=True)
class Traced:
    """What jax's trace of a function at a point gave: the jaxpr, the structure of the result, and the function itself."""

    closed: Any
    structure: Any
    native: Native


def _traced_once(function: Callable[..., Any], x: Any, data: tuple[Any, ...], randomness: str) -> Traced:
    """Trace a function, and refuse one that draws random numbers behind jax's back."""
    start = RandomState()
    try:
        closed, structure = traced(function, x, data)
        drawn = start.drawn_since()
    finally:
        start.put()
    if drawn and randomness == "refuse":
        raise RandomnessError(
            f"capture: the function draws random numbers from {drawn}, so that it has no one value at x. Draw them outside "
            "and pass them as data, use jax.random with a key, or pass randomness='freeze' to keep these draws."
        )
    return Traced(closed, structure, Native(function, x, data))


def traced(function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> tuple[Any, Any]:
    """Give the jaxpr of a function of (leaves of the point, arrays of the data), and the structure of its result.

    Raises:
        CaptureError: the function needs values while jax traces it: a Python `if`, `float()`, numpy.
    """
    leaves, structure = flatten(x)
    arrays, _, joined = split_data(data)
    found: list[Any] = []

    def flat(moving: list[Any], items: list[Any]) -> list[Any]:
        result = function(unflatten(moving, structure), *joined(items))
        outputs, tree = flatten(_checked(result))
        found[:] = [tree]
        return outputs

    try:
        with one_framework("jax", data):
            return jax.make_jaxpr(flat)(leaves, arrays), found[0]
    except NonsmoothError:
        raise
    except _CONCRETE as error:
        raise CaptureError(
            f"capture: {_advice(error)} ({source_at(error.__traceback__) or 'an unknown line'})."
        ) from error
    except Exception as error:
        error.add_note("nonsmooth: raised while the function was being traced; does jax.make_jaxpr(f)(x, *data) run?")
        raise


def _advice(error: Exception) -> str:
    """Say what the function asked of a tracer, and what to write instead."""
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return (
            "a Python `if`, `while`, `and` or `bool()` depends on the values of an array, which jax does not have while it "
            "traces; write jax.lax.cond (jnp.where for entries, jax.lax.while_loop for loops), or pass a plain Python "
            "value as data"
        )
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "an array is handed to numpy, which needs its values; use jax.numpy"
    return (
        "Python needs the value of an array (float(), int(), .item(), range(), an index or a shape), which jax does not "
        "have while it traces; use jax.lax.cond, jax.lax.fori_loop or jnp.take, or pass a plain Python value as data"
    )


def _checked(result: Any) -> Any:
    """Give a result, or say why it is none."""
    if inspect.iscoroutine(result):
        result.close()
    leaves = flatten(result)[0]
    if not leaves or not all(is_array(t) or isinstance(t, float | int | complex) for t in leaves):
        kinds = sorted({type(t).__name__ for t in leaves}) or ["nothing"]
        raise ResultError(f"the function must return arrays; found {', '.join(kinds)}.")
    return result


def _walked(
    framework: Any,
    function: Callable[..., Any],
    known: Traced,
    leaves: list[jax.Array],
    randomness: str,
    forced: Mapping[tuple[int, int], int] | None,
    finite: bool = True,
) -> Program:
    """Walk the jaxpr of a function at the point, and make a program of the steps."""
    x, data = known.native.x, known.native.data
    walk = Walk(forced=dict(forced or {}))
    inputs, items = _entered(walk, leaves, x, data)
    outputs = walk.run(known.closed.jaxpr, known.closed.consts, [*inputs, *items])
    results = [s if isinstance(s, Ref) else walk.kept(s) for s in outputs]
    if finite:
        _check_finite(map(walk.look, results))
    return Program(
        framework=framework,
        function=function,
        values=tuple(walk.values),
        steps=tuple(walk.steps),
        constants=dict(walk.constants),
        inputs=tuple(r.value for r in inputs),
        data=tuple(r.value for r in items),
        result=unflatten(results, known.structure),
        structure=flatten(x)[1],
        guards=tuple(walk.guards),
        findings=tuple(walk.findings.values()),
        options={
            "randomness": randomness,
            "forced": dict(forced or {}),
            "at": leaves if forced else [],
            "plain": (check_data(data)[1], split_data(data)[1]),
            "traced": known,
        },
    )


def _entered(walk: Walk, leaves: list[jax.Array], x: Any, data: tuple[Any, ...]) -> tuple[list[Ref], list[Ref]]:
    """Enter the leaves of the point and the arrays of the data as named values, from which the walk starts."""
    named = zip(leaves, leaf_names(x, "x"), strict=True)
    inputs = [walk.value(t, identifier(n), point=True, leaf=True) for t, n in named]
    names = [n for n, t in zip(leaf_names(tuple(data), "data"), check_data(data)[0], strict=True) if is_array(t)]
    arrays = zip(split_data(data)[0], names, strict=True)
    return inputs, [walk.value(t, identifier(n), data=True, leaf=True) for t, n in arrays]


def _check_finite(results: Iterable[Any]) -> None:
    """Refuse a point at which the function has no value."""
    for array in results:
        if jnp.issubdtype(array.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(array))):
            what = str(array) if array.ndim == 0 else f"an array {array.shape} with entries nan or inf"
            raise UsageError(
                f"the function is not finite at the point: its value is {what}. Move the point, or mend the function: "
                "there is no derivative where there is no value."
            )
