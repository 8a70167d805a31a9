"""Sums of products of entries, one from each of some arrays: the constants of every product of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import inf, isfinite, prod, sqrt
from typing import Any

import numpy as np

from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times
from nonsmooth.bounds.sizes import UNIT
from nonsmooth.bounds.spectral_norm import BUDGET, spectral_norm

__all__ = ["SumOfProducts"]

Interval = tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class SumOfProducts:
    """y_r = sum over the letters that are not in r of a_1[s_1] ... a_p[s_p], in the letters of einsum.

        ||y|| <= kappa ||a_1|| ... ||a_p||,    kappa^2 = product of the sizes of letters that stand once among s_1, ..., s_p, r

    for the sum over a letter that stands twice or more is at most the product of Euclidean norms (Cauchy-Schwarz), and over
    one that stands once sqrt(n) times it. The bound is attained by arrays with one entry, constant along such letters.
    An axis of size 1 has no letter: it spreads.

    >>> one = np.zeros(1), np.zeros((1, 1))
    >>> a, b = (Reach((2, 2), norm, *one) for norm in (3.0, 5.0))
    >>> local = SumOfProducts((a, b), ("ij", "jk"), "ik", (2, 2)).local()
    >>> [float(v) for v in local.lipschitz], local.smoothness, float(local.norm)
    ([5.0, 3.0], {(0, 1): 1.0}, 15.0)

    Source: derived, docs/theory/bounds.md.
    """

    operands: tuple[Reach, ...]
    names: tuple[str, ...]
    result: str
    shape: Shape
    budget: float = inf

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """The letters of each operand, without those of axes of size 1."""
        pairs = zip(self.names, self.operands, strict=True)
        return tuple("".join(c for c, n in zip(s, u.shape, strict=True) if n != 1) for s, u in pairs)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of each letter."""
        pairs = zip(self.names, self.operands, strict=True)
        return {c: n for s, u in pairs for c, n in zip(s, u.shape, strict=True) if n != 1}

    @cached_property
    def kept(self) -> str:
        """The letters of the result that some operand has."""
        return "".join(c for c in self.result if c in self.sizes)

    def _size(self, letters: str | set[str]) -> int:
        """Multiply the sizes of letters."""
        return prod(self.sizes[c] for c in set(letters))

    def lonely(self, place: int) -> set[str]:
        """Give the letters of an operand that neither another one nor the result has."""
        others = set(self.kept).union(*(s for i, s in enumerate(self.letters) if i != place))
        return set(self.letters[place]) - others

    @cached_property
    def kappa(self) -> float:
        """The constant of the norms."""
        return sqrt(prod(self._size(self.lonely(i)) for i in range(len(self.operands))))

    @cached_property
    def terms(self) -> int:
        """The number of products that are summed into an entry."""
        return self._size(set(self.sizes) - set(self.kept))

    def local(self) -> Local:
        """Give the constants: those of a derivative are products of the other norms, or an operator norm."""
        places = range(len(self.operands))
        norms = [u.norm for u in self.operands]
        lipschitz = [self.slope(i) for i in places]
        bends = {
            (i, j): self.kappa * _product(norms[k] for k in places if k not in (i, j))
            for i, j in combinations(places, 2)
        }
        grown = min(
            [self.kappa * _product(norms), *(float(times(c, n)) for c, n in zip(lipschitz, norms, strict=True))]
        )
        return Local(lipschitz, bends, grown, *self.interval())

    def slope(self, place: int) -> float:
        """Bound the norm of the derivative to an operand."""
        others = [u for i, u in enumerate(self.operands) if i != place]
        bound = self.kappa * _product(u.norm for u in others)
        if len(others) != 1 or not (self.operands[place].moves or others[0].distance == 0):
            return bound
        return min(bound, sqrt(self._size(self.lonely(place))) * self._operator(1 - place))

    def _operator(self, place: int) -> float:
        """Bound the largest norm of the matrices that an operand is to the other one.

        Along letters of both and of the result they stand side by side, over those of neither they are summed.
        """
        u, own = self.operands[place], set(self.letters[place])
        other, alone = set(self.letters[1 - place]), self.lonely(place)
        beside = [c for c in self.kept if c in own & other]
        rows = [c for c in self.sizes if c in own & other and c not in self.kept]
        columns = [c for c in self.kept if c in own - other]
        many = self._size(alone)
        bound = min(sqrt(many) * u.norm, many * sqrt(self._size({*rows, *columns})) * u.peak)
        plain = len(u.shape) == 2 and not beside and many == 1 and len(rows) < 2 and len(columns) < 2
        if plain:
            bound = min(bound, u.operator)
        if u.center is None or not isfinite(u.distance) or np.iscomplexobj(u.center):
            return bound
        if plain and u.size * min(u.shape) > min(self.budget, BUDGET):  # what one pass gives is in the bound
            return bound if u.distance == 0 else min(bound, u.sizes.operator + u.distance)
        matrices = self._einsum([self._array(place, u.center)], [place], "".join(beside + rows + columns))
        shape = tuple(self._size(set(part)) for part in (beside, rows, columns))
        return min(
            bound, spectral_norm(matrices.reshape(shape), min(self.budget, BUDGET)).upper + sqrt(many) * u.distance
        )

    # --- intervals ----------------------------------------------------------------------------------------------------

    def interval(self) -> Interval:
        """Enclose the entries: by intervals of each where operands have them, else by one for all."""
        low, high = self._one_for_all()
        affordable = 5.0 * self.terms * prod(self.shape) <= self.budget
        if affordable and len(self.operands) == 2 and any(u.low.shape or u.high.shape for u in self.operands):
            found = self._of_each()
            if found is not None:
                return np.maximum(found[0], low), np.minimum(found[1], high)
        return low, high

    def _one_for_all(self) -> Interval:
        """Enclose all entries by what is known of norms, peaks, and the arrays that stand almost still."""
        low, high, rows = 1.0, 1.0, 1.0
        for place, u in enumerate(self.operands):
            least, most = _hull(u)
            ends = [float(times(a, b)) for a in (low, high) for b in (least, most)]
            low, high = min(ends), max(ends)
            rows *= float(times(self.row(place), sqrt(self._size(self.lonely(place)))))
        low, high = float(times(self.terms, low)), float(times(self.terms, high))
        low, high = max(low, -rows), min(high, rows)
        if len(self.operands) == 2:
            for place in (0, 1):
                least, most = self._by_known(place)
                low, high = max(low, least), min(high, most)
        slack = 4 * (self.terms + 4) * UNIT * max(abs(low), abs(high)) if isfinite(low) and isfinite(high) else 0.0
        return np.asarray(low - slack), np.asarray(high + slack)

    def row(self, place: int) -> float:
        """Bound the norm of the entries of an operand that go into one entry of the result."""
        u = self.operands[place]
        return min(u.norm, float(times(sqrt(self._size(set(self.letters[place]) - set(self.kept))), u.peak)))

    def _by_known(self, place: int) -> tuple[float, float]:
        """Enclose the entries where one operand is known up to a distance and the other runs through one interval."""
        u, other = self.operands[place], self.operands[1 - place]
        if u.center is None or not isfinite(u.distance) or np.iscomplexobj(u.center) or not u.size:
            return -inf, inf
        if u.size > 1e6 and u.size > self.budget:
            return -inf, inf
        least, most = _hull(other)
        if not (isfinite(least) and isfinite(most)):
            return -inf, inf
        kept = "".join(c for c in self.kept if c in self.letters[place])
        center = self._array(place, u.center)
        many = self._size(self.lonely(1 - place))
        total, sizes = (many * self._einsum([v], [place], kept) for v in (center, np.abs(center)))
        middle, radius = (least + most) / 2, (most - least) / 2
        away = u.distance * self.row(1 - place) * self.kappa
        away += 4 * (self.terms + 8) * UNIT * max(abs(least), abs(most)) * float(np.max(sizes, initial=0.0))
        return (
            float(np.min(middle * total - radius * sizes)) - away,
            float(np.max(middle * total + radius * sizes)) + away,
        )

    def _of_each(self) -> Interval | None:
        """Enclose each entry: the product of middles, and radii times sizes."""
        parts = []
        for place, u in enumerate(self.operands):
            low, high = (np.broadcast_to(v, u.shape) for v in u.interval)
            if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
                return None
            known = u.center is not None and isfinite(u.distance) and not np.iscomplexobj(u.center)
            middle = np.asarray(u.center, float) if known else (low + high) / 2
            radius = np.maximum(high - middle, middle - low)
            parts.append([self._array(place, v) for v in (middle, radius)])
        (a, r), (b, s) = parts
        wide, tall = np.abs(a) + r, np.abs(b)
        middle, one, two, all_ = (
            self._einsum([u, v], [0, 1], self.kept) for u, v in ((a, b), (wide, s), (r, tall), (wide, tall + s))
        )
        one = np.minimum(one, self._ball(1, wide))
        two = np.minimum(two, self._ball(0, tall + s))
        radius = one + two + 4 * (self.terms + 8) * UNIT * all_
        spread = [self._spread(v) for v in (middle - radius, middle + radius)]
        return spread[0], spread[1]

    def _ball(self, place: int, other: Floats) -> Floats:
        """Bound what an operand that is within a distance of its center adds, met by the largest entries of the other."""
        u = self.operands[place]
        if u.center is None or not isfinite(u.distance) or np.iscomplexobj(u.center):
            return np.asarray(inf)
        kept = "".join(c for c in self.kept if c in self.letters[1 - place])
        met = np.sqrt(self._einsum([other * other], [1 - place], kept)) * u.distance * self.kappa
        names = iter(met.shape)
        return met.reshape(tuple(next(names) if c in kept else 1 for c in self.kept))

    def _array(self, place: int, value: object) -> Floats:
        """Give an array of an operand without its axes of size 1."""
        u = self.operands[place]
        return np.broadcast_to(np.asarray(value, float), u.shape).reshape(tuple(n for n in u.shape if n != 1))

    def _einsum(self, arrays: Sequence[Floats], places: Sequence[int], result: str) -> Floats:
        """Sum products of arrays that stand in the places of operands."""
        numbers = {c: i for i, c in enumerate(self.sizes)}
        taken: list[Any] = [
            x for a, p in zip(arrays, places, strict=True) for x in (a, [numbers[c] for c in self.letters[p]])
        ]
        found: Floats = np.einsum(*taken, [numbers[c] for c in result], optimize=True)
        return np.asarray(found, float)

    def _spread(self, value: Floats) -> Floats:
        """Give an array in the letters of the result the shape of the result."""
        return value.reshape(self.shape)


def _hull(u: Reach) -> tuple[float, float]:
    """Give one interval for all entries."""
    if u.low.shape == () and u.high.shape == ():
        return extremes(u)
    low, high = u.interval
    return (float(np.min(low)), float(np.max(high))) if u.size else (0.0, 0.0)


def _product(values: Iterable[float]) -> float:
    """Multiply bounds, 0 times infinity being 0."""
    found = 1.0
    for v in values:
        found = float(times(found, v))
    return found
