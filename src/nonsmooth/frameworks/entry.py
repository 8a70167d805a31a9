"""The door that takes a framework's own object instead of a point: a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.keras import is_keras
from nonsmooth.frameworks.keras import make_objective as of_keras

__all__ = ["filled", "is_model", "network", "objective"]


def is_model(thing: Any) -> bool:
    """Tell a model, which `objective` takes, from a plain function.

    >>> is_model(len)
    False
    """
    if is_keras(thing) or ("torch" in sys.modules and isinstance(thing, sys.modules["torch"].nn.Module)):
        return True
    if "jax" in sys.modules:
        from nonsmooth.frameworks.jax.objective import is_model as is_model_of_jax

        return is_model_of_jax(thing)
    return False


def objective(
    model: Any, loss: Callable[..., Any] | None = None, *, step: Callable[..., Any] | None = None
) -> tuple[Callable[..., Any], Any]:
    """Give a model's objective as a function of its trainable parameters, and the point where they are now.

    f(parameters, *data) = loss(model(*inputs), target), data = (*inputs, target), or step(model, *batch). Frozen
    parameters are constants, buffers are cloned at every evaluation; the model itself is never changed.

    Args:
        model: a `torch.nn.Module`; for JAX an Equinox module or any pytree that can be called, a `flax.linen` module
            bound to its variables, a `flax.nnx` module; or a Keras model on the torch or jax backend.
        loss: a function of (output, target); a loss of Keras' own is called as Keras does.
        step: instead of a loss, a function of (model, *batch) that returns the loss.

    Returns:
        The function, and the point: a dict from names to parameters.

    Raises:
        UsageError: no module, neither or both of loss and step, or nothing to train.

    >>> import torch
    >>> import nonsmooth as ns
    >>> model = torch.nn.Linear(2, 1)
    >>> f, x = ns.objective(model, torch.nn.functional.mse_loss)
    >>> sorted(x), f(x, torch.zeros(3, 2), torch.zeros(3, 1)).shape
    (['bias', 'weight'], torch.Size([]))
    """
    if is_keras(model):
        return of_keras(model, loss, step=step)
    if "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module):
        from nonsmooth.frameworks.torch.objective import make_objective as of_torch

        return of_torch(model, loss, step=step)
    if "jax" in sys.modules:
        from nonsmooth.frameworks.jax.objective import is_model, make_objective

        if is_model(model):
            return make_objective(model, loss, step=step)
    raise UsageError(
        "objective takes a torch.nn.Module, a model of JAX (Equinox, Flax, a pytree that can be called) or one of Keras; "
        f"found a {type(model).__module__}.{type(model).__name__}."
    )


def network(model: Any) -> tuple[Callable[..., Any], Any]:
    """Give a model as a function of its trainable parameters and its inputs, and the parameters, of which there may be none."""
    if "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module) and not is_keras(model):
        from nonsmooth.frameworks.torch.objective import Objective

        point = {n: p for n, p in model.named_parameters() if p.requires_grad}
        return Objective(model, lambda module, *batch: module(*batch)), point
    return objective(model, step=lambda module, *batch: module(*batch))


def filled(tree: Any) -> Any:
    """Put zeros in the place of shapes alone (`jax.ShapeDtypeStruct`), so that the framework of a tree can be told."""
    if "jax" in sys.modules:
        from nonsmooth.frameworks.jax.tree import filled as filled_by_jax

        return filled_by_jax(tree)
    return tree


def observe_training(model: Any, receive: Callable[[Any], None], **options: Any) -> Any:
    """Make the observer of a model that is trained, which hands every observed step over."""
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch.training import observe_training

        return observe_training(model, receive, **options)
    raise UsageError(f"watch takes a torch.nn.Module; found a {type(model).__module__}.{type(model).__name__}.")
