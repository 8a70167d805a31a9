"""Do the derivatives of iterates converge? Under contraction linearly; with momentum at a kink not at all.

Over 300 lines: three small experiments with one report.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nonsmooth.errors import ImplicitWarning, UsageError
from nonsmooth.implicit.derivative_convergence import linear_rate
from nonsmooth.implicit.implicit_function import fixed_point
from nonsmooth.implicit.matrix_products import joint_spectral_radius
from nonsmooth.implicit.momentum import extreme_jacobians
from nonsmooth.implicit.one_step_derivative import one_step
from nonsmooth.implicit.unrolled import unroll
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table
from nonsmooth.studies.unrolling_problems import (
    CURVATURES,
    MILD,
    MOMENTUM,
    Contraction,
    contractions,
    kinked_heavy_ball,
)

__all__ = ["ContractionCase", "HeavyBallRun", "MomentumCase", "UnrollingStudy", "study_unrolling"]

MOMENTA = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""At which products are bounded."""

SOLVED = 1e-6
"""The distance from the solution below which iterates count as converged."""

NEAR = 1e-10
"""The distance within which the solution, iterated to rounding, is on a kink."""

WORDS = 16
"""Products of so many matrices are enumerated at most."""

FLOOR = 1e-13
"""Errors below are rounding: rates are read above."""


@dataclass(frozen=True)
class ContractionCase:
    """A contraction: how its iterates and their derivatives converge.

    Attributes:
        rho: a bound of the factor of both.
        iterates: |y_k - y*|, k = 0, 1, ..; `derivatives` bounds the distance of J_k from the fixed set of J -> B J + A.
        off_hull: the largest distance of J_k from the hull of the implicit Jacobians once |y_k - y*| <= 1e-6.
        iterate_rate, derivative_rate: the factors measured on them.
        elements: how many implicit Jacobians are the vertices of their hull.
        one_step: the distance of the one-step derivative, at the last iterate; `bound` what its report says, with `bound_status`.
        warned: what the monitor of `unroll` said of all steps.
    """

    name: str
    problem: str
    kinks: str
    rho: float
    iterates: tuple[float, ...]
    derivatives: tuple[float, ...]
    iterate_rate: float
    derivative_rate: float
    elements: int
    off_hull: float
    one_step: float
    bound: float
    bound_status: str
    warned: str


@dataclass(frozen=True)
class HeavyBallRun:
    """Steps of f(x) = x^2 / 2, x >= 0, x^2 / 8 below, the kink drifting to the solution.

    `iterates` are |x_k| from x_0 = 1, `derivatives` |d (x_k, x_(k-1)) / d x_0| at x_0 = 0.
    """

    momentum: float
    iterates: tuple[float, ...]
    derivatives: tuple[float, ...]
    iterate_rate: float
    derivative_rate: float
    warned: str


@dataclass(frozen=True)
class MomentumCase:
    """A momentum: the largest spectral radius of one matrix, and the bounds of the joint one with the word that attains it."""

    momentum: float
    alone: float
    lower: float
    upper: float
    word: str


@dataclass(frozen=True)
class UnrollingStudy(Reported):
    """Contractions, and the heavy ball; every figure was measured in this run."""

    format_version: int
    setting: Mapping[str, Any]
    cases: tuple[ContractionCase, ...]
    runs: tuple[HeavyBallRun, ...]
    momenta: tuple[MomentumCase, ...]
    largest: tuple[float, ...]
    seconds: float

    def document(self) -> Document:
        """Lay the study out for reading."""
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        parts = (
            self._story(), self._contractions(), self._heavy_ball(), self._momenta(),
            f"{setting}.\nIn {self.seconds:.1f} s (measured).",
        )  # fmt: skip
        return Document("The derivatives of iterates", parts)

    def _story(self) -> str:
        """Say what was found."""
        ball, plain = self.runs
        slower = max(c.derivative_rate / c.iterate_rate for c in self.cases)
        held = sum(c.one_step <= c.bound for c in self.cases)
        growing = [m for m in self.momenta if m.lower > 1]
        alone = sum(m.alone >= 1 for m in growing)
        astray = [c.name for c in self.cases if c.off_hull > 1000 * SOLVED]
        names = ", ".join(f"{m.momentum:g}" for m in growing) or "none"
        return (
            f"Under contraction the derivatives converge linearly, at {slower:.2f} times the rate of the iterates at most;\n"
            f"the one-step derivative is within its bound in {held} of {len(self.cases)} cases.\n"
            "At kinks they converge to a fixed set, which is larger than the hull of the implicit Jacobians:\n"
            f"maps whose derivatives stay off that hull while the iterates change sides: {', '.join(astray) or 'none'}.\n"
            f"Heavy ball with momentum {ball.momentum:g}: |x_k| falls to {ball.iterates[-1]:.2g}, and its derivative ends at "
            f"{ball.derivatives[-1]:.3g}\n({ball.derivative_rate:.4f} a step); with {plain.momentum:g} it ends at "
            f"{plain.derivatives[-1]:.2g}.\nProducts of the two matrices of the kink grow at the momenta {names};\n"
            f"a matrix alone grows at {alone} of these."
        )

    def _contractions(self) -> Table:
        """Give the contractions."""
        return Table(
            "Contractions (computed)",
            ("map", "kinks at y*", "rho", "rate of y", "rate of J", "off hull", "one-step off", "bound", "status"),
            tuple(
                (
                    c.name, c.kinks, f"{c.rho:.3f}", f"{c.iterate_rate:.3f}", f"{c.derivative_rate:.3f}", f"{c.off_hull:.1e}",
                    f"{c.one_step:.3g}",
                    f"{c.bound:.3g}", c.bound_status,
                )
                for c in self.cases
            ),
            "; ".join(f"{c.name}: {c.problem}" for c in self.cases)
            + ".\nrate: the measured factor a step of |y - y*| and of the distance of J from the fixed set of J -> B J + A.\n"
            f"off hull: of J from the hull of the implicit Jacobians (I - B)^-1 A, at most, once |y - y*| <= {SOLVED:g}.",
        )  # fmt: skip

    def _heavy_ball(self) -> Table:
        """Give the runs of the heavy ball."""
        return Table(
            "Heavy ball on x^2/2 (x >= 0), x^2/8 (x < 0), step 1, the kink drifting to the solution (computed)",
            ("momentum", "|x_k|", "rate", "|derivative|", "rate", "the monitor"),
            tuple(
                (
                    f"{r.momentum:g}", f"{r.iterates[-1]:.2g}", f"{r.iterate_rate:.4f}", f"{r.derivatives[-1]:.3g}",
                    f"{r.derivative_rate:.4f}", "warns" if r.warned else "is silent",
                )
                for r in self.runs
            ),
            "The derivative is torch's, at x_0 = 0, where every iterate is 0 and no step is at a kink.",
        )  # fmt: skip

    def _momenta(self) -> Table:
        """Give the joint spectral radii."""
        rows = tuple(
            (f"{m.momentum:g}", f"{m.alone:.4f}", f"{m.lower:.4f}", f"{m.upper:.4f}", m.word) for m in self.momenta
        )
        return Table(
            "Products of the matrices of the two sides (computed)",
            ("momentum", "each alone", "jointly, at least", "at most", "word"),
            rows,
            f"Growth a step. 0: curvature {CURVATURES[0]:g}, 1: curvature {CURVATURES[1]:g}.",
        )

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and unrolling.png into a folder, made if need be; give what was written."""
        from nonsmooth.studies.unrolling_picture import draw_unrolling

        return write_report(folder, self, {"unrolling": lambda path: draw_unrolling(path, self)})


def study_unrolling(
    *,
    steps: int = 120,
    ball_steps: int = 240,
    size: int = 9,
    seed: int = 0,
    momenta: tuple[float, ...] = MOMENTA,
    progress: Report | None = None,
) -> UnrollingStudy:
    """Follow the derivatives of iterates: under contraction, one step, and with momentum at a kink.

    Every figure is measured in this run, by torch's own derivatives. Status: `computed`.

    Args:
        steps: of the contractions.
        ball_steps: of the heavy ball.
        size: unknowns of the contractions.
        seed: of their matrices.
        momenta: at which products are bounded.
        progress: called as (what, done, of how many) while it works.

    Raises:
        UsageError: numbers that mean nothing.

    Source: BoltePauwelsVaiter2022, BoltePauwelsVaiter2023.
    """
    for name, number, least in (("steps", steps, 8), ("ball_steps", ball_steps, 16), ("size", size, 2)):
        if isinstance(number, bool) or number < least:
            raise UsageError(f"{name}={number!r}: pass an integer, {least} or more.")
    if not momenta or any(not 0 <= m < 1 for m in momenta):
        raise UsageError(f"momenta={momenta!r}: numbers in [0, 1).")
    report, began = progress or silent, time.perf_counter()
    cases = []
    for number, problem in enumerate(contractions(seed, size)):
        report(problem.name, number, 3)
        cases.append(_follow(problem, steps))
    report("heavy ball", 0, 1)
    runs = tuple(_ball(momentum, ball_steps) for momentum in (MOMENTUM, MILD))
    setting = {"unknowns": size, "steps": steps, "steps of the heavy ball": ball_steps, "seed": seed}
    return UnrollingStudy(
        FORMAT_VERSION, setting, tuple(cases), runs, tuple(map(_momentum, momenta)), _largest(WORDS),
        time.perf_counter() - began,
    )  # fmt: skip


def _follow(problem: Contraction, steps: int) -> ContractionCase:
    """Carry the Jacobian along, and compare with the solution's."""
    import torch

    T, t = problem.T, problem.theta
    y, J = problem.start, torch.zeros(len(problem.start), len(t), dtype=torch.float64)
    path, jacobians, elements = [y], [J], []
    for _ in range(steps):
        B, A = torch.func.jacrev(T, (0, 1))(y, t)
        y, J = T(y, t), B @ J + A
        path.append(y)
        jacobians.append(J)
        elements.append((B, A))
    solution = _solve(problem, y)
    limit = fixed_point(T).diagnose(t, y=solution).jacobian()
    away = [float((p - solution).norm()) for p in path]
    companions = _companions(T, solution, t, elements, torch.as_tensor(limit.elements[0]))
    off = [float((J - C).norm()) for J, C in zip(jacobians, companions, strict=True)]
    hull = max((_distance(limit, J) for J, a in zip(jacobians, away, strict=True) if a <= SOLVED), default=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ImplicitWarning)
        moving = t.clone().requires_grad_()
        unroll(T, steps)(moving, start=problem.start)
    rule = one_step(T, lambda _: solution)
    given = {"L_J": 0.0} if problem.piecewise_linear else {}
    bound = rule.report(t, rho=problem.rho, **given)  # type: ignore[arg-type]
    found = torch.func.jacrev(lambda t: T(solution, t))(t)
    return ContractionCase(
        problem.name, problem.text, problem.kinks, problem.rho, tuple(away), tuple(off), linear_rate(away, FLOOR * 100),
        linear_rate(off, FLOOR * 100), len(limit.elements), hull, _distance(limit, found), bound.bound, bound.status,
        "; ".join(str(w.message) for w in caught),
    )  # fmt: skip


def _solve(problem: Contraction, y: Any) -> Any:
    """Iterate to rounding."""
    for _ in range(5000):
        new = problem.T(y, problem.theta)
        if bool((new == y).all()):
            break
        y = new
    return y


def _distance(limit: Any, J: Any) -> float:
    """Give the distance of a matrix from the set, in the Frobenius norm."""
    return float(limit.set.distance(J.numpy().ravel()))


def _companions(T: Any, solution: Any, t: Any, elements: list[Any], first: Any) -> list[Any]:
    """Give members of the fixed set of J -> B J + A, one a step, as near to J_k as the same selections bring them.

    An implicit Jacobian is one. From the step on after which every B_k is an element at the solution, the elements that act
    on J_k keep a member in the set.
    """
    known = extreme_jacobians(T, solution, (t,), NEAR) or []
    strange = [k for k, (B, _) in enumerate(elements) if not any(np.allclose(B.numpy(), M, atol=1e-12) for M in known)]
    begin, found = (strange[-1] + 1 if strange else 0), [first]
    for k, (B, A) in enumerate(elements):
        found.append(first if k < begin else B @ found[-1] + A)
    return found


def _ball(momentum: float, steps: int) -> HeavyBallRun:
    """Run the heavy ball from 1, and differentiate it at 0."""
    import torch

    T = kinked_heavy_ball(momentum)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    state, path = (one, one, one, one), [1.0]
    for _ in range(steps):
        state = T(state)
        path.append(abs(float(state[0])))
    state, tangent, slopes = (zero, zero, one, one), (one, one, zero, zero), [2.0**0.5]
    for _ in range(steps):
        state, tangent = torch.func.jvp(lambda *s: T(s), state, tangent)[:2]
        slopes.append(float(torch.stack(tangent[:2]).norm()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ImplicitWarning)
        moving = zero.clone().requires_grad_()
        unroll(lambda s, t: T(s), steps)(moving, start=(moving, moving, one, one))
    of_path, of_slopes = linear_rate(path, FLOOR), linear_rate(slopes, FLOOR)
    said = "; ".join(str(w.message) for w in caught)
    return HeavyBallRun(momentum, tuple(path), tuple(slopes), of_path, of_slopes, said)


def _matrices(momentum: float) -> list[Any]:
    """Give the matrices of the two sides of the kink."""
    return [np.array([[1 + momentum - c, -momentum], [1.0, 0.0]]) for c in CURVATURES]


def _momentum(momentum: float) -> MomentumCase:
    """Bound the products at a momentum."""
    stack = _matrices(momentum)
    alone = max(float(np.abs(np.linalg.eigvals(M)).max()) for M in stack)
    found = joint_spectral_radius(stack, tolerance=1e-4)
    return MomentumCase(momentum, alone, found.lower, found.upper, found.letters)


def _largest(length: int) -> tuple[float, ...]:
    """Give the largest derivative of x_k in x_0 over all selections at the kink: every product is one."""
    stack = np.array(_matrices(MOMENTUM))
    columns, found = np.ones((1, 2)), [1.0]
    for _ in range(length):
        columns = np.concatenate([columns @ M.T for M in stack])
        found.append(float(np.abs(columns[:, 0]).max()))
    return tuple(found)
