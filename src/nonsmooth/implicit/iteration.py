"""What the iterations of every framework share: their settings, what is recorded of them, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.errors import NotConverged, UsageError

__all__ = [
    "MIXED",
    "Iterates",
    "Push",
    "Record",
    "growth",
    "in_place",
    "mismatch",
    "name_of",
    "not_finite",
    "random_tangents",
]

Push: TypeAlias = Callable[[Any], tuple[float, Any]]
"""t -> |B t| / |t|, and B t scaled to length 1."""

MIXED = 0.1
"""How much of a random tangent is added to one that is kept, so that a direction that begins to grow is soon met."""


@dataclass(frozen=True, eq=False)
class Record:
    """What was measured of the steps; see `DerivativeConvergence`."""

    iterates: Any
    iterate_size: float
    changes: Any
    size: float
    eps: float
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Iterates:
    """How the steps are made: `record` takes what was measured, the last iterate, the parameters, and whether they matter."""

    T: Callable[..., Any]
    steps: int
    mode: str
    tangents: int
    seed: int
    record: Callable[[Record, Any, Any, bool], None]


def random_tangents(shapes: list[tuple[int, ...]], rng: np.random.Generator) -> list[Any]:
    """Draw a direction in the product of arrays, of a random length between 1/2 and 1.

    Numbers of length 1 would be 1 or -1, and T(y, t) = 2 y + t moves no tangent (1, -1).
    """
    drawn = [rng.standard_normal(shape) for shape in shapes]
    length = math.sqrt(sum(float(np.sum(d * d)) for d in drawn)) / float(rng.uniform(0.5, 1.0))
    return [np.asarray(d / length) if length else d for d in drawn]


def growth(push: Push, tangent: Any, pushes: int) -> tuple[float, Any]:
    """Give by how much a tangent grows a step, in the mean over the later half of some pushes, and where it ends.

    >>> growth(lambda t: (2.0, t), None, 4)
    (2.0, None)
    """
    sizes: list[float] = []
    for _ in range(pushes):
        size, tangent = push(tangent)
        if not size or not math.isfinite(size):
            return size, None
        sizes.append(size)
    later = sizes[len(sizes) // 2 :]
    return math.exp(math.fsum(map(math.log, later)) / len(later)), tangent


def name_of(T: Any) -> str:
    """What the user's map is called."""
    return str(getattr(T, "__name__", type(T).__name__))


def mismatch(T: Any, asked: str, found: str) -> UsageError:
    """Say that T gives something else than it takes."""
    return UsageError(
        f"T must map the iterate to one like it: y has {asked}, and {name_of(T)}(y, *theta) gives {found}. "
        "Return all of the state in the same structure, shapes and types."
    )


def in_place(T: Any) -> UsageError:
    """Say that T changes what it is given."""
    return UsageError(
        f"{name_of(T)} changes its arguments in place, so that the iterate before the step is lost: return new tensors, as "
        "0.5 * y + x instead of y.mul_(0.5).add_(x)."
    )


def not_finite(T: Any, step: int) -> NotConverged:
    """Say that the iterates are lost."""
    return NotConverged(
        f"the iterates of {name_of(T)} are not finite from step {step} on: there is nothing to differentiate. Is T a "
        "contraction near the start? Take smaller steps, or start nearer to the solution."
    )
