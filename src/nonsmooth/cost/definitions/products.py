"""Products of arrays: every entry of the result is a sum of products."""

from __future__ import annotations

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


@define("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer")
def product(call: Called) -> Numbers:
    """C_ij = sum_k A_ik B_kj."""
    a, b = call.operands
    return a.contracted(b, call.shape, call.attributes["terms"])


@define("linear")
def linear(call: Called) -> Numbers:
    """Y = X W' + b."""
    found = call.operands[0].contracted(call.operands[1], call.shape, call.attributes["terms"])
    return found + call.operands[2] if len(call.operands) > 2 else found
