"""Images at other places: upsampling, whose places are known, and sampling on a grid, whose places may move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import floor, prod
from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers, Shape

__all__: list[str] = []


def _scales(call: Called, over: int) -> list[float | None]:
    """Read the scales that a call states; None where sizes tell."""
    factors = call.attributes.get("scale_factors")
    if factors:
        return [float(f) for f in factors]
    letters = (
        ("scales",) if over == 1 else ("scales_h", "scales_w") if over == 2 else ("scales_d", "scales_h", "scales_w")
    )
    return [call.attributes.get(name) for name in letters]


def _positions(size: int, target: int, scale: float | None, aligned: bool, cubic: bool) -> Any:
    """Give where results lie between entries."""
    if aligned:
        return np.arange(target) * ((size - 1) / (target - 1) if target > 1 else 0.0)
    step = 1 / scale if scale else size / target
    at = (np.arange(target) + 0.5) * step - 0.5
    return at if cubic else np.maximum(at, 0.0)


def _nearest(size: int, target: int, scale: float | None, exact: bool) -> Any:
    """Give the entry nearest to every result."""
    step = 1 / scale if scale else size / target
    at = (np.arange(target) + (0.5 if exact else 0.0)) * step
    return np.minimum(np.floor(at).astype(int), size - 1)


def _taps(size: int, at: Any, cubic: bool) -> tuple[Any, Any]:
    """Give the entries that go into every result along an axis, and their weights: two, or four of a cubic."""
    start = np.floor(at).astype(int)
    t = at - start
    if not cubic:
        start = np.minimum(start, size - 1)
        return np.stack([start, np.minimum(start + 1, size - 1)]), np.stack([1 - t, t])
    entries = np.stack([np.clip(start + k, 0, size - 1) for k in (-1, 0, 1, 2)])
    return entries, np.stack(_cubic(t))


def _cubic(t: Any) -> list[Any]:
    """Weigh four neighbours by Keys's kernel with a = -0.75."""
    a = -0.75

    def near(u: Any) -> Any:
        return ((a + 2) * u - (a + 3)) * u * u + 1

    def far(u: Any) -> Any:
        return ((u - 5) * u + 8) * u * a - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _upsampling(name: str, over: int, kind: str) -> None:
    """Define an interpolation at known places."""

    @define(f"upsample_{name}{over}d")
    def definition(call: Called) -> Numbers:
        pullback = bool(call.attributes.get("pullback"))
        image, result = (call.shape, call.x.shape) if pullback else (call.x.shape, call.shape)
        sizes, targets = image[-over:], result[-over:]
        if call.attributes.get("antialias"):
            return _filtered(call, image, result, over, cubic=kind == "cubic")
        scales = _scales(call, over)
        aligned, exact = bool(call.attributes.get("align_corners")), bool(call.attributes.get("exact"))
        rows = list(zip(sizes, targets, scales, strict=True))
        if kind == "nearest":
            taps = [(_nearest(n, m, s, exact)[None], np.ones((1, m))) for n, m, s in rows]
        else:
            cubic = kind == "cubic"
            taps = [_taps(n, _positions(n, m, s, aligned, cubic), cubic) for n, m, s in rows]
        return (
            _spread(call, taps, image, result)
            if pullback
            else _interpolated(call.x, [t[0] for t in taps], taps, result)
        )


def _interpolated(x: Numbers, entries: Sequence[Any], taps: Sequence[tuple[Any, Any]], result: Shape) -> Numbers:
    """Weigh neighbours along the last axis, then what that gives along the one before."""
    over = len(taps)
    corners = {}
    for corner in product(*(range(len(e)) for e in entries)):
        grid = np.ix_(*(e[k] for e, k in zip(entries, corner, strict=True)))
        corners[corner] = x.alias(result, lambda a, g=grid: a[(..., *g)])
    for axis in reversed(range(over)):
        weights = taps[axis][1]
        if len(weights) == 1:
            corners = {c[:axis]: v for c, v in corners.items()}
            continue
        shape = (weights.shape[1], *(1 for _ in range(over - axis - 1)))
        merged: dict[tuple[int, ...], Numbers] = {}
        for corner, value in corners.items():
            part = value * x.known(shape, lambda *_, w=weights[corner[axis]], s=shape: w.reshape(s))
            merged[corner[:axis]] = merged[corner[:axis]] + part if corner[:axis] in merged else part
        corners = merged
    return corners[()]


def _spread(call: Called, taps: Sequence[tuple[Any, Any]], image: Shape, result: Shape) -> Numbers:
    """Pull a cotangent back: each, times its weights, to the entries that its result came from."""
    over, shape = len(taps), tuple(w.shape for _, w in taps)
    rest, each = prod(image[:-over]), prod(w.size for _, w in taps)
    touched = rest * prod(len(np.unique(e)) for e, _ in taps)

    def places(*_: Any) -> Any:
        at = np.indices([n for s in shape for n in s]).reshape(2 * over, -1)  # tap and result of every axis
        entries = np.ravel_multi_index([e[at[2 * k], at[2 * k + 1]] for k, (e, _) in enumerate(taps)], image[-over:])
        results = np.ravel_multi_index(at[1::2], result[-over:])
        first = np.arange(rest)[:, None]
        weights = np.broadcast_to(np.arange(each), (rest, each))
        parts = first * prod(image[-over:]) + entries, first * prod(result[-over:]) + results, weights
        return tuple(p.ravel() for p in parts)

    if all(len(e) == 1 for e, _ in taps):
        return call.x.gathered(image, max(rest * each - touched, 0), lambda *_: places()[:2])

    def how(*_: Any) -> Any:
        found = np.ones(())
        for _, w in taps:
            found = np.multiply.outer(found, w)
        return found.ravel()

    return call.x.bilinear(call.x.known((each,), how), image, rest * each, max(rest * each - touched, 0), places)


def _filtered(call: Called, image: Shape, result: Shape, over: int, cubic: bool) -> Numbers:
    """Filter along the last axis and then the one before, over as many entries as the kernel reaches."""
    found, shape = call.x, list(image)
    pullback = bool(call.attributes.get("pullback"))
    for axis in reversed(range(len(image) - over, len(image))):
        n, m = image[axis], result[axis]
        scale = n / m
        reach = (2.0 if cubic else 1.0) * max(scale, 1.0)
        centres = [scale * (o + 0.5) for o in range(m)]
        spans = [min(floor(c + reach + 0.5), n) - max(floor(c - reach + 0.5), 0) for c in centres]
        shape[axis] = m
        rest = prod(shape) // max(m, 1)
        products = rest * sum(spans)
        sums = rest * (sum(spans) - (n if pullback else m))
        found = found.bilinear(call.x.known((sum(spans),)), tuple(shape), products, max(sums, 0))
    return found.alias(call.shape) if found.shape == call.shape else found.like(call.shape)


for _name, _over, _kind in (
    *(("nearest", d, "nearest") for d in (1, 2, 3)),
    ("linear", 1, "linear"),
    ("bilinear", 2, "linear"),
    ("trilinear", 3, "linear"),
    ("bicubic", 2, "cubic"),
):
    _upsampling(_name, _over, _kind)


def _filtering(name: str) -> None:
    """Define the backward of an interpolation that filters; a kernel, counted in the framework's own passes alone."""

    @define(f"_upsample_{name}2d_aa_backward")
    def definition(call: Called) -> Numbers:
        return _filtered(call, call.shape, call.x.shape, 2, cubic=name == "bicubic")


for _name in ("bilinear", "bicubic"):
    _filtering(_name)


# --- grids ------------------------------------------------------------------------------------------------------------


@define("affine_grid_generator")
def affine_grid(call: Called) -> Numbers:
    """The points of a grid, with a 1 behind them, times the transpose of each matrix."""
    theta, shape = call.x, call.shape
    sizes, dims = shape[1:-1], shape[-1]

    def base(*_: Any) -> Any:
        aligned = call.attributes.get("align_corners")
        lines = [np.linspace(-1, 1, n) * (1 if aligned else (n - 1) / n) if n > 1 else np.zeros(1) for n in sizes]
        grids = np.meshgrid(*lines, indexing="ij")
        return np.stack([*grids[::-1], np.ones(sizes)], -1)

    letters = "uvw"[: len(sizes)]
    points = theta.known((*sizes, dims + 1), base)
    return points.contracted(theta, shape, dims + 1, f"{letters}k,bjk->b{letters}j")


@define("grid_sample", "grid_sampler_2d", "grid_sampler_3d")
def grid_sample(call: Called) -> Numbers:
    """Images at the points of a grid, each coordinate in [-1, 1]: neighbours weighed, those outside 0."""
    grid, image = call.operands
    at, mode, image_of = _points(call, grid, image)
    if mode == 1:
        return _gathered(image, [u.rounded("round") for u in at], call.shape)[0]
    return _weighed(image, at, mode == 2, image_of, call.shape)


def _points(call: Called, grid: Numbers, image: Numbers) -> tuple[list[Numbers], int, tuple[Shape, bool, int]]:
    """Give the places of all points along each axis of the image, the mode, and sizes, alignment and padding."""
    over, a, sizes = grid.shape[-1], call.attributes, image.shape[2:]
    aligned, padding, mode = (
        bool(a.get("align_corners")),
        int(a.get("padding_mode", 0)),
        int(a.get("interpolation_mode", 0)),
    )
    at = []
    for axis in range(over):
        place = over - 1 - axis  # the last axis of the image is the first coordinate
        u = grid.alias(grid.shape[:-1], lambda g, p=place: g[..., p])
        at.append(_padded(_pixels(u, sizes[axis], aligned), sizes[axis], aligned, padding if mode != 2 else 0))
    return at, mode, (sizes, aligned, padding)


@define("grid_sampler_2d_backward", "grid_sampler_3d_backward")
def grid_sample_backward(call: Called) -> None:
    """Each cotangent, times its weights, added to the entries that were weighed, and their slopes along each coordinate.

    The weights are found again. Where the grid moves, each weighed entry meets the slope of its weight along each axis. A
    kernel of the backward pass: counted in the framework's own passes alone.
    """
    grad, image, grid = call.operands[:3]
    at, mode, _ = _points(call, grid, image)
    over, wanted = len(at), call.attributes.get("output_mask", (True, True))
    if mode == 1:
        for u in at:
            u.rounded("round")
        call.tally.add("add", "", grad.size if wanted[0] else 0)
        return
    for u in at:
        part = u - u.rounded("floor")
        _ = _cubic_of(part) if mode == 2 else [1.0 - part]
    corners = (4 if mode == 2 else 2) ** over
    points = at[0].size
    call.tally.add("mul", "", points * corners * (over - 1))
    call.tally.add("mul", "", grad.size * corners * (bool(wanted[0]) + 2 * over * bool(wanted[1])))
    call.tally.add("add", "", grad.size * corners * (bool(wanted[0]) + over * bool(wanted[1])))
    call.tally.add("mul", "", points * over if wanted[1] else 0)


def _pixels(u: Numbers, size: int, aligned: bool) -> Numbers:
    """Turn a coordinate into a place: ((u + 1) n - 1) / 2, or (u + 1) (n - 1) / 2."""
    if aligned:
        return (u + 1.0) * ((size - 1) / 2)
    return ((u + 1.0) * float(size) - 1.0) * 0.5


def _padded(u: Numbers, size: int, aligned: bool, padding: int) -> Numbers:
    """Bring a place back into the image: 1 at its border, 2 by reflection."""
    if padding == 2:
        low, span = (0.0, float(size - 1)) if aligned else (-0.5, float(size))
        if span <= 0:
            return u.known(u.shape, lambda *_: np.zeros(u.shape))
        away = (u - low).apply("abs")
        flips = (away * (1 / span)).rounded("floor")
        extra = away - flips * span
        even = flips.known(flips.shape, lambda f: f % 2 == 0, flips)
        u = even.select(extra + low, (span + low) - extra)
    return u.apply("max", 0.0).apply("min", float(size - 1)) if padding else u


def _gathered(image: Numbers, places: Sequence[Numbers], shape: Shape) -> tuple[Numbers, Numbers]:
    """Take entries of the images at whole places, those outside anywhere; say which are inside."""
    sizes = image.shape[2:]
    points = places[0].shape

    def view(a: Any, *at: Any) -> Any:
        index = [np.clip(p, 0, n - 1).astype(int) for p, n in zip(at, sizes, strict=True)]
        batch = np.arange(a.shape[0]).reshape(-1, *(1 for _ in points[1:]))
        return np.moveaxis(np.moveaxis(a, 1, -1)[(batch, *index)], -1, 1)

    def inside(*at: Any) -> Any:
        return np.all([(p >= 0) & (p <= n - 1) for p, n in zip(at, sizes, strict=True)], axis=0)

    wide = (points[0], 1, *points[1:])
    mask = places[0].known(wide, lambda *at: inside(*at)[:, None], *places)
    taken = image.alias(shape, view, *places)
    return mask.select(taken, 0.0), mask


def _weighed(image: Numbers, at: Sequence[Numbers], cubic: bool, image_of: Any, shape: Shape) -> Numbers:
    """Weigh the neighbours of every point: two along each axis, or four of a cubic."""
    starts = [u.rounded("floor") for u in at]
    parts = [u - s for u, s in zip(at, starts, strict=True)]
    weights = [_cubic_of(t) if cubic else [1.0 - t, t] for t in parts]
    offsets = range(-1, 3) if cubic else range(2)
    sizes, aligned, padding = image_of
    total: Numbers | None = None
    for corner in product(range(len(offsets)), repeat=len(at)):
        places = []
        for axis, k in enumerate(corner):
            place = starts[axis].known(starts[axis].shape, lambda s, o=offsets[k]: s + o, starts[axis])
            places.append(_padded(place, sizes[axis], aligned, padding) if cubic and padding else place)
        weight = weights[0][corner[0]]
        for axis, k in enumerate(corner[1:], 1):
            weight = weight * weights[axis][k]
        wide = (weight.shape[0], 1, *weight.shape[1:])
        taken, _ = _gathered(image, places, shape)
        part = taken * weight.alias(wide, lambda a, s=wide: a.reshape(s))
        total = part if total is None else total + part
    assert total is not None
    return total


def _cubic_of(t: Numbers) -> list[Numbers]:
    """Weigh four neighbours by Keys's kernel with a = -0.75, in numbers that move."""
    a = -0.75

    def near(u: Numbers) -> Numbers:
        return (u * (a + 2) - (a + 3)) * u * u + 1.0

    def far(u: Numbers) -> Numbers:
        return ((u - 5.0) * u + 8.0) * u * a - 4 * a

    return [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
