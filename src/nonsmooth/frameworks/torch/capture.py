"""Capture: a function becomes a program, with the proof that the program is the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from nonsmooth.errors import CaptureError, ChangedInput, NonsmoothError, RandomnessError, ResultError, UsageError
from nonsmooth.frameworks.one_framework import one_framework
from nonsmooth.frameworks.torch.interception import CALLS_BACKWARD
from nonsmooth.frameworks.torch.proof import Native, prove
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

__all__ = ["capture_function"]

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
    results, result_structure = _checked(result)
    references = [tape.reference(t) for t in results]
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


def _checked(result: Any) -> tuple[list[torch.Tensor], Any]:
    """Give the leaves of a result, or say why it is none."""
    if inspect.iscoroutine(result):
        result.close()
    leaves, structure = flatten(result)
    if not leaves or not all(isinstance(t, torch.Tensor) for t in leaves):
        kinds = sorted({type(t).__name__ for t in leaves}) or ["nothing"]
        raise ResultError(
            f"the function must return tensors; found {', '.join(kinds)}. Values that left torch have no derivative."
        )
    for t in leaves:
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
