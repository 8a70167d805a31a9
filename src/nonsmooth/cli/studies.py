"""`nonsmooth study`: demonstrations and figures of the literature, ten lines each over the studies."""

from __future__ import annotations

from typing import Annotated

import typer

from nonsmooth.cli.output import AsJson, Cluster, Folder, Runs, Workers, finish, messages, runs_folder
from nonsmooth.report.progress import progress_bar

__all__ = ["study"]

study = typer.Typer(help="Demonstrations and figures of the literature, computed from data.", no_args_is_help=True)


@study.command()
def digits(
    data: Annotated[str, typer.Option("--data", help="digits, or mnist (fetched once).")] = "digits",
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training.")] = 600,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of the split, the initialisation and the batches.")] = 0,
    initialisations: Annotated[int, typer.Option("--initialisations", help="How many more starts to audit.")] = 10,
    workers: Workers = None,
    cluster: Cluster = None,
    store: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Train a small network on handwritten digits, and audit its loss before, half-way and after."""
    from nonsmooth.studies.digits import study_digits

    with messages():
        with progress_bar() as progress:
            result = study_digits(
                data,
                steps=steps,
                batch=batch,
                seed=seed,
                initialisations=initialisations,
                store=runs_folder(store, output),
                workers=workers,
                cluster=cluster,
                progress=progress,
            )
        finish(result, as_json, output)


@study.command()
def slides(output: Folder = None, as_json: AsJson = False) -> None:
    """Show what backprop returns at 0 for relu, abs, zero, sine and others, written as programs with kinks."""
    from nonsmooth.studies.slides import study_slides

    with messages():
        with progress_bar() as progress:
            result = study_slides(progress=progress)
        finish(result, as_json, output)


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

    with messages():
        with progress_bar() as progress:
            result = study_field(steps=steps, samples=samples, seed=seed, grid=grid, progress=progress)
        finish(result, as_json, output)


@study.command("relu-prime")
def relu_prime(
    output: Folder = None,
    full: Annotated[bool, typer.Option("--full", help="Begin from the size of the authors' study, on MNIST.")] = False,
    data: Annotated[str | None, typer.Option("--data", help="digits, or mnist (fetched once).")] = None,
    parts: Annotated[str | None, typer.Option("--parts", help="volume,training: which halves to run.")] = None,
    initialisations: Annotated[int | None, typer.Option("--initialisations", help="Of each mlp.")] = None,
    cnn_initialisations: Annotated[int | None, typer.Option("--cnn-initialisations", help="Of each cnn.")] = None,
    precisions: Annotated[str | None, typer.Option("--precisions", help="Such as float16,float32.")] = None,
    depths: Annotated[str | None, typer.Option("--depths", help="Hidden layers, such as 1,2,3.")] = None,
    widths: Annotated[str | None, typer.Option("--widths", help="Units of a hidden layer.")] = None,
    batch_sizes: Annotated[str | None, typer.Option("--batch-sizes", help="Images a batch.")] = None,
    alphas: Annotated[str | None, typer.Option("--alphas", help="The values of relu'(0) in training.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Training runs of each setting.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Of training.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The first seed.")] = None,
    store: Runs = None,
    workers: Workers = None,
    cluster: Cluster = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often relu'(0) changes a gradient, and what it does to training, with the right backward pass."""
    from nonsmooth.studies.relu_prime import study_relu_prime
    from nonsmooth.studies.relu_prime_protocol import read_protocol

    with messages():
        protocol = read_protocol(
            full=full, data=data, parts=parts, initialisations=initialisations, cnn_initialisations=cnn_initialisations,
            precisions=precisions, depths=depths, widths=widths, batch_sizes=batch_sizes, alphas=alphas, seeds=seeds,
            epochs=epochs, seed=seed,
        )  # fmt: skip
        with progress_bar() as progress:
            result = study_relu_prime(
                protocol, store=runs_folder(store, output), workers=workers, cluster=cluster, progress=progress
            )
        finish(result, as_json, output)


@study.command()
def convergence(
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Of each run.")] = 2000,
    seeds: Annotated[int, typer.Option("--seeds", help="How many runs of each kind.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="The first of them.")] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    store: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Show minibatch steps converge to critical points under lawful step sizes, and not under others."""
    from nonsmooth.studies.convergence import study_convergence

    with messages():
        with progress_bar() as progress:
            result = study_convergence(
                steps=steps, seeds=seeds, seed=seed, store=runs_folder(store, output), workers=workers, cluster=cluster,
                progress=progress,
            )  # fmt: skip
        finish(result, as_json, output)


@study.command()
def ridge(
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of each training.")] = 400,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 128,
    width: Annotated[int, typer.Option("--width", help="Hidden units of the network.")] = 64,
    samples: Annotated[int, typer.Option("--samples", help="Images at which attacks are checked.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of the problems, the split and the batches.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Solve min-max problems by the ridge method, and train a classifier of the digits against perturbations."""
    from nonsmooth.studies.ridge import study_ridge

    with messages():
        with progress_bar() as progress:
            result = study_ridge(steps=steps, batch=batch, width=width, samples=samples, seed=seed, progress=progress)
        finish(result, as_json, output)


@study.command("red-figure")
def red_figure(
    output: Folder = None,
    data: Annotated[str, typer.Option("--data", help="digits, or mnist (fetched once).")] = "digits",
    depths: Annotated[str, typer.Option("--depths", help="Hidden layers, such as 2,4,8.")] = "2,4,8,16",
    widths: Annotated[str, typer.Option("--widths", help="Units of a hidden layer.")] = "4,16,64",
    precisions: Annotated[
        str, typer.Option("--precisions", help="Of float32, bfloat16, float16, float64.")
    ] = "float32,bfloat16,float16",
    biases: Annotated[str, typer.Option("--biases", help="torch: random; zero.")] = "torch,zero",
    steps: Annotated[int, typer.Option("--steps", help="Of training, all observed.")] = 100,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 64,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each network.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="The first of them.")] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    store: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Count the kinks that relu networks of increasing size meet in training, layer by layer and step by step."""
    from nonsmooth.studies.red_figure import read_list, study_red_figure

    with messages():
        with progress_bar() as progress:
            result = study_red_figure(
                data, depths=read_list("depths", depths, int), widths=read_list("widths", widths, int),
                precisions=read_list("precisions", precisions, str), biases=read_list("biases", biases, str),
                steps=steps, batch_size=batch, seeds=seeds, seed=seed,
                store=runs_folder(store, output), workers=workers, cluster=cluster, progress=progress,
            )  # fmt: skip
        finish(result, as_json, output)


@study.command()
def cost(
    output: Folder = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="More sizes and rounds, or under three minutes.")] = False,
    framework: Annotated[
        str | None, typer.Option("--framework", help="torch, jax or both, with a comma.", show_default="all installed")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option("--images", help="28x28 (digits in the shape of MNIST), digits, or mnist (fetched once).",
                     show_default="28x28 and digits"),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Of torch.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and the batches.")] = 0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Count, bound and measure what derivatives cost: networks by size, and every way to differentiate by p inputs."""
    from nonsmooth.studies.cost import study_cost
    from nonsmooth.studies.red_figure import read_list

    with messages():
        chosen = None if framework is None else read_list("framework", framework, str)
        with progress_bar() as progress:
            result = study_cost(
                full=full, frameworks=chosen, images=images, threads=threads, seed=seed, progress=progress
            )
        finish(result, as_json, output)


@study.command()
def batchnorm(
    output: Folder = None,
    depth: Annotated[int, typer.Option("--depth", help="Of the VGG network of the table.")] = 16,
    depths: Annotated[str, typer.Option("--depths", help="Of the networks compared.")] = "11,13,16,19",
    epsilons: Annotated[str, typer.Option("--eps", help="Of batch normalisation; 0 or larger.")] = "1e-2,1e2",
    batch: Annotated[int, typer.Option("--batch", help="Images a batch.")] = 128,
    radius: Annotated[float, typer.Option("--radius", help="Of the ball of each layer's weights.")] = 1.0,
    side: Annotated[int, typer.Option("--side", help="Of the images in pixels, a multiple of 32.")] = 224,
    classes: Annotated[int, typer.Option("--classes", help="Of the softmax.")] = 1000,
    walk: Annotated[bool, typer.Option("--walk/--no-walk", help="Also bound the captured program.")] = True,
    as_json: AsJson = False,
) -> None:
    """Bound VGG with respect to its weights, with batch normalisation and without, by printed constants and right ones."""
    from nonsmooth.studies.batchnorm import study_batchnorm
    from nonsmooth.studies.red_figure import read_list

    with messages():
        with progress_bar() as progress:
            result = study_batchnorm(
                depth=depth, depths=read_list("depths", depths, int), epsilons=read_list("eps", epsilons, float),
                batch=batch, radius=radius, side=side, classes=classes, walk=walk, progress=progress,
            )  # fmt: skip
        finish(result, as_json, output)


@study.command("keras")
def keras_backends(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="FILE.py:NAME", help="NAME() returns (model, loss, *inputs, target).")
    ] = None,
    output: Folder = None,
    backends: Annotated[str, typer.Option("--backends", help="Which ones; the first makes the weights.")] = (
        "torch,jax,tensorflow"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of the initialisation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare Keras models on their backends: kinks by layer, and where the gradients of the frameworks differ."""
    from nonsmooth.studies.keras_backends import study_keras

    with messages():
        names = tuple(name.strip() for name in backends.split(",") if name.strip())
        with progress_bar() as progress:
            result = study_keras(targets or (), backends=names, seed=seed, progress=progress)
        finish(result, as_json, output)


@study.command()
def unrolling(
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Of the contractions.")] = 120,
    ball_steps: Annotated[int, typer.Option("--ball-steps", help="Of the heavy ball.")] = 240,
    size: Annotated[int, typer.Option("--size", help="Unknowns of the contractions.")] = 9,
    seed: Annotated[int, typer.Option("--seed", help="Of their matrices.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show the derivatives of iterates converge under contraction, and diverge with momentum at a kink."""
    from nonsmooth.studies.unrolling import study_unrolling

    with messages():
        with progress_bar() as progress:
            result = study_unrolling(steps=steps, ball_steps=ball_steps, size=size, seed=seed, progress=progress)
        finish(result, as_json, output)


@study.command()
def cycle(
    output: Folder = None,
    steps: Annotated[int, typer.Option("--steps", help="Of gradient descent.")] = 1200,
    step_size: Annotated[float, typer.Option("--step-size", help="Of a step.")] = 0.02,
    as_json: AsJson = False,
) -> None:
    """Show plain implicit differentiation cycle without a word, and the condition it violates."""
    from nonsmooth.studies.cycle import study_cycle

    with messages():
        with progress_bar() as progress:
            result = study_cycle(steps=steps, step_size=step_size, progress=progress)
        finish(result, as_json, output)
