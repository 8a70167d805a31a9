"""Lexicographic derivatives: directions one after the other, each at the ties of those before it.

With M = [m_1 ... m_k] and F^(0) = F'(x; .), F^(j) = (F^(j-1))'(m_j; .), the LD-derivative is

    F'(x; M) = [F^(0)(m_1)  F^(1)(m_2)  ...  F^(k-1)(m_k)].

It obeys a sharp chain rule, so that tangents along all columns, carried together with each kink decided by the first
column that moves it, give it exactly. If M is square and invertible, F'(x; M) M^(-1) is a lexicographic subgradient, an
element of Clarke's subdifferential for piecewise differentiable F.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.directional import check_one_sided
from nonsmooth.derivatives.following import Way, follow
from nonsmooth.program import Program

__all__ = ["forward_subgradient", "lexicographic"]


def lexicographic(f: Callable[..., Any] | Program, x: Any, directions: Any, *data: Any) -> Any:
    """Give the LD-derivative of a function along the columns of a matrix of directions.

        F'(x; M) = [F^(0)(m_1) ... F^(k-1)(m_k)],   F^(0) = F'(x; .),   F^(j) = (F^(j-1))'(m_j; .)

    Status: `computed`.

    Args:
        f: the function f(x, *data), or its captured program.
        x: the point.
        directions: a list of k trees like the point; for a tensor of shape S also a tensor of shape S + (k,), whose last
            axis counts the directions (the columns of M for a vector).
        data: what is not differentiated.

    Returns:
        The derivative, in the structure of the result with a last axis of length k.

    Raises:
        NoDerivative: as `directional`. UsageError: the directions do not fit the point.

    The example of Khan and Barton, where forward mode with the framework's own rules gives no subgradient:

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda x: torch.maximum(torch.minimum(x[0], -x[1]), x[1] - x[0])
    >>> ns.lexicographic(f, torch.zeros(2), torch.eye(2))
    tensor([ 0., -1.])

    Source: Nesterov2005, KhanBarton2015.
    """
    program, framework = as_program(f, x, data)
    columns = framework.columns(x, directions)
    way = Way(framework, x, data, columns, deciding=len(columns))
    evaluation = follow(way, program)
    check_one_sided(way, program, evaluation)
    return framework.stack([framework.push(evaluation, k) for k in range(len(columns))])


def forward_subgradient(f: Callable[..., Any] | Program, x: Any, *data: Any) -> Any:
    """Give a Clarke subgradient of a scalar function by vector forward mode: p tangents beside every value.

        g = F'(x; I), the lexicographic subgradient along the unit vectors in their order.

    It costs p forward passes and p times the memory; `subgradient` costs one backward pass. Status: `computed`.

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
    >>> ns.forward_subgradient(lambda x: -torch.abs(x).sum(), torch.tensor([0.0, 2.0]))
    tensor([-1., -1.])

    Source: KhanBarton2015.
    """
    program, framework = as_program(f, x, data)
    return framework.unflatten_entries(x, lexicographic(program, x, framework.units(x), *data))
