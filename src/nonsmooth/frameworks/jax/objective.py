"""Objectives: a model and a loss as a function of the model's trainable parameters.

A model is what its library makes of it: a pytree that can be called (Equinox, or one's own), a bound module of Flax's
linen, or a module of Flax's nnx. Parameters come as a dict from names to arrays.
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
    """Tell what `make_objective` takes: a module of Flax, or a pytree that can be called."""
    if _is_flax(model):
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
    tree, rebuild = _flax(model) if _is_flax(model) else _pytree(model)
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


def _is_flax(model: Any) -> bool:
    """Tell a module of Flax, of linen or of nnx."""
    return "flax" in sys.modules and any(base.__module__.startswith("flax.") for base in type(model).__mro__)


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
            "objective takes a model that is a pytree with arrays and can be called, or a module of Flax; found a "
            f"{type(model).__name__}."
        )
    return model, lambda tree: tree


def _flax(model: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Read a module of Flax: of linen bound to its variables, or of nnx.

    Each evaluation binds anew: draws begin with the same keys, and what is written to mutable collections is dropped.
    """
    if hasattr(model, "unbind"):
        if model.scope is None:
            raise UsageError(
                "a module of flax.linen has no parameters of its own: pass model.bind(variables), with the variables that "
                "model.init gave."
            )
        module, variables = model.unbind()
        rest, bound = {k: v for k, v in variables.items() if k != "params"}, model.scope
        options = {"rngs": dict(bound.rngs), "mutable": bound.mutable}
        return variables.get("params", {}), lambda tree: module.bind({**rest, "params": tree}, **options)
    from flax import nnx

    graph, *states = nnx.split(model, nnx.Param, ...)
    parameters, others = states

    def rebuild(tree: Any) -> Any:
        state = jax.tree_util.tree_map(lambda leaf: leaf, parameters)
        nnx.replace_by_pure_dict(state, tree)
        return nnx.merge(graph, state, others, copy=True)

    return nnx.to_pure_dict(parameters), rebuild
