"""A solution as a node of torch's graph: y with H(y, x) = 0 as a function of the x, so that dy = -B^-1 A dx.

One evaluation of H, on leaves of its own, gives B and A. The x are the tensors that H is given and the leaves of the graph
of what it closes over: an `nn.Module`'s parameters. Asked for derivatives of derivatives, a backward pass writes the adjoint
l as the solution of B(y, x)' l = g, an equation in l like the first with (y, x, g) as its parameters, and attaches it in the
same way, so that derivatives of every order exist.

Over 300 lines: the node, and its functions of torch.autograd, which know each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch.autograd import forward_ad

from nonsmooth.errors import ImplicitWarning, UsageError
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.closure import Replaced, Stop, key_of, leaves_of, now, stops
from nonsmooth.implicit.torch.system import System

__all__ = ["Node", "attach"]

Leaves: TypeAlias = Sequence[torch.Tensor]
Residual: TypeAlias = Callable[[Any, Leaves], Any]

CHANGED = 1e3
"""How many units of rounding a residual may differ when it is evaluated again."""


class Node:
    """What stands behind a solution in the graph.

    Attributes:
        residual: H(y, x), of a tree like the solution and the list of explicit tensors.
        explicit: these tensors, cut from the graph; leaves of the recorded evaluation where they require gradients.
        closed: what H closes over: tensors that were computed before, and the leaves of its graph.
        sources: what stands for them in the recorded evaluation; `replaced` tells those that something else stands for.
        system: the recorded evaluation.
        check: what is looked at before a derivative is given.
    """

    def __init__(
        self,
        residual: Residual,
        y: Any,
        inputs: Leaves,
        equation: Equation,
        options: Options,
        check: Callable[[Node], None] | None = None,
        of: System | None = None,
    ) -> None:
        self.residual, self.check = residual, check
        self.explicit = [t.detach().requires_grad_() if t.requires_grad else t.detach() for t in inputs]

        def evaluated() -> System:
            with _fresh_casts():
                return System(lambda z: residual(z, self.explicit), y, equation, options, of)

        begin = now()
        self.system = evaluated()
        replaced = Replaced(stops(self.system.residual, begin), lambda t: t.detach().requires_grad_())
        if replaced.wanted and torch.is_grad_enabled():
            with replaced:
                self.system = evaluated()
            self._missed(stops(self.system.residual, begin))
        computed, instead = zip(*replaced.found.values(), strict=True) if replaced.found else ((), ())
        own = {id(t) for t in [*self.system.leaves, *self.explicit, *instead]}
        leaves = [t for t in leaves_of(self.system.residual) if id(t) not in own]
        self.replaced, self.closed, self.sources = list(replaced.found), [*computed, *leaves], [*instead, *leaves]
        self.value = [r.detach() for r in self.system.residual]
        self.inputs = len(inputs)
        if forward_ad._current_level >= 0 and any(
            forward_ad.unpack_dual(r).tangent is not None for r in self.system.residual
        ):
            raise UsageError(
                f"forward mode through a tensor that {equation.name} closes over: pass it as a parameter of the "
                f"{equation.kind}, which forward mode sees."
            )

    def _missed(self, left: set[Stop]) -> None:
        """Say that tensors could not be replaced: what a custom function of torch.autograd is applied to is not seen."""
        if left:
            equation = self.system.equation
            warnings.warn(
                f"the {equation.kind} of {equation.name} closes over {len(left)} tensor(s) that were computed before or have "
                "hooks, and uses them where they cannot be replaced (in a torch.autograd.Function, in scripted code): their "
                "gradients pass them by on the way to the leaves behind them. Pass them as parameters.",
                ImplicitWarning,
                stacklevel=5,
            )

    def solve(self, vector: Leaves, *, transposed: bool) -> list[torch.Tensor]:
        """Give B^-1 v or B^-T v, without a graph; for rows of a batch, on a first axis of each tensor, as well."""
        if self.check is not None:
            self.check(self)
        if any(map(torch._C._functorch.is_legacy_batchedtensor, vector)):
            return self._solve_batched(vector, transposed)
        return list(_Solve.apply(self.system, transposed, *[v.detach() for v in vector]))

    def _solve_batched(self, vector: Leaves, transposed: bool) -> list[torch.Tensor]:
        """Solve for the batch of cotangents that torch.autograd.grad(..., is_grads_batched=True) sends."""
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        batched = [v for v in vector if torch._C._functorch.is_legacy_batchedtensor(v)]
        size = torch._remove_batch_dim(batched[0], level, 1, 0).shape[0]
        rows = [torch._remove_batch_dim(v, level, size, 0) for v in vector]
        return [torch._add_batch_dim(t, 0, level) for t in self.system.solve(rows, transposed=transposed)]

    def pull(self, adjoint: Leaves, wanted: Leaves) -> list[torch.Tensor | None]:
        """Give -A' l for some of the tensors of the recorded evaluation."""
        moving = [(r, -v) for r, v in zip(self.system.residual, adjoint, strict=True) if r.requires_grad]
        if not wanted or not moving:
            return [None] * len(wanted)
        outputs, cotangents = zip(*moving, strict=True)
        return list(torch.autograd.grad(outputs, wanted, cotangents, retain_graph=True, allow_unused=True))

    def pull_differentiably(
        self, adjoint: Leaves, y: Leaves, inputs: Leaves, closed: Leaves, wanted: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """Give -A(y, x)' l as a function of l, of y and of the x, for further derivatives."""
        gates = _Gates()
        with torch.enable_grad():
            solution = unflatten([gates.pass_on(t) for t in y], self.system.structure)
            passed = [gates.pass_on(t) for t in inputs]
            instead = dict(zip(self.replaced, map(gates.pass_on, closed), strict=False))
            if instead:
                with Replaced(set(instead), lambda t: instead[key_of(t)]):
                    again = flatten(self.residual(solution, passed))[0]
            else:
                again = flatten(self.residual(solution, passed))[0]
            self._same(again)
            sources = [*passed, *instead.values(), *closed[len(instead) :]]
            asked = [t for t, want in zip(sources, wanted, strict=True) if want]
            moving = [(r, -v) for r, v in zip(again, adjoint, strict=True) if r.requires_grad]
            if not asked or not moving:
                return [None] * len(asked)
            outputs, cotangents = zip(*moving, strict=True)
            found = torch.autograd.grad(outputs, asked, cotangents, create_graph=True, allow_unused=True)
        gates.open = True
        return list(found)

    def adjoint(self, found: Leaves, y: Leaves, inputs: Leaves, cotangents: Leaves) -> list[torch.Tensor]:
        """Attach l = B(y, x)^-T g to the graph of y, of the x and of g."""
        count, structure = len(y), self.system.structure

        def residual(vector: Any, given: Leaves) -> Any:
            """Give B(y, x)' l - g."""
            with torch.enable_grad():
                here = [t if t.requires_grad else t.detach().requires_grad_() for t in given[:count]]
                value = flatten(self.residual(unflatten(here, structure), given[count : count + len(inputs)]))[0]
                moving = [(r, v) for r, v in zip(value, vector, strict=True) if r.requires_grad]
                outputs, directions = zip(*moving, strict=True)
                pulled = torch.autograd.grad(
                    outputs, here, directions, create_graph=True, allow_unused=True, materialize_grads=True
                )
                return [p - g for p, g in zip(pulled, given[count + len(inputs) :], strict=True)]

        given = [*y, *inputs, *cotangents]
        system = self.system
        return attach(Node(residual, list(found), given, system.equation, system.options, of=system), given)

    def _same(self, again: Leaves) -> None:
        """Refuse a function that gives other values than before."""
        scale = 1 + max((float(t.detach().abs().max()) for t in self.system.leaves if t.numel()), default=0.0)
        for before, after in zip(self.value, again, strict=True):
            allowed = CHANGED * torch.finfo(before.dtype).eps * scale
            if not bool(((before - after.detach()).abs() <= allowed).all()):
                equation = self.system.equation
                raise UsageError(
                    f"{equation.name} of the {equation.kind} gives another residual at its backward pass than at its forward "
                    "pass: a tensor that it closes over has been changed in between, or it draws random numbers. "
                    "Differentiate before parameters are changed."
                )


@contextmanager
def _fresh_casts() -> Iterator[None]:
    """Let autocast cast anew, with a graph: what it keeps may have been cast for the solver, without one."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


def _same_casts(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    """Give what brings back, in a backward pass, the autocast of now on a kind of device."""
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, enabled=enabled, dtype=dtype)


def attach(node: Node, inputs: Leaves) -> list[torch.Tensor]:
    """Give the leaves of a solution as functions of the tensors that its residual is given, and of what it closes over."""
    return list(_Attached.apply(node, *inputs, *node.closed))


class _Attached(torch.autograd.Function):
    """y as a function of the x."""

    @staticmethod
    def forward(ctx: Any, node: Node, *inputs: torch.Tensor) -> Any:
        """Give the solution."""
        ctx.node, ctx.casts = node, _same_casts(node.system.leaves[0].device.type)
        ctx.set_materialize_grads(False)
        outputs = tuple(t.detach().clone() for t in node.system.leaves)
        ctx.save_for_backward(*outputs, *inputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor | None) -> Any:
        """Give -A' B^-T g."""
        node: Node = ctx.node
        wanted = ctx.needs_input_grad[1:]
        if all(g is None for g in given):
            return (None, *[None] * len(wanted))
        cotangents = [torch.zeros_like(r) if g is None else g for r, g in zip(node.value, given, strict=True)]
        with ctx.casts():
            return (None, *_Attached._pulled(ctx, node, cotangents, wanted))

    @staticmethod
    def _pulled(ctx: Any, node: Node, cotangents: Leaves, wanted: Sequence[bool]) -> list[torch.Tensor | None]:
        """Give what is wanted of -A' B^-T g."""
        adjoint = node.solve(cotangents, transposed=True)
        if torch.is_grad_enabled():
            saved, count = ctx.saved_tensors, len(node.value)
            y, inputs, closed = saved[:count], saved[count : count + node.inputs], saved[count + node.inputs :]
            adjoint = node.adjoint(adjoint, y, inputs, cotangents)
            found = iter(node.pull_differentiably(adjoint, y, inputs, closed, wanted))
        else:
            sources = [t for t, want in zip([*node.explicit, *node.sources], wanted, strict=True) if want]
            found = iter(node.pull(adjoint, sources))
        return [next(found) if want else None for want in wanted]

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: torch.Tensor | None) -> Any:
        """Give -B^-1 A dx."""
        node: Node = ctx.node
        pushed = _push(node, tangents[: node.inputs])
        found = node.solve(pushed, transposed=False)
        return tuple(_FirstOnly.apply(-t, *node.system.residual) for t in found)


def _push(node: Node, tangents: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    """Give A dx: a backward pass through the backward pass of an evaluation in which all x move."""
    with torch.enable_grad():
        moving = [t.detach().requires_grad_(d is not None) for t, d in zip(node.explicit, tangents, strict=True)]
        value = flatten(node.residual(node.system.y, moving))[0]
        dummies = [torch.zeros_like(r, requires_grad=True) for r in value]
        pairs = [(r, v) for r, v in zip(value, dummies, strict=True) if r.requires_grad]
        asked = [(t, d) for t, d in zip(moving, tangents, strict=True) if d is not None]
        if not pairs or not asked:
            return [torch.zeros_like(r) for r in value]
        outputs, cotangents = zip(*pairs, strict=True)
        sources, directions = zip(*asked, strict=True)
        pulled = torch.autograd.grad(
            outputs, sources, cotangents, create_graph=True, allow_unused=True, materialize_grads=True
        )
        known = [(p, d) for p, d in zip(pulled, directions, strict=True) if p.requires_grad]
        if not known:
            return [torch.zeros_like(r) for r in value]
        ends, directions = zip(*known, strict=True)
        return list(torch.autograd.grad(ends, dummies, directions, allow_unused=True, materialize_grads=True))


class _Solve(torch.autograd.Function):
    """B^-1 v or B^-T v as numbers, for one v or a batch of them; it is never differentiated itself."""

    @staticmethod
    def forward(system: Any, transposed: bool, *vector: torch.Tensor) -> Any:
        """Solve."""
        return tuple(system.solve(vector, transposed=transposed))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, system: Any, transposed: bool, *vector: torch.Tensor) -> Any:
        """Solve for all right-hand sides of a batch at once."""
        rows = [
            v.expand(info.batch_size, *v.shape) if d is None else v.movedim(d, 0)
            for v, d in zip(vector, in_dims[2:], strict=True)
        ]
        found = system.solve(rows, transposed=transposed)
        return tuple(found), (0,) * len(found)


class _FirstOnly(torch.autograd.Function):
    """A tangent, which refuses to be differentiated in reverse."""

    @staticmethod
    def forward(ctx: Any, tangent: torch.Tensor, *depends: torch.Tensor) -> torch.Tensor:
        """Pass the tangent on."""
        return tangent.view_as(tangent)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """Refuse."""
        raise UsageError(
            "the backward pass of a tangent of a solution (reverse over forward mode of torch.autograd.forward_ad) is not "
            "served: take second derivatives by torch.autograd.grad(..., create_graph=True)."
        )


class _Gates:
    """Passes of tensors through which a backward pass does not go until they are opened."""

    def __init__(self) -> None:
        self.open = False

    def pass_on(self, tensor: torch.Tensor) -> torch.Tensor:
        """Give a tensor whose derivatives stop here."""
        passed = _Gate.apply(self, tensor)
        assert isinstance(passed, torch.Tensor)
        return passed


class _Gate(torch.autograd.Function):
    """The identity; its backward pass is 0 while the gates are shut."""

    @staticmethod
    def forward(ctx: Any, gates: _Gates, tensor: torch.Tensor) -> torch.Tensor:
        """Pass."""
        ctx.gates = gates
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """Pass, or stop."""
        return None, cotangents[0] if ctx.gates.open else None
