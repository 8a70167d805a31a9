"""What all sets do with arrays: read them, mix them, and say that there are too many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.errors import UsageError

__all__ = ["mixtures", "read_array", "too_many"]

Vector = NDArray[np.float64]


def read_array(v: Any, what: str) -> Vector:
    """Read finite numbers as an array of doubles."""
    try:
        found = np.array(v, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be an array of numbers; found a {type(v).__name__}: {error}.") from error
    if not np.isfinite(found).all():
        raise UsageError(f"{what} of shape {found.shape} holds nan or infinity; a compact set needs finite numbers.")
    return found


def mixtures(points: Vector, n: int, rng: np.random.Generator) -> Vector:
    """Mix points, shape (m, space), with random weights, from nearly extreme to nearly even: shape (n, space)."""
    if n < 0:
        raise UsageError(f"sample({n}) was asked; pass how many elements are wanted, a number that is not negative.")
    weights = rng.standard_gamma(10 ** rng.uniform(-1.5, 0.5, (n, 1)), (n, len(points))) + 1e-12
    return np.asarray(weights / weights.sum(1, keepdims=True) @ points)


def too_many(name: str, found: int, limit: int) -> UsageError:
    """Say that there are more vertices than wanted."""
    return UsageError(
        f"vertices(limit={limit}) was asked of a {name}, which has at least {found}; raise `limit`, or use "
        "support_point(d) and sample(n), which need no enumeration."
    )
