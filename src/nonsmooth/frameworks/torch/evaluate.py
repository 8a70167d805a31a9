"""Evaluation of a program: torch evaluates and differentiates it, but for the kinks that a selection weighs.

At a step whose kinks are active and weighed, the value is torch's own and the derivative is the record's `push`: the
step returns a tensor with the native value whose graph is that of the linear map `push`, so that torch transposes it.
A step without an active kink stays native.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat.torch as xp
import torch

from nonsmooth.dictionary import Call, Nonsmooth
from nonsmooth.frameworks.framework import CutCall, Evaluation, GuardTie
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.replay.run import Run
from nonsmooth.frameworks.replay.unselected import Route
from nonsmooth.frameworks.torch.protection import fresh_copies
from nonsmooth.frameworks.torch.strong_zero import guard_against_infinity
from nonsmooth.frameworks.torch.tangents import TorchTangents
from nonsmooth.frameworks.torch.tree import same_content
from nonsmooth.frameworks.torch.weighing import active_masks, call_of, cut_open, weighed
from nonsmooth.program import Program, Step

__all__ = ["replay"]


def replay(
    program: Program,
    leaves: list[torch.Tensor],
    data: list[torch.Tensor],
    *,
    select: Selector | None = None,
    observe: bool = False,
    directions: Sequence[Callable[[], list[torch.Tensor]]] | None = None,
    deciding: int = 1,
    wide: bool = False,
    cut: float | None = None,
) -> Evaluation:
    """Run the steps of a program on given leaves, checking every guard; with `directions`, tangents can be asked for.

    With `cut`, a distance, every step is opened at its kinks within that distance: see `framework.Linearised`.

    Raises:
        StaleProgram: a guard, an escaped value or a shape differs from the captured one.
    """
    env: dict[int, Any] = dict(zip(program.inputs, leaves, strict=True))
    env.update(zip(program.data, data, strict=True))
    env.update(program.constants)
    env.update(fresh_copies(program))
    tangents = None if directions is None else TorchTangents(program, env, directions, deciding, wide)
    run = TorchRun(program, env, select=select, observe=observe, tangents=tangents, cut_at=cut)
    grad = torch.is_grad_enabled()
    try:
        return run.evaluate(leaves)
    finally:
        torch._C._set_grad_enabled(grad)


class TorchRun(Run):
    """One run of a torch program: torch records the gradients as it runs."""

    xp = xp
    same = staticmethod(same_content)
    quiet = staticmethod(torch.no_grad)
    call_of = staticmethod(call_of)
    masks_of = staticmethod(active_masks)

    def step(self, step: Step) -> None:
        """Run one step as it was captured: recording gradients or not, casting or not."""
        if step.mode.grad != torch.is_grad_enabled():
            torch._C._set_grad_enabled(step.mode.grad)
        if step.mode.autocast is None:
            super().step(step)
            return
        device, dtype = step.mode.autocast
        with torch.autocast(device, dtype=getattr(torch, dtype)):
            super().step(step)

    def detached(self, array: Any) -> Any:
        """Cut a tensor off from its graph."""
        return array.detach() if isinstance(array, torch.Tensor) else array

    def watched(self, operands: tuple[torch.Tensor, ...]) -> bool:
        """Tell whether torch records a gradient here, or tangents are carried."""
        return self.tangents is not None or (torch.is_grad_enabled() and any(t.requires_grad for t in operands))

    def operands_of(self, step: Step) -> tuple[torch.Tensor, ...]:
        """Give the operands of a step; those that it writes to as copies."""
        operands = super().operands_of(step)
        return tuple(t.clone() for t in operands) if step.mutates else operands

    def native(
        self, step: Step, args: Any, kwargs: Any, operands: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, Any]:
        """Run torch's own operator; on copies of the operands where it would write in place."""
        if step.mutates:  # its first argument is what it writes to
            args = (operands[step.operands.index(step.args[0])].clone(), *args[1:])
        output = step.target(*args, **kwargs)
        return (output if step.single else output[0]), output

    def written(self, step: Step, args: Any, output: torch.Tensor, native_output: Any) -> Any:
        """Copy the result of an in-place step, computed on a copy, into its target."""
        return args[0].copy_(output) if step.mutates else native_output

    def weighed(
        self,
        step: Step,
        operation: Nonsmooth,
        call: Call,
        rules: Mapping[str, Any],
        operands: tuple[torch.Tensor, ...],
        native: torch.Tensor,
    ) -> torch.Tensor:
        """Give the native value the derivative that the rules select."""
        return weighed(operation, call, rules, operands, native)

    def opened(
        self,
        step: Step,
        operation: Nonsmooth,
        call: Call,
        operands: tuple[torch.Tensor, ...],
        native: torch.Tensor,
        tol: float,
    ) -> tuple[torch.Tensor, CutCall]:
        """Give the native value the derivative of the first selection, plus what the blocks of active kinks add."""
        return cut_open(step, operation, call, operands, native, tol)

    def guarded(
        self,
        step: Step,
        operands: tuple[torch.Tensor, ...],
        args: Any,
        kwargs: Any,
        route: Route,
        native: torch.Tensor,
    ) -> torch.Tensor:
        """Run a singular step with strong zeros on the way back to its operands."""
        return guard_against_infinity(step, operands, args, kwargs, route, self.masks)

    def argument(self, a: Any, b: Any, tie: torch.Tensor) -> torch.Tensor:
        """Give what a tied comparison compares with its graph, 0 where it does not tie."""
        with torch.enable_grad():
            return super().argument(a, b, tie)  # type: ignore[no-any-return]

    def guard_ties(self, step: Step, args: Any, kwargs: Any) -> list[GuardTie]:
        """List the tied elements of a comparison behind a guard, with the graph of what decides them."""
        with torch.enable_grad():
            return super().guard_ties(step, args, kwargs)
