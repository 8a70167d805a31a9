"""The space of points: trees of tensors as vectors, with directions, unit vectors and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.torch.tree import flatten, is_finite, unflatten

__all__ = [
    "array_like",
    "arrays",
    "columns",
    "combine",
    "differentiate",
    "draw",
    "eps",
    "finite",
    "flat",
    "flat_like",
    "numpy",
    "stack",
    "unflatten_entries",
    "unflatten_flat",
    "units",
]


def draw(x: Any, seed: int, digits: int = 1) -> Any:
    """Draw a direction like the point, its entries multiples of 1/256 in [-1, 1] and not 0 (finer with more digits)."""
    leaves, structure = flatten(x)
    source = np.random.SFC64(seed)
    drawn = []
    for leaf in leaves:
        total: torch.Tensor | None = None
        for digit in range(digits):  # odd multiples of 1/256, so that none is 0; then finer ones
            draws = torch.from_numpy(source.random_raw(leaf.numel() // 8 + 1).view(np.uint8))[: leaf.numel()]
            unit, part = 256.0 ** -(digit + 1), torch.empty(leaf.numel(), dtype=leaf.dtype)
            part.copy_(draws).mul_(2 * unit).sub_(255 * unit)
            total = part if total is None else total.add_(part)
        assert total is not None
        drawn.append(total.reshape(leaf.shape).to(leaf.device))
    return unflatten(drawn, structure)


def arrays(tree: Any) -> list[Any]:
    """Give the leaves of a tree of tensors to numpy."""
    return [numpy(t) for t in flatten(tree)[0]]


def stack(trees: list[Any]) -> Any:
    """Stack trees of tensors of one structure along a new last axis."""
    structure = flatten(trees[0])[1]
    leaves = zip(*(flatten(t)[0] for t in trees), strict=True)
    return unflatten([torch.stack(row, dim=-1) for row in leaves], structure)


def combine(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    """Add trees of tensors up, each times a number."""
    rows, structure = zip(*(flatten(t)[0] for t in trees), strict=True), flatten(trees[0])[1]
    return unflatten([sum(w * t.detach() for w, t in zip(weights, r, strict=True)) for r in rows], structure)


def finite(tree: Any) -> bool:
    """Tell whether all entries of a tree of tensors are finite."""
    return all(is_finite(t) for t in flatten(tree)[0])


def eps(tree: Any) -> float:
    """Give the unit of rounding of the tensors of a tree."""
    return max((torch.finfo(t.dtype).eps for t in flatten(tree)[0] if t.is_floating_point()), default=0.0)


def columns(x: Any, directions: Any) -> list[Any]:
    """Read directions: a list of trees like the point, or for a tensor one tensor whose last axis counts them."""
    if isinstance(x, torch.Tensor) and isinstance(directions, torch.Tensor):
        if directions.shape[:-1] != x.shape or directions.dim() == 0:
            raise UsageError(
                f"directions of a point of shape {tuple(x.shape)} are a tensor of shape {tuple(x.shape)} + (k,), or a "
                f"list of k tensors of that shape; found shape {tuple(directions.shape)}."
            )
        return list(directions.unbind(-1))
    if not isinstance(directions, list | tuple) or not directions:
        raise UsageError(f"directions are a list of trees like the point; found {type(directions).__name__}.")
    return list(directions)


def units(x: Any) -> list[Any]:
    """Give the unit vectors of the point's space, one for each of its entries."""
    leaves, structure = flatten(x)
    found = []
    for place, leaf in enumerate(leaves):
        for entry in range(leaf.numel()):
            parts = [torch.zeros_like(t.detach()) for t in leaves]
            parts[place].view(-1)[entry] = 1.0
            found.append(unflatten(parts, structure))
    return found


def unflatten_entries(x: Any, entries: torch.Tensor) -> Any:
    """Put one number for each entry of the point into its structure."""
    leaves, structure = flatten(x)
    parts = entries.detach().reshape(-1).split([t.numel() for t in leaves])
    return unflatten([p.reshape(t.shape).to(t.dtype) for p, t in zip(parts, leaves, strict=True)], structure)


def flat(tree: Any) -> Any:
    """Lay a tree of tensors out as one flat array of numpy, in double precision."""
    parts = [np.asarray(numpy(t), dtype=np.float64).ravel() for t in flatten(tree)[0]]
    return np.concatenate(parts) if parts else np.zeros(0)


def flat_like(x: Any, tree: Any, what: str = "a vector") -> Any:
    """Lay out a tree of the structure of the point, or a flat tensor of as many entries; refuse anything else."""
    (leaves, structure), (own, wanted) = flatten(tree), flatten(x)
    if isinstance(tree, torch.Tensor) and tree.shape == (sum(t.numel() for t in own),):
        return flat(tree)
    if structure != wanted or any(
        not isinstance(t, torch.Tensor) or t.shape != u.shape for t, u in zip(leaves, own, strict=True)
    ):
        shapes = [tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__ for t in leaves]
        raise UsageError(
            f"{what} has the structure and the shapes of the point, {[tuple(t.shape) for t in own]}, or is a flat array of "
            f"{sum(t.numel() for t in own)} numbers; found {shapes}."
        )
    return flat(tree)


def unflatten_flat(x: Any, vector: Any) -> Any:
    """Put a flat array of numpy into the structure of the point."""
    return unflatten_entries(x, torch.as_tensor(np.asarray(vector, dtype=np.float64)))


def array_like(leaf: torch.Tensor, values: Any) -> torch.Tensor:
    """Make a tensor of the type of a leaf."""
    return leaf.new_tensor(values)


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


def numpy(array: torch.Tensor) -> Any:
    """Give the values of an array to numpy."""
    array = torch.as_tensor(array).detach().cpu()
    return (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()
