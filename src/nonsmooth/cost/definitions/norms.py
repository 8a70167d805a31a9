"""Norms, and distances as norms of differences."""

from __future__ import annotations

import math

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Axes, Numbers

__all__ = ["norm_along"]


def norm_along(x: Numbers, p: float, axes: Axes) -> Numbers:
    """(sum |u|^p)^(1/p): sums and a root for p = 2, sums for p = 1, comparisons for p = inf, a count for p = 0."""
    if p == 2:
        return x.apply("square").sum(axes).apply("sqrt")
    if p == 0:
        zero = x.detached().equals(0.0)
        return zero.known(x.shape, lambda u: 1.0 - u, zero).sum(axes)
    size = x.apply("abs")
    if math.isinf(p):
        return size.largest(axes)
    return size.sum(axes) if p == 1 else size.apply("pow", p).sum(axes).apply("pow", 1 / p)


def _exponent(call: Called, name: str = "p") -> float:
    """Read the exponent; 2 if there is none."""
    found = call.attributes.get(name)
    return 2.0 if found is None else float(found)


@define("vector_norm", "norm", "norm_singular", "norm_zero")
def norm(call: Called) -> Numbers:
    """(sum |u|^p)^(1/p) along axes."""
    p = _exponent(call, "ord" if "ord" in call.attributes else "p")
    return norm_along(call.x, p, call.attributes["axes"]).alias(call.shape, lambda a: a.reshape(call.shape))


@define("dist")
def distance(call: Called) -> Numbers:
    """|u - v|."""
    return norm_along(call.operands[0] - call.operands[1], _exponent(call), None)


@define("cdist")
def distances(call: Called) -> Numbers:
    """|u_i - v_j| for all rows: differences, not the products that a framework may prefer."""
    u, v = call.operands
    rows, columns = (*u.shape[:-1], 1, u.shape[-1]), (*v.shape[:-2], 1, *v.shape[-2:])
    differences = u.alias(rows, lambda a: a.reshape(rows)) - v.alias(columns, lambda a: a.reshape(columns))
    return norm_along(differences, _exponent(call), differences.ndim - 1)


@define("pdist")
def own_distances(call: Called) -> Numbers:
    """|u_i - u_j| for i < j."""
    n, width = call.x.shape
    shape = (n * (n - 1) // 2, width)
    one, two = (call.x.alias(shape, lambda a, k=k: a[np.triu_indices(n, 1)[k]]) for k in (0, 1))
    return norm_along(one - two, _exponent(call), 1)
