"""Constants of attention on bounded sets: covariances and third cumulants of the rows of K and V under softmax."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.known import extremes, is_local, longest_row
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.softmax import THIRD
from nonsmooth.bounds.reach import Local, Reach, times

__all__: list[str] = []

_UNBOUNDED = "attention is Lipschitz on bounded sets alone, and its {} are unbounded"


@dataclass(frozen=True)
class _Rows:
    """A family of random variables, numbers <row_j, direction of length 1>: their norm over j, and their range."""

    norm: float
    range: float

    @property
    def deviation(self) -> float:
        """Bound the standard deviation, under any probabilities: range / 2."""
        return self.range / 2


_UNIT = _Rows(1.0, sqrt(2))
"""Entries of a vector of length 1."""


def _cumulant(*rows: _Rows) -> float:
    """Bound E (X - EX)(Y - EY)(Z - EZ): .27217 times the norms (Banach), and 1/8 of the ranges (Hoelder)."""
    by_norm, by_range = THIRD, 0.125
    for r in rows:
        by_norm, by_range = float(times(by_norm, r.norm)), float(times(by_range, r.range))
    return min(by_norm, by_range)


def _rows(x: Reach) -> tuple[_Rows, float]:
    """Give the rows of keys or values less what they share, which moves nothing, and the length of the longest."""
    longest = longest_row(x, (len(x.shape) - 1,))
    norm, widest = x.norm, 2 * longest
    if is_local(x):
        center = np.asarray(x.center, float)
        apart = center - center.mean(-2, keepdims=True)
        norm = min(norm, float(np.linalg.norm(apart)) + x.distance)
        widest = min(widest, 2 * sqrt(float(np.max(np.square(apart).sum(-1)))) + sqrt(2) * x.distance)
    if x.shape[-1] == 1:
        low, high = extremes(x)
        widest = min(widest, high - low)
    return _Rows(norm, min(sqrt(2) * norm, widest)), longest


@dataclass(frozen=True)
class _Geometry:
    """How often queries, values and the mask are spread over the heads, and how many probabilities there are."""

    queries: int
    values: int
    mask: int
    rows: int
    length: int
    keys: int
    constant_mask: bool


def _geometry(call: Called) -> _Geometry:
    """Read the shapes: all axes but the last two are heads, over which operands are spread."""
    q, k, v = (u.shape for u in call.operands[:3])
    result = call.shape
    heads = prod(result[:-2])
    length, keys = q[-2], k[-2]
    spread = [heads // max(prod(s[:-2]), 1) for s in (q, v)]
    mask, constant = 1, False
    if len(call.operands) > 3:
        shape = call.operands[3].shape
        constant = not shape or (shape[-1] == 1 and keys > 1)
        mask = heads * length * keys // max(prod(shape), 1) if not constant else 1
    return _Geometry(spread[0], spread[1], mask, heads * length, length, keys, constant)


@bound_operation("scaled_dot_product_attention")
def attention(call: Called) -> Local:
    """Constants of softmax(s Q K' + M) V where |Q|, |K|, |V| are bounded by q, k, v (Frobenius), their rows by q', k', v'.

    With d(K) = min(k / sqrt(2), k'), d(V) likewise, c(.) the bound of third cumulants (.27217 times norms, or 1/8 of ranges):

        l_Q = s d(V) d(K)                l_K = s d(V) q / sqrt(2)        l_V = sqrt(L max p)         l_M = d(V) / sqrt(2)
        L_QQ = s^2 c(V, K, K)            L_QK = s^2 c(V, K, 1) q' + s d(V) / sqrt(2)                 L_QV = s d(K) / sqrt(2)
        L_KK = s^2 c(V, 1, 1) q q'       L_KV = s q / 2                  L_VV = 0

    L queries share keys and values (those of all heads of a group). l_Q, l_K, l_V (for large scores), L_QQ, L_QV, L_KV are
    attained where rows are few; L_KK for one query; L_QK is a sum of two terms that are not attained together. Unbounded
    operands: infinite.

    Source: derived, docs/theory/bounds_constants.md.
    """
    q, k, v = call.operands[:3]
    count = len(call.operands)
    if call.number("dropout_p", 0.0) > 0:
        every = {(i, j): inf for i in range(count) for j in range(i, count)}
        return Local([inf] * count, every, why="dropout of attention weights is random")
    if not call.shape or prod(call.shape) == 0 or k.size == 0:
        return Local([0.0] * count, norm=0.0, low=0.0, high=0.0)
    g = _geometry(call)
    scale = abs(call.number("scale", q.shape[-1] ** -0.5 if q.shape[-1] else 1.0))
    once = sqrt(g.queries)
    keys, _ = _rows(k)
    values, v_row = _rows(v)
    q_row = longest_row(q, (len(q.shape) - 1,))
    q_all = min(once * q.norm, sqrt(g.rows) * q_row)
    top = _largest_probability(call, g, scale, q_row, keys)
    lipschitz = [
        _product(once, scale, values.deviation, keys.deviation),
        _product(scale, values.deviation, q_all, 1 / sqrt(2)),
        sqrt(g.length * g.values * top),
    ]
    smoothness = {
        (0, 0): _product(once, scale, scale, _cumulant(values, keys, keys)),
        (0, 1): _product(once, scale, scale, _cumulant(values, keys, _UNIT), q_row)
        + _product(once, scale, values.deviation, 1 / sqrt(2)),
        (0, 2): _product(once, scale, keys.deviation, 1 / sqrt(2)),
        (1, 1): _product(scale, scale, _cumulant(values, _UNIT, _UNIT), q_all, q_row),
        (1, 2): _product(scale, q_all, 0.5),
    }
    if count > 3:
        _masked(lipschitz, smoothness, g, scale, once, keys, values, q_all, q_row)
    norm = min(sqrt(g.rows) * v_row, _product(lipschitz[2], v.norm))
    low, high = extremes(v)
    if count > 3:
        low, high = min(low, 0.0), max(high, 0.0)
    return Local(lipschitz, smoothness, norm, low, high, why=_why(call))


def _masked(
    lipschitz: list[float],
    smoothness: dict[tuple[int, int], float],
    g: _Geometry,
    scale: float,
    once: float,
    keys: _Rows,
    values: _Rows,
    q_all: float,
    q_row: float,
) -> None:
    """Add the constants of a mask that is added to the scores; one that is the same for all keys does nothing."""
    if g.constant_mask:
        lipschitz.append(0.0)
        return
    often = sqrt(g.mask)
    lipschitz.append(_product(often, values.deviation, 1 / sqrt(2)))
    smoothness[0, 3] = _product(once, scale, _cumulant(values, keys, _UNIT))
    smoothness[1, 3] = _product(scale, _cumulant(values, _UNIT, _UNIT), min(q_all, often * q_row))
    smoothness[2, 3] = often / 2
    smoothness[3, 3] = _product(often, _cumulant(values, _UNIT, _UNIT))


def _product(*factors: float) -> float:
    """Multiply with 0 times infinity = 0."""
    found = 1.0
    for f in factors:
        found = float(times(found, f))
    return found


def _largest_probability(call: Called, g: _Geometry, scale: float, q_row: float, keys: _Rows) -> float:
    """Bound the probabilities by the spread of the scores; 1 where some may be masked away."""
    if call.attributes.get("is_causal") or call.attributes.get("boolean_mask"):
        return 1.0
    spread = _product(scale, q_row, keys.range)
    if len(call.operands) > 3 and not g.constant_mask:
        low, high = extremes(call.operands[3])
        spread += high - low
    if not spread < 700:
        return 1.0
    return min(1.0, 1 / (1 + (g.keys - 1) * exp(-spread)) * (1 + 1e-14))


def _why(call: Called) -> str:
    """Say which operands are unbounded."""
    names = [n for n, u in zip(("queries", "keys", "values"), call.operands, strict=False) if u.norm == inf]
    return _UNBOUNDED.format(" and ".join(names)) if names else ""
