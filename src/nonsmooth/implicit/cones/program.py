"""One cone program in numbers: its residual, a solution made exact by Newton's method, and its derivatives.

    minimise c'x + x'P x/2  subject to  A x + s = b,  s in K;      the dual variable y in K*

    with v = y - s, y = Pi(v), s = Pi(v) - v (Pi the projection on K*):
    F(x, v) = ( P x + A' Pi(v) + c,  b - A x - Pi(v) + v ) = 0,      M(V) = [[P, A'V], [-A, I - V]],  V in J_Pi(v)

F is the homogeneous self-dual residual N(z) = (Q - I) Pi(z) + z at w = 1, and M the reduced matrix: the row and the column
of w are deleted.

Source: AgrawalEtAl2019a, derived, docs/theory/projections.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.implicit.cones.product import Cones, DualJacobian
from nonsmooth.implicit.cones.units import Arrays, Units

__all__ = ["ConeData", "Solved", "refine"]

STEPS = 25
"""The most steps of Newton's method."""

NEAR = 10.0
"""What lies within so many bounds of the error of the solution counts as on a kink."""


@dataclass(frozen=True, eq=False)
class ConeData:
    """The numbers of a cone program: P (n, n), c (n,), A (m, n), b (m,), and its cones.

    Raises:
        UsageError: shapes that do not fit, nan or infinity, a P that is not symmetric positive semidefinite.
    """

    P: Floats
    c: Floats
    A: Floats
    b: Floats
    cones: Cones
    eps: float = float(np.finfo(np.float64).eps)

    def __post_init__(self) -> None:
        """Check the numbers."""
        n, m = self.c.size, self.cones.rows
        if self.c.shape != (n,) or self.P.shape != (n, n) or self.A.shape != (m, n) or self.b.shape != (m,):
            raise UsageError(
                f"a cone program of n = {n} unknowns and {m} rows takes P {(n, n)}, c {(n,)}, A {(m, n)}, b {(m,)}; found P "
                f"{self.P.shape}, c {self.c.shape}, A {self.A.shape}, b {self.b.shape}."
            )
        for name in ("P", "c", "A", "b"):
            if not np.isfinite(getattr(self, name)).all():
                raise UsageError(f"the {name} of a program holds nan or infinity.")
        size = float(np.abs(self.P).max(initial=0.0))
        if np.abs(self.P - self.P.T).max(initial=0.0) > 64 * self.eps * size:
            raise UsageError("the P of a program is not symmetric: pass (P + P')/2, which has the same objective.")
        if size and float(np.linalg.eigvalsh((self.P + self.P.T) / 2)[0]) < -64 * n * self.eps * size:
            raise UsageError(
                "the P of a program has a negative eigenvalue: the program is not convex, and is not solved."
            )

    @property
    def arrays(self) -> Arrays:
        """P, c, A, b."""
        return self.P, self.c, self.A, self.b

    def within(self, units: Units) -> ConeData:
        """Give the program in other units."""
        P, c, A, b = units.normalised(self.arrays)
        return replace(self, P=P, c=c, A=A, b=b)

    def residual(self, x: Floats, v: Floats) -> tuple[Floats, float]:
        """Give F(x, v), and its size relative to its terms."""
        y = self.cones.project_dual(v)
        dual = [self.P @ x, self.A.T @ y, self.c]
        primal = [self.b, -(self.A @ x), v - y]
        sizes = [1.0 + max(float(np.abs(t).max(initial=0.0)) for t in terms) for terms in (dual, primal)]
        parts = [np.sum(terms, axis=0) for terms in (dual, primal)]
        relative = max(float(np.abs(p).max(initial=0.0)) / s for p, s in zip(parts, sizes, strict=True))
        return np.concatenate(parts), relative

    def reduced(self, V: Floats) -> Floats:
        """Give M(V)."""
        return np.block([[self.P, self.A.T @ V], [-self.A, np.eye(len(V)) - V]])


@dataclass(frozen=True, eq=False)
class Solved:
    """A solution: x, v = y - s, the relative size of the residual, and the distance within which v is known.

    All but `values` and `pull` is in the `units` of the solution. `fixed` are directions of x that `data` was given an
    objective for, since nothing else determines them.
    """

    data: ConeData
    x: Floats
    v: Floats
    residual: float
    distance: float
    fixed: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    units: Units = field(default_factory=Units)

    @property
    def jacobian(self) -> DualJacobian:
        """The Jacobians of the projection on the dual cone at v."""
        return self.data.cones.jacobian(self.v, self.distance)

    @property
    def y(self) -> Floats:
        """The dual solution."""
        return self.data.cones.project_dual(self.v)

    @property
    def s(self) -> Floats:
        """The slack."""
        return self.y - self.v

    @property
    def values(self) -> tuple[Floats, Floats, Floats]:
        """x, y and s, in the user's units."""
        return self.units.solution(self.x, self.y, self.s)

    def pull(self, x: Floats, y: Floats, s: Floats) -> Arrays:
        """Give the cotangents of P, c, A, b for those of x, y, s: one solve with M(V)', whose residual is checked.

        Raises:
            NotConverged: the linear system was not solved.
        """
        V, n = self.jacobian.smallest, len(self.x)
        x, y, s = self.units.solution(x, y, s)  # the units are diagonal: their transpose is they
        M, right = self.data.reduced(V).T, np.concatenate([x, V @ y + V @ s - s])
        try:
            found = np.linalg.solve(M, right)
        except np.linalg.LinAlgError:
            found = np.linalg.lstsq(M, right)[0]
        rest, size = float(np.linalg.norm(M @ found - right)), float(np.linalg.norm(right))
        if not rest <= 1e-8 * max(size, 1e-300):
            raise NotConverged(
                f"the linear system of the derivative of a program was solved up to {rest:.1e} only, its right-hand side being "
                f"{size:.1e}: it is singular, or too badly conditioned."
            )
        one, two, dual = found[:n], found[n:], self.y
        P = -np.outer(one, self.x)
        return self.units.pulled((P + P.T) / 2, -one, np.outer(two, self.x) - np.outer(dual, one), -two)


def refine(data: ConeData, x: Floats, y: Floats, s: Floats) -> Solved:
    """Improve a solver's answer by semismooth Newton steps, as long as the residual falls.

    At ties interior-point solvers leave y_i and s_i of the root of their tolerance; Newton's method does not.
    """
    given, units = data, Units.at(data.arrays, data.cones, x)
    data = data.within(units)
    x, y, s = units.within(x, y, s)
    point = np.concatenate([x, y - s])
    n = len(x)
    F, size = data.residual(x, point[n:])
    for _ in range(STEPS):
        if not 0 < size < np.inf:
            break
        M = data.reduced(data.cones.jacobian(point[n:], 0.0).smallest)
        candidate = point - np.linalg.lstsq(M, F)[0]
        G, found = data.residual(candidate[:n], candidate[n:])
        if not found < size:
            break
        point, F, size = candidate, G, found
    solved = Solved(data, point[:n], point[n:], size, _distance(data, point, size, n), units=units)
    x, y, s = solved.values
    return replace(solved, residual=max(size, given.residual(x, y - s)[1]))  # in the user's units it is small, too


def _distance(data: ConeData, point: Floats, size: float, n: int) -> float:
    """Give how far v may be from the solution's: to first order the residual over the least singular value."""
    scale = 1.0 + float(np.abs(point[n:]).max(initial=0.0))
    if not np.isfinite(size):
        return scale
    M = data.reduced(data.cones.jacobian(point[n:], 0.0).smallest)
    values = np.linalg.svd(M, compute_uv=False) if M.size else np.ones(1)
    if values[-1] > 1e-11 * values[0]:
        return min(max(1e-9, NEAR * size * len(point) / float(values[-1])), 1e-3) * scale
    return float(max(1e-6, size**0.5) * scale)
