"""Chosen slopes in ordinary eager training: a mode around the user's own forward and backward passes.

A function mode looks at every function of torch; the few that may hold kinks or decide them run under a dispatch mode,
which sees the operators inside, all others run untouched. An operator whose kinks are active gets the selected
derivative exactly as in the evaluation of a program.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from nonsmooth.dictionary import OPERATIONS, Extremum, Nonsmooth, Select, Singularity, Switch
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.frameworks.replay.predicates import SIDES, combine, compare
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.interception import alone_at_pre_dispatch, is_tracing
from nonsmooth.frameworks.torch.names import ALIASES, OPENED, TABLE, Row, arguments_of, bind, packet_name
from nonsmooth.frameworks.torch.weighing import active_masks, call_of, weighed
from nonsmooth.program import Step

__all__ = ["AtKinksMode", "OperatorsMode"]


_DIRECT: dict[Any, Any] = {
    function: getattr(torch.ops.aten, name).default
    for name in "relu abs leaky_relu hardtanh hardswish hardsigmoid elu max_pool1d max_pool2d max_pool3d".split()
    for home in (torch, torch.Tensor, torch.nn.functional)
    if (function := getattr(home, name, None)) is not None
}
"""Functions that are one operator with the same arguments: they need no dispatch mode to be seen."""

_UNTOUCHED = frozenset(["backward", "detach", "get", "grad", "len", "register_hook", "requires_grad", "set", "size"])
"""Functions that run as they are: they compute nothing, or run the backward pass."""

_SMOOTH = frozenset(
    """cross_entropy multi_head_attention_forward dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout
    feature_alpha_dropout""".split()
)
"""Functions of Python that hold no kinks, as one can read in them."""

_BOOLEAN = frozenset(
    ["or", "and", "xor", "invert", *(n for n, record in ALIASES.items() if record in ("compare", "logic"))]
)
"""Functions that make the predicates of a later `where`."""


_PASSING = frozenset(
    "to long int float double half bfloat16 bool type type_as byte short neg abs add sub mul add_ sub_ mul_ eq ne lt le gt "
    "ge logical_not reshape view expand squeeze unsqueeze permute transpose clone detach rsub radd rmul".split()
)
"""Functions that hold no kinks, and pass the ties of a discrete value on to what they make of it alone."""

_HOLDS: dict[Any, bool] = {}
"""What is known of functions."""


def _is_smooth(row: Row) -> bool:
    """Tell a row that is smooth whatever its arguments."""
    return isinstance(row.operation, str) and OPERATIONS[row.operation].kind.is_smooth


def _may_hold_kinks(func: Callable[..., Any], name: str) -> bool:
    """Tell whether a function of torch may hold kinks, or a comparison that decides one."""
    name = name.strip("_")
    if name in _UNTOUCHED or name in _SMOOTH:
        return False
    if name in _BOOLEAN or name in FORMULAS or name in OPENED:
        return True
    rows = [row for key, row in TABLE.items() if key.split(".")[0] == name]
    if rows:
        return not all(_is_smooth(row) for row in rows)
    return getattr(func, "__module__", None) in (
        "torch.nn.functional",
        "torch._C._linalg",
        "torch._tensor",
        "torch.functional",
    )


class _Operators(SchemaCheckMode):
    """The dispatch mode: sees the operators inside one function of torch."""

    def __init__(self, owner: OperatorsMode) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.owner = owner

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisablePythonDispatcher():  # else torch would run its own decompositions, with other slopes
            return self.owner.operator(self, func, args, kwargs or {})


class OperatorsMode(TorchFunctionMode):
    """A mode that hands every operator with kinks to `nonsmooth`; the rest runs untouched."""

    def __init__(self) -> None:
        super().__init__()
        self._operators = _Operators(self)
        self._predicates: Any = WeakIdKeyDictionary()
        self._still: Any = WeakIdKeyDictionary()
        self._warned: set[str] = set()

    def may_hold_kinks(self, func: Callable[..., Any]) -> bool:
        """Tell whether a function of torch must be looked into."""
        key = func, len(OPERATIONS)  # the user may register more
        holds = _HOLDS.get(key)
        if holds is None:
            holds = _HOLDS[key] = _may_hold_kinks(func, getattr(func, "__name__", ""))
        return holds

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch, its operators with kinks by `nonsmooth`."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or is_tracing():
            return func(*args, **kwargs)
        if not self.may_hold_kinks(func):
            return self.passed(func, args, kwargs)
        direct = _DIRECT.get(func)
        if (
            direct is not None
            and not (kwargs.get("inplace") or kwargs.get("return_indices") or args[-1] is True)
            and _casting_key(direct, args) is None
        ):
            return self.operator(self._operators, direct, tuple(() if a is None else a for a in args), _given(kwargs))
        with alone_at_pre_dispatch(), enable_python_dispatcher(), self._operators:
            return func(*args, **kwargs)

    def operator(self, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Run one operator: natively, opened, or by `nonsmooth`."""
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        casting = _casting_key(func, args)
        if casting is not None:  # autocast casts first, and then comes here again without it
            with enable_python_dispatcher(), mode:
                return func._op_dk(casting, *args, **kwargs)
        binding = bind(func, args, kwargs)
        if binding is None:
            return self.unlisted(mode, func, args, kwargs)
        operation = binding.operation
        if operation.name in ("compare", "logic"):
            return self._boolean(func, args, kwargs)
        if not isinstance(operation, Nonsmooth):
            value = self.other(func, args, kwargs, binding)
            if isinstance(operation, Singularity) and operation.piecewise_constant:
                self._still[value] = True  # of some of them torch has no derivative, and no node
            return value
        operands = _as_tensors(binding.operands)
        if not any(t.requires_grad for t in operands):
            return func(*args, **kwargs)
        attributes = binding.attributes
        if isinstance(operation, Select):
            predicate = self._predicates.get(operands[0])
            if predicate is None:
                return func(*args, **kwargs)
            attributes = {**attributes, **predicate.attributes()}
        return self.nonsmooth(func, args, kwargs, operation, operands, attributes)

    def nonsmooth(self, func: Any, args: Any, kwargs: Any, operation: Nonsmooth, operands: Any, attributes: Any) -> Any:
        """Run an operator with kinks."""
        raise NotImplementedError

    def other(self, func: Any, args: Any, kwargs: Any, binding: Any) -> Any:
        """Run an operator of the dictionary without kinks."""
        return func(*args, **kwargs)

    def look(
        self, func: Any, args: Any, kwargs: Any, operation: Nonsmooth, operands: Any, attributes: Any, output: Any
    ) -> None:
        """Look at an operator that another mode, above this one, has run."""

    def _boolean(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a comparison or a boolean operator, and remember its ties for a later `where`."""
        value = func(*args, **kwargs)
        name = packet_name(func)
        compared = [t for t in args if isinstance(t, torch.Tensor) and t.requires_grad] if name in SIDES else []
        if compared and len(args) == 2:
            with torch.no_grad():
                predicate = compare(xp, name, args[0], args[1], value)
            if bool(predicate.tie.any()) and any(moves(t) for t in compared if t not in self._still):
                self._predicates[value] = predicate
        elif isinstance(value, torch.Tensor) and len(self._predicates):
            self._combine(func, args, kwargs, value)
        return value

    def passed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a function without kinks; of one discrete value it passes the ties on."""
        value = func(*args, **kwargs)
        if len(self._predicates) and getattr(func, "__name__", "").strip("_") in _PASSING:
            read = [t for t in args if isinstance(t, torch.Tensor) and t in self._predicates]
            if len(read) == 1 and isinstance(value, torch.Tensor) and not value.requires_grad:
                self._combine(func, args, kwargs, value)
        return value

    def _combine(self, func: Any, args: Any, kwargs: Any, value: torch.Tensor) -> None:
        """Remember the ties behind what is made of discrete values; of numbers, of one of them alone."""
        read = [t for t in args if isinstance(t, torch.Tensor) and t in self._predicates]
        if len(read) > 1 and any(t.dtype is not torch.bool for t in read):
            return
        with torch.no_grad():
            predicate = combine(xp, func, args, kwargs, value, self._predicates.get)
        if bool(predicate.tie.any()):
            self._predicates[value] = predicate

    def unlisted(self, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Open an operator that holds kinks of several operations; run it natively, with a warning, if that fails."""
        name = packet_name(func)
        formula = FORMULAS.get(name)
        if formula is not None or func._can_decompose():
            with enable_python_dispatcher(), mode:
                return formula(**arguments_of(func, args, kwargs)) if formula else opened(func, args, kwargs)
        if name not in self._warned and any(t.requires_grad for t in _as_tensors(args) if isinstance(t, torch.Tensor)):
            self._warned.add(name)
            warnings.warn(
                f"at_kinks: the dictionary does not list `{func}`; it keeps its native derivative.", stacklevel=4
            )
        return func(*args, **kwargs)


class AtKinksMode(OperatorsMode):
    """The mode behind `with nonsmooth.at_kinks(...)`."""

    def __init__(self, select: Selector | None) -> None:
        super().__init__()
        self.select = select
        self._quiet: Any = WeakIdKeyDictionary()
        self._count = 0

    def may_hold_kinks(self, func: Callable[..., Any]) -> bool:
        """Look into nothing where the framework's own rules are asked for."""
        return self.select is not None and super().may_hold_kinks(func)

    def nonsmooth(self, func: Any, args: Any, kwargs: Any, operation: Nonsmooth, operands: Any, attributes: Any) -> Any:
        """Run an operator with kinks, with the selected slopes at the active ones."""
        in_place = func._schema.is_mutable and func._schema.arguments[0].is_write
        if in_place:
            operands = tuple(t.clone() for t in operands)
        output = func(operands[0].clone(), *args[1:], **kwargs) if in_place else func(*args, **kwargs)
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(operation, Extremum) and operands[0] in self._quiet:
            attributes = {**attributes, "flats": self._quiet[operands[0]]}
        call = call_of(operands, attributes, first)
        masks = active_masks(operation, call)
        assert self.select is not None
        self._count += 1
        step = Step(self._count, operation, func, args, kwargs, (), attributes=attributes, label=packet_name(func))
        rules = self.select(step, call, masks) if masks else None
        if rules is not None:
            first = weighed(operation, call, rules, operands, first)
        if in_place:
            first = args[0].copy_(first)
        for mode in _get_current_function_mode_stack():
            if isinstance(mode, OperatorsMode):
                mode.look(func, args, kwargs, operation, operands, attributes, first)
        if masks is None and isinstance(operation, Switch) and operation.flats is not None:
            self._quiet[first] = tuple(operation.flats(attributes))
        if in_place:
            return first
        return (first, *output[1:]) if isinstance(output, tuple | list) else first


def opened(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator made of others by torch's own kernel where it has one: those written in Python draw other numbers."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    if func.has_kernel_for_dispatch_key(composite):
        return func._op_dk(composite, *args, **kwargs)
    return func.decompose(*args, **kwargs)


def _casting_key(func: Any, args: Any) -> Any:
    """Give the dispatch key under which autocast, if it is on, has a kernel of its own for an operator."""
    tensor = next((a for a in args if isinstance(a, torch.Tensor)), None)
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return None
    key = getattr(torch._C.DispatchKey, f"Autocast{tensor.device.type.upper()}", None)
    return key if key is not None and func.has_kernel_for_dispatch_key(key) else None


def moves(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor moves with what it is computed from: not all of its graph ends in steps, as of `floor`."""
    if tensor.grad_fn is None:
        return tensor.requires_grad
    stack, seen = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node in seen or _is_constant(node):
            continue
        if not node.next_functions:  # a leaf, or a node of the user's own
            return True
        seen.add(node)
        stack += [n for n, _ in node.next_functions if n is not None]
    return False


def _is_constant(node: Any) -> bool:
    """Tell the node of a piecewise constant operator by its name, `FloorBackward0`, or by how a division rounds."""
    name = node.name().rstrip("0123456789").removesuffix("Backward").lower()
    if name == "div":
        return getattr(node, "_saved_rounding_mode", None) is not None
    row = TABLE.get(name)
    operation = OPERATIONS.get(row.operation) if row is not None and isinstance(row.operation, str) else None
    return isinstance(operation, Singularity) and operation.piecewise_constant


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leave out the arguments that torch's functions spell as None and its operators leave out."""
    return {k: v for k, v in kwargs.items() if v is not None and k not in ("inplace", "return_indices")}


def _as_tensors(operands: Any) -> tuple[Any, ...]:
    """Make tensors of plain numbers among operands."""
    like = next((t for t in operands if isinstance(t, torch.Tensor) and t.is_floating_point()), None)
    if like is None:
        return tuple(t for t in operands if isinstance(t, torch.Tensor))
    return tuple(
        t if isinstance(t, torch.Tensor) else torch.as_tensor(t, dtype=like.dtype, device=like.device)
        for t in operands
        if isinstance(t, torch.Tensor | int | float)
    )
