"""Steps that are linear once an order or signs are held: largest entries, sorts, medians, 1-norms, maximum norms.

An order operation returns some ranks of candidates c_1 .. c_n. Its pattern is the candidates in ascending order; the piece is
the held order's entry at each rank returned, which is linear. Its margins are n - 1 gaps of the held order: neighbours among
the ranks returned, and every other candidate with the nearest of these:

    max:  c_(n) - c_(p), p < n        sort:  c_(p+1) - c_(p)        the k-th:  c_(k) - c_(p), p < k,  and  c_(p) - c_(k), p > k

If all are positive, the held order gives the ranks returned. The maximum norm is the largest of the entries and their
negatives; the 1-norm holds the signs of the entries.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nonsmooth.dictionary import Call, Cone, Extremum, Ranking
from nonsmooth.dictionary.operation import counted, device_of
from nonsmooth.implicit.flows.held import Array, Entry, Held, Place
from nonsmooth.program import Step

__all__ = ["HeldExtremum", "HeldLargestNorm", "HeldOrder", "HeldRanking", "HeldSigns", "held_linearly"]


class HeldOrder(Held):
    """Some ranks of candidates, whose order is held."""

    @abstractmethod
    def candidates(self, call: Call) -> Array:
        """Give the candidates along the last axis."""

    @abstractmethod
    def returned(self, call: Call, ordered: Array) -> Array:
        """Give the result from the candidates in ascending order."""

    def ranks(self, call: Call, n: int) -> range:
        """Give the ranks returned, counted from the smallest candidate."""
        return range(n - 1, n)

    @property
    def sign(self) -> int:
        """-1 where the candidates are negatives of the entries."""
        return 1

    @property
    def kinks(self) -> tuple[str, ...]:
        """Ties alone."""
        return ("tie",)

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Give the candidates in ascending order."""
        found = self.still(self.candidates(self.call(operands, output)))
        return (self.xp.argsort(found, axis=-1, stable=True),)

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the entries at the ranks of the held order, and the gaps that keep them there."""
        xp, call = self.xp, self.call(operands, output)
        order = xp.astype(entry[0], counted(xp, entry[0] > 0).dtype)
        ordered = xp.take_along_axis(self.candidates(call), order, axis=-1)
        partner, side = _partners(ordered.shape[-1], self.ranks(call, ordered.shape[-1]))
        places, sides = (xp.asarray(a, device=device_of(ordered)) for a in (partner, side))
        gaps = xp.where(sides > 0, 1.0, -1.0) * (xp.take(ordered, places, axis=-1) - ordered)
        return self.returned(call, ordered), [xp.where(sides == 0, xp.full_like(ordered, float("inf")), gaps)]

    def flipped(self, entry: Entry, masks: list[Any], beyond: Entry) -> Entry:
        """Exchange the candidates whose gap closes."""
        return self._exchanged(entry, masks, lambda line, one, other: True)

    def mixed(self, entry: Entry, masks: list[Any], there: Entry) -> Entry:
        """Order the candidates whose gaps are marked as they are at another point."""
        ranks = np.argsort(there[0], axis=-1).reshape(-1, there[0].shape[-1])

        def wrong(line: int, low: int, high: int) -> bool:
            return bool(ranks[line, low] > ranks[line, high])

        for _ in range(entry[0].shape[-1]):
            changed = self._exchanged(entry, masks, wrong)
            if np.array_equal(changed[0], entry[0]):
                break
            entry = changed
        return entry

    def _exchanged(self, entry: Entry, masks: list[Any], when: Any) -> Entry:
        """Exchange the two candidates of marked gaps, when(line, lower, higher)."""
        n = entry[0].shape[-1]
        order, marked = entry[0].reshape(-1, n).copy(), masks[0].reshape(-1, n)
        partner, side = self._gaps(n)
        for line, p in np.argwhere(marked & (side != 0)):
            low, high = sorted((int(p), int(partner[p])))
            if when(line, int(order[line, low]), int(order[line, high])):
                order[line, [low, high]] = order[line, [high, low]]
        return (order.reshape(entry[0].shape),)

    def _gaps(self, n: int) -> tuple[Any, Any]:
        """Give what each place of the order is compared with, and on which side that is."""
        return _partners(n, self.ranks(Call(self.xp, (), self.step.attributes), n))

    def place(self, entry: Entry, j: int, index: tuple[int, ...]) -> Place:
        """Name the candidate that rises, or falls, through the rank."""
        n = entry[0].shape[-1]
        direction = self.sign * int(self._gaps(n)[1][index[-1]])
        where = (*index[:-1], int(entry[0][index]))
        return Place(self.step.operation.name, self.kinks[j], where, str(self.step.where), direction)


def _partners(n: int, ranks: range) -> tuple[Any, Any]:
    """Give for each place of an ascending order the place that it is compared with, and the sign of their difference.

    >>> [a.tolist() for a in _partners(4, range(1, 3))]        # the two in the middle
    [[1, 2, 2, 2], [1, 1, 0, -1]]
    """
    place = np.arange(n)
    partner = np.clip(np.where(place < ranks.start, ranks.start, place + 1), None, ranks.stop - 1)
    return partner, np.sign(partner - place)


class HeldExtremum(HeldOrder):
    """A largest or smallest entry, also of windows and of what has been so far."""

    @property
    def sign(self) -> int:
        """-1 of a smallest entry."""
        return self.step.operation.sign  # type: ignore[attr-defined, no-any-return]

    def candidates(self, call: Call) -> Array:
        """Give the candidates, larger is better."""
        operation: Any = self.step.operation
        return self.sign * operation.candidates(call, call.operands[0], -self.sign * float("inf"))

    def returned(self, call: Call, ordered: Array) -> Array:
        """Give the last one."""
        return self.xp.reshape(self.sign * ordered[..., -1], call.result.shape)


class HeldRanking(HeldOrder):
    """Entries by rank: sort, topk, median."""

    @property
    def sign(self) -> int:
        """-1 where the ranks count from the largest."""
        return -1 if self.step.attributes.get("descending", False) else 1

    def candidates(self, call: Call) -> Array:
        """Give the entries that are ranked, the first rank smallest."""
        operation: Any = self.step.operation
        return self.sign * operation.laid_out(call, call.operands[0])

    def ranks(self, call: Call, n: int) -> range:
        """Give the ranks that the record returns."""
        operation: Any = self.step.operation
        return operation.ranks(call, n)  # type: ignore[no-any-return]

    def returned(self, call: Call, ordered: Array) -> Array:
        """Give the ranks returned, laid out as the result."""
        operation: Any = self.step.operation
        return operation.returned(call, self.sign * ordered)


class HeldLargestNorm(HeldOrder):
    """A maximum norm: the largest of the entries and their negatives."""

    def candidates(self, call: Call) -> Array:
        """Give the entries and their negatives."""
        operation: Any = self.step.operation
        image = operation.image(call, call.operands)
        return self.xp.concat((image, -image), axis=-1)

    def returned(self, call: Call, ordered: Array) -> Array:
        """Give the last one."""
        return self.xp.reshape(ordered[..., -1], call.result.shape)


class HeldSigns(Held):
    """A 1-norm: the signs of the entries are held."""

    @property
    def kinks(self) -> tuple[str, ...]:
        """Zero entries alone."""
        return ("zero entry",)

    def _image(self, operands: Sequence[Any], output: Array) -> Array:
        """Give the entries of each norm along the last axis."""
        operation: Any = self.step.operation
        call = self.call(operands, output)
        return operation.image(call, call.operands)

    def natural(self, operands: Sequence[Any], output: Array) -> Entry:
        """Tell which entries are positive."""
        return (self.still(self._image(operands, output)) > 0,)

    def held(self, entry: Entry, operands: Sequence[Any], output: Array) -> tuple[Array, list[Array]]:
        """Give the sum of the entries with the held signs, which are the margins."""
        signed = (2 * entry[0] - 1) * self._image(operands, output)
        return self.xp.reshape(self.xp.sum(signed, axis=-1), output.shape), [signed]


def held_linearly(step: Step, xp: Any) -> type[Held] | None:
    """Give how an order or a norm is held; None of those whose pieces are not linear, or come in no order."""
    operation = step.operation
    if isinstance(operation, Extremum):
        return HeldExtremum
    if isinstance(operation, Ranking):
        return None if step.attributes.get("sorted") is False else HeldRanking
    if isinstance(operation, Cone):
        return {1.0: HeldSigns, float("inf"): HeldLargestNorm}.get(operation.exponent(Call(xp, (), step.attributes)))
    return None
