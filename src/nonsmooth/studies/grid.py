"""A grid of independent runs: done in processes or on a cluster, each result kept, none repeated.

A run is a function of plain values that returns plain values. Its result depends on its configuration alone: a run has one
thread and its own seed, so that one process, many, or a cluster give the same.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from nonsmooth.errors import GridError, UsageError
from nonsmooth.report.progress import Report, silent
from nonsmooth.studies.grid_run import Outcome, Task, execute
from nonsmooth.studies.grid_store import Store, code_version, plain_text, read_text, run_version

__all__ = ["Run", "grid", "run_grid"]

Run: TypeAlias = Callable[..., Mapping[str, Any]]
"""A function of a module, called as run(**configuration)."""

LISTED = 10
"""At most so many failed runs are listed in an error."""


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """List all combinations of the values of some axes, the first axis slowest.

    Raises:
        UsageError: an axis is a text or no collection.

    >>> grid(width=[8, 16], seed=range(2))
    [{'width': 8, 'seed': 0}, {'width': 8, 'seed': 1}, {'width': 16, 'seed': 0}, {'width': 16, 'seed': 1}]
    """
    for name, values in axes.items():
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise UsageError(f"grid({name}={values!r}): an axis is a list of values, for example {name}=[{values!r}].")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def run_grid(
    run: Run,
    configurations: Iterable[Mapping[str, Any]],
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Report | None = None,
) -> list[dict[str, Any]]:
    """Do the run of every configuration that is not stored yet, and give all results in the order of the configurations.

    A result depends on its configuration alone: every run has one thread, and the global generators of NumPy and torch are
    seeded by the configuration before it (Python's too, but Dask draws from that one itself). Equal configurations are run
    once. A run that raises, or whose worker dies in each of three tries, does not stop the others.

    Args:
        run: a function that workers can import; it returns a mapping of plain values: None, bool, int, float, text, lists
            and mappings of these. Results come back as JSON keeps them: tuples as lists, nan and inf as themselves.
        configurations: the arguments of each run, plain values too.
        store: a folder that keeps each result from the moment it is finished. What it holds is not run again, as long as
            the text of the function, the code of this library and `VERSION` of the function or its module are the same.
        workers: processes on this machine; 1 runs in this process; None: one per core, at most one per run.
        cluster: the address of a Dask scheduler, "tcp://host:port", whose workers run the grid instead.
        progress: called as (what, done, of how many) while it works.

    Raises:
        UsageError: the call cannot be served: the run, a configuration, the folder or the cluster; nothing was run.
        GridError: some runs failed, or the cluster was lost; the others are stored.

    >>> run_grid(dict, grid(rate=[0.5], width=[8, 16]), workers=1)
    [{'rate': 0.5, 'width': 8}, {'rate': 0.5, 'width': 16}]
    """
    report, name = progress or silent, _name(run)
    _check_place(workers, cluster)
    given = [_configuration(run, c, number) for number, c in enumerate(configurations)]
    tasks = {text: Task(run, text) for text in given}
    kept = None if store is None else Store(Path(store), name, run_version(run), code_version())
    results = {} if kept is None else {text: found for text in tasks if (found := kept.read(text)) is not None}
    open_tasks = [task for text, task in tasks.items() if text not in results]
    failures: dict[str, Outcome] = {}

    def show() -> None:
        done = len(results) + len(failures)
        report(f"runs of {name}, {done:,} of {len(tasks):,}", done, len(tasks))

    show()
    with closing(_outcomes(open_tasks, workers, cluster)) as outcomes:
        for task, outcome in outcomes:
            if outcome.result is None:
                failures[task.configuration] = outcome
            else:
                results[task.configuration] = outcome.result
                if kept is not None:
                    kept.write(task.configuration, outcome.result, outcome.seconds)
            show()
    if failures:
        raise _error(name, failures, len(tasks), kept)
    return [read_text(results[text]) for text in given]


def _outcomes(
    tasks: Sequence[Task], workers: int | None, cluster: str | None
) -> Generator[tuple[Task, Outcome], None, None]:
    """Do the tasks where they are to be done, and give each with its outcome as it finishes."""
    if not tasks:
        return
    if cluster is not None:
        from nonsmooth.studies.grid_cluster import on_cluster

        yield from on_cluster(tasks, cluster)
    elif workers == 1:
        yield from ((task, execute(task)) for task in tasks)
    else:
        from nonsmooth.studies.grid_processes import cores, in_processes

        yield from in_processes(tasks, min(workers or cores(), len(tasks)))


def _check_place(workers: int | None, cluster: str | None) -> None:
    """Refuse a number of workers that means nothing, and two places at once."""
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise UsageError(f"workers={workers!r}: pass how many processes, 1 or more; 1 runs in this process.")
    if cluster is not None and workers is not None:
        raise UsageError(f"workers={workers}, cluster={cluster!r}: a cluster has its own workers; pass one of the two.")


def _name(run: Run) -> str:
    """Name a function so that it is the same wherever it is imported; refuse one that workers could not import."""
    module, qualified = getattr(run, "__module__", None), getattr(run, "__qualname__", None)
    found: Any = sys.modules.get(str(module))
    for part in str(qualified).split("."):
        found = getattr(found, part, None)
    if module is None or qualified is None or found is not run:
        raise UsageError(f"run={run!r} cannot be imported by a worker: write it as a function at the top of a module.")
    if module == "__main__":
        spec, file = found.__globals__.get("__spec__"), found.__globals__.get("__file__")
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}.{qualified}"


def _configuration(run: Run, configuration: Mapping[str, Any], number: int) -> str:
    """Write a configuration as canonical JSON; refuse one with which the run cannot be called."""
    text = plain_text(configuration, f"configuration {number}", ordered=True)
    try:
        signature = inspect.signature(run)
    except ValueError:  # some functions written in C have none
        return text
    try:
        signature.bind(**read_text(text))
    except TypeError as error:
        raise UsageError(f"configuration {number}, {text}: {_name(run)}{signature} {error}.") from error
    return text


def _error(name: str, failures: Mapping[str, Outcome], total: int, kept: Store | None) -> GridError:
    """Say which configurations failed, and how."""
    lines = [f"  {configuration}: {outcome.error}" for configuration, outcome in failures.items()]
    more = [f"  and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    others = "pass store= to keep the others" if kept is None else f"the others are kept in {str(kept.folder)!r}"
    error = GridError(
        "\n".join((f"{len(failures):,} of {total:,} runs of {name} failed ({others}):", *lines[:LISTED], *more))
    )
    trace = next((outcome.trace for outcome in failures.values() if outcome.trace), "")
    if trace:
        error.add_note(f"The first of them:\n{trace}")
    return error
