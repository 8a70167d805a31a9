"""What records ask of an operand: its extremes, its longest row, how far from 0 it stays, which argument it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.entries import least_size
from nonsmooth.bounds.constants.record import Called
from nonsmooth.bounds.reach import Floats, Reach, wide

__all__ = ["extremes", "is_local", "least_size_of", "longest_row", "operand", "place", "sizes"]


def is_local(x: Reach) -> bool:
    """Tell whether the center says more of a value than its norm: the set is small beside its distance from 0."""
    return x.center is not None and x.distance < x.norm and x.size > 0


def _is_complex(x: Reach) -> bool:
    """Tell complex values, which have no interval."""
    return x.center is not None and np.iscomplexobj(x.center)


def extremes(x: Reach) -> tuple[float, float]:
    """Give one interval of all entries."""
    if x.size == 0:
        return 0.0, 0.0
    if _is_complex(x):
        return -x.norm, x.norm
    low, high = max(float(np.min(x.low)), -x.norm), min(float(np.max(x.high)), x.norm)
    if is_local(x):
        low, high = max(low, x.sizes.low - x.distance), min(high, x.sizes.high + x.distance)
    return low, high


def least_size_of(x: Reach) -> Floats:
    """Give a lower bound of the size of each entry, in a shape that spreads over that of the operand."""
    if _is_complex(x):
        found: Floats = np.maximum(np.abs(wide(x.center)) - x.distance, 0.0)
        return found
    return least_size(x.interval)


def longest_row(x: Reach, axes: Sequence[int]) -> float:
    """Give a bound of the norms of all rows along axes."""
    if x.size == 0:
        return 0.0
    low, high = extremes(x)
    n = prod(x.shape[a] for a in axes)
    found = min(x.norm, sqrt(n) * max(abs(low), abs(high)))
    if is_local(x):
        squares = np.square(np.abs(wide(x.center))).sum(tuple(axes))
        found = min(found, float(np.sqrt(np.max(squares))) + x.distance)
    return found


def place(call: Called, name: str, default: int | None = None) -> int | None:
    """Give the place of an operand by the name of its argument; where the framework has no names, the default."""
    if not any(call.given):
        return default if default is not None and default < len(call.operands) else None
    return call.given.index(name) if name in call.given else None


def operand(call: Called, name: str, default: int | None = None) -> Reach | None:
    """Give an operand by the name of its argument; None if it was left out."""
    at = place(call, name, default)
    return None if at is None else call.operands[at]


def sizes(x: Reach) -> float:
    """Give max |x_i| without touching what is not known by entries."""
    low, high = extremes(x)
    return max(abs(low), abs(high)) if low > -inf or high < inf else inf
