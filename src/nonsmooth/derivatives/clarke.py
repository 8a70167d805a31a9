"""Clarke's subdifferential of a program: the hull of the limits of gradients at nearby points.

conv D(x), the hull of all selections, contains it and is often larger: `relu(t) - (relu(-t) + t)` is 0, and backprop can
return anything in [-1, 1]. Clarke's set is the hull of the *consistent* selections, those that are realised next to x.

The set and the reasons why it is exact are here, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nonsmooth.derivatives.arrangement import arranged_parts
from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.cells import Cells, walk_cells
from nonsmooth.derivatives.field import LIMIT, Field, field, flattened
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import Linearisation
from nonsmooth.derivatives.pieces import LEFT_OUT, pieces_at
from nonsmooth.derivatives.regular import is_regular
from nonsmooth.derivatives.sampling import sampled_limits
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.kinks.resolution import Reason
from nonsmooth.program import Program
from nonsmooth.program.affine import upstream
from nonsmooth.sets import Bounded, Bracket, ConvexSet, Hull, MinimumNorm, MinkowskiSum, Point, Support

__all__ = ["Clarke", "clarke", "clarke_in"]

ROWS = 256
"""How many rows of Z the cells are looked for with at most; beyond, limits are sampled."""

SAMPLES = 64
"""How many directions are followed where the cells cannot be listed."""


WALKED = ("flat", "equality")
"""What the walk over the cells of a piecewise affine program decides by itself."""

LOCAL = (*WALKED, "several", LEFT_OUT)
"""What the walk over the cells leaves out by itself, kink by kink; any other reason leaves everything open."""


class Clarke(ConvexSet):
    """Clarke's subdifferential dF(x), or what is known of it: a convex set of gradients.

        dF(x) = conv { lim grad F(x_k) : x_k -> x }

    Every method of `sets.ConvexSet` serves; where the set is not known exactly, numbers are intervals between `inner`
    and `outer`, and `contains` answers None between them.

    Attributes:
        value: F(x).
        equality: why the set is dF(x): "differentiable", "regular", "independent", "piecewise affine"; None where only
            inner <= dF(x) <= outer is known.
        enlarged: whether kinks next to the point were counted as active (tol > 0): the set is then not dF(x).
        cells: how many cells of consistent selections were found (0 where none had to be looked for).
        inner: a set inside dF(x); None where no element could be certified.
        outer: a set that contains it: conv D(x).
        status: "computed", or "undecided" where a condition of the theory could not be shown; then see `reasons`.
        reasons: what could not be shown or decided, each with its line.
        trusted: whether the outer set contains dF(x) for certain: no derivative is cut off, no branch comes out otherwise
            nearby.

    Source: Clarke1983, derived, docs/theory/sets.md.
    """

    def __init__(
        self,
        inner: ConvexSet | None,
        outer: Field,
        equality: str | None,
        cells: int = 0,
        reasons: tuple[Reason, ...] = (),
    ) -> None:
        self.inner, self.outer, self.equality, self.cells, self.reasons = inner, outer, equality, cells, reasons
        self.value, self.kinks = outer.value, outer.kinks
        self.status = "undecided" if reasons or inner is None else "computed"
        self.enlarged = False
        self.flatten, self.unflatten = outer.flatten, outer.unflatten
        self.trusted = all(r.rule in LOCAL for r in outer.reasons)
        self._set = inner if equality is not None or inner is None else Bracket(inner, outer)

    @property
    def space(self) -> int:
        """The number of coordinates of the point."""
        return self.outer.space

    @property
    def exact(self) -> bool:
        """Whether the set is dF(x), and not only between two others."""
        return not self.enlarged and self.equality is not None and self._set is not None and self._set.exact

    def is_critical(self, tol: float | None = None) -> bool | None:
        """Tell whether 0 is in dF(x): whether the point is Clarke critical; None where it cannot be told.

        Args:
            tol: how far from 0 an element may be; by default the rounding of the gradients.

        >>> import torch
        >>> import nonsmooth as ns
        >>> f = lambda t: torch.relu(t) - torch.relu(-t)          # the identity
        >>> ns.clarke(f, torch.tensor(0.0)).is_critical(), ns.field(f, torch.tensor(0.0)).is_critical()
        (False, True)

        Source: Clarke1983.
        """
        return self.contains(np.zeros(self.space), self.outer.rounding if tol is None else tol)

    def descent_direction(self) -> Any:
        """Give a direction, like the point, along which F decreases at first order; None where none is known.

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.clarke(lambda t: torch.relu(t) - torch.relu(-t), torch.tensor(0.0)).descent_direction()
        tensor(-1.)

        Source: Clarke1983.
        """
        shortest = self.minimum_norm()
        known = shortest.direction is not None and shortest.norm.lower > (self.outer.rounding or 0.0)
        return self.unflatten(shortest.direction) if known else None

    def _support(self, d: Floats) -> Support:
        if self._set is not None:
            return self._set._support(d)
        other, upper = self.outer._support(-d), self.outer._support(d).upper
        return Support(-other.upper, upper, other.point)  # an element of the outer set alone

    def contains(self, v: Any, tol: float | None = None) -> bool | None:
        """Tell whether a vector is in dF(x); None where it cannot be told.

        Args:
            v: shape (space,) or in the structure of the point.
            tol: how far from the set it may be; by default the rounding of the gradients.

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.clarke(torch.abs, torch.tensor(0.0)).contains(torch.tensor(0.5))
        True

        Source: Clarke1983.
        """
        if self._set is None:
            return False if self.trusted and self.outer.contains(v, tol) is False else None
        return super().contains(v, tol)

    def _rounding(self) -> float | None:
        return self.outer.rounding

    def _vertices(self, limit: int) -> Floats:
        if self._set is None or self.equality is None:
            raise UsageError(
                "vertices() was asked of a Clarke subdifferential that is known only between two sets; use "
                "`clarke.inner.vertices()` or `clarke.outer.vertices()`."
            )
        return self._set.vertices(limit)

    def _sample(self, n: int, rng: np.random.Generator) -> Floats:
        if self.inner is None:
            raise UsageError("sample() was asked of a Clarke subdifferential of which no element could be certified.")
        return self.inner._sample(n, rng)

    def _nearest(self, target: Floats, tolerance: float, limit: int, threshold: float | None) -> MinimumNorm:
        if self._set is not None:
            return self._set._nearest(target, tolerance, limit, threshold)
        found = self.outer._nearest(target, tolerance, limit, threshold)
        return found._replace(norm=Bounded(found.norm.lower, float("inf")))

    def _enclosing(self) -> ConvexSet | None:
        return None if self._set is None else self._set._enclosing()

    def __repr__(self) -> str:
        """Say in a sentence what is known."""
        if self.enlarged:
            return f"dF(x) in R^{self.space}, enlarged by kinks nearby: not dF(x) itself ({self.status})"
        if self.inner is None:
            return f"dF(x) in R^{self.space}: no element certified, inside conv D(x) ({self.status})"
        if self.equality is None:
            return f"dF(x) in R^{self.space}: between an inner set and conv D(x), not known exactly ({self.status})"
        cells = f" from {self.cells} cell(s)" if self.cells else ""
        return f"dF(x) in R^{self.space}{cells}, exact: {self.equality} ({self.status})"


def clarke(
    f: Callable[..., Any] | Program, x: Any, *data: Any, tol: float = 0.0, limit: int = LIMIT, seed: int = 0
) -> Clarke:
    """Give Clarke's subdifferential of a program at a point, and say whether it is known exactly.

        dF(x) = conv { lim grad F(x_k) : x_k -> x }

    It is known exactly (`equality`)

    * "differentiable": no kink matters;
    * "regular": no kink acts on another, and all are convex in their effect on F, or all concave: dF(x) = conv D(x);
    * "independent": the gradients of their arguments are linearly independent (the LIKQ): dF(x) = conv D(x);
    * "piecewise affine": what the kinks compare is so in the point (what follows may be smooth): their cells are listed.

    Else the hull of the cells found, or of sampled limits, is an inner set, and conv D(x) an outer one. Status:
    `computed`.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.
        tol: the distance within which a kink counts as active; with tol > 0 the set is that of the program with its
            kinks moved to the point, which says how F looks at that distance.
        limit: how many cells are looked for, and how many extreme weights are enumerated in a group.
        seed: of the directions that are followed where cells cannot be listed.

    Raises:
        NoField: the program jumps at the point, or is not Lipschitz there, with the line.
        ResultError: the function is not scalar. PointError, CaptureError: as `capture`.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda t: torch.relu(t) - (torch.relu(-t) + t)    # zero
    >>> found = ns.clarke(f, torch.tensor(0.0))
    >>> found.box(), found.equality, ns.field(f, torch.tensor(0.0)).box()
    ((array([0.]), array([0.])), 'piecewise affine', (array([-1.]), array([1.])))

    Source: Clarke1983, Griewank2013, derived, docs/theory/sets.md.
    """
    program, framework = as_program(f, x, data)
    outer = field(program, x, *data, tol=tol, limit=limit)
    parts: tuple[Groups, ...] | None = None
    if any(g.system.sweeps.evaluation.ties for g in outer.parts):
        _, systems, more = pieces_at(framework, program, x, data, tol, every=True)
        outer.reasons += tuple(r for r in more if r not in outer.reasons)
        parts = tuple(Groups(s, limit) for s in systems)
    found = clarke_in(outer, limit, seed, parts)
    found.enlarged = tol > 0
    found.flatten, found.unflatten = partial(flattened, framework, x), partial(framework.unflatten_flat, x)
    return found


def clarke_in(outer: Field, limit: int = LIMIT, seed: int = 0, parts: tuple[Groups, ...] | None = None) -> Clarke:
    """Give Clarke's subdifferential inside a field that is known.

    Where comparisons behind guards tie, `parts` are the pieces for every outcome of them.
    """
    groups = outer.parts if parts is None else parts
    affine = all(_has_flat_walls(g.system) for g in groups)
    reasons = tuple(r for r in outer.reasons if not (affine and r.rule in WALKED))
    if len(outer.parts) == 1 and not reasons:
        if not len(outer.parts[0].relevant):
            return Clarke(outer.inner, outer, "differentiable")
        if is_regular(outer.parts[0]):
            return Clarke(outer.inner, outer, "regular")
        if _is_independent(outer.parts[0]):
            return Clarke(outer.inner, outer, "independent")
    if affine and len(outer.parts) == 1 and not reasons:
        arranged = arranged_parts(outer.parts[0], limit)
        if arranged is not None:
            hulls, count = arranged
            inner: ConvexSet = MinkowskiSum([Point(outer.parts[0].system.J), *(Hull(p) for p in hulls)])
            return Clarke(inner, outer, "piecewise affine", count)
    if any(r.rule not in LOCAL for r in outer.reasons):
        return Clarke(None, outer, None, 0, outer.reasons)
    found = [_limits(g, affine, limit, seed) for g in groups]
    gradients = [v for cells in found for v in cells.gradients]
    open_ = tuple(dict.fromkeys((*reasons, *(r for cells in found for r in cells.reasons))))
    equality = "piecewise affine" if affine and all(c.complete for c in found) and not open_ else None
    hull = Hull(_distinct(np.array(gradients))) if gradients else None
    return Clarke(hull, outer, equality, sum(c.count for c in found), open_)


def _has_flat_walls(system: Linearisation) -> bool:
    """Tell whether what the active kinks compare is piecewise affine in the point, so that their cells are exact cones.

    What comes after the kinks may be smooth: on each cell the gradient tends to that of the selection. Where an `if`
    ties, and where a program writes in place, nothing at all may be curved.
    """
    evaluation, program = system.sweeps.evaluation, system.program
    if not evaluation.curved:
        return True
    if evaluation.ties or system.framework.rewrites(program):
        return False
    before = upstream(program, [c.step for c in evaluation.cuts])
    return all(step.index not in before for step in evaluation.curved)


def _limits(groups: Groups, affine: bool, limit: int, seed: int) -> Cells:
    """Find limits of gradients of one piece: of all cells, or along sampled directions."""
    system = groups.system
    weights = [b.weights for b in system.blocks]
    listed = all(w.count < np.inf for w in weights)
    if listed and int(system.first_z[-1]) <= ROWS and len(groups.relevant) <= ROWS:
        cells = walk_cells(system, groups.relevant.tolist(), affine, limit)
        if cells.complete or cells.reasons:
            return cells
        more = sampled_limits(system, SAMPLES, seed)  # the walk stays near where it began
        return replace(cells, gradients=[*cells.gradients, *more.gradients], count=cells.count + more.count)
    return sampled_limits(system, SAMPLES, seed)


def _is_independent(groups: Groups) -> bool:
    """Tell whether the gradients of the switching arguments are linearly independent: the LIKQ.

    Then every selection is realised next to the point, and dF(x) = conv D(x).
    """
    system, n = groups.system, int(groups.system.first_z[-1])
    evaluation = system.sweeps.evaluation
    plain = all(b.own is None for b in system.blocks)
    if evaluation.ties or not plain or n > min(ROWS, 2 * system.J.size + 64):
        return False
    rank = sum(b.weights.rank * len(b) for b in system.blocks)
    if rank > system.J.size:
        return False
    sizes = np.linalg.svd(system.dense_arguments[0], compute_uv=False)
    eps = system.framework.eps(evaluation.result)
    return bool(np.sum(sizes > 2.0**10 * eps * max(sizes[0], 1e-300) * n) >= rank)


def _distinct(points: Floats) -> Floats:
    """Leave one of each set of gradients that are equal up to rounding."""
    size = max(float(np.abs(points).max(initial=0.0)), 1e-300)
    _, first = np.unique(np.round(points / size, 13), axis=0, return_index=True)
    return points[np.sort(first)]
