"""One run of the study of convergence: the iteration, and what is measured along it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import capture
from nonsmooth.derivatives.criticality import path_criticality
from nonsmooth.optim.sampling import WithoutReplacement
from nonsmooth.optim.schedules import EpochSchedule, PowerSchedule
from nonsmooth.studies.convergence_problems import Problem, problem, schedule

__all__ = ["AT_ARTIFACT", "WEIGHTS", "artifact", "run", "run_artifact"]

SAMPLES, CURVE, TAIL = 40, 60, 4
"""Gradients sampled in a ball; points of the curve of J; the tail is the last of so many parts of the run."""

AT_ARTIFACT = "at the artifact"
WEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""The w_i of the problem with an artifact."""


def run(name: str, steps_of: str, sampling: str, method: str, seed: int, steps: int) -> dict[str, Any]:
    """Minimise one problem with one schedule, sampling, method and seed; give what was measured, as plain data.

        theta_(k+1) in theta_k - a_k D_(I_k)(theta_k),   or INNA with gamma_k = a_k

    The user's generators are not touched. Status of criticality: at points `computed`, over balls `sampled`, upper bounds.
    """
    task = problem(name)
    path = _path(task, steps_of, sampling, method, seed, steps)
    program = capture(task.loss, path[0], *task.data)
    places = sorted({0, *np.unique(np.geomspace(1, steps, CURVE).astype(int)).tolist()})
    last = steps - steps // TAIL
    tail = [float(task.loss(path[k], *task.data)) for k in range(last, steps + 1, max(1, steps // 800))]
    at = [0, round(steps ** (1 / 3)), round(steps ** (2 / 3)), steps]
    points = path_criticality(program, path, *task.data, at=at, radii=task.radii, samples=SAMPLES, seed=seed)
    moved = max(float((path[k] - path[-1]).norm()) for k in range(last, steps))
    return {
        "steps": places,
        "values": [float(task.loss(path[k], *task.data)) for k in places],
        "tail_low": min(tail),
        "tail_high": max(tail),
        "moved": moved,
        "at": at,
        "at_point": [p.at_point for p in points],
        "balls": [[b.distance for b in p.balls] for p in points],
    }


def _path(task: Problem, steps_of: str, sampling: str, method: str, seed: int, steps: int) -> list[Any]:
    """Iterate, and keep every point."""
    import torch

    from nonsmooth.optim.torch.inna import INNA

    rng = np.random.default_rng(seed)
    theta = task.start(rng).requires_grad_()
    inertial = INNA([theta], lr=1.0) if method == "INNA" else None
    step_size = schedule(steps_of, task, sampling)
    path = [theta.detach().clone()]
    for k, chosen in zip(range(steps), _batches(task, sampling, rng), strict=False):
        (theta.grad,) = torch.autograd.grad(task.loss(theta, *(part[chosen] for part in task.data)), [theta])
        if inertial is None:
            theta.data.sub_(theta.grad, alpha=step_size(k))
        else:
            inertial.param_groups[0]["lr"] = step_size(k)
            inertial.step()
        path.append(theta.detach().clone())
    return path


def _batches(task: Problem, sampling: str, rng: np.random.Generator) -> Iterator[Any]:
    """Draw the terms of each step, for ever."""
    import torch

    order = WithoutReplacement(task.n, seed=int(rng.integers(2**32)))
    while True:
        if sampling == "independent":
            yield torch.as_tensor(rng.choice(task.n, task.batch, replace=False))
        else:
            yield from torch.as_tensor(list(order)).split(task.batch)


def run_artifact(start: str, runs: int, steps: int, seed: int) -> dict[str, Any]:
    """Minimise a sum of programs with an artifact at x = 0, from 0 or from random starts; give where the runs ended.

        J_i(x) = w_i ((x + 1)^2/2 - zero(x)),   zero(x) = relu(-x) + x - relu(x) = 0,   the w_i of mean 1

    Backprop takes zero'(0) for 1, so that every D_i(0) holds w_i (1 - 1) = 0: x = 0 is critical for D, where J' = 1.
    """
    import torch

    rng = np.random.default_rng(seed)
    order, step_size = WithoutReplacement(len(WEIGHTS), seed=seed), EpochSchedule(PowerSchedule(0.5, 1.0), len(WEIGHTS))
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    ends, terms = [], list[int]()
    for _ in range(runs):
        x = torch.tensor(0.0 if start == AT_ARTIFACT else rng.uniform(-2, 2), dtype=torch.float64).requires_grad_()
        for k in range(steps):
            if k % len(WEIGHTS) == 0:
                terms = list(order)
            (slope,) = torch.autograd.grad(artifact(x, weights[terms[k % len(WEIGHTS)]]), [x])
            x.data.sub_(slope, alpha=step_size(k))
        ends.append(x.item())
    return {"start": start, "ends": ends}


def artifact(x: Any, weights: Any) -> Any:
    """Give the mean of the J_i."""
    import torch

    zero = torch.relu(-x) + x - torch.relu(x)
    return (weights * ((x + 1) ** 2 / 2 - zero)).mean()
