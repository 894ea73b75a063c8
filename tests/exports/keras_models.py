"""Networks of keras 3, which exports with its torch backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

from tests.exports.architecture import Architecture, collected

Built = tuple[Any, tuple[Any, ...]]


def built(shape: tuple[int, ...], body: Callable[[Any], Any], dtype: str = "float32") -> Built:
    """A model, called once: keras exports no other."""
    x = keras.Input(shape, dtype=dtype)
    model = keras.Model(x, body(x))
    example = np.zeros((1, *shape), dtype)
    model(example)
    return model, (example,)


def stacked(*body: Any) -> Callable[[Any], Any]:
    return keras.Sequential(list(body))


def cnn(x: Any) -> Any:
    return stacked(
        layers.Conv2D(8, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    )(x)


def separable(x: Any) -> Any:
    return stacked(
        layers.SeparableConv2D(8, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
    )(x)


def residual(x: Any) -> Any:
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    z = layers.Conv2D(4, 3, padding="same")(y)
    return layers.Dense(3)(layers.Flatten()(layers.Activation("relu")(layers.add([y, z]))))


def autoencoder(x: Any) -> Any:
    return stacked(
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
        layers.UpSampling2D(2),
        layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
    )(x)


def attention(x: Any) -> Any:
    y = layers.Attention()([x, layers.Dense(8)(x)])
    y = layers.LayerNormalization()(x + y)
    return layers.LayerNormalization()(y + layers.Dense(8)(layers.Dense(16, activation="gelu")(y)))


_MODELS: dict[str, Callable[[], Built]] = {
    "keras_mlp": partial(
        built, (8,), lambda x: stacked(layers.Dense(16, activation="relu"), layers.Dense(3))(x)
    ),
    "keras_cnn": partial(built, (12, 12, 1), cnn),
    "keras_separable": partial(built, (8, 8, 3), separable),
    "keras_residual": partial(built, (8, 8, 3), residual),
    "keras_autoencoder": partial(built, (8, 8, 1), autoencoder),
    "keras_conv1d": partial(
        built,
        (12, 3),
        lambda x: stacked(
            layers.Conv1D(4, 3, padding="causal", activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2),
        )(x),
    ),
    "keras_lstm": partial(built, (4, 3), lambda x: layers.Dense(2)(layers.LSTM(5)(x))),
    "keras_gru": partial(built, (4, 3), lambda x: layers.Dense(2)(layers.GRU(5)(x))),
    "keras_bidirectional": partial(
        built, (4, 3), lambda x: layers.Dense(2)(layers.Bidirectional(layers.LSTM(4))(x))
    ),
    "keras_attention": partial(built, (5, 8), attention),
    "keras_embedding": partial(
        built,
        (6,),
        lambda x: stacked(
            layers.Embedding(20, 8), layers.GlobalAveragePooling1D(), layers.Dense(2)
        )(x),
        "int32",
    ),
    "keras_activations": partial(
        built,
        (8,),
        lambda x: stacked(
            *[layers.Dense(6, activation=a) for a in ("elu", "selu", "swish", "softplus", "tanh")]
        )(x),
    ),
}

ARCHITECTURES: list[Architecture] = collected("keras", _MODELS)
