"""INNAprop as a gradient transformation of optax."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from nonsmooth.optim.adaptive_scaling import STEP_CONDITION, check_step, log_sigma, scaled, second_moment
from nonsmooth.optim.jax.inertial import (
    Schedule,
    Weights,
    check_all,
    known,
    move,
    need_params,
    start,
    value_at,
    weights_to_decay,
)

__all__ = ["INNAPropState", "innaprop"]


class INNAPropState(NamedTuple):
    """The number of steps made, psi and the mean of squares, trees like the parameters."""

    count: jax.Array  # type: ignore[assignment]
    psi: Any
    nu: Any


def innaprop(
    learning_rate: Any | Schedule = 1e-3,
    alpha: Any = 0.1,
    beta: Any = 0.9,
    sigma: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: Any = 0.01,
    mask: Weights = None,
) -> optax.GradientTransformationExtraArgs:
    """INNAprop, INNA on gradients scaled as RMSprop does, as an optax gradient transformation.

    The step and its condition gamma < beta are those of `INNAprop`, the class for PyTorch. Where gamma is traced (a schedule under
    `jax.jit`) the condition cannot raise an error: the step is then NaN as long as it fails, and `jax.experimental.checkify` with
    `checkify.user_checks` says why. `update` needs the parameters, and what it returns is to be added to them unchanged.

    Args:
        learning_rate: the step gamma, or a schedule: k -> gamma_k, k = 0, 1, ...; less than beta.
        alpha: the friction, >= 0, in units of 1/gamma.
        beta: the Newton-like damping, > 0, in units of gamma.
        sigma: how slowly the mean of squares forgets, in [0, 1).
        eps: added to the root of the mean of squares.
        weight_decay: decoupled from the gradient.
        mask: which parameters decay, as in `optax.adamw`.

    Raises:
        UsageError: a hyper-parameter outside its range or gamma >= beta (where they are numbers), or `update` without parameters.

    >>> import jax.numpy as jnp, optax
    >>> import nonsmooth as ns
    >>> optimizer = ns.optim.innaprop(0.01, alpha=0.5, weight_decay=0.0)
    >>> x = jnp.array([1.0, -2.0])
    >>> state = optimizer.init(x)
    >>> for _ in range(200):
    ...     step, state = optimizer.update(x, state, x)                # x: the gradient of |x|^2/2
    ...     x = optax.apply_updates(x, step)
    >>> x
    Array([-0.0698..., -0.2259...], dtype=float32)

    Source: BolteBoustanyPauwelsPurica2024.
    """
    constants = {"alpha": alpha, "beta": beta}
    more = {"sigma": sigma, "eps": eps, "weight_decay": weight_decay}
    numbers = check_all("innaprop", {"lr": learning_rate, **constants, **more})
    check_step("innaprop", "the call", lr=numbers["lr"], beta=numbers["beta"])

    def init(params: Any) -> INNAPropState:
        nu = jax.tree.map(lambda p: jnp.zeros_like(jnp.real(p)), params)
        return INNAPropState(jnp.zeros((), jnp.int32), start(params, alpha, beta), nu)

    def update(updates: Any, state: INNAPropState, params: Any = None, **_: Any) -> tuple[Any, INNAPropState]:
        need_params("innaprop", params)
        gamma = _below(value_at(learning_rate, state.count), beta)
        count = optax.safe_increment(state.count)
        nu = jax.tree.map(lambda g, v: second_moment(v, _square(g), sigma=sigma).astype(v.dtype), updates, state.nu)
        sigma_known = known(sigma)
        correction = -jnp.expm1(count * (jnp.log(sigma) if sigma_known is None else log_sigma(sigma_known)))
        directions = jax.tree.map(lambda g, v: scaled(g, v, correction=correction, eps=eps), updates, nu)
        decays = weights_to_decay(mask, params)
        steps, psi = move(directions, params, state.psi, decays, gamma=gamma, weight_decay=weight_decay, **constants)
        return steps, INNAPropState(count, psi, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def _square(g: Any) -> jax.Array:
    """Give |g|^2, entry by entry."""
    return jnp.real(g * jnp.conj(g))


def _below(gamma: Any, beta: Any) -> Any:
    """Give the step if it stays below beta: else an error, or NaN where its value is not known yet."""
    lr, bound = known(gamma), known(beta)
    check_all("innaprop", {"lr": gamma})
    check_step("innaprop", "update", lr=lr, beta=bound)
    if lr is not None and bound is not None:
        return gamma
    fits = jnp.less(gamma, beta)
    found = {"lr": jnp.asarray(gamma), "beta": jnp.asarray(beta)}
    checkify.debug_check(fits, f"innaprop: {STEP_CONDITION}; found lr {{lr}} and beta {{beta}}.", **found)
    return jnp.where(fits, gamma, jnp.nan)
