"""The tape: runs a function natively, operator by operator, and writes down what it did.

One run gives the values, torch's own graph of derivatives, and the steps. Grad mode and automatic casting are read off
at each step; what Python sees of the values becomes a guard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher

from nonsmooth.dictionary import OPERATIONS, Kind, Operation, opaque
from nonsmooth.errors import CaptureError, UnlistedOperation
from nonsmooth.frameworks.torch.arguments import map_refs, map_tensors, refs_of, tensors_of
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.interception import Escapes, ModulePath, tracing, watching_functions
from nonsmooth.frameworks.torch.ledger import identifier
from nonsmooth.frameworks.torch.names import arguments_of, bind, packet_name
from nonsmooth.frameworks.torch.predicates import SIDES, force_ties
from nonsmooth.frameworks.torch.protection import Protection, refusal
from nonsmooth.frameworks.torch.randomness import draw, draws_nothing
from nonsmooth.frameworks.torch.sources import user_frame
from nonsmooth.program import Finding, Guard, Mode, Ref, Source, Step

__all__ = ["Tape"]

LEAVING = frozenset("is_nonzero item _local_scalar_dense equal allclose".split())
"""Operators whose result is a number of Python."""

LIFTING = frozenset(["lift_fresh", "lift"])
"""Operators that hand a literal to torch: every replay must start from a fresh copy of it."""


class Tape(Protection):
    """The record of one run of a function.

    `point` and `data` are the leaves that the function is called with (clones: the user's tensors are never passed).
    With `record=False` it only protects the user's tensors, for native runs.
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
        record: bool = True,
    ) -> None:
        super().__init__([*point, *data], record=record)
        self.randomness, self.forced = randomness, dict(forced or {})
        self.steps: list[Step] = []
        self.guards: list[Guard] = []
        self.findings: dict[tuple[Any, ...], Finding] = {}
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
            stack.enter_context(tracing(self))
            if self.record:
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
            return self.constant(tensor)
        self.alive.append(tensor)
        if self.tensors[number].requires_grad and not tensor.requires_grad:
            (alias,) = self.number((tensor,), "detach", Ref(number), [])
            self.write(torch.ops.aten.detach.default, (Ref(number),), {}, (alias,))
            return Ref(alias)  # type: ignore[arg-type]
        self.ids[id(tensor)] = number
        return Ref(number)

    # --- operators ---------------------------------------------------------------------------------------------------

    def operator(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator natively and write it down; take apart what the dictionary lists only in parts."""
        if self._paused:
            return func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise refusal(
                CaptureError, f"the higher-order operator `{func}` is not captured", "write it with plain torch"
            )
        args, kwargs = self.substituted(args, kwargs)
        changed = self.changed(func, args, kwargs)
        args, kwargs = self.protect(func, changed, args, kwargs)
        if not self.record:
            return self.keep(func(*args, **kwargs))
        references = map_tensors((args, kwargs), self.reference)
        if packet_name(func) in LEAVING:
            return self._leaving(func, args, kwargs, references)
        depends, _ = self.flags(references)
        binding = bind(func, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags and not draws_nothing(func, args, kwargs)
        if random and (binding is None or binding.operation.kind is Kind.INDEX):
            return draw(self, mode, func, args, kwargs, depends)
        if binding is None and depends:
            opened = self.open(mode, func, args, kwargs)
            if opened is not NotImplemented:
                return opened
            if torch.is_grad_enabled() and any(t.requires_grad for t in tensors_of((args, kwargs))):
                raise _unlisted(func)
        return self._run(func, args, kwargs, references, changed)

    def open(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator as the formula it stands for, whose operators are written down instead."""
        formula = FORMULAS.get(packet_name(func))
        if formula is None and not func._can_decompose():
            return NotImplemented
        with enable_python_dispatcher(), mode:
            if formula is not None:
                return formula(**arguments_of(func, args, kwargs))
            return func.decompose(*args, **kwargs)

    def _run(self, func: Any, args: Any, kwargs: Any, references: Any, changed: list[torch.Tensor]) -> Any:
        """Run an operator natively and write it down as one step."""
        name, target = packet_name(func), func
        forced: tuple[tuple[int, int], ...] = ()
        result = func(*args, **kwargs)
        if name in LIFTING:
            result, target = result.clone(), torch.ops.aten.clone.default
        comparison = len(self.steps) if name in SIDES else None
        if comparison is not None:
            forced = tuple((element, sign) for (k, element), sign in self.forced.items() if k == self._comparisons)
            self._comparisons += 1
            result = force_ties(name, args, result, forced) if forced else result
        single = not isinstance(result, tuple | list)
        numbers = self.number((result,) if single else result, name, references, changed, comparison)
        self.write(target, references[0], references[1], numbers, single=single, changed=changed, forced=forced)
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
    ) -> Step:
        """Append a step."""
        label, dynamic, operands = "", False, tuple[Any, ...](refs_of((args, kwargs)))
        attributes: Mapping[str, Any] = {}
        if operation is None:
            operation, operands, attributes = self._read(target, args, kwargs)
            label = packet_name(target) + ("_" if changed else "")
            dynamic = torch.Tag.dynamic_output_shape in target.tags
        step = Step(
            index=len(self.steps),
            operation=operation,
            target=target,
            args=args,
            kwargs=kwargs,
            results=results,
            operands=operands,
            attributes=attributes,
            mutates=tuple(self.reference(t).value for t in changed or ()),
            mode=Mode(torch.is_grad_enabled(), _autocast()),
            source=user_frame(),
            module=self._module.current,
            label=label or operation.name,
            single=single,
            forced=forced,
            dynamic_shape=dynamic,
        )
        self.steps.append(step)
        return step

    def _read(self, target: Any, args: Any, kwargs: Any) -> tuple[Operation, tuple[Any, ...], Mapping[str, Any]]:
        """Read a call as a call of its record, with references in the place of tensors."""
        tensors = {r.value: self.tensors[r.value] for r in refs_of((args, kwargs))}
        binding = bind(target, *map_refs((args, kwargs), lambda r: tensors[r.value]))
        if binding is None:
            return OPERATIONS["constant"], (), {}
        back = {id(t): Ref(number) for number, t in tensors.items()}
        return binding.operation, tuple(back.get(id(o), o) for o in binding.operands), binding.attributes

    # --- what Python sees ---------------------------------------------------------------------------------------------

    def _leaving(self, func: Any, args: Any, kwargs: Any, references: Any) -> Any:
        """Run an operator whose result is a Python number, and write down the guard."""
        outcome = func(*args, **kwargs)
        if any(self.flags(references)):
            step = self.write(func, references[0], references[1], ())
            found = frozenset().union(*(self.ancestors.get(r.value, frozenset()) for r in refs_of(references)))
            kind = "branch" if isinstance(outcome, bool) else "item"
            self.guards.append(Guard(step.index, kind, outcome, step.source, tuple(sorted(found))))
        return outcome

    def escape(self, way: str, tensor: Any) -> None:
        """Write down a tensor that left as a list or an array."""
        if self._paused or not isinstance(tensor, torch.Tensor):
            return
        reference = self.reference(tensor)
        if any(self.flags(reference)):
            with self.paused():
                outcome = tensor.detach().clone()
            step = self.write(torch.ops.aten.clone.default, (reference,), {}, ())
            self.guards.append(Guard(step.index, way, outcome, step.source))

    def copied(self, tensor: torch.Tensor, copy: torch.Tensor) -> None:
        """Write down that a tensor from outside was copied."""
        self.write(torch.ops.aten.clone.default, (self.reference(tensor),), {}, (self.new_value(copy, "copy"),))

    # --- users' functions, findings -----------------------------------------------------------------------------------

    def user_function(self, cls: Any, native: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a user's `autograd.Function` as one opaque step with its own backward."""
        if self._paused:
            return native(*args, **kwargs)
        args, kwargs = self.substituted(args, kwargs)
        references = map_tensors((args, kwargs), self.reference)
        tensors = list(tensors_of((args, kwargs)))
        versions = [t._version for t in tensors]
        with self.paused():
            result = native(*args, **kwargs)
            if [t._version for t in tensors] != versions:
                found = f"the autograd.Function `{cls.__name__}` changes its arguments in place"
                raise refusal(CaptureError, found, "return a new tensor")
            single = not isinstance(result, tuple | list)
            outputs = [result] if single else list(result)
            outputs = [o.view_as(o) if isinstance(o, torch.Tensor) and id(o) in self.ids else o for o in outputs]
        numbers = self.number(outputs, cls.__name__, references, [])
        step = self.write(
            cls.apply, references[0], references[1], numbers, single=single, operation=opaque(identifier(cls.__name__))
        )
        if any(t.requires_grad for t in tensors):
            self._find_opaque(cls.__name__, step.source)
        return outputs[0] if single else type(result)(outputs)

    def _find_opaque(self, name: str, source: Source | None) -> None:
        """Report a user's own backward, once per line."""
        message = f"`{name}.apply` brings its own backward, which is used as it is"
        advice = "its kinks cannot be seen: register it, or write it with torch's operators"
        key = ("opaque", source.file if source else "", source.line if source else 0)
        self.findings.setdefault(key, Finding("opaque", message, source, advice))


def _autocast() -> tuple[str, str] | None:
    """Read the state of automatic casting."""
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            return device, str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    return None


def _unlisted(func: Any) -> CaptureError:
    """Write the error for an operator that the dictionary does not list."""
    name = f"{func.namespace}::{packet_name(func)}"
    return refusal(
        UnlistedOperation,
        f"the dictionary does not list the operator `{func}`",
        f"register it: `nonsmooth.register(nonsmooth.Operation(name={packet_name(func)!r}, kind=nonsmooth.Kind('smooth')), "
        f"torch={name!r})` if it is smooth, or with a record of its kinks (docs/dictionary.md); `nonsmooth ops --missing` "
        "lists what else is missing",
    )
