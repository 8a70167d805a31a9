"""The monitor `watch` as a callback, for training loops that belong to a framework.

Each framework is loaded when its callback is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nonsmooth.errors import UsageError

__all__ = ["keras", "lightning", "transformers"]


def lightning(**options: Any) -> Any:
    """Give a callback that watches `Trainer.fit` of Lightning, as `watch` does.

    A step is one of the optimiser: accumulated batches are one, and of several optimisers the first one counts. The sanity
    check and validation are not seen. With several processes counts are added up, and the first process writes.

    Args:
        options: those of `watch`. `tensorboard` is by default the trainer's `TensorBoardLogger`, if it has one, with the
            trainer's number of steps; `progress` is off, since Lightning has its own; `reduce` is on if the trainer has
            several processes.

    Returns:
        A `Callback` of `lightning.pytorch` (or of `pytorch_lightning`, where that is what is imported); `.log` is the log.

    Raises:
        UsageError: as `watch`; or, when the training begins, a compiled module.

    >>> import nonsmooth as ns
    >>> monitor = ns.callbacks.lightning(every=50)
    >>> type(monitor).__name__                                # Trainer(callbacks=[monitor]).fit(module); monitor.log
    'LightningWatch'

    Source: Bertoin2021, BoltePauwels2020b.
    """
    return _load("lightning").LightningWatch(**options)


def transformers(**options: Any) -> Any:
    """Give a callback that watches `Trainer.train` of Hugging Face's transformers, as `watch` does.

    A step is one of the optimiser: accumulated batches are one. Evaluation is not seen. With several processes counts are
    added up, and the first process writes.

    Args:
        options: those of `watch`. `tensorboard` is by default the writer of `report_to="tensorboard"`, with the trainer's
            number of steps; `progress` is off, since the trainer has its own; `reduce` is on if the trainer has several
            processes.

    Returns:
        A `TrainerCallback`; `.log` is the log.

    Raises:
        UsageError: as `watch`; or, when the training begins, `torch_compile=True`.

    >>> import nonsmooth as ns
    >>> monitor = ns.callbacks.transformers(every=50)
    >>> type(monitor).__name__                                # Trainer(..., callbacks=[monitor]).train(); monitor.log
    'TransformersWatch'

    Source: Bertoin2021, BoltePauwels2020b.
    """
    return _load("transformers").TransformersWatch(**options)


def keras(**options: Any) -> Any:
    """Give a callback that watches `Model.fit` of Keras on its torch backend, as `watch` does.

    A step is a batch; if the optimiser accumulates gradients (`gradient_accumulation_steps`), it is one of its updates, and
    the norm of the gradient is that of the last batch. Evaluation is not seen.

    Args:
        options: those of `watch`. `progress` is off, since Keras has its own.

    Returns:
        A `keras.callbacks.Callback`; `.log` is the log.

    Raises:
        UsageError: as `watch`; the jax or tensorflow backend; or, when the training begins, `jit_compile=True`.

    Example, after `KERAS_BACKEND=torch` was set::

        monitor = ns.callbacks.keras(every=50)
        model.fit(inputs, target, callbacks=[monitor])
        monitor.log.records

    Source: Bertoin2021, BoltePauwels2020b.
    """
    return _load("keras").KerasWatch(**options)


def _load(framework: str) -> Any:
    """Import the callback of a framework, and with it the framework."""
    try:
        return import_module(f"nonsmooth.audit.torch.{framework}")
    except ModuleNotFoundError as error:
        hint = ' and set KERAS_BACKEND="torch" before it is imported' if framework == "keras" else ""
        raise UsageError(f"the callback for {framework} needs {error.name}: install {framework}{hint}.") from error
