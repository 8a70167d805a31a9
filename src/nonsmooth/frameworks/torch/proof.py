"""The proof of capture in torch: how a program and its function are run and differentiated; see `replay.proof`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nonsmooth.frameworks.replay.proof import Comparison, Found
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.protection import preserved
from nonsmooth.frameworks.torch.space import SPACE
from nonsmooth.frameworks.torch.tree import (
    RandomState,
    check_data,
    copy_of,
    flatten,
    is_finite,
    same_content,
    unflatten,
)
from nonsmooth.program import Program, Proof

__all__ = ["Native", "prove"]


@dataclass(frozen=True)
class Native:
    """The user's function run by torch alone; generators start as at capture, tensors that it writes to are put back."""

    function: Callable[..., Any]
    start: RandomState
    generators: list[tuple[torch.Generator, torch.Tensor]]
    rewritten: list[torch.Tensor]

    def __call__(self, x: Any, data: tuple[Any, ...], *, frozen: bool) -> Found:
        """Give the results, and the gradient of their weighed sum."""
        (leaves, structure), (items, data_structure) = flatten(x), check_data(data)
        point = [copy_of(t).requires_grad_() for t in leaves]
        if frozen:
            self.start.put()
        copies = unflatten([copy_of(t) for t in items], data_structure)
        with preserved(self.rewritten):
            try:
                results = flatten(self.function(unflatten(point, structure), *copies))[0]
                return [t.detach().clone() for t in results], gradient_of(results, point)
            finally:
                for generator, state in self.generators:
                    generator.set_state(state)


def gradient_of(results: list[torch.Tensor], point: list[torch.Tensor]) -> list[torch.Tensor]:
    """Give the gradient of the sum of results, each entry weighed by a fixed number so that none cancels."""
    total = None
    for t in results:
        if t.requires_grad and t.is_floating_point():
            weights = 1 + 0.25 * torch.sin(torch.arange(t.numel(), dtype=t.dtype, device=t.device)).reshape(t.shape)
            part = (t * weights).sum() if t.dim() else t
            total = part if total is None else total + part
    if total is None:
        return [torch.zeros_like(p) for p in point]
    try:
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(total, point, allow_unused=True)
    except RuntimeError as error:
        error.add_note("nonsmooth: raised by torch's own backward pass, while the proof of capture compared gradients.")
        raise
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, point, strict=True)]


def prove(program: Program, native: Native, x: Any, data: tuple[Any, ...], *, forced: bool = False) -> Proof:
    """Compare a program with its function at the point (unless outcomes are forced there) and at a nearby point.

    Raises:
        ProofFailed: values or gradients differ by more than rounding.
    """
    return _Comparison(native, x, data).prove(program, forced=forced)


class _Comparison(Comparison):
    """A program beside its function, as torch runs them."""

    causes = (
        "(a) the function is not deterministic or depends on hidden state that it changes; (b) a value passes through "
        "something torch does not see (numpy, another library, compiled code); (c) a hook or a custom backward changes the "
        "gradient"
    )
    same = staticmethod(same_content)

    def __init__(self, native: Native, x: Any, data: tuple[Any, ...]) -> None:
        (leaves, self._point), (items, self._data) = flatten(x), check_data(data)
        super().__init__(leaves, items, SPACE.eps(leaves))
        self.native, self.generator = native, torch.Generator().manual_seed(0)

    def moved(self, leaves: list[Any], scale: float) -> list[Any]:
        """Draw a nearby point: every floating leaf moves."""
        point = []
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or leaf.layout is not torch.strided:
                point.append(leaf)
                continue
            wide = torch.promote_types(leaf.dtype, torch.float32)
            noise = torch.rand(leaf.shape, generator=self.generator, dtype=wide).to(leaf.device)
            size = scale * (float(leaf.detach().abs().mean()) + 1e-3) if leaf.numel() else 0.0
            point.append((leaf.detach() + noise.mul_(4 * size).sub_(2 * size)).to(leaf.dtype))
        return point

    def both(self, program: Program, place: int, leaves: list[Any], items: list[Any]) -> tuple[Found, Found] | None:
        """Run both on copies."""
        point = [copy_of(t).requires_grad_() for t in leaves]
        results = flatten(replay(program, point, [copy_of(t) for t in items if isinstance(t, torch.Tensor)]).result)[0]
        ours = [t.detach() for t in results], gradient_of(results, point)
        x, data = unflatten(leaves, self._point), unflatten(items, self._data)
        theirs = self.native(x, data, frozen=program.options.get("randomness") == "freeze")
        return (ours, theirs) if all(is_finite(t) for t in theirs[0]) else None

    @staticmethod
    def hosted(array: torch.Tensor) -> Any:
        """Give a tensor to numpy in double precision."""
        return array.to(torch.complex128 if array.is_complex() else torch.float64).numpy(force=True)
