"""Chosen slopes at kinks around ordinary eager training, without any program."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.kinks.selection import AtKinks, selection

__all__ = ["at_kinks"]


def at_kinks(convention: AtKinks = "framework", *, seed: int = 0) -> AbstractContextManager[Any]:
    """Choose the slopes at kinks in ordinary eager training: `with ns.at_kinks(0.5): loss.backward()`.

    The forward pass must run inside. Every operation with an active kink gets the selected slope, all others stay the
    framework's own, and so do `if`s on data. An operation that cannot be served keeps its native rule and warns once.
    Status: `computed`, as `backprop`.

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

    Source: BoltePauwels2020b.
    """
    select = selection(convention, "torch", seed=seed)
    if "torch" in sys.modules:
        from nonsmooth.frameworks.torch import TORCH

        return TORCH.eager(select)
    raise UsageError("at_kinks works around eager training in PyTorch: import torch first.")
