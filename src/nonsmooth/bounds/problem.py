"""What is to be bounded, read as a function of (weights, *data), and the blocks through whose sets it runs."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from nonsmooth.bounds.reach import Floats
from nonsmooth.bounds.region import HERE, ZERO, Block, balls_of
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import filled, is_model, network
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.program import Program

__all__ = ["make_blocks", "read_problem"]


def read_problem(
    f: Any, arguments: tuple[Any, ...], loss: Any, target: Any, regularisation: Any
) -> tuple[Callable[..., Any], Any, tuple[Any, ...], Framework]:
    """Read what is to be bounded as a function of (weights, *data).

    Raises:
        UsageError: no function or model, no weights, a loss without its target.
    """
    _check_objective(loss, target, regularisation)
    if is_model(f):
        forward, w = network(f)
        data = arguments
    else:
        if not callable(f):
            raise UsageError(f"bounds takes a function f(w, *data) or a model; found a {type(f).__name__}.")
        if not arguments:
            raise UsageError("bounds: a function f(w, *data) needs its weights w: ns.bounds(f, w, *data).")
        forward, w, data = f, arguments[0], tuple(arguments[1:])
    framework = find_framework(filled(w if not is_model(f) or w else data))
    _check_weights(framework, w)
    if loss is None:
        return forward, w, data, framework

    def whole(w: Any, *batch: Any) -> Any:
        output = forward(w, *batch[:-1])
        value = loss(output, batch[-1])
        return {"network": output, "objective": value if regularisation is None else value + regularisation(w)}

    return whole, w, (*data, target), framework


def _check_objective(loss: Any, target: Any, regularisation: Any) -> None:
    """Refuse parts of an objective that do not make one."""
    for name, part in (("loss", loss), ("regularisation", regularisation)):
        if part is not None and not callable(part):
            raise UsageError(f"bounds: the {name} must be a function; found a {type(part).__name__}.")
    if loss is None and regularisation is not None:
        raise UsageError("bounds: a regularisation belongs to an objective; give the loss too, and the target.")
    if (loss is None) != (target is None):
        raise UsageError("bounds: loss and target belong together: the objective is loss(network, target).")


def _check_weights(framework: Framework, w: Any) -> None:
    """Refuse weights that are no floating arrays of the framework."""
    for name, leaf in zip(framework.leaf_names(w, "w"), framework.flatten(w)[0], strict=True):
        known = framework.holds(leaf) or type(leaf).__name__ == "ShapeDtypeStruct"
        if not known or "float" not in str(leaf.dtype):
            found = f"numbers of type {leaf.dtype}" if known else f"a {type(leaf).__name__}"
            raise UsageError(
                f"bounds: the weights are floating arrays of {framework.name}; {name} is {found}. Pass what does not run "
                "through a set as data, f(w, *data), and a model as it is: ns.bounds(model, x)."
            )


def make_blocks(
    program: Program, framework: Framework, w: Any, data: tuple[Any, ...], weights: Any, inputs: Any, has_target: bool
) -> tuple[list[Block], dict[int, Any]]:
    """Make the blocks that move, and give what is known of the leaves: values at the centers, None where there is none."""
    leaves, names = framework.flatten(w)[0], framework.leaf_names(w, "w")
    items = framework.data_leaves(data)
    target = len(framework.data_leaves((data[-1],))) if has_target else 0
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
    if array.shape != tuple(leaf.shape):
        raise UsageError(
            f"bounds: the center of the ball of {name} must be of its shape {tuple(leaf.shape)}; found the shape {array.shape}."
        )
    if not np.all(np.isfinite(array)):
        raise UsageError(f"bounds: the center of the ball of {name} holds nan or inf; a set needs finite numbers.")
    return array


def _is_real(program: Program, value: int) -> bool:
    """Tell a value of floating numbers."""
    return "float" in program.values[value].dtype
