"""Projections on convex sets, as functions that differentiate, with their conservative Jacobians as sets."""

from __future__ import annotations

from nonsmooth.implicit.projections.ball import ball
from nonsmooth.implicit.projections.box import box
from nonsmooth.implicit.projections.jacobian_set import ProjectionJacobian
from nonsmooth.implicit.projections.jacobians import jacobian
from nonsmooth.implicit.projections.l1_ball import l1_ball
from nonsmooth.implicit.projections.second_order_cone import second_order_cone
from nonsmooth.implicit.projections.semidefinite_cone import semidefinite_cone
from nonsmooth.implicit.projections.simplex import simplex

__all__ = [
    "ProjectionJacobian",
    "ball",
    "box",
    "jacobian",
    "l1_ball",
    "second_order_cone",
    "semidefinite_cone",
    "simplex",
]
