"""The common case of a subgradient, compiled: values and what they meet in one call, the gradient in another.

The first call runs the program and says whether any kink is active, and whether anything stands in the way of a
certificate (a tie of a `where`, a singular point, a near miss in double precision). The second one sweeps back: by
jax's own rules where no kink is active, else under the rules of a direction, whose tangents it carries and whose margins
it returns. What is not plain (guards, severed dependences, strong zeros, users' own derivatives) is left to a run over
values, which decides it slowly and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
from jax import numpy as jnp
from jax.interpreters import partial_eval

from nonsmooth.dictionary import Call, Kind, Nonsmooth, Select, Singularity
from nonsmooth.frameworks.framework import ROUNDING, NonsmoothCall, Quick
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.jax.run import JaxRun, environment
from nonsmooth.frameworks.jax.severed import dependences
from nonsmooth.frameworks.jax.tangents import JaxTangents
from nonsmooth.frameworks.jax.tree import flatten, unflatten
from nonsmooth.frameworks.replay.arguments import fill
from nonsmooth.frameworks.replay.near import SMALL
from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["TracedRun", "quick"]


def quick(
    program: Program, x: Any, data: list[Any], follow: Selector, directions: Sequence[Callable[[], Any]]
) -> Quick | None:
    """Give a subgradient of a plain program with what its certificate says; None where a run over values has to decide.

    `follow` is the selection that lets a direction decide.
    """
    if "_jax_compiled" not in program.__dict__:
        program.__dict__["_jax_compiled"] = _Compiled(program, follow) if _is_plain(program) else None
    known: _Compiled | None = program.__dict__["_jax_compiled"]
    return None if known is None else known(flatten(x)[0], data, directions)


def _is_plain(program: Program) -> bool:
    """Tell a program of which a certificate needs nothing but its kinks."""
    slice_ = dependences(program)
    opaque = any(s.operation.kind is Kind.OPAQUE for s in program.steps)
    return not (program.guards or opaque or slice_.found or slice_.discrete or plan_of(program).unselected)


class TracedRun(JaxRun):
    """A run over tracers: every kink is taken for active, nothing is decided by values."""

    @property
    def judges(self) -> bool:
        """Look for nothing that needs values."""
        return False

    def masks_of(self, operation: Nonsmooth, call: Call, tol: float) -> Mapping[str, Any] | None:
        """Give the masks, which may be empty; a `where` keeps its branch, since a tie of it stops everything."""
        return None if isinstance(operation, Select) else operation.active(call, tol)


class _Stored(TracedRun):
    """A run over tracers whose values are known already."""

    def __init__(self, stored: Mapping[int, Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stored = stored

    def step(self, step: Step) -> None:
        """Look the values of a step up instead of computing them."""
        found = tuple(self._stored[v] for v in step.results if v is not None)
        super().step(replace(step, target=lambda *args, **kwargs: found[0] if step.single else list(found), forced=()))


class _Tangents(JaxTangents):
    """Tangents over tracers: scales are numbers of jax, and drawn without a generator."""

    numbers = jnp

    def size(self, array: Any) -> Any:
        """Give the largest absolute entry."""
        return jnp.max(jnp.abs(array)) if array is not None and array.size else jnp.zeros(())

    def largest(self, sizes: Iterable[Any]) -> Any:
        """Give the largest of sizes; 0 if there is none."""
        total = jnp.zeros(())
        for size in sizes:
            total = jnp.maximum(total, size)
        return total

    def number(self, array: Any) -> Any:
        """Leave a number to jax."""
        return array

    def drawn(self, like: Any, scale: Any) -> Any:
        """Spread numbers over [-scale, scale], the next ones in a row."""
        self.steps += 1
        phase = jnp.arange(like.size, dtype=like.dtype) * 2.399963 + 1.7 * self.steps
        return scale * jnp.cos(phase).reshape(like.shape).astype(like.dtype)


class _Compiled:
    """The calls of one program: forward and backward, for points without active kinks and with some."""

    def __init__(self, program: Program, follow: Selector) -> None:
        self.program, self._follow = program, follow
        inside = {*program.inputs, *program.data, *program.constants}
        self._inner = [v for s in program.steps for v in s.results if v is not None and v not in inside]
        self._met = False
        self._kinds: list[Kind] = []

    def __call__(self, leaves: list[Any], items: list[Any], directions: Sequence[Callable[[], Any]]) -> Quick | None:
        """Give the subgradient, or None; whether kinks are met is guessed from the call before."""
        forward, needed = (self._with_kinks if self._met else self._without)[:2]
        result, stored, clear, active = forward(leaves, items)
        clear, active = jax.device_get((clear, active))
        if not clear:
            return None
        if active and not self._met:
            self._met = True
            return self(leaves, items, directions)
        self._met = bool(active)
        if not active and needed is self._without[1]:
            gradient = self._without[2](leaves, items, stored)
            return self._given(result, gradient, 0, float("inf"), 0)
        for place, direction in enumerate(directions):
            gradient, judged = self._with_kinks[2](leaves, items, stored, flatten(direction())[0])
            decided = self._judged(jax.device_get(judged))
            if decided is not None:
                return self._given(result, gradient, *decided, place + 1 if active else 0)
        return None

    def _given(self, result: Any, gradient: list[Any], count: int, margin: float, draw: int) -> Quick | None:
        """Give a result, unless its gradient is not finite."""
        if not all(bool(jnp.all(jnp.isfinite(g))) for g in gradient):
            return None
        return Quick(flatten(result)[0][0], unflatten(gradient, self.program.structure), count, margin, draw)

    def _judged(self, judged: list[Any]) -> tuple[int, float] | None:
        """Count the kinks and take their margin, as `kinks.resolution` does; None where a draw does not decide them all."""
        count, lost, margin = 0, 0, float("inf")
        for kind, (active, near, smallest, least, scale, rounding) in zip(self._kinds, judged, strict=True):
            count += int(active)
            if not active:
                continue
            if not scale or float(smallest) > rounding * float(scale):
                margin = min(margin, float(smallest) / float(scale) if scale else float("inf"))
                continue
            if not smallest > 0 or kind not in (Kind.SWITCH, Kind.ORDER):
                return None
            lost += int(near)
            margin = min(margin, float(smallest) / float(scale), float(least) / float(scale))
        return None if lost and count > 1 else (count, margin)

    @cached_property
    def _without(self) -> tuple[Callable[..., Any], list[int], Callable[..., Any]]:
        """Compile the calls for points without active kinks: values, what is kept of them, the gradient."""

        def backward(leaves: list[Any], items: list[Any], stored: Mapping[int, Any]) -> list[Any]:
            return self._swept(leaves, self._filled(leaves, items, stored), {})

        needed = self._needed(backward)
        return jax.jit(partial(self._forward, needed)), needed, jax.jit(backward)

    @cached_property
    def _with_kinks(self) -> tuple[Callable[..., Any], list[int], Callable[..., Any]]:
        """Compile the calls for points with active kinks, which a direction decides."""

        def backward(
            leaves: list[Any], items: list[Any], stored: Mapping[int, Any], direction: list[Any]
        ) -> tuple[list[Any], list[Any]]:
            filled = self._filled(leaves, items, stored)
            env = environment(self.program, leaves, items)
            tangents = _Tangents(self.program, env, [lambda: direction], 1, False)
            run = _Stored(filled, self.program, env, select=self._follow, tangents=tangents)
            run.evaluate(leaves)
            judged = [found for met in run.decided for found in self._margins(met)]
            self._kinds = [kind for kind, _ in judged]
            return self._swept(leaves, env, run.ruled), [numbers for _, numbers in judged]

        shapes = [jax.ShapeDtypeStruct(self.program.values[v].shape, self._type(v)) for v in self.program.inputs]
        needed = self._needed(backward, shapes)
        return jax.jit(partial(self._forward, needed)), needed, jax.jit(backward)

    def _type(self, value: int) -> Any:
        """Give the type of a value."""
        return jnp.dtype(self.program.values[value].dtype)

    def _forward(
        self, needed: list[int], leaves: list[Any], items: list[Any]
    ) -> tuple[Any, Mapping[int, Any], Any, Any]:
        """Run the program: its result, the values needed later, whether all is clear, and whether a kink is active."""
        env = environment(self.program, leaves, items)
        run = TracedRun(self.program, env, observe=True)
        result = run.evaluate(leaves).result
        clear, active = jnp.all(jnp.isfinite(flatten(result)[0][0])), jnp.zeros((), dtype=bool)
        idle = dependences(self.program).idle
        for met in run.calls:
            operation, call = met.step.operation, met.call
            if met.step.index in idle:
                continue
            if isinstance(operation, Singularity):
                for margin in operation.margins(call).values():
                    clear &= jnp.all(margin > 0)
            elif isinstance(operation, Select):
                clear &= ~jnp.any(call.attributes["tie"])
            elif isinstance(operation, Nonsmooth):
                active |= jnp.any(jnp.stack([jnp.any(m) for m in operation.active(call).values()]))
                for margin in operation.margins(call).values() if call.result.dtype == jnp.float64 else ():
                    clear &= ~jnp.any((margin > 0) & (margin < SMALL))
        for index in run.plan.looked_at:
            a, b = fill(self.program.steps[index].args, env)[:2] if self._compares(index) else (0.0, 0.0)
            gap = jnp.abs(jnp.subtract(a, b))
            if gap.dtype == jnp.float64:
                clear &= ~jnp.any((gap > 0) & (gap < SMALL))
        return result, {v: env[v] for v in needed}, clear, active

    def _compares(self, index: int) -> bool:
        """Tell a step that compares two numbers."""
        step = self.program.steps[index]
        values = [self.program.values[r.value] for r in step.args if isinstance(r, Ref)]
        return len(step.args) == 2 and all(v.dtype.startswith("float") for v in values)

    def _filled(self, leaves: list[Any], items: list[Any], stored: Mapping[int, Any]) -> dict[int, Any]:
        """Put known values in place; the others are read by nobody, but for their shapes."""
        env = environment(self.program, leaves, items)
        for v in self._inner:
            env[v] = stored[v] if v in stored else jnp.zeros(self.program.values[v].shape, self._type(v))
        return env

    def _needed(self, backward: Callable[..., Any], direction: list[Any] | None = None) -> list[int]:
        """Find the values that a backward call reads."""
        values = self.program.values
        like = {v: jax.ShapeDtypeStruct(values[v].shape, self._type(v)) for v in self._inner}
        leaves, items = (
            [jax.ShapeDtypeStruct(values[v].shape, self._type(v)) for v in part]
            for part in (self.program.inputs, self.program.data)
        )
        closed = jax.make_jaxpr(backward)(leaves, items, like, *([direction] if direction is not None else []))
        _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
        start = len(leaves) + len(items)
        return [v for v, wanted in zip(sorted(like), used[start : start + len(like)], strict=True) if wanted]

    def _margins(self, met: NonsmoothCall) -> list[tuple[Kind, Any]]:
        """Measure the tangents of what decides the kinks of a step."""
        operation, call = met.step.operation, met.call
        assert isinstance(operation, Nonsmooth) and met.rules is not None
        assert call.tangents is not None and call.scale is not None
        tangents, scale = call.tangents(0), call.scale(0)
        rounding = ROUNDING * max(float(jnp.finfo(t.dtype).eps) for t in tangents if _real(t))
        found = []
        for moved in operation.arguments_along(call, met.rules, tangents).values():
            if not moved.size:
                continue
            active, near = moved < jnp.inf, moved <= rounding * scale
            least = jnp.min(jnp.where(near, jnp.inf, moved))
            found.append(
                (operation.kind, (jnp.sum(active), jnp.sum(near & active), jnp.min(moved), least, scale, rounding))
            )
        return found

    def _swept(self, leaves: list[Any], env: Mapping[int, Any], ruled: Mapping[int, Any]) -> list[Any]:
        """Sweep back from the result to the point, step by step, over values that are known."""
        (result,) = (r.value for r in references(self.program.result))
        gathered: dict[int, Any] = {result: jnp.ones_like(env[result])}
        for step in reversed(self.program.steps):
            back = {k: gathered.pop(v) for k, v in enumerate(step.results) if v is not None and v in gathered}
            if back:
                for value, gradient in _pulled(step, env, back, ruled.get(step.index)):
                    if self.program.values[value].differentiable:
                        gathered[value] = gathered[value] + gradient if value in gathered else gradient
        return [
            gathered[v] if v in gathered else jnp.zeros_like(t)
            for v, t in zip(self.program.inputs, leaves, strict=True)
        ]


def _pulled(step: Step, env: Mapping[int, Any], back: Mapping[int, Any], ruled: Any) -> Iterator[tuple[int, Any]]:
    """Pull cotangents of the results of a step back to what it reads."""
    if ruled is not None:
        operation, call, rules = ruled
        refs = [(k, r.value) for k, r in enumerate(step.operands) if isinstance(r, Ref) and _real(env[r.value])]

        def linear(*parts: Any) -> Any:
            operands = list(call.operands)
            for (k, _), part in zip(refs, parts, strict=True):
                operands[k] = part
            moved = operation.push(call, rules, tuple(operands))
            return [jnp.broadcast_to(moved, call.result.shape).astype(call.result.dtype)]

        function, wanted = linear, [0]
    else:
        refs = [(k, r.value) for k, r in enumerate(step.args) if isinstance(r, Ref) and _real(env[r.value])]
        wanted = list(back)

        def function(*parts: Any) -> Any:
            args = list(fill(step.args, env))
            for (k, _), part in zip(refs, parts, strict=True):
                args[k] = part
            output = step.target(*args, **fill(dict(step.kwargs), env))
            outputs = (output,) if step.single else output
            return [outputs[k] for k in wanted]

    if refs:
        _, pull = jax.vjp(function, *(env[v] for _, v in refs))
        yield from zip((v for _, v in refs), pull([back[k] for k in wanted]), strict=True)


def _real(array: Any) -> bool:
    """Tell an array that can carry a derivative."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))
