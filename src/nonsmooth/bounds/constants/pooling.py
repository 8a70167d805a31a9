"""Pooling: means and largest entries of windows."""

from __future__ import annotations

from dataclasses import replace
from math import inf, prod, sqrt
from typing import Any

import numpy as np

from nonsmooth.bounds.constants.affine import entries, nonnegative, spread
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, Shape, times
from nonsmooth.program.windows import Meetings, meetings, spans

__all__: list[str] = []


def _windows(call: Called, sizes: Shape, results: Shape) -> list[Meetings]:
    """Let the windows of a pooling move over the axes of space."""
    a, d = call.attributes, len(sizes)
    if call.operation.startswith("adaptive"):
        return [spans(n, m) for n, m in zip(sizes, results, strict=True)]
    kernel = spread(a["kernel_size"], d)
    stride = spread(a.get("stride") or kernel, d)
    padding, dilation = spread(a.get("padding", 0), d), spread(a.get("dilation", 1), d)
    rows = zip(sizes, kernel, stride, padding, dilation, results, strict=True)
    return [meetings(n, k, s, (p, p), 1, w, m) for n, k, s, p, w, m in rows]


def _mean_matrices(call: Called, sizes: Shape, results: Shape) -> list[Floats]:
    """Give the map along each axis: the mean over windows is the product of those along the axes."""
    a, d = call.attributes, len(sizes)
    found = []
    for axis, met in enumerate(_windows(call, sizes, results)):
        matrix = np.zeros((results[axis], sizes[axis]))
        np.add.at(matrix, (met.results, met.entries), 1.0)
        counts = matrix.sum(1)
        if not call.operation.startswith("adaptive") and a.get("count_include_pad", True):
            k, p = spread(a["kernel_size"], d)[axis], spread(a.get("padding", 0), d)[axis]
            start = np.arange(results[axis]) * spread(a.get("stride") or a["kernel_size"], d)[axis] - p
            counts = np.minimum(start + k, sizes[axis] + p) - start
        if a.get("divisor_override"):
            counts = np.full(results[axis], float(a["divisor_override"]) ** (1 / d))
        found.append(matrix / np.maximum(counts, 1e-300)[:, None])
    return found


def _opposite(call: Called) -> Called:
    """Give the call whose divisor has the other sign."""

    def evaluate(*arrays: Any) -> Floats | None:
        found = call.evaluate(*arrays)
        return None if found is None else -found

    divisor = -call.attributes["divisor_override"]
    return replace(call, attributes={**call.attributes, "divisor_override": divisor}, evaluate=evaluate)


@bound_operation(*(f"{kind}avg_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3)))
def averaged(call: Called) -> Local:
    """Means of windows: l = the product over the axes of the norm of the map along it, for the mean is their tensor product.

    Along an axis of disjoint windows of k entries that is 1 / sqrt(k). Each entry of a mean lies between entries, and 0
    where the padding counts. Tight.
    """
    if (call.attributes.get("divisor_override") or 1) < 0:
        positive = _of_means(_opposite(call))
        return replace(positive, low=-np.asarray(positive.high), high=-np.asarray(positive.low))
    return _of_means(call)


def _of_means(call: Called) -> Local:
    """Give the constants for a divisor that is positive."""
    d = int(call.operation[-2])
    pullback = bool(call.attributes.get("pullback"))
    image, result = (call.shape, call.x.shape) if pullback else (call.x.shape, call.shape)
    matrices = _mean_matrices(call, image[len(image) - d :], result[len(result) - d :])
    norm = prod(_norm(m) for m in matrices)
    rest = [0.0] * (len(call.operands) - 1)
    sums = prod(float(np.max(m.sum(0 if pullback else 1), initial=0.0)) for m in matrices)
    least = prod(float(np.min(m.sum(0 if pullback else 1), initial=inf)) for m in matrices)
    local = nonnegative(call, [norm, *rest], (0,), sums)
    if abs(sums - 1) < 1e-12 and abs(least - 1) < 1e-12 and not np.asarray(local.low).shape:
        low, high = entries(call, (0,))
        slack = 1e-13 * np.maximum(np.abs(low), np.abs(high))
        return Local(local.lipschitz, {}, local.norm, low - slack, high + slack)
    return local


def _norm(matrix: Floats) -> float:
    """Bound the norm of a map along an axis: by its singular values, or Schur's test where it is large."""
    if not matrix.size:
        return 0.0
    sizes = np.abs(matrix)
    schur = sqrt(float(np.max(sizes.sum(0)) * np.max(sizes.sum(1))))
    if matrix.size > 250_000:
        return schur * (1 + 1e-12)
    return min(schur, float(np.linalg.norm(matrix, 2))) * (1 + 1e-12)


@bound_operation("max_pool", "adaptive_max_pool")
def largest(call: Called) -> Local:
    """The largest entry of each window: l = sqrt(windows that the pixel in most of them is in), 1 for disjoint ones; L inf.

    A change of the image changes each maximum by at most the largest change in its window, and the squares of those add up
    to at most the windows per pixel times ||v||^2. Attained by an image with one large pixel. Maxima have kinks where two
    entries tie. The padding is of -inf: it never wins.
    """
    start = int(call.attributes["spatial_from"])
    windows = _windows(call, call.x.shape[start:], call.shape[start:])
    single = all(m.per_result <= 1 for m in windows)
    norm = sqrt(prod(m.per_entry for m in windows))
    rest = [0.0] * (len(call.operands) - 1)
    low, high = entries(call, (0,))
    why = "" if single else f"`{call.operation}` has kinks where entries tie"
    grown = float(times(norm, call.x.norm))
    return Local([norm, *rest], {(0, 0): 0.0 if single else inf}, grown, low, high, why=why)
