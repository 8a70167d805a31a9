"""Order operations: operations that return entries of a tuple by their rank.

An `Extremum` returns the largest (or smallest) of the candidates c_1 .. c_n, so its set at a tie is the simplex over
the tied candidates: the derivative is sum_k q_k (derivative of c_k) with q >= 0, sum q = 1, q_k = 0 off the tie.
A `Ranking` returns several ranks at once (sort, topk), so its set is the Birkhoff polytope of each tied block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from nonsmooth.dictionary.operation import Array, Call, Kind, Nonsmooth, Rule
from nonsmooth.errors import ConventionError

__all__ = ["ORDERS", "Extremum", "Pooling", "Ranking", "pooling_windows", "window_slices"]

TIE_RULES = ("even", "first", "last", "random")
"""The words that a selection may use for a tie."""


@dataclass(frozen=True, kw_only=True)
class Extremum(Nonsmooth):
    """The largest entry of each tuple of candidates (of their negatives, with `sign = -1`).

    `candidates(call, array, fill)` lays the candidates of every result element along a last axis, *linear* in the
    array; where a tuple is shorter it holds `fill`.

    Source: BoltePauwels2020.
    """

    kind: Kind = Kind.ORDER
    kinks: tuple[str, ...] = ("tie",)
    sign: int = 1
    candidates: Callable[[Call, Array, float], Array] = field(repr=False)

    def _tied(self, call: Call, tol: float) -> Array:
        """Mark the candidates within `tol` of the result."""
        xp, result = call.xp, call.result
        candidates = self.candidates(call, call.operands[0], -self.sign * float("inf"))
        result = xp.reshape(result, (*candidates.shape[:-1], 1))
        return candidates == result if tol == 0 else xp.abs(candidates - result) <= tol

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the gap between the largest candidate and the second largest (infinite where there is none)."""
        xp = call.xp
        candidates = self.sign * self.candidates(call, call.operands[0], -self.sign * float("inf"))
        best = xp.max(candidates, axis=-1, keepdims=True)
        at_best = candidates == best
        alone = xp.sum(xp.astype(at_best, xp.int64), axis=-1) <= 1
        rest = xp.max(xp.where(at_best, xp.full_like(candidates, -float("inf")), candidates), axis=-1)
        gap = xp.where(alone, best[..., 0] - rest, xp.zeros_like(rest))
        return {"tie": xp.reshape(gap, call.result.shape)}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the results that several candidates with a derivative tie for.

        Ties among entries whose derivative is zero cannot matter. The program may give them as the attribute `dead` (1
        where the operand's entry has none), or `flats`: values that only such entries have.
        """
        xp = call.xp
        tied = self._tied(call, tol)
        mask = xp.sum(xp.astype(tied, xp.int64), axis=-1) > 1
        if call.attributes.get("dead") is not None:
            alive = 1 - call.attributes["dead"]
            mask = mask & xp.any(tied & (self.candidates(call, alive, 0.0) > 0), axis=-1)
        mask = xp.reshape(mask, call.result.shape)
        for value in call.attributes.get("flats") or ():
            mask = mask & (call.result != value)
        return {"tie": mask}

    def simplex(self, call: Call, rule: Rule, tol: float = 0.0) -> Array:
        """Give the weights q over the candidates."""
        xp = call.xp
        scores = xp.astype(self._tied(call, tol), call.result.dtype)
        if isinstance(rule, str):
            if rule not in TIE_RULES:
                raise ConventionError(f"at_kinks gives {rule!r} for {self.name!r} at a tie: use one of {TIE_RULES}.")
            if rule == "first":
                scores = scores * (xp.cumulative_sum(scores, axis=-1) == 1)
            elif rule == "last":
                later = xp.flip(xp.cumulative_sum(xp.flip(scores, axis=-1), axis=-1), axis=-1)
                scores = scores * (later == 1)
        elif not isinstance(rule, int | float):
            scores = scores * self.candidates(call, rule, 0.0)
        return scores / xp.sum(scores, axis=-1, keepdims=True)

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_k q_k (tangent of c_k)."""
        q = self.simplex(call, rules["tie"], tol)
        moved = self.candidates(call, tangents[0], 0.0)
        return call.xp.reshape(call.xp.sum(q * moved, axis=-1), call.result.shape)


@dataclass(frozen=True, kw_only=True)
class Ranking(Nonsmooth):
    """The entries of given ranks along an axis: sort, topk, kthvalue, median.

    `ranks(call)` gives the range of ranks returned, counted from the smallest (from the largest where the attribute
    `descending` holds); a NaN-free slice of length n is assumed, as sorting has no other meaning.

    Source: Anil2019.
    """

    kind: Kind = Kind.ORDER
    kinks: tuple[str, ...] = ("tie",)
    ranks: Callable[[Call, int], range] = field(repr=False)

    def _sorted(self, call: Call) -> tuple[Array, Array, range]:
        """Sort along the last axis; give sorted values, the permutation and the ranks returned."""
        xp = call.xp
        u = _last(call, call.operands[0])
        order = xp.argsort(u, axis=-1, descending=bool(call.attributes.get("descending", False)), stable=True)
        return xp.take_along_axis(u, order, axis=-1), order, self.ranks(call, u.shape[-1])

    def margins(self, call: Call) -> dict[str, Array]:
        """Give for each rank returned the gap to its nearer neighbour."""
        xp = call.xp
        values, _, ranks = self._sorted(call)
        gap = xp.abs(values[..., 1:] - values[..., :-1])
        edge = xp.full_like(values[..., :1], float("inf"))
        nearest = xp.minimum(xp.concat((edge, gap), axis=-1), xp.concat((gap, edge), axis=-1))
        return {"tie": nearest[..., ranks.start : ranks.stop]}

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give the average of the sorted tangents over each tied block, or those of the first or last in it."""
        xp, rule = call.xp, rules["tie"]
        if isinstance(rule, str) and rule not in TIE_RULES:
            raise ConventionError(f"at_kinks gives {rule!r} for {self.name!r} at a tie: use one of {TIE_RULES}.")
        values, order, ranks = self._sorted(call)
        moved = xp.take_along_axis(_last(call, tangents[0]), order, axis=-1)
        start, size = _blocks(xp, values, tol)
        place = xp.arange(values.shape[-1], device=values.device) - start
        if rule in ("first", "last"):
            total = moved if rule == "first" else xp.take_along_axis(moved, start + size - 1 - place, axis=-1)
        else:
            total = xp.zeros_like(moved)
            for shift in range(int(xp.max(size))):
                turned = xp.take_along_axis(moved, start + (place + shift) % size, axis=-1)
                total = total + xp.where(shift < size, turned, xp.zeros_like(turned))
            total = total / xp.astype(size, moved.dtype)
        return _back(call, total[..., ranks.start : ranks.stop])


def _blocks(xp: Any, values: Array, tol: float) -> tuple[Array, Array]:
    """Give the start and the size of the tied block of each sorted entry."""
    n = values.shape[-1]
    index = xp.broadcast_to(xp.arange(n, device=values.device), values.shape)
    new = xp.abs(values[..., 1:] - values[..., :-1]) > tol
    head = xp.ones_like(values[..., :1], dtype=xp.bool)
    opens, closes = xp.concat((head, new), axis=-1), xp.concat((new, head), axis=-1)
    member = xp.cumulative_sum(xp.astype(opens, xp.int64), axis=-1) - 1
    starts = xp.sort(xp.where(opens, index, xp.full_like(index, n)), axis=-1)
    stops = xp.sort(xp.where(closes, index, xp.full_like(index, n)), axis=-1)
    start, stop = xp.take_along_axis(starts, member, axis=-1), xp.take_along_axis(stops, member, axis=-1)
    return start, stop - start + 1


def _axis(call: Call) -> int:
    """Read the axis of a ranking."""
    return int(call.attributes.get("dim", -1))


def _last(call: Call, array: Array) -> Array:
    """Move the axis of a ranking last; without one, flatten."""
    if call.attributes.get("dim", -1) is None or array.ndim == 0:
        return call.xp.reshape(array, (-1,))
    return call.xp.moveaxis(array, _axis(call), -1)


def _back(call: Call, array: Array) -> Array:
    """Undo `_last` on a result."""
    if len(call.result.shape) < array.ndim:
        array = array[..., 0]
    elif call.attributes.get("dim", -1) is not None and len(call.result.shape) == array.ndim and array.ndim > 0:
        array = call.xp.moveaxis(array, -1, _axis(call))
    return call.xp.reshape(array, call.result.shape)


def _reduction(call: Call, array: Array, fill: float) -> Array:
    """Lay the reduced axes last and flat."""
    del fill
    xp, axes = call.xp, call.attributes.get("dim")
    if axes is None or axes == [] or axes == () or array.ndim == 0:
        return xp.reshape(array, (*(1,) * len(call.result.shape), -1))
    axes = (axes,) if isinstance(axes, int) else axes
    axes = sorted(a % array.ndim for a in axes)
    kept = [a for a in range(array.ndim) if a not in axes]
    array = xp.permute_dims(array, (*kept, *axes))
    return xp.reshape(array, (*array.shape[: len(kept)], -1))


def _prefixes(call: Call, array: Array, fill: float) -> Array:
    """Lay the entries up to each place along a last axis: the candidates of a cumulative extremum."""
    xp, axis = call.xp, _axis(call)
    array = xp.moveaxis(array, axis, -1) if array.ndim else xp.reshape(array, (1,))
    n = array.shape[-1]
    place = xp.arange(n, device=array.device)
    prefix = xp.where(place[None, :] <= place[:, None], array[..., None, :], xp.full_like(array[..., None, :], fill))
    return xp.moveaxis(prefix, -2, axis % max(call.operands[0].ndim, 1)) if call.result.ndim else prefix[0]


@dataclass(frozen=True, kw_only=True)
class Pooling(Extremum):
    """The largest entry of every regular window: an extremum whose candidates are strided slices of the operand.

    The windows are products of intervals, so the largest and second largest entries are found axis by axis.

    Source: BoltePauwels2020.
    """

    def slices(self, call: Call, array: Array, fill: float) -> list[Array]:
        """Give the candidates as one array of the result's shape for each place in the window."""
        d = len(call.result.shape) - call.attributes["spatial_from"]
        kernel = call.attributes["kernel_size"]
        array = _pad_windows(call, array, fill)
        return [array[(..., *window_slices(call, offset))] for offset in product(*(range(k) for k in kernel[:d]))]

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the gap between the largest and the second largest entry of each window."""
        xp, fill = call.xp, -self.sign * float("inf")
        best = _pad_windows(call, call.operands[0], fill)
        best = best if self.sign > 0 else -best
        second = None
        d = len(call.result.shape) - call.attributes["spatial_from"]
        for axis, size in enumerate(call.attributes["kernel_size"]):
            cuts = [window_slices(call, (k,) * d)[axis] for k in range(size)]
            parts = [(..., cut, *(slice(None),) * (d - axis - 1)) for cut in cuts]
            top, next_ = best[parts[0]], None if second is None else second[parts[0]]
            for part in parts[1:]:
                entry = best[part]
                lower = xp.minimum(top, entry)
                next_ = lower if next_ is None else xp.maximum(next_, lower)
                if second is not None:
                    next_ = xp.maximum(next_, second[part])
                top = xp.maximum(top, entry)
            best, second = top, next_
        return {"tie": xp.full_like(best, float("inf")) if second is None else best - second}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the windows with a tie in which an entry with a derivative takes part."""
        xp = call.xp
        gap = self.margins(call)["tie"]
        mask = gap <= tol
        if gap.shape and float(xp.min(gap)) > tol:
            return {"tie": mask}
        for value in call.attributes.get("flats") or ():
            mask = mask & (call.result != value)
        dead = call.attributes.get("dead")
        if dead is not None:
            far = 0.25 * float(xp.finfo(call.result.dtype).max)
            signed = call.operands[0] if self.sign > 0 else -call.operands[0]
            entries = self.slices(call, signed + dead * -far, -far)
            alive = reduce(xp.maximum, entries)
            mask = mask & (self.sign * call.result - alive <= tol)
        return {"tie": mask}

    def shares(self, call: Call, rule: Rule, tol: float = 0.0) -> list[Array]:
        """Give the weights q, one array for each place in the window."""
        if tol == 0 and rule == "even":
            entries = self.slices(call, call.operands[0], -self.sign * float("inf"))
            below = [c - call.result if self.sign > 0 else call.result - c for c in entries]
            tied = [call.step(b, 1.0) for b in below]
            share = 1 / sum(tied)
            return [t * share for t in tied]
        q = self.simplex(call, rule, tol)
        return [q[..., k] for k in range(q.shape[-1])]

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_k q_k (tangent of c_k)."""
        shares = self.shares(call, rules["tie"], tol)
        return sum(q * t for q, t in zip(shares, self.slices(call, tangents[0], 0.0), strict=True))


def window_slices(call: Call, offset: tuple[int, ...]) -> tuple[slice, ...]:
    """Give the strided slices that pick one place of every regular window."""
    targets = call.result.shape[call.attributes["spatial_from"] :]
    dilation, stride = call.attributes["dilation"], call.attributes["stride"]
    return tuple(
        slice(o * dl, o * dl + (m - 1) * s + 1, s)
        for o, dl, m, s in zip(offset, dilation, targets, stride, strict=True)
    )


def _pad_windows(call: Call, array: Array, fill: float) -> Array:
    """Pad the operand of a regular pooling so that every window lies inside."""
    d = len(call.result.shape) - call.attributes["spatial_from"]
    sizes, targets = call.operands[0].shape[-d:], call.result.shape[-d:]
    kernel, stride, padding, dilation = (call.attributes[k] for k in ("kernel_size", "stride", "padding", "dilation"))
    for axis in range(d):
        reach = (targets[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        after = max(0, reach - sizes[axis] - padding[axis])
        array = _pad(call.xp, array, axis - d, padding[axis], after, fill)
    return array


def pooling_windows(call: Call, array: Array, fill: float) -> Array:
    """Lay the entries of every pooling window along a last axis.

    Regular windows (attributes `kernel_size`, `stride`, `padding`, `dilation`) are strided slices of the padded array,
    adaptive ones (`output_size`) run from floor(i n / m) to ceil((i + 1) n / m).
    """
    d = len(call.result.shape) - call.attributes["spatial_from"]
    if "output_size" in call.attributes:
        return _adaptive_windows(call.xp, array, array.shape[-d:], call.result.shape[-d:], fill)
    array = _pad_windows(call, array, fill)
    offsets = product(*(range(k) for k in call.attributes["kernel_size"]))
    return call.xp.stack([array[(..., *window_slices(call, offset))] for offset in offsets], axis=-1)


def _pad(xp: Any, array: Array, axis: int, before: int, after: int, fill: float) -> Array:
    """Pad one axis with a constant."""
    parts = [array]
    for width, place in ((before, 0), (after, 1)):
        if width:
            shape = list(array.shape)
            shape[axis] = width
            parts.insert(place * len(parts), xp.full(tuple(shape), fill, dtype=array.dtype, device=array.device))
    return xp.concat(parts, axis=axis) if len(parts) > 1 else array


def _adaptive_windows(xp: Any, array: Array, sizes: tuple[int, ...], targets: tuple[int, ...], fill: float) -> Array:
    """Lay adaptive windows along a last axis, the shorter ones filled up."""
    places = [
        [range(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)] for n, m in zip(sizes, targets, strict=True)
    ]
    windows = [[int(np.ravel_multi_index(at, sizes)) for at in product(*rows)] for rows in product(*places)]
    longest = max(map(len, windows))
    index = np.asarray([w + [-1] * (longest - len(w)) for w in windows])
    outside = xp.asarray(index < 0, device=array.device)
    flat = xp.reshape(array, (*array.shape[: -len(sizes)], -1))
    taken = xp.take(flat, xp.asarray(index.clip(0).ravel(), device=array.device), axis=-1)
    taken = xp.reshape(taken, (*flat.shape[:-1], *targets, longest))
    return xp.where(xp.reshape(outside, (*targets, longest)), xp.full_like(taken, fill), taken)


def _extremum(name: str, sign: int, candidates: Callable[[Call, Array, float], Array], summary: str) -> Extremum:
    """Record a largest (sign 1) or smallest (sign -1) candidate."""
    return Extremum(name=name, sign=sign, candidates=candidates, summary=summary)


ORDERS: tuple[Nonsmooth, ...] = (
    _extremum("max", 1, _reduction, "the largest entry"),
    _extremum("min", -1, _reduction, "the smallest entry"),
    _extremum("max_dim", 1, _reduction, "the largest entry along an axis, with its index"),
    _extremum("min_dim", -1, _reduction, "the smallest entry along an axis, with its index"),
    _extremum("amax", 1, _reduction, "the largest entry along axes"),
    _extremum("amin", -1, _reduction, "the smallest entry along axes"),
    _extremum("cummax", 1, _prefixes, "the largest entry so far"),
    _extremum("cummin", -1, _prefixes, "the smallest entry so far"),
    Pooling(name="max_pool", candidates=pooling_windows, summary="the largest entry of each window"),
    _extremum("adaptive_max_pool", 1, pooling_windows, "the largest entry of each adaptive window"),
    Ranking(name="sort", ranks=lambda call, n: range(n), summary="all entries by rank"),
    Ranking(name="topk", ranks=lambda call, n: range(call.attributes["k"]), summary="the k largest entries"),
    Ranking(
        name="kthvalue",
        ranks=lambda call, n: range(call.attributes["k"] - 1, call.attributes["k"]),
        summary="the k-th smallest entry",
    ),
    Ranking(name="median", ranks=lambda call, n: range((n - 1) // 2, (n - 1) // 2 + 1), summary="the lower median"),
)
"""The order operations of the dictionary."""
