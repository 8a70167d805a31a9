"""Tables of vectors: rows that are looked up, and bags of them."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.affine import copies_of, entries, is_fixed
from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Local, Reach, times

__all__: list[str] = []


@bound_operation("embedding")
def embedding(call: Called) -> Local:
    """Rows of a table: l = sqrt(copies of the row that is looked up most often), sqrt(number of indices) unknown. Tight.

    Bags of rows add (or average) them: at most that times the square root of the longest bag, and, with weights for the
    rows, times the largest weight; the derivative to the weights is at most sqrt(longest bag) times the norm of a row.
    """
    if call.attributes.get("pullback"):
        return _pulled(call)
    width = call.x.shape[-1] if call.x.shape else 1
    indices = call.operands[1].size if len(call.operands) > 1 else prod(call.shape) // max(width, 1)
    if "mode" in call.attributes:
        return _bags(call, indices)
    norm = sqrt(_most(call, indices))
    rest = [0.0] * (len(call.operands) - 1)
    return Local([norm, *rest], {}, float(times(norm, call.x.norm)), *entries(call, (0,)))


def _most(call: Called, indices: int) -> float:
    """Count how often the row that is looked up most often is."""
    index = call.operands[1] if len(call.operands) > 1 else None
    if index is not None and is_fixed(index):
        return float(np.max(np.unique(np.asarray(index.center).ravel(), return_counts=True)[1], initial=0))
    return copies_of(call, 0, float(indices)) if index is None else float(indices)


def _pulled(call: Called) -> Local:
    """Bound the pullback, a sum of the cotangents of each row: the same norm."""
    index = call.operands[1] if len(call.operands) > 1 else None
    rows = call.x.size // max(call.x.shape[-1], 1) if call.x.shape else 1
    most = _counts(index, rows)
    rest = [0.0] * (len(call.operands) - 1)
    low, high = extremes(call.x)
    return Local(
        [sqrt(most), *rest],
        {},
        sqrt(most) * call.x.norm,
        min(float(times(most, low)), 0.0),
        max(float(times(most, high)), 0.0),
    )


def _counts(index: Reach | None, rows: int) -> float:
    """Count how often an index stands at most."""
    if index is None or not is_fixed(index):
        return float(rows)
    return float(np.max(np.unique(np.asarray(index.center).ravel(), return_counts=True)[1], initial=0))


def _bags(call: Called, indices: int) -> Local:
    """Bound sums and means of bags of rows: y_b = sum_k w_k table[i_k]."""
    most, longest, mean = _most(call, indices), float(indices), call.attributes["mode"] == 1
    shortest = 1.0
    if len(call.operands) > 2 and is_fixed(call.operands[2]):
        starts = np.asarray(call.operands[2].center).ravel()[: call.shape[0]]
        lengths = np.diff([*starts, indices])
        longest = float(np.max(lengths, initial=0))
        if call.number("padding_idx", -1) < 0:
            shortest = max(float(np.min(lengths, initial=longest)), 1.0)
    # Schur's test of the matrix of bags by rows: each row has at most `longest` entries, each column `most`
    norm = sqrt(longest * most)
    if mean:
        norm = min(norm / shortest, sqrt(most / shortest))
    weights = call.operands[3] if len(call.operands) > 3 else None
    peak = 1.0 if weights is None else weights.peak
    slopes = [float(times(norm, peak)), *[0.0] * (len(call.operands) - 1)]
    bends = {}
    if weights is not None:
        slopes[3] = sqrt(longest) * min(call.x.norm, sqrt(call.shape[-1]) * call.x.peak)
        bends[0, 3] = sqrt(longest * most)
    bound = float(times(1.0 if mean else longest, float(times(peak, call.x.peak))))
    return Local(slopes, bends, float(times(slopes[0], call.x.norm)), -bound, bound)
