"""The conservative Jacobian of a projection at a point, as a set of matrices.

A projection on a closed convex set has symmetric Clarke Jacobians V, 0 <= V <= I. For every set of this folder Clarke's set
lies between two of its own elements, in the order of the quadratic forms:

    smallest <= V <= largest,   largest - smallest an orthogonal projector

Source: Clarke1983, derived, docs/theory/projections.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.sets import ConvexSet, Hull, MinimumNorm, Point

__all__ = ["LIMIT", "ProjectionJacobian", "finite", "read_point", "spread", "subsets"]

LIMIT = 4096
"""How many extreme elements are listed."""


@dataclass(frozen=True, eq=False)
class ProjectionJacobian:
    """Clarke's generalised Jacobian of a projection at a point of n entries: matrices of shape (n, n).

    Status: `computed`, in floating point, ties within the tolerance; where `exact` is False only a bracket of the set is
    known, and questions are answered by intervals or None.

    Attributes:
        elements: the set, in R^(n n).
        extreme: its extreme elements, shape (count, n, n), where they are finitely many; else None.
        smallest, largest: its least and greatest elements as quadratic forms, shape (n, n).
        directions: orthonormal rows r with largest = smallest + sum r r'.
        independent: whether the set is { smallest + sum t_i r_i r_i' : 0 <= t_i <= 1 }.

    Source: Clarke1983, derived, docs/theory/projections.md.
    """

    elements: ConvexSet
    extreme: Floats | None
    smallest: Floats
    largest: Floats
    directions: Floats
    independent: bool

    @property
    def status(self) -> str:
        """How the set is known."""
        return self.elements.status

    @property
    def exact(self) -> bool:
        """Whether the set is known, and not only bracketed."""
        return self.elements.exact

    @property
    def dimension(self) -> int:
        """The dimension of its affine hull; a lower bound where it is bracketed."""
        return self.elements.dimension

    @property
    def is_singleton(self) -> bool:
        """Whether the projection is differentiable at the point."""
        return not len(self.directions)

    def contains(self, V: Any, tol: float | None = None) -> bool | None:
        """Tell whether a matrix is in the set, up to a distance in the Frobenius norm; None where it cannot be told."""
        return self.elements.contains(self._flat(V), tol)

    def nearest(self, V: Any) -> MinimumNorm:
        """Give the element nearest to a matrix (flat), with its distance."""
        return self.elements.nearest(self._flat(V))

    def _flat(self, V: Any) -> Floats:
        """Lay a matrix out."""
        found = np.asarray(V.detach() if hasattr(V, "detach") else V, dtype=np.float64)
        if found.size != self.smallest.size:
            raise UsageError(
                f"a matrix of shape {found.shape} was compared with elements of shape {self.smallest.shape}."
            )
        return found.reshape(-1)


def finite(extreme: Floats, smallest: Floats, largest: Floats, directions: Floats) -> ProjectionJacobian:
    """Give the hull of finitely many elements; of two, it is a segment along one direction."""
    n = len(smallest)
    rows = extreme.reshape(len(extreme), -1)
    elements: ConvexSet = Point(rows[0]) if len(rows) == 1 else Hull(rows)
    return ProjectionJacobian(elements, extreme, smallest, largest, directions.reshape(-1, n), len(extreme) <= 2)


def spread(smallest: Floats, largest: Floats) -> Floats:
    """Give orthonormal rows r with largest - smallest = sum r r', which is a projector."""
    values, vectors = np.linalg.eigh(largest - smallest)
    return np.ascontiguousarray(vectors[:, values > 0.5].T)


def read_point(z: Any, axes: int, name: str, tolerance: float | None) -> tuple[Floats, float]:
    """Read a point and the distance within which entries tie."""
    found = np.asarray(z.detach().cpu() if hasattr(z, "detach") else z, dtype=np.float64)
    if found.ndim != axes or not found.size or (axes == 2 and found.shape[0] != found.shape[1]):
        raise UsageError(
            f"the Jacobians of {name} are those at one point, of shape {'(n,)' if axes == 1 else '(n, n)'}; found the shape "
            f"{found.shape}."
        )
    if not np.isfinite(found).all():
        raise UsageError(f"the Jacobians of {name} were asked for at a point with nan or infinity.")
    scale = max(1.0, float(np.abs(found).max()))
    return found, 1e-10 * scale if tolerance is None else float(tolerance)


def subsets(places: Sequence[int] | NDArray[np.intp], choices: int, name: str) -> Floats:
    """Give all assignments of 0 .. choices - 1 to some places, shape (count, number of places).

    Raises:
        UsageError: there are too many to list.
    """
    if choices ** len(places) > LIMIT:
        raise UsageError(
            f"the Jacobians of {name} have {choices}^{len(places)} extreme elements, more than the {LIMIT} that are listed: "
            f"{len(places)} entries tie."
        )
    return np.array(list(itertools.product(range(choices), repeat=len(places))), dtype=np.intp)
