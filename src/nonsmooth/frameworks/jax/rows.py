"""The table from JAX's primitives to the records of the dictionary.

A row reads an equation of a jaxpr: which record it is, which of its inputs are the record's operands, how its
parameters become the attributes that the record reads, and which of its outputs is the record's result. It is one table,
hence a long file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jax import numpy as jnp

from nonsmooth.dictionary import OPERATIONS, Kind, Operation
from nonsmooth.frameworks.jax.equations import Equation, is_inexact

__all__ = ["PLAIN", "REFUSED", "SOLVED", "SPECIAL", "STRUCTURAL", "Reading", "read"]


@dataclass(frozen=True)
class Reading:
    """One equation, read as a call of a record.

    Attributes:
        operation: the record.
        operands: the positions of the inputs that are its operands, in its order.
        attributes: its other arguments.
        results: the positions of the outputs that are its result.
    """

    operation: Operation
    operands: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[int, ...] = (0,)


Row: TypeAlias = Callable[[Equation, Sequence[bool] | None], Reading | None]


def _reading(name: str, *operands: int, results: tuple[int, ...] = (0,), **attributes: Any) -> Reading:
    """Name a record with its operands."""
    return Reading(OPERATIONS[name], operands, attributes, results)


def _only(wanted: Sequence[bool] | None, place: int) -> bool:
    """Tell that at most one of the outputs is used."""
    return wanted is not None and not any(used for k, used in enumerate(wanted) if k != place)


# --- switches ---------------------------------------------------------------------------------------------------------


def _abs(e: Equation, wanted: Any) -> Reading:
    """Name |u| of real or complex numbers."""
    return _reading("complex_abs" if jnp.issubdtype(e.inputs[0].dtype, jnp.complexfloating) else "abs", 0)


def _extremum(name: str, neutral: float) -> Row:
    """Read a maximum or minimum of two arrays; one with an infinity that never wins is a copy."""

    def row(e: Equation, wanted: Any) -> Reading:
        for one, other in ((0, 1), (1, 0)):
            if e.number(one) == neutral:
                return _reading("copy", other)
        return _reading(name, 0, 1)

    return row


def _clamp(e: Equation, wanted: Any) -> Reading:
    """Read min(max(u, low), high), whose inputs come as low, u, high: bounds that are numbers are attributes."""
    low, high = e.number(0), e.number(2)
    if low is None or high is None:
        return _reading("clamp_tensor", 1, 0, 2)
    return _reading("clamp", 1, min=low, max=high)


def _select(e: Equation, wanted: Any) -> Reading:
    """Read a choice: by a predicate it takes its second case where that holds, by an integer it indexes its cases."""
    if len(e.inputs) == 2:
        return _reading("copy", 1)
    if e.inputs[0].dtype != bool:
        return _reading("index", *e.places)
    return _reading("where" if is_inexact(e.inputs[1]) else _discrete(e.inputs[1]), 0, 2, 1)


def _discrete(aval: Any) -> str:
    """Name what is done with booleans and with whole numbers."""
    return "logic" if aval.dtype == bool else "integer"


# --- order ------------------------------------------------------------------------------------------------------------


def _reduced(name: str) -> Row:
    """Read a reduction to the largest or smallest entry; over no axes it is a copy."""
    return lambda e, wanted: (
        _reading(name, 0, dim=tuple(int(a) for a in e.params["axes"])) if e.params["axes"] else _reading("copy", 0)
    )


def _cumulative(name: str) -> Row:
    """Read the largest or smallest entry so far; from the end it is opened."""
    return lambda e, wanted: None if e.params["reverse"] else _reading(name, 0, dim=int(e.params["axis"]))


def _sort(e: Equation, wanted: Any) -> Reading | None:
    """Read the sort of one moving key beside which only indices are carried; keys that stand still only index."""
    keys, p = e.params["num_keys"], e.params
    carried = [k for k in e.places[1:] if is_inexact(e.inputs[k])]
    if not any(e.moving[:keys]):
        return _reading("gather", *e.places, results=e.places)
    if keys > 1 or carried:
        return None
    return _reading("sort", 0, dim=int(p["dimension"]), descending=False)


def _top_k(e: Equation, wanted: Any) -> Reading:
    """Read the k largest entries along an axis."""
    return _reading("topk", 0, k=int(e.params["k"]), dim=int(e.params["axis"]), descending=True)


def _window(e: Equation, wanted: Any) -> Reading | None:
    """Read the largest entry of each window; windows over a dilated or cut operand are opened."""
    p = e.params
    if any(d != 1 for d in p["base_dilation"]) or any(w < 0 for pair in p["padding"] for w in pair):
        return None
    return _reading(
        "max_pool",
        0,
        kernel_size=tuple(p["window_dimensions"]),
        stride=tuple(p["window_strides"]),
        padding=tuple(before for before, _ in p["padding"]),
        dilation=tuple(p["window_dilation"]),
        spatial_from=0,
    )


# --- singular and smooth ----------------------------------------------------------------------------------------------


def _division(e: Equation, wanted: Any) -> Reading:
    """Read a / b; a division by a number is a product."""
    constant = e.number(1)
    if constant is not None and constant != 0:
        return _reading("mul", 0, 1)
    return _reading("div", 0, 1, moving=e.moving[1])


def _power(e: Equation, wanted: Any) -> Reading:
    """Read u^p: smooth for a constant p = 0 or p >= 1 and for a constant u > 0, singular at 0 elsewhere."""
    base, exponent = e.number(0), e.number(1)
    if exponent is not None and (exponent == 0 or exponent >= 1):
        return _reading("power", 0, 1)
    if base is not None and base > 0:
        return _reading("exp2", 0, 1)
    return _reading("pow", 0, 1, moving=e.moving[1])


def _integer_power(e: Equation, wanted: Any) -> Reading:
    """Read u^y of a whole number y."""
    y = int(e.params["y"])
    return _reading("power", 0) if y >= 0 else _reading("pow", 0, exponent=float(y), moving=False)


def _convert(e: Equation, wanted: Any) -> Reading:
    """Read a conversion of numbers; booleans turn to whole numbers and back by logic."""
    booleans = e.inputs[0].dtype == jnp.bool_ and e.params["new_dtype"] == jnp.bool_
    return _reading("logic" if booleans else "cast", 0)


def _not(e: Equation, wanted: Any) -> Reading:
    """Read logic on booleans, arithmetic of bits on whole numbers."""
    return _reading(_discrete(e.inputs[0]), *e.places)


def _eigh(e: Equation, wanted: Any) -> Reading:
    """Read the eigenvalues, with the eigenvectors (the first output) if anything uses them."""
    if _only(wanted, 1):
        return _reading("eigvalsh", 0, results=(1,))
    return _reading("linalg_eigh", 0, results=(0, 1))


def _svd(e: Equation, wanted: Any) -> Reading:
    """Read the singular values (the first output), with the vectors if anything uses them."""
    if not e.params["compute_uv"] or _only(wanted, 0):
        return _reading("svdvals", 0)
    return _reading("linalg_svd", 0, results=(0, 1, 2))


SPECIAL: dict[str, Row] = {
    "abs": _abs,
    "max": _extremum("maximum", -math.inf),
    "min": _extremum("minimum", math.inf),
    "clamp": _clamp,
    "select_n": _select,
    "reduce_max": _reduced("amax"),
    "reduce_min": _reduced("amin"),
    "cummax": _cumulative("cummax"),
    "cummin": _cumulative("cummin"),
    "sort": _sort,
    "top_k": _top_k,
    "reduce_window_max": _window,
    "div": _division,
    "pow": _power,
    "integer_pow": _integer_power,
    "cbrt": lambda e, wanted: _reading("pow", 0, exponent=1 / 3, moving=False),
    "convert_element_type": _convert,
    **dict.fromkeys(("and", "or", "xor", "not", "reduce_and", "reduce_or", "reduce_xor"), _not),
    "eigh": _eigh,
    "svd": _svd,
    "lu": lambda e, wanted: _reading("lu_factor", 0),
    "qr": lambda e, wanted: _reading("linalg_qr", 0, results=(0, 1)),
    "optimization_barrier": lambda e, wanted: _reading("copy", *e.places, results=e.places),
    "regularized_incomplete_beta": lambda e, wanted: _reading("betainc", 2, 0, 1),
}
"""Primitives whose parameters need reading; None leaves the equation to be opened."""

PLAIN: dict[str, str] = {
    **{
        name: name
        for name in (
            "sign floor ceil round sqrt rsqrt log log1p acos asin acosh atanh atan2 lgamma digamma polygamma "
            "add sub neg mul square exp exp2 expm1 sin cos tan sinh cosh tanh atan asinh erf erfc igamma igammac "
            "real imag conj complex cumsum cumprod reshape squeeze transpose gather scatter tile split stack slice "
            "nextafter copy triangular_solve random_gamma smoothed_pieces smoothed_max"
        ).split()
    },
    "add_any": "add",
    "rem": "fmod",
    "logistic": "sigmoid",
    "erf_inv": "erfinv",
    "zeta": "special_zeta",
    "bessel_i0e": "special_i0e",
    "bessel_i1e": "special_i1e",
    "cumlogsumexp": "logcumsumexp",
    "igamma_grad_a": "igamma",
    "reduce_sum": "sum",
    "reduce_prod": "prod",
    "reduce_window_sum": "sum",
    "dot_general": "matmul",
    "ragged_dot_general": "matmul",
    "conv_general_dilated": "convolution",
    "cholesky": "linalg_cholesky",
    "custom_linear_solve": "linalg_solve",
    "tridiagonal_solve": "linalg_solve",
    "eig": "linalg_eig",
    "fft": "fft_fft",
    "reduce_precision": "cast",
    "stop_gradient": "detach",
    "broadcast_in_dim": "expand",
    "concatenate": "cat",
    "pad": "constant_pad_nd",
    "rev": "flip",
    "unstack": "unbind",
    "dynamic_slice": "index",
    "dynamic_update_slice": "slice_scatter",
    "scatter-add": "scatter_add",
    "scatter-sub": "scatter_add",
    "scatter-mul": "scatter_prod",
    **dict.fromkeys("eq ne lt le gt ge eq_to lt_to le_to is_finite".split(), "compare"),
    **dict.fromkeys(
        "argmax argmin clz population_count shift_left shift_right_arithmetic shift_right_logical mulhi "
        "bitcast_convert_type lu_pivots_to_permutation".split(),
        "integer",
    ),
    **dict.fromkeys("iota empty empty2 dimension_size".split(), "create"),
    **dict.fromkeys(
        "random_bits random_seed random_split random_fold_in random_wrap random_unwrap random_clone rng_bit_generator "
        "threefry2x32 threefry4x32 philox2x32 philox4x32 iota_2x32_shape".split(),
        "random",
    ),
    **dict.fromkeys(
        "name device_put layout_constraint sharding_constraint reshard tie stage pin unpin to_edtype from_edtype".split(),
        "copy",
    ),
}
"""Primitives that are calls of a record with all inputs as operands."""

STRUCTURAL: frozenset[str] = frozenset(
    "jit pjit closed_call core_call call remat remat2 checkpoint custom_jvp_call custom_vjp_call "
    "custom_vjp_call_jaxpr custom_vmap_call cond while scan".split()
)
"""Primitives that hold jaxprs, which capture walks through."""

_HOST = (
    "it runs code outside of JAX, of which nothing is known. Compute its result outside and pass it as data, or give the "
    "call a derivative by jax.custom_vjp."
)
_PRINT = "it only prints, checks or inspects; there is nothing to differentiate."
_REFERENCES = (
    "it changes a mutable array (jax.Ref) in place. Write the update as a pure function, with `x.at[...].set(...)` or a "
    "carried value of `lax.scan`."
)
_DEVICES = (
    "it communicates between devices, inside shard_map or pmap. Pass the function of the whole arrays, without shard_map: "
    "the derivative is the same."
)
_WRAPPED = "it wraps a function of another library or version in a form that cannot be walked through; call that function itself."
_UNDIFFERENTIABLE = (
    "JAX has no derivative of it; compute it outside and pass it as data, or use jax.lax.stop_gradient on its argument."
)

SOLVED: dict[str, str] = dict.fromkeys(
    "implicit_solution implicit_solve implicit_verify".split(),
    "it belongs to the solution of an equation, by nonsmooth.implicit, whose kinks cannot be seen through its solver. "
    "Differentiate the whole with jax: the condition on kinks is decided there, for solutions inside of equations as well.",
)
"""Primitives of solutions, each with what to do."""

REFUSED: dict[str, str] = {
    **dict.fromkeys("pure_callback io_callback ffi_call call_exported".split(), _HOST),
    **dict.fromkeys("debug_callback debug_print inspect_sharding dce_sink check".split(), _PRINT),
    **dict.fromkeys(
        "accum_grad_in_ref addupdate box_get box_set empty_ref free_ref freeze get log_extend log_read new_box new_log "
        "new_ref run_state swap".split(),
        _REFERENCES,
    ),
    **dict.fromkeys(
        "all_gather all_gather_invariant all_gather_reduced all_to_all pbroadcast ppermute preduced psum psum_invariant "
        "pvary ragged_all_to_all reduce_scatter reduced_vary_cast_p shard_map unreduced_psum unreduced_reduce_scatter "
        "vary_unreduced_cast_p axis_index pmax pmin".split(),
        _DEVICES,
    ),
    **dict.fromkeys("call_hi_primitive custom_lin eval_jaxpr remat_opt".split(), _WRAPPED),
    **dict.fromkeys(
        "schur hessenberg householder_product geqrf geqp3 ormqr tridiagonal symmetric_product cholesky_update "
        "rng_uniform".split(),
        _UNDIFFERENTIABLE,
    ),
}
"""Primitives that are refused: why, and what to do."""


def read(equation: Equation, wanted: Sequence[bool] | None = None) -> Reading | None:
    """Read an equation as a call of its record; None where it has none and must be opened.

    `wanted` says which of its outputs are used, where that is known.

    >>> aval = jnp.zeros(3)
    >>> reading = read(Equation("clamp", {}, (aval, aval, aval), (False, True, False), (jnp.array(0.0), None, jnp.array(1.0))))
    >>> reading.operation.name, reading.operands, reading.attributes
    ('clamp', (1,), {'min': 0.0, 'max': 1.0})
    """
    row = SPECIAL.get(equation.primitive)
    if row is not None:
        reading = row(equation, wanted)
    elif equation.primitive in PLAIN:
        reading = _reading(PLAIN[equation.primitive], *equation.places)
    else:
        return None
    exact = not any(is_inexact(aval) for aval in equation.inputs)
    if exact and equation.inputs and reading is not None and reading.operation.kind is not Kind.INDEX:
        return Reading(OPERATIONS[_discrete(equation.inputs[0])], equation.places, {}, reading.results)
    return reading
