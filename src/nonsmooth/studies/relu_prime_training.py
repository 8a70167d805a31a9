"""Training with relu'(0) = a: test accuracy, by the right backward pass.

The vector-Jacobian product of relu under the choice a is, entry by entry,

    cotangent of the input = s (cotangent of the output),    s = 0 for t < 0,  a for t = 0,  1 for t > 0.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.studies.data import held_out
from nonsmooth.studies.relu_prime_networks import Choice, build_network, check_network

__all__ = ["MOMENTUM", "WEIGHT_DECAY", "run_training"]

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of stochastic gradient descent, as in the study of the authors."""


def run_training(
    *,
    data: str,
    network: str,
    depth: int,
    width: int,
    batch_norm: bool,
    biases: str,
    precision: str,
    alpha: float,
    rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Train by stochastic gradient descent with relu'(0) = alpha, and measure the accuracy on the test images.

    The seed draws the initialisation and the order of the images; runs that differ in alpha alone share both, and are
    the same bit by bit until a unit is first met at its kink. The last, smaller batch of an epoch is left out. The
    user's generators are left alone. Status: `computed`.

    Args:
        data: "digits" or "mnist".
        network: "mlp" or "cnn".
        depth: hidden layers.
        width: units of each, or channels of the first.
        batch_norm: between a layer and relu.
        biases: "torch" draws them as torch does, "zero" sets them to zero.
        precision: the name of torch's format; parameters, gradients and momentum are all kept in it.
        alpha: relu'(0); any number, also outside [0, 1].
        rate: the step size.
        epochs: how many.
        batch_size: images a step.
        seed: of the run.

    Returns:
        accuracy on the test images; loss, that of the last step (None if it is not finite); steps; met, the steps at
        which some unit was at its kink; first, the first of them (None if there was none); weights, a digest of the
        parameters at the end.

    Raises:
        UsageError: there is no such network or data set, or numbers that mean nothing.

    Source: Bertoin2021.
    """
    import torch

    images, labels, tests, answers = held_out(data)
    known: dict[str, Any] = {"network": network, "activation": "relu", "depth": depth, "width": width, "biases": biases}
    known |= {"precision": precision, "side": images.shape[-1]}
    check_network(**known)
    if not math.isfinite(alpha) or not rate > 0 or epochs < 1 or not 2 <= batch_size <= len(images):
        raise UsageError(
            f"alpha={alpha}, rate={rate}, epochs={epochs}, batch_size={batch_size}: pass a finite alpha, a positive rate, "
            f"at least one epoch, and batches of 2 to {len(images):,} images."
        )
    images, tests = (part.to(getattr(torch, precision)) for part in (images, tests))
    choice, met = Choice("relu", float(alpha)), []
    mode = choice.around()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = build_network(**known, batch_norm=batch_norm)
        optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        for _ in range(epochs):
            order = torch.randperm(len(images), device="cpu")
            for chosen in order[: len(order) // batch_size * batch_size].split(batch_size):
                choice.met = False
                optimiser.zero_grad()
                with mode:
                    loss = torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
                    loss.backward()
                optimiser.step()
                met.append(choice.met)
    last = float(loss.detach())
    return {
        "accuracy": _accuracy(model, tests, answers),
        "loss": last if math.isfinite(last) else None,
        "steps": len(met),
        "met": sum(met),
        "first": met.index(True) if any(met) else None,
        "weights": _digest(model),
    }


def _accuracy(model: Any, images: Any, labels: Any) -> float:
    """Give the share of images that the network names rightly."""
    import torch

    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        )
    return right / len(labels)


def _digest(model: Any) -> str:
    """Give a digest of the parameters: equal for equal bits."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().double().numpy().tobytes())
    return found.hexdigest()[:16]
