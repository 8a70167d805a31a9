"""The table from torch's operators to the records of the dictionary.

A row says which record an operator is, which of its arguments are operands, and how its other arguments become the
attributes that the record reads. An operator without a row is *opened* where torch can decompose it, and an
`UnlistedOperation` elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS, Operation
from nonsmooth.frameworks.torch.formulas import FORMULAS

__all__ = ["ALIASES", "OPENED", "TABLE", "Binding", "Row", "bind", "missing", "packet_name"]

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """How calls of one operator read as calls of a record.

    `operation` may depend on the arguments (`pow` by its exponent); None opens the operator.
    """

    operation: str | Callable[[Arguments], str | None]
    operands: tuple[str, ...] | None = None
    attributes: Callable[[Arguments], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Binding:
    """One call, read as a call of a record."""

    operation: Operation
    operands: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def _per_axis(value: Any, d: int) -> tuple[int, ...]:
    """Spread a number over the axes of a window."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * d if len(values) == 1 else values)


def _pool(d: int) -> Callable[[Arguments], Mapping[str, Any]]:
    """Read the window of a pooling operator over `d` axes."""

    def attributes(a: Arguments) -> Mapping[str, Any]:
        kernel = _per_axis(a["kernel_size"], d)
        return {
            "kernel_size": kernel,
            "stride": _per_axis(a["stride"], d) if a["stride"] else kernel,
            "padding": _per_axis(a["padding"], d),
            "dilation": _per_axis(a["dilation"], d),
            "spatial_from": a["self"].ndim - d,
        }

    return attributes


def _adaptive(d: int) -> Callable[[Arguments], Mapping[str, Any]]:
    """Read the target of an adaptive pooling operator over `d` axes."""
    return lambda a: {"output_size": a["output_size"], "spatial_from": a["self"].ndim - d}


def _number(value: Any) -> bool:
    """Tell a plain number."""
    return isinstance(value, int | float)


def _power(a: Arguments) -> str:
    """Name u^p: smooth for a constant p = 0 or p >= 1, singular at 0 elsewhere."""
    p = a["exponent"]
    return "power" if _number(p) and (p == 0 or p >= 1) else "pow"


def _clamp_tensor(a: Arguments) -> str:
    """Name a clamp by which of its array bounds are given."""
    if a["min"] is None:
        return "clamp_max_tensor"
    return "clamp_min_tensor" if a["max"] is None else "clamp_tensor"


def _norm_name(name: str, exponent: str) -> Callable[[Arguments], str | None]:
    """Name a norm: p >= 1 is one, p = 0 counts, p = -inf is opened, other p are singular at zero entries."""

    def choose(a: Arguments) -> str | None:
        p = a.get(exponent)
        p = 2.0 if p is None else p
        if p >= 1:
            return name
        return "norm_zero" if p == 0 else None if p == -float("inf") else "norm_singular"

    return choose


_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0}

SPECIAL: dict[str, Row] = {
    "relu6": Row("relu6", attributes=lambda a: {"min_val": 0.0, "max_val": 6.0}),
    "selu": Row("elu", attributes=lambda a: _SELU),
    "rrelu": Row(
        lambda a: None if a["training"] else "leaky_relu",
        attributes=lambda a: {"negative_slope": (a["lower"] + a["upper"]) / 2},
    ),
    "threshold": Row(lambda a: "threshold" if a["value"] == a["threshold"] else "threshold_jump"),
    "clamp.Tensor": Row(_clamp_tensor, operands=("self", "min", "max")),
    "clamp_min.Tensor": Row("clamp_min_tensor", operands=("self", "min")),
    "clamp_max.Tensor": Row("clamp_max_tensor", operands=("self", "max")),
    "clamp_min": Row("clamp", attributes=lambda a: {"min": a["min"], "max": None}),
    "clamp_max": Row("clamp", attributes=lambda a: {"min": None, "max": a["max"]}),
    "max.other": Row("maximum"),
    "min.other": Row("minimum"),
    "max": Row("max", attributes=lambda a: {"dim": None}),
    "min": Row("min", attributes=lambda a: {"dim": None}),
    "max.dim": Row("max_dim"),
    "min.dim": Row("min_dim"),
    "median": Row("median", attributes=lambda a: {"dim": None}),
    "median.dim": Row("median"),
    "topk": Row("topk", attributes=lambda a: {**a, "descending": a["largest"]}),
    "max_pool1d": Row("max_pool", attributes=_pool(1)),
    "max_pool1d_with_indices": Row("max_pool", attributes=_pool(1)),
    "max_pool2d": Row("max_pool", attributes=_pool(2)),
    "max_pool2d_with_indices": Row("max_pool", attributes=_pool(2)),
    "max_pool3d": Row("max_pool", attributes=_pool(3)),
    "max_pool3d_with_indices": Row("max_pool", attributes=_pool(3)),
    "adaptive_max_pool1d": Row("adaptive_max_pool", attributes=_adaptive(1)),
    "adaptive_max_pool2d": Row("adaptive_max_pool", attributes=_adaptive(2)),
    "adaptive_max_pool3d": Row("adaptive_max_pool", attributes=_adaptive(3)),
    "where.self": Row("where", operands=("condition", "self", "other")),
    "where.ScalarSelf": Row("where", operands=("condition", "self", "other")),
    "where.ScalarOther": Row("where", operands=("condition", "self", "other")),
    "where.Scalar": Row("where", operands=("condition", "self", "other")),
    "where": Row("nonzero"),
    "masked_fill": Row("where", operands=("mask", "value", "self")),
    "pow": Row(_power, operands=("self", "exponent"), attributes=lambda a: {"exponent": a["exponent"]}),
    "pow.Scalar": Row("exp2", operands=("exponent",)),
    "div": Row(lambda a: "mul" if _number(a["other"]) else "div", operands=("self", "other")),
    "div.Tensor_mode": Row(
        lambda a: {None: "div", "floor": "floor_divide", "trunc": "floor_divide"}[a["rounding_mode"]],
        operands=("self", "other"),
    ),
    "linalg_vector_norm": Row(_norm_name("vector_norm", "ord"), operands=("self",)),
    "norm": Row(_norm_name("norm", "p"), operands=("self",)),
    "dist": Row(_norm_name("dist", "p")),
    "cdist": Row(_norm_name("cdist", "p")),
    "pdist": Row(_norm_name("pdist", "p")),
    "std": Row(
        "std", attributes=lambda a: {"correction": 1.0 if a.get("unbiased", True) else 0.0, "dim": a.get("dim")}
    ),
    "std.correction": Row(
        "std", attributes=lambda a: {"correction": 1.0 if a["correction"] is None else a["correction"], "dim": a["dim"]}
    ),
    "smooth_l1_loss": Row(lambda a: None if a["beta"] == 0 else "smooth_l1_loss"),
    "hardshrink": Row("hardshrink"),
    "dropout": Row(lambda a: None if a["train"] and a["p"] > 0 else "copy"),
    "feature_dropout": Row(lambda a: None if a["train"] and a["p"] > 0 else "copy"),
    "alpha_dropout": Row(lambda a: None if a["train"] and a["p"] > 0 else "copy"),
    "feature_alpha_dropout": Row(lambda a: None if a["train"] and a["p"] > 0 else "copy"),
    "scaled_dot_product_attention": Row(lambda a: None if a["dropout_p"] else "scaled_dot_product_attention"),
    "scatter_reduce": Row(
        lambda a: {"sum": "scatter_add", "mean": "scatter_mean", "prod": "scatter_prod"}.get(a["reduce"])
    ),
    "_embedding_bag": Row(lambda a: "embedding" if a["mode"] < 2 else None),
    "remainder": Row("remainder", operands=("self", "other")),
    "fmod": Row("fmod", operands=("self", "other")),
    "floor_divide": Row("floor_divide", operands=("self", "other")),
    "xlogy": Row("xlogy", operands=("self", "other")),
    "copysign": Row("copysign", operands=("self", "other")),
}
"""Operators whose arguments need reading, by `name.overload`, or by name for every overload without its own row."""

ALIASES: dict[str, str] = {
    **dict.fromkeys("eq ne lt le gt ge isclose isnan isinf isfinite isin isneginf isposinf signbit".split(), "compare"),
    **dict.fromkeys(
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor any all".split(),
        "logic",
    ),
    **dict.fromkeys(
        "view_as reshape_as expand_as broadcast_to unsafe_view alias view_copy ravel atleast_1d".split(), "view"
    ),
    **dict.fromkeys("numpy_T mT mH adjoint swapaxes swapdims movedim".split(), "transpose"),
    **dict.fromkeys("to type_as float double half _to_copy".split(), "cast"),
    **dict.fromkeys("split_with_sizes unsafe_split unsafe_chunk tensor_split".split(), "split"),
    **dict.fromkeys("concat concatenate hstack vstack dstack column_stack".split(), "cat"),
    **dict.fromkeys("resolve_conj resolve_neg dropout".split(), "copy"),
    **dict.fromkeys(
        "empty zeros ones full arange linspace eye scalar_tensor empty_like zeros_like ones_like full_like new_zeros "
        "new_ones new_full new_empty tril_indices triu_indices empty_strided logspace".split(),
        "create",
    ),
    **dict.fromkeys(
        "argmax argmin argsort bucketize searchsorted bincount histc unique_dim _unique2".split(), "integer"
    ),
    "absolute": "abs",
    "negative": "neg",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "arctan": "atan",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "sgn": "sign",
    "fix": "trunc",
    "clip": "clamp",
    "square": "square",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "_safe_softmax": "softmax",
    "_weight_norm": "weight_norm",
    "_weight_norm_interface": "weight_norm",
    "_convolution": "convolution",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "lift_fresh": "lift",
    "detach_copy": "detach",
    "new_tensor": "create",
    "_prelu_kernel": "prelu",
    "zero": "zero",
    "zeros": "create",
    "linalg_solve_ex": "linalg_solve",
    "addr": "addr",
    "grid_sampler": "grid_sampler_2d",
    "_pdist_forward": "pdist",
    "_cdist_forward": "cdist",
    "fill": "fill",
    "_unsafe_index": "index",
    "special_erf": "erf",
    "special_expm1": "expm1",
    "special_xlogy": "xlogy",
    "special_expit": "sigmoid",
    "var": "var",
}
"""Operators whose record has another name."""

OPENED: frozenset[str] = frozenset(
    "l1_loss hinge_embedding_loss margin_ranking_loss triplet_margin_loss cosine_embedding_loss cosine_similarity "
    "pairwise_distance rnn_relu rnn_relu_cell aminmax std_mean var_mean linalg_norm linalg_matrix_norm prelu".split()
)
"""Operators that are opened although a row could be given: they hold kinks of several operations."""

REFUSED: frozenset[str] = frozenset(["index_reduce", "segment_reduce", "renorm", "quantile"])
"""Names that an alias would wrongly call smooth."""


def _rows() -> dict[str, Row]:
    """Build the table: every record under its own name, the aliases, then the special rows."""
    table = {name: Row(name) for name in OPERATIONS}
    table |= {name: Row(record) for name, record in ALIASES.items()}
    table |= SPECIAL
    for name in OPENED | REFUSED:
        table.pop(name, None)
    return table


TABLE: dict[str, Row] = _rows()
"""The rows, by torch's `name.overload` or `name`."""


@functools.cache
def packet_name(target: Any) -> str:
    """Give torch's name of an operator without overload and in-place mark.

    >>> packet_name(torch.ops.aten.relu_.default), packet_name(torch.ops.aten.max.dim)
    ('relu', 'max')
    """
    name = str(target._schema.name).split("::", 1)[1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _row(target: Any) -> Row | None:
    """Find the row of an operator."""
    name, overload = packet_name(target), target._overloadname
    if target.namespace != "aten":
        record = FRAMEWORK_NAMES.get("torch", {}).get(f"{target.namespace}::{name}")
        return None if record is None else Row(record.name)
    return TABLE.get(f"{name}.{overload}") or TABLE.get(name)


def arguments_of(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Give the arguments of a call by the names of the schema, defaults filled in."""
    named: Arguments = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(args):
            named[argument.name] = args[i]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value if argument.has_default_value() else None
    return named


def bind(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Binding | None:
    """Read a call of an operator as a call of its record; None where it has none.

    >>> u = torch.tensor([1.0])
    >>> binding = bind(torch.ops.aten.clamp_min.default, (u, 0.0), {})
    >>> binding.operation.name, binding.attributes
    ('clamp', {'min': 0.0, 'max': None})
    """
    row = _row(target)
    if row is None:
        return None
    named = arguments_of(target, args, kwargs)
    name = row.operation if isinstance(row.operation, str) else row.operation(named)
    if name is None:
        return None
    operands = row.operands or tuple(k for k, v in named.items() if isinstance(v, torch.Tensor))
    attributes = named if row.attributes is None else row.attributes(named)
    plain = {k: v for k, v in attributes.items() if not isinstance(v, torch.Tensor)}
    return Binding(OPERATIONS[name], tuple(named[k] for k in operands if named[k] is not None), plain)


def missing() -> list[str]:
    """List torch's own differentiable operators that the dictionary neither lists nor opens.

    Computed from torch's registry: operators of `aten` with a kernel for autograd, without those that are backward
    formulas, in-place or out variants, or implementation details.
    """
    names = set()
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::"):
            continue
        name = full.split("::", 1)[1].split(".")[0]
        if name.startswith("_") or name.endswith("_") or "backward" in name:
            continue
        packet = getattr(torch.ops.aten, name, None)
        if packet is None:
            continue
        for overload in packet.overloads():
            target = getattr(packet, overload)
            if overload.endswith("out") or not _differentiable(target):
                continue
            if _row(target) is None and name not in FORMULAS and not target._can_decompose():
                names.add(name)
    return sorted(names)


def _differentiable(target: Any) -> bool:
    """Tell whether torch has a derivative of an operator: a tensor in, a tensor out, a kernel for autograd."""
    schema = target._schema
    tensors_in = any("Tensor" in str(a.type) for a in schema.arguments)
    tensors_out = any("Tensor" in str(r.type) for r in schema.returns)
    name = target.name()
    has_autograd = torch._C._dispatch_has_kernel(name) and torch._C._dispatch_has_kernel_for_dispatch_key(
        name, "Autograd"
    )
    return tensors_in and tensors_out and has_autograd
