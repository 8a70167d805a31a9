"""Models of Keras for the comparison of its backends: NAME() returns (model, loss, *inputs, target)."""

from __future__ import annotations

from typing import Any

import numpy as np


def digits(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[:count, :, :, None] / 16).astype("float32"), data.target[:count].astype("int32")


def convolutional() -> tuple[Any, ...]:
    import keras

    layers = keras.layers
    body = [layers.Conv2D(3, 3, activation="relu", name="conv"), layers.MaxPooling2D(2, name="pool")]
    rest = [
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(10, name="head"),
    ]
    model = keras.Sequential([layers.Input((8, 8, 1)), *body, *rest], name="net")
    return model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), *digits()


def differing() -> tuple[Any, ...]:
    """Operations at whose kinks the frameworks differ: leaky relu and abs in JAX, maximum in TensorFlow."""
    import keras

    layers = keras.layers
    images = keras.Input((8, 8, 1))
    leaky = layers.LeakyReLU(negative_slope=0.2, name="leaky")(layers.Conv2D(2, 3, name="conv")(images))
    largest = layers.Maximum(name="maximum")([layers.Conv2D(2, 3, name=name)(images) for name in ("left", "right")])
    flat = layers.Flatten()(layers.Concatenate()([leaky, largest]))
    head = layers.Dense(10, bias_regularizer=keras.regularizers.L1(0.01), name="head")(flat)
    return (
        keras.Model(images, head, name="net"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        *digits(),
    )


def unbuilt() -> tuple[Any, ...]:
    import keras

    return keras.Sequential([keras.layers.Dense(2)], name="bare"), keras.losses.MeanSquaredError(), *digits()


def drawing() -> tuple[Any, ...]:
    import keras

    images = keras.Input((8, 8, 1))
    drawn = keras.layers.Dropout(0.5)(keras.layers.Flatten()(images), training=True)
    model = keras.Model(images, keras.layers.Dense(10)(drawn), name="net")
    return model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), *digits()


def no_model() -> tuple[Any, ...]:
    return (lambda x: x), None, *digits()
