"""The space of points: trees of tensors as vectors; see `replay.space`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat.torch as xp
import torch

from nonsmooth.frameworks.replay.space import Space
from nonsmooth.frameworks.torch.tree import flatten, is_finite, unflatten

__all__ = ["SPACE", "TorchSpace"]


class TorchSpace(Space):
    """The points of torch."""

    xp: Any = xp
    array_word = "tensor"
    flatten = staticmethod(flatten)
    unflatten = staticmethod(unflatten)

    @staticmethod
    def is_array(leaf: Any) -> bool:
        """Tell a tensor."""
        return isinstance(leaf, torch.Tensor)

    @staticmethod
    def detached(array: torch.Tensor) -> torch.Tensor:
        """Give a tensor without its graph."""
        return array.detach()

    @staticmethod
    def numpy(array: Any) -> Any:
        """Give the values of an array to numpy."""
        array = (array if isinstance(array, torch.Tensor) else torch.as_tensor(array)).detach().cpu()
        return (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()

    @staticmethod
    def array_like(leaf: torch.Tensor, values: Any) -> torch.Tensor:
        """Make a tensor of the type of a leaf."""
        return leaf.new_tensor(values)

    @staticmethod
    def finite(tree: Any) -> bool:
        """Tell whether all entries of a tree of tensors are finite."""
        return all(is_finite(t) for t in flatten(tree)[0])

    @staticmethod
    def differentiate(
        function: Callable[[list[Any]], Any], leaves: list[Any], cotangent: list[Any] | None, wanted: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a function by torch alone: its floating results, and the pullback of a cotangent (ones if None)."""
        for leaf in leaves if wanted else ():
            leaf.requires_grad_()
        results = [t for t in flatten(function(leaves))[0] if isinstance(t, torch.Tensor) and t.is_floating_point()]
        total: Any = None
        weights: Sequence[Any] = cotangent or [None] * len(results)
        for t, w in zip(results, weights, strict=True):
            part = t.sum() if w is None or bool((w == 1.0).all()) else (t * t.new_tensor(w)).sum()
            total = part if total is None else total + part
        if getattr(total, "requires_grad", False):
            total.backward(inputs=leaves)
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        return results, gradients

    @staticmethod
    def lattice(leaf: torch.Tensor, digits: list[Any]) -> torch.Tensor:
        """Make a tensor like a leaf of digits to the base 256, in its own precision throughout."""
        total = torch.zeros(leaf.numel(), dtype=leaf.dtype)
        part = torch.empty_like(total)
        for place, drawn in enumerate(digits):
            unit = 256.0 ** -(place + 1)
            total.add_(part.copy_(torch.from_numpy(drawn)).mul_(2 * unit).sub_(255 * unit))
        return total.reshape(leaf.shape).to(leaf.device)


SPACE = TorchSpace()
"""The one instance."""
