"""Windows that move over an axis: how many meet one entry, one result, one place of the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Meetings", "meetings", "spans"]


@dataclass(frozen=True)
class Meetings:
    """Along one axis: the result, the entry and the place in the window of every meeting."""

    results: NDArray[np.int64]
    entries: NDArray[np.int64]
    places: NDArray[np.int64]

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


def _most(numbers: NDArray[np.int64]) -> int:
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

    >>> meetings(5, 3).per_entry, meetings(9, 3, stride=2).per_entry, meetings(9, 3, stride=3).per_entry
    (3, 2, 1)
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
