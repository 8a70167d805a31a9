"""The condition of the implicit function theorem for cone programs: every reduced matrix is invertible.

    M(V) is invertible for all V of Clarke's Jacobian   iff   it is for the least and for the greatest of them

Proof: docs/theory/projections.md. So nothing is left undecided, whatever the kinks, but for rounding.

Source: derived, docs/theory/projections.md.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from nonsmooth.dictionary.weights import Floats, segment
from nonsmooth.implicit.cones.product import DualJacobian
from nonsmooth.implicit.cones.program import ConeData, Solved
from nonsmooth.implicit.diagnosis import LIMIT, Diagnosis, ImplicitJacobian, KinkLine
from nonsmooth.implicit.invertibility import Lifted, decide_invertibility
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.sets import Hull

__all__ = ["RULE", "diagnose_program"]

RULE = "the least and the greatest element decide for all: the program is monotone"

SINGULAR = 1e-11
"""A matrix counts as singular where its least singular value is so small, relative to its largest."""

VERTICES = 4096
"""How many vertices are listed for the least singular value."""


def diagnose_program(solved: Solved, name: str, rows: tuple[str, ...] | None = None) -> Diagnosis:
    """Tell whether every reduced matrix is invertible at a solution.

    Args:
        solved: the solution.
        name: what the program is called.
        rows: a name for every row, for the report.
    """
    data, found = solved.data, solved.jacobian
    least, singular = math.inf, None
    for V in (found.smallest, found.largest):
        M = data.reduced(V)
        values = np.linalg.svd(M, compute_uv=False)
        if values[-1] <= SINGULAR * values[0] and singular is None:
            singular = V
        least = min(least, float(values[-1]))
    bound, attained = (0.0, False) if singular is not None else _bound(data, found, least)
    size = float(np.linalg.norm(data.residual(solved.x, solved.v)[0]))
    return Diagnosis(
        format_version=FORMAT_VERSION,
        function=name,
        kind="cone program",
        unknowns=len(solved.x) + len(solved.v),
        invertible=singular is None,
        status="computed",
        rule=RULE,
        smallest_singular_value=bound,
        attained=attained,
        kinks=len(found.directions),
        lines=tuple(_line(k, rows) for k in found.kinks),
        groups=(len(found.directions),) if len(found.directions) else (),
        residual=size,
        linear_residual=_linear_residual(data.reduced(found.smallest)) if singular is None else math.nan,
        error=size / bound if bound else math.inf,
        distance=solved.distance,
        reasons=() if singular is None else (_why(data, singular),),
        element=None if singular is None else data.reduced(singular),
        _set=lambda limit: _jacobian(solved, found, limit),
    )


def _linear_residual(M: Floats) -> float:
    """Give |g - M'l| / |g| of the linear solve for a random cotangent g."""
    right = np.random.default_rng(1).standard_normal(len(M))
    return float(np.linalg.norm(right - M.T @ np.linalg.solve(M.T, right)) / np.linalg.norm(right))


def _line(kink: object, rows: tuple[str, ...] | None) -> KinkLine:
    """Say where a cone's kink is."""
    first, last = kink.row, kink.row + kink.rows - 1  # type: ignore[attr-defined]
    place = f"row {first}" if first == last else f"rows {first} to {last}"
    if rows is not None:
        place = rows[first] if first == last else f"{rows[first]} to {rows[last]}"
    return KinkLine(f"{place}: {kink.where}", f"{kink.cone} cone", 1)  # type: ignore[attr-defined]


def _why(data: ConeData, V: Floats) -> str:
    """Say which half of the condition fails, from null vectors (x, v) of M(V): p = (x, V v) has P x = 0, A'V v = 0, V A x = 0."""
    n = len(data.c)
    _, values, rows = np.linalg.svd(data.reduced(V))
    nullspace = rows[values <= SINGULAR * values[0]]
    said = []
    if np.abs(nullspace[:, :n]).max() > 1e-6:
        said.append(
            "there is a direction along which neither objective nor strongly active constraints change (the second-order "
            "condition fails: the solution x is not unique, or not for all parameters nearby)"
        )
    if np.abs(nullspace[:, n:] @ V.T).max() > 1e-6:
        said.append(
            "the gradients of the active constraints depend on each other (LICQ, or nondegeneracy, fails: the multipliers are "
            "not unique, or the program is infeasible for some parameters nearby)"
        )
    return "; ".join(said) or "the reduced matrix is singular"


def _bound(data: ConeData, found: DualJacobian, least: float) -> tuple[float, bool]:
    """Give a lower bound of the least singular value over the set, and whether it is attained.

    Independent segments: it is attained at a vertex. Otherwise M(V) = M0 + (Q - I) R W R', 0 <= W <= I, so that
    M^-1 = M0^-1 - M0^-1 (Q - I) R (W^-1 + K)^-1 R' M0^-1, where K = R'M0^-1 (Q - I) R and W^-1 >= I: with the least eigenvalue d
    of I + (K + K')/2, which is never negative, |(W^-1 + K)^-1| <= 1/d.
    """
    R, n = found.directions, len(data.c)
    if not len(R):
        return least, True
    M0 = data.reduced(found.smallest)
    step = np.vstack([data.A.T @ R.T, -R.T])  # (Q - I) R
    rows = np.hstack([np.zeros((len(R), n)), R])
    if found.independent and 2 ** len(R) <= VERTICES:
        k = len(R)
        places = [slice(i, i + 1) for i in range(k)]
        system = Lifted(M0, step, rows, np.zeros((k, k)), [segment()] * k, places, places)
        decided = decide_invertibility(system, VERTICES)
        if decided.invertible:
            return decided.smallest, decided.exact
    left, right = np.linalg.solve(M0, step), np.linalg.solve(M0.T, rows.T).T
    K = rows @ left
    d = float(np.linalg.eigvalsh(np.eye(len(R)) + (K + K.T) / 2)[0])
    if d <= 1e-12:
        return 0.0, False
    inverse = float(np.linalg.norm(np.linalg.inv(M0), 2))
    return 1 / (inverse + float(np.linalg.norm(left, 2)) * float(np.linalg.norm(right, 2)) / d), False


def _jacobian(solved: Solved, found: DualJacobian, limit: int = LIMIT) -> ImplicitJacobian:
    """List the Jacobians of (x, y, s) in (c, b) at the vertices; one with weights inside where they are not independent.

    d(x, y, s) = [[I, 0], [0, V], [0, V - I]] M(V)^-1 (-dc, -db): every weight enters a ratio of affine functions.
    """
    data, k = solved.data, len(found.directions)
    n, m = len(data.c), len(data.b)
    listed = found.independent and 2**k <= limit
    choices = itertools.product((0.0, 1.0), repeat=k) if listed else iter([(0.0,) * k, (1.0,) * k])
    elements = []
    left, right = solved.units.factors(n, m)
    for weights in choices:
        V = found.smallest + (found.directions.T * np.array(weights)) @ found.directions
        out = np.block([[np.eye(n), np.zeros((n, m))], [np.zeros((m, n)), V], [np.zeros((m, n)), V - np.eye(m)]])
        elements.append(-left[:, None] * (out @ np.linalg.inv(data.reduced(V))) * right)
    array = np.array(elements)
    hull: object = Hull(array.reshape(len(array), -1))
    if not listed and k:
        from nonsmooth.derivatives.field import AtLeast

        hull = AtLeast(hull)  # type: ignore[arg-type]
    return ImplicitJacobian(hull, (n + 2 * m, n + m), array, lambda row: (row[:n], row[n:]))  # type: ignore[arg-type]
