"""What is to be bounded, read as a function of (weights, *data), and the blocks through whose sets it runs."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from nonsmooth.bounds.reach import Floats
from nonsmooth.bounds.region import HERE, ZERO, Block, balls_of
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import is_model, objective
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.program import Program

__all__ = ["make_blocks", "read_problem"]


def read_problem(
    f: Any, arguments: tuple[Any, ...], loss: Any, target: Any, regularisation: Any
) -> tuple[Callable[..., Any], Any, tuple[Any, ...], Framework]:
    """Read what is to be bounded as a function of (weights, *data)."""
    if regularisation is not None and loss is None:
        raise UsageError("bounds: a regularisation belongs to an objective; give the loss too, and the target.")
    if is_model(f):
        forward, w = objective(f, step=lambda model, *batch: model(*batch))
        data = arguments
    else:
        if not callable(f):
            raise UsageError(f"bounds takes a function f(w, *data) or a model; found a {type(f).__name__}.")
        if not arguments:
            raise UsageError("bounds: a function f(w, *data) needs its weights w: ns.bounds(f, w, *data).")
        forward, w, data = f, arguments[0], tuple(arguments[1:])
    framework = find_framework(w)
    if loss is None:
        return forward, w, data, framework

    def whole(w: Any, *batch: Any) -> Any:
        network = forward(w, *batch[:-1])
        value = loss(network, batch[-1])
        return {"network": network, "objective": value if regularisation is None else value + regularisation(w)}

    return whole, w, (*data, target), framework


def make_blocks(
    program: Program, framework: Framework, w: Any, data: tuple[Any, ...], weights: Any, inputs: Any, has_target: bool
) -> tuple[list[Block], dict[int, Any]]:
    """Make the blocks that move, and give what is known of the leaves: values at the centers, None where there is none."""
    leaves, names = framework.flatten(w)[0], framework.leaf_names(w, "w")
    items = framework.data_arrays(data)
    target = len(framework.data_arrays((data[-1],))) if has_target else 0
    entered = [k for k, v in enumerate(program.data[: len(items) - target]) if _is_real(program, v)]
    inputs_named = [f"x{k}" for k in range(len(entered))]
    places = [(program.inputs[k], leaf) for k, leaf in enumerate(leaves)]
    places += [(program.data[k], items[k]) for k in entered]
    kinds = ["weights"] * len(leaves) + ["inputs"] * len(entered)
    balls = [*balls_of(names, weights, ZERO, "weights"), *balls_of(inputs_named, inputs, HERE, "inputs")]
    known = dict(zip((*program.inputs, *program.data), (*leaves, *items), strict=True))
    blocks = []
    for name, kind, (value, leaf), ball in zip((*names, *inputs_named), kinds, places, balls, strict=True):
        has_values = framework.has_values(leaf)
        if has_values and not framework.finite(leaf):
            raise UsageError(f"bounds: {name} holds nan or inf; a set needs finite numbers.")
        here = isinstance(ball.center, str) and ball.center == HERE
        if here:
            center = framework.numpy(leaf) if has_values else None
        else:
            center = None if isinstance(ball.center, str) else _center(framework, name, ball.center, leaf)
            known[value] = None if center is None else framework.array_like(leaf, center)
        if here and not has_values and ball.radius < inf:
            raise UsageError(
                f"bounds: {name} has no values, only a shape, so that nothing is known about it: give it a ball about zero."
            )
        if not has_values and center is None:
            known[value] = None
        if ball.radius > 0:
            blocks.append(Block(name, kind, value, tuple(leaf.shape), ball, center))
    return blocks, known


def _center(framework: Framework, name: str, center: Any, leaf: Any) -> Floats:
    """Read the center of a ball that is an array."""
    array = np.asarray(framework.numpy(center) if framework.holds(center) else center, float)
    if array.shape != tuple(leaf.shape) or not np.all(np.isfinite(array)):
        raise UsageError(
            f"bounds: the center of the ball of {name} must be finite and of its shape {tuple(leaf.shape)}; found the shape "
            f"{array.shape}."
        )
    return array


def _is_real(program: Program, value: int) -> bool:
    """Tell a value of floating numbers."""
    return "float" in program.values[value].dtype
