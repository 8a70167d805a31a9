"""Resolution: which kinks a direction decides, by what margin, and which it leaves open.

Along x + t v, t > 0 small, a kink whose switching argument has the tangent a' != 0 lies on the side of sign(a'). It is
*decided* if |a'| is above the rounding of the terms that a' was summed from; *flat* if the tangents along several
directions are all within rounding: then the argument has the derivative zero, and so has the jump of the derivative;
*open* otherwise, and another direction is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nonsmooth.dictionary import Along, Call, Kind, Nonsmooth, Rule, Select
from nonsmooth.frameworks.framework import ROUNDING, Evaluation, NonsmoothCall
from nonsmooth.frameworks.framework import Select as Selector
from nonsmooth.program import Source, Step

__all__ = ["Reason", "Resolution", "Suspect", "follow_directions", "resolve", "rounding_of"]

Suspect: TypeAlias = tuple[Step, int, tuple[float, ...]]


@dataclass(frozen=True)
class Reason:
    """Why nothing certain can be said: the rule that is broken, where, and what was found there."""

    rule: str
    message: str
    source: Source | None = None

    def __str__(self) -> str:
        """Print the message."""
        return self.message


@dataclass
class Resolution:
    """What a direction decides.

    Attributes:
        count: the active kinks, tied pairs counted one by one.
        flat: those whose argument has the derivative zero.
        margin: the smallest |a'| of a decided one, relative to the scale of its terms.
        open: how many are left to another direction.
        lost: how many have a tangent lost in rounding, though not zero, which no witness was asked about.
        reasons: what no direction can mend.
        suspects: ties of `where`, as (step, element, tangents of what is compared), at which the branches do not join
            as far as the selection of this direction tells; the directions along the tie itself have to be asked.
    """

    count: int = 0
    flat: int = 0
    margin: float = float("inf")
    open: int = 0
    lost: int = 0
    reasons: list[Reason] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)


def follow_directions(deciding: int = 1) -> Selector:
    """Give the selection that lets the first directions of an evaluation decide every kink."""

    def select(step: Step, call: Call, masks: Any) -> dict[str, Rule] | None:
        if call.tangents is None:
            return None
        known = {} if any(m is None for m in masks.values()) else {"active": masks}
        rule = Along(tuple(call.tangents(k) for k in range(deciding)), known)
        assert isinstance(step.operation, Nonsmooth)
        return dict.fromkeys(step.operation.kinks, rule)

    return select


def resolve(evaluation: Evaluation, directions: int, *, hasty: bool = False) -> Resolution:
    """Judge the kinks that the first direction of an evaluation has decided; the others are its witnesses.

    A `hasty` judge calls no witness about tangents lost in rounding, though not zero. It is harmless if no other kink is
    active: if its argument has the derivative zero nothing depends on it, and else either side is one of a nearby point.
    Beside others, whose arguments may be multiples of its own, it is left to another direction.
    """
    found = Resolution()
    for met in evaluation.decided:
        if isinstance(met.step.operation, Select):
            _resolve_select(met, directions, found)
        else:
            _resolve_kink(met, directions, found, hasty)
    if found.lost and found.count + len(evaluation.turns) > 1:
        found.open += found.lost
    return found


def rounding_of(call: Call) -> float:
    """Give the unit of rounding of a call, relative to the scale of its terms."""
    tangents = () if call.tangents is None else call.tangents(0)
    dtypes = [t.dtype for t in tangents if call.xp.isdtype(t.dtype, ("real floating", "complex floating"))]
    return ROUNDING * max(float(call.xp.finfo(d).eps) for d in (dtypes or [call.result.dtype]))


def _resolve_kink(met: NonsmoothCall, directions: int, found: Resolution, hasty: bool) -> None:
    """Judge the kinks of one step by the tangents of their switching arguments."""
    call, operation = met.call, met.step.operation
    assert isinstance(operation, Nonsmooth) and met.rules is not None and call.tangents is not None and call.scale
    xp, rounding = call.xp, rounding_of(call)
    for name, moved in operation.arguments_along(call, met.rules, call.tangents(0)).items():
        scale = call.scale(0)
        active = moved < float("inf")
        found.count += int(xp.count_nonzero(active))
        smallest = float(xp.min(moved)) if 0 not in moved.shape else float("inf")
        if smallest > rounding * scale:
            found.margin = min(found.margin, smallest / scale if scale else float("inf"))
            continue
        near = moved <= rounding * scale
        if scale and bool(xp.any(active & ~near)):
            found.margin = min(
                found.margin, float(xp.min(xp.where(near, xp.full_like(moved, float("inf")), moved))) / scale
            )
        if hasty and smallest > 0 and operation.kind in (Kind.SWITCH, Kind.ORDER):
            found.lost += int(xp.count_nonzero(near))
            found.margin = min(found.margin, smallest / scale)
            continue
        moving = xp.zeros_like(near)
        for k in range(1, directions):
            other = operation.arguments_along(call, met.rules, call.tangents(k))[name]
            moving = moving | (near & (other > rounding * call.scale(k)))
        found.open += int(xp.count_nonzero(moving))
        found.flat += int(xp.count_nonzero(near & ~moving))


def _resolve_select(met: NonsmoothCall, directions: int, found: Resolution) -> None:
    """Judge the ties of a `where`: the branches must join on the set where the predicate ties.

    With p the difference compared and a, b the branches, d(a - b) = 0 needs nothing more; else dp != 0, the predicate
    must not be an equality, and d(a - b) must be parallel to dp, which two directions tell almost surely:
    (a - b)'(v) p'(w) = (a - b)'(w) p'(v).
    """
    call = met.call
    assert call.tangents is not None and call.scale is not None and isinstance(met.step.operation, Select)
    xp, rounding = call.xp, rounding_of(call)
    mask = met.step.operation.active(call)["tie"]
    motion = call.attributes["motion"]
    jumps, noises = [], []
    matters = xp.zeros_like(mask)
    for k in range(directions):
        tangents = call.tangents(k)
        jumps.append(tangents[1] - tangents[2])
        noises.append(rounding * call.scale(k))
        matters = matters | (mask & (xp.abs(jumps[k]) > noises[k]))
    count = int(xp.count_nonzero(mask))
    found.count += count
    found.flat += count - int(xp.count_nonzero(matters))
    if not bool(xp.any(matters)):
        return
    if motion is None or bool(xp.any(matters & motion.several)):
        found.reasons.append(_reason(met.step, "several", "several comparisons tie at once"))
        return
    if bool(xp.any(matters & (call.attributes["left"] == call.attributes["right"]))):
        found.reasons.append(_reason(met.step, "equality", "it selects by an equality, whose piece has no interior"))
        return
    moved, noise = motion.moved, rounding * motion.scale
    still = matters & (xp.abs(moved[0]) <= noise)
    if bool(xp.any(still)):
        moving = xp.zeros_like(still)
        for other in moved[1:]:
            moving = moving | (still & (xp.abs(other) > noise))
        found.open += int(xp.count_nonzero(moving))
        if bool(xp.any(still & ~moving)):
            text = "its predicate ties with derivative zero, and its branches have different derivatives"
            found.reasons.append(_reason(met.step, "flat", text))
    decided = matters & ~still
    if motion.scale and bool(xp.any(decided)):
        size = xp.where(decided, xp.abs(moved[0]), xp.full_like(moved[0], float("inf")))
        found.margin = min(found.margin, float(xp.min(size)) / motion.scale)
    suspects = decided & ~_parallel(xp, jumps, noises, moved, noise)
    for element in [int(e) for e in xp.nonzero(xp.reshape(suspects, (-1,)))[0]]:
        tangents = tuple(float(xp.reshape(xp.broadcast_to(m, mask.shape), (-1,))[element]) for m in moved)
        found.suspects.append((met.step, element, tangents))


def _parallel(xp: Any, jumps: list[Any], noises: list[float], moved: Any, noise: float) -> Any:
    """Tell where the jump of the derivative is a multiple of the derivative of the predicate, up to rounding."""
    cross = xp.abs(jumps[0] * moved[1] - jumps[1] * moved[0])
    error = noises[0] * xp.abs(moved[1]) + noises[1] * xp.abs(moved[0])
    error = error + noise * (xp.abs(jumps[0]) + xp.abs(jumps[1]))
    return cross <= error


def _reason(step: Step, rule: str, text: str) -> Reason:
    """Write what was found at a step."""
    return Reason(rule, f"{step}: {text}", step.source)
