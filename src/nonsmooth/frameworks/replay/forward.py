"""Forward mode through sums and bilinear steps, with the scale of the terms that their tangents are summed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary.operation import Array
from nonsmooth.frameworks.replay.arguments import map_refs
from nonsmooth.program import Ref, Step

__all__ = ["BILINEAR", "Pushed", "Terms", "bilinear_tangents", "sum_tangents", "terms_of"]

Pushed: TypeAlias = list[Array | None]
"""The tangents of the results of a step, None for zero."""

Shape: TypeAlias = Sequence[int]

Terms: TypeAlias = Callable[[Step, Shape, Shape], int | None]
"""How many products a bilinear step adds up for one result, from its operands' shapes; None: it is not bilinear."""

BILINEAR: Mapping[str, Callable[[Shape, Shape], int]] = {
    **dict.fromkeys(("linear", "matmul", "mm", "bmm"), lambda a, b: a[-1]),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), lambda a, b: math.prod(b[1:])),
}
"""Operators bilinear in two operands (and affine in a third): how many terms they add up, from the operands' shapes."""


def terms_of(step: Step, a: Shape, b: Shape) -> int | None:
    """Give how many products a step adds up, by its name."""
    terms = BILINEAR.get(step.operation.name)
    return None if terms is None else terms(a, b)


def sum_tangents(
    xp: Any, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Array], scales: Mapping[int, float]
) -> tuple[Pushed, float] | None:
    """Give (tangent a) + (tangent b) or their difference, and its scale."""
    args = step.args
    if step.label not in ("add", "sub") or step.kwargs or len(args) != 2 or not all(isinstance(r, Ref) for r in args):
        return None
    a, b = (read[r.value] for r in args)
    t_a, t_b = (tangents.get(r.value) for r in args)
    if a.dtype != b.dtype:
        return None
    if t_a is None or t_b is None:
        total = t_a if t_b is None else -t_b if step.label == "sub" else t_b
    else:
        total = t_a - t_b if step.label == "sub" else t_a + t_b
    assert total is not None
    shape = np.broadcast_shapes(tuple(a.shape), tuple(b.shape))
    return [xp.broadcast_to(total, shape)], sum(scales.get(r.value, 0.0) for r in args)


def bilinear_tangents(
    xp: Any,
    step: Step,
    read: Mapping[int, Any],
    tangents: Mapping[int, Array],
    scales: Mapping[int, float],
    terms: Terms = terms_of,
    number: Callable[[Array], float] = float,
) -> tuple[Pushed, float] | None:
    """Give (tangent a) b + a (tangent b) + tangent c for a bilinear step a b + c, and its scale, as a `number`."""
    args = step.args
    if step.mutates or len(args) < 2 or not all(isinstance(r, Ref) for r in args[:2]):
        return None
    a, b = (read[r.value] for r in args[:2])
    products = terms(step, a.shape, b.shape)
    if products is None:
        return None
    t_a, t_b, t_c = (tangents.get(r.value) if isinstance(r, Ref) else None for r in (*args[:3], None)[:3])
    parts = [(t_a, b, a if t_a is None else b, args[0]), (a, t_b, a, args[1])]
    parts = [part for part in parts if part[0] is not None and part[1] is not None]
    parts = parts or [(xp.zeros_like(a), b, a, args[0])]
    kwargs, rest = map_refs((dict(step.kwargs), args[3:]), lambda r: read[r.value])
    total: Array | None = None
    scale = scales.get(args[2].value, 0.0) if t_c is not None else 0.0
    root = 1.5 * float(products) ** 0.5
    for first, second, other, ref in parts:
        third = () if len(args) < 3 else (t_c if total is None else None,)
        part = step.target(first, second, *third, *rest, **kwargs)
        if total is None:
            total = part
        else:
            total += part  # in place where arrays can be written to
        size = number(xp.linalg.vector_norm(other)) / max(math.prod(other.shape), 1) ** 0.5
        scale += root * size * scales.get(ref.value, 0.0)
    return [total], scale
