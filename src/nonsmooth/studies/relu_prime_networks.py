"""The networks of the study of relu'(0), the choices at their kinks, and who notices that a kink was met."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from nonsmooth.derivatives.eager import at_kinks
from nonsmooth.errors import UsageError
from nonsmooth.kinks.selection import AtKinks

__all__ = ["ACTIVATIONS", "NETWORKS", "PRECISIONS", "Choice", "build_network", "check_network", "choice_at"]

NETWORKS = ("mlp", "cnn")
"""Fully connected, and convolutions with max-pooling."""

ACTIVATIONS = {"relu": "ReLU", "relu6": "ReLU6", "hardtanh": "Hardtanh"}
"""The activations, and the modules of torch."""

PRECISIONS = ("float16", "bfloat16", "float32", "float64")
"""The number formats, by the names of torch."""

BIASES = ("torch", "zero")
"""Biases drawn as torch draws them, or all zero."""

OPERATIONS = {"relu": ("relu",), "clamp": ("hardtanh", "relu6", "clamp"), "max_pool": ("max_pool",)}
"""What a choice is made at, and the records of the dictionary."""

WINNERS = {"native": None, "first": "first", "last": "last", "even": "even"}
"""Which tied entry of a max-pool gets the derivative: the one that torch's kernel found, another, or all in equal parts."""


def check_network(
    *, network: str, activation: str, depth: int, width: int, biases: str, precision: str, side: int
) -> None:
    """Refuse a network that cannot be built."""
    for name, value, known in (
        ("network", network, NETWORKS),
        ("activation", activation, ACTIVATIONS),
        ("biases", biases, BIASES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise UsageError(f"{name}={value!r}: the study knows {', '.join(known)}.")
    if depth < 1 or width < 1:
        raise UsageError(f"depth={depth}, width={width}: a network needs at least one layer of one unit.")
    if network == "cnn" and side >> depth == 0:
        raise UsageError(f"depth={depth}: every layer of a cnn halves the images, which are {side} x {side}.")


def build_network(
    *, network: str, activation: str, depth: int, width: int, batch_norm: bool, biases: str, precision: str, side: int
) -> Any:
    """Build a network for images of side x side: drawn in float32 as torch does, then rounded to the precision.

    mlp: `depth` times (linear to `width` units, batch norm, activation), and a linear layer. cnn: `depth` times
    (convolution 3 x 3 to `width` channels, twice as many each time, batch norm, activation, max-pool 2 x 2), and a
    linear layer.
    """
    import torch
    from torch import nn

    kind: Mapping[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    layers: list[Any] = [] if network == "cnn" else [nn.Flatten()]
    size = 1 if network == "cnn" else side * side
    for level in range(depth):
        out = width << level if network == "cnn" else width
        layers.append(nn.Conv2d(size, out, 3, padding=1, **kind) if network == "cnn" else nn.Linear(size, out, **kind))
        if batch_norm:
            layers.append((nn.BatchNorm2d if network == "cnn" else nn.BatchNorm1d)(out, **kind))
        layers += [getattr(nn, ACTIVATIONS[activation])(), *([nn.MaxPool2d(2)] if network == "cnn" else [])]
        size = out
    if network == "cnn":
        layers.append(nn.Flatten())
        size *= (side >> depth) ** 2
    layers.append(nn.Linear(size, 10, **kind))
    model = nn.Sequential(*layers)
    if biases == "zero":
        for layer in model:
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model.to(getattr(torch, precision))


def choice_at(operation: str, choice: str | float) -> AtKinks:
    """Give the convention of a choice: a slope at the kink of relu or at both bounds of a clamp, a winner at ties.

    >>> choice_at("relu", 1), choice_at("max_pool", "last"), choice_at("max_pool", "native")
    ({'relu': 1.0}, {'max_pool': 'last'}, 'framework')
    >>> choice_at("clamp", 0)["hardtanh"]
    {'lower bound': 0.0, 'upper bound': 1.0}
    """
    if operation not in OPERATIONS:
        raise UsageError(f"operation={operation!r}: the study makes choices at {', '.join(OPERATIONS)}.")
    if operation == "max_pool":
        if choice not in WINNERS:
            raise UsageError(f"choice={choice!r}: the choices at a max-pool are {', '.join(WINNERS)}.")
        return "framework" if choice == "native" else {"max_pool": WINNERS[str(choice)]}
    try:
        slope = float(choice)
    except ValueError:
        raise UsageError(f"choice={choice!r}: the choice at a {operation} is a slope, a number.") from None
    if operation == "relu":
        return {"relu": slope}
    bounds = {"lower bound": slope, "upper bound": 1 - slope}  # the weights of the right-hand slopes, 1 and 0
    return dict.fromkeys(OPERATIONS["clamp"], bounds)


@dataclass
class Choice:
    """A choice of slopes for relu, or none, that notices whether kinks of an operation are active.

    In `with choice.around():` it answers for every active kink, and `met` tells whether there was one.
    """

    operation: str
    slope: float | None = None
    met: bool = field(default=False, init=False)

    def __call__(self, step: Any, kink: str, call: Any) -> float | None:
        """Notice the kink, and give its slope; None leaves it to the framework."""
        if step.operation.name not in OPERATIONS[self.operation]:
            return None
        self.met = True
        return self.slope

    def around(self) -> AbstractContextManager[Any]:
        """Give the mode for a forward pass, which may be entered again and again."""
        return at_kinks(self)
