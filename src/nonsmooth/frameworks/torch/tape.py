"""The tape: runs a function natively, operator by operator, and writes down what it did.

One run gives the values, torch's own graph of derivatives, and the steps. Grad mode and automatic casting are read off
at each step; what Python sees of the values becomes a guard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import array_api_compat.torch as xp
import torch
from torch._dispatch.python import enable_python_dispatcher

from nonsmooth.dictionary import OPERATIONS, Operation, opaque
from nonsmooth.errors import CaptureError
from nonsmooth.frameworks.replay.arguments import map_refs, refs_of
from nonsmooth.frameworks.replay.forcing import FORCEABLE, force, forceable
from nonsmooth.frameworks.torch.arguments import map_tensors, tensors_of
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.interception import Escapes, ModulePath, tracing, watching_functions
from nonsmooth.frameworks.torch.names import Binding, arguments_of, bind, packet_name
from nonsmooth.frameworks.torch.operators import (
    FORWARD_MODE,
    LEAVING,
    LIFTING,
    NO_TRANSFORMS,
    autocast,
    backward_formula,
    data_of,
    unlisted,
    window_of,
)
from nonsmooth.frameworks.torch.protection import Protection, refusal
from nonsmooth.frameworks.torch.randomness import SHAPES, draw, draws_nothing
from nonsmooth.frameworks.torch.sources import user_frame
from nonsmooth.frameworks.torch.user_functions import OutputOf, about_function, undisturbed
from nonsmooth.program import Finding, Guard, Mode, Ref, Source, Step
from nonsmooth.program.names import identifier

__all__ = ["Tape"]


class Tape(Protection):
    """The record of one run of a function.

    `point` and `data` are the leaves that the function is called with (clones: the user's tensors are never passed).
    """

    def __init__(
        self,
        point: list[torch.Tensor],
        data: list[Any],
        names: list[str],
        *,
        randomness: str = "refuse",
        forced: Mapping[tuple[int, int], int] | None = None,
        modules: Callable[[torch.nn.Module], str] | None = None,
    ) -> None:
        super().__init__([*point, *data])
        self.randomness, self.forced = randomness, dict(forced or {})
        self.steps: list[Step] = []
        self.guards: list[Guard] = []
        self.findings: dict[tuple[Any, ...], Finding] = {}
        self.generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self.drawn: dict[int, tuple[float, float]] = {}
        self._comparisons = self._paused = 0
        self._module = ModulePath(modules)
        self.inputs = tuple(self.new_value(t, name, point=True) for t, name in zip(point, names, strict=True))
        tensors = [t for t in data if isinstance(t, torch.Tensor)]
        labels = ["data"] if len(tensors) == 1 else [f"data{i}" for i in range(len(tensors))]
        self.data = tuple(self.new_value(t, name, data=True) for t, name in zip(tensors, labels, strict=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run torch without writing anything down."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write down everything that torch does on this thread."""
        with ExitStack() as stack:
            stack.callback(self.saved.restore)
            stack.enter_context(tracing(self))
            stack.enter_context(self._module.following())
            stack.enter_context(watching_functions(self))
            stack.enter_context(Escapes(self))
            yield

    def reference(self, tensor: torch.Tensor) -> Ref:
        """Give the reference of a tensor; one from outside becomes a constant, a detached alias a step."""
        number = self.ids.get(id(tensor))
        if number is not None:
            return Ref(number)
        number = self.aliased(tensor)
        if number is None:
            base = self.covering(tensor)
            return self.constant(tensor) if base is None else self._window(tensor, base)
        self.alive.append(tensor)
        if self.tensors[number].requires_grad and not tensor.requires_grad:
            (alias,) = self.number((tensor,), "detach", Ref(number), [])
            self.write(data_of, (Ref(number),), {}, (alias,), operation=OPERATIONS["detach"])
            return Ref(alias)  # type: ignore[arg-type]
        self.ids[id(tensor)] = number
        return Ref(number)

    def _window(self, tensor: torch.Tensor, base: int) -> Ref:
        """Write down a tensor that shows memory of a known one, but was made out of sight: saved for a backward pass."""
        shown = self.tensors[base]
        shift = tensor.storage_offset() - shown.storage_offset()
        args = (Ref(base), tuple(tensor.shape), tensor.stride(), shift)
        self.alive.append(tensor)
        (number,) = self.number((tensor,), "window", Ref(base), [])
        self.write(window_of, args, {}, (number,), operation=OPERATIONS["as_strided"])
        return Ref(number)  # type: ignore[arg-type]

    # --- operators ---------------------------------------------------------------------------------------------------

    def operator(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator natively and write it down; take apart what the dictionary lists only in parts."""
        if self._paused:
            return func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise refusal(
                CaptureError, f"the higher-order operator `{func}` is not captured", "write it with plain torch"
            )
        name = packet_name(func)
        if torch._C._are_functorch_transforms_active() or name in FORWARD_MODE:
            raise refusal(CaptureError, "transforms of torch.func and forward mode are not captured", NO_TRANSFORMS)
        args, kwargs = self.cut(args, kwargs)
        changed = self.protect(func, args, kwargs)
        if name in LIFTING and self.made(args[0]) is None:
            self.constant(args[0], outside=False)
        references = map_tensors((args, kwargs), self.reference)
        if name in LEAVING:
            return self._leaving(func, args, kwargs, references)
        on_point, on_data = self.flags(references)
        depends = on_point or (on_data and self.randomness == SHAPES)
        binding = bind(func, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags and not draws_nothing(func, args, kwargs)
        if random:
            return draw(self, mode, func, args, kwargs, depends)
        if binding is None and depends:
            opened = self.open(mode, func, args, kwargs)
            if opened is not NotImplemented:
                return opened
            if torch.is_grad_enabled() and any(t.requires_grad for t in tensors_of((args, kwargs))):
                raise unlisted(func)
        return self._run(func, args, kwargs, references, changed, binding)

    def open(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator as the formula it stands for, whose operators are written down instead."""
        formula = FORMULAS.get(packet_name(func))
        if formula is None and not func._can_decompose():
            formula = backward_formula(func)
            if formula is None:
                return NotImplemented
        with enable_python_dispatcher(), mode:
            if formula is not None:
                return formula(**arguments_of(func, args, kwargs))
            return func.decompose(*args, **kwargs)

    def _run(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        references: Any,
        changed: list[torch.Tensor],
        binding: Binding | None,
    ) -> Any:
        """Run an operator natively and write it down as one step."""
        name, target = packet_name(func), func
        forced: tuple[tuple[int, int], ...] = ()
        result = func(*args, **kwargs)
        if name in LIFTING:
            result, target, binding = result.clone(), torch.ops.aten.clone.default, None
        real = any(t.is_floating_point() for t in tensors_of(args))
        comparison = len(self.steps) if name in FORCEABLE and real else None
        if name in FORCEABLE:
            result, forced = self._forced_outcome(name, result)
        single = not isinstance(result, tuple | list)
        numbers = self.number((result,) if single else result, name, references, changed, comparison)
        options: Any = {"single": single, "changed": changed, "forced": forced, "binding": binding}
        self.write(target, references[0], references[1], numbers, **options)
        return result

    def write(
        self,
        target: Any,
        args: Any,
        kwargs: Any,
        results: tuple[int | None, ...],
        *,
        single: bool = True,
        changed: list[torch.Tensor] | None = None,
        forced: tuple[tuple[int, int], ...] = (),
        operation: Operation | None = None,
        binding: Binding | None = None,
    ) -> Step:
        """Append a step: of an operation, or of the call that a binding reads."""
        label, dynamic = "", False
        if operation is None:
            binding = binding or self._read(target, args, kwargs)
            label = packet_name(target) + ("_" if changed else "")
            dynamic = torch.Tag.dynamic_output_shape in target.tags
        else:
            binding = Binding(operation, tuple(refs_of((args, kwargs))))
        step = Step(
            index=len(self.steps),
            operation=binding.operation,
            target=target,
            args=args,
            kwargs=kwargs,
            results=results,
            operands=tuple(self._operand(o) for o in binding.operands),
            attributes=binding.attributes,
            mutates=tuple(self.reference(t).value for t in changed or ()),
            mode=Mode(torch.is_grad_enabled(), autocast()),
            source=user_frame(),
            module=self._module.current,
            label=label or binding.operation.name,
            single=single,
            forced=forced,
            dynamic_shape=dynamic,
        )
        self.steps.append(step)
        self._comparisons += forceable(step)
        return step

    def _read(self, target: Any, args: Any, kwargs: Any) -> Binding:
        """Read a call as a call of its record."""
        args, kwargs = map_refs((args, kwargs), lambda r: self.tensors[r.value])
        return bind(target, args, kwargs) or Binding(OPERATIONS["constant"], ())

    def _operand(self, operand: Any) -> Any:
        """Give the reference of an operand, unless it is a plain number."""
        return Ref(self.ids[id(operand)]) if isinstance(operand, torch.Tensor) else operand

    # --- what Python sees ---------------------------------------------------------------------------------------------

    def _leaving(self, func: Any, args: Any, kwargs: Any, references: Any) -> Any:
        """Run an operator whose result is a Python number, and write down the guard."""
        forced: tuple[tuple[int, int], ...] = ()
        outcome = func(*args, **kwargs)
        if packet_name(func) in FORCEABLE:
            outcome, forced = self._forced_outcome(packet_name(func), outcome)
        self._guard("branch" if isinstance(outcome, bool) else "item", outcome, references, func, forced=forced)
        return outcome

    def _forced_outcome(self, name: str, result: Any) -> tuple[Any, tuple[tuple[int, int], ...]]:
        """Override the outcome of a comparison at its tied elements, as the search for other branches asks."""
        forced = tuple((element, choice) for (k, element), choice in self.forced.items() if k == self._comparisons)
        return (force(xp, name, result, forced) if forced else result), forced

    def _guard(self, kind: str, outcome: Any, references: Any, target: Any, **options: Any) -> None:
        """Write down that Python has seen a value, unless it is the function's own literal."""
        read = [r.value for r in refs_of(references)]
        own = not any(self.flags(references))
        if own and not self.outside.intersection(read):
            return
        step = self.write(target, references[0], references[1], (), **options)
        found = frozenset().union(*(self.ancestors.get(v, frozenset()) for v in read))
        if forceable(step) and any(self.values[v].depends_on_point and self.values[v].dtype != "bool" for v in read):
            found = found | {step.index}
        self.guards.append(Guard(step.index, "constant" if own else kind, outcome, step.source, tuple(sorted(found))))

    def escape(self, way: str, tensor: Any) -> None:
        """Write down a tensor that left as a list or an array."""
        if self._paused or not isinstance(tensor, torch.Tensor):
            return
        references: Any = ((self.reference(tensor),), {})
        with self.paused():
            outcome = tensor.detach().clone()
        self._guard(way, outcome, references, torch.ops.aten.clone.default)

    # --- users' functions, findings -----------------------------------------------------------------------------------

    def user_function(self, cls: Any, native: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a user's `autograd.Function` as one opaque step with its own backward."""
        if self._paused:
            return native(*args, **kwargs)
        args, kwargs = self.cut(args, kwargs)
        references = map_tensors((args, kwargs), self.reference)
        tensors = list(tensors_of((args, kwargs)))
        with self.paused(), undisturbed(cls.__name__, tensors, self.is_outside):
            result = native(*args, **kwargs)
            single = not isinstance(result, tuple | list)
            outputs = [result] if single else list(result)
            outputs = [o.view_as(o) if isinstance(o, torch.Tensor) and id(o) in self.ids else o for o in outputs]
        numbers = self.number(outputs, cls.__name__, references, [])
        operation = opaque(identifier(cls.__name__))
        step = self.write(cls.apply, references[0], references[1], numbers, single=single, operation=operation)
        for place, output in enumerate(outputs):
            if not isinstance(output, torch.Tensor) and output is not None:
                self._guard("item", output, references, OutputOf(cls, place), operation=operation)
        if any(t.requires_grad for t in tensors):
            self.find(*about_function(cls), step.source)
        return outputs[0] if single else type(result)(outputs)

    def remember(self, generator: torch.Generator | None) -> None:
        """Remember the state of a user's generator before it draws for the first time."""
        if generator is not None and all(generator is not known for known, _ in self.generators):
            self.generators.append((generator, generator.get_state()))

    def find(self, rule: str, message: str, advice: str, source: Source | None = None) -> None:
        """Keep a finding, once per line."""
        source = source or user_frame()
        key = (rule, source.file if source else "", source.line if source else 0)
        self.findings.setdefault(key, Finding(rule, message, source, advice))
