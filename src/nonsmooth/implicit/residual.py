"""The residual H(y, theta) of an equation as a captured program, linearised at its active kinks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nonsmooth.derivatives.linearisation import Linearisation, linearise
from nonsmooth.derivatives.pieces import LEFT_OUT, PIECES, conditions
from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.framework import Framework
from nonsmooth.frameworks.replay.arrays import is_real_floating
from nonsmooth.implicit.equation import Equation, Trees
from nonsmooth.implicit.invertibility import Lifted
from nonsmooth.kinks.resolution import Reason
from nonsmooth.program import Program

__all__ = ["Residual", "Split", "lifted"]

JOINED = 64.0
"""How many units of rounding two programs of one function may differ where they meet."""


class Split:
    """Parameters as the floating arrays in them, which are differentiated, and the rest."""

    def __init__(self, framework: Framework, theta: tuple[Any, ...]) -> None:
        self.framework = framework
        leaves, self.structure = framework.flatten(theta)
        self.moves = [framework.holds(t) and is_real_floating(framework.xp, t) for t in leaves]
        self.floats = [framework.detached(t) for t, m in zip(leaves, self.moves, strict=True) if m]
        self.rest = [
            framework.detached(t) if framework.holds(t) else t for t, m in zip(leaves, self.moves, strict=True) if not m
        ]

    def join(self, floats: list[Any]) -> tuple[Any, ...]:
        """Put floating arrays back among the rest."""
        first, second = iter(floats), iter(self.rest)
        leaves = [next(first) if m else next(second) for m in self.moves]
        return tuple(self.framework.unflatten(leaves, self.structure))


@dataclass(frozen=True, eq=False)
class Residual:
    """A program whose results are <c, H>, for a generic c, and H; its point x is y, or (y, parameters)."""

    framework: Framework
    function: Callable[..., tuple[Any, Any]]
    program: Program
    x: Any
    data: tuple[Any, ...]

    @classmethod
    def capture(
        cls, framework: Framework, equation: Equation, trees: Trees, y: Any, theta: tuple[Any, ...], moving: bool
    ) -> Residual:
        """Capture H in y alone, or in y and all floating parameters.

        Raises:
            CaptureError: H cannot be captured.
        """
        split = Split(framework, theta)
        y = framework.unflatten([framework.detached(t) for t in framework.flatten(y)[0]], framework.flatten(y)[1])

        def both(point: Any, *data: Any) -> tuple[Any, Any]:
            unknowns, floats = point if moving else (point, list(data))
            found = equation.residual(trees, unknowns, split.join(list(floats)))
            return _weighed(framework, found), found

        x, data = ((y, split.floats), ()) if moving else (y, tuple(split.floats))
        program = framework.capture(both, x, data)
        return cls(framework, both, program, x, data)

    def reasons(self) -> tuple[Reason, ...]:
        """Give what of the theorem's conditions on H could not be shown.

        Raises:
            NoField: H jumps, or is not Lipschitz, with the line.
        """
        weighed = replace(self.program, result=self.program.result[0])
        if self.program.guards:  # forced to another outcome it would be captured with both results
            weighed = self.framework.capture(lambda *p: self.function(*p)[0], self.x, self.data)
        found = conditions(self.framework, weighed, self.x, self.data)
        return tuple(r for r in found if r.rule != "near tie")

    def linearised(self, tol: float) -> tuple[list[Linearisation], list[Reason]]:
        """Cut the programs that are active here at the kinks within a distance, several where an `if` on data ties."""
        systems, reasons = [self._cut(self.program, tol)], []
        if any(g.comparisons for g in self.program.guards):
            here = _values(self.framework, systems[0])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    others = [
                        p
                        for p in self.framework.pieces(self.program, self.x, self.data, limit=PIECES)
                        if p is not self.program
                    ]
                except Exception as error:  # the user's own function may fail where it never runs by itself
                    others = []
                    reasons.append(Reason(LEFT_OUT, f"another branch of an `if` that ties here fails: {error}"))
            reasons += [Reason(LEFT_OUT, str(w.message)) for w in caught if "outcomes of tied guards" in str(w.message)]
            for piece in others:
                system = self._cut(piece, tol)
                eps = self.framework.eps(self.x)
                if np.allclose(
                    _values(self.framework, system),
                    here,
                    JOINED * eps,
                    JOINED * eps * float(np.abs(here).max(initial=1.0)),
                ):
                    systems.append(system)
        return systems, reasons

    def _cut(self, program: Program, tol: float) -> Linearisation:
        """Cut a program that gives H alone."""
        return linearise(self.framework, replace(program, result=program.result[1]), self.x, self.data, tol)


def _weighed(framework: Framework, tree: Any) -> Any:
    """Give <c, H> for fixed generic numbers c."""
    rng, total = np.random.default_rng(5), None
    for leaf in framework.flatten(tree)[0]:
        part = framework.xp.sum(leaf * framework.array_like(leaf, rng.uniform(0.5, 1.5, tuple(leaf.shape))))
        total = part if total is None else total + part
    return total


def _values(framework: Framework, system: Linearisation) -> Floats:
    """Give H in a row."""
    return np.asarray(framework.flat(system.sweeps.evaluation.result), dtype=np.float64)


def lifted(system: Linearisation, unknowns: int, eps: float) -> tuple[Lifted, Floats, Floats]:
    """Give the lifted system in the first entries of the point, and what the others add to H and to z.

    Kinks that do not depend on the point, or on which H does not depend, are left out.
    """
    J, Y = system.sweeps.jacobian()
    Z, L = system.rows()
    kinks = [system.kink(k) for k in _acting(system, Y, Z, L)]
    z = np.concatenate([np.arange(k.z.start, k.z.stop) for k in kinks] or [np.zeros(0, np.int64)])
    u = np.concatenate([np.arange(k.u.start, k.u.stop) for k in kinks] or [np.zeros(0, np.int64)])
    found = Lifted(
        J[:, :unknowns],
        Y[:, u],
        Z[z][:, :unknowns],
        L[np.ix_(z, u)],
        [k.weights for k in kinks],
        list(_places(k.weights.compared for k in kinks)),
        list(_places(k.weights.outputs for k in kinks)),
        eps,
    )
    return found, J[:, unknowns:], Z[z][:, unknowns:]


def _acting(system: Linearisation, Y: Floats, Z: Floats, L: Floats) -> list[int]:
    """List the kinks that depend on the point and on which H depends, directly or through others."""
    count = system.count
    if not count:
        return []
    z_of, u_of = system.kink_of_z, system.kink_of_u
    acts = np.zeros((count, count), dtype=bool)
    rows, columns = np.nonzero(L)
    acts[z_of[rows], u_of[columns]] = True
    moved, reaching = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    moved[z_of[np.any(Z != 0, axis=1)]] = True
    reaching[u_of[np.any(Y != 0, axis=0)]] = True
    for _ in range(count):
        more = moved | (acts @ moved), reaching | (acts.T @ reaching)
        if np.array_equal(more[0], moved) and np.array_equal(more[1], reaching):
            break
        moved, reaching = more
    return np.flatnonzero(moved & reaching).tolist()


def _places(sizes: Iterator[int]) -> Iterator[slice]:
    """Give the places of parts of a row."""
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size
