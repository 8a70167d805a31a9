"""Capture: a function becomes a program, with the proof that the program is the function."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from nonsmooth.errors import CaptureError, ChangedInput, NonsmoothError, RandomnessError, ResultError, UsageError
from nonsmooth.frameworks.one_framework import one_framework
from nonsmooth.frameworks.torch.interception import CALLS_BACKWARD
from nonsmooth.frameworks.torch.proof import Native, prove
from nonsmooth.frameworks.torch.randomness import SHAPES
from nonsmooth.frameworks.torch.sources import line_of
from nonsmooth.frameworks.torch.stepwise import with_values
from nonsmooth.frameworks.torch.tape import Tape
from nonsmooth.frameworks.torch.tree import (
    RandomState,
    check_data,
    check_point,
    copy_of,
    flatten,
    is_finite,
    leaf_names,
    runs_alone,
    same_content,
    unflatten,
)
from nonsmooth.program import Program

__all__ = ["capture_function", "trace_function"]

RANDOMNESS = ("refuse", "freeze")

OUTSIDE_GRADIENT = ("appears to not have been used in the graph", "does not require grad and does not have a grad_fn")
"""What torch says when a gradient is asked for with respect to a tensor without a graph."""


def capture_function(
    framework: Any,
    function: Callable[..., Any],
    x: Any,
    data: tuple[Any, ...],
    *,
    randomness: str = "refuse",
    forced: Mapping[tuple[int, int], int] | None = None,
) -> Program:
    """Turn a function into a program near a point, with its proof."""
    if not callable(function):
        raise UsageError(f"capture takes a function f(x, *data); found a {type(function).__name__}.")
    if randomness not in RANDOMNESS:
        raise UsageError(f"randomness={randomness!r}: use one of {RANDOMNESS}.")
    check_point(x)
    start, alone = RandomState(), runs_alone()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            tape, program = _record(framework, function, x, data, randomness, forced)
            drawn = start.drawn_since() if alone else ""  # else another thread may have drawn
            if drawn and randomness == "refuse":
                raise RandomnessError(
                    f"capture: the function draws random numbers from {drawn}, so that it has no one value at x. Draw "
                    "them outside and pass them as data, or pass randomness='freeze' to keep the draws of this capture."
                )
            native = Native(function, start, tape.generators, [tape.tensors[n] for n in tape.rewritten])
            return replace(program, proof=prove(program, native, x, data, forced=bool(forced)))
    finally:
        if alone or randomness == "freeze":
            start.put()


def trace_function(framework: Any, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> Program:
    """Turn a function into a program from the shapes of point and data alone: nothing is evaluated, nothing is proved.

    Draws become constants of which `options["drawn"]` says between which numbers they lie.

    Raises:
        CaptureError: the function asks for values: an `if` on data, `.item()`.
    """
    if not callable(function):
        raise UsageError(f"bounds takes a function f(x, *data) or a model; found a {type(function).__name__}.")
    mode, log = FakeTensorMode(allow_non_fake_inputs=True), logging.getLogger("torch._subclasses.fake_tensor")
    start, spoke = RandomState(), not log.disabled
    log.disabled = True  # torch prints a trace of its own where the user's function raises
    try:
        with torch.inference_mode(False), torch.enable_grad(), mode:
            leaves, structure = flatten((x, tuple(data)))
            point, items = unflatten([_shape_of(t) for t in leaves], structure)
            program = _record(framework, function, point, items, SHAPES, None)[1]
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise _needs_values(error) from error
    finally:
        log.disabled = not spoke
        start.put()
    known = {number: real for number, t in program.constants.items() if (real := with_values(t)) is not None}
    return replace(program, constants=known)


def _shape_of(leaf: Any) -> Any:
    """Give a tensor of the same shape and type without values; integers, which are no more than data, keep theirs."""
    if isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_meta):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device)
    return leaf


def _needs_values(error: Exception) -> CaptureError:
    """Say that a function asks for values where shapes alone are known."""
    line = line_of(error.__traceback__) or "an unknown line"
    return CaptureError(
        "the function is traced by its shapes, on a whole set of points, and asks for the values of a tensor (an `if` on "
        f"data, .item(), an index by a mask) on {line}: what holds on one branch need not hold on the set. Write it with "
        "torch.where, or pass plain Python values as data."
    )


def _record(
    framework: Any, function: Callable[..., Any], x: Any, data: tuple[Any, ...], randomness: str, forced: Any
) -> tuple[Tape, Program]:
    """Run a function under the tape."""
    (leaves, structure), (items, data_structure) = flatten(x), check_data(data)
    point, copies = [copy_of(t).requires_grad_() for t in leaves], [copy_of(t) for t in items]
    modules = getattr(function, "module_name", None)
    tape = Tape(point, copies, leaf_names(x, "x"), randomness=randomness, forced=forced, modules=modules)
    try:
        with tape.running():
            result = _called(function, unflatten(point, structure), unflatten(copies, data_structure))
    finally:
        for generator, state in tape.generators:
            generator.set_state(state)
    by_shapes = randomness == SHAPES
    results, result_structure = _checked(result, finite=not by_shapes)
    references = [tape.reference(t) for t in results]
    if not by_shapes:
        _check_inputs(point, leaves, copies, items)
    plain = [copy_of(t) for t in items if not isinstance(t, torch.Tensor)]
    layouts = [t.stride() for t in point], [t.stride() for t in copies if isinstance(t, torch.Tensor)]
    program = Program(
        framework=framework,
        function=function,
        values=tuple(tape.values),
        steps=tuple(tape.steps),
        constants=dict(tape.constants),
        inputs=tape.inputs,
        data=tape.data,
        result=unflatten(references, result_structure),
        structure=structure,
        guards=tuple(tape.guards),
        findings=tuple(tape.findings.values()),
        rewritten=tape.rewritten,
        shared=tape.shared(v for step in tape.steps for v in step.mutates),
        options={
            "randomness": randomness,
            "forced": dict(forced or {}),
            "at": [copy_of(t) for t in leaves] if forced else [],
            "plain": (data_structure, plain),
            "layouts": layouts,
            "drawn": dict(tape.drawn),
        },
    )
    return tape, program


def _called(function: Callable[..., Any], x: Any, data: Any) -> Any:
    """Call the user's function; an error of its own passes through with a note on what was being done."""
    try:
        with one_framework("torch", data):
            return function(x, *data)
    except NonsmoothError:
        raise
    except Exception as error:
        if type(error).__module__.startswith("torch._dynamo"):
            raise CaptureError(
                "capture: the function compiles code or calls a higher-order operator (torch.compile, torch.cond, ...), "
                f"which is not captured: {str(error).splitlines()[0]} Pass the plain function, with Python's own `if` and `for`."
            ) from error
        if any(words in str(error) for words in OUTSIDE_GRADIENT):
            raise CaptureError(
                "capture: the function differentiates with respect to tensors from outside, which are constants here: "
                f"{error} Make them part of the point x, as ns.objective(model, step=...) does."
            ) from error
        error.add_note("nonsmooth: raised while the function was being captured; does f(x, *data) run by itself?")
        raise


def _checked(result: Any, finite: bool = True) -> tuple[list[torch.Tensor], Any]:
    """Give the leaves of a result, or say why it is none."""
    if inspect.iscoroutine(result):
        result.close()
    leaves, structure = flatten(result)
    if not leaves or not all(isinstance(t, torch.Tensor) for t in leaves):
        kinds = sorted({type(t).__name__ for t in leaves}) or ["nothing"]
        raise ResultError(
            f"the function must return tensors; found {', '.join(kinds)}. Values that left torch have no derivative."
        )
    for t in leaves if finite else ():
        if not is_finite(t):
            raise UsageError(
                f"the function is not finite at the point: its value is {_brief(t)}. Move the point, or mend the function: "
                "there is no derivative where there is no value."
            )
    return leaves, structure


def _brief(tensor: torch.Tensor) -> str:
    """Print a scalar, or say what is bad in a tensor."""
    if tensor.dim() == 0:
        return str(tensor.detach().item())
    return f"a tensor {tuple(tensor.shape)} with {int((~torch.isfinite(tensor)).sum())} entries nan or inf"


def _check_inputs(point: list[torch.Tensor], leaves: list[Any], copies: list[Any], items: list[Any]) -> None:
    """Refuse a function that has changed what it was called with, behind torch's back too."""
    if any(t.grad is not None for t in point):
        raise CaptureError(f"capture: {CALLS_BACKWARD[0]}; {CALLS_BACKWARD[1]}.")
    for now, before in (*zip(point, leaves, strict=True), *zip(copies, items, strict=True)):
        pair = [t.detach() if isinstance(t, torch.Tensor) else t for t in (now, before)]
        if pair[0] is not pair[1] and not same_content(*pair):
            raise ChangedInput("capture: the function changes its input in place; clone it first: `x = x.clone()`.")
