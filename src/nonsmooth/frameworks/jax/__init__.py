"""JAX: capture from the jaxpr, evaluation and differentiation by jax itself.

The whole contract of a framework is in one class, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import StaleProgram, UsageError
from nonsmooth.frameworks.framework import Evaluation, Quick, Select, Severed
from nonsmooth.frameworks.jax.capture import capture_function, trace_function
from nonsmooth.frameworks.jax.compiled import quick
from nonsmooth.frameworks.jax.linearise import LinearisedJax
from nonsmooth.frameworks.jax.own_backward import own_backward
from nonsmooth.frameworks.jax.proof import weighed_sum
from nonsmooth.frameworks.jax.run import replay
from nonsmooth.frameworks.jax.severed import dependences
from nonsmooth.frameworks.jax.shaped import shaped
from nonsmooth.frameworks.jax.smoothed import run_program, smoothed_max, smoothed_pieces
from nonsmooth.frameworks.jax.space import JaxSpace
from nonsmooth.frameworks.jax.stepwise import step_by_step
from nonsmooth.frameworks.jax.timing import JaxStopwatch
from nonsmooth.frameworks.jax.transform import selected
from nonsmooth.frameworks.jax.tree import (
    RandomState,
    check_data,
    check_point,
    concrete,
    copy_of,
    flatten,
    is_array,
    leaf_names,
    same_content,
    split_data,
    unflatten,
)
from nonsmooth.frameworks.one_framework import one_framework
from nonsmooth.frameworks.replay.contract import Contract
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.frameworks.replay.pieces import compared_values
from nonsmooth.program import Program

__all__ = ["JAX", "JaxFramework"]

CACHED_PIECES = 16
"""How many recaptured pieces a program remembers."""


class JaxFramework(JaxSpace, Contract):
    """JAX as `frameworks.framework.Framework` wants it."""

    name = "jax"
    traces = True
    relu = staticmethod(jax.nn.relu)
    shaped = staticmethod(shaped)
    step_by_step = staticmethod(step_by_step)
    run_program = staticmethod(run_program)
    smoothed_pieces = staticmethod(smoothed_pieces)
    smoothed_max = staticmethod(smoothed_max)
    leaf_names = staticmethod(leaf_names)
    own_backward = staticmethod(own_backward)
    check_point = staticmethod(check_point)
    copy_of = staticmethod(copy_of)
    random_generators = staticmethod(RandomState)
    stopwatch = staticmethod(JaxStopwatch)

    @property
    def version(self) -> str:
        """The version of jax."""
        return str(jax.__version__)

    @staticmethod
    def holds(leaf: Any) -> bool:
        """Tell an array of jax."""
        return isinstance(leaf, jax.Array)

    @staticmethod
    def preserved(leaves: Any) -> AbstractContextManager[Any]:
        """Put the contents of arrays back at the end: arrays of jax cannot change."""
        return nullcontext()

    @staticmethod
    def records_gradients() -> bool:
        """Tell whether the framework records gradients here and now: jax differentiates functions, always."""
        return True

    @staticmethod
    def rewrites(program: Program) -> bool:
        """Tell whether the program writes in place: no program of jax does."""
        return False

    def capture(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], **options: Any) -> Program:
        """Turn a function into a program near a point, with the proof of capture."""
        return capture_function(self, function, x, data, **options)

    def value_and_grad(
        self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], select: Select | None, has_aux: bool = False
    ) -> tuple[Any, Any]:
        """Give the value and the gradient of a function under a selection, by a transform that jax can trace."""
        weighed = function if select is None else selected(function, select)
        leaves, structure = flatten(x)
        for leaf in leaves:
            if not is_array(leaf) and not isinstance(leaf, float):
                raise UsageError(f"grad differentiates arrays; found a {type(leaf).__name__} in the point.")
        point = unflatten([jnp.asarray(t) for t in leaves], structure)
        with one_framework("jax", data):
            return jax.value_and_grad(weighed, has_aux=has_aux)(point, *data)

    @staticmethod
    def has_values(leaf: Any) -> bool:
        """Tell an array that has values from a shape alone."""
        return isinstance(leaf, jax.Array)

    def data_leaves(self, data: tuple[Any, ...]) -> list[Any]:
        """Give the arrays of the data, shapes alone among them."""
        return [t for t in check_data(data)[0] if is_array(t) or isinstance(t, jax.ShapeDtypeStruct)]

    def trace(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...]) -> Program:
        """Turn a function into a program from the shapes of point and data alone."""
        return trace_function(self, function, x, data)

    def evaluate(
        self,
        program: Program,
        x: Any,
        data: tuple[Any, ...],
        *,
        select: Select | None = None,
        observe: bool = False,
        directions: Sequence[Any] | None = None,
        deciding: int = 1,
        wide: bool = False,
        cut: float | None = None,
    ) -> Evaluation:
        """Evaluate a program at a point, recaptured if it is stale there, under a selection, along directions, or cut."""
        point, items = self._point(program, x), self._data(program, data)
        moving = None if directions is None else [partial(self._direction, program, v) for v in directions]
        options: dict[str, Any] = {"select": select, "observe": observe, "directions": moving, "deciding": deciding}
        options |= {"wide": wide, "cut": cut}
        own = program
        if program.options["forced"] and not all(map(same_content, point, program.options["at"])):
            own = unforced(program)
        for piece in [own, *program.__dict__.get("_jax_pieces", [])]:
            if not self._same_plain(piece, data):
                continue
            try:
                return replay(piece, point, items, **options)
            except StaleProgram:
                continue
        piece = capture_function(self, program.function, x, data, randomness=program.options["randomness"])
        known = program.__dict__.setdefault("_jax_pieces", [])
        known.insert(0, piece)
        del known[CACHED_PIECES:]
        return replay(piece, point, items, **options)

    def quick(
        self,
        program: Program,
        x: Any,
        data: tuple[Any, ...],
        follow: Select,
        directions: Sequence[Callable[[], Any]],
    ) -> Quick | None:
        """Give a certified subgradient by compiled calls, where the program and the point are plain."""
        if not self._same_plain(program, data) or program.options["forced"]:
            return None
        point = unflatten(self._point(program, x), program.structure)
        return quick(program, point, self._data(program, data), follow, directions)

    def linearise(self, program: Program, x: Any, data: tuple[Any, ...], tol: float = 0.0) -> LinearisedJax:
        """Cut a program at the kinks within some distance of a point."""
        evaluation = self.evaluate(program, x, data, directions=(), deciding=0, cut=tol)
        return LinearisedJax(self, x, evaluation, tol)

    def replay(self, program: Program, leaves: list[Any], items: list[Any], *, observe: bool = False) -> Evaluation:
        """Run a program as it is on given leaves."""
        return replay(program, leaves, items, observe=observe)

    @staticmethod
    def data_arrays(data: tuple[Any, ...]) -> list[Any]:
        """Give the arrays of the data."""
        return split_data(data)[0]

    def push(self, evaluation: Evaluation, k: int) -> Any:
        """Give the tangent of the result along the k-th direction, in the result's structure."""
        assert evaluation.program is not None
        leaves, structure = flatten(evaluation.program.result)
        values = flatten(evaluation.result)[0]
        found = [evaluation.tangents.of(r.value, k) for r in leaves]
        tangents = [jnp.zeros_like(u) if t is None else t for t, u in zip(found, values, strict=True)]
        return unflatten(tangents, structure)

    def force(
        self, program: Program, x: Any, data: tuple[Any, ...], outcomes: Mapping[tuple[int, int], int]
    ) -> Program:
        """Capture the function again with the outcomes of tied comparisons forced."""
        randomness = program.options["randomness"]
        known = program.options.get("traced")
        return capture_function(
            self, program.function, x, data, randomness=randomness, forced=dict(outcomes), known=known
        )

    def severed(self, program: Program, x: Any, data: tuple[Any, ...]) -> tuple[Severed, ...]:
        """List where the result depends on the point through what carries no derivative at this point."""
        return dependences(program).severed(self._point(program, x), self._data(program, data))

    @staticmethod
    def cancelled(program: Program) -> frozenset[int]:
        """Give the steps `stop_gradient` on which the result provably does not depend."""
        return frozenset(dependences(program).cancelled)

    def reached(self, program: Program) -> set[int]:
        """Give the steps on which the result depends."""
        return dependences(program).reached

    def pull(self, evaluation: Evaluation) -> Any:
        """Give the gradient of a scalar result with respect to the point."""
        self.scalar(evaluation)
        assert evaluation.program is not None
        function = evaluation.trail.pure()

        def value(leaves: list[Any]) -> Any:
            return jnp.reshape(flatten(function(leaves, [], [])[0])[0][0], ())

        return unflatten(jax.grad(value)(evaluation.leaves), evaluation.program.structure)

    def cotangents(self, evaluation: Evaluation, outputs: list[Any]) -> list[Any]:
        """Give the derivative of the (weighed sum of the) result with respect to outputs of steps."""
        numbers = {id(met.output): met.step.results[0] for met in evaluation.calls}
        bumped = [numbers[id(o)] for o in outputs]
        function = evaluation.trail.pure(tuple(dict.fromkeys(bumped)))

        def value(bumps: list[Any]) -> Any:
            return weighed_sum(function(evaluation.leaves, [], bumps)[0])

        places = {v: k for k, v in enumerate(dict.fromkeys(bumped))}
        zeros = [jnp.zeros_like(evaluation.trail.env[v]) for v in places]
        found = jax.grad(value)(zeros) if zeros else []
        return [found[places[v]] for v in bumped]

    def signature(self, x: Any, data: tuple[Any, ...]) -> Any:
        """Give what a program depends on beside values: structures, shapes, types, and data that are no arrays."""
        leaves, structure = flatten((x, tuple(data)))
        parts = [(tuple(t.shape), str(t.dtype)) if is_array(t) else repr(t) for t in leaves]
        return str(structure), tuple(parts)

    def compared(self, program: Program, x: Any, data: tuple[Any, ...], steps: frozenset[int]) -> dict[int, Any]:
        """Give |a - b| for the comparisons at some steps."""
        pairs = compared_values(program, self._point(program, x), self._data(program, data), steps)
        return {
            k: np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) for k, (a, b) in pairs.items()
        }

    def holds_at(
        self, program: Program, x: Any, data: tuple[Any, ...], directions: Sequence[Any], distance: float
    ) -> bool:
        """Tell whether the program, its guards unforced, is that of the function at x + t v_1 + t^2 v_2 + ..."""
        moved = self._along(program, self._point(program, x), directions, distance)
        items = self._data(program, data)
        try:
            replay(unforced(program), moved, items)
        except StaleProgram:
            return False
        return True

    def _point(self, program: Program, x: Any) -> list[Any]:
        """Check that a point fits a program."""
        leaves, structure = flatten(x)
        concrete(x)
        if not all(map(is_array, leaves)):
            check_point(x)
        if structure != program.structure:
            raise UsageError(
                f"the program was captured for a point of structure {program.structure}; found {structure}."
            )
        return _fitting(program, leaves, program.inputs)

    def _data(self, program: Program, data: tuple[Any, ...]) -> list[Any]:
        """Check that data fit a program."""
        concrete(data, "the data")
        items = split_data(data)[0]
        if len(items) != len(program.data):
            raise UsageError(f"the program was captured with {len(program.data)} array(s) of data; found {len(items)}.")
        return _fitting(program, items, program.data)

    @staticmethod
    def _same_plain(program: Program, data: tuple[Any, ...]) -> bool:
        """Tell whether a program was captured with the same data, as far as they are no arrays."""
        structure, items = program.options["plain"]
        plain = split_data(data)[1]
        return bool(structure == check_data(data)[1]) and all(map(same_content, items, plain))


def _fitting(program: Program, arrays: list[Any], values: tuple[int, ...]) -> list[Any]:
    """Check shapes and types against those of the capture."""
    arrays = [jnp.asarray(a) for a in arrays]  # those of numpy, too, by jax's own types
    for array, value in zip(arrays, values, strict=True):
        known = program.values[value]
        if tuple(array.shape) != known.shape or str(array.dtype) != known.dtype:
            raise UsageError(
                f"the program was captured with {known.name} of shape {known.shape} and type {known.dtype}; found shape "
                f"{tuple(array.shape)} and type {array.dtype}. A program serves any values of the same shapes; capture "
                "again for others."
            )
    return arrays


JAX = JaxFramework()
"""The one instance."""
