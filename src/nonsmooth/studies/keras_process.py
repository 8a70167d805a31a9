"""One backend of Keras, in a process of its own, since a process has one: the gradient there, and the kinks that are met.

KERAS_BACKEND=jax python -m nonsmooth.studies.keras_process FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import nonsmooth as ns
from nonsmooth.audit.problem import open_problem
from nonsmooth.dictionary.convention import FRAMEWORKS
from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.frameworks.keras import is_keras, named_variables, supervised
from nonsmooth.report.json_text import to_json

__all__ = ["main", "measure"]


def main(folder: Path) -> None:
    """Measure every target of the job, and write what was found, or the message of an error."""
    import keras

    job = json.loads((folder / "job.json").read_text("utf-8"))
    found: list[Any] = []
    for number, target in enumerate(job["targets"]):
        keras.utils.set_random_seed(job["seed"])
        try:
            with open_problem(target) as (model, loss, data):
                found.append(measure(model, loss, data, folder / str(number), target))
        except NonsmoothError as error:
            found.append({"error": str(error)})
    backend = str(keras.config.backend())
    (folder / f"{backend}.json").write_text(to_json({"version": _version(backend), "found": found}), "utf-8")


def measure(model: Any, loss: Any, data: tuple[Any, ...], handed: Path, target: str = "the target") -> dict[str, Any]:
    """Give the value and the kinks; the gradients go to a file beside the weights, which the first process hands on."""
    import keras

    if not is_keras(model):
        raise UsageError(f"{target} must return (model, loss, *inputs, target), the model one of Keras.")
    given = handed.with_suffix(".npz")
    if given.is_file():
        arrays = dict(np.load(given))
        model.set_weights([arrays[f"weight{k}"] for k in range(len(model.weights))])
        data = tuple(arrays[f"data{k}"] for k in range(len(data)))
    else:
        arrays = {f"weight{k}": w for k, w in enumerate(model.get_weights())}
        data = tuple(np.asarray(keras.ops.convert_to_numpy(item)) for item in data)
        _save(given, {**arrays, **{f"data{k}": item for k, item in enumerate(data)}})
    tensors = tuple(keras.ops.convert_to_tensor(item) for item in data)
    backend = str(keras.config.backend())
    if backend == "tensorflow":
        value, gradients = _by_tensorflow(model, loss, tensors)
        kinks: list[Any] = []
    else:
        value, gradients, kinks = _captured(model, loss, tensors, backend)
    names = list(named_variables(model))
    saved = {f"{name}/{k}": np.asarray(parts[n]) for name, parts in gradients.items() for k, n in enumerate(names)}
    _save(handed.with_name(f"{handed.name}-{backend}.npz"), saved)
    return {"model": model.name, "value": value, "variables": names, "conventions": list(gradients), "kinks": kinks}


def _captured(
    model: Any, loss: Any, data: tuple[Any, ...], backend: str
) -> tuple[float, dict[str, Mapping[str, Any]], list[Any]]:
    """Capture the objective; give its gradients under every framework's convention, and the kinks with what they move."""
    import keras

    f, x = ns.objective(model, loss)
    found = ns.audit(f, x, *data, sets=False)
    program = ns.capture(f, x, *data)
    gradients: dict[str, Mapping[str, Any]] = {}
    for name in FRAMEWORKS:
        gradient = ns.backprop(program, x, *data, at_kinks="framework" if name == backend else name)
        gradients[name] = {n: keras.ops.convert_to_numpy(part) for n, part in gradient.items()}
    moves = {(e.step, e.kink): _moved(e.parameters, found.rounding) for e in found.effects}
    kinks: list[Any] = [
        {
            "layer": row.module,
            "operation": row.operation,
            "kink": row.kink,
            "elements": row.elements,
            "active": row.active,
            "can_matter": row.can_matter,
            "moves": moves.get((row.step, row.kink), {}),
        }
        for row in found.kinks
    ]
    return found.value, gradients, kinks


def _moved(parameters: Mapping[str, Any], rounding: float) -> dict[str, float]:
    """Give by how much a group of kinks moves the gradient of each variable, where it is more than rounding."""
    return {name: change.size for name, change in parameters.items() if change.size > rounding}


def _by_tensorflow(model: Any, loss: Any, data: tuple[Any, ...]) -> tuple[float, dict[str, Mapping[str, Any]]]:
    """Differentiate by TensorFlow itself."""
    import tensorflow as tf

    variables = named_variables(model)
    with tf.GradientTape() as tape:
        value = supervised(loss)(model, *data)
    parts = tape.gradient(value, [v.value for v in variables.values()], unconnected_gradients="zero")
    return float(value), {
        "tensorflow": {n: tf.convert_to_tensor(g).numpy() for n, g in zip(variables, parts, strict=True)}
    }


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name."""
    np.savez(path, **dict(arrays))


def _version(backend: str) -> str:
    """Give the version of the framework behind the backend."""
    return str(getattr(sys.modules.get(backend), "__version__", ""))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
