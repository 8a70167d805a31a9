"""What moves entries: a linear map whose norm is the square root of the largest number of copies of an entry.

It is one table of all moves, hence a long file.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.affine import copies_of, linear_norm, moved, nonnegative, spread
from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times
from nonsmooth.bounds.sizes import UNIT
from nonsmooth.program.windows import meetings

__all__: list[str] = []

_DATA = frozenset("self src source values value tensors tensor input tensor_list".split())
"""The arguments of torch's operators whose entries go into the result."""


def _alone(call: Called, norm: float, *others: float) -> Local:
    """Give the constants of what moves the entries of the first operand alone."""
    return moved(call, [norm] + [0.0] * (len(call.operands) - 1), (0,), others)


# --- each entry at most once ------------------------------------------------------------------------------------------


@bound_operation(
    *(
        "view reshape flatten unflatten squeeze unsqueeze permute transpose t moveaxis select slice narrow flip roll diagonal "
        "masked_select pixel_shuffle pixel_unshuffle channel_shuffle clone detach cast contiguous lift item "
        "view_as_real view_as_complex nan_to_num rot90"
    ).split()
)
def rearranged(call: Called) -> Local:
    """Every entry stands in the result at most once: l = 1, the entries stay; where it is spread, sqrt(copies). Tight.

    What is detached depends on the blocks all the same: it is the function that is bounded, not what is differentiated.
    """
    parts = call.operation.startswith("view_as")  # of complex numbers
    return _alone(call, 1.0 if parts else max(1.0, _spread_over(call.x, call.shape)))


@bound_operation("real", "imag", "conj")
def part(call: Called) -> Local:
    """A part of complex numbers, or their mirror image: l = 1; no part is larger than the norm. Tight."""
    return Local([1.0] + [0.0] * (len(call.operands) - 1), {}, call.x.norm, -call.x.norm, call.x.norm)


@bound_operation("diag", "diag_embed", "tril", "triu", "max_unpool2d", "max_unpool3d")
def among_zeros(call: Called) -> Local:
    """Every entry stands in the result at most once, beside zeros: l = 1. Tight."""
    return _alone(call, 1.0, 0.0)


@bound_operation("split", "chunk", "unbind")
def parts(call: Called) -> list[Local]:
    """The parts of an array, each with l = 1. Tight."""
    low, high = call.x.low, call.x.high
    if not low.shape and not high.shape:
        return [_alone(replace(call, results=(shape,)), 1.0) for shape in call.results]
    ends = [np.broadcast_to(v, call.x.shape) for v in call.x.interval]
    found, start = [], 0
    for shape in call.results:
        axis = _cut_axis(call, shape)
        if axis is None:
            found.append(Local([1.0], {}, call.x.norm, *extremes(call.x)))
            continue
        gone = len(shape) < len(call.x.shape)
        width = 1 if gone else shape[axis]
        pieces = [np.take(v, range(start, start + width), axis).reshape(shape) for v in ends]
        start += width
        found.append(Local([1.0], {}, call.x.norm, pieces[0], pieces[1]))
    return [replace(p, lipschitz=[1.0] + [0.0] * (len(call.operands) - 1)) for p in found]


def _cut_axis(call: Called, shape: Shape) -> int | None:
    """Find the axis along which an array is cut into its parts, one after the other."""
    whole = call.x.shape
    given = call.attributes.get("dim", call.attributes.get("axis"))
    if isinstance(given, int):
        candidates = [given % len(whole)]
    elif len(shape) == len(whole):
        candidates = [a for a, (n, m) in enumerate(zip(whole, shape, strict=True)) if n != m] or [0]
    else:
        candidates = [a for a in range(len(whole)) if whole[:a] + whole[a + 1 :] == shape]
    sizes = [1 if len(s) < len(whole) else s[candidates[0]] for s in call.results] if len(candidates) == 1 else []
    return candidates[0] if sizes and sum(sizes) == whole[candidates[0]] else None


@bound_operation("copy")
def copied(call: Called) -> Local | list[Local]:
    """The same entries, written over others if there are any: l = sqrt(copies), and 0 for what is overwritten. Tight."""
    if len(call.results) > 1:
        pairs = enumerate(zip(call.operands, call.results, strict=False))
        zeros = [0.0] * len(call.operands)
        return [Local([*zeros[:i], 1.0, *zeros[i + 1 :]], {}, u.norm, u.low, u.high) for i, (u, _) in pairs]
    place = len(call.operands) - 1 if "src" in call.given else 0
    norms = [0.0] * len(call.operands)
    norms[place] = _spread_over(call.operands[place], call.shape)
    return moved(call, norms, (place,))


@bound_operation("zero")
def zeros(call: Called) -> Local:
    """Zeros: l = 0."""
    return Local([0.0] * len(call.operands), {}, 0.0, 0.0, 0.0)


@bound_operation("create", "constant", "random")
def made(call: Called) -> Local:
    """What does not depend on the operands: l = 0."""
    return Local([0.0] * len(call.operands))


# --- several arrays ---------------------------------------------------------------------------------------------------


@bound_operation("cat", "stack", "block_diag", "complex")
def side_by_side(call: Called) -> Local:
    """Arrays side by side: l = 1 for each, added as squares. Tight."""
    others = (0.0,) if call.operation == "block_diag" else ()
    return moved(call, [1.0] * len(call.operands), range(len(call.operands)), others)


def _data(call: Called) -> list[int]:
    """Give the operands whose entries go into the result: the array, and what is put into it."""
    if call.given:
        found = [i for i, name in enumerate(call.given) if name in _DATA]
        return found or [0]
    if call.operation == "slice_scatter":  # JAX: the starts come last
        return [0, 1]
    return [0] if len(call.operands) == 1 else [0, len(call.operands) - 1]


@bound_operation(
    *(
        "scatter index_copy masked_scatter slice_scatter select_scatter diagonal_scatter as_strided_scatter index_put put "
        "index_fill fill"
    ).split()
)
def put_into(call: Called) -> Local:
    """Entries put in the places of others: l = 1 for those that stay, sqrt(copies) for those that are put. Tight.

    Both go into different places of the result, so that they add as squares. Where what is put is added instead: 1, and
    Schur's test.
    """
    places, others = _data(call), []
    value = call.attributes.get("value")
    if isinstance(value, int | float):
        others.append(float(value))
    if call.attributes.get("accumulate") or call.attributes.get("reduce") == "add":
        return _added(call, places)
    if call.attributes.get("reduce") is not None:
        return _multiplied(call)
    norms = [0.0] * len(call.operands)
    for p in places[1:]:
        norms[p] = sqrt(_copies_put(call, p))
    norms[places[0]] = 0.0 if call.operation == "fill" else max(1.0, _spread_over(call.operands[places[0]], call.shape))
    return moved(call, norms, places[1:] if call.operation == "fill" else places, others)


def _multiplied(call: Called) -> Local:
    """Give no constants to entries that are multiplied in their places, any number of times."""
    moving = [i for i, u in enumerate(call.operands) if u.moves]
    every = {(i, j): inf for i in moving for j in moving if i <= j}
    why = f"`{call.operation}` multiplies entries in their places: no bound is known"
    return Local([inf if u.moves else 0.0 for u in call.operands], every, why=why)


def _copies_put(call: Called, place: int) -> float:
    """Count how often an entry is put: once, but for what spreads over the places that indices name."""
    u, most = call.operands[place], float(prod(call.shape))
    if call.operation not in ("index_put", "put", "index_fill", "fill"):
        return 1.0
    indices = [v.shape for i, v in enumerate(call.operands) if i not in (0, place)]
    if call.operation == "index_put" and indices:
        try:
            rest = call.shape[len(indices) :]
            if prod(np.broadcast_shapes(*indices)) * prod(rest) == u.size:
                return 1.0
        except ValueError:
            pass
    return copies_of(call, place, most) if u.moves else most


def _added(call: Called, places: list[int]) -> Local:
    """Give the constants of entries that are added to others at places."""
    norms = [0.0] * len(call.operands)
    norms[places[0]] = 1.0
    terms = 1.0
    for p in places[1:]:
        sent = max(float(call.operands[p].size), float(prod(call.shape)))
        norms[p] = linear_norm(call, p, sent)
        terms += sent
    return nonnegative(call, norms, places, terms)


# --- copies -----------------------------------------------------------------------------------------------------------


def _spread_over(u: Reach, shape: Shape) -> float:
    """Give the norm of the map that spreads an array over a shape."""
    return sqrt(prod(shape) / u.size) if u.size else 0.0


@bound_operation("expand", "repeat", "tile")
def repeated(call: Called) -> Local:
    """Every entry n times: l = sqrt(n). Tight."""
    return _alone(call, _spread_over(call.x, call.shape))


@bound_operation("repeat_interleave")
def repeated_each(call: Called) -> Local:
    """Every entry n_i times: l = sqrt(max n_i). Tight where the n_i are known."""
    repeats = call.attributes.get("repeats")
    if isinstance(repeats, int):
        return _alone(call, sqrt(repeats))
    return _alone(call, sqrt(copies_of(call, 0, float(prod(call.shape)))))


@bound_operation("gather", "take", "index", "index_select")
def taken(call: Called) -> Local | list[Local]:
    """Entries at places given by indices: l = sqrt(copies of the entry that is taken most often). Tight.

    Where the indices are not known: the square root of how many there are.
    """
    if len(call.results) > 1:  # JAX: what is sorted by keys that stand still
        norms = np.eye(len(call.operands))
        pairs = enumerate(zip(call.operands, call.results, strict=False))
        return [Local(list(norms[i]), {}, u.norm, *extremes(u)) for i, (u, _) in pairs]
    if not call.given and _chooses(call):
        return moved(call, [0.0] + [1.0] * (len(call.operands) - 1), range(1, len(call.operands)))
    return _alone(call, sqrt(copies_of(call, 0, _most_copies(call))))


def _chooses(call: Called) -> bool:
    """Tell JAX's choice between arrays by a whole number from entries taken at starts."""
    rest = [u.shape for u in call.operands[1:]]
    return call.operation == "index" and bool(rest) and all(s == call.shape for s in rest)


def _most_copies(call: Called) -> float:
    """Bound the copies of an entry by the number of indices."""
    whole = float(prod(call.shape))
    indices = [u.shape for u in call.operands[1:]]
    if call.operation == "index_select" and indices:
        return min(whole, float(prod(indices[0])))
    if call.operation == "index":
        if not call.given:
            return 1.0
        places = np.broadcast_shapes(*indices) if indices else ()
        return min(whole, float(prod(places)))
    if call.operation == "gather" and call.given and indices and isinstance(call.attributes.get("dim"), int):
        return float(indices[0][call.attributes["dim"]]) if indices[0] else 1.0
    if call.operation == "gather" and not call.given and indices:
        return min(whole, float(prod(indices[0][:-1])))
    return whole


@bound_operation("as_strided")
def strided(call: Called) -> Local:
    """Entries at regular places of memory: l = sqrt(copies of the entry that is taken most often). Tight."""
    size, stride = call.attributes.get("size"), call.attributes.get("stride")
    if not isinstance(size, list | tuple) or not isinstance(stride, list | tuple):
        return _alone(call, sqrt(copies_of(call, 0, float(prod(call.shape)))))
    at = np.zeros(1, int)
    for n, s in zip(size, stride, strict=True):
        at = (at[:, None] + s * np.arange(n)).ravel()
    return _alone(call, sqrt(float(np.max(np.unique(at, return_counts=True)[1], initial=0))))


# --- padding ----------------------------------------------------------------------------------------------------------


@bound_operation("constant_pad_nd")
def padded(call: Called) -> Local:
    """Entries with a constant around them: l = 1, and sqrt(places) for a constant that moves. Tight."""
    if len(call.operands) > 1:
        most = float(prod(call.shape))
        grown = sqrt(copies_of(call, 1, most) if call.operands[1].moves else most)
        return moved(call, [1.0, grown], (0, 1))
    return _alone(call, 1.0, call.number("value", 0.0))


@bound_operation(*(f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)))
def padded_by_copies(call: Called) -> Local:
    """Entries with copies around them: l = sqrt(copies of the entry that is copied most often). Tight.

    The copies along axes multiply: a corner of a replication is copied in both.
    """
    widths = list(call.attributes["padding"])
    reflected = call.operation.startswith("reflection")
    most = 1
    for k in range(len(widths) // 2):
        n = call.x.shape[-1 - k]
        pads = max(widths[2 * k], 0), max(widths[2 * k + 1], 0)
        padded_places = np.pad(np.arange(n), pads, mode="reflect" if reflected else "edge")
        most *= int(np.max(np.bincount(padded_places), initial=0))
    return _alone(call, sqrt(most))


# --- windows ----------------------------------------------------------------------------------------------------------


@bound_operation("unfold")
def windows_along(call: Called) -> Local:
    """Windows along an axis: l = sqrt(windows that the entry in most of them is in). Tight."""
    if not call.x.shape:
        return _alone(call, sqrt(prod(call.shape)))
    a = call.attributes
    dim, size, step = a.get("dimension", a.get("dim")), a.get("size"), a.get("step")
    if not (isinstance(dim, int) and isinstance(size, int) and isinstance(step, int)):
        return _alone(call, sqrt(copies_of(call, 0, float(prod(call.shape)))))
    n = call.x.shape[dim]
    return _alone(call, sqrt(meetings(n, size, step).per_entry))


@bound_operation("im2col")
def unfolded(call: Called) -> Local:
    """The windows of images as columns: l = sqrt(windows that the pixel in most of them is in). Tight.

    The padding is of zeros.
    """
    return _alone(call, sqrt(_overlap(call, call.x.shape[-2:])), 0.0)


@bound_operation("col2im")
def folded(call: Called) -> Local:
    """Columns summed where their windows overlap: l = sqrt(windows that the pixel in most of them is in). Tight.

    It is the transpose of `im2col`; a pixel is a sum of as many entries as windows it is in.
    """
    most = _overlap(call, call.shape[-2:])
    return nonnegative(call, [sqrt(most)], (0,), most)


def _overlap(call: Called, sizes: Shape) -> int:
    """Count the windows that a pixel is in, at most."""
    names = ("kernel_size", "stride", "padding", "dilation")
    rows = zip(sizes, *(spread(call.attributes[n], 2) for n in names), strict=True)
    return prod(meetings(n, k, s, (p, p), 1, w).per_entry for n, k, s, p, w in rows)


# --- additions at places ----------------------------------------------------------------------------------------------


@bound_operation("scatter_add", "index_add")
def added_at(call: Called) -> Local:
    """u_(i_k) + alpha s_k: l = 1, and |alpha| sqrt(entries that go into the place with most). Tight where they are known.

    Each entry goes to one place, so that the rows of the map are orthogonal and their norms are the roots of the counts.
    """
    if call.attributes.get("pullback"):
        most = max(call.x.size - prod(call.shape) + 1, 1)
        norm = linear_norm(call, 0, float(most))
        return nonnegative(call, [norm] + [0.0] * (len(call.operands) - 1), (0,), float(most))
    places = [i for i, name in enumerate(call.given) if name in _DATA] or [0, len(call.operands) - 1]
    alpha, last = call.number("alpha", 1.0), places[-1]
    norms = [0.0] * len(call.operands)
    norms[0] = 1.0
    sent = float(call.operands[last].size)
    root = _hits(call, last, sent)
    norms[last] = abs(alpha) * root
    grown = sum(float(times(c, u.norm)) for c, u in zip(norms, call.operands, strict=True) if c)
    ends = [float(times(alpha * root * root, v)) for v in extremes(call.operands[last])]
    if not call.given:  # JAX: what is subtracted at places has the same name
        ends = [*ends, *(-v for v in ends)]
    base = [*extremes(call.x), *([] if call.attributes.get("include_self", True) else [0.0])]
    slack = 4 * (root * root + 4) * UNIT * max(map(abs, (*ends, *base)))
    slack = slack if isfinite(slack) else 0.0
    return Local(norms, {}, grown, min(base) + min(0.0, *ends) - slack, max(base) + max(0.0, *ends) + slack)


def _hits(call: Called, place: int, sent: float) -> float:
    """Give the root of the number of entries that go into the place with most: what ones add there."""
    if any(u.center is None and i not in (0, place) for i, u in enumerate(call.operands)):
        return sqrt(sent)
    arrays: list[Floats | None] = [None] * len(call.operands)
    arrays[0], arrays[place] = np.zeros(call.x.shape), np.zeros(call.operands[place].shape)
    zero = call.evaluate(*arrays)
    arrays[place] = np.ones(call.operands[place].shape)
    found = call.evaluate(*arrays)
    if found is None or zero is None:
        return sqrt(sent)
    scale = abs(call.number("alpha", 1.0)) or 1.0
    return sqrt(float(np.max(np.abs(found - zero), initial=0.0)) / scale)
