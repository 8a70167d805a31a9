"""One run of a program: every step evaluated, guards checked, and the rules of active kinks asked for.

A step without an active kink stays the framework's own. Where kinks are active and a selection weighs them, `weighed`
says what becomes of the rules: a framework that records gradients as it runs gives the value another derivative, one
that differentiates afterwards writes them down. One run is one object, hence a long file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from nonsmooth.dictionary import Call, Kind, Nonsmooth, Select, Singularity, Switch
from nonsmooth.dictionary.operation import Array, device_of
from nonsmooth.dictionary.order import Extremum
from nonsmooth.errors import StaleProgram
from nonsmooth.frameworks.framework import CutCall, Evaluation, GuardTie, NonsmoothCall, Turn
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.replay.active import active_masks, is_curved
from nonsmooth.frameworks.replay.arguments import fill, is_array, map_arrays
from nonsmooth.frameworks.replay.arrays import difference, is_floating
from nonsmooth.frameworks.replay.dead import Dead, dead_along, dead_of_switch, moved_with
from nonsmooth.frameworks.replay.forcing import force
from nonsmooth.frameworks.replay.forward import terms_of
from nonsmooth.frameworks.replay.near import TermScale, near_compared, near_margins
from nonsmooth.frameworks.replay.plan import MOVES, moving_values, plan_of
from nonsmooth.frameworks.replay.predicates import SIDES, Motion, Predicate, combine, compare, motion_of
from nonsmooth.frameworks.replay.tangents import Tangents
from nonsmooth.frameworks.replay.turns import ties_of, turns_of
from nonsmooth.frameworks.replay.unselected import Route, unselected_entries
from nonsmooth.program import Program, Ref, Step, references
from nonsmooth.program.affine import is_affine_step

__all__ = ["Run"]

NUMBERS = (bool, int, float, complex)


class Run(ABC):
    """One run of a program: the values so far, and what is known of them beside.

    `env` holds the values of the inputs, the data and the constants; the run adds those of the steps. With `cut_at`, a
    distance, every step is opened at its kinks within that distance: see `framework.Linearised`.
    """

    xp: Any
    """The namespace of the arrays."""

    def __init__(
        self,
        program: Program,
        env: dict[int, Any],
        *,
        select: Selector | None = None,
        observe: bool = False,
        tangents: Tangents | None = None,
        cut_at: float | None = None,
    ) -> None:
        self.program, self.plan, self.env = program, plan_of(program), env
        self.select, self.observe, self.tangents, self.cut_at = select, observe, tangents, cut_at
        self.watching = select is not None or observe or cut_at is not None
        self.calls: list[NonsmoothCall] = []
        self.cuts: list[CutCall] = []
        self.ties: list[GuardTie] = []
        self.curved: list[Step] = []
        self.decided: list[NonsmoothCall] = []
        self.bad: list[NonsmoothCall] = []
        self.turns: list[Turn] = []
        self.untied: dict[int, Array] = {}
        self.terms = TermScale(self.xp, program, env, self.terms_of, self.detached)
        self.predicates: dict[int, Predicate] = {}
        self.dead: dict[int, Dead] = {}
        self.masks: dict[int, Array] = {}
        self.ruled: dict[int, tuple[Nonsmooth, Call, Mapping[str, Any]]] = {}
        self.guarded_by: dict[int, Route] = {}

    @property
    def judges(self) -> bool:
        """Whether the run looks for what stands against derivatives along directions: jumps, singular points, near ties."""
        return self.tangents is not None

    # --- what a framework does in its own way -------------------------------------------------------------------------

    @abstractmethod
    def same(self, outcome: Any, recorded: Any, /) -> bool:
        """Tell whether what Python sees is what it saw at capture."""

    def detached(self, array: Array) -> Array:
        """Cut an array off from the gradients that the framework records."""
        return array

    def quiet(self) -> AbstractContextManager[Any]:
        """Give the context in which the framework records no gradients."""
        return nullcontext()

    def watched(self, operands: tuple[Array, ...]) -> bool:
        """Tell whether anything here needs a derivative."""
        return True

    def operands_of(self, step: Step) -> tuple[Array, ...]:
        """Give the operands of a step as arrays of one device."""
        found = [self.env[r.value] if isinstance(r, Ref) else r for r in step.operands]
        if not any(isinstance(t, NUMBERS) for t in found):
            return tuple(found)
        like = next((t for t in found if is_floating(self.xp, t)), None)
        dtype = None if like is None else like.dtype  # numbers beside a mask alone keep their own
        device = device_of(next((t for t in found if is_array(t)), None) if like is None else like)
        return tuple(t if is_array(t) else self.xp.asarray(t, dtype=dtype, device=device) for t in found)

    def native(self, step: Step, args: Any, kwargs: Any, operands: tuple[Array, ...]) -> tuple[Array, Any]:
        """Run the framework's own operator: the result that carries the derivative, and all that it returned."""
        output = step.target(*args, **kwargs)
        return (output if step.single else output[0]), output

    def written(self, step: Step, args: Any, output: Array, native_output: Any) -> Any:
        """Give what a step returns, its first result being `output`."""
        return native_output

    def call_of(self, operands: tuple[Array, ...], attributes: Mapping[str, Any], native: Array, /) -> Call:
        """Make the call that a record reads, cut off from gradients."""
        return Call(self.xp, tuple(map(self.detached, operands)), attributes, self.detached(native))

    def masks_of(self, operation: Nonsmooth, call: Call, tol: float) -> Mapping[str, Array | None] | None:
        """Give the masks of the active kinks, None if there is none."""
        return active_masks(operation, call, tol)

    def weighed(
        self,
        step: Step,
        operation: Nonsmooth,
        call: Call,
        rules: Mapping[str, Any],
        operands: tuple[Array, ...],
        native: Array,
    ) -> Array:
        """Give the native value the derivative that the rules select; here they are written down."""
        self.ruled[step.index] = operation, call, rules
        return native

    def opened(
        self, step: Step, operation: Nonsmooth, call: Call, operands: tuple[Array, ...], native: Array, tol: float
    ) -> tuple[Array, CutCall]:
        """Give the native value the derivative of the first selection, plus what the blocks of active kinks add to it.

        Here the rules of the first selection are written down.
        """
        rules, blocks = operation.cut(call, tol)
        self.ruled[step.index] = operation, call, rules
        return native, CutCall(step, call, rules, blocks, [], [], [])

    def guarded(
        self, step: Step, operands: tuple[Array, ...], args: Any, kwargs: Any, route: Route, native: Array
    ) -> Array:
        """Run a singular step with strong zeros on the way back to its operands; here the route is written down."""
        self.guarded_by[step.index] = route
        return native

    def argument(self, a: Any, b: Any, tie: Array) -> Array:
        """Give what a tied comparison compares, 0 where it does not tie, as a node that can be differentiated."""
        apart = difference(self.xp, a, b)
        return self.xp.where(tie, apart, self.xp.zeros_like(apart))

    def guard_ties(self, step: Step, args: Any, kwargs: Any) -> list[GuardTie]:
        """List the tied elements of a comparison behind a guard."""
        values, named = self.still((args, kwargs))
        return ties_of(self.xp, step, values, named, (args, kwargs))

    def terms_of(self, step: Step, a: Any, b: Any) -> int | None:
        """Give how many products a bilinear step adds up, from the shapes of its operands."""
        return terms_of(step, a, b)

    def keeps(self) -> bool:
        """Tell whether the values of the run are needed after it: tangents that wait are computed from them."""
        return self.tangents is not None and self.tangents.late

    # --- the run ------------------------------------------------------------------------------------------------------

    def evaluate(self, leaves: list[Array]) -> Evaluation:
        """Run every step, checking every guard.

        Raises:
            StaleProgram: a guard, an escaped value or a shape differs from the captured one.
        """
        release = {} if self.keeps() else self.plan.release
        for step in self.program.steps:
            self.step(step)
            for value in release.get(step.index, ()):
                self.env.pop(value, None)
        return Evaluation(
            result=fill(self.program.result, self.env),
            leaves=leaves,
            calls=self.calls,
            program=self.program,
            decided=self.decided,
            bad=self.bad_entries(),
            turns=self.turns,
            tangents=self.tangents,
            cuts=self.cuts,
            ties=self.ties,
            curved=self.curved,
        )

    def step(self, step: Step) -> None:
        """Run one step."""
        args, kwargs = fill(step.args, self.env), fill(step.kwargs, self.env)
        if step.index in self.plan.looked_at and self.judges:
            self._compared(step, args, kwargs)
        if step.index in self.plan.checks:
            self._check(step, args, kwargs)
            return
        before = None if self.tangents is None else self.tangents.before(step)
        if self.cut_at is not None and step.index not in self.plan.special and not is_affine_step(self.program, step):
            self.curved.append(step)
        if self.watching and step.index in self.plan.special:
            output = self._special(step, args, kwargs)
        else:
            output = step.target(*args, **kwargs)
            if step.forced:
                output = force(self.xp, step.label, output, step.forced)
        outputs = (output,) if step.single else output
        for value, array in zip(step.results, outputs, strict=True):
            if value is not None:
                if step.dynamic_shape and tuple(array.shape) != self.program.values[value].shape:
                    raise StaleProgram(f"{step} gives another shape here: {tuple(array.shape)}.")
                self.env[value] = array
        if self.tangents is not None:
            self.tangents.after(step, before)
        if self.watching:
            self._remember(step, outputs)

    def still(self, tree: Any) -> Any:
        """Cut the arrays of nested arguments off from the gradients that the framework records."""
        return map_arrays(tree, self.detached)

    def _compared(self, step: Step, args: Any, kwargs: Any) -> None:
        """Remember where a comparison ties, or nearly does."""
        assert self.tangents is not None
        with self.quiet():
            values, named = self.still((args, dict(kwargs)))
            near = near_compared(self.xp, step, values, self.terms.of)
            if near is not None:
                self.bad.append(NonsmoothCall(step, Call(None, (), {}), None, mask=near, near=True))
            if step.index in self.plan.compared:
                self.turns += turns_of(self.xp, self.program, step, values, named, self.tangents)
        if step.index in self.plan.compared and self.cut_at is not None:
            self.ties += self.guard_ties(step, args, kwargs)

    def _check(self, step: Step, args: Any, kwargs: Any) -> None:
        """Compare what Python sees with what it saw at capture."""
        guard = self.plan.checks[step.index]
        outcome = step.target(*args, **kwargs)
        if step.forced:
            outcome = force(self.xp, step.label, outcome, step.forced)
        if not self.same(outcome, guard.outcome):
            raise StaleProgram(f"{guard} comes out differently here.")

    def _remember(self, step: Step, outputs: Any) -> None:
        """Keep the predicate of a discrete result, and how to find the dead entries of a result."""
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
                        step, value, self.dead, lambda: fill((step.args[1:], dict(step.kwargs)), self.env)
                    )
                    if rule is not None:
                        self.dead[value] = rule

    def _predicate(self, step: Step, value: Array) -> Predicate:
        """Find the predicate of the discrete result of a step: only a comparison of what moves ties by itself."""
        name, (args, kwargs) = step.label.rstrip("_"), fill((step.args, dict(step.kwargs)), self.env)
        moving = moving_values(self.program)
        if name in SIDES and any(r.value in moving for r in references(step.args)):
            moves = partial(self._motion, step, name, value) if self.judges else None
            a, b = (self.detached(t) if is_array(t) else t for t in args[:2])
            return compare(self.xp, name, a, b, value, moves, self._distance(None))
        if step.mutates:
            return Predicate.untied(self.xp, value)
        known = {id(self.env[v]): p for v, p in self.predicates.items() if v in self.env}

        def target(*args: Any, **kwargs: Any) -> Any:
            with self.quiet():  # what moves keeps its gradients
                return step.target(*args, **kwargs)

        return combine(self.xp, target, args, kwargs, value, lambda t: known.get(id(t)))

    def _motion(self, step: Step, name: str, value: Array, tie: Array) -> Motion | None:
        """Find how a tied comparison moves along the directions, if tangents are carried."""
        tangents = self.tangents
        if self.cut_at is not None:
            a, b = fill(step.args[:2], self.env)
            node = self.argument(a, b, tie)
            return Motion(value, (node,), 0.0, tie if self._is_cut_off(step) else self.xp.zeros_like(tie))
        if tangents is None or not tangents.count:
            return None
        moved = [tangents.difference(step.args, k) for k in range(tangents.count)]
        scale = max(tangents.scale(step.args[:2], k) for k in range(tangents.count))
        return motion_of(self.xp, name, value, tie, moved, scale, tangents.deciding)

    def _is_cut_off(self, step: Step) -> bool:
        """Tell a comparison of values that move with the point and carry no derivative: how it turns is not known."""
        moving, values = moving_values(self.program), self.program.values
        return any(r.value in moving and not values[r.value].differentiable for r in references(step.args[:2]))

    def bad_entries(self) -> list[NonsmoothCall]:
        """Give the steps at a jump or a singular point, but for entries that no tie can bring into the result."""
        found = []
        for met in self.bad:
            route = self.plan.unselected.get(met.step.index)
            unused = None if route is None else unselected_entries(self.xp, route, met.mask.shape, self.untied)
            mask = met.mask if unused is None else met.mask & ~unused
            if bool(self.xp.any(mask)):
                found.append(replace(met, mask=mask))
        return found

    def _special(self, step: Step, args: Any, kwargs: Any) -> Any:
        """Run a step that is not smooth: native where nothing is active, weighed where something is."""
        operation, operands = step.operation, self.operands_of(step)
        native, native_output = self.native(step, args, kwargs, operands)
        if not self.watched(operands):
            return self.written(step, args, native, native_output)
        call = self.call_of(operands, self._attributes(step), native)
        output = native
        if isinstance(operation, Singularity):
            output = self._singular(step, operation, call, operands, args, kwargs, native)
            native_output = native_output if output is native else output
        elif isinstance(operation, Nonsmooth):
            output = self._kinked(step, operation, call, operands, native)
            if output is not native or step.mutates:
                native_output = _replaced(native_output, output)
        return self.written(step, args, output, native_output)

    def _singular(
        self,
        step: Step,
        operation: Singularity,
        call: Call,
        operands: tuple[Array, ...],
        args: Any,
        kwargs: Any,
        native: Array,
    ) -> Array:
        """Run a step with singular points or jumps."""
        if self.judges:
            self._note_bad(step, operation, call)
        if operation.kind is Kind.SINGULAR and self.select is not None and step.index in self.plan.unselected:
            native = self.guarded(step, operands, args, kwargs, self.plan.unselected[step.index], native)
        if self.cut_at is not None and not is_affine_step(self.program, step):
            self.curved.append(step)
        if self.observe:
            self.calls.append(NonsmoothCall(step, call, native))
        return native

    def _kinked(
        self, step: Step, operation: Nonsmooth, call: Call, operands: tuple[Array, ...], native: Array
    ) -> Array:
        """Run a step with kinks: cut open, or weighed by the rules that the selection gives."""
        if isinstance(operation, Select):
            self.masks[step.index] = call.operands[0]
            if "repeats" in call.attributes:
                return self._unguarded(step, operation, call, operands, native)
            if self.judges:
                self._note_ties(step, operation, call)
        output = native
        masks = self.masks_of(operation, call, self._distance(operation))
        cuts_off = isinstance(operation, Switch) and step.index in self.plan.dead and len(operands) == 1
        if cuts_off:
            self.dead[step.results[0] or 0] = dead_of_switch(operation, call, masks is None)  # type: ignore[arg-type]
        if self.judges and not isinstance(operation, Select):
            near = near_margins(operation, call, step, self.terms.of)
            if near is not None:
                self.bad.append(NonsmoothCall(step, call, None, mask=near, near=True))
        if self.cut_at is not None and is_curved(operation, call):
            self.curved.append(step)
        if self.cut_at is not None and masks:
            output = self._cut(step, operation, call, operands, native)
        if self.select is not None and masks:
            call, rules = self._rules(step, call, masks)
            if rules is not None:
                if cuts_off and self.tangents is not None and self.tangents.count:
                    self.dead[step.results[0] or 0] = dead_along(operation, call, rules)  # type: ignore[arg-type]
                if isinstance(operation, Select):
                    self.masks[step.index] = operation.coefficient(call, rules)
                output = self.weighed(step, operation, call, rules, operands, native)
        if self.observe:
            self.calls.append(NonsmoothCall(step, call, output))
        return output

    def _unguarded(
        self, step: Step, operation: Select, call: Call, operands: tuple[Array, ...], native: Array
    ) -> Array:
        """Run a `where` of which one branch repeats the other: at ties it guards neither side from the derivative."""
        if (self.select is None and self.cut_at is None) or not self.masks_of(
            operation, call, self._distance(operation)
        ):
            return native
        call = operation.unguarded(call)
        self.masks[step.index] = call.operands[0]
        if self.select is not None:
            return self.weighed(step, operation, call, {"tie": 0.0}, operands, native)
        return self.opened(step, operation, call, operands, native, self._distance(operation))[0]

    def _rules(
        self, step: Step, call: Call, masks: Mapping[str, Array | None]
    ) -> tuple[Call, Mapping[str, Any] | None]:
        """Ask the selection for the rules of a call; where tangents are carried, the call can be asked for them."""
        assert self.select is not None
        tangents = self.tangents if self.tangents is not None and self.tangents.count else None
        if tangents is not None:
            asked = tangents.ask(step, call.operands)
            call = replace(call, tangents=asked[0], scale=asked[1])
        rules = self.select(step, call, masks)
        if rules is not None and tangents is not None:
            tangents.decide(step, call, rules)
            self.decided.append(NonsmoothCall(step, call, None, rules))
        return call, rules

    def _distance(self, operation: Nonsmooth | None) -> float:
        """Give the distance within which a run is cut; an infinite one is for switches alone."""
        at = self.cut_at or 0.0
        return at if at < float("inf") or isinstance(operation, Switch) else 0.0

    def _cut(self, step: Step, operation: Nonsmooth, call: Call, operands: tuple[Array, ...], native: Array) -> Array:
        """Open a step at its active kinks."""
        assert self.tangents is not None
        asked = self.tangents.ask(step, call.operands)
        call = replace(call, tangents=asked[0], scale=asked[1])
        output, opened = self.opened(step, operation, call, operands, native, self._distance(operation))
        self.cuts.append(opened)
        self.tangents.decide(step, call, opened.rules)
        if isinstance(operation, Select):  # either branch can be selected at a tie
            shape = tuple(native.shape)
            tie, predicate = (self.xp.broadcast_to(m, shape) for m in (call.attributes["tie"], call.operands[0]))
            self.masks[step.index] = self._half_at(tie, predicate)
        return output

    def _half_at(self, tie: Array, predicate: Array) -> Array:
        """Give the weight of the first branch: a half where the predicate ties."""
        weight = self.xp.astype(predicate, self.xp.float32)
        return self.xp.where(tie, self.xp.full_like(weight, 0.5), weight)

    def _note_bad(self, step: Step, operation: Singularity, call: Call) -> None:
        """Remember the entries of a step that are at a jump or a singular point."""
        for margin in operation.margins(call).values():
            mask = ~(margin > 0)
            if bool(self.xp.any(mask)):
                self.bad.append(NonsmoothCall(step, call, None, mask=mask))

    def _note_ties(self, step: Step, operation: Select, call: Call) -> None:
        """Remember where a `where` ties, and where its branches do not join there: a jump."""
        tie, predicate = call.attributes["tie"], call.operands[0]
        self.untied[step.index] = self._half_at(tie, predicate)
        if bool(self.xp.any(tie)):
            apart = self.xp.broadcast_to(tie, tuple(call.result.shape)) & ~operation.joins(call)
            if bool(self.xp.any(apart)):
                self.bad.append(NonsmoothCall(step, call, None, mask=apart))

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
                predicate = Predicate.untied(
                    self.xp, self.env[ref.value] if isinstance(ref, Ref) else self.xp.asarray(ref)
                )
            return {**step.attributes, **predicate.attributes()}
        return step.attributes


def _replaced(output: Any, first: Array) -> Any:
    """Put the weighed result in the place of the native one."""
    return (first, *output[1:]) if isinstance(output, tuple | list) else first
