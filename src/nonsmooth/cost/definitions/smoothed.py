"""Smoothed operations: averages of functions that are linear between kinks, and the smoothed maximum."""

from __future__ import annotations

from math import isinf, log

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


@define("smoothed_pieces")
def smoothed_pieces(call: Called) -> Numbers:
    """a(u) + sum_j (s_j - s_{j-1}) max(width - |u - b_j|, 0)^2 / (4 width), a linear with the slopes s between the b_j."""
    u, a = call.x, call.attributes
    width, breakpoints, slopes = a["width"], a["breakpoints"], a["slopes"]
    ends = (*breakpoints, float("inf"))
    total: Numbers = (u - ends[0]).apply("min", 0.0) * slopes[0] + a["value"]
    for j, b in enumerate(breakpoints):
        part = (u - b).apply("max", 0.0)
        part = part if isinf(ends[j + 1]) else part.apply("min", ends[j + 1] - b)
        bump = (-(u - b).apply("abs") + width).apply("max", 0.0)
        total = total + part * slopes[j + 1] + bump * bump * ((slopes[j + 1] - slopes[j]) / (4 * width))
    return total


@define("smoothed_max")
def smoothed_max(call: Called) -> Numbers:
    """T (m + log(sum exp(u / T - m)) - log(K) / 2), m the largest u / T, through which nothing is differentiated."""
    width, axis = call.attributes["temperature"], len(call.x.shape) - 1
    x = call.x * (1 / width)
    top = x.detached().largest((axis,), keep=True)
    whole = (x - top).apply("exp").sum((axis,), keep=True).apply("log") + top
    found: Numbers = (whole.alias(call.shape, lambda a: a.reshape(call.shape)) - log(call.x.shape[-1]) / 2) * width
    return found
