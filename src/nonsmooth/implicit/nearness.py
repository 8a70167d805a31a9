"""Which kinks a solution may lie on that is known up to an error, measured in the units of each kink's argument.

An argument a(y) with |a| <= s e, s = |grad a| and e the distance to the solution, may be zero at the solution. The slope s is
estimated from differences along random directions: |a(y + h d) - a(y)| / h is |grad a| times a normal number.

Source: derived, docs/theory/implicit.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nonsmooth.dictionary import Nonsmooth, Switch
from nonsmooth.dictionary.weights import Floats
from nonsmooth.implicit.residual import Residual

__all__ = ["DRAWS", "NEAR", "ROUNDING", "Nearness", "nearness", "steepness"]

NEAR = 10.0
"""A kink counts as active within so many bounds of the error of the solution."""

ROUNDING = 64.0
"""... or so many units of rounding, times the size of the solution."""

DRAWS = 3
"""Along how many directions the slope of an argument is measured."""


@dataclass(frozen=True)
class Nearness:
    """How far an argument may be from zero for all kinks to count on which the solution may lie.

    Attributes:
        tolerance: the largest argument of such a kink.
        beyond: whether it takes in kinks on which the solution does not lie, whose arguments are flatter.
    """

    tolerance: float
    beyond: bool


def nearness(residual: Residual, error: float, scale: float, eps: float) -> Nearness:
    """Measure the arguments of all kinks near a solution.

    Args:
        residual: captured at the solution.
        error: a bound of the distance to the solution.
        scale: the size of the solution.
        eps: the unit of rounding.
    """
    sizes, slope = _sizes_and_slopes(residual, scale, eps)
    slope = np.nan_to_num(slope, nan=1.0, posinf=1.0)
    reached = NEAR * error if math.isfinite(error) else 0.0
    near = sizes <= reached * slope + ROUNDING * eps * scale * np.maximum(slope, 1.0)
    tolerance = float(sizes[near].max())
    return Nearness(tolerance, bool(np.any(sizes[~near] <= tolerance)))


def steepness(residual: Residual, scale: float, eps: float) -> float:
    """Estimate how fast the arguments of kinks move with the solution, at most; at least 1."""
    slopes = _sizes_and_slopes(residual, scale, eps)[1]
    return float(np.max(slopes[np.isfinite(slopes)], initial=1.0))


def _sizes_and_slopes(residual: Residual, scale: float, eps: float) -> tuple[Floats, Floats]:
    """Give |a| and an estimate of |grad a| for every argument, after a 0."""
    x = np.asarray(residual.framework.flat(residual.x), dtype=np.float64)
    rng, step = np.random.default_rng(0), math.sqrt(eps) * scale
    here = _arguments(residual, x)
    slopes = {k: np.zeros_like(a) for k, a in here.items()}
    for _ in range(DRAWS if here else 0):
        there = _arguments(residual, x + step * rng.standard_normal(x.shape))
        for k, a in here.items():
            if k in there and there[k].shape == a.shape:
                with np.errstate(invalid="ignore"):  # margins of kinks that are nowhere near are infinite
                    slopes[k] = np.fmax(slopes[k], np.abs(there[k] - a) / step)
    sizes = np.concatenate([np.zeros(1), *(np.abs(a) for a in here.values())])
    return sizes, np.concatenate([np.zeros(1), *slopes.values()])


def _arguments(residual: Residual, vector: Floats) -> dict[tuple[int, str], Floats]:
    """Give what is zero at the kinks of each step, as flat arrays."""
    framework = residual.framework
    x = framework.unflatten_flat(residual.x, vector)
    found: dict[tuple[int, str], Floats] = {}
    for met in framework.evaluate(residual.program, x, residual.data, observe=True).calls:
        operation = met.step.operation
        if isinstance(operation, Switch):
            parts = {str(i): a for i, a in enumerate(operation.arguments(met.call))}
        elif isinstance(operation, Nonsmooth):
            parts = dict(operation.margins(met.call))
        else:
            continue
        for name, part in parts.items():
            found[met.step.index, name] = np.asarray(framework.numpy(part), dtype=np.float64).ravel()
    return found
