"""What a flow does at a point of its course: the slopes of held pieces, the rates of their margins, and jumps of f.

At a kink where f is continuous the solution goes on with the same slope. Where f jumps it goes on if both slopes point to the
same side, and its derivative gets a saltation; where they do not, or several surfaces meet, the flow is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.errors import NoField, NotConverged
from nonsmooth.implicit.flows.course import Course, Jump, Limits
from nonsmooth.implicit.flows.held import Place
from nonsmooth.implicit.flows.motion import Motion
from nonsmooth.implicit.flows.piece import Pattern, Pieces

__all__ = ["SLOW", "Nearby", "Point"]

JUMP = 1e-6
"""How large the change of f at a crossing may be, relative to its size, before it counts as a jump."""

SLOW = 1e-6
"""The rate, relative to the slope, below which a crossing counts as grazing."""

TRANSVERSAL = 1e-3
"""The rate of a margin at which f jumps, relative to its rates along f on both sides, that a crossing needs at least."""


@dataclass
class Point:
    """Where a course is: the time, the solution, the pieces of the program that is valid there, and the pattern."""

    t: float
    y: Any
    pieces: Pieces
    pattern: Pattern


class Nearby:
    """What a flow does near the points of its course."""

    def __init__(self, motion: Motion, limits: Limits, span: float) -> None:
        self.motion, self.limits, self.span, self.course = motion, limits, span, Course()

    # --- the held piece ----------------------------------------------------------------------------------------------

    def slope(self, place: Point, t: float, y: Any) -> Any:
        """Give f_s(t, y)."""
        return self.both(place, t, y)[0]

    def both(self, place: Point, t: float, y: Any) -> tuple[Any, Any]:
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

    def rates(self, place: Point) -> tuple[Any, Any]:
        """Give the margins and their rates along the flow, in the held piece."""
        f, margins = self.both(place, place.t, place.y)
        e = self.small(f)
        with np.errstate(invalid="ignore"):
            later = (
                self.both(place, place.t + e, place.y + e * f)[1] - self.both(place, place.t - e, place.y - e * f)[1]
            )
        return margins, np.nan_to_num(later / (2 * e))

    def small(self, f: Any) -> float:
        """Give a time in which the solution moves little."""
        return 1e-4 * min(1.0, max(self.span, 1e-9)) / (1 + float(np.abs(f).max(initial=0.0)))

    # --- patterns ----------------------------------------------------------------------------------------------------

    def settle(self, place: Point, undecided: bool) -> Point:
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

    def flipped(self, place: Point, numbers: Any) -> Pattern:
        """Give the pattern with some elements on the other side."""
        f, margins = self.both(place, place.t, place.y)
        mask = np.zeros(len(margins), bool)
        mask[numbers] = True
        e = 1e-5 * max(self.span, 1e-9)
        beyond = self.motion.natural(place.pieces, place.t + e, place.y + e * f)
        return place.pieces.flip(place.pattern, mask, beyond)

    def reenter(self, place: Point, slope: Any) -> Point:
        """Find the program that is valid a little later, where an `if` on data has chosen this one."""
        if not place.pieces.original.guards:
            return place
        e = 1e-6 * max(self.span, 1e-9)
        pieces = self.motion.enter(place.t + e, place.y + e * slope)
        if pieces is place.pieces:
            return place
        pattern = self.motion.natural(pieces, place.t + e, place.y + e * slope)
        return self.settle(Point(place.t, place.y, pieces, pattern), False)

    # --- jumps -------------------------------------------------------------------------------------------------------

    def least_jump(self, f: Any) -> float:
        """Give the change of f that counts as a jump."""
        return max(JUMP, 10 * self.limits.band) * (1 + float(np.abs(f).max(initial=0.0)))

    def refuse_jumps(self, place: Point, t: float, y: Any, why: str, *, time: bool = True, slow: bool = False) -> None:
        """Refuse a point at which f jumps; without `time` not in time alone; if `slow`, only where the solution touches."""
        here = Point(t, y, place.pieces, place.pattern)
        f, margins = self.both(here, t, y)
        near = (np.abs(margins) <= self.band(y)) & place.pieces.jumping(place.pattern)
        if slow and near.any():
            near &= np.abs(self.rates(here)[1]) <= TRANSVERSAL * (1 + float(np.abs(f).max(initial=0.0)))
        if near.any() and self.motion.jumps_near(t, y, self.least_jump(f), self.band(y), time):
            at = place.pieces.place_of(place.pattern, int(np.flatnonzero(near)[0]))
            raise NoField(
                f"flow: at t = {t:.6g} {why} the {at.kink} of `{at.operation}` ({at.line}), where f jumps: its flow need not be "
                "differentiable there. Move the start or the time, or write the law with a steep slope (clamp(v / eps)) in the "
                "place of the jump."
            )

    def rate_along(self, place: Point, f: Any, number: int) -> float:
        """Give the rate of a margin of the held piece along a slope that need not be the piece's own."""
        e = self.small(f)
        ends = [self.both(place, place.t + h, place.y + h * f)[1][number] for h in (e, -e)]
        return float((ends[0] - ends[1]) / (2 * e))

    def jump(self, here: Point, f: Any, after: Any, numbers: Any, at: Place) -> Jump:
        """Describe a jump of f from a slope to another where some margins become 0, or refuse it."""
        lead = int(numbers[0])
        rates = [self.rate_along(here, slope, lead) for slope in (f, after)] if at.measured else [0.0, 0.0]
        fastest, size = max(map(abs, rates)), 1 + float(np.abs(f).max())
        through = max(rates) < 0 and -max(rates) >= TRANSVERSAL * fastest and -rates[0] > 1e-3 * SLOW**0.5 * size
        ends = self.course.segments and self.course.segments[-1]
        alone = ends and ends.end == here.t and ends.pattern is here.pattern
        if not (through and alone and self.one_surface(here, f, numbers)):
            change = float(np.abs(after - f).max())
            raise self.refusal(
                here.t, at, change, "meets several jumps at once" if through else "does not go straight through"
            )
        return Jump(lead, (after - f) / rates[0], f, self.small(f) / 10)

    def refusal(self, t: float, at: Place, change: float, why: str) -> NoField:
        """Say why a jump of f is refused."""
        return NoField(
            f"flow: f jumps by {change:.3g} at t = {t:.6g}, where the solution meets the {at.kink} of `{at.operation}` ({at.line}) "
            f"and {why}: its flow need not be differentiable there. Write the law with a steep slope (clamp(v / eps)) in the "
            "place of the jump, or integrate the two sides one after the other."
        )

    def one_surface(self, here: Point, f: Any, numbers: Any) -> bool:
        """Tell whether some margins become 0 together also beside the point, at the same times."""
        if len(numbers) == 1:
            return True
        rates = self.rates(here)[1][numbers]
        base = self.both(here, here.t, here.y)[1][numbers] / rates
        for seed in range(3):
            moved = self.motion.margins_near(here.pieces, here.t, here.y, here.pattern, seed, 1e-4)[numbers] / rates
            if np.ptp(moved - base) > 1e-3 * np.abs(moved - base).max():
                return False
        return True
