"""One run of the red figure: a relu network trained on digits, and the kinks met in each of its layers at every step."""

from __future__ import annotations

import math
from typing import Any

from nonsmooth.audit.watch import watch
from nonsmooth.errors import UsageError
from nonsmooth.studies.data import held_out
from nonsmooth.studies.relu_prime_networks import build_network, check_network

__all__ = ["MOMENTUM", "PARTS", "RATE", "run_network"]

PARTS = 25
"""In so many parts the steps of a run are gathered."""

RATE, MOMENTUM, CHANGE_EVERY = 0.05, 0.9, 10
"""Of stochastic gradient descent; and the change of the gradient is measured at most once in so many steps."""


def run_network(
    *, data: str, depth: int, width: int, precision: str, biases: str, steps: int, batch_size: int, seed: int
) -> dict[str, Any]:
    """Train a relu network by stochastic gradient descent, and count its kinks at every step.

    Weights are drawn by He's rule in float32 and rounded to the precision, so that the runs of a seed differ by rounding
    alone; biases are drawn as torch does, or zero. Parameters, activations and gradients have the precision. Status:
    `computed`, for every step.

    Args:
        data: "digits" or "mnist".
        depth: hidden layers.
        width: units of each.
        precision: the name of torch's format.
        biases: "torch" or "zero".
        steps: of training.
        batch_size: images a step.
        seed: of the weights and of the order of the images.

    Returns:
        elements, active, can_matter: for each layer the counts in each part of the run; steps, those with kinks that can
        matter (`met`), the first and the last of them; the largest relative change of the gradient by relu'(0) = 1 where
        kinks were met, and at how many steps it was measured; the loss of the last step (None if it is not finite).

    Raises:
        UsageError: there is no such network or data set, or numbers that mean nothing.

    Source: He2015.
    """
    import torch

    images, labels, _, _ = held_out(data)
    known: dict[str, Any] = {"network": "mlp", "activation": "relu", "depth": depth, "width": width, "biases": biases}
    known |= {"side": images.shape[-1]}
    check_network(**known, precision=precision)
    if steps < 1 or not 1 <= batch_size <= len(images):
        raise UsageError(
            f"steps={steps}, batch_size={batch_size}: pass at least one step, of 1 to {len(images):,} images."
        )
    kind = getattr(torch, precision)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = build_network(**known, batch_norm=False, precision="float32")
        for layer in model:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        model, images = model.to(kind), images.to(kind)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        with watch(model, every=1, at_kinks=1.0, change_every=CHANGE_EVERY, progress=False, reduce=False) as log:
            for chosen in _batches(len(images), batch_size, steps):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
                loss.backward()
                optimiser.step()
    last = float(loss.detach())
    return {**_counts(log.report(), depth), "loss": last if math.isfinite(last) else None}


def _batches(count: int, batch_size: int, steps: int) -> Any:
    """Give random batches, each image once in an epoch; the last, smaller one of an epoch is left out."""
    import torch

    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(count, device="cpu")
        chosen, order = order[:batch_size], order[batch_size:]
        yield chosen


def _counts(report: Any, depth: int) -> dict[str, Any]:
    """Add the counts up by layer and part of the run."""
    parts, steps = min(PARTS, len(report.records)), len(report.records)
    layers = [p for p in report.places if p.operation == "relu"]
    if len(layers) != depth:
        raise RuntimeError(f"{len(layers)} layers with kinks were seen, of {depth}")
    names = ("elements", "active", "can_matter")
    counts = {name: [[0] * parts for _ in layers] for name in names}
    for row, place in enumerate(layers):
        for k, met in zip(place.at, place.found, strict=True):
            for name in names:
                counts[name][row][k * parts // steps] += getattr(met, name)
    found = report.summary
    return {
        **counts,
        "steps": steps,
        "met": found.with_kinks,
        "first": found.first_with_kinks,
        "last": found.last_with_kinks,
        "measured": found.measured,
        "change": found.largest_change,
    }
