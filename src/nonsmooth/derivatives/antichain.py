"""The antichain of largest weight in a partial order: the kinks of a group that need not be enumerated.

Of the pairs i < j of the order (its transitive closure) make a bipartite graph with i on the left and j on the right,
both with the weight of the element: the largest weight of an antichain is the sum of all weights less the largest flow,
and a smallest cut shows which elements it has.

Source: Dilworth1950, FordFulkerson1962.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

__all__ = ["antichain_of"]

UNIT = 1024.0
"""Weights are rounded to multiples of 1/UNIT, of less where they are large."""

LARGE = 400
"""Beyond this many elements an antichain is built greedily."""


def antichain_of(n: int, edges: np.ndarray[Any, Any], weights: Sequence[float]) -> set[int]:
    """Give an antichain of largest weight among elements 0 .. n - 1 in topological order; edges are rows (later, earlier).

    Elements of infinite weight are taken first where they can be. Beyond `LARGE` elements the result is an antichain of
    large weight, not of the largest.

    >>> sorted(antichain_of(3, np.array([[2, 0], [2, 1]]), [1.0, 1.0, 1.0]))
    [0, 1]
    """
    before = _closure(n, edges)
    finite = sum(w for w in weights if math.isfinite(w)) + 1.0
    sizes = [min(w, finite) for w in weights]
    if n > LARGE:
        return _greedy(before, sizes)
    unit = min(UNIT, 2**28 / max(sum(sizes), 1.0))  # flows are 32-bit integers
    return _largest(before, [1 + int(unit * w) for w in sizes])


def _closure(n: int, edges: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark at (i, j) that j acts on i, directly or through others."""
    before = np.zeros((n, n), dtype=bool)
    direct: dict[int, list[int]] = {}
    for later, earlier in edges.tolist():
        direct.setdefault(later, []).append(earlier)
    for i in range(n):
        for j in direct.get(i, ()):
            before[i, j] = True
            before[i] |= before[j]
    return before


def _greedy(before: np.ndarray[Any, np.dtype[np.bool_]], sizes: list[float]) -> set[int]:
    """Take the heaviest level of the order, then what fits."""
    depth = np.zeros(len(sizes), dtype=int)
    for i in range(len(sizes)):
        depth[i] = 1 + depth[before[i]].max() if before[i].any() else 0
    heaviest = int(np.argmax(np.bincount(depth, weights=np.asarray(sizes))))
    taken = depth == heaviest
    for i in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        if not taken[i] and not (before[i] & taken).any() and not (before[:, i] & taken).any():
            taken[i] = True
    return set(np.flatnonzero(taken).tolist())


def _largest(before: np.ndarray[Any, np.dtype[np.bool_]], sizes: list[int]) -> set[int]:
    """Find the antichain by a largest flow from a source over (left i, right j) to a sink."""
    n = len(sizes)
    later, earlier = np.nonzero(before)
    source, sink, bound = 2 * n, 2 * n + 1, sum(sizes) + 1
    tails = np.concatenate([np.full(n, source), earlier, n + np.arange(n)])
    heads = np.concatenate([np.arange(n), n + later, np.full(n, sink)])
    capacity = np.concatenate([sizes, np.full(len(later), bound), sizes]).astype(np.int32)
    graph = sparse.csr_array((capacity, (tails, heads)), shape=(2 * n + 2, 2 * n + 2))
    left = graph - csgraph.maximum_flow(sparse.csr_matrix(graph), source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    seen = set(csgraph.breadth_first_order(left, source, return_predecessors=False).tolist())
    return {i for i in range(n) if i in seen and n + i not in seen}
