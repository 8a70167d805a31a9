"""Step sizes as a schedule of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.optim.schedules import Schedule

__all__ = ["mapped_schedule", "optax_schedule"]


def optax_schedule(schedule: Schedule) -> Callable[[Any], Any]:
    """Give the steps as a schedule of optax: count -> a_count, which may be traced by `jax.jit`.

    Args:
        schedule: of `nonsmooth.optim`.

    Returns:
        What the transformations of optax take as `learning_rate=`.

    Raises:
        UsageError: no schedule of this library.

    >>> import nonsmooth as ns
    >>> import optax
    >>> steps = ns.optim.optax_schedule(ns.optim.PowerSchedule(0.1, exponent=0.5))
    >>> optimiser = optax.sgd(steps)
    >>> round(float(steps(3)), 6)
    0.05

    Source: BoltePauwels2020.
    """
    if not isinstance(schedule, Schedule):
        raise UsageError(
            f"schedule={schedule!r}: pass one of the schedules of nonsmooth.optim; optax takes other callables."
        )

    def steps(count: Any) -> Any:
        return schedule.values(jnp.asarray(count), jnp)

    return steps


def mapped_schedule(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a schedule that takes integers and arrays of them, out of one that takes a count as optax has it: an array.

    >>> import optax
    >>> [round(float(step), 3) for step in mapped_schedule(optax.linear_schedule(1.0, 0.0, 4))(range(3))]
    [1.0, 0.75, 0.5]
    """
    many = jax.vmap(schedule)
    return lambda k: (many if jnp.ndim(jnp.asarray(k)) else schedule)(jnp.asarray(k))
