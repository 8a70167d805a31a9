"""The table from torch's operators to the records of the dictionary: one table, hence a long file.

A row says which record an operator is, which of its arguments are operands, and how its other arguments become the
attributes that the record reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nonsmooth.dictionary import OPERATIONS

__all__ = ["ALIASES", "OPENED", "TABLE", "Arguments", "Row"]

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """How calls of one operator read as calls of a record.

    `operation` may depend on the arguments (`pow` by its exponent); None opens the operator.
    """

    operation: str | Callable[[Arguments], str | None]
    operands: tuple[str, ...] | None = None
    attributes: Callable[[Arguments], Mapping[str, Any]] | None = None


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


def _rounded(a: Arguments) -> str:
    """Name a division by how it rounds."""
    plain = "mul" if _number(a["other"]) else "div"
    return {None: plain, "floor": "floor_divide", "trunc": "trunc_divide"}[a["rounding_mode"]]


def _clamp_tensor(a: Arguments) -> str:
    """Name a clamp by which of its array bounds are given."""
    if a["min"] is None:
        return "clamp_max_tensor"
    return "clamp_min_tensor" if a["max"] is None else "clamp_tensor"


def _moves(value: Any) -> bool:
    """Tell an argument that depends on the point."""
    return isinstance(value, torch.Tensor) and value.requires_grad


def _copysign(a: Arguments) -> str | None:
    """Name a copied sign: |a| is a switch, the sign of what moves is a jump, and both are opened."""
    if not _moves(a["other"]):
        return "copysign"
    return None if _moves(a["self"]) else "copysign_sign"


def _grid_name(a: Arguments) -> str:
    """Name an interpolation: linear in the image, kinked in a moving grid."""
    return "grid_sample" if _moves(a["grid"]) else f"grid_sampler_{a['input'].ndim - 2}d"


def _grid(a: Arguments) -> Mapping[str, Any]:
    """Read what the distance to the pixels needs: the sizes in the order of the grid's coordinates."""
    sizes = tuple(reversed(a["input"].shape[2:]))
    return {"sizes": sizes, "align_corners": a["align_corners"], "nearest": a["interpolation_mode"] == 1}


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
    "abs": Row(lambda a: "complex_abs" if a["self"].is_complex() else "abs"),
    "selu": Row("selu", attributes=lambda a: _SELU),
    "softplus": Row(lambda a: "softplus" if a["threshold"] >= 20 else "softplus_jump"),
    "logit": Row(lambda a: "logit" if a["eps"] is None else "logit_clamped", operands=("self",)),
    "grid_sampler": Row(_grid_name, operands=("grid", "input"), attributes=_grid),
    "grid_sampler_2d": Row(_grid_name, operands=("grid", "input"), attributes=_grid),
    "grid_sampler_3d": Row(_grid_name, operands=("grid", "input"), attributes=_grid),
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
    "pow": Row(
        _power,
        operands=("self", "exponent"),
        attributes=lambda a: {"exponent": a["exponent"], "moving": _moves(a["exponent"])},
    ),
    "pow.Scalar": Row(
        lambda a: _power(a) if isinstance(a["self"], torch.Tensor) else "exp2" if a["self"] > 0 else "pow",
        operands=("self", "exponent"),
        attributes=lambda a: {"exponent": a["exponent"], "moving": _moves(a["exponent"])},
    ),
    "div": Row(
        lambda a: "mul" if _number(a["other"]) else "div",
        operands=("self", "other"),
        attributes=lambda a: {"moving": _moves(a["other"])},
    ),
    "div.Tensor_mode": Row(_rounded, operands=("self", "other"), attributes=lambda a: {"moving": _moves(a["other"])}),
    "div.Scalar_mode": Row(_rounded, operands=("self", "other")),
    "addcdiv": Row(
        "addcdiv", operands=("self", "tensor1", "tensor2"), attributes=lambda a: {"moving": _moves(a["tensor2"])}
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
    "copysign": Row(_copysign, operands=("self", "other")),
    "special_entr": Row("entr"),
    "linalg_eigvalsh": Row("eigvalsh", operands=("self",)),
    "linalg_eigh": Row("linalg_eigh", operands=("self",)),
    "_linalg_eigh": Row("linalg_eigh", operands=("A",)),
    "linalg_pinv": Row("linalg_pinv", operands=("self",)),
    "linalg_lstsq": Row("linalg_lstsq", operands=("self",)),
    "linalg_svdvals": Row("svdvals", operands=("A",)),
    "special_xlog1py": Row("xlog1py", operands=("self", "other")),
    "special_ndtri": Row("ndtri"),
    "special_zeta": Row("special_zeta", operands=("self", "other")),
    "mode": Row("mode", operands=("self",)),
    "frexp": Row("frexp", operands=("self",)),
    "linalg_lu_factor_ex": Row("lu_factor", operands=("A",)),
}
"""Operators whose arguments need reading, by `name.overload`, or by name for every overload without its own row."""

_UPSAMPLINGS = "nearest1d nearest2d nearest3d linear1d bilinear2d trilinear3d bicubic2d".split()

ALIASES: dict[str, str] = {
    **dict.fromkeys("eq ne lt le gt ge isclose isnan isinf isfinite isin isneginf isposinf signbit".split(), "compare"),
    **dict.fromkeys(
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor any all".split(),
        "logic",
    ),
    **dict.fromkeys("view_as reshape_as expand_as broadcast_to alias ravel _unsafe_view atleast_1d".split(), "view"),
    **dict.fromkeys("numpy_T mT mH adjoint swapaxes swapdims movedim".split(), "transpose"),
    **dict.fromkeys("to type_as float double half _to_copy".split(), "cast"),
    **dict.fromkeys("split_with_sizes unsafe_split unsafe_chunk tensor_split".split(), "split"),
    **dict.fromkeys("concat concatenate hstack vstack dstack column_stack".split(), "cat"),
    **dict.fromkeys("resolve_conj resolve_neg dropout".split(), "copy"),
    **dict.fromkeys(
        "empty zeros ones full arange linspace eye scalar_tensor empty_like zeros_like ones_like full_like new_zeros "
        "new_ones new_full new_empty tril_indices triu_indices empty_strided logspace new_empty_strided range".split(),
        "create",
    ),
    **dict.fromkeys(
        "argmax argmin argsort bucketize searchsorted bincount histc unique_dim _unique2 count_nonzero gcd lcm "
        "bitwise_left_shift bitwise_right_shift".split(),
        "integer",
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
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "_safe_softmax": "softmax",
    "_weight_norm": "weight_norm",
    "log_sigmoid_forward": "log_sigmoid",
    "nll_loss_forward": "nll_loss",
    "nll_loss2d_forward": "nll_loss2d",
    "clip": "clamp",
    "special_logit": "logit",
    "special_digamma": "digamma",
    "special_psi": "digamma",
    "special_gammaln": "lgamma",
    "_weight_norm_interface": "weight_norm",
    "_convolution": "convolution",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "lift_fresh": "lift",
    "detach_copy": "detach",
    "_prelu_kernel": "prelu",
    "linalg_solve_ex": "linalg_solve",
    "_pdist_forward": "pdist",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "_native_batch_norm_legit": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), "fft_fft"),
    "convolution_backward": "convolution",
    "avg_pool2d_backward": "avg_pool2d",
    "avg_pool3d_backward": "avg_pool3d",
    "_adaptive_avg_pool2d_backward": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d_backward": "adaptive_avg_pool3d",
    "_softmax_backward_data": "softmax",
    "_log_softmax_backward_data": "log_softmax",
    **{f"replication_pad{d}d_backward": "scatter_add" for d in (1, 2, 3)},
    **{f"upsample_{m}_backward": f"upsample_{m}" for m in _UPSAMPLINGS},
    **{f"_upsample_nearest_exact{d}d{b}": f"upsample_nearest{d}d" for d in (1, 2, 3) for b in ("", "_backward")},
    **{
        f"_upsample_{m}2d_aa{b}": f"upsample_{r}2d"
        for m, r in (("bilinear", "bilinear"), ("bicubic", "bicubic"), ("lanczos", "bicubic"))
        for b in ("", "_backward")
    },
    "_unsafe_index_put": "index_put",
    **dict.fromkeys(("_conj", "_conj_physical", "conj_physical"), "conj"),
    "_neg_view": "neg",
    "_reshape_alias": "reshape",
    "_linalg_solve_ex": "linalg_solve",
    "_cholesky_solve_helper": "cholesky_solve",
    "_ctc_loss": "ctc_loss",
    "_trilinear": "bilinear",
    "_logcumsumexp": "logcumsumexp",
    "_linalg_eigvals": "linalg_eig",
    "_pack_padded_sequence": "index_select",
    "_thnn_fused_lstm_cell": "lstm_cell",
    "_thnn_fused_gru_cell": "gru_cell",
    "_stack": "stack",
    "_masked_softmax": "softmax",
    "conv_depthwise3d": "conv3d",
    "nonzero_static": "nonzero",
    "embedding_dense_backward": "embedding",
    "_linalg_eigh": "linalg_eigh",
    "_linalg_svd": "linalg_svd",
    "_linalg_slogdet": "linalg_slogdet",
    "_linalg_det": "linalg_det",
    **dict.fromkeys(("cholesky", "linalg_cholesky_ex"), "linalg_cholesky"),
    "_cdist_forward": "cdist",
    "_unsafe_index": "index",
    "special_erf": "erf",
    "special_expm1": "expm1",
    "special_xlogy": "xlogy",
    "special_expit": "sigmoid",
}
"""Operators whose record has another name."""

OPENED: frozenset[str] = frozenset(
    "l1_loss hinge_embedding_loss margin_ranking_loss triplet_margin_loss cosine_embedding_loss cosine_similarity "
    "pairwise_distance rnn_relu rnn_relu_cell aminmax std_mean var_mean linalg_norm linalg_matrix_norm prelu rms_norm "
    "instance_norm group_norm".split()
)
"""Operators that are opened although a row could be given: they hold kinks of several operations."""


def _rows() -> dict[str, Row]:
    """Build the table: every record under its own name, the aliases, the rows of what they are, then the special rows."""
    table = {name: Row(name) for name in OPERATIONS}
    table |= {name: Row(record) for name, record in ALIASES.items()}
    for name, other in ALIASES.items():
        table |= {name + key[len(other) :]: row for key, row in SPECIAL.items() if key.split(".")[0] == other}
    table |= SPECIAL
    for name in OPENED:
        table.pop(name, None)
    return table


TABLE: dict[str, Row] = _rows()
"""The rows, by torch's `name.overload` or `name`."""
