"""How calls of torch's operators read as calls of the dictionary's records.

An operator without a row in the table is *opened* where torch can decompose it or a formula stands for it, and an
`UnlistedOperation` elsewhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nonsmooth.dictionary import FRAMEWORK_NAMES, OPERATIONS, Operation
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.rows import ALIASES, OPENED, TABLE, Arguments, Row

__all__ = [
    "ALIASES",
    "OPENED",
    "TABLE",
    "WITHOUT_DERIVATIVE",
    "Binding",
    "Row",
    "arguments_of",
    "bind",
    "is_listed",
    "missing",
    "packet_name",
]


@dataclass(frozen=True)
class Binding:
    """One call, read as a call of a record."""

    operation: Operation
    operands: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def packet_name(target: Any) -> str:
    """Give torch's name of an operator without overload and in-place mark.

    >>> packet_name(torch.ops.aten.relu_.default), packet_name(torch.ops.aten.max.dim)
    ('relu', 'max')
    """
    name = str(target._schema.name).split("::", 1)[1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _row(target: Any) -> Row | None:
    """Find the row of an operator; the user's own registrations come first."""
    name, overload = packet_name(target), target._overloadname
    record = FRAMEWORK_NAMES.get("torch", {}).get(f"{target.namespace}::{name}")
    if record is not None:
        return Row(record.name)
    if target.namespace not in ("aten", "nonsmooth"):  # the library's own: smoothed.py
        return None
    plain = name.removesuffix("_copy")  # view_copy computes what view shows
    return TABLE.get(f"{name}.{overload}") or TABLE.get(name) or TABLE.get(f"{plain}.{overload}") or TABLE.get(plain)


def is_listed(target: Any) -> bool:
    """Tell whether an operator has a row in the table, or a registration of the user's."""
    return _row(target) is not None


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


WITHOUT_DERIVATIVE = frozenset(
    "geqrf linalg_ldl_factor_ex linalg__powsum histogram unique_consecutive unique_dim_consecutive embedding_renorm "
    "special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 "
    "special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 "
    "special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_spherical_bessel_j0 "
    "special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v "
    "special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he "
    "special_laguerre_polynomial_l special_legendre_polynomial_p special_shifted_chebyshev_polynomial_t "
    "special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v "
    "special_shifted_chebyshev_polynomial_w".split()
)
"""Operators of which torch itself has no derivative, although they have a kernel for autograd: it raises, or gives none."""

_INTERNAL = re.compile(
    "^_|_$|backward|sparse|quantize|^q_per|indices|^values|^to_mkldnn|_jvp$|^slow_conv|^batch_norm_|_overrideable$|"
    "^(cudnn|miopen|mkldnn|empty|resize|set|slice_inverse|int_repr|hspmm|native_norm|hash_tensor|unsafe_split|to_padded)"
)
"""Names of torch's operators that no program of a user calls."""


def missing() -> list[str]:
    """List torch's own differentiable operators that the dictionary neither lists nor opens.

    Computed from torch's registry: operators of `aten` with a kernel for autograd, without those that are backward
    formulas, in-place or out variants, random draws, of which torch has no derivative, or that are implementation
    details (sparse, nested and quantized layouts, kernels of one library).
    """
    names = set()
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::"):
            continue
        name = full.split("::", 1)[1].split(".")[0]
        if _INTERNAL.search(name) or name in WITHOUT_DERIVATIVE:
            continue
        packet = getattr(torch.ops.aten, name, None)
        if packet is None:
            continue
        for overload in packet.overloads():
            target = getattr(packet, overload)
            drawn = torch.Tag.nondeterministic_seeded in target.tags
            if overload.endswith("out") or drawn or not _differentiable(target):
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
