"""The sizes of an array that one pass over it gives: its norm, its extremes, a bound of its norm as a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNIT", "Sizes", "measured"]

UNIT = 2.0**-53
"""The unit roundoff of double precision."""

PIECE = 1 << 17
"""The entries that are looked at together: in double precision they stay in the cache."""


@dataclass(frozen=True)
class Sizes:
    """What one pass over an array gives: its norm, its least and largest entry (of complex ones -inf and inf).

    `peak` is the largest |entry|; `operator` bounds the spectral norm of the array as a matrix of its first axis by all
    others: the least of the norm and sqrt(||A||_1 ||A||_inf).
    """

    norm: float
    low: float
    high: float
    peak: float
    operator: float


def measured(array: NDArray[Any]) -> Sizes:
    """Measure an array in double precision, piece by piece, without a copy of it.

    >>> found = measured(np.array([[3.0, -4.0], [0.0, 0.0]]))
    >>> found.norm, found.low, found.high, found.peak, round(found.operator, 9)
    (5.0, -4.0, 3.0, 4.0, 5.0)
    """
    if not array.size:
        return Sizes(0.0, 0.0, 0.0, 0.0, 0.0)
    if array.dtype.kind not in "fc":
        array = array.astype(float)
    matrix = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
    if matrix.strides[0] < matrix.strides[1]:
        matrix = matrix.T  # all of this is the same for the transpose
    is_complex = np.iscomplexobj(matrix)
    matrix = matrix.astype(complex, copy=False) if is_complex else matrix
    low, high = (-inf, inf) if is_complex else (float(np.min(matrix)), float(np.max(matrix)))
    peak = float(np.max(np.abs(matrix))) if is_complex else max(-low, high)
    if not 1e-140 < peak < 1e140:
        return _by_units(matrix, peak, low, high)
    rows, columns = matrix.shape
    tall, broad = min(max(PIECE // columns, 1), rows), min(PIECE, columns)
    square, widest, down, buffer = 0.0, 0.0, np.zeros(columns), np.empty((tall, broad))
    for top in range(0, rows, tall):
        across = np.zeros(min(tall, rows - top))
        for left in range(0, columns, broad):
            piece = matrix[top : top + tall, left : left + broad]
            part = buffer[: piece.shape[0], : piece.shape[1]]
            np.abs(piece, out=part)
            square += float(np.einsum("ij,ij->", part, part))
            across += part.sum(1)
            down[left : left + broad] += part.sum(0)
        widest = max(widest, float(np.max(across)))
    norm, slack = sqrt(square), 1 + 4 * (rows + columns + 8) * UNIT
    operator = norm if min(rows, columns) == 1 else slack * min(norm, sqrt(widest * float(np.max(down))))
    return Sizes(norm, low, high, peak, operator)


def _by_units(matrix: NDArray[Any], peak: float, low: float, high: float) -> Sizes:
    """Measure what is so large or so small that its squares are not numbers."""
    if not peak < inf:
        return Sizes(inf, -inf if np.isnan(low) else low, inf if np.isnan(high) else high, inf, inf)
    if peak == 0:
        return Sizes(0.0, low, high, 0.0, 0.0)
    unit = 2.0 ** int(np.frexp(peak)[1] - 1)
    found = measured(np.asarray(matrix, complex if np.iscomplexobj(matrix) else float) / unit)
    norm, operator = (_times(unit, v) for v in (found.norm, found.operator))
    return Sizes(norm, low, high, peak, operator)


def _times(unit: float, size: float) -> float:
    """Multiply, upwards where that leaves the numbers."""
    with np.errstate(over="ignore"):
        return float(np.multiply(unit, size))
