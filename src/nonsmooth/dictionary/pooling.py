"""Pooling: order operations whose candidates are the entries of windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import or_
from typing import Any

import numpy as np

from nonsmooth.dictionary.operation import Along, Array, Call, Nonsmooth, Rule, device_of, somewhere
from nonsmooth.dictionary.order import Extremum

__all__ = ["POOLINGS", "Pooling", "pooling_windows", "window_slices"]


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
        xp, tied = call.xp, self.tied_places(call, tol)
        mask = sum(xp.astype(t, xp.uint8) for t in tied) > 1
        for value in call.attributes.get("flats") or ():
            mask = mask & (call.result != value)
        marks = call.attributes.get("dead")
        dead = marks() if marks is not None and somewhere(xp, mask) else None
        if dead is not None:
            alive = self.slices(call, 1 - dead, 0.0)
            mask = mask & reduce(or_, (t & (a > 0) for t, a in zip(tied, alive, strict=True)))
        return {"tie": mask}

    def tied_places(self, call: Call, tol: float = 0.0) -> list[Array]:
        """Mark the windows whose largest entry is at a place, one array for each place."""
        if tol or "tied" not in call.known:
            entries = self.slices(call, call.operands[0], -self.sign * float("inf"))
            tied = [c == call.result if tol == 0 else call.xp.abs(c - call.result) <= tol for c in entries]
            if tol:
                return tied
            call.known["tied"] = tied
        return call.known["tied"]  # type: ignore[no-any-return]

    def shares(self, call: Call, rule: Rule, tol: float = 0.0) -> list[Array]:
        """Give the weights q, one array for each place in the window."""
        if tol == 0 and isinstance(rule, str) and rule == "even":
            entries = self.slices(call, call.operands[0], -self.sign * float("inf"))
            below = [c - call.result if self.sign > 0 else call.result - c for c in entries]
            tied = [call.step(b, 1.0) for b in below]
            share = 1 / sum(tied)
            return [t * share for t in tied]
        if tol == 0 and isinstance(rule, Along):
            return rule.once("shares", lambda: [call.xp.astype(c, call.result.dtype) for c in self._chosen(call, rule)])  # type: ignore[no-any-return]
        q = self.simplex(call, rule, tol)
        return [q[..., k] for k in range(q.shape[-1])]

    def _chosen(self, call: Call, along: Along) -> list[Array]:
        """Mark the windows in which directions choose a place: the first of those that move up fastest."""
        return along.once("chosen", lambda: self._choose(call, along))  # type: ignore[no-any-return]

    def _choose(self, call: Call, along: Along) -> list[Array]:
        """Let each direction leave the places that move up fastest, then take the first."""
        xp, tied = call.xp, self.tied_places(call)
        for tangents in along.tangents:
            moved = [self.sign * t for t in self.slices(call, tangents[0], 0.0)]
            best = reduce(xp.maximum, (xp.where(a, m, -float("inf")) for a, m in zip(tied, moved, strict=True)))
            tied = [a & (m == best) for a, m in zip(tied, moved, strict=True)]
        chosen, free = [], xp.ones_like(tied[0])
        for place in tied:
            chosen.append(place & free)
            free = free & ~place
        return chosen

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give how far the tangent of each tied entry is from that of the chosen one, window place by window place."""
        xp, rule = call.xp, rules["tie"]
        if not isinstance(rule, Along):
            return super().arguments_along(call, rules, tangents)
        chosen, mask = self._chosen(call, rule), self.active_under(call, rules)["tie"]
        best, moved = self.push(call, rules, tangents), self.slices(call, tangents[0], 0.0)
        places = zip(self.tied_places(call), chosen, moved, strict=True)
        gaps = [xp.where(t & mask & ~c, xp.abs(best - m), float("inf")) for t, c, m in places]
        return {"tie": xp.stack(gaps, axis=-1)}

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_k q_k (tangent of c_k)."""
        rule, moved = rules["tie"], self.slices(call, tangents[0], 0.0)
        if tol == 0 and isinstance(rule, Along):
            total = moved[0]
            for place, tangent in zip(self._chosen(call, rule)[1:], moved[1:], strict=True):
                total = call.xp.where(place, tangent, total)
            return total
        return sum(q * t for q, t in zip(self.shares(call, rule, tol), moved, strict=True))


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
            parts.insert(place * len(parts), xp.full(tuple(shape), fill, dtype=array.dtype, device=device_of(array)))
    return xp.concat(parts, axis=axis) if len(parts) > 1 else array


def _adaptive_windows(xp: Any, array: Array, sizes: tuple[int, ...], targets: tuple[int, ...], fill: float) -> Array:
    """Lay adaptive windows along a last axis, the shorter ones filled up."""
    places = [
        [range(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)] for n, m in zip(sizes, targets, strict=True)
    ]
    windows = [[int(np.ravel_multi_index(at, sizes)) for at in product(*rows)] for rows in product(*places)]
    longest = max(map(len, windows))
    index = np.asarray([w + [-1] * (longest - len(w)) for w in windows])
    outside = xp.asarray(index < 0, device=device_of(array))
    flat = xp.reshape(array, (*array.shape[: -len(sizes)], -1))
    taken = xp.take(flat, xp.asarray(index.clip(0).ravel(), device=device_of(array)), axis=-1)
    taken = xp.reshape(taken, (*flat.shape[:-1], *targets, longest))
    return xp.where(xp.reshape(outside, (*targets, longest)), xp.full_like(taken, fill), taken)


POOLINGS: tuple[Nonsmooth, ...] = (
    Pooling(name="max_pool", candidates=pooling_windows, summary="the largest entry of each window"),
    Extremum(name="adaptive_max_pool", candidates=pooling_windows, summary="the largest entry of each adaptive window"),
)
"""The pooling operations of the dictionary."""
