"""What is special about single operators: those whose result leaves torch, literals, forward mode, torch's backward."""

from __future__ import annotations

from typing import Any

import torch

from nonsmooth.errors import CaptureError, UnlistedOperation
from nonsmooth.frameworks.torch.backward import backward_formula
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.names import WITHOUT_DERIVATIVE, is_listed, packet_name
from nonsmooth.frameworks.torch.protection import refusal

__all__ = [
    "FORWARD_MODE",
    "LEAVING",
    "LIFTING",
    "NO_TRANSFORMS",
    "autocast",
    "backward_formula",
    "data_of",
    "served",
    "unlisted",
    "window_of",
]

LEAVING = frozenset("is_nonzero item _local_scalar_dense equal allclose".split())
"""Operators whose result is a number of Python."""

LIFTING = frozenset(["lift_fresh", "lift"])
"""Operators that hand a literal to torch: every replay must start from a fresh copy of it."""


FORWARD_MODE = frozenset(["_make_dual", "_unpack_dual"])
"""Operators of torch's forward mode."""

NO_TRANSFORMS = "write gradients with torch.autograd.grad(..., create_graph=True), and batches with broadcasting"


def data_of(tensor: torch.Tensor) -> torch.Tensor:
    """Give what `.data` gives: the same memory, without a graph and with its own count of versions."""
    return tensor.data


def window_of(tensor: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...], shift: int) -> torch.Tensor:
    """Show a part of the memory of a tensor, `shift` entries from where it begins."""
    return tensor.as_strided(size, stride, tensor.storage_offset() + shift)


def served(func: Any) -> bool:
    """Tell whether capture knows what to do with an operator: it is listed, opened, drawn from, or leaves torch."""
    name = packet_name(func)
    listed = is_listed(func) or name in FORMULAS or name in LEAVING
    drawn = torch.Tag.nondeterministic_seeded in func.tags
    return bool(listed or drawn or func._can_decompose() or backward_formula(func) is not None)


def autocast() -> tuple[str, str] | None:
    """Read the state of automatic casting."""
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return device, str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return None


def unlisted(func: Any) -> CaptureError:
    """Write the error for an operator that the dictionary does not list."""
    name = f"{func.namespace}::{packet_name(func)}"
    if func.namespace == "aten" and packet_name(func) in WITHOUT_DERIVATIVE:
        return refusal(
            UnlistedOperation,
            f"torch itself has no derivative of the operator `{func}`",
            "detach its argument, or give it a derivative by an autograd.Function",
        )
    return refusal(
        UnlistedOperation,
        f"the dictionary does not list the operator `{func}`",
        f"register it: `nonsmooth.register(nonsmooth.Operation(name={packet_name(func)!r}, kind=nonsmooth.Kind('smooth')), "
        f"torch={name!r})` if it is smooth, or with a record of its kinks (docs/dictionary.md); `nonsmooth ops --missing` "
        "lists what else is missing",
    )
