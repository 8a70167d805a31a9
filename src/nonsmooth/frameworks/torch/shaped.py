"""A step of a program of torch as shapes: what a count of its operations needs to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from nonsmooth.frameworks.replay.arguments import refs_of
from nonsmooth.frameworks.replay.discrete import is_discrete
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.program import Program, Ref, Step
from nonsmooth.program.shaped import ShapedCall, ShapedOperand

__all__ = ["shaped"]

_NUMBERS = frozenset(["self", "other", "weight"])
"""Arguments that torch also takes as numbers, in the place of an array."""

_ALL = frozenset(["linalg_lstsq"])
"""Operations whose records look at some of the arrays that they take, and that cost what all of them are."""

_ALONG = frozenset(
    "sum mean nansum prod var std max min max_dim min_dim amax amin cummax cummin sort topk kthvalue median mode softmax "
    "log_softmax logsumexp logcumsumexp cumsum cumprod vector_norm norm norm_zero norm_singular glu diff cross "
    "linalg_cross fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_rfft fft_rfft2 fft_rfftn fft_irfft fft_irfft2 "
    "fft_irfftn fft_hfft fft_ihfft".split()
)
"""Operations that run along axes: those of `dim`, or all of them."""


def shaped(program: Program, step: Step) -> ShapedCall:
    """Give a step as shapes: the arrays that its record takes, which of them move, and what its attributes mean.

    Where no result is differentiated (`detach`, an index, a step under `no_grad`), nothing moves. The attribute `given`
    names the arguments of the operator that the operands are.

    >>> import nonsmooth as ns
    >>> x = torch.ones(2, 3)
    >>> program = ns.capture(lambda x: (x @ x.T).sum(), x)
    >>> call = shaped(program, program.steps[1])
    >>> call.operation, call.operands[1], call.results, call.attributes["terms"]
    ('matmul', ShapedOperand(shape=(3, 2), moving=True), ((2, 2),), 3)
    """
    values = program.values
    results = tuple(values[r] for r in step.results if r is not None)
    changed = tuple(values[m] for m in step.mutates)
    follows = any(v.differentiable and v.depends_on_point for v in (*results, *changed))

    def operand(item: Any) -> ShapedOperand:
        if not isinstance(item, Ref):
            return ShapedOperand((), item=item)
        value = values[item.value]
        moving = follows and value.differentiable and value.depends_on_point
        return ShapedOperand(_shape(program, item.value, step.index), moving, item)

    taken = _taken(step)
    operands = tuple(operand(item) for _, item in taken)
    shown = [r for r in step.results if r is not None] or step.mutates
    shapes = tuple(_shape(program, r, step.index + 1) for r in shown)
    attributes = {**_named(step), **step.attributes, "given": tuple(name for name, _ in taken)}
    plain = {k: v for k, v in attributes.items() if not _holds_arrays(v)}
    found = ShapedCall(step.operation.name, operands, shapes, plain)
    return replace(found, attributes={**plain, **_canonical(program, step, found)}, discrete=is_discrete(program, step))


def _shape(program: Program, value: int, before: int) -> tuple[int, ...]:
    """Give the shape that a value has before a step: what is known of it is the one that it has at the end."""
    changes = program.__dict__.get("_torch_reshaping")
    if changes is None:
        changes = [s for s in program.steps if s.mutates and s.label in _RESHAPING]
        program.__dict__["_torch_reshaping"] = changes
    shape = list(program.values[value].shape)
    for step in reversed(changes):
        if step.index < before or value not in step.results:
            continue
        arguments = [v for k, v in _named(step).items() if k != "self"]
        if step.label in ("unsqueeze_", "squeeze_"):
            ndim = len(shape) + (step.label == "squeeze_")
            axes = [a for v in arguments for a in ([v] if isinstance(v, int) else v)]
            for axis in sorted(a % max(ndim, 1) for a in axes):
                if step.label == "squeeze_":
                    shape.insert(axis, 1)
                else:
                    del shape[axis]
        elif len(shape) > 1:
            one, two = arguments or (0, 1)
            shape[one], shape[two] = shape[two], shape[one]
    return tuple(shape)


_RESHAPING = frozenset("unsqueeze_ squeeze_ t_ transpose_ swapaxes_ swapdims_".split())
"""Operators that change the shape of an array in place; an axis that is squeezed is taken to have had the size 1."""


def _named(step: Step) -> dict[str, Any]:
    """Give the arguments of an operator by their names; none for what is no operator."""
    if not isinstance(step.target, torch._ops.OpOverload):
        return {}
    return arguments_of(step.target, step.args, step.kwargs)


def _holds_arrays(value: Any) -> bool:
    """Tell an attribute that is or holds an array."""
    if isinstance(value, torch.Tensor | Ref):
        return True
    return isinstance(value, list | tuple) and any(map(_holds_arrays, value))


def _operands(step: Step) -> list[Any]:
    """List references and numbers in the order of the record."""
    return [item for _, item in _taken(step)]


def _taken(step: Step) -> list[tuple[str, Any]]:
    """List references and numbers, with the arguments that they are, in the order of the row, or of the operator."""
    named = _named(step)
    direct = [v for v in named.values() if isinstance(v, Ref)]
    if not named or (list(step.operands) != direct and step.operation.name not in _ALL):
        names = {v: k for k, v in reversed(named.items()) if isinstance(v, Ref)}
        return [(names.get(o, "") if isinstance(o, Ref) else "", o) for o in step.operands]
    return list(_arrays(step, named))


def _arrays(step: Step, named: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Walk the arrays among the arguments of an operator, also in lists, and the numbers in their place."""
    for argument in step.target._schema.arguments:  # type: ignore[attr-defined]
        name, value, kind = argument.name, named[argument.name], str(argument.type)
        if isinstance(value, list | tuple):
            yield from ((name, ref) for ref in refs_of(value))
        elif isinstance(value, Ref) or (
            isinstance(value, bool | int | float | complex)
            and ("Tensor" in kind or (kind == "number" and name in _NUMBERS))
        ):
            yield name, value


# --- what shapes leave open -------------------------------------------------------------------------------------------


def _canonical(program: Program, step: Step, call: ShapedCall) -> dict[str, Any]:
    """Say what the attributes mean, in the words that every framework shares."""
    name = call.operation
    label = packet_name(step.target) if isinstance(step.target, torch._ops.OpOverload) else ""
    found: dict[str, Any] = {"pullback": True} if label.endswith(("_backward", "_backward_data")) else {}
    if name.startswith("conv") and name not in ("contiguous", "conj") and len(call.operands) > 1:
        return found | _convolution(label, call)
    if name == "scaled_dot_product_attention":
        mask = step.kwargs.get("attn_mask", step.args[3] if len(step.args) > 3 else None)
        return found | {"boolean_mask": isinstance(mask, Ref) and program.values[mask.value].dtype == "bool"}
    if name.startswith("upsample"):
        return found | {"antialias": label.endswith(("_aa", "_aa_backward")), "exact": "_exact" in label}
    if name in ("lstm", "gru", "rnn_tanh"):
        return found | {"packed": step.target._overloadname == "data"}  # type: ignore[attr-defined]
    if name in ("layer_norm", "rms_norm"):
        ndim = len(call.operands[0].shape)
        return found | {"axes": tuple(range(ndim - len(call.attributes.get("normalized_shape", ())), ndim))}
    if name in _ALONG:
        found["axes"] = _axes(call)
    if name in _TERMS:
        place, axis = _TERMS[name]
        found["terms"] = (call.operands[place].shape or (1,))[axis]
    if name == "addbmm":
        found["terms"] *= call.operands[1].shape[0]
    return found


_TERMS: dict[str, tuple[int, int]] = {
    **dict.fromkeys("matmul mm bmm mv dot vdot inner linear".split(), (0, -1)),
    **dict.fromkeys("addmm addbmm baddbmm addmv".split(), (1, -1)),
}
"""The operand and its axis that counts the products summed into one entry of the result."""


def _axes(call: ShapedCall) -> tuple[int, ...]:
    """Read the axes along which an operation runs."""
    ndim = len(call.operands[0].shape) if call.operands else 0
    dim = call.attributes.get("dim")
    if call.operation == "cross" and dim is None:
        dim = call.operands[0].shape.index(3)
    sizes = call.attributes.get("s")
    if dim is None and sizes is not None:
        return tuple(range(ndim - len(sizes), ndim))
    if dim is None or dim == []:
        return tuple(range(ndim))
    chosen = [dim] if isinstance(dim, int) else list(dim)
    return tuple(d % ndim for d in chosen) if ndim else ()


def _convolution(label: str, call: ShapedCall) -> dict[str, Any]:
    """Read the geometry of a convolution; that of a transposed one is that of the convolution that it is.

    A transposed convolution is the convolution, with the turned kernel and stride 1, of the image with stride - 1 zeros
    between its entries, padded by dilation (kernel - 1) - padding.
    """
    image, weight = call.operands[1:3] if label == "convolution_backward" else call.operands[:2]
    a = call.attributes
    if call.operation == "conv_tbc":
        (time, batch, taken), (length, _, out) = image.shape, weight.shape
        pad = ((a["pad"], a["pad"]),)
        return _geometry((time,), (length,), (1,), pad, (1,), (1,), 1, False, (taken, out), batch)
    d = len(weight.shape) - 2
    transposed = bool(a.get("transposed", "transpose" in call.operation))
    kernel, spatial = weight.shape[2:], image.shape[-d:]
    stride, dilation = _spread(a["stride"], d), _spread(a["dilation"], d)
    pads = _padding(a["padding"], kernel, dilation)
    base = (1,) * d
    if transposed:
        extra = _spread(a.get("output_padding", 0), d)
        reach = [n * (k - 1) for n, k in zip(dilation, kernel, strict=True)]
        pads = tuple((r - p[0], r - p[1] + e) for r, p, e in zip(reach, pads, extra, strict=True))
        base, stride = stride, base
    channels = (image.shape[-d - 1], weight.shape[1] * a["groups"] if transposed else weight.shape[0])
    batch = image.shape[0] if len(image.shape) > d + 1 else 1
    return _geometry(spatial, kernel, stride, pads, base, dilation, a["groups"], transposed, channels, batch)


def _geometry(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    base_dilation: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    transposed: bool,
    channels: tuple[int, int],
    batch: int,
) -> dict[str, Any]:
    """Name the parts of a geometry."""
    return {
        "spatial": tuple(spatial),
        "kernel": tuple(kernel),
        "stride": stride,
        "padding": padding,
        "base_dilation": base_dilation,
        "dilation": dilation,
        "groups": groups,
        "transposed": transposed,
        "channels": channels,
        "batch": batch,
    }


def _spread(value: Any, d: int) -> tuple[int, ...]:
    """Spread a number over the axes of a window."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * d if len(values) == 1 else values)


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Read the padding of each axis: numbers, "valid", or "same", whose odd entry stands at the end."""
    if value == "valid":
        return ((0, 0),) * len(kernel)
    if value == "same":
        total = [n * (k - 1) for n, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    return tuple((p, p) for p in _spread(value, len(kernel)))
