"""How the course of a solution is followed: piece by piece, from crossing to crossing.

The equation y' = f_s(t, y) of the piece s that is held is integrated by an explicit method of order 8 (scipy's) until a
margin of the piece changes sign; the root is found on the dense output, and the solution goes on with another pattern. This
pass records no derivatives: they are those of the second pass, which integrates the pieces between known times.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.integrate import DOP853
from scipy.optimize import brentq

from nonsmooth.errors import NotConverged
from nonsmooth.implicit.flows.course import Contact, Course, Crossing, Limits, Segment, Watched
from nonsmooth.implicit.flows.motion import Motion
from nonsmooth.implicit.flows.nearby import SLOW, Nearby, Point
from nonsmooth.implicit.flows.piece import Pattern

__all__ = ["follow_course"]

PROBES = 5
"""At how many times of every step the margins are looked at."""

STEPS = 16
"""The least number of steps, so that no long step jumps over a kink and back."""

DIRECTIONS = 6
"""How many generic directions compare the selections that hold along a contact."""

FINEST = 256
"""Into how many parts the whole time is divided at most, to see whether a kink that cannot be held is met."""


class _Follower(Nearby):
    """One course while it is followed."""

    def __init__(self, motion: Motion, limits: Limits, start: float, times: Sequence[float]) -> None:
        super().__init__(motion, limits, max(times[-1] - start, 0.0))
        self.times, self.start = list(times), start
        self.flips: dict[tuple[int, int], list[float]] = {}

    def follow(self) -> Course:
        """Follow the solution from the start to the last time."""
        pieces = self.motion.enter(self.start, self.motion.begin)
        pattern = self.motion.natural(pieces, self.start, self.motion.begin)
        place = Point(self.start, self.motion.begin, pieces, pattern)
        self.refuse_jumps(place, place.t, place.y, "the solution starts at", time=False)
        place = self.settle(place, True)
        self.first = place.pattern
        while self.times and self.times[0] <= place.t:
            self.course.values.append(place.y)
            self.times.pop(0)
        while self.times:
            place = self.segment(place)
        last = self.course.segments[-1] if self.course.segments else Segment(place.t, place.t, pieces, place.pattern)
        self.course.proved = self.motion.agrees(last.pieces, place.t, place.y, place.pattern) and self.motion.agrees(
            pieces, self.start, self.motion.begin, self.first
        )
        return self.course

    def segment(self, place: Point) -> Point:
        """Follow one piece up to its end: a crossing, or the last time."""
        begin, last = place.t, self.times[-1]
        solver = DOP853(
            lambda t, y: self.slope(place, t, y.reshape(place.y.shape)).ravel(),
            place.t, place.y.ravel(), last, rtol=self.limits.rtol, atol=self.limits.atol,
            max_step=max(self.span / STEPS, 1e-12),
        )  # fmt: skip
        before, touched = self.both(place, place.t, place.y)[1], None
        while solver.status == "running":
            self.course.steps += 1
            if self.course.steps > self.limits.steps:
                raise NotConverged(
                    f"flow: {self.limits.steps} steps reached t = {solver.t:.6g} only, of {last:.6g}, with "
                    f"{len(self.course.crossings)} crossings. The equation is stiff, or its solution grows without bound: "
                    "loosen rtol and atol, raise max_steps, or integrate to an earlier time."
                )
            message = solver.step()
            if solver.status == "failed":
                raise NotConverged(f"flow: at t = {solver.t:.6g}, |y| = {np.abs(solver.y).max():.3g}: {message}")
            dense = solver.dense_output()

            def at(t: float, dense: Any = dense) -> Any:
                return dense(t).reshape(place.y.shape)

            found, before, near = self.looked(place, at, solver.t_old, solver.t, before)
            stop = solver.t if found is None else found[0]
            self.watch(place, at, solver.t_old, stop)
            touched = near if touched is None else touched & near if len(near) else touched
            while self.times and self.times[0] <= stop:
                t = self.times.pop(0)
                why = "a value is asked for, and the solution is at"
                self.refuse_jumps(place, t, at(t), why, time=self.motion.moving_times)
                self.course.values.append(at(t))
            if found is not None:
                self.close(place, begin, found[0], touched)
                return self.cross(place, found[0], at(found[0]), found[1])
        self.close(place, begin, last, touched)
        return Point(last, solver.y.reshape(place.y.shape), place.pieces, place.pattern)

    def looked(
        self, place: Point, at: Any, t_old: float, t_new: float, before: Any
    ) -> tuple[tuple[float, int] | None, Any, Any]:
        """Look for the first crossing in a step; give it, the margins at the end, and the kinks that it stays on."""
        times = [float(t) for t in np.linspace(t_old, t_new, PROBES + 1)]
        margins = [before] + [self.both(place, t, at(t))[1] for t in times[1:]]
        if not before.size:
            return None, before, np.zeros(0, bool)
        self.refine(place, at, times, margins)
        near, jumping = np.ones(before.shape, bool), place.pieces.jumping(place.pattern)
        for k in range(1, len(times)):
            band = self.band(at(times[k]))
            near &= np.abs(margins[k]) <= band
            past = np.flatnonzero(margins[k] < -band)
            if not len(past):
                if (jumping & (np.abs(margins[k]) <= band)).any():
                    self.refuse_jumps(place, times[k], at(times[k]), "the solution touches", slow=True)
            else:
                low = next((i for i in range(k - 1, -1, -1) if (margins[i][past] > 0).all()), k - 1)
                t = self.root(place, at, times[low], times[k], margins[low][past], past, band)
                values = self.both(place, t, at(t))[1][past]
                return (t, int(past[np.argmin(values)])), before, near
        return None, margins[-1], near

    def watch(self, place: Point, at: Any, start: float, end: float) -> None:
        """See how near a step comes to the kinks that cannot be held: a distance d with rate r stays above (d + d' - r h) / 2.

        The rate is that between the times looked at, which makes the answer a sampled one. A kink that is passed so near that
        this cannot tell counts as met: there the integrator cannot tell either.
        """
        if not place.pieces.unlocated or end <= start:
            return

        def look(t: float) -> tuple[float, Any]:
            return t, self.noted(place, t, at(t))

        def rate_of(low: Any, high: Any) -> Any:
            with np.errstate(invalid="ignore"):
                return np.nan_to_num(np.abs(high[1] - low[1]) / max(high[0] - low[0], 1e-300), posinf=0.0)

        looked = [look(float(t)) for t in np.linspace(start, end, PROBES + 1)]
        waiting = list(itertools.pairwise(looked))
        rate = np.max([rate_of(*pair) for pair in waiting], axis=0)
        while waiting:
            low, high = waiting.pop()
            rate, least = np.maximum(rate, rate_of(low, high)), np.minimum(low[1], high[1])
            doubtful = (low[1] + high[1] < 1.5 * rate * (high[0] - low[0])) & (least > self.band(at(low[0])))
            if not doubtful.any():
                continue
            between = look((low[0] + high[0]) / 2)
            if high[0] - low[0] > self.span / FINEST:
                waiting += [(low, between), (between, high)]
            else:
                self.noted(place, between[0], at(between[0]), doubtful)

    def noted(self, place: Point, t: float, y: Any, doubtful: Any = False) -> Any:
        """Give the distances to the kinks that cannot be held, and keep the least of every step."""
        distances, owners = self.motion.distances(place.pieces, t, y, place.pattern)
        for k, step in enumerate(place.pieces.unlocated):
            watched = self.course.watched.setdefault(str(step), Watched(step))
            least = float(distances[owners == k].min(initial=float("inf")))
            watched.met = watched.met or least <= self.band(y) or bool(np.any(doubtful & (owners == k)))
            if least < watched.distance:
                watched.distance, watched.time = least, t
        return distances

    def refine(self, place: Point, at: Any, times: list[float], margins: list[Any]) -> None:
        """Add the times at which parabolas through three probes dip below zero between probes."""
        step, added = times[1] - times[0], []
        for k in range(1, len(times) - 1):
            a, b, c = margins[k - 1], margins[k], margins[k + 1]
            with np.errstate(invalid="ignore", divide="ignore"):
                bend, tilt = a - 2 * b + c, (c - a) / 2
                where = np.where(bend > 0, -tilt / bend, 2.0)
                dips = (np.abs(where) < 1) & (b > 0) & (b - tilt**2 / (2 * bend) < 0.05 * np.abs(bend))
            added += [times[k] + step * float(w) for w in np.unique(where[dips])[:4]]
        for t in added:
            number = int(np.searchsorted(times, t))
            if 0 < number < len(times) and t not in times:
                times.insert(number, t)
                margins.insert(number, self.both(place, t, at(t))[1])

    def root(self, place: Point, at: Any, low: float, high: float, first: Any, past: Any, band: float) -> float:
        """Find where the first of some margins becomes zero."""
        shift = np.where(first > 0, 0.0, band / 2)

        def least(t: float) -> float:
            return float((self.both(place, t, at(t))[1][past] + shift).min())

        if float((first + shift).min()) <= 0:
            return low
        return float(brentq(least, low, high, xtol=4e-16 * max(1.0, abs(high)), rtol=1e-15))

    def close(self, place: Point, begin: float, end: float, touched: Any) -> None:
        """Keep a segment, and the kinks that the solution stayed on all the time."""
        if end <= begin:
            return
        self.course.segments.append(Segment(begin, end, place.pieces, place.pattern))
        if touched is None or not touched.any() or end - begin <= 1e-9 * self.span:
            return
        middle = Point(place.t, place.y, place.pieces, place.pattern)
        matters = self.motion.selections_differ(middle.pieces, middle.t, middle.y, place.pattern, touched, DIRECTIONS)
        for number in np.flatnonzero(touched):
            at = place.pieces.place_of(place.pattern, int(number))
            self.course.contacts.append(
                Contact(begin, end, at.operation, at.kink, at.index, at.line, bool(matters[number]))
            )

    def cross(self, place: Point, t: float, y: Any, number: int) -> Point:
        """Go from a piece to the next."""
        here = Point(t, y, place.pieces, place.pattern)
        if len(self.course.crossings) >= self.limits.crossings:
            raise NotConverged(
                f"flow: more than {self.limits.crossings} crossings up to t = {t:.6g}; the last at "
                f"{self.course.crossings[-1].line}. Raise max_crossings, integrate fewer trajectories at once, or pass "
                "locate=False: the framework's own steps, in which kinks are not located."
            )
        (slope, margins), rates = self.both(here, t, y), self.rates(here)[1]
        jumping = here.pieces.jumping(here.pattern)
        together = np.flatnonzero(jumping & (np.abs(margins) <= self.band(y)) & (rates < 0))
        numbers = [number] * bool(jumping[number] or not len(together)) + [int(k) for k in together if k != number]
        number = numbers[0]
        at = place.pieces.place_of(place.pattern, number)
        repeated = self.flips.setdefault((id(place.pieces), number), [])
        repeated.append(t)
        before = here
        here = Point(t, y, place.pieces, self.flipped(here, numbers))
        direction = at.direction or (1 if _flat(here.pattern)[number] > _flat(place.pattern)[number] else -1)
        here = self.reenter(here, slope)
        other = self.slope(here, t, y)
        change, size = float(np.abs(other - slope).max()), 1 + float(np.abs(slope).max())
        chatters = len(repeated) > 8 and t - repeated[-8] < 1e-7 * self.span
        jumps = change > self.least_jump(slope) or chatters
        if jumps:
            jump = self.jump(before, slope, other, numbers, at)
            self.course.segments[-1] = replace(self.course.segments[-1], jump=jump)
        here = self.settle(here, False)
        if np.abs(self.slope(here, t, y) - other).max() > self.least_jump(slope):
            raise self.refusal(t, at, change, "meets several jumps at once")
        rate = abs(float(rates[number])) if at.measured else float("nan")
        grazing = rate <= 1e-3 * SLOW**0.5 * size
        self.course.crossings.append(
            Crossing(t, at.operation, at.kink, at.index, at.line, direction, rate, grazing, change if jumps else 0.0)
        )
        return here


def _flat(pattern: Pattern) -> Any:
    """Give the elements of a pattern as one array, in the order of the margins."""
    return np.concatenate([np.ravel(e) for entry in pattern for e in entry])


def follow_course(motion: Motion, limits: Limits, start: float, times: Sequence[float]) -> Course:
    """Follow a solution from its start to the last of some times."""
    return _Follower(motion, limits, start, times).follow()
