"""INNA as a gradient transformation of optax."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nonsmooth.optim.jax.inertial import (
    Schedule,
    Weights,
    check_all,
    move,
    need_params,
    start,
    value_at,
    weights_to_decay,
)

__all__ = ["INNAState", "inna"]


class INNAState(NamedTuple):
    """The number of steps made, and psi, a tree like the parameters."""

    count: jax.Array  # type: ignore[assignment]
    psi: Any


def inna(
    learning_rate: Any | Schedule = 0.1,
    alpha: Any = 0.5,
    beta: Any = 0.1,
    weight_decay: Any = 0.0,
    mask: Weights = None,
) -> optax.GradientTransformationExtraArgs:
    """INNA, an inertial Newton algorithm that needs gradients only, as an optax gradient transformation.

    The step, its guarantee and its status are those of `INNA`, the class for PyTorch. `update` needs the parameters, and what it
    returns is to be added to them unchanged: put transformations of gradients before it in a chain, none after it.

    Args:
        learning_rate: the step gamma, or a schedule: k -> gamma_k, k = 0, 1, ...
        alpha: the friction, >= 0, in units of 1/gamma.
        beta: the Newton-like damping, > 0, in units of gamma.
        weight_decay: decoupled from the gradient.
        mask: which parameters decay, as in `optax.adamw`.

    Raises:
        UsageError: a hyper-parameter outside its range (where it is a number), or `update` without parameters.

    >>> import jax.numpy as jnp, optax
    >>> import nonsmooth as ns
    >>> optimizer = ns.optim.inna(lambda k: 0.1 / (1 + k) ** 0.25)
    >>> x = jnp.array([1.0, -2.0])
    >>> state = optimizer.init(x)
    >>> for _ in range(100):
    ...     step, state = optimizer.update(x, state, x)                # x: the gradient of |x|^2/2
    ...     x = optax.apply_updates(x, step)
    >>> x
    Array([-0.250..., 0.501...], dtype=float32)

    Source: Castera2021.
    """
    constants = {"alpha": alpha, "beta": beta}
    check_all("inna", {"lr": learning_rate, **constants, "weight_decay": weight_decay})

    def init(params: Any) -> INNAState:
        return INNAState(jnp.zeros((), jnp.int32), start(params, alpha, beta))

    def update(updates: Any, state: INNAState, params: Any = None, **_: Any) -> tuple[Any, INNAState]:
        need_params("inna", params)
        gamma = value_at(learning_rate, state.count)
        check_all("inna", {"lr": gamma})
        decays = weights_to_decay(mask, params)
        steps, psi = move(updates, params, state.psi, decays, gamma=gamma, weight_decay=weight_decay, **constants)
        return steps, INNAState(optax.safe_increment(state.count), psi)

    return optax.GradientTransformationExtraArgs(init, update)
