"""Products of cones, as conic solvers order them, and the projection on the dual cone with its Jacobians.

Source: AgrawalEtAl2019a, derived, docs/theory/projections.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.implicit.cones.exponential_cone import exponential_cone_jacobian
from nonsmooth.implicit.projections.second_order_cone import second_order_cone_jacobian
from nonsmooth.implicit.projections.semidefinite_cone import semidefinite_cone_jacobian, vectorised

__all__ = ["ConeKink", "Cones", "DualJacobian"]


@dataclass(frozen=True)
class ConeKink:
    """A cone at whose kink v = y - s lies: its name, its first row, how many rows it has, and what happens there."""

    cone: str
    row: int
    rows: int
    where: str


@dataclass(frozen=True, eq=False)
class DualJacobian:
    """Clarke's Jacobian of the projection on the dual cone: { smallest + sum_i W_ij r_i r_j', 0 <= W <= I } contains it.

    Attributes:
        smallest, largest: its least and greatest elements, shape (m, m).
        directions: the orthonormal rows r.
        independent: whether it is that set for all diagonal W.
        kinks: the cones at whose kinks the point lies.
    """

    smallest: Floats
    largest: Floats
    directions: Floats
    independent: bool
    kinks: tuple[ConeKink, ...]


@dataclass(frozen=True)
class Cones:
    """A product of cones, K = {0}^zero x R+^nonnegative x second-order x semidefinite x exponential cones, in this order of rows.

    A semidefinite cone of size k has k (k + 1)/2 rows: the lower triangle, column by column, times 2^(1/2) off the diagonal.
    An exponential cone has three: the closure of { (x, y, z) : y > 0, y exp(x/y) <= z }.

    Attributes:
        zero: how many equations.
        nonnegative: how many inequalities.
        second_order: the numbers of rows of the second-order cones { (t, x) : |x| <= t }.
        semidefinite: the sizes of the matrices.
        exponential: how many exponential cones.

    Raises:
        UsageError: a size that is no whole number, or negative (of a cone: not positive).

    >>> Cones(zero=1, nonnegative=2, second_order=(3,), semidefinite=(2,)).rows
    9

    Source: AgrawalEtAl2019a.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0

    def __post_init__(self) -> None:
        """Read the sizes."""
        for name, least in (
            ("zero", 0),
            ("nonnegative", 0),
            ("second_order", 1),
            ("semidefinite", 1),
            ("exponential", 0),
        ):
            value = getattr(self, name)
            sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
            if any(isinstance(k, bool) or not isinstance(k, int | np.integer) or k < least for k in sizes):
                raise UsageError(f"Cones was given {name}={value!r}: pass whole numbers, {least} or more.")
            if least:
                object.__setattr__(self, name, tuple(int(k) for k in sizes))

    @property
    def rows(self) -> int:
        """The number of rows of A."""
        triangles = sum(k * (k + 1) // 2 for k in self.semidefinite)
        return self.zero + self.nonnegative + sum(self.second_order) + triangles + 3 * self.exponential

    @property
    def polyhedral(self) -> bool:
        """Whether there are equations and inequalities alone."""
        return not (self.second_order or self.semidefinite or self.exponential)

    @property
    def dimensions(self) -> dict[str, object]:
        """The cones as the conic solvers name them."""
        named = {
            "z": self.zero, "l": self.nonnegative, "q": list(self.second_order), "s": list(self.semidefinite),
            "ep": self.exponential,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value}

    def blocks(self) -> Iterator[slice]:
        """Walk the rows of the second-order, semidefinite and exponential cones."""
        start = self.zero + self.nonnegative
        for size in (*self.second_order, *(k * (k + 1) // 2 for k in self.semidefinite), *[3] * self.exponential):
            yield slice(start, start + size)
            start += size

    def project_dual(self, v: Floats) -> Floats:
        """Give the element of the dual cone nearest to v: V v, for every element V at v."""
        return self.jacobian(v, 0.0).smallest @ v

    def jacobian(self, v: Floats, tolerance: float) -> DualJacobian:
        """Give Clarke's Jacobian of the projection on the dual cone; what is within a tolerance of a kink counts as on it."""
        smallest = np.zeros((len(v), len(v)))
        smallest[: self.zero, : self.zero] = np.eye(self.zero)
        rows: list[Floats] = []
        kinks: list[ConeKink] = []
        independent = True
        flat = np.arange(self.zero, self.zero + self.nonnegative)
        smallest[flat, flat] = v[flat] > tolerance
        for i in flat[np.abs(v[flat]) <= tolerance]:
            rows.append(np.eye(len(v))[i])
            kinks.append(ConeKink("nonnegative", int(i), 1, "an active constraint with multiplier 0"))
        for cone, start, stop, found in self._curved(v, tolerance):
            smallest[start:stop, start:stop] = found[0]
            if not len(found[1]):
                continue
            independent &= len(found[1]) == 1
            block = np.zeros((len(found[1]), len(v)))
            block[:, start:stop] = found[1]
            rows += list(block)
            kinks.append(ConeKink(cone, start, stop - start, found[2]))
        directions = np.array(rows).reshape(len(rows), len(v))
        return DualJacobian(smallest, smallest + directions.T @ directions, directions, independent, tuple(kinks))

    def _curved(self, v: Floats, tolerance: float) -> Iterator[tuple[str, int, int, tuple[Floats, Floats, str]]]:
        """Walk the other cones: name, rows, least element, directions, and where v is."""
        start = self.zero + self.nonnegative
        for k in self.second_order:
            found = second_order_cone_jacobian(v[start : start + k], tolerance=tolerance)
            where = "the apex: s = y = 0" if len(found.directions) > 1 or k == 1 else "its boundary: s = 0 or y = 0"
            yield "second order", start, start + k, (found.smallest, found.directions, where)
            start += k
        for k in self.semidefinite:
            S, size = vectorised(k), k * (k + 1) // 2
            found = semidefinite_cone_jacobian((S.T @ v[start : start + size]).reshape(k, k), tolerance=tolerance)
            count = round(((8 * len(found.directions) + 1) ** 0.5 - 1) / 2)
            where = f"{count} eigenvalue(s) 0 in both s and y"
            yield "semidefinite", start, start + size, (S @ found.smallest @ S.T, found.directions @ S.T, where)
            start += size
        for _ in range(self.exponential):
            of_cone = exponential_cone_jacobian(-v[start : start + 3], tolerance)  # on K*: v + P(-v), P on K
            R = of_cone.directions
            yield "exponential", start, start + 3, (np.eye(3) - of_cone.smallest - R.T @ R, R, of_cone.where)
            start += 3
