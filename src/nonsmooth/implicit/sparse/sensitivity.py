"""The derivative of a solution in its hyper-parameters: for one selection, and the set over all of them.

    S moves, U rests:   dz_U = rest,   H_SS dz_S = -(rates_S + H_SU dz_U)

Source: derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import qr

from nonsmooth.implicit.sparse.active_set import NEAR, Equicorrelation
from nonsmooth.implicit.sparse.data import Indices, Vector
from nonsmooth.implicit.sparse.linearisation import Linearisation

__all__ = ["LIMIT", "Sensitivity"]

LIMIT = 1024
"""At most so many selections are enumerated: ten kinks."""


@dataclass(frozen=True)
class Sensitivity:
    """A linearised equation with what moves at it."""

    at: Linearisation
    found: Equicorrelation

    def selections(self, limit: int) -> Iterator[Indices] | None:
        """Give the index sets that move, the support alone first; None where they are more than the limit."""
        kinks = self.found.kinks
        if len(kinks) >= limit.bit_length():
            return None
        choices = product((False, True), repeat=len(kinks))
        return (self.moving([j for j, moves in zip(kinks, one, strict=True) if moves]) for one in choices)

    def moving(self, kinks: list[int]) -> Indices:
        """Give the index set of the support and some kinks."""
        return np.array(sorted([*self.found.support, *kinks]), dtype=np.intp)

    def moved(self) -> Indices:
        """Give the support, and what is open and did move in the solution that was computed."""
        return self.moving([j for j in self.found.open if self.at.room[j] > NEAR * self.at.room_unit])

    def derivative(self, S: Indices) -> tuple[Vector, Vector]:
        """Give the derivatives of coefficients, shape (h, features), and intercept, shape (h,), under a selection."""
        at, dz = self.at, self._rest(S)
        right = np.stack([at.rates[k, S] + at.times(S, dz[k]) for k in range(len(dz))], axis=1)
        dz[:, S] = -self.at.system(S).solve(right).T
        pushed = [at.push(row) for row in dz]
        return np.array([coef for coef, _ in pushed]), np.array([level for _, level in pushed])

    def gradient(self, S: Indices, q: Vector) -> Vector:
        """Give the gradient in the hyper-parameters of a function with gradient q in z: one linear solve."""
        at, rest = self.at, self._rest(S)
        adjoint = self.at.system(S).solve(q[S])
        right = np.stack([at.rates[k, S] + at.times(S, rest[k]) for k in range(len(rest))])
        return np.asarray(rest @ q - right @ adjoint)

    def _rest(self, S: Indices) -> Vector:
        """Give dz of the coordinates that rest, and 0 for those that move."""
        rest = self.at.resting.copy()
        rest[:, S] = 0.0
        rest[:, list(self.found.support)] = 0.0
        return rest

    def independent(self) -> Indices:
        """Give coordinates of the support, or where it is unknown of those not at rest, whose columns are independent.

        They span what all of them span, so that the predictions have the same derivative whichever are taken.
        """
        at = self.at
        found: Indices = self.moving([]) if self.found.support else np.flatnonzero(at.room > 0)
        if at.system(found).singular is False:
            return found
        columns = at.A[:, found]
        _, R, order = qr(columns / np.linalg.norm(columns, axis=0), mode="economic", pivoting=True)
        sizes = np.abs(np.diag(R))
        rank = int((sizes > 1e-10 * sizes[0]).sum())
        return np.asarray(np.sort(found[order[:rank]]))

    def over_selections(self, derivative: Callable[[Indices], Vector], limit: int) -> Vector | None:
        """Give a derivative under every selection, one row each; None where they are too many."""
        chosen = self.selections(limit)
        return None if chosen is None else np.array([derivative(S) for S in chosen])
