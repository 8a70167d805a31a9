"""Sampling without replacement, as a sampler of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import Sampler

from nonsmooth.errors import UsageError
from nonsmooth.optim.sampling import WithoutReplacement

__all__ = ["WithoutReplacementSampler"]


class WithoutReplacementSampler(WithoutReplacement, Sampler[int]):
    """A sampler of torch that visits every sample once an epoch, and goes on exactly in the middle of one.

        DataLoader(data, batch_size=B, sampler=WithoutReplacementSampler(data))

    `DataLoader(shuffle=True)` samples without replacement too; this one has an order of its own, given by a seed, which
    leaves torch's generator alone, knows the steps of an epoch for the step sizes, and has a state. All else is as in
    `WithoutReplacement`.

    Args:
        data: what has a length, or how many samples there are.
        order: "reshuffle", "shuffle once" or "cyclic".
        seed: of the orders.
        rank, ranks: which of how many processes this is.

    Raises:
        UsageError: an argument means nothing.

    >>> import torch
    >>> import nonsmooth as ns
    >>> data = torch.utils.data.TensorDataset(torch.arange(10))
    >>> sampler = ns.optim.WithoutReplacementSampler(data, seed=0)
    >>> loader = torch.utils.data.DataLoader(data, batch_size=5, sampler=sampler)
    >>> sorted(torch.cat([x for x, in loader]).tolist()) == list(range(10)), sampler.epoch
    (True, 1)
    >>> schedule = sampler.schedule(ns.optim.PowerSchedule(exponent=1.0), batch=5)
    >>> [schedule(k) for k in range(4)]
    [1.0, 1.0, 0.5, 0.5]

    Source: Pauwels2021; derived, docs/theory/step_sizes.md.
    """

    def __init__(
        self, data: Sized | int, order: str = "reshuffle", *, seed: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        try:
            n = data if isinstance(data, int) else len(data)
        except TypeError as error:
            raise UsageError(
                f"data={type(data).__name__}: it has no length; pass a dataset with one, or a number."
            ) from error
        super().__init__(n, order, seed=seed, rank=rank, ranks=ranks)

    def __iter__(self) -> Iterator[int]:
        """Run through what is left of a resumed epoch, or through the next whole one."""
        return super().__iter__()
