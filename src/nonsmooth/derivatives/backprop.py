"""Backpropagation under a selection: the chain rule with a chosen slope at every kink.

For a program P with elementary operations g_1 .. g_m and a selection s, backprop gives

    D_s(x) = J_m(s) ... J_1(s),   J_i(s) an element of the set of g_i at the values it meets,

which is an element of the conservative field of P, and a gradient of F almost everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.kinks.selection import AtKinks, selection
from nonsmooth.program import Program

__all__ = ["ValueAndGradient", "as_program", "backprop", "capture", "grad", "value_and_backprop", "value_and_grad"]


class ValueAndGradient(NamedTuple):
    """A value and a gradient in the structure of the point."""

    value: Any
    gradient: Any


def capture(f: Callable[..., Any], x: Any, *data: Any, randomness: str = "refuse") -> Program:
    """Turn a function into a program near a point, with a proof that the program is the function.

    The steps are the operations of the framework with their lines in the user's source; the proof compares values and
    native gradients at x and at a random nearby point. Status: `sampled`.

    Args:
        f: the function f(x, *data), which returns a tensor (or a tree of them).
        x: the point: a tensor, or a dict, list or tuple of them, floating and finite.
        data: what is not differentiated; a program serves any data of the same shapes.
        randomness: "refuse" draws, or "freeze" the draws of this capture as constants.

    Returns:
        The program; `print(program)` shows it as Python.

    Raises:
        PointError, CaptureError: what was found, on which line, and what to do.

    >>> import torch
    >>> import nonsmooth as ns
    >>> program = ns.capture(lambda x: torch.relu(x).sum(), torch.zeros(3))
    >>> [step.operation.name for step in program.steps]
    ['relu', 'sum']

    Source: BoltePauwels2020b.
    """
    return find_framework(x).capture(f, x, data, randomness=randomness)


def as_program(f: Callable[..., Any] | Program, x: Any, data: tuple[Any, ...]) -> tuple[Program, Framework]:
    """Give the program of a function, captured unless it is one already."""
    if isinstance(f, Program):
        return f, f.framework
    framework = find_framework(x)
    return framework.capture(f, x, data), framework


def value_and_backprop(
    f: Callable[..., Any] | Program, x: Any, *data: Any, at_kinks: AtKinks = "framework", seed: int = 0
) -> ValueAndGradient:
    """Give the value and what backpropagation computes under a selection.

    The gradient is an element of the conservative field of the program for weights in [0, 1]. Status: `computed`. The
    framework evaluates everything; with `at_kinks="framework"` no work is added.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.
        at_kinks: the selection: "framework", "torch", "jax", "tensorflow", "minimum-norm", "random", a number (the
            weight of the right-hand slope), a mapping, or a callable; see `nonsmooth.kinks.selection`.
        seed: of the draws of "random".

    Raises:
        ResultError: the function is not scalar. ConventionError: at_kinks means nothing.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda t: torch.relu(t) - torch.relu(-t)
    >>> ns.value_and_backprop(f, torch.tensor(0.0), at_kinks=0.5).gradient
    tensor(1.)

    Source: BoltePauwels2020b.
    """
    program, framework = as_program(f, x, data)
    select = selection(at_kinks, framework.name, seed=seed)
    evaluation = framework.evaluate(program, x, data, select=select)
    gradient = framework.pull(evaluation)
    return ValueAndGradient(framework.detached(framework.scalar(evaluation)), gradient)


def backprop(
    f: Callable[..., Any] | Program, x: Any, *data: Any, at_kinks: AtKinks = "framework", seed: int = 0
) -> Any:
    """Give what backpropagation computes under a selection; see `value_and_backprop`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> one_third = lambda t: torch.relu(-t) - torch.relu(t) + t + 1 / 3
    >>> [float(ns.backprop(one_third, torch.tensor(0.0), at_kinks=a)) for a in (0.0, 0.5, 1.0)]
    [1.0, 0.0, -1.0]

    Source: BoltePauwels2020b.
    """
    return value_and_backprop(f, x, *data, at_kinks=at_kinks, seed=seed).gradient


def value_and_grad(
    f: Callable[..., Any] | Program, *, at_kinks: AtKinks = "framework", argnums: int = 0, has_aux: bool = False
) -> Callable[..., ValueAndGradient]:
    """Transform a function into one that returns its value and gradient under a selection.

    In torch the program is captured at the first call, and again when shapes or structures change. In JAX the result is
    a transform as `jax.value_and_grad` is: it can be compiled, mapped and differentiated (`jax.jit`, `jax.vmap`). There
    `at_kinks="random"` draws as the function is traced: once for each compilation, the same for every row that is mapped.

    Args:
        f: a scalar function, or its captured program. Its other arguments and its keyword arguments are data.
        at_kinks: the selection, as in `value_and_backprop`.
        argnums: the position of the argument that is differentiated.
        has_aux: the function returns (value, aux): the value is differentiated, the arrays of aux are handed on, and the
            result is ((value, aux), gradient).

    Raises:
        UsageError: a position that is none, or no pair where has_aux says so. Else as `value_and_backprop`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> ns.value_and_grad(torch.abs, at_kinks="jax")(torch.tensor(0.0))
    ValueAndGradient(value=tensor(0.), gradient=tensor(1.))
    >>> ns.value_and_grad(lambda x, *, slope: (torch.abs(x), slope * x), has_aux=True)(torch.tensor(2.0), slope=3.0)
    ValueAndGradient(value=(tensor(2.), tensor(6.)), gradient=tensor(1.))

    Source: BoltePauwels2020b.
    """
    if not isinstance(argnums, int):
        raise UsageError(
            f"argnums takes one position; found {argnums!r}. Pass a tuple of tensors as one argument instead."
        )
    programs: dict[Any, Program] = {}

    @functools.wraps(f if callable(f) else value_and_grad)
    def transformed(*args: Any, **options: Any) -> ValueAndGradient:
        if not -len(args) <= argnums < len(args):
            raise UsageError(f"argnums={argnums}, but the function was called with {len(args)} argument(s).")
        place = argnums % len(args)
        x, data = args[place], (*args[:place], *args[place + 1 :])
        if isinstance(f, Program):
            if options:
                raise UsageError(f"a captured program takes no keyword arguments; found {', '.join(options)}.")
            return _evaluated(f, x, data, at_kinks, has_aux)

        def moved(point: Any, *rest: Any) -> Any:
            named = rest[-1] if options else {}
            return f(*rest[:place], point, *rest[place : len(data)], **named)

        function = f if place == 0 and not options else moved
        given = (*data, options) if options else data  # a program serves any data: what is named is data, too
        framework = find_framework(x)
        if framework.traces:
            select = selection(at_kinks, framework.name)
            if has_aux:
                function = _checked_pair(function)
            return ValueAndGradient(*framework.value_and_grad(function, x, given, select, has_aux))
        key = framework.signature(x, given)
        if key not in programs:
            programs[key] = framework.capture(function, x, given)
        return _evaluated(programs[key], x, given, at_kinks, has_aux)

    return transformed


def _checked_pair(function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a result that is no pair."""

    def checked(*args: Any) -> Any:
        return _pair(function(*args))

    return checked


def _pair(result: Any) -> tuple[Any, Any]:
    """Give a value and what is handed on beside it."""
    if not isinstance(result, tuple) or len(result) != 2:
        what = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise UsageError(f"has_aux=True: the function must return (value, aux); found {what}.")
    return result


def _evaluated(program: Program, x: Any, data: tuple[Any, ...], at_kinks: AtKinks, has_aux: bool) -> ValueAndGradient:
    """Evaluate a program under a selection; of a pair the first is differentiated."""
    if not has_aux:
        return value_and_backprop(program, x, *data, at_kinks=at_kinks)
    framework = program.framework
    evaluation = framework.evaluate(program, x, data, select=selection(at_kinks, framework.name))
    value, aux = _pair(evaluation.result)
    gradient = framework.pull(replace(evaluation, result=value))
    leaves, structure = framework.flatten((value, aux))
    return ValueAndGradient(framework.unflatten([framework.detached(t) for t in leaves], structure), gradient)


def grad(
    f: Callable[..., Any] | Program, *, at_kinks: AtKinks = "framework", argnums: int = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Transform a function into its gradient under a selection; with `has_aux` into (gradient, aux).

    >>> import torch
    >>> import nonsmooth as ns
    >>> ns.grad(torch.relu, at_kinks=1.0)(torch.tensor(0.0))
    tensor(1.)

    Source: BoltePauwels2020b.
    """
    both = value_and_grad(f, at_kinks=at_kinks, argnums=argnums, has_aux=has_aux)

    @functools.wraps(both)
    def gradient(*args: Any, **options: Any) -> Any:
        found = both(*args, **options)
        return (found.gradient, found.value[1]) if has_aux else found.gradient

    return gradient
