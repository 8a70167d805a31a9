"""The conservative Jacobian of each projection of this folder, asked for by the projection itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.implicit.projections.ball import ball, ball_jacobian
from nonsmooth.implicit.projections.box import box, box_jacobian
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian
from nonsmooth.implicit.projections.l1_ball import l1_ball, l1_ball_jacobian
from nonsmooth.implicit.projections.second_order_cone import second_order_cone, second_order_cone_jacobian
from nonsmooth.implicit.projections.semidefinite_cone import semidefinite_cone, semidefinite_cone_jacobian
from nonsmooth.implicit.projections.simplex import simplex, simplex_jacobian

__all__ = ["jacobian"]

_SETS: dict[Callable[..., Any], Callable[..., ProjectionJacobian]] = {
    ball: ball_jacobian,
    box: box_jacobian,
    l1_ball: l1_ball_jacobian,
    second_order_cone: second_order_cone_jacobian,
    semidefinite_cone: semidefinite_cone_jacobian,
    simplex: simplex_jacobian,
}


def jacobian(
    projection: Callable[..., Any], z: Any, *parameters: Any, tolerance: float | None = None
) -> ProjectionJacobian:
    """Give the conservative (Clarke's) Jacobian of a projection at a point, as a set of matrices.

        J_P(z) = conv { lim P'(z_k) : z_k -> z, P differentiable at z_k }

    Status: `computed`, exact up to rounding; for three or more zero eigenvalues of a matrix a bracket (`exact` is False).

    Args:
        projection: one of this folder.
        z: one point, of numpy, torch or JAX, shape (n,), or (n, n) for `semidefinite_cone`, whose elements act on n n entries.
        parameters: what the projection takes beside z.
        tolerance: the distance within which entries tie; 1e-10 of the largest entry (at least of 1) by default.

    Raises:
        UsageError: another function, a point of another shape, nan, or too many ties to list.

    >>> found = jacobian(simplex, [1.0, 0.0])
    >>> found.extreme.tolist()
    [[[0.0, 0.0], [0.0, 0.0]], [[0.5, -0.5], [-0.5, 0.5]]]
    >>> found.contains([[0.25, -0.25], [-0.25, 0.25]]), found.contains([[0.5, 0.0], [0.0, 0.5]])
    (True, False)
    >>> jacobian(second_order_cone, [0.0, 0.0, 0.0]).dimension
    6

    Source: Clarke1983, KanzowFerencziFukushima2009, MalickSendov2006, derived, docs/theory/projections.md.
    """
    if projection not in _SETS:
        names = ", ".join(sorted(f.__name__ for f in _SETS))
        raise UsageError(
            f"jacobian takes a projection of nonsmooth.implicit.projections ({names}); found {projection!r}."
        )
    return _SETS[projection](z, *parameters, tolerance=tolerance)
