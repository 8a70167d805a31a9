"""The command: `nonsmooth audit`, `kinks`, `cost`, `bounds`, `gradcheck`, `watch`, `ops`, `conventions`, `study`.

Standard output carries the result alone; messages and the progress bar go to standard error. Exit status: 0 done, 1 a
finding named by `--fail-on` or a derivative that is refuted, 2 wrong use.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import nonsmooth as ns
from nonsmooth.audit.conventions import agreement, conventions_document, measured
from nonsmooth.audit.gate import WORDS, failure_text, failures, parse_words
from nonsmooth.audit.problem import open_problem
from nonsmooth.cli.output import FOUND, AsJson, Folder, finish, messages, named_targets, print_table, show, terminal
from nonsmooth.cli.studies import study
from nonsmooth.cost.model import parse_model
from nonsmooth.errors import UsageError
from nonsmooth.report.json_text import to_json
from nonsmooth.report.progress import progress_bar
from nonsmooth.report.table import Table
from nonsmooth.report.text import plain

__all__ = ["app", "main"]

app = typer.Typer(
    help="What automatic differentiation computes when a program is not differentiable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(study, name="study")

Target = Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="NAME() returns (function, point, *data).")]
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


def _version(wanted: bool) -> None:
    """Print the version."""
    if wanted:
        show(f"nonsmooth {ns.__version__}")
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
    with messages():
        words = () if fail_on is None else parse_words(fail_on)
        with progress_bar() as progress, open_problem(target) as (function, x, data):
            result = ns.audit(function, x, *data, tol=tol, progress=progress)
        finish(result, as_json, output)
    found = failures(result, words)
    if found:
        typer.echo(f"nonsmooth: {failure_text(found)}", err=True)
        raise typer.Exit(FOUND)


@app.command()
def kinks(target: Target, as_json: AsJson = False, tol: Tol = 0.0) -> None:
    """List the kinks at a point, by step of the program."""
    with messages():
        with open_problem(target) as (function, x, data):
            found = ns.kinks(function, x, *data, tol=tol)
        show(
            to_json({"tol": found.tol, "count": found.count, "rows": found.rows})
            if as_json
            else terminal(found.table())
        )


@app.command()
def cost(
    target: Target,
    as_json: AsJson = False,
    output: Folder = None,
    model: Annotated[
        str, typer.Option("--model", help="Prices: unit, latency, or some operations' own, such as exp=10,div=4.")
    ] = "unit",
    directions: Annotated[
        list[int] | None, typer.Option("--directions", help="Of the forward sweeps; may be repeated.")
    ] = None,
    own: Annotated[bool, typer.Option(help="Run and count the framework's own backward too.")] = True,
    measure: Annotated[bool, typer.Option("--measure", help="Measure times and memory too: some seconds.")] = False,
) -> None:
    """Count what a program and its derivatives cost, against the proved bound."""
    with messages():
        prices = parse_model(model)
        with open_problem(target) as (function, x, data):
            result = ns.cost(function, x, *data, model=prices, directions=directions or None, own=own, measure=measure)
        finish(result, as_json, output)


@app.command()
def bounds(
    targets: Annotated[
        list[str], typer.Argument(metavar="FILE.py:NAME...", help="NAME() returns (model or function, *arguments).")
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="RADIUS or NAME=RADIUS",
            help="Balls of the weights about zero; NAME=RADIUS may be repeated.",
            show_default="1 where no --inputs is given",
        ),
    ] = None,
    inputs: Annotated[
        float | None,
        typer.Option("--inputs", metavar="RADIUS", help="Balls of the inputs about the example; inf: anywhere."),
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Balls of the weights about their values.")] = False,
    spectral: Annotated[bool, typer.Option("--spectral", help="Balls of the weights in the spectral norm.")] = False,
    as_json: AsJson = False,
    output: Folder = None,
) -> None:
    """Bound a network and its derivatives on a set of weights or inputs; compare architectures layer by layer."""
    from nonsmooth.bounds.comparison import compare_bounds
    from nonsmooth.bounds.region import parse_weights

    with messages():
        sets = parse_weights(weights or (["1"] if inputs is None else []), here=here, spectral=spectral)
        found = {}
        for name, target in named_targets(targets).items():
            with open_problem(target, returns="(model or function, *arguments)") as (function, x, data):
                found[name] = ns.bounds(function, x, *data, weights=sets, inputs=inputs)
        finish(compare_bounds(found) if len(found) > 1 else next(iter(found.values())), as_json, output)


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
    with messages():
        with open_problem(target) as (function, x, data):
            given = data[0] if data and callable(data[0]) else None
            rest = data[given is not None :]
            result = ns.gradcheck(
                function, x, *rest, derivative=given, samples=samples, seed=seed, raise_exception=False
            )
        show(result.to_json() if as_json else terminal(result.table()))
    if result.refuted:
        typer.echo("\n".join(plain(line) for line in f"nonsmooth: {result.message}".split("\n")), err=True)
        raise typer.Exit(FOUND)


@app.command()
def watch(
    log: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="What ns.watch(model, log=...) writes.")],
    output: Folder = None,
    run: Annotated[
        int | None, typer.Option("--run", help="Which run of the file, from 1.", show_default="the last")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report a watched training from its log, also while it still runs."""
    from nonsmooth.audit.watch_log import read_run

    with messages():
        finish(read_run(log, run), as_json, output)


@app.command()
def ops(
    missing: Annotated[
        bool, typer.Option("--missing", help="List the framework's own operators that are not served.")
    ] = False,
    framework: Annotated[str, typer.Option("--framework", help="Whose, with --missing: torch or jax.")] = "torch",
    kind: Annotated[str | None, typer.Option("--kind", help="Only operations of this kind.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the operations of the dictionary."""
    with messages():
        if missing:
            return print_table(_missing(framework), as_json)
        kinds = [k.value for k in ns.Kind]
        if kind is not None and kind not in kinds:
            raise UsageError(f"--kind {kind}: the kinds are {', '.join(kinds)}.")
        records = [o for o in ns.operations() if kind in (None, o.kind.value)]
        rows = tuple(
            (o.name, o.kind.value, ", ".join(getattr(o, "kinks", ())) or None, o.summary or None) for o in records
        )
        return print_table(
            Table(f"{len(rows)} operations", ("operation", "kind", "kinks", "what it is"), rows), as_json
        )


def _missing(framework: str) -> Table:
    """List the operators that the dictionary neither lists nor opens."""
    if framework == "torch":
        from nonsmooth.frameworks.torch.names import missing
    elif framework == "jax":
        from nonsmooth.frameworks.jax.registry import missing
    else:
        raise UsageError(f"--framework {framework}: the frameworks whose programs are captured are torch and jax.")
    names = missing()
    return Table(
        f"{len(names)} differentiable operators of {framework} are not served",
        ("operator",),
        tuple((n,) for n in names),
    )


@app.command()
def conventions(
    operation: Annotated[str | None, typer.Argument(help="Only this operation, and how it is written.")] = None,
    differing: Annotated[bool, typer.Option("--differing", help="Only where the frameworks do not agree.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what torch, jax and tensorflow return at every kink, as measured, and where they differ."""
    with messages():
        document = conventions_document(operation, differing=differing)
        if as_json:
            versions = {name: table["version"] for name, table in measured().items()}
            show(to_json({"versions": versions, "agreement": agreement(), "tables": document.parts[1:]}))
        else:
            show(terminal(document))
