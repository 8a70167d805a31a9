"""The proof of capture in JAX: how a program and its function are run and differentiated; see `replay.proof`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.frameworks.jax.run import replay
from nonsmooth.frameworks.jax.space import SPACE
from nonsmooth.frameworks.jax.tree import RandomState, flatten, same_content, split_data, unflatten
from nonsmooth.frameworks.replay.proof import Comparison, Found
from nonsmooth.program import Program, Proof

__all__ = ["Native", "prove", "weighed_sum"]


@dataclass
class Native:
    """The function run by jax alone, near one point: what it gives is kept, for the programs of all its pieces."""

    function: Callable[..., Any]
    x: Any
    data: tuple[Any, ...]
    known: dict[int, tuple[Any, Any, bool]] = field(default_factory=dict)

    def is_at(self, x: Any, data: tuple[Any, ...]) -> bool:
        """Tell whether it is near the same point."""
        mine, theirs = flatten((self.x, self.data)), flatten((x, data))
        return bool(mine[1] == theirs[1]) and all(map(same_content, mine[0], theirs[0]))

    def at(self, place: int, leaves: list[Any], items: list[Any]) -> tuple[Any, Any, bool]:
        """Give result, gradient and whether it was found backwards, at the point (place -1) or a nearby one.

        Where jax has no reverse mode (a `while`) it is the derivative along one fixed direction.
        """
        if place not in self.known:
            structure, (_, _, joined) = flatten(self.x)[1], split_data(self.data)

            def value(point: list[Any]) -> Any:
                result = self.function(unflatten(point, structure), *joined(items))
                return weighed_sum(result), result

            state = RandomState()
            try:
                self.known[place] = _differentiated(value, leaves)
            finally:
                state.put()
        return self.known[place]


def _differentiated(value: Callable[[list[Any]], Any], leaves: list[Any]) -> tuple[Any, Any, bool]:
    """Differentiate backwards, or along one direction where jax cannot."""
    try:
        gradient, result = jax.grad(value, has_aux=True)(leaves)
    except ValueError as error:
        if "Reverse-mode differentiation" not in str(error):
            raise
        return *_along(value, leaves), False
    return result, gradient, True


def _along(value: Callable[[list[Any]], Any], leaves: list[Any]) -> tuple[Any, Any]:
    """Differentiate along one fixed direction."""
    direction = [jnp.asarray(np.cos(np.arange(t.size)).reshape(t.shape), dtype=t.dtype) for t in leaves]
    _, slope, result = jax.jvp(value, (leaves,), (direction,), has_aux=True)
    return result, slope


def prove(program: Program, native: Native, *, forced: bool = False) -> Proof:
    """Compare a program with its function at the point (unless outcomes are forced there) and at a nearby point.

    Raises:
        ProofFailed: values or gradients differ by more than rounding.
    """
    return _Comparison(native).prove(program, forced=forced)


def weighed_sum(results: Any) -> jax.Array:
    """Add results up, each entry weighed by a fixed number so that none cancels."""
    total = jnp.zeros(())
    for t in flatten(results)[0]:
        if jnp.issubdtype(t.dtype, jnp.floating):
            weights = 1 + 0.25 * jnp.sin(jnp.arange(t.size, dtype=t.dtype)).reshape(t.shape)
            total = total + jnp.sum(t * weights)
    return total


class _Comparison(Comparison):
    """A program beside its function, as jax runs them."""

    causes = (
        "(a) the function depends on hidden state that changes from call to call; (b) a custom derivative differs from call "
        "to call"
    )
    same = staticmethod(same_content)

    def __init__(self, native: Native) -> None:
        leaves = flatten(native.x)[0]
        super().__init__(leaves, split_data(native.data)[0], SPACE.eps(leaves))
        self.native, self.generator = native, np.random.default_rng(0)

    def moved(self, leaves: list[Any], scale: float) -> list[Any]:
        """Draw a nearby point: every floating leaf moves."""
        point = []
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                point.append(leaf)
                continue
            wide = np.asarray(leaf, dtype=np.float64)
            size = scale * (float(np.abs(wide).mean()) + 1e-3) if wide.size else 0.0
            drawn = self.generator.uniform(-2 * size, 2 * size, wide.shape)
            point.append(jnp.asarray(wide + drawn, dtype=leaf.dtype))
        return point

    def both(self, program: Program, place: int, leaves: list[Any], items: list[Any]) -> tuple[Found, Found] | None:
        """Run both; a function without reverse mode is differentiated along one direction, and so is its program."""
        run = replay(program, leaves, items)
        result, gradient, backwards = self.native.at(place, leaves, items)
        values = flatten(result)[0]
        if not all(np.isfinite(self.hosted(t)).all() for t in values):
            return None

        def ours(point: list[Any]) -> Any:
            found = run.trail.pure()(point, [], [])[0]
            return weighed_sum(found), found

        found, own = _differentiated(ours, leaves)[:2] if backwards else _along(ours, leaves)
        return (flatten(found)[0], flatten(own)[0]), (values, flatten(gradient)[0])

    @staticmethod
    def hosted(array: Any) -> Any:
        """Give an array to numpy in double precision."""
        found = np.asarray(array)
        return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64)
