"""What every command shares: messages and exit status, options, and how a result is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.report.json_text import to_json
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain, render

__all__ = [
    "FOUND",
    "WRONG_USE",
    "AsJson",
    "Cluster",
    "Folder",
    "Runs",
    "Workers",
    "finish",
    "messages",
    "named_targets",
    "print_table",
    "runs_folder",
    "show",
    "terminal",
]

EXTRAS = ("torch", "jax", "tensorflow", "keras")
"""What is installed by `nonsmooth[...]`."""

FOUND, WRONG_USE = 1, 2
"""Exit status: a finding that was asked for, and wrong use; 0 is done."""


def _checked(folder: Path | None) -> Path | None:
    """Refuse a folder that cannot be made, before anything is computed for it; nothing is written yet."""
    if folder is not None:
        held = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
        if not held.is_dir() or not os.access(held, os.W_OK | os.X_OK):
            why = f"{str(held)!r} is {'no folder' if not held.is_dir() else 'not open to writing'}"
            with messages():
                raise UsageError(f"the report cannot be written to {str(folder)!r}: {why}.")
    return folder


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Also write report.json, report.txt and pictures here.", callback=_checked),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that do the runs; 1: none but this one.", show_default="one per core"),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="ADDRESS", help="Do the runs on the Dask cluster of this scheduler.")
]
Runs = Annotated[
    Path | None,
    typer.Option("--store", metavar="FOLDER", help="Keep each run here, and repeat none.", show_default="OUTPUT/runs"),
]


def runs_folder(store: Path | None, output: Path | None) -> Path | None:
    """Give the folder in which a study keeps its runs: the one that was asked for, or one beside its report."""
    return store if store is not None or output is None else output / "runs"


@contextmanager
def messages() -> Iterator[None]:
    """Turn errors of use into a message on standard error and exit status 2."""
    try:
        yield
    except NonsmoothError as error:
        typer.echo("\n".join(plain(line) for line in f"nonsmooth: {error}".split("\n")), err=True)
        raise typer.Exit(WRONG_USE) from error
    except ImportError as error:
        extra = next((name for name in EXTRAS if (error.name or "").partition(".")[0] == name), "torch")
        typer.echo(
            f"nonsmooth: {plain(str(error))}: install it, for example `pip install 'nonsmooth[{extra}]'`.", err=True
        )
        raise typer.Exit(WRONG_USE) from error


def named_targets(targets: Sequence[str]) -> dict[str, str]:
    """Name targets shortly, by the stem of the file and NAME, where that tells them apart.

    >>> named_targets(["a/nets.py:wide", "a/nets.py:deep"]), list(named_targets(["a/nets.py:net", "b/nets.py:net"]))
    ({'nets:wide': 'a/nets.py:wide', 'nets:deep': 'a/nets.py:deep'}, ['a/nets.py:net', 'b/nets.py:net'])

    Raises:
        UsageError: a target is given twice.
    """
    parts = [target.rpartition(":") for target in targets]
    places = [(Path(file).resolve(), name) for file, _, name in parts]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{targets[number]} is given twice: each architecture is compared once.")
    short = [f"{Path(file).stem}:{name}" for file, _, name in parts]
    names = [s if short.count(s) == 1 else target for s, target in zip(short, targets, strict=True)]
    return dict(zip(names, targets, strict=True))


def show(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def finish(result: Any, as_json: bool, output: Path | None) -> None:
    """Print a result, and write it into a folder if one is given."""
    paths = result.save(output) if output is not None else ()
    show(result.to_json() if as_json else str(result))
    if paths:
        typer.echo(f"wrote {', '.join(plain(str(p)) for p in paths)}", err=True)


def print_table(table: Table, as_json: bool) -> None:
    """Print a table."""
    show(to_json(table) if as_json else terminal(table))


def terminal(result: Table | Document) -> str:
    """Lay a result out for the width of the terminal; 100 columns in a pipe."""
    from shutil import get_terminal_size

    return render(result, width=max(100, get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100))
