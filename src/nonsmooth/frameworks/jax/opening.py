"""Openings: equations that hold kinks of several operations, or of another form, written with primitives of the table.

Each is a pure function of the equation's inputs: the same values, the same derivatives away from ties, and at ties the
kinks of the records that it is written with. One table, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.frameworks.jax.equations import Equation, is_inexact

__all__ = ["OPENED", "opened"]

TABLE_LIMIT = 1 << 22
"""How many entries the table of what lands on each place of a scatter may have; beyond, places are merged pair by pair."""

Opened = Callable[..., Any]


# --- sorting ----------------------------------------------------------------------------------------------------------


def _sort(e: Equation) -> Opened | None:
    """Sort keys beside their indices, and take what else is carried by the indices."""
    keys, axis = e.params["num_keys"], e.params["dimension"]
    carried = any(is_inexact(aval) for aval in e.inputs[1:])
    if not any(e.moving[:keys]) or (keys == 1 and not carried):
        return None

    def function(*arrays: Any) -> list[Any]:
        place = lax.broadcasted_iota(np.int32, arrays[0].shape, axis)
        order, first = place, arrays[0]
        for key in reversed(arrays[:keys]):  # stable sorts, the first key last
            laid = key if order is place else _taken(key, order, axis)
            first, turn = lax.sort((laid, place), dimension=axis, num_keys=1, is_stable=True)
            order = turn if order is place else _taken(order, turn, axis)
        return [first, *(_taken(array, order, axis) for array in arrays[1:])]

    return function


def _taken(array: Any, order: Any, axis: int) -> Any:
    """Take entries along an axis."""
    return jnp.take_along_axis(array, order, axis=axis, mode="promise_in_bounds")


def _from_the_end(cumulative: Callable[..., Any]) -> Callable[[Equation], Opened | None]:
    """Turn an axis round, accumulate, and turn it back."""

    def opening(e: Equation) -> Opened | None:
        axis = e.params["axis"]
        return (lambda u: lax.rev(cumulative(lax.rev(u, (axis,)), axis=axis), (axis,))) if e.params["reverse"] else None

    return opening


def _approx_top_k(e: Equation) -> Opened | None:
    """Take the k largest (smallest) entries without approximation."""
    p = e.params
    if not p["aggregate_to_topk"]:
        return None
    axis = p["reduction_dimension"] % len(e.inputs[0].shape)

    def function(u: Any) -> tuple[Any, Any]:
        values, places = lax.top_k(u if p["is_max_k"] else -u, p["k"], axis=axis)
        return (values if p["is_max_k"] else -values), places

    return function


# --- windows ----------------------------------------------------------------------------------------------------------


def _padded(u: Any, fill: Any, p: Mapping[str, Any]) -> Any:
    """Pad and dilate the operand of windows (negative padding cuts it)."""
    dilation = p.get("base_dilation") or (1,) * u.ndim
    config = [(before, after, d - 1) for (before, after), d in zip(p["padding"], dilation, strict=True)]
    return lax.pad(u, jnp.asarray(fill, u.dtype), config)


def _places(u: Any, p: Mapping[str, Any]) -> list[Any]:
    """Give for every place in the window the strided slice of the padded operand that holds its entries."""
    dilation = p.get("window_dilation") or (1,) * u.ndim
    axes = list(zip(u.shape, p["window_dimensions"], p["window_strides"], dilation, strict=True))
    counts = [(n - (w - 1) * d - 1) // s + 1 for n, w, s, d in axes]
    found = []
    for offset in product(*(range(w) for w in p["window_dimensions"])):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        stop = [b + (m - 1) * s + 1 for b, m, s in zip(start, counts, p["window_strides"], strict=True)]
        found.append(lax.slice(u, start, stop, p["window_strides"]))
    return found


def _window_max(e: Equation) -> Opened | None:
    """Pad the operand with -inf, then take the largest entries of plain windows."""
    p = e.params
    if all(d == 1 for d in p["base_dilation"]) and all(w >= 0 for pair in p["padding"] for w in pair):
        return None
    return lambda u: _largest(_padded(u, _lowest(u.dtype), p), p)


def _window_min(e: Equation) -> Opened | None:
    """Take the largest entries of the negative."""
    return lambda u: -_largest(_padded(-u, _lowest(u.dtype), e.params), e.params)


def _largest(u: Any, p: Mapping[str, Any]) -> Any:
    """Give the largest entry of each window of a padded operand."""
    dimensions, strides, dilation = p["window_dimensions"], p["window_strides"], p["window_dilation"]
    return lax.reduce_window_max_p.bind(
        u,
        window_dimensions=tuple(dimensions),
        window_strides=tuple(strides),
        padding=((0, 0),) * u.ndim,
        base_dilation=(1,) * u.ndim,
        window_dilation=tuple(dilation),
    )


def _lowest(dtype: Any) -> Any:
    """Give the smallest number of a type."""
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _later_wins(places: Sequence[Any], select: Any) -> list[Any]:
    """Mark for every place but the first where its entry beats all before it."""
    best, beats = places[0], []
    for entry in places[1:]:
        better = (entry > best) if select is lax.ge_p else (entry < best)
        beats.append(better)
        best = jnp.where(better, entry, best)
    return beats


def _select_and_gather(e: Equation) -> Opened:
    """Take of each window the first array's entry at the place of the second one's largest (smallest)."""
    p = e.params
    worst = -jnp.inf if p["select_prim"] is lax.ge_p else jnp.inf

    def function(taken: Any, compared: Any) -> Any:
        beats = _later_wins(_places(_padded(compared, worst, p), p), p["select_prim"])
        total, *others = _places(_padded(taken, 0, p), p)
        for better, other in zip(beats, others, strict=True):
            total = jnp.where(better, other, total)
        return total

    return function


def _select_and_scatter(e: Equation) -> Opened:
    """Add the source to the places of the largest (smallest) entries of the windows."""
    p = e.params
    worst = -jnp.inf if p["select_prim"] is lax.ge_p else jnp.inf

    def function(source: Any, compared: Any) -> Any:
        padded = _padded(compared, worst, p)
        beats = _later_wins(_places(padded, p), p["select_prim"])
        parts: list[Any] = []
        rest = source
        for better in reversed(beats):
            parts.append(jnp.where(better, rest, jnp.zeros_like(rest)))
            rest = jnp.where(better, jnp.zeros_like(rest), rest)
        parts.append(rest)
        spread = jax.linear_transpose(lambda u: _places(u, p), jax.ShapeDtypeStruct(padded.shape, source.dtype))
        (total,) = spread(parts[::-1])
        cut = [(-before, -after, 0) for before, after in p["padding"]]
        return lax.pad(total, jnp.zeros((), total.dtype), cut)

    return function


# --- reductions by a function of the user's ---------------------------------------------------------------------------


def _combined(closed: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Combine the entries along the last axis pair by pair."""
    function = core.jaxpr_as_fun(closed)

    def pair(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        flat = [u.reshape(-1) for u in (*a, *b)]
        return tuple(v.reshape(a[0].shape) for v in jax.vmap(lambda *s: function(*s))(*flat))

    while parts[0].shape[-1] > 1:
        n = parts[0].shape[-1]
        half = n // 2
        merged = pair(tuple(u[..., :half] for u in parts), tuple(u[..., half : 2 * half] for u in parts))
        parts = tuple(jnp.concatenate((m, u[..., 2 * half :]), axis=-1) for m, u in zip(merged, parts, strict=True))
    return tuple(u[..., 0] for u in parts)


def _closed(jaxpr: Any, consts: Sequence[Any]) -> Any:
    """Close a jaxpr over its constants."""
    return jaxpr if hasattr(jaxpr, "consts") else core.ClosedJaxpr(jaxpr, consts)


def _reduce(e: Equation) -> Opened:
    """Combine the entries along the reduced axes pair by pair, then with the initial values."""
    closed, axes, count = _closed(e.params["jaxpr"], ()), e.params["dimensions"], len(e.inputs) // 2

    def function(*inputs: Any) -> list[Any]:
        kept = [a for a in range(inputs[0].ndim) if a not in axes]
        laid = [u.transpose(*kept, *axes).reshape(*(u.shape[a] for a in kept), -1) for u in inputs[:count]]
        first = [jnp.broadcast_to(i, (*u.shape[:-1], 1)) for i, u in zip(inputs[count:], laid, strict=True)]
        return list(_combined(closed, tuple(jnp.concatenate(p, axis=-1) for p in zip(first, laid, strict=True))))

    return function


def _reduce_window(e: Equation) -> Opened:
    """Combine the entries of every window pair by pair, then with the initial values, which also pad."""
    p, count = e.params, len(e.inputs) // 2
    closed = _closed(p["jaxpr"], p["consts"])

    def function(*inputs: Any) -> list[Any]:
        laid = [
            jnp.stack([jnp.broadcast_to(i, w[0].shape), *w], axis=-1)
            for u, i in zip(inputs[:count], inputs[count:], strict=True)
            for w in [_places(lax.pad(u, i, [(b, a, d - 1) for (b, a), d in _pairs(p)]), p)]
        ]
        return list(_combined(closed, tuple(laid)))

    return function


def _pairs(p: Mapping[str, Any]) -> Any:
    """Give the padding of each axis beside its dilation."""
    return zip(p["padding"], p["base_dilation"], strict=True)


# --- scatter ----------------------------------------------------------------------------------------------------------


def _scatter_extremum(sign: int) -> Callable[[Equation], Opened | None]:
    """Take for every entry the largest of it and of the updates that land on it (the smallest, for sign -1)."""

    def opening(e: Equation) -> Opened | None:
        if not is_inexact(e.inputs[0]):
            return None
        known = e.array(1)
        table = None if known is None else _table(e, known)

        def function(operand: Any, indices: Any, updates: Any) -> Any:
            size, empty = operand.size, jnp.full((1,), -sign * jnp.inf, operand.dtype)
            entries = jnp.concatenate((operand.reshape(-1), updates.reshape(-1), empty))
            if table is not None:
                laid = entries[table]
                best = laid.max(axis=-1) if sign > 0 else laid.min(axis=-1)
            else:
                place = _landing(e, operand.shape, indices, updates.shape).reshape(-1)
                place = jnp.concatenate((jnp.arange(size, dtype=place.dtype), place, jnp.full((1,), size, place.dtype)))
                best = _merged(entries, place, size, jnp.maximum if sign > 0 else jnp.minimum)
            return best.reshape(operand.shape)

        return function

    return opening


def _landing(e: Equation, shape: tuple[int, ...], indices: Any, updates: tuple[int, ...]) -> Any:
    """Give the place in the flat operand on which each update lands; its size for one that is dropped."""
    dims, size = e.params["dimension_numbers"], int(np.prod(shape))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=dims.update_window_dims,
        collapsed_slice_dims=dims.inserted_window_dims,
        start_index_map=dims.scatter_dims_to_operand_dims,
        operand_batching_dims=dims.operand_batching_dims,
        start_indices_batching_dims=dims.scatter_indices_batching_dims,
    )
    alone = {*dims.inserted_window_dims, *dims.operand_batching_dims}
    window = iter(dims.update_window_dims)
    sizes = tuple(1 if a in alone else updates[next(window)] for a in range(len(shape)))
    places = jnp.arange(size, dtype=np.int32).reshape(shape)
    mode = e.params["mode"]
    if mode is not None and mode != lax.GatherScatterMode.FILL_OR_DROP:
        return lax.gather(places, indices, numbers, sizes, mode=mode)
    return lax.gather(places, indices, numbers, sizes, mode=lax.GatherScatterMode.FILL_OR_DROP, fill_value=size)


def _table(e: Equation, indices: Any) -> Any:
    """List for every place of the operand the entries that land on it, itself first; None if the list is too long."""
    shape, updates = tuple(e.inputs[0].shape), tuple(e.inputs[2].shape)
    size, count = int(np.prod(shape)), int(np.prod(updates))
    with jax.ensure_compile_time_eval():
        place = np.asarray(_landing(e, shape, jnp.asarray(indices), updates)).reshape(-1)
    order = np.argsort(place, kind="stable")
    order = order[place[order] < size]
    landed = np.bincount(place[order], minlength=size)
    longest = int(landed.max(initial=0))
    if size * (1 + longest) > TABLE_LIMIT:
        return None
    table = np.full((size, 1 + longest), size + count)
    table[:, 0] = np.arange(size)
    first = np.cumsum(landed) - landed
    table[place[order], 1 + np.arange(len(order)) - first[place[order]]] = size + order
    return table


def _merged(entries: Any, place: Any, size: int, larger: Callable[[Any, Any], Any]) -> Any:
    """Give the extremum of the entries of every place 0 .. size - 1, each of which has one.

    Sorted by place, runs of 1, 2, 4 ... entries that end at each one are merged with the runs before them.
    """
    place, order = lax.sort((place, lax.iota(np.int32, len(place))), num_keys=1, is_stable=True)
    entries, shift = entries[order], 1
    while shift < len(entries):
        same = place[shift:] == place[:-shift]
        later = jnp.where(same, larger(entries[shift:], entries[:-shift]), entries[shift:])
        entries, shift = jnp.concatenate((entries[:shift], later)), 2 * shift
    count = jnp.zeros(size + 1, place.dtype).at[place].add(1)
    return entries[lax.cumsum(count)[:size] - 1]


# --- choices ----------------------------------------------------------------------------------------------------------


def _chosen_by_index(e: Equation) -> Opened | None:
    """Choose one of two by a number as by whether it is 1: so a mapped `cond` chooses."""
    if len(e.inputs) != 3 or e.inputs[0].dtype == bool or not e.moving[0] or not is_inexact(e.inputs[1]):
        return None
    return lambda index, first, second: lax.select_n(lax.ne(index, lax.full_like(index, 0)), first, second)


# --- functions --------------------------------------------------------------------------------------------------------


def _called(parameter: str) -> Callable[[Equation], Opened]:
    """Call what an equation wraps."""
    return lambda e: core.jaxpr_as_fun(_closed(e.params[parameter], ()))


OPENED: dict[str, Callable[[Equation], Opened | None]] = {
    "sort": _sort,
    "select_n": _chosen_by_index,
    "cummax": _from_the_end(lax.cummax),
    "cummin": _from_the_end(lax.cummin),
    "approx_top_k": _approx_top_k,
    "reduce_window_max": _window_max,
    "reduce_window_min": _window_min,
    "reduce_window": _reduce_window,
    "reduce": _reduce,
    "select_and_gather_add": _select_and_gather,
    "select_and_scatter_add": _select_and_scatter,
    "scatter-max": _scatter_extremum(1),
    "scatter-min": _scatter_extremum(-1),
    "composite": _called("jaxpr"),
    "linear_call": _called("callee"),
}
"""Primitives that may need opening."""


def opened(equation: Equation) -> Opened | None:
    """Give a function of the equation's inputs that replaces it; None where the table reads it as it is.

    The function returns an array, or a list of the equation's outputs.

    >>> aval = jax.ShapeDtypeStruct((3,), "float32")
    >>> turned = opened(Equation("cummax", {"axis": 0, "reverse": True}, (aval,), (True,), (None,)))
    >>> turned(jnp.array([1.0, 3.0, 2.0])).tolist()
    [3.0, 3.0, 2.0]
    """
    opening = OPENED.get(equation.primitive)
    return None if opening is None else opening(equation)
