"""What the inertial optimisers share of the contract of torch.optim: groups, state, checks, and lists of tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _default_to_fused_or_foreach,
    _use_grad_for_differentiable,
)

from nonsmooth.errors import UsageError
from nonsmooth.optim.inertial_newton import check, initial_psi

__all__ = ["Inertial", "Lists", "Number", "blocks", "decay", "decay_all", "is_plain", "scalar"]

Number = float | Tensor
"""A hyper-parameter: a number, or a tensor of one element."""

Lists = list[list[Tensor]]
"""Parameters, gradients, psi and what else the state holds: one list each, in the same order."""

_FLAGS = {"foreach": None, "maximize": False, "capturable": False, "differentiable": False}

_BLOCK = 2**17
"""Bytes of parameters on which all operations of a step are done before the next ones: a core's cache holds what they touch."""


class Inertial(Optimizer):
    """A step in psi, theta and the gradient, with the whole contract of torch.optim."""

    _hyperparameters: ClassVar[tuple[str, ...]]
    _state_names: ClassVar[tuple[str, ...]]

    def __init__(self, params: ParamsT, hyperparameters: dict[str, Any], flags: dict[str, Any]) -> None:
        super().__init__(params, {**hyperparameters, **flags})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with hyper-parameters of its own.

        Raises:
            UsageError: one of them is outside its range; the optimiser is then as before.
        """
        if isinstance(param_group, dict):
            self._check_group(len(self.param_groups), {**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a saved state: that of a pickle, or of `load_state_dict`."""
        for i, group in enumerate(state["param_groups"]):
            self._check_loaded(i, group, state["state"])
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in _FLAGS.items():
                group.setdefault(name, value)

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; `closure`, if given, computes the loss and the gradients again, and its loss is returned.

        Raises:
            UsageError: a hyper-parameter outside its range, or a sparse gradient; no parameter is changed then.
        """
        self._accelerator_graph_capture_health_check()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gathered = []
        for i, group in enumerate(self.param_groups):
            self._check_group(i, group)
            lists: Lists = [[] for _ in range(2 + len(self._state_names))]
            gathered.append((group, lists, self._init_group(group, *lists)))
        for group, lists, has_complex in gathered:
            if lists[0]:
                self._update(group, lists, has_complex)
        return loss

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *states: list[Tensor]
    ) -> bool:
        """Fill the lists with what has a gradient, start its state if need be, and tell whether any of it is complex."""
        found = [p for p in group["params"] if p.grad is not None]
        for p in found:
            if p.grad.layout is not torch.strided:
                raise UsageError(
                    f"{type(self).__name__} takes dense gradients; found one of layout {p.grad.layout} for a parameter of shape "
                    f"{tuple(p.shape)}. Build the layer with sparse=False, or give its parameters to torch.optim.SparseAdam."
                )
        for p in found:
            state = self.state[p]
            if not state:
                self._start(group, p, state)
            params.append(p)
            grads.append(p.grad)
            for name, values in zip(self._state_names, states, strict=True):
                values.append(state[name])
        return any(torch.is_complex(p) for p in found)

    def _start(self, group: dict[str, Any], p: Tensor, state: dict[str, Tensor]) -> None:
        """Set the state before the first step of a parameter."""
        theta = p.clone() if group["differentiable"] else p  # autograd keeps the old value
        state["psi"] = initial_psi(theta, alpha=scalar(group["alpha"], p), beta=scalar(group["beta"], p))

    @abstractmethod
    def _update(self, group: dict[str, Any], lists: Lists, has_complex: bool) -> None:
        """Change parameters and state by one step."""

    def _check_group(self, i: int, group: dict[str, Any]) -> dict[str, float | None]:
        """Refuse hyper-parameters outside their ranges, and give them; None for what only the device knows."""
        known = {name: _known(name, group[name], group["capturable"]) for name in self._hyperparameters}
        check(type(self).__name__, f"parameter group {i}", known)
        if group["foreach"] and group["differentiable"]:
            raise UsageError(
                f"{type(self).__name__}: no derivative goes through foreach=True; found it with differentiable=True in parameter "
                f"group {i}. Leave foreach out."
            )
        return known

    def _check_loaded(self, i: int, group: dict[str, Any], state: dict[Any, Any]) -> None:
        """Refuse the state of another optimiser, or of other parameters."""
        name = type(self).__name__
        missing = [key for key in self._hyperparameters if key not in group]
        if missing:
            raise UsageError(
                f"{name}: the state to load is of another optimiser: its group {i} has no {', '.join(missing)}."
            )
        self._check_group(i, {**_FLAGS, **group})
        for p in group["params"]:
            of_p = state.get(p, {})
            missing = [key for key in self._state_names if of_p and key not in of_p]
            if missing:
                raise UsageError(f"{name}: the state to load has no {', '.join(missing)} for a parameter of group {i}.")
            if of_p and of_p["psi"].shape != p.shape:
                raise UsageError(
                    f"{name}: the state to load has psi of shape {tuple(of_p['psi'].shape)} for a parameter of shape "
                    f"{tuple(p.shape)} of group {i}: it is of another model."
                )

    def _uses_foreach(self, group: dict[str, Any], params: list[Tensor]) -> bool:
        """Choose the form: the user's, else torch's own choice for these tensors."""
        if group["foreach"] is not None:
            return bool(group["foreach"])
        return bool(_default_to_fused_or_foreach(params, group["differentiable"], use_fused=False)[1])


def _known(name: str, value: Any, capturable: bool) -> float | None:
    """Give the number in a hyper-parameter; None for a tensor that is traced, or on a device that would have to be waited for."""
    if value is None:
        raise UsageError(f"{name} must be a number; found None.")
    if not isinstance(value, Tensor):
        return value  # type: ignore[no-any-return]
    if value.numel() != 1:
        raise UsageError(f"{name} must be one number; found a tensor of shape {tuple(value.shape)}.")
    if torch.compiler.is_compiling() or (capturable and value.device.type != "cpu"):
        return None
    return value.item()


def is_plain(group: dict[str, Any], *values: Number) -> bool:
    """Tell whether a step can be made in place by numbers that Python knows."""
    return not group["differentiable"] and not any(isinstance(value, Tensor) for value in values)


def scalar(value: Number, p: Tensor) -> Any:
    """Give a hyper-parameter as a number or as a tensor without dimensions where p is, so that it keeps the dtype of p."""
    if not isinstance(value, Tensor):
        return value
    value = value if value.dim() == 0 else value.squeeze()
    return value if value.device == p.device else value.to(p.device, non_blocking=True)


def blocks(lists: Sequence[list[Tensor]]) -> Iterator[Sequence[list[Tensor]]]:
    """Cut the lists, on a CPU, into stretches that stay in its cache while the operations of a step pass over them."""
    first = lists[0]
    if torch.compiler.is_compiling() or first[0].device.type != "cpu":
        yield lists
        return
    start = size = 0
    for i, tensor in enumerate(first, start=1):
        size += tensor.nbytes
        if size >= _BLOCK or i == len(first):
            yield [tensors[start:i] for tensors in lists]
            start, size = i, 0


def decay(tensor: Tensor, share: Number) -> None:
    """Take a share away, as a difference: a factor 1 - share would lose digits in half precision."""
    if isinstance(share, Tensor):
        tensor.mul_(1 - share)
    else:
        tensor.sub_(tensor, alpha=share)


def decay_all(tensors: list[Tensor], share: Number) -> None:
    """Take a share away from many tensors at once."""
    if isinstance(share, Tensor):
        torch._foreach_mul_(tensors, 1 - share)
    else:
        torch._foreach_sub_(tensors, tensors, alpha=share)
