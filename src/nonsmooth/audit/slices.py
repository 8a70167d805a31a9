"""Slices: the function along lines through the point, with its one-sided slopes there and the one that backprop claims.

t -> F(x + t d),   slopes F'(x; d) for t > 0 and -F'(x; -d) for t < 0,   claimed <g_framework, d>.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.audit.effects import Bench, conventions
from nonsmooth.audit.result import Comparison
from nonsmooth.derivatives.backprop import backprop
from nonsmooth.derivatives.directional import directional

__all__ = ["Slice", "measure_slices"]

POINTS = 8
"""How many points a slice has on each side."""

REACH = 0.02
"""How far a slice goes, relative to the size of the point and one."""


@dataclass(frozen=True)
class Slice:
    """F along a direction of length 1: the points, the one-sided slopes, and the slope that the framework claims.

    A slope is None where there is none or none could be decided; `note` says why. Status: slopes `computed`.
    """

    direction: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    left: float | None
    right: float | None
    claimed: float
    note: str = ""
    status: str = "computed"


def measure_slices(bench: Bench, comparisons: tuple[Comparison, ...]) -> tuple[Slice, ...]:
    """Cut the function along the direction in which the conventions part most, downhill, and along a random one."""
    framework, gradient = bench.framework, backprop(bench.program, bench.x, *bench.data)
    directions: list[tuple[str, Any]] = []
    apart = [(c.total.absolute, number) for number, c in enumerate(comparisons) if math.isfinite(c.total.absolute)]
    if apart and max(apart)[0] > 0:
        _, number = max(apart)
        rule = conventions(framework.name)[number]
        other = backprop(bench.program, bench.x, *bench.data, at_kinks=rule)
        difference = framework.combine((other, gradient), (1.0, -1.0))
        directions.append((f"where the convention {comparisons[number].convention} differs most", difference))
    directions.append(("the negative gradient of the framework", framework.combine((gradient,), (-1.0,))))
    directions.append(("a random direction", framework.draw(bench.x, 0)))
    found = []
    for number, (name, direction) in enumerate(directions):
        bench.report("slices through the point", number, len(directions))
        length = _length(bench, direction)
        if math.isfinite(length) and length > 0:
            found.append(_slice(bench, name, framework.combine((direction,), (1 / length,)), gradient))
    return tuple(found)


def _slice(bench: Bench, name: str, direction: Any, gradient: Any) -> Slice:
    """Cut the function along one direction of length 1."""
    reach = REACH * (1 + _length(bench, bench.x))
    steps = tuple(float(t) for t in reach * np.linspace(-1, 1, 2 * POINTS + 1))
    values = tuple(_value(bench, direction, t) for t in steps)
    slopes: list[float | None] = []
    note = ""
    for sign in (-1.0, 1.0):
        try:
            along = directional(bench.program, bench.x, bench.framework.combine((direction,), (sign,)), *bench.data)
            slopes.append(sign * float(bench.framework.numpy(along)))
        except Exception as error:  # the user's function may fail in a branch into which the direction leads
            slopes.append(None)
            note = str(error)
    claimed = sum(
        float(np.sum(np.multiply(g, d, dtype=np.float64)))
        for g, d in zip(bench.framework.arrays(gradient), bench.framework.arrays(direction), strict=True)
    )
    return Slice(name, steps, values, slopes[0], slopes[1], claimed, note)


def _value(bench: Bench, direction: Any, t: float) -> float:
    """Give F(x + t d); nan where the function has no value."""
    point = bench.framework.combine((bench.x, direction), (1.0, t))
    try:
        evaluation = bench.framework.evaluate(bench.program, point, bench.data)
        return float(bench.framework.numpy(bench.framework.scalar(evaluation)))
    except Exception:  # the function need not be defined there
        return float("nan")


def _length(bench: Bench, tree: Any) -> float:
    """Give the Euclidean norm of a tree of arrays."""
    return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in bench.framework.arrays(tree)))
