"""Strong zeros: in the branch of a `where` that is not taken, a zero cotangent absorbs infinity.

`where(x > 0, sqrt(x), 0)` has the derivative 0 for x <= 0, and backpropagation says 0 * inf = nan. An entry is
*structurally unselected* if every use of it ends, through element-wise steps, in branches that are not taken; there,
and nowhere else, the cotangent of a singular operation is the number zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nonsmooth.dictionary import Kind, Select
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["guard_against_infinity", "unselected_entries", "unselected_uses"]

Route = tuple[Any, ...]
"""("where", step, branch), ("all", routes): how the uses of a value end."""

_ELEMENTWISE = frozenset(
    "add sub rsub mul div neg exp log log1p expm1 sin cos tan tanh sigmoid sqrt rsqrt reciprocal pow power square abs "
    "relu softplus log_sigmoid clamp acos asin atan lgamma erf erfinv positive clone copy cast log2 log10 "
    "exp2 sinh cosh".split()
)
"""Operations that act entry by entry, so that an unused entry of the result leaves an entry of the operand unused."""


def unselected_uses(program: Program) -> Mapping[int, Route]:
    """Find the singular and jumping steps all of whose uses end in branches of `where`."""
    results = {r.value for r in references(program.result)}
    found = {}
    for step in program.nonsmooth:
        if step.operation.kind in (Kind.SINGULAR, Kind.JUMP) and step.results[0] is not None and not step.mutates:
            route = _route(program, step.results[0], results)
            if route is not None:
                found[step.index] = route
    return found


def _route(program: Program, value: int, results: set[int]) -> Route | None:
    """Describe how the uses of a value end, or None if one of them counts."""
    uses = program.uses.get(value, ())
    if value in results or not uses:
        return None
    routes: list[Route] = []
    for use in uses:
        if use.results == (value,) and not use.mutates:
            continue  # a cast to the dtype that it has gives the value itself
        if isinstance(use.operation, Select) and Ref(value) not in use.operands[:1]:
            for branch, operand in ((1, use.operands[1]), (2, use.operands[2])):
                if operand == Ref(value):
                    onward = _route(program, use.results[0], results) if use.results[0] is not None else None
                    routes.append(("where", use, branch, onward))
        elif use.operation.name in _ELEMENTWISE and use.results and use.results[0] is not None and not use.mutates:
            onward = _route(program, use.results[0], results)
            if onward is None:
                return None
            routes.append(onward)
        else:
            return None
    return ("all", tuple(routes))


def unselected_entries(route: Route, shape: torch.Size, masks: Mapping[int, torch.Tensor]) -> torch.Tensor | None:
    """Mark the unselected entries, once every `where` on the way has run."""
    if route[0] == "all":
        parts = [unselected_entries(r, shape, masks) for r in route[1]]
        if any(p is None for p in parts) or not parts:
            return None
        return torch.stack([p for p in parts if p is not None]).all(0)
    _, step, branch, onward = route
    weight = masks.get(step.index)
    if weight is None:
        return None
    unused = weight == (1 if branch == 2 else 0)
    if onward is not None:
        later = unselected_entries(onward, weight.shape, masks)
        unused = unused if later is None else unused | later
    return _fit(unused, shape)


def _fit(mask: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """Bring a mask to the shape of the operand: an entry spread over several counts if any of those does."""
    try:
        wide = torch.broadcast_shapes(mask.shape, shape)
    except RuntimeError:
        return None
    mask = mask.broadcast_to(wide)
    extra = len(wide) - len(shape)
    axes = [*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and wide[extra + i] != 1)]
    for axis in sorted(axes, reverse=True):
        mask = mask.all(axis, keepdim=axis >= extra)
    return mask


class _StrongZero(torch.autograd.Function):
    """The identity, whose backward puts zeros at the unselected entries."""

    @staticmethod
    def forward(ctx: Any, operand: torch.Tensor, route: Route, masks: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return the operand."""
        ctx.route, ctx.masks = route, masks
        return operand.view_as(operand)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Let the strong zeros absorb."""
        mask = unselected_entries(ctx.route, gradient.shape, ctx.masks)
        if mask is not None:
            gradient = torch.where(mask, torch.zeros_like(gradient), gradient)
        return gradient, None, None


def guard_against_infinity(
    step: Step,
    operands: tuple[torch.Tensor, ...],
    args: Any,
    kwargs: Any,
    route: Route,
    masks: Mapping[int, torch.Tensor],
) -> torch.Tensor:
    """Run a singular step with strong zeros on the way back to its operands."""
    guarded: dict[int, Any] = {id(t): _StrongZero.apply(t, route, masks) for t in operands if t.requires_grad}
    args = tuple(guarded.get(id(a), a) for a in args)
    return step.target(*args, **kwargs)  # type: ignore[no-any-return]
