"""Joining: whether the branches of ties fit together, so that the function is Lipschitz there.

At a tie of `if` or `where`, with p what is compared and A, B the branches, F is continuous near x only if A = B on the
set p = 0: A = B at x, and A'(x; w) = B'(x; w) for every direction w along the tie, p'(x; w) = 0. Where one selection is
linear near v that says d(A - B) = c dp, which two directions tell; else directions along the tie are sought and asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nonsmooth.derivatives.faces import join_on_faces
from nonsmooth.derivatives.following import Way, follow, outcomes_upto
from nonsmooth.frameworks.framework import ROUNDING, Evaluation, Turn
from nonsmooth.kinks.resolution import Reason, Suspect, rounding_of
from nonsmooth.program import Program, Step

__all__ = ["join_branches", "join_choices", "leads_nearby"]

FLIPS = 24
"""How many tied outcomes are compared with the other branch."""

SECANTS = 8
"""How many steps are made to find a direction along a tie."""

PAIR = 2
"""How many ties that decide together are asked on all their sides."""

FEW = 6
"""Up to how many tied outcomes the programs of all of them are compared, whether they are seen to count together or not."""

NOTHING = 1e-3
"""How small a direction along a tie, relative to those that it is made of, is rounding: then there may be none."""

NEARBY = (2.0**-9, 2.0**-14)
"""How far along the direction the function itself is run, in powers of the square root of rounding."""

NOT_JOINED = "its branches do not join nearby: their derivatives differ along the tie"
NOT_JOINED_TOGETHER = "several comparisons decide together, and the branches do not join wherever they meet"
LEFT_OPEN = "several comparisons that tie decide together, and it is not known whether all branches join"
FLAT = "what it compares has the derivative zero, and its branches have different derivatives"
EQUALITY = "it is an equality, whose piece has no interior"
FAILS = "the other branch fails: "


def leads_nearby(way: Way, evaluation: Evaluation) -> list[Reason]:
    """Say so if the function itself, a little along the directions, takes other branches than the program.

    First order decides a tied comparison; one whose difference has the derivative zero (`t * t > 0`), or that is not
    seen to tie (`allclose`), shows here. Status: `sampled`, at two distances.
    """
    program = evaluation.program
    assert program is not None
    if not any(g.kind == "branch" for g in program.guards):
        return []
    for distance in NEARBY:
        if way.framework.holds_at(program, way.x, way.data, way.directions[: way.deciding], distance):
            return []
    guard = next(g for g in program.guards if g.kind == "branch")
    text = f"the function takes another branch nearby than first derivatives say; the first of its branches is {guard}"
    return [Reason("branches", text, guard.source)]


def join_branches(way: Way, evaluation: Evaluation, witnesses: int) -> list[Reason]:
    """Say why the branches of tied guards do not join, if they do not.

    Each tied outcome is flipped alone, all others following the direction. If that piece does not fit, it may be one
    that no point near the tie has: then both sides of a direction along the tie are asked. So they are if another outcome
    counts with this one: one behind the same guard (`a & b`), or one that is met on one side of it alone (`a and b`);
    those first met beyond it are flipped in their turn. Two sides are not all there is where several outcomes tie: the
    programs of all of them are compared wherever they meet, and where these are piecewise affine that is the answer.
    With one witness (a derivative along one direction) only ties that the direction leaves tied are looked at.
    """
    assert evaluation.program is not None
    reasons: list[Reason] = []
    together, many, asked = _Together(), None, None
    flips = [_Flip(evaluation, turn, other, moved) for turn in evaluation.turns for other, moved in turn.others]
    flips = [f for f in flips if witnesses > 1 or f.turn.choice is None]
    if witnesses > 1 and PAIR <= len(flips) <= FEW:
        asked = join_on_faces(way.framework, evaluation.program, way.x, way.data)
        if asked.exact and asked.joins is not None:
            return [] if asked.joins else [_several("jump", flips[0].turn.step, NOT_JOINED_TOGETHER)]
    for number, flip in enumerate(flips):  # which grows
        step = flip.turn.step
        if len(flips) > FLIPS:
            step = flips[max(FLIPS, number)].turn.step
            text = f"{step}: more than {FLIPS} outcomes of tied branches would have to be compared"
            return [*reasons, Reason("branches", text, step.source)]
        text, beyond = _flipped(way, evaluation.program, flip, together, witnesses)
        if many is None and len(together.with_(flip.turn.key)) > PAIR:
            many, asked = step, asked or join_on_faces(way.framework, evaluation.program, way.x, way.data)
            if asked.exact and asked.joins is not None:
                return [] if asked.joins else [_several("jump", step, NOT_JOINED_TOGETHER)]
        if text:
            rule = {FLAT: "flat", EQUALITY: "equality"}.get(text, "branches" if text.startswith(FAILS) else "jump")
            reasons.append(Reason(rule, f"an `if` on data ties ({step.where}): {text}", step.source))
        else:
            flips += beyond
    if asked is not None and (asked.joins is False or (many is not None and asked.joins is None)):
        reasons.append(_several("branches", many or flips[0].turn.step, LEFT_OPEN))
    return reasons


def _several(rule: str, step: Step, text: str) -> Reason:
    """Say what holds of several outcomes that decide together, of which one is that of a step."""
    return Reason(rule, f"an `if` on data ties ({step.where}): {text}", step.source)


def _flipped(way: Way, program: Program, flip: _Flip, together: _Together, witnesses: int) -> tuple[str, list[_Flip]]:
    """Flip one tied outcome: say how its branches do not join, if so, and list what is first met beyond it."""
    turn, kept = flip.turn, {**flip.before, flip.turn.key: flip.other}
    sided = not turn.empty and turn.choice is not None and witnesses > 1
    try:
        flipped = follow(way, program, outcomes_upto(flip.base.turns, turn, kept), kept)
        text = _apart(way, flip.base, flipped, turn, flip.moved, witnesses)
        beyond, coupled = _with(flip, flipped, kept) if witnesses > 1 else ([], set())
        together.join({turn.key, *flip.before, *coupled})
        if sided and (text or coupled):
            must = bool(text) and not flip.before
            text = _apart_on_tie(way, program, turn, flip.other, flip.moved, must)
            if not text and (coupled or flip.before):  # one more line along the tie
                second = replace(way, directions=way.directions[1:])
                text = _apart_on_tie(second, program, turn, flip.other, flip.moved[1:], False)
    except Exception as error:  # the user's own function may fail where it never runs by itself
        return f"{FAILS}{error}", []
    return text, beyond


class _Together:
    """Which tied outcomes count together: classes of their keys."""

    def __init__(self) -> None:
        self.classes: list[set[tuple[int, int]]] = []

    def join(self, keys: set[tuple[int, int]]) -> None:
        """Put some keys, and all that count with one of them, into one class."""
        apart = [c for c in self.classes if not c & keys]
        self.classes = [*apart, keys.union(*(c for c in self.classes if c & keys))]

    def with_(self, key: tuple[int, int]) -> set[tuple[int, int]]:
        """Give the class of a key."""
        return next((c for c in self.classes if key in c), {key})


@dataclass(frozen=True, eq=False)
class _Flip:
    """One tied outcome to be flipped, in a program in which those in `before` are flipped already."""

    base: Evaluation
    turn: Turn
    other: int | None
    moved: tuple[float, ...]
    before: Mapping[tuple[int, int], int | None] = field(default_factory=dict)


def _with(
    flip: _Flip, flipped: Evaluation, kept: Mapping[tuple[int, int], int | None]
) -> tuple[list[_Flip], set[tuple[int, int]]]:
    """List the outcomes first met beyond a flipped one, and all that count with it: met on one side, or at its guard."""
    assert flipped.program is not None
    met, place = {t.key for t in flip.base.turns}, flip.turn.step.index
    shared = {c for g in flipped.program.guards if place in g.comparisons for c in g.comparisons}
    rest = [t for t in flipped.turns if t.key not in kept]
    beyond = [t for t in rest if t.key not in met]
    coupled = (met ^ {t.key for t in flipped.turns}) - set(kept) | {t.key for t in rest if t.step.index in shared}
    return [_Flip(flipped, turn, other, moved, kept) for turn in beyond for other, moved in turn.others], coupled


def join_values(way: Way, own: Evaluation, along: Evaluation) -> list[Reason]:
    """Say so if the branch to which the directions lead has another value at the point than the program itself."""
    one, other = _flat(way, own.result), _flat(way, along.result)
    size = max(float(np.max(np.abs(a), initial=0.0)) for a in (one, other))
    if one.shape == other.shape and bool(np.all(np.abs(one - other) <= 64 * ROUNDING * np.finfo(one.dtype).eps * size)):
        return []
    guard = next((t.step for t in along.turns), None)
    where = "" if guard is None else f" ({guard.where})"
    text = f"an `if` on data ties{where}: the branch along the direction has another value, the program jumps"
    return [Reason("jump", text, None if guard is None else guard.source)]


def join_choices(way: Way, program: Program, suspects: list[Suspect]) -> list[Reason]:
    """Say which of some ties of `where` do not join, by directions along each tie."""
    reasons: dict[int, Reason] = {}
    for number, (step, element, moved) in enumerate(suspects):
        if step.index in reasons:
            continue
        if number >= FLIPS:
            text = f"{step}: more than {FLIPS} of its ties would have to be looked at one by one"
            reasons[step.index] = Reason("branches", text, step.source)
            continue

        def along(w: Any, place: int = step.index, entry: int = element) -> tuple[float, float, Any] | None:
            evaluation = follow(replace(way, directions=(w, way.directions[0]), deciding=2), program)
            met = [m for m in evaluation.decided if m.step.index == place]
            if (evaluation.program is not program and evaluation.turns) or not met:
                return None
            motion, call = met[0].call.attributes["motion"], met[0].call
            if motion is None:
                return None
            moved = np.broadcast_to(way.framework.numpy(motion.moved[0]), call.result.shape).ravel()
            return float(moved[entry]), rounding_of(call) * motion.scale, (call, entry)

        if not _joins_on_tie(way, moved, along, _choice_joins):
            reasons[step.index] = Reason("jump", f"{step}: {NOT_JOINED}", step.source)
    return list(reasons.values())


def _choice_joins(way: Way, met: Any) -> bool:
    """Tell whether the branches of one tie have the same derivative along the first direction."""
    call, entry = met
    tangents = call.tangents(0)
    jump = way.framework.numpy(call.xp.abs(tangents[1] - tangents[2]))
    jump = np.broadcast_to(jump, call.result.shape).ravel()[entry]
    return bool(jump <= 4 * rounding_of(call) * call.scale(0))


def _joins_on_tie(
    way: Way,
    moved: tuple[float, ...],
    along: Callable[[Any], tuple[float, float, Any] | None],
    joins: Callable[[Way, Any], bool],
    must: bool = True,
) -> bool:
    """Seek directions along a tie, one for each witness, and tell whether the branches join along all of them.

    Their opposites are asked too, where they are along the tie. If none is found that is no answer, unless one `must` be.

    `along(w)` gives the tangent of what is compared, its rounding, and what `joins` reads. With p(v), p(u) the tangents
    along two directions, w = v - s u with s = p(v) / p(u) is along the tie if p is linear between; else s is sought by
    secants.
    """
    v, asked = way.directions[0], 0
    for u, p_u in zip(way.directions[1:], moved[1:], strict=True):
        if p_u == 0:
            continue
        steps = [(0.0, moved[0]), (moved[0] / p_u, 0.0)]
        for _ in range(SECANTS):
            s = steps[-1][0]
            start = v() if callable(v) else v
            w = way.framework.combine((start, u() if callable(u) else u), (1.0, -s))
            found = along(w) if _size(way, w) > NOTHING * _size(way, start) else None
            if found is None:
                break
            p, noise, met = found
            if abs(p) <= 4 * noise:
                asked += 1
                back = along(way.framework.combine((w,), (-1.0,)))
                if not joins(way, met) or (
                    back is not None and abs(back[0]) <= 4 * back[1] and not joins(way, back[2])
                ):
                    return False
                break
            steps[-1] = (s, p)
            (s0, p0), (s1, p1) = steps[-2:]
            if p1 == p0:
                break
            steps.append((s1 - p1 * (s1 - s0) / (p1 - p0), 0.0))
    return asked > 0 or not must


def _apart_on_tie(
    way: Way, program: Program, turn: Turn, other: int | None, moved: tuple[float, ...], must: bool = True
) -> str:
    """Say so if the two sides of a tied guard differ along directions along the tie."""

    def along(w: Any) -> tuple[float, float, Any] | None:
        start = way.framework.unforced(program)
        v = way.directions[0]
        v = v() if callable(v) else v
        sides = []
        for sign in (1.0, -1.0):
            side = way.framework.combine((v,), (sign,))
            sides.append(follow(replace(way, directions=(w, side), deciding=2), start))
        for turned in sides[0].turns:
            if turned.key == turn.key:
                tangents = [m[0] for o, m in turned.others if o == other] or [m[0] for _, m in turned.others[:1]]
                if tangents:
                    noise = ROUNDING * way.framework.eps(sides[0].result) * turned.scale
                    return tangents[0], noise, sides
        return None

    def joins(way: Way, sides: list[Evaluation]) -> bool:
        return not _apart(way, sides[0], sides[1], turn, (0.0,), 1)

    return "" if _joins_on_tie(way, moved, along, joins, must) else NOT_JOINED


def _apart(way: Way, one: Evaluation, other: Evaluation, turn: Turn, moved: tuple[float, ...], witnesses: int) -> str:
    """Say how two branches differ that should join, or nothing."""
    value, value_there = _flat(way, one.result), _flat(way, other.result)
    if value.shape != value_there.shape:
        return "its branches give results of different shapes"
    eps = ROUNDING * float(np.finfo(value.dtype).eps)
    jumps, noises = [], []
    for k in range(witnesses):
        here, there = _flat(way, way.framework.push(one, k)), _flat(way, way.framework.push(other, k))
        size = max(e.tangents.scale(e.program.result, k) for e in (one, other) if e.program is not None)
        jumps.append(here - there)
        noises.append(eps * max(size, float(np.max(np.abs(here), initial=0.0))))
    size = max(float(np.max(np.abs(value), initial=0.0)), *(n / eps for n in noises))
    if float(np.max(np.abs(value - value_there), initial=0.0)) > 64 * eps * size:
        return "its branches differ in value: the program jumps"
    if all(np.all(np.abs(j) <= n) for j, n in zip(jumps, noises, strict=True)):
        return ""
    if turn.empty:
        return EQUALITY
    noise = eps * turn.scale
    if turn.choice is None or abs(moved[0]) <= noise:
        return FLAT
    if witnesses > 1:
        cross = np.abs(jumps[0] * moved[1] - jumps[1] * moved[0])
        error = noises[0] * abs(moved[1]) + noises[1] * abs(moved[0]) + noise * (np.abs(jumps[0]) + np.abs(jumps[1]))
        if bool(np.any(cross > error)):
            return "its branches do not join nearby: their derivatives differ along the tie"
    return ""


def _size(way: Way, tree: Any) -> float:
    """Give the largest absolute entry."""
    return float(np.max(np.abs(_flat(way, tree)), initial=0.0))


def _flat(way: Way, tree: Any) -> np.ndarray[Any, Any]:
    """Lay the numbers of a result in a row."""
    return np.concatenate([np.ravel(a) for a in way.framework.arrays(tree)])
