"""Evaluation of a program: torch evaluates and differentiates it, but for the kinks that a selection weighs.

At a step whose kinks are active and weighed, the value is torch's own and the derivative is the record's `push`: the
step returns a tensor with the native value whose graph is that of the linear map `push`, so that torch transposes it.
A step without an active kink stays native. One run is one object, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from nonsmooth.dictionary import Call, Kind, Nonsmooth, Select, Singularity, Switch
from nonsmooth.dictionary.order import Extremum
from nonsmooth.errors import StaleProgram
from nonsmooth.frameworks.framework import CutCall, Evaluation, GuardTie, NonsmoothCall, Turn
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.torch.dead import Dead, dead_along, dead_of_switch, moved_with
from nonsmooth.frameworks.torch.forcing import force
from nonsmooth.frameworks.torch.near import TermScale, near_compared, near_margins
from nonsmooth.frameworks.torch.plan import MOVES, Plan, plan_of
from nonsmooth.frameworks.torch.predicates import SIDES, Motion, Predicate, combine, compare, motion_of
from nonsmooth.frameworks.torch.protection import fresh_copies
from nonsmooth.frameworks.torch.strong_zero import guard_against_infinity, unselected_entries
from nonsmooth.frameworks.torch.tangents import Tangents
from nonsmooth.frameworks.torch.tree import same_content
from nonsmooth.frameworks.torch.turns import ties_of, turns_of
from nonsmooth.frameworks.torch.weighing import active_masks, call_of, cut_open, is_curved, weighed
from nonsmooth.program import Program, Ref, Step, references
from nonsmooth.program.affine import is_affine_step

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
    plan = plan_of(program)
    env: dict[int, Any] = dict(zip(program.inputs, leaves, strict=True))
    env.update(zip(program.data, data, strict=True))
    env.update(program.constants)
    env.update(fresh_copies(program))
    tangents = None if directions is None else Tangents(program, env, directions, deciding, wide)
    run = _Run(program, plan, env, select, observe, tangents)
    run.cut_at = cut
    watching = select is not None or observe or cut is not None
    release = {} if tangents is not None and tangents.late else plan.release
    grad = torch.is_grad_enabled()
    try:
        for step in program.steps:
            if step.mode.grad != torch.is_grad_enabled():
                torch._C._set_grad_enabled(step.mode.grad)
            if step.mode.autocast is not None:
                device, dtype = step.mode.autocast
                with torch.autocast(device, dtype=getattr(torch, dtype)):
                    run.step(step, watching)
            else:
                run.step(step, watching)
            for value in release.get(step.index, ()):
                env.pop(value, None)
    finally:
        torch._C._set_grad_enabled(grad)
    result = _fill(program.result, env)
    return Evaluation(
        result=result,
        leaves=leaves,
        calls=run.calls,
        program=program,
        decided=run.decided,
        bad=run.bad_entries(),
        turns=run.turns,
        tangents=tangents,
        cuts=run.cuts,
        ties=run.ties,
        curved=run.curved,
    )


class _Run:
    """One run of a program: the values so far, and what is known of them beside."""

    def __init__(
        self,
        program: Program,
        plan: Plan,
        env: dict[int, Any],
        select: Selector | None,
        observe: bool,
        tangents: Tangents | None,
    ) -> None:
        self.program, self.plan, self.env, self.select, self.observe = program, plan, env, select, observe
        self.tangents = tangents
        self.calls: list[NonsmoothCall] = []
        self.cut_at: float | None = None
        self.cuts: list[CutCall] = []
        self.ties: list[GuardTie] = []
        self.curved: list[Step] = []
        self.decided: list[NonsmoothCall] = []
        self.bad: list[NonsmoothCall] = []
        self.turns: list[Turn] = []
        self.untied: dict[int, Any] = {}
        self.terms = TermScale(program, env)
        self.predicates: dict[int, Predicate] = {}
        self.dead: dict[int, Dead] = {}
        self.masks: dict[int, Any] = {}

    def step(self, step: Step, watching: bool) -> None:
        """Run one step."""
        args, kwargs = _fill(step.args, self.env), _fill(step.kwargs, self.env)
        if self.tangents is not None and step.index in self.plan.compared | self.plan.predicates:
            near = near_compared(step, args, self.terms.of)
            if near is not None:
                self.bad.append(NonsmoothCall(step, Call(None, (), {}), None, mask=near, near=True))
        if self.tangents is not None and step.index in self.plan.compared:
            self.turns += turns_of(self.program, step, args, kwargs, self.tangents)
            if self.cut_at is not None:
                self.ties += ties_of(step, args, kwargs)
        if step.index in self.plan.checks:
            self._check(step, args, kwargs)
            return
        before = None if self.tangents is None else self.tangents.before(step)
        if self.cut_at is not None and step.index not in self.plan.special and not is_affine_step(self.program, step):
            self.curved.append(step)
        if watching and step.index in self.plan.special:
            output = self._special(step, args, kwargs)
        else:
            output = step.target(*args, **kwargs)
            if step.forced:
                output = force(step.label, output, step.forced)
        outputs = (output,) if step.single else output
        for value, tensor in zip(step.results, outputs, strict=True):
            if value is not None:
                if step.dynamic_shape and tuple(tensor.shape) != self.program.values[value].shape:
                    raise StaleProgram(f"{step} gives another shape here: {tuple(tensor.shape)}.")
                self.env[value] = tensor
        if self.tangents is not None:
            self.tangents.after(step, before)
        if watching:
            self._remember(step, outputs)

    def _check(self, step: Step, args: Any, kwargs: Any) -> None:
        """Compare what Python sees with what it saw at capture."""
        guard = self.plan.checks[step.index]
        outcome = step.target(*args, **kwargs)
        if step.forced:
            outcome = force(step.label, outcome, step.forced)
        if not same_content(outcome, guard.outcome):
            raise StaleProgram(f"{guard} comes out differently here.")

    def _remember(self, step: Step, outputs: Any) -> None:
        """Keep the predicate of a boolean result, and how to find the dead entries of a result."""
        if step.mutates and not isinstance(step.operation, Switch):
            self.dead.clear()
            self.predicates.clear()
        if step.index in self.plan.predicates:
            value = step.results[0]
            if value is not None:
                self.predicates[value] = self._predicate(step, outputs[0])
        if step.index in self.plan.dead:
            for value in step.results:
                if value is not None and step.operation.name in MOVES and not step.mutates:
                    rule = moved_with(
                        step, value, self.dead, lambda: _fill((step.args[1:], dict(step.kwargs)), self.env)
                    )
                    if rule is not None:
                        self.dead[value] = rule

    def _predicate(self, step: Step, value: torch.Tensor) -> Predicate:
        """Find the predicate of the boolean result of a step."""
        name, (args, kwargs) = step.label.rstrip("_"), _fill((step.args, dict(step.kwargs)), self.env)
        if name in SIDES:
            if not any(self.program.values[r.value].depends_on_point for r in references(step.args)):
                return Predicate.untied(value)
            moves = partial(self._motion, step, name, value)
            return compare(name, args[0], args[1], value, moves, self._distance(None))
        if step.mutates:
            return Predicate.untied(value)
        known = {id(self.env[v]): p for v, p in self.predicates.items() if v in self.env}
        return combine(step.target, args, kwargs, value, lambda t: known.get(id(t)))

    def _motion(self, step: Step, name: str, value: torch.Tensor, tie: torch.Tensor) -> Motion | None:
        """Find how a tied comparison moves along the directions, if tangents are carried."""
        tangents = self.tangents
        if self.cut_at is not None:
            return self._argument(step, value, tie)
        if tangents is None or not tangents.count:
            return None
        moved = [tangents.difference(step.args, k) for k in range(tangents.count)]
        scale = max(tangents.scale(step.args[:2], k) for k in range(tangents.count))
        return motion_of(name, value, tie, moved, scale, tangents.deciding)

    def _argument(self, step: Step, value: torch.Tensor, tie: torch.Tensor) -> Motion:
        """Give what a tied comparison compares, with its graph, as the motion of a cut run."""
        a, b = (torch.as_tensor(t, device=value.device) for t in _fill(step.args, self.env)[:2])
        with torch.enable_grad():
            difference = torch.where(tie, a - b, torch.zeros((), dtype=(a - b).dtype, device=value.device))
        return Motion(value, (difference,), 0.0, torch.zeros_like(tie))

    def bad_entries(self) -> list[NonsmoothCall]:
        """Give the steps at a jump or a singular point, but for entries that no tie can bring into the result."""
        found = []
        for met in self.bad:
            route = self.plan.unselected.get(met.step.index)
            unused = None if route is None else unselected_entries(route, met.mask.shape, self.untied)
            mask = met.mask if unused is None else met.mask & ~unused
            if bool(mask.any()):
                found.append(replace(met, mask=mask))
        return found

    def _operands(self, step: Step) -> tuple[Any, ...]:
        """Give the operands of a step as tensors of one device."""
        found = [self.env[r.value] if isinstance(r, Ref) else r for r in step.operands]
        like = next((t for t in found if isinstance(t, torch.Tensor) and t.is_floating_point()), found[0])
        dtype = like.dtype if like.is_floating_point() else None  # numbers beside a mask alone keep their own
        return tuple(
            t if isinstance(t, torch.Tensor) else torch.as_tensor(t, dtype=dtype, device=like.device) for t in found
        )

    def _special(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run a step that is not smooth: native where nothing is active, weighed where something is."""
        operation = step.operation
        operands = self._operands(step)
        if step.mutates:
            operands = tuple(t.clone() for t in operands)
        watched = self.tangents is not None or (torch.is_grad_enabled() and any(t.requires_grad for t in operands))
        native, native_output = _native(step, args, kwargs, operands if step.mutates else None)
        if not watched:
            return self._written(step, args, native, native_output)
        detached = tuple(t.detach() for t in operands)
        call = call_of(detached, self._attributes(step), native)
        if isinstance(operation, Singularity):
            if self.tangents is not None:
                self._note_bad(step, operation, call)
            if operation.kind is Kind.SINGULAR and self.select is not None and step.index in self.plan.unselected:
                native = guard_against_infinity(
                    step, operands, args, kwargs, self.plan.unselected[step.index], self.masks
                )
                native_output = native
            if self.cut_at is not None and not is_affine_step(self.program, step):
                self.curved.append(step)
            if self.observe:
                self.calls.append(NonsmoothCall(step, call, native))
            return self._written(step, args, native, native_output)
        if not isinstance(operation, Nonsmooth):
            return self._written(step, args, native, native_output)
        if isinstance(operation, Select):
            self.masks[step.index] = detached[0]
            if self.tangents is not None:
                self._note_ties(step, operation, call)
        output = native
        masks = active_masks(operation, call, self._distance(operation))
        if isinstance(operation, Switch) and step.index in self.plan.dead and len(detached) == 1:
            self.dead[step.results[0] or 0] = dead_of_switch(operation, call, masks is None)
        if self.tangents is not None and not isinstance(operation, Select):
            near = near_margins(operation, call, step, self.terms.of)
            if near is not None:
                self.bad.append(NonsmoothCall(step, call, None, mask=near, near=True))
        if self.cut_at is not None and is_curved(operation, call):
            self.curved.append(step)
        if self.cut_at is not None and masks:
            output = self._cut(step, operation, call, operands, native)
        if self.select is not None:
            if masks and self.tangents is not None and self.tangents.count:
                asked = self.tangents.ask(step, detached)
                call = replace(call, tangents=asked[0], scale=asked[1])
            rules = self.select(step, call, masks) if masks else None
            if rules is not None and self.tangents is not None and self.tangents.count:
                self.tangents.decide(step, call, rules)
                self.decided.append(NonsmoothCall(step, call, None, rules))
                if isinstance(operation, Switch) and step.index in self.plan.dead and len(detached) == 1:
                    self.dead[step.results[0] or 0] = dead_along(operation, call, rules)
            if rules is not None:
                if isinstance(operation, Select):
                    self.masks[step.index] = operation.coefficient(call, rules)
                output = weighed(operation, call, rules, operands, native)
        if self.observe:
            self.calls.append(NonsmoothCall(step, call, output))
        if output is not native or step.mutates:
            native_output = _replaced(native_output, output)
        return self._written(step, args, output, native_output)

    def _distance(self, operation: Nonsmooth | None) -> float:
        """Give the distance within which a run is cut; an infinite one is for switches alone."""
        at = self.cut_at or 0.0
        return at if at < float("inf") or isinstance(operation, Switch) else 0.0

    def _cut(
        self, step: Step, operation: Nonsmooth, call: Call, operands: tuple[torch.Tensor, ...], native: torch.Tensor
    ) -> torch.Tensor:
        """Open a step at its active kinks."""
        assert self.cut_at is not None and self.tangents is not None
        asked = self.tangents.ask(step, call.operands)
        call = replace(call, tangents=asked[0], scale=asked[1])
        output, opened = cut_open(step, operation, call, operands, native, self._distance(operation))
        self.cuts.append(opened)
        self.tangents.decide(step, call, opened.rules)
        if isinstance(operation, Select):  # either branch can be selected at a tie
            tie = call.attributes["tie"].broadcast_to(native.shape)
            predicate = call.operands[0].broadcast_to(native.shape)
            self.masks[step.index] = torch.where(tie, 0.5, predicate.to(torch.float64))
        return output

    def _note_bad(self, step: Step, operation: Singularity, call: Call) -> None:
        """Remember the entries of a step that are at a jump or a singular point."""
        for margin in operation.margins(call).values():
            mask = ~(margin > 0)
            if bool(mask.any()):
                self.bad.append(NonsmoothCall(step, call, None, mask=mask))

    def _note_ties(self, step: Step, operation: Select, call: Call) -> None:
        """Remember where a `where` ties, and where its branches do not join there: a jump."""
        tie, predicate = call.attributes["tie"], call.operands[0]
        self.untied[step.index] = torch.where(tie, 0.5, predicate.to(torch.float64))
        if bool(tie.any()):
            apart = tie.broadcast_to(call.result.shape) & ~operation.joins(call)
            if bool(apart.any()):
                self.bad.append(NonsmoothCall(step, call, None, mask=apart))

    def _written(self, step: Step, args: Any, output: torch.Tensor, native_output: Any) -> Any:
        """Copy the result of an in-place step, computed on a clone, into its target."""
        if step.mutates:
            return args[0].copy_(output)
        return native_output

    def _attributes(self, step: Step) -> Mapping[str, Any]:
        """Add to the attributes of a step what only an evaluation knows.

        Ties of dead entries cannot matter: weighing them changes nothing, so that only an observer needs their mask.
        """
        if isinstance(step.operation, Extremum):
            ref = step.operands[0]
            rule = self.dead.get(ref.value) if isinstance(ref, Ref) else None
            if rule is None:
                return step.attributes
            asked = self.observe or self.tangents is not None  # a cut run has tangents
            return {**step.attributes, **(rule.attributes() if asked else {"flats": rule.flats})}
        if isinstance(step.operation, Select):
            ref = step.operands[0]
            predicate = self.predicates.get(ref.value) if isinstance(ref, Ref) else None
            if predicate is None:
                predicate = Predicate.untied(self.env[ref.value] if isinstance(ref, Ref) else ref)
            return {**step.attributes, **predicate.attributes()}
        return step.attributes


def _native(step: Step, args: Any, kwargs: Any, clones: Any) -> tuple[torch.Tensor, Any]:
    """Run torch's own operator; on clones of the operands where it would write in place."""
    if clones is not None:
        args = (clones[_position(step)].clone(), *args[1:])
    output = step.target(*args, **kwargs)
    return (output if step.single else output[0]), output


def _position(step: Step) -> int:
    """Find which operand is the first argument, the one that an in-place operator writes to."""
    return step.operands.index(step.args[0])


def _replaced(output: Any, first: torch.Tensor) -> Any:
    """Put the weighed result in the place of the native one."""
    return (first, *output[1:]) if isinstance(output, tuple | list) else first


def _fill(tree: Any, env: Mapping[int, Any]) -> Any:
    """Put values in the place of references."""
    if isinstance(tree, Ref):
        return env[tree.value]
    if isinstance(tree, tuple):
        filled = [_fill(item, env) for item in tree]
        return type(tree)(*filled) if hasattr(tree, "_fields") else tuple(filled)
    if isinstance(tree, list):
        return [_fill(item, env) for item in tree]
    if isinstance(tree, dict):
        return {k: _fill(v, env) for k, v in tree.items()}
    return tree
