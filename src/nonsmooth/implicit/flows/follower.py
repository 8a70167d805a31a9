"""How the course of a solution is followed: piece by piece, from crossing to crossing.

The equation y' = f_s(t, y) of the piece s that is held is integrated by an explicit method of order 8 (scipy's) until a
margin of the piece changes sign; the root is found on the dense output. There the pattern changes, and since f is
continuous the solution goes on with the same slope. This pass records no derivatives: they are those of the second pass,
which integrates the pieces between known times. The file is one algorithm, and longer than most for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import DOP853
from scipy.optimize import brentq

from nonsmooth.errors import NoField, NotConverged
from nonsmooth.implicit.flows.course import Contact, Course, Crossing, Limits, Segment, Watched
from nonsmooth.implicit.flows.motion import Motion
from nonsmooth.implicit.flows.piece import Pattern, Pieces

__all__ = ["follow_course"]

PROBES = 5
"""At how many times of every step the margins are looked at."""

STEPS = 16
"""The least number of steps, so that no long step jumps over a kink and back."""

DIRECTIONS = 6
"""How many generic directions compare the selections that hold along a contact."""

JUMP = 1e-6
"""How large the change of f at a crossing may be, relative to its size, before it counts as a jump."""

FINEST = 256
"""Into how many parts the whole time is divided at most, to see whether a kink that cannot be held is met."""

SLOW = 1e-6
"""The rate, relative to the slope, below which a crossing counts as grazing."""


@dataclass
class _Place:
    """Where a course is: the time, the solution, the pieces of the program that is valid there, and the pattern."""

    t: float
    y: Any
    pieces: Pieces
    pattern: Pattern


class _Follower:
    """One course while it is followed."""

    def __init__(self, motion: Motion, limits: Limits, start: float, times: Sequence[float]) -> None:
        self.motion, self.limits, self.times = motion, limits, list(times)
        self.course, self.start = Course(), start
        self.span = max(times[-1] - start, 0.0)
        self.evaluations = 0
        self.flips: dict[tuple[int, int], list[float]] = {}

    # --- the held piece ----------------------------------------------------------------------------------------------

    def slope(self, place: _Place, t: float, y: Any) -> Any:
        """Give f_s(t, y)."""
        return self.both(place, t, y)[0]

    def both(self, place: _Place, t: float, y: Any) -> tuple[Any, Any]:
        """Give f_s(t, y) and the margins of the piece."""
        f, margins = self.motion.run(place.pieces, t, y, place.pattern)
        if not np.isfinite(f).all():
            raise NotConverged(
                f"flow: f is not finite at t = {t:.6g}, |y| = {np.abs(y).max():.3g}: {self.motion.name} gave {f.ravel()[:4]}. "
                "Integrate to an earlier time, or write f so that it is defined along the whole solution."
            )
        return f, margins

    def band(self, y: Any) -> float:
        """Give how far from zero a margin counts as zero."""
        return self.limits.band * (1 + float(np.abs(y).max(initial=0.0)))

    def rates(self, place: _Place) -> tuple[Any, Any]:
        """Give the margins and their rates along the flow, in the held piece."""
        f, margins = self.both(place, place.t, place.y)
        e = 1e-4 * min(1.0, max(self.span, 1e-9)) / (1 + float(np.abs(f).max(initial=0.0)))
        with np.errstate(invalid="ignore"):
            later = (
                self.both(place, place.t + e, place.y + e * f)[1] - self.both(place, place.t - e, place.y - e * f)[1]
            )
        return margins, np.nan_to_num(later / (2 * e))

    # --- patterns ----------------------------------------------------------------------------------------------------

    def settle(self, place: _Place, undecided: bool) -> _Place:
        """Put every kink that the solution is on where it goes; those that it stays on where a generic direction goes."""
        band, size = self.band(place.y), 0
        for _ in range(64):
            margins, rates = self.rates(place)
            size, near = len(margins), np.abs(margins) <= band
            slow = SLOW * (1 + np.abs(rates[near]).max(initial=0.0))
            wrong = np.flatnonzero(near & (rates < -slow))
            if not len(wrong):
                break
            place.pattern = self.flipped(place, wrong[:1])
        if undecided:
            still = near & (np.abs(rates) <= slow)
            if size and still.any():
                place.pattern = self.motion.beside(place.pieces, place.t, place.y, place.pattern, still, 0)
        return place

    def flipped(self, place: _Place, numbers: Any) -> Pattern:
        """Give the pattern with some elements on the other side."""
        f, margins = self.both(place, place.t, place.y)
        mask = np.zeros(len(margins), bool)
        mask[numbers] = True
        e = 1e-5 * max(self.span, 1e-9)
        beyond = self.motion.natural(place.pieces, place.t + e, place.y + e * f)
        return place.pieces.flip(place.pattern, mask, beyond)

    # --- the course --------------------------------------------------------------------------------------------------

    def follow(self) -> Course:
        """Follow the solution from the start to the last time."""
        pieces = self.motion.enter(self.start, self.motion.begin)
        pattern = self.motion.natural(pieces, self.start, self.motion.begin)
        place = self.settle(_Place(self.start, self.motion.begin, pieces, pattern), True)
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

    def segment(self, place: _Place) -> _Place:
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
                self.course.values.append(at(self.times.pop(0)))
            if found is not None:
                self.close(place, begin, found[0], touched)
                return self.cross(place, found[0], at(found[0]), found[1])
        self.close(place, begin, last, touched)
        return _Place(last, solver.y.reshape(place.y.shape), place.pieces, place.pattern)

    def looked(
        self, place: _Place, at: Any, t_old: float, t_new: float, before: Any
    ) -> tuple[tuple[float, int] | None, Any, Any]:
        """Look for the first crossing in a step; give it, the margins at the end, and the kinks that it stays on."""
        times = [float(t) for t in np.linspace(t_old, t_new, PROBES + 1)]
        margins = [before] + [self.both(place, t, at(t))[1] for t in times[1:]]
        if not before.size:
            return None, before, np.zeros(0, bool)
        self.refine(place, at, times, margins)
        near = np.ones(before.shape, bool)
        for k in range(1, len(times)):
            band = self.band(at(times[k]))
            near &= np.abs(margins[k]) <= band
            past = np.flatnonzero(margins[k] < -band)
            if len(past):
                low = next((i for i in range(k - 1, -1, -1) if (margins[i][past] > 0).all()), k - 1)
                t = self.root(place, at, times[low], times[k], margins[low][past], past, band)
                values = self.both(place, t, at(t))[1][past]
                return (t, int(past[np.argmin(values)])), before, near
        return None, margins[-1], near

    def watch(self, place: _Place, at: Any, start: float, end: float) -> None:
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

    def noted(self, place: _Place, t: float, y: Any, doubtful: Any = False) -> Any:
        """Give the distances to the kinks that cannot be held, and keep the least of every step."""
        distances, owners = self.motion.distances(place.pieces, t, y, place.pattern)
        for k, step in enumerate(place.pieces.unlocated):
            watched = self.course.watched.setdefault(str(step), Watched(step))
            least = float(distances[owners == k].min(initial=float("inf")))
            watched.met = watched.met or least <= self.band(y) or bool(np.any(doubtful & (owners == k)))
            if least < watched.distance:
                watched.distance, watched.time = least, t
        return distances

    def refine(self, place: _Place, at: Any, times: list[float], margins: list[Any]) -> None:
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

    def root(self, place: _Place, at: Any, low: float, high: float, first: Any, past: Any, band: float) -> float:
        """Find where the first of some margins becomes zero."""
        shift = np.where(first > 0, 0.0, band / 2)

        def least(t: float) -> float:
            return float((self.both(place, t, at(t))[1][past] + shift).min())

        if float((first + shift).min()) <= 0:
            return low
        return float(brentq(least, low, high, xtol=4e-16 * max(1.0, abs(high)), rtol=1e-15))

    def close(self, place: _Place, begin: float, end: float, touched: Any) -> None:
        """Keep a segment, and the kinks that the solution stayed on all the time."""
        if end <= begin:
            return
        self.course.segments.append(Segment(begin, end, place.pieces, place.pattern))
        if touched is None or not touched.any() or end - begin <= 1e-9 * self.span:
            return
        middle = _Place(place.t, place.y, place.pieces, place.pattern)
        matters = self.motion.selections_differ(middle.pieces, middle.t, middle.y, place.pattern, touched, DIRECTIONS)
        for number in np.flatnonzero(touched):
            at = place.pieces.place_of(place.pattern, int(number))
            self.course.contacts.append(
                Contact(begin, end, at.operation, at.kink, at.index, at.line, bool(matters[number]))
            )

    def cross(self, place: _Place, t: float, y: Any, number: int) -> _Place:
        """Go from a piece to the next."""
        here = _Place(t, y, place.pieces, place.pattern)
        if len(self.course.crossings) >= self.limits.crossings:
            raise NotConverged(
                f"flow: more than {self.limits.crossings} crossings up to t = {t:.6g}; the last at "
                f"{self.course.crossings[-1].line}. Raise max_crossings, integrate fewer trajectories at once, or pass "
                "locate=False: the framework's own steps, in which kinks are not located."
            )
        slope, rates = self.both(here, t, y)[0], self.rates(here)[1]
        at = place.pieces.place_of(place.pattern, number)
        repeated = self.flips.setdefault((id(place.pieces), number), [])
        repeated.append(t)
        here.pattern = self.flipped(here, [number])
        here = self.reenter(self.settle(here, False), slope)
        after = self.both(here, t, y)[0]
        change, size = float(np.abs(after - slope).max()), 1 + float(np.abs(slope).max())
        chatters = len(repeated) > 8 and t - repeated[-8] < 1e-7 * self.span
        if change > max(JUMP, 10 * self.limits.band) * size or chatters:
            raise NoField(
                f"flow: f jumps by {change:.3g} at t = {t:.6g}, where the solution crosses the {at.kink} of `{at.operation}` "
                f"({at.line}): it is not Lipschitz, and its flow need not be differentiable there. Write the law with a "
                "steep slope (clamp(v / eps)) in the place of the jump, or integrate the two sides one after the other."
            )
        rate = abs(float(rates[number])) if at.measured else float("nan")
        grazing = rate <= 1e-3 * SLOW**0.5 * size
        self.course.crossings.append(Crossing(t, at.operation, at.kink, at.index, at.line, at.direction, rate, grazing))
        return here

    def reenter(self, place: _Place, slope: Any) -> _Place:
        """Find the program that is valid a little later, where an `if` on data has chosen this one."""
        if not place.pieces.original.guards:
            return place
        e = 1e-6 * max(self.span, 1e-9)
        pieces = self.motion.enter(place.t + e, place.y + e * slope)
        if pieces is place.pieces:
            return place
        pattern = self.motion.natural(pieces, place.t + e, place.y + e * slope)
        return self.settle(_Place(place.t, place.y, pieces, pattern), False)


def follow_course(motion: Motion, limits: Limits, start: float, times: Sequence[float]) -> Course:
    """Follow a solution from its start to the last of some times."""
    return _Follower(motion, limits, start, times).follow()
