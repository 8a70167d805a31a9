"""Whole functions of JAX that are single operations of the dictionary, told by their name and by what they compute.

JAX writes `jax.nn.elu` or `jnp.linalg.norm` as a formula of primitives, which has other kinks than the function: here
such a formula is known again. A name alone proves nothing, so the equation's jaxpr is compared with that of JAX's own
function at the same shapes, types and parameters; a function of the user's with the same name has another one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import nn, scipy
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.dictionary import OPERATIONS, Nonsmooth, Operation
from nonsmooth.frameworks.jax.equations import Equation
from nonsmooth.frameworks.jax.fingerprints import BRINGS_DERIVATIVE, fingerprint, function_fingerprint, name_of
from nonsmooth.frameworks.jax.rows import Reading

__all__ = ["KNOWN", "Known", "known"]

Options = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """One function of JAX's that is a record.

    Attributes:
        record: the record's name, which may depend on the equation (None: it is opened).
        function: JAX's own function, called with the equation's inputs and the options.
        operands: the inputs that are the record's operands; None for all.
        options: the options with which the user may have called it, as far as the equation does not rule them out.
        attributes: what the record reads, from the equation and the options; None if it cannot be told.
        results: the outputs that are its result.
    """

    record: str | Callable[[Equation], str | None]
    function: Callable[..., Any]
    operands: tuple[int, ...] | None = None
    options: Callable[[Equation], Iterable[Options]] = lambda e: ({},)
    attributes: Callable[[Equation, Options], Mapping[str, Any] | None] = lambda e, options: {}
    results: tuple[int, ...] = (0,)


# --- parameters -------------------------------------------------------------------------------------------------------


def _number_as(name: str, default: float, **others: float) -> Callable[[Equation, Options], Mapping[str, Any] | None]:
    """Read an attribute from the second input, where there is one."""

    def attributes(e: Equation, options: Options) -> Mapping[str, Any] | None:
        value = default if len(e.inputs) < 2 else e.number(1)
        return None if value is None else {name: value, **others}

    return attributes


def _bounds(*names: str) -> Callable[[Equation, Options], Mapping[str, Any] | None]:
    """Read the bounds of a clip that are numbers."""

    def attributes(e: Equation, options: Options) -> Mapping[str, Any] | None:
        found = {name: e.number(place) for place, name in enumerate(names, 1)}
        return None if None in found.values() else {"min": None, "max": None, **found}

    return attributes


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Walk the equations of a jaxpr, and of those inside of it."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from _equations(inner)


def _reductions(e: Equation) -> Iterator[Options]:
    """Give the axes and `keepdims` with which the first reduction of the equation agrees."""
    jaxpr, n = e.params["jaxpr"], len(e.inputs[0].shape)
    axes = next((tuple(q.params["axes"]) for q in _equations(jaxpr) if "axes" in q.params), None)
    if axes:
        kept = len(jaxpr.jaxpr.outvars[0].aval.shape) == n
        yield from ({"axis": axis, "keepdims": kept} for axis in ((None, axes) if len(axes) == n else (axes,)))


def _norms(e: Equation) -> Iterator[Options]:
    """Give the calls of a vector's p-norm or of the Frobenius norm with which an equation may agree."""
    powers = [
        float(q.invars[1].val)
        for q in _equations(e.params["jaxpr"])
        if q.primitive.name == "pow" and isinstance(q.invars[1], core.Literal)
    ]
    for options in _reductions(e):
        alone = len(options["axis"] or e.inputs[0].shape) == 1
        orders = (None, 1, math.inf, *(p for p in powers if p >= 1)) if alone else (None,)
        yield from ({"ord": p, **options} for p in orders)


def _norm_attributes(e: Equation, options: Options) -> Mapping[str, Any]:
    """Give exponent and axes of a norm."""
    return {"ord": 2.0 if options["ord"] is None else float(options["ord"]), "dim": options["axis"]}


def _std_attributes(e: Equation, options: Options) -> Mapping[str, Any] | None:
    """Give the correction and the axes of a standard deviation."""
    correction = e.number(1)
    return None if correction is None else {"correction": correction, "dim": options["axis"]}


def _copysign(e: Equation) -> str | None:
    """Name a copied sign: |a| is a switch, the sign of what moves is a jump, and both are opened."""
    if not e.moving[1]:
        return "copysign"
    return None if e.moving[0] else "copysign_sign"


def _axes(e: Equation) -> Iterator[Options]:
    """Give every single axis."""
    yield from ({"axis": a} for a in range(-1, len(e.inputs[0].shape) - 1))


def _even_axes(e: Equation) -> Iterator[Options]:
    """Give every single axis that can be cut into halves."""
    yield from (o for o in _axes(e) if e.inputs[0].shape[o["axis"]] % 2 == 0)


_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0}


def _smooth(record: str, function: Callable[..., Any]) -> tuple[Known, ...]:
    """List a function whose record reads nothing but its operands."""
    return (Known(record, function),)


KNOWN: dict[str, tuple[Known, ...]] = {
    "relu": (Known("relu", nn.relu),),
    "relu6": (Known("relu6", nn.relu6, attributes=lambda e, o: {"min_val": 0.0, "max_val": 6.0}),),
    "leaky_relu": (Known("leaky_relu", nn.leaky_relu, (0,), attributes=_number_as("negative_slope", 0.01)),),
    "elu": (Known("elu", nn.elu, (0,), attributes=_number_as("alpha", 1.0, scale=1.0, input_scale=1.0)),),
    "selu": (Known("selu", nn.selu, attributes=lambda e, o: _SELU),),
    "celu": _smooth("celu", nn.celu),
    "hard_tanh": (Known("hardtanh", nn.hard_tanh, attributes=lambda e, o: {"min_val": -1.0, "max_val": 1.0}),),
    "hard_sigmoid": _smooth("hardsigmoid", nn.hard_sigmoid),
    "hard_silu": _smooth("hardswish", nn.hard_silu),
    "softplus": _smooth("softplus", nn.softplus),
    "silu": _smooth("silu", nn.silu),
    "glu": (Known("glu", nn.glu, options=_even_axes, attributes=lambda e, options: {"dim": options["axis"]}),),
    "mish": _smooth("mish", nn.mish),
    "log_sigmoid": _smooth("log_sigmoid", nn.log_sigmoid),
    "log_softmax": (Known("log_softmax", nn.log_softmax, options=_axes),),
    "log1mexp": _smooth("log1mexp", nn.log1mexp),
    "logaddexp": _smooth("logaddexp", jnp.logaddexp),
    "logaddexp2": _smooth("logaddexp2", jnp.logaddexp2),
    "clip": (
        Known("clamp", lambda u, low, high: jnp.clip(u, low, high), (0,), attributes=_bounds("min", "max")),
        Known("clamp", lambda u, low: jnp.clip(u, low, None), (0,), attributes=_bounds("min")),
        Known("clamp", lambda u, high: jnp.clip(u, None, high), (0,), attributes=_bounds("max")),
    ),
    "norm": (Known("vector_norm", jnp.linalg.norm, options=_norms, attributes=_norm_attributes),),
    "_std": (
        Known("std", lambda u, ddof, **o: jnp.std(u, **o), (0,), options=_reductions, attributes=_std_attributes),
    ),
    "_var": (Known("var", lambda u, ddof, **o: jnp.var(u, **o), (0,), options=_reductions),),
    "hypot": _smooth("hypot", jnp.hypot),
    "copysign": (Known(_copysign, jnp.copysign),),
    "heaviside": (Known(lambda e: None if e.moving[1] else "heaviside", jnp.heaviside),),
    "trunc": _smooth("trunc", jnp.trunc),
    "floor_divide": _smooth("floor_divide", jnp.floor_divide),
    "remainder": _smooth("remainder", jnp.remainder),
    "fmod": _smooth("fmod", jnp.fmod),
    "frexp": _smooth("frexp", jnp.frexp),
    "sinc": _smooth("sinc", jnp.sinc),
    "i0": _smooth("i0", jnp.i0),
    "nan_to_num": (Known("nan_to_num", lambda u, *o: jnp.nan_to_num(u), (0,)),),
    "det": _smooth("linalg_det", jnp.linalg.det),
    "slogdet": (Known("linalg_slogdet", jnp.linalg.slogdet, results=(0, 1)),),
    "inv": _smooth("linalg_inv", jnp.linalg.inv),
    "solve": _smooth("linalg_solve", jnp.linalg.solve),
    "_pinv": _smooth("linalg_pinv", jnp.linalg.pinv),
    "expm": _smooth("linalg_matrix_exp", scipy.linalg.expm),
    "xlogy": _smooth("xlogy", scipy.special.xlogy),
    "xlog1py": _smooth("xlog1py", scipy.special.xlog1py),
    "_xlogx": _smooth("entr", scipy.special.entr),
    "logit": _smooth("logit", scipy.special.logit),
    "zeta": _smooth("special_zeta", scipy.special.zeta),
    "log_ndtr": _smooth("special_log_ndtr", scipy.special.log_ndtr),
}
"""The functions that are known, by the name that JAX gives them in a jaxpr."""


# --- comparison -------------------------------------------------------------------------------------------------------


def known(equation: Equation, wanted: Sequence[bool] | None = None) -> Reading | None:
    """Read a `jit`, `custom_jvp_call` or `custom_vjp_call` equation that is a whole function of the dictionary.

    >>> (eqn,) = jax.make_jaxpr(lambda u: nn.leaky_relu(u, 0.2))(jnp.ones(3)).eqns
    >>> reading = known(Equation("jit", eqn.params, tuple(v.aval for v in eqn.invars), (True, False), (None, 0.2)))
    >>> reading.operation.name, reading.attributes
    ('leaky_relu', {'negative_slope': 0.2})
    """
    candidates = KNOWN.get(name_of(equation.primitive, equation.params), ())
    if not candidates or not equation.inputs or not all(_is_array(a) for a in equation.inputs):
        return None
    if equation.params.get("num_consts"):  # arrays that the function closes over, of which the jaxpr says nothing
        return None
    own = _own(equation)
    for candidate in candidates:
        name = candidate.record if isinstance(candidate.record, str) else candidate.record(equation)
        if name is None or not any(equation.moving[i] for i in candidate.operands or equation.places):
            continue
        if candidate.operands is not None and any(
            moves for i, moves in enumerate(equation.moving) if i not in candidate.operands
        ):
            continue
        if not _takes(OPERATIONS[name], equation, candidate.operands):
            continue
        for options in candidate.options(equation):
            if any(own == _reference(candidate, _Key(equation, options), depth) for depth in _depths(equation)):
                attributes = candidate.attributes(equation, options)
                if attributes is not None:
                    operands = equation.places if candidate.operands is None else candidate.operands
                    return Reading(OPERATIONS[name], operands, attributes, candidate.results)
    return None


def _is_array(aval: Any) -> bool:
    """Tell plain numbers of a known shape, and real ones where they are not whole."""
    return hasattr(aval, "shape") and not jnp.issubdtype(aval.dtype, jax.dtypes.extended)


def _takes(record: Operation, e: Equation, operands: tuple[int, ...] | None) -> bool:
    """Tell whether the operands have numbers of the record's: none are whole, and those with kinks are not complex."""
    types = [e.inputs[i].dtype for i in operands or e.places if e.moving[i]]
    allowed = jnp.floating if isinstance(record, Nonsmooth) else jnp.inexact
    return all(jnp.issubdtype(t, allowed) for t in types)


def _own(e: Equation) -> Hashable:
    """Give the fingerprint of the function that an equation holds."""
    if e.primitive in BRINGS_DERIVATIVE:
        return function_fingerprint(e.primitive, e.params, e.inputs)
    return fingerprint(e.params["jaxpr"])


class _Key:
    """An equation and options as the key of a table: the name, the types of the inputs, the options and the trace count.

    Inside of `jax.ensure_compile_time_eval` a trace of the same function holds constants in the place of equations.
    """

    def __init__(self, equation: Equation, options: Options) -> None:
        self.primitive, self.name = equation.primitive, name_of(equation.primitive, equation.params)
        self.inputs = tuple((tuple(a.shape), a.dtype, bool(getattr(a, "weak_type", False))) for a in equation.inputs)
        self.options = options
        traced = bool(jax.config.read("jax_enable_x64")), bool(jax.config.eager_constant_folding)  # type: ignore[attr-defined]
        self._content = (self.primitive, self.name, self.inputs, tuple(sorted(options.items())), traced)

    def __hash__(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content


def _depths(e: Equation) -> range:
    """Give how often a function may have been mapped: the derivative that it brings is then another formula."""
    return range(1 + (len(e.inputs[0].shape) if e.primitive in BRINGS_DERIVATIVE else 0))


@functools.lru_cache(maxsize=1024)
def _reference(candidate: Known, key: _Key, depth: int = 0) -> Hashable:
    """Trace JAX's own function at the same types, mapped so often, and give the fingerprint of its equation of that name."""
    shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in key.inputs]
    function = functools.partial(candidate.function, **key.options)
    for level in range(depth, 0, -1):
        function = jax.vmap(function, in_axes=tuple(0 if len(s.shape) >= level else None for s in shapes))
    try:
        traced = jax.make_jaxpr(function)(*shapes)
    except (TypeError, ValueError):  # not a call that JAX takes, such as an axis that is not there
        return None
    for eqn in _equations(traced):
        if eqn.primitive.name == key.primitive and name_of(key.primitive, eqn.params) == key.name:
            found = Equation(key.primitive, eqn.params, tuple(v.aval for v in eqn.invars), (), ())
            return _own(found)
    return None
