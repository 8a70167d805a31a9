"""Convolutions: bilinear maps of image and kernel, and the spectral norm of a known kernel.

The record and the norm by frequencies that it uses are one subject, hence a long file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, cos, gcd, inf, isfinite, pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.bounds.constants.affine import of_each
from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.products import plus
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, Reach, times
from nonsmooth.bounds.sizes import UNIT
from nonsmooth.bounds.spectral_norm import largest_root, largest_spectral_norm, spectral_norm
from nonsmooth.program.windows import Meetings, meetings

__all__ = ["Kernel", "convolution_norm"]

_NAMES = (*(f"conv{d}d" for d in (1, 2, 3)), *(f"conv_transpose{d}d" for d in (1, 2, 3)), "convolution", "conv_tbc")

BUDGET = 2e10
"""The multiplications that the bound of one kernel may take: some seconds."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel w[g, o, i, k]: of every group, result channel, image channel and place; with stride and dilation.

    `transposed` convolutions spread the image by their stride; they are the transposes of convolutions with that stride.
    """

    array: NDArray[Any]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @cached_property
    def phases(self) -> tuple[NDArray[Any], ...]:
        """The kernel as one of stride 1 over blocks of the image: w[g, o, (i, residues), k]; along each axis the taps.

        With g = gcd(stride, dilation) a window meets entries of one residue modulo g alone; among them it has the stride
        s = stride / g and its places stand dilation / g apart. With s = 1 that distance changes no norm.
        """
        array, places = self.array, range(len(self.stride))
        for axis in places:
            common = gcd(self.stride[axis], self.dilation[axis])
            stride, apart = self.stride[axis] // common, self.dilation[axis] // common
            apart = 1 if stride == 1 else apart
            at = axis + 3
            size = array.shape[at]
            blocks = max(-(-((size - 1) * apart + 1) // stride), 1)
            shape = (*array.shape[:at], blocks * stride, *array.shape[at + 1 :])
            wide = np.zeros(shape, array.dtype)
            wide[(slice(None),) * at + (slice(0, (size - 1) * apart + 1, apart),)] = array
            wide = wide.reshape(*shape[:at], blocks, stride, *shape[at + 1 :])
            moved = np.moveaxis(wide, at + 1, 3)  # residues beside the channels of the image
            array = moved.reshape(*moved.shape[:2], moved.shape[2] * stride, *moved.shape[4:])
        return (array,)


def convolution_norm(kernel: Kernel, budget: float = BUDGET) -> float:
    """Bound the operator norm of a convolution with a kernel, whatever the size of the image and its zero padding.

        ||T|| <= max over frequencies f of ||sum_k w_k exp(2 pi i <k, f>)||

    T is a part of the convolution on all of Z^d (zero padding cuts), which the Fourier transform turns into these matrices
    W(f). Along an axis of n + 1 taps the largest norm on a grid of N > n places is at least cos(pi n / (2 N)) times the
    supremum: Re u* W(f) v exp(i (a - pi n f)) is a function of exponential type pi n, which falls from its maximum M no faster
    than M cos(pi n t), and the next place is 1 / (2 N) away. A stride is a kernel of stride 1 on blocks of the image.

    Guarantee: proved, rounding included. Errors: none; infinite where `budget` multiplications do not suffice.

    >>> difference = Kernel(np.array([1.0, -1.0]).reshape(1, 1, 1, 2), (1,), (1,))
    >>> 2 <= convolution_norm(difference) < 2.01
    True

    Source: DuffinSchaeffer1938; derived, docs/theory/bounds.md.
    """
    (taps,) = kernel.phases
    if not taps.size:
        return 0.0
    if taps.shape[1] > taps.shape[2]:  # the transpose has the same norm
        taps = taps.swapaxes(1, 2)
    groups, rows, columns, *sizes = taps.shape
    places = prod(sizes)
    by_matrices = groups * rows * columns * (rows + places) * 4.0
    by_products = groups * rows * rows * (prod(2 * n - 1 for n in sizes) + rows * 2 / 3)
    first = groups * rows * rows * columns * places * places / 2.0
    small = 1e-100 < float(np.max(np.abs(taps))) < 1e100
    choices = [_grids(sizes, budget / by_matrices), _grids(sizes, (budget - first) / by_products) if small else None]
    finest = max(choices, key=lambda g: 0 if g is None else prod(g))
    if finest is None:
        return inf
    slack = 1.0
    for n, grid in zip(sizes, finest, strict=True):
        slack *= cos(pi * (n - 1) / (2 * grid)) if n > 1 else 1.0
    cost = len(points := list(_frequencies(finest))) * by_products + first
    array = np.asarray(taps, float)
    if finest == choices[1] and (finest != choices[0] or cost < len(points) * by_matrices):
        upper = _norm_by_products(array, points)
    else:
        upper = _norm_by_matrices(array, points)
    return upper / slack * (1 + 8 * UNIT)


def _norm_by_matrices(taps: Floats, points: Sequence[tuple[float, ...]]) -> float:
    """Bound the largest ||W(f)|| at points."""
    groups, rows, columns, *sizes = taps.shape
    flat, indices = taps.reshape(groups * rows * columns, -1), np.indices(sizes).reshape(len(sizes), -1)

    def stacks() -> Iterator[NDArray[Any]]:
        many = max(int(4e6 / (groups * rows * columns)), 1)
        for start in range(0, len(points), many):
            waves = np.exp(2j * pi * np.array(points[start : start + many]) @ indices)
            yield (waves @ flat.T).reshape(-1, rows, columns)

    size = float(np.max(np.abs(flat).sum(1)))
    rounding = 8 * (len(flat[0]) + 8) * UNIT * size * sqrt(rows * columns)
    return largest_spectral_norm(stacks(), inf).upper + rounding


def _norm_by_products(taps: Floats, points: Sequence[tuple[float, ...]]) -> float:
    """Bound the largest ||W(f)|| at points by W(f) W(f)* = sum over d of C_d exp(2 pi i <d, f>), C_d = sum_k w_{k+d} w_k'.

    C_{-d} = C_d', so that half of them is enough. Rounding of a C_d, of a wave and of the sum adds for each pair of places at
    most (columns + the largest phase + the number of pairs) units of ||w_k|| ||w_l||.
    """
    groups, rows, columns, *sizes = taps.shape
    indices = list(np.ndindex(*sizes))
    matrices = [np.ascontiguousarray(taps[(slice(None),) * 3 + k]) for k in indices]
    products: dict[tuple[int, ...], Floats] = {}
    for (k, v), (l, w) in product(zip(indices, matrices, strict=True), repeat=2):
        d = tuple(a - b for a, b in zip(k, l, strict=True))
        if d >= (0,) * len(sizes):
            products[d] = products.get(d, 0.0) + v @ w.swapaxes(1, 2)
    center = products.pop((0,) * len(sizes))
    apart = np.array(list(products), float).reshape(len(products), len(sizes))
    flat = np.reshape(list(products.values()), (len(products), center.size))
    lengths = float(np.sum(np.sqrt(np.sum(np.square(taps), axis=(1, 2))), axis=tuple(range(1, 1 + len(sizes)))).max())
    phases = 2 * pi * sum(2 * n for n in sizes)
    error = 8 * (columns + phases + len(indices) ** 2 + 16) * UNIT * lengths**2

    def stacks() -> Iterator[NDArray[Any]]:
        many = max(int(1e6 / (groups * rows * rows)), 1)
        for start in range(0, len(points), many):
            angles = 2 * pi * np.array(points[start : start + many]) @ apart.T
            half = np.empty((len(angles), flat.shape[1]), complex)
            half.real, half.imag = np.cos(angles) @ flat, np.sin(angles) @ flat
            grams = half.reshape(-1, rows, rows)
            grams = grams + grams.conj().swapaxes(1, 2)
            grams += np.tile(center, (len(angles), 1, 1))
            yield grams

    return largest_root(stacks(), error)


def _grids(sizes: Sequence[int], points: float) -> tuple[int, ...] | None:
    """Choose a grid of frequencies of at most so many points; real kernels have half of them."""
    for finer in (32, 16, 12, 8, 6, 4, 3, 2):
        grids = tuple(1 if n == 1 else finer * (n - 1) for n in sizes)
        if prod(grids) / 2 <= min(points, 1_024):
            return grids
    return None


def _frequencies(grids: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """Walk the frequencies of a grid: of f and -f, whose matrices are conjugate, one."""
    for at in product(*(range(n) for n in grids)):
        opposite = tuple(-a % n for a, n in zip(at, grids, strict=True))
        if at <= opposite:
            yield tuple(a / n for a, n in zip(at, grids, strict=True))


# --- the record -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Geometry:
    """What the attributes of a call say."""

    call: Called

    @cached_property
    def axes(self) -> list[Meetings]:
        """The meetings of windows and entries along every axis."""
        a = self.call.attributes
        names = ("spatial", "kernel", "stride", "padding", "base_dilation", "dilation")
        return [meetings(*row) for row in zip(*(a[n] for n in names), strict=True)]

    @cached_property
    def windows(self) -> float:
        """The constant c of the bilinear map."""
        return sqrt(prod(min(m.per_entry, m.per_result, m.per_place) for m in self.axes))

    @property
    def terms(self) -> int:
        """The products that are summed into the entry that has most."""
        a = self.call.attributes
        return int(a["channels"][0] // a["groups"] * prod(m.per_result for m in self.axes))

    @property
    def plain(self) -> bool:
        """Whether the first axis of the kernel is that of the result's channels, and no image is spread."""
        a = self.call.attributes
        usual = "layout" not in a and self.call.operation != "conv_tbc" and not a["transposed"]
        return usual and all(s == 1 for s in a["base_dilation"])

    @cached_property
    def padded(self) -> bool:
        """Whether a window may hold less than all its places."""
        return any(max(pair) > 0 for pair in self.call.attributes["padding"])

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.call.attributes["kernel"])

    def kernel(self, value: Any) -> Kernel | None:
        """Give a kernel group by group, and the stride and dilation with which it runs; None if its layout is another."""
        a, array = self.call.attributes, np.asarray(value)
        (taken, given), groups, d = a["channels"], a["groups"], len(self._sizes)
        if np.iscomplexobj(array):
            return None
        if "layout" in a:
            array = np.transpose(array, a["layout"][1])
        elif self.call.operation == "conv_tbc":
            array = array.transpose(2, 1, 0)
        elif a["transposed"]:
            array = array.reshape(groups, taken // groups, given // groups, *self._sizes).swapaxes(1, 2)
            array = array.reshape(given, taken // groups, *self._sizes)
        if array.shape[0] % groups:
            return None
        array = array.reshape(groups, array.shape[0] // groups, *array.shape[1:])
        base, stride = tuple(a["base_dilation"]), tuple(a["stride"])
        if any(s != 1 for s in base) and any(s != 1 for s in stride):
            stride = (1,) * d  # of both, a bound without one of them
        if any(s != 1 for s in base):
            return Kernel(array.swapaxes(1, 2), base, tuple(a["dilation"]))
        return Kernel(array, stride, tuple(a["dilation"]))


def _kernel_norm(call: Called, geometry: _Geometry, kernel: Reach) -> float:
    """Bound the norm of the convolution with all kernels that are reached.

    The least of: c ||K||; the norm of K as a matrix, where that is known; where the center is known, its norm by
    frequencies, or by its matrices of channels and places
    (rows of patches, and the transpose), and c distance.
    """
    bound = float(times(geometry.windows, min(kernel.norm, sqrt(kernel.size) * kernel.peak)))
    met, held = (sqrt(prod(getattr(m, n) for m in geometry.axes)) for n in ("per_entry", "per_result"))
    if geometry.plain:
        bound = min(bound, float(times(met, kernel.operator)))
    if kernel.center is None or not isfinite(kernel.distance) or not kernel.size:
        return bound
    found = geometry.kernel(kernel.center)
    if found is None:
        return bound
    array, spread = found.array, any(s != 1 for s in call.attributes["base_dilation"])
    groups, rows, columns = array.shape[:3]
    wide, tall = (held, met) if spread else (met, held)
    budget = min(call.budget, BUDGET)
    patches = spectral_norm(array.reshape(groups, rows, -1), budget).upper * wide
    turned = spectral_norm(array.swapaxes(1, 2).reshape(groups, columns, -1), budget).upper * tall
    center = min(patches, turned)
    if center > 0:
        center = min(center, convolution_norm(found, budget))
    return min(bound, center + geometry.windows * kernel.distance)


@bound_operation(*_NAMES)
def convolution(call: Called) -> Local:
    """Give y = K * x + b: ||D_x|| <= c ||K||, ||D_K|| <= c ||x||, ||D_x D_K|| <= c, ||D_b|| = sqrt(images positions).

        c^2 = product over the axes of min(windows per pixel, pixels per window, windows per place of the kernel)

    where windows per pixel are at most ceil(k gcd(s, d) / s) for kernel k, stride s, dilation d. Along one axis
    sum y_o x_i w_k over meetings is at most sqrt(windows per pixel) ||y|| ||x|| ||w|| (Cauchy-Schwarz: each pair of a
    result and a place, and of a pixel and a place, meets once), so are the other two; several axes and the channels
    multiply. Of a known kernel ||D_x|| is at most its norm by frequencies (`convolution_norm`) + c distance. Attained, up
    to the border of the image, by constant kernels.

    Source: RouletHarchaoui2021; derived, docs/theory/bounds.md (the printed bias constant 1 is not valid).
    """
    if call.attributes.get("pullback"):
        return _pulled(call)
    x, kernel = call.operands[:2]
    geometry = _Geometry(call)
    c = geometry.windows
    slope = (
        _kernel_norm(call, geometry, kernel) if x.moves or x.distance == 0 or kernel.distance == 0 else c * kernel.norm
    )
    peaked = float(times(c * sqrt(x.size), x.peak))
    lipschitz = [slope, min(float(times(c, x.norm)), peaked)]
    norm = min(float(times(v, u.norm)) for v, u in zip(lipschitz, (x, kernel), strict=True))
    local = Local(lipschitz, {(0, 1): c}, norm, *_entries(call, geometry))
    if len(call.operands) < 3:
        return local
    return plus(local, call.shape, _beside(call.operands[2], 0 if call.operation == "conv_tbc" else len(geometry.axes)))


def _beside(bias: Reach, axes: int) -> Reach:
    """Lay a bias beside the axes of space."""
    shape = (*bias.shape, *(1,) * axes)
    low, high = (v.reshape(shape) if v.shape == bias.shape else v for v in (bias.low, bias.high))
    center = None if bias.center is None else np.asarray(bias.center).reshape(shape)
    return Reach(shape, bias.norm, bias.lipschitz, bias.smoothness, low, high, center, bias.distance)


def _pulled(call: Called) -> Local:
    """Bound the pullback: its operands are cotangent, image and kernel, and its first result is that for the image."""
    cotangent, image, kernel = call.operands[:3]
    c = sqrt(prod(call.attributes["kernel"]))
    wanted = list(call.attributes.get("output_mask", (True, True, True)))
    if wanted[:1] == [True]:
        slopes, cross = [kernel.norm, 0.0, cotangent.norm], (0, 2)
    elif wanted[1:2] == [True]:
        slopes, cross = [image.norm, cotangent.norm, 0.0], (0, 1)
    else:
        return Local([sqrt(cotangent.size), 0.0, 0.0], {}, sqrt(cotangent.size) * cotangent.norm)
    lipschitz = [float(times(c, v)) for v in slopes]
    return Local(lipschitz, {cross: c}, float(times(lipschitz[0], cotangent.norm)))


def _entries(call: Called, geometry: _Geometry) -> tuple[Floats | float, Floats | float]:
    """Enclose the entries before the bias: a patch times a kernel, and more where intervals or the kernel are known."""
    x, kernel = call.operands[:2]
    row = min(x.norm, float(times(sqrt(geometry.terms), x.peak)))
    window = min(kernel.norm, float(times(sqrt(geometry.terms), kernel.peak)))
    bound = min(float(times(row, window)), float(times(geometry.terms, float(times(x.peak, kernel.peak)))))
    low, high = -bound, bound
    known = kernel.center is not None and isfinite(kernel.distance) and not np.iscomplexobj(kernel.center)
    ends = extremes(x)
    found = geometry.kernel(kernel.center) if known else None
    if found is not None and x.size and isfinite(ends[0]) and isfinite(ends[1]):
        spread = any(s != 1 for s in call.attributes["base_dilation"])
        taps = np.asarray(found.array.swapaxes(1, 2) if spread else found.array, float)
        taps = taps.reshape(taps.shape[0] * taps.shape[1], -1)
        least, most = (min(ends[0], 0.0), max(ends[1], 0.0)) if geometry.padded or spread else ends
        up, down = np.maximum(taps, 0).sum(1), np.minimum(taps, 0).sum(1)
        away = kernel.distance * row + 4 * (geometry.terms + 8) * UNIT * x.peak * float(np.max(up - down, initial=0.0))
        low = max(low, float(np.min(least * up + most * down)) - away)
        high = min(high, float(np.max(most * up + least * down)) + away)
    if of_each((x, kernel)) and 5.0 * geometry.terms * prod(call.shape) <= call.budget:
        each = _of_each(call, row, geometry.terms)
        if each is not None:
            return np.maximum(each[0], low), np.minimum(each[1], high)
    return low, high


def _of_each(call: Called, row: float, terms: int) -> tuple[Floats, Floats] | None:
    """Enclose each entry: the product of middles, and radii times sizes, all run by the operation itself."""
    parts = []
    for u in call.operands[:2]:
        low, high = (np.broadcast_to(v, u.shape) for v in u.interval)
        if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
            return None
        known = u.center is not None and isfinite(u.distance) and not np.iscomplexobj(u.center)
        middle = np.asarray(u.center, float) if known else (low + high) / 2
        parts.append((middle, np.maximum(high - middle, middle - low)))
    (a, r), (b, s) = parts
    rest = [np.zeros(u.shape) for u in call.operands[2:]]
    wide = np.abs(a) + r
    found = [call.evaluate(u, v, *rest) for u, v in ((a, b), (wide, s), (r, np.abs(b)), (wide, np.abs(b) + s))]
    if any(f is None or f.shape != call.shape for f in found):
        return None
    middle, one, two, all_ = (np.asarray(f, float) for f in found)
    kernel = call.operands[1]
    if kernel.center is not None and isfinite(kernel.distance):
        ones = call.evaluate(wide * wide, np.ones(kernel.shape), *rest)
        if ones is not None:
            one = np.minimum(one, kernel.distance * np.sqrt(np.maximum(ones, 0.0)))
        one = np.minimum(one, kernel.distance * row)
    radius = one + two + 4 * (terms + 8) * UNIT * all_
    return middle - radius, middle + radius


def most_windows(kernel: int, stride: int, dilation: int) -> int:
    """Bound the windows that hold one entry: ceil(k gcd(s, d) / s).

    >>> most_windows(3, 1, 1), most_windows(3, 2, 1), most_windows(3, 2, 2), most_windows(2, 3, 1)
    (3, 2, 3, 1)
    """
    return ceil(kernel * gcd(stride, dilation) / stride)
