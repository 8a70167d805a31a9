"""What is active at a point: the conditions of a field, and the programs that are active where an `if` on data ties."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nonsmooth.derivatives.linearisation import Linearisation, linearise
from nonsmooth.derivatives.subgradient import broken_conditions, decide
from nonsmooth.errors import NoField
from nonsmooth.frameworks.framework import Framework
from nonsmooth.kinks.resolution import Reason
from nonsmooth.program import Program

__all__ = ["LEFT_OUT", "conditions", "pieces_at"]

PIECES = 64
"""How many programs are followed where `if`s on data tie."""

REFUSALS = ("jump", "singular")
"""What leaves the theory: there is no field."""

LEFT_OUT = "pieces"
"""The rule of a reason that says that active programs were left out."""

HARMLESS = ("tie",)
"""What a direction could not decide does not matter to a set that holds all sides."""


def conditions(framework: Framework, program: Program, x: Any, data: tuple[Any, ...]) -> tuple[Reason, ...]:
    """Check what a field needs: that the program neither jumps nor is singular; give what could not be shown.

    Raises:
        NoField: it does, with the line.
    """
    way, evaluation, found, _ = decide(framework, program, x, data, 0, 3, None)
    own = evaluation if not evaluation.turns else framework.evaluate(program, x, data)
    framework.scalar(own)
    reasons = [r for r in broken_conditions(way, own, evaluation, found) if r.rule not in HARMLESS]
    refused = [r for r in reasons if r.rule in REFUSALS]
    if refused:
        raise NoField(
            f"the program has no conservative field at this point: {'; '.join(map(str, refused[:3]))}. Move off the "
            "point, or write the function so that its pieces join there (docs/field.md)."
        )
    return tuple(reasons)


def pieces_at(
    framework: Framework, program: Program, x: Any, data: tuple[Any, ...], tol: float = 0.0, *, every: bool = False
) -> tuple[float, list[Linearisation], list[Reason]]:
    """Linearise the programs that are active at a point and have the value of F there; give F(x) as well.

    With `every`, one for each outcome of the comparisons that tie behind guards, also where several make one program.

    Raises:
        NoField: a derivative is nan or infinite.
    """
    own = linearise(framework, program, x, data, tol)
    result = framework.scalar(own.sweeps.evaluation)
    value, eps = float(framework.numpy(result).item()), framework.eps(result)
    systems, reasons = [] if every else [own], []
    if any(g.comparisons for g in program.guards):
        walk = framework.outcomes if every else framework.pieces
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                others = [p for p in walk(program, x, data, limit=PIECES) if every or p is not program]
            except Exception as error:  # the user's own function may fail where it never runs by itself
                others, systems = [], [own]
                reasons.append(Reason(LEFT_OUT, f"another branch of an `if` that ties here fails: {error}"))
        reasons += [Reason(LEFT_OUT, str(w.message)) for w in caught if "outcomes of tied guards" in str(w.message)]
        for piece in others:
            system = linearise(framework, piece, x, data, tol)
            there = float(framework.numpy(framework.scalar(system.sweeps.evaluation)).item())
            if abs(there - value) <= 64 * eps * max(abs(there), abs(value), 1.0):
                systems.append(system)
    for system in systems:
        if not (np.all(np.isfinite(system.J)) and np.all(np.isfinite(system.Y))):
            raise NoField("a derivative is nan or infinite at this point: the program is singular there.")
    return value, systems, reasons
