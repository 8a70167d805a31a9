"""One step of the ridge method: an element (v, w) of the joint field with w normal to the constraint.

For f(x) = max { F(x, y) : y in Y } and a maximiser y of F(x, .),

    v is a gradient of f at x if (v, w) in conv D_F(x, y) and w in N_Y(y).

The partial derivative in x alone is not of that form where a kink joins x and y.

Over 300 lines: the direction, what stands behind it and the problem it is taken of are read together.

Source: Pauwels2023, derived, docs/theory/ridge.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nonsmooth.derivatives.backprop import backprop, value_and_backprop
from nonsmooth.derivatives.field import LIMIT, Field
from nonsmooth.derivatives.field import field as joint_field
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.kinks.resolution import Reason
from nonsmooth.optim.constraints import Constraint, Constraints
from nonsmooth.program import Program
from nonsmooth.sets import Bounded, ConvexCone, ConvexSet, Meeting, Point, find_meeting

__all__ = ["MinMax", "RidgeCertificate", "RidgeDirection", "ridge_direction"]

ON_THE_BOUNDARY = 2.0**10
"""So many units of rounding, relative to the size of y, may an inequality be apart and still count as active."""


@dataclass(frozen=True, eq=False)
class RidgeCertificate:
    """What stands behind a ridge direction.

    Attributes:
        value: F(x, y).
        tolerance: what the distance of w from the normal cone was compared with.
        norm: of v; the interval is that of the least one among the pairs that are as near to the cone.
        kinks: how many kinks are active at (x, y).
        exact: whether the joint set is known, and not only bracketed.
        enlarged: whether kinks next to (x, y) were counted as active.
        ascent: where y is refuted, a direction u like y, of length 1, into Y, with F(x, y + t u) >= F(x, y) + t
            residual.lower + o(t); else None.
        partial_error: how far what backprop returns for x alone is from v.
        partial_residual: how far its w is from the normal cone.
        reasons: why the direction is undecided, where the field says so.
    """

    value: float
    tolerance: float
    norm: Bounded
    kinks: int
    exact: bool
    enlarged: bool
    ascent: Any = field(repr=False)
    partial_error: float = 0.0
    partial_residual: float = 0.0
    reasons: tuple[Reason, ...] = ()


class RidgeDirection(NamedTuple):
    """An element (v, w) of the joint field, w as near to the normal cone as it can be, and among those v the shortest.

    Attributes:
        v: like x; step against it.
        w: like y; None where Y is a finite set, whose normal cones hold every w.
        residual: the distance of w from N_Y(y); the interval is that of the least one over the joint set.
        status: "computed": residual <= tolerance, v is a gradient of f at x if y is a maximiser; "refuted": residual.lower >
            tolerance, y is no maximiser, not even a local one, and `certificate.ascent` leads to larger values;
            "undecided": neither could be shown.
        certificate: what stands behind it.

    Source: Pauwels2023, derived, docs/theory/ridge.md.
    """

    v: Any
    w: Any
    residual: Bounded
    status: str
    certificate: RidgeCertificate

    def __str__(self) -> str:
        """Say it in a sentence."""
        size, bound = float(self.residual), self.certificate.tolerance
        if self.status == "computed":
            return f"w is {size:.3g} from the normal cone, tolerance {bound:.3g} ({self.status})"
        if self.status == "refuted":
            return (
                f"y does not maximise F(x, .): every w is at least {self.residual.lower:.3g} from the normal cone, tolerance "
                f"{bound:.3g} ({self.status})"
            )
        known = "" if self.certificate.exact else "; the joint set is only bracketed"
        why = "; ".join(str(r) for r in self.certificate.reasons)
        return (
            f"w is {size:.3g} from the normal cone, tolerance {bound:.3g}, and it could not be shown that y is no "
            f"maximiser{known}{': ' + why if why else ''} ({self.status})"
        )


class MinMax:
    """A function F(x, y, *data) over Y, its programs captured once for each structure.

    Args:
        F: a scalar function of (x, y, *data), or the captured program of ((x, y), *data).
        x: the point, for its structure.
        constraint: Y: a constraint, or a tree of them like y; None: the whole space.
        candidates: Y as a finite set; then y is not differentiated.
    """

    def __init__(
        self, F: Callable[..., Any] | Program, x: Any, constraint: Any = None, candidates: Sequence[Any] | None = None
    ) -> None:
        if not callable(F) and not isinstance(F, Program):
            raise UsageError(f"F must be a function of (x, y, *data); found a {type(F).__name__}.")
        if candidates is not None and isinstance(F, Program):
            raise UsageError(
                "with a finite set of y pass the function F itself: a program of (x, y) differentiates both."
            )
        self.F, self.constraint, self.candidates = F, constraint, candidates
        self.framework: Framework = find_framework(x)
        self._programs: dict[Any, Program] = {}

    def _program(self, point: Any, data: tuple[Any, ...]) -> Program:
        """Capture the function of (x, y), or of x alone where Y is finite."""
        if isinstance(self.F, Program):
            return self.F
        key = self.framework.signature(point, data)
        if key not in self._programs:
            function = self.F
            joint = function if self.candidates is not None else lambda xy, *rest: function(xy[0], xy[1], *rest)
            self._programs[key] = self.framework.capture(joint, point, data)
        return self._programs[key]

    def _located(self, x: Any, y: Any, data: tuple[Any, ...]) -> tuple[Program, Any, tuple[Any, ...]]:
        """Give the program with its point and its data."""
        point, rest = ((x, y), data) if self.candidates is None else (x, (y, *data))
        return self._program(point, rest), point, rest

    def flat(self, tree: Any) -> Floats:
        """Lay a tree out as a flat array."""
        return np.asarray(self.framework.flat(tree), dtype=np.float64)

    def tree(self, like: Any, vector: Floats) -> Any:
        """Put a flat array into the structure and the types of a tree."""
        return self.framework.unflatten_flat(like, vector)

    def constraints(self, y: Any, constraint: Any = None) -> Constraints:
        """Give the constraints of the arrays of a point."""
        leaves, structure = self.framework.flatten(y)
        arrays = [np.asarray(self.framework.numpy(leaf), dtype=np.float64) for leaf in leaves]
        given = self.constraint if constraint is None else constraint
        return Constraints(given, arrays, structure, self.framework.flatten)

    def project(self, y: Any, constraint: Any = None) -> Any:
        """Give the point of Y nearest to y, like y."""
        return self.tree(y, self.constraints(y, constraint).project(self.flat(y)))

    def value(self, x: Any, y: Any, data: tuple[Any, ...]) -> float:
        """Give F(x, y)."""
        program, point, rest = self._located(x, y, data)
        evaluation = self.framework.evaluate(program, point, rest)
        return float(self.framework.numpy(self.framework.scalar(evaluation)).item())

    def value_and_slope(self, x: Any, y: Any, data: tuple[Any, ...]) -> tuple[float, Floats]:
        """Give F(x, y) and what backprop returns for y, flat."""
        program, point, rest = self._located(x, y, data)
        value, gradient = value_and_backprop(program, point, *rest)
        return float(self.framework.numpy(value).item()), self.flat(gradient[1])

    def direction(
        self,
        x: Any,
        y: Any,
        data: tuple[Any, ...],
        tolerance: float | None,
        near: float,
        boundary: float | None,
        limit: int,
    ) -> RidgeDirection:
        """Give the ridge direction; see `ridge_direction`."""
        program, point, rest = self._located(x, y, data)
        value, found = self._joint(program, point, rest, near, limit)
        eps = self.framework.eps(point)
        if self.candidates is not None:
            shortest = found.minimum_norm()
            meeting = Meeting(shortest.point, Bounded(0.0), shortest.norm, None, 0, shortest.status, shortest.scale)
            cone: ConvexCone | None = None
        else:
            cone = self._normals(y, eps, boundary)
            inner = found.inner if isinstance(found, Field) else found
            meeting = find_meeting(inner, found.space - cone.space, cone)
        allowed = eps ** (1 / 3) * meeting.scale if tolerance is None else tolerance
        reasons = found.reasons if isinstance(found, Field) else ()
        status = "undecided"
        if meeting.distance.upper <= allowed and not reasons:
            status = "computed"
        elif meeting.distance.lower > allowed + ON_THE_BOUNDARY * eps * meeting.scale and not reasons:
            status = "refuted"
        v, w = (self.tree(point, meeting.point), None) if cone is None else self.tree(point, meeting.point)
        ascent = None if status != "refuted" or meeting.separation is None else self.tree(y, meeting.separation)
        kinks = found.kinks if isinstance(found, Field) else 0
        plain = (0.0, meeting.distance.upper) if not kinks else self._partial(program, point, rest, meeting, cone)
        certificate = RidgeCertificate(
            value, allowed, meeting.norm, kinks, found.exact, near > 0, ascent, *plain, tuple(reasons)
        )
        return RidgeDirection(v, w, meeting.distance, status, certificate)

    def _joint(
        self, program: Program, point: Any, data: tuple[Any, ...], near: float, limit: int
    ) -> tuple[float, Field | ConvexSet]:
        """Give F and the joint set: the gradient, found by one backprop, where no kink is active."""
        if not near:
            value, gradient, certificate = subgradient(program, point, *data)
            if certificate.certified and not certificate.kinks:
                return float(self.framework.numpy(value).item()), Point(self.flat(gradient))
        found = joint_field(program, point, *data, tol=near, limit=limit)
        return found.value, found

    def _normals(self, y: Any, eps: float, boundary: float | None) -> ConvexCone:
        """Give N_Y(y), or say that y is not in Y."""
        constraints, at = self.constraints(y), self.flat(y)
        allowed = ON_THE_BOUNDARY * eps * max(1.0, float(np.abs(at).max(initial=0.0))) if boundary is None else boundary
        away = float(np.linalg.norm(at - constraints.project(at)))
        if not away <= allowed * math.sqrt(max(at.size, 1)):
            raise UsageError(
                f"y is {away:.3g} outside of its constraint (allowed: {allowed:.3g} an entry), where there is no normal cone. "
                "Project what maximises, or pass boundary=, the distance that counts as on the boundary."
            )
        return constraints.normal_cone(at, allowed)

    def _partial(
        self, program: Program, point: Any, data: tuple[Any, ...], meeting: Meeting, cone: ConvexCone | None
    ) -> tuple[float, float]:
        """Compare with what backprop returns: how far its v is from ours, and its w from the cone."""
        plain = self.flat(backprop(program, point, *data))
        free = len(plain) if cone is None else len(plain) - cone.space
        error = float(np.linalg.norm(plain[:free] - meeting.point[:free]))
        return error, 0.0 if cone is None else cone.distance(plain[free:])


def ridge_direction(
    F: Callable[..., Any] | Program,
    x: Any,
    y: Any,
    constraint: Any = None,
    *,
    data: tuple[Any, ...] = (),
    tolerance: float | None = None,
    near: float = 0.0,
    boundary: float | None = None,
    limit: int = LIMIT,
) -> RidgeDirection:
    """Give a gradient of f(x) = max { F(x, y) : y in Y } at x, from a maximiser y: the step of the ridge method.

        (v, w) in conv D_F(x, y),   dist(w, N_Y(y)) least, and among those |v| least

    For definable F and Y, Y convex, x -> { v : (v, w) in conv D_F(x, y), w in N_Y(y), y maximises F(x, .) } is a conservative
    field of f (proved). That w is within the tolerance of the normal cone is `computed`; that y is a maximiser, and not
    only a critical point, is the caller's word. The user's tensors and their `.grad` stay as they are.

    Args:
        F: a scalar function F(x, y, *data), or the captured program of ((x, y), *data).
        x, y: tensors, or trees of them.
        constraint: Y: a constraint, or a tree of them like y (None: no constraint); None: the whole space; a list of
            points: a finite set, y one of them, which is then not differentiated.
        data: what else F is called with.
        tolerance: how far w may be from the normal cone, in units of F by units of y; None: the cube root of rounding,
            relative to the gradients.
        near: the distance within which a kink counts as active, in units of the operation's argument, for an y that
            maximises only nearly. The joint set is then a larger one.
        boundary: the distance within which an inequality counts as active; None: rounding.
        limit: as in `field`.

    Raises:
        UsageError: y is outside of Y, or numbers that mean nothing.
        NoField: F has no field at (x, y), with the line. PointError, CaptureError: as `capture`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> F = lambda x, y: x * x / 2 + y - 2 * (y - x).abs()        # y = x maximises it: f(x) = x^2 / 2 + x
    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> F(x, torch.tensor(1.0)).backward(); x.grad                # the partial derivative
    tensor(1.)
    >>> v, w, residual, status, _ = ns.optim.ridge_direction(F, x, torch.tensor(1.0))
    >>> v.round(decimals=6), w.round(decimals=6) + 0, status      # f'(1) = 2
    (tensor(2.), tensor(0.), 'computed')
    >>> ns.optim.ridge_direction(F, x, torch.tensor(0.5)).status
    'refuted'

    Source: Pauwels2023, derived, docs/theory/ridge.md.
    """
    check_numbers(tolerance, near, boundary)
    finite = list(constraint) if isinstance(constraint, list | tuple) and not _holds_constraints(constraint) else None
    problem = MinMax(F, x, None if finite is not None else constraint, finite)
    return problem.direction(x, y, tuple(data), tolerance, near, boundary, limit)


def check_numbers(tolerance: float | None, near: float, boundary: float | None) -> None:
    """Refuse tolerances that mean nothing."""
    for name, value in (("tolerance", tolerance), ("near", near), ("boundary", boundary)):
        if value is not None and (isinstance(value, str | bool) or not 0 <= value < math.inf):
            raise UsageError(f"{name}={value!r}: pass a finite number, 0 or more.")


def _holds_constraints(given: Any) -> bool:
    """Tell a tree of constraints from a list of points."""
    items = given.values() if isinstance(given, dict) else given
    return any(
        i is None or isinstance(i, Constraint) or (isinstance(i, list | tuple | dict) and _holds_constraints(i))
        for i in items
    )
