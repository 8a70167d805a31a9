"""Faces: whether the programs of all outcomes of tied guards join wherever they meet next to a point.

Each outcome o of the comparisons that tie has a program, of derivative g along the directions of its *region*: the
v at which every comparison comes out so, A v > 0 or A v >= 0. The regions are finitely many convex cones that cover all
directions, and those of a piecewise affine program are all there is. So F is continuous next to x if and only if

    F_o(x) = F(x)   and   (g_o - g_q)' v = 0  for all v in cl(region o) and cl(region q),   for all o, q

The closure of a region that is not empty is { A v >= 0 }, and by Farkas's lemma h vanishes on { A v >= 0 } if h and -h
are combinations of the rows of A with weights >= 0: two problems of nonnegative least squares, whose residual is the
largest h' v of a unit vector v there. A region is cut up by the kinks of its program, which are continuous.

Source: Scholtes2012, derived, docs/theory/subgradient.md.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from nonsmooth.derivatives.cells import LOST, Cone, Walk
from nonsmooth.derivatives.linearisation import ActiveKink, Linearisation, linearise
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NonsmoothError
from nonsmooth.frameworks.framework import ROUNDING, Framework, GuardTie
from nonsmooth.program import Program

__all__ = ["Joined", "join_on_faces", "vanishes"]

OUTCOMES = 64
"""How many outcomes of tied comparisons are looked at."""

REGIONS = 128
"""How many regions are compared, two by two."""

ROWS = 64
"""How many rows of Z a program may have."""

DOUBT = 2.0**12
"""A residual over `LOST[0]` units of rounding, and under this many times more, is in doubt."""


@dataclass(frozen=True)
class Joined:
    """Whether the programs of all outcomes join (None: not known), and whether that is so beyond first order."""

    joins: bool | None
    exact: bool = False


@dataclass(frozen=True, eq=False)
class _Region:
    """A cone { strict v > 0, weak v >= 0 } next to the point and the gradient there, or none where the value jumps."""

    strict: Floats
    weak: Floats
    gradient: Floats | None

    @property
    def rows(self) -> Floats:
        """Give the rows of the closure."""
        return np.concatenate([self.strict, self.weak])


class _Unknown(Exception):
    """The regions cannot all be listed."""


def join_on_faces(framework: Framework, program: Program, x: Any, data: tuple[Any, ...]) -> Joined:
    """Tell whether the programs of all outcomes of tied guards join wherever they meet next to the point.

    Where they are piecewise affine that is exact, up to rounding; elsewhere it is so at first order, and an outcome counts
    even if no direction has it.
    """
    try:
        systems = _systems(framework, program, x, data)
        exact = not any(s.sweeps.evaluation.curved for s in systems)
        value, size, eps = _value(framework, program, x, data, systems)
        regions: list[_Region] = []
        for system in systems:
            there = _number(framework, system)
            same = abs(there - value) <= LOST[0] * eps * max(abs(there), abs(value), size)
            for region in _Regions(system, exact).listed():
                regions.append(region if same else _Region(region.strict, region.weak, None))
                if len(regions) > REGIONS:
                    raise _Unknown
        if exact:
            regions = [r for r in regions if not _is_empty(r, eps)]
        return Joined(_join(regions, size, eps), exact)
    except (_Unknown, NonsmoothError):
        return Joined(None)


def _systems(framework: Framework, program: Program, x: Any, data: tuple[Any, ...]) -> list[Linearisation]:
    """Linearise the programs of all outcomes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*outcomes of tied guards were not tried")
        try:
            return [linearise(framework, p, x, data) for p in framework.outcomes(program, x, data, limit=OUTCOMES)]
        except Exception as error:  # the user's own function may fail where it never runs by itself
            raise _Unknown from error


def _number(framework: Framework, system: Linearisation) -> float:
    """Give the value of a program."""
    return float(framework.numpy(framework.scalar(system.sweeps.evaluation)).item())


def _value(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...], systems: list[Linearisation]
) -> tuple[float, float, float]:
    """Give F(x), the size of the terms that gradients are summed from, and the unit of rounding."""
    result = framework.scalar(framework.evaluate(framework.unforced(program), x, data))
    eps = framework.eps(result)
    if not all(np.all(np.isfinite(s.J)) and np.all(np.isfinite(s.Y)) for s in systems):
        raise _Unknown
    size = max(s.rounding / (ROUNDING * eps) for s in systems)
    return float(framework.numpy(result).item()), size, eps


class _Regions(Walk):
    """The regions of one program: the cells of its kinks, each with the outcomes of the guards as inequalities."""

    def __init__(self, system: Linearisation, exact: bool) -> None:
        weights = [b.weights for b in system.blocks]
        if int(system.first_z[-1]) > ROWS or any(w.count == np.inf for w in weights):
            raise _Unknown
        super().__init__(system, np.unique(system.kink_of_u[system.Y != 0]).tolist(), exact, REGIONS)
        self.found: list[_Region] = []

    def listed(self) -> list[_Region]:
        """Walk, and give the regions."""
        cells = self.run()
        if not cells.complete or cells.reasons:
            raise _Unknown
        return self.found

    def _choice(self, kink: ActiveKink, z: Floats, cone: Cone) -> Iterator[tuple[Floats, Cone]]:
        """Take either side of a `where` that joins; what an equality chooses has no cell to be met in."""
        if kink.empty:
            raise _Unknown
        return super()._choice(kink, z, cone)

    def _leaf(self, cone: Cone) -> None:
        """Keep one region."""
        self.cells.count += 1
        strict: list[Floats] = []
        weak: list[Floats] = list(cone.rows)
        for tie, rows, through in self.ties:
            sides = self._sides_of(tie, rows + through @ self.U, rows, through)
            if sides is None:
                return
            for row, open_ in sides:
                (strict if open_ else weak).append(row / np.linalg.norm(row))
        whole = [np.reshape(r, (len(r), self.basis.shape[1])) @ self.basis.T for r in (strict, weak)]
        self.found.append(_Region(whole[0], whole[1], self._gradient()))

    def _sides_of(self, tie: GuardTie, a: Floats, rows: Floats, through: Floats) -> list[tuple[Floats, bool]] | None:
        """Give the rows that are positive where a comparison comes out as here, and whether 0 is out; None: nowhere."""
        zero = self._is_zero(a, np.linalg.norm(rows, axis=1) + np.abs(through) @ self.sizes)
        if np.any(zero) and not self.affine:
            raise _Unknown
        moved = [(row, wins) for row, wins, one in zip(a, tie.wins, zero, strict=True) if not one]
        if tie.equality:
            return [(sign * row, False) for row, _ in moved for sign in (1.0, -1.0)]
        if tie.sign == 0:  # not equal: its closure is everything
            return [] if tie.own or moved else None
        if not all(wins for wins, one in zip(tie.wins, zero, strict=True) if one):
            return None
        return [(tie.sign * row, not wins) for row, wins in moved]


def _is_empty(region: _Region, eps: float) -> bool:
    """Tell a region without directions, by Motzkin's transposition theorem; one in doubt is taken to be there."""
    strict, weak = region.strict, region.weak
    if not len(strict):
        return False
    total = np.concatenate([np.ones(len(strict)), np.zeros(len(weak))])
    target = np.zeros(strict.shape[1] + 1)
    target[-1] = 1.0
    weights = _nonnegative(np.concatenate([region.rows.T, total[None]]), target)[0]
    if not np.sum(weights[: len(strict)]) > 0.5:
        return False
    rest = weights / np.sum(weights[: len(strict)])
    return bool(np.linalg.norm(rest @ region.rows) <= LOST[0] * eps)


def _join(regions: list[_Region], size: float, eps: float) -> bool | None:
    """Tell whether the gradients of all regions agree on all that they have in common; None if that is in doubt."""
    if any(r.gradient is None for r in regions):
        return False
    doubt = False
    for residual in _residuals(regions):
        if residual > DOUBT * LOST[0] * eps * size:
            return False
        doubt = doubt or residual > LOST[0] * eps * size
    return None if doubt else True


def _residuals(regions: list[_Region]) -> Iterator[float]:
    """Give, for each two regions, how much their gradients differ along what they have in common."""
    for one, other in itertools.combinations(regions, 2):
        assert one.gradient is not None and other.gradient is not None
        apart = one.gradient - other.gradient
        if np.any(apart):
            yield vanishes(apart, np.concatenate([one.rows, other.rows]))


def vanishes(h: Floats, rows: Floats) -> float:
    """Give the largest |h' v| of the unit vectors v with rows v >= 0: 0 if h vanishes on that cone.

    >>> vanishes(np.array([3.0, 0.0]), np.array([[1.0, 0.0], [-1.0, 0.0]]))
    0.0
    >>> vanishes(np.array([0.0, 2.0]), np.array([[1.0, 0.0], [-1.0, 0.0]]))
    2.0
    """
    if not len(rows):
        return float(np.linalg.norm(h))
    return max(_nonnegative(rows.T, side * h)[1] for side in (1.0, -1.0))


def _nonnegative(matrix: Floats, target: Floats) -> tuple[Floats, float]:
    """Give the weights >= 0 that bring combinations of columns nearest to a target, and how near."""
    try:
        weights, residual = nnls(matrix, target)
    except RuntimeError as error:  # too many iterations
        raise _Unknown from error
    return np.asarray(weights), float(residual)
