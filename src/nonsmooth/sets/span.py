"""The dimension of a convex set, from its support function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.minimum_norm import Support

__all__ = ["NOISE", "THIN", "span_dimension"]

Vector = NDArray[np.float64]

THIN = 1e-10
"""A width below it, relative to the widest difference met, is none."""

NOISE = 1e-13
"""Neither is a width below it, relative to the longest element met: that is rounding."""


def span_dimension(
    support: Callable[[Vector], Support], space: int, most: int | None = None, outer: bool = False
) -> int:
    """Count the dimensions of the affine hull: widths along random directions orthogonal to the differences found.

        w(d) = h(d) + h(-d),   d in span(differences)^perp;   w(d) = 0 for a random d: almost surely nothing is left

    Status: `sampled`, correct almost surely up to the tolerances `THIN` and `NOISE`.

    Args:
        support: the support function.
        space: the number of coordinates.
        most: stop there.
        outer: measure widths by the upper support values, not by the points.

    >>> segment = lambda d: Support(max(0.0, d[0]), max(0.0, d[0]), np.array([float(d[0] > 0), 0.0]))
    >>> span_dimension(segment, 2)
    1

    Source: Rockafellar1970.
    """
    rng = np.random.default_rng(0)
    basis = np.zeros((0, space))
    longest, widest, misses = 0.0, 0.0, 0
    while len(basis) < (space if most is None else min(most, space)) and misses < 2:
        d = _beside(rng.standard_normal(space), basis)
        d /= np.linalg.norm(d)
        up, down = support(d), support(-d)
        longest = max(longest, float(np.linalg.norm(up.point)), float(np.linalg.norm(down.point)))
        difference = up.point - down.point
        width = up.upper + down.upper if outer else float(d @ difference)
        widest = max(widest, width, float(np.linalg.norm(difference)))
        if width <= max(THIN * widest, NOISE * longest):
            misses += 1
            continue
        new = _beside(d if outer else difference, basis)
        basis = np.vstack([basis, new / np.linalg.norm(new)])
        misses = 0
    return len(basis)


def _beside(v: Vector, basis: Vector) -> Vector:
    """Project to the orthogonal complement of orthonormal rows, twice against rounding."""
    for _ in range(2):
        v = v - (v @ basis.T) @ basis
    return v
