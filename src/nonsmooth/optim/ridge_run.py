"""A run of the ridge method: its points, and what was met on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table

__all__ = ["RidgeRun", "RidgeStep"]

ROWS = 12
"""At most so many steps are printed."""


@dataclass(frozen=True, eq=False)
class RidgeStep:
    """One step, as it is kept and given to a callback.

    Attributes:
        k: its number, from 0.
        value: F(x_k, y_k): f(x_k) if y_k is a maximiser.
        residual: the distance of w_k from the normal cone.
        norm: of v_k.
        step_size: a_k.
        kinks: how many were active at (x_k, y_k).
        partial_error: how far what backprop returns for x alone was from v_k.
        status: of the direction.
        x, y, v, w: the point and the pair, with `data` tensors of the user's framework; not kept by the run.
    """

    k: int
    value: float
    residual: float
    norm: float
    step_size: float
    kinks: int
    partial_error: float
    status: str
    x: Any = field(default=None, repr=False)
    y: Any = field(default=None, repr=False)
    v: Any = field(default=None, repr=False)
    w: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class RidgeRun(Reported):
    """What a run of the ridge method found.

    Attributes:
        x, y: the last point, and the maximiser found there.
        value: F(x, y) there.
        best_x, best_value: the point of the smallest value of the run, and that value.
        history: the steps, without their tensors.
        stopped: "steps" (all were done), "critical" (v = 0), "callback", or "direction" (a direction that is not to be
            followed).
        status: "computed" if every direction was, else "undecided".
        message: what stopped it, in a sentence.
    """

    x: Any
    y: Any
    value: float
    best_x: Any
    best_value: float
    history: tuple[RidgeStep, ...]
    stopped: str
    status: str
    message: str

    @property
    def values(self) -> list[float]:
        """F(x_k, y_k), step by step."""
        return [step.value for step in self.history]

    @property
    def residuals(self) -> list[float]:
        """The distance of w_k from the normal cone, step by step."""
        return [step.residual for step in self.history]

    @property
    def step_sizes(self) -> list[float]:
        """The a_k."""
        return [step.step_size for step in self.history]

    def table(self) -> Table:
        """Give some of the steps, evenly, the first and the last among them."""
        last = len(self.history) - 1
        chosen = sorted({round(i * last / (ROWS - 1)) for i in range(ROWS)}) if last >= ROWS else range(last + 1)
        rows = (self.history[k] for k in chosen)
        return Table(
            f"The ridge method, {len(self.history)} step(s) ({self.status})",
            ("step", "F(x, y)", "|v|", "step size", "w from the cone", "kinks", "partial is off by", "direction"),
            tuple((s.k, s.value, s.norm, s.step_size, s.residual, s.kinks, s.partial_error, s.status) for s in rows),
            "partial: what backprop returns for x alone.",
        )

    def document(self) -> Document:
        """Lay the run out for reading."""
        best = f"smallest value {self.best_value:.6g}, last value {self.value:.6g}"
        return Document("min over x of max over y of F(x, y)", (f"{best}; {self.message}", self.table()))

    __repr__ = Reported.__str__
