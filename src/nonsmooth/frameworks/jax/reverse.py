"""The reverse pass: a program as a pure function of its point, differentiated under the rules that a run has decided.

A run works on values: it finds the kinks, and writes down the rules that a selection gives them. The function here does
the same steps again with the derivatives of those rules attached, and jax transposes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.dictionary import Call, Nonsmooth
from nonsmooth.frameworks.jax.calls import call_of
from nonsmooth.frameworks.replay.arguments import fill
from nonsmooth.frameworks.replay.forcing import force
from nonsmooth.frameworks.replay.unselected import unselected_entries
from nonsmooth.program import Program, Ref, Step

__all__ = ["Decision", "attach", "pure"]


@jax.custom_jvp
def attach(value: jax.Array, linear: jax.Array) -> jax.Array:
    """Give a value the derivative of a linear map of what it comes from."""
    del linear
    return value


@attach.defjvp
def _attached(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    """Take the tangent of the linear map; the value keeps it, so that it can be differentiated again."""
    return attach(*primals), tangents[1]


@jax.custom_vjp
def absorb(value: jax.Array, unused: jax.Array) -> jax.Array:
    """Give the identity, whose cotangent is the number zero where a mask holds, whatever comes in."""
    del unused
    return value


def _absorb_forward(value: jax.Array, unused: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keep the mask."""
    return value, unused


def _absorb_backward(unused: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    """Let zero absorb infinity."""
    return jnp.where(unused, jnp.zeros_like(gradient), gradient), None


absorb.defvjp(_absorb_forward, _absorb_backward)


@dataclass
class Decision:
    """What a run has decided at a step: rules for its kinks, blocks that open it, or a route of strong zeros."""

    call: Call | None = None
    rules: Mapping[str, Any] | None = None
    blocks: list[Any] = field(default_factory=list)
    tol: float = 0.0
    route: Any = None


def pure(
    program: Program,
    known: Mapping[int, Any],
    decisions: Mapping[int, Decision],
    masks: Mapping[int, Any],
    bumped: Sequence[int] = (),
) -> Callable[[list[Any], list[Any], list[Any]], tuple[Any, list[Any], list[Any]]]:
    """Give the function (leaves, u of the blocks, bumps of values) -> (result, jumps of the blocks, their arguments).

    `known` are the values that do not depend on the point; `bumps` are added to the values of `bumped`.
    """
    steps = [s for s in program.steps if any(v is not None and program.values[v].depends_on_point for v in s.results)]

    def function(leaves: list[Any], opened: list[Any], bumps: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        env: dict[int, Any] = {**known, **dict(zip(program.inputs, leaves, strict=True))}
        waiting, added = iter(opened), dict(zip(bumped, bumps, strict=True))
        jumps: list[Any] = []
        arguments: list[Any] = []
        for step in steps:
            outputs = _outputs(step, env, decisions.get(step.index), masks, waiting, jumps, arguments)
            for value, output in zip(step.results, outputs, strict=True):
                if value is not None:
                    env[value] = output + added[value] if value in added else output
        return fill(program.result, env), jumps, arguments

    return function


def _outputs(
    step: Step,
    env: Mapping[int, Any],
    decision: Decision | None,
    masks: Mapping[int, Any],
    waiting: Any,
    jumps: list[Any],
    arguments: list[Any],
) -> tuple[Any, ...]:
    """Run one step, with the derivative that was decided for it."""
    args, kwargs = fill(step.args, env), fill(dict(step.kwargs), env)
    if decision is not None and decision.route is not None:
        args = tuple(_guarded(a, decision.route, masks) for a in args)
    native = step.target(*args, **kwargs)
    if step.forced:
        native = force(jnp, step.label, native, step.forced)
    outputs = (native,) if step.single else tuple(native)
    if decision is None or decision.call is None or decision.rules is None:
        return outputs
    assert isinstance(step.operation, Nonsmooth)
    call = by_jax(decision.call)
    like = call.operands
    operands = tuple(env[r.value] if isinstance(r, Ref) else u for r, u in zip(step.operands, like, strict=True))
    linear = step.operation.push(call, decision.rules, operands, decision.tol)
    value = jax.lax.stop_gradient(outputs[0])
    linear = jnp.reshape(linear, (-1,))
    for block in decision.blocks:
        index = jnp.asarray(block.places).reshape(-1)
        linear = linear.at[index].add(next(waiting).reshape(-1))
        jumps.append(block.jumps(operands))
        arguments.append(None if block.arguments is None else block.arguments(operands))
    return (attach(value, jnp.reshape(linear, value.shape).astype(value.dtype)), *outputs[1:])


def by_jax(call: Call) -> Call:
    """Give a call that was read by numpy to jax."""
    operands = tuple(jnp.asarray(u) for u in call.operands)
    return call_of(operands, call.attributes, jnp.asarray(call.result))


def _guarded(argument: Any, route: Any, masks: Mapping[int, Any]) -> Any:
    """Let strong zeros absorb on the way back to an operand."""
    if not isinstance(argument, jax.Array) or not jnp.issubdtype(argument.dtype, jnp.inexact):
        return argument
    unused = unselected_entries(jnp, route, argument.shape, masks)
    return argument if unused is None else absorb(argument, unused)
