"""The element (v, w) of a convex set with w nearest to a cone, and among these v shortest, with a certificate.

    r = min { dist(w, K) : (v, w) in C },   then   min { |v| : (v, w) in C, dist(w, K) = r }

C is asked for support points only. A few of them are kept; the weights of their best mixture solve a small quadratic
program, whatever the dimension, and the support point along its multipliers is added until nothing is gained.

Source: derived, docs/theory/ridge.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError
from nonsmooth.sets.bounded import Bounded
from nonsmooth.sets.cones import ConvexCone
from nonsmooth.sets.convex import ConvexSet
from nonsmooth.sets.minimum_norm import ROUNDING, Support
from nonsmooth.sets.mixture import Mixture
from nonsmooth.sets.point import Point

__all__ = ["LIMIT", "Meeting", "find_meeting"]

Vector = NDArray[np.float64]

TOLERANCE = 1e-10
"""A search ends when what it minimises is known to this, relative to the scale of the problem."""

LIMIT = 500
"""The most support values of one search."""

PATIENCE = 12
"""A search ends as undecided where so many support values in a row have halved neither the gap nor what it minimises."""


class Meeting(NamedTuple):
    """The element (v, w) of a convex set C whose w is nearest to a cone K and whose v is then shortest.

        distance.lower <= min { dist(w', K) : (v', w') in C } <= distance.upper = dist(w, K)
        norm.lower <= min { |v'| : (v', w') in C, w' - (w - P_K(w)) in K } <= norm.upper = |v|

    The bounds hold whatever the search did: they are support values. Status: `computed`.

    Attributes:
        point: (v, w), an element of C (of its inner part, where C is bracketed), shape (space,).
        distance: of w from K; the interval is that of the least one.
        norm: of v; the interval is that of the least one.
        separation: a unit vector u of K° with <u, w'> >= distance.lower for all (v', w') in C: what shows that no w' is in
            K; None where distance.lower is 0.
        iterations: how many support values were taken.
        status: "computed" where both searches converged, "undecided" where one came to its limit first.
        scale: the largest length met; tolerances are relative to it.

    Source: derived, docs/theory/ridge.md.
    """

    point: Vector
    distance: Bounded
    norm: Bounded
    separation: Vector | None
    iterations: int
    status: str
    scale: float


def find_meeting(
    convex_set: ConvexSet, free: int, cone: ConvexCone, tolerance: float = TOLERANCE, limit: int = LIMIT
) -> Meeting:
    """Find the element (v, w) with w nearest to a cone, and v shortest among those.

        min { dist(w, K) : (v, w) in C },   then   min |v|

    Status: `computed`, with both duality gaps.

    Args:
        convex_set: C, a set of R^(free + cone.space).
        free: how many coordinates v has; they come first.
        cone: K.
        tolerance: of both, relative to the largest length met.
        limit: the most support values of each of the two searches.

    Raises:
        UsageError: the numbers of coordinates do not fit.

    >>> from nonsmooth.sets import Hull, Orthant
    >>> segment = Hull([[3.0, -1.0], [1.0, 1.0]])                  # (v, w) from (3, -1) to (1, 1)
    >>> zero, below = Orthant([False], [False]), Orthant([True], [False])
    >>> find_meeting(segment, 1, zero).point.round(9) + 0, find_meeting(segment, 1, below).point.round(9) + 0
    (array([2., 0.]), array([2., 0.]))
    >>> find_meeting(segment.translate([0.0, 4.0]), 1, zero).distance
    3.0

    Source: derived, docs/theory/ridge.md.
    """
    if free < 0 or free + cone.space != convex_set.space:
        raise UsageError(
            f"a set of R^{convex_set.space} was to meet a cone of R^{cone.space} beside {free} other coordinates; the two "
            "must add up."
        )
    if isinstance(convex_set, Point):
        return _of_point(convex_set.point, free, cone)
    search = _Search(convex_set, free, cone, tolerance, limit)
    search.approach()
    search.shorten()
    return search.result()


def _of_point(point: Vector, free: int, cone: ConvexCone) -> Meeting:
    """Give the only element, with its distance and its length."""
    rest = cone.polar_part(point[free:])
    distance, norm = float(np.linalg.norm(rest)), float(np.linalg.norm(point[:free]))
    separation = rest / distance if distance > 0 else None
    return Meeting(point, Bounded(distance), Bounded(norm), separation, 0, "computed", float(np.linalg.norm(point)))


@dataclass
class _Patience:
    """How long what bounds the error of a search has not been halved: the gap, or the length itself."""

    least: float = float("inf")
    waited: int = 0

    def is_over(self, gap: float) -> bool:
        """Take note of a gap."""
        halved = gap <= self.least / 2
        self.least, self.waited = (gap, 0) if halved else (self.least, self.waited + 1)
        return self.waited > PATIENCE


@dataclass
class _Search:
    """Both searches: the mixture of support points, and the bounds found so far."""

    convex_set: ConvexSet
    free: int
    cone: ConvexCone
    tolerance: float
    limit: int
    iterations: int = 0
    lower: float = 0.0
    separation: Vector | None = None
    rest: Vector = field(init=False)
    shortest: float = 0.0
    converged: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with some element."""
        start = np.random.default_rng(0).standard_normal(self.convex_set.space)
        self.mixture = Mixture(self._ask(start).point, self.free, self.cone)

    def _ask(self, d: Vector) -> Support:
        """Take a support value."""
        self.iterations += 1
        return self.convex_set._support(d)

    @property
    def scale(self) -> float:
        """The largest length met."""
        return self.mixture.size

    def approach(self) -> None:
        """Bring w as near to the cone as it comes: the first quadratic program."""
        patience = _Patience()
        for _ in range(self.limit):
            self.mixture.approach()
            self.rest = self.cone.polar_part(self.mixture.w)
            distance = float(np.linalg.norm(self.rest))
            if distance <= ROUNDING * self.scale:
                self.rest = np.zeros_like(self.rest)
                return self.converged.append(True)
            u = self.rest / distance
            found = self._ask(np.concatenate([np.zeros(self.free), -u]))
            bound = -found.upper - ROUNDING * self.scale
            if bound > self.lower:
                self.lower, self.separation = bound, u
            gap = distance - float(u @ found.point[self.free :])
            if min(gap, distance) <= self.tolerance * self.scale:
                return self.converged.append(True)
            if patience.is_over(min(gap, distance)) or not self.mixture.add(found.point):
                break
        self.converged.append(False)

    def shorten(self) -> None:
        """Shorten v with w kept as near: the second quadratic program."""
        patience = _Patience()
        for _ in range(self.limit if self.free else 0):
            multipliers = self.mixture.shorten(self.rest)
            v, norm = self.mixture.v, float(np.linalg.norm(self.mixture.v))
            if norm <= ROUNDING * self.scale:
                return self.converged.append(True)
            slope = np.concatenate([v, multipliers]) / norm
            found = self._ask(-slope)
            shift, terms = float(multipliers @ self.rest) / norm, float(np.linalg.norm(slope)) * self.scale
            self.shortest = max(self.shortest, -found.upper - shift - ROUNDING * terms)
            gap = float(slope @ (self.mixture.point - found.point))
            if min(gap, norm) <= self.tolerance * max(self.scale, terms):
                return self.converged.append(True)
            if patience.is_over(min(gap, norm)) or not self.mixture.add(found.point):
                break
        self.converged.append(not self.free)

    def result(self) -> Meeting:
        """Put together what was found."""
        point, scale = self.mixture.point, self.scale
        distance = self.cone.distance(point[self.free :])
        norm = float(np.linalg.norm(point[: self.free]))
        near = 4 * self.tolerance * scale
        bounds = []
        for low, high in ((self.lower, distance), (self.shortest, norm)):
            low = max(0.0, min(low, high))
            bounds.append(Bounded(low, high, high, exact=high - low <= near))
        separation = self.separation if bounds[0].lower > 0 else None
        status = "computed" if all(self.converged) else "undecided"
        return Meeting(point, bounds[0], bounds[1], separation, self.iterations, status, scale)
