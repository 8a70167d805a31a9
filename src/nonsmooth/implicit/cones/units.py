"""Units in which the terms of a cone program are of size 1, so that what is near a kink does not depend on the user's.

    x = a x',   s = D^-1 s',   y = D y' / f        P' = f a^2 P,   c' = f a c,   A' = a D A,   b' = D b

D has one number for each row of the zero and nonnegative cones, and for each other cone: these are mapped to themselves, and
v' = y' - s' is on a kink where v = y - s is. All of them are powers of 2, so that nothing is rounded.

Source: derived, docs/theory/projections.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.implicit.cones.product import Cones

__all__ = ["Arrays", "Units"]

NOISE = 1e-6
"""Below this share of what it would be without constraints a size is taken to be the rounding of a 0, and is no unit."""

Arrays = tuple[Floats, Floats, Floats, Floats]
"""P, c, A, b."""


@dataclass(frozen=True, eq=False)
class Units:
    """The units of the unknowns (a), of the rows (D, or one number for all), and of the objective (f)."""

    unknown: float = 1.0
    rows: Floats | float = 1.0
    objective: float = 1.0

    @classmethod
    def at(cls, arrays: Arrays, cones: Cones, x: Floats) -> Units:
        """Read them off a solution, or off x = 0 before there is one."""
        P, c, A, b = arrays
        heights, curvature = np.abs(A).max(axis=1, initial=0.0), _size(P)
        bounds = np.abs(b[heights > 0]) / heights[heights > 0]
        known = max(_size(x), float(bounds[bounds > 0].min()) if bounds.any() else 0.0)
        unknown = _power(_or(known, _size(c) / curvature if curvature else 0.0))
        rows = np.maximum(unknown * heights, np.abs(b))
        for block in cones.blocks():
            rows[block] = rows[block].max()
        rows = 1 / _powers(rows)
        dual = _or(max(_size(P @ x), _size(c)), unknown * curvature)  # A'y is their sum, or rounding of 0
        return cls(unknown, rows, 1 / (unknown * _power(dual)))

    def normalised(self, arrays: Arrays) -> Arrays:
        """Give P', c', A', b'."""
        P, c, A, b = arrays
        f, a, D = self.objective, self.unknown, self.rows
        return f * a * (a * P), f * a * c, a * np.reshape(D, (-1, 1)) * A, D * b

    def solution(self, x: Floats, y: Floats, s: Floats) -> tuple[Floats, Floats, Floats]:
        """Give x, y, s of x', y', s'."""
        return self.unknown * x, self.rows * y / self.objective, s / self.rows

    def within(self, x: Floats, y: Floats, s: Floats) -> tuple[Floats, Floats, Floats]:
        """Give x', y', s' of x, y, s."""
        return x / self.unknown, self.objective * y / self.rows, self.rows * s

    def pulled(self, P: Floats, c: Floats, A: Floats, b: Floats) -> Arrays:
        """Give the cotangents of P, c, A, b for those of P', c', A', b': the transpose of `normalised`."""
        return self.normalised((P, c, A, b))

    def factors(self, unknowns: int, rows: int) -> tuple[Floats, Floats]:
        """Give what the Jacobian of (x', y', s') in (c', b') is multiplied by: along its rows, and along its columns."""
        D, a, f = np.broadcast_to(self.rows, rows), np.full(unknowns, self.unknown), self.objective
        return np.concatenate([a, D / f, 1 / D]), np.concatenate([f * a, D])


def _or(size: float, other: float) -> float:
    """Give a size, or another one where it is rounding of that."""
    return size if size >= NOISE * other else other


def _size(values: Floats) -> float:
    """Give the largest magnitude."""
    return float(np.abs(values).max(initial=0.0))


def _power(size: float) -> float:
    """Round to a power of 2; 1 for what is 0 or infinite."""
    return float(_powers(np.array([size]))[0])


def _powers(sizes: Floats) -> Floats:
    """Round to powers of 2."""
    usable = (sizes > 0) & np.isfinite(sizes)
    return np.asarray(np.exp2(np.round(np.log2(np.where(usable, sizes, 1.0)))))
