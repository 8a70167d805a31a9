"""The constants of smoothed operations: of averaged functions that were linear between kinks, and of the smoothed maximum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf, log, sqrt

import numpy as np

from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.scalar import ScalarFunction, entrywise
from nonsmooth.bounds.reach import Floats, Local

__all__ = ["averaged"]


def averaged(width: float, breakpoints: Sequence[float], slopes: Sequence[float], value: float) -> ScalarFunction:
    """Give the average over [t - width, t + width] of a function that is linear between breakpoints.

        a(t) + sum_j (s_j - s_{j-1}) max(width - |t - b_j|, 0)^2 / (4 width),   a'' = sum of (s_j - s_{j-1}) / (2 width)

    over the j with |t - b_j| < width: a' is continuous and linear between the points b_j - width, b_j + width.

    >>> relu = averaged(1.0, (0.0,), (0.0, 1.0), 0.0)
    >>> relu.value(np.array([-2.0, 0.0, 2.0])).tolist(), relu.curvature(np.array(-5.0), np.array(5.0)).item()
    ([0.0, 0.25, 2.0], 0.500000000000005)
    """
    ends, jumps = (*breakpoints, inf), np.diff(np.asarray(slopes, float))

    def a(t: Floats) -> Floats:
        total = value + np.where(t < ends[0], slopes[0] * np.minimum(t - ends[0], 0.0), 0.0) if slopes[0] else value
        total = total + np.zeros(np.shape(t))
        for j, b in enumerate(breakpoints):
            if slopes[j + 1]:
                total = total + slopes[j + 1] * np.clip(t - b, 0.0, ends[j + 1] - b)
            total = total + jumps[j] / (4 * width) * np.square(np.maximum(width - np.abs(t - b), 0.0))
        return total

    def first(t: Floats) -> Floats:
        total = np.full(np.shape(t), float(slopes[0]))
        for b, jump in zip(breakpoints, jumps, strict=True):
            total = total + jump * np.clip((t - b) / (2 * width) + 0.5, 0.0, 1.0)
        return total

    def second(t: Floats) -> Floats:
        inside = [
            np.where(np.abs(t - b) < width, jump / (2 * width), 0.0) for b, jump in zip(breakpoints, jumps, strict=True)
        ]
        return sum(inside, np.zeros(np.shape(t)))

    corners = tuple(sorted({b + side for b in breakpoints for side in (-width, width)}))
    turns = list(corners)
    for left, right in pairwise(corners):
        at, after = (float(first(np.array(p))) for p in (left, right))
        if at * after < 0:
            turns.append(left + (right - left) * at / (at - after))
    return ScalarFunction(a, first, second, turns=tuple(turns), corners=corners)


@bound_operation("smoothed_pieces")
def smoothed_pieces(call: Called) -> Local:
    """The average of a function that is linear between kinks: slopes among its own, curvature at most jump / (2 width)."""
    a = call.attributes
    return entrywise(averaged(a["width"], a["breakpoints"], a["slopes"], a["value"]), call.x, "smoothed_pieces")


@bound_operation("smoothed_max")
def smoothed_max(call: Called) -> Local:
    """Give T (log sum_k exp(u_k / T) - log(K) / 2): l = 1, L = 1 / (2 T), at most T log(K) / 2 from the maximum.

    The gradient is the softmax p, of norm at most 1, and the second derivative (diag p - p p') / T has the norm 1 / (2 T)
    at most. Tuples of entries stand side by side: the largest of their constants holds for all.

    Source: BeckTeboulle2012.
    """
    width, count = call.number("temperature", 1.0), call.x.shape[-1]
    error = width * log(count) / 2
    low, high = extremes(call.x)
    size = call.x.size // max(count, 1)
    bend = 0.5 / width if count > 1 else 0.0
    return Local([1.0], {(0, 0): bend}, call.x.norm + sqrt(size) * error, low - error, high + error)
