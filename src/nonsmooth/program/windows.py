"""Windows that move over an axis: which entries, places of the window and results meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Meetings", "Places", "flat_places", "geometry", "meetings", "spans"]

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


@dataclass(frozen=True)
class Meetings:
    """Along one axis: the result, the entry and the place in the window of every meeting; how many there are of each."""

    results: Places
    entries: Places
    places: Places

    @cached_property
    def count(self) -> int:
        """The number of meetings."""
        return len(self.results)

    def met(self, which: str) -> int:
        """Count the results, entries or places that take part in a meeting."""
        return len(np.unique(getattr(self, which)))

    @property
    def per_entry(self) -> int:
        """The windows that the entry in most of them is in."""
        return _most(self.entries)

    @property
    def per_result(self) -> int:
        """The entries in the window that holds most."""
        return _most(self.results)

    @property
    def per_place(self) -> int:
        """The windows whose place of some number holds an entry, for the place that does most often."""
        return _most(self.places)


def _most(numbers: Places) -> int:
    """Count the number that stands most often."""
    return int(np.max(np.bincount(numbers), initial=0)) if len(numbers) else 0


def meetings(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    base_dilation: int = 1,
    dilation: int = 1,
    results: int | None = None,
) -> Meetings:
    """Let a window move over an axis; entries between the dilated ones, and those outside, are no entries.

    The window at result o meets with its place k the entry i if  o stride + k dilation = low + i base_dilation.

    >>> meetings(5, 3, padding=(1, 1)).count, meetings(5, 3, stride=2).met("results"), meetings(5, 3).per_entry
    (13, 2, 3)
    """
    if results is None:
        length = max((size - 1) * base_dilation + 1, 0) + sum(padding)
        results = max((length - dilation * (kernel - 1) - 1) // stride + 1, 0)
    o, k = (a.ravel() for a in np.indices((results, kernel)))
    at = o * stride + k * dilation - padding[0]
    real = (at >= 0) & (at <= (size - 1) * base_dilation) & (at % base_dilation == 0)
    return Meetings(o[real], at[real] // base_dilation, k[real])


def spans(size: int, results: int) -> Meetings:
    """Let the window at result i of m run from floor(i n / m) to ceil((i + 1) n / m).

    >>> spans(5, 3).per_entry, spans(6, 3).per_entry
    (2, 1)
    """
    rows = [range(i * size // results, -((-(i + 1) * size) // results)) for i in range(results)]
    lengths = np.array([len(r) for r in rows], dtype=np.int64)
    entries = np.array([e for r in rows for e in r], dtype=np.int64)
    places = np.array([k for r in rows for k in range(len(r))], dtype=np.int64)
    return Meetings(np.repeat(np.arange(results), lengths), entries, places)


def geometry(attributes: Mapping[str, Any], results: Sequence[int] | None = None) -> list[Meetings]:
    """Give the meetings along every axis of a geometry."""
    names = ("spatial", "kernel", "stride", "padding", "base_dilation", "dilation")
    sizes: Sequence[int | None] = [None] * len(attributes["spatial"]) if results is None else results
    rows = zip(*(attributes[n] for n in names), sizes, strict=True)
    return [meetings(n, k, s, p, b, d, m) for n, k, s, p, b, d, m in rows]


def flat_places(axes: Sequence[Meetings], which: str, sizes: Sequence[int]) -> Places:
    """Give, for every combination of meetings, the flat place of what meets in an array of some sizes."""
    if not axes:
        return np.zeros(1, dtype=np.int64)
    grids = np.meshgrid(*(getattr(a, which) for a in axes), indexing="ij")
    if not prod(sizes):
        return np.zeros(0, dtype=np.int64)
    found: Places = np.asarray(np.ravel_multi_index([g.ravel() for g in grids], tuple(sizes)), dtype=np.int64)
    return found
