"""Sums, products, variances and order along axes, and their partial results."""

from __future__ import annotations

from math import cos, inf, isfinite, pi, prod, sin, sqrt

import numpy as np

from nonsmooth.bounds.constants.affine import entries, nonnegative, of_each
from nonsmooth.bounds.constants.known import extremes, is_local
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, times
from nonsmooth.bounds.sizes import UNIT
from nonsmooth.program.windows import meetings

__all__: list[str] = []


def _terms(call: Called) -> int:
    """Count the entries that go into one entry of the result."""
    return call.x.size // max(prod(call.shape), 1)


def _along(call: Called) -> int:
    """Count the entries along the axis on which partial results are kept."""
    axes = call.attributes.get("axes", (0,))
    return call.x.shape[axes if isinstance(axes, int) else axes[0]] if call.x.shape else 1


def _rest(call: Called) -> list[float]:
    """Give zeros for the operands behind the first."""
    return [0.0] * (len(call.operands) - 1)


# --- sums -------------------------------------------------------------------------------------------------------------


def _sums(call: Called, norm: float, least: float, most: float) -> Local:
    """Give the constants of sums with coefficients 0 or c > 0, which add up to between `least` and `most`."""
    grown = float(times(norm, call.x.norm))
    if of_each([call.x]):
        return nonnegative(call, [norm, *_rest(call)], (0,), most)
    ends = extremes(call.x)
    row = float(times(sqrt(most), call.x.norm)) if most >= 1 else inf
    low = max(min(float(times(n, ends[0])) for n in (least, most)), -row)
    high = min(max(float(times(n, ends[1])) for n in (least, most)), row)
    slack = 4 * (call.x.size + 4) * UNIT * max(abs(low), abs(high)) if isfinite(low) and isfinite(high) else 0.0
    return Local([norm, *_rest(call)], {}, grown, low - slack, high + slack)


@bound_operation("sum", "nansum")
def total(call: Called) -> Local:
    """Sums of n entries: l = sqrt(n). Tight. Sums over windows: Schur's test along each axis, tight for disjoint ones."""
    if "additions" in call.attributes:
        a = call.attributes
        names = ("spatial", "kernel", "stride", "padding", "base_dilation", "dilation")
        windows = [meetings(*row) for row in zip(*(a[n] for n in names), strict=True)]
        norm = sqrt(prod(m.per_entry * m.per_result for m in windows))
        return _sums(call, norm, 0.0, float(prod(m.per_result for m in windows)))
    n = float(_terms(call))
    return _sums(call, sqrt(n), n, n)


@bound_operation("mean")
def mean(call: Called) -> Local:
    """Means of n entries: l = 1 / sqrt(n). Tight."""
    n = _terms(call)
    return _sums(call, 1 / sqrt(n) if n else 0.0, 1.0, 1.0)


@bound_operation("trace")
def trace(call: Called) -> Local:
    """The sum of a diagonal of n entries: l = sqrt(n). Tight."""
    n = float(min(call.x.shape))
    return _sums(call, sqrt(n), n, n)


@bound_operation("cumsum")
def partial_sums(call: Called) -> Local:
    """u_1, u_1 + u_2, ...: l = 1 / (2 sin(pi / (4 n + 2))), the norm of a triangle of ones. Tight.

    The inverse of L L' is tridiagonal, with eigenvalues 4 sin^2((2 k - 1) pi / (4 n + 2)).
    """
    n = _along(call)
    return _sums(call, (1 + 1e-14) / (2 * sin(pi / (4 * n + 2))) if n else 0.0, min(n, 1.0), float(n))


@bound_operation("diff")
def differences(call: Called) -> Local:
    """u_(i+1) - u_i of n entries: l = 2 cos(pi / (2 n)), tight; of a higher order: the product of such bounds.

    Arrays that are put before or behind are part of the row: their squares add.
    """
    axes = call.attributes.get("axes", (0,))
    axis = axes if isinstance(axes, int) else axes[0]
    n = sum(u.shape[axis] for u in call.operands if u.shape)
    order = int(call.attributes.get("n", 1))
    norm = prod(2 * cos(pi / (2 * (n - k))) * (1 + 1e-14) if n - k > 0 else 0.0 for k in range(order))
    ends = [extremes(u) for u in call.operands if u.size]
    low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
    wide = high - low if isfinite(low) and isfinite(high) else inf
    bound = 2.0 ** (order - 1) * wide if order else max(abs(low), abs(high))
    bound *= 1 + 4 * (order + 1) * UNIT
    grown = norm * sqrt(sum(u.norm**2 for u in call.operands))
    return Local([norm] * len(call.operands), {}, grown, -bound, bound, stacked=len(call.operands) > 1)


# --- products ---------------------------------------------------------------------------------------------------------


def _power(base: float, exponent: int) -> float:
    """Give base^exponent, infinite where it leaves the numbers."""
    try:
        return float(base**exponent) if exponent >= 0 else 0.0
    except OverflowError:
        return inf


def _product(n: int, row: float, peak: float) -> tuple[float, float, float]:
    """Bound a product of n entries with their norm and peak, the norms of its gradient and of its Hessian.

    With q = row / sqrt(n) (Maclaurin's inequality of the squares): q^n, sqrt(n) q^(n-1), and the lesser of
    sqrt(n (n-1)) q^(n-2), the Frobenius norm, and (n-1) peak^(n-2), the largest sum of a row.
    """
    if n == 0:
        return 1.0, 0.0, 0.0
    q = min(row / sqrt(n), peak)
    hessian = 0.0 if n == 1 else min(sqrt(n * (n - 1)) * _power(q, n - 2), (n - 1) * _power(peak, n - 2))
    return _power(q, n), sqrt(n) * _power(q, n - 1), hessian


@bound_operation("prod")
def product(call: Called) -> Local:
    """Products of n entries: l = sqrt(n) q^(n-1), L = min(sqrt(n (n-1)) q^(n-2), (n-1) peak^(n-2)), q = row / sqrt(n).

    Attained where all entries are as large as they may be.
    """
    n, peak = _terms(call), call.x.peak
    value, slope, bend = _product(n, min(call.x.norm, float(times(sqrt(n), peak))), peak)
    low, high = extremes(call.x)
    least, most = -value, value
    if low >= 0:
        least, most = _power(low, n), min(value, _power(high, n))
    slack = 1 + 4 * (n + 4) * UNIT
    return Local(
        [slope * slack, *_rest(call)],
        {(0, 0): bend * slack},
        sqrt(prod(call.shape)) * value * slack,
        least / slack if least > 0 else least * slack,
        most * slack,
    )


@bound_operation("cumprod")
def partial_products(call: Called) -> Local:
    """u_1, u_1 u_2, ...: l^2 = sum_k l_k^2 and L^2 = sum_k L_k^2 of the products of k entries. An upper bound, not tight."""
    n, peak = _along(call), call.x.peak
    parts = [_product(k, min(call.x.norm, float(times(sqrt(k), peak))), peak) for k in range(1, n + 1)]
    slope, bend = (sqrt(sum(p[i] * p[i] for p in parts)) for i in (1, 2))
    bound = max((p[0] for p in parts), default=0.0)
    slack = 1 + 4 * (n + 4) * UNIT
    least = 0.0 if extremes(call.x)[0] >= 0 else -bound * slack
    norm = sqrt(prod(call.shape)) * bound * slack
    return Local([slope * slack, *_rest(call)], {(0, 0): bend * slack}, norm, least, bound * slack)


# --- variances --------------------------------------------------------------------------------------------------------


def _freedom(call: Called) -> float:
    """Give n - correction, the number by which sums of squares are divided."""
    n, correction = _terms(call), call.attributes.get("correction")
    if correction is None and not call.given and call.x.size and n > 1:
        unit = np.zeros(call.x.shape)
        unit.reshape(-1)[0] = 1.0
        found = call.evaluate(unit)
        if found is not None and float(np.max(found)) > 0:
            return round((1 - 1 / n) / float(np.max(found)), 9)
    if correction is None:
        correction = 0.0 if call.attributes.get("unbiased") is False else 1.0
    return n - float(correction)


def _deviation(call: Called) -> float:
    """Bound ||u - mean|| of all rows."""
    n = _terms(call)
    low, high = extremes(call.x)
    row = min(call.x.norm, sqrt(n) * (high - low) / 2 if isfinite(low) and isfinite(high) else inf)
    if not is_local(call.x) or call.x.center is None or not call.x.size:
        return row
    axes = call.attributes.get("axes")
    chosen = tuple(range(len(call.x.shape))) if axes is None else tuple(axes) if not isinstance(axes, int) else (axes,)
    center = np.asarray(call.x.center, float)
    squares = np.square(center - center.mean(chosen, keepdims=True)).sum(chosen)
    return min(row, float(np.sqrt(np.max(squares))) * (1 + 1e-12) + call.x.distance)


@bound_operation("var")
def variance(call: Called) -> Local:
    """Give sum (u - mean)^2 / (n - c): l = 2 sup ||u - mean|| / (n - c), L = 2 / (n - c). Tight.

    The deviation is at most ||u||, and sqrt(n) / 2 times the width of the interval of the entries.
    """
    free, most = _freedom(call), _deviation(call)
    if free <= 0 or _terms(call) == 0:
        return Local(
            [inf, *_rest(call)], {(0, 0): inf}, inf, why="`var` divides by n - correction, which is not positive"
        )
    slope = 2 * most / free
    bound = float(times(most, most)) / free * (1 + 1e-12)
    return Local([slope, *_rest(call)], {(0, 0): 2 / free}, float(times(most, call.x.norm)) / free, 0.0, bound)


# --- order ------------------------------------------------------------------------------------------------------------


def _chosen(call: Called, norm: float, one: bool) -> Local:
    """Give the constants of entries that are chosen by their order: kinks where they tie, unless there is one alone."""
    why = "" if one else f"`{call.operation}` has kinks where entries tie"
    low, high = entries(call, (0,))
    grown = float(times(norm, call.x.norm))
    return Local([norm, *_rest(call)], {(0, 0): 0.0 if one else inf}, grown, low, high, why=why)


@bound_operation("max", "min", "max_dim", "min_dim", "amax", "amin", "median", "nanmedian", "kthvalue")
def extremum(call: Called) -> Local:
    """An entry of some rank of each row: l = 1, L infinite where entries may tie. Tight.

    |rank_k(u) - rank_k(v)| <= max_i |u_i - v_i| <= ||u - v|| in each row, and rows are apart.
    """
    return _chosen(call, 1.0, _terms(call) <= 1)


@bound_operation("sort", "topk")
def sorted_entries(call: Called) -> Local:
    """Entries by rank, all or some: l = 1, L infinite where entries may tie. Tight.

    By the inequality of rearrangements <u, v> <= <sort u, sort v>, so that ||sort u - sort v|| <= ||u - v||; the first k
    ranks are a part of it.
    """
    return _chosen(call, 1.0, _along(call) <= 1)


@bound_operation("cummax", "cummin")
def extremes_so_far(call: Called) -> Local:
    """The largest entry so far: l = sqrt(n), L infinite where entries may tie. Attained where the first entry is largest."""
    n = _along(call)
    return _chosen(call, sqrt(n), n <= 1)


@bound_operation("mode")
def most_frequent(call: Called) -> Local:
    """The most frequent entry of each row jumps: no constant; its entries are entries."""
    why = "`mode` jumps where another entry becomes as frequent"
    if _along(call) <= 1:
        return _chosen(call, 1.0, True)
    low, high = extremes(call.x)
    peak: Floats | float = call.x.peak
    return Local([inf, *_rest(call)], {(0, 0): inf}, float(times(sqrt(prod(call.shape)), peak)), low, high, why=why)
