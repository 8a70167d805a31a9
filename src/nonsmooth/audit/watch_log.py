"""The log of a watched training run read back: lines of JSON, of one run or of several, finished or not."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nonsmooth.audit.watch_report import RunReport, run_report
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.observation import Change, Met, Observation
from nonsmooth.report.table import FORMAT_VERSION

__all__ = ["read_run"]

_BEGINNING = '{"format_version"'
"""What every line begins with."""

_NOT_SETTING = ("model", "rounding", "began", "process")
"""What a line says of its run besides how it was watched."""

T = TypeVar("T")


def read_run(path: str | os.PathLike[str], run: int | None = None) -> RunReport:
    """Read the log that `watch(log=...)` wrote, of a training that is finished or still runs, as its report.

    Several runs may have appended to one file: those that say who they are are told apart by that; in others a run begins
    where the number of the step does not grow. A line that was cut off, by a process that was killed or that writes just
    now, is left out and said.

    Args:
        path: of the log.
        run: which run of the file, from 1; negative from the end; the last that began by default.

    Returns:
        The report: `print(report)`, `report.records`, `report.save(folder)`.

    Raises:
        UsageError: the file cannot be read, is no log, is of a newer version, or has no such run.

    >>> import tempfile, torch, nonsmooth as ns
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> file = tempfile.NamedTemporaryFile(suffix=".jsonl")
    >>> with ns.watch(model, every=1, log=file.name) as log:
    ...     model(torch.zeros(4, 2)).sum().backward()
    ...     log.step()
    >>> read_run(file.name).records == log.records
    True
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"read_run takes the path of a log; found {path!r}.")
    if run is not None and type(run) is not int:
        raise UsageError(f"run={run!r}: pass the number of a run, from 1.")
    name = repr(os.fspath(path))
    lines = _Lines(Path(path))
    runs = _split(lines)
    if not runs and not lines.damaged:
        raise UsageError(f"{name} holds no observation yet.")
    if not runs:
        raise UsageError(f"{name} is no log of `watch`: no line of it can be read.")
    chosen = len(runs) if run is None else run if run > 0 else len(runs) + 1 + run
    if not 1 <= chosen <= len(runs):
        raise UsageError(f"{name} has {len(runs)} run(s); run {run} was asked for.")
    about, records = runs[chosen - 1]
    notes = [f"Read from a log, which tells of observed steps alone: the last of them was step {records[-1].step:,}."]
    if len(runs) > 1:
        which = ", ".join(f"{k + 1}: {_described(*r)}" for k, r in enumerate(runs[-6:], max(0, len(runs) - 6)))
        notes.append(f"The file holds {len(runs):,} runs, of which this is number {chosen}. {which}.")
    notes += lines.notes()
    setting = {key: value for key, value in about.items() if key not in _NOT_SETTING}
    rounding = about.get("rounding")
    return run_report(
        str(about.get("model", "")),
        setting,
        records[-1].step + 1,
        records,
        rounding=rounding if type(rounding) is float else 0.0,
        notes=notes,
    )


def _described(about: Mapping[str, Any], records: Sequence[Observation]) -> str:
    """Describe a run in a few words."""
    began = f", began {str(about['began'])[:19]}" if "began" in about else ""
    return f"{len(records):,} observed up to step {records[-1].step:,}{began}"


@dataclass
class _Lines:
    """The lines of a log: the observation on each, with what it says of its run; those that are damaged are counted."""

    path: Path
    damaged: list[int] = field(default_factory=list)
    unfinished: bool = False

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], Observation]]:
        """Read line by line."""
        try:
            with self.path.open(encoding="utf-8-sig", errors="replace") as lines:
                for number, text in enumerate(lines, 1):
                    if text.strip():
                        yield from self._line(number, text)
        except OSError as error:
            raise UsageError(f"the log {os.fspath(self.path)!r} cannot be read: {error.strerror or error}.") from error

    def _line(self, number: int, text: str) -> Iterator[tuple[Mapping[str, Any], Observation]]:
        """Read one line; where another run went on after a line that was cut off, the rest of it."""
        for part in (text, text[max(text.rfind(_BEGINNING), 0) :]):
            try:
                data = json.loads(part)
            except (ValueError, RecursionError):
                if number not in self.damaged:
                    self.damaged.append(number)
                self.unfinished = not text.endswith("\n")
                continue
            yield self._observation(number, data)
            return

    def _observation(self, number: int, data: Any) -> tuple[Mapping[str, Any], Observation]:
        """Make the observation of a line."""
        where = f"line {number} of {os.fspath(self.path)!r}"
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int:
            raise UsageError(f"{where} is no observation of `watch`: pass the file that was given to it as log=.")
        if version > FORMAT_VERSION:
            raise UsageError(f"{where} has format version {version}; this nonsmooth reads up to {FORMAT_VERSION}.")
        try:
            about = data.get("run") or {}
            change = data.get("change")
            seen = {
                **data,
                "rows": tuple(_record(Met, row) for row in data["rows"]),
                "change": None if change is None else _record(Change, change),
            }
            return {str(key): value for key, value in about.items()}, _record(Observation, seen)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{where} is no observation of `watch`: {type(error).__name__}: {error}.") from error

    def notes(self) -> Iterator[str]:
        """Say which lines could not be read."""
        cut = self.damaged[-1:] if self.unfinished else []
        others = self.damaged[: len(self.damaged) - len(cut)]
        if others:
            first = ", ".join(map(str, others[:5])) + (" and more" if len(others) > 5 else "")
            yield f"{len(others):,} damaged line(s), cut off when a process ended: {first}."
        if cut:
            yield f"Line {cut[0]:,}, the last, is not complete: the run writes it just now, or was stopped while it did."


def _split(lines: _Lines) -> list[tuple[Mapping[str, Any], list[Observation]]]:
    """Tell runs apart, in the order in which they began: by what they say of themselves, else by steps that go back."""
    runs: list[tuple[Mapping[str, Any], list[Observation]]] = []
    latest: dict[str, list[Observation]] = {}
    for about, seen in lines:
        key = json.dumps(about, sort_keys=True)
        records = latest.get(key)
        if records is None or seen.step <= records[-1].step:
            records = latest[key] = []
            runs.append((about, records))
        records.append(seen)
    return runs


def _record(kind: type[T], data: Mapping[str, Any]) -> T:
    """Make a record of its fields; those of later versions are left aside, those of earlier ones have their defaults."""
    found = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _value(data[name], str(found[name].type)) for name in found if name in data})


def _value(value: Any, kind: str) -> Any:
    """Give a field its type back, from what JSON has."""
    if value is None and "None" in kind:
        return None
    if kind.startswith("int"):
        return _read(value, int)
    if kind.startswith("float"):
        return _read(value, float)
    if kind.startswith("str"):
        return _read(value, str)
    if kind == "tuple[str, ...]":
        return tuple(_read(v, str) for v in value)
    if kind == "Mapping[str, float]":
        return {str(key): _read(v, float) for key, v in value.items()}
    return value


def _read(value: Any, kind: type[T]) -> T:
    """Read a number or a text; "nan", "inf" and "-inf" are numbers."""
    if kind is float and (value in ("nan", "inf", "-inf") or type(value) is int):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value
