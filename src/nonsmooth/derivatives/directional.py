"""Directional derivatives: one-sided, and exact at kinks.

    F'(x; v) = lim_(t -> 0+) (F(x + t v) - F(x)) / t.

For operations that are directionally differentiable and Lipschitz the chain rule holds one-sidedly,
(g o f)'(x; v) = g'(f(x); f'(x; v)), so that tangents carried beside the values give F'(x; v) if each kink uses its own
one-sided rule: a switch the sign of its argument's tangent, an order operation the order of (value, tangent), a norm at
zero the norm of the tangent. F'(x; .) is positively homogeneous, and not linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.following import Way, bad_points, follow, severed_reasons
from nonsmooth.derivatives.joining import join_branches, join_values, leads_nearby
from nonsmooth.dictionary import Select
from nonsmooth.errors import NoDerivative
from nonsmooth.frameworks.framework import Evaluation
from nonsmooth.kinks.resolution import Reason, rounding_of
from nonsmooth.program import Program

__all__ = ["check_one_sided", "coordinate_derivatives", "directional"]


def directional(f: Callable[..., Any] | Program, x: Any, v: Any, *data: Any) -> Any:
    """Give the one-sided derivative of a function along a direction, exact at kinks of every kind.

        F'(x; v) = lim_(t -> 0+) (F(x + t v) - F(x)) / t

    An `if` on data that ties follows the direction into the branch it leads to. Status: `computed`. Values that are
    detached from the graph count, as F depends on them.

    Args:
        f: the function f(x, *data), which may return a tree of tensors, or its captured program.
        x: the point.
        v: the direction, in the structure and shapes of the point.
        data: what is not differentiated.

    Returns:
        The derivative, in the structure and shapes of the result.

    Raises:
        NoDerivative: a jump, a singular operation at its bad point, or a value that left the program is in the way; it
            names the line.
        UsageError: the direction does not fit the point.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda x: torch.maximum(x[0], -2 * x[1]) + torch.linalg.vector_norm(x)
    >>> origin = torch.zeros(2)
    >>> ns.directional(f, origin, torch.tensor([3.0, 4.0])), ns.directional(f, origin, torch.tensor([-3.0, -4.0]))
    (tensor(8.), tensor(13.))

    Source: Scholtes2012, derived, docs/theory/subgradient.md.
    """
    program, framework = as_program(f, x, data)
    way = Way(framework, x, data, (v,))
    evaluation = follow(way, program)
    check_one_sided(way, program, evaluation)
    return framework.push(evaluation, 0)


def check_one_sided(way: Way, own: Program, evaluation: Evaluation) -> None:
    """Refuse a derivative along directions that the program does not have, or that cannot be decided.

    Raises:
        NoDerivative: with the first reason and its line.
    """
    program, framework = evaluation.program, way.framework
    assert program is not None
    reasons = bad_points(framework, evaluation)
    reasons += [r for r in severed_reasons(way, program) if r.rule != "detached"]
    reasons += _undecided_choices(evaluation, way.deciding)
    if evaluation.turns:
        reasons += join_values(way, framework.evaluate(own, way.x, way.data), evaluation)
        reasons += join_branches(way, evaluation, 1)
    reasons += leads_nearby(way, evaluation)
    if reasons:
        raise NoDerivative(
            f"directional: the one-sided derivative is not decided: {reasons[0]}. "
            + (f"There are {len(reasons) - 1} more such places. " if len(reasons) > 1 else "")
            + "Move the point, or write the function without a jump there; ns.kinks lists what it meets."
        )


def _undecided_choices(evaluation: Evaluation, deciding: int) -> list[Reason]:
    """List the ties of `where` that the directions leave tied, although the derivatives of the branches differ there."""
    found = []
    for met in evaluation.decided:
        if not isinstance(met.step.operation, Select):
            continue
        call = met.call
        assert call.tangents is not None and call.scale is not None
        xp, motion = call.xp, call.attributes["motion"]
        still = met.step.operation.active(call)["tie"]
        apart = xp.zeros_like(still)
        for k in range(deciding):
            tangents, noise = call.tangents(k), rounding_of(call) * call.scale(k)
            apart = apart | (still & (xp.abs(tangents[1] - tangents[2]) > noise))
        if motion is None or bool(xp.any(apart & motion.several)):
            undecided = apart if motion is None else apart & motion.several & (motion.along == call.operands[0])
        else:
            undecided = apart
            for k in range(deciding):
                undecided = undecided & (xp.abs(motion.moved[k]) <= rounding_of(call) * motion.scale)
        if bool(xp.any(undecided)):
            text = (
                f"{met.step}: its predicate still ties along the direction, and its branches have different derivatives"
            )
            found.append(Reason("tie", text, met.step.source))
    return found


def coordinate_derivatives(f: Callable[..., Any] | Program, x: Any, *data: Any) -> Any:
    """Give the p one-sided derivatives F'(x; e_j) of a scalar function along the unit vectors: p forward passes.

    At a kink they are no gradient and no subgradient: F'(x; .) is not linear. Status: `computed`.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point, with p entries in all.
        data: what is not differentiated.

    Returns:
        A tree like the point.

    Raises:
        NoDerivative: as `directional`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> ns.coordinate_derivatives(lambda x: -torch.abs(x).sum(), torch.tensor([0.0, 2.0]))
    tensor([-1., -1.])

    Source: KhanBarton2015.
    """
    program, framework = as_program(f, x, data)
    columns = [directional(program, x, unit, *data) for unit in framework.units(x)]
    return framework.unflatten_entries(x, framework.stack(columns))
