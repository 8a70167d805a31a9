"""torch's own backward pass: the function is run once and differentiated once, every kernel below autograd seen.

A backward kernel belongs to the line whose forward operation made the node of the graph that runs: nodes are numbered in
the order in which they are made, and the additions by which the engine accumulates cotangents run under the node that has
just given one. A kernel that is no record of the dictionary is opened by torch's own formula, or keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nonsmooth.dictionary import Kind, Operation
from nonsmooth.errors import ResultError
from nonsmooth.frameworks.own_backward import OwnBackward, OwnCall, Phase
from nonsmooth.frameworks.torch.arguments import map_tensors, tensors_of
from nonsmooth.frameworks.torch.interception import ModulePath, torchs_own_slopes
from nonsmooth.frameworks.torch.names import arguments_of, bind, packet_name
from nonsmooth.frameworks.torch.own_places import OUTSIDE, Nodes, Place, inner_frame, line_outside
from nonsmooth.frameworks.torch.protection import preserved
from nonsmooth.frameworks.torch.python_nodes import PythonNodes
from nonsmooth.frameworks.torch.shaped import shaped
from nonsmooth.frameworks.torch.tree import RandomState, check_data, copy_of, flatten, unflatten
from nonsmooth.program import Program, Ref, Source, Step, Value
from nonsmooth.program.names import identifier

__all__ = ["own_backward"]

WHOLE = frozenset(
    "threshold_backward leaky_relu_backward convolution_backward max_pool2d_with_indices_backward "
    "max_pool3d_with_indices_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward avg_pool2d_backward "
    "avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward select_backward slice_backward "
    "diagonal_backward embedding_dense_backward nll_loss_backward nll_loss2d_backward native_dropout_backward "
    "_softmax_backward_data _log_softmax_backward_data native_layer_norm_backward native_batch_norm_backward "
    "native_group_norm_backward _scaled_dot_product_flash_attention_for_cpu_backward _cdist_backward _pdist_backward "
    "unfold_backward upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward "
    "upsample_linear1d_backward upsample_bilinear2d_backward upsample_trilinear3d_backward upsample_bicubic2d_backward "
    "replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward reflection_pad1d_backward "
    "reflection_pad2d_backward reflection_pad3d_backward value_selecting_reduction_backward softshrink_backward "
    "hardshrink_backward _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward "
    "_upsample_nearest_exact3d_backward _upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward "
    "grid_sampler_2d_backward grid_sampler_3d_backward _weight_norm_interface_backward multi_margin_loss_backward "
    "_ctc_loss_backward _embedding_bag _embedding_bag_backward _embedding_bag_per_sample_weights_backward scatter_reduce "
    "index_reduce segment_reduce _segment_reduce_backward nanmedian linalg_lu _trilinear "
    "mkldnn_rnn_layer mkldnn_rnn_layer_backward".split()
)
"""Kernels, backward ones above all, that are counted by a definition of their own name."""

RECORDS = {
    "_scaled_dot_product_flash_attention_for_cpu": "scaled_dot_product_attention",
    "_cdist_forward": "cdist",
    "__and__": "logic",
    "__or__": "logic",
    "__xor__": "logic",
    "_linalg_check_errors": "logic",
    "_local_scalar_dense": "item",
    "atleast_2d": "view",
    "atleast_3d": "view",
}
"""Forward kernels below autograd, by the record that they compute."""

_FILLING = frozenset("select_backward slice_backward diagonal_backward embedding_dense_backward".split())
"""Kernels by which the backward pass of an index puts a cotangent into a dense tensor of zeros."""

_UNWRITTEN = frozenset("empty empty_like empty_strided new_empty new_empty_strided".split())


def own_backward(program: Program, x: Any, data: tuple[Any, ...]) -> OwnBackward:
    """Give what torch runs for the value and the gradient of a program's function, kernel by kernel.

    The function runs once on copies, as torch runs it, with what it evaluates again (checkpoints). Tensors, `.grad` and
    random generators stay as they were.

    Raises:
        ResultError: the function is not scalar.
    """
    (leaves, _), (items, structure) = flatten(x), check_data(data)
    point, start = [copy_of(t).requires_grad_() for t in leaves], RandomState()
    copies = unflatten([copy_of(t) for t in items], structure)
    recorder = _Recorder(ModulePath(getattr(program.function, "module_name", None)))
    try:
        with (
            torchs_own_slopes(),
            torch.inference_mode(False),
            torch.enable_grad(),
            preserved([program.constants[n] for n in program.rewritten]),
            recorder.modules.following(),
            recorder,
        ):
            _differentiate(recorder, program.function, unflatten(point, program.structure), copies, point)
    finally:
        start.put()
    outside = line_outside(program, {s.place.source for s in recorder.seen})
    return OwnBackward(tuple(recorder.calls(program, outside)), outside)


def _differentiate(
    recorder: _Recorder, function: Callable[..., Any], x: Any, data: Any, point: list[torch.Tensor]
) -> None:
    """Run a function and its backward pass under the recorder; the frames of the user's are those above this one."""
    results = flatten(function(x, *data))[0]
    if len(results) != 1 or results[0].numel() != 1:
        raise ResultError(f"a gradient needs a scalar function; this one returns {len(results)} tensor(s).")
    recorder.phase = "backward"
    recorder.modules.remember()
    if results[0].requires_grad:
        with recorder.python_nodes.watching(results[0]):
            torch.autograd.grad(results[0], point, torch.ones_like(results[0]), allow_unused=True)


@dataclass(frozen=True)
class _Seen:
    """A kernel that ran: its step, for which place, and when."""

    step: Step
    place: Place
    phase: Phase
    writes: int
    again: bool = False
    fills: int = 0


class _Recorder(TorchDispatchMode):
    """The mode that writes down every kernel with its shapes, its place and its pass."""

    def __init__(self, modules: ModulePath) -> None:
        super().__init__()
        self.phase: Phase = "forward"
        self.seen: list[_Seen] = []
        self.modules, self.python_nodes = modules, PythonNodes(self._note_unseen)
        self._values: list[Value] = []
        self._nodes = Nodes()
        self._opened: tuple[Place, bool] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a kernel and write it down."""
        place = self._opened or self._where()
        result = func(*args, **(kwargs or {}))
        self.python_nodes.saw((args, kwargs), result)
        if place is not None:
            self._note(func, args, kwargs or {}, result, *place)
        return result

    def _where(self) -> tuple[Place, bool] | None:
        """Find the place for which a kernel runs, and whether it runs again; None for the seed of the backward pass."""
        source, checkpoint = inner_frame(_differentiate.__code__)
        node: Any = torch._C._current_autograd_node()
        if self.phase == "backward" and not checkpoint:
            return None if node is None else (self._nodes.place(node), False)
        place = Place(source, self.modules.current)
        self._nodes.until(torch._C._autograd._get_sequence_nr(), place)
        return place, self.phase == "backward"

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any, place: Place, again: bool) -> None:
        """Write a kernel down: as its record, as itself, or as what torch's formula for it runs."""
        name, writes, before = _own_name(func), _writes(func, result), len(self.seen)
        operation, operands, attributes = _read(func, args, kwargs)
        if operation is None and self._open(func, args, kwargs, place, again):
            if len(self.seen) > before and not self._opened:
                self.seen[-1] = replace(self.seen[-1], writes=writes)
            return
        table: dict[int, Ref] = {}

        def number(tensor: torch.Tensor) -> Ref:
            return table.setdefault(id(tensor), Ref(self._value(tensor)))

        results = [result] if isinstance(result, torch.Tensor) else result if isinstance(result, tuple | list) else []
        step = Step(
            index=len(self.seen),
            operation=operation or Operation(name=name, kind=Kind.SMOOTH),
            target=func,
            args=tuple(map_tensors(args, number)),
            kwargs=map_tensors(kwargs, number),
            results=tuple(self._value(t) if isinstance(t, torch.Tensor) else None for t in results),
            operands=tuple(map_tensors(operands, number)),
            attributes=attributes,
        )
        fills = max(writes - args[0].numel(), 0) if name in _FILLING else 0
        self.seen.append(_Seen(step, place, self.phase, 0 if self._opened else writes, again, fills))

    def _note_unseen(self, name: str, node: Any, given: list[torch.Tensor], unknown: list[torch.Tensor]) -> None:
        """Write down a backward in Python that computed out of sight, by its own name."""
        step = Step(
            index=len(self.seen),
            operation=Operation(name=name, kind=Kind.SMOOTH),
            target=type(node),
            args=(),
            kwargs={},
            results=tuple(map(self._value, unknown)),
            operands=tuple(Ref(self._value(t)) for t in given),
        )
        self.seen.append(_Seen(step, self._nodes.place(node), self.phase, sum(t.numel() for t in unknown)))

    def _value(self, tensor: torch.Tensor) -> int:
        """Number a tensor; of each only the shape is kept."""
        self._values.append(Value("", tuple(tensor.shape), str(tensor.dtype)))
        return len(self._values) - 1

    def _open(self, func: Any, args: Any, kwargs: Any, place: Place, again: bool) -> bool:
        """Run torch's formula for a kernel on tensors without memory, and write down what it runs."""
        formula = torch._decomp.decomposition_table.get(func)
        if formula is None:
            return False
        before, outer = len(self.seen), self._opened
        self._opened = place, again
        try:
            arguments, named = map_tensors((args, kwargs), _without_memory)
            with torch.no_grad(), self:
                formula(*arguments, **named)
        except Exception:  # the formula needs values: the kernel keeps its name
            del self.seen[before:]
            return False
        finally:
            self._opened = outer
        return True

    def calls(self, program: Program, outside: Source | None) -> Iterator[OwnCall]:
        """Give what was seen as calls; what no line of the function's called has the line outside."""
        whole = Program(
            framework=program.framework,
            function=program.function,
            values=tuple(self._values),
            steps=(),
            constants={},
            inputs=(),
            data=(),
            result=None,
            structure=None,
        )
        for seen in self.seen:
            source = outside if seen.place.source is OUTSIDE else seen.place.source
            call = shaped(whole, seen.step)
            yield OwnCall(call, source, seen.phase, seen.writes, seen.again, seen.fills, seen.place.module)


# --- kernels ----------------------------------------------------------------------------------------------------------


def _read(func: Any, args: Any, kwargs: Any) -> tuple[Operation | None, tuple[Any, ...], Mapping[str, Any]]:
    """Read a kernel as a call of its record, or of itself where it has a definition of its own name; else without one."""
    name = _own_name(func)
    own = name if name in WHOLE else RECORDS.get(name)
    binding = None if own or name.endswith(("_backward", "_backward_data")) else bind(func, args, kwargs)
    if binding is not None:
        return binding.operation, binding.operands, binding.attributes
    named = arguments_of(func, args, kwargs)
    tensors = tuple(v for v in named.values() if isinstance(v, torch.Tensor))
    plain = {k: v for k, v in named.items() if next(tensors_of(v), None) is None}
    return Operation(name=own, kind=Kind.SMOOTH) if own else None, tensors, plain


def _own_name(func: Any) -> str:
    """Name a kernel: one of torch's own by its operator, any other with its library, `lib_mine`."""
    name = packet_name(func)
    return name if func.namespace in ("aten", "prims") else identifier(f"{func.namespace}_{name}")


def _writes(func: Any, result: Any) -> int:
    """Count the numbers that a kernel stores: none in views of what it takes, all in new or changed memory."""
    if packet_name(func) in _UNWRITTEN:
        return 0
    found = result if isinstance(result, tuple | list) else [result]
    returns = func._schema.returns
    marks = [returns[min(k, len(returns) - 1)].alias_info if returns else None for k in range(len(found))]
    return sum(
        t.numel()
        for t, alias in zip(found, marks, strict=True)
        if isinstance(t, torch.Tensor) and (alias is None or alias.is_write)
    )


def _without_memory(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor of the same shape, strides and type without contents."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
