"""What a value of a program reaches on a set: bounds of its norm, of its entries, and of its derivatives block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nonsmooth.bounds.sizes import Sizes, measured

__all__ = ["Floats", "Local", "Reach", "Shape", "compose", "length_of", "times", "wide"]

Floats: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reach:
    """A value z = z(theta_1, ..., theta_k) while every block theta_a runs through its set.

        norm >= ||z||,    low <= z_i <= high,    lipschitz[a] >= ||D_a z||,    smoothness[a, b] >= ||D_a D_b z||

    Norms are Euclidean on all entries, those of derivatives the operator norms that belong to them. `low` and `high` have
    a shape that spreads over that of z: () for one interval of all entries. `center` is the value at the centers of the
    sets, if it is known, and `distance` >= ||z - center||. A value that does not move has lipschitz 0 and distance 0.
    `operator` >= the spectral norm of a matrix (or of a kernel as one), where more is known than its entries' norm;
    `error` is what rounding may have added to the center.
    """

    shape: Shape
    norm: float
    lipschitz: Floats
    smoothness: Floats
    low: Floats = field(default_factory=lambda: np.array(-inf))
    high: Floats = field(default_factory=lambda: np.array(inf))
    center: NDArray[np.floating] | None = None
    distance: float = inf
    operator: float = inf
    error: float = 0.0

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    @property
    def moves(self) -> bool:
        """Whether the value depends on a block."""
        return bool(np.any(self.lipschitz > 0))

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of the center; infinite where none is known."""
        return Sizes(inf, -inf, inf, inf, inf) if self.center is None else measured(np.asarray(self.center))

    @cached_property
    def interval(self) -> tuple[Floats, Floats]:
        """The tightest interval of each entry that follows from everything known."""
        low, high = np.maximum(self.low, -self.norm), np.minimum(self.high, self.norm)
        if self.center is not None and self.distance < inf and not np.iscomplexobj(self.center):
            center = np.asarray(self.center, float)
            low, high = np.maximum(low, center - self.distance), np.minimum(high, center + self.distance)
        return low, high

    @cached_property
    def peak(self) -> float:
        """A bound of every entry: max |z_i|."""
        if self.size == 0:
            return 0.0
        if self.low.shape == () and self.high.shape == ():  # without the arrays of an interval: a value may be large
            known = self.sizes.peak + self.distance if self.distance < inf else inf
            return min(self.norm, float(max(abs(self.low), abs(self.high))), known)
        low, high = self.interval
        return float(max(np.max(np.abs(low)), np.max(np.abs(high))))

    @classmethod
    def constant(cls, value: NDArray[Any], blocks: int) -> Reach:
        """Give the reach of a value that does not move."""
        array = np.asarray(value)
        found = measured(array)
        zero = np.zeros(blocks), np.zeros((blocks, blocks))
        reach = cls(array.shape, found.norm, *zero, center=array, distance=0.0, operator=found.operator)
        vars(reach)["sizes"] = found  # measured once
        return reach


@dataclass(frozen=True, eq=False)
class Local:
    """The constants of an operation phi(u_1, ..., u_p) on what its operands reach.

        lipschitz[i] >= sup ||D_i phi||,    smoothness[i, j] >= sup ||D_i D_j phi||   (i <= j; pairs left out are 0)
        norm >= sup ||phi||,                low <= phi_i <= high

    `stacked`: the result is the operands side by side, so that their parts add as squares. `why` says what makes a
    constant infinite. `slopes`, of an operation on entries, are the least and the largest derivative of each.
    """

    lipschitz: Sequence[float]
    smoothness: Mapping[tuple[int, int], float] = field(default_factory=dict)
    norm: float = inf
    low: Floats | float = -inf
    high: Floats | float = inf
    stacked: bool = False
    why: str = ""
    slopes: tuple[Floats, Floats] | None = None


TERMS = 64
"""How many units of rounding an operation may add to a value, relative to its norm."""


def times(a: Floats | float, b: Floats | float) -> Floats:
    """Give a b with 0 times infinity = 0: what does not move, or is not used, adds nothing."""
    with np.errstate(invalid="ignore"):
        product = np.multiply(a, b)
    return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, product)


def compose(
    shape: Shape,
    local: Local,
    operands: Sequence[Reach],
    radii: Floats,
    center: Callable[[], object] | None = None,
    precision: float = 2.0**-52,
) -> Reach:
    """Give the reach of phi(u_1, ..., u_p) from the constants of phi and the reaches of its operands.

        l[a]    = sum_i l_i l_{u_i}[a]                                                       (chain rule)
        L[a, b] = sum_ij L_ij l_{u_i}[a] l_{u_j}[b] + sum_i l_i L_{u_i}[a, b]
        ||z||  <= min(norm of phi, ||z(center)|| + sum_a l[a] radius_a)

    Stacked parts add as squares: l[a] = ||(l_i l_{u_i}[a])_i||, and so does L. Guarantee: the set of the blocks is a
    product of convex sets, each in the ball of its radius about its center, which `center` is evaluated at with rounding
    of `precision`; it is asked for only where the result stays within some distance of it.

    Source: RouletHarchaoui2019; derived, docs/theory/bounds.md.
    """
    blocks = len(radii)
    parts = [times(c, u.lipschitz) for c, u in zip(local.lipschitz, operands, strict=True)]
    bends = [times(c, u.smoothness) for c, u in zip(local.lipschitz, operands, strict=True)]
    if local.stacked:
        lipschitz, smoothness = _root(parts, blocks), _root(bends, (blocks, blocks))
    else:
        lipschitz, smoothness = sum(parts, np.zeros(blocks)), sum(bends, np.zeros((blocks, blocks)))
    for (i, j), constant in local.smoothness.items():
        cross = times(constant, times(operands[i].lipschitz[:, None], operands[j].lipschitz[None, :]))
        smoothness = smoothness + (cross if i == j else cross + cross.T)
    distance, norm, error = inf, local.norm, 0.0
    low, high = (np.asarray(v, float) for v in (local.low, local.high))
    away = float(np.sum(times(lipschitz, radii)))
    found = center() if center is not None and away < inf else None
    known = None if found is None else np.asarray(found)
    if known is not None:
        length = length_of(known)
        carried = (float(times(c, u.error)) for c, u in zip(local.lipschitz, operands, strict=True))
        error = sum(carried) + TERMS * precision * length
        distance = away + error
        norm = min(norm, length + distance)
    if low.shape == () and np.isfinite(low) and np.isfinite(high):
        norm = min(norm, sqrt(prod(shape)) * float(max(abs(low), abs(high))))
    elif low.shape == shape:
        norm = min(norm, float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high)))))
    lipschitz, smoothness, high = (np.where(np.isnan(v), inf, v) for v in (lipschitz, smoothness, high))
    norm, distance, low = _known(norm), _known(distance), np.where(np.isnan(low), -inf, low)
    return Reach(shape, norm, lipschitz, smoothness, low, high, known, distance, error=error)


def _known(bound: float) -> float:
    """Give a bound; infinite where the numbers that it comes from were too large."""
    return inf if isnan(bound) else float(bound)


def length_of(array: NDArray[Any]) -> float:
    """Give the Euclidean norm of all entries, real or complex."""
    return measured(array).norm


def wide(array: object) -> NDArray[Any]:
    """Give numbers in double precision, real or complex."""
    given = np.asarray(array)
    return given.astype(complex if np.iscomplexobj(given) else float, copy=False)


def _root(parts: Sequence[Floats], shape: int | Shape) -> Floats:
    """Add arrays up as squares."""
    return np.sqrt(sum((p * p for p in parts), np.zeros(shape)))
