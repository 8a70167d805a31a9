"""Constants of softmax, its logarithm and the logarithm of sums of powers: variances and third cumulants under softmax(u).

Along an axis of n entries with p = softmax(u), in directions of length 1: D logsumexp = <p, v>, D^2 = Var_p(v) and
D^3 = E_p (v - <p, v>)^3, and softmax is the gradient of logsumexp.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.known import extremes, is_local
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Local, Reach

__all__ = ["THIRD", "Likely", "likely"]

THIRD = sqrt(2 / 27) * (1 + 2**-50)
"""sup |E_p (v - <p, v>)^3| over p and |v| = 1: .272166, of two points with the probabilities (1 +- 1/sqrt(3))/2."""

_FAR = 40.0
"""A difference of the entries from which on probabilities are taken to be anything."""


@dataclass(frozen=True)
class Likely:
    """What softmax reaches on a set, row by row: n entries a row, probabilities in an interval, and what follows from it.

    `spread` bounds the difference of two entries of a row, `first` is a bound of ||diag(p) - p p'||, `second` of the
    third cumulants.
    """

    n: int
    rows: int
    low: float
    high: float
    spread: float
    first: float
    second: float


def likely(x: Reach, axes: tuple[int, ...], masked: bool = False) -> Likely:
    """Give what softmax along axes reaches: with p in [a, b] for all entries,

        ||diag(p) - p p'|| <= min(1/2, b, 2 max p (1 - p)),    third cumulants <= min(.27217, sqrt(2) times that)

    by Gershgorin's discs and since |v - <p, v>| <= sqrt(2) |v|. Where entries may be masked, nothing is known of p.

    Source: derived, docs/theory/bounds_constants.md.
    """
    n = prod(x.shape[a] for a in axes)
    rows = x.size // n if n else 0
    if n <= 1 or rows == 0:
        return Likely(n, rows, 1.0, 1.0, 0.0, 0.0, 0.0)
    least, most = extremes(x)
    spread = min(most - least, sqrt(2) * x.norm)
    if masked:
        return Likely(n, rows, 0.0, 1.0, spread, 0.5, THIRD)
    low, high = _probabilities(n, spread)
    each = [_product(low, high)]
    if is_local(x) and x.distance < _FAR:
        low, high, each = _about_center(x, axes, low, high)
        centers = np.asarray(x.center, float)
        width = float(np.max(centers.max(axes) - centers.min(axes)))
        spread = min(spread, width + sqrt(2) * x.distance)
    first = min(0.5, high, 2 * max(each))
    return Likely(n, rows, low, high, spread, first, min(THIRD, sqrt(2) * first))


def _probabilities(n: int, spread: float) -> tuple[float, float]:
    """Bound the probabilities of n entries that differ by `spread` at most."""
    if spread > 700:
        return 0.0, 1.0
    return 1 / (1 + (n - 1) * exp(spread)) * (1 - 1e-14), min(1 / (1 + (n - 1) * exp(-spread)) * (1 + 1e-14), 1.0)


def _product(low: float, high: float) -> float:
    """Give max p (1 - p) on an interval."""
    return 0.25 if low <= 0.5 <= high else max(low * (1 - low), high * (1 - high))


def _about_center(x: Reach, axes: tuple[int, ...], low: float, high: float) -> tuple[float, float, list[float]]:
    """Bound probabilities about those at the center, where differences of entries move by sqrt(2) times the distance."""
    u = np.asarray(x.center, float)
    powers = np.exp(u - u.max(axes, keepdims=True))
    p = powers / powers.sum(axes, keepdims=True)
    moved = exp(sqrt(2) * x.distance)
    with np.errstate(divide="ignore"):
        odds = (1 - p) / p
        odds = np.where(p > 0.5, (powers.sum(axes, keepdims=True) - powers) / np.maximum(powers, 1e-300), odds)
    bottom = np.clip(1 / (1 + odds * moved) * (1 - 1e-12), low, high)
    top = np.clip(1 / (1 + odds / moved) * (1 + 1e-12), low, high)
    half = (bottom <= 0.5) & (top >= 0.5)
    each = np.where(half, 0.25, np.maximum(bottom * (1 - bottom), top * (1 - top)))
    # what rounding takes off 1 - p where p is next to 1
    return float(bottom.min()), float(top.max()), [float(each.max()) + 1e-15]


def _pulled(call: Called) -> Local | None:
    """Refuse a pullback: its operands are a cotangent and a value, not the entries."""
    if not call.attributes.get("pullback"):
        return None
    count = len(call.operands)
    return Local([inf] * count, {(i, j): inf for i in range(count) for j in range(i, count)}, why="it is a pullback")


def _axes(call: Called) -> tuple[int, ...]:
    """Give the axes along which the operation runs."""
    axes = call.attributes["axes"]
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _padded(call: Called, lipschitz: float) -> list[float]:
    """Give a constant for the entries, and 0 for a mask."""
    return [lipschitz, *[0.0] * (len(call.operands) - 1)]


@bound_operation("softmax")
def softmax(call: Called) -> Local:
    """Constants of softmax: l = 1/2, L = sqrt(2/27) = .27217, both attained; 0 <= p <= 1, ||p|| <= 1 in each row.

    On sets on which probabilities stay away from 1/2 they are smaller (`likely`): upper bounds there.

    Source: derived, docs/theory/bounds_constants.md (RouletHarchaoui2019 prints 2 and 4).
    """
    if (refused := _pulled(call)) is not None:
        return refused
    known = likely(call.x, _axes(call), "mask" in call.given)
    norm = sqrt(known.rows * min(1.0, known.high))
    return Local(_padded(call, known.first), {(0, 0): known.second}, norm, known.low, known.high)


@bound_operation("log_softmax")
def log_softmax(call: Called) -> Local:
    """Constants of u - logsumexp(u) on R^n: l = sqrt(n), L = sqrt(n)/2; its derivative I - 1 p' has the norm sqrt(n) |p|.

    Both are attained, the first one as p tends to a corner. A single entry of it has sqrt(2) and 1/2 (`cross_entropy`).

    Source: derived, docs/theory/bounds_constants.md.
    """
    if (refused := _pulled(call)) is not None:
        return refused
    x = call.x
    known = likely(x, _axes(call))
    n = known.n
    if n <= 1:
        return Local([0.0], norm=0.0, low=0.0, high=0.0)
    slope, curved = sqrt(n * min(1.0, known.high)), sqrt(n) * known.first
    low = -(known.spread + log(n))
    high = 0.0 if known.high >= 1 else log(known.high)
    norm = sqrt(x.size) * log(n) + slope * x.norm
    return Local(_padded(call, slope), {(0, 0): curved}, norm, low, high)


@bound_operation("logsumexp")
def logsumexp(call: Called) -> Local:
    """Constants of log sum exp u: l = 1 (|p|, attained at a corner), L = 1/2, and it is between max u and max u + log n.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    known = likely(x, _axes(call))
    if known.n == 0:
        return Local([0.0])
    low, high = extremes(x)
    most = high + log(known.n)
    bottom, top = low + log(known.n), most
    norm = x.norm + sqrt(known.rows) * log(known.n)
    return Local([sqrt(min(1.0, known.high))], {(0, 0): known.first}, norm, bottom, top)


@bound_operation("logcumsumexp")
def logcumsumexp(call: Called) -> Local:
    """Constants of log(exp u_1 + ... + exp u_k), k = 1, ..., n: l = sqrt(n), L = sqrt(n - 1)/2, attained in the limit
    of entries after the first, or the second, that vanish.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    axes = _axes(call)
    n = prod(x.shape[a] for a in axes)
    if n == 0 or x.size == 0:
        return Local([0.0], norm=0.0)
    rows = x.size // n
    low, high = extremes(x)
    norm = sqrt(n) * x.norm + sqrt(rows * sum(log(k) ** 2 for k in range(1, n + 1)))
    return Local([sqrt(n)], {(0, 0): sqrt(n - 1) / 2}, norm, low, high + log(n))
