"""What the study of relu'(0) runs: the settings of its tables, and their configurations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.studies.data import check_data
from nonsmooth.studies.intervals import CONFIDENCE
from nonsmooth.studies.relu_prime_networks import check_network

__all__ = [
    "AUTHORS",
    "BLOCK",
    "FULL",
    "PARTS",
    "SMALL",
    "Authors",
    "Protocol",
    "Setting",
    "read_protocol",
    "settings",
    "trainings",
]

BLOCK = 25
"""How many initialisations one run looks at."""

PARTS = ("volume", "training")
"""The two halves of the study."""


@dataclass(frozen=True)
class Protocol:
    """All that the study depends on.

    Attributes:
        data: "digits" or "mnist".
        parts: of PARTS.
        seed: the first seed of the initialisations and of the training runs.
        confidence: of every interval.
        precisions: of the volumes.
        initialisations: of each setting of fully connected networks.
        cnn_initialisations: of each setting of convolutional ones, which take longer.
        depths: of the table by depth, at the width and batch size below.
        widths: of the table by width, at depth 3.
        batch_sizes: of the table by batch size, at depth 3.
        width: units of a hidden layer elsewhere.
        batch_size: images a batch elsewhere.
        channels: of the first convolution; there are two.
        alphas: the values of relu'(0) in training.
        seeds: training runs of each setting.
        epochs: of training.
        training_width: units of each of the three hidden layers that are trained.
        training_batch: images a step.
        rate: the step size.
    """

    data: str = "digits"
    parts: tuple[str, ...] = PARTS
    seed: int = 0
    confidence: float = CONFIDENCE
    precisions: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    initialisations: int = 100
    cnn_initialisations: int = 25
    depths: tuple[int, ...] = (1, 2, 3, 5, 6)
    widths: tuple[int, ...] = (16, 64, 128)
    batch_sizes: tuple[int, ...] = (64, 256, 1024)
    width: int = 64
    batch_size: int = 256
    channels: int = 4
    alphas: tuple[float, ...] = (-1.0, 0.0, 0.5, 1.0, 2.0, 10.0)
    seeds: int = 5
    epochs: int = 10
    training_width: int = 64
    training_batch: int = 64
    rate: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot be run, before anything is."""
        check_data(self.data)
        for name in ("parts", "precisions", "depths", "widths", "batch_sizes", "alphas"):
            if not getattr(self, name):
                raise UsageError(f"{name} is empty: name at least one value.")
        for name in ("initialisations", "cnn_initialisations", "seeds", "epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: pass at least 1.")
        if not all(math.isfinite(alpha) for alpha in self.alphas):
            raise UsageError(f"alphas={self.alphas}: the values of relu'(0) must be finite numbers.")
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise UsageError(f"parts={unknown}: the parts of the study are {', '.join(PARTS)}.")
        if self.seed < 0 or not 0 < self.confidence < 1 or not self.rate > 0:
            raise UsageError(
                f"seed={self.seed}, confidence={self.confidence}, rate={self.rate}: pass a seed of 0 or more, a "
                "confidence between 0 and 1, and a positive rate."
            )
        for precision in self.precisions:
            for depth, width in ((d, w) for d in self.depths for w in (*self.widths, self.width, self.training_width)):
                check_network(
                    network="mlp", activation="relu", depth=depth, width=width, biases="torch",
                    precision=precision, side=8,
                )  # fmt: skip
        if min(*self.batch_sizes, self.batch_size, self.training_batch) < 2:
            raise UsageError("batch sizes below 2 leave batch norm without a variance: pass at least 2.")


SMALL = Protocol()
"""What runs by default: minutes on two cores."""

FULL = Protocol(
    data="mnist",
    precisions=("float16", "float32", "float64"),
    initialisations=1000,
    cnn_initialisations=1000,
    widths=(16, 64, 256, 512, 1024),
    batch_sizes=(16, 64, 256, 512, 1024),
    width=256,
    alphas=(-50.0, -10.0, -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 10.0, 50.0),
    epochs=200,
    training_width=2048,
    training_batch=128,
    rate=0.01,
)
"""The size of the study of the authors."""


LISTS: Mapping[str, Callable[[str], Any]] = {
    "parts": str, "precisions": str, "depths": int, "widths": int, "batch_sizes": int, "alphas": float,
}  # fmt: skip
"""The settings that are lists, and what they are lists of."""


def read_protocol(*, full: bool = False, **changes: Any) -> Protocol:
    """Take the small or the full protocol, and change what is given; lists may be written `1,2,3`, None changes nothing.

    >>> read_protocol(depths="1, 3", seeds=2, widths=None).depths
    (1, 3)
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name in LISTS.keys() & given.keys():
        if isinstance(given[name], str):
            given[name] = _read_list(name, given[name])
    return replace(FULL if full else SMALL, **given)


def _read_list(name: str, text: str) -> tuple[Any, ...]:
    """Read a list with commas."""
    try:
        return tuple(LISTS[name](word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{name}={text!r}: write the values with commas between them, such as 1,2,3.") from None


@dataclass(frozen=True)
class Authors:
    """Counts that the authors publish: how many of 1000 initialisations, by precision, for each value of an axis."""

    axis: str
    values: tuple[int, ...]
    counts: Mapping[str, tuple[int, ...]]
    setting: str
    note: str = ""
    initialisations: int = 1000


AUTHORS = (
    Authors(
        "depth",
        (1, 2, 3, 5, 6),
        {"float16": (871, 999, 1000, 1000, 1000), "float32": (54, 258, 463, 647, 697), "float64": (0, 0, 0, 0, 0)},
        "MNIST, hidden layers of 256 units, batches of 256",
        "Their public notebook ends the 64-bit passes of this table before it compares anything.",
    ),
    Authors(
        "width",
        (16, 64, 256, 512, 1024),
        {"float16": (333, 1000, 1000, 1000, 1000), "float32": (21, 163, 478, 582, 873), "float64": (0, 0, 0, 0, 0)},
        "MNIST, 3 hidden layers, batches of 256",
    ),
)
"""The authors' data (Bertoin2021), with the settings of their public code."""


@dataclass(frozen=True)
class Setting:
    """One row of a table: its words, and the configuration of its runs but for the precision and the seeds."""

    table: str
    label: str
    configuration: Mapping[str, Any]
    initialisations: int

    def runs(self, precision: str, seed: int) -> list[dict[str, Any]]:
        """Give the configurations of its runs, in blocks of initialisations."""
        stops = [*range(BLOCK, self.initialisations, BLOCK), self.initialisations]
        starts = [0, *stops[:-1]]
        blocks = ({"start": seed + a, "stop": seed + b} for a, b in zip(starts, stops, strict=True))
        return [{**self.configuration, "precision": precision, **block} for block in blocks]


def settings(protocol: Protocol) -> list[Setting]:
    """List the rows of the tables of volumes."""
    return [*_relu_settings(protocol), *_other_settings(protocol)]


def _relu_settings(p: Protocol) -> Iterator[Setting]:
    """List the rows about relu'(0): by depth, width and batch size, with batch norm, with zero biases."""

    def mlp(table: str, label: str, **changed: Any) -> Setting:
        base = {"network": "mlp", "depth": 3, "width": p.width, "batch_size": p.batch_size}
        return _setting(p, table, label, p.initialisations, {**base, **changed})

    yield from (mlp("depth", str(d), depth=d) for d in p.depths)
    yield from (mlp("width", str(w), width=w) for w in p.widths)
    yield from (mlp("batch size", str(b), batch_size=b) for b in p.batch_sizes)
    changes: dict[str, dict[str, Any]] = {
        "": {},
        ", batch norm": {"batch_norm": True},
        ", zero biases": {"biases": "zero"},
    }
    for words, change in changes.items():
        yield mlp("network", f"mlp{words}", **change)
    for words, change in changes.items():
        yield _setting(p, "network", f"cnn{words}", p.cnn_initialisations, {**_cnn(p), **change})


def _other_settings(p: Protocol) -> Iterator[Setting]:
    """List the rows about max-pool and clamp."""
    for biases in ("torch", "zero"):
        for pair in (("native", "even"), ("first", "last")):
            label = f"{pair[0]} or {pair[1]}{', zero biases' if biases == 'zero' else ''}"
            changed = {**_cnn(p), "biases": biases, "operation": "max_pool", "choices": list(pair)}
            yield _setting(p, "max-pool", label, p.cnn_initialisations, changed)
    for activation in ("hardtanh", "relu6"):
        changed = {"network": "mlp", "depth": 3, "width": p.width, "batch_size": p.batch_size}
        changed |= {"activation": activation, "operation": "clamp"}
        yield _setting(p, "clamp", activation, p.initialisations, changed)


def _cnn(p: Protocol) -> dict[str, Any]:
    """Give the configuration of the convolutional network."""
    return {"network": "cnn", "depth": 2, "width": p.channels, "batch_size": p.batch_size}


def _setting(p: Protocol, table: str, label: str, number: int, changed: Mapping[str, Any]) -> Setting:
    """Make a row out of what is not as usual."""
    usual = {"data": p.data, "activation": "relu", "batch_norm": False, "biases": "torch"}
    return Setting(table, label, {**usual, "operation": "relu", "choices": [0, 1], **changed}, number)


def trainings(protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
    """List the networks that are trained, with the configurations but for batch norm, relu'(0) and the seed."""
    p = protocol
    usual = {"data": p.data, "rate": p.rate, "epochs": p.epochs, "batch_size": p.training_batch}
    mlp = {**usual, "network": "mlp", "depth": 3, "width": p.training_width, "biases": "torch"}
    cnn = {**usual, "network": "cnn", "depth": 2, "width": p.channels, "biases": "zero"}
    trained: Sequence[str] = [name for name in ("float16", "bfloat16", "float32") if name in p.precisions]
    return [
        *((f"mlp, {precision}", {**mlp, "precision": precision}) for precision in trained or p.precisions),
        ("cnn, zero biases, float32", {**cnn, "precision": "float32"}),
    ]
