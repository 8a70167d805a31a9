"""Which coordinates of a solution move, rest, or lie on a kink, as far as its accuracy tells; and the condition on them.

Source: derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonsmooth.implicit.sparse.data import Indices, Vector
from nonsmooth.implicit.sparse.linearisation import Linearisation
from nonsmooth.implicit.sparse.normal_equations import NormalEquations

__all__ = ["NEAR", "Equicorrelation", "diagnose"]

NEAR = 1e-9
"""By default a coordinate whose slack is below this share of its unit is tied, and one that is no larger is at rest."""


@dataclass(frozen=True)
class Equicorrelation:
    """The equicorrelation set E of a solution, and whether the derivative of the solution exists for every selection.

        H_EE positive definite  <=>  every element of the conservative Jacobian of the equation is invertible

    Attributes:
        invertible: True, False, or None where rounding or the accuracy of the solution leaves it open.
        status: "computed": E is known up to `near`; "undecided": the accuracy of the solution leaves E open.
        equicorrelation: the indices of E (where it is open: of the largest set it can be).
        support: those that move under every selection.
        kinks: those of E that may move or rest: the solution has a kink there.
        open: those that the accuracy of the solution leaves open, which are counted among the kinks.
        smallest_singular_value: the least eigenvalue of H_EE; a lower bound of those of all selections.
        residual: the norm of the least subgradient at the solution.
        gap: the duality gap.
        names: what the indices count: "feature" or "sample".
        reasons: what decided, in words.

    Source: derived, docs/theory/sparse_models.md.
    """

    invertible: bool | None
    status: str
    equicorrelation: tuple[int, ...]
    support: tuple[int, ...]
    kinks: tuple[int, ...]
    open: tuple[int, ...]
    smallest_singular_value: float
    residual: float
    gap: float
    names: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """Say what holds."""
        holds = {True: "holds", False: "does not hold", None: "is undecided"}[self.invertible]
        lines = [
            f"The condition {holds}: {len(self.equicorrelation)} {self.names}(s) in the equicorrelation set, "
            f"{len(self.kinks)} on a kink; smallest eigenvalue {self.smallest_singular_value:.3g}; duality gap {self.gap:.1e}."
        ]
        return "\n".join([*lines, *(f"  {reason}" for reason in self.reasons)])


def diagnose(at: Linearisation, gap: float, near: float = NEAR) -> Equicorrelation:
    """Decide which coordinates can move, and whether H is positive definite on them.

    The duality gap bounds the errors of all slacks, which gives a set that contains E; with the least eigenvalue on it the
    residual bounds them again, and the errors of z.
    """
    reach = at.slack_error + at.slack_rounding
    outer = np.flatnonzero((at.slack <= np.maximum(reach, near * at.unit)) | (_moved(at) & (at.slack <= 1e3 * reach)))
    system = at.system(outer)
    energy = at.nonlinearity * at.residual / np.sqrt(system.smallest) if system.singular is False else np.inf
    error = float(energy / np.sqrt(system.smallest)) if np.isfinite(energy) else np.inf
    if error * at.radius > 0.5:
        error = np.inf
    if np.isfinite(error):
        columns = np.sqrt(np.einsum("ij,ij->j", at.A, at.A) / at.scale + at.ridge)
        finer = at.nonlinearity * columns * energy + at.slack_rounding
        reach = np.minimum(reach, finer)
        outer = outer[at.slack[outer] <= np.maximum(reach, near * at.unit)[outer]]
        system = at.system(outer)
    return _classify(at, gap, near, outer, system, reach, error)


def _moved(at: Linearisation) -> NDArray[np.bool_]:
    """Tell the coordinates that are not at rest."""
    return np.asarray(at.room > 0)


def _classify(
    at: Linearisation, gap: float, near: float, outer: Indices, system: NormalEquations, reach: Vector, error: float
) -> Equicorrelation:
    """Tell support, kinks and open coordinates apart in the outer set, and say whether the condition holds."""
    tied = at.slack[outer] <= (near * at.unit + at.slack_rounding)[outer]
    small = near * at.room_unit
    moves = at.room[outer] > (max(error, small) if np.isfinite(error) else small)
    rests = at.room[outer] <= small
    undecided = ~moves & ~(tied & rests) if np.isfinite(error) else ~tied
    invertible, reasons = _decide(at, outer, outer[tied], system)
    if undecided.any():
        reasons += (
            f"{int(undecided.sum())} {at.names}(s) can be in the set or not, by the accuracy of the solution "
            f"(duality gap {gap:.1e}): lower `tolerance`, or raise `iterations`.",
        )
    return Equicorrelation(
        invertible=invertible,
        status="undecided" if undecided.any() or invertible is None else "computed",
        equicorrelation=tuple(outer.tolist()),
        support=tuple(outer[moves].tolist()),
        kinks=tuple(outer[~moves].tolist()),
        open=tuple(outer[undecided].tolist()),
        smallest_singular_value=system.smallest,
        residual=at.residual,
        gap=gap,
        names=at.names,
        reasons=reasons,
    )


def _decide(
    at: Linearisation, outer: Indices, tied: Indices, system: NormalEquations
) -> tuple[bool | None, tuple[str, ...]]:
    """Decide the condition: it holds on the outer set, or fails on the tied coordinates already."""
    if system.singular is False:
        return True, ()
    certain = system if len(tied) == len(outer) else at.system(tied)
    if certain.singular is True:
        return False, (_culprits(at, tied),)
    return None, ("Rounding, or the accuracy of the solution, leaves open whether columns of the set are dependent.",)


def _culprits(at: Linearisation, columns: Indices) -> str:
    """Name the columns of a dependent set that have weight in a null vector, at most six."""
    null = np.linalg.svd(at.A[:, columns], full_matrices=True)[2][-1]
    found = columns[np.abs(null) > 1e-6 * np.abs(null).max()]
    shown = ", ".join(str(j) for j in found[:6]) + (", ..." if len(found) > 6 else "")
    return f"the columns of the {at.names}s {shown} are linearly dependent, and all of them can move"
