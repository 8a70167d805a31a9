"""Formulas for torch's own backward operators, which a gradient inside the function runs.

Such an operator reads what the forward operator has kept: statistics and indices that no operator has returned, or a
result from which the kink can no longer be seen. The formulas compute it again, from what the program holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from nonsmooth.frameworks.torch.arguments import storage_of
from nonsmooth.frameworks.torch.interception import _THREAD
from nonsmooth.frameworks.torch.names import arguments_of, packet_name
from nonsmooth.program import Ref, Step

if TYPE_CHECKING:
    from nonsmooth.frameworks.torch.tape import Tape

__all__ = ["BACKWARD", "backward_formula"]

Gradients = tuple[torch.Tensor | None, ...]


def backward_formula(func: Any) -> Callable[..., Any] | None:
    """Find the formula for a backward operator: ours, which may look things up on the running tape, or else torch's."""
    name = packet_name(func)
    own = BACKWARD.get(name)
    if own is not None:
        return lambda **arguments: own(getattr(_THREAD, "tape", None), **arguments)
    if not name.endswith(("_backward", "_backward_data")):
        return None
    formula = torch._decomp.decomposition_table.get(func)
    return None if formula is None else lambda **arguments: formula(*arguments.values())


def _maker(tape: Tape | None, tensor: torch.Tensor, name: str) -> Step | None:
    """Find the step of an operation that has made a tensor, if it did not write in place."""
    number = None if tape is None else tape.made(tensor)
    if tape is None or number is None:
        return None
    step = next((s for s in reversed(tape.steps) if number in s.results or number in s.mutates), None)
    return step if step is not None and step.operation.name == name and not step.mutates else None


def _still_there(tape: Tape, value: int, since: Step) -> bool:
    """Tell whether no step after another one has written to the memory of a value."""
    memory = storage_of(tape.tensors[value])
    return all(storage_of(tape.tensors[v]) != memory for s in tape.steps[since.index :] for v in s.mutates)


def _epsilon(tape: Tape | None, tensor: torch.Tensor, name: str) -> float | None:
    """Find the `eps` with which a tensor was normalised: torch does not tell it to the backward operator."""
    number = None if tape is None else tape.made(tensor)
    found = {
        float(arguments_of(s.target, s.args, s.kwargs)["eps"])
        for s in (tape.steps if tape is not None else ())
        if s.operation.name == name and s.args[0] == Ref(number)  # type: ignore[arg-type]
    }
    return found.pop() if len(found) == 1 else None


def threshold_backward(
    tape: Tape | None, grad_output: torch.Tensor, self: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Let the cotangent through where u is above a threshold.

    torch has kept the result max(u, 0), whose zeros look like ties of u > 0 although u is far from 0 there.
    """
    step = _maker(tape, self, "relu")
    if step is not None and tape is not None and isinstance(step.args[0], Ref):
        operand = step.args[0].value
        if _still_there(tape, operand, step):
            self = tape.tensors[operand]
    return torch.where(self <= threshold, torch.zeros_like(grad_output), grad_output)


def log_sigmoid_backward(
    tape: Tape | None, grad_output: torch.Tensor, self: torch.Tensor, buffer: torch.Tensor
) -> torch.Tensor:
    """Give the cotangent times 1 - sigmoid(u)."""
    del tape, buffer
    return grad_output * torch.sigmoid(-self)


def _normalised(
    grad: torch.Tensor, weight: torch.Tensor | None, centred: torch.Tensor, scale: torch.Tensor, axes: list[int]
) -> torch.Tensor:
    """Give the derivative of w (u - mean(u)) / sqrt(var(u) + eps), mean and variance over some axes."""
    unit = centred * scale
    moved = grad if weight is None else grad * weight
    return scale * (moved - moved.mean(axes, True) - unit * (moved * unit).mean(axes, True))


def _centred(u: torch.Tensor, axes: list[int], eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Give u - mean(u) and 1 / sqrt(var(u) + eps)."""
    centred = u - u.mean(axes, True)
    return centred, (centred.square().mean(axes, True) + eps).rsqrt()


def layer_norm_backward(
    tape: Tape | None,
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None,
    output_mask: Any,
    **kept: Any,
) -> Any:
    """Differentiate layer normalisation, its statistics computed again."""
    del kept
    eps = _epsilon(tape, input, "layer_norm")
    if eps is None:
        return NotImplemented
    inner = list(range(input.dim() - len(normalized_shape), input.dim()))
    outer = list(range(inner[0])) if inner else []
    centred, scale = _centred(input, inner, eps)
    along = grad_out * centred * scale
    return (
        _normalised(grad_out, weight, centred, scale, inner) if output_mask[0] else None,
        (along.sum(outer) if outer else along) if output_mask[1] else None,
        (grad_out.sum(outer) if outer else grad_out) if output_mask[2] else None,
    )


def group_norm_backward(
    tape: Tape | None,
    grad_out: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    output_mask: Any,
    **kept: Any,
) -> Any:
    """Differentiate group normalisation, its statistics computed again."""
    del kept
    eps = _epsilon(tape, input, "group_norm")
    if eps is None:
        return NotImplemented
    shape = (N, group, C // group, HxW)
    grad = grad_out.reshape(shape)
    centred, scale = _centred(input.reshape(shape), [2, 3], eps)
    factor = None if weight is None else weight.reshape(1, group, C // group, 1)
    return (
        _normalised(grad, factor, centred, scale, [2, 3]).reshape(input.shape) if output_mask[0] else None,
        (grad * centred * scale).sum((0, 3)).reshape(C) if output_mask[1] else None,
        grad.sum((0, 3)).reshape(C) if output_mask[2] else None,
    )


def batch_norm_backward(
    tape: Tape | None,
    grad_out: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    train: bool,
    eps: float,
    output_mask: Any,
    **kept: Any,
) -> Gradients:
    """Differentiate batch normalisation, its statistics computed again in training."""
    del tape, kept
    axes = [a for a in range(input.dim()) if a != 1]
    channels = [1, -1, *(1,) * (input.dim() - 2)]
    factor = None if weight is None else weight.reshape(channels)
    if train or running_mean is None or running_var is None:
        centred, scale = _centred(input, axes, eps)
        gradient = _normalised(grad_out, factor, centred, scale, axes)
    else:
        centred = input - running_mean.reshape(channels)
        scale = (running_var.reshape(channels) + eps).rsqrt()
        gradient = grad_out * scale if factor is None else grad_out * scale * factor
    return (
        gradient if output_mask[0] else None,
        (grad_out * centred * scale).sum(axes) if output_mask[1] else None,
        grad_out.sum(axes) if output_mask[2] else None,
    )


def _put_back(grad_output: torch.Tensor, self: torch.Tensor, index: torch.Tensor, axes: int) -> torch.Tensor:
    """Put every cotangent where an index of the flattened image says."""
    grad, place = grad_output.flatten(-axes), index.flatten(-axes)
    return torch.zeros_like(self).flatten(-axes).scatter_add(-1, place, grad).reshape(self.shape)


def _max_pool_backward(pool: Callable[..., Any], axes: int) -> Callable[..., torch.Tensor]:
    """Make the formula for the largest entries of regular windows, found again: their indices are no constants."""

    def formula(
        tape: Tape | None,
        grad_output: torch.Tensor,
        self: torch.Tensor,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil_mode: bool,
        **kept: Any,
    ) -> torch.Tensor:
        """Put every cotangent where the largest entry of its window is."""
        del tape, kept
        index = pool(self, kernel_size, stride or kernel_size, padding, dilation, ceil_mode, return_indices=True)[1]
        return _put_back(grad_output, self, index, axes)

    return formula


def _adaptive_max_pool_backward(pool: Callable[..., Any], axes: int) -> Callable[..., torch.Tensor]:
    """Make the formula for the largest entries of adaptive windows."""

    def formula(tape: Tape | None, grad_output: torch.Tensor, self: torch.Tensor, **kept: Any) -> torch.Tensor:
        """Put every cotangent where the largest entry of its window is."""
        del tape, kept
        index = pool(self, tuple(grad_output.shape[-axes:]), return_indices=True)[1]
        return _put_back(grad_output, self, index, axes)

    return formula


def shrink_backward(
    tape: Tape | None, lambd: float, self: torch.Tensor, grad_output: torch.Tensor | None = None, **named: Any
) -> torch.Tensor:
    """Let the cotangent through where |u| is above a threshold: `softshrink` and `hardshrink`."""
    del tape
    grad: torch.Tensor = named["grad_out"] if grad_output is None else grad_output
    return torch.where(self.abs() <= lambd, torch.zeros_like(grad), grad)


BACKWARD: dict[str, Callable[..., Any]] = {
    "threshold_backward": threshold_backward,
    "log_sigmoid_backward": log_sigmoid_backward,
    "native_layer_norm_backward": layer_norm_backward,
    "native_group_norm_backward": group_norm_backward,
    "native_batch_norm_backward": batch_norm_backward,
    "max_pool2d_with_indices_backward": _max_pool_backward(torch.nn.functional.max_pool2d, 2),
    "max_pool3d_with_indices_backward": _max_pool_backward(torch.nn.functional.max_pool3d, 3),
    "adaptive_max_pool2d_backward": _adaptive_max_pool_backward(torch.nn.functional.adaptive_max_pool2d, 2),
    "adaptive_max_pool3d_backward": _adaptive_max_pool_backward(torch.nn.functional.adaptive_max_pool3d, 3),
    "softshrink_backward": shrink_backward,
    "hardshrink_backward": shrink_backward,
}
"""Our formulas, by the operator that they stand for; each is given the tape first."""
