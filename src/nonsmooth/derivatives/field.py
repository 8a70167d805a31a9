"""The conservative field of a program: the set of all values that backpropagation could have returned.

conv D(x) is the hull of the gradients J + Y (I - W L)^-1 W Z over all weights W of the active kinks. Its support
function costs one forward sweep and a maximisation for each group of kinks that interact, never 2^k sweeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.explicit import explicit_set
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import Linearisation
from nonsmooth.derivatives.pieces import LEFT_OUT, conditions, pieces_at
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework
from nonsmooth.kinks.resolution import Reason
from nonsmooth.program import Program
from nonsmooth.sets import ConvexSet, HullOfUnion, Image, MinimumNorm, Support

__all__ = ["Field", "field"]

DOUBLE = 1e-12
"""Types whose unit of rounding is larger are not double."""

LIMIT = 4096
"""How many extreme weights of a cover are enumerated in one group."""


class Cotangents(ConvexSet):
    """The cotangents of the z that the weights of all groups can give, as a set of R^(number of z)."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    @property
    def space(self) -> int:
        """The number of z."""
        return int(self.groups.system.first_z[-1])

    @property
    def exact(self) -> bool:
        """Whether no group is bracketed."""
        return self.groups.exact

    def _support(self, d: Floats) -> Support:
        found = self.groups.support(d)
        return Support(found.lower, found.upper, found.cotangents)


class AtLeast(ConvexSet):
    """A set of which only a part is known: no upper value is finite."""

    def __init__(self, inner: ConvexSet) -> None:
        self.inner = inner

    @property
    def space(self) -> int:
        """The number of coordinates."""
        return self.inner.space

    @property
    def exact(self) -> bool:
        """False: something was left out."""
        return False

    def _support(self, d: Floats) -> Support:
        found = self.inner._support(d)
        return Support(found.lower, float("inf") if np.any(d) else 0.0, found.point)

    def _sample(self, n: int, rng: np.random.Generator) -> Floats:
        return self.inner._sample(n, rng)


class Field(ConvexSet):
    """The convex hull of a conservative field at a point: a convex set of gradients.

        conv D(x) = conv { J + Y (I - W L)^-1 W Z : W weights of the active kinks }

    Every method of `sets.ConvexSet` serves; vectors are flat arrays, `unflatten` gives them the structure of the point,
    and every method takes either. Membership does not mean that backprop could return the value: conv D may be larger
    than D.

    Attributes:
        value: F(x).
        kinks: how many active kinks were met.
        pieces: how many programs are active: more than one where an `if` on data ties.
        groups: how many of them interact: the sizes of the groups, the largest first.
        exact: whether the set is known, or (False) only bracketed: then numbers are intervals.
        status: "computed", or "undecided" where a condition of the theory could not be shown; then see `reasons`.
        enlarged: whether kinks next to the point were counted as active (tol > 0): the set then contains conv D(x).
        reasons: what could not be shown, each with its line.

    Source: BoltePauwels2020, derived, docs/theory/sets.md.
    """

    def __init__(
        self, inner: ConvexSet, value: float, groups: list[Groups], reasons: tuple[Reason, ...], enlarged: bool
    ) -> None:
        self.inner, self.value, self.reasons, self.enlarged = inner, value, reasons, enlarged
        self.parts = tuple(groups)
        self.kinks, self.pieces = max(g.system.count for g in groups), len(groups)
        sizes = max((g.sizes for g in groups), key=lambda s: int(s.sum()))
        self.groups = tuple(sorted((int(s) for s in sizes), reverse=True))
        self.status = "undecided" if reasons else "computed"

    @property
    def space(self) -> int:
        """The number of coordinates of the point."""
        return self.inner.space

    @property
    def exact(self) -> bool:
        """Whether the set is known, and not only bracketed."""
        return self.inner.exact

    @property
    def systems(self) -> tuple[Linearisation, ...]:
        """The kink linearisations, one for each piece of the program that is active."""
        return tuple(g.system for g in self.parts)

    def is_critical(self, tol: float | None = None) -> bool | None:
        """Tell whether 0 is in conv D(x); None where the set is bracketed and it cannot be told.

        Args:
            tol: how far from 0 an element may be; by default the rounding of the gradients.

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.field(lambda x: x.abs().sum(), torch.tensor([0.0, 0.0])).is_critical()
        True

        Source: BoltePauwels2020.
        """
        return self.contains(np.zeros(self.space), self.rounding if tol is None else tol)

    def _rounding(self) -> float | None:
        return self.rounding

    @property
    def rounding(self) -> float | None:
        """How far rounding may have moved the set, in single precision or less; None where it is double."""
        eps = self.systems[0].framework.eps(self.systems[0].sweeps.evaluation.result)
        return max(s.rounding for s in self.systems) if eps > DOUBLE else None

    def descent_direction(self) -> Any:
        """Give a direction, like the point, along which F decreases at first order; None where none is known.

            F°(x; d) <= h(d) < 0,   d = -g / |g|,  g the shortest element of conv D(x)

        Only an exact or outer support value counts.

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.field(lambda x: x.abs().sum() + x[0] * 2, torch.tensor([0.0, 0.0])).descent_direction().round(decimals=6) + 0
        tensor([-1.,  0.])

        Source: Clarke1983.
        """
        shortest = self.minimum_norm()
        known = shortest.direction is not None and shortest.norm.lower > (self.rounding or 0.0)
        return self.unflatten(shortest.direction) if known else None

    def _support(self, d: Floats) -> Support:
        return self.inner._support(d)

    def _vertices(self, limit: int) -> Floats:
        return self.inner.vertices(limit)

    def _sample(self, n: int, rng: np.random.Generator) -> Floats:
        return self.inner._sample(n, rng)

    def _nearest(self, target: Floats, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        return self.inner._nearest(target, tolerance, limit, threshold)

    def _enclosing(self) -> ConvexSet | None:
        return self.inner._enclosing()

    def box(self) -> tuple[Floats, Floats]:
        """Give the smallest box that contains the set (its outer part, where it is bracketed).

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.field(lambda t: torch.relu(t) - torch.relu(-t), torch.tensor(0.0)).box()
        (array([0.]), array([2.]))

        Source: Rockafellar1970.
        """
        return self.inner.box()

    def __repr__(self) -> str:
        """Say in a sentence what is known."""
        if not self.kinks and self.pieces == 1:
            return f"conv D(x) = {{ gradient }} in R^{self.space}: no kink is active ({self.status})"
        joint = sum(1 for s in self.groups if s > 1)
        groups = f"{len(self.groups)} group(s), {joint} of them of kinks that interact" if self.groups else "no effect"
        known = "exact" if self.exact else "bracketed: numbers are intervals"
        enlarged = ", enlarged by kinks nearby" if self.enlarged else ""
        pieces = f"{self.pieces} programs where an `if` ties, " if self.pieces > 1 else ""
        return (
            f"conv D(x) in R^{self.space}: {pieces}{self.kinks} active kink(s), {groups}; {known}{enlarged} "
            f"({self.status})"
        )


def field(f: Callable[..., Any] | Program, x: Any, *data: Any, tol: float = 0.0, limit: int = LIMIT) -> Field:
    """Give the set of all values that backpropagation could have returned at a point, up to convex hull.

        conv D(x),   D(x) = { backprop of the program under s : s a selection }

    It contains Clarke's subdifferential, and 0 at every local minimum. Status: `computed`; exact as long as every group
    of kinks that interact has a cover of at most `limit` extreme weights, bracketed beyond (`exact` is False, and
    numbers are intervals). Where an `if` on data ties, the hull of the union over the programs whose value is F(x).

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.
        tol: the distance within which a kink counts as active, in units of the operation's argument. With tol > 0 the
            result is a larger set, and no field of F at x.
        limit: how many extreme weights are enumerated in a group before it is bracketed.

    Raises:
        NoField: the program jumps at the point, or is not Lipschitz there, with the line.
        ResultError: the function is not scalar. PointError, CaptureError: as `capture`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda t: torch.relu(t) - torch.relu(-t)          # the identity
    >>> D = ns.field(f, torch.tensor(0.0))
    >>> D.box(), D.contains(torch.tensor(1.0)), D.kinks
    ((array([0.]), array([2.])), True, 2)

    Source: BoltePauwels2020, derived, docs/theory/sets.md.
    """
    if isinstance(tol, str | bool) or not 0 <= tol < float("inf"):
        raise UsageError(f"tol={tol!r}: the distance to a kink must be a finite number, 0 or more.")
    if isinstance(limit, bool) or limit < 1:
        raise UsageError(f"limit={limit!r}: how many weights a group may have must be an integer, 1 or more.")
    program, framework = as_program(f, x, data)
    reasons = conditions(framework, program, x, data)
    value, systems, more = pieces_at(framework, program, x, data, tol)
    groups = [Groups(s, limit) for s in systems]
    parts = [_piece(g) for g in groups]
    inner = parts[0] if len(parts) == 1 else HullOfUnion(parts)
    if any(r.rule == LEFT_OUT for r in more):
        inner = AtLeast(inner)
    found = Field(inner, value, groups, (*reasons, *more), tol > 0)
    found.flatten, found.unflatten = partial(flattened, framework, x), partial(framework.unflatten_flat, x)
    return found


def flattened(framework: Framework, x: Any, v: Any) -> Any:
    """Read a vector: a flat array, or a tree like the point."""
    return (
        v if isinstance(v, np.ndarray | list | int | float) and not isinstance(x, list) else framework.flat_like(x, v)
    )


def _piece(groups: Groups) -> ConvexSet:
    """Give the set of one piece: in full where it is small, by sweeps where it is large."""
    small = explicit_set(groups)
    if small is not None:
        return small
    system = groups.system
    return Image(Cotangents(groups), system.pull, system.push, system.J.size, system.J)
