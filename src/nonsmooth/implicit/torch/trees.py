"""Trees of tensors in which equations are written, and what a solver may return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.frameworks.torch.tree import flatten, is_finite, leaf_names, unflatten

__all__ = ["TREES", "TorchTrees", "accept", "detached", "in_transform", "met_equations", "note", "squared_norm"]


class TorchTrees:
    """PyTorch as `equation.Trees` wants it."""

    @staticmethod
    def gradient(f: Callable[..., Any], y: Any, theta: tuple[Any, ...]) -> Any:
        """Give the gradient of the scalar f(y, *theta) in y, like y."""
        leaves, structure = flatten(y)
        if in_transform():
            return torch.func.grad(lambda z: _scalar(f, f(z, *theta)))(y)
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():
            moving = [t if t.requires_grad else t.detach().requires_grad_() for t in leaves]
            value = _scalar(f, f(unflatten(moving, structure), *theta))
            if not value.requires_grad:
                return unflatten([torch.zeros_like(t) for t in moving], structure)
            found = torch.autograd.grad(
                value, moving, create_graph=differentiated, allow_unused=True, materialize_grads=True
            )
        return unflatten(list(found), structure)

    @staticmethod
    def plus(y: Any, z: Any, factor: float = 1.0) -> Any:
        """Give y + factor z, leaf by leaf."""
        ours, structure = flatten(y)
        theirs, other = flatten(z)
        if structure != other:
            raise UsageError(
                f"the function gives {_described(z)} where its solution is {_described(y)}: it must give as many equations as "
                "there are unknowns, in the same structure."
            )
        for name, a, b in zip(leaf_names(y, "y"), ours, theirs, strict=True):
            if not isinstance(b, torch.Tensor) or a.shape != b.shape:
                raise UsageError(
                    f"the function gives {_described(b)} where its solution {name} is {_described(a)}: it must give as many "
                    "equations as there are unknowns, in the same shapes."
                )
        if factor == -1.0:
            return unflatten([a - b for a, b in zip(ours, theirs, strict=True)], structure)
        return unflatten([a + factor * b for a, b in zip(ours, theirs, strict=True)], structure)


@contextmanager
def met_equations() -> Iterator[list[str]]:
    """List the equations that are solved meanwhile."""
    found: list[str] = []
    token = _MET.set(found)
    try:
        yield found
    finally:
        _MET.reset(token)


def note(equation: str) -> None:
    """Tell that an equation is solved."""
    found = _MET.get()
    if found is not None:
        found.append(equation)


_MET: ContextVar[list[str] | None] = ContextVar("equations", default=None)

TREES = TorchTrees()
"""The one instance."""


def in_transform() -> bool:
    """Tell whether a transform of torch.func is being applied here and now."""
    return bool(torch._C._functorch.maybe_current_level() is not None)


def detached(tree: Any) -> Any:
    """Give a tree without its graph; what are no tensors stay as they are."""
    leaves, structure = flatten(tree)
    return unflatten([t.detach() if isinstance(t, torch.Tensor) else t for t in leaves], structure)


def squared_norm(leaves: list[torch.Tensor]) -> float:
    """Give the sum of the squares of all entries."""
    return float(sum(float(t.detach().double().square().sum()) for t in leaves))


def accept(y: Any, like: torch.Tensor | None, start: Any, name: str, *, begins: bool = False) -> Any:
    """Turn what a solver returned, or what it begins with, into a tree of tensors of its own, cut from every graph.

    Arrays of numpy and numbers become tensors of the type and on the device of `like`.

    Raises:
        UsageError: it is no tree of floating numbers, or not of the structure and shapes of the start.
        NotConverged: it holds a nan or an infinity.
    """
    leaves, structure = pytree.tree_flatten(y)
    said = f"the start of {name} is" if begins else f"the solver of {name} returned"
    if not leaves:
        raise UsageError(f"{said} {y!r}: a solution is a tensor or a tree of tensors.")
    found = [_tensor(leaf, like, label, said) for leaf, label in zip(leaves, leaf_names(y, "y"), strict=True)]
    for label, leaf in zip(leaf_names(y, "y"), found, strict=True):
        if not is_finite(leaf):
            bad = "nan" if bool(torch.isnan(leaf).any()) else "inf"
            where = tuple(int(i) for i in (~torch.isfinite(leaf)).nonzero()[0])
            if begins:
                raise NotConverged(f"{said} not finite: {label} holds {bad} at index {where}.")
            raise NotConverged(
                f"{said} a solution that is not finite: {label} holds {bad} at index {where}. It has "
                "diverged, or there is no solution: start nearer, make smaller steps, or check that the equation has one."
            )
    solution = pytree.tree_unflatten(found, structure)
    if start is not None:
        _check_like(solution, start, name)
    return solution


def _tensor(leaf: Any, like: torch.Tensor | None, label: str, said: str) -> torch.Tensor:
    """Make one leaf a floating tensor with memory of its own."""
    if isinstance(leaf, torch.Tensor):
        found = leaf.detach().clone()
    elif isinstance(leaf, float | np.ndarray | np.generic) and np.asarray(leaf).dtype.kind == "f":
        dtype, device = (like.dtype, like.device) if like is not None else (None, None)
        found = torch.tensor(np.asarray(leaf), dtype=dtype, device=device)
    else:
        raise UsageError(
            f"{said} {_described(leaf)} as {label}: a solution is made of floating tensors, arrays of numpy or floats."
        )
    if not found.is_floating_point() or found.layout is not torch.strided:
        raise UsageError(
            f"{said} {_described(leaf)} as {label}: a solution is made of dense floating tensors, for "
            "only these have derivatives."
        )
    return found


def _check_like(solution: Any, start: Any, name: str) -> None:
    """Refuse a solution of another structure than the start."""
    ours, structure = pytree.tree_flatten(solution)
    theirs, other = pytree.tree_flatten(start)
    if structure != other or any(tuple(a.shape) != tuple(np.shape(b)) for a, b in zip(ours, theirs, strict=True)):
        raise UsageError(
            f"the solver of {name} returned {_described(solution)}, and its start is {_described(start)}: both must have the "
            "structure and shapes of the solution."
        )


def _scalar(f: Callable[..., Any], value: Any) -> torch.Tensor:
    """Refuse an objective that is no scalar."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise UsageError(
            f"the objective {getattr(f, '__name__', type(f).__name__)} gives {_described(value)}: what is minimised is a "
            "scalar; sum it up."
        )
    return value.reshape(())


def _described(item: Any) -> str:
    """Say what something is, with its shapes."""
    if isinstance(item, torch.Tensor):
        return f"a tensor of shape {tuple(item.shape)} and type {str(item.dtype).removeprefix('torch.')}"
    if isinstance(item, np.ndarray):
        return f"an array of shape {item.shape} and type {item.dtype}"
    leaves = pytree.tree_leaves(item)
    if len(leaves) == 1 and leaves[0] is item:
        return f"a {type(item).__name__}"
    shapes = ", ".join(
        f"{label} {tuple(np.shape(leaf))}" for label, leaf in zip(leaf_names(item, "y"), leaves, strict=True)
    )
    return f"a {type(item).__name__} of {len(leaves)} leaves ({shapes})"
