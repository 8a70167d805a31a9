"""Brackets: a lower and an upper support value for groups that are too large to enumerate.

Below: the weights are improved level by level (the kinks of one level do not act on one another, so that the best
weights of a level are found exactly, all others as they are) from several starts; what is found is a value of the field.
Above: an enclosure of all z and u by intervals, in the order of the program, and one around a middle weight C,

    u = C z + e, |e| <= E |z|:   the part without e and the effect of e on the result are exact, |z| is enclosed.

The smaller of the two bounds counts. All large groups are treated at once: they do not interact.

Source: derived, docs/theory/sets.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from nonsmooth.derivatives.linearisation import Integers, Linearisation
from nonsmooth.dictionary.weights import Floats, WeightSet

__all__ = ["LargeGroups"]

STARTS = 6
"""How many selections the search for a lower bound starts from."""

PASSES = 50
"""How often it passes over all kinks at most."""


@dataclass(eq=False)
class _Cluster:
    """The kinks of one level that have the same set of weights: z of shape (n, m), u of shape (n, r), places in the group."""

    weights: WeightSet
    z: Integers
    u: Integers
    group: Integers


class LargeGroups:
    """Some groups of a linearisation, whose support is bracketed."""

    def __init__(self, system: Linearisation, groups: list[Integers]) -> None:
        kinks = np.sort(np.concatenate(groups))
        group_of = np.zeros(system.count, dtype=np.int64)
        for number, members in enumerate(groups):
            group_of[members] = number
        self.count = len(groups)
        wanted_z = np.isin(system.kink_of_z, kinks)
        wanted_u = np.isin(system.kink_of_u, kinks)
        self.z, self.u = np.flatnonzero(wanted_z), np.flatnonzero(wanted_u)
        self.L = sparse.csr_array(system.L[self.z][:, self.u])
        self.Y, self.system = system.Y[self.u], system
        self.group_of_z = group_of[system.kink_of_z[self.z]]
        self.group_of_u = group_of[system.kink_of_u[self.u]]
        self.levels = self._levels(kinks, group_of)

    def _levels(self, kinks: Integers, group_of: Integers) -> list[list[_Cluster]]:
        """Sort the kinks by the longest chain of interactions that ends at them."""
        system = self.system
        entries = self.L.tocoo()
        later = np.searchsorted(kinks, system.kink_of_z[self.z[entries.row]])
        earlier = np.searchsorted(kinks, system.kink_of_u[self.u[entries.col]])
        depth = np.zeros(len(kinks), dtype=np.int64)
        while True:
            deeper = depth.copy()
            np.maximum.at(deeper, later, depth[earlier] + 1)
            if np.array_equal(deeper, depth):
                break
            depth = deeper
        levels = []
        for level in range(int(depth.max(initial=0)) + 1):
            here, clusters = kinks[depth == level], []
            for block in np.unique(system.block_of_kink[here]):
                members = here[system.block_of_kink[here] == block]
                z = np.searchsorted(self.z, system.z_of(members, block))
                u = np.searchsorted(self.u, system.u_of(members, block))
                clusters.append(_Cluster(system.blocks[block].weights, z, u, group_of[members]))
            levels.append(clusters)
        return levels

    def support(self, zeta: Floats) -> tuple[float, float, Floats]:
        """Give a lower and an upper bound of the sum of all groups, and the cotangents that attain the lower one."""
        own = zeta[self.z]
        best, cotangents = self._search(own)
        above = np.minimum(self._by_intervals(own), self._by_middles(own))
        return float(best.sum()), float(np.maximum(above, best).sum()), cotangents

    def _search(self, zeta: Floats) -> tuple[Floats, Floats]:
        """Improve selections from several starts; give the best values of each group, and the cotangents."""
        rng = np.random.default_rng(0)
        best, found = np.full(self.count, -np.inf), np.zeros_like(zeta)
        for start in range(STARTS):
            values, cotangents = self._climb(zeta, self._start(zeta, rng, start))
            better = values > best
            best = np.where(better, values, best)
            found = np.where(better[self.group_of_z], cotangents, found)
        return best, found

    def _start(self, zeta: Floats, rng: np.random.Generator, start: int) -> Any:
        """Give one weight for each kink: those where nothing moves, those that look best without interactions, or drawn."""
        weights = []
        for level in self.levels:
            for c in level:
                y, z = self.Y[c.u], zeta[c.z]
                if start == 0:
                    chosen = c.weights.choose(np.zeros_like(y), np.zeros_like(z))
                elif start == 1:
                    chosen = c.weights.choose(np.where(y == 0, 1e-300, y), z)
                else:
                    chosen = c.weights.choose(rng.standard_normal(y.shape), rng.standard_normal(z.shape))
                weights.append(chosen)
        return weights

    def _climb(self, zeta: Floats, weights: list[Floats]) -> tuple[Floats, Floats]:
        """Pass forward and backward over the levels, each pass choosing the best weights of every level in turn."""
        values = None
        for _ in range(PASSES):
            z = self._forward(zeta, weights)
            cotangents, place = np.zeros_like(zeta), len(weights)
            y = self.Y.copy()
            for level in reversed(self.levels):
                for c in reversed(level):
                    place -= 1
                    old = np.einsum("nr,nrm,nm->n", y[c.u], weights[place], z[c.z])
                    new = c.weights.choose(y[c.u], z[c.z])
                    gain = np.einsum("nr,nrm,nm->n", y[c.u], new, z[c.z]) > old
                    weights[place] = np.where(gain[:, None, None], new, weights[place])
                    cotangents[c.z] = np.einsum("nr,nrm->nm", y[c.u], weights[place])
                touched = np.concatenate([c.z.ravel() for c in level])
                y += self.L[touched].T @ cotangents[touched]
            now = self._sums(self.group_of_z, cotangents * zeta)
            if values is not None and not np.any(now > values + 1e-12 * np.abs(values)):
                break
            values = now
        return now, cotangents

    def _forward(self, zeta: Floats, weights: list[Floats]) -> Floats:
        """Give the z under some weights."""
        z, u, place = zeta.copy(), np.zeros_like(self.Y), 0
        for level in self.levels:
            touched = np.concatenate([c.z.ravel() for c in level])
            z[touched] += self.L[touched] @ u
            for c in level:
                u[c.u] = np.einsum("nrm,nm->nr", weights[place], z[c.z])
                place += 1
        return z

    def _by_intervals(self, zeta: Floats) -> Floats:
        """Bound each group by enclosures of z and u, level by level."""
        low, high = np.zeros_like(self.Y), np.zeros_like(self.Y)
        up, down = self.L.maximum(0), self.L.minimum(0)
        for level in self.levels:
            touched = np.concatenate([c.z.ravel() for c in level])
            least, most = zeta.copy(), zeta.copy()
            least[touched] += up[touched] @ low + down[touched] @ high
            most[touched] += up[touched] @ high + down[touched] @ low
            for c in level:
                low[c.u], high[c.u] = c.weights.bound(least[c.z], most[c.z])
        return self._sums(self.group_of_u, np.maximum(self.Y * low, self.Y * high))

    def _sums(self, groups: Integers, terms: Floats) -> Floats:
        """Add terms up, group by group."""
        return np.bincount(groups, weights=terms, minlength=self.count).astype(np.float64)

    def _by_middles(self, zeta: Floats) -> Floats:
        """Bound each group by what middle weights give, plus the effect of what is left."""
        middles = [[c.weights.centre() for c in level] for level in self.levels]
        weights = [
            np.broadcast_to(m[0], (len(c.z), *m[0].shape))
            for ms, cs in self._pairs(middles)
            for m, c in zip(ms, cs, strict=True)
        ]
        z = self._forward(zeta, weights)
        spread, left, size = np.zeros_like(self.Y), np.zeros_like(self.Y), abs(self.L)
        for ms, level in self._pairs(middles):
            touched = np.concatenate([c.z.ravel() for c in level])
            moved = np.zeros_like(zeta)
            moved[touched] = size[touched] @ spread
            for m, c in zip(ms, level, strict=True):
                left[c.u] = (np.abs(z[c.z]) + moved[c.z]) @ m[1].T
                spread[c.u] = moved[c.z] @ np.abs(m[0]).T + left[c.u]
        y, cotangents = self.Y.copy(), np.zeros_like(zeta)
        for ms, level in reversed(list(self._pairs(middles))):
            for m, c in zip(ms, level, strict=True):
                cotangents[c.z] = y[c.u] @ m[0]
            touched = np.concatenate([c.z.ravel() for c in level])
            y += self.L[touched].T @ cotangents[touched]
        return self._sums(self.group_of_z, cotangents * zeta) + self._sums(self.group_of_u, np.abs(y) * left)

    def _pairs(self, middles: list[Any]) -> Any:
        """Walk the levels with their middle weights."""
        return zip(middles, self.levels, strict=True)
