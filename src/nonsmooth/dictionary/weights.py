"""Sets of weights: what the pieces that are active at a kink may be weighed by, jointly.

At a kink the tangents of the operands give numbers z in R^m that compare the active pieces, and the tangents of the
results are those of a first piece plus u = W z, with W in a convex compact set of r x m matrices. All that the
sets of derivatives need of it is its support function at products y z', and the W at which it is attained.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Block",
    "DualBall",
    "Floats",
    "Permutations",
    "Vertices",
    "WeightSet",
    "chain",
    "cross_polytope",
    "segment",
    "simplex",
]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class WeightSet(ABC):
    """A convex compact set of r x m matrices W; `outputs` is r, `compared` is m.

    Arrays hold one kink a row: y of shape (n, r), z of shape (n, m).
    """

    outputs: int
    compared: int

    @abstractmethod
    def choose(self, y: Floats, z: Floats) -> Floats:
        """Give an extreme W that maximises y'W z, shape (n, r, m)."""

    def attain(self, y: Floats, z: Floats) -> Floats:
        """Give W'y, shape (n, m), for that W."""
        return np.asarray(np.einsum("nr,nrm->nm", y, self.choose(y, z)))

    def support(self, y: Floats, z: Floats) -> Floats:
        """Give max over W of y'W z, shape (n,)."""
        return np.asarray(np.sum(self.attain(y, z) * z, axis=-1))

    @property
    @abstractmethod
    def rank(self) -> int:
        """The dimension of the space in which z lies."""

    @property
    @abstractmethod
    def key(self) -> tuple[Any, ...]:
        """What tells this set from others."""

    @property
    @abstractmethod
    def count(self) -> float:
        """The number of extreme weights; infinite for a ball."""

    @abstractmethod
    def extreme(self) -> Floats:
        """Give the extreme weights, shape (count, r, m); there must be finitely many."""

    @abstractmethod
    def bound(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Enclose u = W z for z between two arrays of shape (n, m): two arrays of shape (n, r)."""

    def centre(self) -> tuple[Floats, Floats]:
        """Give a middle weight C, and E with |(W - C) z| <= E |z| entry by entry for all W; both of shape (r, m)."""
        extreme = self.extreme()
        middle = (extreme.min(axis=0) + extreme.max(axis=0)) / 2
        return middle, np.abs(extreme - middle).max(axis=0)


@dataclass(frozen=True, eq=False)
class Vertices(WeightSet):
    """The hull of finitely many row vectors w (r = 1), shape (count, m); 0 is in it."""

    rows: Floats
    outputs: int = field(default=1, init=False)

    @property
    def compared(self) -> int:  # type: ignore[override]
        """The length of z."""
        return int(self.rows.shape[1])

    @property
    def rank(self) -> int:
        """The length of z."""
        return int(self.rows.shape[1])

    @property
    def key(self) -> tuple[Any, ...]:
        """The rows."""
        return ("vertices", self.rows.shape, self.rows.tobytes())

    @property
    def count(self) -> float:
        """The number of rows."""
        return len(self.rows)

    def extreme(self) -> Floats:
        """Give the rows as matrices."""
        return self.rows[:, None, :]

    @property
    def is_segment(self) -> bool:
        """Whether the weights are [0, 1]."""
        return self.rows.shape == (2, 1) and bool(np.all(self.rows == [[0.0], [1.0]]))

    def attain(self, y: Floats, z: Floats) -> Floats:
        """Give y times the best row."""
        if self.is_segment:
            return np.where(y * z > 0, y, 0.0)
        return np.asarray(y * self.choose(y, z)[:, 0])

    def choose(self, y: Floats, z: Floats) -> Floats:
        """Take the best row."""
        return np.asarray(self.rows[np.argmax(y * (z @ self.rows.T), axis=-1)][:, None, :])

    def bound(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Enclose each row's product."""
        up, down = np.maximum(self.rows, 0.0).T, np.minimum(self.rows, 0.0).T
        least, most = low @ up + high @ down, high @ up + low @ down
        return least.min(axis=-1, keepdims=True), most.max(axis=-1, keepdims=True)


def segment() -> Vertices:
    """Give the weights [0, 1] of a switch."""
    return Vertices(np.array([[0.0], [1.0]]))


def simplex(m: int) -> Vertices:
    """Give the weights of m + 1 tied candidates, z comparing m of them with the first: hull of 0, e_1 .. e_m."""
    return Vertices(np.concatenate([np.zeros((1, m)), np.eye(m)]))


def chain(m: int) -> Vertices:
    """Give the weights of a switch at which m breakpoints coincide: 1 >= w_1 >= ... >= w_m >= 0."""
    return Vertices(np.tril(np.ones((m + 1, m)), -1))


def cross_polytope(m: int) -> Vertices:
    """Give the dual ball of the maximum norm: hull of e_i and -e_i."""
    return Vertices(np.concatenate([np.eye(m), -np.eye(m)]))


@dataclass(frozen=True, eq=False)
class DualBall(WeightSet):
    """The unit ball of the norm that is dual to the p-norm of R^m, 1 < p < inf (r = 1)."""

    compared: int
    p: float = 2.0
    outputs: int = field(default=1, init=False)
    count = math.inf

    @property
    def rank(self) -> int:
        """The length of z."""
        return self.compared

    @property
    def key(self) -> tuple[Any, ...]:
        """Length and exponent."""
        return ("ball", self.compared, self.p)

    def centre(self) -> tuple[Floats, Floats]:
        """Give 0 and 1: |u| is at most the sum of the |z|."""
        return np.zeros((1, self.compared)), np.ones((1, self.compared))

    def extreme(self) -> Floats:
        """Refuse: a ball has infinitely many."""
        raise ValueError("a ball has no finite list of extreme points")

    def choose(self, y: Floats, z: Floats) -> Floats:
        """Give the gradient of the p-norm at z, with the sign of y."""
        size = np.abs(z)
        largest = size.max(axis=-1, keepdims=True)
        ratio = size / np.where(largest > 0, largest, 1.0)
        norm = np.sum(ratio**self.p, axis=-1, keepdims=True) ** ((self.p - 1) / self.p)
        slope = np.sign(y) * np.sign(z) * ratio ** (self.p - 1) / np.where(norm > 0, norm, 1.0)
        return np.asarray(slope)[:, None, :]

    def bound(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bound |u| by the largest norm."""
        size = np.linalg.norm(np.maximum(np.abs(low), np.abs(high)), ord=self.p, axis=-1)[:, None]
        return -size, size


@dataclass(frozen=True, eq=False)
class Permutations(WeightSet):
    """The orders of n tied entries of which some ranks are returned: z compares entries 1 .. n - 1 with entry 0.

    W z = (c_pi(k) - c_k) for the returned places k of the block, c = (0, z): the Birkhoff polytope, cut to some rows.
    """

    size: int
    returned: tuple[int, ...]

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """The number of ranks returned."""
        return len(self.returned)

    @property
    def compared(self) -> int:  # type: ignore[override]
        """One less than the entries that tie."""
        return self.size - 1

    @property
    def rank(self) -> int:
        """The length of z."""
        return self.size - 1

    @property
    def key(self) -> tuple[Any, ...]:
        """Size and ranks."""
        return ("permutations", self.size, self.returned)

    def centre(self) -> tuple[Floats, Floats]:
        """Give the middle between the arrangement that is and any other."""
        own = np.eye(self.size)[list(self.returned), 1:]
        return 0.5 - own, np.full_like(own, 0.5)

    @property
    def count(self) -> float:
        """The number of ways to fill the returned ranks."""
        return math.perm(self.size, len(self.returned))

    def extreme(self) -> Floats:
        """List the arrangements."""
        rows, r = np.eye(self.size), list(self.returned)
        found = [rows[list(pi)] - rows[r] for pi in itertools.permutations(range(self.size), len(r))]
        return np.asarray(found)[:, :, 1:]

    def choose(self, y: Floats, z: Floats) -> Floats:
        """Pair large with large: the rearrangement inequality, a rank that is not returned having the weight 0."""
        n, r = self.size, list(self.returned)
        whole = np.zeros((len(y), n))
        whole[:, r] = y
        candidates = np.concatenate([np.zeros((len(z), 1)), z], axis=1)
        taken = np.zeros((len(z), n), dtype=np.int64)
        order = np.argsort(candidates, axis=-1, kind="stable")
        np.put_along_axis(taken, np.argsort(whole, axis=-1, kind="stable"), order, axis=-1)
        return (np.eye(n)[taken[:, r]] - np.eye(n)[r])[:, :, 1:]

    def bound(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Enclose every difference of two entries."""
        zero = np.zeros((len(low), 1))
        low, high, r = np.concatenate([zero, low], axis=1), np.concatenate([zero, high], axis=1), list(self.returned)
        return low.min(axis=-1, keepdims=True) - high[:, r], high.max(axis=-1, keepdims=True) - low[:, r]


@dataclass(frozen=True, eq=False)
class Block:
    """The active kinks of one call that have the same set of weights: n of them.

    Attributes:
        kink: their name in the record.
        weights: the set of weights of each.
        places: shape (n, r): the entries of the flat result to which u = W z is added.
        jumps: z as a linear function of the tangents of the operands: an array of shape (n, m).
        orientation: of a switch, shape (n, m): z divided by the tangents of its switching arguments.
        values: of a switch, shape (n, m): its switching arguments, 0 at the kinks.
        arguments: of a choice (`where`): the tangents of what it compares, of the shape of z, whose signs decide.
        negative: says that of tied candidates the smallest is taken, or that they are sorted downwards.
        empty: marks the kinks of an equality, whose second side has no interior.
        blind: marks the kinks that no sign decides: their side hangs on several ties at once.
        own: the weight of the program's own side at the tie, where it has one (`where`).
    """

    kink: str
    weights: WeightSet
    places: np.ndarray[Any, np.dtype[np.int64]]
    jumps: Callable[[Sequence[Any]], Any]
    orientation: Any = None
    values: Any = None
    arguments: Callable[[Sequence[Any]], Any] | None = None
    negative: bool = False
    empty: Any = None
    blind: Any = None
    own: Any = None

    def __len__(self) -> int:
        """Count the kinks."""
        return len(self.places)
