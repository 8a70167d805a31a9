"""Trends: what the first steps of a sequence suggest of its tail, where no formula is known. Status: `sampled`.

The steps are cut into blocks, each twice as long as the one before. With s_i the sum over a block and u_i the largest
step in it,

    a_k ~ c k^-q (log k)^-p   gives   log s_i = c' + (1 - q) log k_i - p log log k_i,   log u_i = c'' - q log k_i - ...

The growth over the last blocks and the two exponents fitted to them decide what is clear, and leave the rest open: no
number of samples tells 1/(k log k), whose sum is infinite, from 1/(k (log k)^2), whose sum is finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.optim.tail import Answer

__all__ = ["SHORT", "Trend"]

BLOCKS, SPAN = 12, 4
"""At most so many blocks are used, the last; and growth is measured over so many doublings."""

SHORT = 512
"""Fewer steps say nothing."""

FLAT, FALLEN = 0.999, 0.7
"""What is at least FLAT of its value SPAN doublings ago does not fall; at most FALLEN of it, it does."""

FIT = 1e-3
"""The exponents are believed where they reproduce the logarithms to within this."""


@dataclass(frozen=True)
class Trend:
    """The first steps of a sequence, and how they went on: for ever as far as is known, or to an end.

    Attributes:
        steps: a_0 .. a_(n-1), finite.
        end: empty, or why there are no more steps.
    """

    steps: Floats
    end: str = ""

    def __str__(self) -> str:
        """Say what was looked at."""
        return f"{len(self.steps):,} steps"

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """The blocks, from the earliest to the last: [n/2^(i+1), n/2^i), n rounded down so that all are exact."""
        count = max(0, min(BLOCKS, (len(self.steps) // 16).bit_length()))
        unit = len(self.steps) >> count
        return list(pairwise(unit << i for i in range(count + 1)))

    def nonnegative(self) -> Answer:
        """Whether no step was negative."""
        below = np.flatnonzero(self.steps < 0)
        if len(below):
            return False, f"a_k = {self.steps[below[0]]:g} at k = {below[0]}"
        return True, f"no negative step among {self}"

    def infinite_sum(self) -> Answer:
        """Whether the partial sums seem to grow without bound."""
        if self.end:
            return False, f"{self.end}: the sum is finite"
        if len(self.steps) < SHORT:
            return None, f"only {self}"
        sums = np.array([float(self.steps[low:high].sum()) for low, high in self.blocks])
        if sums[-1] <= 0:
            return False, f"nothing is added from k = {self.blocks[-1][0]:,} on"
        if (sums[-SPAN - 1 :] <= 0).any():
            return None, f"among {self} the sum stands still for long, and grows again"
        growth = sums[-SPAN:] / sums[-SPAN - 1 : -1]
        total = f"sum a_k = {self.steps.sum():.4g} after {self}"
        if growth.min() >= FLAT:
            return True, f"{total}; every doubling of k adds at least as much as the one before"
        if growth.max() <= 0.8:
            return False, f"{total}; every doubling of k adds at most {growth.max():.2g} of what the one before added"
        power, log_power, residual = self._fit(sums, [(low + high) / 2 for low, high in self.blocks], 1.0)
        if residual < FIT and power > 1.05 and abs(log_power) < 0.5:
            return False, f"{total}; a_k falls like k^-{power:.3g}"
        return None, f"{total}; samples cannot tell 1/(k log k), an infinite sum, from 1/(k (log k)^2), a finite one"

    def below_logarithm(self) -> Answer:
        """Whether a_k log k seems to tend to 0."""
        return self._falling("a_k log k", np.log(np.maximum(np.arange(len(self.steps)), 2)), 1.5)

    def vanishing(self) -> Answer:
        """Whether a_k seems to tend to 0."""
        return self._falling("a_k", np.ones(len(self.steps)), 0.5)

    def steady(self, steps_per_epoch: int) -> Answer:
        """Whether the steps of an epoch seem to become equal."""
        whole = len(self.steps) // steps_per_epoch
        if steps_per_epoch == 1:
            return True, "an epoch is one step"
        if whole < 64:
            return None, f"only {whole} whole epochs"
        epochs = np.abs(self.steps[: whole * steps_per_epoch]).reshape(whole, steps_per_epoch)
        top = epochs.max(1)
        spread = np.where(top > 0, (top - epochs.min(1)) / np.where(top > 0, top, 1.0), 0.0)
        late, early = float(spread[whole // 2 :].max()), float(spread[whole >> SPAN + 1 : whole >> SPAN].max())
        if late <= 1e-12:
            return True, f"equal within each of the last {whole - whole // 2:,} epochs"
        told = f"(max - min)/max within an epoch is {late:.2g}, {early:.2g} earlier, among {whole:,} epochs"
        return (True if late <= FALLEN * early else False if late >= max(0.98 * early, 0.01) else None), told

    def same_rate(self, other: Trend) -> Answer:
        """Whether the ratio of two sequences seems to tend to a positive number."""
        count = min(len(self.steps), len(other.steps))
        one, two = self.steps[:count], other.steps[:count]
        if count < SHORT or (one[count // 2 :] <= 0).any() or (two[count // 2 :] <= 0).any():
            return None, "the ratio of the groups cannot be seen"
        ratio = one[count // 2 :] / two[count // 2 :]
        before = one[count >> SPAN] / two[count >> SPAN] if two[count >> SPAN] > 0 else np.inf
        change, spread = float(ratio[-1] / before), float(ratio.max() / ratio.min() - 1)
        if spread < 1e-5:
            return True, f"the ratio of the groups is {ratio[-1]:.4g} from k = {count // 2:,} on"
        return (None if FALLEN < change < 1 / FALLEN else False), f"the ratio of the groups changes by {change:.3g}"

    def _falling(self, name: str, weight: Floats, needed: float) -> Answer:
        """Decide whether the steps times a weight tend to 0; `needed` is the power of log k that is clearly enough."""
        if self.end:
            return True, self.end
        if len(self.steps) < SHORT:
            return None, f"only {self}"
        held = np.abs(self.steps) * weight
        tops = np.array([float(held[low:high].max()) for low, high in self.blocks])
        if tops[-1] == 0:
            return True, f"a_k = 0 from k = {self.blocks[-1][0]:,} on"
        told = f"max {name} = {tops[-1]:.3g} for k >= {self.blocks[-1][0]:,}, {tops[-SPAN - 1]:.3g} at k / {2**SPAN}"
        plain = np.array([float(np.abs(self.steps[low:high]).max()) for low, high in self.blocks])
        power, log_power, residual = self._fit(plain, [float(low) for low, _ in self.blocks], 0.0)
        fitted = residual < FIT
        if tops[-1] <= FALLEN * tops[-SPAN - 1] or (
            fitted and (power > 0.03 or (abs(power) <= 0.03 and log_power > needed))
        ):
            return True, told
        flat = fitted and abs(power) < 0.01 and 0.1 < log_power < 1.05
        stays = plain[-1] >= FLAT * plain[-SPAN - 1]
        return (False if stays or (flat and tops[-1] >= FLAT * tops[-SPAN - 1]) else None), told

    def _fit(self, values: Floats, places: list[float], shift: float) -> tuple[float, float, float]:
        """Fit the exponents q and p to the last blocks, and give them with the largest residual."""
        if len(values) < 7 or (values[-8:] <= 0).any():
            return float("nan"), float("nan"), float("inf")
        logs = np.log(places[-8:])
        columns = np.stack([np.ones_like(logs), logs, np.log(logs)], 1)
        target = np.log(values[-8:])
        found = np.linalg.lstsq(columns, target, rcond=None)[0]
        return shift - float(found[1]), -float(found[2]), float(np.abs(columns @ found - target).max())
