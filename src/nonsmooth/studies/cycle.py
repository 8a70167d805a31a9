"""Where the condition of the implicit function theorem fails, gradient steps can cycle without a word.

    min (x - s1)^2 + 4 (y - s2)^2,   s in argmax { (a + b)(-3 x + y + 2) : a in [0, 3], b in [0, 5] }

s is a vertex of the box on each side of the line -3 x + y + 2 = 0, so that its derivative is 0 there, and any point of the
box on the line. As a fixed point, s = P(s + (-3 x + y + 2)(1, 1)), I - B is the unit matrix beside the line and 0 on it.

Source: BolteLePauwelsSilvetiFalls2021.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nonsmooth.errors import NotInvertible, UsageError
from nonsmooth.implicit.implicit_function import ImplicitFunction, fixed_point
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.studies.cycle_layer import LayerRun, run_layer

__all__ = ["Crossing", "CycleStudy", "study_cycle"]

START = (1.0, 1.0)
BOX = (3.0, 5.0)

CROSSINGS = 8
"""How many crossings of the line are diagnosed, the last ones."""

POINTS = 8
"""How many points of the orbit beside the line."""


@dataclass(frozen=True)
class Crossing:
    """A step that crosses the line: where, and what `diagnose` says of the equation there.

    Attributes:
        step: its number.
        point: of the segment between the two iterates, where the solution jumps.
        invertible: whether every element is; None: undecided.
        smallest: the least singular value over the set; rule: what decided.
        line: the line of the program that holds the kinks.
    """

    step: int
    point: tuple[float, float]
    invertible: bool | None
    smallest: float
    rule: str
    line: str


@dataclass(frozen=True)
class CycleStudy(Reported):
    """Gradient steps with plain implicit differentiation, and what the check of the condition says of them.

    Attributes:
        orbit: the iterates (x, y), the start first; `values` the objective along them.
        x_range, y_range: over the second half; `turn` how many steps a turn takes, and `turns` how many were seen there.
        derivative: the largest |ds / d(x, y)| that plain implicit differentiation gave.
        residual: of its least squares solve at the start, relative to the right-hand side: 1 is no solution at all.
        beside: at how many of the points beside the line that were looked at the condition holds, and of how many.
        crossings: the last steps that cross the line.
        refused: what the library raises at the start, which lies on the line.
        layer: the same steps through a layer of cvxpylayers; None where that is not installed.
    """

    format_version: int
    setting: Mapping[str, Any]
    orbit: tuple[tuple[float, float], ...]
    values: tuple[float, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    turn: float
    turns: int
    derivative: float
    residual: float
    beside: tuple[int, int]
    crossings: tuple[Crossing, ...]
    refused: str
    layer: LayerRun | None
    seconds: float

    def document(self) -> Document:
        """Lay the study out for reading."""
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        parts = (self._story(), self._crossings(), f"{setting}.\nIn {self.seconds:.1f} s (measured).")
        return Document("A cycle where the implicit function theorem does not apply", parts)

    def _story(self) -> str:
        """Say what was found."""
        (low, high), (least, most) = self.x_range, self.y_range
        violated = sum(c.invertible is False for c in self.crossings)
        went_on = (
            f"The steps cycle over x in [{low:.2f}, {high:.2f}], y in [{least:.2f}, {most:.2f}], {self.turn:.1f} steps a turn."
            if self.turns
            else f"The second half of the steps lies in x in [{low:.2f}, {high:.2f}]; no turn was completed."
        )
        return (
            "min (x - s1)^2 + 4 (y - s2)^2,  s in argmax { (a + b)(-3x + y + 2) : a in [0, 3], b in [0, 5] }\n"
            f"Plain implicit differentiation, solved by least squares: |ds| <= {self.derivative:.2g} at every step, without a "
            f"word;\nat the start, which is on the line -3x + y + 2 = 0, its solve leaves {100 * self.residual:.0f} % of the "
            f"right-hand side.\n{went_on}\n"
            f"The condition holds at {self.beside[0]} of {self.beside[1]} iterates beside the line, and is violated at {violated} "
            f"of the {len(self.crossings)} crossings looked at.\n"
            f"The library, at the start: {self.refused or 'no error'}\n"
            f"{self.layer or 'cvxpylayers is not installed: its layer was not run.'}"
        )

    def _crossings(self) -> Table:
        """Give the crossings."""
        return Table(
            "Crossings of the line: does the condition hold? (computed)",
            ("step", "x", "y", "holds", "least singular value", "decided by"),
            tuple(
                (c.step, f"{c.point[0]:.4f}", f"{c.point[1]:.4f}", _word(c.invertible), f"{c.smallest:.2g}", c.rule)
                for c in self.crossings
            ),
            f"kinks at: {self.crossings[-1].line}" if self.crossings else "",
        )

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and cycle.png into a folder, made if need be; give what was written."""
        from nonsmooth.studies.cycle_picture import draw_cycle

        return write_report(folder, self, {"cycle": lambda path: draw_cycle(path, self)})


def _word(holds: bool | None) -> str:
    """Print a verdict."""
    return {True: "yes", False: "no", None: "undecided"}[holds]


def study_cycle(
    *,
    steps: int = 1200,
    step_size: float = 0.02,
    start: tuple[float, float] = START,
    progress: Report | None = None,
) -> CycleStudy:
    """Run gradient steps through the solution of a linear program, and check the condition where they cross the line.

    Beside it a layer of cvxpylayers makes the same steps, where it is installed. Every figure is measured in this run.
    Status: `computed`.

    Args:
        steps: of gradient descent.
        step_size: of each.
        start: (x, y).
        progress: called as (what, done, of how many) while it works.

    Raises:
        UsageError: numbers that mean nothing.

    Source: BolteLePauwelsSilvetiFalls2021.
    """
    if isinstance(steps, bool) or steps < 1:
        raise UsageError(f"steps={steps!r}: pass an integer, 1 or more.")
    if not 0 < step_size < math.inf:
        raise UsageError(f"step_size={step_size!r}: pass a positive number.")
    if len(tuple(start)) != 2 or not all(map(math.isfinite, start)):
        raise UsageError(f"start={start!r}: pass two finite numbers.")
    report, began = progress or silent, time.perf_counter()
    problem = _Problem()
    orbit, values, slopes, residual = problem.descend(start, steps, step_size, report)
    half = np.array(orbit[len(orbit) // 2 :])
    crossed = [k for k in range(steps) if _side(orbit[k]) != _side(orbit[k + 1])]
    upward = [k for k in crossed if k >= steps // 2 and _side(orbit[k + 1])]
    crossings = []
    for number, k in enumerate(crossed[-CROSSINGS:]):
        report("crossings", number, CROSSINGS)
        crossings.append(problem.crossing(k, orbit[k], orbit[k + 1]))
    chosen = [orbit[k] for k in np.linspace(len(orbit) // 2, steps, POINTS, dtype=int) if problem.slope(orbit[k]) != 0]
    holding = sum(problem.diagnose(p).invertible is True for p in chosen)
    turn = (upward[-1] - upward[0]) / (len(upward) - 1) if len(upward) > 1 else math.nan
    return CycleStudy(
        FORMAT_VERSION, {"steps": steps, "step size": step_size, "start": f"({start[0]:g}, {start[1]:g})"}, tuple(orbit),
        tuple(values), (float(half[:, 0].min()), float(half[:, 0].max())), (float(half[:, 1].min()), float(half[:, 1].max())),
        turn, max(0, len(upward) - 1), slopes, residual, (holding, len(chosen)), tuple(crossings), problem.refusal(start),
        run_layer(start, steps, step_size, BOX), time.perf_counter() - began,
    )  # fmt: skip


def _side(p: tuple[float, float]) -> bool:
    """Tell the side on which the maximum is at the far corner."""
    return -3 * p[0] + p[1] + 2 >= 0


class _Problem:
    """The linear program as a fixed point, and the gradient of what is minimised."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.upper = torch.tensor(BOX, dtype=torch.float64)

    def slope(self, p: Any) -> float:
        """Give -3 x + y + 2."""
        return float(-3 * p[0] + p[1] + 2)

    def advance(self, s: Any, p: Any) -> Any:
        """Ascend, and project on the box: the fixed points are the solutions."""
        return self.torch.clamp(s + (-3 * p[0] + p[1] + 2), self.torch.zeros_like(s), self.upper)

    def solve(self, p: Any) -> Any:
        """Give a vertex that maximises."""
        return self.upper.clone() if float(-3 * p[0] + p[1] + 2) >= 0 else self.torch.zeros_like(self.upper)

    @property
    def function(self) -> ImplicitFunction:
        """The solution as an implicit function."""
        return fixed_point(self.advance, self.solve)

    def objective(self, p: Any, s: Any) -> Any:
        """Give what is minimised."""
        return (p[0] - s[0]) ** 2 + 4 * (p[1] - s[1]) ** 2

    def point(self, p: Any) -> Any:
        """Make a tensor."""
        return self.torch.tensor(p, dtype=self.torch.float64)

    def plain(self, p: Any) -> tuple[Any, Any, float]:
        """Differentiate s by (I - B) ds = A dp, in least squares whatever B is: as libraries do that do not check."""
        s = self.solve(p)
        B, A = self.torch.func.jacrev(self.advance, (0, 1))(s, p)
        M = self.torch.eye(2, dtype=self.torch.float64) - B
        found = self.torch.linalg.pinv(M) @ A
        size = float(A.norm())
        return s, found, float((M @ found - A).norm()) / size if size else 0.0

    def descend(
        self, start: Any, steps: int, size: float, report: Report
    ) -> tuple[list[Any], list[float], float, float]:
        """Make gradient steps; give the orbit, the objective, the largest derivative of s, and the residual at the start."""
        p, orbit, values, largest, residuals = self.point(start), [], [], 0.0, []
        for k in range(steps + 1):
            s, slopes, residual = self.plain(p)
            orbit.append((float(p[0]), float(p[1])))
            values.append(float(self.objective(p, s)))
            largest = max(largest, float(slopes.norm()))
            residuals.append(residual)
            direct, through = self.torch.func.grad(self.objective, (0, 1))(p, s)
            p = p - size * (direct + through @ slopes)
            if k % 50 == 0:
                report("gradient steps", k, steps)
        return orbit, values, largest, residuals[0]

    def diagnose(self, p: Any) -> Any:
        """Check the condition at a point."""
        at = self.point(p)
        return self.function.diagnose(at, y=self.solve(at))

    def crossing(self, step: int, before: Any, after: Any) -> Crossing:
        """Find where on the segment the solution jumps, by bisection, and check the condition there."""
        low, high = 0.0, 1.0
        at, to = np.array(before), np.array(after)
        for _ in range(80):
            middle = (low + high) / 2
            if _side(tuple(at + middle * (to - at))) == _side(before):
                low = middle
            else:
                high = middle
        place = at + low * (to - at)
        found = self.diagnose(tuple(place))
        line = found.lines[0].line if found.lines else ""
        where, least = (float(place[0]), float(place[1])), float(found.smallest_singular_value)
        return Crossing(step, where, found.invertible, least, found.rule, line)

    def refusal(self, p: Any) -> str:
        """Give what the library raises when the solution at p is differentiated."""
        at = self.point(p).requires_grad_()
        try:
            self.objective(at, self.function(at)).backward()
        except NotInvertible as error:
            return f"NotInvertible: {str(error).partition('. ')[0]}"
        return ""
