"""The command: `nonsmooth audit`, `kinks`, `gradcheck`, `ops`, `conventions`, `study`.

Standard output carries the result alone; messages and the progress bar go to standard error. Exit status: 0 done, 1 a
finding named by `--fail-on` or a derivative that is refuted, 2 wrong use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import nonsmooth as ns
from nonsmooth.audit.conventions import conventions_document
from nonsmooth.audit.gate import WORDS, failure_text, failures, parse_words
from nonsmooth.audit.problem import open_problem
from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.report.json_text import to_json
from nonsmooth.report.progress import progress_bar
from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain, render

__all__ = ["app", "main"]

FOUND, WRONG_USE = 1, 2

app = typer.Typer(
    help="What automatic differentiation computes when a program is not differentiable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
study = typer.Typer(help="Demonstrations and figures of the literature, computed from data.", no_args_is_help=True)
app.add_typer(study, name="study")

Target = Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="NAME() returns (function, point, *data).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[
    Path | None, typer.Option("-o", "--output", help="Also write report.json, report.txt and pictures here.")
]
Tol = Annotated[float, typer.Option("--tol", help="Distance within which a kink counts as active.")]
FailOn = Annotated[
    str | None,
    typer.Option("--fail-on", metavar="WORDS", help=f"Exit with status 1 on any of: {', '.join(WORDS)}."),
]


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="nonsmooth")


@contextmanager
def _messages() -> Iterator[None]:
    """Turn errors of use into a message on standard error and exit status 2."""
    try:
        yield
    except NonsmoothError as error:
        typer.echo("\n".join(plain(line) for line in f"nonsmooth: {error}".split("\n")), err=True)
        raise typer.Exit(WRONG_USE) from error
    except ImportError as error:
        typer.echo(
            f"nonsmooth: {plain(str(error))}: install it, for example `pip install 'nonsmooth[torch]'`.", err=True
        )
        raise typer.Exit(WRONG_USE) from error


def _show(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def _version(wanted: bool) -> None:
    """Print the version."""
    if wanted:
        _show(f"nonsmooth {ns.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What automatic differentiation computes when a program is not differentiable."""


@app.command()
def audit(
    target: Target, as_json: AsJson = False, output: Folder = None, tol: Tol = 0.0, fail_on: FailOn = None
) -> None:
    """Report the kinks at a point, and what they do to the gradient."""
    with _messages():
        words = () if fail_on is None else parse_words(fail_on)
        with progress_bar() as progress, open_problem(target) as (function, x, data):
            result = ns.audit(function, x, *data, tol=tol, progress=progress)
        _finish(result, as_json, output)
    found = failures(result, words)
    if found:
        typer.echo(f"nonsmooth: {failure_text(found)}", err=True)
        raise typer.Exit(FOUND)


@app.command()
def kinks(target: Target, as_json: AsJson = False, tol: Tol = 0.0) -> None:
    """List the kinks at a point, by step of the program."""
    with _messages():
        with open_problem(target) as (function, x, data):
            found = ns.kinks(function, x, *data, tol=tol)
        _show(
            to_json({"tol": found.tol, "count": found.count, "rows": found.rows})
            if as_json
            else _terminal(found.table())
        )


@app.command()
def gradcheck(
    target: Annotated[
        str, typer.Argument(metavar="FILE.py:NAME", help="NAME() returns (function, point[, derivative], *data).")
    ],
    as_json: AsJson = False,
    samples: Annotated[int, typer.Option("--samples", help="Paths of each kind.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of the paths.")] = 0,
) -> None:
    """Try to refute a derivative along paths, at kinks and by its cotangents; exit with status 1 if it is refuted."""
    with _messages():
        with open_problem(target) as (function, x, data):
            given = data[0] if data and callable(data[0]) else None
            rest = data[given is not None :]
            result = ns.gradcheck(
                function, x, *rest, derivative=given, samples=samples, seed=seed, raise_exception=False
            )
        _show(result.to_json() if as_json else _terminal(result.table()))
    if result.refuted:
        typer.echo("\n".join(plain(line) for line in f"nonsmooth: {result.message}".split("\n")), err=True)
        raise typer.Exit(FOUND)


@app.command()
def ops(
    missing: Annotated[bool, typer.Option("--missing", help="List torch's own operators that are not served.")] = False,
    kind: Annotated[str | None, typer.Option("--kind", help="Only operations of this kind.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the operations of the dictionary."""
    with _messages():
        if missing:
            return _print_table(_missing(), as_json)
        kinds = [k.value for k in ns.Kind]
        if kind is not None and kind not in kinds:
            raise UsageError(f"--kind {kind}: the kinds are {', '.join(kinds)}.")
        records = [o for o in ns.operations() if kind in (None, o.kind.value)]
        rows = tuple(
            (o.name, o.kind.value, ", ".join(getattr(o, "kinks", ())) or None, o.summary or None) for o in records
        )
        return _print_table(
            Table(f"{len(rows)} operations", ("operation", "kind", "kinks", "what it is"), rows), as_json
        )


def _missing() -> Table:
    """List the operators that the dictionary neither lists nor opens."""
    from nonsmooth.frameworks.torch.names import missing

    names = missing()
    return Table(
        f"{len(names)} differentiable operators of torch are not served", ("operator",), tuple((n,) for n in names)
    )


@app.command()
def conventions(
    operation: Annotated[str | None, typer.Argument(help="Only this operation.")] = None, as_json: AsJson = False
) -> None:
    """Show what torch, jax and tensorflow return at every kink, as measured."""
    with _messages():
        document = conventions_document(operation)
        _show(to_json({"tables": document.parts}) if as_json else _terminal(document))


@study.command()
def digits(
    data: Annotated[str, typer.Option("--data", help="digits, or mnist (fetched once).")] = "digits",
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training.")] = 600,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of the split, the initialisation and the batches.")] = 0,
    initialisations: Annotated[int, typer.Option("--initialisations", help="How many more starts to audit.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Train a small network on handwritten digits, and audit its loss before, half-way and after."""
    from nonsmooth.studies.digits import study_digits

    with _messages():
        with progress_bar() as progress:
            result = study_digits(
                data, steps=steps, batch=batch, seed=seed, initialisations=initialisations, progress=progress
            )
        _finish(result, as_json, output)


@study.command()
def slides(output: Folder = None, as_json: AsJson = False) -> None:
    """Show what backprop returns at 0 for relu, abs, zero, sine and others, written as programs with kinks."""
    from nonsmooth.studies.slides import study_slides

    with _messages():
        with progress_bar() as progress:
            result = study_slides(progress=progress)
        _finish(result, as_json, output)


@study.command()
def field(
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training.")] = 1200,
    samples: Annotated[int, typer.Option("--samples", help="Gradients sampled in a ball.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="Of the training and the samples.")] = 0,
    grid: Annotated[int, typer.Option("--grid", help="Points a side of a picture of two variables.")] = 33,
    as_json: AsJson = False,
) -> None:
    """Show all that backprop can return in one and two variables, and criticality along a training path."""
    from nonsmooth.studies.field import study_field

    with _messages():
        with progress_bar() as progress:
            result = study_field(steps=steps, samples=samples, seed=seed, grid=grid, progress=progress)
        _finish(result, as_json, output)


def _finish(result: Any, as_json: bool, output: Path | None) -> None:
    """Print a result, and write it into a folder if one is given."""
    paths = result.save(output) if output is not None else ()
    _show(result.to_json() if as_json else str(result))
    if paths:
        typer.echo(f"wrote {', '.join(plain(str(p)) for p in paths)}", err=True)


def _print_table(table: Table, as_json: bool) -> None:
    """Print a table."""
    _show(to_json(table) if as_json else _terminal(table))


def _terminal(result: Table | Document) -> str:
    """Lay a result out for the width of the terminal; 100 columns in a pipe."""
    from shutil import get_terminal_size

    return render(result, width=max(100, get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100))
