"""A training run watched: every N steps the kinks met, whether they could change the gradient, and by how much."""

from __future__ import annotations

import json
import os
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from nonsmooth.audit.watch_report import RunReport, run_report
from nonsmooth.audit.watch_summary import ROUNDING
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import observe_training
from nonsmooth.frameworks.observation import Observation, Observer
from nonsmooth.kinks.selection import AtKinks, selection
from nonsmooth.report.json_text import plain_data, to_json
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.report.text import plain

__all__ = ["Watch", "watch"]


def watch(
    model: Any,
    *,
    every: int = 100,
    at_kinks: AtKinks | None = 1.0,
    change_every: int = 20,
    budget: float | None = None,
    log: str | os.PathLike[str] | None = None,
    tensorboard: Any = None,
    progress: bool | None = None,
    reduce: bool | None = None,
) -> Watch:
    """Watch a training loop: `with ns.watch(model) as log:` around it.

    At every N-th step of the optimiser each operation with kinks counts its elements, the active ones (exactly at a kink)
    and those of them that can matter (their output has a nonzero derivative), and notes the margin, the least distance of
    the others. Where kinks were met, the gradient g' under the other choice `at_kinks` is computed by one more backward
    pass over the same graph, and compared:

        change = ||g' - g|| / ||g||.

    Training goes on bit for bit as without: everything runs natively, by the same kernels in the same order. Status:
    `computed`, for the steps observed; nothing is said of the others.

    Args:
        model: a `torch.nn.Module`, also one in `DistributedDataParallel`.
        every: N; the first step is observed, and every N-th from there.
        at_kinks: the other choice, as `at_kinks=` of `backprop`; None leaves the change out.
        change_every: the change is measured at most once in so many steps, since it costs a backward pass.
        budget: the share of the training's time that observing may cost, as 0.02: observations that do not fit are put off, and
            left out when the next one is due (`log.left_out`). Which ones depends on the clock. None: all are made.
        log: a file to which every observation is written at once as a line of JSON (appended).
        tensorboard: a `SummaryWriter`, or anything with its `add_scalar`.
        progress: whether a line on standard error tells of the last observation; by default on a terminal only.
        reduce: whether counts are added up over the processes of torch.distributed; by default if the model is in
            `DistributedDataParallel`. All processes must watch.

    Returns:
        The block; `as log` gives the log, with `log.records`, `print(log)`, `log.save(folder)`. In a loop without an
        optimiser of torch.optim call `log.step()` after every update.

    Raises:
        UsageError: no module, a compiled one, a number that means nothing, or a file that cannot be written.
        ConventionError: `at_kinks` means nothing.

    >>> import torch
    >>> import nonsmooth as ns
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _ = torch.nn.init.zeros_(model[0].bias)
    >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> inputs = torch.zeros(4, 2)                           # zero inputs on zero biases
    >>> with ns.watch(model, every=1) as log:
    ...     for _ in range(2):
    ...         optimiser.zero_grad()
    ...         model(inputs).sum().backward()
    ...         optimiser.step()
    >>> [(record.step, record.active, record.can_matter) for record in log.records]
    [(0, 12, 12), (1, 12, 12)]
    >>> sorted(log.records[0].change.parameters)             # torch's relu'(0) = 0, and the other choice is 1
    ['0.bias']

    Source: Bertoin2021, BoltePauwels2020b.
    """
    for name, number in (("every", every), ("change_every", change_every)):
        if type(number) is not int or number < 1:
            raise UsageError(f"{name}={number!r}: pass a number of steps, 1 or more.")
    if budget is not None and (type(budget) not in (int, float) or not 0 < budget < float("inf")):
        raise UsageError(f"budget={budget!r}: pass a share of the training's time, such as 0.02.")
    if log is not None and not isinstance(log, str | os.PathLike):
        raise UsageError(f"log={log!r}: pass the path of a file.")
    if tensorboard is not None and not callable(getattr(tensorboard, "add_scalar", None)):
        raise UsageError(
            f"tensorboard={tensorboard!r} has no add_scalar; pass a torch.utils.tensorboard.SummaryWriter."
        )
    return Watch(model, _Options(every, at_kinks, change_every, budget, log, tensorboard, progress, reduce))


@dataclass(frozen=True)
class _Options:
    """What `watch` was asked for."""

    every: int
    at_kinks: AtKinks | None
    change_every: int
    budget: float | None
    log: str | os.PathLike[str] | None
    tensorboard: Any
    progress: bool | None
    reduce: bool | None


class Watch:
    """A watched training loop: the block around it, and its log."""

    def __init__(self, model: Any, options: _Options) -> None:
        self._options, self._records = options, list[Observation]()
        self._file: IO[str] | None = None
        self._broken: set[str] = set()
        select = None if options.at_kinks is None else selection(options.at_kinks, "torch")
        self._name = f"{type(model).__module__}.{type(model).__name__}"
        self._began = datetime.now(UTC).isoformat(timespec="microseconds")
        self._observer: Observer = observe_training(
            model,
            self._receive,
            every=options.every,
            change_every=options.change_every,
            select=select,
            reduce=options.reduce,
            budget=options.budget,
        )
        types = {str(p.dtype).rpartition(".")[2] for p in model.parameters()}
        self._rounding = max((ROUNDING.get(name, 0.0) for name in types), default=0.0)

    @property
    def records(self) -> tuple[Observation, ...]:
        """The observations so far, one for each observed step."""
        return tuple(self._records)

    @property
    def steps(self) -> int:
        """The steps that are complete, observed or not."""
        return self._observer.steps

    @property
    def left_out(self) -> int:
        """The observations that were due and did not fit into the budget."""
        return self._observer.left_out

    def step(self) -> None:
        """Say that a step is complete, in a loop without an optimiser of torch.optim; from then on optimisers are not asked."""
        self._observer.finish_step()

    def __enter__(self) -> Watch:
        """Begin to watch."""
        if self._options.log is not None and self._file is None:
            path = Path(self._options.log)
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"the log cannot be written to {str(path)!r}: {error.strerror or error}.") from error
        try:
            self._observer.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End: the model, its optimiser and torch are as they were."""
        try:
            self._observer.stop(failed=kind is not None)
        finally:
            self._close()

    def _close(self) -> None:
        """Close the log, and end the line of progress."""
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which was told when the line was written
                self._file.close()
            self._file = None
        if self._records and self._tells_progress():
            print(file=sys.stderr)

    def _tells_progress(self) -> bool:
        """Tell whether a line of progress is shown."""
        wanted = self._options.progress
        if sys.stderr is None or not self._observer.leads:
            return False
        return sys.stderr.isatty() if wanted is None else wanted

    def _receive(self, observation: Observation) -> None:
        """Keep an observation, and hand it on."""
        self._records.append(observation)
        if not self._observer.leads:
            return
        for way in (self._to_file, self._to_tensorboard, self._to_terminal):
            if way.__name__ in self._broken:
                continue
            try:
                way(observation)
            except Exception as error:  # a full disk is no reason to end a training
                self._broken.add(way.__name__)
                warnings.warn(
                    f"watch: nothing is written any more {way.__name__[1:].replace('_', ' ')}: {type(error).__name__}: {error}.",
                    stacklevel=2,
                )

    def _to_file(self, observation: Observation) -> None:
        """Write a line of the log."""
        if self._file is not None:
            line = {"format_version": FORMAT_VERSION, "run": self._about(), **plain_data(observation)}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _to_tensorboard(self, observation: Observation) -> None:
        """Write the numbers of an observation."""
        if self._options.tensorboard is not None:
            for name, value in observation.scalars().items():
                self._options.tensorboard.add_scalar(name, value, observation.step)

    def _to_terminal(self, observation: Observation) -> None:
        """Show the line of progress."""
        if self._tells_progress():
            print(f"\r\x1b[2K{plain(observation.sentence())}", end="", file=sys.stderr, flush=True)

    def report(self) -> RunReport:
        """Give the run as a result that every writer takes."""
        return run_report(self._name, self._setting(), self.steps, self.records, rounding=self._rounding)

    def _setting(self) -> dict[str, Any]:
        """Give how the run is watched."""
        options = self._options
        return {"every": options.every, "other choice": str(options.at_kinks), "change_every": options.change_every}

    def _about(self) -> dict[str, Any]:
        """Give what tells this run from others in one log, and how to read it."""
        about = {"model": self._name, "began": self._began, "process": os.getpid(), "rounding": self._rounding}
        return {**about, **self._setting()}

    def __str__(self) -> str:
        """Print the run."""
        return str(self.report())

    def _repr_html_(self) -> str:
        """Show the run in a notebook."""
        return self.report()._repr_html_()

    def to_json(self) -> str:
        """Write the run, with all observations, as strict JSON."""
        return to_json(self.report())

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write report.json, report.txt, report.html and the map of layers by steps; give what was written."""
        return self.report().save(folder)
