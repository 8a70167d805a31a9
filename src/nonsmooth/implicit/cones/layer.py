"""What the layers of both frameworks run on the host: batches of programs, solved, checked and differentiated.

Source: AgrawalEtAl2019a, derived, docs/theory/projections.md.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import ImplicitWarning, NotInvertible, UsageError
from nonsmooth.implicit.cones.condition import diagnose_program
from nonsmooth.implicit.cones.product import Cones
from nonsmooth.implicit.cones.program import ConeData, Solved, refine
from nonsmooth.implicit.cones.solvers import NAMED, Solver, solve_program
from nonsmooth.implicit.diagnosis import Diagnosis
from nonsmooth.implicit.options import Options

__all__ = ["Layer"]

Arrays = tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """Programs of one kind: their cones, their solver, and what is checked.

    Attributes:
        name: for messages.
        rows: a name for every row, for messages; None: their numbers.
    """

    name: str
    cones: Cones
    solver: Solver
    options: Options
    solver_options: dict[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a solver that does not serve the cones."""
        known = (*NAMED, "interior point")
        if not callable(self.solver) and self.solver not in known:
            raise UsageError(
                f"solver={self.solver!r} means nothing: choose one of {', '.join(known)}, or pass a function."
            )
        if self.solver == "interior point" and not self.cones.polyhedral:
            raise UsageError("solver='interior point' solves quadratic programs: of equations and inequalities alone.")

    def data(self, arrays: Sequence[Floats]) -> ConeData:
        """Read P, c, A, b of one program."""
        for what, a in zip("PcAb", arrays, strict=True):
            if a.dtype.kind != "f":
                raise UsageError(
                    f"a {self.name} takes floating numbers, to differentiate in them; its {what} is of {a.dtype}."
                )
        eps = max(float(np.finfo(a.dtype).eps) for a in arrays)
        P, c, A, b = (np.asarray(a, dtype=np.float64) for a in arrays)
        return ConeData(P, c, A, b, self.cones, eps)

    def solve_one(self, arrays: Sequence[Floats]) -> Solved:
        """Solve one program."""
        tolerance = 1e-7 if self.options.tolerance is None else self.options.tolerance
        return solve_program(self.data(arrays), self.solver, self.solver_options, tolerance, self.name)

    def solve(self, *arrays: Floats) -> tuple[Arrays, list[Solved]]:
        """Solve a batch: P, c, A, b with the same leading axes, which x, y, s have too."""
        lead, flat = _flat(arrays, (2, 1, 2, 1))
        solved = [self.solve_one(one) for one in zip(*flat, strict=True)]
        return _stack([s.values for s in solved], lead, arrays), solved

    def pull(self, solved: list[Solved], *cotangents: Floats) -> Arrays:
        """Give the cotangents of P, c, A, b for those of x, y, s, after the check of the condition.

        Raises:
            NotInvertible: the condition is violated. NotConverged: a linear solve failed.
        """
        lead, flat = _flat(cotangents, (1, 1, 1))
        for one in solved:
            self._check(one)
        found = [s.pull(*(g.astype(np.float64) for g in gs)) for s, *gs in zip(solved, *flat, strict=True)]
        return _stack(found, lead, cotangents)

    def pull_again(self, *arrays: Floats) -> Arrays:
        """Pull from P, c, A, b, the x, y, s that were found, and cotangents of these: where nothing could be kept."""
        _, flat = _flat(arrays[:7], (2, 1, 2, 1, 1, 1, 1))
        solved = [
            refine(self.data(one[:4]), *(t.astype(np.float64) for t in one[4:])) for one in zip(*flat, strict=True)
        ]
        return self.pull(solved, *arrays[7:])

    def _check(self, solved: Solved) -> None:
        """Decide the condition, and say what was found."""
        if self.options.check != "kinks" or self.options.violated == "ignore":
            return
        found = self.diagnose(solved)
        if found.invertible:
            return
        if self.options.violated == "raise":
            raise NotInvertible(found.message())
        warnings.warn(found.message(), ImplicitWarning, stacklevel=2)

    def diagnose(self, solved: Solved) -> Diagnosis:
        """Report on the condition."""
        return diagnose_program(solved, self.name, self.rows)


def _flat(arrays: Sequence[Floats], axes: Sequence[int]) -> tuple[tuple[int, ...], list[Floats]]:
    """Give the leading axes, and the arrays with one leading axis instead of them."""
    given = [np.asarray(a) for a in arrays]
    lead = np.broadcast_shapes(*(a.shape[: a.ndim - k] for a, k in zip(given, axes, strict=True)))
    tails = [a.shape[a.ndim - k :] for a, k in zip(given, axes, strict=True)]
    whole = [np.broadcast_to(a, lead + tail) for a, tail in zip(given, tails, strict=True)]
    return lead, [a.reshape(math.prod(lead), *tail) for a, tail in zip(whole, tails, strict=True)]


def _stack(found: list[Any], lead: tuple[int, ...], like: Sequence[Floats]) -> Arrays:
    """Put the results of a batch together, in the format of the arguments."""
    dtype = np.result_type(*like)
    return tuple(np.stack(parts).reshape(*lead, *parts[0].shape).astype(dtype) for parts in zip(*found, strict=True))
