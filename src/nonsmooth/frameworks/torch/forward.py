"""Forward mode through one smooth step: the tangent of what it returns, given those of what it reads.

torch's own forward mode does it, but for three things: it recomputes the value of a bilinear step and materialises
zeros there, it stops at `detach`, and some operators have none; those are taken apart, or differentiated backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import array_api_compat.torch as xp
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from nonsmooth.dictionary import Kind
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.replay.arguments import map_refs, refs_of
from nonsmooth.frameworks.replay.forward import BILINEAR, Pushed, bilinear_tangents, sum_tangents
from nonsmooth.frameworks.torch.formulas import FORMULAS
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.program import Ref, Step

__all__ = ["push_forward", "written_down"]

ROWS = 4096
"""Up to how many results an operator without forward mode is differentiated backwards, one by one."""


def written_down(
    step: Step, read: Mapping[int, Any], tangents: Mapping[int, torch.Tensor], scales: Mapping[int, float]
) -> tuple[Pushed, float | None] | None:
    """Push tangents through a sum, a bilinear step, or one that returns what it reads, cut off from torch's graph."""
    if step.operation.name == "detach":
        (ref,) = list(refs_of(step.args))[:1]
        return [tangents[ref.value]], None
    with torch.no_grad():
        found = sum_tangents(xp, step, read, tangents, scales)
        if found is None and step.operation.name in BILINEAR:
            with _mode(step):
                found = bilinear_tangents(xp, step, read, tangents, scales)
        return found


def push_forward(
    step: Step,
    read: Mapping[int, Any],
    tangents: Mapping[int, torch.Tensor],
    differentiable: Sequence[bool],
    lost: bool = False,
) -> Pushed:
    """Give the tangents of the results of a step where it is smooth.

    `differentiable` tells which results have a derivative in torch's backward mode: of some operators (scatter_reduce)
    its forward mode says that there is none. `lost` tells that the first result is real and moves with the point, so
    that no tangent at all means no derivative.

    Raises:
        NoDerivative: neither torch nor a formula has the derivative.
    """
    with torch.no_grad(), _mode(step), _context(step):
        try:
            pushed = _dual(step, step.target, read, tangents)
            if any(t is None and d for t, d in zip(pushed, differentiable, strict=True)):
                return _backwards(step, read, tangents)
            if pushed[0] is None and not differentiable[0] and lost:
                raise NoDerivative(f"{step} has no derivative in torch, although its result depends on the point.")
            return pushed
        except (NotImplementedError, RuntimeError) as error:
            if not _has_no_forward_mode(error):
                raise
        linear = step.operation.kind in (Kind.AFFINE, Kind.INDEX)
        if linear and len(tangents) == 1 and not step.mutates:
            return _linear(step, read, tangents)
        formula = _formula(step)
        if formula is not None:
            try:
                return _dual(step, formula, read, tangents)
            except (NotImplementedError, RuntimeError):
                pass
    return _backwards(step, read, tangents)


def _dual(step: Step, target: Callable[..., Any], read: Mapping[int, Any], tangents: Mapping[int, Any]) -> Pushed:
    """Push tangents by torch's forward mode."""
    with forward_ad.dual_level():
        duals: dict[int, Any] = {}

        def fill(ref: Ref) -> Any:
            if ref.value not in duals:
                value = read[ref.value]
                if isinstance(value, torch.Tensor):
                    value = value.detach()
                    value = value.clone() if ref.value in step.mutates else value
                    if any(n > 1 and s == 0 for n, s in zip(value.shape, value.stride(), strict=True)):
                        value = value.contiguous()
                    tangent = tangents.get(ref.value)
                    if tangent is not None:
                        tangent = tangent.clone() if ref.value in step.mutates else tangent
                        value = forward_ad.make_dual(value, tangent.to(value.dtype))
                duals[ref.value] = value
            return duals[ref.value]

        args, kwargs = map_refs((step.args, dict(step.kwargs)), fill)
        output = target(*args, **kwargs)
        outputs = (output,) if step.single else output
        return [_unpacked(o) for o in outputs]


def _unpacked(output: Any) -> torch.Tensor | None:
    """Give the tangent of a dual number, None where it has none."""
    if not isinstance(output, torch.Tensor) or not (output.is_floating_point() or output.is_complex()):
        return None
    tangent = forward_ad.unpack_dual(output).tangent
    return tangent  # type: ignore[no-any-return]


def _linear(step: Step, read: Mapping[int, Any], tangents: Mapping[int, torch.Tensor]) -> Pushed:
    """Apply a linear step to the tangent of its one operand."""
    args, kwargs = map_refs((step.args, dict(step.kwargs)), lambda r: tangents.get(r.value, _detached(read[r.value])))
    output = step.target(*args, **kwargs)
    outputs = (output,) if step.single else output
    return [o if isinstance(o, torch.Tensor) and o.is_floating_point() else None for o in outputs]


def _formula(step: Step) -> Callable[..., Any] | None:
    """Find how a step can be taken apart into operators that have a forward mode."""
    func = step.target
    if not isinstance(func, torch._ops.OpOverload):
        return None
    formula = FORMULAS.get(packet_name(func))
    if formula is not None:
        return lambda *args, **kwargs: formula(**arguments_of(func, args, kwargs))
    if func._can_decompose():
        return lambda *args, **kwargs: func.decompose(*args, **kwargs)
    return torch._decomp.decomposition_table.get(func)


def _backwards(step: Step, read: Mapping[int, Any], tangents: Mapping[int, torch.Tensor]) -> Pushed:
    """Push tangents through an operator that only has a backward: one pass for each of its results."""
    with torch.enable_grad(), _mode(step):
        leaves = {v: read[v].detach().clone().requires_grad_() for v in tangents}
        args, kwargs = map_refs((step.args, dict(step.kwargs)), lambda r: leaves.get(r.value, _detached(read[r.value])))
        output = step.target(*args, **kwargs)
        found: Pushed = []
        for result in (output,) if step.single else output:
            if not isinstance(result, torch.Tensor) or not result.requires_grad:
                found.append(None)
                continue
            if step.operation.kind is Kind.OPAQUE:
                raise NoDerivative(f"{step} is the user's own function: its one-sided derivative is not known.")
            if result.numel() > ROWS:
                raise NoDerivative(
                    f"{step} has no forward mode in torch, and {result.numel()} results are too many to differentiate "
                    "one by one: write it with operations that have one."
                )
            tangent = torch.zeros(result.numel(), dtype=result.dtype, device=result.device)
            for place, entry in enumerate(result.reshape(-1)):
                pulled = torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, allow_unused=True)
                for g, t in zip(pulled, tangents.values(), strict=True):
                    if g is not None:
                        tangent[place] += (g * t).sum().detach()
            found.append(tangent.reshape(result.shape))
        return found


def _detached(value: Any) -> Any:
    """Cut a tensor off from its graph."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def _has_no_forward_mode(error: Exception) -> bool:
    """Tell torch's complaint that an operator has no forward mode."""
    text = str(error)
    return isinstance(error, NotImplementedError) or "forward AD" in text or "jvp" in text or "forward mode" in text


@contextmanager
def _mode(step: Step) -> Iterator[None]:
    """Cast as the step was cast."""
    with ExitStack() as stack:
        if step.mode.autocast is not None:
            device, dtype = step.mode.autocast
            stack.enter_context(torch.autocast(device, dtype=getattr(torch, dtype)))
        yield


def _context(step: Step) -> AbstractContextManager[Any]:
    """Choose the kernels that have a forward mode."""
    if step.operation.name == "scaled_dot_product_attention":
        return sdpa_kernel(SDPBackend.MATH)
    if step.operation.name in ("lstm", "gru", "rnn_tanh"):
        return _without_mkldnn()
    return nullcontext()


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Switch torch's mkldnn kernels off; `torch.backends.mkldnn.flags` sets other flags too, with a warning."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)
