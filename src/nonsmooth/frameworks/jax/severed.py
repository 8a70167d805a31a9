"""Severed dependences in jax: `stop_gradient`, unless it cuts off a shift that cancels."""

from __future__ import annotations

from collections.abc import Iterator

from nonsmooth.frameworks.jax.shifts import cancelled, serving
from nonsmooth.frameworks.replay.severed import Dependences
from nonsmooth.program import Program, Step

__all__ = ["JaxDependences", "dependences"]


class JaxDependences(Dependences):
    """What the result of a program depends on, sorted by how.

    `cancelled` are the steps `stop_gradient` whose values the result does not depend on; `idle` are the steps that serve
    nothing else, or nothing at all: their kinks are none of the result's.
    """

    def __init__(self, program: Program) -> None:
        self.cancelled = cancelled(program)
        super().__init__(program)
        detached = {k for k, s in self.found.items() if s.rule == "detached"}
        for index in detached:  # what is computed from a value that is cut off is listed where it is cut off
            if program.steps[index].operation.name != "detach":
                del self.found[index]
        self.idle = frozenset(range(len(program.steps))) - serving(program, self.cancelled)

    def _step(self, step: Step, value: int, serves: str) -> Iterator[tuple[int, str]]:
        """Say what a value depends on through a step; the result does not depend on a shift that cancels."""
        if step.index in self.cancelled:
            return
        yield from super()._step(step, value, serves)


def dependences(program: Program) -> JaxDependences:
    """Analyse a program once."""
    known: JaxDependences | None = program.__dict__.get("_jax_slice")
    if known is None:
        known = program.__dict__["_jax_slice"] = JaxDependences(program)
    return known
