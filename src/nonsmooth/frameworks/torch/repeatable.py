"""Whether a backward pass may run once more unnoticed: not where it runs code that is not torch's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction
from torch.nn.parallel import DistributedDataParallel

__all__ = ["foreign_nodes", "has_packing", "may_hook", "uncompiled"]

_KNOWN = ("nonsmooth.", "torch.nn.parallel.distributed._DDPSink")
"""Where an `autograd.Function` may run twice: this library's, and one of DistributedDataParallel, that remembers it."""

_GIVES_NODE = vars(torch._C.TensorBase)["grad_fn"].__get__


def may_hook(func: Any, args: Any) -> bool:
    """Tell a function by which a hook can come onto a graph; torch does not tell afterwards which nodes have one.

    That is whoever asks for a node, but for DistributedDataParallel, which only looks whether there is one.
    """
    if func is torch.Tensor.register_hook:
        return True
    if func != _GIVES_NODE or args[0].grad_fn is None:
        return False
    reader: FrameType | None = sys._getframe(2)
    while reader is not None and reader.f_globals.get("__name__", "").startswith("nonsmooth."):
        reader = reader.f_back  # another mode of this library
    return reader is None or reader.f_globals.get("__name__") != DistributedDataParallel.__module__


def foreign_nodes(roots: Any) -> list[str]:
    """Name the nodes behind some tensors that are an `autograd.Function`, but for those that may run twice."""
    found: dict[str, None] = {}
    waiting = [getattr(t, "grad_fn", None) for t in (roots if isinstance(roots, tuple | list) else [roots])]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction) and not _origin(node).startswith(_KNOWN):
            found[type(node).__name__.removesuffix("Backward")] = None
        waiting += [before for before, _ in node.next_functions]
    return list(found)


def has_packing() -> bool:
    """Tell whether what operators save for the backward pass goes through `saved_tensors_hooks` now."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def uncompiled(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a hook away from torch.compile, which takes hold of all that runs inside of a compiled training step."""
    dynamo = sys.modules.get("torch._dynamo")
    return hook if dynamo is None else dynamo.disable(hook)


def _origin(node: Any) -> str:
    """Give the name of an `autograd.Function`, with that of its module."""
    made = getattr(type(node), "_forward_cls", type(node))
    return f"{made.__module__}.{made.__qualname__}"
