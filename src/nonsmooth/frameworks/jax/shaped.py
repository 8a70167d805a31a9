"""A step of a captured JAX program as shapes, in the words that every framework shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core

from nonsmooth.frameworks.jax.walk import Bind, Reordered, Whole
from nonsmooth.frameworks.replay.discrete import is_discrete
from nonsmooth.program import Program, Ref, Step
from nonsmooth.program.shaped import ShapedCall, ShapedOperand

__all__ = ["shaped"]

Shape: TypeAlias = tuple[int, ...]
Attributes: TypeAlias = dict[str, Any]
Reader: TypeAlias = Callable[[Mapping[str, Any], list[Shape], list[Shape]], Attributes]
"""What reads parameters: they, the shapes of the inputs, the shapes of the results -> attributes."""


def shaped(program: Program, step: Step) -> ShapedCall:
    """Give one step of a program as shapes: what counts its operations.

        operands: those of the record, (shape, moves); a number has the shape ()
        attributes: those of the record, and the canonical ones of `ShapedCall`

    >>> import jax.numpy as jnp
    >>> import nonsmooth as ns
    >>> program = ns.capture(lambda x: (x @ x.T).sum(), jnp.ones((2, 3)))
    >>> calls = [c for c in (shaped(program, s) for s in program.steps) if c.operation != "transpose"]
    >>> [c.operation for c in calls], calls[0].attributes["terms"], calls[1].attributes
    (['matmul', 'sum'], 3, {'axes': (0, 1)})

    Source: derived, docs/theory/cost.md.
    """
    below = step.target.target if isinstance(step.target, Reordered) else step.target
    values = [program.values[v] for v in step.results if v is not None]
    follows = any(v.differentiable and v.depends_on_point for v in values)
    inputs = [_operand(program, a, follows) for a in step.args]
    operands = [_operand(program, a, follows) for a in step.operands]
    results = tuple(v.shape for v in values)
    name, attributes = step.operation.name, _plain(step.attributes)
    if isinstance(below, Bind):
        primitive = below.primitive.name
        if primitive == "custom_linear_solve":
            name, operands = _system(operands, results)
        name = OTHER.get(primitive, lambda params, record: record)(step.kwargs, name)
        reader = READERS.get(primitive)
        if reader is not None:
            attributes |= reader(step.kwargs, [o.shape for o in inputs], list(results))
        if primitive == "pow":
            attributes |= _exponent(step.args[1])
    elif isinstance(below, Whole):
        attributes |= _inside(below.equation)
    attributes |= _axes(attributes, operands[0].shape if operands else ())
    return ShapedCall(name, tuple(operands), results, attributes, is_discrete(program, step))


def _operand(program: Program, argument: Any, follows: bool) -> ShapedOperand:
    """Give the shape of what a step takes; a number does not move, nor does anything where no result `follows`."""
    if not isinstance(argument, Ref):
        return ShapedOperand((), item=argument)
    value = program.values[argument.value]
    return ShapedOperand(value.shape, follows and value.differentiable and value.depends_on_point, argument)


def _plain(attributes: Mapping[str, Any]) -> Attributes:
    """Keep the attributes that are numbers, words, and tuples of them."""
    kept = (bool, int, float, str, tuple, list, type(None))
    return {k: v for k, v in attributes.items() if isinstance(v, kept)}


def _axes(attributes: Mapping[str, Any], shape: Shape) -> Attributes:
    """Count axes from the front: `axes` where the record reads them from `dim`, or finds none and takes all."""
    if "axes" in attributes:
        found = attributes["axes"]
    elif "dim" in attributes:
        found = attributes["dim"]
    else:
        return {}
    chosen = range(len(shape)) if found is None else [found] if isinstance(found, int) else found
    return {"axes": tuple(sorted(int(a) % max(len(shape), 1) for a in chosen))}


def _exponent(argument: Any) -> Attributes:
    """Give the exponent of a power that is a number."""
    return {} if isinstance(argument, Ref) else {"exponent": float(argument)}


# --- parameters -------------------------------------------------------------------------------------------------------


def _along(*names: str) -> Reader:
    """Read the axes along which a primitive runs."""

    def reader(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
        found = next(params[n] for n in names if n in params)
        return {"axes": (found,) if isinstance(found, int) else tuple(int(a) for a in found)}

    return reader


def _dot(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Count the products of one entry: the sizes of the axes that are contracted; say which, and which stand beside."""
    contracted, beside = params["dimension_numbers"]
    axes = {"contracted": tuple(map(tuple, contracted)), "beside": tuple(map(tuple, beside))}
    return {"terms": prod(inputs[0][a] for a in contracted[0]), **axes}


def _ragged(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Count the products of one entry of a product in which each row has one matrix of a stack."""
    (contracted, _), _ = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    return {"terms": prod(inputs[0][a] for a in contracted)}


def _convolution(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Read the geometry of a convolution; one in groups of the batch has that many times fewer images."""
    numbers, (image, kernel) = params["dimension_numbers"], inputs[:2]
    return {
        "spatial": tuple(image[a] for a in numbers.lhs_spec[2:]),
        "kernel": tuple(kernel[a] for a in numbers.rhs_spec[2:]),
        "stride": tuple(params["window_strides"]),
        "padding": tuple((int(low), int(high)) for low, high in params["padding"]),
        "base_dilation": tuple(params["lhs_dilation"]),
        "dilation": tuple(params["rhs_dilation"]),
        "groups": int(params["feature_group_count"]),
        "transposed": False,
        "channels": (image[numbers.lhs_spec[1]], kernel[numbers.rhs_spec[0]]),
        "batch": image[numbers.lhs_spec[0]] // int(params["batch_group_count"]),
        "layout": (tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)),
    }


def _window(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Read windows over all axes."""
    axes = len(inputs[0])
    return {
        "spatial": inputs[0],
        "kernel": tuple(params["window_dimensions"]),
        "stride": tuple(params["window_strides"]),
        "padding": tuple((int(low), int(high)) for low, high in params["padding"]),
        "base_dilation": tuple(params.get("base_dilation") or (1,) * axes),
        "dilation": tuple(params.get("window_dilation") or (1,) * axes),
    }


def _window_sum(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Count the additions of sums over windows: the entries that windows meet, but for the first in each."""
    window = _window(params, inputs, results)
    rows = zip(*window.values(), results[0], strict=True)
    met = [_meetings(*row) for row in rows]
    return {**window, "additions": prod(m for m, _ in met) - prod(n for _, n in met)}


def _meetings(
    size: int, kernel: int, stride: int, padding: tuple[int, int], base: int, dilation: int, results: int
) -> tuple[int, int]:
    """Count along one axis the entries that windows meet, and the windows that meet any."""
    at = np.arange(results)[:, None] * stride + np.arange(kernel) * dilation - padding[0]
    real = (at >= 0) & (at <= (size - 1) * base) & (at % base == 0)
    return int(real.sum()), int(real.any(1).sum())


def _fourier(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Give the axes of a Fourier transform: the last ones."""
    axes, lengths = len(inputs[0]), tuple(int(n) for n in params["fft_lengths"])
    return {"axes": tuple(range(axes - len(lengths), axes)), "lengths": lengths}


def _whole_power(params: Mapping[str, Any], inputs: list[Shape], results: list[Shape]) -> Attributes:
    """Give the exponent of a whole power."""
    return {"exponent": int(params["y"])}


READERS: dict[str, Reader] = {
    **dict.fromkeys("smoothed_pieces smoothed_max".split(), lambda params, inputs, results: dict(params)),
    "dot_general": _dot,
    "ragged_dot_general": _ragged,
    "conv_general_dilated": _convolution,
    **dict.fromkeys("reduce_sum reduce_prod reduce_max reduce_min argmax argmin".split(), _along("axes")),
    **dict.fromkeys("cumsum cumprod cummax cummin cumlogsumexp".split(), _along("axis")),
    "broadcast_in_dim": lambda params, inputs, results: {"placed": tuple(params["broadcast_dimensions"])},
    "sort": _along("dimension"),
    "top_k": _along("axis"),
    "reduce_window_sum": _window_sum,
    **dict.fromkeys("reduce_window_min select_and_scatter_add select_and_gather_add".split(), _window),
    "fft": _fourier,
    "integer_pow": _whole_power,
}
"""What the parameters of a primitive say that the attributes of its record leave open."""


def _transform(params: Mapping[str, Any], record: str) -> str:
    """Name a Fourier transform by its kind."""
    kind = getattr(params["fft_type"], "name", str(params["fft_type"])).lower()
    return f"fft_{kind}n"


OTHER: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "fft": _transform,
}
"""Primitives that count as another operation than their record, for it stands for several."""


def _system(operands: list[ShapedOperand], results: tuple[Shape, ...]) -> tuple[str, list[ShapedOperand]]:
    """Read a system of equations: the matrix of one side, if its functions close over one that fits, and the other side.

    One that is given by functions alone has a name of its own, which nothing defines: its cost is theirs.
    """
    right = operands[-1]
    sizes = right.shape[-2:] if len(right.shape) > 1 else right.shape
    fits = [o for o in operands[:-1] if len(o.shape) > 1 and o.shape[-1] == o.shape[-2] == sizes[0]] if sizes else []
    if len(results) != 1 or not fits:
        return "matrix_free_solve", operands
    return "custom_linear_solve", [max(fits, key=lambda o: o.moving), right]


# --- functions --------------------------------------------------------------------------------------------------------


def _inside(equation: Any) -> Attributes:
    """Read the axes of a function that was known as a whole: those of the first reduction inside of it."""
    for eqn in _equations(equation.params.get("jaxpr") or equation.params.get("call_jaxpr")):
        if eqn.primitive.name.startswith("reduce_") and "axes" in eqn.params:
            return {"axes": tuple(int(a) for a in eqn.params["axes"])}
    return {}


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Walk the equations of a jaxpr, and of those inside of it."""
    for eqn in getattr(getattr(jaxpr, "jaxpr", jaxpr), "eqns", ()):
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
                    yield from _equations(inner)
