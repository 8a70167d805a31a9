"""A training run watched: every N steps the kinks met, whether they could change the gradient, and by how much."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.entry import observe_training
from nonsmooth.frameworks.observation import Change, Met, Observation, Observer
from nonsmooth.kinks.selection import AtKinks, selection
from nonsmooth.report.json_text import to_json
from nonsmooth.report.table import FORMAT_VERSION, Table

__all__ = ["Watch", "watch"]


def watch(
    model: Any,
    *,
    every: int = 100,
    at_kinks: AtKinks = 1.0,
    change_every: int = 20,
) -> Watch:
    """Watch a training loop: `with ns.watch(model) as log:` around it.

    A step is one of the optimiser's. At every N-th step each operation with kinks counts

        elements,  active: those exactly at a kink,  can_matter: active with a nonzero derivative of their output,

    and its margin, the least distance of the others; where kinks were met the gradient g' under the other choice
    `at_kinks` is computed by one more backward pass over the same graph, and ||g' - g|| / ||g|| is logged. Training goes on
    bit for bit as without. Status: `computed`, for the steps observed.
    """
    return Watch(model, every=every, at_kinks=at_kinks, change_every=change_every)


class Watch:
    """The log of a watched training loop, and the block around it."""

    def __init__(self, model: Any, *, every: int, at_kinks: AtKinks, change_every: int) -> None:
        self.records: list[Observation] = []
        self._observer: Observer = observe_training(
            model, self._receive, every=every, change_every=change_every, select=selection(at_kinks, "torch"), by_hand=False
        )

    def _receive(self, observation: Observation) -> None:
        self.records.append(observation)

    def __enter__(self) -> Watch:
        self._observer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._observer.stop()

    def step(self) -> None:
        """Say that a step is complete."""
        self._observer.finish_step()
