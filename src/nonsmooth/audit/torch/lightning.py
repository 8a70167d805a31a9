"""The monitor as a callback of Lightning."""

from __future__ import annotations

import sys
from typing import Any

from nonsmooth.audit.torch.loop import LoopWatch
from nonsmooth.audit.watch import Watch
from nonsmooth.errors import UsageError

if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback  # type: ignore[assignment]
    except ModuleNotFoundError:
        from pytorch_lightning import Callback

__all__ = ["LightningWatch"]


class LightningWatch(LoopWatch, Callback):
    """Watches `Trainer.fit` from its first batch to its last, or to an exception."""

    @property
    def log(self) -> Watch:
        """The log of the run that goes on, or of the last one."""
        return super().log

    @log.setter
    def log(self, function: Any) -> None:
        """Do without the function `log` of the module, which the trainer gives every callback."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, after the sanity check, on the processes that the trainer has started."""
        if getattr(pl_module, "_compiler_ctx", None) is not None:
            raise UsageError(
                "the LightningModule is compiled by torch.compile, and what runs in compiled code cannot be watched; "
                "fit the module that is not compiled."
            )
        writers = (logger for logger in trainer.loggers if type(logger).__name__ == "TensorBoardLogger")
        logger = next(writers, None)
        self._begin(
            pl_module,
            processes=trainer.world_size,
            writer=None if logger is None else logger.experiment,
            first=trainer.global_step,
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End."""
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End where the training failed or was interrupted."""
        self._end(failed=True)
