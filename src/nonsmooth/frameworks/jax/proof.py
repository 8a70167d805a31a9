"""The proof of capture: the program is compared with the function, by values and native gradients.

Both are evaluated at the point, and at a random nearby point under the same guards. Values at the point alone prove
nothing: a program that has lost a dependency has the right value there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import ProofFailed, StaleProgram
from nonsmooth.frameworks.jax.run import replay
from nonsmooth.frameworks.jax.tree import RandomState, flatten, same_content, split_data, unflatten
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.program import Program, Proof

__all__ = ["Native", "prove", "weighed_sum"]

NEARBY = (0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-5)
"""The distances, relative to the mean size of a leaf, at which nearby points are tried until one is on the same piece."""

LOST_AMONG = 1e-3
"""The part of the largest gradient below which a gradient is compared with that part: next to nothing is rounding."""

Arrays = list[np.ndarray[Any, Any]]


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
    leaves, items = flatten(native.x)[0], split_data(native.data)[0]
    tolerance = max(_tolerance(t.dtype) for t in leaves)
    errors = [] if forced else [_compare(program, native, -1, leaves, items)]
    _judge(program, errors, tolerance)
    nearby, generator = 0, np.random.default_rng(0)
    for attempt, scale in enumerate(NEARBY):
        point, drawn = _moved(leaves, generator, scale), _moved(items, generator, scale)
        others = drawn if attempt % 2 == 0 else items
        try:
            error = _compare(unforced(program), native, attempt, point, others)
        except StaleProgram:
            continue
        except Exception:  # the function need not be defined there
            continue
        if error is not None:
            nearby += 1
            errors.append(error)
            break
    _judge(program, errors, tolerance)
    found = [e for e in errors if e is not None]
    value_error, gradient_error = (max((e[k] for e in found), default=0.0) for k in (0, 1))
    return Proof(value_error, gradient_error, nearby, tolerance, "sampled" if nearby else "computed")


def weighed_sum(results: Any) -> jax.Array:
    """Add results up, each entry weighed by a fixed number so that none cancels."""
    total = jnp.zeros(())
    for t in flatten(results)[0]:
        if jnp.issubdtype(t.dtype, jnp.floating):
            weights = 1 + 0.25 * jnp.sin(jnp.arange(t.size, dtype=t.dtype)).reshape(t.shape)
            total = total + jnp.sum(t * weights)
    return total


def _judge(program: Program, errors: list[tuple[float, float] | None], tolerance: float) -> None:
    """Refuse a program that differs from its function by more than rounding."""
    for place, what in enumerate(("values", "native gradients")):
        error = max((e[place] for e in errors if e is not None), default=0.0)
        if not error <= tolerance:
            causes = "; ".join(f"{f.message} ({f.source})" for f in program.findings)
            raise ProofFailed(
                f"capture: the program does not reproduce the {what} of the function: relative difference {error:.2g}, "
                f"tolerance {tolerance:.1g}. " + (f"Found on the way: {causes}. " if causes else "") + "Likely causes: "
                "(a) the function depends on hidden state that changes from call to call; (b) a custom derivative differs "
                "from call to call. Its steps:\n" + str(program)[:4000]
            )


def _moved(leaves: list[Any], generator: np.random.Generator, scale: float) -> list[Any]:
    """Draw a nearby point: every floating leaf moves."""
    point = []
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            point.append(leaf)
            continue
        wide = np.asarray(leaf, dtype=np.float64)
        size = scale * (float(np.abs(wide).mean()) + 1e-3) if wide.size else 0.0
        point.append(jnp.asarray(wide + generator.uniform(-2 * size, 2 * size, wide.shape), dtype=leaf.dtype))
    return point


def _tolerance(dtype: Any) -> float:
    """Give the relative difference that rounding may make."""
    return 1e-9 if dtype == jnp.float64 else float(min(0.05, 2e3 * float(jnp.finfo(dtype).eps)))


def _compare(
    program: Program, native: Native, place: int, leaves: list[Any], items: list[Any]
) -> tuple[float, float] | None:
    """Give the relative differences of values and gradients; None where the function has no finite value."""
    run = replay(program, leaves, items)  # which checks the guards first
    result, gradient, backwards = native.at(place, leaves, items)
    values = [_hosted(t) for t in flatten(result)[0]]
    if not all(np.isfinite(v).all() for v in values):
        return None

    def ours(point: list[Any]) -> Any:
        found = run.trail.pure()(point, [], [])[0]
        return weighed_sum(found), found

    found, own = _differentiated(ours, leaves)[:2] if backwards else _along(ours, leaves)
    mine = [_hosted(t) for t in flatten(found)[0]]
    pair = [[_hosted(t) for t in flatten(g)[0]] for g in (own, gradient)]
    return _distance(mine, values, 0.0), _distance(pair[0], pair[1], LOST_AMONG)


def _hosted(array: Any) -> Any:
    """Give an array to numpy in double precision."""
    found = np.asarray(array)
    return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64)


def _distance(a: Arrays, b: Arrays, part: float) -> float:
    """Give the largest relative difference of two lists of arrays, nan equal to nan.

    It is relative to the largest entry of an array, but at least to a part of the largest entry of all.
    """
    if len(a) != len(b) or any(u.shape != v.shape for u, v in zip(a, b, strict=True)):
        return float("inf")
    floor = part * max((_size(v) for v in b), default=0.0)
    worst = 0.0
    for u, v in zip(a, b, strict=True):
        bad = ~(np.isfinite(u) & np.isfinite(v))
        if not np.array_equal(u[bad], v[bad], equal_nan=True):
            return float("inf")
        u, v = u[~bad], v[~bad]
        scale = max(_size(u), _size(v), floor)
        worst = max(worst, float(np.abs(u - v).max()) / scale if u.size and scale else 0.0)
    return worst


def _size(array: Any) -> float:
    """Give the largest finite entry of an array."""
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 0.0
