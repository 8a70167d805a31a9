"""Ellipsoids that hold what a value can do when an input moves: quadratic certificates of Lipschitz constants.

The file is long because what rounding may take off stands beside every product and factorisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from nonsmooth.bounds.reach import Floats

__all__ = ["Cone", "Ellipsoid"]

UNIT = 2.0**-53
"""The unit roundoff of double precision."""

SHARPNESS = (8.0, 24.0, 72.0)
"""The exponents p under which (tr Q^p)^(1/p) is made small, one after the other: it tends to the largest eigenvalue."""

LEAST = 1e-7
"""A radius of slopes, relative to the largest of its layer, below which its multiplier no longer shrinks with it."""


@dataclass
class Cone:
    """The unknown part of one entrywise step: |w_i| <= |(B s)_i| for all changes s of the state.

    `rows` is B, of shape (R, u, k) for the k numbers of the state before the step. `spread` holds the multipliers T > 0;
    any are sound. `entries` >= |w_i| and `norm` >= ||w|| for ||dx|| <= 1, found without multipliers.
    """

    rows: Floats
    spread: Floats
    entries: Floats
    norm: Floats


class Ellipsoid:
    """A state s = (s_0, w_1, ..., w_L) of which every change lies in an ellipsoid, for ||dx|| <= 1.

        s_0' S_0^+ s_0 <= ||dx||^2,    |w_l| <= |B_l (s_0, w_1, ..., w_{l-1})| entry by entry
        S_l = blkdiag(S + S B' (T - B S B')^-1 B S, T),   S = S_{l-1},   T diagonal,  T > B S B'
        s' S_L^-1 s <= ||dx||^2,    so that   ||F s|| <= sqrt(largest eigenvalue of F S_L F')

    An entrywise step with slopes in [m - rho, m + rho] makes z = m y + w, |w_i| <= rho_i |y_i|, of y = F s: B = rho F. Then
    z = [m F, I] s is linear in the state again, and so are sums and affine maps of such values.

    Guarantee: sound for all multipliers T for which T - B S B' is positive definite, which the factorisation of Cholesky
    shows with a margin for rounding. By sum of constraints: s' S^-1 s + sum_i (w_i^2 - (B s)_i^2) / T_i <= ||dx||^2, and
    the left side is s' S_l^-1 s (Woodbury). Multipliers start as those of ECLipsE-Fast, T = 2 ||rho|| ||B S B'||, and are
    made better by a fixed-point iteration on the gradient of the bound. Leading axes R: independent ellipsoids.

    >>> state = Ellipsoid(np.eye(2)[None])
    >>> w = np.array([[[3.0, 0.0], [4.0, 5.0]]])
    >>> round(float(state.norm(w)[0]), 6)
    6.708204
    >>> state.add(0.5 * w, np.full((1, 2), 0.5))
    >>> relu = np.concatenate([0.5 * w, np.eye(2)[None]], axis=2)
    >>> round(float(state.norm(relu)[0]), 3) <= 6.709
    True

    Source: XuSivaranjani2024, FazlyabEtAl2019; derived, docs/theory/bounds.md.
    """

    def __init__(self, base: Floats) -> None:
        self.base = base
        self.root = _root(base)
        self.cones: list[Cone] = []
        self.covariance = base

    @property
    def size(self) -> int:
        """The numbers of the state."""
        return int(self.covariance.shape[-1])

    @property
    def rows(self) -> int:
        """How many independent ellipsoids there are."""
        return max([len(self.base), *(len(c.rows) for c in self.cones)])

    def add(self, rows: Floats, radius: Floats) -> None:
        """Take up the unknown part of an entrywise step: |w| <= |rows s|; `radius` is that of the slopes, a scale of T."""
        largest = np.max(radius, axis=-1, keepdims=True)
        scale = np.maximum(radius, np.where(largest > 0, LEAST * largest, 1.0))
        scaled = rows / np.sqrt(scale)[..., None]
        small = scaled @ self._upto(scaled.shape[-1]) @ _turned(scaled)
        largest = np.maximum(np.linalg.eigvalsh(small)[:, -1:], 1e-280)
        self.cones.append(Cone(rows, 2 * scale * largest, self.entries(rows), self.triangle(rows)))
        self._accept([c.spread for c in self.cones[:-1]] + [2 * scale * largest])

    def norm(self, rows: Floats, rounds: int = 0) -> Floats:
        """Bound ||F s|| for ||dx|| <= 1, for every one of the independent ellipsoids; `rounds` make the multipliers better."""
        if rounds and self.cones:
            self._tighten(rows, rounds)
        return np.asarray(np.minimum(np.sqrt(self._largest(rows)), self.triangle(rows)))

    def triangle(self, rows: Floats) -> Floats:
        """Bound ||F s|| by the triangle inequality, part by part: ||F_0 S_0^(1/2)|| + sum_l ||F_l|| ||w_l||."""
        first = self.base.shape[-1]
        total = _norms(rows[..., :first] @ self.root) + 32 * first * UNIT * _frobenius(rows) * _frobenius(self.root)
        for start, cone in zip(self._starts(), self.cones, strict=True):
            part = rows[..., start : start + cone.rows.shape[1]]
            if part.shape[-1]:
                total = total + np.minimum(
                    _norms(part) * cone.norm, np.sqrt(np.sum((np.abs(part) @ cone.entries[..., None]) ** 2, (1, 2)))
                )
        return np.asarray(total * (1 + 1e-13))

    def entries(self, rows: Floats) -> Floats:
        """Bound every |(F s)_i| for ||dx|| <= 1: by the ellipsoid, and part by part."""
        first = self.base.shape[-1]
        total = np.sqrt(np.sum((rows[..., :first] @ self.root) ** 2, -1))
        for start, cone in zip(self._starts(), self.cones, strict=True):
            part = rows[..., start : start + cone.rows.shape[1]]
            if part.shape[-1]:
                total = total + (np.abs(part) @ cone.entries[..., None])[..., 0]
        held = self._upto(rows.shape[-1])
        squares = np.sum((rows @ held) * rows, -1) + self._slack(rows, held)[:, None]
        slack = 32 * first * UNIT * (_frobenius(rows) * _frobenius(self.root))[:, None]
        return np.asarray(np.minimum(total * (1 + 1e-13) + slack, np.sqrt(np.maximum(squares, 0.0))))

    def moved(self, rows: Floats) -> Ellipsoid:
        """Give the ellipsoid of F s alone: a new state."""
        held = self._upto(rows.shape[-1])
        base = rows @ held @ _turned(rows)
        base = (base + _turned(base)) / 2 + self._slack(rows, held)[:, None, None] * np.eye(rows.shape[1])
        return Ellipsoid(base)

    # --- multipliers --------------------------------------------------------------------------------------------------

    def _starts(self) -> list[int]:
        """List where in the state the unknown parts begin."""
        sizes = [self.base.shape[-1], *(c.rows.shape[1] for c in self.cones)]
        return [int(v) for v in np.cumsum(sizes)[:-1]]

    def _upto(self, size: int) -> Floats:
        """Give the ellipsoid of the first numbers of the state."""
        return self.covariance[..., :size, :size]

    def _accept(self, spreads: Sequence[Floats]) -> None:
        """Take multipliers, which are made larger where they are too small."""
        self.covariance, found = self._grown(spreads)
        for cone, spread in zip(self.cones, found, strict=True):
            cone.spread = spread

    def _grown(self, spreads: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Give the ellipsoid of the whole state, and the multipliers that it took."""
        held, taken = self.base, []
        for cone, spread in zip(self.cones, spreads, strict=True):
            held, used = _grow(held, cone.rows, spread)
            taken.append(used)
        return held, taken

    def _tighten(self, rows: Floats, rounds: int) -> None:
        """Make the multipliers better for ||F s||: T_i -> T_i (sum_j w_j (B x_j)_i^2 / sum_j w_j (x_j)_c(i)^2)^(1/2).

        x_j = S F' v_j for the eigenvectors v_j of Q = F S F', with the weights of (tr Q^p)^(1/p); d Q / d(1/T_i) has the
        two sums as its parts, so that the iteration stands where the gradient is 0. Rows that get worse go back: each has
        a power of its own, and the function is long for that.
        """
        spreads = [np.broadcast_to(c.spread, (self.rows, c.spread.shape[-1])) for c in self.cones]
        best, least = spreads, self._largest(rows)
        for sharpness in SHARPNESS:
            power = np.full(self.rows, 0.5)
            held, spreads = self._grown(best)
            values, states = _spectrum(rows, self._cut(held, rows))
            goal = _mean(values, sharpness)
            for _ in range(max(rounds // len(SHARPNESS), 1)):
                trial = self._step(spreads, values, states, sharpness, power)
                held, trial = self._grown(trial)
                new_values, new_states = _spectrum(rows, self._cut(held, rows))
                new_goal = _mean(new_values, sharpness)
                better = new_goal < goal
                gained = np.max(np.where(better, 1 - new_goal / goal, 0.0))
                spreads = [np.where(better[:, None], t, s) for t, s in zip(trial, spreads, strict=True)]
                values = np.where(better[:, None], new_values, values)
                states = np.where(better[:, None, None], new_states, states)
                goal, power = (
                    np.where(better, new_goal, goal),
                    np.where(better, np.minimum(power * 1.2, 0.5), power / 2),
                )
                lower = better & (new_values[:, -1] < least)
                best = [np.where(lower[:, None], t, b) for t, b in zip(trial, best, strict=True)]
                least = np.where(lower, new_values[:, -1], least)
                if gained < 1e-4 and np.all(better | (power < 0.03)):
                    break
        self._accept(best)

    def _cut(self, held: Floats, rows: Floats) -> Floats:
        """Give the part of an ellipsoid that rows see, and all rows that there are."""
        return np.broadcast_to(held, (self.rows, *held.shape[1:]))[..., : rows.shape[-1], : rows.shape[-1]]

    def _step(
        self, spreads: Sequence[Floats], values: Floats, states: Floats, sharpness: float, power: Floats
    ) -> list[Floats]:
        """Make one step of the iteration; multipliers of what the rows do not see stay."""
        weights = (np.maximum(values, 0) / np.maximum(values[:, -1:], 1e-300)) ** (sharpness - 1)
        weighted = states * np.sqrt(weights)[:, None, :]
        found = []
        for start, cone, spread in zip(self._starts(), self.cones, spreads, strict=True):
            width = cone.rows.shape[1]
            if start + width > states.shape[1]:
                found.append(spread)
                continue
            own = np.sum(weighted[:, start : start + width] ** 2, -1)
            seen = np.sum((cone.rows @ weighted[:, :start]) ** 2, -1)
            floor = 1e-12 * np.maximum(np.max(own, -1, keepdims=True), 1e-290)
            ratio = np.clip((seen + floor) / (own + floor), 1e-3, 1e3)
            found.append(spread * ratio ** power[:, None])
        return found

    def _largest(self, rows: Floats) -> Floats:
        """Bound the largest eigenvalue of F S F', rounding included."""
        held = self._cut(self.covariance, rows)
        return np.maximum(_spectrum(rows, held, vectors=False)[0][:, -1], 0.0) + self._slack(rows, held)

    @staticmethod
    def _slack(rows: Floats, held: Floats) -> Floats:
        """Bound what rounding may take off an eigenvalue of F S F': |S_ij| <= d_i d_j, d = diag(S)^(1/2)."""
        return 32 * sum(rows.shape[-2:]) * UNIT * _weighted(rows, _lengths(held)) ** 2


def _lengths(held: Floats) -> Floats:
    """Give the roots of the diagonals of a stack."""
    return np.asarray(np.sqrt(np.maximum(np.diagonal(held, axis1=-2, axis2=-1), 0.0)))


def _weighted(rows: Floats, lengths: Floats) -> Floats:
    """Give || |F| d ||."""
    return np.asarray(np.linalg.norm((np.abs(rows) @ lengths[..., None])[..., 0], axis=-1))


def _turned(stack: Floats) -> Floats:
    """Transpose the matrices of a stack."""
    return np.swapaxes(stack, -1, -2)


def _frobenius(stack: Floats) -> Floats:
    """Give the norms of all entries of the matrices of a stack."""
    return np.asarray(np.sqrt(np.sum(stack**2, (-2, -1))))


def _norms(stack: Floats) -> Floats:
    """Bound the spectral norms of the matrices of a stack."""
    small = stack @ _turned(stack) if stack.shape[-2] <= stack.shape[-1] else _turned(stack) @ stack
    slack = 32 * sum(stack.shape[-2:]) * UNIT * _frobenius(stack) ** 2
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(small)[:, -1], 0.0) + slack))


def _root(stack: Floats) -> Floats:
    """Give matrices R with R R' >= S, rounding included."""
    values, vectors = np.linalg.eigh(stack)
    slack = 32 * stack.shape[-1] * UNIT * _frobenius(stack)[:, None]
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0) + slack)[:, None, :])


def _mean(values: Floats, sharpness: float) -> Floats:
    """Give (sum of the p-th powers)^(1/p) of eigenvalues."""
    largest = np.maximum(values[:, -1:], 1e-300)
    powers = np.sum((np.maximum(values, 0) / largest) ** sharpness, -1)
    return np.asarray(largest[:, 0] * powers ** (1 / sharpness))


def _spectrum(rows: Floats, held: Floats, vectors: bool = True) -> tuple[Floats, Floats]:
    """Give the eigenvalues of F S F', and the vectors S F' v of its eigenvectors v."""
    seen = held @ _turned(rows)
    if rows.shape[-2] <= rows.shape[-1]:
        matrix = rows @ seen
        if not vectors:
            return np.asarray(np.linalg.eigvalsh((matrix + _turned(matrix)) / 2)), seen
        values, found = np.linalg.eigh((matrix + _turned(matrix)) / 2)
        return np.asarray(values), np.asarray(seen @ found)
    root = _root(held)
    inner = _turned(root) @ (_turned(rows) @ rows) @ root
    if not vectors:
        return np.asarray(np.linalg.eigvalsh((inner + _turned(inner)) / 2)), seen
    values, found = np.linalg.eigh((inner + _turned(inner)) / 2)
    return np.asarray(values), root @ found * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _grow(held: Floats, rows: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Give S_l of S_{l-1}, B and T, and the T for which the factorisation ran to its end.

    With C = T^(-1/2) B and N = I - C S C' this is blkdiag(S + V'V, T), V = R^-1 C S, N - margin = R R'. What rounding may
    have taken off stands on the diagonal: |V_j| <= ||R^-1|| d_j for d = diag(S)^(1/2), so that all of it is in units of d.
    """
    rows, spread = np.broadcast_to(rows, (len(held), *rows.shape[1:])) if len(rows) == 1 else rows, spread
    u, k = rows.shape[-2:]
    lengths = _lengths(held)
    for _ in range(60):
        scaled = rows / np.sqrt(spread)[..., None]
        seen = scaled @ held
        inner = seen @ _turned(scaled)
        inner = (inner + _turned(inner)) / 2
        size = _weighted(scaled, lengths)
        lost = 32 * (u + k) * UNIT * (size**2 + u)
        try:
            factor = np.linalg.cholesky((1 - lost)[:, None, None] * np.eye(u) - inner)
            break
        except np.linalg.LinAlgError:
            largest = np.linalg.eigvalsh(inner)[:, -1:] + lost[:, None]
            spread = spread * np.where(largest > 0.95, largest / 0.9, 1.0)
    else:
        raise np.linalg.LinAlgError("no multiplier is large enough")
    inverse = np.linalg.inv(factor)
    turned = inverse @ seen
    length = np.maximum(_frobenius(inverse), 1.0)
    away = 32 * (u + k) * UNIT * length**2 * (size + sqrt(u))
    pad = k * (2 * length * away + away**2 + 32 * (u + k) * UNIT * (length**2 + 1))
    count = max(len(held), len(spread))
    grown = np.zeros((count, k + u, k + u))
    grown[:, :k, :k] = held + _turned(turned) @ turned
    grown[:, np.arange(k), np.arange(k)] += pad[:, None] * lengths**2
    grown[:, np.arange(k, k + u), np.arange(k, k + u)] = spread
    return (grown + _turned(grown)) / 2, np.broadcast_to(spread, (count, u))
