"""Backward passes that the user wrote in Python, and what they compute where no kernel of torch is seen (numpy, C)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction

from nonsmooth.frameworks.torch.arguments import storage_of, tensors_of
from nonsmooth.program.names import identifier

__all__ = ["PythonNodes"]

Found = Callable[[str, Any, list[torch.Tensor], list[torch.Tensor]], None]


class PythonNodes:
    """Watches the nodes of a graph whose backward is Python, and tells of cotangents that no kernel of theirs has made.

    A cotangent is explained by what came in, what the node had kept, and the results of the kernels that ran under it; one
    that lies in other memory was computed out of sight. `found` is called with the name of the backward, its node, what came
    in, and the cotangents out of nowhere.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        self._made: list[torch.Tensor] = []
        self._running = False

    def saw(self, arguments: Any, result: Any) -> None:
        """Take note of what a kernel has returned in new memory."""
        if self._running:
            taken = set(map(storage_of, tensors_of(arguments)))
            self._made += (t for t in tensors_of(result) if storage_of(t) not in taken)

    @contextmanager
    def watching(self, result: torch.Tensor) -> Iterator[None]:
        """Watch the nodes behind a result until the end of the block; they are left as they were."""
        with ExitStack() as stack:
            for node in _python_nodes(result.grad_fn):
                stack.callback(node.register_prehook(self._before).remove)
                stack.callback(node.register_hook(lambda out, come, node=node: self._after(node, out, come)).remove)
            yield

    def _before(self, come: Sequence[torch.Tensor | None]) -> None:
        """Begin a node."""
        self._made, self._running = [], True

    def _after(self, node: Any, out: Sequence[torch.Tensor | None], come: Sequence[torch.Tensor | None]) -> None:
        """End a node: look where the memory of its cotangents is from."""
        given = [t for t in come if t is not None]
        known = {
            storage_of(t) for t in (*given, *self._made, *node.saved_tensors, *tensors_of(list(vars(node).values())))
        }
        unknown = [t for t in out if t is not None and storage_of(t) not in known]
        self._made, self._running = [], False
        if unknown:
            self._found(_name(node), node, given, unknown)


def _python_nodes(root: Any) -> Iterator[Any]:
    """Walk the nodes of a graph whose backward is Python."""
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            yield node
        stack += [n for n, _ in node.next_functions]


def _name(node: Any) -> str:
    """Name a backward: `MineBackward` of a function Mine, `lib_mine_backward` of an operator lib::mine."""
    cls = node._forward_cls
    if cls.__module__ == torch._library.autograd.__name__:
        operator = inspect.getclosurevars(cls.forward).nonlocals["op"]
        return identifier(f"{operator._schema.name.replace('::', '_')}_backward")
    return identifier(str(node.name()))
