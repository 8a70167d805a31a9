"""A diagnosis laid out for reading."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nonsmooth.report.table import Document, Table
from nonsmooth.report.text import plain

if TYPE_CHECKING:
    from nonsmooth.implicit.diagnosis import Diagnosis

__all__ = ["diagnosis_document"]

WORDS = {
    True: "holds: every element B is invertible",
    False: "is violated: an element B is singular",
    None: "is undecided",
}
"""What is said of the condition."""


def diagnosis_document(found: Diagnosis) -> Document:
    """Lay a diagnosis out: the answer, what it rests on, and the lines of the kinks."""
    lines = [f"The condition {WORDS[found.invertible]} ({found.status}: {plain(found.rule)})."]
    lines += [f"  {plain(reason)}" for reason in found.reasons]
    if found.invertible and found.smallest_singular_value:
        word = "smallest singular value over all elements" if found.attained else "singular values of all elements"
        sign = ":" if found.attained else " >="
        lines.append(f"{word}{sign} {found.smallest_singular_value:.4g}")
    if math.isfinite(found.residual):
        error = f", so that y is within {found.error:.2g} of the solution" if math.isfinite(found.error) else ""
        lines.append(f"residual |H(y, theta)| = {found.residual:.2g}{error}")
    if math.isfinite(found.linear_residual):
        lines.append(f"residual of a linear solve, relative: {found.linear_residual:.2g}")
    lines.append(_kinks(found))
    rows = tuple((plain(k.line), k.operation, k.count) for k in found.lines)
    parts: tuple[str | Table, ...] = ("\n".join(lines),)
    if rows:
        parts += (Table("Kinks at the solution", ("line", "operation", "count"), rows),)
    unknowns = "1 unknown" if found.unknowns == 1 else f"{found.unknowns} unknowns"
    return Document(f"Implicit derivative of {plain(found.function)}: {found.kind}, {unknowns}", parts)


def _kinks(found: Diagnosis) -> str:
    """Say how many kinks are active, and how many of them act on themselves."""
    if not found.kinks:
        return f"no kink is active at the solution (within {found.distance:.2g})"
    joint = (
        f"; {sum(found.groups)} act on themselves, in groups of {', '.join(map(str, found.groups[:6]))}"
        if found.groups
        else ""
    )
    return f"{found.kinks} kink(s) active at the solution (within {found.distance:.2g}){joint}"
