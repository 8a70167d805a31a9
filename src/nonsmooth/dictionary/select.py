"""`where`: the switch whose argument is the comparison behind its predicate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nonsmooth.dictionary.operation import Along, Array, Call, Kind, Nonsmooth, Rule, device_of, entries, on_host
from nonsmooth.dictionary.switch import far_unless, weight_of
from nonsmooth.dictionary.weights import Block, segment

__all__ = ["Select"]


@dataclass(frozen=True, kw_only=True)
class Select(Nonsmooth):
    """`where(predicate, a, b)`: the switch whose argument is the comparison behind its predicate.

    The program supplies the attributes `left`, `right` (the predicate just left and right of the tie), `tie` (the
    elements whose predicate ties) and `distance`; where tangents are carried also `along` (the predicate along the
    directions) and `motions` (for each direction, the tangents of what is compared). Where the branches differ in value
    at a tie the program jumps: such elements are no kinks, they keep their branch.

    The attribute `repeats` is the place (1 or 2) of a branch that is the other one cut off from the derivative, to guard
    what is computed from it where nobody reads that: a mapped `cond` is so written. Nothing is chosen there.
    """

    kind: Kind = Kind.SWITCH
    kinks: tuple[str, ...] = ("tie",)

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the distance of the compared values."""
        return {"tie": call.attributes["distance"]}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Give the ties of the predicate at which the branches agree in value."""
        if tol:  # a predicate that nearly ties joins there; one that ties has to join at the point itself
            return {"tie": call.attributes["tie"] & (self.joins(call) | (call.attributes["distance"] > 0))}
        return {"tie": call.attributes["tie"] & self.joins(call)}

    @staticmethod
    def unguarded(call: Call) -> Call:
        """Give the call of a branch that `repeats` the other one, with that other one on both sides of the ties."""
        attributes, first = call.attributes, call.attributes["repeats"] == 2
        tie = attributes["tie"]
        predicate = tie | call.operands[0] if first else call.operands[0] & ~tie
        call = replace(call, operands=(predicate, *call.operands[1:]))
        return replace(call, attributes={**attributes, "left": predicate, "right": predicate})

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
        xp, w = call.xp, weight_of(self.name, "tie", rules)
        predicate = xp.astype(call.operands[0], call.result.dtype)
        if isinstance(w, Along):
            at_tie = xp.astype(call.attributes["along"], call.result.dtype)
        else:
            left, right = (xp.astype(call.attributes[k], call.result.dtype) for k in ("left", "right"))
            at_tie = w * right + (1 - w) * left
        return xp.where(self.active(call, tol)["tie"], at_tie, predicate)

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start left of the ties; z is the jump of the derivative to the other side (of an equality: to the tie)."""
        xp, shape = call.xp, call.result.shape
        whole = {k: np.broadcast_to(on_host(call.attributes[k]), tuple(shape)).ravel() for k in ("left", "right")}
        value = np.broadcast_to(on_host(call.operands[0]), tuple(shape)).ravel()
        tie = np.broadcast_to(on_host(self.active(call, tol)["tie"]), tuple(shape)).ravel()
        empty = whole["left"] == whole["right"]
        other = np.where(empty, value, whole["right"])
        places = np.flatnonzero(tie & (other != whole["left"]))
        if not len(places):
            return {"tie": 0.0}, []
        change = other[places].astype(float) - whole["left"][places]
        sign = xp.astype(xp.asarray(change, device=device_of(call.result)), call.result.dtype)

        def jumps(tangents: Sequence[Array]) -> Array:
            a, b = (entries(xp, xp.broadcast_to(t, shape), places) for t in tangents[1:])
            return (sign * (a - b))[:, None]

        motion, one = call.attributes["motion"], segment()
        marks = {"empty": empty[places], "own": (value[places] == other[places]).astype(float)}
        if motion is None:
            return {"tie": 0.0}, [Block("tie", one, places[:, None], jumps, blind=np.ones(len(places), bool), **marks)]
        several = np.broadcast_to(on_host(motion.several), tuple(shape)).ravel()[places]

        def arguments(tangents: Sequence[Array]) -> Array:
            return entries(xp, xp.broadcast_to(motion.moved[0], shape), places)[:, None]

        return {"tie": 0.0}, [Block("tie", one, places[:, None], jumps, arguments=arguments, blind=several, **marks)]

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give the jump of the derivative, |tangent of a - tangent of b|, where the predicate ties.

        The comparison itself is no operand; its tangents are the attribute `motions`.
        """
        return {"tie": far_unless(call.xp, self.active_under(call, rules)["tie"], tangents[1] - tangents[2])}
