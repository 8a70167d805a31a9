"""PyTorch: capture by a tape at torch's pre-dispatch key, evaluation and differentiation by torch itself.

The whole contract of a framework is in one class, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from nonsmooth.dictionary import Kind
from nonsmooth.errors import StaleProgram, UsageError
from nonsmooth.frameworks.framework import Evaluation, Select, Severed
from nonsmooth.frameworks.replay.contract import Contract
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.frameworks.replay.pieces import compared_values
from nonsmooth.frameworks.replay.tangents import rewrites
from nonsmooth.frameworks.torch.capture import capture_function, trace_function
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.interception import torchs_own_slopes
from nonsmooth.frameworks.torch.linearise import LinearisedTorch
from nonsmooth.frameworks.torch.objective import make_objective
from nonsmooth.frameworks.torch.own_backward import own_backward
from nonsmooth.frameworks.torch.protection import preserved
from nonsmooth.frameworks.torch.severed import TorchDependences
from nonsmooth.frameworks.torch.shaped import shaped
from nonsmooth.frameworks.torch.smoothed import run_program, smoothed_max, smoothed_pieces
from nonsmooth.frameworks.torch.space import TorchSpace
from nonsmooth.frameworks.torch.stepwise import step_by_step
from nonsmooth.frameworks.torch.timing import TorchStopwatch
from nonsmooth.frameworks.torch.tree import (
    RandomState,
    check_data,
    check_point,
    copy_of,
    flatten,
    laid_out,
    leaf_names,
    random_state,
    same_content,
    unflatten,
)
from nonsmooth.program import Program

__all__ = ["TORCH", "TorchFramework"]

CACHED_PIECES = 16
"""How many recaptured pieces a program remembers."""


class TorchFramework(TorchSpace, Contract):
    """PyTorch as `frameworks.framework.Framework` wants it."""

    name = "torch"
    relu = staticmethod(torch.relu)
    traces = False
    objective = staticmethod(make_objective)
    rewrites = staticmethod(rewrites)
    check_point = staticmethod(check_point)
    copy_of = staticmethod(copy_of)
    preserved = staticmethod(preserved)
    random_generators = staticmethod(RandomState)
    stopwatch = staticmethod(TorchStopwatch)
    records_gradients = staticmethod(torch.is_grad_enabled)
    shaped = staticmethod(shaped)
    step_by_step = staticmethod(step_by_step)
    run_program = staticmethod(run_program)
    smoothed_pieces = staticmethod(smoothed_pieces)
    smoothed_max = staticmethod(smoothed_max)
    leaf_names = staticmethod(leaf_names)
    own_backward = staticmethod(own_backward)

    @staticmethod
    def holds(leaf: Any) -> bool:
        """Tell a tensor."""
        return isinstance(leaf, torch.Tensor)

    @staticmethod
    def quick(program: Program, x: Any, data: tuple[Any, ...], follow: Any, directions: Any) -> None:
        """Leave every subgradient to an evaluation."""
        return None

    @staticmethod
    def cancelled(program: Program) -> frozenset[int]:
        """Give no step: of detached values nothing is proved in torch."""
        return frozenset()

    @property
    def version(self) -> str:
        """The version of torch, without its build."""
        return str(torch.__version__).split("+")[0]

    def eager(self, select: Select | None) -> AbstractContextManager[Any]:
        """Give the mode that applies a selection around eager training."""
        from nonsmooth.frameworks.torch.eager import AtKinksMode

        return AtKinksMode(select)

    def capture(self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], **options: Any) -> Program:
        """Turn a function into a program near a point, with the proof of capture."""
        with torchs_own_slopes():
            return capture_function(self, function, x, data, **options)

    def value_and_grad(
        self, function: Callable[..., Any], x: Any, data: tuple[Any, ...], select: Select | None, has_aux: bool = False
    ) -> tuple[Any, Any]:
        """Give the value and the gradient of a function under a selection, captured for this one call."""
        evaluation = self.evaluate(self.capture(function, x, data), x, data, select=select)
        (value, aux) = evaluation.result if has_aux else (evaluation.result, None)
        evaluation = replace(evaluation, result=value)
        gradient, number = self.pull(evaluation), self.scalar(evaluation).detach()
        leaves, structure = flatten(aux)
        return (number, unflatten([t.detach() for t in leaves], structure)) if has_aux else number, gradient

    @staticmethod
    def has_values(leaf: Any) -> bool:
        """Tell an array that has values from a shape alone."""
        return isinstance(leaf, torch.Tensor) and not leaf.is_meta

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
        options: Any = {"select": select, "observe": observe, "directions": moving, "deciding": deciding, "wide": wide}
        options["cut"] = cut
        plain = _plain(data)
        random = random_state() if _draws(program) else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), torchs_own_slopes(), random:
            own = program
            if program.options["forced"] and not all(map(same_content, point, program.options["at"])):
                own = unforced(program)
            for piece in [own, *program.__dict__.get("_torch_pieces", [])]:
                if plain != [] and not _same_plain(piece, plain):
                    continue
                leaves = [_leaf(t) for t in point]
                try:
                    evaluation = replay(piece, leaves, items, **options)
                except StaleProgram:
                    continue
                if not _is_finite(evaluation.result):
                    check_point(x)
                return evaluation
            piece = capture_function(self, program.function, x, data, randomness=program.options["randomness"])
            known = program.__dict__.setdefault("_torch_pieces", [])
            known.insert(0, piece)
            del known[CACHED_PIECES:]
            return replay(piece, [_leaf(t) for t in point], items, **options)

    def linearise(self, program: Program, x: Any, data: tuple[Any, ...], tol: float = 0.0) -> LinearisedTorch:
        """Cut a program at the kinks within some distance of a point."""

        def cut(direction: Any = None) -> Evaluation:
            directions = () if direction is None else (direction,)
            return self.evaluate(program, x, data, directions=directions, deciding=0, cut=tol)

        return LinearisedTorch(self, x, cut)

    def push(self, evaluation: Evaluation, k: int) -> Any:
        """Give the tangent of the result along the k-th direction, in the result's structure."""
        assert evaluation.program is not None
        leaves, structure = flatten(evaluation.program.result)
        values = flatten(evaluation.result)[0]
        with torch.inference_mode(False), torchs_own_slopes():
            found = [evaluation.tangents.of(r.value, k) for r in leaves]
        tangents = [torch.zeros_like(u.detach()) if t is None else t for t, u in zip(found, values, strict=True)]
        return unflatten(tangents, structure)

    def force(
        self, program: Program, x: Any, data: tuple[Any, ...], outcomes: Mapping[tuple[int, int], int]
    ) -> Program:
        """Capture the function again with the outcomes of tied comparisons forced."""
        randomness = program.options["randomness"]
        with torchs_own_slopes():
            return capture_function(self, program.function, x, data, randomness=randomness, forced=dict(outcomes))

    def severed(self, program: Program, x: Any, data: tuple[Any, ...]) -> tuple[Severed, ...]:
        """List where the result depends on the point through what carries no derivative at this point."""
        with torch.inference_mode(False), torchs_own_slopes(), random_state() if _draws(program) else nullcontext():
            return TorchDependences.of(program).severed(self._point(program, x), self._data(program, data))

    def reached(self, program: Program) -> set[int]:
        """Give the steps on which the result depends."""
        return TorchDependences.of(program).reached

    def replay(
        self, program: Program, leaves: list[torch.Tensor], items: list[torch.Tensor], *, observe: bool = False
    ) -> Evaluation:
        """Run the steps of a program on given leaves, which carry gradients if the run is observed."""
        with torch.set_grad_enabled(observe):
            return replay(program, [t.detach().requires_grad_(observe) for t in leaves], items, observe=observe)

    def data_arrays(self, data: tuple[Any, ...]) -> list[torch.Tensor]:
        """Give the tensors among the data."""
        return [t for t in check_data(data)[0] if isinstance(t, torch.Tensor)]

    data_leaves = data_arrays

    def _point(self, program: Program, x: Any) -> list[torch.Tensor]:
        """Check that a point fits a program."""
        leaves, structure = flatten(x)
        if not all(isinstance(t, torch.Tensor) for t in leaves):
            check_point(x)
        if structure != program.structure:
            raise UsageError(
                f"the program was captured for a point of structure {program.structure}; found {structure}."
            )
        return _fitting(program, leaves, program.inputs, 0)

    def _data(self, program: Program, data: tuple[Any, ...]) -> list[torch.Tensor]:
        """Check that data fit a program."""
        items = self.data_arrays(data)
        if len(items) != len(program.data):
            raise UsageError(
                f"the program was captured with {len(program.data)} tensor(s) of data; found {len(items)}."
            )
        return [t.detach() for t in _fitting(program, items, program.data, 1)]

    def pull(self, evaluation: Evaluation, outputs: tuple[Any, ...] = ()) -> Any:
        """Give the gradient of a scalar result with respect to the point (and to outputs of steps)."""
        result = self.scalar(evaluation)
        targets = [*evaluation.leaves, *outputs]
        found: tuple[torch.Tensor | None, ...] = (None,) * len(targets)
        if result.requires_grad:
            found = torch.autograd.grad(result, targets, allow_unused=True)
        whole = [torch.zeros_like(t) if g is None else g for g, t in zip(found, targets, strict=True)]
        assert evaluation.program is not None
        n = len(evaluation.leaves)
        gradient = unflatten(whole[:n], evaluation.program.structure)
        return (gradient, tuple(whole[n:])) if outputs else gradient

    def signature(self, x: Any, data: tuple[Any, ...]) -> Any:
        """Give what a program depends on beside values: structures, shapes, types, devices, and data that are no tensors."""
        leaves, structure = flatten((x, tuple(data)))
        parts = [(tuple(t.shape), t.dtype, t.device) if isinstance(t, torch.Tensor) else repr(t) for t in leaves]
        return str(structure), tuple(parts)

    def cotangents(self, evaluation: Evaluation, outputs: list[torch.Tensor]) -> list[torch.Tensor | None]:
        """Give the derivative of the (weighed sum of the) result with respect to outputs of steps; None: no path."""
        total = None
        for t in flatten(evaluation.result)[0]:
            if t.requires_grad and t.is_floating_point():
                weights = 1 + 0.25 * torch.sin(torch.arange(t.numel(), dtype=t.dtype, device=t.device)).reshape(t.shape)
                total = (t * weights).sum() if total is None else total + (t * weights).sum()
        wanted = [o for o in outputs if o.requires_grad]
        if total is None or not wanted:
            return [torch.zeros_like(o) for o in outputs]
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        gradients = [next(found) if o.requires_grad else None for o in outputs]
        return [torch.zeros_like(o) if g is None else g for g, o in zip(gradients, outputs, strict=True)]

    def compared(self, program: Program, x: Any, data: tuple[Any, ...], steps: frozenset[int]) -> dict[int, Any]:
        """Give |a - b| for the comparisons at some steps."""
        items = self._data(program, data)
        with random_state():
            pairs = compared_values(program, self._point(program, x), items, steps)
        return {
            k: self.numpy((torch.as_tensor(a, dtype=torch.double) - torch.as_tensor(b, dtype=torch.double)).abs())
            for k, (a, b) in pairs.items()
        }

    def holds_at(
        self, program: Program, x: Any, data: tuple[Any, ...], directions: Sequence[Any], distance: float
    ) -> bool:
        """Tell whether the program, its guards unforced, is that of the function at x + t v_1 + t^2 v_2 + ..."""
        moved = self._along(program, self._point(program, x), directions, distance)
        items = self._data(program, data)
        with torch.inference_mode(False), torch.no_grad(), torchs_own_slopes(), random_state():
            try:
                replay(unforced(program), moved, items)
            except StaleProgram:
                return False
            except RuntimeError:  # the function need not be defined there
                return False
        return True


def _fitting(program: Program, tensors: list[torch.Tensor], values: tuple[int, ...], which: int) -> list[torch.Tensor]:
    """Check shapes and types against those of the capture, and bring the tensors into its strides."""
    layouts = program.options["layouts"][which]
    fitting = []
    for tensor, value, strides in zip(tensors, values, layouts, strict=True):
        known = program.values[value]
        if tuple(tensor.shape) != known.shape or str(tensor.dtype) != f"torch.{known.dtype}":
            raise UsageError(
                f"the program was captured with {known.name} of shape {known.shape} and type {known.dtype}; found shape "
                f"{tuple(tensor.shape)} and type {tensor.dtype}. A program serves any values of the same shapes; capture "
                "again for others."
            )
        if tensor.layout is not torch.strided:
            raise UsageError(
                f"the program was captured with {known.name} strided; found {tensor.layout}: use .to_dense()."
            )
        fitting.append(tensor if tensor.stride() == strides else laid_out(tensor.detach(), strides))
    return fitting


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """Give a leaf that is differentiated, on the memory of a tensor of the point."""
    if tensor.is_inference():
        return tensor.clone().requires_grad_()
    return tensor.detach().requires_grad_()


def _plain(data: tuple[Any, ...]) -> Any:
    """Give the data that are no tensors, with their structure; the empty list if all are tensors in a row."""
    if all(type(item) is torch.Tensor for item in data):
        return []
    items, structure = check_data(data)
    return structure, [t for t in items if not isinstance(t, torch.Tensor)]


def _same_plain(program: Program, plain: Any) -> bool:
    """Tell whether a program was captured with the same data, as far as they are no tensors."""
    structure, items = program.options["plain"]
    return bool(structure == plain[0]) and all(same_content(a, b) for a, b in zip(items, plain[1], strict=True))


def _draws(program: Program) -> bool:
    """Tell whether a program may draw random numbers: only a user's own operation may."""
    return any(step.operation.kind is Kind.OPAQUE for step in program.steps)


def _is_finite(result: Any) -> bool:
    """Tell whether a result is finite, cheaply."""
    return all(not t.is_floating_point() or bool(torch.isfinite(t.detach().sum())) for t in flatten(result)[0])


TORCH = TorchFramework()
"""The one instance."""
