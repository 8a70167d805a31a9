"""The program as text that reads like the Python of the computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nonsmooth.program.program import Program, Ref, Step

__all__ = ["program_text", "step_text"]

WIDTH = 56
"""The column in which the user's lines begin."""


def program_text(program: Program) -> str:
    """Print a program, one step a line, with the line of the user's program beside it."""
    arguments = ", ".join(program.name(v) for v in (*program.inputs, *program.data))
    lines = [f"def program({arguments}):"]
    guards = {g.step: g for g in program.guards}
    last, mode = None, True
    for step in program.steps:
        if step.mode.grad != mode:
            mode = step.mode.grad
            lines.append(f"    # gradients are {'recorded' if mode else 'not recorded (no_grad)'} from here")
        code = f"    {step_text(program, step)}"
        guard = guards.get(step.index)
        if guard is not None:
            code = f"    assert {_call(program, step)} == {_short(guard.outcome)}"
        note = ""
        if step.source is not None:
            note = step.source.place if (step.source.file, step.source.line) == last else str(step.source)
            last = (step.source.file, step.source.line)
        lines.append(f"{code:<{WIDTH}}  # {note}".rstrip(" #") if note else code)
    lines.append(f"    return {_argument(program, program.result)}")
    return "\n".join(lines)


def step_text(program: Program, step: Step) -> str:
    """Print one step as an assignment."""
    names = [program.name(v) if v is not None else "_" for v in step.results]
    call = _call(program, step)
    return f"{', '.join(names)} = {call}" if names else call


def _call(program: Program, step: Step) -> str:
    """Print the call of a step."""
    parts = [_argument(program, a) for a in step.args]
    parts += [f"{k}={_argument(program, a)}" for k, a in step.kwargs.items() if a is not None]
    return f"{step.label or step.operation.name}({', '.join(parts)})"


def _argument(program: Program, argument: Any) -> str:
    """Print an argument: values by name, the rest as Python prints it, shortened."""
    if isinstance(argument, Ref):
        return program.name(argument.value)
    if isinstance(argument, tuple | list):
        inner = ", ".join(_argument(program, a) for a in argument)
        return f"[{inner}]" if isinstance(argument, list) else f"({inner}{',' if len(argument) == 1 else ''})"
    if isinstance(argument, Mapping):
        return "{" + ", ".join(f"{k!r}: {_argument(program, a)}" for k, a in argument.items()) + "}"
    return _short(argument)


def _short(value: Any) -> str:
    """Print a plain value in at most forty characters."""
    text = repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:37] + "..."
