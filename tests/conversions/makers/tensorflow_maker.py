"""A small Keras model in every form that can be converted, with its own answers."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from talk import keep
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SIZES = ((1, 8, 48), (3, 21, 24), (16, 48, 8))


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), name="image")
    found = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    found = keras.layers.BatchNormalization()(found)
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(found)
    scores = keras.layers.Dense(5, activation="softmax", name="scores")(embedding)
    model = keras.Model(image, [embedding, scores])
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    model.export(folder / "saved", verbose=False)
    freeze(folder, model)
    random = np.random.default_rng(0)
    for number, (count, height, width) in enumerate(SIZES):
        given = random.random((count, height, width, 3), np.float32)
        answer = [one.numpy() for one in model(given, training=False)]
        keep(folder, number, {"image": given}, {"embedding": answer[0], "scores": answer[1]})


def freeze(folder: Path, model: keras.Model) -> None:
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="image")
    function = tf.function(lambda image: model(image, training=False)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(function)
    tf.io.write_graph(frozen.graph.as_graph_def(), str(folder), "frozen.pb", as_text=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
