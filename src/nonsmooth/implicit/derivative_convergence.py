"""How fast the derivatives of iterates settle, read from tangents that are pushed along with them.

    y_(k+1) = T(y_k, theta),   t_(k+1) = B_k t_k + A_k v,   [A_k B_k] the derivative of T at y_k that the framework gives

If every element of the conservative Jacobian of T in y has norm <= rho < 1, the t_k tend to the set { t : t = B t + A v },
linearly if the Jacobian at y_k tends linearly to that of the solution. Without that, the iterates may converge while the
derivatives do not.

Source: BoltePauwelsVaiter2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.implicit.matrix_products import JointSpectralRadius
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table

__all__ = ["DerivativeConvergence", "linear_rate", "read_convergence"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

FLOOR = 64.0
"""Changes below so many units of rounding, relative to the size of what changes, are rounding."""

GROWTH = 10.0
"""By how much the changes must grow, from the smallest one on, before they are said to diverge."""


@dataclass(frozen=True)
class DerivativeConvergence(Reported):
    """What was seen of the iterates and of their derivatives along random tangents.

    Attributes:
        steps: how many were made.
        iterates: |y_(k+1) - y_k|, one number a step.
        changes: |t_(k+1) - t_k|, the largest over the tangents.
        size: |t_K| at the end, likewise; `iterate_size` |y_K|.
        rate, iterate_rate: the estimated factor a step of both, over the second half of the steps above rounding; nan
            where too few steps tell.
        remaining: what the rate leaves to change, change rate / (1 - rate), relative to the size; inf for a rate >= 1.
        iterates_converged, converged: whether what remains is within the tolerance.
        diverging: whether the changes grow.
        tangents: how many random tangents were pushed; 0: nothing was.
        products: products of the elements of the conservative Jacobian at the last iterate, where they were looked at.
        reason: why nothing was pushed.
        status: "sampled": random tangents, and a finite number of steps.
    """

    steps: int
    iterates: tuple[float, ...]
    changes: tuple[float, ...]
    size: float
    iterate_size: float
    rate: float
    iterate_rate: float
    remaining: float
    iterates_converged: bool
    converged: bool
    diverging: bool
    tolerance: float
    tangents: int
    products: JointSpectralRadius | None = None
    reason: str = ""
    status: str = "sampled"

    @property
    def warning(self) -> str:
        """Say what is wrong, or nothing."""
        if not self.tangents:
            return f"the convergence of the derivatives was not monitored: {self.reason}." if self.reason else ""
        found = self._of_derivatives()
        if self.products is not None and self.products.lower > 1:
            found.append(
                f"elements of the conservative Jacobian at the last iterate have products that grow by {self.products.lower:.6g} "
                f"a step (computed, the word {self.products.letters}), though the iterates may converge: the derivative "
                "depends on the selections at the kinks, and those of the iterates are unbounded as a set. Use a smaller "
                "momentum, or `fixed_point`, which does not depend on the path"
            )
        return "; ".join(found)

    def _of_derivatives(self) -> list[str]:
        """Say what the tangents show."""
        still = self.changes[-1]
        if self.diverging:
            iterates = "converge" if self.iterates_converged or self.iterate_rate < 1 else "do not converge"
            return [
                f"the derivatives diverge: their changes grow to {still:.3g}, by {self.rate:.4g} a step, while the iterates "
                f"{iterates} (rate {self.iterate_rate:.4g}); the derivative of y_K is not that of a fixed point"
            ]
        if not self.iterates_converged:
            return [
                f"the iterates have not converged: |y_K - y_(K-1)| = {self.iterates[-1]:.3g} after {self.steps} steps, rate "
                f"{self.iterate_rate:.4g}: this is the derivative of y_K, not of a fixed point"
            ]
        if not self.converged:
            return [
                f"the derivatives have not converged though the iterates have: they change by {still:.3g} at step {self.steps}, "
                f"rate {self.rate:.4g}, and what remains is about {self.remaining:.2g} of their size{self._needed()}"
            ]
        return []

    def _needed(self) -> str:
        """Say how many more steps would do, where the rate tells."""
        if not 0 < self.rate < 1 or not math.isfinite(self.remaining):
            return ""
        return (
            f": about {math.ceil(math.log(self.tolerance / self.remaining) / math.log(self.rate))} more steps would do"
        )

    def document(self) -> Document:
        """Lay the report out for reading."""
        verdict = self.warning or "The derivatives have converged along the tangents that were pushed."
        rows = (
            ("iterates", self.iterates[0], self.iterates[-1], self.iterate_rate, self.iterates_converged),
            ("derivatives", *((self.changes[0], self.changes[-1]) if self.changes else ("", "")), self.rate, self.converged),
        )  # fmt: skip
        what = f"{self.tangents} random tangents" if self.tangents != 1 else "1 random tangent"
        note = f"{what}, {self.steps} steps; tolerance {self.tolerance:.2g}, relative; {self.status}."
        table = Table("Change a step", ("of", "first", "last", "rate", "converged"), rows, note)
        parts: tuple[str | Table, ...] = (verdict[0].upper() + verdict[1:].rstrip(".") + ".", table)
        return Document("Convergence of derivatives", parts if self.products is None else (*parts, str(self.products)))


def linear_rate(changes: Any, floor: float = 0.0) -> float:
    """Estimate the factor of a sequence that decays, or grows, linearly, from its second half above a floor.

        log c_k = a + k log(rate), by least squares

    nan where fewer than three numbers tell; 0 where the sequence has come to rest.

    >>> round(linear_rate([3.0 * 0.5**k for k in range(20)]), 9)
    0.5
    """
    values: Floats = np.asarray(changes, dtype=np.float64)
    above = np.flatnonzero(np.isfinite(values) & (values > floor))
    if not len(above):
        return 0.0 if len(values) else math.nan
    last = int(above[-1]) + 1
    kept = above[above >= last // 2] if last >= 6 else above
    if len(kept) < 3:
        return 0.0 if last < len(values) else math.nan
    return float(np.exp(np.polyfit(kept.astype(np.float64), np.log(values[kept]), 1)[0]))


def read_convergence(
    iterates: Floats,
    iterate_size: float,
    changes: Floats | None,
    size: float,
    eps: float,
    tolerance: float | None,
    tangents: int,
    reason: str = "",
) -> DerivativeConvergence:
    """Read the changes of K steps; `changes` has one row for each tangent."""
    allowed = math.sqrt(eps) if tolerance is None else tolerance
    steps = len(iterates)
    floor = FLOOR * eps * max(iterate_size, float(iterates[0]))
    iterate_rate = linear_rate(iterates, floor)
    still = _remaining(iterates, iterate_rate, iterate_size + float(iterates[0]), floor)
    if changes is None:
        return DerivativeConvergence(
            steps, _plain(iterates), (), math.nan, iterate_size, math.nan, iterate_rate, math.nan, still <= allowed, False,
            False, allowed, 0, None, reason,
        )  # fmt: skip
    largest = changes.max(0)
    scale = max(size, float(largest[0]))
    floor = FLOOR * eps * scale
    rate = linear_rate(largest, floor)
    smallest = int(np.argmin(largest))
    end = float(largest[-max(1, min(8, steps // 8)) :].max())
    diverging = not math.isfinite(end) or bool(
        rate > 1 and end > GROWTH * largest[smallest] and end > floor and end >= largest[0] * (1 - 1e-9) and steps > 4
    )
    remaining = _remaining(largest, rate, scale, floor)
    return DerivativeConvergence(
        steps, _plain(iterates), _plain(largest), size, iterate_size, rate, iterate_rate, remaining, still <= allowed,
        remaining <= allowed and not diverging, diverging, allowed, tangents,
    )  # fmt: skip


def _remaining(changes: Floats, rate: float, scale: float, floor: float) -> float:
    """Give what is left to change relative to a scale, as the rate tells; the last change itself if none does."""
    last = float(changes[-min(4, len(changes)) :].max()) if len(changes) > 4 else float(changes[-1])
    if last <= floor:
        return 0.0
    if not last < math.inf or rate >= 1:
        return math.inf
    return last / scale * (1.0 if math.isnan(rate) else max(1.0, rate / (1 - rate)))


def _plain(values: Floats) -> tuple[float, ...]:
    """Give numbers of Python."""
    return tuple(float(v) for v in values)
