"""Keras under the monitor, in a process of its own: the backend is chosen when keras is imported. Prints findings as JSON."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
import torch
from torch.overrides import _get_current_function_mode_stack

import nonsmooth as ns
from nonsmooth.errors import UsageError

layers = keras.layers


def convolutional() -> keras.Model:
    body = [layers.Conv2D(4, 3), layers.ReLU(name="act"), layers.MaxPooling2D(2), layers.BatchNormalization()]
    head = keras.Sequential([layers.Flatten(), layers.Dense(8, activation="relu", name="hidden")], name="head")
    return keras.Sequential([layers.Input((8, 8, 1)), *body, head, layers.Dropout(0.25), layers.Dense(3)])


def functional() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    flat = layers.Flatten()(inputs)
    left, right = (layers.Dense(6, activation="relu", name=name)(flat) for name in ("left", "right"))
    return keras.Model(inputs, layers.Dense(3)(layers.maximum([left, right])))


class Blocks(keras.Model):
    """A subclass that holds its layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.last = layers.Flatten(), layers.Dense(3)
        self.blocks = [layers.Dense(6, activation="relu", name=f"block{k}") for k in range(2)]

    def call(self, inputs: Any) -> Any:
        x = self.flatten(inputs)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs, target = generator.normal(size=(40, 8, 8, 1)).astype("float32"), generator.integers(0, 3, size=40)
    inputs[::2] = 0
    return inputs, target


def fit(make: Any, *callbacks: Any, optimizer: Any = "adam", epochs: int = 2, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer() if callable(optimizer) else optimizer, loss=loss, metrics=["accuracy"])
    model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)
    return model


def same(a: keras.Model, b: keras.Model) -> bool:
    return all(torch.equal(x.value, y.value) for x, y in zip(a.variables, b.variables, strict=True))


def described(log: ns.Watch) -> dict[str, Any]:
    first = log.records[0]
    rows = [(row.module, row.operation, row.elements, row.active, row.can_matter, row.line) for row in first.rows]
    change = None if first.change is None else sorted(first.change.parameters)
    return {"steps": [r.step for r in log.records], "rows": rows, "change": change, "backwards": first.backwards}


def to_the_bit() -> dict[str, Any]:
    accumulating = lambda: keras.optimizers.Adam(gradient_accumulation_steps=2)  # noqa: E731
    found = {}
    for name, make, options in (
        ("convolutional", convolutional, {"validation_split": 0.2}),
        ("functional", functional, {"optimizer": "sgd"}),
        ("blocks", Blocks, {"optimizer": accumulating}),
        ("loss scaled", Blocks, {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())}),
    ):
        monitor = ns.callbacks.keras(every=1, change_every=1)
        without, watched = fit(make, **options), fit(make, monitor, **options)
        found[name] = {"same": same(without, watched), **described(monitor.log)}
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    monitor = ns.callbacks.keras(every=3)
    found["mixed"] = {"same": same(fit(functional), fit(functional, monitor)), **described(monitor.log)}
    keras.mixed_precision.set_global_policy("float32")
    return found


class Failing(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            raise ZeroDivisionError


def failing(log: Path) -> dict[str, Any]:
    monitor = ns.callbacks.keras(every=1, log=log)
    with contextlib.suppress(ZeroDivisionError):
        fit(functional, monitor, Failing())
    gc.collect()
    free = not _get_current_function_mode_stack()
    fit(functional, monitor, epochs=1)
    return {"free": free, "again": len(monitor.log.records), "lines": len(log.read_text().splitlines())}


def refusal() -> str:
    try:
        ns.callbacks.keras()
    except UsageError as error:
        return str(error)
    return ""


def refused() -> dict[str, str]:
    found = {}
    for name, act in (
        ("unbegun", lambda: ns.callbacks.keras().log),
        ("option", lambda: ns.callbacks.keras(every=0)),
    ):
        try:
            act()
        except UsageError as error:
            found[name] = str(error)
    model = functional()
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", jit_compile=True)
    with patch.object(keras.config, "backend", return_value="jax"):
        found["backend"] = refusal()
    warnings.simplefilter("ignore")  # torch's, where its compiler is loaded
    try:
        model.fit(*data(), verbose=0, callbacks=[ns.callbacks.keras()])
    except UsageError as error:
        found["compiled"] = str(error)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if keras.config.backend() == "torch":
        print(json.dumps({"fit": to_the_bit(), "failing": failing(Path(sys.argv[1])), "refused": refused()}))
    else:
        print(json.dumps(refusal()))
