"""A Keras model on its three backends: the kinks that it meets, and where the gradients of the frameworks differ.

Each backend runs in a process of its own, on the same weights and data; TensorFlow's gradient is computed by TensorFlow.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nonsmooth.audit.result import Change
from nonsmooth.errors import UsageError
from nonsmooth.report.files import write_report
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table

__all__ = ["KerasKinks", "KerasModel", "KerasStudy", "study_keras"]

BACKENDS = ("torch", "jax", "tensorflow")
"""The backends, in the order in which they run; the first one makes the weights."""

ROUNDING = 2.0**-16
"""Relative differences of gradients up to this are rounding: the frameworks sum in single precision, in different orders."""

PROBLEMS = Path(__file__).with_name("keras_problems.py")


@dataclass(frozen=True)
class KerasKinks:
    """The kinks of one operation in one layer, by backend.

    Attributes:
        active: how many elements are at the kink, of `elements`; `can_matter` of them, where it is known.
        moves: by how much the weights at these kinks, from one end to the other, move the gradient of each variable,
            relative to it (absolutely where it is 0); what is rounding is left out.
    """

    layer: str
    operation: str
    kink: str
    elements: Mapping[str, int]
    active: Mapping[str, int]
    can_matter: Mapping[str, int | None]
    moves: Mapping[str, Mapping[str, float]]

    @property
    def agree(self) -> bool:
        """Whether the backends whose programs were captured count the same, and the same variables move."""
        same = [(self.active[b], self.elements[b], sorted(self.moves[b])) for b in self.active]
        return all(item == same[0] for item in same)


@dataclass(frozen=True)
class KerasModel:
    """One model on every backend.

    Attributes:
        values: the value of the objective.
        kinks: by layer and operation, those that are active on some backend.
        norms: the norm of each variable's gradient, by backend, as the framework itself computes it.
        differences: for each pair of frameworks "a - b" and each variable ||g_a - g_b|| / ||g_b||.
        predicted: for "a as b", what `at_kinks="b"` gives on backend a against what b gives, likewise.
    """

    name: str
    values: Mapping[str, float]
    kinks: tuple[KerasKinks, ...]
    norms: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Change]]
    predicted: Mapping[str, Mapping[str, Change]]


@dataclass(frozen=True)
class KerasStudy(Reported):
    """Models of Keras on its backends; every figure was measured in this run."""

    format_version: int
    versions: Mapping[str, str]
    models: tuple[KerasModel, ...]
    rounding: float
    seconds: float

    def document(self) -> Document:
        """Lay the study out for reading."""
        parts: list[str | Table] = [self._story()]
        for model in self.models:
            parts += [table for table in (_kinks(model), _gradients(model), _predictions(model)) if table.rows]
        parts.append(f"In {self.seconds:.1f} s (measured).")
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return Document(f"Keras on its backends ({versions})", tuple(parts))

    def _story(self) -> str:
        """Say in a few lines what was found."""
        lines = []
        for model in self.models:
            unequal = [f"{k.layer or 'outside the layers'}, {k.operation}" for k in model.kinks if not k.agree]
            count = sum(max(k.active.values()) for k in model.kinks)
            same = f"counted differently in {'; '.join(unequal)}" if unequal else "the same on every backend captured"
            lines.append(f"{model.name}: {count:,} elements at kinks, {same}.")
            for pair, parts in model.differences.items():
                moved = [n for n, change in parts.items() if change.size > self.rounding]
                most = max(moved, key=lambda n: parts[n].size, default=None)
                found = "nowhere" if most is None else f"in {len(moved)} of {len(parts)} variables, most in {most}: "
                lines.append(f"  {pair}: differ {found}" + ("" if most is None else parts[most].text(self.rounding)))
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt and a picture of each model into a folder, made if need be; give what was written."""
        from nonsmooth.studies.keras_picture import draw_model

        pictures = {
            f"gradients{number}": partial(draw_model, model=model, rounding=self.rounding)
            for number, model in enumerate(self.models, 1)
        }
        return write_report(folder, self, pictures)


def study_keras(
    targets: Sequence[str] = (),
    *,
    backends: Sequence[str] = BACKENDS,
    seed: int = 0,
    progress: Report | None = None,
) -> KerasStudy:
    """Compare models of Keras on its backends: kinks by layer, and the gradients of the frameworks by variable.

    For variables v and frameworks a, b it gives

        ||g_a - g_b|| / ||g_b||,

    g the gradient of loss(target, model(inputs)) as a and b themselves compute it, at the same weights; and the same of what
    `at_kinks="b"` gives on backend a. Status: `computed`.

    Args:
        targets: FILE.py:NAME, NAME() returning (model, loss, *inputs, target) with arrays as data; by default two networks
            on handwritten digits. The weights and data are those of the first backend's process.
        backends: which ones, of torch, jax and tensorflow.
        seed: of Keras' random generators as NAME runs.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: an unknown backend, one that is not installed, a target that cannot be opened.

    Source: BoltePauwels2020b.
    """
    _check(backends)
    named = tuple(_absolute(t) for t in targets) or tuple(f"{PROBLEMS}:{name}" for name in ("relus", "mixed"))
    report, start = progress or silent, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="nonsmooth-keras-") as folder:
        job = Path(folder)
        (job / "job.json").write_text(json.dumps({"targets": named, "seed": seed}), "utf-8")
        runs = {}
        for number, backend in enumerate(backends):
            report(f"Keras on {backend}", number, len(backends))
            runs[backend] = _run(job, backend)
        models = tuple(
            _model(job, number, {b: run["found"][number] for b, run in runs.items()}) for number in range(len(named))
        )
    versions = {backend: str(run["version"]) for backend, run in runs.items()}
    return KerasStudy(FORMAT_VERSION, versions, models, ROUNDING, time.perf_counter() - start)


def _check(backends: Sequence[str]) -> None:
    """Refuse backends that are unknown or not here."""
    unknown = [b for b in backends if b not in BACKENDS]
    if unknown or not backends or len(set(backends)) < len(backends):
        raise UsageError(f"backends={', '.join(backends) or 'none'}: pass some of {', '.join(BACKENDS)}, each once.")
    for name in ("keras", *backends):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"the study needs {name}, which is not installed: pip install 'nonsmooth[{name}]'.")


def _absolute(target: str) -> str:
    """Give a target whose file is found from every folder; what is wrong with it is said when it is opened."""
    file, colon, name = target.rpartition(":")
    return f"{Path(file).resolve()}{colon}{name}" if file else target


def _run(job: Path, backend: str) -> Any:
    """Run one backend, and read what it found."""
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "nonsmooth.studies.keras_process", str(job)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"the process of the {backend} backend failed: {last}")
    run = json.loads((job / f"{backend}.json").read_text("utf-8"))
    for found in run["found"]:
        if "error" in found:
            raise UsageError(f"on the {backend} backend: {found['error']}")
    return run


def _model(job: Path, number: int, found: Mapping[str, Any]) -> KerasModel:
    """Put together what the backends found of one model."""
    names = next(iter(found.values()))["variables"]
    gradients: dict[tuple[str, str], dict[str, Any]] = {}
    for backend, one in found.items():
        with np.load(job / f"{number}-{backend}.npz") as arrays:
            for convention in one["conventions"]:
                parts = {n: arrays[f"{convention}/{k}"].astype(np.float64) for k, n in enumerate(names)}
                gradients[backend, convention] = parts
    pairs = [(a, b) for k, b in enumerate(found) for a in list(found)[k + 1 :]]
    foreseen = [(a, b) for a, b in gradients if a != b and b in found]
    return KerasModel(
        name=str(next(iter(found.values()))["model"]),
        values={backend: float(one["value"]) for backend, one in found.items()},
        kinks=_joined({b: one["kinks"] for b, one in found.items() if one["kinks"] or b != "tensorflow"}),
        norms={b: {n: float(np.linalg.norm(g)) for n, g in gradients[b, b].items()} for b in found},
        differences={f"{a} - {b}": _compared(gradients[a, a], gradients[b, b]) for a, b in pairs},
        predicted={f"{a} as {b}": _compared(gradients[a, b], gradients[b, b]) for a, b in foreseen},
    )


def _compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Change]:
    """Give ||one - other|| / ||other|| for every variable."""
    changes = {}
    for name, reference in other.items():
        gap, size = float(np.linalg.norm(one[name] - reference)), float(np.linalg.norm(reference))
        relative = gap / size if size else (0.0 if gap == 0 else None)
        changes[name] = Change(gap, relative, "" if relative is not None else "the gradient is 0 here")
    return changes


def _joined(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[KerasKinks, ...]:
    """Put the rows of one operation in one layer beside each other, and leave out what is active on no backend."""
    places = list(dict.fromkeys((r["layer"], r["operation"], r["kink"]) for found in rows.values() for r in found))
    joined = []
    for place in places:
        mine = {b: [r for r in found if (r["layer"], r["operation"], r["kink"]) == place] for b, found in rows.items()}
        kinks = KerasKinks(
            *place,
            elements={b: sum(r["elements"] for r in found) for b, found in mine.items()},
            active={b: sum(r["active"] for r in found) for b, found in mine.items()},
            can_matter={b: _total([r["can_matter"] for r in found]) for b, found in mine.items()},
            moves={b: _largest([r["moves"] for r in found]) for b, found in mine.items()},
        )
        if any(kinks.active.values()):
            joined.append(kinks)
    return tuple(joined)


def _total(counts: Sequence[int | None]) -> int | None:
    """Add counts up, if all are known."""
    return None if None in counts else sum(c for c in counts if c is not None)


def _largest(moves: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the largest effect on each variable."""
    names = dict.fromkeys(n for move in moves for n in move)
    return {n: max(float(move.get(n, 0.0)) for move in moves) for n in names}


def _kinks(model: KerasModel) -> Table:
    """Give the kinks by layer."""
    backends = list(model.kinks[0].active) if model.kinks else []

    def most(row: KerasKinks) -> str | None:
        moves = row.moves[backends[0]]
        name = max(moves, key=lambda n: moves[n], default=None)
        return None if name is None else f"{name} {100 * moves[name]:.1f} %"

    return Table(
        f"{model.name}: elements at kinks, by layer (computed)",
        ("layer", "operation", "kink", "of", *backends, "can matter", f"moves most ({', '.join(backends[:1])})"),
        tuple(
            (
                k.layer or None, k.operation, k.kink, max(k.elements.values()), *k.active.values(),
                k.can_matter[backends[0]], most(k),
            )
            for k in model.kinks
        ),
        "moves most: the variable whose gradient the weights at these kinks move most, from one end to the other.",
    )  # fmt: skip


def _gradients(model: KerasModel) -> Table:
    """Give how far the gradients of the frameworks are apart."""
    first = next(iter(model.norms))
    return Table(
        f"{model.name}: the gradients of the frameworks themselves (computed)",
        ("variable", f"norm in {first}", *model.differences),
        tuple(
            (n, f"{size:.4g}", *(parts[n].text(ROUNDING) for parts in model.differences.values()))
            for n, size in model.norms[first].items()
        ),
        f"a - b: ||g_a - g_b|| / ||g_b||; ~0: below {ROUNDING:.1g}, rounding; abs: ||g_a - g_b||, where g_b is 0.",
    )


def _predictions(model: KerasModel) -> Table:
    """Give how well at_kinks foresees the other framework."""

    def largest(parts: Mapping[str, Change]) -> str:
        return parts[max(parts, key=lambda n: parts[n].size)].text(ROUNDING)

    return Table(
        f"{model.name}: what at_kinks gives on one backend, against the other framework (computed)",
        ("backend as framework", "largest difference"),
        tuple((pair, largest(parts)) for pair, parts in model.predicted.items()),
        "torch as jax: at_kinks='jax' on the torch backend, against jax's own gradient; largest over the variables.",
    )
