"""Integer and logical work: what a count leaves free."""

from __future__ import annotations

from nonsmooth.frameworks.replay.arguments import leaves_of, refs_of
from nonsmooth.program import Program, Step

__all__ = ["is_discrete"]


def is_discrete(program: Program, step: Step) -> bool:
    """Tell a step that takes, gives and changes whole numbers and truth values alone; a comparison of real numbers is none."""
    arguments = (step.args, dict(step.kwargs))
    met = {*(r.value for r in refs_of(arguments)), *step.results, *step.mutates} - {None}
    if any(kind in program.values[v].dtype for v in met if v is not None for kind in ("float", "complex")):
        return False
    return next(leaves_of(arguments, float), None) is None and next(leaves_of(arguments, complex), None) is None
