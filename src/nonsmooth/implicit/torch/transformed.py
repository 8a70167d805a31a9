"""Solutions inside of the transforms of torch.func: grad, vjp, jvp, jacrev, jacfwd, hessian, vmap, nested in any order.

There the derivatives of a solution are written with functions that have all they depend on as arguments, since a transform
follows nothing else:

    y = G(x),                G'(x) dx = -B(y, x)^-1 A(y, x) dx,      G'(x)' g = -A(y, x)' B(y, x)^-T g
    s = B(y, x)^-1 v,        ds = B^-1 (dv - dB s)

so that a tensor that H closes over, and through which a transform would have to differentiate, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.attached import Node
from nonsmooth.implicit.torch.trees import in_transform

__all__ = ["Problem", "solve_transformed"]

Leaves = Sequence[torch.Tensor]

KEPT = 8
"""How many recorded evaluations, with the factors of their derivatives, a solution keeps for its transforms."""


@dataclass(eq=False)
class Problem:
    """An equation with a way to solve it, as functions of lists of tensors.

    Attributes:
        residual: H(y, x), of a tree like the solution and the list of the floating tensors of theta.
        find: gives a checked solution at plain x, as a tree.
        check: gives what is looked at before a derivative at plain x.
        structure: of the solution, known when it has been found once.
    """

    equation: Equation
    options: Options
    residual: Callable[[Any, Leaves], Any]
    find: Callable[[Leaves], Any]
    check: Callable[[Leaves], Callable[[Node], None] | None]
    structure: Any = None
    _nodes: dict[Any, Node] = field(default_factory=dict, repr=False)

    def values(self, y: Leaves, x: Leaves) -> tuple[torch.Tensor, ...]:
        """Give H as leaves."""
        return tuple(flatten(self.residual(unflatten(list(y), self.structure), x))[0])

    def node(self, y: Leaves, x: Leaves, *, checked: bool) -> Node:
        """Record H at plain tensors, and refuse what it closes over if a derivative would have to go there."""
        key = checked, tuple((t.data_ptr(), t.shape, t.stride(), t._version) for t in [*y, *x])
        if key not in self._nodes:
            for old in list(self._nodes)[: len(self._nodes) - KEPT + 1]:
                del self._nodes[old]
            self._nodes[key] = self._recorded(y, x, checked)
        return self._nodes[key]

    def _recorded(self, y: Leaves, x: Leaves, checked: bool) -> Node:
        """Record H anew."""
        check = self.check(x) if checked else None
        plain = [t.detach() for t in x]
        with _Plain(self.equation):
            node = Node(self.residual, unflatten(list(y), self.structure), plain, self.equation, self.options, check)
        if node.closed:
            raise _closed_over(self.equation)
        return node


class _Plain(TorchFunctionMode):
    """Refuse tensors that are being transformed, where all that is given is plain: they come from a closure."""

    def __init__(self, equation: Equation) -> None:
        super().__init__()
        self.equation = equation

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the arguments of every call of torch, unless the user's own function applies a transform."""
        if not in_transform():
            for item in pytree.tree_leaves((args, kwargs)):
                if isinstance(item, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(item):
                    raise _closed_over(self.equation)
        return function(*args, **(kwargs or {}))


def _closed_over(equation: Equation) -> UsageError:
    """Write the error for what a transform does not follow."""
    return UsageError(
        f"a transform of torch.func through the {equation.kind} of {equation.name}: it closes over a tensor that requires a "
        "gradient or is transformed itself, which a transform does not follow. Pass it as a parameter (of a module: "
        "torch.func.functional_call, with the parameters passed on)."
    )


def solve_transformed(problem: Problem, x: Leaves) -> Any:
    """Give the solution as a tree, for the transforms that are being applied."""
    forward = torch._C._functorch.TransformType.Jvp
    if sum(level.key() == forward for level in torch._C._functorch.get_interpreter_stack() or ()) > 1:
        raise UsageError(
            f"forward mode over forward mode of torch.func through the {problem.equation.kind} of {problem.equation.name}: torch "
            "loses tangents of functions with their own derivatives there. Use reverse mode for one of the two: "
            "jacfwd(jacrev(f)), torch.func.hessian."
        )
    found = _Solution.apply(problem, *x)
    return unflatten(list(found), problem.structure)


class _Solution(torch.autograd.Function):
    """y = G(x)."""

    @staticmethod
    def forward(problem: Problem, *x: torch.Tensor) -> Any:
        """Solve at plain tensors."""
        with _Plain(problem.equation):
            leaves, problem.structure = flatten(problem.find(x))
        problem.node(leaves, x, checked=False)
        return tuple(t.detach().clone() for t in leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep solution and parameters."""
        ctx.problem, ctx.count = inputs[0], len(output)
        ctx.save_for_backward(*output, *inputs[1:])
        ctx.save_for_forward(*output, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """Give -A' B^-T g."""
        problem: Problem = ctx.problem
        y, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        adjoint = _Inverse.apply(problem, True, ctx.count, *y, *x, *cotangents)
        pull = torch.func.vjp(lambda *x: problem.values(y, x), *x)[1]
        return (None, *pull(tuple(-t for t in adjoint)))

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: torch.Tensor | None) -> Any:
        """Give -B^-1 A dx."""
        problem: Problem = ctx.problem
        y, x = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        dx = tuple(torch.zeros_like(t) if d is None else d for t, d in zip(x, tangents, strict=True))
        pushed = _push(lambda *x: problem.values(y, x), x, dx, y)
        return tuple(-t for t in _Inverse.apply(problem, False, ctx.count, *y, *x, *pushed))

    @staticmethod
    def vmap(info: Any, in_dims: Any, problem: Problem, *x: torch.Tensor) -> Any:
        """Solve for every element of a batch."""
        rows = [_Solution.apply(problem, *row) for row in _rows(info.batch_size, in_dims[1:], x)]
        return _stacked(rows)


class _Inverse(torch.autograd.Function):
    """s = B(y, x)^-1 v, or B(y, x)^-T v."""

    @staticmethod
    def forward(problem: Problem, transposed: bool, count: int, *tensors: torch.Tensor) -> Any:
        """Solve at plain tensors."""
        y, x, v = tensors[:count], tensors[count:-count], tensors[-count:]
        return tuple(problem.node(y, x, checked=True).solve(v, transposed=transposed))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep all."""
        ctx.problem, ctx.transposed, ctx.count = inputs[:3]
        tensors = inputs[3 : -len(output)]
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """Give w = B^-T c for v, and -<w, dB s> for (y, x)."""
        tensors, found = ctx.saved_tensors[: -ctx.count], ctx.saved_tensors[-ctx.count :]
        turned = _Inverse.apply(ctx.problem, not ctx.transposed, ctx.count, *tensors, *cotangents)
        pull = torch.func.vjp(lambda *t: _apply(ctx.problem, ctx.transposed, ctx.count, t, found), *tensors)[1]
        return (None, None, None, *pull(tuple(-w for w in turned)), *turned)

    @staticmethod
    def jvp(ctx: Any, _p: Any, _t: Any, _c: Any, *tangents: torch.Tensor | None) -> Any:
        """Give B^-1 (dv - dB s)."""
        tensors, found = ctx.saved_tensors[: -ctx.count], ctx.saved_tensors[-ctx.count :]
        moving = tuple(
            torch.zeros_like(t) if d is None else d for t, d in zip((*tensors, *found), tangents, strict=True)
        )
        pushed = _push(
            lambda *t: _apply(ctx.problem, ctx.transposed, ctx.count, t, found), tensors, moving[: -ctx.count], found
        )
        right = [d - p for d, p in zip(moving[-ctx.count :], pushed, strict=True)]
        return _Inverse.apply(ctx.problem, ctx.transposed, ctx.count, *tensors, *right)

    @staticmethod
    def vmap(info: Any, in_dims: Any, problem: Problem, transposed: bool, count: int, *tensors: torch.Tensor) -> Any:
        """Solve for every element of a batch; where only right-hand sides differ, by the same factors."""
        dims = in_dims[3:]
        if all(d is None for d in dims[:-count]) and not in_transform():
            right = [
                v.expand(info.batch_size, *v.shape) if d is None else v.movedim(d, 0)
                for v, d in zip(tensors[-count:], dims[-count:], strict=True)
            ]
            node = problem.node(tensors[:count], tensors[count:-count], checked=True)
            return tuple(node.solve(right, transposed=transposed)), (0,) * count
        rows = [_Inverse.apply(problem, transposed, count, *row) for row in _rows(info.batch_size, dims, tensors)]
        return _stacked(rows)


def _apply(problem: Problem, transposed: bool, count: int, tensors: Leaves, vector: Leaves) -> tuple[torch.Tensor, ...]:
    """Give B(y, x) v, or B(y, x)' v, as a function of (y, x)."""
    y, x = tuple(tensors[:count]), tensors[count:]
    if transposed:
        return tuple(torch.func.vjp(lambda *y: problem.values(y, x), *y)[1](tuple(vector)))
    return _push(lambda *y: problem.values(y, x), y, vector, y)


def _push(function: Callable[..., Any], x: Leaves, tangents: Leaves, like: Leaves) -> tuple[torch.Tensor, ...]:
    """Give the derivative along tangents: two backward passes, since not every operation has a forward mode."""
    dummies = tuple(torch.zeros_like(v) for v in like)
    push = torch.func.vjp(lambda *v: torch.func.vjp(function, *x)[1](v), *dummies)[1]
    return tuple(push(tuple(tangents)))


def _rows(size: int, dims: Sequence[int | None], tensors: Leaves) -> list[list[torch.Tensor]]:
    """Take a batch apart."""
    return [[t if d is None else t.select(d, k) for t, d in zip(tensors, dims, strict=True)] for k in range(size)]


def _stacked(rows: Sequence[Leaves]) -> Any:
    """Put solutions together to a batch."""
    found = tuple(torch.stack(list(parts)) for parts in zip(*rows, strict=True))
    return found, (0,) * len(found)
