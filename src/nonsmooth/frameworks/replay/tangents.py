"""Tangents: what the values of a run do along directions, computed when they are asked for.

With v_1 .. v_m directions at the point, the tangent of a value u along v_k is its one-sided derivative under the rules
by which the kinks before it were decided: the chain rule of directional derivatives. The framework pushes them
through smooth steps, the records of the dictionary through kinks. A program without active kinks asks for none.

Beside each tangent goes its *scale*: a bound (estimated with random signs) of the size of the terms that it was summed
from. Rounding is relative to the scale: a tangent of 1e-17 that is left of terms of size 1 is no margin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from nonsmooth.dictionary import Call, Kind, Nonsmooth, Switch
from nonsmooth.dictionary.operation import Array, device_of
from nonsmooth.frameworks.replay.arguments import refs_of
from nonsmooth.frameworks.replay.arrays import is_floating, is_real_floating, size
from nonsmooth.frameworks.replay.forward import Pushed, sum_tangents
from nonsmooth.frameworks.replay.plan import moving_values
from nonsmooth.program import Program, Ref, Step

__all__ = ["Tangents", "rewrites"]

Point = list[Array]


def rewrites(program: Program) -> bool:
    """Tell whether the program changes values in place that other steps read, so that tangents cannot wait."""
    for step in program.steps:
        for value in step.mutates:
            readers = program.uses.get(value, ())
            if program.values[value].differentiable or any(value not in s.mutates for s in readers):
                return True
    return False


class Tangents(ABC):
    """The tangents of one run along directions, computed when asked for, from the values of the run, which are kept.

    A framework says how they are pushed through a smooth step. One that serves programs which write in place (not
    `late`) carries them beside the values instead.
    """

    xp: Any
    """The namespace of the arrays."""

    def __init__(
        self,
        program: Program,
        env: dict[int, Any],
        directions: Sequence[Callable[[], Point]],
        deciding: int,
        wide: bool,
    ) -> None:
        self.program, self.env, self.count, self.deciding = program, env, len(directions), deciding
        self.wide = wide
        self._cast: dict[int, tuple[Any, Array]] = {}
        self.late, self._directions = not rewrites(program), list(directions)
        self._started: set[int] = set()
        self.known: dict[tuple[int, int], Array | None] = {}
        self.scales: dict[tuple[int, int], float] = {}
        self._moving = moving_values(program)
        self.decided: dict[int, tuple[Nonsmooth, Call, Mapping[str, Any]]] = {}
        self.noise = self.generator()
        self.steps = 0
        if not self.late:
            for k in range(self.count):
                self._start(k)

    # --- what a framework does in its own way -------------------------------------------------------------------------

    @abstractmethod
    def push_forward(
        self, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Array], known: Sequence[bool], lost: bool
    ) -> Pushed:
        """Give the tangents of the results of a step where it is smooth.

        `known` tells which results carry a derivative, `lost` that the first one moves with the point, so that no
        tangent at all means no derivative (`NoDerivative`).
        """

    def shortcut(
        self, step: Step, read: Mapping[int, Any], tangents: Mapping[int, Array], scales: Mapping[int, float]
    ) -> tuple[Pushed, float | None] | None:
        """Push tangents through a step whose derivative is written down; a scale None is that of what it reads."""
        return sum_tangents(self.xp, step, read, tangents, scales)

    def started(self, value: int, tangent: Array) -> Array:
        """Give a direction the type of the input that it moves."""
        return self.xp.astype(tangent, getattr(self.xp, self.program.values[value].dtype))

    def widened(self, array: Array) -> Array:
        """Give an array in double precision, where the framework has it."""
        return array

    def generator(self) -> Any:
        """Make the generator of the numbers that scales are estimated with."""
        return np.random.default_rng(0)

    def drawn(self, like: Array, scale: float) -> Array:
        """Draw numbers in [-scale, scale], by a generator of its own."""
        uniform = scale * (2 * self.noise.random(tuple(like.shape), dtype=np.float32) - 1)
        return self.xp.astype(self.xp.asarray(uniform, device=device_of(like)), like.dtype)

    def size(self, array: Array | None) -> float:
        """Give the largest absolute entry."""
        return size(self.xp, array)

    def largest(self, sizes: Iterable[float]) -> float:
        """Give the largest of sizes; 0 if there is none."""
        return max(sizes, default=0.0)

    def quiet(self) -> AbstractContextManager[Any]:
        """Give the context in which the framework records no gradients."""
        return nullcontext()

    # --- the chain rule -----------------------------------------------------------------------------------------------

    def _start(self, k: int) -> None:
        """Set out along the k-th direction."""
        self._started.add(k)
        for value, tangent in zip(self.program.inputs, self._directions[k](), strict=True):
            self._set(value, k, self.started(value, tangent), self.size(tangent))

    def restart(self, directions: Sequence[Callable[[], Point]]) -> None:
        """Ask about other directions, the rules of the kinks staying as they are: for tangents on demand only."""
        assert self.late
        self.count, self._directions = len(directions), list(directions)
        for known in (self.known, self.scales, self._started):
            known.clear()

    def of(self, value: int, k: int) -> Array | None:
        """Give the tangent of a value along the k-th direction; None stands for zero."""
        if not self.program.values[value].depends_on_point:
            return self.known.get((value, k))  # in a program that writes in place it may have become one that moves
        if k not in self._started:
            self._start(k)
        if (value, k) not in self.known:
            self._pull(value, k)
        return self.known[value, k]

    def operands(self, step: Step, operands: Sequence[Array], k: int) -> tuple[Array, ...]:
        """Give the tangents of the operands of a step, zeros where there is none."""
        found = []
        for ref, operand in zip(step.operands, operands, strict=True):
            tangent = self.of(ref.value, k) if isinstance(ref, Ref) else None
            if tangent is None and is_floating(self.xp, operand):
                tangent = self.xp.zeros_like(operand)
                tangent = self.widened(tangent) if self.wide else tangent
            found.append(operand if tangent is None else tangent)
        return tuple(found)

    def scale(self, refs: Any, k: int) -> float:
        """Give the scale of what is computed from some values, along the k-th direction."""
        values = [r.value for r in refs_of(refs)]
        for value in values:
            self.of(value, k)
        return sum(self.scales.get((v, k), 0.0) for v in values)

    def difference(self, args: Sequence[Any], k: int) -> Array:
        """Give the tangent of a - b for the first two arguments of a comparison (of a, if it has but one)."""
        total: Array | None = None
        for place, argument in enumerate(args[:2]):
            tangent = self.of(argument.value, k) if isinstance(argument, Ref) else None
            if tangent is not None:
                tangent = -tangent if place else tangent
                total = tangent if total is None else total + tangent
        return self.xp.zeros((), dtype=self.xp.float32) if total is None else total

    def ask(self, step: Step, operands: Sequence[Array]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Give the functions by which a call asks for tangents and scale."""
        return lambda k: self.operands(step, operands, k), lambda k: self.scale(step.operands, k)

    def decide(self, step: Step, call: Call, rules: Mapping[str, Any]) -> None:
        """Keep the rules by which the kinks of a step were decided."""
        assert isinstance(step.operation, Nonsmooth)
        self.decided[step.index] = step.operation, call, rules

    def before(self, step: Step) -> Any:
        """Take what a step reads, before it runs."""
        return None

    def after(self, step: Step, read: Any) -> None:
        """Carry the tangents over a step that has run."""
        return None

    def _pull(self, value: int, k: int) -> None:
        """Compute the tangent of a value, and of everything that it comes from."""
        needed: set[int] = set()
        stack = [value]
        while stack:
            current = stack.pop()
            step = self.program.producer.get(current)
            if (current, k) in self.known or step is None or step.index in needed:
                continue
            needed.add(step.index)
            stack += [
                r.value
                for r in refs_of((step.args, dict(step.kwargs)))
                if self.program.values[r.value].depends_on_point and (r.value, k) not in self.known
            ]
        for index in sorted(needed):
            self._push(self.program.steps[index], k, self.env)
        self.known.setdefault((value, k), None)

    def _push(self, step: Step, k: int, read: Mapping[int, Any]) -> None:
        """Push tangents through one step: those of what moves, for 0 times the slope of a square root at 0 is no number.

        Between its jumps what is piecewise constant stands still, so that no slope counts; the jumps are met as such.
        """
        refs = [r for r in refs_of((step.args, dict(step.kwargs))) if r.value in self._moving]
        tangents = {r.value: t for r in refs if (t := self.known.get((r.value, k))) is not None}
        scale = self.largest(self.scales.get((v, k), 0.0) for v in tangents)
        self.steps += bool(tangents)
        if not tangents:
            outputs: list[Array | None] = [None] * len(step.results)
        elif step.index in self.decided:
            outputs, scale = self._decided(step, k, scale)
        else:
            outputs, scale = self._smooth(
                step, k, Widened(read, self._cast, self.widened) if self.wide else read, tangents, scale
            )
        self._store(step, k, outputs, scale, tangents)

    def _store(
        self, step: Step, k: int, outputs: Sequence[Array | None], scale: float, tangents: Mapping[int, Any]
    ) -> None:
        """Write down the tangents of the results of a step."""
        for value, tangent in zip(step.results, outputs, strict=True):
            if value is not None:
                self._set(value, k, tangent, scale)

    def _decided(self, step: Step, k: int, scale: float) -> tuple[list[Array | None], float]:
        """Push tangents through a step with active kinks, by the rules that decided them."""
        operation, call, rules = self.decided[step.index]
        with self.quiet():
            assert call.tangents is not None
            tangent = operation.push(call, rules, call.tangents(k))
            slopes = operation.slopes_of(call) if isinstance(operation, Switch) else None
            if slopes is not None:
                scale = max(map(abs, slopes)) * self.scale(step.operands, k)
            elif operation.kind is not Kind.ORDER:
                draws = tuple(
                    self.drawn(t, self.scale(ref, k)) if is_real_floating(self.xp, t) else t
                    for t, ref in zip(call.tangents(k), step.operands, strict=True)
                )
                scale = self.largest((self.size(tangent), 2 * self.size(operation.push(call, rules, draws))))
        return [tangent, *(None for _ in step.results[1:])], scale

    def _smooth(
        self, step: Step, k: int, read: Mapping[int, Any], tangents: Mapping[int, Array], scale: float
    ) -> tuple[list[Array | None], float]:
        """Push tangents through a step where it is smooth."""
        scales = {v: self.scales.get((v, k), 0.0) for v in tangents}
        carried = self.shortcut(step, read, tangents, scales)
        if carried is not None:
            outputs, gain = carried
            return outputs, gain if gain is not None else scale
        known = [value is not None and self.program.values[value].differentiable for value in step.results]
        first = step.results[0]
        lost = first is not None and first in self._moving
        outputs = self.push_forward(step, read, tangents, known, lost)
        if step.operation.kind is Kind.INDEX:
            return outputs, scale
        draws = {v: self.drawn(t, scales[v]) for v, t in tangents.items()}
        spread = self.largest(self.size(t) for t in self.push_forward(step, read, draws, known, False) if t is not None)
        return outputs, self.largest((*(self.size(t) for t in outputs if t is not None), 2 * spread))

    def _set(self, value: int, k: int, tangent: Array | None, scale: float) -> None:
        """Write down the tangent of a value."""
        if tangent is not None and self.wide:
            tangent = self.widened(tangent)
        self.known[value, k] = tangent
        self.scales[value, k] = scale if tangent is not None else 0.0


class Widened(Mapping[int, Any]):
    """The values of a run in double precision, each cast when it is read."""

    def __init__(
        self, read: Mapping[int, Any], known: dict[int, tuple[Any, Array]], widen: Callable[[Array], Array]
    ) -> None:
        self._read, self._known, self._widen = read, known, widen

    def __getitem__(self, value: int) -> Any:
        """Give a value in double precision."""
        found = self._read[value]
        known = self._known.get(value)
        if known is None or known[0] is not found:
            known = self._known[value] = found, self._widen(found)
        return known[1]

    def __iter__(self) -> Iterator[int]:
        """Walk the values."""
        return iter(self._read)

    def __len__(self) -> int:
        """Count the values."""
        return len(self._read)
