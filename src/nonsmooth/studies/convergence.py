"""Convergence of minibatch steps to critical points, seen: lawful step sizes and unlawful ones, on tame finite sums.

Over 300 lines: the result and its report; problems and runs have files of their own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nonsmooth.derivatives.clarke import clarke
from nonsmooth.derivatives.field import field
from nonsmooth.errors import UsageError
from nonsmooth.optim.conditions import check_schedule
from nonsmooth.report.convergence_picture import Curve, draw_convergence
from nonsmooth.report.field_picture import save_figure
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.studies.convergence_problems import METHODS, PROBLEMS, SAMPLINGS, SCHEDULES, problem, schedule
from nonsmooth.studies.convergence_run import AT_ARTIFACT, WEIGHTS, artifact, run, run_artifact
from nonsmooth.studies.grid import grid, run_grid

__all__ = ["ArtifactRuns", "ConvergenceStudy", "Runs", "study_convergence"]

STARTS, NEAR = 40, 1e-6
"""Random starts of the problem with an artifact; at most so far from it a run has ended there."""


@dataclass(frozen=True)
class Runs:
    """The runs of one problem with one schedule, sampling and method, one for each seed.

    Attributes:
        fails: the conditions that the step sizes fail, by `check_schedule`; none if they are lawful.
        steps, values: where J was measured, and J there, a row for each seed.
        tail_low, tail_high: the least and the largest J over the last quarter of each run.
        moved: how far a run was from its end during its last quarter.
        at: the steps at which criticality was measured.
        at_point: dist(0, conv D(theta_k)), a row for each seed (computed).
        balls: the distance over the balls, by seed, step and radius (sampled, upper bounds).
    """

    problem: str
    schedule: str
    formula: str
    sampling: str
    method: str
    fails: tuple[str, ...]
    steps: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    tail_low: tuple[float, ...]
    tail_high: tuple[float, ...]
    moved: tuple[float, ...]
    at: tuple[int, ...]
    at_point: tuple[tuple[float, ...], ...]
    balls: tuple[tuple[tuple[float, ...], ...], ...]

    @property
    def label(self) -> str:
        """The schedule, and the method if it is not the subgradient's."""
        return self.schedule if self.method == METHODS[0] else f"{self.method}, {self.schedule}"

    @property
    def end(self) -> float:
        """The median of J at the end."""
        return statistics.median(v[-1] for v in self.values)

    @property
    def spread(self) -> float:
        """The largest spread of J over the last quarter of a run."""
        return max(high - low for low, high in zip(self.tail_low, self.tail_high, strict=True))

    def criticality(self, place: int, radius: int = -1) -> float:
        """The median over the seeds of the distance over a ball, at a place of `at`."""
        return statistics.median(found[place][radius] for found in self.balls)

    def point(self, place: int) -> float:
        """The median over the seeds of the distance at the point itself."""
        return statistics.median(found[place] for found in self.at_point)


@dataclass(frozen=True)
class ArtifactRuns:
    """Runs of the problem with an artifact at 0: where they started and ended."""

    start: str
    runs: int
    at_artifact: int
    farthest: float


@dataclass(frozen=True)
class ConvergenceStudy(Reported):
    """Minibatch steps on tame finite sums: what was run, and what was measured."""

    WIDTH: ClassVar[int] = 140

    format_version: int
    steps: int
    seeds: int
    problems: Mapping[str, Mapping[str, Any]]
    runs: tuple[Runs, ...]
    artifact_field: tuple[float, float]
    artifact_clarke: tuple[float, float]
    artifact_runs: tuple[ArtifactRuns, ...]
    seconds: float

    def of(self, name: str) -> tuple[Runs, ...]:
        """Give the runs of a problem."""
        return tuple(r for r in self.runs if r.problem == name)

    def document(self) -> Document:
        """Lay the study out for reading."""
        tables = (self._table(name) for name in self.problems)
        return Document(
            "Convergence of minibatch steps to critical points",
            (*self._story(), *tables, self._artifacts(),
             f"{self.steps:,} steps, {self.seeds} seeds; {self.seconds:.0f} s (measured)."),
        )  # fmt: skip

    def _story(self) -> Iterator[str]:
        """Say what the lawful and the unlawful steps did."""
        yield (
            "If sum a_k = inf and a_k log k -> 0 (independent minibatches), or a_k -> 0 and the steps of an epoch are equal\n"
            "(without replacement), and the iterates stay bounded, every accumulation point is critical and J is constant on\n"
            "them. m(r): distance of 0 from the gradients of a ball of radius r around theta_k (sampled, an upper bound)."
        )
        for name, about in self.problems.items():
            radius = about["radii"][-1]
            lawful = [r for r in self.of(name) if not r.fails]
            falls = f"{_span(r.criticality(0) for r in lawful)} to {_span(r.criticality(-1) for r in lawful)}"
            lines = [f"{name}: with lawful steps m({radius:g}) falls from {falls};"]
            for word, kind in (("constant steps", "constant"), ("summable steps", "summable")):
                found = [r for r in self.of(name) if r.schedule == kind]
                ends, spreads = _span(r.criticality(-1) for r in found), _span(r.spread for r in found)
                lines.append(f"  {word}: m = {ends} at the end, J varies by {spreads} over the last quarter;")
            lines.append(f"  lawful steps: J varies by {_span(r.spread for r in lawful)}.")
            yield "\n".join(lines)

    def _table(self, name: str) -> Table:
        """Give a row for every schedule, sampling and method."""
        about = self.problems[name]
        radii, least = about["radii"], about["least"]
        columns = ("steps", "sampling", "conditions", "J at the end", *([] if least is None else ["above least"]),
                   "J varies", "at the point", *(f"m({r:g})" for r in radii))  # fmt: skip
        rows = tuple(
            (
                r.label, r.sampling, f"fails: {', '.join(r.fails)}" if r.fails else "hold", float(f"{r.end:.4g}"),
                *([] if least is None else [_number(r.end - least)]),
                _number(r.spread), _number(r.point(-1)),
                *(f"{_number(r.criticality(0, k))} to {_number(r.criticality(-1, k))}" for k in range(len(radii))),
            )
            for r in self.of(name)
        )  # fmt: skip
        setting = f"{_counted(about['size'], 'variable')}, {about['batch']} of {about['n']} terms a step"
        note = f"{about['formula']}; {setting}. Medians over the "
        known = "" if least is None else f" The least value of J is {least:.6g}."
        return Table(
            name, columns, rows, f"{note}seeds; J varies: the largest spread over the last quarter of a run.{known}"
        )

    def _artifacts(self) -> Table:
        """Give where the runs of the problem with an artifact ended."""
        rows = tuple((a.start, a.runs, a.at_artifact, _number(a.farthest)) for a in self.artifact_runs)
        fields = f"conv D = {_interval(self.artifact_field)} holds 0, Clarke's subdifferential is {_interval(self.artifact_clarke)}"
        note = (
            f"At 0 {fields} (computed): 0 is critical for D and for nothing else.\n"
            "The minimiser is -1. A run that starts at the artifact stays there; random starts avoid it."
        )
        columns = ("start", "runs", "ended at the artifact", "the others: farthest from -1")
        return Table("w_i ((x + 1)^2/2 - zero(x)), zero(x) = relu(-x) + x - relu(x)", columns, rows, note)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and the picture into a folder, made if need be; give what was written."""
        panels = {name: [_curve(r) for r in self.of(name)] for name in self.problems}
        radius = {name: float(about["radii"][-1]) for name, about in self.problems.items()}
        least = {name: about["least"] for name, about in self.problems.items()}
        picture = {"convergence": lambda at: save_figure(draw_convergence(panels, radius, least), at)}
        return write_report(folder, self, picture)


def study_convergence(
    *,
    steps: int = 2000,
    seeds: int = 2,
    seed: int = 0,
    problems: Sequence[str] = PROBLEMS,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Report | None = None,
) -> ConvergenceStudy:
    """Show minibatch steps converge to critical points under lawful step sizes, and not under others.

        theta_(k+1) in theta_k - a_k D_(I_k)(theta_k);   m(theta, r) = dist(0, conv { v in D(y) : |y - theta| <= r })

    On a median, least absolute deviations and a small relu network, with minibatches drawn independently and without
    replacement, also by INNA: J along the run, dist(0, conv D) at the points (computed) and m over balls (sampled, upper
    bounds). And on a sum of programs with an artifact, which is critical for D and attracts no random start.

    Args:
        steps: of each run, at least 64.
        seeds: how many runs of each kind.
        seed: the first of them; the user's generators are not touched.
        problems: which problems, of "median", "least absolute deviations" and "relu network".
        store: a folder that keeps the runs, as `run_grid` does.
        workers: processes that do them; None: one per core.
        cluster: the address of a Dask scheduler whose workers do them instead.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: an argument means nothing.
        GridError: some of the runs failed.

    Source: BoltePauwels2020, BoltePauwels2020b, Pauwels2021, Castera2021.
    """
    _check(steps, seeds, seed, problems)
    start, kept = time.perf_counter(), {"store": store, "workers": workers, "cluster": cluster}
    kinds = [
        *grid(name=problems, steps_of=SCHEDULES, sampling=SAMPLINGS, method=METHODS[:1]),
        *grid(name=problems, steps_of=SCHEDULES[:1], sampling=SAMPLINGS, method=METHODS[1:]),
    ]
    each = [k | {"seed": seed + s, "steps": steps} for k in kinds for s in range(seeds)]
    found = run_grid(run, each, progress=progress or silent, **kept)  # type: ignore[arg-type]
    starts = [{"start": AT_ARTIFACT, "runs": 1}, {"start": "random, in [-2, 2]", "runs": STARTS}]
    ended = run_grid(run_artifact, [s | {"steps": 100, "seed": seed} for s in starts], workers=1, store=store)
    values = _at_the_artifact()
    return ConvergenceStudy(
        FORMAT_VERSION, steps, seeds, {name: _about(name) for name in problems},
        tuple(_runs(kind, found[k * seeds : (k + 1) * seeds]) for k, kind in enumerate(kinds)),
        *values, tuple(_ended(e["start"], e["ends"]) for e in ended), time.perf_counter() - start,
    )  # fmt: skip


def _check(steps: int, seeds: int, seed: int, problems: Sequence[str]) -> None:
    """Refuse what means nothing."""
    for name, value, least in (("steps", steps, 64), ("seeds", seeds, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={value!r}: pass an integer, {least} or more.")
    if isinstance(problems, str) or not problems or not set(problems) <= set(PROBLEMS):
        raise UsageError(f"problems={problems!r}: pass some of {PROBLEMS}.")


def _about(name: str) -> dict[str, Any]:
    """Describe a problem."""
    p = problem(name)
    return {"formula": p.formula, "n": p.n, "batch": p.batch, "size": p.size, "radii": p.radii, "least": p.least}


def _runs(kind: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> Runs:
    """Gather the runs of one kind."""
    task, sampling = problem(kind["name"]), kind["sampling"]
    steps = schedule(kind["steps_of"], task, sampling)
    fails = check_schedule(steps, sampling, steps_per_epoch=task.steps_per_epoch).failed
    rows = {
        name: tuple(_deep(f[name]) for f in found) for name in ("values", "tail_low", "tail_high", "moved", "at_point")
    }
    return Runs(
        task.name, kind["steps_of"], steps.formula, sampling, kind["method"], fails, tuple(found[0]["steps"]),
        at=tuple(found[0]["at"]), balls=tuple(_deep(f["balls"]) for f in found), **rows,
    )  # fmt: skip


def _deep(value: Any) -> Any:
    """Turn lists into tuples."""
    return tuple(_deep(v) for v in value) if isinstance(value, list) else value


def _at_the_artifact() -> tuple[tuple[float, float], tuple[float, float]]:
    """Give conv D and Clarke's subdifferential at the artifact."""
    import torch

    x, weights = torch.tensor(0.0, dtype=torch.float64), torch.tensor(WEIGHTS, dtype=torch.float64)
    boxes = [f(artifact, x, weights).box() for f in (field, clarke)]
    (low, high), (least, most) = [(float(a[0]), float(b[0])) for a, b in boxes]
    return (low, high), (least, most)


def _ended(start: str, ends: Sequence[float]) -> ArtifactRuns:
    """Count the runs that ended at the artifact."""
    others = [abs(x + 1) for x in ends if abs(x) > NEAR]
    return ArtifactRuns(start, len(ends), len(ends) - len(others), max(others, default=0.0))


def _curve(runs: Runs) -> Curve:
    """Give what is drawn of some runs: medians over the seeds."""
    values = tuple(statistics.median(v[k] for v in runs.values) for k in range(len(runs.steps)))
    measured = tuple(runs.criticality(k) for k in range(len(runs.at)))
    dashed = runs.sampling != SAMPLINGS[0]
    return Curve(runs.label, dashed, not runs.fails, runs.steps, values, runs.at, measured)


def _span(values: Iterator[float]) -> str:
    """Print the least and the largest of some numbers."""
    found = sorted(values)
    low, high = _number(found[0]), _number(found[-1])
    return low if low == high else f"{low}..{high}"


def _counted(number: int, thing: str) -> str:
    """Print a number of things."""
    return f"{number} {thing}{'s' if number != 1 else ''}"


def _number(value: float) -> str:
    """Print a number shortly, rounding errors as 0."""
    return f"{(0.0 if abs(value) < 1e-12 else value) + 0.0:.2g}"


def _interval(ends: tuple[float, float]) -> str:
    """Print an interval, or a single number."""
    low, high = (f"{round(e, 12) + 0.0:g}" for e in ends)
    return f"{{{low}}}" if low == high else f"[{low}, {high}]"
