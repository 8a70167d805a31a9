"""Whether every element of a set of matrices that a program's kinks span is invertible.

A program H cut at its active kinks has, in the unknowns y and under weights W of the kinks,

    B(W) = J + Y (I - W L)^-1 W Z,   det B(W) = det J det(I - W K),   K = L - Z J^-1 Y

(Schur complements of the lifted matrix [[J, Y], [-W Z, I - W L]], L being nilpotent). Every row of the lifted matrix holds
the weights of one kink's result only, so that the determinant is affine in each row of W: if each result is weighed by a
polytope of its own, all B(W) are invertible if and only if det(I - W K) > 0 at the vertices of their product. The lifted
matrices form a convex set, as the theorem asks, also where the B(W) do not. The entries of B(W)^-1 are then ratios of
functions that are affine in each row, with one denominator: every linear function of B(W)^-1 has its extrema at
vertices, hence so has the convex |B(W)^-1|, and the smallest singular value over the set is attained at a vertex.

Kinks are sorted into the strongly connected components of K: the determinant is the product of theirs.

Source: derived, docs/theory/implicit.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.sparse import csgraph

from nonsmooth.dictionary.weights import DualBall, Floats, Permutations, Vertices, WeightSet

__all__ = ["Coupling", "Invertibility", "Lifted", "decide_invertibility"]

Element: TypeAlias = list[Floats]
"""One weight matrix (r, m) for each kink."""

SLACK = 16.0
"""How many units of rounding, times the size, a smallest singular value must exceed."""

TRIES = 64
"""How many random weights are tried where vertices are too many to enumerate."""

CHUNK = 2_000_000
"""How many numbers an enumeration holds at once."""


@dataclass(frozen=True, eq=False)
class Lifted:
    """The lifted system of square J: z = Z dy + L u, H = J dy + Y u, one weight set a kink with its places in z and u.

    `eps` is the unit of rounding in which the arrays were computed.
    """

    J: Floats
    Y: Floats
    Z: Floats
    L: Floats
    weights: Sequence[WeightSet]
    z: Sequence[slice]
    u: Sequence[slice]
    eps: float = float(np.finfo(np.float64).eps)

    def whole(self, element: Element) -> Floats:
        """Give the block-diagonal W, shape (number of u, number of z)."""
        found = np.zeros((self.Y.shape[1], self.Z.shape[0]))
        for W, z, u in zip(element, self.z, self.u, strict=True):
            found[u, z] = W
        return found

    def element(self, element: Element) -> Floats:
        """Give B(W)."""
        W = self.whole(element)
        return np.asarray(self.J + self.Y @ np.linalg.solve(np.eye(len(W)) - W @ self.L, W @ self.Z))

    def nothing(self) -> Element:
        """Give W = 0: the first selection."""
        return [np.zeros((w.outputs, w.compared)) for w in self.weights]


@dataclass(frozen=True, eq=False)
class Invertibility:
    """What is known of the elements B(W).

    Attributes:
        invertible: True, False, or None where nothing that is known decides.
        rule: what decided.
        smallest: a lower bound of the singular values of all elements; 0 where none is known.
        exact: whether an element attains it.
        element: where violated, weights under which the element is singular (up to rounding).
        groups: the sizes of the groups of kinks that act on themselves, the largest first.
    """

    invertible: bool | None
    rule: str
    smallest: float = 0.0
    exact: bool = False
    element: Element | None = None
    groups: tuple[int, ...] = ()


def decide_invertibility(system: Lifted, limit: int = 4096) -> Invertibility:
    """Decide whether B(W) is invertible for all weights; see the head of this file.

    Args:
        system: the lifted system.
        limit: how many vertices are enumerated in a group, and in all for the smallest singular value.

    Source: derived, docs/theory/implicit.md.
    """
    if not np.all(np.isfinite(system.J)) or not np.all(np.isfinite(system.Y)) or not np.all(np.isfinite(system.Z)):
        return Invertibility(None, "a derivative is nan or infinite")
    balanced = _balanced(system.J)
    if _smallest_singular(balanced) <= _rounding(balanced, system.eps):
        return Invertibility(False, "the first selection is singular up to rounding", 0.0, True, system.nothing())
    solved = np.linalg.solve(system.J, system.Y)
    terms = np.abs(system.L) + np.abs(system.Z) @ np.abs(np.linalg.inv(system.J)) @ np.abs(system.Y)
    coupling = Coupling(
        system.L - system.Z @ solved, SLACK * len(system.J) * system.eps * terms, system.weights, system.z, system.u
    )
    found = coupling.decide(system.eps, limit)
    if not found.invertible:
        return found
    K, sizes, rule = coupling.K, found.groups, found.rule
    smallest, exact = _smallest(system, K, limit, _smallest_singular(system.J))
    return Invertibility(True, rule, smallest, exact, None, sizes)


def _smallest_singular(matrix: Floats) -> float:
    """Give the smallest singular value; 0 of a matrix that is not finite, infinity of an empty one."""
    if not matrix.size:
        return math.inf
    return float(np.linalg.svd(matrix, compute_uv=False)[-1]) if np.all(np.isfinite(matrix)) else 0.0


def _balanced(matrix: Floats) -> Floats:
    """Scale rows and columns to the largest entry 1: their units do not matter to whether a matrix is singular."""
    found = matrix
    for axis in (1, 0, 1):
        size = np.abs(found).max(axis=axis, keepdims=True, initial=0.0)
        found = found / np.where(size > 0, size, 1.0)
    return found


def _rounding(matrix: Floats, eps: float) -> float:
    """Give what a singular value must exceed to be told from 0."""
    return SLACK * eps * max(len(matrix), 1) * float(np.linalg.norm(matrix, 2)) if matrix.size else 0.0


@dataclass(frozen=True, eq=False)
class Coupling:
    """How kinks act on themselves: K = L - Z J^-1 Y, what of it may be rounding, and the weights with their places."""

    K: Floats
    noise: Floats
    weights: Sequence[WeightSet]
    z: Sequence[slice]
    u: Sequence[slice]

    def __post_init__(self) -> None:
        """Drop what may be rounding."""
        self.K[np.abs(self.K) <= self.noise] = 0.0

    def groups(self) -> list[list[int]]:
        """List the strongly connected components of kinks that act on themselves."""
        count = len(self.weights)
        graph = np.array([[bool(np.any(self.K[z, u])) for u in self.u] for z in self.z]).reshape(count, count)
        number, label = csgraph.connected_components(graph, directed=True, connection="strong")
        members = [np.flatnonzero(label == k).tolist() for k in range(number)]
        return [m for m in members if len(m) > 1 or graph[m[0], m[0]]]

    def decide(self, eps: float, limit: int) -> Invertibility:
        """Decide whether det(I - W K) > 0 for all weights; the smallest singular value is left open."""
        groups, rules = self.groups(), []
        sizes = tuple(sorted((len(g) for g in groups), reverse=True))
        for group in groups:
            found = _Group(self, eps, group, limit).decide()
            if not found.invertible:
                element = None
                if found.element is not None:
                    element = [np.zeros((w.outputs, w.compared)) for w in self.weights]
                    for k, W in zip(group, found.element, strict=True):
                        element[k] = W
                return Invertibility(found.invertible, found.rule, element=element, groups=sizes)
            rules.append(found.rule)
        rule = ", ".join(dict.fromkeys(rules)) or ("no kink acts on itself" if self.weights else "no kink is active")
        return Invertibility(True, rule, groups=sizes)


class _Group:
    """A group of kinks that act on themselves: I - W K of their own z and u."""

    def __init__(self, system: Coupling, eps: float, kinks: list[int], limit: int) -> None:
        self.kinks, self.limit = kinks, limit
        self.weights = [system.weights[k] for k in kinks]
        z = np.concatenate([np.arange(system.z[k].start, system.z[k].stop) for k in kinks])
        u = np.concatenate([np.arange(system.u[k].start, system.u[k].stop) for k in kinks])
        self.K = system.K[np.ix_(z, u)]
        spread = float(np.linalg.norm(system.noise[np.ix_(z, u)]))
        self.rounding = spread + SLACK * eps * len(u) * (1.0 + float(np.linalg.norm(self.K)))
        self.z = _slices([w.compared for w in self.weights])
        self.u = _slices([w.outputs for w in self.weights])

    def decide(self) -> Invertibility:
        """Try what decides exactly, then what suffices, then look for an element that is singular."""
        exact = all(w.outputs == 1 and w.count < math.inf for w in self.weights)
        if exact and math.prod(int(w.count) for w in self.weights) <= self.limit:
            return self._by_vertices([w.extreme()[:, 0] for w in self.weights], "vertex determinants of one sign")
        found = self._one_ball()
        if found is not None:
            return found
        if self._dominated():
            return Invertibility(True, "interval weights around their centre")
        if self._positive_definite():
            return Invertibility(True, "positive definite symmetric part")
        rows = _outer_rows(self.weights)
        if not exact and rows is not None and math.prod(len(r) for r in rows) <= self.limit:
            outer = self._by_vertices(rows, "vertex determinants of an enclosing set of one sign")
            if outer.invertible:
                return outer
        element = self._search()
        if element is not None:
            return Invertibility(False, "an element with a determinant of the other sign", element=element)
        size = len(self.kinks)
        return Invertibility(None, f"no rule decides a group of {size} kink(s) that act on each other")

    def _matrix(self, W: Floats) -> Floats:
        """Give I - W K."""
        return np.asarray(np.eye(len(W)) - W @ self.K)

    def _by_vertices(self, rows: list[Floats], rule: str) -> Invertibility:
        """Compare the determinants at all vertices of a product of polytopes, one for each row of W."""
        layout = self._rows()
        for chosen, found in self._determinants(rows, layout):
            bad = np.flatnonzero(found <= 0)
            if not len(bad):
                sizes = np.array([_smallest_singular(self._matrix(W)) for W in chosen[np.argsort(found)[:8]]])
                bad = np.argsort(found)[:8][sizes <= self.rounding]
            if len(bad):
                return Invertibility(
                    False, rule.replace("of one sign", "of both signs"), element=self._cross(chosen[bad[0]])
                )
        return Invertibility(True, rule)

    def _rows(self) -> list[slice]:
        """Give the places in z that each row of W weighs."""
        return [self.z[k] for k, w in enumerate(self.weights) for _ in range(w.outputs)]

    def _determinants(self, rows: list[Floats], layout: list[slice]) -> Iterator[tuple[Floats, Floats]]:
        """Walk the vertices of a product of polytopes with their determinants, many at once."""
        n, m = len(layout), self.K.shape[0]
        step = max(1, CHUNK // max(n * m, 1))
        whole = itertools.product(*(range(len(r)) for r in rows))
        while picks := list(itertools.islice(whole, step)):
            W = np.zeros((len(picks), n, m))
            for i, (part, points) in enumerate(zip(layout, rows, strict=True)):
                W[:, i, part] = points[[p[i] for p in picks]]
            yield W, np.linalg.det(np.eye(n) - W @ self.K)

    def _cross(self, W: Floats) -> Element:
        """Go from 0 to a weight whose determinant is not positive: give where it vanishes."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.linalg.det(self._matrix(middle * W)) > 0 else (low, middle)
        return [high * W[u, z] for u, z in zip(self.u, self.z, strict=True)]

    def _one_ball(self) -> Invertibility | None:
        """Decide a group with one ball: the determinant is affine in its row, so that its minimum is known."""
        balls = [k for k, w in enumerate(self.weights) if isinstance(w, DualBall)]
        others = [k for k in range(len(self.weights)) if k not in balls]
        if len(balls) != 1 or any(
            w.outputs > 1 or math.isinf(w.count) for k, w in enumerate(self.weights) if k in others
        ):
            return None
        if math.prod(int(self.weights[k].count) for k in others) > self.limit:
            return None
        ball = self.weights[balls[0]]
        part, row = self.z[balls[0]], self.u[balls[0]].start
        for picks in itertools.product(*(self.weights[k].extreme()[:, 0] for k in others)):
            W = np.zeros(self.K.T.shape)
            for k, w in zip(others, picks, strict=True):
                W[self.u[k], self.z[k]] = w
            start = float(np.linalg.det(self._matrix(W)))
            slopes = np.array(
                [np.linalg.det(self._matrix(_put(W, row, part, e))) - start for e in np.eye(ball.compared)]
            )
            worst = _put(W, row, part, ball.choose(np.ones((1, 1)), -slopes[None])[0, 0])
            if np.linalg.det(self._matrix(worst)) <= 0 or _smallest_singular(self._matrix(worst)) <= self.rounding:
                return Invertibility(
                    False, "an element with a determinant of the other sign", element=self._cross(worst)
                )
        return Invertibility(True, "determinants of one sign over a ball")

    def _dominated(self) -> bool:
        """Tell whether |W - C| <= E leaves I - W K regular: the spectral radius of E |K| |(I - C K)^-1| is below 1."""
        return _spread(self.weights, self.z, self.u, self.K) is not None

    def _positive_definite(self) -> bool:
        """Tell whether the symmetric part of I - K is positive definite, where all kinks are switches.

        For W = diag(w), w in [0, 1], det(I - W K) is the sum over the principal minors of I - K with weights
        prod w_i prod (1 - w_j) >= 0, and those of a matrix with a positive definite symmetric part are positive.
        """
        if not all(isinstance(w, Vertices) and w.is_segment for w in self.weights):
            return False
        P = np.eye(len(self.K)) - self.K
        return float(np.linalg.eigvalsh((P + P.T) / 2)[0]) > self.rounding

    def _search(self) -> Element | None:
        """Look for weights whose determinant is not positive: from random extreme ones, one kink after the other.

        In the weights of one kink of one result the determinant is affine, with the slopes -det (K (I - W K)^-1)'.
        """
        rng = np.random.default_rng(0)
        for _ in range(TRIES):
            W = np.zeros(self.K.T.shape)
            for w, u, z in zip(self.weights, self.u, self.z, strict=True):
                W[u, z] = w.choose(rng.standard_normal((1, w.outputs)), rng.standard_normal((1, w.compared)))[0]
            least = math.inf
            while (found := float(np.linalg.det(self._matrix(W)))) < least:
                if found <= 0:
                    return self._cross(W)
                least = found
                for w, u, z in zip(self.weights, self.u, self.z, strict=True):
                    slopes = self.K[z] @ np.linalg.inv(self._matrix(W))[:, u]
                    if w.outputs == 1:
                        W[u, z] = w.choose(np.ones((1, 1)), slopes.T)[0]
                    if np.linalg.det(self._matrix(W)) <= 0:
                        return self._cross(W)
        return None


def _put(W: Floats, row: int, part: slice, value: Floats) -> Floats:
    """Replace a part of a row."""
    found = W.copy()
    found[row, part] = value
    return found


def _slices(sizes: list[int]) -> list[slice]:
    """Give the places of parts of a row."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _outer_rows(weights: Sequence[WeightSet]) -> list[Floats] | None:
    """Enclose each row of the weights in a polytope of its own; None where none is known."""
    found: list[Floats] = []
    for w in weights:
        if isinstance(w, Permutations):
            e = np.eye(w.size)
            found += [(e - e[rank])[:, 1:] for rank in w.returned]
        elif isinstance(w, DualBall):
            found.append(
                np.array(list(itertools.product((-1.0, 1.0), repeat=w.compared)))
                if w.compared <= 8
                else np.zeros((0, 0))
            )
        elif w.count < math.inf:
            extreme = w.extreme()
            found += [np.unique(extreme[:, i], axis=0) for i in range(w.outputs)]
        else:
            return None
    return None if any(not len(r) for r in found) else found


def _spread(
    weights: Sequence[WeightSet], z: Sequence[slice], u: Sequence[slice], K: Floats
) -> tuple[Floats, Floats] | None:
    """Bound (I - W K)^-1 and W entry by entry from the centres of the weights; None where that does not suffice.

    I - W K = (I - D K (I - C K)^-1) (I - C K),  |D| <= E:   |(I - W K)^-1| <= |(I - C K)^-1| (I - E |K| |(I - C K)^-1|)^-1
    """
    C, E = np.zeros(K.T.shape), np.zeros(K.T.shape)
    for w, a, b in zip(weights, z, u, strict=True):
        C[b, a], E[b, a] = w.centre()
    middle = np.eye(len(C)) - C @ K
    if not len(C) or _smallest_singular(middle) <= SLACK * len(C) * np.finfo(float).eps * np.linalg.norm(middle):
        return None if len(C) else (np.zeros((0, 0)), C)
    inverse = np.abs(np.linalg.inv(middle))
    step = E @ np.abs(K) @ inverse
    if np.max(np.abs(np.linalg.eigvals(step))) >= 1 - 1e-9:
        return None
    return inverse @ np.linalg.inv(np.eye(len(C)) - step), np.abs(C) + E


def _smallest(system: Lifted, K: Floats, limit: int, base: float) -> tuple[float, bool]:
    """Bound the singular values of all elements from below; tell whether an element attains the bound."""
    if not system.weights:
        return base, True
    rows = all(w.outputs == 1 and w.count < math.inf for w in system.weights)
    if rows and math.prod(int(w.count) for w in system.weights) <= limit:
        return min(_smallest_singular(system.element(v)) for v in vertices(system)), True
    found = _spread(system.weights, system.z, system.u, K)
    if found is None:
        return 0.0, False
    inverse, W = found
    left, right = np.abs(np.linalg.solve(system.J, system.Y)), np.abs(system.Z @ np.linalg.inv(system.J))
    whole = np.abs(np.linalg.inv(system.J)) + left @ inverse @ W @ right
    return 1.0 / float(np.linalg.norm(whole, 2)), False


def vertices(system: Lifted) -> Iterator[Element]:
    """Walk the products of extreme weights."""
    yield from (list(W) for W in itertools.product(*(w.extreme() for w in system.weights)))
