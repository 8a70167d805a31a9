"""Constants of norms, of distances as norms of differences, of deviations, and of singular and eigenvalues.

A norm is Lipschitz and has a kink at 0: it is smooth as far as the set stays away from there.

The file is long: one record for each norm and distance, each a few lines.
"""

from __future__ import annotations

from math import inf, isinf, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.entries import copies
from nonsmooth.bounds.constants.known import extremes, is_local, least_size_of, sizes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, times, wide

__all__: list[str] = []

_ZERO = "the norm has its kink at 0 in the set"


def _exponent(call: Called, name: str = "p") -> float:
    """Read the exponent; 2 if there is none."""
    found = call.attributes.get(name)
    return 2.0 if found is None else float(found)


def _steepness(p: float, n: int) -> float:
    """Give the Lipschitz constant of the p-norm of n entries: n^(1/p - 1/2) for 1 <= p < 2, otherwise 1."""
    if 0 <= p < 1:
        return inf
    return max(n, 1) ** (1 / p - 0.5) if 1 <= p < 2 else 1.0


def _bent(p: float, n: int, norm: float, least: float) -> float:
    """Bound the second derivative of the p-norm of n entries, where it is `norm` and each entry `least` or more in size.

    1/norm for p = 2, (p - 1)/norm for p > 2, (p - 1) least^(p - 2) / norm^(p - 1) for 1 < p < 2, 0 for p = 1.
    """
    if n == 1:
        return 0.0 if norm > 0 else inf
    if p == 1:
        return 0.0 if least > 0 else inf
    if p == 2:
        return 1 / norm if norm > 0 else inf
    if 2 < p < inf:
        return (p - 1) / norm if norm > 0 else inf
    if 1 < p < 2:
        return (p - 1) * least ** (p - 2) * norm ** (1 - p) if least > 0 and norm > 0 else inf
    return inf


def _from_below(values: object, moved: float) -> float:
    """Give the least of some values less what they may move, rounding included."""
    found = np.asarray(values, float)
    return max(float(np.min(found)) * (1 - 1e-13) - moved, 0.0) if found.size else 0.0


def _axes(call: Called) -> tuple[int, ...]:
    """Give the axes along which the operation runs."""
    axes = call.attributes["axes"]
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _p_norm(u: Floats, p: float, axes: tuple[int, ...]) -> Floats:
    """Compute p-norms along axes, of sizes."""
    with np.errstate(divide="ignore"):
        powers = u if isinf(p) else np.power(u, p)
        found: Floats = (
            powers.max(axes) if p == inf else (powers.min(axes) if isinf(p) else powers.sum(axes) ** (1 / p))
        )
    return found


@bound_operation("vector_norm", "norm", "norm_singular", "norm_zero")
def norm(call: Called) -> Local:
    """Constants of (sum |u_i|^p)^(1/p) over n entries: l = n^(1/p - 1/2) for 1 <= p <= 2, 1 for p > 2 and p < 0.

        L = 1 / r  (p = 2),   (p - 1) / r  (p > 2),   0  (p = 1, no entry meets 0),   r the least norm on the set

    Infinite where the set meets a kink. l is attained, L for p = 2 too, where the norm is r; for other p it is an upper bound.
    For p < 1, and the count of p = 0, l is infinite.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x, axes = call.x, _axes(call)
    p = _exponent(call, "ord" if "ord" in call.attributes else "p")
    n = prod(x.shape[a] for a in axes)
    rows = prod(call.shape)
    if x.size == 0:
        return Local([0.0])
    slope = _steepness(p, n)
    if slope == inf:
        why = "the count of entries jumps" if p == 0 else f"the p-norm with p = {p:g} < 1 is steep at 0"
        top = sqrt(rows) * n if p == 0 else inf
        return Local([inf], {(0, 0): inf}, top, 0.0, n if p == 0 else inf, why=why)
    entries = least_size_of(x)
    least = float(np.min(entries))
    below = _from_below(_p_norm(np.broadcast_to(entries, x.shape), p, axes), 0.0) if least > 0 and entries.ndim else 0.0
    if least > 0 and not entries.ndim:
        below = least * n ** (0.0 if isinf(p) else 1 / p) * (1 - 1e-13)
    if is_local(x) and p > 0:
        values = _p_norm(np.abs(wide(x.center)), p, axes)
        below = max(below, _from_below(values, slope * x.distance))
    curved = _bent(p, n, below, least)
    whole = slope * x.norm
    high = min(whole, n ** max(0.0 if isinf(p) else 1 / p, 0.0) * sizes(x))
    why = "" if curved < inf else (_ZERO if p != inf else "the largest entry changes in the set")
    return Local([slope], {(0, 0): curved}, whole, below, high, why=why)


@bound_operation("std")
def deviation(call: Called) -> Local:
    """Constants of sqrt(sum (u - mean)^2 / (n - c)): l = 1/sqrt(n - c), L = l / r, r the least |u - mean| on the set.

    Both are attained. L is infinite where all entries of a group may agree; 0 elsewhere for two entries.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x, axes = call.x, _axes(call)
    n = prod(x.shape[a] for a in axes)
    free = n - call.number("correction", 1.0)
    if x.size == 0 or n == 1:
        known = 0.0 if free > 0 else inf
        return Local([0.0], {}, known, 0.0, known)
    if free <= 0:
        return Local([inf], {(0, 0): inf}, why="the deviation of too few entries is no number")
    slope, r = 1 / sqrt(free), 0.0
    if is_local(x):
        center = np.asarray(x.center, float)
        apart = center - center.mean(axes, keepdims=True)
        r = _from_below(np.sqrt(np.square(apart).sum(axes)), x.distance + 1e-13 * float(np.max(np.abs(center))))
    curved = inf if r == 0 else (0.0 if n == 2 else slope / r)
    low, high = extremes(x)
    top = min(slope * x.norm, slope * sqrt(n) * (high - low) / 2)
    why = "" if r > 0 else "the deviation has its kink where all entries agree"
    return Local([slope], {(0, 0): curved}, slope * x.norm, slope * r, top, why=why)


# --- distances --------------------------------------------------------------------------------------------------------


def _apart(call: Called, p: float, n: int, slope: float) -> float:
    """Give the least distance on the set: that at the centers, less what both may move."""
    u, v = call.operands[:2]
    if u.center is None or v.center is None or u.distance + v.distance == inf:
        return 0.0
    values = call.evaluate(np.asarray(u.center), np.asarray(v.center), *[None] * (len(call.operands) - 2))
    return 0.0 if values is None else _from_below(values, slope * (u.distance + v.distance))


def _distance_bent(p: float, n: int, r: float) -> float:
    """Bound the second derivative of the p-norm of a difference of which nothing is known but the norm."""
    return _bent(p, n, r, r if n == 1 else 0.0)


@bound_operation("dist")
def distance(call: Called) -> Local:
    """Constants of |u - v|: those of the p-norm for either operand, L = 1/r for p = 2 where |u - v| >= r on the set.

    Source: derived, docs/theory/bounds_constants.md.
    """
    u, v = call.operands[:2]
    p = _exponent(call)
    shape = np.broadcast_shapes(u.shape, v.shape)
    n = prod(shape)
    slope = _steepness(p, n)
    if slope == inf:
        every = {(0, 0): inf, (0, 1): inf, (1, 1): inf}
        return Local([inf, inf], every, why=f"the p-norm with p = {p:g} < 1 is steep at 0")
    often = [sqrt(copies(w.shape, shape)) for w in (u, v)]
    parts = [slope * c for c in often]
    r = _apart(call, p, n, max(parts))
    bent = _distance_bent(p, n, r)
    smoothness = {(i, j): float(times(bent, often[i] * often[j])) for i, j in ((0, 0), (0, 1), (1, 1))}
    whole = parts[0] * u.norm + parts[1] * v.norm
    return Local(parts, smoothness, whole, r, whole, why="" if bent < inf else _ZERO)


@bound_operation("cdist")
def distances(call: Called) -> Local:
    """Constants of |u_i - v_j| for P rows u_i and R rows v_j: l = sqrt(R), sqrt(P) times that of the p-norm.

        L_uu = sqrt(R) / r,   L_uv = 1 / r,   L_vv = sqrt(P) / r   for p = 2, where |u_i - v_j| >= r on the set

    All are attained, where the v_j lie in one direction from the u_i.

    Source: derived, docs/theory/bounds_constants.md.
    """
    u, v = call.operands[:2]
    p, n = _exponent(call), u.shape[-1]
    slope = _steepness(p, n)
    if slope == inf:
        every = {(0, 0): inf, (0, 1): inf, (1, 1): inf}
        return Local([inf, inf], every, why=f"the p-norm with p = {p:g} < 1 is steep at 0")
    result = call.shape
    often = [sqrt(prod(result) / max(prod(w.shape[:-1]), 1)) for w in (u, v)]
    shared = [sqrt(prod(result[:-2]) / max(prod(w.shape[:-2]), 1)) for w in (u, v)]
    r = _apart(call, p, n, slope)
    bent = _distance_bent(p, n, r)
    smoothness = {
        (0, 0): float(times(bent, often[0])),
        (0, 1): float(times(bent, shared[0] * shared[1])),
        (1, 1): float(times(bent, often[1])),
    }
    parts = [slope * c for c in often]
    whole = parts[0] * u.norm + parts[1] * v.norm
    return Local(parts, smoothness, whole, r, slope * (u.norm + v.norm), why="" if bent < inf else _ZERO)


@bound_operation("pdist")
def own_distances(call: Called) -> Local:
    """Constants of |u_i - u_j|, i < j, for N rows: l = sqrt(N) times that of the p-norm, L = sqrt(2 N) / r for p = 2.

    l is attained by rows on a line (the Laplacian of the complete graph has the largest eigenvalue N), L for N = 2; for
    more rows it is an upper bound.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    p, (rows, n) = _exponent(call), x.shape
    slope = _steepness(p, n)
    if rows < 2 or slope == inf:
        known = 0.0 if rows < 2 else inf
        why = "" if rows < 2 else f"the p-norm with p = {p:g} < 1 is steep at 0"
        return Local([known], {(0, 0): known}, known, 0.0, known, why=why)
    r = 0.0
    if is_local(x):
        values = call.evaluate(np.asarray(x.center))
        r = 0.0 if values is None else _from_below(values, slope * sqrt(2) * x.distance)
    bent = _distance_bent(p, n, r)
    curved = float(times(bent, 2.0 if rows == 2 else sqrt(2 * rows)))
    whole = slope * sqrt(rows) * x.norm
    high = slope * sqrt(2) * x.norm
    return Local([slope * sqrt(rows)], {(0, 0): curved}, whole, r, high, why="" if bent < inf else _ZERO)


@bound_operation("hypot")
def hypotenuse(call: Called) -> Local:
    """Constants of sqrt(u^2 + v^2), entry by entry, where it is at least r: l_u = max |u| / sqrt(u^2 + v^2) <= 1,

        L_uu = sup v^2 / (u^2 + v^2)^(3/2) <= 1 / r,    L_vv likewise,    L_uv = 1 / (2 r)

    over the box of all entries: attained where the operands reach its corners; L_uv is an upper bound.

    Source: derived, docs/theory/bounds_constants.md.
    """
    operands = call.operands[:2]
    often = [sqrt(copies(w.shape, call.shape)) for w in operands]
    least = [least_size_of(w) for w in operands]
    most = [sizes(w) for w in operands]
    square = np.square(least[0]) + np.square(least[1])
    r = float(np.sqrt(np.min(square))) * (1 - 1e-14) if square.size else 0.0
    parts = []
    for i in (0, 1):
        other = float(np.min(least[1 - i])) if least[1 - i].size else 0.0
        share = 1.0 if other == 0 or most[i] == inf else most[i] / sqrt(most[i] ** 2 + other**2)
        parts.append(share * often[i])
    bent = 1 / r if r > 0 else inf
    smoothness = {
        (0, 0): float(times(min(bent, _bent_of_hypotenuse(least[0], least[1], most[1])), often[0])),
        (0, 1): float(times(bent, 0.5 * min(often))),
        (1, 1): float(times(min(bent, _bent_of_hypotenuse(least[1], least[0], most[0])), often[1])),
    }
    whole = often[0] * operands[0].norm + often[1] * operands[1].norm
    high = sqrt(most[0] ** 2 + most[1] ** 2) if max(most) < inf else inf
    return Local(parts, smoothness, whole, r, high, why="" if r > 0 else "the hypotenuse has its kink at 0 in the set")


def _bent_of_hypotenuse(least: Floats, other: Floats, top: float) -> float:
    """Give sup v^2 / (u^2 + v^2)^(3/2) for |u| >= least, other <= |v| <= top: it grows up to v = sqrt(2) u."""
    u, low = float(np.min(least)), float(np.min(other))
    v = min(max(sqrt(2) * u, low), top)
    return inf if u == v == 0 else v * v / sqrt(u * u + v * v) ** 3


@bound_operation("complex_abs")
def absolute(call: Called) -> Local:
    """Constants of |z| of complex entries, pairs of real ones: l = 1, L = 1/r where |z| >= r on the set; both are attained.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    if x.size == 0:
        return Local([0.0], norm=0.0)
    r, high = 0.0, x.norm
    if x.center is not None and x.distance < inf:
        lengths = np.abs(wide(x.center))
        r = _from_below(lengths, x.distance)
        high = min(high, float(np.max(lengths)) + x.distance)
    why = "" if r > 0 else _ZERO
    return Local([1.0], {(0, 0): 1 / r if r > 0 else inf}, x.norm, r, high, why=why)


# --- singular and eigenvalues -----------------------------------------------------------------------------------------


@bound_operation("svdvals")
def singular_values(call: Called) -> Local:
    """Constants of the singular values: l = 1 (Mirsky), attained; they have kinks where they are repeated or 0.

    Source: Mirsky1960.
    """
    x = call.x
    return Local(
        [1.0], {(0, 0): inf}, x.norm, 0.0, x.norm, why="singular values have kinks where two agree or one is 0"
    )


@bound_operation("eigvalsh")
def eigenvalues(call: Called) -> Local | list[Local]:
    """Constants of the eigenvalues of symmetric matrices: l = 1 (Hoffman and Wielandt), attained; kinks where repeated.

    Guarantee: the operand reaches symmetric matrices alone, as the operation asks for. Eigenvectors, where they are a
    second result, are not Lipschitz.

    Source: HoffmanWielandt1953.
    """
    x = call.x
    values = Local([1.0], {(0, 0): inf}, x.norm, -x.norm, x.norm, why="eigenvalues have kinks where two agree")
    if len(call.results) < 2:
        return values
    norm = sqrt(prod(call.results[1][:-1]))
    vectors = Local([inf], {(0, 0): inf}, norm, -1.0, 1.0, why="eigenvectors turn at once where eigenvalues agree")
    return [values, vectors]
