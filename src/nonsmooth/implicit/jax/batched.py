"""Fixed points of maps on the rows of a batch, in compiled programs: plain steps, then Anderson's or Peaceman-Rachford's.

The twin of `torch/batched.py`, where the methods are described; here every loop is one of `lax`.

Source: WinstonKolter2020, LionsMercier1979.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

__all__ = ["Found", "Split", "fixed_rows", "length"]

QUICK = 60.0
"""How many further plain steps are worth making."""

SLOW = 0.9
"""A factor by which plain steps that go on must contract."""

MEMORY = 6
"""How many steps Anderson's iteration combines."""

EVERY = 2
"""A step is combined, then so many less one are not."""

GROWTH = 2.0
"""A combined step whose residual is larger by this factor than the least so far is taken back."""

CAUTION = 5
"""How many steps are made without combining after one was taken back."""

STALLED = 200
"""After how many steps without a better residual an iteration ends."""

REGULARISATION = 10.0
"""Of the products of residuals, in units of rounding of the largest."""

CHECKED = 3
"""How many plain steps are made between two looks at the residual."""


class Found(NamedTuple):
    """An approximate fixed point, the largest relative residual of a row, the number of evaluations, whether plain."""

    y: Any
    error: Any
    iterations: Any
    plain: Any


class Split(NamedTuple):
    """Peaceman-Rachford splitting: z -> (x, y), and the z of a y; both get the factors, which are made where needed."""

    factors: Callable[[], Any]
    step: Callable[[Any, Any], tuple[Any, Any]]
    inner: Callable[[Any], Any]


def length(rows: Any) -> Any:
    """Give the Euclidean lengths of rows."""
    return jnp.sqrt(jnp.sum(jnp.square(rows), axis=-1))


def fixed_rows(
    T: Callable[[Any], Any], start: Any, goal: float, limit: int, scale: Any = None, split: Split | None = None
) -> Found:
    """Find y = T(y), row by row: |T(y) - y| <= goal times the scale of the row, by default 1 + |y|."""

    def error(y: Any, residual: Any) -> Any:
        size = 1 + length(y) if scale is None else scale
        return jnp.max(length(residual) / size, initial=0.0)

    if not start.size:
        return Found(start, jnp.zeros((), start.dtype), jnp.zeros((), int), jnp.ones((), bool))
    found = _plain(T, start, goal, limit, error)

    def further(found: Found) -> Found:
        if split is None:
            return _anderson(lambda y: (y, T(y)), found.y, found.iterations, goal, limit, error, 1.0)
        factors = split.factors()
        ahead = _anderson(
            lambda z: split.step(factors, z), split.inner(found.y), found.iterations, goal / 4, limit, error, 2.0
        )
        return ahead._replace(error=error(ahead.y, T(ahead.y) - ahead.y), iterations=ahead.iterations + 1)

    done = (found.error <= goal) | (found.iterations >= limit)
    end: Found = lax.cond(done, lambda f: f, further, found)
    return end


def _plain(T: Callable[[Any], Any], start: Any, goal: float, limit: int, error: Callable[[Any, Any], Any]) -> Found:
    """Iterate y <- T(y) until the goal is reached or the steps contract slowly."""

    def on(state: Any) -> Any:
        _, now, before, used = state
        rate = (now / before) ** (1 / CHECKED)
        needed = jnp.log(goal / now) / jnp.log(jnp.minimum(rate, 0.999))
        quick = (rate < SLOW) & (needed <= QUICK)
        return (now > goal) & (used < limit) & (quick | (used < 2 * CHECKED))

    def step(state: Any) -> Any:
        y, now, _, used = state
        last = y
        for _ in range(CHECKED):
            last, y = y, T(y)
        return y, error(last, y - last), now, used + CHECKED

    infinite = jnp.full((), jnp.inf, start.dtype)
    y, now, _, used = lax.while_loop(on, step, (start, infinite, infinite, jnp.zeros((), int)))
    fine = now <= 1  # far from a solution the residual is as large as y
    return Found(jnp.where(fine, y, start), jnp.where(fine, now, jnp.inf), used, jnp.ones((), bool))


class _Run(NamedTuple):
    """Where Anderson's iteration is.

    Attributes:
        z, now: the next point, and the error of the last one.
        anchor, least: where a step is taken back to, a plain step from the point of the least error since one was.
        states, rests, held: the last plain steps and their residuals, in turn, and how many were held.
        wait: how many steps are still made without combining.
        best: the best y so far, with its error and the number of evaluations.
        since: how many steps have not bettered it much.
    """

    z: Any
    now: Any
    anchor: Any
    least: Any
    states: Any
    rests: Any
    held: Any
    wait: Any
    best: Found
    since: Any

    @staticmethod
    def first(z: Any, used: Any) -> _Run:
        """Begin."""
        infinite, none = jnp.full((), jnp.inf, z.dtype), jnp.zeros((), int)
        memory = jnp.zeros((*z.shape[:-1], MEMORY, z.shape[-1]), z.dtype)
        best = Found(z, infinite, used, jnp.zeros((), bool))
        return _Run(z, infinite, z, infinite, memory, memory, none, none, best, none)

    def noted(self, y: Any, now: Any) -> _Run:
        """Note the error of another y."""
        best, better = self.best, now < self.best.error
        return self._replace(
            now=jnp.where(jnp.isnan(now), jnp.inf, now),
            since=jnp.where(now < 0.9 * best.error, 0, self.since + 1),
            best=best._replace(
                y=jnp.where(better, y, best.y), error=jnp.where(better, now, best.error), iterations=best.iterations + 1
            ),
        )

    def moved(self, plain: Any, residual: Any, now: Any) -> _Run:
        """Go on from a plain step and its residual: to it, to a combination, or back."""
        back = ~(now <= GROWTH * self.least) & (self.held > 0)
        takes = ~back & (self.wait == 0)
        place = self.held % MEMORY
        states = jnp.where(takes, self.states.at[..., place, :].set(plain), self.states)
        rests = jnp.where(takes, self.rests.at[..., place, :].set(residual), self.rests)
        held = jnp.where(back, 0, self.held + takes)
        z = lax.cond(takes & (held % EVERY == 0), lambda: _combined(states, rests, held), lambda: plain)
        less = now < self.least
        return self._replace(
            z=jnp.where(back, self.anchor, z),
            anchor=jnp.where(~back & less, plain, self.anchor),
            least=jnp.where(back, jnp.inf, jnp.where(less, now, self.least)),
            wait=jnp.where(back, CAUTION, jnp.maximum(self.wait - 1, 0)),
            states=states,
            rests=rests,
            held=held,
        )


def _anderson(
    split: Callable[[Any], tuple[Any, Any]],
    begin: Any,
    used: Any,
    goal: float,
    limit: int,
    error: Callable[[Any, Any], Any],
    factor: float,
) -> Found:
    """Iterate z <- z + factor (y - x), combined over the last steps of each row."""

    def on(run: _Run) -> Any:
        return (run.now > goal) & (run.best.iterations < limit) & (run.since < STALLED)

    def step(run: _Run) -> _Run:
        x, y = split(run.z)
        residual = y - x
        now = error(x, residual)
        return run.noted(y, now).moved(run.z + factor * residual, residual, now)

    end: _Run = lax.while_loop(on, step, _Run.first(begin, used))
    return end.best


def _combined(states: Any, rests: Any, held: Any) -> Any:
    """Combine the steps of each row so that its combined residual is least: the weights sum up to 1."""
    filled = jnp.arange(MEMORY) < held
    gram = jnp.einsum("...in,...jn->...ij", rests, rests)
    eps = float(jnp.finfo(gram.dtype).eps)
    largest = jnp.max(jnp.diagonal(gram, axis1=-2, axis2=-1), axis=-1)
    gram = gram / (largest + jnp.finfo(gram.dtype).tiny)[..., None, None]
    gram = gram + jnp.diag(jnp.where(filled, REGULARISATION * eps, 1.0).astype(gram.dtype))
    weights = jnp.linalg.solve(gram, jnp.broadcast_to(filled.astype(gram.dtype)[:, None], (*gram.shape[:-1], 1)))[
        ..., 0
    ]
    weights = jnp.where(filled, weights, 0.0)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    last = jax.nn.one_hot((held - 1) % MEMORY, MEMORY, dtype=gram.dtype)
    weights = jnp.where(jnp.all(jnp.isfinite(weights), axis=-1, keepdims=True), weights, last)
    return jnp.einsum("...m,...mn->...n", weights, states)
