"""Evaluation of a program: a run over values decides what happens at its kinks; derivatives are taken of a second pass.

The values of a run are arrays without a graph; what is decided from them is decided by numpy, which has nothing to
compile. `Trail` keeps it, so that `reverse.pure` can do the same steps again under `jax.vjp`. A run that is cut open at
its kinks is itself differentiated (`graph=True`): then the arrays are tracers over the same values, and what the records
read is cut off from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as host
import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from nonsmooth.dictionary import Call, Nonsmooth
from nonsmooth.frameworks.framework import CutCall, Evaluation
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.jax.calls import call_of
from nonsmooth.frameworks.jax.reverse import Decision, attach, pure
from nonsmooth.frameworks.jax.severed import dependences
from nonsmooth.frameworks.jax.tangents import JaxTangents
from nonsmooth.frameworks.jax.tree import same_content
from nonsmooth.frameworks.replay.run import Run
from nonsmooth.program import Program, Step

__all__ = ["JaxRun", "Trail", "replay"]


@dataclass(frozen=True)
class Trail:
    """What a run has met and decided: enough to do its steps again."""

    program: Program
    env: Mapping[int, Any]
    decisions: Mapping[int, Decision]
    masks: Mapping[int, Any]

    def pure(self, bumped: Sequence[int] = ()) -> Callable[..., Any]:
        """Give the program as a pure function under the rules decided; see `reverse.pure`."""
        still = {v: a for v, a in self.env.items() if not self.program.values[v].depends_on_point}
        return pure(self.program, still, self.decisions, self.masks, bumped)


class JaxRun(Run):
    """One run of a program over arrays of jax."""

    xp = jnp

    def __init__(
        self,
        program: Program,
        env: dict[int, Any],
        *,
        graph: bool = False,
        opened: Iterator[Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(program, env, **options)
        self._graph, self._waiting = graph, opened
        self._idle = dependences(program).idle

    def _special(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run a step that is not smooth; to one that serves no result only an observer looks."""
        if not self.observe and step.index in self._idle:
            return step.target(*args, **kwargs)
        with np.errstate(all="ignore"):  # jax says nothing of infinities and nan
            return super()._special(step, args, kwargs)

    def same(self, outcome: Any, recorded: Any) -> bool:
        """Compare what Python sees with what it saw at capture."""
        return same_content(outcome, recorded)

    def keeps(self) -> bool:
        """Keep every value: the second pass starts from those that do not move."""
        return True

    def detached(self, array: Any) -> Any:
        """Cut an array off from what is differentiated."""
        return lax.stop_gradient(array) if self._graph else array

    def call_of(self, operands: tuple[Any, ...], attributes: Mapping[str, Any], native: Any) -> Call:
        """Make the call that a record reads."""
        return call_of(tuple(map(self.detached, operands)), attributes, self.detached(native))

    def opened(
        self, step: Step, operation: Nonsmooth, call: Call, operands: tuple[Any, ...], native: Any, tol: float
    ) -> tuple[Any, CutCall]:
        """Give the native value the derivative of the first selection, plus what the blocks of active kinks add to it."""
        rules, blocks = operation.cut(call, tol)
        self.ruled[step.index] = operation, call, rules
        cut = CutCall(step, call, rules, blocks, [], [], [])
        operands = operands if self._graph else call.operands
        linear = jnp.reshape(operation.push(call, rules, operands, tol), (-1,)) if self._graph else None
        for block in blocks:
            u = self.xp.zeros(block.places.shape, dtype=native.dtype) if self._waiting is None else next(self._waiting)
            cut.outputs.append(u)
            if linear is not None:
                linear = linear.at[jnp.asarray(block.places).reshape(-1)].add(u.reshape(-1))
            cut.jumps.append(block.jumps(operands))
            cut.arguments.append(None if block.arguments is None else block.arguments(operands))
        if linear is None:
            return native, cut
        return attach(lax.stop_gradient(native), jnp.reshape(linear, native.shape).astype(native.dtype)), cut

    def trail(self) -> Trail:
        """Keep what was decided."""
        decisions = {k: Decision(call, rules) for k, (_, call, rules) in self.ruled.items()}
        for index, route in self.guarded_by.items():
            decisions[index] = Decision(route=route)
        return Trail(self.program, self.env, decisions, self.masks)


class HostRun(JaxRun):
    """A run over values whose kinks are found by numpy."""

    xp = host

    def detached(self, array: Any) -> Any:
        """Give an array to numpy."""
        return np.asarray(array) if isinstance(array, jax.Array) else array

    def call_of(self, operands: tuple[Any, ...], attributes: Mapping[str, Any], native: Any) -> Call:
        """Make the call that a record reads."""
        return Call(host, tuple(map(self.detached, operands)), attributes, self.detached(native))


class HostTangents(JaxTangents):
    """Tangents that are handed to numpy: those of the operands of a call, and of what a comparison compares."""

    def operands(self, step: Step, operands: Sequence[Any], k: int) -> tuple[Any, ...]:
        """Give the tangents of the operands of a step, zeros where there is none."""
        return tuple(np.asarray(t) for t in super().operands(step, operands, k))

    def difference(self, args: Sequence[Any], k: int) -> Any:
        """Give the tangent of a - b for the first two arguments of a comparison."""
        return np.asarray(super().difference(args, k))


def by_host(program: Program) -> bool:
    """Tell whether numpy can decide: it does not know the short types of jax for real numbers."""
    return all(v.dtype in _HOST_TYPES for v in program.values if v.differentiable)


_HOST_TYPES = frozenset("float16 float32 float64 complex64 complex128".split())


def environment(program: Program, leaves: Sequence[Any], items: Sequence[Any]) -> dict[int, Any]:
    """Put the values in place from which a run starts."""
    env: dict[int, Any] = dict(zip(program.inputs, leaves, strict=True))
    env.update(zip(program.data, items, strict=True))
    env.update(program.constants)
    return env


def replay(
    program: Program,
    leaves: list[Any],
    items: list[Any],
    *,
    select: Selector | None = None,
    observe: bool = False,
    directions: Sequence[Callable[[], list[Any]]] | None = None,
    deciding: int = 1,
    wide: bool = False,
    cut: float | None = None,
) -> Evaluation:
    """Run the steps of a program on given leaves, checking every guard; with `directions`, tangents can be asked for.

    Raises:
        StaleProgram: a guard or a shape differs from the captured one.
    """
    env = environment(program, leaves, items)
    run_type, tangents_type = (HostRun, HostTangents) if by_host(program) else (JaxRun, JaxTangents)
    tangents = None if directions is None else tangents_type(program, env, directions, deciding, wide)
    run = run_type(program, env, select=select, observe=observe, tangents=tangents, cut_at=cut)
    evaluation = run.evaluate(leaves)
    evaluation.trail = run.trail()
    return evaluation
