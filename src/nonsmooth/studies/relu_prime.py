"""The study of relu'(0): how often its choice changes a gradient, and what it does to training.

After Bertoin, Bolte, Gerchinovitz and Pauwels, with the right backward pass; the same for the choices of max-pool, after
Boustany, and of clamp.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nonsmooth.report.progress import Report
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.studies.data import load
from nonsmooth.studies.grid import run_grid
from nonsmooth.studies.intervals import mean_interval, proportion_interval
from nonsmooth.studies.relu_prime_bifurcation import run_bifurcation
from nonsmooth.studies.relu_prime_protocol import AUTHORS, SMALL, Protocol, Setting, settings, trainings
from nonsmooth.studies.relu_prime_result import Accuracy, ReluPrimeStudy, Volume
from nonsmooth.studies.relu_prime_training import run_training

__all__ = ["study_relu_prime"]


def study_relu_prime(
    protocol: Protocol = SMALL,
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Report | None = None,
) -> ReluPrimeStudy:
    """Measure the volume of the bifurcation zone, then test accuracy against relu'(0).

    The volume is the share of random initialisations for which two choices at kinks give different gradients on some
    batch of a pass over the data, with the exact binomial interval; `run_bifurcation` says what is compared. Every
    figure is measured. Status: `sampled`.

    Args:
        protocol: the settings; `SMALL` takes minutes, `FULL` is the size of the authors' study.
        store: a folder that keeps each run; what it holds is not run again.
        workers: processes on this machine; None takes one per core.
        cluster: the address of a Dask scheduler, whose workers run the grid instead.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: MNIST cannot be fetched, or workers and a cluster are both named. GridError: some runs failed.

    >>> from dataclasses import replace
    >>> few = replace(SMALL, parts=("volume",), precisions=("float64",), initialisations=2, cnn_initialisations=2)
    >>> few = replace(few, depths=(3,), widths=(16,), batch_sizes=(256,))
    >>> study = study_relu_prime(few, workers=1)
    >>> [study.volume("network", label, "float64").bifurcation.count for label in ("mlp", "cnn", "cnn, zero biases")]
    [0, 0, 2]

    Source: Bertoin2021, Boustany2024, ClopperPearson1934.
    """
    import torch

    start = time.perf_counter()
    load(protocol.data)
    how: dict[str, Any] = {"store": store, "workers": workers, "cluster": cluster, "progress": progress}
    volumes = _volumes(protocol, how) if "volume" in protocol.parts else ()
    accuracies = _accuracies(protocol, how) if "training" in protocol.parts else ()
    return ReluPrimeStudy(
        format_version=FORMAT_VERSION,
        protocol=protocol,
        framework=f"torch {torch.__version__}",
        volumes=volumes,
        accuracies=accuracies,
        authors=AUTHORS if volumes else (),
        seconds=time.perf_counter() - start,
    )


def _volumes(protocol: Protocol, how: Mapping[str, Any]) -> tuple[Volume, ...]:
    """Run the bifurcation runs of all tables, and add the counts of their blocks up."""
    cells = [(setting, precision) for setting in settings(protocol) for precision in protocol.precisions]
    runs = [setting.runs(precision, protocol.seed) for setting, precision in cells]
    found = iter(run_grid(run_bifurcation, [run for block in runs for run in block], **how))
    return tuple(
        _volume(setting, precision, [next(found) for _ in block], protocol.confidence)
        for (setting, precision), block in zip(cells, runs, strict=True)
    )


def _volume(setting: Setting, precision: str, found: Sequence[Mapping[str, Any]], confidence: float) -> Volume:
    """Add the counts of the blocks of a setting up."""

    def total(name: str) -> int:
        return sum(counts[name] for counts in found)

    trials = total("initialisations")
    return Volume(
        table=setting.table,
        label=setting.label,
        precision=precision,
        configuration={**setting.configuration, "precision": precision},
        met=total("met"),
        different=proportion_interval(total("different"), trials, confidence=confidence),
        first_weight=total("first_weight"),
        bifurcation=proportion_interval(total("bifurcation"), trials, confidence=confidence),
        compensation=total("compensation"),
        undecided=total("undecided"),
        change=max(counts["change"] for counts in found),
    )


def _accuracies(protocol: Protocol, how: Mapping[str, Any]) -> tuple[Accuracy, ...]:
    """Run the training runs, and compare those of the same seed."""
    seeds = range(protocol.seed, protocol.seed + protocol.seeds)
    cells = [
        (label, {**configuration, "batch_norm": batch_norm, "alpha": alpha})
        for label, configuration in trainings(protocol)
        for batch_norm in (False, True)
        for alpha in protocol.alphas
    ]
    found = run_grid(run_training, [{**c, "seed": seed} for _, c in cells for seed in seeds], **how)
    blocks = [found[k : k + len(seeds)] for k in range(0, len(found), len(seeds))]
    reference = 0.0 if 0.0 in protocol.alphas else protocol.alphas[0]
    known = {
        (label, c["batch_norm"]): block
        for (label, c), block in zip(cells, blocks, strict=True)
        if c["alpha"] == reference
    }
    return tuple(
        _accuracy(label, c, block, known[label, c["batch_norm"]], reference, protocol.confidence)
        for (label, c), block in zip(cells, blocks, strict=True)
    )


def _accuracy(
    label: str, configuration: Mapping[str, Any], found: Any, compared: Any, reference: float, confidence: float
) -> Accuracy:
    """Average the runs of one setting, and their differences from those of the reference."""
    pairs = list(zip(found, compared, strict=True))
    return Accuracy(
        label=label,
        batch_norm=configuration["batch_norm"],
        alpha=configuration["alpha"],
        configuration=configuration,
        accuracy=mean_interval([run["accuracy"] for run in found], confidence=confidence),
        against=mean_interval([a["accuracy"] - b["accuracy"] for a, b in pairs], confidence=confidence),
        reference=reference,
        same=sum(a["weights"] == b["weights"] for a, b in pairs),
        met=sum(run["met"] for run in found) / sum(run["steps"] for run in found),
        broken=sum(run["loss"] is None for run in found),
    )
