"""One variable: the kinks on an interval, and what backprop, the field and Clarke's subdifferential are there.

A kink is looked for where its distance |a(t)| has a minimum on a grid that it may reach zero by, narrowed down by the
golden section, and moved to a floating-point number nearby at which it is *exactly* active, if there is one: a short
decimal, a short fraction, a neighbour. Where there is none (a multiple of pi) the field is taken within a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from nonsmooth.derivatives.clarke import clarke_in
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NoField
from nonsmooth.report.field_picture import KinkView, LineView
from nonsmooth.studies.field_chart import CONVENTIONS, Chart, Key, Seen

__all__ = ["find_kinks_on", "interval_of", "view_line"]

GRID = 240
"""How many steps the interval is cut into."""

COARSE = 96
"""How many steps the wider interval is cut into on which the default looks for kinks."""

MOST = 24
"""So many kinks are shown, the nearest to the point."""

WIDE = 4.0
"""How far the default looks for kinks, relative to the size of the point."""

GOLDEN = (5**0.5 - 1) / 2


def view_line(chart: Chart, radius: float | None = None, grid: int = GRID) -> LineView:
    """Look at a function of one variable around the chart's origin.

    Args:
        chart: of one coordinate.
        radius: of the interval; by default chosen by the kinks met, see `interval_of`.
        grid: into how many steps it is cut; two kinks of one place within a step may be missed.

    Source: BoltePauwels2020.
    """
    here = float(chart.origin[0])
    reach = interval_of(chart) if radius is None else float(radius)
    times, seen = _grid(chart, here - reach, here + reach, grid)
    found = find_kinks_on(chart, times, seen)
    if not any(t == here for t, _ in found) and _active_at(chart, here):
        found.append((here, 0.0))
    found.sort(key=lambda k: (abs(k[0] - here), k[0]))
    shown = sorted(found[:MOST])
    inside = [k for k, t in enumerate(times) if here - reach <= t <= here + reach]
    return LineView(
        point=here,
        low=here - reach,
        high=here + reach,
        name=chart.names[0],
        times=tuple(float(times[k]) for k in inside),
        values=tuple(seen[k].value for k in inside),
        slopes=tuple(float(seen[k].gradient[0]) for k in inside),
        kinks=tuple(_kink(chart, t, tol) for t, tol in shown),
        left_out=len(found) - len(shown),
        sliced=chart.sliced,
    )


def interval_of(chart: Chart) -> float:
    """Choose how far to look: half as far again as the third nearest other kink, within limits; 2 where there is none."""
    here, reach = float(chart.origin[0]), chart.reach()
    times, seen = _grid(chart, here - WIDE * reach, here + WIDE * reach, COARSE)
    away = sorted(
        abs(t - here) for t, _ in find_kinks_on(chart, times, seen, fine=False) if abs(t - here) > 1e-6 * reach
    )
    return float(np.clip(1.5 * away[min(2, len(away) - 1)], 0.05 * reach, WIDE * reach)) if away else 2 * reach


def _grid(chart: Chart, low: float, high: float, steps: int) -> tuple[Floats, list[Seen]]:
    """Look at the points of a grid, with one more at either end, and none in the middle, where a kink is likely."""
    h = (high - low) / steps
    middles = low + h * (np.arange(-1, steps + 1) + 0.5)
    times: Floats = np.sort(np.concatenate([middles, [low, high]]))
    return times, [chart.look(np.array([t])) for t in times]


def _active_at(chart: Chart, t: float) -> bool:
    """Tell whether a kink is exactly active."""
    return any(m == 0 for m in chart.margins(np.array([t])).values())


def find_kinks_on(chart: Chart, times: Floats, seen: list[Seen], *, fine: bool = True) -> list[tuple[float, float]]:
    """Find the kinks between the points of a grid: where they are, and the distance within which they are active.

    Those that are not `fine` are not moved to a floating-point number at which they are exactly active.
    """
    found: list[tuple[float, float]] = []
    keys = sorted({key for s in seen for key in s.margins})
    table = np.array([[s.margins.get(key, np.nan) for key in keys] for s in seen]).reshape(len(seen), len(keys))
    size = 1 + float(np.abs(times).max())
    for place, k in _candidates(table):
        low, high = float(times[place - 1]), float(times[place + 1])
        if any(low <= t <= high and chart.margins(np.array([t])).get(keys[k], np.inf) <= 2 * tol for t, tol in found):
            continue
        left, right = float(table[place - 1, k]), float(table[place + 1, k])
        t = low + (high - low) * left / (left + right)  # right where the argument is affine
        margin = chart.margins(np.array([t])).get(keys[k], np.inf)
        if not margin <= 1e-12 * max(left, right):
            t, margin = _narrow(chart, keys[k], low, high)
        if not margin <= 1e-6 * max(left, right):
            continue
        t, tol = _snap(chart, keys[k], t, size) if fine else (t, margin)
        if low <= t <= high and all(t != other for other, _ in found):
            found.append((t, tol))
    return _merged(found, 1e-9 * size)


def _candidates(table: Floats) -> Iterator[tuple[int, int]]:
    """Yield the grid points and places at which a distance has a minimum that may be zero between the points."""
    middle, left, right = table[1:-1], table[:-2], table[2:]
    with np.errstate(invalid="ignore"):
        lowest = (middle <= left) & (middle <= right) & (middle <= left - 2 * middle + right) & (left + right > 0)
    for place, k in np.argwhere(lowest):
        yield int(place) + 1, int(k)


def _narrow(chart: Chart, key: Key, low: float, high: float) -> tuple[float, float]:
    """Narrow the minimum of a distance down by the golden section."""

    def distance(t: float) -> float:
        return chart.margins(np.array([t])).get(key, np.inf)

    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_a, at_b = distance(a), distance(b)
    for _ in range(80):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - GOLDEN * (high - low)
            at_a = distance(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + GOLDEN * (high - low)
            at_b = distance(b)
        if not low < a < b < high:
            break
    return (a, at_a) if at_a <= at_b else (b, at_b)


def _snap(chart: Chart, key: Key, t: float, size: float) -> tuple[float, float]:
    """Move to a number nearby at which the kink is exactly active; else give the nearest, and the distance left."""
    best, least = t, np.inf
    for candidate in _short(t, size, chart.step()):
        margin = chart.margins(np.array([candidate])).get(key, np.inf)
        if margin == 0:
            return candidate, 0.0
        if margin < least:
            best, least = candidate, margin
    return best, 2 * least


def _short(t: float, size: float, eps: float) -> Iterator[float]:
    """Yield numbers near t, the shortest first: decimals, fractions, t, its neighbours."""
    tried: set[float] = set()
    decimals = [round(t, digits) for digits in range(13)]
    fractions = [float(Fraction(t).limit_denominator(n)) for n in (8, 64, 512)]
    unit = max(abs(t), 1e-300) * eps
    neighbours = [t + k * unit / 2 for k in sorted(range(-8, 9), key=abs)]
    for candidate in (*decimals, *fractions, *neighbours):
        if candidate not in tried and abs(candidate - t) <= max(1e-6, eps**0.5) * size:
            tried.add(candidate)
            yield candidate + 0.0


def _merged(found: list[tuple[float, float]], near: float) -> list[tuple[float, float]]:
    """Make one kink of those that no floating-point number tells apart."""
    merged: list[tuple[float, float]] = []
    for t, tol in sorted(found):
        if merged and t - merged[-1][0] <= near and (tol or merged[-1][1]):
            merged[-1] = (merged[-1][0] if tol else t, max(tol, merged[-1][1]) * (1 + (t != merged[-1][0])))
        else:
            merged.append((t, tol))
    return merged


def _kink(chart: Chart, t: float, tol: float) -> KinkView:
    """Give the conventions' values, the field and Clarke's set at a kink."""
    c = np.array([t])
    value = chart.look(c).value
    conventions = {name: float(chart.slope(c, at)[0]) for name, at in CONVENTIONS.items()}
    own = float(chart.slope(c)[0])
    try:
        found = chart.field(c, tol)
    except NoField as error:
        return KinkView(t, value, own, conventions, None, None, "no field", tol, note=str(error))
    lower, upper = chart.seen_through(found).box()
    ends = float(lower[0]) + 0.0, float(upper[0]) + 0.0
    known = clarke_in(found)
    sides = None if tol or chart.sliced or known.exact else chart.sides(c)
    inside, exact = sides, known.exact or sides is not None
    if sides is None and known.inner is not None:
        low, high = chart.seen_through(known.inner).box()
        inside = float(low[0]) + 0.0, float(high[0]) + 0.0
    return KinkView(
        t, value, own, conventions, ends, inside, _word(exact, own, inside, ends, tol, chart.step()), tol, exact,
        found.exact, "computed" if exact else known.status,
    )  # fmt: skip


def _word(
    exact: bool, own: float, inside: tuple[float, float] | None, ends: tuple[float, float], tol: float, eps: float
) -> str:
    """Judge backprop's value: a subgradient, an artifact, or undecided; within a tolerance nothing is judged."""
    room = 64 * eps * max(1.0, *(abs(e) for e in ends), abs(own))
    if tol:
        return "not judged"
    if inside is not None and inside[0] - room <= own <= inside[1] + room:
        return "subgradient"
    return "artifact" if exact or not ends[0] - room <= own <= ends[1] + room else "undecided"
