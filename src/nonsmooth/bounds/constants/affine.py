"""Affine operations: their norms by counts of copies or by Schur's test, and the entries that they give."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.record import Called
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times
from nonsmooth.bounds.sizes import UNIT

__all__ = ["copies_of", "entries", "is_fixed", "linear_norm", "moved", "nonnegative", "of_each"]

Interval = tuple[Floats, Floats]


def is_fixed(x: Reach) -> bool:
    """Tell an operand whose value is known: it stands at its center."""
    return x.center is not None and x.distance == 0


def of_each(operands: Sequence[Reach]) -> bool:
    """Tell whether the entries of some operand have intervals of their own."""
    return any(u.low.shape or u.high.shape for u in operands)


def entries(call: Called, places: Sequence[int], *others: float) -> Interval:
    """Enclose entries that are entries of operands, or other numbers.

    One interval for all where operands have one; else the operation itself moves the ends of the intervals.
    """
    chosen = [call.operands[p] for p in places]
    ends = [extremes(u) for u in chosen if u.size] + [(v, v) for v in others]
    low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
    if of_each(chosen):
        found = [_evaluated(call, places, side) for side in (0, 1)]
        if found[0] is not None and found[1] is not None:
            return np.maximum(found[0], low), np.minimum(found[1], high)
    return np.asarray(low, float), np.asarray(high, float)


def _evaluated(call: Called, places: Sequence[int], side: int) -> Floats | None:
    """Run the operation on one end of the intervals."""
    taken: list[Floats | None] = [None] * len(call.operands)
    for p in places:
        u = call.operands[p]
        taken[p] = np.array(np.broadcast_to(u.interval[side], u.shape))
    if any(t is None and u.center is None and not u.moves for t, u in zip(taken, call.operands, strict=True)):
        return None
    found = call.evaluate(*taken)
    if found is None or np.shape(found) != call.shape or np.any(np.isnan(found)):
        return None
    return np.asarray(found, float)


def moved(
    call: Called,
    norms: Sequence[float],
    places: Sequence[int] = (0,),
    others: Sequence[float] = (),
    *,
    apart: bool = True,
) -> Local:
    """Give the constants of an operation that moves entries: norms of its parts, one for each operand.

    `apart`: the parts go into different places of the result, so that they add as squares.
    """
    lengths = [float(times(c, u.norm)) for c, u in zip(norms, call.operands, strict=True)]
    constant = sqrt(prod(call.shape)) * max((abs(v) for v in others), default=0.0)
    grown = sqrt(sum(v * v for v in (*lengths, constant))) if apart else sum(lengths) + constant
    stacked = apart and sum(c > 0 for c in norms) > 1
    return Local(list(norms), {}, grown, *entries(call, places, *others), stacked=stacked)


def copies_of(call: Called, place: int, most: float) -> float:
    """Count the copies of the entry that is copied most often: by the pullback of ones, else at most `most`."""
    u = call.operands[place]
    fixed = all(i == place or is_fixed(v) or v.moves for i, v in enumerate(call.operands))
    if u.size == 0 or prod(call.shape) == 0:
        return 0.0
    if not fixed or any(v.center is None and not v.moves for i, v in enumerate(call.operands) if i != place):
        return most
    arrays: list[Floats | None] = [None] * len(call.operands)
    arrays[place] = np.zeros(u.shape)
    found = _pulled(call, arrays, place)
    if found is None:
        return most
    counted = float(np.max(found))
    return min(most, counted) if isfinite(counted) else most


def linear_norm(call: Called, place: int, most: float = inf) -> float:
    """Bound the norm of the linear part to an operand whose coefficients are not negative, by Schur's test.

        ||A|| <= sqrt(max_i (A 1)_i max_j (A' 1)_j)

    A 1 is what the operation makes of ones, A' 1 what its pullback does.

    Source: derived, docs/theory/bounds.md.
    """
    sums = _sums(call, place)
    if sums is None:
        return most
    rows, columns = sums
    return min(most, sqrt(float(np.max(rows, initial=0.0)) * float(np.max(columns, initial=0.0))) * (1 + 1e3 * UNIT))


def _sums(call: Called, place: int) -> Interval | None:
    """Give the sums of rows and of columns of the linear part."""
    if any(u.center is None and not u.moves and i != place for i, u in enumerate(call.operands)):
        return None
    arrays: list[Floats | None] = [None] * len(call.operands)
    arrays[place] = np.zeros(call.operands[place].shape)
    zero = call.evaluate(*arrays)
    pulled = _pulled(call, arrays, place)
    arrays[place] = np.ones(call.operands[place].shape)
    one = call.evaluate(*arrays)
    if zero is None or one is None or pulled is None:
        return None
    return np.asarray(one, float) - np.asarray(zero, float), pulled


def _pulled(call: Called, arrays: list[Floats | None], place: int) -> Floats | None:
    """Pull ones back to the one operand for which an array is given."""
    found = call.pull(arrays, np.ones(call.shape))
    if found is None:
        return None
    pulled = found[place] if len(found) == len(arrays) else found[0]
    return np.asarray(pulled, float)


def nonnegative(call: Called, norms: Sequence[float], places: Sequence[int], terms: float) -> Local:
    """Give the constants of sums with coefficients that are not negative and add up to at most `terms` in each entry."""
    grown = float(sum(float(times(c, u.norm)) for c, u in zip(norms, call.operands, strict=True)))
    chosen = [call.operands[p] for p in places]
    if of_each(chosen):
        found = [_evaluated(call, places, side) for side in (0, 1)]
        if found[0] is not None and found[1] is not None:
            slack = 4 * (terms + 8) * UNIT * (np.abs(found[0]) + np.abs(found[1]) + max(u.peak for u in chosen))
            return Local(list(norms), {}, grown, found[0] - slack, found[1] + slack)
    ends = [extremes(u) for u in chosen if u.size]
    low = float(times(terms, min([0.0, *(a for a, _ in ends)])))
    high = float(times(terms, max([0.0, *(b for _, b in ends)])))
    return Local(list(norms), {}, grown, low, high)


def spread(value: object, d: int) -> Shape:
    """Spread a number over the axes of a window."""
    values = [value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return tuple(int(v) for v in (values * d if len(values) == 1 else values))
