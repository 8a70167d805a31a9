"""One true subgradient at the price of backpropagation, with a certificate.

Draw a generic direction v. Along x + t v, t > 0 small, every kink whose argument has a nonzero tangent is resolved; the
selection that this defines is the one by which backpropagation computes the gradients there, and its value at x is
their limit as t -> 0: an element of Clarke's subdifferential. One recorded pass decides the kinks, one reverse sweep
gives the gradient. What could break the argument is checked, and the certificate refused where it might.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.following import Way, bad_points, follow, severed_reasons
from nonsmooth.derivatives.joining import join_branches, join_choices, join_values, leads_nearby
from nonsmooth.dictionary import Call
from nonsmooth.errors import NoDerivative, UsageError
from nonsmooth.frameworks.framework import Evaluation, Framework
from nonsmooth.kinks.resolution import Reason, Resolution, follow_directions, resolve
from nonsmooth.program import Program, Step

__all__ = ["Certificate", "Subgradient", "broken_conditions", "decide", "subgradient"]

WITNESSES = 3
"""A draw is the direction that decides, and others that tell a zero derivative from an accident."""


QUICK_DRAWS = 3
"""How many directions the faster way tries before the one that calls witnesses."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What stands behind a subgradient.

    Attributes:
        status: "computed" if the gradient is a limit of gradients at nearby points, up to rounding; "undecided" if that
            could not be shown.
        direction: the direction v that decided the kinks, like the point; None where no kink is active.
        margin: the smallest tangent of a switching argument, relative to the size of the terms that it was summed from;
            infinite where no kink had to be decided.
        draws: how many directions were drawn.
        kinks: how many active kinks were met; tied pairs are counted one by one.
        flat: those of them whose argument has the derivative zero, so that their weight does not matter.
        reasons: why it is undecided, each with its line.
    """

    status: str
    direction: Any = field(repr=False)
    margin: float
    draws: int
    kinks: int
    flat: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether the gradient is a subgradient for certain, up to rounding."""
        return self.status == "computed"

    def __str__(self) -> str:
        """Say it in a sentence."""
        if not self.certified:
            return f"undecided: {'; '.join(str(r) for r in self.reasons)}"
        if not self.kinks:
            return "certified (computed): no kink is active, the function is differentiable here"
        margin = f", smallest relative margin {self.margin:.2g}" if math.isfinite(self.margin) else ""
        return f"certified (computed): {self.kinks} active kink(s) decided by draw {self.draws}{margin}"


class Subgradient(NamedTuple):
    """A value, a gradient in the structure of the point, and its certificate."""

    value: Any
    gradient: Any
    certificate: Certificate


def subgradient(
    f: Callable[..., Any] | Program, x: Any, *data: Any, seed: int = 0, draws: int = 6, direction: Any = None
) -> Subgradient:
    """Give a true subgradient of a scalar function, with a certificate, at the price of backpropagation.

        g = lim_(t -> 0+) grad F(x + t v)   for a generic direction v, hence g in dF(x), Clarke's subdifferential

    The certificate holds if F is Lipschitz near x, its pieces are C1 at x, and every active kink is decided by v or has
    an argument of derivative zero. Jumps, singular operations at their bad points, values cut off from the derivative,
    and branches that do not join are found and refused. Status: `computed`, or undecided with the reasons.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.
        seed: of the directions; no generator of the user's is touched. Each odd seed begins with the opposite of the
            direction of the seed before.
        draws: how many directions are tried, each finer than the one before.
        direction: a direction to follow instead of drawn ones, in the structure of the point; a special one may leave
            kinks open.

    Returns:
        Value, gradient (in the structure of the point, also if undecided: then it is what backprop gives under the last
        selection tried) and certificate.

    Raises:
        ResultError: the function is not scalar. PointError, CaptureError: as `capture`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda t: torch.relu(t) - torch.relu(-t)
    >>> value, gradient, certificate = ns.subgradient(f, torch.tensor(0.0))
    >>> gradient, certificate.status
    (tensor(1.), 'computed')
    >>> ns.subgradient(lambda t: torch.where(t * t > 0, t, 2 * t), torch.tensor(0.0)).certificate.status
    'undecided'

    Source: KakadeLee2018, derived, docs/theory/subgradient.md.
    """
    if isinstance(draws, bool) or draws < 1:
        raise UsageError(f"draws={draws!r}: at least one direction must be drawn.")
    if isinstance(seed, bool) or seed < 0:
        raise UsageError(f"seed={seed!r}: pass an integer, 0 or more.")
    program, framework = as_program(f, x, data)
    if program is f and direction is None:
        found_quickly = _quickly(framework, program, x, data, seed, draws)
        if found_quickly is not None:
            return found_quickly
    way, evaluation, found, drawn = decide(
        framework, program, x, data, seed, 1 if direction is not None else draws, direction
    )
    own = evaluation if not evaluation.turns else framework.evaluate(program, x, data)
    value, gradient = framework.detached(framework.scalar(own)), framework.pull(evaluation)
    reasons = broken_conditions(way, own, evaluation, found)
    if not framework.finite(gradient):
        reasons.append(Reason("not finite", "the gradient holds nan or infinity"))
    kinks = found.count + len(evaluation.turns)
    certificate = Certificate(
        status="undecided" if reasons else "computed",
        direction=(way.directions[0] if direction is not None else way.directions[0]()) if kinks else None,
        margin=found.margin,
        draws=drawn if kinks else 0,
        kinks=kinks,
        flat=found.flat,
        reasons=tuple(dict.fromkeys(reasons)),
    )
    return Subgradient(value, gradient, certificate)


def _quickly(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...], seed: int, draws: int
) -> Subgradient | None:
    """Leave the common case to the framework, if it has a faster way for a program that is used again and again."""
    directions = [cache(partial(_drawn, framework, x, seed, k, 0)) for k in range(min(draws, QUICK_DRAWS))]
    found = framework.quick(program, x, data, follow_directions(), directions)
    if found is None:
        return None
    drawn = directions[found.draw - 1]() if found.draw else None
    certificate = Certificate("computed", drawn, found.margin, found.draw, found.kinks)
    return Subgradient(found.value, found.gradient, certificate)


def decide(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...], seed: int, draws: int, direction: Any
) -> tuple[Way, Evaluation, Resolution, int]:
    """Draw directions until one decides every kink; give it, the evaluation along it, and how many were drawn."""
    if framework.rewrites(program):
        quiet = _evaluated_without_kinks(framework, program, x, data)
        if quiet is not None:
            return Way(framework, x, data, ()), quiet, Resolution(), 0
    for attempt in range(draws):
        directions: list[Any] = [cache(partial(_drawn, framework, x, seed, attempt, k)) for k in range(WITNESSES)]
        if direction is not None:
            directions[0] = direction
        way = Way(framework, x, data, directions, wide=attempt > 1)
        try:
            evaluation = follow(way, program)
            found = resolve(evaluation, WITNESSES, hasty=attempt == 0 < draws - 1)
        except NoDerivative as error:
            found = Resolution(reasons=[Reason("no tangent", str(error))])
            evaluation = framework.evaluate(program, x, data)
        if not found.open or found.reasons:
            break
    return way, evaluation, found, attempt + 1


def _drawn(framework: Framework, x: Any, seed: int, attempt: int, k: int) -> Any:
    """Draw a direction; each attempt draws finer ones, so that fewer linear forms vanish at them by accident."""
    state = np.random.SeedSequence([seed // 2, attempt, k]).generate_state(1, np.uint64)
    drawn = framework.draw(x, int(state[0] >> np.uint64(1)), attempt + 1)
    return framework.combine((drawn,), (-1.0,)) if seed % 2 else drawn


def _evaluated_without_kinks(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...]
) -> Evaluation | None:
    """Evaluate a program that writes in place; None if kinks are active, so that tangents must be carried."""
    met: list[int] = []

    def note(step: Step, call: Call, masks: Any) -> None:
        met.append(step.index)

    evaluation = framework.evaluate(program, x, data, select=note, directions=())
    return None if met or evaluation.turns else evaluation


def broken_conditions(way: Way, own: Evaluation, evaluation: Evaluation, found: Resolution) -> list[Reason]:
    """List the conditions of the certificate that do not hold, or could not be decided."""
    framework, program = way.framework, evaluation.program
    assert program is not None
    reasons = [*found.reasons, *bad_points(framework, evaluation), *severed_reasons(way, program)]
    if own is not evaluation:
        reasons += bad_points(framework, own)
        reasons += join_values(way, own, evaluation)
        reasons += join_branches(way, evaluation, WITNESSES)
    reasons += join_choices(way, program, found.suspects) if found.suspects else []
    reasons += leads_nearby(way, evaluation) if way.directions else []
    if found.open:
        reasons.append(
            Reason("tie", f"{found.open} active kink(s) could not be decided: their tangents are lost in rounding")
        )
    return reasons
