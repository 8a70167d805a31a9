"""Objectives: a module and a loss as a function of the module's trainable parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nonsmooth.errors import UsageError

__all__ = ["Objective", "make_objective"]


class _Stepping(torch.nn.Module):
    """A module whose forward is a user's step with the model."""

    def __init__(self, model: torch.nn.Module, step: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._step = step
        self.training = model.training

    def forward(self, *batch: Any) -> Any:
        """Run the user's step."""
        return self._step(self.model, *batch)


class Objective:
    """The function (parameters, *data) -> loss; the model itself is never changed.

    Buffers are cloned at every evaluation, since batch norm updates them; frozen parameters are constants.
    """

    def __init__(self, model: torch.nn.Module, step: Callable[..., Any]) -> None:
        self.model = model
        self._stepping = _Stepping(model, step)
        self._paths: dict[int, str] = {id(m): n for n, m in model.named_modules()}

    def module_name(self, module: torch.nn.Module) -> str:
        """Give the path of a module in the model."""
        return self._paths.get(id(module), "")

    def __call__(self, parameters: Any, *data: Any) -> Any:
        """Evaluate the objective."""
        buffers = {n: b.clone() for n, b in self.model.named_buffers()}
        state = {f"model.{n}": t for n, t in _everywhere(self.model, {**buffers, **parameters}).items()}
        return torch.func.functional_call(self._stepping, state, data, tie_weights=False)


def _everywhere(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give tensors to all places that share them, each place once.

    A module that is used twice is one place: torch's own tying takes it for two, and does not put it back as it was.
    """
    names: dict[int, str] = {}
    found = dict(tensors)
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                place = f"{path}.{name}" if path else name
                first = names.setdefault(id(tensor), place)
                if first in tensors:
                    found[place] = tensors[first]
    return found


def make_objective(
    model: torch.nn.Module, loss: Callable[..., Any] | None = None, *, step: Callable[..., Any] | None = None
) -> tuple[Objective, dict[str, torch.Tensor]]:
    """Give the objective of a model and the point: its trainable parameters."""
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"objective takes a torch.nn.Module; found a {type(model).__name__}.")
    if (loss is None) == (step is None):
        raise UsageError("objective takes either a loss, for loss(model(*inputs), target), or step=f(model, *batch).")
    if loss is not None and not callable(loss):
        raise UsageError(f"the loss must be callable: loss(output, target); found a {type(loss).__name__}.")
    point: dict[str, torch.Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not point:
        raise UsageError("the model has no trainable parameter: all have requires_grad=False, or there is none.")

    def supervised(network: torch.nn.Module, *batch: Any) -> Any:
        if len(batch) < 2:
            raise UsageError(
                f"an objective with a loss is called with data (*inputs, target); found {len(batch)} item(s)."
            )
        assert loss is not None
        return loss(network(*batch[:-1]), batch[-1])

    return Objective(model, step or supervised), point
