"""Switches: operations that follow one of several smooth pieces, chosen by the sign of an argument.

With pieces 0 .. m along the arguments a_1 >= ... >= a_m (one per breakpoint) and partial derivatives d_0 .. d_m, the
derivative under weights w is the telescope

    d_0 + sum_j H_w(a_j) (d_j - d_(j-1)),   H_w(a) = 0 for a < 0, w for a = 0, 1 for a > 0,

so w is the weight of the right-hand slope, and the set at a kink is the segment between d_(j-1) and d_j.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import mul, or_
from typing import Any, TypeAlias

from nonsmooth.dictionary.operation import Array, Attributes, Call, Kind, Nonsmooth, Rule
from nonsmooth.errors import ConventionError

__all__ = ["SWITCHES", "Select", "Switch", "piecewise_linear"]

Partials: TypeAlias = tuple[Array | float, ...]
"""The derivative of a piece with respect to each operand; a number stands for a constant."""


@dataclass(frozen=True, kw_only=True)
class Switch(Nonsmooth):
    """An element-wise operation of pieces.

    `arguments(call)` gives one array per kink, `pieces(call)` one more tuple of partial derivatives than that;
    `flats(attributes)`, where given, the values that the result takes on its pieces of slope zero and nowhere else but
    at kinks.

    >>> relu = piecewise_linear("relu", kinks=("0",), breakpoints=lambda a: (0.0,), slopes=lambda a: (0.0, 1.0))
    >>> relu.kind.value, relu.kinks
    ('switch', ('0',))

    Source: GriewankWalther2008.
    """

    kind: Kind = Kind.SWITCH
    arguments: Callable[[Call], Sequence[Array]] = field(repr=False)
    flats: Callable[[Attributes], Sequence[Any]] | None = field(repr=False, default=None)
    pieces: Callable[[Call], Sequence[Partials]] = field(repr=False)

    def margins(self, call: Call) -> dict[str, Array]:
        """Give |a_j| for each kink j."""
        return {name: call.xp.abs(a) for name, a in zip(self.kinks, self.arguments(call), strict=True)}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the elements at a breakpoint, but for those at which the two slopes agree."""
        masks = super().active(call, tol)
        pieces = self.pieces(call)
        for name, before, after in zip(self.kinks, pieces[:-1], pieces[1:], strict=True):
            differs = [b != a for b, a in zip(before, after, strict=True) if b is not a]
            if not any(d is True for d in differs):
                arrays = [d for d in differs if d is not False]
                masks[name] = masks[name] & reduce(or_, arrays) if arrays else call.xp.zeros_like(masks[name])
        return masks

    def partials(self, call: Call, rules: Mapping[str, Rule], tol: float = 0.0) -> Partials:
        """Give the derivative with respect to each operand under the weights: the telescope above."""
        where = call.xp.where
        pieces = self.pieces(call)
        slopes = list(pieces[0])
        for name, argument, piece in zip(self.kinks, self.arguments(call), pieces[1:], strict=True):
            weight, like = _weight(self.name, name, rules), call.result
            step = None if tol else call.step(argument, weight)
            for i, after in enumerate(piece):
                before = slopes[i]
                if after is before:
                    continue
                if step is not None and isinstance(after, float) and isinstance(before, float):
                    slopes[i] = step if (before, after) == (0.0, 1.0) else before + (after - before) * step
                    continue
                at_kink = weight * after + (1 - weight) * before
                beyond = where(argument > tol, _full(call.xp, after, like), _full(call.xp, before, like))
                slopes[i] = where(call.xp.abs(argument) <= tol, _full(call.xp, at_kink, like), beyond)
        return tuple(slopes)

    def dead(self, call: Call) -> Array | None:
        """Mark by 1 the entries strictly inside a piece without any slope, by 0 the others."""
        pieces, arguments, total = self.pieces(call), self.arguments(call), None
        for place, piece in enumerate(pieces):
            if not all(_is_zero(p) for p in piece):
                continue
            above = [call.step(a, 0.0) for a in arguments[:place][-1:]]
            below = [1 - call.step(a, 1.0) for a in arguments[place:][:1]]
            inside = reduce(mul, above + below)
            total = inside if total is None else total + inside
        return total

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give sum_i (partial i) (tangent i)."""
        partials = self.partials(call, rules, tol)
        return sum(p * t for p, t in zip(partials, tangents, strict=True) if not _is_zero(p))


@dataclass(frozen=True, kw_only=True)
class Select(Nonsmooth):
    """`where(predicate, a, b)`: the switch whose argument is the comparison behind its predicate.

    The program supplies the attributes `left`, `right` (the predicate just left and right of the tie), `tie` (the
    elements whose predicate ties) and `distance`. Where the branches differ in value at a tie the program jumps: such
    elements are no kinks, they keep their branch.
    """

    kind: Kind = Kind.SWITCH
    kinks: tuple[str, ...] = ("tie",)

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the distance of the compared values."""
        return {"tie": call.attributes["distance"]}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Give the ties of the predicate at which the branches agree in value."""
        return {"tie": call.attributes["tie"] & self.joins(call, tol)}

    @staticmethod
    def joins(call: Call, tol: float = 0.0) -> Array:
        """Tell where the two branches agree in value, so that the switch is continuous."""
        _, a, b = call.operands
        return call.xp.abs(a - b) <= tol

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give c (tangent of a) + (1 - c) (tangent of b)."""
        xp, c = call.xp, self.coefficient(call, rules, tol)
        zero = xp.zeros_like(call.result)
        return xp.where(c == 0, zero, c * tangents[1]) + xp.where(c == 1, zero, (1 - c) * tangents[2])

    def coefficient(self, call: Call, rules: Mapping[str, Rule], tol: float = 0.0) -> Array:
        """Give c, the weight of the first branch: w right + (1 - w) left at the ties, the predicate elsewhere."""
        xp, w = call.xp, _weight(self.name, "tie", rules)
        predicate = xp.astype(call.operands[0], call.result.dtype)
        left, right = (xp.astype(call.attributes[k], call.result.dtype) for k in ("left", "right"))
        return xp.where(self.active(call, tol)["tie"], w * right + (1 - w) * left, predicate)


def piecewise_linear(
    name: str,
    *,
    kinks: tuple[str, ...],
    breakpoints: Callable[[Attributes], Sequence[Any]],
    slopes: Callable[[Attributes], Sequence[Any]],
    flats: Callable[[Attributes], Sequence[Any]] | None = None,
    summary: str = "",
) -> Switch:
    """Record a continuous operation of one operand whose slopes are constants.

    >>> absolute = piecewise_linear("abs", kinks=("0",), breakpoints=lambda a: (0,), slopes=lambda a: (-1, 1))
    >>> absolute.name
    'abs'

    Source: GriewankWalther2008.
    """
    return Switch(
        name=name,
        kinks=kinks,
        summary=summary,
        flats=flats,
        arguments=lambda call: tuple(
            call.operands[0] - b if b else call.operands[0] for b in breakpoints(call.attributes)
        ),
        pieces=lambda call: tuple((float(s),) for s in slopes(call.attributes)),
    )


def _weight(operation: str, kink: str, rules: Mapping[str, Rule]) -> Any:
    """Read the weight of the right-hand slope at one kink."""
    rule = rules[kink]
    if isinstance(rule, str):
        raise ConventionError(
            f"at_kinks gives {rule!r} for {operation!r} at {kink!r}: a switch takes a number, the weight of its right-hand slope."
        )
    return rule


def _is_zero(partial: Array | float) -> bool:
    """Tell a structural zero."""
    return isinstance(partial, float | int) and partial == 0


def _full(xp: Any, value: Array | float, like: Array) -> Array:
    """Spread a constant over the shape of the result."""
    return xp.full_like(like, value) if isinstance(value, float | int) else value


def _difference(call: Call, i: int = 0, j: int = 1) -> Array:
    """Give a - b, exactly 0 also where both are the same infinity."""
    a, b = call.operands[i], call.operands[j]
    return call.xp.where(a == b, call.xp.zeros_like(a - b), a - b)


def _between(low: str, high: str) -> dict[str, Any]:
    """Record min(max(u, low), high) of one operand; a missing bound is infinite."""
    return {
        "kinks": ("lower bound", "upper bound"),
        "breakpoints": lambda a: (
            -float("inf") if a[low] is None else a[low],
            float("inf") if a[high] is None else a[high],
        ),
        "slopes": lambda a: (0, 1, 0),
        "flats": lambda a: [a[k] for k in (low, high) if a[k] is not None],
    }


def _elu_slopes(call: Call) -> Sequence[Partials]:
    """Give alpha scale input_scale exp(input_scale u) and scale."""
    (u,), a = call.operands, call.attributes
    inner = a["input_scale"] * call.xp.where(u > 0, call.xp.zeros_like(u), u)
    return ((a["alpha"] * a["scale"] * a["input_scale"] * call.xp.exp(inner),), (float(a["scale"]),))


def _binary(name: str, right: tuple[float, float], summary: str) -> Switch:
    """Record an operation of a and b that switches on a - b; `right` is the piece on a > b."""
    left = (right[1], right[0])
    return Switch(
        name=name,
        kinks=("tie",),
        summary=summary,
        arguments=lambda call: (_difference(call),),
        pieces=lambda call: (left, right),
    )


SWITCHES: tuple[Nonsmooth, ...] = (
    piecewise_linear(
        "relu",
        kinks=("0",),
        breakpoints=lambda a: (0,),
        slopes=lambda a: (0, 1),
        flats=lambda a: (0,),
        summary="max(u, 0)",
    ),
    piecewise_linear("abs", kinks=("0",), breakpoints=lambda a: (0,), slopes=lambda a: (-1, 1), summary="|u|"),
    piecewise_linear(
        "leaky_relu",
        kinks=("0",),
        breakpoints=lambda a: (0,),
        slopes=lambda a: (a["negative_slope"], 1),
        summary="u for u > 0, negative_slope u for u < 0",
    ),
    piecewise_linear("relu6", **_between("min_val", "max_val"), summary="min(max(u, 0), 6)"),
    piecewise_linear("hardtanh", **_between("min_val", "max_val"), summary="min(max(u, min_val), max_val)"),
    piecewise_linear("clamp", **_between("min", "max"), summary="min(max(u, min), max)"),
    piecewise_linear(
        "hardsigmoid",
        kinks=("lower bound", "upper bound"),
        breakpoints=lambda a: (-3, 3),
        slopes=lambda a: (0, 1 / 6, 0),
        summary="min(max(u/6 + 1/2, 0), 1)",
    ),
    piecewise_linear(
        "softshrink",
        kinks=("lower bound", "upper bound"),
        breakpoints=lambda a: (-a["lambd"], a["lambd"]),
        slopes=lambda a: (1, 0, 1),
        summary="sign(u) max(|u| - lambd, 0)",
    ),
    piecewise_linear(
        "threshold",
        kinks=("threshold",),
        breakpoints=lambda a: (a["threshold"],),
        slopes=lambda a: (0, 1),
        summary="max(u, threshold)",
    ),
    Switch(
        name="hardswish",
        kinks=("lower bound", "upper bound"),
        summary="u min(max(u/6 + 1/2, 0), 1)",
        arguments=lambda call: (call.operands[0] + 3, call.operands[0] - 3),
        pieces=lambda call: ((0.0,), ((2 * call.operands[0] + 3) / 6,), (1.0,)),
    ),
    Switch(
        name="elu",
        kinks=("0",),
        summary="scale u for u > 0, scale alpha (exp(input_scale u) - 1) for u < 0",
        arguments=lambda call: (call.operands[0],),
        pieces=_elu_slopes,
    ),
    Switch(
        name="prelu",
        kinks=("0",),
        summary="u for u > 0, a u for u < 0, a a parameter",
        arguments=lambda call: (call.operands[0],),
        pieces=lambda call: ((call.operands[1], call.operands[0]), (1.0, 0.0)),
    ),
    _binary("maximum", (1.0, 0.0), "max(a, b)"),
    _binary("minimum", (0.0, 1.0), "min(a, b)"),
    _binary("fmax", (1.0, 0.0), "max(a, b), ignoring nan"),
    _binary("fmin", (0.0, 1.0), "min(a, b), ignoring nan"),
    _binary("clamp_min_tensor", (1.0, 0.0), "max(u, min), min an array"),
    _binary("clamp_max_tensor", (0.0, 1.0), "min(u, max), max an array"),
    Switch(
        name="clamp_tensor",
        kinks=("lower bound", "upper bound"),
        summary="min(max(u, min), max), the bounds arrays",
        arguments=lambda call: (_difference(call), call.xp.maximum(*call.operands[:2]) - call.operands[2]),
        pieces=lambda call: ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ),
    Select(name="where", summary="a where the predicate holds, else b"),
)
"""The switches of the dictionary."""
