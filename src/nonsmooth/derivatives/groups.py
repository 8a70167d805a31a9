"""Groups: active kinks that interact, and the sets of cotangents that their weights can give.

Kinks i and j interact if what i adds changes what j compares. The derivative is multi-affine in the weights and additive
over the connected components, the groups: with l = W'(Y' + L'l) the cotangents of the z,

    D(x) = { J + Z'l },   l in the product over the groups of the sets of l that the weights of a group can give.

Its support function costs one forward sweep (Z d) and a maximisation for each group. In a group, kinks of which none
acts on another through whatever chain of kinks (an antichain) enter additively once the other ones, the *cover*, have
their weights; so the extreme weights of the cover are enumerated, and the antichain is a Minkowski sum.

Source: derived, docs/theory/sets.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from nonsmooth.derivatives.antichain import antichain_of
from nonsmooth.derivatives.brackets import LargeGroups
from nonsmooth.derivatives.linearisation import Integers, Linearisation
from nonsmooth.dictionary.weights import Floats, WeightSet

__all__ = ["Family", "GroupSupport", "Groups"]

CHUNK = 4_000_000
"""How many numbers an enumeration holds at once."""


class GroupSupport(NamedTuple):
    """A support value of all groups: a lower and an upper bound, and the cotangents l that attain the lower one."""

    lower: float
    upper: float
    cotangents: Floats


class Groups:
    """The groups of a linearisation.

    Attributes:
        alone: the kinks that interact with none, as arrays of one block each.
        families: groups whose structure is the same, enumerated together.
        large: the groups with more extreme weights of a cover than the limit, or none that is finite: bracketed.
        relevant: the numbers of the kinks on which the result depends.
        idle: how many active kinks it does not depend on.
    """

    def __init__(self, system: Linearisation, limit: int) -> None:
        self.system, self.limit = system, limit
        graph = _graph(system)
        relevant = _reaching(system, graph)
        self.relevant = np.flatnonzero(relevant)
        self.idle = int(system.count - relevant.sum())
        graph = graph[relevant][:, relevant]
        numbers = np.flatnonzero(relevant)
        count, label = csgraph.connected_components(graph, directed=False)
        sizes = np.bincount(label, minlength=count)
        self.alone = _by_block(system, numbers[sizes[label] == 1])
        self.families, large = _families(system, numbers, label, sizes, limit)
        self.large = LargeGroups(system, large) if large else None
        self.sizes = sizes

    @property
    def exact(self) -> bool:
        """Whether no group is bracketed."""
        return self.large is None

    def support(self, zeta: Floats) -> GroupSupport:
        """Maximise <l, zeta>, zeta = Z d, over the cotangents l of all groups."""
        found, lower, system = np.zeros(len(zeta)), 0.0, self.system
        for block, kinks in self.alone:
            z, u = system.z_of(kinks, block), system.u_of(kinks, block)
            found[z] = system.blocks[block].weights.attain(system.Y[u], zeta[z])
            lower += float(np.sum(found[z] * zeta[z]))
        for family in self.families:
            values, cotangents = family.support(zeta[family.z])
            lower += float(np.sum(values))
            found[family.z] = cotangents
        upper = lower
        if self.large is not None:
            inner, outer, cotangents = self.large.support(zeta)
            lower, upper = lower + inner, upper + outer
            found[self.large.z] = cotangents
        return GroupSupport(lower, upper, found)


def _graph(system: Linearisation) -> sparse.csr_array:
    """Give the graph of direct interactions, shape (kinks, kinks): entry (i, j) if j acts on i."""
    entries, n = system.L.tocoo(), system.count
    rows, columns = system.kink_of_z[entries.row], system.kink_of_u[entries.col]
    return sparse.csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))


def _reaching(system: Linearisation, graph: sparse.csr_array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the kinks on which the result depends, directly or through others."""
    reaching = np.zeros(system.count, dtype=bool)
    reaching[system.kink_of_u[system.Y != 0]] = True
    fresh = reaching
    while fresh.any():
        behind = (graph.T @ fresh.astype(np.int32)) > 0
        fresh = behind & ~reaching
        reaching = reaching | fresh
    return reaching


def _by_block(system: Linearisation, kinks: Integers) -> list[tuple[int, Integers]]:
    """Sort kinks into their blocks."""
    block = system.block_of_kink[kinks]
    return [(int(b), kinks[block == b]) for b in np.unique(block)]


def _families(
    system: Linearisation, numbers: Integers, label: Integers, sizes: Integers, limit: int
) -> tuple[list[Family], list[Integers]]:
    """Gather groups of the same structure; give those that are too large apart, as lists of kinks."""
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=len(sizes)))
    own = np.full(system.count, -1)
    own[numbers] = label
    entries = system.L.tocoo()
    owner = own[system.kink_of_z[entries.row]]
    kept = np.flatnonzero((owner >= 0) & (own[system.kink_of_u[entries.col]] >= 0))
    kept = kept[np.lexsort((entries.col[kept], entries.row[kept], owner[kept]))]
    edge_ends = np.cumsum(np.bincount(owner[kept], minlength=len(sizes)))
    keys = [b.weights.key for b in system.blocks]
    gathered: dict[Any, list[Any]] = {}
    for group in np.flatnonzero(sizes > 1).tolist():
        kinks = np.sort(numbers[order[ends[group] - sizes[group] : ends[group]]])
        edges = kept[(edge_ends[group - 1] if group else 0) : edge_ends[group]]
        z, u = _places(system, kinks)
        rows, columns = np.searchsorted(z, entries.row[edges]), np.searchsorted(u, entries.col[edges])
        structure = tuple(keys[b] for b in system.block_of_kink[kinks]), rows.tobytes(), columns.tobytes()
        gathered.setdefault(structure, []).append((kinks, z, u, rows, columns, entries.data[edges]))
    families, large = [], []
    for members in gathered.values():
        family = _family(system, members, limit)
        if family is None:
            large += [m[0] for m in members]
        else:
            families.append(family)
    return families, large


def _places(system: Linearisation, kinks: Integers) -> tuple[Integers, Integers]:
    """Give the places of the z and the u of some kinks, in ascending order."""
    parts = _by_block(system, kinks)
    z = np.concatenate([system.z_of(k, b).ravel() for b, k in parts])
    return z, np.concatenate([system.u_of(k, b).ravel() for b, k in parts])


def _family(system: Linearisation, members: list[Any], limit: int) -> Family | None:
    """Make a family, or say by None that its cover has too many extreme weights."""
    kinks, _, _, rows, columns, _ = members[0]
    weights = [system.blocks[b].weights for b in system.block_of_kink[kinks]]
    z_owner = np.repeat(np.arange(len(weights)), [w.compared for w in weights])
    u_owner = np.repeat(np.arange(len(weights)), [w.outputs for w in weights])
    direct = np.unique(np.stack([z_owner[rows], u_owner[columns]], axis=1), axis=0)
    costs = [math.log(w.count) if w.count < math.inf else math.inf for w in weights]
    free = antichain_of(len(weights), direct, costs)
    cover = [k for k in range(len(weights)) if k not in free]
    total = math.prod(weights[k].count for k in cover)
    if total > limit:
        return None
    z, u = np.stack([m[1] for m in members]), np.stack([m[2] for m in members])
    values = np.stack([m[5] for m in members])
    return Family(weights, cover, z, u, system.Y[u], rows, columns, values)


@dataclass(eq=False)
class Family:
    """Groups of one structure: kinks 0 .. K - 1 in the order of the program, of which `cover` are enumerated.

    z, u: their places, shape (groups, all z of one) and (groups, all u); Y likewise; the interactions have the same
    `rows` and `columns` in each, and `values` of shape (groups, number of them).
    """

    weights: list[WeightSet]
    cover: list[int]
    z: Integers
    u: Integers
    Y: Floats
    rows: Integers
    columns: Integers
    values: Floats

    def __post_init__(self) -> None:
        """Lay out the kinks, and the interactions by the kink that acts and by the kink that is acted on."""
        first_z = np.concatenate([[0], np.cumsum([w.compared for w in self.weights])])
        first_u = np.concatenate([[0], np.cumsum([w.outputs for w in self.weights])])
        self.z_of = [slice(a, b) for a, b in itertools.pairwise(first_z)]
        self.u_of = [slice(a, b) for a, b in itertools.pairwise(first_u)]
        self.acting = {k: self._gather(self.columns, self.rows, self.u_of[k], transpose=True) for k in self.cover}
        self.acted = [self._gather(self.rows, self.columns, part) for part in self.z_of]
        self.free = [k for k in range(len(self.weights)) if k not in self.cover]
        counts = [int(self.weights[k].count) for k in self.cover]
        self.configurations = np.stack(
            [a.ravel() for a in np.meshgrid(*(np.arange(c) for c in counts), indexing="ij")] or [np.zeros(1, int)]
        )

    def _gather(self, one: Integers, other: Integers, part: slice, transpose: bool = False) -> tuple[Integers, Floats]:
        """Give the interactions of one kink as matrices: the places that they join it to, and (groups, ., .) values."""
        edges = np.flatnonzero((one >= part.start) & (one < part.stop))
        places, back = np.unique(other[edges], return_inverse=True)
        matrix = np.zeros((len(self.values), part.stop - part.start, len(places)))
        matrix[:, one[edges] - part.start, back] = self.values[:, edges]
        return places, np.swapaxes(matrix, 1, 2) if transpose else matrix

    def support(self, zeta: Floats) -> tuple[Floats, Floats]:
        """Maximise <l, zeta> in each group: values of shape (groups,), cotangents of the shape of zeta."""
        size = self.configurations.shape[1] * (zeta.shape[1] + self.Y.shape[1])
        step = max(1, CHUNK // max(size, 1))
        parts = [self._support(zeta[a : a + step], slice(a, a + step)) for a in range(0, len(zeta), step)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _support(self, zeta: Floats, part: slice) -> tuple[Floats, Floats]:
        """Maximise in some of the groups."""
        total, z, y = self._enumerate(zeta, part)
        for k in self.free:
            total += self._free_support(k, z, y)
        best = np.argmax(total, axis=0)
        groups = np.arange(total.shape[1])
        own = z[best, groups]
        chosen = {k: self.weights[k].extreme()[self.configurations[c, best]] for c, k in enumerate(self.cover)}
        cotangents, y = np.zeros_like(own), self.Y[part].copy()
        for k in reversed(range(len(self.weights))):
            here = y[:, self.u_of[k]]
            if k in chosen:
                found = np.einsum("gr,grm->gm", here, chosen[k])
            else:
                found = self.weights[k].attain(here, own[:, self.z_of[k]])
            cotangents[:, self.z_of[k]] = found
            places, matrix = self.acted[k]
            y[:, places] += np.einsum("gmc,gm->gc", matrix[part], found)
        return total[best, groups], cotangents

    def _enumerate(self, zeta: Floats, part: slice) -> tuple[Floats, Floats, Floats]:
        """Put in every extreme weight of the cover: values (configurations, groups), and z and cotangents of u there."""
        many = self.configurations.shape[1]
        z = np.repeat(zeta[None], many, axis=0)
        y = np.repeat(self.Y[part][None], many, axis=0)
        total = np.zeros(z.shape[:2])
        weights = [self.weights[k].extreme()[row] for k, row in zip(self.cover, self.configurations, strict=False)]
        for k, W in zip(self.cover, weights, strict=True):
            u = np.einsum("srm,sgm->sgr", W, z[:, :, self.z_of[k]])
            total += np.einsum("gr,sgr->sg", self.Y[part][:, self.u_of[k]], u)
            places, matrix = self.acting[k]
            z[:, :, places] += np.einsum("gar,sgr->sga", matrix[part], u)
        for k, W in zip(reversed(self.cover), reversed(weights), strict=True):
            found = np.einsum("sgr,srm->sgm", y[:, :, self.u_of[k]], W)
            places, matrix = self.acted[k]
            y[:, :, places] += np.einsum("gmc,sgm->sgc", matrix[part], found)
        return total, z, y

    def _free_support(self, k: int, z: Floats, y: Floats) -> Floats:
        """Give the support of one kink of the antichain in every configuration."""
        here, there = y[:, :, self.u_of[k]], z[:, :, self.z_of[k]]
        flat = self.weights[k].support(here.reshape(-1, here.shape[2]), there.reshape(-1, there.shape[2]))
        return flat.reshape(z.shape[:2])
