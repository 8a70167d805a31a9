"""The shortest vector of a convex set, from its support function alone, with a certificate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.bounded import Bounded
from nonsmooth.sets.corral import Corral

__all__ = ["LIMIT", "ROUNDING", "TOLERANCE", "MinimumNorm", "Support", "certify", "find_nearest"]

Vector = NDArray[np.float64]

TOLERANCE = 1e-12
"""The search ends when the distance is known to this, relative to the scale of the problem."""

ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""The error of a support value, relative to the scale; lower bounds are lowered by it."""

PATIENCE = 100
"""The search ends as undecided where so many support values in a row have not lowered the gap."""

LIMIT = 10_000
"""The most support values of one search."""


class Support(NamedTuple):
    """What a set says about a direction d: bounds of max <d, v>, and an element with <d, point> = lower."""

    lower: float
    upper: float
    point: Vector


class MinimumNorm(NamedTuple):
    """The element of a convex set C nearest to a target t (0 unless said otherwise), and how well it is known.

        norm.lower <= dist(t, C) <= norm.upper = |point - t|,   <point - t, v - t> >= |point - t|^2 - gap for all v in C

    Where C is exact, |point - the nearest element| <= sqrt(gap). Status: `computed`.

    Attributes:
        point: an element of C (of its inner part, where C is bracketed), shape (space,).
        norm: its distance from the target, with the lower bound that the direction certifies.
        direction: a unit vector d with max_{v in C} <d, v - t> <= -norm.lower < 0: a direction of descent for t = 0; None
            where the target cannot be separated from C.
        gap: the duality gap of `point`.
        iterations: how many support values were taken.
        status: "computed" where the search converged, "undecided" where it came to its limit first; the bounds hold in
            either case.
        scale: the largest length met, of the target, of elements and of their difference; tolerances are relative to it.

    Source: Wolfe1976.
    """

    point: Vector
    norm: Bounded
    direction: Vector | None
    gap: float
    iterations: int
    status: str
    scale: float

    def bounded_by(self, outer: MinimumNorm) -> MinimumNorm:
        """Take the lower bound and the direction of a larger set, where they are better.

            C a subset of C':  dist(t, C) >= dist(t, C')

        >>> inner = MinimumNorm(np.ones(1), Bounded(0.0, 1.0), None, 1.0, 3, "computed", 1.0)
        >>> outer = MinimumNorm(np.ones(1) / 2, Bounded(0.5), -np.ones(1), 0.0, 3, "computed", 1.0)
        >>> inner.bounded_by(outer).norm, inner.bounded_by(outer).direction
        (between 0.5 and 1.0, array([-1.]))

        Source: Rockafellar1970.
        """
        if outer.norm.lower <= self.norm.lower:
            return self
        upper = self.norm.upper
        lower = min(outer.norm.lower, upper)
        norm = Bounded(lower, upper, float(self.norm), exact=upper - lower <= 2 * TOLERANCE * self.scale)
        return self._replace(norm=norm, direction=outer.direction)


def find_nearest(
    support: Callable[[Vector], Support],
    target: Vector,
    tolerance: float = TOLERANCE,
    limit: int = LIMIT,
    threshold: float | None = None,
) -> MinimumNorm:
    """Find the element nearest to a target by Wolfe's algorithm: add the support point, correct fully, repeat.

        |p| + max <-p/|p|, v - t> <= tolerance * scale   ends it

    On a polytope it ends after finitely many steps; on other sets the gap falls until the limit. Status: `computed`.

    Args:
        support: the support function of the set.
        target: t, shape (space,).
        tolerance: of the distance, relative to the scale.
        limit: the most support values taken.
        threshold: end as soon as the distance is known to be above it, or not above it.

    >>> square = lambda d: Support(abs(d).sum() + d[0] * 2, abs(d).sum() + d[0] * 2, np.sign(d) + [2, 0])
    >>> found = find_nearest(square, np.zeros(2))
    >>> found.point.round(12) + 0, round(found.norm, 12), found.status
    (array([1., 0.]), 1.0, 'computed')

    Source: Wolfe1976.
    """
    corral = Corral(support(np.random.default_rng(0).standard_normal(len(target))).point - target)
    best = _Best(corral.nearest, float(np.linalg.norm(target)))
    for iteration in range(1, limit + 1):
        p = corral.nearest
        norm = float(np.linalg.norm(p))
        best.scale = max(corral.size, best.scale)
        if norm <= ROUNDING * best.scale:
            best.gap, best.p, best.stop = 0.0, np.zeros_like(p), "computed"
            break
        d = -p / norm
        found = support(d)
        new = found.point - target
        inner = norm + float(d @ new)
        best.see(p, norm, d, float(d @ target) - found.upper, inner, float(np.linalg.norm(new)), iteration)
        if min(norm, inner) <= tolerance * best.scale or best.known(threshold):
            best.stop = "computed"
            break
        if iteration - best.since > PATIENCE or not corral.add(new):
            break
    return best.result(target, iteration + 1)


@dataclass
class _Best:
    """The best that the search has seen: the element of the smallest gap, and the largest lower bound."""

    p: Vector
    scale: float
    inner: float = math.inf
    gap: float = math.inf
    lower: float = 0.0
    direction: Vector | None = None
    since: int = 0
    stop: str = "undecided"

    def see(self, p: Vector, norm: float, d: Vector, bound: float, inner: float, size: float, iteration: int) -> None:
        """Take note of an element p, the bound that d = -p/|p| gives, and its gap over the points seen."""
        self.scale = max(self.scale, size)
        bound_down = bound - ROUNDING * self.scale
        if bound_down > self.lower:
            self.lower, self.direction = bound_down, d
        if min(inner, norm) < self.inner:
            self.p, self.inner, self.since = p, min(inner, norm), iteration
            self.gap = max(0.0, norm * (norm - bound))

    def known(self, threshold: float | None) -> bool:
        """Say whether the distance is above the threshold, or not above it, for certain."""
        return threshold is not None and (self.lower > threshold or float(np.linalg.norm(self.p)) <= threshold)

    def result(self, target: Vector, steps: int) -> MinimumNorm:
        """Put together what was found."""
        norm = float(np.linalg.norm(self.p))
        lower = min(self.lower, norm)
        exact = norm - lower <= 2 * TOLERANCE * self.scale
        bounded = Bounded(lower, norm, 0.0 if norm <= TOLERANCE * self.scale else norm, exact=exact)
        direction = self.direction if lower > 0 else None
        return MinimumNorm(target + self.p, bounded, direction, self.gap, steps, self.stop, self.scale)


def certify(support: Callable[[Vector], Support], target: Vector, point: Vector, iterations: int = 0) -> MinimumNorm:
    """Certify an element that a closed form says is nearest to the target; "undecided" where the gap is not closed.

    >>> square = lambda d: Support(abs(d).sum() + d[0] * 2, abs(d).sum() + d[0] * 2, np.sign(d) + [2, 0])
    >>> certify(square, np.zeros(2), np.array([1.0, 0.0])).status
    'computed'
    >>> certify(square, np.zeros(2), np.array([1.0, 0.5])).norm
    between 0.44... and 1.11...
    """
    p = point - target
    norm = float(np.linalg.norm(p))
    best = _Best(p, max(float(np.linalg.norm(point)), float(np.linalg.norm(target)), norm))
    if norm <= ROUNDING * best.scale:
        best.p, best.gap, best.stop = np.zeros_like(p), 0.0, "computed"
        return best.result(target, iterations)
    d = -p / norm
    found = support(d)
    new = found.point - target
    best.see(p, norm, d, float(d @ target) - found.upper, norm + float(d @ new), float(np.linalg.norm(new)), 0)
    if best.inner <= 4 * TOLERANCE * best.scale:
        best.stop = "computed"
    return best.result(target, iterations + 1)
