"""Order operations: operations that return entries of a tuple by their rank.

An `Extremum` returns the largest (or smallest) of the candidates c_1 .. c_n, so its set at a tie is the simplex over
the tied candidates: the derivative is sum_k q_k (derivative of c_k) with q >= 0, sum q = 1, q_k = 0 off the tie.
A `Ranking` returns several ranks at once (sort, topk), so its set is the Birkhoff polytope of each tied block. Both
share their rules for ties, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.dictionary.operation import (
    Along,
    Array,
    Call,
    Kind,
    Nonsmooth,
    Rule,
    counted,
    device_of,
    entries,
    on_host,
    reduced_axes_last,
    somewhere,
)
from nonsmooth.dictionary.weights import Block, Permutations, simplex
from nonsmooth.errors import ConventionError

__all__ = [
    "ORDERS",
    "Extremum",
    "Ranking",
    "behind_the_first",
    "check_tie_rule",
    "largest_along",
    "tie_blocks",
    "tie_shares",
]

TIE_RULES = ("even", "first", "last")
"""The words that a selection may use for a tie; an array of the operand's shape gives weights or priorities."""

WORDS_OF_EXTREMA = (*TIE_RULES, "all")
"""Those for a largest entry: "all" gives each tied entry the whole, which some frameworks do, and leaves the field."""


def check_tie_rule(rule: Rule, name: str, words: tuple[str, ...] = TIE_RULES) -> None:
    """Refuse a word that means nothing at a tie.

    Raises:
        ConventionError: the rule is a word, and none of `words`.
    """
    if isinstance(rule, str) and rule not in words:
        raise ConventionError(
            f"at_kinks gives {rule!r} for {name!r} at a tie: use one of {words} or an array of weights."
        )


def tie_shares(xp: Any, tied: Array, rule: Rule, spread: Callable[[Array], Array]) -> Array:
    """Give weights q >= 0 of sum 1 (unless "all") over the tied candidates (1 where tied, else 0), along the last axis.

    `spread` lays an array of the operand's shape out as the candidates are.
    """
    word = rule if isinstance(rule, str) else None
    if word == "all":
        return tied
    if word == "first":
        tied = tied * (xp.cumulative_sum(tied, axis=-1) == 1)
    elif word == "last":
        tied = tied * (xp.flip(xp.cumulative_sum(xp.flip(tied, axis=-1), axis=-1), axis=-1) == 1)
    elif word is None and not isinstance(rule, int | float):
        tied = tied * spread(rule)
    return tied / xp.sum(tied, axis=-1, keepdims=True)


def largest_along(xp: Any, tied: Array, moved: list[Array]) -> Array:
    """Mark by 1 the tied candidates that move up fastest: along the first direction, then the second, and so on."""
    for tangent in moved:
        low = xp.full_like(tangent, -float("inf"))
        best = xp.max(xp.where(tied > 0, tangent, low), axis=-1, keepdims=True)
        tied = tied * xp.astype(tangent == best, tied.dtype)
    return tied


def behind_the_first(xp: Any, tied: Array, leading: Array, moved: Array) -> Array:
    """Give how far the tangents of the other tied candidates are from that of the first leading one; else infinity."""
    first = (leading > 0) & (xp.cumulative_sum(counted(xp, leading > 0), axis=-1) == 1)
    best = xp.sum(xp.where(first, moved, xp.zeros_like(moved)), axis=-1, keepdims=True)
    return xp.where((tied > 0) & ~first, xp.abs(best - moved), xp.full_like(moved, float("inf")))


def tie_blocks(
    xp: Any, tied: Any, places: Any, candidates: Callable[[Sequence[Array]], Array], negative: bool = False
) -> list[Block]:
    """Cut ties: of each row of `tied` the first candidate is taken, and z compares the others with it.

    `tied` has shape (n, candidates), `places` (n,) are the results, `candidates` lays the tangents out as `tied`; the
    largest decides, or if `negative` the smallest.
    """
    count, width, blocks = tied.sum(axis=1), tied.shape[1], []
    for m in sorted({int(c) for c in count if c > 1}):
        rows = np.flatnonzero(count == m)
        chosen = np.nonzero(tied[rows])[1].reshape(len(rows), m) + rows[:, None] * width

        def jumps(tangents: Sequence[Array], chosen: Any = chosen) -> Array:
            entry = entries(xp, candidates(tangents), chosen)
            return entry[:, 1:] - entry[:, :1]

        blocks.append(Block("tie", simplex(m - 1), places[rows, None], jumps, negative=negative))
    return blocks


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
        alone = xp.sum(counted(xp, at_best), axis=-1) <= 1
        rest = xp.max(xp.where(at_best, xp.full_like(candidates, -float("inf")), candidates), axis=-1)
        gap = xp.where(alone, best[..., 0] - rest, xp.zeros_like(rest))
        return {"tie": xp.reshape(gap, call.result.shape)}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the results that several candidates with a derivative tie for.

        Ties among entries whose derivative is zero cannot matter. The program may give them as the attribute `dead` (a
        function that gives 1 where the operand's entry has none), or `flats`: values that only such entries have.
        """
        xp, dead = call.xp, call.attributes.get("dead")
        tied = self._tied(call, tol)
        mask = xp.reshape(xp.sum(counted(xp, tied), axis=-1) > 1, call.result.shape)
        for value in call.attributes.get("flats") or ():
            mask = mask & (call.result != value)
        marks = dead() if dead is not None and somewhere(xp, mask) else None
        if marks is not None:
            alive = xp.any(tied & (self.candidates(call, 1 - marks, 0.0) > 0), axis=-1)
            mask = mask & xp.reshape(alive, call.result.shape)
        return {"tie": mask}

    def simplex(self, call: Call, rule: Rule, tol: float = 0.0) -> Array:
        """Give the weights q over the candidates."""
        check_tie_rule(rule, self.name, WORDS_OF_EXTREMA)
        if isinstance(rule, Along) and not tol:
            return rule.once("simplex", lambda: self._simplex(call, rule, 0.0))
        return self._simplex(call, rule, tol)

    def _simplex(self, call: Call, rule: Rule, tol: float) -> Array:
        """Compute the weights q over the candidates."""
        tied = call.xp.astype(self._tied(call, tol), call.result.dtype)
        if isinstance(rule, Along):
            moved = rule.map(lambda tangents: self.sign * self.candidates(call, tangents[0], 0.0))
            rule, tied = "even", largest_along(call.xp, tied, moved)
        return tie_shares(call.xp, tied, rule, lambda weights: self.candidates(call, weights, 0.0))

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_k q_k (tangent of c_k)."""
        q = self.simplex(call, rules["tie"], tol)
        moved = self.candidates(call, tangents[0], 0.0)
        return call.xp.reshape(call.xp.sum(q * moved, axis=-1), call.result.shape)

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give, where a tie is active, how far the tangent of each tied candidate is from that of the chosen one."""
        xp, q = call.xp, self.simplex(call, rules["tie"])
        behind = behind_the_first(xp, self._tied(call, 0.0), q, self.candidates(call, tangents[0], 0.0))
        mask = xp.reshape(self.active_under(call, rules)["tie"], (*behind.shape[:-1], 1))
        return {"tie": xp.where(mask, behind, xp.full_like(behind, float("inf")))}

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start with the first tied candidate; z compares the others with it."""
        tied, active = on_host(self._tied(call, tol)), on_host(self.active(call, tol)["tie"]).ravel()
        tied = tied.reshape(-1, tied.shape[-1]) & active[:, None]

        def candidates(tangents: Sequence[Array]) -> Array:
            return self.candidates(call, tangents[0], 0.0)

        return {"tie": "first"}, tie_blocks(call.xp, tied, np.arange(len(tied)), candidates, self.sign < 0)


@dataclass(frozen=True, kw_only=True)
class Ranking(Nonsmooth):
    """The entries of given ranks along an axis: sort, topk, kthvalue, median.

    `ranks(call, n)` gives the range of ranks returned, counted from the smallest (from the largest where the attribute
    `descending` holds); a NaN-free slice of length n is assumed, as sorting has no other meaning. Where the attribute
    `sorted` is False the result holds these entries in another order.

    The rule at a tie is "even" (the average over each tied block), "first" or "last" (the order of the indices, or
    its reverse), or an array of the operand's shape: tied entries follow one another by its values, the smallest at
    the lowest rank. Every permutation of a tied block, an extreme point of its Birkhoff polytope, is such an array.

    Source: Anil2019.
    """

    kind: Kind = Kind.ORDER
    kinks: tuple[str, ...] = ("tie",)
    ranks: Callable[[Call, int], range] = field(repr=False)

    def laid_out(self, call: Call, array: Array) -> Array:
        """Move the axis of the ranking last; without one, flatten."""
        if call.attributes.get("dim", -1) is None or array.ndim == 0:
            return call.xp.reshape(array, (-1,))
        return call.xp.moveaxis(array, _axis(call), -1)

    def _sorted(self, call: Call) -> tuple[Array, Array]:
        """Sort along the last axis; give sorted values and the permutation."""
        xp = call.xp
        u = self.laid_out(call, call.operands[0])
        order = xp.argsort(u, axis=-1, descending=bool(call.attributes.get("descending", False)), stable=True)
        return xp.take_along_axis(u, order, axis=-1), order

    def returned(self, call: Call, array: Array) -> Array:
        """Cut the returned ranks out of an array of all ranks, and lay them as the result."""
        xp, ranks = call.xp, self.ranks(call, array.shape[-1])
        array = array[..., ranks.start : ranks.stop]
        if call.attributes.get("sorted") is False:
            descending = bool(call.attributes.get("descending", False))
            order = xp.argsort(self.laid_out(call, call.result), axis=-1, descending=descending, stable=True)
            array = xp.take_along_axis(array, xp.argsort(order, axis=-1), axis=-1)
        return _back(call, array)

    def margins(self, call: Call) -> dict[str, Array]:
        """Give for each rank returned the gap to its nearer neighbour."""
        xp = call.xp
        values, _ = self._sorted(call)
        gap = xp.abs(values[..., 1:] - values[..., :-1])
        edge = xp.full_like(values[..., :1], float("inf"))
        nearest = xp.minimum(xp.concat((edge, gap), axis=-1), xp.concat((gap, edge), axis=-1))
        return {"tie": self.returned(call, nearest)}

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give the sorted tangents, weighed by the rule over each tied block."""
        xp, rule = call.xp, rules["tie"]
        check_tie_rule(rule, self.name)
        word = "even" if isinstance(rule, int | float) else rule if isinstance(rule, str) else None
        values, order = self._sorted(call)
        moved = xp.take_along_axis(self.laid_out(call, tangents[0]), order, axis=-1)
        start, size = _blocks(xp, values, tol)
        place = xp.arange(values.shape[-1], device=device_of(values)) - start
        if word == "first":
            total = moved
        elif word == "last":
            total = xp.take_along_axis(moved, start + size - 1 - place, axis=-1)
        elif word == "even":
            total = _block_sums(xp, moved, start, size) / xp.astype(size, moved.dtype)
        else:
            total = xp.take_along_axis(moved, self._by_priority(call, rule, order, start), axis=-1)
        return self.returned(call, total)

    def _by_priority(self, call: Call, rule: Rule, order: Array, start: Array) -> Array:
        """Give the places of the sorted entries once each tied block is sorted by its priorities."""
        if isinstance(rule, Along):
            keys = rule.map(lambda tangents: tangents[0])
            return rule.once("places", lambda: self._sorted_places(call, keys, order, start))
        return self._sorted_places(call, [rule], order, start)

    def _sorted_places(self, call: Call, keys: list[Array], order: Array, start: Array) -> Array:
        """Sort each tied block by the first key, its ties by the next."""
        xp, place = call.xp, _places(call.xp, order)
        descending = bool(call.attributes.get("descending", False))
        for key in reversed(keys):
            priority = xp.take_along_axis(xp.broadcast_to(self.laid_out(call, key), order.shape), order, axis=-1)
            again = xp.take_along_axis(priority, place, axis=-1)
            by_key = xp.argsort(again, axis=-1, descending=descending, stable=True)
            place = xp.take_along_axis(place, by_key, axis=-1)
        by_block = xp.argsort(xp.take_along_axis(start, place, axis=-1), axis=-1, stable=True)
        return xp.take_along_axis(place, by_block, axis=-1)

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give the gaps between the tangents of neighbours in a tied block, unless no rank of the two is returned."""
        xp, rule = call.xp, rules["tie"]
        values, order = self._sorted(call)
        n = values.shape[-1]
        start, _ = _blocks(xp, values, 0.0)
        place = self._by_priority(call, rule, order, start) if isinstance(rule, Along) else _places(xp, order)
        moved = xp.take_along_axis(xp.take_along_axis(self.laid_out(call, tangents[0]), order, axis=-1), place, axis=-1)
        rank, ranks = xp.arange(n, device=device_of(values)), self.ranks(call, n)
        returned = (rank >= ranks.start) & (rank < ranks.stop)
        compared = (start[..., 1:] == start[..., :-1]) & (returned[1:] | returned[:-1])
        gap = xp.abs(moved[..., 1:] - moved[..., :-1])
        return {"tie": xp.where(compared, gap, xp.full_like(gap, float("inf")))}

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start with the order of the indices in every tied block; z compares its entries with the first of them."""
        xp = call.xp
        values, order = self._sorted(call)
        n, (start, size) = values.shape[-1], _blocks(xp, values, tol)
        lines = values.size if isinstance(values.size, int) else int(np.prod(tuple(values.shape)))
        numbers = xp.reshape(xp.arange(lines, device=device_of(values)), values.shape)
        shown = on_host(self.returned(call, numbers)).ravel()  # which sorted entry each result shows
        place_of = dict(zip(shown.tolist(), range(len(shown)), strict=True))
        start, size, order = (on_host(a).reshape(-1, n) for a in (start, size, order))
        found: dict[tuple[int, tuple[int, ...]], list[tuple[list[int], list[int]]]] = {}
        for line, first in np.argwhere((start == np.arange(n)) & (size > 1)).tolist():
            m = int(size[line, first])
            ranks = [line * n + first + k for k in range(m)]
            returned = tuple(k for k, rank in enumerate(ranks) if rank in place_of)
            if returned:
                chosen = [line * n + int(order[line, first + k]) for k in range(m)]
                found.setdefault((m, returned), []).append(([place_of[ranks[k]] for k in returned], chosen))
        return {"tie": "first"}, [
            self._tied_block(call, Permutations(m, returned), rows) for (m, returned), rows in found.items()
        ]

    def _tied_block(self, call: Call, weights: Permutations, rows: list[Any]) -> Block:
        """Make the block of the tied blocks of one size whose returned places are the same."""
        places, chosen = (np.asarray(a) for a in zip(*rows, strict=True))

        def jumps(tangents: Sequence[Array]) -> Array:
            entry = entries(call.xp, self.laid_out(call, tangents[0]), chosen)
            return entry[:, 1:] - entry[:, :1]

        negative = bool(call.attributes.get("descending", False))
        return Block("tie", weights, places, jumps, negative=negative)


def _places(xp: Any, like: Array) -> Array:
    """Give the places 0 .. n - 1 along the last axis of an array."""
    return xp.broadcast_to(xp.arange(like.shape[-1], device=device_of(like)), like.shape)


def _blocks(xp: Any, values: Array, tol: float) -> tuple[Array, Array]:
    """Give the start and the size of the tied block of each sorted entry."""
    n = values.shape[-1]
    index = xp.broadcast_to(xp.arange(n, device=device_of(values)), values.shape)
    new = xp.abs(values[..., 1:] - values[..., :-1]) > tol
    head = xp.ones_like(values[..., :1], dtype=xp.bool)
    opens, closes = xp.concat((head, new), axis=-1), xp.concat((new, head), axis=-1)
    member = xp.cumulative_sum(counted(xp, opens), axis=-1) - 1
    starts = xp.sort(xp.where(opens, index, xp.full_like(index, n)), axis=-1)
    stops = xp.sort(xp.where(closes, index, xp.full_like(index, n)), axis=-1)
    start, stop = xp.take_along_axis(starts, member, axis=-1), xp.take_along_axis(stops, member, axis=-1)
    return start, stop - start + 1


def _block_sums(xp: Any, moved: Array, start: Array, size: Array) -> Array:
    """Give the sum over the tied block of each sorted entry: sums of 2, 4, 8 ... entries that do not leave the block."""
    n = moved.shape[-1]
    place = xp.arange(n, device=device_of(moved))
    try:
        longest = int(xp.max(size))
    except TypeError:  # a tracer has no value
        longest = n
    total, shift = moved, 1
    while shift < longest:
        ahead = xp.concat((total[..., shift:], xp.zeros_like(total[..., :shift])), axis=-1)
        total = total + xp.where(place + shift < start + size, ahead, xp.zeros_like(ahead))
        shift *= 2
    return xp.take_along_axis(total, start, axis=-1)


def _axis(call: Call) -> int:
    """Read the axis of a ranking."""
    return int(call.attributes.get("dim", -1))


def _back(call: Call, array: Array) -> Array:
    """Undo `Ranking.laid_out` on a result."""
    if len(call.result.shape) < array.ndim:
        array = array[..., 0]
    elif call.attributes.get("dim", -1) is not None and len(call.result.shape) == array.ndim and array.ndim > 0:
        array = call.xp.moveaxis(array, -1, _axis(call))
    return call.xp.reshape(array, call.result.shape)


def _reduction(call: Call, array: Array, fill: float) -> Array:
    """Lay the reduced axes last and flat; every tuple of candidates is full."""
    del fill
    return reduced_axes_last(call, array)


def _prefixes(call: Call, array: Array, fill: float) -> Array:
    """Lay the entries up to each place along a last axis: the candidates of a cumulative extremum."""
    xp, axis = call.xp, _axis(call)
    array = xp.moveaxis(array, axis, -1) if array.ndim else xp.reshape(array, (1,))
    n = array.shape[-1]
    place = xp.arange(n, device=device_of(array))
    prefix = xp.where(place[None, :] <= place[:, None], array[..., None, :], xp.full_like(array[..., None, :], fill))
    return xp.moveaxis(prefix, -2, axis % max(call.operands[0].ndim, 1)) if call.result.ndim else prefix[0]


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
