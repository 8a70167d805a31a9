"""The kink linearisation: a program cut at its active kinks, so that the rest is small algebra.

With d a change of the point, z what the active kinks compare and u = W z what they add under the weights W,

    z = Z d + L u,    dF = J d + Y u,    L strictly lower triangular,

so that the gradient under W is J + Y (I - W L)^-1 W Z. J, Y and single rows of Z cost a reverse sweep, Z d a forward
sweep; L, which is sparse, is found by sweeps that serve many rows at once.

Source: Griewank2013, derived, docs/theory/sets.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from nonsmooth.dictionary.weights import Block, Floats, WeightSet
from nonsmooth.frameworks.framework import CutCall, Framework, Linearised
from nonsmooth.program import Program, Step

__all__ = ["ActiveKink", "Linearisation", "linearise"]

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ActiveKink:
    """One active kink: its step, its set of weights, its places among the z and the u, and the marks of its block."""

    number: int
    step: Step
    name: str
    weights: WeightSet
    z: slice
    u: slice
    sign: Floats
    empty: bool
    blind: bool
    own: float | None
    switch: bool


class Linearisation:
    """A program cut at its active kinks.

    Attributes:
        blocks: the kinks, in the order of the program.
        first_z, first_u, first_kink: where each block begins.
    """

    def __init__(self, framework: Framework, program: Program, sweeps: Linearised) -> None:
        self.framework, self.program, self.sweeps = framework, program, sweeps
        cuts = sweeps.evaluation.cuts
        self.blocks: list[Block] = [b for c in cuts for b in c.blocks]
        self.calls: list[CutCall] = [c for c in cuts for _ in c.blocks]
        self.first_kink = _starts([len(b) for b in self.blocks])
        self.first_z = _starts([len(b) * b.weights.compared for b in self.blocks])
        self.first_u = _starts([len(b) * b.weights.outputs for b in self.blocks])

    @cached_property
    def _start(self) -> tuple[Floats, Floats]:
        """J and Y."""
        return self.sweeps.start()

    @property
    def J(self) -> Floats:
        """The gradient of the first selection, shape (p,)."""
        return self._start[0]

    @property
    def Y(self) -> Floats:
        """The derivative of the result with respect to the u, shape (number of u,)."""
        return self._start[1]

    @property
    def count(self) -> int:
        """The number of active kinks."""
        return int(self.first_kink[-1])

    @cached_property
    def kink_of_z(self) -> Integers:
        """The kink of each z."""
        return self._owners([b.weights.compared for b in self.blocks])

    @cached_property
    def kink_of_u(self) -> Integers:
        """The kink of each u."""
        return self._owners([b.weights.outputs for b in self.blocks])

    @cached_property
    def block_of_kink(self) -> Integers:
        """The block of each kink."""
        return np.repeat(np.arange(len(self.blocks)), [len(b) for b in self.blocks])

    def _owners(self, widths: list[int]) -> Integers:
        """Repeat the number of each kink."""
        parts = [np.repeat(np.arange(len(b)), w) for b, w in zip(self.blocks, widths, strict=True)]
        return np.concatenate([s + p for s, p in zip(self.first_kink, parts, strict=False)] or [np.zeros(0, np.int64)])

    def kink(self, number: int) -> ActiveKink:
        """Describe one kink."""
        place = int(self.block_of_kink[number])
        block, i = self.blocks[place], number - int(self.first_kink[place])
        m, r = block.weights.compared, block.weights.outputs
        z, u = int(self.first_z[place]) + i * m, int(self.first_u[place]) + i * r
        marks = [a is not None and bool(a[i]) for a in (block.empty, block.blind)]
        return ActiveKink(
            number=number,
            step=self.calls[place].step,
            name=block.kink,
            weights=block.weights,
            z=slice(z, z + m),
            u=slice(u, u + r),
            sign=np.full(m, -1.0 if block.negative else 1.0) if block.orientation is None else block.orientation[i],
            empty=marks[0],
            blind=marks[1],
            own=None if block.own is None else float(block.own[i]),
            switch=block.orientation is not None,
        )

    def z_of(self, kinks: Integers, block: int) -> Integers:
        """Give the places of the z of kinks of one block, shape (kinks, m)."""
        m = self.blocks[block].weights.compared
        return np.asarray(self.first_z[block] + (kinks - self.first_kink[block])[:, None] * m + np.arange(m))

    def u_of(self, kinks: Integers, block: int) -> Integers:
        """Give the places of the u of kinks of one block, shape (kinks, r)."""
        r = self.blocks[block].weights.outputs
        return np.asarray(self.first_u[block] + (kinks - self.first_kink[block])[:, None] * r + np.arange(r))

    def push(self, direction: Floats) -> Floats:
        """Give Z d: one forward sweep."""
        return self.sweeps.push(direction)

    def pull(self, seeds: Floats) -> Floats:
        """Give seeds' Z: one reverse sweep."""
        return self.sweeps.pull(seeds)[0]

    def rows(self, *, arguments: bool = False) -> tuple[Floats, Floats]:
        """Give Z and L in full (of the switching arguments, if asked), by one reverse sweep a row."""
        n = int(self.first_z[-1])
        size = sum(math.prod(leaf.shape) for leaf in self.sweeps.evaluation.leaves)
        left, right = np.zeros((n, size)), np.zeros((n, int(self.first_u[-1])))
        for i in range(n):
            seed = np.zeros(n)
            seed[i] = 1.0
            left[i], right[i] = self.sweeps.pull(seed, arguments=arguments)
        return left, right

    @cached_property
    def rounding(self) -> float:
        """An estimate of the rounding of J, as the length of a vector."""
        return self.sweeps.rounding()

    @cached_property
    def _dense(self) -> tuple[Floats, Floats]:
        """Z and L in full."""
        return self.rows()

    @property
    def dense_rows(self) -> Floats:
        """Z in full."""
        return self._dense[0]

    @property
    def dense_interactions(self) -> Floats:
        """L in full."""
        return self._dense[1]

    @cached_property
    def dense_arguments(self) -> tuple[Floats, Floats]:
        """Z and L in full, of what is compared where `where` chooses."""
        return self.rows(arguments=True) if any(b.arguments is not None for b in self.blocks) else self._dense

    @cached_property
    def L(self) -> sparse.csr_array:
        """The interactions, shape (number of z, number of u)."""
        return _interactions(self)

    def gradient(self, W: list[Floats]) -> Floats:
        """Give J + Y (I - W L)^-1 W Z for weights W, one matrix (r, m) a kink."""
        whole = sparse.block_diag(W, format="csr") if W else sparse.csr_array((0, 0))
        cotangent, through = self.Y.copy(), self.Y.copy()
        for _ in range(self.count):  # L is nilpotent
            through = self.L.T @ (whole.T @ through)
            if not np.any(through):
                break
            cotangent = cotangent + through
        return self.J + self.pull(np.asarray(whole.T @ cotangent)) if W else self.J

    sweeps_used: int = 0


def linearise(framework: Framework, program: Program, x: Any, data: tuple[Any, ...], tol: float = 0.0) -> Linearisation:
    """Cut a program at the kinks within a distance of a point."""
    return Linearisation(framework, program, framework.linearise(program, x, data, tol))


def _starts(sizes: list[int]) -> Integers:
    """Give where each part of a row begins, and where the row ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


@dataclass
class _Rows:
    """Some rows of L, and the columns that may be nonzero in one of them."""

    rows: Integers
    columns: Integers


def _interactions(system: Linearisation) -> sparse.csr_array:
    """Find L by reverse sweeps over sets of rows that share no column, halving the sets until each is one row.

    A sweep with random seeds over a set of rows shows which columns are nonzero in some of them (almost surely). Sets
    without a common column share a sweep. Nothing is assumed about the program: that its samples do not interact, say,
    shows after a few sweeps.
    """
    n, m = int(system.first_z[-1]), int(system.first_u[-1])
    noise = np.random.default_rng(0).uniform(0.5, 1.5, n)
    found: list[tuple[Integers, Integers, Floats]] = []
    starts = system.first_z
    level = [_Rows(np.arange(a, b), np.arange(m)) for a, b in itertools.pairwise(starts)]
    for place, node in enumerate(level):  # what comes later than a block cannot act on it
        node.columns = np.arange(int(system.first_u[place]))
    while level:
        below: list[_Rows] = []
        for together in _coloured(level, m):
            seeds = np.zeros(n)
            for node in together:
                seeds[node.rows] = noise[node.rows]
            swept = system.sweeps.interactions(seeds)
            system.sweeps_used += 1
            for node in together:
                columns = node.columns[swept[node.columns] != 0]
                if not len(columns):
                    continue
                if len(node.rows) == 1:
                    found.append((np.repeat(node.rows, len(columns)), columns, swept[columns] / noise[node.rows[0]]))
                    continue
                below += [_Rows(half, columns) for half in np.array_split(node.rows, 2)]
        level = below
    if not found:
        return sparse.csr_array((n, m))
    rows, columns, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return sparse.csr_array((values, (rows, columns)), shape=(n, m))


def _coloured(nodes: list[_Rows], width: int) -> list[list[_Rows]]:
    """Put sets of rows together that share no column, each into the first class where there is room."""
    classes: list[list[_Rows]] = []
    taken = np.zeros((width, 1), dtype=np.uint64)
    for node in sorted((n for n in nodes if len(n.columns)), key=lambda n: -len(n.columns)):
        used = np.bitwise_or.reduce(taken[node.columns], axis=0)
        colour = _first_free(used)
        if colour == len(classes):
            classes.append([])
            if colour == 64 * taken.shape[1]:
                taken = np.concatenate([taken, np.zeros((width, 1), dtype=np.uint64)], axis=1)
        classes[colour].append(node)
        taken[node.columns, colour // 64] |= np.uint64(1) << np.uint64(colour % 64)
    return classes


def _first_free(words: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    """Give the place of the first bit that is not set."""
    for place, word in enumerate(words.tolist()):
        if word != 2**64 - 1:
            return place * 64 + (int(~word & (word + 1)).bit_length() - 1)
    return 64 * len(words)
