"""Small fields in full: with the rows of Z at hand, a sum of segments, hulls and ellipsoids.

A kink alone in its group contributes { y'W Z : W }: a segment, a hull of finitely many vectors, an ellipsoid, or the
image of a set of bases. A group contributes the hull of the union, over the extreme weights of its cover, of such sums.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from nonsmooth.derivatives.groups import Family, Groups
from nonsmooth.dictionary.weights import DualBall, Floats, Vertices, WeightSet
from nonsmooth.sets import ConvexSet, Ellipsoid, Hull, HullOfUnion, Image, MinkowskiSum, Point, Segments, Support

__all__ = ["explicit_set"]

ROWS = 512
"""How many rows of Z are computed one by one at most."""

SIZE = 4_000_000
"""How many numbers they may hold."""

POINTS = 512
"""How many extreme points of one kink or group are listed."""


class _Weighed(ConvexSet):
    """The set { W'y : W } of one kink."""

    def __init__(self, weights: WeightSet, y: Floats) -> None:
        self.weights, self.y = weights, y

    @property
    def space(self) -> int:
        """The number of its z."""
        return self.weights.compared

    def _support(self, d: Floats) -> Support:
        point = self.weights.attain(self.y[None], d[None])[0]
        value = float(point @ d)
        return Support(value, value, point)


def explicit_set(groups: Groups) -> ConvexSet | None:
    """Give the set of a piece from the rows of Z; None where there are too many of them, or a group is bracketed."""
    system = groups.system
    n = int(system.first_z[-1])
    if not groups.alone and not groups.families and groups.exact:
        return Point(system.J)
    members = sum(len(f.z) * 2 ** len(f.cover) for f in groups.families)
    if not groups.exact or n > ROWS or n * system.J.size > SIZE or members > POINTS:
        return None
    Z = system.dense_rows
    center, segments, parts = system.J.copy(), [], []
    for block, kinks in groups.alone:
        weights = system.blocks[block].weights
        for z, u in zip(system.z_of(kinks, block), system.u_of(kinks, block), strict=True):
            if _is_segment(weights):
                segments.append(system.Y[u[0]] * Z[z[0]])
            else:
                parts.append(_of_kink(weights, system.Y[u], Z[z]))
    for family in groups.families:
        for group in range(len(family.z)):
            found = _of_group(family, group, Z)
            if found is None:
                return None
            parts.append(found)
    parts.append(Segments(center, np.array(segments).reshape(len(segments), len(center))))
    return MinkowskiSum(parts).simplified()


def _is_segment(weights: WeightSet) -> bool:
    """Tell the weights [0, 1]."""
    return isinstance(weights, Vertices) and weights.is_segment


def _of_kink(weights: WeightSet, y: Floats, rows: Floats) -> ConvexSet:
    """Give { y'W rows : W }."""
    if isinstance(weights, DualBall):
        return Ellipsoid(np.zeros(rows.shape[1]), abs(y[0]) * rows, weights.p / (weights.p - 1))
    if weights.count <= POINTS:
        return Hull(np.einsum("r,vrm,mp->vp", y, weights.extreme(), rows))
    return Image.of_matrix(_Weighed(weights, y), rows.T)


def _of_group(family: Family, group: int, Z: Floats) -> ConvexSet | None:
    """Give the set of one group; None where a kink of its antichain has neither a list of weights nor is a ball."""
    parts = []
    for cover in itertools.product(*(family.weights[k].extreme() for k in family.cover)):
        fixed = dict(zip(family.cover, cover, strict=True))
        start = _row(family, group, fixed, Z)
        segments: list[Floats] = []
        others: list[ConvexSet] = []
        for k in family.free:
            weights = family.weights[k]
            if not _add_kink(family, group, fixed, k, weights, start, Z, segments, others):
                return None
        others.append(Segments(start, np.array(segments).reshape(len(segments), len(start))))
        parts.append(MinkowskiSum(others).simplified())
    return HullOfUnion(parts) if len(parts) > 1 else parts[0]


def _add_kink(
    family: Family,
    group: int,
    fixed: dict[int, Floats],
    k: int,
    weights: WeightSet,
    start: Floats,
    Z: Floats,
    segments: list[Floats],
    others: list[ConvexSet],
) -> bool:
    """Add what a kink of the antichain gives, the cover being fixed."""

    def moved(W: Any) -> Floats:
        return _row(family, group, {**fixed, k: W}, Z) - start

    if _is_segment(weights):
        segments.append(moved(np.ones((1, 1))))
    elif isinstance(weights, DualBall):
        rows = np.array([moved(e[None]) for e in np.eye(weights.compared)])
        others.append(Ellipsoid(np.zeros(len(start)), rows, weights.p / (weights.p - 1)))
    elif weights.count <= POINTS:
        others.append(Hull(np.array([moved(W) for W in weights.extreme()])))
    else:
        return False
    return True


def _row(family: Family, group: int, chosen: dict[int, Floats], Z: Floats) -> Floats:
    """Give the gradient less J under some weights, the others being 0."""
    y, total = family.Y[group].copy(), np.zeros(Z.shape[1])
    for k in reversed(range(len(family.weights))):
        if k in chosen:
            found = y[family.u_of[k]] @ chosen[k]
            total += found @ Z[family.z[group, family.z_of[k]]]
            places, matrix = family.acted[k]
            y[places] += found @ matrix[group]
    return total
