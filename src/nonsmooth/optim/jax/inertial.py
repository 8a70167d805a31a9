"""What the inertial transformations share of the contract of optax: schedules, masks, trees, checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.optim.inertial_newton import check, increments, initial_psi

__all__ = ["Schedule", "Weights", "check_all", "known", "move", "need_params", "start", "value_at", "weights_to_decay"]

Schedule = Callable[[Any], Any]
"""A hyper-parameter as a function of the number of steps made."""

Weights = Any | Callable[[Any], Any] | None
"""Which parameters decay: a tree of booleans, a function from the parameters to one, or None for all."""


def known(value: Any) -> float | None:
    """Give the number in a hyper-parameter; None for a schedule, and for a number that is being traced."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) or hasattr(value, "__array__"):
        if jnp.size(value) != 1:
            raise UsageError(f"A hyper-parameter must be one number; found an array of shape {jnp.shape(value)}.")
        return float(jnp.reshape(value, ()))
    return value  # type: ignore[no-any-return]


def check_all(what: str, values: dict[str, Any]) -> dict[str, float | None]:
    """Refuse hyper-parameters outside their ranges, as far as they are known."""
    for name, value in values.items():
        if value is None or (callable(value) and name != "lr"):
            allowed = "a number, or a schedule" if name == "lr" else "a number; a schedule is for learning_rate alone"
            raise UsageError(f"{what}: {name} must be {allowed}; found {value!r}.")
    numbers = {name: known(value) for name, value in values.items()}
    check(what, "the call", numbers)
    return numbers


def need_params(what: str, params: Any) -> None:
    """Refuse an update without the parameters."""
    if params is None:
        raise UsageError(
            f"{what} moves the parameters themselves: call update(gradients, state, params); found params=None."
        )


def value_at(hyperparameter: Any, count: jax.Array) -> Any:
    """Give a hyper-parameter at a step."""
    return hyperparameter(count) if callable(hyperparameter) else hyperparameter


def weights_to_decay(mask: Weights, params: Any) -> Any:
    """Give a tree of booleans, one for each parameter."""
    chosen = mask(params) if callable(mask) else mask
    return jax.tree.broadcast(True if chosen is None else chosen, params)


def start(params: Any, alpha: Any, beta: Any) -> Any:
    """Give psi_0, each part in the dtype of its parameter."""
    leaves = jax.tree.map(jnp.asarray, params)
    return jax.tree.map(lambda p: initial_psi(p, alpha=alpha, beta=beta).astype(p.dtype), leaves)


def move(directions: Any, params: Any, psi: Any, decays: Any, *, weight_decay: Any, **numbers: Any) -> tuple[Any, Any]:
    """Give what a step adds to the parameters, in their dtypes, and the new psi; `numbers` are gamma, alpha, beta."""

    def of_leaf(g: Any, theta: Any, psi: Any, decay: Any) -> tuple[jax.Array, jax.Array]:
        theta, psi, g = jnp.asarray(theta), jnp.asarray(psi), jnp.asarray(g)
        fall = jnp.where(decay, numbers["gamma"] * weight_decay, 0.0) * theta
        of_theta, of_psi = increments(theta - fall, psi, g, **numbers)
        return (of_theta - fall).astype(theta.dtype), (psi + of_psi).astype(psi.dtype)

    moved = jax.tree.map(of_leaf, directions, params, psi, decays)
    steps, phases = jax.tree.transpose(jax.tree.structure(directions), jax.tree.structure((0, 0)), moved)
    return steps, phases
