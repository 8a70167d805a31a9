"""A Keras model and a loss as a function of the model's variables, whatever backend runs it; Keras itself is not imported.

The variables are read and written in a scope of Keras', so that neither they nor the model's state change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nonsmooth.errors import NonsmoothError, UsageError

__all__ = ["BACKENDS", "KerasObjective", "is_keras", "make_objective", "named_layers", "named_variables", "supervised"]

BACKENDS = ("torch", "jax")
"""The backends whose programs are captured."""


def is_keras(model: Any) -> bool:
    """Tell a layer or a model of Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, getattr(keras, "Layer", ()))


def named_variables(model: Any) -> dict[str, Any]:
    """Give the trainable variables by their paths; of several with one path, the later ones are numbered."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for variable in model.trainable_variables:
        count = counts[variable.path] = counts.get(variable.path, 0) + 1
        found[variable.path if count == 1 else f"{variable.path} ({count})"] = variable
    return found


def named_layers(layer: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Name a layer and those inside of it by the names of the layers that hold them: that is how calls are nested."""
    yield name, layer
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from named_layers(inner, f"{name}.{inner.name}")


@dataclass(frozen=True)
class KerasObjective:
    """The function (variables, *data) -> loss; the model itself is never changed."""

    model: Any
    step: Callable[..., Any]
    _paths: dict[int, str] = field(default_factory=dict, repr=False)

    def module_name(self, layer: Any) -> str:
        """Give the path of a layer in the model."""
        if not self._paths:
            self._paths.update({id(inner): name for name, inner in named_layers(self.model, self.model.name)})
        return self._paths.get(id(layer), "")

    def __call__(self, parameters: Mapping[str, Any], *data: Any) -> Any:
        """Evaluate the objective."""
        mapping = [(variable, parameters[name]) for name, variable in named_variables(self.model).items()]
        with sys.modules["keras"].StatelessScope(state_mapping=mapping, collect_losses=True):
            try:
                return self.step(self.model, *data)
            except NonsmoothError as error:
                raise _unwrapped(error) from None


def _unwrapped(error: NonsmoothError) -> NonsmoothError:
    """Give an error of this library without the text, in bold type for terminals, that Keras' layers wrap it in."""
    text = str(error)
    _, bold, message = text.partition("\x1b[1m")
    return type(error)(message.partition("\x1b[0m")[0]).with_traceback(error.__traceback__) if bold else error


def make_objective(
    model: Any, loss: Callable[..., Any] | None = None, *, step: Callable[..., Any] | None = None
) -> tuple[KerasObjective, dict[str, Any]]:
    """Give the objective of a model and the point: the values of its trainable variables, by their paths.

    A loss of Keras' own is called as Keras calls it, loss(target, output); what the model adds (regularisers, `add_loss`) is
    added, as in training.
    """
    if (loss is None) == (step is None):
        raise UsageError("objective takes either a loss, for loss(model(*inputs), target), or step=f(model, *batch).")
    if loss is not None and not callable(loss):
        raise UsageError(
            f"the loss must be callable: a loss of Keras, or loss(output, target); found a {type(loss).__name__}."
        )
    backend = sys.modules["keras"].config.backend()
    if backend not in BACKENDS:
        raise UsageError(
            f"Keras runs on its {backend} backend, whose programs are not captured: set the environment variable "
            "KERAS_BACKEND to torch or jax before keras is imported. What TensorFlow would give: at_kinks='tensorflow'."
        )
    point = {name: variable.value for name, variable in named_variables(model).items()}
    if not point:
        built = (
            "all are frozen, or there is none" if model.built else "it is not built: call it once, or give it an Input"
        )
        raise UsageError(f"the model {model.name!r} has no trainable variable: {built}.")
    return KerasObjective(model, step or supervised(loss)), point


def supervised(loss: Any) -> Callable[..., Any]:
    """Give the step (model, *inputs, target) -> loss."""
    own = (getattr(loss, "__module__", None) or type(loss).__module__).partition(".")[0] == "keras"

    def stepped(model: Any, *batch: Any) -> Any:
        if len(batch) < 2:
            raise UsageError(
                f"an objective with a loss is called with data (*inputs, target); found {len(batch)} item(s)."
            )
        output, target = model(*batch[:-1]), batch[-1]
        total = loss(target, output) if own else loss(output, target)
        for added in model.losses:
            total = total + added
        return total

    return stepped
