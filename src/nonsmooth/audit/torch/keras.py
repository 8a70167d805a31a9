"""The monitor as a callback of Keras, on its torch backend."""

from __future__ import annotations

from typing import Any

import keras

from nonsmooth.audit.torch.frames import find_caller
from nonsmooth.audit.torch.loop import LoopWatch
from nonsmooth.errors import UsageError

__all__ = ["KerasWatch"]


class KerasWatch(LoopWatch, keras.callbacks.Callback):
    """Watches `Model.fit` from its first batch to its last, or to an exception."""

    def __init__(self, **options: Any) -> None:
        backend = keras.config.backend()
        if backend != "torch":
            raise UsageError(
                f"Keras runs on its {backend} backend, and training can be watched on its torch backend only: set the "
                'environment variable KERAS_BACKEND="torch" before keras is imported.'
            )
        super().__init__(**options)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin."""
        if self.model.jit_compile:
            raise UsageError(
                "Model.compile(jit_compile=True) compiles the model, and what runs in compiled code cannot be watched; "
                "watch a run with jit_compile=False."
            )
        self._updates = self._count_updates()
        self._begin(self.model, within=find_caller("fit", keras.Model))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Mark a step: a batch, or as many as the optimiser accumulates before it updates."""
        updates = self._count_updates()
        if updates is None or updates != self._updates:
            self.log.step()
        self._updates = updates

    def on_train_end(self, logs: Any = None) -> None:
        """End."""
        self._end()

    def _count_updates(self) -> int | None:
        """Count the updates so far, if the model's optimiser accumulates gradients over batches."""
        optimizer = self.model.optimizer
        return int(optimizer.iterations) if getattr(optimizer, "gradient_accumulation_steps", None) else None
