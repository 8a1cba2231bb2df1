"""A Keras train step, forward and backward pass included, beside keras.optimizers.AdamW."""

import keras
import numpy as np
from common import ROUNDS, median_ms, report

from adabelief_tf import AdaBelief

OURS = "adabelief_tf.AdaBelief"
WIDTH = 1024

x = np.random.default_rng(0).standard_normal((32, WIDTH)).astype("float32")
y = np.zeros((32, WIDTH), "float32")


def contender(optimizer):
    layers = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(10)]
    model = keras.Sequential([keras.layers.Input((WIDTH,)), *layers])
    model.compile(optimizer=optimizer, loss="mse")

    def call():
        return model.train_on_batch(x, y)

    return call


calls = {OURS: contender(AdaBelief(1e-3)), "keras.optimizers.AdamW": contender(keras.optimizers.AdamW(1e-3))}
case = f"Keras on {keras.backend.backend()}, train step, 10 million float32"
report(case, OURS, median_ms(calls, 2 * ROUNDS))
