"""What a jaxpr computes, as a value that can be compared: equal fingerprints are the same equations in the same order.

Names of variables and of lines do not count; a function that brings its own derivative is known by the jaxpr of that
derivative too.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from nonsmooth.frameworks.jax.equations import is_inexact

__all__ = ["BRINGS_DERIVATIVE", "fingerprint", "function_fingerprint", "name_of"]

BRINGS_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call")
"""Primitives that hold a function with its own derivative."""

_LAYOUT = frozenset(
    "in_shardings out_shardings in_layouts out_layouts donated_invars ctx_mesh keep_unused inline compiler_options_kvs "
    "sharding out_sharding jvp_jaxpr_fun fwd_jaxpr_thunk bwd out_trees transpose_thunk call_jaxpr".split()
)
"""Parameters that say where and how an equation runs; rules and bodies of functions are compared by what they do."""


@functools.lru_cache(maxsize=1024)
def fingerprint(closed: Any, rules: bool = True) -> Hashable:
    """Give the equations of a closed jaxpr as a value that can be compared, with or without `rules` of differentiation.

    >>> one, two = (jax.make_jaxpr(f)(1.0) for f in (lambda u: 2 * u, lambda v: 2 * v))
    >>> fingerprint(one) == fingerprint(two), fingerprint(one) == fingerprint(jax.make_jaxpr(lambda u: 3 * u)(1.0))
    (True, False)
    """
    jaxpr = getattr(closed, "jaxpr", closed)
    numbers: dict[Any, int] = {}

    def number(atom: Any) -> Hashable:
        if isinstance(atom, core.Literal):
            return _constant(atom.val), _type(atom)
        return numbers.setdefault(atom, len(numbers))

    inputs = [(number(v), _type(v)) for v in (*jaxpr.constvars, *jaxpr.invars)]
    equations = []
    for eqn in jaxpr.eqns:
        read = tuple(number(v) for v in eqn.invars)
        rule = function_fingerprint(eqn.primitive.name, eqn.params, [v.aval for v in eqn.invars], rules)
        written = tuple((number(v), _type(v)) for v in eqn.outvars)
        equations.append((eqn.primitive.name, read, written, _parameters(eqn.params, rules), rule))
    outputs = tuple(number(v) for v in jaxpr.outvars)
    return tuple(inputs), tuple(_constant(c) for c in getattr(closed, "consts", ())), tuple(equations), outputs


def function_fingerprint(name: str, params: Mapping[str, Any], inputs: Sequence[Any], rules: bool = True) -> Hashable:
    """Give the value and the derivative of a function that brings one; None for any other equation.

    A derivative may call the function again, whose derivative is not followed there.
    """
    if name not in BRINGS_DERIVATIVE:
        return None
    if not rules:
        return fingerprint(params["call_jaxpr"], False)
    primitive = getattr(core.primitives, f"{name}_p")
    bound = primitive.get_bind_params(params)
    functions, rest = bound if isinstance(bound, tuple) else ((), bound)  # before jax 0.10 the functions came apart
    outputs = [v.aval for v in params["call_jaxpr"].jaxpr.outvars]

    def pulled(arguments: list[Any], cotangents: list[Any]) -> list[Any]:
        given = iter(cotangents)
        seeds = [next(given) if is_inexact(a) else np.zeros(a.shape, jax.dtypes.float0) for a in outputs]
        _, pull = jax.vjp(lambda *args: list(primitive.bind(*functions, *args, **rest)), *arguments)
        return [c for c, a in zip(pull(seeds), inputs, strict=True) if is_inexact(a)]

    shapes = [[_shape(a) for a in inputs], [_shape(a) for a in outputs if is_inexact(a)]]
    return fingerprint(params["call_jaxpr"]), fingerprint(jax.make_jaxpr(pulled)(*shapes), False)


def name_of(name: str, params: Mapping[str, Any]) -> str:
    """Give the name of the function that an equation holds."""
    if "name" in params:
        return str(params["name"])
    info = getattr(getattr(params.get("call_jaxpr"), "jaxpr", None), "debug_info", None)
    return str(getattr(info, "func_name", "") or name)


def _shape(aval: Any) -> Any:
    """Give what a function is traced at."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=bool(getattr(aval, "weak_type", False)))


def _type(variable: Any) -> Hashable:
    """Give shape and dtype of a variable."""
    return tuple(getattr(variable.aval, "shape", ())), str(getattr(variable.aval, "dtype", variable.aval))


def _constant(value: Any) -> Hashable:
    """Give the content of a constant."""
    try:
        array = np.asarray(value)
    except TypeError:  # keys of random numbers
        return repr(value)
    return array.shape, str(array.dtype), array.tobytes()


def _parameters(params: Mapping[str, Any], rules: bool) -> Hashable:
    """Give the parameters of an equation but for those of its layout."""
    return tuple((k, _parameter(v, rules)) for k, v in sorted(params.items()) if k not in _LAYOUT)


def _parameter(value: Any, rules: bool) -> Hashable:
    """Give one parameter; of what is not known, the text, which differs wherever it holds an address."""
    if hasattr(value, "eqns"):
        return fingerprint(value, rules)
    if isinstance(value, tuple | list):
        return tuple(_parameter(v, rules) for v in value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):  # mapping makes axes numbers of numpy
        return repr(int(value))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _constant(value)
    return repr(value)
