"""The classifier in NumPy, with the backward pass by hand; it also records its gradients for the others."""

import sys
from pathlib import Path

import numpy as np
from problem import LEARNING_RATE, data, epochs, finish, initial_weights

from adabelief_core import AdaBelief

folder = Path(sys.argv[1])
train_x, train_y, test_x, test_y = data()
params = initial_weights()
optimizer = AdaBelief(params, lr=LEARNING_RATE)


def forward(x):
    activations = [x]
    for i in range(3):
        z = activations[-1] @ params[f"kernel{i}"] + params[f"bias{i}"]
        activations.append(np.maximum(z, 0) if i < 2 else z)
    return activations


def loss_and_gradients(x, y):
    *inputs, logits = forward(x)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    back = np.exp(log_p)
    back[rows, y] -= 1
    back /= np.float32(len(y))
    grads = {}
    for i in (2, 1, 0):
        grads[f"kernel{i}"], grads[f"bias{i}"] = inputs[i].T @ back, back.sum(axis=0)
        back = (back @ params[f"kernel{i}"].T) * (inputs[i] > 0)
    return -log_p[rows, y].mean(), grads


losses, accuracies, stream = [], [], []
for batches in epochs("numpy"):
    total = 0.0
    for batch in batches:
        loss, grads = loss_and_gradients(train_x[batch], train_y[batch])
        optimizer.step(grads)
        stream.append(grads)
        total += float(loss)
    losses.append(total / len(batches))
    accuracies.append(float((forward(test_x)[-1].argmax(axis=1) == test_y).mean()))

np.savez(folder / "gradients.npz", **{name: np.stack([grads[name] for grads in stream]) for name in params})
finish("numpy", folder, losses, accuracies)
