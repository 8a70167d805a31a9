"""The second backward pass: over the user's own graph, under the other choice at the kinks that were met.

Hooks put the selected pullback of an operator in the place of the native one: the native one gets zeros, and what the selected
one gives is added to the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.autograd.graph import saved_tensors_hooks

from nonsmooth.dictionary import Call, Nonsmooth
from nonsmooth.frameworks.observation import Change
from nonsmooth.frameworks.torch.repeatable import uncompiled
from nonsmooth.frameworks.torch.weighing import weighed

__all__ = ["Hooks", "Pulled", "Totals"]


class Passing(Protocol):
    """What tells which of the two passes runs."""

    @property
    def altering(self) -> bool:
        """Whether it is the second one."""


class Hooks:
    """The hooks of an observation: parameters and inputs outlive it, and must not keep them."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._bare: list[torch.Tensor] = []

    def on(self, tensor: torch.Tensor, hook: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        """Register a hook of a tensor."""
        if tensor.is_leaf and tensor._backward_hooks is None:
            self._bare.append(tensor)
        self._handles.append(tensor.register_hook(uncompiled(hook)))

    def on_node_of(self, tensor: torch.Tensor, hook: Callable[..., Any]) -> None:
        """Register a hook of the node that made a tensor."""
        assert tensor.grad_fn is not None
        self._handles.append(tensor.grad_fn.register_prehook(uncompiled(hook)))

    def remove(self) -> None:
        """Take all of them away."""
        for handle in self._handles:
            handle.remove()
        for tensor in self._bare:
            if not tensor._backward_hooks:
                tensor._backward_hooks = None
        self._handles, self._bare = [], []


class Pulled:
    """An operator in the second backward pass: its native pullback gets zeros, its operands the selected one."""

    def __init__(self, owner: Passing, operands: Sequence[torch.Tensor], hooks: Hooks) -> None:
        self._owner, self._operands, self._hooks = owner, operands, hooks
        self.inner: tuple[torch.Tensor, ...] = ()
        self.graph: torch.Tensor | None = None
        self._cotangents: dict[int, torch.Tensor | None] = {}

    def listen(self) -> None:
        """Register the hooks of the operands, once."""
        if self.inner:
            return
        self.inner = tuple(
            t.detach().clone().requires_grad_(t.requires_grad and t.is_floating_point()) for t in self._operands
        )
        for place, operand in enumerate(self._operands):
            if operand.requires_grad:
                self._hooks.on(operand, self._operand_hook(place))

    def select(self, operation: Nonsmooth, call: Call, rules: Mapping[str, Any], output: torch.Tensor) -> None:
        """Take the derivative that a selection gives the operator, for the second pass."""
        self.listen()
        with torch.enable_grad(), saved_tensors_hooks(_same, _same):  # those of a checkpoint count what is saved
            self.graph = weighed(operation, call, rules, self.inner, output.detach())
        self.answer(output)

    def answer(self, output: torch.Tensor) -> None:
        """Register the hook of the output: on its node, so that it runs after those on it as an operand of others."""
        number = output.output_nr

        def hook(cotangents: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            cotangent = cotangents[number]
            if not self._owner.altering or self.graph is None or cotangent is None:
                return None
            places = [k for k, t in enumerate(self.inner) if t.requires_grad]
            found = torch.autograd.grad(
                self.graph, [self.inner[k] for k in places], cotangent, retain_graph=True, allow_unused=True
            )
            self._cotangents = dict(zip(places, found, strict=True))
            return (*cotangents[:number], torch.zeros_like(cotangent), *cotangents[number + 1 :])

        self._hooks.on_node_of(output, hook)

    def _operand_hook(self, place: int) -> Callable[[torch.Tensor], torch.Tensor | None]:
        """Make the hook that adds what was pulled back to an operand."""

        def hook(cotangent: torch.Tensor) -> torch.Tensor | None:
            pulled = self._cotangents.pop(place, None) if self._owner.altering else None
            return None if pulled is None else cotangent + pulled

        return hook


class Totals:
    """The gradients of a step under both choices, added up over its backward passes."""

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        self.names, self.of = list(parameters), list(parameters.values())
        self.devices = sorted({p.device.index or 0 for p in self.of if p.device.type == "cuda"})
        self._native: dict[int, torch.Tensor] = {}
        self._other: dict[int, torch.Tensor] = {}

    def begin(self) -> None:
        """Start from the gradients of earlier passes, that are there; those that were emptied are forgotten."""
        for p in self.of:
            if p.grad is None:
                self._forget(p)
            elif id(p) not in self._native:
                self._native[id(p)] = self._other[id(p)] = _wide(p.grad.detach().clone())
        emptied = [p for p in self.of if p.grad is not None and _is_zero(p.grad)]
        if any(not _is_zero(self._native[id(p)]) for p in emptied):
            for p in emptied:
                self._forget(p)

    def _forget(self, p: torch.Tensor) -> None:
        """Drop what was added up for a parameter."""
        self._native.pop(id(p), None)
        self._other.pop(id(p), None)

    def wanted(self, inputs: Any) -> list[torch.Tensor]:
        """Give the parameters that a backward pass goes to; those may be frozen while others have their turn."""
        if inputs is None:
            return [p for p in self.of if p.requires_grad]
        chosen = {id(t) for t in ([inputs] if isinstance(inputs, torch.Tensor) else inputs)}
        return [p for p in self.of if p.requires_grad and id(p) in chosen]

    def listening(self, wanted: list[torch.Tensor], owner: Passing) -> Any:
        """Collect the gradients of the first pass."""
        return _Listening(wanted, owner)

    def add(self, wanted: list[torch.Tensor], native: Mapping[int, torch.Tensor], other: Sequence[Any]) -> None:
        """Add the gradients of one backward pass."""
        for k, (p, alternative) in enumerate(zip(wanted, other, strict=True)):
            for totals, new in ((self._native, native.get(k)), (self._other, alternative)):
                if new is not None:
                    new = _wide(new.detach())
                    totals[id(p)] = _sum(totals[id(p)], new) if id(p) in totals else new

    def change(self) -> Change:
        """Compare the two gradients."""
        whole = moved = 0.0
        parameters = {}
        for name, p in zip(self.names, self.of, strict=True):
            native, other = self._native.get(id(p)), self._other.get(id(p))
            if native is None and other is None:
                continue
            size = 0.0 if native is None else float(native.norm())
            if native is None or other is None:
                away = float((other if native is None else native).norm())  # type: ignore[union-attr]
            else:
                away = float(_sum(other, -native).norm())
            whole, moved = whole + size**2, moved + away**2
            if away > 0:
                parameters[name] = away / size if size else float("inf")
        norm, gradient = moved**0.5, whole**0.5
        return Change(norm, norm / gradient if gradient else None if norm else 0.0, parameters)


class _Listening:
    """Hooks on parameters that keep what a backward pass brings, while the block runs."""

    def __init__(self, parameters: list[torch.Tensor], owner: Passing) -> None:
        self._parameters, self._owner = parameters, owner
        self._found: dict[int, torch.Tensor] = {}

    def __enter__(self) -> dict[int, torch.Tensor]:
        self._before = [p._backward_hooks for p in self._parameters]
        self._handles = [p.register_hook(uncompiled(self._keep(k))) for k, p in enumerate(self._parameters)]
        return self._found

    def _keep(self, place: int) -> Callable[[torch.Tensor], None]:
        """Make the hook of one parameter."""

        def hook(gradient: torch.Tensor) -> None:
            self._found[place] = gradient  # this very tensor, so that torch makes `.grad` of a copy

        return hook

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        for p, hooks in zip(self._parameters, self._before, strict=True):
            if hooks is None and not p._backward_hooks:
                p._backward_hooks = None


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """Keep a tensor as it is."""
    return tensor


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Give a gradient in at least single precision; those of embeddings stay sparse, as whole tables may be large."""
    tensor = tensor.to_dense() if tensor.layout not in (torch.strided, torch.sparse_coo) else tensor
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Add two gradients, each of which may be sparse."""
    return (a + b).coalesce() if a.is_sparse and b.is_sparse else (b + a if a.is_sparse else a + b)


def _is_zero(tensor: torch.Tensor) -> bool:
    """Tell a gradient without a nonzero entry."""
    return not bool((tensor._values() if tensor.is_sparse else tensor).any())
