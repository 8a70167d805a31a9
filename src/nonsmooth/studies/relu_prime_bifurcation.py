"""The volume of the bifurcation zone: for which initialisations two choices at kinks give different gradients.

For weights w, a batch B and choices a and b let g_a, g_b be backprop's gradients of the mean cross-entropy, in the
precision p, with respect to all parameters. On B the choices

    differ          if g_a and g_b are not equal, entry by entry (NaN equals NaN);
    bifurcate       if they differ, and so do the chain rules of a and b without rounding, at the values met;
    compensate      if they differ, and those chain rules are the same: only rounding tells them apart.

The chain rules without rounding are taken in float64, at the values that the forward pass in precision p has met: every
output of a linear layer, a convolution or a batch norm is replaced by the one met, so that the same units are at their
kinks. They are the same if they are within 1e-13, relative to the norm of the gradient, and differ beyond 1e-10;
between the two nothing is said. Initialisations are in the zone if they bifurcate on some batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from nonsmooth.derivatives.eager import at_kinks
from nonsmooth.errors import UsageError
from nonsmooth.studies.data import training
from nonsmooth.studies.relu_prime_networks import Choice, build_network, check_network, choice_at

__all__ = ["WORDS", "outcome", "run_bifurcation"]

SAME, APART = 1e-13, 1e-10
"""Gradients in float64 are the same below the first relative distance, and different above the second."""

WORDS = ("same", "compensation", "undecided", "bifurcation")
"""What is found on a batch; for an initialisation, the last of these words that is found on some batch."""


@dataclass(frozen=True)
class Outcome:
    """What one initialisation shows in a pass over the data.

    Attributes:
        met: whether some element was at a kink of the operation on some batch.
        different: whether the gradients differ on some batch.
        first_weight: whether they do in the weight of the first layer, which is all that the authors compare.
        word: one of WORDS.
        change: ||g_a - g_b|| / ||g_b|| without rounding, the largest on the batches that were compared: up to the first
            that bifurcates.
    """

    met: bool
    different: bool
    first_weight: bool
    word: str
    change: float


def run_bifurcation(
    *,
    data: str,
    network: str,
    activation: str,
    depth: int,
    width: int,
    batch_norm: bool,
    biases: str,
    precision: str,
    batch_size: int,
    operation: str,
    choices: Sequence[str | float],
    start: int,
    stop: int,
) -> dict[str, Any]:
    """Count, among the initialisations with seeds start <= seed < stop, those for which two choices differ.

    Each is drawn from its own seed, so that the counts of blocks of seeds add up. One pass over the data in its order,
    in batches, the last of which may be smaller; it ends early when nothing more can be found. The user's generators
    are left alone. Status: `sampled`.

    Args:
        data: "digits" or "mnist".
        network: "mlp" or "cnn".
        activation: "relu", "relu6" or "hardtanh".
        depth: hidden layers.
        width: units of each, or channels of the first.
        batch_norm: between a layer and its activation, on the batch's own statistics.
        biases: "torch" draws them as torch does, "zero" sets them to zero.
        precision: the name of torch's format.
        batch_size: images a batch.
        operation: "relu", "clamp" or "max_pool": where the choice is made.
        choices: two slopes, or two of "native", "first", "last", "even" at a max-pool.
        start: the first seed.
        stop: behind the last.

    Raises:
        UsageError: there is no such network, data set or choice.

    Source: Bertoin2021, Boustany2024.
    """
    import torch

    images, labels = training(data)
    known: dict[str, Any] = {
        "network": network,
        "activation": activation,
        "depth": depth,
        "width": width,
        "biases": biases,
    }
    known |= {"precision": precision, "side": images.shape[-1]}
    check_network(**known)
    if len(choices) != 2 or batch_size < 1 + batch_norm:
        raise UsageError(
            f"choices={list(choices)}, batch_size={batch_size}: two choices are compared, on batches of at least one "
            "image, or two with batch norm."
        )
    images = images.to(getattr(torch, precision))
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    if batch_norm and len(batches[-1][0]) == 1:
        batches.pop()  # one image has no variance
    found = []
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for seed in range(start, stop):
            torch.manual_seed(seed)
            found.append(outcome(build_network(**known, batch_norm=batch_norm), batches, operation, choices))
    return {
        "initialisations": len(found),
        "batches": len(batches),
        "met": sum(o.met for o in found),
        "different": sum(o.different for o in found),
        "first_weight": sum(o.first_weight for o in found),
        **{word: sum(o.word == word for o in found) for word in WORDS[1:]},
        "change": max((o.change for o in found), default=0.0),
    }


def outcome(model: Any, batches: Sequence[Any], operation: str, choices: Sequence[str | float]) -> Outcome:
    """Compare the gradients of two choices on batch after batch, until nothing more can be found.

    A batch on which no element is at a kink of the operation is passed over: there both choices leave every operation
    native, and the gradients are the same bits.
    """
    watch = Choice(operation)
    watching = watch.around()
    modes = [at_kinks(choice_at(operation, choice)) for choice in choices]
    met = different = first = False
    place, change = 0, 0.0
    for images, labels in batches:
        watch.met = False
        with watching:
            model(images)
        if not watch.met:
            continue
        met = True
        pairs = list(zip(*(_gradient(model, images, labels, mode) for mode in modes), strict=True))
        if all(map(_equal, *zip(*pairs, strict=True))):
            continue
        different, first = True, first or not _equal(*pairs[0])
        if place < 3:
            distance = _distance(model, images, labels, modes)
            place = max(place, 1 if distance <= SAME else 3 if distance >= APART else 2)
            change = max(change, distance) if math.isfinite(distance) else change
        if first and place == 3:
            break
    return Outcome(met, different, first, WORDS[place], change)


def _gradient(model: Any, images: Any, labels: Any, mode: AbstractContextManager[Any]) -> tuple[Any, ...]:
    """Give backprop's gradient with respect to all parameters under a choice, the weight of the first layer first."""
    import torch

    with mode:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        return torch.autograd.grad(loss, list(model.parameters()))


def _equal(a: Any, b: Any) -> bool:
    """Compare two arrays entry by entry; NaN equals NaN, and 0 equals -0."""
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _distance(model: Any, images: Any, labels: Any, modes: Sequence[Any]) -> float:
    """Give ||g_a - g_b|| / ||g_b|| of the chain rules in float64, at the values met in the model's own precision."""
    twin = copy.deepcopy(model).double()
    with _replaying(twin, _values(model, images)):
        a, b = (_gradient(twin, images.double(), labels, mode) for mode in modes)
    apart = math.sqrt(sum(float((x - y).square().sum()) for x, y in zip(a, b, strict=True)))
    size = math.sqrt(sum(float(y.square().sum()) for y in b))
    return apart / size if size else (0.0 if apart == 0 else math.inf)


def _smooth_layers(model: Any) -> list[Any]:
    """Give the layers whose values are rounded: all but the activations, the pools and the flattening."""
    return [layer for layer in model if next(layer.parameters(recurse=False), None) is not None]


def _values(model: Any, images: Any) -> list[Any]:
    """Give the outputs of the smooth layers."""
    import torch

    met: list[Any] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: met.append(out)) for layer in _smooth_layers(model)]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return met


@contextmanager
def _replaying(twin: Any, met: Sequence[Any]) -> Iterator[None]:
    """Let the smooth layers of a float64 twin return the values met, with their own derivatives."""

    def put(value: Any) -> Any:
        return lambda _, __, out: value.double() + (out - out.detach())

    hooks = [layer.register_forward_hook(put(v)) for layer, v in zip(_smooth_layers(twin), met, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
