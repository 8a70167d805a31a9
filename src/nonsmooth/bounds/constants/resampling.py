"""Images at other places: interpolation is a tensor product of maps along the axes."""

from __future__ import annotations

from math import prod

import numpy as np

from nonsmooth.bounds.constants.affine import entries
from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, times

__all__: list[str] = []

_OVER = {"1": 1, "2": 2, "3": 3}


def _cubic(t: Floats, a: float) -> Floats:
    """Give Keys's kernel."""
    t = np.abs(t)
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, (((t - 5) * t + 8) * t - 4) * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _matrix(call: Called, size: int, target: int, scale: float | None) -> Floats:
    """Give the map along an axis: the weights of all entries in every result."""
    a, kind = call.attributes, call.operation
    step = 1 / scale if scale else size / target
    rows, matrix = np.arange(target), np.zeros((target, size))
    if "nearest" in kind:
        at = np.floor((rows + (0.5 if a.get("exact") else 0.0)) * step).astype(int)
        matrix[rows, np.minimum(at, size - 1)] = 1.0
        return matrix
    cubic = "cubic" in kind
    if a.get("antialias"):
        step = size / target if not scale else 1 / scale
        wide = max(step, 1.0)
        t = (np.arange(size)[None, :] + 0.5 - step * (rows[:, None] + 0.5)) / wide
        weights = _cubic(t, -0.5) if cubic else np.maximum(1 - np.abs(t), 0.0)
        return np.asarray(weights / weights.sum(1, keepdims=True))
    if a.get("align_corners"):
        place = rows * ((size - 1) / (target - 1) if target > 1 else 0.0)
    else:
        place = (rows + 0.5) * step - 0.5
        place = place if cubic else np.maximum(place, 0.0)
    start = np.floor(place).astype(int)
    for k in (-1, 0, 1, 2) if cubic else (0, 1):
        t = place - start
        weight = _cubic(t - k, -0.75) if cubic else (1 - t if k == 0 else t)
        np.add.at(matrix, (rows, np.clip(start + k, 0, size - 1)), weight)
    return matrix


@bound_operation(
    *(f"upsample_{name}" for name in "nearest1d nearest2d nearest3d linear1d bilinear2d trilinear3d bicubic2d".split())
)
def upsampled(call: Called) -> Local:
    """Interpolation: l = the product over the axes of the norm of the map along it, for it is their tensor product. Tight.

    Weights add up to 1; where none is negative the entries stay between the entries, else they leave by the sum of sizes.
    """
    d, pullback = _OVER[call.operation[-2]], bool(call.attributes.get("pullback"))
    image, result = (call.shape, call.x.shape) if pullback else (call.x.shape, call.shape)
    names = ("scales",) if d == 1 else ("scales_d", "scales_h", "scales_w")[3 - d :]
    factors = call.attributes.get("scale_factors") or [call.attributes.get(n) for n in names]
    rows = zip(image[-d:], result[-d:], factors, strict=True)
    matrices = [_matrix(call, n, m, None if f is None else float(f)) for n, m, f in rows]
    norm = prod(float(np.linalg.norm(m, 2)) for m in matrices) * (1 + 1e-9) if call.x.size else 0.0
    rest = [0.0] * (len(call.operands) - 1)
    grown = float(times(norm, call.x.norm))
    low, high = extremes(call.x)
    sizes = prod(float(np.max(np.abs(m).sum(0 if pullback else 1), initial=0.0)) for m in matrices)
    if not pullback and sizes <= 1 + 1e-9:
        ends = entries(call, (0,))
        slack = 1e-12 * np.maximum(np.abs(ends[0]), np.abs(ends[1]))
        slack = np.where(np.isfinite(slack), slack, 0.0)
        return Local([norm, *rest], {}, grown, ends[0] - slack, ends[1] + slack)
    if pullback:
        bound = float(times(sizes * (1 + 1e-12), max(abs(low), abs(high))))
        return Local([norm, *rest], {}, grown, -bound, bound)
    middle, radius = (low + high) / 2, (high - low) / 2
    if not np.isfinite(middle):
        return Local([norm, *rest], {}, grown)
    away = sizes * radius * (1 + 1e-12) + 1e-12 * abs(middle)
    return Local([norm, *rest], {}, grown, middle - away, middle + away)
