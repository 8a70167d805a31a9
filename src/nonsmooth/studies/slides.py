"""The slides: twelve programs of one variable, and what backpropagation returns at their kink, 0.

In one variable there are two directions, so that the certified subgradients along them are the ends of the Clarke
subdifferential, and backprop's value can be judged by them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonsmooth.derivatives.backprop import backprop, capture, value_and_backprop
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.dictionary.convention import FRAMEWORKS, load_convention
from nonsmooth.program import Program
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.studies.slides_programs import Formula, formulas

__all__ = ["CONVENTIONS", "OneSided", "SlideFunction", "SlidesStudy", "study_slides"]

CONVENTIONS: Mapping[str, str | float] = {**{name: name for name in FRAMEWORKS}, "0": 0.0, "1/2": 0.5, "1": 1.0}
"""The conventions compared: the frameworks' measured tables, and one number for every kink."""

SEEDS = 64
"""How many directions are drawn, until there is one to each side."""

STEPS = 40
"""The grid has this many points a unit; 0 is one of them."""

ROUNDING = 16 * 2.0**-52
"""Two derivatives this close are equal: everything here runs in float64, and every derivative is of the order of 1."""


@dataclass(frozen=True)
class OneSided:
    """The certified subgradient along the direction to one side of 0.

    Attributes:
        side: "left" or "right"; "both" where no kink is active, and the derivative is the only subgradient.
        value: the subgradient, the limit of the derivatives on that side.
        status: "computed", or "undecided" where the certificate says so; `reasons` then says why.
        margin: the smallest relative margin by which a kink was decided.
    """

    side: str
    value: float
    status: str
    margin: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlideFunction:
    """One program: what backprop, the conventions and the certified subgradients give at 0, and its graph.

    Attributes:
        name: as in the literature; `formula` is the program's text and `equals` the function that it writes.
        value: the function at 0.
        backprop: the derivative there by the framework's own rules.
        conventions: the derivative there under every convention.
        certified: the certified subgradients along the two directions.
        finding: "agrees", "between", "differs" or "undecided"; see `caption`.
        grid: the points of the graph, with the values and the derivatives as backprop gives them.
    """

    name: str
    formula: str
    equals: str
    value: float
    backprop: float
    conventions: Mapping[str, float]
    certified: tuple[OneSided, ...]
    finding: str
    caption: str
    grid: tuple[float, ...]
    values: tuple[float, ...]
    derivatives: tuple[float, ...]
    status: str = "computed"

    @property
    def clarke(self) -> tuple[float, float] | None:
        """The ends of the Clarke subdifferential at 0, if both sides are certified."""
        return _ends(self.certified)


@dataclass(frozen=True)
class SlidesStudy(Reported):
    """What backpropagation returns at 0 for the programs of the slides; every number is computed from the programs."""

    format_version: int
    framework: str
    versions: Mapping[str, str]
    functions: tuple[SlideFunction, ...]
    seconds: float

    def find(self, name: str) -> SlideFunction:
        """Give a function by its name."""
        return next(f for f in self.functions if f.name == name)

    def document(self) -> Document:
        """Lay the study out for reading: what was found, the table, and a line for each function."""
        count = len(self.functions)
        apart = [f.name for f in self.functions if f.finding == "differs"]
        story = (
            f"For {len(apart)} of {count} programs backprop's value at 0 differs from every certified subgradient"
            + (f":\n  {', '.join(apart)}.\n" if apart else ".\n")
            + "certified: the subgradients along the two directions, from the left and from the right. In one\n"
            "variable they are the ends of the Clarke subdifferential: what lies between is a subgradient, the\n"
            "rest is none (computed)."
        )
        captions = "\n".join(f"{f.name:10} {f.caption}" for f in self.functions)
        measured = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        setting = f"Conventions as measured on {measured}.\nEvaluated in {self.framework}, float64, in "
        return Document(
            "What backpropagation returns at a kink: the programs of the slides",
            (story, self._programs(), self._table(), captions, f"{setting}{self.seconds:.1f} s (measured)."),
        )

    def _programs(self) -> Table:
        """Give the programs."""
        return Table(
            "The programs", ("name", "program", "equals"), tuple((f.name, f.formula, f.equals) for f in self.functions)
        )

    def _table(self) -> Table:
        """Give the derivatives at 0."""
        return Table(
            "The derivative at 0 (computed)",
            ("name", "backprop", *CONVENTIONS, "certified", "backprop's"),
            tuple(
                (
                    f.name,
                    _number(f.backprop),
                    *(_number(f.conventions[c]) for c in CONVENTIONS),
                    _sides(f.certified),
                    f.finding,
                )
                for f in self.functions
            ),
            "0, 1/2, 1: the weight of the right-hand slope; an `if` keeps its branch. certified: left, right.",
        )

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and slides.png into a folder, made if need be; give what was written."""
        from nonsmooth.studies.slides_picture import draw_slides

        return write_report(folder, self, {"slides": lambda path: draw_slides(path, self)})


def study_slides(*, progress: Report | None = None) -> SlidesStudy:
    """Differentiate the programs of the slides at 0: by backprop, under every convention, and with a certificate.

    For each program P of a function F of one variable it gives backprop's derivative of P at 0 and, along the directions
    v = -1 and v = 1 (up to their length), the certified subgradients

        g_- = lim F'(t), t -> 0-,    g_+ = lim F'(t), t -> 0+,

    whose interval is the Clarke subdifferential of F at 0. Status: `computed`.

    Args:
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    >>> zero = study_slides().find("zero")
    >>> zero.backprop, zero.clarke, zero.finding
    (1.0, (0.0, 0.0), 'differs')

    Source: BoltePauwels2020, BoltePauwels2020b, Clarke1983.
    """
    import torch

    report, start, found = progress or silent, time.perf_counter(), []
    chosen = formulas()
    for number, formula in enumerate(chosen):
        report(formula.name, number, len(chosen))
        found.append(_study(formula, torch.tensor(0.0, dtype=torch.float64)))
    return SlidesStudy(
        format_version=FORMAT_VERSION,
        framework=f"torch {torch.__version__}",
        versions={name: load_convention(name).version for name in FRAMEWORKS},
        functions=tuple(found),
        seconds=time.perf_counter() - start,
    )


def _study(formula: Formula, zero: Any) -> SlideFunction:
    """Differentiate one program at 0, and along its grid."""
    program = capture(formula.program, zero)
    value, gradient = value_and_backprop(program, zero)
    conventions = {name: float(backprop(program, zero, at_kinks=at)) for name, at in CONVENTIONS.items()}
    certified = _certified(program, zero)
    finding, caption = _judge(float(gradient), certified)
    low, high = formula.span
    grid = tuple(k / STEPS for k in range(low * STEPS, high * STEPS + 1))
    graph = [value_and_backprop(program, zero + t) for t in grid]
    return SlideFunction(
        name=formula.name,
        formula=formula.text,
        equals=formula.equals,
        value=float(value),
        backprop=float(gradient),
        conventions=conventions,
        certified=certified,
        finding=finding,
        caption=caption,
        grid=grid,
        values=tuple(float(v) for v, _ in graph),
        derivatives=tuple(float(g) for _, g in graph),
    )


def _certified(program: Program, zero: Any) -> tuple[OneSided, ...]:
    """Draw directions until a certified subgradient is there for each side; what is missing is undecided."""
    sides: dict[str, OneSided] = {}
    for seed in range(SEEDS):
        _, gradient, certificate = subgradient(program, zero, seed=seed)
        direction = certificate.direction
        side = "both" if direction is None else "left" if float(direction) < 0 else "right"
        reasons = tuple(str(reason.message) for reason in certificate.reasons)
        known = sides.get(side)
        if known is None or (known.status == "undecided" and certificate.certified):
            sides[side] = OneSided(side, float(gradient), certificate.status, float(certificate.margin), reasons)
        if _ends(tuple(sides.values())) is not None:
            break
    return tuple(sides[side] for side in ("left", "both", "right") if side in sides)


def _ends(certified: tuple[OneSided, ...]) -> tuple[float, float] | None:
    """Give the smallest and the largest subgradient if both sides are certified."""
    values = {one.side: one.value for one in certified if one.status == "computed"}
    if "both" in values:
        return values["both"], values["both"]
    return (min(values.values()), max(values.values())) if len(values) == 2 else None


def _judge(gradient: float, certified: tuple[OneSided, ...]) -> tuple[str, str]:
    """Compare backprop's value with the certified subgradients: a word, and a sentence that claims no more than is known."""
    value, ends = _number(gradient), _ends(certified)
    equal = [one.side for one in certified if one.status == "computed" and abs(one.value - gradient) <= ROUNDING]
    if equal:
        sides = "both sides" if len(equal) == 2 or "both" in equal else f"the {equal[0]}"
        return "agrees", f"agrees: {value} is the certified subgradient from {sides}"
    if ends is None:
        reasons = "; ".join(dict.fromkeys(reason for one in certified for reason in one.reasons))
        return "undecided", f"undecided: no certificate for both sides{f': {reasons}' if reasons else ''}"
    low, high = ends
    if low < gradient < high:
        return "between", (
            f"between: {value} is neither certified one, but lies between {_number(low)} and {_number(high)}, as a subgradient does"
        )
    gap = _number(min(abs(gradient - low), abs(gradient - high)))
    if high - low <= ROUNDING:
        return (
            "differs",
            f"differs: {value} is off by {gap} from the certified subgradient, {_number(low)} from both sides",
        )
    return (
        "differs",
        f"differs: {value} is off by {gap} from the certified subgradients, {_number(low)} and {_number(high)}",
    )


def _number(value: float) -> str:
    """Print a derivative shortly, without a negative zero.

    >>> _number(0.01), _number(-0.0), _number(1.0)
    ('0.01', '0', '1')
    """
    return f"{value + 0.0:.4g}"


def _sides(certified: tuple[OneSided, ...]) -> str:
    """Print the certified subgradients in a cell, left and right."""
    return ", ".join(_number(one.value) if one.status == "computed" else "undecided" for one in certified)
