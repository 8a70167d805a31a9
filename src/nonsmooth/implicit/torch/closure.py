"""What a residual closes over: tensors from outside of it, on which its value depends.

Leaves of the graph, such as the weights of a module, are found in the graph of the value. A tensor that was computed before
must take the place of a leaf, and so must a leaf with hooks: else the gradient would pass it by, on its way to the leaves
behind it, or meet the hooks of a leaf twice. The residual is then evaluated with others in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

__all__ = ["Replaced", "Stop", "key_of", "leaves_of", "now", "stops"]

Leaves: TypeAlias = Sequence[torch.Tensor]
Stop: TypeAlias = tuple[Any, int]
"""A leaf, by its identity, or an output of a node of the graph."""


def now() -> int:
    """Give the number that the next node of the graph will have: those from outside have smaller ones."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).clone().grad_fn
    return int(node._sequence_nr())  # type: ignore[union-attr]


def key_of(tensor: torch.Tensor) -> Stop:
    """Tell a tensor from others, also where torch gives another object for it."""
    return (id(tensor), 0) if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def leaves_of(tensors: Leaves) -> list[torch.Tensor]:
    """Give the leaves that require gradients of the graph behind some tensors."""
    found: dict[int, torch.Tensor] = {id(t): t for t in tensors if t.is_leaf and t.requires_grad}
    for node, _ in _walk(tensors, lambda _: True):
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
    return list(found.values())


def stops(tensors: Leaves, start: int) -> set[Stop]:
    """Give what must be replaced of that on which tensors depend: results of nodes from before, and leaves with hooks."""
    found: set[Stop] = set()
    inside = lambda node: hasattr(node, "variable") or node._sequence_nr() >= start  # noqa: E731
    for node, number in _walk([t for t in tensors if t.grad_fn is not None and inside(t.grad_fn)], inside):
        if not inside(node):
            found.add((node, number))
        elif hasattr(node, "variable") and node.variable._backward_hooks:
            found.add((id(node.variable), 0))
    return found


def _walk(tensors: Leaves, into: Callable[[Any], bool]) -> Iterator[tuple[Any, int]]:
    """Walk the edges of the graph behind tensors, not beyond nodes that are not to be gone into."""
    edges: list[tuple[Any, int]] = [(t.grad_fn, t.output_nr) for t in tensors if t.grad_fn is not None]
    seen = set(edges)
    while edges:
        edge = edges.pop()
        yield edge
        if into(edge[0]):
            following = {e for e in edge[0].next_functions if e[0] is not None} - seen
            seen |= following
            edges.extend(following)


class Replaced(TorchFunctionMode):
    """While this mode is on, operations are given other tensors in the place of some.

    Attributes:
        found: the tensors that were met, and what replaces them.
    """

    def __init__(self, wanted: set[Stop], make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.wanted, self.make = wanted, make
        self.found: dict[Stop, tuple[torch.Tensor, torch.Tensor]] = {}

    def _replace(self, tensor: torch.Tensor) -> torch.Tensor:
        """Give what takes the place of a tensor."""
        key = key_of(tensor)
        if key not in self.wanted:
            return tensor
        if key not in self.found:
            self.found[key] = tensor, self.make(tensor)
        return self.found[key][1]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace among the arguments."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._replace, (args, kwargs or {}))
        return function(*args, **kwargs)
