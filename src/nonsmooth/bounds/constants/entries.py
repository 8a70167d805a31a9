"""Functions of several numbers over the entries of arrays that are spread over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nonsmooth.bounds.constants.record import Called
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times

__all__ = [
    "Flags",
    "Interval",
    "copies",
    "entries",
    "gathered",
    "largest",
    "least_size",
    "product",
    "same_everywhere",
    "total",
]

Interval: TypeAlias = tuple[Floats, Floats]
Flags: TypeAlias = NDArray[np.bool_]


def copies(part: Shape, result: Shape) -> int:
    """Count the copies of an entry of an array that is spread over a shape.

    >>> copies((3, 1), (2, 3, 4))
    8
    """
    return prod(result) // max(prod(part), 1)


def gathered(weights: ArrayLike, part: Shape, result: Shape) -> float:
    """Give the norm of the map that spreads an array over a shape and multiplies its entries with weights.

        max_k (sum of w_i^2 over the copies i of the entry k)^(1/2)

    >>> gathered(1.0, (3,), (4, 3)), gathered([[3.0, 1.0], [4.0, 1.0]], (2,), (2, 2))
    (2.0, 5.0)
    """
    sizes: Floats = np.abs(np.asarray(weights, float))
    if not prod(result) or not sizes.size:
        return 0.0
    peak = float(np.max(sizes))
    if peak == 0 or not peak < inf:
        return peak
    squares = np.square(sizes / peak).reshape((1,) * (len(result) - sizes.ndim) + sizes.shape)
    count = 1
    for axis, (n, size) in enumerate(zip((1,) * (len(result) - len(part)) + part, result, strict=True)):
        if n == 1 and size > 1:
            if squares.shape[axis] == 1:
                count *= size
            else:
                squares = np.sum(squares, axis=axis, keepdims=True)
    return peak * sqrt(count * float(np.max(squares)))


def entries(
    call: Called,
    firsts: Sequence[ArrayLike],
    seconds: Mapping[tuple[int, int], ArrayLike],
    interval: tuple[ArrayLike, ArrayLike],
    *,
    norms: Mapping[int, float] | None = None,
    norm: float = inf,
    stacked: bool = False,
    why: str = "",
    slopes: tuple[ArrayLike, ArrayLike] | None = None,
) -> Local:
    """Give the constants of an operation z_i = f(u_i, v_i, ...) on entries from bounds of the partial derivatives of f.

        ||D_u z|| <= max_k (sum of |f_u|^2 over the copies of u_k)^(1/2)
        ||D_u D_v z|| <= max_kl (sum of |f_uv|^2 over the entries where u_k meets v_l)^(1/2)

    Proof: ||(f_uv h k)||^2 = sum_kl h_k^2 k_l^2 (sum of f_uv^2 where both meet), and sum_kl h_k^2 k_l^2 <= 1. `norms` are
    further bounds of ||D_u z||. `slopes` are those in the first operand, and kept where nothing else moves.

    Source: derived, docs/theory/bounds.md.
    """
    shapes = [u.shape for u in call.operands]
    lipschitz = [gathered(w, s, call.shape) for w, s in zip(firsts, shapes, strict=True)]
    for place, bound in (norms or {}).items():
        lipschitz[place] = min(lipschitz[place], bound)
    smoothness = {
        (i, j): gathered(w, np.broadcast_shapes(shapes[i], shapes[j]), call.shape) for (i, j), w in seconds.items()
    }
    own = slopes is not None and call.x.shape == call.shape and not any(u.moves for u in call.operands[1:])
    return Local(
        lipschitz,
        smoothness,
        norm,
        np.asarray(interval[0], float),
        np.asarray(interval[1], float),
        stacked=stacked,
        why=why,
        slopes=(np.asarray(slopes[0], float), np.asarray(slopes[1], float)) if own and slopes else None,
    )


# --- intervals --------------------------------------------------------------------------------------------------------


def total(a: Interval, b: Interval) -> Interval:
    """Give the interval of a + b."""
    with np.errstate(invalid="ignore"):
        low, high = a[0] + b[0], a[1] + b[1]
    return np.where(np.isnan(low), -inf, low), np.where(np.isnan(high), inf, high)


def product(a: Interval, b: Interval) -> Interval:
    """Give the interval of a b: that of the products of their ends, with 0 times infinity = 0."""
    ends = [times(p, q) for p in a for q in b]
    return np.minimum.reduce(ends), np.maximum.reduce(ends)


def largest(interval: Interval) -> Floats:
    """Give the largest |u| on intervals."""
    return np.maximum(np.abs(interval[0]), np.abs(interval[1]))


def least_size(interval: Interval) -> Floats:
    """Give the least |u| on intervals."""
    return np.maximum(np.maximum(interval[0], -interval[1]), 0.0)


def same_everywhere(u: Reach) -> float | None:
    """Give the number that a value is at every entry, if it does not move and is one."""
    if u.center is None or u.moves or u.distance > 0 or np.asarray(u.center).size == 0:
        return None
    first = float(np.asarray(u.center).flat[0])
    return first if np.all(np.asarray(u.center) == first) else None
