"""A program run as it stands, by the framework alone: nothing is observed, gradients flow as the framework lets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nonsmooth.frameworks.replay.arguments import fill
from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.program import Program, Step

__all__ = ["run_plainly"]


def run_plainly(
    program: Program, env: Mapping[int, Any], mode: Callable[[Step], AbstractContextManager[Any]] | None = None
) -> Any:
    """Run the steps of a program without guards on the values of its inputs, data and constants; give its result.

    `mode` gives the context in which a step runs.
    """
    values, release = dict(env), plan_of(program).release
    for step in program.steps:
        with nullcontext() if mode is None else mode(step):
            output = step.target(*fill(step.args, values), **fill(dict(step.kwargs), values))
        for value, array in zip(step.results, (output,) if step.single else output, strict=False):
            if value is not None:
                values[value] = array
        for value in release.get(step.index, ()):
            values.pop(value, None)
    return fill(program.result, values)
