"""Windows over images: means, largest entries, unfolding and folding."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers, Shape
from nonsmooth.program.windows import Meetings, Places, flat_places, meetings

__all__: list[str] = []


def _spread(value: Any, d: int) -> tuple[int, ...]:
    """Spread a number over the axes of a window."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * d if len(values) == 1 else values)


def _windows(attributes: Any, sizes: Shape, results: Sequence[int | None]) -> list[Meetings]:
    """Let windows move over the axes of space: as a record of pooling says it, ends cut off where they leave the image."""
    d = len(sizes)
    kernel = _spread(attributes["kernel_size"], d)
    stride = _spread(attributes.get("stride") or kernel, d)
    padding, dilation = _spread(attributes.get("padding", 0), d), _spread(attributes.get("dilation", 1), d)
    rows = zip(sizes, kernel, stride, padding, dilation, results, strict=True)
    return [meetings(n, k, s, (p, p), 1, w, m) for n, k, s, p, w, m in rows]


def _adaptive(sizes: Shape, results: Shape) -> list[Meetings]:
    """Let the window at result i of m run from floor(i n / m) to ceil((i + 1) n / m)."""
    found = []
    for n, m in zip(sizes, results, strict=True):
        spans = [range(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)]
        entries = np.array([e for span in spans for e in span], dtype=np.int64)
        lengths = np.array([len(span) for span in spans], dtype=np.int64)
        places = np.array([k for span in spans for k in range(len(span))], dtype=np.int64)
        found.append(Meetings(np.repeat(np.arange(m), lengths), entries, places))
    return found


class Pooled:
    """The meetings of windows with an image: along the axes of space, for every channel of every image."""

    def __init__(self, axes: list[Meetings], image: Shape, result: Shape) -> None:
        self.axes, self.image, self.result, d = axes, image, result, len(axes)
        self.each = prod(image[: len(image) - d])
        self.count = self.each * prod(m.count for m in axes)
        self.met = self.each * prod(m.met("results") for m in axes)
        self.touched = self.each * prod(m.met("entries") for m in axes)

    def places(self) -> tuple[Places, Places]:
        """Give the flat places of the result and of the entry in every meeting."""
        d = len(self.axes)
        at = []
        for which, shape in (("results", self.result), ("entries", self.image)):
            inside = flat_places(self.axes, which, shape[len(shape) - d :])
            at.append((np.arange(self.each)[:, None] * prod(shape[len(shape) - d :]) + inside).ravel())
        return at[0], at[1]


def _averaged(call: Called, over: int, adaptive: bool) -> Numbers:
    """Sum every window and divide by its size; pull a cotangent back by dividing and spreading it."""
    pullback = bool(call.attributes.get("pullback"))
    image, result = (call.operands[1].shape, call.x.shape) if pullback else (call.x.shape, call.shape)
    sizes, targets = image[len(image) - over :], result[len(result) - over :]
    axes = _adaptive(sizes, targets) if adaptive else _windows(call.attributes, sizes, targets)
    pooled = Pooled(axes, image, result)

    def divisors(*_: Any) -> Any:
        return _divisors(call.attributes, axes, sizes, targets, adaptive)

    divisor = call.x.known(targets, divisors)
    if pullback:
        shares = call.x / divisor
        return shares.gathered(image, pooled.count - pooled.touched, lambda *_: pooled.places()[::-1])
    return call.x.gathered(result, pooled.count - pooled.met, lambda *_: pooled.places()) / divisor


def _divisors(attributes: Any, axes: list[Meetings], sizes: Shape, targets: Shape, adaptive: bool) -> Any:
    """Give the number by which every window is divided: its size, with or without the padding, or one given."""
    if attributes.get("divisor_override"):
        return np.full(targets, float(attributes["divisor_override"]))
    counts = [np.bincount(m.results, minlength=t) for m, t in zip(axes, targets, strict=True)]
    if not adaptive and attributes.get("count_include_pad", True):
        d = len(sizes)
        kernel = _spread(attributes["kernel_size"], d)
        stride, padding = _spread(attributes.get("stride") or kernel, d), _spread(attributes.get("padding", 0), d)
        counts = [
            np.minimum(np.arange(t) * s - p + k, n + p) - (np.arange(t) * s - p)
            for t, s, p, k, n in zip(targets, stride, padding, kernel, sizes, strict=True)
        ]
    found = np.ones(())
    for count in counts:
        found = found[..., None] * count
    return found


def _average(over: int) -> None:
    """Define the means of windows over some axes of space."""

    @define(f"avg_pool{over}d")
    def regular(call: Called) -> Numbers:
        return _averaged(call, over, adaptive=False)

    @define(f"adaptive_avg_pool{over}d")
    def adaptive(call: Called) -> Numbers:
        return _averaged(call, over, adaptive=True)


for _over in (1, 2, 3):
    _average(_over)


@define("max_pool", "adaptive_max_pool")
def largest_of_windows(call: Called) -> Numbers:
    """The largest entry of each window: n - 1 comparisons among n."""
    start = call.attributes["spatial_from"]
    sizes, targets = call.x.shape[start:], call.shape[start:]
    fixed = "output_size" not in call.attributes
    axes = _windows(call.attributes, sizes, targets) if fixed else _adaptive(sizes, targets)
    pooled = Pooled(axes, call.x.shape, call.shape)

    def how(values: Any) -> Any:
        results, entries = pooled.places()
        order = np.lexsort((entries, -values.ravel()[entries], results))
        return entries[order][np.unique(results[order], return_index=True)[1]].reshape(call.shape)

    return call.x.chosen(call.shape, pooled.count - pooled.met, how)


# --- unfolding and folding ---------------------------------------------------------------------------------------------


@define("im2col")
def unfolded(call: Called) -> Numbers:
    """The entries of every window as a column: moves alone."""
    return _columns(call, call.x, call.shape, call.x.shape)


@define("col2im")
def folded(call: Called) -> Numbers:
    """Columns summed where their windows overlap."""
    return _columns(call, call.x, call.x.shape, call.shape)


def _columns(call: Called, x: Numbers, columns: Shape, image: Shape) -> Numbers:
    """Move between an image, with or without a batch, and the columns of its windows."""
    axes = _windows(call.attributes, image[-2:], [None, None])
    kernel = _spread(call.attributes["kernel_size"], 2)
    across = _columns_across(call, image[-2:], kernel)
    each, channels = prod(image[:-3]), image[-3]
    count = each * channels * prod(m.count for m in axes)

    def places(*_: Any) -> Any:
        inside = flat_places(axes, "places", kernel), flat_places(axes, "results", across)
        entries = flat_places(axes, "entries", image[-2:])
        b, c = (u[..., None] for u in np.indices((each, channels), sparse=True))
        column = ((b * channels + c) * prod(kernel) + inside[0]) * prod(across) + inside[1]
        entry = (b * channels + c) * prod(image[-2:]) + entries
        return column.ravel(), entry.ravel()

    if call.x.shape == image:
        return x.gathered(columns, 0, places)
    met = each * channels * prod(m.met("entries") for m in axes)
    return x.gathered(image, count - met, lambda *_: places()[::-1])


def _columns_across(call: Called, sizes: Shape, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Count the windows along each axis."""
    rows = zip(sizes, kernel, *(_spread(call.attributes[n], 2) for n in ("stride", "padding", "dilation")), strict=True)
    return tuple((n + 2 * p - w * (k - 1) - 1) // s + 1 for n, k, s, p, w in rows)
