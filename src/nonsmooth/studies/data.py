"""The data of the studies: the digits that scikit-learn ships, and MNIST, which it fetches."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nonsmooth.errors import UsageError

__all__ = ["DATA", "check_data", "held_out", "load", "split", "training"]

DATA = ("digits", "mnist")
"""The data sets: the 1,797 digits that scikit-learn ships (8 x 8), and MNIST (28 x 28), which it fetches."""

MNIST_TRAINING = 60_000
"""The first images of MNIST are those to train on, the other 10,000 those to test on."""


def check_data(data: str) -> None:
    """Refuse a data set that is not there by name."""
    if data not in DATA:
        raise UsageError(f"data={data!r}: the study has the data sets {DATA}.")


@cache
def load(data: str) -> tuple[Any, Any]:
    """Load images in [0, 1] and labels, as arrays of numpy."""
    from sklearn import datasets

    check_data(data)
    if data == "digits":
        digits = datasets.load_digits()
        return digits.images / 16.0, digits.target
    try:
        mnist = datasets.fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except Exception as error:
        raise UsageError(
            f"MNIST could not be fetched from openml.org ({type(error).__name__}: {error}). It needs a network, once; "
            "without one use the digits that scikit-learn ships: --data digits."
        ) from error
    images = (mnist.data.reshape(-1, 28, 28) / 255.0).astype(np.float32)
    return images, mnist.target.astype(np.int64)


def split(data: tuple[Any, Any], seed: int) -> tuple[Any, Any, Any, Any]:
    """Hold out a random fifth: training images and labels, held-out images and labels, as tensors."""
    order = np.random.default_rng(seed).permutation(len(data[0]))
    cut = len(order) - len(order) // 5
    return (*_tensors(data, order[:cut]), *_tensors(data, order[cut:]))


def training(data: str) -> tuple[Any, Any]:
    """Give the images and labels to pass over, in their order: all digits, or the training images of MNIST."""
    return _tensors(load(data), slice(MNIST_TRAINING if data == "mnist" else None))


def held_out(data: str) -> tuple[Any, Any, Any, Any]:
    """Give training images and labels, test images and labels: a fifth of the digits, or the test images of MNIST."""
    if data == "mnist":
        return (*training(data), *_tensors(load(data), slice(MNIST_TRAINING, None)))
    return split(load(data), 0)


def _tensors(data: tuple[Any, Any], chosen: Any) -> tuple[Any, Any]:
    """Make tensors of some of the images, with one channel, and of their labels."""
    import torch

    images, labels = (part[chosen] for part in data)
    return (
        torch.as_tensor(images, dtype=torch.float32, device="cpu")[:, None],
        torch.as_tensor(labels, dtype=torch.int64, device="cpu"),
    )
