"""The sweeps over a program, counted step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from nonsmooth.cost.definitions import tally_of
from nonsmooth.cost.tally import Sweep, Tally
from nonsmooth.errors import RegistrationError
from nonsmooth.program import Program, Step

__all__ = ["CountedStep", "count_steps"]


@dataclass(frozen=True)
class CountedStep:
    """One step with its tally; None where the operation has no scalar program (the user's own)."""

    step: Step
    tally: Tally | None

    @cached_property
    def sweep(self) -> Sweep | None:
        """What sweeps over the step count."""
        return None if self.tally is None else self.tally.sweep()


def count_steps(program: Program) -> list[CountedStep]:
    """Count the steps of a program.

    What the result does not depend on is evaluated, for it stands in the program, and not differentiated.

    Raises:
        RegistrationError: the scalar program of one's own operation is none.
    """
    reached, counted = program.framework.reached(program), []
    for step in program.steps:
        try:
            tally = tally_of(program.framework.shaped(program, step))
        except RegistrationError as error:
            raise RegistrationError(
                f"cost: {error} The operation stands at {step.source or 'an unknown line'}."
            ) from error
        counted.append(CountedStep(step, tally if tally is None or step.index in reached else tally.still()))
    return counted
