"""The Keras models that are compared by default, on handwritten digits, with the weights that Keras initialises."""

from __future__ import annotations

from typing import Any

__all__ = ["mixed", "relus"]

IMAGES = 64
"""How many images the loss is taken over."""


def relus() -> tuple[Any, ...]:
    """Give (model, loss, images, labels) of a plain convolutional network: zero biases on blank pixels."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ],
        name="relus",
    )
    return model, *_digits()


def mixed() -> tuple[Any, ...]:
    """Give the same of a network with leaky relus, a maximum of two layers, and a sparse bias."""
    import keras

    layers = keras.layers
    images = keras.Input((8, 8, 1))
    leaky = layers.LeakyReLU(negative_slope=0.2, name="leaky")(layers.Conv2D(4, 3, name="conv")(images))
    left, right = (layers.Conv2D(4, 3, name=name)(images) for name in ("left", "right"))
    largest = layers.Maximum(name="maximum")([left, right])
    pooled = layers.MaxPooling2D(2, name="pool")(layers.Concatenate(name="join")([leaky, largest]))
    sparse = keras.regularizers.L1(0.001)
    logits = layers.Dense(10, bias_regularizer=sparse, name="logits")(layers.Flatten(name="flatten")(pooled))
    return keras.Model(images, logits, name="mixed"), *_digits()


def _digits() -> tuple[Any, ...]:
    """Give the loss and the data."""
    import keras
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[:IMAGES, :, :, None] / 16).astype("float32")
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True), images, data.target[:IMAGES].astype("int32")
