"""Ties of which rounding has made a gap: no kinks of the floating-point program, and kinks of the formula."""

from __future__ import annotations

import nonsmooth as ns
from tests.programs.writer import RandomProgram

__all__ = ["moved_by_rounding"]


def moved_by_rounding(program: RandomProgram) -> bool:
    """Tell a program with such a tie at its point; docs/theory/subgradient.md names it among what is not claimed."""
    f, x = program.function(), program.x()
    return ns.kinks(f, x, tol=1e-13).count > ns.kinks(f, x).count
