"""Flows in JAX: diffrax integrates the pieces, and differentiates what it did.

The pattern of a piece is an argument of the compiled integrator, so that it is compiled once for all pieces of a program.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.frameworks.jax import JAX
from nonsmooth.implicit.flows.course import Course, Jump, Segment
from nonsmooth.implicit.flows.flow import FlowOptions
from nonsmooth.implicit.flows.motion import LEAST_STEPS, Motion
from nonsmooth.implicit.flows.piece import Pieces
from nonsmooth.program import Program

__all__ = [
    "JaxMotion",
    "again",
    "integrate",
    "integrate_plainly",
    "motion_of",
    "moves",
    "numpy",
    "sensitivity",
    "traced",
]


def _diffrax() -> ModuleType:
    """Import the integrator, or say how to get it."""
    try:
        import diffrax
    except ImportError:
        raise UsageError("flow integrates with diffrax, which is not here: pip install 'nonsmooth[flows]'.") from None
    return diffrax


class JaxMotion(Motion):
    """An equation of arrays of jax."""

    def __init__(self, function: Callable[..., Any], y0: Any, theta: Sequence[Any], options: FlowOptions) -> None:
        super().__init__(JAX, function, y0, theta)
        self.double, self._options = y0.dtype == jnp.float64, options

    def still(self, array: Any) -> Any:
        """Cut an array off from what is differentiated: outside of jit that is its value, an array also of a plain number."""
        cut = lax.stop_gradient(array)
        return jnp.asarray(cut, array.dtype) if _is_array(array) and not _is_array(cut) else cut

    def quiet(self) -> AbstractContextManager[Any]:
        """Evaluate now, also where something around is differentiated."""
        return jax.ensure_compile_time_eval()

    def closed_over(self) -> Any:
        """Give what identifies the parameters that f closes over: their values are constants of the program."""
        return ()

    def attached(self, program: Program) -> Program:
        """Leave the program: what is differentiated is an argument."""
        return program

    def compiled(self, run: Callable[[Sequence[Any], Any], Any]) -> Callable[[Sequence[Any], Any], Any]:
        """Compile the function; the pattern is an argument."""
        return jax.jit(run)

    def gradients(self, pieces: Pieces, leaves: Sequence[Any], pattern: Any, seed: int) -> Any:
        """Give the derivatives of <c, f_s> in the inputs."""
        moving = [k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

        def value(given: list[Any], full: list[Any], pattern: Any) -> Any:
            for k, leaf in zip(moving, given, strict=True):
                full[k] = leaf
            out = JAX.flatten(pieces.run(full, pattern)[0])[0][0]
            return jnp.vdot(jnp.asarray(np.random.default_rng(seed).standard_normal(out.shape), out.dtype), out)

        gradient = pieces.__dict__.setdefault("gradient", jax.jit(jax.grad(value, argnums=0)))
        found = gradient([leaves[k] for k in moving], list(leaves), pattern)
        return np.concatenate([np.ravel(np.asarray(g)) for g in found])

    def stepper(self, pieces: Pieces) -> Any:
        """Give the compiled integrator of one stretch of any piece of a program: (pattern, a, b, step, y, theta) -> (y, done)."""
        steppers: dict[Any, Any] = pieces.__dict__.setdefault("steppers", {})
        key = str(self._options.method), self._options.max_steps
        if key not in steppers:

            def field(t: Any, y: Any, given: Any) -> Any:
                pattern, theta = given
                return JAX.flatten(pieces.run([t, y, *theta], pattern)[0])[0][0]

            steppers[key] = _stepper(field, self._options)
        return partial(steppers[key], self._options.tolerances(self.double))


def _stepper(field: Callable[..., Any], options: FlowOptions) -> Any:
    """Compile diffrax on a field: (tolerances, given, a, b, longest, y) -> (y, done)."""
    diffrax = _diffrax()
    method = options.method or diffrax.Dopri5()
    if not isinstance(method, diffrax.AbstractSolver):
        raise UsageError(f"flow: method={method!r} is a solver of diffrax, e.g. diffrax.Dopri5().")

    @jax.jit
    def stretch(tolerances: Any, given: Any, a: Any, b: Any, longest: Any, y: Any) -> Any:
        controller = diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1], dtmax=longest)
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field), method, a, b, None, y, given,
            stepsize_controller=controller, max_steps=options.max_steps, throw=False,
        )  # fmt: skip
        return found.ys[-1], found.result == diffrax.RESULTS.successful

    return stretch


def motion_of(function: Callable[..., Any], y0: Any, theta: Sequence[Any], options: FlowOptions) -> JaxMotion:
    """Give the equation at given parameters."""
    return JaxMotion(function, y0, theta, options)


def again(motion: JaxMotion, options: FlowOptions) -> JaxMotion:
    """Give the equation with other options, which shares the pieces."""
    other = JaxMotion(motion.function, motion.y0, motion.theta, options)
    other.known = motion.known
    return other


def traced(tree: Any) -> bool:
    """Tell whether values are unknown: under jit and vmap, not under grad alone."""
    return any(
        isinstance(lax.stop_gradient(leaf), jax.core.Tracer) for leaf in jax.tree.leaves(tree) if _is_array(leaf)
    )


def _is_array(leaf: Any) -> bool:
    """Tell an array of jax."""
    return isinstance(leaf, jax.Array)


def moves(times: Any) -> bool:
    """Tell whether the times are differentiated."""
    return isinstance(times, jax.core.Tracer)


def numpy(array: Any) -> Any:
    """Give values to numpy."""
    return np.asarray(lax.stop_gradient(array)) if _is_array(array) else np.asarray(array)


def integrate(
    motion: JaxMotion, course: Course, y0: Any, times: Any, given: Any, theta: Sequence[Any], options: FlowOptions
) -> Any:
    """Integrate piece by piece; differentiable in y0, theta and the times."""
    leaves, wanted = JAX.flatten(list(theta))[0], list(np.atleast_1d(given))
    longest = jnp.asarray(max(wanted[-1] - options.start, 1e-300) / LEAST_STEPS / options.refinement, y0.dtype)
    found: list[Any] = []
    y = y0

    def leave(y: Any, slope: Any) -> None:
        """Keep y at a time that may itself be differentiated: dy/dT = f(T, y(T))."""
        if _is_array(times):
            t = times if times.ndim == 0 else times[len(found)]
            y = y + lax.stop_gradient(slope) * (t - lax.stop_gradient(t)).astype(y.dtype)
        found.append(y)

    if wanted[0] <= options.start:
        leave(y0, motion.function(jnp.asarray(wanted[0], y0.dtype), y0, *theta))
    for segment in course.segments:
        inner = [t for t in wanted[len(found) :] if segment.start < t <= segment.end]
        nodes = [segment.start, *inner] + ([segment.end] if not inner or inner[-1] < segment.end else [])
        pattern = motion.arrays(segment.pattern)
        run = segment.pieces.compiled_run  # type: ignore[attr-defined]
        for a, b in itertools.pairwise(nodes):
            ends = jnp.asarray(a, y0.dtype), jnp.asarray(b, y0.dtype)
            if b - a < motion.shortest * max(1.0, abs(b)):
                k = JAX.flatten(run([ends[0], y, *leaves], pattern)[0])[0][0]
                late = JAX.flatten(run([ends[1], y + (b - a) * k, *leaves], pattern)[0])[0][0]
                y = y + (b - a) / 2 * (k + late)
            else:
                y, done = motion.stepper(segment.pieces)((pattern, leaves), *ends, longest, y)
                if not bool(done):
                    raise NotConverged(
                        f"flow: diffrax gave up between t = {a:.6g} and {b:.6g} ({options.max_steps} steps, or a number that is "
                        "not finite). Loosen rtol and atol, raise max_steps, or integrate to an earlier time."
                    )
            if b in inner:
                leave(y, JAX.flatten(run([ends[1], y, *leaves], pattern)[0])[0][0])
        if segment.jump is not None:
            y = _past_jump(motion, segment, segment.jump, y, leaves)
    return found[0] if np.ndim(given) == 0 else jnp.stack(found)


def _past_jump(motion: JaxMotion, segment: Segment, jump: Jump, y: Any, theta: Sequence[Any]) -> Any:
    """Give y with the derivative that it has after a jump: S + factor (m)'."""
    pattern, slope = motion.arrays(segment.pattern), jnp.asarray(jump.before, y.dtype)
    margins, factor = segment.pieces.compiled_margins, jnp.asarray(jump.factor, y.dtype)  # type: ignore[attr-defined]
    found = y
    for weight, back in jump.looks:
        leaves = [jnp.asarray(segment.end - back, y.dtype), y - back * slope, *theta]
        margin = jnp.concatenate([jnp.ravel(m) for m in margins(leaves, pattern)])[jump.number]
        found = found + weight * factor * (margin - lax.stop_gradient(margin))
    return found


def sensitivity(
    motion: JaxMotion, course: Course, y0: Any, given: Any, theta: Sequence[Any], options: FlowOptions
) -> Any:
    """Give the derivative of <c, y> in y0 and theta for a drawn c, as one flat array of numpy."""
    leaves, structure = JAX.flatten(list(theta))
    moving = [k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def value(y0: Any, moved: list[Any]) -> Any:
        full = list(leaves)
        for k, leaf in zip(moving, moved, strict=True):
            full[k] = leaf
        out = integrate(motion, course, y0, given, given, JAX.unflatten(full, structure), options)
        return jnp.vdot(jnp.asarray(np.random.default_rng(0).standard_normal(out.shape), out.dtype), out)

    found = jax.tree.leaves(jax.grad(value, argnums=(0, 1))(y0, [leaves[k] for k in moving]))
    return np.concatenate([np.ravel(np.asarray(g)) for g in found])


def integrate_plainly(motion: JaxMotion, y0: Any, times: Any, theta: Sequence[Any], options: FlowOptions) -> Any:
    """Run the integrator on f as it is."""
    row = jnp.asarray(times, y0.dtype)
    stretch = _stepper(lambda t, y, given: motion.function(t, y, *given), options)
    tolerances = options.tolerances(motion.double)
    found, a, y = [], jnp.asarray(options.start, y0.dtype), y0
    for k in range(row.size):
        b = row.reshape(-1)[k]
        y, done = stretch(tolerances, list(theta), a, lax.stop_gradient(b), jnp.asarray(jnp.inf, y0.dtype), y)
        y = jnp.where(done, y, jnp.nan)
        slope = lax.stop_gradient(motion.function(b, y, *theta))
        found.append(y + slope * (b - lax.stop_gradient(b)))
        a = lax.stop_gradient(b)
    return found[0] if row.ndim == 0 else jnp.stack(found)
