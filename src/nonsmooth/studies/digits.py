"""The digits: a small convolutional network is trained, and its loss audited before, half-way and after.

Two convolutions with zero-initialised biases, each followed by relu and max-pooling, a linear layer and cross-entropy:
blank background meets zero biases, and relu is evaluated exactly at its kink.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nonsmooth.audit.audit import run_audit
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import objective
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.studies.data import DATA, check_data, load, split
from nonsmooth.studies.grid import grid, run_grid
from nonsmooth.studies.training import Initialisation, TrainingPoint, TrainingStudy

__all__ = ["DATA", "audit_initialisation", "network", "study_digits"]

AUDITED = 256
"""How many training images the audited loss is over."""


def study_digits(
    data: str = "digits",
    *,
    steps: int = 600,
    batch: int = 64,
    seed: int = 0,
    initialisations: int = 10,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Report | None = None,
) -> TrainingStudy:
    """Train on handwritten digits by Adam, and audit the loss at initialisation, half-way and at the end.

    Every figure of the result is measured in this run, or was by the same code and is in the store. Status of each as in
    `ns.audit`.

    Args:
        data: "digits" or "mnist".
        steps: of Adam, at least 2.
        batch: images a step.
        seed: of the split, the initialisation and the batches; the user's generators are not touched.
        initialisations: how many more are audited before training, to see how the figures vary: runs of a grid.
        store: a folder that keeps these runs, as `run_grid` does.
        workers: processes that do them; None: one per core.
        cluster: the address of a Dask scheduler whose workers do them instead.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: no such data, no network to fetch them by, or numbers that mean nothing.
        GridError: some of the initialisations failed.

    Source: Bertoin2021.
    """
    import torch

    check_data(data)
    if steps < 2 or batch < 1:
        raise UsageError(f"steps={steps}, batch={batch}: a study needs at least 2 steps of at least 1 image.")
    if initialisations < 0 or seed < 0:
        raise UsageError(f"initialisations={initialisations}, seed={seed}: pass integers, 0 or more.")
    report, start = progress or silent, time.perf_counter()
    report(f"loading {data}", 0, 1)
    images = load(data)
    starts = grid(data=[data], held_out=[seed], seed=range(seed, seed + initialisations))
    others = run_grid(audit_initialisation, starts, store=store, workers=workers, cluster=cluster, progress=progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = _Task(*split(images, seed))
        points = list(_trained(task, steps, batch, report))
    return TrainingStudy(
        format_version=FORMAT_VERSION,
        name=f"the {data}",
        setting={
            "data": data,
            "training images": len(task.images),
            "held-out images": len(task.held_out),
            "image": f"{task.images.shape[-2]} x {task.images.shape[-1]}",
            "audited images": min(AUDITED, len(task.images)),
            "optimiser": f"Adam, rate {RATE}, {steps} steps of {batch} images",
            "seed": seed,
            "parameters": sum(p.numel() for p in task.model.parameters()),
        },
        points=tuple(points),
        initialisations=tuple(Initialisation(**found) for found in others),
        seconds=time.perf_counter() - start,
    )


RATE = 1e-3
"""Adam's step size."""


def network(side: int) -> Any:
    """Build the network for images of side x side."""
    import torch
    from torch import nn

    class Network(nn.Module):
        """Two convolutions, each with relu and max-pooling, and a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
            self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
            self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
            self.linear = nn.Linear(32 * (side // 4) ** 2, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Give the scores of the ten digits."""
            hidden = self.conv1(images)
            hidden = self.relu1(hidden)
            hidden = self.pool1(hidden)
            hidden = self.conv2(hidden)
            hidden = self.relu2(hidden)
            hidden = self.pool2(hidden)
            scores: torch.Tensor = self.linear(hidden.flatten(1))
            return scores

    return Network()


@dataclass
class _Task:
    """What is trained on what."""

    images: Any
    labels: Any
    held_out: Any
    answers: Any

    def __post_init__(self) -> None:
        """Build the network."""
        self.initialise()

    def initialise(self) -> None:
        """Draw the parameters: the biases of the convolutions at zero, the rest as torch does."""
        import torch

        self.model, self.loss = network(self.images.shape[-1]), torch.nn.functional.cross_entropy
        for layer in self.model.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)

    def accuracy(self) -> float:
        """Give the share of held-out images that the network names rightly."""
        import torch

        with torch.no_grad():
            return float((self.model(self.held_out).argmax(1) == self.answers).double().mean())


def _trained(task: _Task, steps: int, batch: int, report: Report) -> Iterator[TrainingPoint]:
    """Train, and give an audit of the loss at each of the three points."""
    import torch

    optimiser = torch.optim.Adam(task.model.parameters(), lr=RATE)
    names = {0: "initialisation", steps // 2: "half-way", steps: "end"}
    order = torch.zeros(0, dtype=torch.int64)
    for step in range(steps + 1):
        if step in names:
            yield _point(task, names[step], step, steps, batch, report)
        if step == steps:
            return
        if len(order) < min(batch, len(task.images)):
            order = torch.randperm(len(task.images))
        chosen, order = order[:batch], order[batch:]
        optimiser.zero_grad()
        task.loss(task.model(task.images[chosen]), task.labels[chosen]).backward()
        optimiser.step()
        report(f"training, step {step + 1:,} of {steps:,}", step + 1, steps)


def _point(task: _Task, name: str, step: int, steps: int, batch: int, report: Report) -> TrainingPoint:
    """Audit the loss on the first training images."""

    def within(doing: str, done: int, total: int) -> None:
        report(f"audit at {name}: {doing}", done, total)

    f, x = objective(task.model, task.loss)
    audit = run_audit(f, x, task.images[:AUDITED], task.labels[:AUDITED], progress=within)
    label = name if step == 0 else f"{name} (step {step:,})"
    return TrainingPoint(label, step, step * batch / len(task.images), audit.value, task.accuracy(), audit)


def audit_initialisation(data: str, held_out: int, seed: int) -> dict[str, Any]:
    """Audit the loss at another initialisation, and give the strongest group of kinks, as `Initialisation` has it.

    Args:
        data: "digits" or "mnist".
        held_out: the seed of the split.
        seed: of the initialisation.
    """
    import torch

    task = _Task(*split(load(data), held_out))
    torch.manual_seed(seed)
    task.initialise()
    point = _point(task, "initialisation", 0, 1, 1, silent)
    effect = point.strongest
    if effect is None:
        return asdict(Initialisation(seed, "no group", 0.0, "no parameter", 0.0))
    row = next(r for r in point.audit.kinks if (r.step, r.kink) == (effect.step, effect.kink))
    return asdict(Initialisation(seed, effect.group, row.share, effect.moves_most, effect.largest.size))
