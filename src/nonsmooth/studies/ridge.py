"""The ridge method: problems of known value, and a classifier of the digits trained against perturbations."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError
from nonsmooth.optim.ridge_method import ridge
from nonsmooth.optim.schedules import PowerSchedule
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.report.text import format_share
from nonsmooth.studies.ridge_adversary import (
    RADIUS,
    SETTLED,
    SETTLING,
    Adversary,
    AttackCheck,
    Robustness,
    TrainingDirections,
)
from nonsmooth.studies.ridge_problems import MinMaxProblem, problems

__all__ = ["RidgeCase", "RidgeStudy", "study_ridge"]

STEP = PowerSchedule(0.3, 0.6)
"""The step sizes of the problems of known value."""

NEAR = 1e-5
"""The distance within which kinks are counted as active at a settled attack."""


@dataclass(frozen=True)
class RidgeCase:
    """A problem of known value: what the ridge method reaches, and what the partial derivative reaches.

    Attributes:
        known: the least value of f, and `known_by` where it is from.
        reached: the smallest f(x_k) of the ridge method; `partial` that of the same steps along the partial derivative.
        begin: f at the first point.
        kinks: the most that were active at a step.
        partial_error: the largest distance between the partial derivative and v.
        residual: the largest distance of w from the normal cone.
        ridge_path, partial_path: f along the two runs.
    """

    name: str
    problem: str
    known: float
    known_by: str
    begin: float
    reached: float
    partial: float
    kinks: int
    partial_error: float
    residual: float
    status: str
    ridge_path: tuple[float, ...]
    partial_path: tuple[float, ...]


@dataclass(frozen=True)
class RidgeStudy(Reported):
    """Problems of known value, and training against perturbations; every figure was measured in this run."""

    format_version: int
    setting: Mapping[str, Any]
    cases: tuple[RidgeCase, ...]
    networks: tuple[Robustness, ...]
    directions: TrainingDirections
    checks: tuple[AttackCheck, ...]
    seconds: float

    def document(self) -> Document:
        """Lay the study out for reading."""
        wrong = [c.name for c in self.cases if c.partial - c.known > 10 * abs(c.reached - c.known) + 0.05]
        story = (
            f"The partial derivative misses the minimum of {len(wrong)} of {len(self.cases)} problems: {', '.join(wrong)}.\n"
            f"{self._training()}"
        )
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        parts = (
            story,
            self._cases(),
            self._networks(),
            self._checks(),
            f"{setting}.\nIn {self.seconds:.1f} s (measured).",
        )
        return Document("The ridge method: min over x of max over y", parts)

    def _training(self) -> str:
        """Say what training against the attack did."""
        (plain, robust), met = self.networks, self.directions
        place = plain.radii.index(RADIUS)
        return (
            f"Attacked within {RADIUS:g} a pixel, the network trained plainly names {100 * plain.accuracy[place]:.1f} % of the "
            f"held-out digits,\nthe one trained by the ridge method {100 * robust.accuracy[place]:.1f} % "
            f"(unattacked: {100 * plain.accuracy[0]:.1f} % and {100 * robust.accuracy[0]:.1f} %).\n"
            f"Of its {met.computed + met.refuted + met.undecided:,} directions {met.computed:,} are computed, {met.refuted:,} "
            f"refuted (the attack is no maximiser), {met.undecided:,} undecided;\n{met.with_kinks:,} met a kink, and "
            f"{met.differing:,} of these differ from the partial derivative."
        )

    def _cases(self) -> Table:
        """Give the problems."""
        return Table(
            "Problems of known value (computed)",
            ("problem", "F", "known", "ridge", "partial", "kinks", "off by", "w from cone"),
            tuple(
                (
                    c.name, c.problem, _short(c.known), _short(c.reached), _short(c.partial), c.kinks,
                    _short(c.partial_error), c.residual,
                )
                for c in self.cases
            ),
            "ridge, partial: the smallest f(x_k) along v and along the partial derivative in x, with the same steps; "
            "off by: the largest distance between the two.",
        )  # fmt: skip

    def _networks(self) -> Table:
        """Give the accuracies under attack."""
        return Table(
            "Accuracy on held-out digits under attack (computed)",
            ("trained", *(f"within {r:g}" for r in self.networks[0].radii)),
            tuple((n.network, *(f"{100 * a:.1f} %" for a in n.accuracy)) for n in self.networks),
            "An attack is a lower bound of the worst case: accuracies against stronger ones are lower.",
        )

    def _checks(self) -> Table:
        """Give how far attacks are from maximisers."""
        return Table(
            f"Is the attack a maximiser? On {len(self.checks[0].samples)} images, at the end of training (computed)",
            ("attack", "kinks within", "kinks", "w from cone", "settled", "partial off by", "direction"),
            tuple(
                (
                    c.attack, f"{c.near:g}", c.kinks, format_share(c.residual), format_share(c.settled),
                    format_share(c.partial_error), c.status,
                )
                for c in self.checks
            ),
            f"settled: w_i within {SETTLED:g} |w_i| of the normal cone of its box. refuted: no maximiser, to the tolerance of "
            "single precision.",
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and ridge.png into a folder, made if need be; give what was written."""
        from nonsmooth.studies.ridge_picture import draw_ridge

        return write_report(folder, self, {"ridge": lambda path: draw_ridge(path, self)})


def study_ridge(
    *,
    steps: int = 400,
    batch: int = 128,
    width: int = 64,
    samples: int = 32,
    case_steps: int = 80,
    seed: int = 0,
    progress: Report | None = None,
) -> RidgeStudy:
    """Run the ridge method on problems of known value, and train a classifier of the digits against perturbations.

    Every figure is measured in this run. Status: `computed`.

    Args:
        steps: of each training.
        batch: images a step.
        width: of the hidden layer.
        samples: images at which attacks are compared with maximisers.
        case_steps: steps on each problem of known value.
        seed: of the data of the problems, the split, the initialisation and the batches; the user's generators stay.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: numbers that mean nothing.

    Source: Pauwels2023.
    """
    import torch

    for name, number in (
        ("steps", steps),
        ("batch", batch),
        ("width", width),
        ("samples", samples),
        ("case_steps", case_steps),
    ):
        if isinstance(number, bool) or number < 1:
            raise UsageError(f"{name}={number!r}: pass an integer, 1 or more.")
    report, start = progress or silent, time.perf_counter()
    cases = tuple(_case(p, case_steps, report) for p in problems(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adversary = Adversary(*_digits(seed), width)
        ends = [list(adversary.train(steps, batch, robust, report))[-1][1] for robust in (False, True)]
    names = ("plainly", f"within {RADIUS:g}, ridge")
    networks = tuple(adversary.robustness(name, x) for name, x in zip(names, ends, strict=True))
    checks = []
    for number, (near, settling) in enumerate(((0.0, 0), (0.0, SETTLING), (NEAR, SETTLING))):
        report("comparing attacks with maximisers", number, 3)
        checks.append(adversary.check(ends[1], samples, near, settling))
    setting = {"digits": len(adversary.images), "hidden units": width, "steps": steps, "batch": batch, "seed": seed}
    return RidgeStudy(
        FORMAT_VERSION, setting, cases, networks, adversary.directions(), tuple(checks), time.perf_counter() - start
    )


def _case(problem: MinMaxProblem, steps: int, report: Report) -> RidgeCase:
    """Run both methods on a problem."""
    report(problem.name, 0, 1)
    run = ridge(problem.F, problem.x, problem.maximise, steps=steps, step_size=STEP, **problem.constraints)
    plain = _partial_path(problem, steps)
    return RidgeCase(
        problem.name, problem.text, problem.value, problem.known_by, run.values[0], run.best_value, min(plain[1:]),
        max(s.kinks for s in run.history), max(s.partial_error for s in run.history), max(run.residuals), run.status,
        tuple(run.values), plain,
    )  # fmt: skip


def _partial_path(problem: MinMaxProblem, steps: int) -> tuple[float, ...]:
    """Give f along the same steps with the partial derivative in x, as torch computes it."""
    import torch

    constraint, x, values = problem.constraints.get("x_constraint"), problem.x, []
    for k in range(steps):
        y = problem.maximise(x, None)
        values.append(float(problem.F(x, y)))
        x = x - STEP(k) * torch.func.grad(problem.F)(x, y.clone())
        if constraint is not None:
            x = torch.as_tensor(constraint.project(x.numpy()))
    return tuple(values)


def _digits(seed: int) -> tuple[Any, Any, Any, Any]:
    """Give the digits in [0, 1], a fifth held out: images and labels, twice."""
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    cut = len(order) - len(order) // 5
    found = [
        (torch.as_tensor(images[p] / 16, dtype=torch.float32), torch.as_tensor(labels[p], dtype=torch.int64))
        for p in (order[:cut], order[cut:])
    ]
    return (*found[0], *found[1])


def _short(value: float) -> str:
    """Print a number shortly, without a negative zero."""
    return f"{value + 0.0:.4g}" if abs(value) > 1e-12 else "0"
