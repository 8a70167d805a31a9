"""The doors that take a framework's own object instead of a point: a model, a training loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from nonsmooth.errors import UsageError

__all__ = ["at_kinks", "objective"]


def objective(
    model: Any, loss: Callable[..., Any] | None = None, *, step: Callable[..., Any] | None = None
) -> tuple[Callable[..., Any], Any]:
    """Give a model's objective as a function of its trainable parameters, and the point where they are now.

    f(parameters, *data) = loss(model(*inputs), target), data = (*inputs, target), or step(model, *batch). Frozen
    parameters are constants, buffers are cloned at every evaluation; the model itself is never changed.

    Args:
        model: a `torch.nn.Module`.
        loss: a function of (output, target).
        step: instead of a loss, a function of (model, *batch) that returns the loss.

    Returns:
        The function, and the point: a dict from names to parameters.

    Raises:
        UsageError: no module, neither or both of loss and step, or nothing to train.

    >>> import torch
    >>> import nonsmooth as ns
    >>> model = torch.nn.Linear(2, 1)
    >>> f, x = ns.objective(model, torch.nn.functional.mse_loss)
    >>> sorted(x), f(x, torch.zeros(3, 2), torch.zeros(3, 1)).shape
    (['bias', 'weight'], torch.Size([]))
    """
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch.objective import make_objective

        return make_objective(model, loss, step=step)
    raise UsageError(f"objective takes a torch.nn.Module; found a {type(model).__module__}.{type(model).__name__}.")


def at_kinks(convention: Any = "framework", *, seed: int = 0) -> AbstractContextManager[Any]:
    """Choose the slopes at kinks in ordinary eager training: `with ns.at_kinks(0.5): loss.backward()`.

    The forward pass must run inside; every operation with an active kink gets the selected slope, all others stay the
    framework's own. An operation that cannot be served keeps its native rule and warns once.

    Args:
        convention: as `at_kinks=` of `backprop`.
        seed: of the draws of "random".

    Raises:
        ConventionError: the convention means nothing. UsageError: no framework is loaded.

    >>> import torch
    >>> import nonsmooth as ns
    >>> x = torch.zeros(2, requires_grad=True)
    >>> with ns.at_kinks(0.5):
    ...     torch.relu(x).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.5000])
    """
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch.eager import AtKinksMode

        return AtKinksMode(convention, seed=seed)
    raise UsageError("at_kinks works around eager training in PyTorch: import torch first.")
