"""Order: entries are compared and chosen, and a chosen entry is another name of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__ = ["sorting"]


def sorting(n: int) -> int:
    """Bound the comparisons that sort n entries by those of a merge sort: n c - 2^c + 1, c = ceil(log2 n).

    >>> sorting(1), sorting(2), sorting(8), sorting(9)
    (0, 1, 17, 21)
    """
    halvings = max(n - 1, 0).bit_length()
    return n * halvings - 2**halvings + 1 if n else 0


def _rows(call: Called) -> tuple[int, int]:
    """Count the rows along which an operation compares, and their entries."""
    axes = call.attributes.get("axes")
    chosen = range(call.x.ndim) if axes is None else axes
    length = int(np.prod([call.x.shape[a] for a in chosen], dtype=int))
    return call.x.size // max(length, 1), length


def _ranked(call: Called, ranks: Any, *, descending: bool = False) -> Any:
    """Give how entries of some ranks along an axis are chosen, for whoever executes it."""
    axes = call.attributes.get("axes")

    def how(values: Any) -> Any:
        places = np.arange(values.size).reshape(values.shape)
        if values.ndim == 0 or axes is None or len(axes) == values.ndim > 1:
            values, places, axis = values.reshape(-1), places.reshape(-1), 0
        else:
            axis = axes[0]
        order = np.argsort(-values if descending else values, axis, kind="stable")
        sorted_places = np.take_along_axis(places, order, axis)
        return np.take(sorted_places, np.asarray(ranks(values.shape[axis])), axis).reshape(call.shape)

    return how


def _extreme(name: str, sign: int) -> None:
    """Define a largest (1) or smallest (-1) entry along axes: n - 1 comparisons among n."""

    @define(*name.split())
    def definition(call: Called) -> Numbers:
        rows, length = _rows(call)

        def how(values: Any) -> Any:
            axes = call.attributes.get("axes")
            chosen = list(range(values.ndim)) if axes is None else list(axes)
            kept = [a for a in range(values.ndim) if a not in chosen]
            flat = (sign * values).transpose([*kept, *chosen]).reshape(rows, length)
            places = np.arange(values.size).reshape(values.shape).transpose([*kept, *chosen]).reshape(rows, length)
            return places[np.arange(rows), flat.argmax(1)].reshape(call.shape)

        return call.x.chosen(call.shape, rows * max(length - 1, 0), how)


_extreme("max max_dim amax", 1)
_extreme("min min_dim amin", -1)


def _cumulative(name: str, sign: int) -> None:
    """Define the largest (1) or smallest (-1) entry so far: n - 1 comparisons among n; ties go to the later one."""

    @define(name)
    def definition(call: Called) -> Numbers:
        rows, length = _rows(call)

        def how(values: Any) -> Any:
            if not values.ndim:
                return np.zeros((), dtype=int)
            axis = call.attributes["axes"][0]
            flip = (lambda a: np.flip(a, axis)) if call.attributes.get("reverse") else (lambda a: a)
            best = np.maximum.accumulate(flip(sign * values), axis)
            index = np.arange(values.shape[axis]).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            last = np.maximum.accumulate(np.where(flip(sign * values) == best, index, 0), axis)
            places = flip(np.arange(values.size).reshape(values.shape))
            return flip(np.take_along_axis(places, last, axis))

        return call.x.chosen(call.shape, rows * max(length - 1, 0), how)


_cumulative("cummax", 1)
_cumulative("cummin", -1)


@define("sort")
def sort(call: Called) -> Numbers:
    """All entries by rank: at most the comparisons of a merge sort along an axis."""
    rows, length = _rows(call)
    how = _ranked(call, range, descending=bool(call.attributes.get("descending")))
    return call.x.chosen(call.shape, rows * sorting(length), how)


@define("topk")
def top(call: Called) -> Numbers:
    """The k largest entries, sorted: a tournament of n - 1 comparisons, then ceil(log2 n) for each further one.

    Never more than a sort.
    """
    rows, n = _rows(call)
    k = int(call.attributes["k"])
    largest = bool(call.attributes.get("largest", call.attributes.get("descending", True)))
    how = _ranked(call, lambda _: range(k), descending=largest)
    return call.x.chosen(call.shape, rows * (_selection(n, k) if k else 0), how)


@define("kthvalue")
def ranked(call: Called) -> Numbers:
    """The k-th smallest entry, from the nearer end: a tournament, as in `topk`."""
    k, (rows, n) = int(call.attributes["k"]), _rows(call)
    return call.x.chosen(call.shape, rows * _selection(n, min(k, n + 1 - k)), _ranked(call, lambda _: k - 1))


@define("median")
def median(call: Called) -> Numbers:
    """The lower median: a sort."""
    rows, n = _rows(call)
    return call.x.chosen(call.shape, rows * sorting(n), _ranked(call, lambda m: (m - 1) // 2))


@define("nanmedian")
def nanmedian(call: Called) -> Numbers:
    """The lower median of what is a number: a comparison of each entry with itself, and a sort.

    It is a kernel that the dictionary opens: counted in the framework's own passes alone.
    """
    dim = call.attributes.get("dim")
    n = call.x.size if dim is None else call.x.shape[dim] if call.x.ndim else 1
    call.tally.add("compare", "", call.x.size // max(n, 1) * (n + sorting(n)))
    return call.x.like(call.shape)


def _selection(n: int, k: int) -> int:
    """Count the comparisons that find the k-th of n entries by a tournament, never more than a sort."""
    return min(max(n - 1, 0) + max(k - 1, 0) * max(n - 1, 0).bit_length(), sorting(n))


@define("mode")
def mode(call: Called) -> Numbers:
    """The most frequent entry: a sort, then n - 1 comparisons of neighbours; lengths of runs are whole numbers."""
    rows, n = _rows(call)

    def how(values: Any) -> Any:
        axes = call.attributes["axes"]
        flat = np.moveaxis(values, axes[0], -1).reshape(rows, n) if values.ndim else values.reshape(1, 1)
        places = np.arange(values.size).reshape(values.shape)
        places = np.moveaxis(places, axes[0], -1).reshape(rows, n) if values.ndim else places.reshape(1, 1)
        counts = (flat[:, :, None] == flat[:, None, :]).sum(2)
        best = np.lexsort((flat, -counts), axis=1)[:, :1] if rows else np.zeros((0, 1), dtype=int)
        chosen = np.take_along_axis(flat, best, 1)
        last = n - 1 - np.argmax((flat == chosen)[:, ::-1], axis=1)
        return places[np.arange(rows), last].reshape(call.shape)

    return call.x.chosen(call.shape, rows * (sorting(n) + max(n - 1, 0)), how)
