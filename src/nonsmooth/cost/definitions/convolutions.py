"""Convolutions: only the pairs of an entry of the image and one of the kernel that meet count, not the padding."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers
from nonsmooth.program.windows import Places, flat_places, geometry

__all__: list[str] = []

_NAMES = (*(f"conv{d}d" for d in (1, 2, 3)), *(f"conv_transpose{d}d" for d in (1, 2, 3)), "convolution", "conv_tbc")

Three: TypeAlias = "tuple[Places, Places, Places]"


class Pairs:
    """The pairs of an entry of the image and a place of the kernel, and the results that they go into.

    Along every axis of space they meet as in `windows`; each meeting happens for every image, every channel of the
    result, and every channel of the image in its group.
    """

    def __init__(self, call: Called) -> None:
        a = call.attributes
        self.call, self.axes, self.groups, self.batch = call, geometry(a), a["groups"], a["batch"]
        self.taken, self.given = a["channels"]
        self.each = self.taken // self.groups
        self.count = self.batch * self.given * self.each * prod(m.count for m in self.axes)

    def sums(self, which: str, channels: int) -> int:
        """Count the additions into the results, the entries of the image or the places of the kernel that meet any."""
        met: int = channels * prod(m.met(which) for m in self.axes)
        return int(max(self.count - met, 0))

    def places(self, image: Numbers, kernel: Numbers, result: tuple[int, ...]) -> Three:
        """Give the flat places of results, entries and kernel in the order of all pairs, for whoever executes them."""
        numbers = [np.arange(prod(s)).reshape(s) for s in (result, image.shape, kernel.shape)]
        out, entries, weights = (_tbc if self.call.attributes.get("pad") is not None else self._plain)(*numbers)
        shape = (self.batch, self.groups, self.given // self.groups, self.each)
        b, g, o, i = (u[..., None] for u in np.indices(shape, sparse=True))
        sizes = result[:1] if self.call.attributes.get("pad") is not None else result[-len(self.axes) :]
        found = (
            out.reshape(*shape[:3], -1)[b, g, o, flat_places(self.axes, "results", sizes)],
            entries.reshape(*shape[:2], self.each, -1)[b, g, i, self._at("entries", "spatial")],
            weights.reshape(*shape[1:], -1)[g, o, i, self._at("places", "kernel")],
        )
        whole = np.broadcast_shapes(*(f.shape for f in found))
        first, second, third = (np.broadcast_to(f, whole).ravel() for f in found)
        return first, second, third

    def _at(self, which: str, sizes: str) -> Places:
        """Give the places along the axes of space."""
        return flat_places(self.axes, which, self.call.attributes[sizes])

    def _plain(self, out: Places, image: Places, kernel: Places) -> Three:
        """Lay channels before space; turn the kernel of a transposed convolution."""
        if self.call.attributes["transposed"]:
            d = len(self.axes)
            kernel = np.flip(kernel, tuple(range(-d, 0))).reshape(self.groups, self.each, -1, *kernel.shape[2:])
            kernel = kernel.swapaxes(1, 2)
        return out, image, kernel


def _tbc(out: Places, image: Places, kernel: Places) -> Three:
    """Lay time, batch, channel in the order batch, channel, time."""
    return out.transpose(1, 2, 0), image.transpose(1, 2, 0), kernel.transpose(2, 1, 0)


def _reordered(places: Callable[[], Three], *order: int) -> Callable[..., Any]:
    """Give the places of the pairs in another order: into the results, the image or the kernel."""
    return lambda *_: tuple(places()[n] for n in order)


@define(*_NAMES)
def convolution(call: Called) -> Numbers | list[Numbers]:
    """y_o = sum_k w_k u_(o stride + k dilation) + b, over the entries inside of the image."""
    pairs = Pairs(call)
    if call.attributes.get("pullback"):
        return _pulled(call, pairs)
    image, kernel = call.operands[:2]
    sums = pairs.sums("results", pairs.batch * pairs.given)
    where = _reordered(lambda: pairs.places(image, kernel, call.shape), 0, 1, 2)
    found = image.bilinear(kernel, call.shape, pairs.count, sums, where)
    if len(call.operands) < 3:
        return found
    bias, last = call.operands[2], call.attributes.get("pad") is not None
    shape = bias.shape if last else (pairs.given, *(1 for _ in pairs.axes))
    return found + bias.alias(shape, lambda a: a.reshape(shape))


def _pulled(call: Called, pairs: Pairs) -> list[Numbers]:
    """Pull a cotangent back: it meets the kernel for the image, the image for the kernel, and is summed for the bias."""
    cotangent, image, kernel = call.operands
    wanted = call.attributes.get("output_mask", (True, True, True))

    def places() -> Three:
        return pairs.places(image, kernel, cotangent.shape)

    found = []
    if wanted[0]:
        sums = pairs.sums("entries", pairs.batch * pairs.taken)
        found.append(cotangent.bilinear(kernel, image.shape, pairs.count, sums, _reordered(places, 1, 0, 2)))
    if wanted[1]:
        sums = pairs.sums("places", pairs.given * pairs.each)
        found.append(cotangent.bilinear(image, kernel.shape, pairs.count, sums, _reordered(places, 2, 0, 1)))
    if wanted[2]:
        channel = cotangent.ndim - len(pairs.axes) - 1
        found.append(cotangent.sum([a for a in range(cotangent.ndim) if a != channel]))
    return found
