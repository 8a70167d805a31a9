"""Switches: operations that follow one of several smooth pieces, chosen by the sign of an argument.

With pieces 0 .. m along the arguments a_1 >= ... >= a_m (one per breakpoint) and partial derivatives d_0 .. d_m, the
derivative under weights w is the telescope

    d_0 + sum_j H_w(a_j) (d_j - d_(j-1)),   H_w(a) = 0 for a < 0, w for a = 0, 1 for a > 0,

so w is the weight of the right-hand slope, and the set at a kink is the segment between d_(j-1) and d_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import mul, or_
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary.operation import (
    Along,
    Array,
    Attributes,
    Call,
    Kind,
    Nonsmooth,
    Rule,
    device_of,
    entries,
    is_number,
    lexicographic_sign,
    on_host,
)
from nonsmooth.dictionary.weights import Block, chain
from nonsmooth.errors import ConventionError

__all__ = ["Partials", "Switch", "far_unless", "piecewise_linear", "weight_of"]

GOLDEN = 1.618033988749895
"""Tangents 1, GOLDEN, GOLDEN^2 of the operands give no difference of them the value 0."""

Partials: TypeAlias = tuple[Array | float, ...]
"""The derivative of a piece with respect to each operand; a number stands for a constant."""


@dataclass(frozen=True, kw_only=True)
class Switch(Nonsmooth):
    """An element-wise operation of pieces.

    `arguments(call)` gives one array per kink, `pieces(call)` one more tuple of partial derivatives than that;
    `flats(attributes)`, where given, the values that the result takes on its pieces of slope zero and nowhere else but
    at kinks; `moves(call, tangents)` the tangents of the arguments, which need not be given where they are affine.

    >>> relu = piecewise_linear("relu", kinks=("0",), breakpoints=lambda a: (0.0,), slopes=lambda a: (0.0, 1.0))
    >>> relu.kind.value, relu.kinks
    ('switch', ('0',))

    Source: GriewankWalther2008.
    """

    kind: Kind = Kind.SWITCH
    arguments: Callable[[Call], Sequence[Array]] = field(repr=False)
    flats: Callable[[Attributes], Sequence[Any]] | None = field(repr=False, default=None)
    pieces: Callable[[Call], Sequence[Partials]] = field(repr=False)
    moves: Callable[[Call, tuple[Array, ...]], Sequence[Array]] | None = field(repr=False, default=None)

    def moved(self, call: Call, tangents: tuple[Array, ...]) -> Sequence[Array]:
        """Give the tangent of every argument."""
        if self.moves is not None:
            return self.moves(call, tangents)
        after = replace(call, operands=tuple(u + t for u, t in zip(call.operands, tangents, strict=True)))
        return [b - a for a, b in zip(self.arguments(call), self.arguments(after), strict=True)]

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give |tangent of a_j| where kink j is active."""
        masks, moved = self.active_under(call, rules), self.moved(call, tangents)
        return {name: far_unless(call.xp, masks[name], m) for name, m in zip(self.kinks, moved, strict=True)}

    def _followed(self, call: Call, rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
        """Put the weights that directions decide in the place of `Along`."""
        along = next((r for r in rules.values() if isinstance(r, Along)), None)
        if along is None:
            return rules
        parts = zip(*along.map(lambda t: self.moved(call, t)), strict=True)
        signs = [p[0] if len(p) == 1 else lexicographic_sign(call.xp, list(p)) for p in parts]
        decided = {k: s > 0 for k, s in zip(self.kinks, signs, strict=True)}
        if call.heaviside is None or self.slopes_of(call) is None:
            decided = {k: call.xp.astype(w, call.result.dtype) for k, w in decided.items()}
        return {k: decided[k] if isinstance(r, Along) else r for k, r in rules.items()}

    def _exact(self, call: Call) -> dict[str, Array]:
        """Mark the elements at which an argument is zero."""
        return {name: a == 0 for name, a in zip(self.kinks, self.arguments(call), strict=True)}

    def slopes_of(self, call: Call) -> list[float] | None:
        """List the slopes of all pieces if all of them are constants; None elsewhere."""
        slopes = [slope for piece in self.pieces(call) for slope in piece]
        return slopes if all(map(is_number, slopes)) else None

    def margins(self, call: Call) -> dict[str, Array]:
        """Give |a_j| for each kink j."""
        return {name: call.xp.abs(a) for name, a in zip(self.kinks, self.arguments(call), strict=True)}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the elements at a breakpoint, but for those at which the two slopes agree."""
        masks = super().active(call, tol) if tol else self._exact(call)
        pieces = self.pieces(call)
        for name, before, after in zip(self.kinks, pieces[:-1], pieces[1:], strict=True):
            differs = [b != a for b, a in zip(before, after, strict=True) if b is not a]
            if not any(d is True for d in differs):
                arrays = [d for d in differs if d is not False]
                masks[name] = masks[name] & reduce(or_, arrays) if arrays else call.xp.zeros_like(masks[name])
        return masks

    def partials(self, call: Call, rules: Mapping[str, Rule], tol: float = 0.0) -> Partials:
        """Give the derivative with respect to each operand under the weights, once for each `Along`."""
        along = next((r for r in rules.values() if isinstance(r, Along)), None)
        if along is None or tol:
            return self._telescope(call, rules, tol)
        return along.once("partials", lambda: self._telescope(call, rules, tol))  # type: ignore[no-any-return]

    def _telescope(self, call: Call, rules: Mapping[str, Rule], tol: float) -> Partials:
        """Give the telescope above."""
        where, rules = call.xp.where, self._followed(call, rules)
        pieces = self.pieces(call)
        slopes = list(pieces[0])
        for name, argument, piece in zip(self.kinks, self.arguments(call), pieces[1:], strict=True):
            weight, like = weight_of(self.name, name, rules), call.result
            step = None if tol else call.step(argument, weight)
            for i, after in enumerate(piece):
                before = slopes[i]
                if after is before:
                    continue
                if step is not None and is_number(after) and is_number(before):
                    slopes[i] = step if (before, after) == (0.0, 1.0) else before + (after - before) * step
                    continue
                if getattr(weight, "dtype", None) == call.xp.bool:
                    weight = call.xp.astype(weight, like.dtype)
                at_kink = weight * after + (1 - weight) * before
                beyond = where(argument > tol, _full(call.xp, after, like), _full(call.xp, before, like))
                slopes[i] = where(call.xp.abs(argument) <= tol, _full(call.xp, at_kink, like), beyond)
        return tuple(slopes)

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start on the left of every kink; z are the jumps of the derivative at the breakpoints that an element meets."""
        masks, shape = self.active(call, tol), call.result.shape
        flat = np.stack([np.broadcast_to(on_host(masks[k]), tuple(shape)).ravel() for k in self.kinks])
        if not flat.any():
            return dict.fromkeys(self.kinks, 0.0), []
        patterns = np.unique(flat[:, flat.any(axis=0)], axis=1).T
        values = [np.broadcast_to(on_host(a), tuple(shape)).ravel() for a in self.arguments(call)]
        blocks = []
        for pattern in patterns:
            places = np.flatnonzero((flat == pattern[:, None]).all(axis=0))
            met = [j for j, one in enumerate(pattern) if one]
            changes = self._changes(call, met, places, tol)
            blocks.append(
                Block(
                    kink=" and ".join(self.kinks[j] for j in met),
                    weights=chain(len(met)),
                    places=places[:, None],
                    jumps=partial(self._jumps, call, changes, places),
                    orientation=self._orientation(call, met, changes, places),
                    values=np.stack([values[j][places] for j in met], axis=1),
                )
            )
        return dict.fromkeys(self.kinks, 0.0), blocks

    def _changes(self, call: Call, met: Sequence[int], places: Any, tol: float) -> list[list[Array | float]]:
        """Give, for some breakpoints j that some elements meet, d_j less the slopes that the ones before j leave there.

        These are d_(j-1), unless its piece is empty: where two bounds of a clamp coincide above the operand, the
        element goes from the lower bound to the upper one.
        """
        xp, shape = call.xp, call.result.shape

        def here(value: Array | float) -> Array | float:
            return value if is_number(value) else entries(xp, xp.broadcast_to(value, shape), places)

        before, found = [here(p) for p in self.pieces(call)[0]], []
        for j, (argument, piece) in enumerate(zip(self.arguments(call), self.pieces(call)[1:], strict=True)):
            after = [here(p) for p in piece]
            if j in met:
                found.append([a - b for a, b in zip(after, before, strict=True)])
            beyond = entries(xp, xp.broadcast_to(argument, shape), places) > tol
            if j in met or bool(xp.all(beyond)):
                before = after
            elif bool(xp.any(beyond)):
                like = xp.astype(beyond, call.result.dtype)
                before = [
                    xp.where(beyond, _full(xp, a, like), _full(xp, b, like)) for a, b in zip(after, before, strict=True)
                ]
        return found

    def _jumps(self, call: Call, changes: list[list[Array | float]], places: Any, tangents: Sequence[Array]) -> Array:
        """Give sum_i (change of partial i) (tangent i) for each change, at some elements."""
        xp, columns = call.xp, []
        for change in changes:
            total = xp.zeros(len(places), dtype=call.result.dtype, device=device_of(call.result))
            for jump, tangent in zip(change, tangents, strict=True):
                if not _is_zero(jump):
                    total = total + jump * entries(xp, xp.broadcast_to(tangent, call.result.shape), places)
            columns.append(total)
        return xp.stack(columns, axis=-1)

    def _orientation(self, call: Call, met: Sequence[int], changes: list[list[Array | float]], places: Any) -> Any:
        """Give the jump over the tangent of the switching argument, of which it is a multiple; 0 where there is none."""
        xp = call.xp
        draws = tuple(xp.full_like(u, GOLDEN**k) for k, u in enumerate(call.operands))
        moved, shape = self.moved(call, draws), call.result.shape
        moves = xp.stack([entries(xp, xp.broadcast_to(moved[j], shape), places) for j in met], axis=-1)
        below = np.asarray(on_host(moves), dtype=np.float64)
        jumps = np.asarray(on_host(self._jumps(call, changes, places, draws)), dtype=np.float64)
        return np.divide(jumps, below, out=np.zeros_like(jumps), where=below != 0)

    def dead(self, call: Call) -> Array | None:
        """Mark by 1 the entries strictly inside a piece without any slope, by 0 the others."""
        pieces, arguments, total = self.pieces(call), self.arguments(call), None
        for place, piece in enumerate(pieces):
            if not all(_is_zero(p) for p in piece):
                continue
            above = [call.step(a, 0.0) for a in arguments[:place][-1:]]
            below = [1 - call.step(a, 1.0) for a in arguments[place:][:1]]
            inside = reduce(mul, above + below)
            total = inside if total is None else total + inside
        return total

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_i (partial i) (tangent i)."""
        partials = self.partials(call, rules, tol)
        return sum(p * t for p, t in zip(partials, tangents, strict=True) if not _is_zero(p))


def piecewise_linear(
    name: str,
    *,
    kinks: tuple[str, ...],
    breakpoints: Callable[[Attributes], Sequence[Any]],
    slopes: Callable[[Attributes], Sequence[Any]],
    flats: Callable[[Attributes], Sequence[Any]] | None = None,
    summary: str = "",
) -> Switch:
    """Record a continuous operation of one operand whose slopes are constants.

    Args:
        name: the name of the record, unique in the dictionary.
        kinks: a name for each breakpoint.
        breakpoints: from the attributes of a call, where the slope changes, in ascending order; an infinite one is none.
        slopes: from the attributes, one slope more than breakpoints.
        flats: from the attributes, the values on pieces of slope zero, where no other piece has them.
        summary: the formula.

    >>> absolute = piecewise_linear("abs", kinks=("0",), breakpoints=lambda a: (0,), slopes=lambda a: (-1, 1))
    >>> absolute.name
    'abs'

    Source: GriewankWalther2008.
    """
    return Switch(
        name=name,
        kinks=kinks,
        summary=summary,
        flats=flats,
        arguments=lambda call: tuple(_beyond(call, b) for b in breakpoints(call.attributes)),
        moves=lambda call, tangents: tuple(tangents[0] for _ in kinks),
        pieces=lambda call: tuple((float(s),) for s in slopes(call.attributes)),
    )


def far_unless(xp: Any, mask: Array, moved: Array) -> Array:
    """Give |moved| where a mask holds, infinity elsewhere."""
    return xp.where(mask, xp.abs(moved), float("inf"))


def _beyond(call: Call, breakpoint: float) -> Array:
    """Give u - b, the breakpoint rounded to the numbers of u, as an operation rounds it before it compares."""
    xp, u = call.xp, call.operands[0]
    if not breakpoint:
        return u
    if math.isinf(breakpoint):
        return xp.full_like(u, -breakpoint)
    if not float(breakpoint).is_integer() and xp.finfo(u.dtype).bits < 32:
        breakpoint = xp.asarray(breakpoint, dtype=u.dtype, device=device_of(u))
    return u - breakpoint


def weight_of(operation: str, kink: str, rules: Mapping[str, Rule]) -> Any:
    """Read the weight of the right-hand slope at one kink."""
    rule = rules[kink]
    if isinstance(rule, str):
        raise ConventionError(
            f"at_kinks gives {rule!r} for {operation!r} at {kink!r}: a switch takes a number, the weight of its right-hand slope."
        )
    return rule


def _is_zero(partial: Array | float) -> bool:
    """Tell a structural zero."""
    return is_number(partial) and partial == 0


def _full(xp: Any, value: Array | float, like: Array) -> Array:
    """Spread a constant over the shape of the result."""
    return xp.full_like(like, value) if is_number(value) else value
