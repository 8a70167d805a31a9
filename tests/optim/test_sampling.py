"""Sampling without replacement: every sample once, in orders of a seed, resumed in the middle, split over processes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.optim.sampling import ORDERS

o = ns.optim


def loader(sampler: Any, batch: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(sampler.n)), batch_size=batch, sampler=sampler, **options)


def drawn(batches: Any) -> list[list[int]]:
    return [batch.tolist() for (batch,) in batches]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_every_sample_once_an_epoch(order: str, n: int) -> None:
    sampler = o.WithoutReplacement(n, order, seed=3)
    epochs = [list(sampler) for _ in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs) and sampler.epoch == 4 and len(sampler) == n
    if n == 17:
        assert {"reshuffle": 4, "shuffle once": 1, "cyclic": 1}[order] == len({tuple(e) for e in epochs})
    if order == "cyclic":
        assert epochs[0] == list(range(n))


def test_orders_are_uniform() -> None:
    counts: dict[tuple[int, ...], int] = {}
    sampler = o.WithoutReplacement(3, seed=0)
    for _ in range(3000):
        order = tuple(sampler)
        counts[order] = counts.get(order, 0) + 1
    assert sorted(counts) == sorted(itertools.permutations(range(3)))
    assert sum((c - 500) ** 2 / 500 for c in counts.values()) < 25  # chi-square with 5 degrees: 25 has probability 1e-4


def test_the_order_is_that_of_the_seed_and_touches_no_generator() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = drawn(loader(o.WithoutReplacementSampler(20, seed=5), 4))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    list(o.WithoutReplacementSampler(20, seed=5))
    torch.manual_seed(99)
    assert drawn(loader(o.WithoutReplacementSampler(20, seed=5), 4)) == first
    assert drawn(loader(o.WithoutReplacementSampler(20, seed=6), 4)) != first


def test_torch_s_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    sampler = o.WithoutReplacementSampler(20, seed=5)
    list(BatchSampler(sampler, 3, drop_last=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("n", "batch"), [(12, 3), (13, 3), (5, 5), (7, 10)])
@pytest.mark.parametrize("stop", range(6))
def test_resumption_in_the_middle_of_an_epoch(order: str, n: int, batch: int, stop: int) -> None:
    def batches(sampler: Any) -> Any:
        while True:
            for (numbers,) in loader(sampler, batch):
                yield numbers.tolist()

    whole = list(itertools.islice(batches(o.WithoutReplacementSampler(n, order, seed=1)), 15))
    first = o.WithoutReplacementSampler(n, order, seed=1)
    head = list(itertools.islice(batches(first), stop))
    second = o.WithoutReplacementSampler(n, order, seed=1)
    second.load_state_dict(first.state_dict())
    assert head + list(itertools.islice(batches(second), 15 - stop)) == whole


def test_workers_draw_ahead_of_what_is_used() -> None:
    whole = drawn(loader(o.WithoutReplacementSampler(40, seed=2), 4))
    first = o.WithoutReplacementSampler(40, seed=2)
    running = iter(loader(first, 4, num_workers=1, multiprocessing_context="spawn"))
    head = drawn(next(running) for _ in range(3))
    assert first.state_dict()["position"] > 12
    second = o.WithoutReplacementSampler(40, seed=2)
    second.load_state_dict(first.state_dict(taken=12))
    del running
    assert head + drawn(loader(second, 4)) == whole


@pytest.mark.parametrize("used", range(1, 5))
@pytest.mark.parametrize("epoch", range(2))
def test_workers_that_drew_the_whole_epoch(epoch: int, used: int) -> None:
    """As they do near its end, and all the time where an epoch is short: what is used counts, not what was drawn."""
    first = o.WithoutReplacement(13, seed=5)
    for _ in range(epoch + 1):
        list(first)
    second = o.WithoutReplacement(13, seed=5)
    second.load_state_dict(first.state_dict(taken=min(4 * used, 13)))
    order = o.WithoutReplacement(13, seed=5).epoch_order
    assert list(second) == (order(epoch)[4 * used :] if used < 4 else order(epoch + 1)).tolist()
    assert first.state_dict() == first.state_dict(taken=0) == first.state_dict(taken=13)


def test_what_is_used_counts_from_the_epoch_that_a_state_or_a_trainer_began() -> None:
    sampler = o.WithoutReplacement(10, seed=5)
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 7, "position": 4})
    assert sampler.state_dict(taken=4)["epoch"] == 7
    list(sampler)
    assert [sampler.state_dict(taken=8)[key] for key in ("epoch", "position")] == [7, 8]
    sampler.set_epoch(3)
    assert sampler.state_dict(taken=2)["epoch"] == 3


def test_an_epoch_that_is_left_is_over() -> None:
    sampler = o.WithoutReplacement(10, seed=0)
    peeked = next(iter(sampler))
    rest = list(sampler)
    assert sorted(rest) == list(range(10)) and sampler.epoch == 2
    assert peeked == sampler.epoch_order(0)[0] and rest == sampler.epoch_order(1).tolist()


def test_a_run_that_is_overtaken_counts_no_more() -> None:
    sampler = o.WithoutReplacement(6, seed=0)
    old = iter(sampler)
    next(old)
    new = iter(sampler)
    next(new)
    list(old)
    assert (sampler.epoch, sampler.position) == (1, 1)


def test_trainers_set_the_epoch() -> None:
    sampler = o.WithoutReplacement(8, seed=4)
    sampler.set_epoch(3)
    assert list(sampler) == sampler.epoch_order(3).tolist()
    resumed = o.WithoutReplacement(8, seed=4)
    resumed.load_state_dict({**sampler.state_dict(), "epoch": 3, "position": 5})
    resumed.set_epoch(3)
    assert list(resumed) == sampler.epoch_order(3)[5:].tolist()
    resumed.set_epoch(0)
    assert list(resumed) == sampler.epoch_order(0).tolist()


@pytest.mark.parametrize(("n", "ranks"), [(12, 3), (13, 3), (2, 5), (7, 1)])
def test_processes_share_an_epoch(n: int, ranks: int) -> None:
    parts = [list(o.WithoutReplacement(n, seed=1, rank=r, ranks=ranks)) for r in range(ranks)]
    assert {len(p) for p in parts} == {-(-n // ranks)}
    common = [sample for group in zip(*parts, strict=True) for sample in group]
    whole = list(o.WithoutReplacement(n, seed=1))
    assert common[:n] == whole and common[n:] == (whole * ranks)[: len(common) - n]


@pytest.mark.parametrize(
    ("n", "batch", "drop", "steps"), [(12, 3, False, 4), (13, 3, False, 5), (13, 3, True, 4), (1, 5, False, 1)]
)
def test_steps_per_epoch_are_those_of_the_loader(n: int, batch: int, drop: bool, steps: int) -> None:
    sampler = o.WithoutReplacementSampler(n)
    assert sampler.steps_per_epoch(batch, drop_last=drop) == steps == len(loader(sampler, batch, drop_last=drop))
    assert sampler.schedule(o.PowerSchedule(), batch, drop_last=drop) == o.EpochSchedule(o.PowerSchedule(), steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: o.WithoutReplacement(0),
        lambda: o.WithoutReplacement(2.5),
        lambda: o.WithoutReplacement(5, "random"),
        lambda: o.WithoutReplacement(5, seed=-1),
        lambda: o.WithoutReplacement(5, rank=2, ranks=2),
        lambda: o.WithoutReplacementSampler(iter([1])),
        lambda: o.WithoutReplacement(5).steps_per_epoch(0),
        lambda: o.WithoutReplacement(5).steps_per_epoch(6, drop_last=True),
        lambda: o.WithoutReplacement(5).state_dict(taken=6),
        lambda: o.WithoutReplacement(5).load_state_dict(o.WithoutReplacement(6).state_dict()),
        lambda: o.WithoutReplacement(5).load_state_dict(o.WithoutReplacement(5, seed=1).state_dict()),
        lambda: o.WithoutReplacement(5).load_state_dict({}),
    ],
)
def test_what_means_nothing_is_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_unequal_steps_within_an_epoch_converge_elsewhere() -> None:
    """(x - 1)^2/2 and (x + 1)^2/2 in turn: equal steps find 0, the minimiser of their sum; a step 1 : 2 finds -1/3."""
    ends = []
    for second in (1.0, 2.0):
        x = 0.7
        for k in range(20_000):
            step = 0.5 / (1 + k // 2) ** 0.7
            x -= step * (x - 1) if k % 2 == 0 else second * step * (x + 1)
        ends.append(x)
    assert ends == pytest.approx([0.0, -1 / 3], abs=1e-3)
    lopsided = o.check_schedule(
        lambda k: 0.5 / (1 + k // 2) ** 0.7 * (1 + k % 2), "without replacement", steps_per_epoch=2, samples=10_000
    )
    assert lopsided.failed == ("steady epochs",)
