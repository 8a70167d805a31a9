"""One step of training under observation: the kinks met, and the gradient that other choices there would have given.

Everything runs natively, by the same kernels in the same order, so that training goes on bit for bit as without. Where
the gradient under other choices is wanted, the graph of the user's backward pass is kept for one more pass, in which
hooks put the selected derivative in the place of the native one at the operations that met a kink. One mode sees all of
that, hence a long file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch._C._functorch import peek_interpreter_stack
from torch._ops import _len_torch_dispatch_stack_pre_dispatch
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils.weak import WeakIdKeyDictionary

from nonsmooth.dictionary import Call, Extremum, Kind, Nonsmooth, Operation, Singularity, Switch
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.observation import Change, Met
from nonsmooth.frameworks.replay.dead import dead_of_switch
from nonsmooth.frameworks.torch.arguments import map_tensors
from nonsmooth.frameworks.torch.distances import Distances
from nonsmooth.frameworks.torch.eager import OperatorsMode
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.frameworks.torch.parts import named_modules
from nonsmooth.frameworks.torch.reached import Window, base_of, reached
from nonsmooth.frameworks.torch.repeatable import foreign_nodes, has_packing, may_hook
from nonsmooth.frameworks.torch.second_pass import Hooks, Pulled, Totals
from nonsmooth.frameworks.torch.sources import place_of
from nonsmooth.frameworks.torch.weighing import call_of
from nonsmooth.program import Step

__all__ = ["StepMode"]

_BACKWARD = (torch.Tensor.backward, torch.autograd.backward)

_UNSEEN = {
    "CheckpointFunction": "layers under checkpoint(..., use_reentrant=True)",
    "CompiledFunction": "what torch.compile has compiled",
}
"""What runs out of sight, by the `autograd.Function` that it leaves in the graph."""


@dataclass
class _Place:
    """A row while it is counted."""

    elements: int = 0
    active: int = 0
    can_matter: int = 0
    margin: float = float("inf")


class StepMode(OperatorsMode):
    """The mode that observes a step of training, from its first forward pass to the optimiser."""

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Mapping[str, torch.Tensor],
        select: Selector | None,
        distances: Distances,
    ) -> None:
        super().__init__()
        self._model, self._select = model, select
        self._places: dict[tuple[str, str, str, str, str], _Place] = {}
        self._dead: Any = WeakIdKeyDictionary()
        self._replaced = 0
        self._altering = self._within = self._foreign_hooks = self._on_copies = self._met = False
        self._differentiated = self._hidden = False
        self._hooks = Hooks()
        self._count, self._distances = 0, distances
        self._where = "", ""
        self._second = Totals(parameters)
        self.backwards = 0
        self.measured = False
        self.why = "" if select is not None else "not due"
        self.failed = ""
        self._over = False
        self.unseen: set[str] = set()

    def enter(self) -> None:
        """Put the mode at the bottom of torch's stack: a block of the user's that ends takes its own mode off the top.

        What `torch.set_default_device` has put there stays below it, since torch looks for it there.
        """
        modes = [_pop_mode() for _ in _get_current_function_mode_stack()][::-1]
        default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        lowest = sum(mode is default for mode in modes[:1])
        for mode in (*modes[:lowest], self, *modes[lowest:]):
            _push_mode(mode)
        self._thread = threading.get_ident()
        self._foreign_hooks = any(p._backward_hooks for p in self._second.of)

    def leave(self) -> bool:
        """Take the mode out of torch's stack, wherever it is now; tell whether it was there.

        Where an optimiser steps inside of a backward pass torch has it in hand, and puts it back afterwards.
        """
        self._over = True
        self._hooks.remove()
        if self not in _get_current_function_mode_stack():
            return False
        above = []
        while (top := _pop_mode()) is not self:
            above.append(top)
        for mode in reversed(above):
            _push_mode(mode)
        return True

    @cached_property
    def _names(self) -> dict[int, str]:
        """The paths of the modules, read when the first is needed: a model may grow between steps."""
        return {id(m): n for n, m in named_modules(self._model)}

    def release(self) -> None:
        """Let go of the gradients: the mode itself is in a cycle, and would keep them for a while."""
        self._second = Totals({})

    @property
    def is_elsewhere(self) -> bool:
        """Whether the training runs in another thread than the one that it was to be seen in."""
        return self._thread != threading.get_ident() and not self.backwards and not self._places

    def rows(self) -> tuple[Met, ...]:
        """Give what was met."""
        passed = self._differentiated and not self._within  # an optimiser may step inside of the backward pass
        return tuple(
            Met(*key, p.elements, p.active, p.can_matter if passed else None, p.margin)
            for key, p in self._places.items()
        )

    def change(self) -> Change | None:
        """Give the change of the gradient under the other choice; None where it was not measured."""
        if not self.backwards:
            self.why = self.why or "there was no backward()"
            return None
        if not self._met and not self._hidden:
            return Change(0.0, 0.0, {})
        found = None
        if self._replaced and not self.measured:
            self.why = self.why or "no backward pass could be repeated before the optimiser stepped"
        if not self.why:
            with self._unharmed():
                found = self._second.change()
        if found is not None and not found.norm < float("inf"):
            self.why, found = "the gradient is not finite", None
        return found

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch natively, and look at the operators with kinks in it."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling() or self._over or torch._C._get_tracing_state() is not None:
            return func(*args, **kwargs)
        if func in _BACKWARD:
            return self._backward(func, args, kwargs)
        if may_hook(func, args):
            self._foreign_hooks = True
        elif func is torch.autograd.grad:
            self._differentiate(kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if self._select is not None and has_packing():
            self.why = self.why or "what layers save is packed (checkpoint, saved_tensors_hooks)"
        if not self.may_hold_kinks(func):
            return self.passed(func, args, kwargs)
        if peek_interpreter_stack() is not None or _len_torch_dispatch_stack_pre_dispatch():
            self._miss("what runs in a trace or a transform of torch.func")
            return func(*args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    @contextmanager
    def _looking_only(self, why: str) -> Iterator[None]:
        """Count on copies, whose graph is not the user's: what is met cannot be replaced there."""
        if self._select is not None:
            self.why = why
        before, self._on_copies, self._select = (self._on_copies, self._select), True, None
        try:
            with torch.random.fork_rng(self._second.devices):
                yield
        finally:
            self._on_copies, self._select = before

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Keep an error of the observation away from the training: it ends the observation of the step."""
        try:
            yield
        except Exception as error:
            self.why = self.failed = f"the observation failed: {type(error).__name__}: {str(error).splitlines()[:1]}"
            self._over = True

    def nonsmooth(self, func: Any, args: Any, kwargs: Any, operation: Nonsmooth, operands: Any, attributes: Any) -> Any:
        """Run an operator with kinks, and count those that are active."""
        in_place = func._schema.is_mutable and func._schema.arguments[0].is_write
        if isinstance(operation, Extremum) and operands[0] in self._dead:
            attributes = {**attributes, **self._dead[operands[0]].attributes()}
        before, pulled = operands, Pulled(self, operands, self._hooks)
        if in_place:
            with self._unharmed(), torch.no_grad():
                before = tuple(t.detach().clone() for t in operands)
                if self._select is not None and isinstance(operation, Switch):
                    least = self._distances.least(operation, call_of(before, attributes, before[0]))
                    if not all(d > 0 for d in least.values()):
                        pulled.listen()  # a hook belongs to the value that a tensor has when it is registered
        output = func(*args, **kwargs)
        first = output[0] if isinstance(output, tuple | list) else output
        self._look(pulled, func, args, kwargs, operation, before, attributes, first)
        return output

    def look(
        self, func: Any, args: Any, kwargs: Any, operation: Nonsmooth, operands: Any, attributes: Any, output: Any
    ) -> None:
        """Look at an operator that another mode has run, while this one is still on the stack."""
        if self._over:
            return
        self._over = True
        try:
            self._look(Pulled(self, operands, self._hooks), func, args, kwargs, operation, operands, attributes, output)
        finally:
            self._over = bool(self.failed)

    def _look(
        self,
        pulled: Pulled,
        func: Any,
        args: Any,
        kwargs: Any,
        operation: Nonsmooth,
        operands: Any,
        attributes: Any,
        output: Any,
    ) -> None:
        """Count the active kinks of an operator, and prepare what they would give under the other choice."""
        with self._unharmed():
            with torch.no_grad():
                call = call_of(operands, attributes, output)
                masks = self._count_kinks(operation, call, output)
            if isinstance(operation, Switch) and operation.flats is not None:
                self._dead[output] = dead_of_switch(operation, call, masks is None)
            if masks is not None and self._select is not None and base_of(output) is not None:
                self.why = "kinks were met by an operation in place on a view"
            elif masks is not None and self._select is not None:
                self._replace(pulled, func, args, kwargs, operation, call, output, masks)

    def other(self, func: Any, args: Any, kwargs: Any, binding: Any) -> Any:
        """Run an operator without kinks; note where its derivative is infinite."""
        operation = binding.operation
        if isinstance(operation, Singularity) and operation.kind is Kind.SINGULAR:
            with self._unharmed(), torch.no_grad():
                self._count_singular(operation, binding)
        return func(*args, **kwargs)

    def _count_singular(self, operation: Singularity, binding: Any) -> None:
        """Count the elements at which the derivative is infinite."""
        operands = tuple(t for t in binding.operands if isinstance(t, torch.Tensor))
        if not any(t.requires_grad for t in operands):
            return
        for kink, distance in operation.margins(call_of(operands, binding.attributes, operands[0])).items():
            count = int((distance <= 0).count_nonzero())
            if count:
                self._where = place_of(self._names)
                place = self._place(operation, kink)
                place.elements, place.active = place.elements + distance.numel(), place.active + count

    def unlisted(self, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Open an operator that is made of others natively; of one that is not, look at a copy."""
        name = packet_name(func)
        if FORMULAS.get(name) is None and func._can_decompose():
            return super().unlisted(mode, func, args, kwargs)
        if not any(t.requires_grad for t in tensors_of((args, kwargs))):
            return func(*args, **kwargs)
        formula = FORMULAS.get(name)
        if torch.Tag.nondeterministic_seeded in func.tags:  # dropout, which has no kinks
            return func(*args, **kwargs)
        if formula is None:
            self.unseen.add(str(func))
            return func(*args, **kwargs)
        why = f"`{func}` is one kernel of several operations with kinks"
        with self._looking_only(why), self._unharmed(), mode:
            formula(**_copied(arguments_of(func, args, kwargs)))
        return func(*args, **kwargs)

    def _place(self, operation: Operation, kink: str) -> _Place:
        """Find the row of one kink, at the place that runs."""
        where = self._where
        key = (where[0], operation.name, operation.kind.value, kink, where[1])
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
        return place

    def _count_kinks(self, operation: Nonsmooth, call: Call, output: torch.Tensor) -> Mapping[str, Any] | None:
        """Count the active kinks of a call by name; None as soon as it is certain that there is none."""
        beyond, masks = self._distances.least(operation, call), None
        if not all(d > 0 for d in beyond.values()):
            masks, beyond = self._distances.masks(operation, call)
        elements = call.result.numel()
        self._where = place_of(self._names)
        met = False
        for kink, margin in beyond.items():
            place = self._place(operation, kink)
            place.elements += elements if masks is None else masks[kink].numel()
            place.margin = min(place.margin, margin)
            count = 0 if masks is None else int(masks[kink].count_nonzero())
            if count:
                assert masks is not None
                met = True
                self._meet(place, masks[kink], count, output)
        return masks if met else None

    def _meet(self, place: _Place, mask: torch.Tensor, count: int, output: torch.Tensor) -> None:
        """Count active elements, and later those that the backward pass reaches."""
        place.active += count
        self._met = True
        if self._on_copies:
            place.can_matter += count
        elif output.requires_grad:
            base = base_of(output)
            window = None if base is None else Window.of(output, base)
            self._hooks.on(output if base is None else base, self._reached(place, mask, window))

    def _reached(self, place: _Place, mask: torch.Tensor, window: Window | None) -> Callable[[torch.Tensor], None]:
        """Count the active elements whose output has a derivative, each once, when backward passes come by."""

        def hook(cotangent: torch.Tensor) -> None:
            nonlocal mask
            if self._altering:
                return
            with self._unharmed(), torch.no_grad():
                found = reached(mask, (cotangent if window is None else window.look(cotangent)) != 0)
                place.can_matter += int(found.count_nonzero())
                mask = mask & ~found

        return hook

    def _miss(self, what: str) -> None:
        """Take note of what runs out of sight: the change of the gradient is not that of the whole."""
        self.unseen.add(what)
        if self._select is not None:
            self.why = self.why or f"not seen: {what}"
        self._hidden = True

    def _differentiate(self, kwargs: Mapping[str, Any]) -> None:
        """Take note of derivatives that the loop takes; those of them are not what the second pass replaces."""
        self._differentiated = True
        if kwargs.get("create_graph") and self._select is not None:
            self.why = self.why or "derivatives of derivatives are taken (create_graph=True)"

    def _replace(
        self,
        pulled: Pulled,
        func: Any,
        args: Any,
        kwargs: Any,
        operation: Nonsmooth,
        call: Call,
        output: torch.Tensor,
        masks: Mapping[str, Any],
    ) -> None:
        """Prepare the derivative that the selection gives an operator, for the second backward pass."""
        assert self._select is not None
        if isinstance(operation, Switch) and operation.slopes_of(call) is not None:
            masks = dict.fromkeys(operation.kinks)
        self._count += 1
        step = Step(self._count, operation, func, args, kwargs, (), attributes=call.attributes, label=packet_name(func))
        rules = self._select(step, call, masks)
        if rules is None or not output.requires_grad:
            return
        pulled.select(operation, call, rules, output)
        self._replaced += 1

    @property
    def altering(self) -> bool:
        """Whether the second backward pass runs."""
        return self._altering

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the user's backward pass, and if kinks were met a second one under the other choice."""
        if self._within:
            return func(*args, **kwargs)
        self._within = True
        try:
            self.backwards += 1
            self._differentiate(kwargs)
            foreign = foreign_nodes(args[0])
            for name in foreign:
                if name in _UNSEEN:
                    self._miss(_UNSEEN[name])
            if self._select is None or not self._replaced or self._hindered(foreign):
                return func(*args, **kwargs)
            return self._twice(func, args, kwargs)
        finally:
            self._within = False

    def _hindered(self, foreign: Sequence[str]) -> bool:
        """Tell whether a second pass would run code of the user's a second time."""
        modules = (m for m in self._model.modules() if m._backward_hooks or m._backward_pre_hooks)
        if self._foreign_hooks or next(modules, None) is not None:
            self.why = self.why or "the model has hooks on its backward pass"
        if foreign:
            self.why = self.why or f"the backward pass runs an autograd.Function, {foreign[0]}"
        return bool(self.why)

    def _twice(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the user's backward pass and keep its graph for the second one."""
        keep = kwargs.get("retain_graph")
        keep = bool(kwargs.get("create_graph") if keep is None else keep)
        wanted = self._second.wanted(kwargs.get("inputs"))
        if not wanted:
            return func(*args, **kwargs)
        self._second.begin()
        with self._second.listening(wanted, self) as found:
            result = func(*args, **{**kwargs, "retain_graph": True})
        if self._over:  # an optimiser has stepped inside of the backward pass
            return result
        self._altering = True
        cotangent = kwargs.get("gradient", kwargs.get("grad_tensors"))
        try:
            with torch.random.fork_rng(self._second.devices), torch.autograd.set_detect_anomaly(False):
                other = torch.autograd.grad(args[0], wanted, cotangent, retain_graph=keep, allow_unused=True)
            self._second.add(wanted, found, other)
            self.measured = True
        except Exception as error:
            self.why = f"a second backward pass failed: {str(error).partition(chr(10))[0] or type(error).__name__}"
        finally:
            self._altering = False
        return result


def tensors_of(tree: Any) -> list[torch.Tensor]:
    """List the tensors among nested arguments."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(tree, keep)
    return found


def _copied(tree: Any) -> Any:
    """Copy the tensors of nested arguments, cut off from their graph."""
    return map_tensors(tree, lambda t: t.detach().clone().requires_grad_(t.requires_grad))
