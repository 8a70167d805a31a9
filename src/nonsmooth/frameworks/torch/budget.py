"""A budget for observations: what they cost, as a share of the training's time."""

from __future__ import annotations

import statistics
import time
from collections import deque

__all__ = ["Budget"]

KEPT = 64
"""The last so many steps without an observation tell what a step takes."""


class Budget:
    """Tells whether one more observation fits into a share of the time spent so far.

    extra = sum of (time of an observed step - median time of the last steps not observed) <= share (all time - extra).
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._plain: deque[float] = deque(maxlen=KEPT)
        self._observed: list[float] = []
        self._all = 0.0
        self._extra = 0.0
        self._since = time.perf_counter()

    def start(self) -> None:
        """Begin the first step."""
        self._since = time.perf_counter()

    def passed(self, observed: bool) -> None:
        """Account for a step that ends."""
        now = time.perf_counter()
        took, self._since = now - self._since, now
        self._all += took
        (self._observed if observed else self._plain).append(took)
        if self._plain and self._observed:
            usual = statistics.median(self._plain)
            self._extra += sum(max(0.0, t - usual) for t in self._observed)
            self._observed.clear()

    @property
    def allows(self) -> bool:
        """Whether another observation fits."""
        if not self._all:
            return True
        return not self._observed and self._extra <= self._share * (self._all - self._extra)
