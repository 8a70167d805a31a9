"""Quadrature along a path: Gauss-Legendre panels that are split where the integrand jumps, with an estimate of the error.

[0, 1] is cut into panels with Gauss-Legendre rules. A panel on which the
integrand is no polynomial up to the tolerance, or whose integral is not the change of F where F is known, is split: at
the jump of the integrand, which bisection brackets, or in the middle.

The rule's places are rounded to odd multiples of 2^-20, so that points of a path inside {x_1 + x_2 = 1} lie in it
without rounding, and so that a kink at a simple fraction is hit by no panel but one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.polynomial import legendre

from nonsmooth.derivatives.paths import Path
from nonsmooth.derivatives.space import Vector

__all__ = ["Integral", "LeftDomain", "NotFinite", "VectorField", "default_tolerance", "integrate", "rule"]

VectorField: TypeAlias = Callable[[Vector], tuple[float, Vector]]
"""A point -> the value of F there (0 where it is not known), and the value of the field."""

NODES, BUDGET, NARROWEST, ROUNDS, NOISY = 10, 1000, 2.0**-40, 2, (0.2, 0.43, 0.77)


class LeftDomain(ArithmeticError):
    """A path has left the points at which the function has a finite value."""


class NotFinite(ArithmeticError):
    """The field is nan or infinite at a point of a path where the function is finite."""

    def __init__(self, t: float, point: Vector) -> None:
        super().__init__(f"the derivative is not finite at t = {t:.6g}")
        self.t, self.point = t, point


class Rule(NamedTuple):
    """Places in [0, 1] with a check next to each end, and matrices from values at the inner ones."""

    places: Vector
    coefficients: Vector
    """Of the Legendre series of the interpolating polynomial."""
    ends: Vector
    """Its values at the two checks."""
    gaps: Vector
    """Its integrals between neighbouring places, 0 and 1 included."""
    velocity: Vector
    """Derivatives at all places of a polynomial through all of them."""


@cache
def rule(bits: int) -> Rule:
    """Give the rule whose places are odd multiples of 2^-bits: Gauss-Legendre up to that rounding."""
    unit = 2.0**-bits
    inner: Vector = (2 * np.round((legendre.leggauss(NODES)[0] / 2 + 0.5 - unit) / (2 * unit)) + 1) * unit
    places = np.array([unit, *inner, 1 - unit])
    coefficients: Any = np.linalg.inv(legendre.legvander(2 * inner - 1, NODES - 1))
    primitive = legendre.legint(np.eye(NODES))
    corners = legendre.legvander(2 * np.array([0.0, *places, 1.0]) - 1, NODES) @ primitive / 2
    every = legendre.legvander(2 * places - 1, NODES + 1)
    slopes = legendre.legvander(2 * places - 1, NODES) @ legendre.legder(np.eye(NODES + 2)) * 2
    ends = legendre.legvander(2 * places[[0, -1]] - 1, NODES - 1) @ coefficients
    return Rule(places, coefficients, ends, np.diff(corners, axis=0) @ coefficients, slopes @ np.linalg.inv(every))


@dataclass(order=True)
class Panel:
    """A part [a, b] of a path: its integral, the error of that, and what is left of the change of F."""

    rank: float
    a: float = field(compare=False)
    b: float = field(compare=False)
    integral: float = field(compare=False)
    error: float = field(compare=False)
    rest: float = field(compare=False)
    times: Vector = field(compare=False)
    integrand: Vector = field(compare=False)
    suspected: int = field(compare=False, default=0)


@dataclass(frozen=True)
class Integral:
    """The integral of a field along a path.

    Attributes:
        value: int <v(g(t)), g'(t)> dt.
        error: an estimate of its error, from the part of the integrand that no polynomial explains.
        change: F(g(1)) - F(g(0)), 0 where F is not known.
        scale: the size of F and of the integrand along the path, to which tolerances are relative.
        rounding: what the rounding of F may make of its change.
        kinks: the times at which the integrand jumps.
        discrepancy: the largest difference between the integral and the change of F on an interval [a, b] of [0, 1].
        worst: that interval, the change of F on it, and the integral.
        evaluations: how many points of the path were met.
    """

    value: float
    error: float
    change: float
    scale: float
    rounding: float
    kinks: tuple[float, ...]
    discrepancy: float
    worst: tuple[float, float, float, float]
    evaluations: int


class _Walk:
    """One integration: the evaluations so far, and the panels."""

    def __init__(self, path: Path, of: VectorField, tolerance: float, eps: float, known: bool) -> None:
        self.path, self.of, self.tolerance, self.known, self.eps = path, of, tolerance, known, eps
        self.rule = rule(20 if eps < 1e-12 else 9)
        self.evaluations, self.low, self.high, self.size = 0, np.inf, -np.inf, 0.0
        self.values: dict[float, float] = {}
        self.kinks: list[float] = []
        self.settled: list[Panel] = []
        self.noise = max((self._noise(t) for t in NOISY), default=0.0) if known else 0.0

    def _noise(self, t: float) -> float:
        """Measure the rounding of F: what is left of its change over a step of no length to speak of."""
        (here, slope), (there, _) = self.at(t), self.at(t + 256 * self.eps)
        return abs(self.values[t + 256 * self.eps] - self.values[t] - float(slope @ (there - here)))

    def at(self, t: float, *, finite: bool = True) -> tuple[Vector, Vector]:
        """Give the point and the field at a time; it must be finite unless its values of F alone are wanted."""
        self.evaluations += 1
        point = self.path.point(t)
        value, slope = self.of(point)
        if not np.isfinite(value):
            raise LeftDomain
        if finite and not np.isfinite(slope).all():
            raise NotFinite(t, point)
        self.values[t] = value
        self.size = max(self.size, abs(value))
        return point, slope

    def value(self, t: float) -> float:
        """Give F at a time."""
        if self.known and t not in self.values:
            self.at(t, finite=False)
        return self.values.get(t, 0.0)

    @property
    def scale(self) -> float:
        """The size of what is computed."""
        return self.size + max(abs(self.low), abs(self.high), 0.0) if self.high >= self.low else self.size

    @property
    def enough(self) -> float:
        """What a panel may leave open."""
        return 0.1 * self.tolerance * self.scale + 16 * (self.noise + self.eps)

    def panel(self, a: float, b: float, suspected: int = 0) -> Panel:
        """Integrate over [a, b]."""
        rule, length = self.rule, b - a
        times = a + length * rule.places
        points, slopes = (np.array(part) for part in zip(*(self.at(float(t)) for t in times), strict=True))
        if self.path.velocity is None:
            velocity = rule.velocity @ points / length
        else:
            velocity = np.array([self.path.velocity(float(t)) for t in times])
        h = np.einsum("ij,ij->i", slopes, velocity)
        self.low, self.high = min(self.low, float(h.min())), max(self.high, float(h.max()))
        series, parts = rule.coefficients @ h[1:-1], length * (rule.gaps @ h[1:-1])
        tail = max(abs(series[-1]), abs(series[-2]) / 4)
        error = length * float(tail + np.abs(rule.ends @ h[1:-1] - h[[0, -1]]).sum())
        integral, rest = float(parts.sum()), 0.0
        if self.known:
            change = np.diff([self.value(a), *(self.values[float(t)] for t in times), self.value(b)])
            rest = float(change.sum()) - integral
            density = np.median((change - parts)[1:-1] / (length * np.diff(rule.places))) * length
            alike = abs(density) >= 0.5 * abs(rest) and density * rest > 0
            suspected = suspected + 1 if alike and abs(rest) > 16 * error + self.enough else 0
        return Panel(-max(error, abs(rest)), a, b, integral, error, rest, times, h, suspected)

    def split(self, panel: Panel) -> list[Panel]:
        """Split a panel at the largest jump of the integrand, or in the middle."""
        jumps = np.sort(np.abs(np.diff(panel.integrand)))
        if panel.error > self.enough and jumps[-1] > 2 * jumps[-2]:
            place = int(np.argmax(np.abs(np.diff(panel.integrand))))
            try:
                bracket = self.bracket(float(panel.times[place]), float(panel.times[place + 1]))
            except NotFinite:  # at the kink alone
                bracket = None
            if bracket is not None:
                self.kinks.append((bracket.a + bracket.b) / 2)
                self.settled.append(bracket)
                return [self.panel(panel.a, bracket.a), self.panel(bracket.b, panel.b)]
        middle = (panel.a + panel.b) / 2
        return [self.panel(panel.a, middle, panel.suspected), self.panel(middle, panel.b, panel.suspected)]

    def guesses(self, a: float, b: float, left: float, right: float) -> tuple[float, ...]:
        """Give the middle, and a narrow interval around the time at which slopes left and right explain F."""
        if not self.known or left == right:
            return ((a + b) / 2,)
        near = b - (self.value(b) - self.value(a) - left * (b - a)) / (right - left)
        near = round(near * 2.0**44) * 2.0**-44
        width = 2.0 ** np.floor(np.log2(b - a)) / 256
        return near - width, near + width, (a + b) / 2

    def bracket(self, a: float, b: float) -> Panel | None:
        """Bracket a jump of the integrand, by secants where F is known and by bisection; None where it is no jump."""
        (start, left), (end, right) = self.at(a), self.at(b)
        along = (end - start) / (b - a)
        jump = float(abs((right - left) @ along))
        while (b - a) * jump > self.enough / 8 and b - a > NARROWEST:
            for middle in self.guesses(a, b, float(left @ along), float(right @ along)):
                if not a < middle < b:
                    continue
                point, slope = self.at(middle)
                if abs((slope - left) @ along) > abs((right - slope) @ along):
                    b, right, end = middle, slope, point
                else:
                    a, left, start = middle, slope, point
            if abs((right - left) @ along) < jump / 4:
                return None
        integral = float((left + right) @ (end - start)) / 2
        error, rest = jump * (b - a), self.value(b) - self.value(a) - integral if self.known else 0.0
        return Panel(0.0, a, b, integral, error, rest, np.array([a, b]), np.zeros(2))


def integrate(path: Path, of: VectorField, tolerance: float, eps: float, *, known: bool = True) -> Integral:
    """Integrate a field along a path, in arithmetic of a unit of rounding; `known` says that its values of F are meant.

    Raises:
        LeftDomain: F is not finite at a point of the path. NotFinite: the field is not.
    """
    walk = _Walk(path, of, tolerance, eps, known)
    corners = sorted({0.0, 0.5, 1.0, *path.corners})
    heap = [walk.panel(a, b) for a, b in itertools.pairwise(corners)]
    heapq.heapify(heap)
    while heap and -heap[0].rank > walk.enough and walk.evaluations < BUDGET:
        panel = heapq.heappop(heap)
        if panel.suspected >= ROUNDS or panel.b - panel.a < NARROWEST:
            walk.settled.append(panel)
            continue
        for part in walk.split(panel):
            heapq.heappush(heap, part)
    panels = sorted([*heap, *walk.settled], key=lambda p: p.a)
    rests = np.cumsum([0.0, *(p.rest for p in panels)])
    start, end = sorted((int(np.argmin(rests)), int(np.argmax(rests))))
    first, last = (panels[start].a, panels[end - 1].b) if start < end else (0.0, 1.0)
    inside = sum(p.integral for p in panels[start:end])
    return Integral(
        value=sum(p.integral for p in panels),
        error=sum(p.error for p in panels),
        change=walk.value(1.0) - walk.value(0.0),
        scale=walk.scale,
        rounding=64 * (walk.noise + eps),
        kinks=tuple(sorted(walk.kinks)),
        discrepancy=float(np.ptp(rests)),
        worst=(first, last, walk.value(last) - walk.value(first), inside),
        evaluations=walk.evaluations,
    )


def default_tolerance(eps: float) -> float:
    """Give the relative tolerance for a unit of rounding: 1e-7 in double, 1e-4 in single, 0.1 in half precision."""
    return 1e-7 if eps < 1e-12 else 1e-4 if eps < 1e-5 else 0.1
