"""The tape: runs a function natively, operator by operator, and writes down what it did.

It is a dispatch mode at torch's pre-dispatch key. There every operator arrives before autograd and before composite
operators are taken apart, with real tensors, so one run gives the values, torch's own graph of derivatives, and the
steps. Grad mode and automatic casting are read off at each step. What a dispatch mode cannot see is intercepted
beside it: a user's `autograd.Function`, values that leave through numpy or lists, and the module that is running.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nonsmooth.dictionary import Kind, opaque
from nonsmooth.errors import CaptureError, ChangedInput, RandomnessError, UnlistedOperation
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.names import arguments_of, bind, packet_name
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.program import Finding, Guard, Mode, Ref, Source, Step, Value

__all__ = ["Tape", "recording", "user_frame"]

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_LIBRARY = (
    _TORCH,
    _OURS,
    os.path.dirname(functools.__file__) + os.sep + "contextlib.py",
    "<frozen",
    "<string>",
    "<__array",
)

COMPARISONS = frozenset("eq ne lt le gt ge".split())
"""Operators whose tied elements are forced when the other branch of an `if` is wanted."""

DRAWN_INSIDE = frozenset(["rrelu_with_noise"])
"""Operators that draw as they go, so that no formula repeats their draws."""

RUNNING_STATISTICS = frozenset("batch_norm instance_norm native_batch_norm _batch_norm_with_update".split())
"""Operators that change tensors which their schema does not mark."""


def user_frame() -> Source | None:
    """Find the line of the user's program: the innermost frame outside torch and this library."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARY):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Source(file, frame.f_lineno, frame.f_code.co_name, text)
        frame = frame.f_back  # type: ignore[assignment]
    return None


class _PreDispatch(SchemaCheckMode):
    """The dispatch mode: hands every operator to the tape, with itself switched off meanwhile."""

    def __init__(self, tape: Tape) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C._DisablePythonDispatcher():  # else torch would run its own decompositions, with other slopes
            return self.tape.operator(self, func, args, dict(kwargs or {}))


class _Escapes(TorchFunctionMode):
    """Sees what leaves torch without an operator: lists, numpy arrays; prints are none of our business."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__", "__dlpack__"):
            with self.tape.paused():
                result = func(*args, **(kwargs or {}))
            self.tape.escape(name.strip("_"), args[0], result)
            return result
        if name in ("__repr__", "__format__"):
            with self.tape.paused():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Tape:
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
        self.record, self.randomness, self.forced = record, randomness, dict(forced or {})
        self.values: list[Value] = []
        self.steps: list[Step] = []
        self.guards: list[Guard] = []
        self.findings: dict[tuple[Any, ...], Finding] = {}
        self.constants: dict[int, torch.Tensor] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._alive: list[Any] = []
        self._ids: dict[int, int] = {}
        self._views: dict[tuple[Any, ...], int] = {}
        self._substitutes: dict[int, torch.Tensor] = {}
        self._names: dict[str, int] = {}
        self._input_storage = {_storage(t) for t in (*point, *data) if isinstance(t, torch.Tensor)}
        self._own_storage: set[int] = set()
        self._comparisons = 0
        self._ancestors: dict[int, frozenset[int]] = {}
        self._paused = 0
        self._modules: list[str] = []
        self._module_name = modules
        self.protected = False
        self.inputs = tuple(self._new_value(t, name, point=True) for t, name in zip(point, names, strict=True))
        tensors = [(i, t) for i, t in enumerate(data) if isinstance(t, torch.Tensor)]
        self.data = tuple(self._new_value(t, f"data{i}" if len(tensors) > 1 else "data", data=True) for i, t in tensors)

    # --- running -----------------------------------------------------------------------------------------------------

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
            if self.record:
                stack.enter_context(self._watching_modules())
                stack.enter_context(self._watching_functions())
                stack.enter_context(_Escapes(self))
            stack.enter_context(enable_python_dispatcher())
            stack.enter_context(_PreDispatch(self))
            yield

    @contextmanager
    def _watching_modules(self) -> Iterator[None]:
        """Keep the path of the module that is running."""
        known: dict[int, str] = {}

        def enter(module: torch.nn.Module, inputs: Any) -> None:
            if not self._modules:
                known.update({id(m): n for n, m in module.named_modules()})
            name = self._module_name(module) if self._module_name else ""
            self._modules.append(name or known.get(id(module), "") or ("" if not self._modules else self._modules[-1]))

        def leave(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if self._modules:
                self._modules.pop()

        before = torch.nn.modules.module.register_module_forward_pre_hook(enter)
        after = torch.nn.modules.module.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    @contextmanager
    def _watching_functions(self) -> Iterator[None]:
        """Intercept `autograd.Function.apply`, also where the user has kept the bound method."""
        tape = self

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            native = super(_SingleLevelFunction, cls).apply
            return tape.user_function(cls, native, args, kwargs)

        _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            del _SingleLevelFunction.apply

    # --- values ------------------------------------------------------------------------------------------------------

    def _new_value(self, tensor: torch.Tensor, name: str, *, point: bool = False, data: bool = False) -> int:
        """Number a tensor."""
        number = len(self.values)
        count = self._names[name] = self._names.get(name, 0) + 1
        clean = name.replace(".", "_")
        self.values.append(
            Value(
                name=clean if point or data else f"{clean}_{count}",
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                differentiable=tensor.requires_grad,
                depends_on_point=point,
                depends_on_data=data,
            )
        )
        self._alive.append(tensor)
        self._ids[id(tensor)] = number
        self._tensors[number] = tensor
        self._views[_alias_key(tensor)] = number
        return number

    def _known(self, tensor: torch.Tensor) -> int | None:
        """Find the number of a tensor, also of one that aliases a numbered one exactly (`.data`, numpy and back)."""
        number = self._ids.get(id(tensor))
        if number is not None or not self.record:
            return number
        number = self._views.get(_alias_key(tensor))
        if number is None or not tensor.numel():
            return None
        known = self._tensors[number]
        if known.requires_grad and not tensor.requires_grad:
            detach = torch.ops.aten.detach.default
            flags = self.values[number]
            self._alive.append(tensor)
            new = self._new_value(tensor, "detach", point=flags.depends_on_point, data=flags.depends_on_data)
            self._ancestors[new] = self._ancestors.get(number, frozenset())
            self._write(detach, (Ref(number),), {}, (new,), single=True)
            return new
        self._alive.append(tensor)
        self._ids[id(tensor)] = number
        return number

    def reference(self, tensor: torch.Tensor) -> Ref:
        """Give the reference of a tensor; one from outside becomes a constant."""
        number = self._known(tensor)
        if number is None:
            number = self._new_value(tensor, "constant")
            self.constants[number] = tensor.detach()
        return Ref(number)

    def _outside(self, tensor: torch.Tensor) -> bool:
        """Tell a tensor that neither the tape nor the call has made."""
        return self._known(tensor) is None or self._ids.get(id(tensor)) in self.constants

    # --- operators ---------------------------------------------------------------------------------------------------

    def operator(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator natively and write it down; take apart what the dictionary lists only in parts."""
        if self._paused or not isinstance(func, torch._ops.OpOverload):
            if not self._paused and self.record:
                raise self._refusal(CaptureError, f"the higher-order operator `{func}` is not captured")
            return func(*args, **kwargs)
        args, kwargs = self._substituted(args, kwargs)
        changed = self._changed(func, args, kwargs)
        args, kwargs = self._protect(func, changed, args, kwargs)
        if not self.record:
            return self._made(func(*args, **kwargs))
        if packet_name(func) in ("is_nonzero", "item", "_local_scalar_dense", "equal", "allclose"):
            return self._leaving(func, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags
        differentiable = any(t.requires_grad for t in _tensors((args, kwargs))) and torch.is_grad_enabled()
        depends = any(self.values[self.reference(t).value].depends_on_point for t in _tensors((args, kwargs)))
        binding = bind(func, args, kwargs)
        if random and (binding is None or binding.operation.kind is Kind.INDEX) and not self._off(func, args, kwargs):
            return self._random(mode, func, args, kwargs, depends)
        if binding is None and depends:
            opened = self._open(mode, func, args, kwargs)
            if opened is not NotImplemented:
                return opened
            if differentiable:
                raise self._unlisted(func)
        return self._run(func, args, kwargs, changed)

    def _made(self, result: Any) -> Any:
        """Remember what the function itself has made, which it may change as it likes."""
        for tensor in _tensors(result):
            self._ids[id(tensor)] = -1
            self._alive.append(tensor)
        return result

    def _open(self, mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator as the formula it stands for, whose operators are written down instead."""
        formula = FORMULAS.get(packet_name(func))
        if formula is None and not func._can_decompose():
            return NotImplemented
        with enable_python_dispatcher(), mode:
            if formula is not None:
                return formula(**arguments_of(func, args, kwargs))
            return func.decompose(*args, **kwargs)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], changed: list[torch.Tensor]) -> Any:
        """Run an operator natively and write it down as one step."""
        references = _map_tensors((args, kwargs), self.reference)
        name = packet_name(func)
        result = func(*args, **kwargs)
        if name in ("lift_fresh", "lift"):
            result = result.clone()
        forced: tuple[tuple[int, int], ...] = ()
        if name in COMPARISONS:
            result, forced = self._force(func, args, result)
        outputs = result if isinstance(result, tuple | list) else (result,)
        numbers = self._number(outputs, name, references, changed)
        target = torch.ops.aten.clone.default if name in ("lift_fresh", "lift") else func
        self._write(
            target, *references, numbers, single=not isinstance(result, tuple | list), changed=changed, forced=forced
        )
        return result

    def _number(self, outputs: Any, name: str, references: Any, changed: list[torch.Tensor]) -> tuple[int | None, ...]:
        """Number the results of a step and say on what they depend."""
        read = [r.value for r in _refs(references)]
        point = any(self.values[v].depends_on_point for v in read)
        data = any(self.values[v].depends_on_data for v in read)
        ancestors = frozenset().union(*(self._ancestors.get(v, frozenset()) for v in read))
        if name in COMPARISONS and point:
            ancestors = ancestors | {len(self.steps)}
        numbers: list[int | None] = []
        for output in outputs:
            if not isinstance(output, torch.Tensor):
                numbers.append(None)
                continue
            number = self._ids.get(id(output))
            if number is None:
                number = self._new_value(output, name.strip("_"), point=False)
            value = self.values[number]
            self.values[number] = Value(
                value.name,
                tuple(output.shape),
                str(output.dtype).removeprefix("torch."),
                value.differentiable or output.requires_grad,
                value.depends_on_point or point,
                value.depends_on_data or data,
            )
            self._ancestors[number] = self._ancestors.get(number, frozenset()) | ancestors
            numbers.append(number)
        for tensor in changed:
            self._spread(tensor, point, data, ancestors)
        return tuple(numbers)

    def _spread(self, changed: torch.Tensor, point: bool, data: bool, ancestors: frozenset[int]) -> None:
        """Let every value that shares the memory of a changed tensor depend on what it now depends on."""
        storage = _storage(changed)
        for number, tensor in self._tensors.items():
            if _storage(tensor) == storage:
                value = self.values[number]
                self.values[number] = Value(
                    value.name,
                    value.shape,
                    value.dtype,
                    value.differentiable or tensor.requires_grad,
                    value.depends_on_point or point,
                    value.depends_on_data or data,
                )
                self._ancestors[number] = self._ancestors.get(number, frozenset()) | ancestors

    def _write(
        self,
        target: Any,
        args: Any,
        kwargs: Any,
        results: tuple[int | None, ...],
        *,
        single: bool,
        changed: list[torch.Tensor] | None = None,
        forced: tuple[tuple[int, int], ...] = (),
        operation: Any = None,
        source: Source | None = None,
    ) -> Step:
        """Append a step."""
        if operation is None:
            shadow = _map_refs((args, kwargs), lambda r: self._tensors[r.value])
            binding = bind(target, *shadow)
            reverse = {id(self._tensors[r.value]): r for r in _refs((args, kwargs))}
            operands = tuple(reverse.get(id(o), o) for o in binding.operands) if binding else ()
            operation = binding.operation if binding else opaque("constant")
            attributes = binding.attributes if binding else {}
            label = packet_name(target) + ("_" if changed else "")
            dynamic = torch.Tag.dynamic_output_shape in target.tags
        else:
            operands = tuple(r for r in _refs((args, kwargs)))
            attributes, label, dynamic = {}, operation.name, False
        cast = None
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                cast = (device, str(torch.get_autocast_dtype(device)).removeprefix("torch."))
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
            mode=Mode(torch.is_grad_enabled(), cast),
            source=source or user_frame(),
            module=self._modules[-1] if self._modules else "",
            label=label,
            single=single,
            forced=forced,
            dynamic_shape=dynamic,
        )
        self.steps.append(step)
        return step

    # --- what Python sees ---------------------------------------------------------------------------------------------

    def _leaving(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator whose result is a Python number, and write down the guard."""
        references = _map_tensors((args, kwargs), self.reference)
        outcome = func(*args, **kwargs)
        read = [r.value for r in _refs(references)]
        values = [self.values[v] for v in read]
        if not any(v.depends_on_point or v.depends_on_data for v in values):
            return outcome
        name = packet_name(func)
        branch = name in ("is_nonzero", "equal", "allclose") or isinstance(outcome, bool)
        step = self._write(func, *references, (), single=True)
        comparisons = frozenset().union(*(self._ancestors.get(v, frozenset()) for v in read))
        kind = "branch" if branch else "item"
        self.guards.append(Guard(step.index, kind, outcome, step.source, tuple(sorted(comparisons))))
        return outcome

    def escape(self, way: str, tensor: torch.Tensor, result: Any) -> None:
        """Write down a tensor that left as a list or an array."""
        if self._paused or not self.record or not isinstance(tensor, torch.Tensor):
            return
        reference = self.reference(tensor)
        value = self.values[reference.value]
        if value.depends_on_point or value.depends_on_data:
            with self.paused():
                outcome = tensor.detach().clone()
            step = self._write(torch.ops.aten.clone.default, (reference,), {}, (), single=True)
            self.guards.append(Guard(step.index, way, outcome, step.source))

    def _force(self, func: Any, args: tuple[Any, ...], result: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Override the outcome of a comparison at its tied elements, as the search for other branches asks."""
        ordinal = self._comparisons
        self._comparisons += 1
        forced = tuple((element, sign) for (k, element), sign in self.forced.items() if k == ordinal)
        return (force_ties(packet_name(func), args, result, forced) if forced else result), forced

    # --- protection ----------------------------------------------------------------------------------------------------

    def _substituted(self, args: Any, kwargs: Any) -> Any:
        """Put in the clones of the user's tensors that the function has changed, and cut their own graphs."""

        def substitute(tensor: torch.Tensor) -> torch.Tensor:
            other = self._substitutes.get(id(tensor))
            if other is not None:
                return other
            if self.record and tensor.requires_grad and tensor.is_leaf and self._known(tensor) is None:
                other = tensor.detach()
                self._alive += [tensor, other]
                self._substitutes[id(tensor)] = other
                return other
            return tensor

        return _map_tensors((args, kwargs), substitute)

    def _changed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """List the tensors that an operator writes to."""
        named, changed = arguments_of(func, args, kwargs), []
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                found = named[argument.name]
                changed += [t for t in (found if isinstance(found, list) else [found]) if isinstance(t, torch.Tensor)]
        if packet_name(func) in RUNNING_STATISTICS and (named.get("training") or named.get("use_input_stats")):
            changed += [t for k in ("running_mean", "running_var") if isinstance(t := named.get(k), torch.Tensor)]
        return changed

    def _protect(self, func: Any, changed: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        """Let an operator write to clones instead of the user's tensors; refuse what would change the inputs."""
        replaced: dict[int, torch.Tensor] = {}
        for i, tensor in enumerate(changed):
            storage = _storage(tensor)
            if storage in self._input_storage:
                number = self._known(tensor)
                name = self.values[number].name if number is not None else "an input"
                raise self._refusal(
                    ChangedInput,
                    f"`{packet_name(func)}_` changes the input {name} in place",
                    "clone it first: `x = x.clone()`",
                )
            if self._known(tensor) is None or self._known(tensor) in self.constants:
                self.protected = True
                with self.paused():
                    copy = tensor.detach().clone()
                self._alive += [tensor, copy]
                self._substitutes[id(tensor)] = copy
                replaced[id(tensor)] = copy
                if self.record:
                    reference = self.reference(tensor)
                    number = self._new_value(copy, "copy")
                    self._write(torch.ops.aten.clone.default, (reference,), {}, (number,), single=True)
                changed[i] = copy
            elif any(_storage(c) == storage for c in self.constants.values()):
                raise self._refusal(
                    ChangedInput,
                    f"`{packet_name(func)}_` changes a tensor from outside the function through a view",
                    "clone that tensor inside the function, or pass it as data",
                )
        if not replaced:
            return args, kwargs
        return _map_tensors((args, kwargs), lambda t: replaced.get(id(t), t))

    # --- randomness, user functions ------------------------------------------------------------------------------------

    def _off(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Tell a random operator that draws nothing in this call."""
        named = arguments_of(func, args, kwargs)
        return (
            named.get("train") is False
            or named.get("training") is False
            or named.get("p") == 0
            or named.get("dropout_p") == 0
        )

    def _random(self, mode: Any, func: Any, args: Any, kwargs: Any, depends: bool) -> Any:
        """Refuse a draw, or freeze it: the drawn tensor becomes a constant of the program."""
        if self.randomness != "freeze":
            raise self._refusal(
                RandomnessError,
                f"`{packet_name(func)}` draws random numbers, so that the function has no one value at x",
                "switch it off (model.eval()), or pass randomness='freeze' to keep the draws of this capture",
            )
        if depends:
            opened = NotImplemented if packet_name(func) in DRAWN_INSIDE else self._open(mode, func, args, kwargs)
            if opened is not NotImplemented:
                return opened
            if packet_name(func) == "rrelu_with_noise":
                return self._frozen_slopes(mode, func, args, kwargs)
            values = [self.values[self.reference(t).value] for t in _tensors((args, kwargs))]
            name = packet_name(func)
            without = name.endswith("_like") or name in ("bernoulli", "multinomial", "poisson")
            if any(v.differentiable for v in values) and torch.is_grad_enabled() and not without:
                raise self._refusal(
                    RandomnessError, f"`{packet_name(func)}` draws numbers whose law depends on x", "draw them outside"
                )
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor):
            raise self._refusal(
                RandomnessError, f"the draws of `{packet_name(func)}` cannot be frozen", "draw them outside"
            )
        with self.paused():
            drawn = result.detach().clone()
        number = self._ids.get(id(result))
        if number is None:
            number = self._new_value(result, "drawn")
            constant = self._new_value(drawn, "constant")
            self.constants[constant] = drawn
            self._write(torch.ops.aten.clone.default, (Ref(constant),), {}, (number,), single=True)
        else:
            constant = self._new_value(drawn, "constant")
            self.constants[constant] = drawn
            self._write(
                torch.ops.aten.copy_.default, (Ref(number), Ref(constant)), {}, (number,), single=True, changed=[result]
            )
        return result

    def _frozen_slopes(self, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Freeze the slopes that `rrelu` draws as it goes: its kernel leaves them in its argument `noise`."""
        named = arguments_of(func, args, kwargs)
        operand, noise = named["self"], torch.empty_like(named["self"])
        with self.paused(), torch.no_grad():
            torch.ops.aten.rrelu_with_noise.default(operand.detach(), noise, named["lower"], named["upper"], True)
        with enable_python_dispatcher(), mode:
            return torch.where(operand <= 0, operand * noise, operand)

    def user_function(self, cls: Any, native: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a user's `autograd.Function` as one opaque step with its own backward."""
        if self._paused:
            return native(*args, **kwargs)
        args, kwargs = self._substituted(args, kwargs)
        references = _map_tensors((args, kwargs), self.reference)
        tensors = list(_tensors((args, kwargs)))
        versions = [t._version for t in tensors]
        with self.paused():
            result = native(*args, **kwargs)
        if [t._version for t in tensors] != versions:
            raise self._refusal(
                CaptureError,
                f"the autograd.Function `{cls.__name__}` changes its arguments in place",
                "return a new tensor",
            )
        outputs = result if isinstance(result, tuple | list) else (result,)
        fresh = tuple(o.view_as(o) if isinstance(o, torch.Tensor) and id(o) in self._ids else o for o in outputs)
        numbers = self._number(fresh, cls.__name__, references, [])
        step = self._write(
            cls.apply,
            *references,
            numbers,
            single=not isinstance(result, tuple | list),
            operation=opaque(_safe_name(cls.__name__)),
        )
        if any(t.requires_grad for t in tensors):
            self.find(
                "opaque",
                f"`{cls.__name__}.apply` brings its own backward, which is used as it is",
                "its kinks cannot be seen: register it, or write it with torch's operators",
                step.source,
            )
        return fresh if isinstance(result, tuple) else list(fresh) if isinstance(result, list) else fresh[0]

    # --- messages ------------------------------------------------------------------------------------------------------

    def find(self, rule: str, message: str, advice: str = "", source: Source | None = None) -> None:
        """Keep a finding, once per line."""
        source = source or user_frame()
        key = (rule, source.file if source else "", source.line if source else 0)
        self.findings.setdefault(key, Finding(rule, message, source, advice))

    def _refusal(self, error: type[CaptureError], found: str, advice: str = "") -> CaptureError:
        """Write an error: what was found, on which line, what to do."""
        source = user_frame()
        text = f"capture: {found} ({source or 'an unknown line'})."
        return error(f"{text} {advice[:1].upper()}{advice[1:]}." if advice else text)

    def _unlisted(self, func: Any) -> CaptureError:
        """Write the error for an operator that the dictionary does not list."""
        name = f"{func.namespace}::{packet_name(func)}"
        return self._refusal(
            UnlistedOperation,
            f"the dictionary does not list the operator `{func}`",
            f"register it: `nonsmooth.register(nonsmooth.Operation(name={packet_name(func)!r}, kind='smooth'), torch={name!r})` "
            "if it is smooth, or with a record of its kinks (docs/dictionary.md); `nonsmooth ops --missing` lists what else is missing",
        )


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Write down what runs inside."""
    with tape.running():
        yield tape


def force_ties(name: str, args: tuple[Any, ...], result: torch.Tensor, forced: Any) -> torch.Tensor:
    """Override tied elements of `a name b` as if a - b were a little positive (sign 1) or negative (sign -1)."""
    outcome = {
        "gt": (False, True),
        "ge": (False, True),
        "lt": (True, False),
        "le": (True, False),
        "eq": (False, False),
        "ne": (True, True),
    }
    left, right = outcome[name]
    flat = result.clone().reshape(-1)
    tied = (
        (torch.as_tensor(args[0]) == torch.as_tensor(args[1], device=result.device))
        .broadcast_to(result.shape)
        .reshape(-1)
    )
    for element, sign in forced:
        flat[element] = torch.where(tied[element], right if sign > 0 else left, flat[element])
    return flat.reshape(result.shape)


def _safe_name(name: str) -> str:
    """Make an operation's name of a class name."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "function"


def _storage(tensor: torch.Tensor) -> int:
    """Identify the memory of a tensor; 0 for one without any."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):
        return -id(tensor)


def _alias_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Identify what a tensor shows: memory, offset, shape, strides."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return (-id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    """Walk the tensors of nested arguments."""
    for leaf in flatten(tree)[0]:
        if isinstance(leaf, torch.Tensor):
            yield leaf


def _map_tensors(tree: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Replace the tensors of nested arguments."""
    leaves, structure = flatten(tree)
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return tree
    return unflatten([change(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], structure)


def _refs(tree: Any) -> Iterator[Ref]:
    """Walk the references of nested arguments."""
    return (leaf for leaf in flatten(tree)[0] if isinstance(leaf, Ref))


def _map_refs(tree: Any, change: Callable[[Ref], Any]) -> Any:
    """Replace the references of nested arguments."""
    leaves, structure = flatten(tree)
    return unflatten([change(leaf) if isinstance(leaf, Ref) else leaf for leaf in leaves], structure)
