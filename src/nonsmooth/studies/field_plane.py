"""Two variables: the strata, the gradients on the pieces, and at chosen points the sets, in a window around a point.

A stratum is drawn where the distance |a(x)| of a kink passes through zero: along every edge of a grid the distances on
both sides are extended to the other end, and where that is negative the edge is crossed; the crossing is tried. The
crossings of a cell are joined. Kinks that sit at a single point (a norm at 0) are looked for as minima.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nonsmooth.derivatives.clarke import clarke_in
from nonsmooth.derivatives.field import Field
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NoField, UsageError
from nonsmooth.report.field_plane_picture import CROWD, Outline, PlaneView, PointView, Stroke
from nonsmooth.sets import ConvexSet
from nonsmooth.studies.field_chart import CONVENTIONS, Chart, Key, Seen

__all__ = ["projection_spread", "stratum_tangent", "view_plane"]

GRID = 33
"""How many points the grid has along a side; none of them is in the middle."""

SHIFT = (0.137, 0.311)
"""The grid is moved by these parts of its step, so that kinks of round numbers do not run through its points."""

ARROWS = 7
"""How many gradients are drawn along a side."""

CIRCLE = 96
"""How many directions a curved set is outlined by."""

Edge = tuple[int, int, int]
"""An edge of the grid: its first point, and along which coordinate it runs."""


def projection_spread(field: ConvexSet, tangent: Floats) -> float:
    """Give how far the elements of a set differ along a subspace: 0 where all have the same projection on it.

        max over an orthonormal basis e_1 .. e_m of the subspace:  h(e_i) + h(-e_i)

    On a stratum M of a conservative field D all v in D(x) share the projection on the tangent space of M, grad_M F(x):
    the projection formula. Status: `computed`, 0 up to rounding; an upper bound where the set is bracketed.

    Args:
        field: the set.
        tangent: vectors that span the subspace, shape (m, space) or (space,); m = 0 gives 0.

    >>> import torch
    >>> import nonsmooth as ns
    >>> D = ns.field(lambda x: x.abs().sum(), torch.tensor([1.0, 0.0]))
    >>> projection_spread(D, np.array([1.0, 0.0])), projection_spread(D, np.array([0.0, 1.0]))
    (0.0, 2.0)

    Source: BolteDaniilidisLewisShiota2007, BoltePauwels2020.
    """
    rows = np.atleast_2d(np.asarray(tangent, dtype=np.float64))
    if rows.shape[-1] != field.space:
        raise UsageError(f"tangent: vectors of length {rows.shape[-1]} were given for a set of R^{field.space}.")
    basis = _row_space(rows)
    return max((float(field.support(e).upper + field.support(-e).upper) for e in basis), default=0.0)


def stratum_tangent(field: Field) -> Floats:
    """Give a basis of the directions along which the active kinks stay active, to first order: shape (m, space).

        { d : Z d = 0 },   Z the derivatives of what the active kinks compare

    It is the tangent space of the stratum where Z has the same rank nearby; else (a cusp) the stratum may be smaller.
    Status: `computed`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> stratum_tangent(ns.field(lambda x: x.abs().sum(), torch.tensor([1.0, 0.0])))
    array([[1., 0.]])

    Source: BolteDaniilidisLewisShiota2007.
    """
    return _kernel(_argument_rows(field))


def _argument_rows(field: Field) -> Floats:
    """Give the derivatives of what the active kinks and the tied guards compare."""
    rows = [np.zeros((0, field.space))]
    for system in field.systems:
        rows.append(system.dense_arguments[0])
        rows += [np.atleast_2d(system.sweeps.rows(tie.arguments)[0]) for tie in system.sweeps.evaluation.ties]
    return np.concatenate(rows)


def _kernel(rows: Floats) -> Floats:
    """Give an orthonormal basis of the kernel of a matrix, as rows; unit vectors where these span it."""
    basis = _row_space(rows)
    rest = np.eye(rows.shape[1]) - basis.T @ basis
    left, sizes, _ = np.linalg.svd(rest)
    found = left[:, sizes > 0.5].T
    found = np.array([row * np.sign(row[np.abs(row).argmax()]) for row in found]).reshape(found.shape)
    units = [e for e in np.eye(rows.shape[1]) if np.allclose(rest @ e, e, atol=1e-12)]
    return np.array(units) if units and len(units) == len(found) else found


def _row_space(rows: Floats) -> Floats:
    """Give an orthonormal basis of the span of rows."""
    if not rows.size:
        return np.zeros((0, rows.shape[-1]))
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(right[sizes > 1e-12 * max(float(sizes.max()), 1e-300)])


def view_plane(chart: Chart, points: Sequence[Floats] = (), radius: float | None = None, grid: int = GRID) -> PlaneView:
    """Look at a function of two variables in a window around the chart's origin, and at its sets at some points.

    Args:
        chart: of two coordinates.
        points: further points at which the sets are wanted, by their coordinates.
        radius: half the side of the window; by default so that all points lie inside, at least 1.
        grid: how many points the grid has along a side. A stratum within one cell may be missed.

    Source: BoltePauwels2020.
    """
    wanted = [chart.origin, *points]
    away = max(float(np.abs(p - chart.origin).max()) for p in wanted)
    reach = max(1.0, 1.45 * away) if radius is None else float(radius)
    low, high = chart.origin - reach, chart.origin + reach
    step = 2 * reach / (grid - 2)
    axes = [low[k] + step * (np.arange(grid) - 0.5 + SHIFT[k]) for k in (0, 1)]
    seen = [[chart.look(np.array([a, b])) for b in axes[1]] for a in axes[0]]
    strokes, isolated = _strata(chart, axes, seen)
    return PlaneView(
        low=(float(low[0]), float(low[1])),
        high=(float(high[0]), float(high[1])),
        names=(str(chart.names[0]), str(chart.names[-1])),
        strokes=tuple(s for s in strokes if _inside(s.start, low, high) or _inside(s.end, low, high)),
        isolated=tuple(p for p in isolated if _inside(p, low, high)),
        arrows=tuple(_arrows(chart, low, high, strokes, reach)),
        points=tuple(_point(chart, p) for p in wanted),
        sliced=chart.sliced,
    )


def _inside(p: tuple[float, float], low: Floats, high: Floats) -> bool:
    """Tell whether a place lies in the window."""
    return all(low[k] <= p[k] <= high[k] for k in (0, 1))


def _strata(chart: Chart, axes: list[Floats], seen: list[list[Seen]]) -> tuple[list[Stroke], list[tuple[float, float]]]:
    """Find the curves of all kinks, and those at a single point."""
    strokes: list[Stroke] = []
    isolated: set[tuple[float, float]] = set()
    for key in sorted({key for row in seen for s in row for key in s.margins}):
        m = np.array([[s.margins.get(key, np.nan) for s in row] for row in seen])
        crossed = _crossings(chart, axes, m, key)
        strokes += _joined(key, crossed, m.shape)
        if not crossed:
            isolated |= set(_single(chart, axes, m, key))
    return strokes, sorted(isolated)


def _crossings(chart: Chart, axes: list[Floats], m: Floats, key: Key) -> dict[Edge, tuple[float, float, bool]]:
    """Find the edges on which a distance passes through zero: where, and whether the kink can matter there."""
    found: dict[Edge, tuple[float, float, bool]] = {}
    for along in (0, 1):
        w = m if along == 0 else m.T
        left = 2 * w[1:-2] - w[:-3]
        right = 2 * w[2:-1] - w[3:]
        with np.errstate(invalid="ignore"):
            likely = ((left < 0) | (right < 0)) & (w[1:-2] + w[2:-1] > 0)
        for i, j in np.argwhere(likely):
            a, b = float(w[i + 1, j]), float(w[i + 2, j])
            part = a / (a + b)
            place = np.array([0.0, 0.0])
            place[along] = axes[along][i + 1] + part * (axes[along][i + 2] - axes[along][i + 1])
            place[1 - along] = axes[1 - along][j]
            room = 0.12 * (a + b)
            there, matters = next(((m, y) for k, m, y in chart.places(place, room) if k == key), (np.inf, False))
            if there <= room:
                edge = (int(i) + 1, int(j), 0) if along == 0 else (int(j), int(i) + 1, 1)
                found[edge] = (float(place[0]), float(place[1]), matters)
    return found


def _joined(key: Key, crossed: dict[Edge, tuple[float, float, bool]], shape: tuple[int, ...]) -> Iterator[Stroke]:
    """Join the crossings of every cell: two by a line, three or more through their middle."""
    for i in range(shape[0] - 1):
        for j in range(shape[1] - 1):
            edges = ((i, j, 0), (i, j + 1, 0), (i, j, 1), (i + 1, j, 1))
            met = [crossed[e] for e in edges if e in crossed]
            if len(met) == 2:
                yield Stroke(key[0], met[0][:2], met[1][:2], met[0][2] or met[1][2])
            elif len(met) > 2:
                middle = (sum(p[0] for p in met) / len(met), sum(p[1] for p in met) / len(met))
                yield from (Stroke(key[0], p[:2], middle, p[2]) for p in met)


def _single(chart: Chart, axes: list[Floats], m: Floats, key: Key) -> Iterator[tuple[float, float]]:
    """Find points at which a distance that crosses no edge is zero: minima on the grid, narrowed down."""
    from scipy.optimize import minimize

    step = float(axes[0][1] - axes[0][0])
    for i, j in np.argwhere(np.isfinite(m[1:-1, 1:-1])) + 1:
        around = m[i - 1 : i + 2, j - 1 : j + 2]
        if not (m[i, j] <= np.nanmin(around) and 0 < m[i, j] <= 0.75 * np.nanmean(around)):
            continue
        start = np.array([axes[0][i], axes[1][j]])
        simplex = start + step * np.array([[0, 0], [1, 0], [0, 1]])
        options = {"initial_simplex": simplex, "xatol": 1e-12, "fatol": 1e-14, "maxiter": 400}
        best = minimize(
            lambda p: chart.margins(p).get(key, np.inf), start, method="Nelder-Mead", options=options
        )  # fmt: skip
        if best.fun <= 1e-6 * float(np.nanmax(around)):
            yield float(np.round(best.x[0], 6)) + 0.0, float(np.round(best.x[1], 6)) + 0.0


def _arrows(
    chart: Chart, low: Floats, high: Floats, strokes: list[Stroke], reach: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Give gradients on the pieces, at places that are not next to a stratum."""
    ends = np.array([p for s in strokes for p in (s.start, s.end)]).reshape(-1, 2)
    room = 0.05 * reach if len(strokes) < CROWD else 0.004 * reach
    part = (np.arange(ARROWS) + 0.5) / ARROWS
    for a in low[0] + part * (high[0] - low[0]):
        for b in low[1] + part * (high[1] - low[1]):
            place = np.array([a, b])
            if len(ends) and np.min(np.abs(ends - place).max(axis=1)) < room:
                continue
            if any(m == 0 for m in chart.margins(place).values()):
                continue
            g = chart.slope(place)
            if np.all(np.isfinite(g)):
                yield (float(a), float(b)), (float(g[0]) + 0.0, float(g[1]) + 0.0)


def _point(chart: Chart, c: Floats) -> PointView:
    """Give the sets at a point, and what follows from them."""
    at, own = _pair(c), _pair(chart.slope(c))
    conventions = {name: _pair(chart.slope(c, rule)) for name, rule in CONVENTIONS.items()}
    value = chart.look(c).value
    try:
        found = chart.field(c)
    except NoField as error:
        return PointView(at, value, own, conventions, None, None, note=str(error))
    known, through = clarke_in(found), chart.seen_through(found)
    inner = None if known.inner is None else outline(chart.seen_through(known.inner))
    shortest = through.minimum_norm()
    tangent = _kernel(_argument_rows(found) @ chart.columns)
    return PointView(
        at=at,
        value=value,
        backprop=own,
        conventions=conventions,
        field=outline(through),
        clarke=inner,
        clarke_exact=known.exact,
        equality=known.equality or "inner only",
        kinks=found.kinks,
        shortest=_pair(shortest.point),
        distance=float(shortest.norm),
        descent=None if shortest.direction is None else _pair(shortest.direction),
        tangent=tuple(_pair(row) for row in tangent),
        spread=projection_spread(through, tangent),
        status=found.status,
        exact=found.exact,
    )


def outline(one: ConvexSet) -> Outline:
    """Give the corners of a set of the plane in order; a curved one by support points along directions."""
    try:
        corners = one.vertices(CIRCLE)
    except UsageError:
        angles = 2 * np.pi * np.arange(CIRCLE) / CIRCLE
        corners = np.array([one.support_point([np.cos(a), np.sin(a)]) for a in angles])
    size = max(float(np.abs(corners).max()), 1e-300)
    _, first = np.unique(np.round(corners / size, 10), axis=0, return_index=True)
    corners = corners[np.sort(first)]
    middle = corners.mean(axis=0)
    order = np.argsort(np.arctan2(corners[:, 1] - middle[1], corners[:, 0] - middle[0]), kind="stable")
    return tuple(_pair(p) for p in corners[order])


def _pair(v: Floats) -> tuple[float, float]:
    """Make two plain numbers, without a negative zero."""
    return float(v[0]) + 0.0, float(v[1]) + 0.0
