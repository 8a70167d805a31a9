"""Sampling without replacement: every sample once an epoch, in an order that a seed gives.

    theta <- theta - a_K v_i,   v_i in D_(I_i)(theta),   i = 1 .. m,   {I_1 .. I_m} a partition of the data

With steps that are (nearly) equal within an epoch, an epoch moves by m a_K times a mean over all the data, up to what
tends to 0: the convergence of the incremental method needs no probability, and holds for every order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nonsmooth.errors import UsageError
from nonsmooth.optim.schedules import EpochSchedule, Schedule

__all__ = ["ORDERS", "WithoutReplacement"]

ORDERS = ("reshuffle", "shuffle once", "cyclic")
"""A new random order each epoch, one random order for all, and the order of the data (the incremental method)."""


class WithoutReplacement:
    """The numbers of the samples, epoch by epoch, each once an epoch.

        reshuffle       a new random order in each epoch
        shuffle once    the same random order in every epoch
        cyclic          0, 1, .., n - 1 in every epoch

    The order of an epoch depends on the seed and the number of the epoch alone: no generator is kept or touched, the state
    is three integers, and a run goes on exactly in the middle of an epoch. `iter(order)` runs through what is left of the
    epoch after a state was loaded, and else through a whole epoch, the next one; one that was left half-way is over.

    With several processes (`rank`, `ranks`) each takes every ranks-th sample of the common order, so that the batches of a
    step, taken together, are a block of it. Where n is not a multiple of ranks, the first samples of the order are taken
    again, so that all have equally many: those are visited twice, as with torch's DistributedSampler.

    Args:
        n: how many samples there are.
        order: "reshuffle", "shuffle once" or "cyclic".
        seed: of the orders.
        rank, ranks: which of how many processes this is.

    Raises:
        UsageError: an argument means nothing.

    >>> from nonsmooth.optim import WithoutReplacement
    >>> order = WithoutReplacement(6, seed=1)
    >>> sorted(order), sorted(order), order.epoch
    ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], 2)
    >>> epoch = iter(order)
    >>> first = [next(epoch), next(epoch)]
    >>> again = WithoutReplacement(6, seed=1)
    >>> again.load_state_dict(order.state_dict())
    >>> list(again) == list(epoch), len(first)
    (True, 2)

    Source: Pauwels2021; derived, docs/theory/step_sizes.md.
    """

    def __init__(self, n: int, order: str = "reshuffle", *, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        given: tuple[Any, ...] = (n, seed, rank, ranks)
        whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in given)
        if order not in ORDERS:
            raise UsageError(f"order={order!r}: pass one of {ORDERS}.")
        if not whole or n < 1 or seed < 0 or not 0 <= rank < ranks:
            raise UsageError(
                f"n={n!r}, seed={seed!r}, rank={rank!r}, ranks={ranks!r}: pass a number of samples above 0, a seed of 0 or "
                "more, and 0 <= rank < ranks."
            )
        self.n, self.order, self.seed, self.rank, self.ranks = int(n), order, int(seed), int(rank), int(ranks)
        self.epoch, self.position = 0, 0
        self._resumed, self._running, self._begun = False, 0, 0

    def __len__(self) -> int:
        """How many samples an epoch has, for this process."""
        return -(-self.n // self.ranks)

    def steps_per_epoch(self, batch: int, *, drop_last: bool = False) -> int:
        """How many batches an epoch has: what `EpochSchedule` and `check_schedule` need.

        Raises:
            UsageError: a batch of less than one sample, or of more than there are if incomplete ones are dropped.
        """
        steps = len(self) // batch if drop_last and batch > 0 else -(-len(self) // max(batch, 1))
        if batch < 1 or steps < 1:
            raise UsageError(f"batch={batch!r}, drop_last={drop_last!r}: no batch fits into {len(self)} samples.")
        return steps

    def schedule(self, schedule: Schedule, batch: int, *, drop_last: bool = False) -> EpochSchedule:
        """Give the incremental rule: the steps of a schedule, one for each epoch of these batches."""
        return EpochSchedule(schedule, self.steps_per_epoch(batch, drop_last=drop_last))

    def epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Give the order of an epoch, for this process."""
        whole = np.arange(self.n, dtype=np.int64)
        if self.order != "cyclic":
            number = epoch if self.order == "reshuffle" else 0
            whole = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, number)))).permutation(
                whole
            )
        return np.resize(whole, len(self) * self.ranks)[self.rank :: self.ranks]

    def __iter__(self) -> Iterator[int]:
        """Run through what is left of a resumed epoch, or through the next whole one."""
        if self.position and not self._resumed:
            self.epoch, self.position = self.epoch + 1, 0
        self._resumed, self._begun = False, self.epoch
        self._running += 1
        return self._rest(self._running)

    def _rest(self, running: int) -> Iterator[int]:
        """Yield the rest of the epoch; a run that another one has overtaken counts no more."""
        order, start = self.epoch_order(self.epoch), self.position
        for place, sample in enumerate(order[start:].tolist(), start + 1):
            if running == self._running:
                self.position = place
            yield sample
        if running == self._running:
            self.epoch, self.position = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch by its number, as trainers do; within that epoch, once resumed, nothing changes."""
        if not (self._resumed and epoch == self.epoch):
            self.epoch, self.position, self._resumed = int(epoch), 0, False
            self._begun = self.epoch

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Give the state: from here a run goes on exactly.

        Args:
            taken: how many samples of the epoch that began last have been used, those before a resumption among them; by
                default those that were drawn. The workers of a DataLoader draw ahead of what is used, also to the end of
                the epoch: there pass batches used x batch size, and len(sampler) after the last batch. 0 stands between
                epochs: the next one begins.

        Raises:
            UsageError: more than the epoch has.
        """
        position = self.position if taken is None else taken
        if not 0 <= position <= len(self):
            raise UsageError(
                f"taken={taken!r}: an epoch has {len(self)} samples; where the last batch is smaller pass "
                "min(batches used * batch size, len(sampler))."
            )
        epoch = self._begun if taken else self.epoch
        epoch, position = (epoch + 1, 0) if position == len(self) else (epoch, position)
        held = {"n": self.n, "order": self.order, "seed": self.seed, "ranks": self.ranks}
        return {**held, "epoch": epoch, "position": position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: it belongs to other data, another order, another seed or another number of processes.
        """
        mine = {"n": self.n, "order": self.order, "seed": self.seed, "ranks": self.ranks}
        other = {name: state.get(name) for name in mine if state.get(name) != mine[name]}
        epoch: Any = state.get("epoch")
        position: Any = state.get("position")
        whole = isinstance(epoch, int) and isinstance(position, int) and epoch >= 0 and 0 <= position < len(self)
        if other or not whole:
            raise UsageError(
                f"the state {dict(state)!r} is none of {mine!r}: make the sampler with the same arguments."
            )
        self.epoch, self.position, self._resumed, self._begun = epoch, position, True, epoch
        self._running += 1
