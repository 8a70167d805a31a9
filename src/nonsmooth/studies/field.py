"""The field: what backpropagation can return, drawn in one and in two variables, and criticality along a path."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nonsmooth.derivatives.criticality import PathPoint, path_criticality
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import objective
from nonsmooth.report.field_path_picture import draw_paths
from nonsmooth.report.field_picture import KinkView, LineView, draw_gallery, save_figure
from nonsmooth.report.field_plane_picture import Outline, PlaneView, draw_plane
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.studies.field_chart import CONVENTIONS, open_chart
from nonsmooth.studies.field_line import GRID as STEPS
from nonsmooth.studies.field_line import view_line
from nonsmooth.studies.field_plane import GRID, view_plane
from nonsmooth.studies.field_programs import line_formulas, plane_formulas

__all__ = ["CriticalPath", "FieldLine", "FieldPlane", "FieldStudy", "study_field"]

RADII = (0.003, 0.03, 0.3)
"""The balls along the training path."""

IMAGES, HIDDEN, BATCH, RATE, DECAY = 60, 4, 16, 0.3, 0.6
"""The training: images of two digits, hidden units, images a step, and the steps RATE / (1 + k)^DECAY."""


@dataclass(frozen=True)
class FieldLine:
    """A program of one variable, the function that it writes, and what was found on an interval."""

    name: str
    formula: str
    equals: str
    view: LineView


@dataclass(frozen=True)
class FieldPlane:
    """A program of two variables, and what was found in a window and at points."""

    name: str
    formula: str
    note: str
    view: PlaneView


@dataclass(frozen=True)
class CriticalPath:
    """Criticality along a path: what was run, and the distances at some of its points."""

    name: str
    setting: str
    points: tuple[PathPoint, ...]


@dataclass(frozen=True)
class FieldStudy(Reported):
    """What backpropagation can return in one and two variables, and criticality along paths."""

    WIDTH: ClassVar[int] = 120

    format_version: int
    framework: str
    lines: tuple[FieldLine, ...]
    planes: tuple[FieldPlane, ...]
    paths: tuple[CriticalPath, ...]
    seconds: float

    def line(self, name: str) -> FieldLine:
        """Give a program of one variable by its name."""
        return next(found for found in self.lines if found.name == name)

    def plane(self, name: str) -> FieldPlane:
        """Give a program of two variables by its name."""
        return next(found for found in self.planes if found.name == name)

    def document(self) -> Document:
        """Lay the study out for reading."""
        apart = [f.name for f in self.lines if f.view.find(0.0).word == "artifact"]
        story = (
            f"At 0 backprop's value is an artifact, outside Clarke's subdifferential, for {len(apart)} of {len(self.lines)}\n"
            f"programs: {', '.join(apart)}. It lies in conv D for all of them: the field holds what any\n"
            "convention can return (computed)."
        )
        notes = "\n".join(f"{p.name}: {p.formula}{f'; {p.note}' if p.note else ''}." for p in self.planes)
        return Document(
            "The field: what backpropagation can return at a kink",
            (
                story,
                self._line_table(),
                self._plane_table(),
                notes,
                *(self._path_table(p) for p in self.paths),
                f"Evaluated in {self.framework}, float64, in {self.seconds:.1f} s (measured).",
            ),
        )

    def _line_table(self) -> Table:
        """Give a row for every kink of the programs of one variable."""
        rows = [(f, k) for f in self.lines for k in f.view.kinks]
        short = {"minimum-norm": "min-norm", "tensorflow": "tf"}
        return Table(
            "One variable: the values at the kinks (computed)",
            ("program", "point", *(short.get(c, c) for c in CONVENTIONS), "conv D", "Clarke", "backprop's"),
            tuple(
                (
                    f.name, _place(k), *(_number(v) for v in k.conventions.values()), _interval(k.field),
                    _interval(k.clarke) + ("" if k.clarke_exact else " (part)"), k.word,
                )
                for f, k in rows
            ),
            "~: no floating-point number is the kink; the sets are those within rounding, and nothing is judged.",
        )  # fmt: skip

    def _plane_table(self) -> Table:
        """Give a row for every point of the programs of two variables."""
        return Table(
            "Two variables: the sets at points (computed)",
            ("program", "point", "kinks", "conv D", "Clarke", "dist. of 0", "descent", "tangent", "spread"),
            tuple(
                (
                    f.name,
                    _pair(p.at),
                    p.kinks,
                    _corners(p.field),
                    "part" if not p.clarke_exact else "= conv D" if p.clarke == p.field else _corners(p.clarke),
                    _number(p.distance),
                    "-" if p.descent is None else _pair(p.descent),
                    "all" if len(p.tangent) == 2 else _pair(p.tangent[0]) if p.tangent else "0",
                    _number(p.spread) if p.spread > 1e-14 else "0",
                )
                for f in self.planes
                for p in f.view.points
            ),
            "tangent: of the stratum. spread: how far the elements of conv D differ along it; the projection formula says 0.",
        )

    def _path_table(self, path: CriticalPath) -> Table:
        """Give a row for every point of a path at which criticality was measured."""
        radii = [ball.radius for ball in path.points[0].balls]
        return Table(
            f"{path.name}: the distance of 0 (at the point: computed; over balls: sampled)",
            ("step", "F", "from conv D at the point", *(f"over radius {r:g}" for r in radii), "gradients in the largest"),
            tuple(
                (p.step, float(f"{p.value:.4g}"), _number(p.at_point), *(_number(b.distance) for b in p.balls),
                 p.balls[-1].gradients)
                for p in path.points
            ),
            path.setting,
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the pictures into a folder, made if need be; give what was written."""
        gallery = [(f.name, f.formula, f.view) for f in self.lines]
        title = "What backpropagation can return: the field of programs of one variable"
        pictures: dict[str, Callable[[Path], None]] = {
            "field": lambda at: save_figure(draw_gallery(gallery, title), at)
        }
        for plane in self.planes:
            pictures[f"field_{plane.name}"] = partial(_save_plane, plane)
        pictures["criticality"] = lambda at: save_figure(draw_paths([_curves(p) for p in self.paths]), at)
        return write_report(folder, self, pictures)


def _save_plane(plane: FieldPlane, at: Path) -> None:
    """Draw a program of two variables."""
    save_figure(draw_plane(plane.view, plane.formula), at)


def _curves(path: CriticalPath) -> tuple[str, list[int], dict[str, list[float]]]:
    """Give the curves of a path."""
    curves = {"at the point": [p.at_point for p in path.points]}
    for k, ball in enumerate(path.points[0].balls):
        curves[f"over radius {ball.radius:g}"] = [p.balls[k].distance for p in path.points]
    return path.name, [p.step for p in path.points], curves


def study_field(
    *, steps: int = 1200, samples: int = 120, seed: int = 0, grid: int = GRID, progress: Report | None = None
) -> FieldStudy:
    """Draw the field of programs of one and two variables, and measure criticality along a training path.

        conv D(x) at the kinks;   proj_T v the same for all v in D(x), T the tangent of the stratum;
        dist(0, conv D(x_k)) beside dist(0, conv { v in D(y) : |y - x_k| <= r })

    The path is that of stochastic subgradient descent on the mean absolute error of a small relu network on handwritten
    digits, 3 against 8. Status: sets `computed`; distances over balls `sampled`, upper bounds.

    Args:
        steps: of training, at least 8.
        samples: gradients taken in a ball, beside those of the path.
        seed: of the initialisation, the batches and the samples; the user's generators are not touched.
        grid: how many points a side of a picture of two variables has.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Source: BoltePauwels2020, BoltePauwels2020b, DavisDrusvyatskiy2021.
    """
    import torch

    if isinstance(steps, bool) or steps < 8:
        raise UsageError(f"steps={steps!r}: a path needs at least 8 steps.")
    if isinstance(grid, bool) or grid < 8:
        raise UsageError(f"grid={grid!r}: pass an integer, 8 or more.")
    report, start = progress or silent, time.perf_counter()
    zero, lines, planes = torch.tensor(0.0, dtype=torch.float64), [], []
    for number, formula in enumerate(chosen := line_formulas()):
        report(formula.name, number, len(chosen))
        view = view_line(open_chart(formula.program, zero, ()), grid=STEPS)
        lines.append(FieldLine(formula.name, formula.text, formula.equals, view))
    for number, two in enumerate(four := plane_formulas()):
        report(two.text, number, len(four))
        chart = open_chart(two.program, torch.tensor(two.points[0], dtype=torch.float64), ())
        further = [np.array(p) for p in two.points[1:]]
        planes.append(FieldPlane(two.name, two.text, two.note, view_plane(chart, further, grid=grid)))
    paths = (_absolute_value(), _training(steps, samples, seed, report))
    return FieldStudy(
        FORMAT_VERSION, f"torch {torch.__version__}", tuple(lines), tuple(planes), paths, time.perf_counter() - start
    )


def _absolute_value() -> CriticalPath:
    """Follow x <- x - a_k sign(x) on |x|, which converges to 0 and never gets there."""
    import torch

    x, path = 0.7, list[Any]()
    for k in range(201):
        path.append(torch.tensor(x, dtype=torch.float64))
        x -= math.copysign(1.0, x) / (2 + k)
    at = [0, 25, 50, 100, 200]
    points = path_criticality(torch.abs, path, at=at, radii=[0.001, 0.1], samples=20)
    return CriticalPath("|x|", "x <- x - a_k sign(x), a_k = 1/(2 + k), from 0.7.", points)


def _training(steps: int, samples: int, seed: int, report: Report) -> CriticalPath:
    """Train a small network, and measure criticality of the loss on all images along the way."""
    import torch
    from torch import nn

    images, labels = _digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(images.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)).double()
        f, _ = objective(model, _mean_absolute_error)
        parameters, path = list(model.named_parameters()), []
        for k in range(steps + 1):
            path.append({name: value.detach().clone() for name, value in parameters})
            chosen = torch.randperm(len(images))[:BATCH]
            loss = _mean_absolute_error(model(images[chosen]), labels[chosen])
            gradients = torch.autograd.grad(loss, [value for _, value in parameters])
            with torch.no_grad():
                for (_, value), g in zip(parameters, gradients, strict=True):
                    value.sub_(RATE / (1 + k) ** DECAY * g)
    at = sorted({0, steps // 8, steps // 4, steps // 2, steps})
    points = path_criticality(
        f, path, images, labels, at=at, radii=RADII, samples=samples, seed=seed, progress=report
    )  # fmt: skip
    count = sum(value.numel() for _, value in parameters)
    setting = (
        f"{len(images)} digits, 3 against 8, in 4 x 4 pixels; {HIDDEN} relu units, {count} parameters, mean absolute error; "
        f"{steps} steps of {BATCH} images, {RATE:g}/(1 + k)^{DECAY:g}; seed {seed}. F and distances: on all images."
    )
    return CriticalPath("A small relu network on digits", setting, points)


def _mean_absolute_error(scores: Any, labels: Any) -> Any:
    """Give the mean of |score - label|."""
    return (scores[:, 0] - labels).abs().mean()


def _digits() -> tuple[Any, Any]:
    """Load the threes (1) and eights (-1), averaged over 2 x 2 pixels."""
    import torch
    from sklearn import datasets

    digits = datasets.load_digits()
    chosen = np.flatnonzero((digits.target == 3) | (digits.target == 8))[:IMAGES]
    images = (digits.images[chosen] / 16.0).reshape(len(chosen), 4, 2, 4, 2).mean((2, 4)).reshape(len(chosen), -1)
    return torch.as_tensor(images), torch.as_tensor(np.where(digits.target[chosen] == 3, 1.0, -1.0))


def _number(value: float) -> str:
    """Print a number shortly, without a negative zero."""
    return f"{(0.0 if abs(value) < 1e-14 else value) + 0.0:.3g}"


def _place(kink: KinkView) -> str:
    """Print where a kink is; ~ if no floating-point number is there."""
    return f"{'~' if kink.tol else ''}{kink.at + 0.0:.5g}"


def _interval(ends: tuple[float, float] | None) -> str:
    """Print an interval, or a single number."""
    if ends is None:
        return "none"
    return f"{{{_number(ends[0])}}}" if ends[0] == ends[1] else f"[{_number(ends[0])}, {_number(ends[1])}]"


def _pair(v: tuple[float, float]) -> str:
    """Print a vector."""
    return f"({_number(v[0])}, {_number(v[1])})"


def _corners(corners: Outline | None) -> str:
    """Print a polygon by its corners, a curved set by the circle that its corners lie on."""
    if corners is None:
        return "none"
    if len(corners) <= 8:
        return " ".join(_pair(c) for c in corners)
    return f"disc of radius {_number(max(float(np.hypot(*c)) for c in corners))}"
