"""Objectives: a model and a loss as a function of the model's trainable parameters.

A model is what its library makes of it: a pytree that can be called (Equinox, or one's own), a bound module of Flax's
linen, a module of Flax's nnx, or a Keras model on the jax backend. Parameters come as a dict from names to arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.jax.tree import flatten, is_array, leaf_names, unflatten

__all__ = ["Objective", "is_model", "make_objective"]


@dataclass(frozen=True)
class Objective:
    """The function (parameters, *data) -> loss; the model itself is never changed."""

    rebuild: Callable[[Mapping[str, Any]], Any]
    step: Callable[..., Any]

    def __call__(self, parameters: Mapping[str, Any], *data: Any) -> Any:
        """Evaluate the objective."""
        return self.step(self.rebuild(parameters), *data)


def is_model(model: Any) -> bool:
    """Tell what `make_objective` takes: a module of Flax or Keras (on the jax backend), or a pytree that can be called."""
    if _library(model) in ("flax", "keras"):
        return True
    leaves = flatten(model)[0] if callable(model) else []
    return any(isinstance(leaf, jax.Array) for leaf in leaves) and not isinstance(model, jax.Array)


def make_objective(
    model: Any, loss: Callable[..., Any] | None = None, *, step: Callable[..., Any] | None = None
) -> tuple[Objective, dict[str, jax.Array]]:
    """Give the objective of a model and the point: its trainable parameters."""
    if (loss is None) == (step is None):
        raise UsageError("objective takes either a loss, for loss(model(*inputs), target), or step=f(model, *batch).")
    if loss is not None and not callable(loss):
        raise UsageError(f"the loss must be callable: loss(output, target); found a {type(loss).__name__}.")
    library = _library(model)
    if library == "flax":
        tree, rebuild = _flax(model)
    elif library == "keras":
        tree, rebuild = _keras(model)
    else:
        tree, rebuild = _pytree(model)
    point, whole = _named(tree)
    if not point:
        raise UsageError("the model has no trainable parameter: no leaf of it is a floating array.")

    def supervised(network: Any, *batch: Any) -> Any:
        if len(batch) < 2:
            raise UsageError(
                f"an objective with a loss is called with data (*inputs, target); found {len(batch)} item(s)."
            )
        assert loss is not None
        return loss(network(*batch[:-1]), batch[-1])

    return Objective(lambda parameters: rebuild(whole(parameters)), step or supervised), point


def _library(model: Any) -> str:
    """Name the library of layers from which a model comes."""
    names = {base.__module__.split(".")[0] for base in type(model).__mro__}
    return next((name for name in ("flax", "keras") if name in names and name in sys.modules), "")


def _named(tree: Any) -> tuple[dict[str, jax.Array], Callable[[Mapping[str, Any]], Any]]:
    """Give the floating leaves of a tree by name, and how the tree is put together again."""
    leaves, structure = flatten(tree)
    names = leaf_names(tree, "x")
    point = {
        n: jnp.asarray(leaf)
        for n, leaf in zip(names, leaves, strict=True)
        if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }

    def whole(parameters: Mapping[str, Any]) -> Any:
        return unflatten([parameters.get(n, leaf) for n, leaf in zip(names, leaves, strict=True)], structure)

    return point, whole


def _pytree(model: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Read a pytree that can be called: the model is rebuilt from its leaves."""
    if not is_model(model):
        raise UsageError(
            f"objective takes a model that is a pytree with arrays and can be called, or a module of Flax or Keras; found a "
            f"{type(model).__name__}."
        )
    return model, lambda tree: tree


def _flax(model: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Read a module of Flax: of linen bound to its variables, or of nnx."""
    if hasattr(model, "unbind"):
        if model.scope is None:
            raise UsageError(
                "a module of flax.linen has no parameters of its own: pass model.bind(variables), with the variables that "
                "model.init gave."
            )
        module, variables = model.unbind()
        rest = {k: v for k, v in variables.items() if k != "params"}
        return variables.get("params", {}), lambda tree: module.bind({**rest, "params": tree})
    from flax import nnx

    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    def rebuild(tree: Any) -> Any:
        state = jax.tree_util.tree_map(lambda leaf: leaf, parameters)
        nnx.replace_by_pure_dict(state, tree)
        return nnx.merge(graph, state, rest, copy=True)

    return parameters.to_pure_dict(), rebuild


def _keras(model: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Read a Keras model on the jax backend; its own state (running statistics, seeds) is taken as it is."""
    import keras

    if keras.backend.backend() != "jax":
        raise UsageError(
            f'Keras runs on the backend {keras.backend.backend()!r}; set KERAS_BACKEND="jax" before it is imported.'
        )
    names = [v.path for v in model.trainable_variables]
    tree = {name: v.value for name, v in zip(names, model.trainable_variables, strict=True)}

    def rebuild(parameters: Mapping[str, Any]) -> Callable[..., Any]:
        trainable = [parameters[name] for name in names]
        fixed = [v.value for v in model.non_trainable_variables]

        def call(*inputs: Any, **options: Any) -> Any:
            return model.stateless_call(trainable, fixed, *inputs, **options)[0]

        return call

    return tree, rebuild
