"""Strong zeros: in the branch of a `where` that is not taken, a zero cotangent absorbs infinity.

`where(x > 0, sqrt(x), 0)` has the derivative 0 for x <= 0, and backpropagation says 0 * inf = nan. An entry is
*structurally unselected* if every use of it ends, through element-wise steps, in branches that are not taken; there,
and nowhere else, the cotangent of a singular operation is the number zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import Any

import numpy as np

from nonsmooth.dictionary import Kind, Select
from nonsmooth.dictionary.operation import Array
from nonsmooth.program import Program, Ref, references

__all__ = ["Route", "unselected_entries", "unselected_uses"]

Route = tuple[Any, ...]
"""("where", step, branch), ("all", routes): how the uses of a value end."""

_ELEMENTWISE = frozenset(
    "add sub rsub mul div neg exp log log1p expm1 sin cos tan tanh sigmoid sqrt rsqrt reciprocal pow power square abs "
    "relu softplus log_sigmoid clamp acos asin atan lgamma erf erfinv positive clone copy cast log2 log10 "
    "exp2 sinh cosh integer_pow logistic convert_element_type".split()
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


def unselected_entries(xp: Any, route: Route, shape: tuple[int, ...], masks: Mapping[int, Array]) -> Array | None:
    """Mark the unselected entries, once every `where` on the way has run.

    `masks` holds, for the step of every `where`, the weight of its first branch.
    """
    if route[0] == "all":
        parts = [unselected_entries(xp, r, shape, masks) for r in route[1]]
        if any(p is None for p in parts) or not parts:
            return None
        return reduce(and_, parts)
    _, step, branch, onward = route
    weight = masks.get(step.index)
    if weight is None:
        return None
    unused = weight == (1 if branch == 2 else 0)
    if onward is not None:
        later = unselected_entries(xp, onward, tuple(weight.shape), masks)
        unused = unused if later is None else unused | later
    return _fit(xp, unused, tuple(shape))


def _fit(xp: Any, mask: Array, shape: tuple[int, ...]) -> Array | None:
    """Bring a mask to the shape of the operand: an entry spread over several counts if any of those does."""
    try:
        wide = np.broadcast_shapes(tuple(mask.shape), shape)
    except ValueError:
        return None
    mask = xp.broadcast_to(mask, wide)
    extra = len(wide) - len(shape)
    axes = [*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and wide[extra + i] != 1)]
    for axis in sorted(axes, reverse=True):
        mask = xp.all(mask, axis=axis, keepdims=axis >= extra)
    return mask
