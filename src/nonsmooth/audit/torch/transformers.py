"""The monitor as a callback of Hugging Face's Trainer."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from nonsmooth.audit.torch.frames import find_caller
from nonsmooth.audit.torch.loop import LoopWatch
from nonsmooth.errors import UsageError

__all__ = ["TransformersWatch"]


class TransformersWatch(LoopWatch, TrainerCallback):
    """Watches `Trainer.train` from its first batch to its last, or to an exception."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Begin; the trainer has put the model where it is trained."""
        if args.torch_compile:
            raise UsageError(
                "TrainingArguments(torch_compile=True) compiles the model, and what runs in compiled code cannot be "
                "watched; watch a run with torch_compile=False."
            )
        frame = find_caller("train", Trainer)
        writer = None if frame is None else _tensorboard(frame.f_locals["self"])
        self._begin(model, within=frame, processes=args.world_size, writer=writer, first=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """End."""
        self._end()


def _tensorboard(trainer: Any) -> Any:
    """Give the writer of the trainer's own reports to TensorBoard, if it makes them."""
    reporting = (c for c in trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback))
    return next((c.tb_writer for c in reporting), None)
