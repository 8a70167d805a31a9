"""The derivative B of a residual in the solution, as a linear system: by backward passes through one recorded evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.linear import LinearSystem
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.trees import TREES

__all__ = ["System", "linear_tolerance"]

ROWS = 64
"""How many rows of the matrix are computed by one batched backward pass."""


def linear_tolerance(options: Options, eps: float) -> float:
    """Give how large the residual of a linear solve may be, relative to its right-hand side."""
    return options.linear_tolerance or float(np.sqrt(eps))


class System:
    """H near a solution: its value, attached to the parameters, and its derivative B in the solution.

    Both come from one evaluation, so that [A B] is one element of the conservative Jacobian: that of the framework's own
    choices at kinks. Changes of a tensor that it needs are seen by torch, as in any graph.
    """

    def __init__(
        self,
        residual: Callable[[Any], Any],
        y: Any,
        equation: Equation,
        options: Options,
        adjoint_of: System | None = None,
    ) -> None:
        leaves, self.structure = flatten(y)
        self.equation, self.options, self.adjoint_of = equation, options, adjoint_of
        with torch.enable_grad():
            self.leaves = [t.detach().requires_grad_() for t in leaves]
            value = residual(unflatten(self.leaves, self.structure))
            TREES.plus(y, value, -1.0)  # refuses another structure
            self.residual: list[torch.Tensor] = flatten(value)[0]
        self.shapes = [t.shape for t in self.leaves]
        self.eps = max(torch.finfo(t.dtype).eps for t in self.leaves)

    @property
    def y(self) -> Any:
        """The solution, detached."""
        return unflatten([t.detach() for t in self.leaves], self.structure)

    @cached_property
    def linear(self) -> LinearSystem:
        """B as a system of linear equations on flat arrays."""
        return LinearSystem(
            size=sum(t.numel() for t in self.leaves),
            product=lambda v: self.flat(self.push(self.parts(v))),
            transposed_product=lambda v: self.flat(self.pull(self.parts(v))),
            matrix=self.matrix,
            symmetric=self.equation.symmetric,
            eps=self.eps,
            tolerance=linear_tolerance(self.options, self.eps),
            method=self.options.linear,
            scale=0.0 if self.equation.kind == "root" or self.equation.symmetric else 1.0,
            name=f"the {self.equation.kind} of {self.equation.name}",
        )

    def pull(self, vector: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give B' v: a backward pass."""
        moving = [(r, v) for r, v in zip(self.residual, vector, strict=True) if r.requires_grad]
        if not moving:
            return [torch.zeros_like(t) for t in self.leaves]
        outputs, cotangents = zip(*moving, strict=True)
        found = torch.autograd.grad(
            outputs, self.leaves, cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return list(found)

    @cached_property
    def _transposed(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Give v and B' v as a graph, whose own backward pass is B v."""
        with torch.enable_grad():
            vector = [torch.zeros_like(r, requires_grad=True) for r in self.residual]
            moving = [(r, v) for r, v in zip(self.residual, vector, strict=True) if r.requires_grad]
            outputs, cotangents = zip(*moving, strict=True)
            pulled = torch.autograd.grad(
                outputs, self.leaves, cotangents, create_graph=True, allow_unused=True, materialize_grads=True
            )
        return vector, list(pulled)

    def push(self, vector: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give B v: a backward pass through the backward pass, which is linear in its cotangent."""
        if not any(r.requires_grad for r in self.residual):
            return [torch.zeros_like(t) for t in self.residual]
        cotangents, pulled = self._transposed
        moving = [(p, v) for p, v in zip(pulled, vector, strict=True) if p.requires_grad]
        if not moving:
            return [torch.zeros_like(t) for t in self.residual]
        outputs, directions = zip(*moving, strict=True)
        found = torch.autograd.grad(
            outputs, cotangents, directions, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return list(found)

    def matrix(self) -> Floats:
        """Give B, its rows by batched backward passes; one by one where an operation cannot be batched."""
        size = sum(t.numel() for t in self.leaves)
        rows = []
        for begin in range(0, size, ROWS):
            count = min(ROWS, size - begin)
            units = np.zeros((count, size))
            units[np.arange(count), begin + np.arange(count)] = 1.0
            rows.append(self._rows(units))
        return np.concatenate(rows) if rows else np.zeros((0, 0))

    def _rows(self, units: Floats) -> Floats:
        """Give the products u' B for the rows u of a matrix."""
        cotangents = self.parts(units)
        moving = [(r, v) for r, v in zip(self.residual, cotangents, strict=True) if r.requires_grad]
        if not moving:
            return np.zeros_like(units)
        outputs, batched = zip(*moving, strict=True)
        try:
            found = torch.autograd.grad(
                outputs,
                self.leaves,
                batched,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
                is_grads_batched=True,
            )
        except RuntimeError:  # an operation without a rule for batches
            return np.stack([self.flat(self.pull(self.parts(unit))) for unit in units])
        return np.concatenate([_numpy(t).reshape(len(units), -1) for t in found], axis=1)

    def solve(self, vector: Sequence[torch.Tensor], *, transposed: bool) -> list[torch.Tensor]:
        """Give B^-1 v, or B^-T v; tensors may have one further axis before their own, of several right-hand sides."""
        if self.adjoint_of is not None:  # its matrix is the transposed one, and is factorised already
            return self.adjoint_of.solve(vector, transposed=not transposed)
        right = np.concatenate(
            [_numpy(v).reshape(*v.shape[: v.ndim - len(s)], -1) for v, s in self._shaped(vector)], -1
        )
        with torch.no_grad():
            found = self.linear.solve(right.T, transposed=transposed).T
        return self.parts(found)

    def solve_tree(self, tree: Any) -> Any:
        """Give B^-1 v for a tree like the solution."""
        return unflatten(self.solve(flatten(tree)[0], transposed=False), self.structure)

    def _shaped(self, vector: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Size]]:
        return list(zip(vector, self.shapes, strict=True))

    def parts(self, vector: Floats) -> list[torch.Tensor]:
        """Give the tensors of a flat array, whose last axis is that of the unknowns."""
        found, begin = [], 0
        for leaf in self.leaves:
            part = np.ascontiguousarray(vector[..., begin : begin + leaf.numel()])
            begin += leaf.numel()
            tensor = torch.from_numpy(part).to(dtype=leaf.dtype, device=leaf.device)
            found.append(tensor.reshape((*vector.shape[:-1], *leaf.shape)))
        return found

    @staticmethod
    def flat(tensors: Sequence[torch.Tensor]) -> Floats:
        """Give the flat array of tensors."""
        return np.concatenate([_numpy(t).reshape(-1) for t in tensors])


def _numpy(tensor: torch.Tensor) -> Floats:
    """Give the values of a tensor in double precision."""
    return np.asarray(tensor.detach().to(device="cpu", dtype=torch.float64).numpy(force=True))
