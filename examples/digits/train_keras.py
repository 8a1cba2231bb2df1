"""The same classifier in Keras, on the backend that KERAS_BACKEND names."""

import sys
from pathlib import Path

import keras
import numpy as np
from problem import BATCH, LAYERS, LEARNING_RATE, data, epochs, finish, initial_weights

from adabelief_tf import AdaBelief

train_x, train_y, test_x, test_y = data()
weights = initial_weights()

model = keras.Sequential(
    [
        keras.layers.Input((LAYERS[0],)),
        keras.layers.Dense(LAYERS[1], activation="relu"),
        keras.layers.Dense(LAYERS[2], activation="relu"),
        keras.layers.Dense(LAYERS[3]),
    ]
)
model.set_weights(list(weights.values()))
model.compile(
    optimizer=AdaBelief(learning_rate=LEARNING_RATE),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)

losses, accuracies = [], []
for batches in epochs("keras"):
    order = np.concatenate(batches)
    history = model.fit(train_x[order], train_y[order], batch_size=BATCH, shuffle=False, verbose=0)
    losses.append(history.history["loss"][0])
    accuracies.append(float((model.predict(test_x, verbose=0).argmax(1) == test_y).mean()))

finish(f"keras/{keras.backend.backend()}", Path(sys.argv[1]), losses, accuracies)
