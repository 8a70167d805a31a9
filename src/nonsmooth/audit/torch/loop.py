"""A watch that somebody else's training loop begins and ends."""

from __future__ import annotations

from functools import partial
from types import FrameType
from typing import Any

import torch

from nonsmooth.audit.torch.frames import at_end_of, end_what_is_over
from nonsmooth.audit.watch import Watch, watch
from nonsmooth.errors import UsageError

__all__ = ["LoopWatch"]


class LoopWatch:
    """What the callbacks of all frameworks share: options that were checked early, and the log of the last run."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        watch(torch.nn.Module(), **{**options, "reduce": None})  # processes may meet later; all else can be told now
        self._options = {"progress": False, **options}  # a framework has its own line of progress
        self._watch: Watch | None = None
        self._runs = False

    @property
    def log(self) -> Watch:
        """The log of the run that goes on, or of the last one."""
        if self._watch is None:
            raise UsageError("there is no log yet: it begins with the training.")
        return self._watch

    def __getstate__(self) -> dict[str, Any]:
        """Leave the log behind where the callback is copied into another process: it belongs to this one."""
        return {**self.__dict__, "_watch": None, "_runs": False}

    def _begin(
        self,
        model: Any,
        *,
        within: FrameType | None = None,
        processes: int = 1,
        writer: Any = None,
        first: int = 0,
    ) -> None:
        """Begin a run, that ends with a frame at the latest.

        `writer` takes the scalars if the user named none, with steps that begin at `first`.
        """
        self._end(failed=True)
        end_what_is_over()
        options = dict(self._options)
        if options.get("reduce") is None and processes > 1:
            options["reduce"] = True
        if options.get("tensorboard") is None and writer is not None:
            options["tensorboard"] = _Later(writer, first)
        self._watch = watch(model, **options)
        self._watch.__enter__()
        self._runs = True
        if within is not None:
            at_end_of(within, partial(self._abandon, self._watch))

    def _end(self, *, failed: bool = False) -> None:
        """End the run, if one goes on."""
        if self._runs and self._watch is not None:
            self._runs = False
            self._watch.__exit__(RuntimeError if failed else None, None, None)

    def _abandon(self, log: Watch) -> None:
        """End a run whose loop is gone, unless it has ended long ago."""
        if log is self._watch:
            self._end(failed=True)


class _Later:
    """A writer whose steps begin later than at 0, as those of a training that is resumed."""

    def __init__(self, writer: Any, first: int) -> None:
        self._writer, self._first = writer, first

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write a number of a step."""
        self._writer.add_scalar(name, value, self._first + step)
