"""Timing programs of jax: compiled calls to the end of their work, and the memory that the compiler plans for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import jax
from jax import numpy as jnp

from nonsmooth.frameworks.jax.tree import flatten, split_data
from nonsmooth.frameworks.stopwatch import Run

__all__ = ["JaxStopwatch"]


class JaxStopwatch:
    """The clock of jax for a function at a point; see `nonsmooth.frameworks.stopwatch`. What is jax's own is compiled."""

    clock = "wall time"

    def __init__(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> None:
        self._function = function
        self._x = jax.tree.map(jnp.asarray, x)
        self._arrays, _, self._joined = split_data(data)
        device = next(iter(flatten(self._x)[0][0].devices()))
        self.device = str(device.device_kind)
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @staticmethod
    def prepared() -> AbstractContextManager[Any]:
        """Give the state in which all of it is measured."""
        return nullcontext()

    def evaluation(self) -> Run:
        """Evaluate the function, compiled."""
        return self.compiled(self._value)

    def gradient(self) -> Run:
        """Evaluate and differentiate it by `jax.value_and_grad`, compiled."""
        return self.compiled(jax.value_and_grad(self._value))

    def forward(self, directions: Sequence[Any]) -> Run:
        """Evaluate it with `jax.jvp`, mapped over the directions and compiled."""
        columns = jax.tree.map(lambda *parts: jnp.stack(parts), *directions)

        def along(x: Any, columns: Any, *data: Any) -> Any:
            def one(v: Any) -> Any:
                return jax.jvp(lambda point: self._value(point, *data), (x,), (v,))

            return jax.vmap(one, out_axes=(None, 0))(columns)

        return self.compiled(along, columns)

    def compiled(self, function: Callable[..., Any], *between: Any) -> Run:
        """Compile a function of (x, *between, *data) for the arrays among the data; the other data are constants."""

        def closed(x: Any, between: tuple[Any, ...], arrays: list[Any]) -> Any:
            return function(x, *between, *self._joined(arrays))

        arguments = self._x, between, self._arrays
        start = perf_counter()
        ready = jax.jit(closed).lower(*arguments).compile()
        took = perf_counter() - start
        plan = ready.memory_analysis()
        planned = None if plan is None else int(plan.temp_size_in_bytes + plan.output_size_in_bytes)
        return Run(lambda: ready(*arguments), took, planned)

    @staticmethod
    def seconds(run: Run) -> float:
        """Time one call, until its arrays are there."""
        start = perf_counter()
        jax.block_until_ready(run.call())
        return perf_counter() - start

    @staticmethod
    def memory(run: Run) -> int | None:
        """Give what the compiler plans: its temporary arrays and the results."""
        return run.memory

    def _value(self, x: Any, *data: Any) -> Any:
        """Give the scalar result."""
        return jnp.reshape(flatten(self._function(x, *data))[0][0], ())
