"""Step sizes as a scheduler of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nonsmooth.errors import UsageError
from nonsmooth.optim.schedules import Schedule, schedule_from_plain

__all__ = ["ScheduleLR", "Steps"]

Steps: TypeAlias = Callable[[int], float]
"""k -> a_k."""


class ScheduleLR(LRScheduler):
    """A scheduler of torch that multiplies the rates of an optimiser by the steps of a schedule.

        lr_k = lr_0 a_k,   for each group its own lr_0

    One `scheduler.step()` after each `optimizer.step()` makes k count steps, one after each epoch epochs. The state holds
    the schedule as plain data: what is loaded wins, and a run goes on exactly. The rates are computed from k alone, never
    from the last ones, so that it may be chained after others and stand in a `SequentialLR`.

    Args:
        optimizer: of torch, or of `nonsmooth.optim`.
        schedule: k -> a_k: a schedule of `nonsmooth.optim`, or any callable; or a list of them, one for each group.
        last_epoch: the number of the last step where a run goes on; -1 at its start.

    Raises:
        UsageError: no callable, or not as many as there are groups.

    >>> import torch
    >>> import nonsmooth as ns
    >>> optimizer = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.1)
    >>> scheduler = ns.optim.ScheduleLR(optimizer, ns.optim.PowerSchedule(exponent=0.5))
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> optimizer.param_groups[0]["lr"], bool(ns.optim.check_schedule(scheduler))
    (0.05, True)

    Source: BoltePauwels2020.
    """

    def __init__(self, optimizer: Optimizer, schedule: Steps | Sequence[Steps], last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        given: list[Any] = list(schedule) if isinstance(schedule, list | tuple) else [schedule] * groups
        if len(given) != groups or not all(callable(s) for s in given):
            raise UsageError(
                f"schedule={schedule!r}: pass a callable k -> a_k, for example ns.optim.PowerSchedule(), or a list of "
                f"{groups}, one for each group of the optimiser."
            )
        self.schedules: list[Steps] = given
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Compute the rates of the groups at the current step."""
        return [base * steps(self.last_epoch) for base, steps in zip(self.base_lrs, self.schedules, strict=True)]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        """Compute the rates at a given step: the same."""
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """Give the state as plain data; callables that are no schedule of this library are left out, as torch does."""
        held = {key: value for key, value in self.__dict__.items() if key not in ("optimizer", "schedules")}
        return copy.deepcopy(held) | {
            "schedules": [s.plain() if isinstance(s, Schedule) else None for s in self.schedules]
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: it is that of another number of groups, or of no such scheduler.
        """
        found = state_dict.get("schedules")
        if not isinstance(found, list) or len(found) != len(self.schedules):
            raise UsageError(f"the state is none of a ScheduleLR with {len(self.schedules)} groups of parameters.")
        loaded = [schedule_from_plain(s) if isinstance(s, Mapping) else None for s in found]
        rest = {key: value for key, value in state_dict.items() if key != "schedules"}
        self.__dict__.update(copy.deepcopy(rest))
        self.schedules = [new or old for new, old in zip(loaded, self.schedules, strict=True)]
