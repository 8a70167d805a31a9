"""Monotone equilibria y = s(W y + c): matrices for which the condition of the theorem holds at every input.

With D = diag(d) an element of the conservative Jacobian of s, the derivative of y - s(W y + c) in y is B = I - D W. Let the
slopes of s lie in [0, h]. If the symmetric part of I - h W is at least m I, m > 0, the solution exists and is unique, and
with K = |2 I - h W|

    |B v| >= (K - sqrt(K^2 - 4 m)) / 2 |v|      for every D with entries in [0, h]

Proof of the bound: r = B v, w = h W v, p = v - r = (D / h) w, hence <p, w - p> = sum d_i/h (1 - d_i/h) w_i^2 >= 0, which reads
<v, (I - h W) v> <= <(2 I - h W) v, r> - |r|^2, so that m |v|^2 <= K |v| |r| - |r|^2.
If the slopes lie in [-h, h] and |h W| <= 1 - m, then |B v| >= m |v|.

Source: WinstonKolter2020, derived, docs/theory/equilibrium.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nonsmooth.bounds.propagation import propagate
from nonsmooth.bounds.region import Ball, Block
from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.frameworks.framework import find_framework

__all__ = [
    "EquilibriumReport",
    "Parametrisation",
    "activation_slopes",
    "check_form",
    "monotone_matrix",
    "singular_value_bound",
]

Parametrisation: TypeAlias = Literal["monotone", "contractive", "free"]

SLACK = 1e-6
"""By how much, relatively, the bounds of slopes may exceed them."""


@dataclass(frozen=True)
class EquilibriumReport:
    """What one call of an equilibrium layer did.

    Attributes:
        method: "plain iteration", "Peaceman-Rachford", "Anderson", or "user".
        iterations: how often the cell was evaluated.
        residual: the largest |y - T(y)| / (1 + |y|) of a sample.
        condition: "by construction", "by the matrix" (it holds at every input), or "at the solution" (checked there).
    """

    method: str
    iterations: int
    residual: float
    condition: str

    def __str__(self) -> str:
        """Print it in a line."""
        return (
            f"{self.iterations} evaluations ({self.method}), residual {self.residual:.2g}, condition {self.condition}"
        )


def monotone_matrix(A: Any, S: Any, margin: float, identity: Any, slope: float = 1.0) -> Any:
    """Give W = ((1 - m) I - A'A + S - S') / h, for which the symmetric part of I - h W is m I + A'A.

    Args:
        A: shape (k, n). S: shape (n, n). identity: I, an array of the same framework.
        margin: m > 0.
        slope: h > 0, the largest slope of the activation.

    >>> A, S = np.array([[1.0, 2.0]]), np.array([[0.0, 3.0], [0.0, 0.0]])
    >>> W = monotone_matrix(A, S, 0.1, np.eye(2))
    >>> np.linalg.eigvalsh(np.eye(2) - (W + W.T) / 2).round(6)
    array([0.1, 5.1])

    Source: WinstonKolter2020.
    """
    return ((1.0 - margin) * identity - A.T @ A + S - S.T) / slope


def singular_value_bound(margin: float, norm: float) -> float:
    """Bound the singular values of I - D W from below, over all D with entries in [0, h]: (K - sqrt(K^2 - 4 m)) / 2.

    Guarantee: for every W with sym(I - h W) >= m I and |2 I - h W| <= K. Status: proved in exact arithmetic. Sharp for n = 1.

    Args:
        margin: m > 0. norm: K, which is at least 1 + m.

    >>> singular_value_bound(0.5, 1.5), round(singular_value_bound(0.1, 5.0), 6)
    (0.5, 0.020081)

    Source: derived, docs/theory/equilibrium.md.
    """
    norm = max(norm, 1.0 + margin)
    return 2.0 * margin / (norm + math.sqrt(max(norm**2 - 4.0 * margin, 0.0)))


def activation_slopes(activation: Callable[[Any], Any], like: Any) -> tuple[float, float]:
    """Give an interval that holds all slopes of a function that acts entry by entry, from the bounds of the dictionary.

    Args:
        activation: a function of one array, made of operations of the dictionary, one after the other.
        like: an array of the framework, shape (n,).

    Raises:
        UsageError: no interval is known, or the function is none of one number.

    Source: derived, docs/theory/bounds.md.
    """
    framework = find_framework(like)
    name = getattr(activation, "__name__", type(activation).__name__)
    try:
        program = framework.capture(lambda point, *_: activation(point), like, ())
        region = Block("t", "inputs", program.inputs[0], tuple(like.shape), Ball(math.inf), None)
        _, walked = propagate(program, [region], {})
    except NonsmoothError as error:
        raise UsageError(
            f"the slopes of the activation {name} are not known: {error} Pass slopes=(least, largest)."
        ) from error
    low = high = 1.0
    for step in walked:
        if step.local.slopes is None:
            raise UsageError(
                f"the slopes of the activation {name} are not known: {step.step} is no function of single entries of which the "
                "dictionary knows slopes. Pass slopes=(least, largest)."
            )
        ends = [
            a * b
            for a in (low, high)
            for b in (float(np.min(step.local.slopes[0])), float(np.max(step.local.slopes[1])))
        ]
        low, high = min(ends), max(ends)
    return low, high


def check_form(parametrisation: str, margin: float, slopes: tuple[float, float]) -> None:
    """Refuse a parametrisation that the slopes of an activation do not allow.

    Raises:
        UsageError: an unknown name, a margin outside (0, 1), slopes that are infinite, or negative ones in a monotone layer.
    """
    if parametrisation not in get_args(Parametrisation):
        raise UsageError(
            f"parametrisation={parametrisation!r} means nothing: choose one of {', '.join(get_args(Parametrisation))}."
        )
    if isinstance(margin, bool) or not 0 < margin < 1:
        raise UsageError(f"margin={margin!r}: the margin m lies between 0 and 1.")
    low, high = slopes
    if parametrisation == "free":
        return
    if not (math.isfinite(low) and math.isfinite(high)) or max(-low, high) <= 0:
        raise UsageError(
            f"slopes in [{low:.3g}, {high:.3g}] of the activation allow no parametrisation: pass parametrisation='free'."
        )
    if parametrisation == "monotone" and low < 0:
        raise UsageError(
            f"the activation has slopes in [{low:.3g}, {high:.3g}]; a monotone layer needs an increasing one. Pass "
            "parametrisation='contractive'."
        )
